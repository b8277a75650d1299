//! `macvtap://name`: a station of its own on the network that a macvtap interface is on.
//!
//! ```text
//!   macvtap://mv0          the interface mv0
//!   macvtap:///dev/tap4    the same by its device, whose number is the interface's
//! ```
//! Frames go through the device as through that of `tap://`, whose options these are. The node must have the interface's
//! address (`mac=`), or the interface be in passthru mode: the kernel hands over what is for that address only, and of groups
//! those that it knows itself: the interface has to be `allmulticast on`, or nobody finds the node over IPv6.
//! `ip link add link eth0 name NAME type macvtap mode bridge; ip link set NAME up allmulticast on; chown USER /dev/tapN`.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use ioth_core::Errno;
use nix::net::if_::{if_indextoname, if_nametoindex};

use super::{Failure, KEYS, KIND, Queues, Tap, check_name, options};
use crate::schemes::Spec;
use crate::vnl::syntax;
use crate::wire::Port;
use crate::{Link, LinkError, sys};

/// Opens `macvtap://...`.
pub(crate) fn open(spec: &Spec<'_>) -> Result<Arc<dyn Link>, LinkError> {
    let (name, params) = spec.bracket(KEYS)?;
    let options = options(&params)?;
    let failed = |(what, errno)| LinkError::Os { what: format!("{}: {what}", spec.vnl), errno };
    let (device, name) = device_of(name, spec.vnl)?.map_err(failed)?;
    let queue = Queues::new(queue(&device, &name).map_err(failed)?, Vec::new());
    let tap = Tap::on(queue, &name, options).map_err(failed)?;
    Ok(Arc::new(Port::new(spec.vnl, tap)))
}

/// The device and the interface of a name or of a device's path, `/dev/tapN`, whose number is the interface's.
fn device_of(name: &str, vnl: &str) -> Result<Result<(String, String), Failure>, LinkError> {
    if let Some(number) = name.strip_prefix("/dev/tap") {
        let number: libc::c_uint = number.parse().map_err(|_| {
            syntax(format!("device \"{name}\" in \"{vnl}\" (should be /dev/tapN, or the interface's name)"))
        })?;
        // nix gives an empty name for a number that no interface has.
        let found = if_indextoname(number).ok().and_then(|found| found.into_string().ok());
        return Ok(match found.filter(|found| !found.is_empty()) {
            Some(found) => Ok((name.to_owned(), found)),
            None => Err((format!("looking for the interface of {name}"), Errno::ENXIO)),
        });
    }
    check_name(name, vnl)?;
    Ok(match if_nametoindex(name) {
        Ok(number) => Ok((format!("/dev/tap{number}"), name.to_owned())),
        Err(errno) => Err((
            format!(
                "looking for the interface (as root: ip link add link eth0 name {} type macvtap mode bridge)",
                if name.is_empty() { "NAME" } else { name }
            ),
            errno,
        )),
    })
}

/// The interface's queue: the device is one already, and is told its form.
fn queue(device: &str, name: &str) -> Result<OwnedFd, Failure> {
    let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(device);
    let fd = opened.map(OwnedFd::from).map_err(|error| {
        let errno = crate::errno(&error);
        let remedy = match errno {
            Errno::ENOENT => {
                " (the numbers are in /sys/class/net/NAME/tap*/dev; as root: mknod DEVICE c MAJOR MINOR)"
            }
            Errno::EACCES | Errno::EPERM => " (as root: chown USER DEVICE)",
            Errno::EBUSY => " (another program has all of its queues)",
            _ => "",
        };
        (format!("opening {device}{remedy}"), errno)
    })?;
    sys::tun_set_interface(fd.as_fd(), name, KIND)
        .map_err(|errno| (format!("getting the interface ({device} is none of macvtap)"), errno))?;
    Ok(fd)
}
