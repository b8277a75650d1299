//! The calls of a socket that the netlink client does not make. Tests of other crates include this file.

/// The methods of `Socket` that a test's netlink socket refuses; `core` is `ioth_core`, or `crate` within it.
macro_rules! refusing {
    ($core:ident) => {
        fn connect(&self, _: &$core::SockAddr) -> $core::Result<()> {
            Err($core::Errno::EOPNOTSUPP)
        }
        fn listen(&self, _: i32) -> $core::Result<()> {
            Err($core::Errno::EOPNOTSUPP)
        }
        fn accept(&self) -> $core::Result<(std::sync::Arc<dyn $core::Socket>, $core::SockAddr)> {
            Err($core::Errno::EOPNOTSUPP)
        }
        fn peer_addr(&self) -> $core::Result<$core::SockAddr> {
            Err($core::Errno::ENOTCONN)
        }
        fn option(&self, _: i32, _: i32, _: &mut [u8]) -> $core::Result<usize> {
            Err($core::Errno::ENOPROTOOPT)
        }
        fn shutdown(&self, _: $core::Shutdown) -> $core::Result<()> {
            Err($core::Errno::EOPNOTSUPP)
        }
        fn ioctl(&self, _: u64, _: &mut [u8]) -> $core::Result<i32> {
            Err($core::Errno::ENOTTY)
        }
        fn set_nonblocking(&self, _: bool) -> $core::Result<()> {
            Ok(())
        }
        fn events(&self) -> $core::Events {
            $core::Events::empty()
        }
        fn poll_ready(&self, _: $core::Events, _: &std::task::Waker) -> std::task::Poll<$core::Events> {
            std::task::Poll::Pending
        }
        fn close(&self) -> $core::Result<()> {
            Ok(())
        }
    };
}
