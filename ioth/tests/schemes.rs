//! A scheme of a program's own, in every place where a VNL stands.

use std::io::{Read, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ioth::core::netlink::NewLink;
use ioth::net::{TcpListener, TcpStream};
use ioth::vde::schemes::Spec;
use ioth::vde::{Batch, Counters, Filter, Frame, Link, LinkError, Properties, Receiver};
use ioth::{Errno, Stack};

/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(20);
/// Behind the addresses and the type of an Ethernet frame.
const HEADER: usize = 14;

/// `veil://KEY{inner}`: another link, whose packets only those with the same key understand.
#[derive(Debug)]
struct Veil {
    inner: Arc<dyn Link>,
    key: u8,
}

fn veiled(frame: &[u8], key: u8) -> Frame {
    let mut frame = Frame::copy_of(frame);
    frame.iter_mut().skip(HEADER).for_each(|byte| *byte ^= key);
    frame
}

fn open_veil(spec: &Spec<'_>) -> Result<Arc<dyn Link>, LinkError> {
    let nested = spec.nested()?;
    let key = nested.before.parse().map_err(|_| {
        LinkError::Syntax(format!("key {:?} in {:?} (a number up to 255)", nested.before, spec.vnl))
    })?;
    Ok(Arc::new(Veil { inner: spec.inner(nested.inner)?, key }))
}

impl Link for Veil {
    fn properties(&self) -> Properties {
        // Whoever cuts super-frames below would not understand these.
        Properties { gso_max: 0, trusted: false, ..self.inner.properties() }
    }

    fn attach(&self, receiver: Arc<dyn Receiver>) -> Result<(), LinkError> {
        self.inner.attach(Arc::new(Unveil { receiver, key: self.key }))
    }

    fn send(&self, frames: &mut Batch) -> Result<(), LinkError> {
        let mut out: Batch = frames.drain(..).map(|frame| veiled(&frame, self.key)).collect();
        let sent = self.inner.send(&mut out);
        frames.extend(out.drain(..).map(|frame| veiled(&frame, self.key)));
        sent
    }

    fn set_filter(&self, filter: &Filter) {
        self.inner.set_filter(filter);
    }

    fn detach(&self) {
        self.inner.detach();
    }

    fn counters(&self) -> Counters {
        self.inner.counters()
    }
}

#[derive(Debug)]
struct Unveil {
    receiver: Arc<dyn Receiver>,
    key: u8,
}

impl Receiver for Unveil {
    fn receive(&self, frames: &mut Batch) {
        let mut seen: Batch = frames.drain(..).map(|frame| veiled(&frame, self.key)).collect();
        self.receiver.receive(&mut seen);
    }

    fn writable(&self) {
        self.receiver.writable();
    }

    fn down(&self, cause: LinkError) {
        self.receiver.down(cause);
    }
}

/// Each test registers it: the first one wins.
fn register() {
    if let Err(error) = ioth::vde::register("veil", Arc::new(open_veil)) {
        assert_eq!(error.errno(), Errno::EEXIST);
    }
}

/// A stream from one to the other and back.
fn talk(from: &Stack, to: &Stack, host: &str) {
    let listener = TcpListener::bind_on(to, (host, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut stream = TcpStream::connect_on(from, addr).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&[7; 100_000]).unwrap();
            let mut back = vec![0; 100_000];
            stream.read_exact(&mut back).unwrap();
            assert!(back.iter().all(|byte| *byte == 8));
        });
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut data = vec![0; 100_000];
        stream.read_exact(&mut data).unwrap();
        assert!(data.iter().all(|byte| *byte == 7));
        data.fill(8);
        stream.write_all(&data).unwrap();
        client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn in_configuration_strings() {
    register();
    let node =
        |vnl: &str, host: u8| Stack::new(&format!("stack=smoltcp,vnl={vnl},ip=10.0.0.{host}/24")).unwrap();
    let one = node("veil://7{switch://schemes-strings}", 1);
    talk(&one, &node("lan0:veil://7{switch://schemes-strings}", 2), "10.0.0.2");
    // Within others, and they within it.
    talk(&one, &node("rate://{veil://7{fault://{switch://schemes-strings}/delay=1ms}}", 3), "10.0.0.3");
    talk(&one, &node("veil://3{veil://4{switch://schemes-strings}}", 4), "10.0.0.4");
    let error = Stack::new("stack=smoltcp,vnl=veil://256{null://}").unwrap_err().to_string();
    assert!(error.contains("key \"256\" in \"veil://256{null://}\" (a number up to 255)"), "{error}");
    let error = Stack::new("stack=smoltcp,vnl=vei://7{null://}").unwrap_err().to_string();
    assert!(error.contains("unknown scheme \"vei\"") && error.contains("udp, vde, veil, vlan"), "{error}");
}

#[test]
fn of_a_node_that_was_there_before() {
    let node = Stack::newstackv("smoltcp", &["switch://schemes-later"]).unwrap();
    register();
    let route = node.route().unwrap();
    let new = NewLink { kind: "vde", vnl: Some("veil://9{switch://schemes-later}"), ..NewLink::default() };
    let index = route.add_link(&new).unwrap().unwrap();
    drop(route);
    node.ipaddr_add("10.1.0.1/24".parse().unwrap(), index).unwrap();
    node.linksetupdown(index, true).unwrap();
    let other = Stack::new("stack=smoltcp,vnl=veil://9{switch://schemes-later},ip=10.1.0.2/24").unwrap();
    talk(&node, &other, "10.1.0.2");
}

/// The names of schemes are no backends' and no built-in schemes'.
#[test]
fn what_is_built_in_stays() {
    let refused = ioth::vde::register("switch", Arc::new(open_veil)).unwrap_err();
    assert_eq!(refused.errno(), Errno::EEXIST);
    assert!(refused.to_string().contains("built in"), "{refused}");
    let plain = Stack::new("stack=smoltcp,vnl=switch://schemes-plain,ip=10.0.0.1/24").unwrap();
    let other = Stack::new("stack=smoltcp,vnl=switch://schemes-plain,ip=10.0.0.2/24").unwrap();
    talk(&plain, &other, "10.0.0.2");
}
