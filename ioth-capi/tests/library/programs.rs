//! C programs, compiled by gcc against the headers, linked with the library both ways, and run.

use std::path::PathBuf;
use std::time::Duration;

use ioth::Stack;
use ioth::net::UdpSocket;

use crate::support::{Link, Switch, compile, compile_with, here, run, scratch};

fn source(name: &str) -> PathBuf {
    here().join("tests/c").join(name)
}

#[test]
fn every_function_by_the_shared_library() {
    let dir = scratch("everything shared");
    let told = run(&compile(&source("everything.c"), &dir, Link::Shared), ["switch://everything"]);
    assert!(told.ends_with(" checks\n"), "{told}");
}

#[test]
fn every_function_by_the_static_library() {
    let dir = scratch("everything static");
    let told = run(&compile(&source("everything.c"), &dir, Link::Static), ["switch://everything"]);
    assert!(told.ends_with(" checks\n"), "{told}");
}

/// The example of the talk, word by word but for the stack, whose one is not in user space, and the network's place.
#[test]
fn the_talks_example() {
    let dir = scratch("talk");
    let switch = Switch::start(&dir.join("hub"));
    let text = std::fs::read_to_string(source("ciao.c")).expect("the example");
    let vnl = format!("vde://{}", switch.path().display());
    let ours = text.replace("\"vdestack\"", "\"smoltcp\"").replace("vde:///tmp/hub", &vnl);
    assert_ne!(ours, text);
    let there = dir.join("ciao.c");
    std::fs::write(&there, ours).expect("a file in the scratch directory");
    // It looks at no argument.
    let program = compile_with(&there, &dir, Link::Shared, &["-Wno-unused-parameter"]);

    let receiver =
        Stack::new(&format!("stack=smoltcp,vnl={vnl:?},ip=10.0.0.2/24")).expect("a node on the switch");
    let socket = UdpSocket::bind_on(&receiver, "10.0.0.2:5000").expect("a free port");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a positive time-out");
    assert_eq!(run(&program, [""; 0]), "");
    let mut buffer = [0; 16];
    let (len, from) = socket.recv_from(&mut buffer).expect("a datagram");
    assert_eq!((&buffer[..len], from.ip().to_string().as_str()), (&b"ciao\n"[..], "10.0.0.1"));
}
