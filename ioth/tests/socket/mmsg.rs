//! Several messages in one call: sendmmsg(2), recvmmsg(2).

use std::io::{self, IoSlice, IoSliceMut};
use std::thread;
use std::time::Duration;

use ioth::berkeley::*;
use ioth::{Mmsg, MsgFlags, RecvMsg, SendMsg};

use crate::fixture::*;

/// Sends each of `texts`: how many were sent, and their lengths.
fn send_texts(fd: &Fd, texts: &[&[u8]], flags: MsgFlags) -> io::Result<(usize, Vec<usize>)> {
    let data: Vec<_> = texts.iter().map(|text| [IoSlice::new(text)]).collect();
    let mut messages: Vec<_> = data.iter().map(|data| Mmsg::from(SendMsg::new(data))).collect();
    let sent = sendmmsg(fd.0, &mut messages, flags)?;
    Ok((sent, messages.iter().map(|each| each.len).collect()))
}

/// Receives up to `count` messages of up to 8 bytes.
fn receive(
    fd: &Fd,
    count: usize,
    flags: MsgFlags,
    timeout: Option<&mut Duration>,
) -> io::Result<Vec<(Vec<u8>, MsgFlags)>> {
    let mut buffers = vec![[0; 8]; count];
    let mut data: Vec<_> = buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
    let mut messages: Vec<_> = data.iter_mut().map(|data| Mmsg::from(RecvMsg::new(data))).collect();
    let received = recvmmsg(fd.0, &mut messages, flags, timeout)?;
    let told: Vec<_> = messages[..received].iter().map(|each| (each.len, each.message.flags)).collect();
    Ok(told.iter().zip(buffers).map(|(&(len, flags), data)| (data[..len.min(8)].to_vec(), flags)).collect())
}

fn texts(received: &[(Vec<u8>, MsgFlags)]) -> Vec<&[u8]> {
    received.iter().map(|(text, _)| &text[..]).collect()
}

pub(crate) fn several_datagrams(pair: &Pair) {
    let ((a, a_addr), (b, b_addr)) = (pair.udp_a(), pair.udp_b());
    let (one, two) = ([IoSlice::new(b"first"), IoSlice::new(b"!")], [IoSlice::new(b"much too long")]);
    let to = b_addr.into();
    let mut messages =
        [&one[..], &two[..], &[]].map(|data| Mmsg::from(SendMsg { addr: Some(&to), ..SendMsg::new(data) }));
    assert_eq!(sendmmsg(a.0, &mut messages, NONE).unwrap(), 3);
    assert_eq!(messages.map(|each| each.len), [6, 13, 0]);

    let mut buffers = [[0; 8]; 3];
    let mut data = buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
    let mut messages = data.each_mut().map(|data| Mmsg::from(RecvMsg::new(data)));
    assert_eq!(recvmmsg(b.0, &mut messages, NONE, None).unwrap(), 3);
    assert_eq!(messages.each_ref().map(|each| each.len), [6, 8, 0]);
    let truncated = messages.each_ref().map(|each| each.message.flags.contains(MsgFlags::TRUNC));
    assert_eq!(truncated, [false, true, false]);
    assert!(messages.iter().all(|each| each.message.addr == Some(a_addr.into())));
    assert_eq!(buffers, [*b"first!\0\0", *b"much too", [0; 8]]);
    assert_eq!(events(&b), ioth::Events::OUT);
    // As many as are there, for who does not wait.
    send_texts_to(&a, &[b"x", b"y"], b_addr);
    wait(&b, ioth::Events::IN);
    let mut received = receive(&b, 2, MsgFlags::DONTWAIT, None).unwrap();
    while received.len() < 2 {
        wait(&b, ioth::Events::IN);
        received.extend(receive(&b, 2, MsgFlags::DONTWAIT, None).unwrap());
    }
    assert_eq!(texts(&received), [b"x", b"y"]);
    assert_eq!(errno(receive(&b, 2, MsgFlags::DONTWAIT, None)), libc::EAGAIN);
}

fn send_texts_to(fd: &Fd, texts: &[&[u8]], to: std::net::SocketAddr) {
    for text in texts {
        sendto(fd.0, text, NONE, to).unwrap();
    }
}

pub(crate) fn wait_for_one(pair: &Pair) {
    let ((a, _), (b, b_addr)) = (pair.udp_a(), pair.udp_b());
    thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&b, 3, MsgFlags::WAITFORONE, None).unwrap());
        send_texts_to(&a, &[b"one"], b_addr);
        assert_eq!(texts(&receiver.join().unwrap()), [b"one"]);
    });
    // Without the flag it waits for each.
    thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&b, 3, NONE, None).unwrap());
        for text in [b"1", b"2", b"3"] {
            send_texts_to(&a, &[text], b_addr);
        }
        assert_eq!(texts(&receiver.join().unwrap()), [b"1", b"2", b"3"]);
    });
    // One that is told not to wait gives what is there.
    nonblocking(&b, true);
    assert_eq!(errno(receive(&b, 3, NONE, None)), libc::EAGAIN);
}

pub(crate) fn time_out(pair: &Pair) {
    let ((a, _), (b, b_addr)) = (pair.udp_a(), pair.udp_b());
    send_texts_to(&a, &[b"1", b"2", b"3"], b_addr);
    assert_eq!(recv(b.0, &mut [0; 8], MsgFlags::PEEK).unwrap(), 1);
    // It is looked at after a message only: over from the start, it ends the call after the first.
    let mut timeout = Duration::ZERO;
    assert_eq!(texts(&receive(&b, 3, NONE, Some(&mut timeout)).unwrap()), [b"1"]);
    assert_eq!(timeout, Duration::ZERO);
    let mut timeout = LONG;
    assert_eq!(texts(&receive(&b, 2, NONE, Some(&mut timeout)).unwrap()), [b"2", b"3"]);
    assert!(timeout < LONG && !timeout.is_zero());
    // The first one is waited for as long as it takes: SO_RCVTIMEO ends that, not this.
    receive_timeout(&b, Duration::from_millis(50));
    let mut timeout = Duration::from_nanos(1);
    assert_eq!(errno(receive(&b, 2, NONE, Some(&mut timeout))), libc::EAGAIN);
    assert_eq!(timeout, Duration::from_nanos(1));
}

pub(crate) fn later_errors(pair: &Pair) {
    let (client, server) = pair.connected();
    send_all(&client, b"12345678abc");
    let linger = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
    wait(&server, ioth::Events::IN);
    assert_eq!(recv(server.0, &mut [0; 11], MsgFlags::PEEK | MsgFlags::WAITALL).unwrap(), 11);
    setsockopt(client.0, libc::SOL_SOCKET, libc::SO_LINGER, &linger).unwrap();
    assert_eq!(texts(&receive(&server, 2, NONE, None).unwrap()), [&b"12345678"[..], b"abc"]);
    drop(client);
    wait(&server, ioth::Events::ERR);
    // A pending error comes first, also where nothing is to be received, and once.
    assert_eq!(errno(receive(&server, 0, NONE, None)), libc::ECONNRESET);
    let ended = receive(&server, 3, NONE, None).unwrap();
    assert_eq!(texts(&ended), [b""; 3]);
}

pub(crate) fn sent_until_one_fails(pair: &Pair) {
    let ((a, _), (b, b_addr)) = (pair.udp_a(), pair.udp_b());
    let to = b_addr.into();
    let data = [IoSlice::new(b"x")];
    let fine = SendMsg { addr: Some(&to), ..SendMsg::new(&data) };
    let nowhere = SendMsg::new(&data);
    let mut messages = [fine, fine, nowhere, fine].map(Mmsg::from);
    assert_eq!(sendmmsg(a.0, &mut messages, NONE).unwrap(), 2);
    assert_eq!(messages.map(|each| each.len), [1, 1, 0, 0]);
    let mut messages = [nowhere, fine].map(Mmsg::from);
    assert_eq!(errno(sendmmsg(a.0, &mut messages, NONE)), libc::EDESTADDRREQ);
    assert_eq!(texts(&receive(&b, 2, NONE, None).unwrap()), [b"x"; 2]);
    assert_eq!(so_error(&a), 0);
}

pub(crate) fn too_many(pair: &Pair) {
    let ((a, _), (b, b_addr)) = (pair.udp_a(), pair.udp_b());
    connect(a.0, b_addr).unwrap();
    let received = thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut received = 0;
            receive_timeout(&b, Duration::from_millis(200));
            while let Ok(more) = receive(&b, 2000, MsgFlags::WAITFORONE, None) {
                received += more.len();
            }
            received
        });
        let text: &[u8] = b"x";
        assert_eq!(send_texts(&a, &[text; 1030], NONE).unwrap().0, 1024);
        receiver.join().unwrap()
    });
    // The receiver's buffer may have been too small for all of them.
    assert!((1..=1024).contains(&received), "{received}");
}

pub(crate) fn nothing(pair: &Pair) {
    let (a, _) = pair.udp_a();
    assert_eq!(sendmmsg(a.0, &mut [], NONE).unwrap(), 0);
    assert_eq!(recvmmsg(a.0, &mut [], NONE, None).unwrap(), 0);
    assert_eq!(errno(sendmmsg(-1, &mut [], NONE)), libc::EBADF);
    assert_eq!(errno(recvmmsg(-1, &mut [], NONE, None)), libc::EBADF);
    // There is no error in the queue, and nobody waits for one.
    assert_eq!(errno(recv(a.0, &mut [0], MsgFlags::ERRQUEUE)), libc::EAGAIN);
    assert_eq!(errno(receive(&a, 1, MsgFlags::ERRQUEUE, None)), libc::EAGAIN);
    let stream = pair.connected();
    assert_eq!(errno(recv(stream.0.0, &mut [0], MsgFlags::ERRQUEUE)), libc::EAGAIN);
}

pub(crate) fn whole_streams(pair: &Pair) {
    let (client, server) = pair.connected();
    let long = vec![7; 4 << 20];
    thread::scope(|scope| {
        // A waiting send takes each message whole.
        let sender = scope.spawn(|| send_texts(&client, &[&long, b"end"], NONE).unwrap());
        assert_eq!(read_some(&server, long.len() + 3).len(), long.len() + 3);
        assert_eq!(sender.join().unwrap(), (2, vec![long.len(), 3]));
    });
    // One that does not wait ends with the message that was taken in part.
    let (sent, lens) = send_texts(&client, &[&vec![7; 64 << 20], b"never"], MsgFlags::DONTWAIT).unwrap();
    assert_eq!((sent, lens[1]), (1, 0));
    assert_eq!(read_some(&server, lens[0]).len(), lens[0]);
    send_all(&client, b"12345678abcdefgh");
    let both = receive(&server, 2, MsgFlags::WAITALL, None).unwrap();
    assert_eq!(texts(&both), [b"12345678", b"abcdefgh"]);
}
