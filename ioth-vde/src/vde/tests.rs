use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixListener};

use proptest::prelude::*;

use super::connect::{ADDRESS_LEN, Options, PortName, parse_reply, plug, request};
use super::*;
use crate::{Frame, sys, vnl};

#[test]
fn request_image() {
    // Upstream's example.
    let mut path = [0; 108];
    path[..22].copy_from_slice(b"/tmp/sw/.01234-00000\0\0");
    let image = request(0, &path, b"demo user=1000 pid=1234");
    assert_eq!(image.len(), 145);
    assert_eq!(image[..16], *b"\xce\xfa\xed\xfe\x03\0\0\0\0\0\0\0\x01\0/t");
    assert_eq!(image[16..34], *b"mp/sw/.01234-00000");
    assert!(image[34..122].iter().all(|&byte| byte == 0));
    assert_eq!(image[122..], *b"demo user=1000 pid=1234");
    assert_eq!(request(7 << 8, &path, &[b'x'; 300]).len(), 122 + 127);
    assert_eq!(request(7 << 8, &path, b"")[8..12], [0, 7, 0, 0]);
}

#[test]
fn options_of_vnls() {
    let of = |rest: &str| options(&vnl::bracket(rest, KEYS, rest)?.1);
    assert_eq!(of("/x").unwrap(), Options::default());
    assert_eq!(of("/x[3]").unwrap().port, Some(PortName::Number(3)));
    assert_eq!(of("/x[port=3]").unwrap().port, Some(PortName::Number(3)));
    assert_eq!(of("/x[portg=web]").unwrap().port, Some(PortName::Group("web".to_owned())));
    assert_eq!(of("/x[mode=0770/group=12]").unwrap().mode, Some(0o770));
    assert_eq!(of("/x[group=12]").unwrap().group.map(|gid| gid.as_raw()), Some(12));
    let unknown = of("/x[group=no-such-group-here]").unwrap_err().to_string();
    assert!(
        unknown.contains("group=no-such-group-here") && unknown.contains("this system knows"),
        "{unknown}"
    );
    assert_eq!(of("/x[data=path]").unwrap().data, Some(DataKind::Path));
    for wrong in
        ["[port=16777216]", "[99999999999]", "[port='a/b']", "[..]", "[mode=9]", "[mode=7777]", "[data=x]"]
    {
        assert!(matches!(of(wrong), Err(LinkError::Syntax(_))), "{wrong}");
    }
}

#[test]
fn what_is_wrong_with_each_default_place_is_told() {
    let file = std::env::temp_dir().join(format!("ioth-vde-no-directory-{}", std::process::id()));
    std::fs::write(&file, "").unwrap();
    let path = file.to_str().unwrap();
    let error = first_of(&[path, "/no/such/switch"], &Options::default()).map(|_| ()).unwrap_err();
    std::fs::remove_file(&file).unwrap();
    let said = error.to_string();
    assert!(said.contains(path) && said.contains("/no/such/switch"), "{said}");
    assert_eq!(error.errno(), Errno::ENOTDIR, "{said}");
}

#[test]
fn replies() {
    let mut reply = [0; ADDRESS_LEN];
    assert!(parse_reply(&reply).unwrap_err().contains("family 0"));
    reply[0] = 1;
    assert!(parse_reply(&reply).unwrap_err().contains("without a path"));
    reply[2..6].copy_from_slice(b"/a/b");
    assert_eq!(parse_reply(&reply).unwrap().path(), Some(Path::new("/a/b")));
    assert!(parse_reply(&reply[..50]).unwrap_err().contains("50 bytes"));
    reply[2..].fill(b'x');
    let _ = parse_reply(&reply);
}

/// A switch that answers as told.
fn hostile(answer: impl FnOnce(&Path) -> Vec<u8> + Send + 'static) -> Result<Connection, LinkError> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("ioth-hostile-{}-{count}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let listener = UnixListener::bind(dir.join("ctl")).unwrap();
    let there = dir.clone();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 256];
        let len = stream.read(&mut request).unwrap();
        assert!(len > 122 && request[14] == 0);
        stream.write_all(&answer(&there)).unwrap();
    });
    let options = Options { data: Some(DataKind::Abstract), ..Options::default() };
    let result = plug(&dir, &options);
    thread.join().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    result
}

#[test]
fn hostile_replies() {
    let errno = |result: Result<Connection, LinkError>| result.unwrap_err().errno();
    assert_eq!(errno(hostile(|_| vec![])), Errno::ECONNREFUSED);
    assert_eq!(errno(hostile(|_| vec![1; 20])), Errno::EPROTO);
    assert_eq!(errno(hostile(|_| vec![1; 111])), Errno::EPROTO);
    assert_eq!(errno(hostile(|_| vec![0xff; ADDRESS_LEN])), Errno::EPROTO);
    let nowhere = |_: &Path| {
        let mut reply = vec![0; ADDRESS_LEN];
        reply[..10].copy_from_slice(b"\x01\0/nowhere");
        reply
    };
    assert_eq!(errno(hostile(nowhere)), Errno::ENOENT);
    let good = |dir: &Path| {
        let path = dir.join("000.5");
        UnixDatagram::bind(&path).unwrap();
        let mut reply = vec![1, 0];
        reply.extend(path.as_os_str().as_encoded_bytes());
        reply.resize(ADDRESS_LEN, 0);
        reply
    };
    // Its socket is closed by then.
    assert_eq!(errno(hostile(good)), Errno::ECONNREFUSED);
}

#[test]
fn a_switch_that_refuses_abstract_names_gets_a_file() {
    let dir = std::env::temp_dir().join(format!("ioth-fallback-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let listener = UnixListener::bind(dir.join("ctl")).unwrap();
    let port = UnixDatagram::bind(dir.join("001.5")).unwrap();
    let mut reply = vec![1, 0];
    reply.extend(dir.join("001.5").as_os_str().as_encoded_bytes());
    reply.resize(ADDRESS_LEN, 0);
    let thread = std::thread::spawn(move || {
        let mut request = [0; 256];
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut request).unwrap() > 122);
        assert_eq!(request[14], 0);
        drop(stream);
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut request).unwrap() > 122);
        let path = parse_reply(&request[12..122]).unwrap();
        let mode = std::fs::metadata(path.path().unwrap()).unwrap().permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o700);
        stream.write_all(&reply).unwrap();
        stream
    });
    let connection = plug(&dir, &Options::default()).unwrap();
    let _control = thread.join().unwrap();
    sys::send(connection.data.as_fd(), &[Frame::copy_of(b"a frame for us")].into()).unwrap();
    let mut received = [0; 20];
    assert_eq!(port.recv(&mut received).unwrap(), 14);
    // The data socket's name is gone: there is `ctl` and the port.
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_switch_that_cannot_see_abstract_names_gets_a_file() {
    let dir = std::env::temp_dir().join(format!("ioth-unseen-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let listener = UnixListener::bind(dir.join("ctl")).unwrap();
    // As upstream's nodes: it answers, whether it could connect or not.
    let port = UnixDatagram::bind(dir.join("fd5")).unwrap();
    let mut reply = vec![1, 0];
    reply.extend(dir.join("fd5").as_os_str().as_encoded_bytes());
    reply.resize(ADDRESS_LEN, 0);
    let thread = std::thread::spawn(move || {
        let mut request = [0; 256];
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut request).unwrap() > 122 && request[14] == 0);
        stream.write_all(&reply).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut request).unwrap() > 122);
        port.connect(parse_reply(&request[12..122]).unwrap().path().unwrap()).unwrap();
        stream.write_all(&reply).unwrap();
        port.send(b"a frame for you").unwrap();
        (stream, port)
    });
    let connection = plug(&dir, &Options::default()).unwrap();
    let _switch = thread.join().unwrap();
    let mut received = [0; 20];
    assert_eq!(recv(connection.data.as_raw_fd(), &mut received, MsgFlags::empty()), Ok(15));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn no_switch() {
    assert_eq!(crate::open("vde:///no/such/dir").unwrap_err().errno(), Errno::ENOENT);
    let error = crate::open("/etc").unwrap_err();
    assert_eq!(error.to_string(), "vde:///etc: connecting to ctl: ENOENT: No such file or directory");
}

proptest! {
    #[test]
    fn any_reply(reply in proptest::collection::vec(any::<u8>(), 0..=ADDRESS_LEN + 1)) {
        let _ = parse_reply(&reply);
    }

    #[test]
    fn any_address(path in proptest::collection::vec(any::<u8>(), ADDRESS_LEN - 2)) {
        let _ = parse_reply(&[&[1, 0], &path[..]].concat());
    }
}

/// A switch that talks nonsense to its client.
#[test]
fn garbage_from_a_switch_is_counted_and_ends_nothing() {
    let dir = std::env::temp_dir().join(format!("ioth-garbage-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let listener = UnixListener::bind(dir.join("ctl")).unwrap();
    let port = UnixDatagram::bind(dir.join("001.5")).unwrap();
    let mut reply = vec![1, 0];
    reply.extend(dir.join("001.5").as_os_str().as_encoded_bytes());
    reply.resize(ADDRESS_LEN, 0);
    let thread = std::thread::spawn(move || {
        let mut request = [0; 256];
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut request).unwrap() > 122);
        port.connect(parse_reply(&request[12..122]).unwrap().path().unwrap()).unwrap();
        stream.write_all(&reply).unwrap();
        (stream, port)
    });
    #[derive(Debug)]
    struct Lengths(std::sync::mpsc::Sender<Option<usize>>);
    impl crate::Receiver for Lengths {
        fn receive(&self, frames: &mut Batch) {
            frames.drain(..).for_each(|frame| self.0.send(Some(frame.len())).unwrap());
        }
        fn writable(&self) {}
        fn down(&self, _: LinkError) {
            let _ = self.0.send(None);
        }
    }
    let link = crate::open(&format!("vde://{}[data=path]", dir.display())).unwrap();
    let (sender, heard) = std::sync::mpsc::channel();
    link.attach(Arc::new(Lengths(sender))).unwrap();
    let (mut stream, port) = thread.join().unwrap();
    // More than one read takes, and no end.
    stream.write_all(&[0x55; 3000]).unwrap();
    for len in [0, 1, 13, 1519, 60_000, 14, 1518] {
        port.send(&vec![0xff; len]).unwrap();
    }
    let next = || heard.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!((next(), next()), (Some(14), Some(1518)));
    assert_eq!((link.counters().rx_frames, link.counters().rx_bad_length), (2, 5));
    drop((stream, port));
    assert_eq!(next(), None);
    std::fs::remove_dir_all(&dir).unwrap();
}
