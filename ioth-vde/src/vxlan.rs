//! `vxlan://[group][/options]`: a network of VXLAN (RFC 7348), as routers and the kernel's vxlan devices speak it.
//!
//! ```text
//!   vxlan://239.1.1.1/vni=42/if=eth0           ip link add vx0 type vxlan id 42 group 239.1.1.1 dev eth0 dstport 4789
//!   vxlan://10.0.0.2/vni=42                    one other end: ip link add vx0 type vxlan id 42 remote ... dstport 4789
//! ```
//! | option | default | meaning |
//! |---|---|---|
//! | `v4`, `v6` | either | the family |
//! | `port` | 4789 | the port of all ends |
//! | `vni` | 1 | network identifier of 24 bits |
//! | `ttl` | 1 | how many routers a datagram may pass |
//! | `rcvbuf` | 1m | receive buffer in bytes |
//! | `hashsize` | 1024 | Ethernet addresses that are remembered |
//! | `expiretime` | 128 | for so many seconds |
//! | `if` | any | the interface to meet on |
//! | `bind` | any | the local address: with one each, several ends may be on one host |
//! | `mtu` | 1450, 1430 over IPv6 | largest IP packet of the network: what Ethernet below has room for |
//!
//! The address is a multicast group (239.0.0.1, ff05:56de::1), or the one other end. Ends are known by their address alone, as all have the same
//! port: that is why a second one on a host needs `bind`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ioth_core::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use parking_lot::Mutex;

use crate::overlay::{self, Group, Kind, Overlay, Probe, VNI_MAX};
use crate::schemes::Spec;
use crate::vnl::Keys;
use crate::vxvde::{JOINING, local, table};
use crate::wire::Port;
use crate::{Link, LinkError, datagram};

const KEYS: Keys =
    &["v4", "v6", "port", "vni", "ttl", "rcvbuf", "hashsize", "expiretime", "if", "bind", "mtu"];
const GROUP4: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 0, 0, 1));
const GROUP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff05, 0x56de, 0, 0, 0, 0, 0, 1));
const PORT: u64 = 4789;
const HASH_SIZE: u64 = 1024;
const EXPIRE: u64 = 128;
/// What is left of Ethernet's 1500 bytes behind IP, UDP, the header and the inner Ethernet header.
const MTU4: usize = 1500 - 20 - 8 - 8 - 14;
const MTU6: usize = MTU4 - 20;

/// Opens `vxlan://...`.
pub(crate) fn open(spec: &Spec<'_>) -> Result<Arc<dyn Link>, LinkError> {
    let (name, params) = spec.slash(KEYS)?;
    let failed = |what: &str, errno| LinkError::Os { what: format!("{}: {what}", spec.vnl), errno };
    let port = params.number("port", 1..=65_535)?.unwrap_or(PORT) as u16;
    let ttl = params.number("ttl", 0..=255)?.unwrap_or(1) as u8;
    let vni = params.number("vni", 0..=VNI_MAX)?.unwrap_or(1) as u32;
    let buffer = params.number("rcvbuf", 1..=1 << 30)?;
    let to = overlay::group(&name, port, overlay::family(&params)?, GROUP4, GROUP6)
        .map_err(|errno| failed(&overlay::unknown_group(&name, &params), errno))?;
    let properties = datagram::properties(&params, if to.is_ipv4() { MTU4 } else { MTU6 })?;
    let group = Group { to, interface: overlay::interface(&params, spec.vnl)?, ttl };
    let (table, local) = (table(&params, HASH_SIZE, EXPIRE)?, local(&params, to)?);
    // With an address of its own an end hears the others of its host, itself among them, and knows which one it is.
    let alone = local.is_unspecified();
    let unicast = overlay::socket(&group, false, !alone).map_err(|errno| failed("making a socket", errno))?;
    if let Some(bytes) = buffer {
        let _ = setsockopt(&unicast, sockopt::RcvBuf, &(bytes as usize));
    }
    let address = SocketAddr::new(local, port);
    let own = overlay::bind(&unicast, address, alone.then_some(&group)).map_err(|errno| match errno {
        Errno::EADDRINUSE => failed(
            &format!("binding {address} (another end of this host has the port: bind= gives each an address of its own)"),
            errno,
        ),
        Errno::EADDRNOTAVAIL if !alone => failed(&format!("binding {address} (no address of this host)"), errno),
        _ => failed(JOINING, errno),
    })?;
    let multicast = if alone || !to.ip().is_multicast() {
        None
    } else {
        let multicast =
            overlay::socket(&group, true, true).map_err(|errno| failed("making a socket", errno))?;
        overlay::bind(&multicast, to, Some(&group)).map_err(|errno| failed(JOINING, errno))?;
        Some(Arc::new(multicast))
    };
    let overlay = Overlay {
        kind: Kind::Vxlan,
        header: overlay::header(vni),
        group: to,
        unicast: Arc::new(unicast),
        multicast,
        own,
        table: Mutex::new(table),
        properties,
        probe: Probe::new(to).map_err(|errno| failed("making a socket", errno))?,
    };
    Ok(Arc::new(Port::new(spec.vnl, overlay)))
}
