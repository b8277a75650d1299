//! Requests and replies on the control socket.

use crate::{Cursor, VERSION};

/// The longest request or reply, in bytes: a datagram of 64 KiB with its address and ancillary data.
pub const REQUEST_ROOM: usize = 80 << 10;

/// What a program asks of its node. `args` and `payload` are those of [`Request`] and [`Reply`]; a reply's `result` is what the
/// call returns, or a negative errno. The user's end comes with a request about a socket: all but [`Socket`](Op::Socket),
/// [`Interfaces`](Op::Interfaces) and those about names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Op {
    /// socket(2): args domain, type without flags, protocol. The reply brings the user's end, blocking and without O_CLOEXEC.
    Socket = 1,
    /// bind(2): payload is the address.
    Bind = 2,
    /// listen(2): args backlog.
    Listen = 3,
    /// connect(2): payload is the address. Without [`NONBLOCK`](request_flags::NONBLOCK) the reply comes when it is decided;
    /// closing the control connection before leaves it to go on by itself.
    Connect = 4,
    /// getsockname(2): the reply's payload is the address.
    LocalAddr = 5,
    /// getpeername(2): the reply's payload is the address.
    PeerAddr = 6,
    /// getsockopt(2): args level, name, room in bytes; payload is the value's buffer as the caller has it, at most 64 KiB.
    /// The reply's payload is the value.
    GetOption = 7,
    /// setsockopt(2): args level, name; payload is the value. For `SO_ATTACH_FILTER` the array of `struct sock_filter`.
    SetOption = 8,
    /// shutdown(2): args how. With [`NATIVE`](reply_flags::NATIVE) in the reply the caller does it with its end by shutdown(2).
    Shutdown = 9,
    /// sendmsg(2) of a message that the pair cannot carry, or whose error has to be known: args flags, length of the address,
    /// length of the ancillary data; payload is these two and the data. [`NONBLOCK`](request_flags::NONBLOCK) as for Connect.
    Send = 10,
    /// ioctl(2): args the request's low and high 32 bits; payload is the argument, with what it points to as
    /// `ioth_core::Socket::ioctl` has it. The reply's payload is the argument changed.
    Ioctl = 11,
    /// getaddrinfo(3): args flags, family, socket type, protocol (for null hints `AI_V4MAPPED | AI_ADDRCONFIG`, 0, 0, 0);
    /// payload is a [`Wanted`](crate::Wanted). `result` is 0 or an `EAI_*`, for `EAI_SYSTEM` with errno in `args[0]`;
    /// the payload is a [`Row`](crate::Row): the canonical name, if asked for, and the addresses in order.
    Lookup = 12,
    /// Interfaces and addresses, for getifaddrs(3), if_nametoindex(3) and their kin: args how many entries to leave out.
    /// The reply's payload is a [`Row`](crate::Row) of as many as fit, and `args[0]` how many there are in all.
    Interfaces = 13,
    /// The bytes that wait, for FIONREAD and SIOCOUTQ: args 0 for unread ones that are still in the node, 1 for unsent ones.
    Waiting = 14,
    /// gethostbyname2(3): args family; payload is the name. `result` is 0 or what h_errno becomes (for `NETDB_INTERNAL`
    /// with errno in `args[0]`); the payload is a [`Row`](crate::Row): the name, aliases, addresses.
    HostByName = 15,
    /// gethostbyaddr(3): args family; payload is the address, 4 or 16 bytes. The reply is as for HostByName.
    HostByAddr = 16,
    /// getnameinfo(3): args flags, [`wanted_names`]; payload is the address. `result` is 0 or an `EAI_*` as for Lookup; the
    /// payload is a [`Row`](crate::Row): name, service. The caller sees to `EAI_OVERFLOW`, and to `AF_UNIX`.
    NameInfo = 17,
    /// res_query(3) and res_search(3): args class, type, 1 for a search; payload is the name. The reply's payload is the
    /// answer; `args[0]` is what h_errno becomes when the call fails (the answer, if any, says why), `args[1]` errno.
    Resolve = 18,
    /// res_send(3): payload is the query. The reply's payload is the answer, `result` its length.
    Exchange = 19,
    /// A lease: the reply brings a file, of which a program maps a page when it begins, and closes the descriptor. The node
    /// lives while it is mapped: programs close descriptors that they do not know. No user's end comes with the request.
    Lease = 20,
    /// recvmsg(2) with MSG_ERRQUEUE: the reply's payload is a [`Head`](crate::Head), ancillary data and data, as in a pair.
    Errors = 21,
}

/// Which names getnameinfo(3) has room for.
pub mod wanted_names {
    /// `host` is not null.
    pub const HOST: i32 = 1;
    /// `service` is not null.
    pub const SERVICE: i32 = 2;
}

/// Flags of a [`Request`].
pub mod request_flags {
    /// The descriptor is non-blocking, or the call was told not to wait.
    pub const NONBLOCK: u32 = 1;
}

/// Flags of a [`Reply`].
pub mod reply_flags {
    /// The caller does what it asked for with its own end.
    pub const NATIVE: u32 = 1;
}

impl Op {
    fn from_raw(raw: u16) -> Option<Op> {
        use Op::*;
        [
            Socket, Bind, Listen, Connect, LocalAddr, PeerAddr, GetOption, SetOption, Shutdown, Send, Ioctl,
            Lookup, Interfaces, Waiting, HostByName, HostByAddr, NameInfo, Resolve, Exchange, Lease, Errors,
        ]
        .into_iter()
        .find(|op| *op as u16 == raw)
    }
}

/// A request: its head, and a payload behind it in the same message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// What is asked.
    pub op: Op,
    /// The [`request_flags`].
    pub flags: u32,
    /// The call's numbers.
    pub args: [i32; 4],
    /// The node's secret.
    pub token: [u8; 16],
}

impl Request {
    /// Length of the head in bytes.
    pub const LEN: usize = 2 + 2 + 4 + 16 + 16;

    /// Its bytes, to be followed by the payload.
    pub fn emit(&self) -> [u8; Request::LEN] {
        let mut bytes = [0; Request::LEN];
        bytes[0..2].copy_from_slice(&VERSION.to_ne_bytes());
        bytes[2..4].copy_from_slice(&(self.op as u16).to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.flags.to_ne_bytes());
        for (at, arg) in self.args.iter().enumerate() {
            bytes[8 + 4 * at..12 + 4 * at].copy_from_slice(&arg.to_ne_bytes());
        }
        bytes[24..40].copy_from_slice(&self.token);
        bytes
    }

    /// The head, and the payload behind it.
    pub fn parse(message: &[u8]) -> Option<(Request, &[u8])> {
        let mut cursor = Cursor::new(message);
        if u16::from_ne_bytes(cursor.take()?) != VERSION {
            return None;
        }
        let op = Op::from_raw(u16::from_ne_bytes(cursor.take()?))?;
        let flags = u32::from_ne_bytes(cursor.take()?);
        let mut args = [0; 4];
        for arg in &mut args {
            *arg = i32::from_ne_bytes(cursor.take()?);
        }
        let token = cursor.take()?;
        Some((Request { op, flags, args, token }, cursor.rest()))
    }
}

/// A reply: its head, and a payload behind it in the same message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reply {
    /// What the call returns, or a negative errno.
    pub result: i32,
    /// The [`reply_flags`].
    pub flags: u32,
    /// Further numbers.
    pub args: [i32; 2],
}

impl Reply {
    /// Length of the head in bytes.
    pub const LEN: usize = 4 + 4 + 8;

    /// Its bytes, to be followed by the payload.
    pub fn emit(&self) -> [u8; Reply::LEN] {
        let mut bytes = [0; Reply::LEN];
        bytes[0..4].copy_from_slice(&self.result.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.args[0].to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.args[1].to_ne_bytes());
        bytes
    }

    /// The head, and the payload behind it.
    pub fn parse(message: &[u8]) -> Option<(Reply, &[u8])> {
        let mut cursor = Cursor::new(message);
        let reply = Reply {
            result: i32::from_ne_bytes(cursor.take()?),
            flags: u32::from_ne_bytes(cursor.take()?),
            args: [i32::from_ne_bytes(cursor.take()?), i32::from_ne_bytes(cursor.take()?)],
        };
        Some((reply, cursor.rest()))
    }
}
