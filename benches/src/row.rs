//! What is measured.

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    TcpBulk,
    TcpMtu1500,
    PingPong,
    Udp,
    Connections,
    Creation,
    Memory,
    TcpProcesses,
    PingProcesses,
    TapOut,
    TapIn,
    Frames64,
    Frames1514,
    Frames500Ports,
}

impl Row {
    pub(crate) const ALL: [Row; 14] = [
        Row::TcpBulk,
        Row::TcpMtu1500,
        Row::PingPong,
        Row::Udp,
        Row::Connections,
        Row::Creation,
        Row::Memory,
        Row::TcpProcesses,
        Row::PingProcesses,
        Row::TapOut,
        Row::TapIn,
        Row::Frames64,
        Row::Frames1514,
        Row::Frames500Ports,
    ];

    pub(crate) fn named(name: &str) -> Option<Row> {
        Row::ALL.into_iter().find(|row| row.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Row::TcpBulk => "tcp-bulk",
            Row::TcpMtu1500 => "tcp-mtu1500",
            Row::PingPong => "ping-pong",
            Row::Udp => "udp",
            Row::Connections => "connections",
            Row::Creation => "creation",
            Row::Memory => "memory",
            Row::TcpProcesses => "tcp-processes",
            Row::PingProcesses => "ping-processes",
            Row::TapOut => "tap-out",
            Row::TapIn => "tap-in",
            Row::Frames64 => "frames-64",
            Row::Frames1514 => "frames-1514",
            Row::Frames500Ports => "frames-500ports",
        }
    }

    pub(crate) fn about(self) -> &'static str {
        match self {
            Row::TcpBulk => "TCP one way, each contender at its best: super-frames where the link has them",
            Row::TcpMtu1500 => {
                "TCP one way in packets of 1500 bytes: no super-frames, checksums computed (veth: not)"
            }
            Row::PingPong => "TCP, one byte there and one byte back, two blocking threads",
            Row::Udp => "UDP of 64 bytes one way: datagrams that arrived",
            Row::Connections => "TCP connect, accept and close, one at a time",
            Row::Creation => "one node made, given an address, and deleted",
            Row::TcpProcesses => "TCP one way between two processes, each with a node",
            Row::PingProcesses => "TCP, one byte there and one byte back, between two processes",
            Row::TapOut => {
                "TCP from a node without privileges to the host's kernel: our TAP; slirp4netns, pasta with MTU 65520"
            }
            Row::TapIn => "the same the other way",
            Row::Frames64 => "two plugs of libvdeplug through a switch, frames of 64 bytes one way",
            Row::Frames1514 => "the same with frames of 1514 bytes",
            Row::Frames500Ports => "frames of 64 bytes with 498 more plugs on the switch, which are idle",
            Row::Memory => "proportional memory (PSS) of one idle node with an address",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Row::TcpBulk | Row::TcpMtu1500 | Row::TcpProcesses | Row::TapOut | Row::TapIn => "Gbit/s",
            Row::PingPong | Row::PingProcesses => "us/round trip",
            Row::Udp => "packets/s",
            Row::Connections => "connections/s",
            Row::Creation => "us/node",
            Row::Memory => "KiB/node",
            Row::Frames64 | Row::Frames1514 | Row::Frames500Ports => "frames/s",
        }
    }

    /// Whether less of the unit is better.
    pub(crate) fn less_is_better(self) -> bool {
        matches!(self, Row::PingPong | Row::PingProcesses | Row::Creation | Row::Memory)
    }
}
