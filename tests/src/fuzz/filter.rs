//! Programs that anybody may attach to a socket, and the packets that they look at.

use ioth_smoltcp::engine::bpf::{Filter, INSTRUCTION_SIZE, MAX_INSTRUCTIONS, Packet};

use super::Input;

/// A program and a packet: where headers begin, then as many instructions as two bytes say, then the packet.
pub fn filter(data: &[u8]) {
    let mut input = Input(data);
    let (start, network, link) = (input.byte(), input.byte(), input.byte());
    let (protocol, kind) = (input.u16(), input.byte());
    let len = usize::from(input.u16()) % (MAX_INSTRUCTIONS + 1) * INSTRUCTION_SIZE;
    let program = input.take(len);
    let Ok(filter) = Filter::parse(program) else { return };
    assert_eq!(filter.to_bytes(), program, "a program is kept as it was given");
    let packet = Packet {
        bytes: input.0,
        start: start.into(),
        link: (link != 0xff).then_some(link.into()),
        network: network.into(),
        protocol,
        kind,
        ifindex: 2,
        hatype: 1,
        random: 4,
    };
    assert_eq!(filter.run(&packet), filter.run(&packet), "nothing is left of a run");
}
