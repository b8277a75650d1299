//! What needs a link: the nodes reach each other over Ethernet.

use ioth::berkeley::*;

use crate::fixture::*;

pub(crate) fn reach(pair: &Pair) {
    let (server, addr) = pair.udp_b();
    let client = pair.socket(&pair.a, libc::SOCK_DGRAM);
    sendto(client.0, b"ciao", NONE, addr).unwrap();
    let mut buffer = [0; 8];
    let (len, from) = recvfrom(server.0, &mut buffer, NONE).unwrap();
    assert_eq!(&buffer[..len], b"ciao");
    assert_eq!(from.unwrap().as_ip().unwrap().ip(), pair.a_addr);
}
