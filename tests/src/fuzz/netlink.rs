//! Netlink both ways: requests of a hostile program to our stack, replies of a hostile stack to our client.

#[macro_use]
#[path = "../../../ioth-core/tests/support/refusing.rs"]
mod refusing;

use std::collections::VecDeque;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use ioth_core::netlink::Route;
use ioth_core::{
    Domain, Errno, MacAddr, MsgFlags, RecvMsg, Result, SendMsg, SockAddr, Socket, SocketType, Stack,
};
use ioth_node::diag::Entry;
use ioth_smoltcp::engine::addr::AddrAttrs;
use ioth_smoltcp::engine::tables::Tables;
use ioth_smoltcp::netlink::{Host, LinkStats, NewLink, Session};

use super::Input;

/// Requests to a node with an interface, an address and a route. The first byte sets the socket's options, then
/// each datagram has its length in two bytes in front.
pub fn netlink_request(data: &[u8]) {
    let mut input = Input(data);
    let mut tables = Tables::with_seed(1);
    tables.watch(true);
    let eth = tables.add_iface("vde0", MacAddr([2, 0, 0, 0, 0, 1]), 1500, 9000).expect("the first interface");
    tables.set_up(eth, true).expect("it is there");
    for addr in ["10.0.0.1/24", "fd00::1/64"] {
        tables
            .add_addr(eth, addr.parse().expect("an address"), AddrAttrs::default())
            .expect("the first of its kind");
    }
    let mut session = Session::new(4711);
    let options = input.byte();
    session.ext_ack = options & 1 != 0;
    session.cap_ack = options & 2 != 0;
    session.strict = options & 4 != 0;
    while !input.is_empty() {
        let len = usize::from(input.u16());
        let outcome = session.request(&mut tables, &mut Node, input.take(len));
        assert!(outcome.replies.len() <= len, "more replies than a datagram has room for requests");
        let mut parts = 0;
        while session.next_part(&tables, &Node, 0).is_some() {
            parts += 1;
            assert!(parts < 10_000, "a dump without end");
        }
    }
}

/// What a stack answers to each of the client's questions, wrong though it may be: datagrams with their lengths in
/// two bytes in front.
pub fn netlink_reply(data: &[u8]) {
    let questions: [fn(&Route); 9] = [
        |route| drop(route.links()),
        |route| drop(route.addresses()),
        |route| drop(route.routes()),
        |route| drop(route.link_index("vde0")),
        |route| drop(route.link_name(2)),
        |route| drop(route.interface_addresses()),
        |route| drop(route.set_link_up(2, true)),
        |route| drop(route.add_address(2, "10.0.0.1/24".parse().expect("an address"))),
        |route| drop(route.add_route(None, "10.0.0.9".parse().ok(), 2)),
    ];
    for question in questions {
        let mut input = Input(data);
        let mut datagrams = VecDeque::new();
        while !input.is_empty() {
            let len = usize::from(input.u16());
            datagrams.push_back(input.take(len).to_vec());
        }
        let stack = Liar(Arc::new(Mutex::new(datagrams)));
        question(&Route::new(&stack).expect("the liar gives sockets"));
    }
}

struct Node;

impl Host for Node {
    fn link_stats(&self, _: u32) -> LinkStats {
        LinkStats { rx_packets: 1 << 40, ..LinkStats::default() }
    }

    fn link_info(&self, ifindex: u32) -> Option<(String, String)> {
        (ifindex == 2).then(|| ("vde".into(), "switch://lan".into()))
    }

    fn create_link(&mut self, tables: &mut Tables, link: &NewLink<'_>) -> Result<u32> {
        let mac = link.mac.unwrap_or(MacAddr([2, 0, 0, 0, 0, 3]));
        Ok(tables.add_iface(link.name.unwrap_or("vde%d"), mac, link.mtu.unwrap_or(1500), 9000)?)
    }

    fn delete_link(&mut self, tables: &mut Tables, ifindex: u32) -> Result<()> {
        Ok(tables.del_iface(ifindex)?)
    }
}

/// A stack whose netlink sockets answer whatever they were told to.
#[derive(Clone, Debug)]
struct Liar(Arc<Mutex<VecDeque<Vec<u8>>>>);

/// The port that the client is told that it has.
const PORT: u32 = 77;

impl Stack for Liar {
    fn backend(&self) -> &str {
        "liar"
    }
    fn socket(&self, _: Domain, _: SocketType, _: i32) -> Result<Arc<dyn Socket>> {
        Ok(Arc::new(self.clone()))
    }
    fn delete(&self) -> Result<()> {
        Ok(())
    }
}

impl Socket for Liar {
    fn bind(&self, _: &SockAddr) -> Result<()> {
        Ok(())
    }
    fn local_addr(&self) -> Result<SockAddr> {
        Ok(SockAddr::Netlink { port: PORT, groups: 0 })
    }
    fn send(&self, message: &SendMsg<'_>, _: MsgFlags) -> Result<usize> {
        Ok(message.len())
    }
    fn recv(&self, message: &mut RecvMsg<'_, '_>, flags: MsgFlags) -> Result<usize> {
        let mut datagrams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing more to come: what a time-out looks like.
        let bytes = datagrams.front().ok_or(Errno::EAGAIN)?;
        let copied = bytes.len().min(message.capacity());
        message.data[0][..copied].copy_from_slice(&bytes[..copied]);
        message.addr = Some(SockAddr::Netlink { port: 0, groups: 0 });
        let len = if flags.contains(MsgFlags::TRUNC) { bytes.len() } else { copied };
        if !flags.contains(MsgFlags::PEEK) {
            datagrams.pop_front();
        }
        Ok(len)
    }
    fn set_option(&self, _: i32, _: i32, _: &[u8]) -> Result<()> {
        Err(Errno::ENOPROTOOPT)
    }
    fn release_fd(&self) -> Result<OwnedFd> {
        Err(Errno::EMFILE)
    }
    refusing!(ioth_core);
}

/// What ss(8) asks of a node, which has a listener and a connection.
pub fn diag(data: &[u8]) {
    let entry = |family, local: SocketAddr, peer: SocketAddr, state| Entry {
        family,
        protocol: 6,
        state,
        local,
        peer,
        device: 2,
        unread: 1,
        unsent: 2,
        cookie: 3,
        only_ipv6: false,
        info: vec![state; 104],
        user: 0,
        inode: 4,
        buffers: [5, 6],
        congestion: b"reno\0".to_vec(),
        remaining: (state == 1).then_some(std::time::Duration::MAX),
    };
    let any = SocketAddr::from(([0, 0, 0, 0], 0));
    let entries = [
        entry(2, SocketAddr::from(([10, 0, 0, 1], 80)), any, 10),
        entry(
            10,
            SocketAddr::from((Ipv6Addr::LOCALHOST, 80)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, 4000)),
            1,
        ),
    ];
    let answers = ioth_node::diag::answers(data, 7, &entries);
    // One dump at most, and else one message for one: with the error, the message again.
    let len: usize = answers.iter().map(Vec::len).sum();
    assert!(len <= 4096 + data.len() * 16, "{len} bytes in answer to {}", data.len());
}
