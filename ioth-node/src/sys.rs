//! The one place of this crate that the compiler cannot check.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use ioth::Events;

/// Owns a descriptor that came as SCM_RIGHTS.
///
/// Called by [`pair`](crate::pair) alone, once for each number that recvmsg(2) has just put into this process.
pub(crate) fn received(fd: RawFd) -> OwnedFd {
    // nix hands received descriptors over as numbers.
    // SAFETY: the kernel opened it for this message, so nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// What poll(2) says now, of `interest` and of `ERR` and `HUP`.
pub(crate) fn poll(fd: BorrowedFd<'_>, interest: Events) -> Events {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: interest.bits() as i16, revents: 0 };
    // nix's does not know POLLRDHUP.
    // SAFETY: one entry, of this function; without a time-out the call does not wait.
    match unsafe { libc::poll(&raw mut poll, 1, 0) } {
        1 => Events::from_bits_truncate(u32::from(poll.revents as u16)),
        _ => Events::empty(),
    }
}

/// glibc's resolver, which says what is right.
#[cfg(test)]
pub(crate) mod judge {
    use std::ffi::{CStr, CString};
    use std::net::{IpAddr, SocketAddr};
    use std::ptr::{null, null_mut};

    use crate::names::{Answer, Found, Query};

    unsafe extern "C" {
        /// nss.h; not in libc.
        fn __nss_configure_lookup(database: *const libc::c_char, sources: *const libc::c_char)
        -> libc::c_int;
    }

    /// Lets glibc look where we do, whatever nsswitch.conf(5) says here.
    fn configure() {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            for (database, sources) in [(c"hosts", c"files dns"), (c"services", c"files")] {
                // The judge is a C function.
                // SAFETY: both are C strings, of which it keeps nothing.
                assert_eq!(unsafe { __nss_configure_lookup(database.as_ptr(), sources.as_ptr()) }, 0);
            }
        });
    }

    /// getaddrinfo(3): what it gives, or its error.
    pub(crate) fn addresses(query: &Query<'_>) -> Result<Answer, i32> {
        configure();
        let text =
            |text: Option<&str>| text.map(|text| CString::new(text).expect("no NUL in a test's names"));
        let (host, service) = (text(query.host), text(query.service));
        let pointer = |text: &Option<CString>| text.as_ref().map_or(null(), |text| text.as_ptr());
        let hints = libc::addrinfo {
            ai_flags: query.flags,
            ai_family: query.family,
            ai_socktype: query.kind,
            ai_protocol: query.protocol,
            ai_addrlen: 0,
            ai_addr: null_mut(),
            ai_canonname: null_mut(),
            ai_next: null_mut(),
        };
        let mut list = null_mut();
        // The judge is a C function.
        // SAFETY: texts and hints live on; `list` is set when it succeeds.
        let result = unsafe { libc::getaddrinfo(pointer(&host), pointer(&service), &hints, &mut list) };
        if result != 0 {
            return Err(result);
        }
        let mut answer = Answer::default();
        let mut at = list;
        // SAFETY: the list is one of getaddrinfo's, which is freed behind the loop.
        while let Some(info) = unsafe { at.as_ref() } {
            // SAFETY: `ai_addr` is as long as `ai_addrlen` says.
            let raw =
                unsafe { std::slice::from_raw_parts(info.ai_addr.cast::<u8>(), info.ai_addrlen as usize) };
            let addr = ioth::SockAddr::from_raw(raw).ok().and_then(|addr| addr.as_ip());
            answer.found.push(Found {
                kind: info.ai_socktype,
                protocol: info.ai_protocol,
                addr: addr.expect("an Internet address"),
            });
            if !info.ai_canonname.is_null() {
                // SAFETY: a C string of the list.
                let name = unsafe { CStr::from_ptr(info.ai_canonname) };
                answer.canonical = Some(name.to_string_lossy().into_owned());
            }
            at = info.ai_next;
        }
        // SAFETY: as above, once.
        unsafe { libc::freeaddrinfo(list) };
        Ok(answer)
    }

    /// The address that a text is to getaddrinfo(3).
    pub(crate) fn numeric(text: &str) -> Option<IpAddr> {
        let query = Query {
            host: Some(text),
            flags: libc::AI_NUMERICHOST,
            kind: libc::SOCK_STREAM,
            ..Query::default()
        };
        addresses(&query).ok()?.found.first().map(|found| SocketAddr::ip(&found.addr))
    }

    /// getnameinfo(3): host and service, or its error.
    pub(crate) fn name_info(
        raw: &[u8],
        flags: i32,
        wanted: (bool, bool),
    ) -> Result<(Option<String>, Option<String>), i32> {
        configure();
        let (mut host, mut service) = ([0u8; 1025], [0u8; 32]);
        let room = |wanted, room: usize| if wanted { room as libc::socklen_t } else { 0 };
        // sockaddr's alignment.
        let mut addr = [0u64; 8];
        for (at, byte) in raw.iter().enumerate() {
            addr[at / 8] |= u64::from(*byte) << (8 * (at % 8)).to_le();
        }
        // The judge is a C function.
        // SAFETY: all three buffers are as long as told.
        let result = unsafe {
            libc::getnameinfo(
                addr.as_ptr().cast(),
                raw.len() as libc::socklen_t,
                if wanted.0 { host.as_mut_ptr().cast() } else { null_mut() },
                room(wanted.0, host.len()),
                if wanted.1 { service.as_mut_ptr().cast() } else { null_mut() },
                room(wanted.1, service.len()),
                flags,
            )
        };
        let text = |wanted: bool, buffer: &[u8]| {
            let text = CStr::from_bytes_until_nul(buffer).expect("glibc ends it");
            wanted.then(|| text.to_string_lossy().into_owned())
        };
        if result == 0 { Ok((text(wanted.0, &host), text(wanted.1, &service))) } else { Err(result) }
    }
}
