//! Which node a program is: default stacks, guards, the table of backends, errors.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use ioth::core::registry::StackError;
use ioth::core::{Result, Stack as Backend};
use ioth::{Domain, Errno, Socket, SocketType, Stack, berkeley, get_defstack, set_defstack};

/// A stack without anything that tells whether it was asked.
#[derive(Debug)]
struct Refusing(&'static str);

impl Backend for Refusing {
    fn backend(&self) -> &str {
        self.0
    }

    fn socket(&self, _: Domain, _: SocketType, _: i32) -> Result<Arc<dyn Socket>> {
        Err(Errno::ENOLINK)
    }

    fn delete(&self) -> Result<()> {
        Ok(())
    }
}

fn stack(name: &'static str) -> Stack {
    Stack::from(Arc::new(Refusing(name)) as Arc<dyn Backend>)
}

/// The process's default is one for all tests.
fn process_default() -> MutexGuard<'static, ()> {
    static DEFAULT: Mutex<()> = Mutex::new(());
    DEFAULT.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[track_caller]
fn on(name: &str) {
    assert_eq!(get_defstack().unwrap().backend(), name);
}

#[test]
fn the_process_default() {
    let _alone = process_default();
    on("kernel");
    let one = stack("one");
    set_defstack(Some(&one));
    on("one");
    thread::spawn(|| on("one")).join().unwrap();
    let refused = berkeley::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ENOLINK));
    // It is not kept alive, and nothing falls back to another network by itself.
    drop(one);
    assert_eq!(get_defstack().unwrap_err().errno(), Errno::ENODEV);
    let gone = berkeley::socket(libc::AF_INET, libc::SOCK_STREAM, 0).unwrap_err();
    assert_eq!(gone.raw_os_error(), Some(libc::ENODEV));
    assert!(ioth::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).is_err());
    set_defstack(None);
    on("kernel");
    assert!(ioth::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).is_ok());
}

#[test]
fn guards_nest_and_restore() {
    let _alone = process_default();
    let (one, two) = (stack("one"), stack("two"));
    {
        let _on_one = one.enter();
        on("one");
        {
            let _on_two = two.enter();
            on("two");
            thread::spawn(|| on("kernel")).join().unwrap();
        }
        on("one");
        let _again = one.enter();
        on("one");
    }
    on("kernel");
}

#[test]
fn guards_in_any_order() {
    let _alone = process_default();
    let (one, two, three) = (stack("one"), stack("two"), stack("three"));
    let on_one = one.enter();
    let on_two = two.enter();
    let on_three = three.enter();
    drop(on_two);
    on("three");
    drop(on_one);
    on("three");
    drop(on_three);
    on("kernel");
}

#[test]
fn a_guard_goes_before_the_process_default() {
    let _alone = process_default();
    let (one, two) = (stack("one"), stack("two"));
    set_defstack(Some(&one));
    let guard = two.enter();
    on("two");
    set_defstack(None);
    on("two");
    drop(guard);
    on("kernel");
}

#[test]
fn a_socket_stays_on_the_stack_that_it_was_made_on() {
    let _alone = process_default();
    let other = stack("other");
    let fd = berkeley::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
    let _on = other.enter();
    berkeley::bind(fd, std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    berkeley::close(fd).unwrap();
}

#[test]
fn backends_of_third_parties() {
    let factory = |spec: &ioth::core::StackSpec| match &*spec.options {
        "" => Ok(Arc::new(Refusing("theirs")) as Arc<dyn Backend>),
        other => Err(StackError::Os { what: format!("unknown option {other:?}"), errno: Errno::EINVAL }),
    };
    ioth::register("theirs", Arc::new(factory));
    assert!(ioth::backends().names().any(|name| name == "theirs"));
    assert!(!ioth::builtin().names().any(|name| name == "theirs"));
    assert_eq!(Stack::newstack("theirs", Some("switch://lan")).unwrap().backend(), "theirs");
    let error = Stack::newstack("theirs,fast", None).unwrap_err();
    assert_eq!(error.errno(), Errno::EINVAL);
    let error = std::io::Error::from(Stack::newstack("nosuch", None).unwrap_err());
    assert_eq!(error.kind(), std::io::Error::from(Errno::ENOTSUP).kind());
    assert!(error.to_string().contains("\"nosuch\"") && error.to_string().contains("theirs"), "{error}");
}

#[cfg(feature = "kernel")]
#[test]
fn upstreams_names_for_the_kernel() {
    // NULL, "" and "kernel" are one thing upstream, and VNLs are ignored there.
    let stack = Stack::newstack("", Some("switch://ignored")).unwrap();
    assert_eq!(stack.backend(), "kernel");
    assert_eq!(stack, stack.clone());
    assert_ne!(stack, Stack::newstackv("kernel,ignored", &["vde://", "tap://"]).unwrap());
    let loopback = stack.if_nametoindex("lo").unwrap();
    assert_eq!(stack.if_nametoindex("no-such-if").unwrap_err().errno(), Errno::ENODEV);
    let addresses = stack.getifaddrs().unwrap();
    let localhost = (Ipv4Addr::LOCALHOST, 0).into();
    assert!(
        addresses.iter().any(|entry| entry.index == loopback && entry.addr == ioth::SockAddr::Ip(localhost))
    );
    assert!(stack.linkgetaddr(loopback).is_ok());
    stack.delete().unwrap();
    let error = stack.if_nametoindex("lo").unwrap_err();
    assert_eq!(error.errno(), Errno::ENODEV);
}

#[cfg(all(feature = "kernel", feature = "conf"))]
#[test]
fn one_string() {
    assert_eq!(Stack::new("stack=kernel").unwrap().backend(), "kernel");
    let error = Stack::new("stack=kernel,wrong=1").unwrap_err();
    assert_eq!(error.errno(), Errno::EINVAL);
    assert!(error.to_string().contains("wrong"), "{error}");
    let stack = Stack::new("stack=kernel").unwrap();
    assert_eq!(stack.config("nonsense").unwrap_err().errno(), Errno::EINVAL);
    assert_eq!(stack.config("stack=kernel").unwrap_err().errno(), Errno::EINVAL);
}
