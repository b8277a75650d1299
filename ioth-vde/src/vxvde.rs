//! `vxvde://[group][/options]`: a switch without a switch, made of all who are in a multicast group.
//!
//! ```text
//!   vxvde://                              239.0.0.1, port 14789, network 1
//!   vxvde:///v6                           the same over IPv6: ff05:56de::1
//!   vxvde://ff15::3/port=12345/vni=42
//! ```
//! | option | default | meaning |
//! |---|---|---|
//! | `v4`, `v6` | either | the family |
//! | `port` | 14789 | the group's port |
//! | `vni` | 1, or `grp`'s number | network identifier of 24 bits; also a group's name, or empty for our own group |
//! | `grp` | none | number or name of a group of the system, which is put into the last three bytes of the group's address |
//! | `ttl` | 1 | how many routers a datagram may pass |
//! | `rcvbuf` | 1m | receive buffer in bytes |
//! | `hashsize` | 1024 | Ethernet addresses that are remembered |
//! | `expiretime` | 128 | for so many seconds |
//! | `if` | any | the interface to meet on |
//! | `bind` | any | the local address to send from |
//! | `mtu` | 1500 | largest IP packet of the network; long datagrams travel in pieces |
//!
//! Frames to groups, and to Ethernet addresses that nobody has been heard of, go to the group; others to who sent from there. Who
//! leaves says so. No privilege is needed; nothing is encrypted or authenticated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ioth_core::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use parking_lot::Mutex;

use crate::datagram;
use crate::overlay::{self, Group, Kind, Overlay, Probe, Table, VNI_MAX};
use crate::schemes::Spec;
use crate::vnl::{Keys, Params};
use crate::wire::Port;
use crate::{Link, LinkError};

const KEYS: Keys =
    &["v4", "v6", "port", "vni", "grp", "ttl", "rcvbuf", "hashsize", "expiretime", "if", "bind", "mtu"];
const GROUP4: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 0, 0, 1));
const GROUP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff05, 0x56de, 0, 0, 0, 0, 0, 1));
const PORT: u64 = 14789;
const VNI: u32 = 1;
const HASH_SIZE: u64 = 1024;
const EXPIRE: u64 = 128;
/// Bounds of what a VNL may ask for: a table of some megabytes, a day.
pub(crate) const HASH_SIZE_MAX: u64 = 1 << 16;
pub(crate) const EXPIRE_MAX: u64 = 86_400;

/// Opens `vxvde://...`.
pub(crate) fn open(spec: &Spec<'_>) -> Result<Arc<dyn Link>, LinkError> {
    let (name, params) = spec.slash(KEYS)?;
    let failed = |what: &str, errno| LinkError::Os { what: format!("{}: {what}", spec.vnl), errno };
    let properties = datagram::properties(&params, spec.default_mtu())?;
    let port = params.number("port", 1..=65_535)?.unwrap_or(PORT) as u16;
    let ttl = params.number("ttl", 0..=255)?.unwrap_or(1) as u8;
    let buffer = params.number("rcvbuf", 1..=1 << 30)?;
    let grp = overlay::number(&params, "grp")?;
    let vni = overlay::number(&params, "vni")?.or(grp).unwrap_or(VNI);
    debug_assert!(u64::from(vni) <= VNI_MAX);
    let mut to = overlay::group(&name, port, overlay::family(&params)?, GROUP4, GROUP6)
        .map_err(|errno| failed(&overlay::unknown_group(&name, &params), errno))?;
    if let Some(grp) = grp {
        to.set_ip(with_number(to.ip(), grp));
    }
    if !to.ip().is_multicast() {
        return Err(failed(&format!("{} is no multicast address", to.ip()), Errno::EINVAL));
    }
    let group = Group { to, interface: overlay::interface(&params, spec.vnl)?, ttl };
    let (table, local) = (table(&params, HASH_SIZE, EXPIRE)?, local(&params, to)?);
    let unicast = overlay::socket(&group, false, true).map_err(|errno| failed("making a socket", errno))?;
    if let Some(bytes) = buffer {
        let _ = setsockopt(&unicast, sockopt::RcvBuf, &(bytes as usize));
    }
    let own = overlay::bind(&unicast, SocketAddr::new(local, 0), None)
        .map_err(|errno| failed("binding the local address", errno))?;
    let multicast = overlay::socket(&group, true, true).map_err(|errno| failed("making a socket", errno))?;
    overlay::bind(&multicast, to, Some(&group)).map_err(|errno| failed(JOINING, errno))?;
    let overlay = Overlay {
        kind: Kind::Vxvde,
        header: overlay::header(vni),
        group: to,
        unicast: Arc::new(unicast),
        multicast: Some(Arc::new(multicast)),
        own,
        table: Mutex::new(table),
        properties,
        probe: Probe::new(to).map_err(|errno| failed("making a socket", errno))?,
    };
    Ok(Arc::new(Port::new(spec.vnl, overlay)))
}

/// What may go wrong where there is no network yet.
pub(crate) const JOINING: &str =
    "joining the group (if= names the interface; without it a route to the group has to be there)";

/// The table of a network's members, by `hashsize` and `expiretime`.
pub(crate) fn table(params: &Params, size: u64, expire: u64) -> Result<Table, LinkError> {
    let size = params.number("hashsize", 1..=HASH_SIZE_MAX)?.unwrap_or(size) as usize;
    let expire = params.number("expiretime", 1..=EXPIRE_MAX)?.unwrap_or(expire);
    Ok(Table::new(size, expire))
}

/// The local address, by `bind`: of the group's family.
pub(crate) fn local(params: &Params, group: SocketAddr) -> Result<IpAddr, LinkError> {
    match params.get("bind") {
        None | Some("") => Ok(overlay::any(group)),
        Some(address) => match address.parse::<IpAddr>() {
            Ok(address) if address.is_ipv4() == group.is_ipv4() => Ok(address),
            _ => Err(params.wrong("bind", "an address of this host, of the group's family")),
        },
    }
}

/// The group's address with a number in its last three bytes.
fn with_number(address: IpAddr, number: u32) -> IpAddr {
    let [_, a, b, c] = number.to_be_bytes();
    match address {
        IpAddr::V4(address) => Ipv4Addr::new(address.octets()[0], a, b, c).into(),
        IpAddr::V6(address) => {
            let mut octets = address.octets();
            octets[13..].copy_from_slice(&[a, b, c]);
            Ipv6Addr::from(octets).into()
        }
    }
}
