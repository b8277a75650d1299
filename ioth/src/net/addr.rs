//! Addresses as arguments.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// What can be given as the address of a socket: `std::net::ToSocketAddrs` without names.
///
/// `std`'s resolves host names with libc, over the host's network whatever the stack: the question would leak out of
/// the network meant, and its answer would not belong there. Here text has to be a literal address, such as
/// `"10.0.0.1:80"`, `"[fd00::1]:80"` or `("fd00::1", 80)`.
pub trait ToSocketAddrs {
    /// The addresses, to be tried in order.
    ///
    /// # Errors
    /// `InvalidInput` for text that is not a literal address.
    fn to_socket_addrs(&self) -> io::Result<Vec<SocketAddr>>;
}

impl ToSocketAddrs for str {
    fn to_socket_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.parse().map(|addr| vec![addr]).map_err(|_| not_literal(self, "10.0.0.1:80 or [fd00::1]:80"))
    }
}

impl ToSocketAddrs for (&str, u16) {
    fn to_socket_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        let ip: IpAddr = self.0.parse().map_err(|_| not_literal(self.0, "10.0.0.1 or fd00::1"))?;
        Ok(vec![(ip, self.1).into()])
    }
}

impl ToSocketAddrs for (String, u16) {
    fn to_socket_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        (&*self.0, self.1).to_socket_addrs()
    }
}

impl ToSocketAddrs for String {
    fn to_socket_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        (**self).to_socket_addrs()
    }
}

impl ToSocketAddrs for [SocketAddr] {
    fn to_socket_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(self.to_vec())
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {
    fn to_socket_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        (**self).to_socket_addrs()
    }
}

macro_rules! literal {
    ($($kind:ty),*) => {$(
        impl ToSocketAddrs for $kind {
            fn to_socket_addrs(&self) -> io::Result<Vec<SocketAddr>> {
                Ok(vec![(*self).into()])
            }
        }
    )*};
}

literal!(SocketAddr, SocketAddrV4, SocketAddrV6, (IpAddr, u16), (Ipv4Addr, u16), (Ipv6Addr, u16));

fn not_literal(text: &str, right: &str) -> io::Error {
    let message =
        format!("\"{text}\" is not a literal address such as {right} (names are not resolved here)");
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// The first success of `each` over the addresses, else the last failure.
pub(super) fn first<T>(
    addrs: impl ToSocketAddrs,
    mut each: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no address given");
    for addr in addrs.to_socket_addrs()? {
        match each(addr) {
            Ok(done) => return Ok(done),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_only() {
        assert_eq!("[fd00::1]:80".to_socket_addrs().unwrap()[0].port(), 80);
        assert_eq!(("10.0.0.1", 80).to_socket_addrs().unwrap()[0].to_string(), "10.0.0.1:80");
        assert_eq!((Ipv6Addr::LOCALHOST, 7).to_socket_addrs().unwrap()[0].to_string(), "[::1]:7");
        for name in ["localhost:80", "10.0.0.1", "example.org:80", ""] {
            let error = name.to_socket_addrs().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}");
            assert!(error.to_string().contains(name));
        }
        assert!(("localhost", 80).to_socket_addrs().is_err());
    }

    #[test]
    fn the_last_failure_counts() {
        let none: &[SocketAddr] = &[];
        assert_eq!(first(none, Ok).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let two = ["10.0.0.1:1".parse().unwrap(), "10.0.0.1:2".parse().unwrap()];
        let port = |addr: SocketAddr| io::Error::other(addr.port().to_string());
        assert_eq!(first(&two[..], |addr| Err::<(), _>(port(addr))).unwrap_err().to_string(), "2");
        assert_eq!(first(&two[..], |addr| Ok(addr.port())).unwrap(), 1);
    }
}
