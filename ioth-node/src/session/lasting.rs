//! Options that can be asked for when a connection is over and its descriptor is still open.

use ioth::Socket;

/// What programs ask of a connection, all ints. It stays as it was: nobody sets it any more.
const NAMES: [(i32, i32); 21] = [
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    (libc::SOL_SOCKET, libc::SO_REUSEADDR),
    (libc::SOL_SOCKET, libc::SO_REUSEPORT),
    (libc::SOL_SOCKET, libc::SO_BROADCAST),
    (libc::SOL_SOCKET, libc::SO_OOBINLINE),
    (libc::SOL_SOCKET, libc::SO_PRIORITY),
    (libc::SOL_SOCKET, libc::SO_SNDBUF),
    (libc::SOL_SOCKET, libc::SO_RCVBUF),
    (libc::SOL_SOCKET, libc::SO_ACCEPTCONN),
    (libc::IPPROTO_TCP, libc::TCP_NODELAY),
    (libc::IPPROTO_TCP, libc::TCP_CORK),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
    (libc::IPPROTO_TCP, libc::TCP_MAXSEG),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    (libc::IPPROTO_IP, libc::IP_TOS),
    (libc::IPPROTO_IP, libc::IP_TTL),
    (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
    (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
    (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
];

/// The values, of those that the socket had.
#[derive(Clone, Debug)]
pub(crate) struct Lasting([Option<i32>; NAMES.len()]);

impl Lasting {
    /// The values now.
    pub(super) fn of(socket: &dyn Socket) -> Lasting {
        Lasting(NAMES.map(|(level, name)| {
            let mut value = [0; 4];
            let len = socket.option(level, name, &mut value).ok()?;
            (len == value.len()).then_some(i32::from_ne_bytes(value))
        }))
    }

    /// The value that a socket had.
    pub(crate) fn value(&self, level: i32, name: i32) -> Option<i32> {
        self.0[NAMES.iter().position(|known| *known == (level, name))?]
    }
}
