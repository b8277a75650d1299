//! `ptp://` in both forms. Debian's plug speaks the older one.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use ioth_core::Errno;
use ioth_vde::{LinkError, open};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, listen, recv, send, socket,
};

use crate::plug::{Dir, PATIENCE, Plug, frame, wait_until};

fn files(dir: &Dir) -> Vec<String> {
    let entries = std::fs::read_dir(dir.path("")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn both_ends_ours() {
    for options in ["", "[old]"] {
        let dir = Dir::new();
        let vnl = format!("ptp://{}{options}", dir.path("cable"));
        let first = Plug::new(&vnl);
        first.send([frame(2, 1, 60, 9)]);
        assert_eq!(first.link.counters().tx_unreachable, 1);
        let second = Plug::new(&vnl);
        first.exchange(&second, 1514);
        let error = open(&vnl).unwrap_err();
        assert_eq!(error.errno(), Errno::EISCONN, "{error}");
        assert!(error.to_string().contains("two programs have it"), "{error}");
        first.exchange(&second, 1514);
        drop((first, second));
        assert_eq!(files(&dir), [""; 0]);
    }
}

#[test]
fn either_end_can_be_plugged_in_again() {
    for options in ["", "[old]"] {
        let dir = Dir::new();
        let vnl = format!("ptp://{}{options}", dir.path("cable"));
        let mut ends = [Plug::new(&vnl), Plug::new(&vnl)];
        for round in 0..6 {
            ends[0].exchange(&ends[1], 600);
            // The one that stays may be the first or the second.
            let gone = usize::from(round % 3 == 0);
            ends[gone].link.detach();
            let deadline = Instant::now() + PATIENCE;
            let next = loop {
                match open(&vnl) {
                    // Until it has noticed, the one that stays has its cable still.
                    Err(error) if error.errno() == Errno::EISCONN && Instant::now() < deadline => (),
                    other => break Plug::over(other.unwrap()),
                }
            };
            ends[gone] = next;
        }
        drop(ends);
        assert_eq!(files(&dir), [""; 0]);
    }
}

#[test]
fn the_older_form_with_upstreams() {
    let dir = Dir::new();
    let path = dir.path("cable");
    // They are first, and leave; we are first then, in the form that they know.
    let theirs = Plug::new(&format!("cmd://vde_plug ptp://{path}"));
    wait_until("their socket", || Path::new(&path).exists());
    let ours = Plug::new(&format!("ptp://{path}"));
    assert_eq!(files(&dir), ["cable", "cable+"]);
    ours.exchange(&theirs, 1514);
    drop(theirs);
    wait_until("end of their socket", || !Path::new(&path).exists());
    ours.send([frame(2, 1, 60, 1)]);
    assert!(ours.link.counters().tx_unreachable > 0);
    let theirs = Plug::new(&format!("cmd://vde_plug ptp://{path}"));
    ours.exchange(&theirs, 1514);
    drop((ours, theirs));
    wait_until("end of the sockets", || files(&dir).is_empty());

    let ours = Plug::new(&format!("ptp://{path}[old]"));
    for _ in 0..3 {
        let theirs = Plug::new(&format!("cmd://vde_plug ptp://{path}"));
        ours.exchange(&theirs, 1514);
        drop(theirs);
        wait_until("end of their socket", || files(&dir) == ["cable"]);
    }
}

fn seqpacket() -> OwnedFd {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap()
}

/// Why a first end has to be told: Debian's plug looks, finds a socket of another kind, and goes without a trace.
#[test]
fn upstreams_older_plug_gives_up_at_the_newer_form() {
    let dir = Dir::new();
    let path = dir.path("cable");
    let first = Plug::new(&format!("ptp://{path}"));
    let theirs = Plug::new(&format!("cmd://vde_plug ptp://{path}"));
    let cause = theirs.seen.down().to_string();
    assert!(cause.contains("exit status: 1"), "{cause}");
    assert_eq!(files(&dir), ["cable"]);
    // Ours is as it was, for who speaks its form.
    let second = Plug::new(&format!("ptp://{path}"));
    first.exchange(&second, 1514);
}

/// Byte for byte what Debian's plug does, as strace(1) shows it.
#[test]
fn the_older_form_byte_for_byte() {
    let dir = Dir::new();
    let (path, second) = (dir.path("cable"), format!("{}+", dir.path("cable")));
    let dgram = || {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        socket(AddressFamily::Unix, SockType::Datagram, flags, None).unwrap()
    };
    let name = |path: &str| UnixAddr::new(path).unwrap();
    let read = |fd: &OwnedFd| {
        let mut buffer = [0; 2000];
        let mut len = None;
        wait_until("a datagram", || {
            len = recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()).ok();
            len.is_some()
        });
        buffer[..len.unwrap()].to_vec()
    };
    // As the first end it connects when it has something to send, and somebody is there.
    let theirs = dgram();
    bind(theirs.as_raw_fd(), &name(&path)).unwrap();
    let ours = Plug::new(&format!("ptp://{path}"));
    assert_eq!(files(&dir), ["cable", "cable+"]);
    ours.send([frame(2, 1, 60, 1)]);
    assert_eq!(read(&theirs), frame(2, 1, 60, 1), "the frame alone");
    connect(theirs.as_raw_fd(), &name(&second)).unwrap();
    send(theirs.as_raw_fd(), &frame(1, 2, 60, 2), MsgFlags::empty()).unwrap();
    assert_eq!(ours.seen.frames(1), [frame(1, 2, 60, 2)]);
    drop(ours);
    assert_eq!(read(&theirs), [0; 0], "goodbye");
    assert_eq!(files(&dir), ["cable"]);
    drop(theirs);
    std::fs::remove_file(&path).unwrap();
    // As the second one it connects by a socket without a name, and by one that gets a name next.
    let ours = Plug::new(&format!("ptp://{path}[old]"));
    let theirs = dgram();
    connect(dgram().as_raw_fd(), &name(&path)).unwrap();
    connect(theirs.as_raw_fd(), &name(&path)).unwrap();
    bind(theirs.as_raw_fd(), &name(&second)).unwrap();
    send(theirs.as_raw_fd(), &frame(1, 2, 60, 3), MsgFlags::empty()).unwrap();
    assert_eq!(ours.seen.frames(1), [frame(1, 2, 60, 3)]);
    ours.send([frame(2, 1, 60, 4)]);
    assert_eq!(read(&theirs), frame(2, 1, 60, 4));
    assert_eq!(ours.link.counters().losses().iter().map(|(_, count)| count).sum::<u64>(), 0);
}

fn listener(path: &str) -> OwnedFd {
    let fd = seqpacket();
    bind(fd.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    listen(&fd, Backlog::new(1).unwrap()).unwrap();
    fd
}

#[test]
fn the_newer_form_as_it_is_on_the_wire() {
    let dir = Dir::new();
    let path = dir.path("cable");
    let call = || {
        let fd = seqpacket();
        connect(fd.as_raw_fd(), &UnixAddr::new(&*path).unwrap()).unwrap();
        fd
    };
    let mut byte = [0; 9];
    let plug = Plug::new(&format!("ptp://{path}[mode=0750]"));
    let mode = std::fs::metadata(&path).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o750);
    let caller = call();
    assert_eq!((recv(caller.as_raw_fd(), &mut byte, MsgFlags::empty()), byte[0]), (Ok(1), 0));
    // Others are told so, again and again.
    for _ in 0..50 {
        let other = call();
        let told = (recv(other.as_raw_fd(), &mut byte, MsgFlags::empty()), byte[0]);
        assert_eq!(told, (Ok(1), Errno::EISCONN as u8));
        assert_eq!(recv(other.as_raw_fd(), &mut byte, MsgFlags::empty()), Ok(0));
    }
    for bytes in [&frame(2, 1, 60, 1)[..], &[0; 13], &[0; 1519], &frame(2, 1, 14, 2)] {
        send(caller.as_raw_fd(), bytes, MsgFlags::empty()).unwrap();
    }
    assert_eq!(plug.seen.frames(2), [frame(2, 1, 60, 1), frame(2, 1, 14, 2)]);
    assert_eq!(plug.link.counters().rx_bad_length, 2);
    drop(caller);
    wait_until("a free end", || {
        let fd = call();
        recv(fd.as_raw_fd(), &mut [0; 9], MsgFlags::empty()).is_ok_and(|_| true)
            && plug.link.counters().tx_unreachable == 0
    });
}

#[test]
fn first_ends_that_answer_badly() {
    let dir = Dir::new();
    let path = dir.path("cable");
    let listener = listener(&path);
    let vnl = format!("ptp://{path}");
    for (answer, errno) in [
        (Some(&[Errno::EISCONN as u8][..]), Errno::EISCONN),
        (Some(&[1, 2]), Errno::EPROTO),
        (None, Errno::ETIMEDOUT),
    ] {
        let result = std::thread::scope(|scope| {
            let there = scope.spawn(|| {
                let fd = nix::sys::socket::accept(listener.as_raw_fd()).unwrap();
                if let Some(answer) = answer {
                    send(fd, answer, MsgFlags::empty()).unwrap();
                }
                // Held until the caller has given up.
                fd
            });
            let result = open(&vnl);
            nix::unistd::close(there.join().unwrap()).unwrap();
            result
        });
        let error = result.unwrap_err();
        assert_eq!(error.errno(), errno, "{error}");
        assert!(error.to_string().starts_with(&vnl), "{error}");
    }
}

#[test]
fn the_second_one_calls_again() {
    let dir = Dir::new();
    let path = dir.path("cable");
    let accept = |listener: &OwnedFd, answer: u8| {
        let fd = nix::sys::socket::accept(listener.as_raw_fd()).unwrap();
        send(fd, &[answer], MsgFlags::empty()).unwrap();
        fd
    };
    let one = listener(&path);
    let (plug, peer) = std::thread::scope(|scope| {
        let there = scope.spawn(|| accept(&one, 0));
        (Plug::new(&format!("ptp://{path}")), there.join().unwrap())
    });
    // Another first one is there already when this one goes.
    std::fs::remove_file(&path).unwrap();
    let two = listener(&path);
    nix::unistd::close(peer).unwrap();
    let peer = accept(&two, 0);
    send(peer, &frame(2, 1, 60, 1), MsgFlags::empty()).unwrap();
    assert_eq!(plug.seen.frames(1), [frame(2, 1, 60, 1)]);
    nix::unistd::close(peer).unwrap();
    // Now it has promised the place to somebody else.
    let peer = accept(&two, Errno::EISCONN as u8);
    let LinkError::Gone(why) = plug.seen.down() else { panic!("another error") };
    assert!(why.contains("EISCONN"), "{why}");
    nix::unistd::close(peer).unwrap();
}

#[test]
fn a_dead_socket_is_cleared_away() {
    let dir = Dir::new();
    let path = dir.path("cable");
    drop(listener(&path));
    let first = Plug::new(&format!("ptp://{path}"));
    let second = Plug::new(&format!("ptp://{path}"));
    first.exchange(&second, 1514);
    // Of both forms.
    drop((first, second));
    let dgram = || socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
    for name in [path.clone(), format!("{path}+")] {
        bind(dgram().as_raw_fd(), &UnixAddr::new(&*name).unwrap()).unwrap();
    }
    let first = Plug::new(&format!("ptp://{path}[old]"));
    let second = Plug::new(&format!("ptp://{path}[old]"));
    first.exchange(&second, 1514);
}
