//! The end of a node.

use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ioth_core::netlink::Route;
use ioth_core::{Domain, Errno, RecvMsg, SendMsg, SockAddr, SocketType, Stack, StackSpec};
use ioth_smoltcp::Smoltcp;
use ioth_vde::Schemes;

/// A node with an address.
fn node(vnl: &str, addr: &str) -> Smoltcp {
    let spec = StackSpec { options: String::new(), vnls: vec![vnl.to_owned()] };
    let node = Smoltcp::new(&spec, &Schemes::builtin()).unwrap();
    let route = Route::new(&node).unwrap();
    let index = route.link_index("vde0").unwrap();
    route.add_address(index, addr.parse().unwrap()).unwrap();
    route.set_link_up(index, true).unwrap();
    node
}

fn send(node: &Smoltcp, to: &str) {
    let socket = node.socket(Domain::INET, SocketType::DGRAM, 0).unwrap();
    let to = SockAddr::from(to.parse::<SocketAddr>().unwrap());
    let data = [IoSlice::new(b"ciao")];
    socket.send(&SendMsg { addr: Some(&to), ..SendMsg::new(&data) }, Default::default()).unwrap();
    assert_eq!(node.delete(), Err(Errno::EBUSY));
}

#[test]
fn what_was_sent_leaves_before_the_node_does() {
    let one = node("fault://{switch://delete-sends}/delay=20ms", "10.0.0.1/24");
    let two = node("switch://delete-sends", "10.0.0.2/24");
    let socket = one.socket(Domain::INET, SocketType::DGRAM, 0).unwrap();
    let patience = [10_i64.to_ne_bytes(), [0; 8]].concat();
    socket.set_option(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &patience).unwrap();
    socket.bind(&"10.0.0.1:5000".parse::<SocketAddr>().unwrap().into()).unwrap();
    // One's Ethernet address is told 20 ms late, and two is to go at once.
    send(&two, "10.0.0.1:5000");
    two.delete().unwrap();
    let mut buffer = [0; 8];
    let mut data = [IoSliceMut::new(&mut buffer)];
    assert_eq!(socket.recv(&mut RecvMsg::new(&mut data), Default::default()), Ok(4));
}

#[test]
fn nobody_there_does_not_hold_it_for_ever() {
    let two = node("switch://delete-alone", "10.0.0.2/24");
    send(&two, "10.0.0.1:5000");
    let start = Instant::now();
    two.delete().unwrap();
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(two.socket(Domain::INET, SocketType::DGRAM, 0).is_err());
}
