//! Dumps: whole tables, a part at a time.

use std::collections::VecDeque;

use ioth_core::{Cidr, Errno};

use crate::engine::tables::Tables;

use super::wire::{Header, Request, Writer};
use super::{Fault, Host, Neighbour, addr, link, neigh, route};

/// Least and greatest length of a part in bytes. Linux begins with what fits a page and follows the reader's
/// buffer from there.
const MIN_PART: usize = 3776;
const MAX_PART: usize = 32768;

/// Prefixes that are looked at in one go: at 52 bytes a route, about what a part can hold.
const BATCH: usize = MAX_PART / 52;

/// A table being told to one socket.
#[derive(Debug)]
pub(super) struct Dump {
    seq: u32,
    kind: Kind,
    /// Of the tables, when the dump began.
    generation: u64,
    /// The request was narrowed, and the answer says so.
    filtered: bool,
    /// Of what `NLMSG_DONE` will tell.
    error: i32,
    done: bool,
}

#[derive(Debug)]
enum Kind {
    /// Interfaces with an index above this one.
    Links { after: u32 },
    /// Families to go; addresses of the first one that were told; of one interface or all (0).
    Addrs { families: Families, told: usize, ifindex: u32 },
    /// Families to go; the prefix that was last told and how many of its routes; of one interface or all (0).
    Routes { families: Families, after: Option<Cidr>, within: Option<(Cidr, usize)>, oif: u32 },
    /// Taken at the start: the table ages by itself.
    Neighbours { left: VecDeque<Neighbour> },
    /// Nothing.
    Empty,
}

/// IPv6 or not, in the order of telling.
type Families = &'static [bool];

impl Dump {
    /// Begins to tell what `request` asks for.
    pub(super) fn new(request: &Request<'_>, tables: &Tables, host: &dyn Host) -> Result<Self, Fault> {
        let mut dump = Dump {
            seq: request.header.seq,
            kind: Kind::Empty,
            generation: tables.generation(),
            filtered: false,
            error: 0,
            done: false,
        };
        match request.header.kind {
            libc::RTM_GETLINK => dump.kind = Kind::Links { after: 0 },
            libc::RTM_GETADDR => dump.addrs(request, tables),
            libc::RTM_GETROUTE => dump.routes(request, tables),
            libc::RTM_GETNEIGH => dump.neighbours(request, host),
            _ => return Err(Errno::EOPNOTSUPP.into()),
        }
        Ok(dump)
    }

    /// Whether `NLMSG_DONE` was among the parts.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// The next part: whole messages in one datagram.
    pub(super) fn part(&mut self, port: u32, tables: &Tables, host: &dyn Host, room: usize) -> Vec<u8> {
        let max = room.clamp(MIN_PART, MAX_PART);
        let mut flags = libc::NLM_F_MULTI;
        if self.filtered {
            flags |= libc::NLM_F_DUMP_FILTERED;
        }
        if self.generation != tables.generation() {
            flags |= libc::NLM_F_DUMP_INTR;
        }
        let to = Header { kind: 0, flags: flags as u16, seq: self.seq, port };
        let mut part = Part { bytes: Vec::new(), max };
        if self.fill(&mut part, tables, host, to) {
            let error = self.error;
            self.done = part.add(|bytes| {
                let mut writer = Writer::begin(bytes, libc::NLMSG_DONE as u16, to.flags, to.seq, to.port);
                writer.put(&error.to_ne_bytes());
                writer.end();
            });
        }
        part.bytes
    }

    /// Adds messages until the part is full; whether all was told.
    fn fill(&mut self, part: &mut Part, tables: &Tables, host: &dyn Host, to: Header) -> bool {
        match &mut self.kind {
            Kind::Links { after } => {
                for iface in tables.ifaces().filter(|iface| iface.index() > *after).collect::<Vec<_>>() {
                    if !part.add(|bytes| link::put(bytes, host, iface, libc::RTM_NEWLINK, to)) {
                        return false;
                    }
                    *after = iface.index();
                }
            }
            Kind::Addrs { families, told, ifindex } => {
                while let [ipv6, rest @ ..] = *families {
                    let of_family = tables.addrs().filter(|addr| addr.local().is_ipv6() == *ipv6);
                    let wanted = of_family.filter(|addr| *ifindex == 0 || addr.ifindex() == *ifindex);
                    for addr in wanted.skip(*told) {
                        if !part.add(|bytes| addr::put(bytes, tables, addr, libc::RTM_NEWADDR, to)) {
                            return false;
                        }
                        *told += 1;
                    }
                    (*families, *told) = (rest, 0);
                }
            }
            Kind::Routes { families, after, within, oif } => {
                while let [ipv6, rest @ ..] = *families {
                    let batch = tables.routes_after(*ipv6, *after, BATCH);
                    if batch.is_empty() {
                        (*families, *after, *within) = (rest, None, None);
                        continue;
                    }
                    for (dst, routes) in batch {
                        let told = within.filter(|(prefix, _)| *prefix == dst).map_or(0, |(_, told)| told);
                        for (at, entry) in routes.iter().enumerate().skip(told) {
                            let wanted = *oif == 0 || entry.oif == *oif;
                            let put =
                                |bytes: &mut _| route::put(bytes, tables, entry, libc::RTM_NEWROUTE, to);
                            if wanted && !part.add(put) {
                                *within = Some((dst, at));
                                return false;
                            }
                        }
                        *after = Some(dst);
                    }
                }
            }
            Kind::Neighbours { left } => {
                while let Some(neighbour) = left.front() {
                    if !part.add(|bytes| neigh::put(bytes, neighbour, to)) {
                        return false;
                    }
                    left.pop_front();
                }
            }
            Kind::Empty => {}
        }
        true
    }

    fn addrs(&mut self, request: &Request<'_>, tables: &Tables) {
        let (info, _) = request.split_short::<{ addr::INFO }>();
        // Linux heeds the interface only if told to check the request strictly.
        let asked = u32::from_ne_bytes([info[4], info[5], info[6], info[7]]);
        let ifindex = if request.strict { asked } else { 0 };
        if request.strict && (info[1] != 0 || info[2] != 0 || info[3] != 0) {
            self.error = -libc::EINVAL;
        } else if ifindex != 0 && tables.iface(ifindex).is_none() {
            self.error = -libc::ENODEV;
        } else {
            self.filtered = ifindex != 0;
            self.kind = Kind::Addrs { families: families(request), told: 0, ifindex };
        }
    }

    fn routes(&mut self, request: &Request<'_>, tables: &Tables) {
        let (info, attrs) = request.split_short::<{ route::INFO }>();
        let mut oif = 0;
        if request.strict {
            let number = |kind| attrs.u32(kind).ok().flatten();
            let table = number(libc::RTA_TABLE).unwrap_or(info[4].into());
            oif = number(libc::RTA_OIF).unwrap_or(0);
            self.filtered = table != 0 || oif != 0;
            if oif != 0 && tables.iface(oif).is_none() {
                self.filtered = false;
                self.error = -libc::ENODEV;
                return;
            }
            match table {
                0 | route::MAIN => {}
                // Linux keeps the node's own addresses there; here they are no routes.
                route::LOCAL => return,
                _ => {
                    self.error = -libc::ENOENT;
                    return;
                }
            }
        }
        self.kind = Kind::Routes { families: families(request), after: None, within: None, oif };
    }

    fn neighbours(&mut self, request: &Request<'_>, host: &dyn Host) {
        let ifindex = neigh::filter(request);
        let families = families(request);
        let mut left: VecDeque<_> = host.neighbours().into();
        left.retain(|neighbour| {
            families.contains(&neighbour.addr.is_ipv6()) && (ifindex == 0 || neighbour.ifindex == ifindex)
        });
        self.filtered = ifindex != 0;
        self.kind = Kind::Neighbours { left };
    }
}

/// A datagram in the making.
struct Part {
    bytes: Vec<u8>,
    max: usize,
}

impl Part {
    /// Adds a message if it fits, or if it is the first one; whether it did.
    fn add(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> bool {
        let before = self.bytes.len();
        put(&mut self.bytes);
        let fits = before == 0 || self.bytes.len() <= self.max;
        if !fits {
            self.bytes.truncate(before);
        }
        fits
    }
}

/// Linux: any family but these two asks for all.
fn families(request: &Request<'_>) -> Families {
    match request.family() {
        libc::AF_INET => &[false],
        libc::AF_INET6 => &[true],
        _ => &[false, true],
    }
}
