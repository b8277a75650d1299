//! A socket of the kernel.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use ioth_core::descriptor::{Descriptor, Open};
use ioth_core::{Errno, Events, Mmsg, MsgFlags, RecvMsg, Result, SendMsg, Shutdown, SockAddr, Socket};

use ioth_core::spin::History;
use ioth_vde::Waiter;
use parking_lot::Mutex;

use crate::attend::{self, Call};
use crate::calls;

/// A socket of the host's kernel.
///
/// It owns its descriptor until [`release_fd`](Socket::release_fd) hands it to the caller, as [`Descriptor`] says.
/// As the descriptor is [`native`](Socket::native), plain system calls on it or on its duplicates do the same.
#[derive(Debug)]
pub struct KernelSocket {
    fd: Descriptor,
    /// Held by who changes whether the socket blocks.
    mode: Mutex<()>,
    // After the descriptor, whose close may send the last that is to be carried.
    carrier: Carrying,
}

/// Takes to the network what calls have had the kernel send, where that is done in this process: in the caller's thread, so
/// that none other has to wake up for it.
///
/// Nothing here waits.
pub(crate) trait Carrier: Send + Sync + fmt::Debug + 'static {
    /// Moves what there is, unless another thread is at it.
    fn carry(&self);

    /// Until [`release`](Self::release) nobody wakes up for what is sent. The caller does not wait meanwhile, and carries then.
    fn hold(&self);

    fn release(&self);

    /// [`Link::attend`](ioth_vde::Link::attend), where there is one link.
    fn attend(&self, waiter: &mut dyn Waiter) -> bool;

    /// How those who waited so fared.
    fn history(&self) -> &History;
}

/// A call that carries what it sends, and does not wait.
struct Hold<'a>(&'a dyn Carrier);

impl<'a> Hold<'a> {
    fn new(carrier: &'a dyn Carrier) -> Self {
        carrier.hold();
        Hold(carrier)
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.carry();
        self.0.release();
    }
}

/// The longest message, in bytes, that a call carries by itself: less than one packet has room for. Of what is long the kernel sends the
/// beginning while it still takes the rest, and another thread had better carry that.
const AT_ONCE: usize = 1024;

/// Who carries for a socket; once more when that is dropped.
#[derive(Clone, Debug)]
struct Carrying(Option<Arc<dyn Carrier>>);

impl Carrying {
    fn now(&self) {
        if let Some(carrier) = &self.0 {
            carrier.carry();
        }
    }
}

impl Drop for Carrying {
    fn drop(&mut self) {
        self.now();
    }
}

impl KernelSocket {
    pub(crate) fn new(fd: OwnedFd, open: Open) -> Self {
        KernelSocket::with_carrier(fd, open, Carrying(None))
    }

    /// A socket whose kernel's frames `carrier` carries.
    pub(crate) fn carried(fd: OwnedFd, open: Open, carrier: Arc<dyn Carrier>) -> Self {
        KernelSocket::with_carrier(fd, open, Carrying(Some(carrier)))
    }

    fn with_carrier(fd: OwnedFd, open: Open, carrier: Carrying) -> Self {
        KernelSocket { fd: Descriptor::new(fd, open), mode: Mutex::default(), carrier }
    }

    /// Begins a connection, and moves its packets while it waits for the answer. `None`: connect(2) has to be called, for the first
    /// time or to hear what came of it.
    fn begin_connection(&self, addr: &SockAddr) -> Option<Result<()>> {
        let (carrier, fd) = (self.carrier.0.as_deref()?, self.fd.owned()?);
        let option = |name| {
            let mut value = [0; size_of::<libc::timeval>()];
            let len = calls::option(fd.as_fd(), libc::SOL_SOCKET, name, &mut value).ok()?;
            Some(value[..len].to_vec())
        };
        // With a time-out the call that is made once more would begin it anew.
        if option(libc::SO_PROTOCOL)? != libc::IPPROTO_TCP.to_ne_bytes()
            || option(libc::SO_SNDTIMEO)?.iter().any(|&b| b > 0)
        {
            return None;
        }
        // Nobody else has the descriptor, whose mode is another one for a moment.
        let mode = self.mode.lock();
        if calls::nonblocking(fd.as_fd()) != Ok(false) || calls::set_nonblocking(fd.as_fd(), true).is_err() {
            return None;
        }
        let hold = Hold::new(carrier);
        let begun = calls::connect(fd.as_fd(), addr);
        let blocks = calls::set_nonblocking(fd.as_fd(), false);
        drop(hold);
        drop(mode);
        match (begun, blocks) {
            (_, Err(errno)) => Some(Err(errno)),
            (Err(Errno::EINPROGRESS), _) => attend::wait_connected(&fd, carrier).err().map(Err),
            // Another thread's.
            (Err(Errno::EALREADY), _) => None,
            (begun, _) => Some(begun),
        }
    }

    /// A short message, where the call does not wait; `None` where it would, and for all others.
    fn send_at_once(&self, message: &SendMsg<'_>, flags: MsgFlags) -> Option<Result<usize>> {
        let carrier = self.carrier.0.as_deref()?;
        let len = message.len();
        let plain = MsgFlags::NOSIGNAL | MsgFlags::DONTWAIT;
        if len > AT_ONCE || !plain.contains(flags) {
            return None;
        }
        // A stream takes a part of the message if it has no room for all, and must not here: with nothing queued it has room.
        let queued = self.with(calls::unsent);
        if queued.is_ok_and(|bytes| bytes > 0) {
            return None;
        }
        let hold = Hold::new(carrier);
        let sent = self.with(|fd| calls::send(fd, message, flags | MsgFlags::DONTWAIT));
        drop(hold);
        match sent {
            Err(Errno::EAGAIN) if !flags.contains(MsgFlags::DONTWAIT) => None,
            sent => Some(sent),
        }
    }

    /// Waits before a call that would wait for what comes, and moves that.
    fn wait(&self, call: Call) -> Result<()> {
        match (self.carrier.0.as_deref(), self.fd.owned()) {
            (Some(carrier), Some(fd)) => attend::wait(&fd, call, carrier),
            _ => Ok(()),
        }
    }

    /// A call that may send.
    fn sending<T>(&self, call: impl FnOnce(BorrowedFd<'_>) -> Result<T>) -> Result<T> {
        let outcome = self.with(call);
        self.carrier.now();
        outcome
    }

    fn with<T>(&self, call: impl FnOnce(BorrowedFd<'_>) -> Result<T>) -> Result<T> {
        self.fd.with(call)
    }
}

impl Socket for KernelSocket {
    fn bind(&self, addr: &SockAddr) -> Result<()> {
        self.with(|fd| calls::bind(fd, addr))
    }

    fn connect(&self, addr: &SockAddr) -> Result<()> {
        match self.begin_connection(addr) {
            Some(outcome) => outcome,
            None => self.sending(|fd| calls::connect(fd, addr)),
        }
    }

    fn listen(&self, backlog: i32) -> Result<()> {
        self.with(|fd| calls::listen(fd, backlog))
    }

    fn accept(&self) -> Result<(Arc<dyn Socket>, SockAddr)> {
        let open = self.fd.open()?;
        self.wait(Call::Accept)?;
        let (fd, addr) = self.with(calls::accept)?;
        Ok((Arc::new(KernelSocket::with_carrier(fd, open, self.carrier.clone())), addr))
    }

    fn local_addr(&self) -> Result<SockAddr> {
        self.with(calls::local_addr)
    }

    fn peer_addr(&self) -> Result<SockAddr> {
        self.with(calls::peer_addr)
    }

    fn send(&self, message: &SendMsg<'_>, flags: MsgFlags) -> Result<usize> {
        match self.send_at_once(message, flags) {
            Some(sent) => sent,
            None => self.sending(|fd| calls::send(fd, message, flags)),
        }
    }

    fn recv(&self, message: &mut RecvMsg<'_, '_>, flags: MsgFlags) -> Result<usize> {
        if attend::WAITING.contains(flags) {
            self.wait(Call::Receive)?;
        }
        self.with(|fd| calls::recv(fd, message, flags))
    }

    fn send_many(&self, messages: &mut [Mmsg<SendMsg<'_>>], flags: MsgFlags) -> Result<usize> {
        self.sending(|fd| calls::send_many(fd, messages, flags))
    }

    fn recv_many(
        &self,
        messages: &mut [Mmsg<RecvMsg<'_, '_>>],
        flags: MsgFlags,
        timeout: Option<&mut Duration>,
    ) -> Result<usize> {
        self.with(|fd| calls::recv_many(fd, messages, flags, timeout))
    }

    fn set_option(&self, level: i32, name: i32, value: &[u8]) -> Result<()> {
        self.with(|fd| calls::set_option(fd, level, name, value))
    }

    fn option(&self, level: i32, name: i32, value: &mut [u8]) -> Result<usize> {
        self.with(|fd| calls::option(fd, level, name, value))
    }

    fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.sending(|fd| calls::shutdown(fd, how))
    }

    fn ioctl(&self, request: u64, argument: &mut [u8]) -> Result<i32> {
        let _mode = (request == libc::FIONBIO).then(|| self.mode.lock());
        self.with(|fd| calls::ioctl(fd, request, argument))
    }

    fn set_nonblocking(&self, nonblocking: bool) -> Result<()> {
        let _mode = self.mode.lock();
        self.with(|fd| calls::set_nonblocking(fd, nonblocking))
    }

    fn events(&self) -> Events {
        self.fd.events()
    }

    fn poll_ready(&self, interest: Events, waker: &Waker) -> Poll<Events> {
        self.fd.poll_ready(interest, waker)
    }

    fn release_fd(&self) -> Result<OwnedFd> {
        self.fd.release()
    }

    fn native(&self) -> bool {
        true
    }

    fn close(&self) -> Result<()> {
        let closed = self.fd.close(|fd| {
            let _ = calls::shutdown(fd, Shutdown::Both);
        });
        self.carrier.now();
        closed
    }
}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, IoSliceMut};
    use std::sync::mpsc;
    use std::task::Wake;

    use ioth_core::{Domain, Errno, SocketType, Stack};

    use super::*;
    use crate::KernelStack;

    struct Told(mpsc::Sender<()>);

    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(());
        }
    }

    fn waker() -> (Waker, mpsc::Receiver<()>) {
        let (tell, told) = mpsc::channel();
        (Arc::new(Told(tell)).into(), told)
    }

    fn udp(stack: &KernelStack) -> Arc<dyn Socket> {
        let socket = stack.socket(Domain::INET, SocketType::DGRAM, 0).unwrap();
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket
    }

    fn send(from: &dyn Socket, to: &dyn Socket) {
        let addr = to.local_addr().unwrap();
        let data = [IoSlice::new(b"hello")];
        let message = SendMsg { addr: Some(&addr), ..SendMsg::new(&data) };
        assert_eq!(from.send(&message, MsgFlags::empty()), Ok(5));
    }

    #[test]
    fn a_waker_is_woken_once_for_its_interest() {
        let stack = KernelStack::new();
        let (a, b) = (udp(&stack), udp(&stack));
        let (waker, told) = waker();
        assert_eq!(b.poll_ready(Events::IN, &waker), Poll::Pending);
        assert_eq!(b.poll_ready(Events::IN, &waker), Poll::Pending);
        assert!(told.try_recv().is_err());
        send(&*a, &*b);
        told.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(b.poll_ready(Events::IN, &waker), Poll::Ready(Events::IN | Events::OUT));
        let mut buffer = [0; 8];
        let mut data = [IoSliceMut::new(&mut buffer)];
        let mut message = RecvMsg::new(&mut data);
        assert_eq!(b.recv(&mut message, MsgFlags::empty()), Ok(5));
        assert_eq!(message.addr, a.local_addr().ok());
        // It waits anew, and is told of the end.
        assert_eq!(b.poll_ready(Events::IN, &waker), Poll::Pending);
        b.close().unwrap();
        told.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(told.try_recv().is_err());
        assert!(b.poll_ready(Events::IN, &waker).is_ready());
    }

    #[test]
    fn the_released_descriptor_is_the_users() {
        let stack = KernelStack::new();
        let (a, b) = (udp(&stack), udp(&stack));
        let fd = b.release_fd().unwrap();
        assert_eq!(b.release_fd().err(), Some(Errno::EEXIST));
        assert!(b.native());
        let (waker, told) = waker();
        assert_eq!(b.poll_ready(Events::IN, &waker), Poll::Pending);
        send(&*a, &*b);
        told.recv_timeout(Duration::from_secs(10)).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(nix::unistd::read(&fd, &mut buffer), Ok(5));
        assert_eq!(b.events(), Events::OUT);
        drop(fd);
        assert_eq!(b.local_addr(), Err(Errno::EBADF));
        assert_eq!(b.events(), Events::ERR | Events::HUP);
        drop(b);
        drop(a);
        assert_eq!(stack.delete(), Ok(()));
    }

    #[test]
    fn an_end_of_stream_is_seen() {
        let stack = KernelStack::new();
        let [a, listener] = [(); 2].map(|()| stack.socket(Domain::INET, SocketType::STREAM, 0).unwrap());
        assert_eq!(a.events(), Events::OUT | Events::HUP);
        listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(1).unwrap();
        a.connect(&listener.local_addr().unwrap()).unwrap();
        assert_eq!(a.events(), Events::OUT);
        listener.accept().unwrap().0.shutdown(Shutdown::Write).unwrap();
        let (waker, told) = waker();
        if a.poll_ready(Events::RDHUP, &waker).is_pending() {
            told.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        assert!(a.events().contains(Events::IN | Events::RDHUP));
    }

    #[test]
    fn requests_and_options_that_could_write_elsewhere_are_refused() {
        let socket = udp(&KernelStack::new());
        let mut value = [0; 64];
        assert_eq!(socket.ioctl(libc::FIONREAD as _, &mut value[..2]), Err(Errno::EINVAL));
        assert_eq!(socket.ioctl(libc::FIONREAD as _, &mut value[..4]), Ok(0));
        let ethtool = 0x8946; // SIOCETHTOOL holds a pointer
        assert_eq!(socket.ioctl(ethtool, &mut value), Err(Errno::ENOTTY));
        // Its length counts instructions, of which there are none.
        assert_eq!(socket.option(libc::SOL_SOCKET, libc::SO_GET_FILTER, &mut value), Ok(0));
        assert_eq!(socket.option(libc::SOL_SOCKET, libc::SO_TYPE, &mut value), Ok(4));
        assert_eq!(value[..4], libc::SOCK_DGRAM.to_ne_bytes());
        // Interface 1 is the loopback's everywhere.
        let mut request = [0; size_of::<libc::ifreq>()];
        request[..2].copy_from_slice(b"lo");
        assert_eq!(socket.ioctl(0x8933, &mut request), Ok(0));
        assert_eq!(request[16..20], 1i32.to_ne_bytes());
    }
}
