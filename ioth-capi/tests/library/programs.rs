//! C programs, compiled by gcc against the headers, linked with the library both ways, and run.

use std::path::{Path, PathBuf};
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

#[test]
fn what_programs_for_libioth_take_for_granted() {
    for link in [Link::Shared, Link::Static] {
        let dir = scratch("upstream");
        let told = run(&compile(&source("upstream.c"), &dir, link), ["switch://upstream"]);
        assert!(told.ends_with(" checks\n"), "{told}");
    }
}

#[test]
fn interfaces_are_made_and_removed() {
    let dir = scratch("links");
    let told = run(&compile(&source("links.c"), &dir, Link::Shared), ["switch://links"]);
    assert!(told.ends_with(" checks\n"), "{told}");
}

#[test]
fn every_misuse_is_an_errno() {
    let dir = scratch("misuse");
    // It gives one pointer twice on purpose.
    let program = compile_with(&source("misuse.c"), &dir, Link::Shared, &["-Wno-restrict"]);
    for stack in ["kernel", "smoltcp"] {
        let told = run(&program, [stack]);
        assert!(told.ends_with(" checks\n"), "{stack}: {told}");
    }
}

/// Runs a variant of the talk's example, which sends "ciao" to 10.0.0.2 and ends, and waits for it there: on its own stack and
/// on the one in user space.
fn ciao_arrives(name: &str, change: impl Fn(String) -> String) {
    for stack in ["vdestack", "smoltcp"] {
        example_arrives(&format!("{name} on {stack}"), &source("ciao.c"), |text| {
            change(text.replace("\"vdestack\"", &format!("{stack:?}")))
        });
    }
}

fn example_arrives(name: &str, example: &Path, change: impl FnOnce(String) -> String) {
    let dir = scratch(name);
    let switch = Switch::start(&dir.join("hub"));
    let text = std::fs::read_to_string(example).expect("the example");
    let vnl = format!("vde://{}", switch.path().display());
    let ours = text.replace("vde:///tmp/hub", &vnl);
    assert_ne!(ours, text);
    let there = dir.join("ciao.c");
    std::fs::write(&there, change(ours)).expect("a file in the scratch directory");
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

/// Word by word, but for the network's place.
#[test]
fn the_talks_example() {
    ciao_arrives("talk", |text| text);
}

/// The README's.
#[test]
fn the_example_for_c() {
    example_arrives("example", &here().join("../examples/c/ciao.c"), |text| text);
}

/// As the kernel does, the library sends what a program leaves behind.
#[test]
fn what_was_sent_leaves_after_the_program_has_returned() {
    ciao_arrives("left behind", |text| {
        let changed = text.replace("    ioth_close(fd);\n", "");
        assert_ne!(changed, text);
        changed
    });
}
