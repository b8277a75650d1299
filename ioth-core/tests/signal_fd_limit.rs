//! The signal fd in a process that has no descriptor left. Alone in its file, since a limit is the whole process's.

use std::os::fd::AsFd;

use ioth_core::{Errno, Events, Readiness};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[test]
fn without_a_pipe_the_end_shows_as_in_until_there_is_one() {
    let readiness = Readiness::new(Events::OUT);
    let user = readiness.make_signal_fd(Box::new(|| ())).unwrap();
    let shows = || {
        let mut polled = [PollFd::new(user.as_fd(), PollFlags::POLLIN | PollFlags::POLLOUT)];
        poll(&mut polled, PollTimeout::ZERO).unwrap();
        Events::from_bits_retain(u32::from(polled[0].revents().unwrap().bits() as u16))
    };
    let ended = Events::IN | Events::OUT | Events::RDHUP | Events::HUP;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Standard input, output and error have the numbers below.
    setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
    assert!(readiness.set(ended));
    readiness.notify();
    readiness.settle(user.as_fd());
    let without = shows();
    let none_left = Readiness::new(Events::OUT).make_signal_fd(Box::new(|| ())).unwrap_err();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    assert_eq!(without, Events::IN | Events::OUT);
    assert_eq!(none_left, Errno::EMFILE);
    readiness.settle(user.as_fd());
    // nix knows no POLLRDHUP to ask for.
    assert_eq!(shows(), ended - Events::RDHUP);
}
