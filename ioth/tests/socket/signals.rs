//! What signals do to calls that wait: signal(7), "Interruption of system calls and library functions by signal handlers".

mod sys;

use std::io;
use std::sync::mpsc;
use std::thread;

use ioth::berkeley::*;
use nix::sys::signal::Signal;

use crate::fixture::*;

/// Has its handler with and without SA_RESTART.
const ENDS: Signal = Signal::SIGUSR1;
const RESTARTS: Signal = Signal::SIGUSR2;

/// What a call returns in a thread that gets a signal again and again until it returns, or until `enough` says so.
fn under_signals<T: Send>(
    signal: Signal,
    call: impl FnOnce() -> io::Result<T> + Send,
    enough: impl Fn(u32) -> bool,
) -> Result<T, i32> {
    sys::count_signal(ENDS, false);
    sys::count_signal(RESTARTS, true);
    thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let caller = scope.spawn(move || {
            tell.send(sys::this_thread()).unwrap();
            call().map_err(|error| error.raw_os_error().unwrap())
        });
        let thread = told.recv().unwrap();
        let before = sys::counted();
        until(|| {
            sys::signal_thread(&caller, thread, signal);
            caller.is_finished() || enough(sys::counted().wrapping_sub(before))
        });
        caller.join().unwrap()
    })
}

fn never(_: u32) -> bool {
    false
}

pub(crate) fn interrupt_what_waits(pair: &Pair) {
    let (datagrams, _) = pair.udp_a();
    assert_eq!(under_signals(ENDS, || recv(datagrams.0, &mut [0; 4], NONE), never), Err(libc::EINTR));
    let (client, _server) = pair.connected();
    assert_eq!(under_signals(ENDS, || recv(client.0, &mut [0; 4], NONE), never), Err(libc::EINTR));
    let (listener, _) = pair.listener();
    assert_eq!(under_signals(ENDS, || accept(listener.0), never).err(), Some(libc::EINTR));
    // What was done is told.
    let sent = under_signals(ENDS, || send(client.0, &vec![7; 64 << 20], NONE), never).unwrap();
    assert!(0 < sent && sent < 64 << 20, "{sent}");
}

pub(crate) fn restart_what_waits(pair: &Pair) {
    let ((a, _), (b, b_addr)) = (pair.udp_a(), pair.udp_b());
    let enough = |count| {
        if count >= 10 {
            sendto(a.0, b"x", NONE, b_addr).unwrap();
        }
        count >= 10
    };
    assert_eq!(under_signals(RESTARTS, || recv(b.0, &mut [0; 4], NONE), enough), Ok(1));
}

pub(crate) fn interrupt_what_has_a_time_out(pair: &Pair) {
    let (datagrams, _) = pair.udp_a();
    let hour = [3600i64.to_ne_bytes(), 0i64.to_ne_bytes()].concat();
    setsockopt(datagrams.0, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &hour).unwrap();
    assert_eq!(under_signals(RESTARTS, || recv(datagrams.0, &mut [0; 4], NONE), never), Err(libc::EINTR));
}
