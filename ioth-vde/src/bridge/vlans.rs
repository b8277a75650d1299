//! VLANs and who is in them.

use ioth_core::Errno;

use super::ports::PortSet;
use super::{Bridge, NO_VLAN, VLAN_MAX};

/// A VLAN's members: no port is in both.
#[derive(Clone, Debug, Default)]
pub(super) struct Vlan {
    pub(super) untagged: PortSet,
    pub(super) tagged: PortSet,
}

/// A member of a VLAN, as [`Bridge::members`] tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The port.
    pub port: u16,
    /// Whether it is a tagged member.
    pub tagged: bool,
    /// Whether somebody is there.
    pub active: bool,
}

impl Bridge {
    /// Makes a VLAN.
    ///
    /// # Errors
    /// `EINVAL` outside 1 to [`VLAN_MAX`], `EEXIST`.
    pub fn create_vlan(&mut self, vlan: u16) -> Result<(), Errno> {
        if !(1..=VLAN_MAX).contains(&vlan) {
            return Err(Errno::EINVAL);
        }
        if self.vlans.contains_key(&vlan) {
            return Err(Errno::EEXIST);
        }
        self.vlans.insert(vlan, Vlan::default());
        Ok(())
    }

    /// Forgets a VLAN.
    ///
    /// # Errors
    /// `ENXIO` when there is none, `EADDRINUSE` for VLAN 0 and while ports are in it.
    pub fn remove_vlan(&mut self, vlan: u16) -> Result<(), Errno> {
        let members = self.vlans.get(&vlan).ok_or(Errno::ENXIO)?;
        if vlan == 0 || !members.untagged.is_empty() || !members.tagged.is_empty() {
            return Err(Errno::EADDRINUSE);
        }
        self.vlans.remove(&vlan);
        Ok(())
    }

    /// Puts a port into a VLAN untagged, or in none with [`NO_VLAN`], and takes it out of the one it was in.
    ///
    /// # Errors
    /// `EINVAL` for no VLAN's number, `ENXIO` without such a port or VLAN.
    pub fn set_untagged(&mut self, port: u16, vlan: u16) -> Result<(), Errno> {
        if vlan != NO_VLAN && vlan > VLAN_MAX {
            return Err(Errno::EINVAL);
        }
        if !self.exists(usize::from(port)) || (vlan != NO_VLAN && !self.vlans.contains_key(&vlan)) {
            return Err(Errno::ENXIO);
        }
        let Some(Some(there)) = self.ports.get_mut(usize::from(port)) else { return Err(Errno::ENXIO) };
        let before = std::mem::replace(&mut there.untagged, vlan);
        if let Some(members) = self.vlans.get_mut(&before) {
            members.untagged.remove(port);
        }
        if let Some(members) = self.vlans.get_mut(&vlan) {
            members.untagged.insert(port);
            members.tagged.remove(port);
        }
        self.stations.forget(port, Some(before));
        Ok(())
    }

    /// Puts a port into a VLAN tagged, or takes it out. One that is in it untagged stays so.
    ///
    /// # Errors
    /// `ENXIO` without such a port or VLAN, `EADDRINUSE` to take it out where it is untagged.
    pub fn set_tagged(&mut self, port: u16, vlan: u16, member: bool) -> Result<(), Errno> {
        let exists = self.exists(usize::from(port));
        let members = self.vlans.get_mut(&vlan).filter(|_| exists).ok_or(Errno::ENXIO)?;
        if members.untagged.contains(port) {
            return if member { Ok(()) } else { Err(Errno::EADDRINUSE) };
        }
        if member {
            members.tagged.insert(port);
        } else if members.tagged.remove(port) {
            self.stations.forget(port, Some(vlan));
        }
        Ok(())
    }

    /// The VLANs, in order.
    pub fn vlans(&self) -> impl Iterator<Item = u16> {
        self.vlans.keys().copied()
    }

    /// A VLAN's members in the order of their numbers; `None` when there is no such VLAN.
    pub fn members(&self, vlan: u16) -> Option<Vec<Member>> {
        let members = self.vlans.get(&vlan)?;
        let of = |set: &PortSet, tagged| {
            let member = |port| Member { port, tagged, active: self.is_active(port) };
            set.iter().map(member).collect::<Vec<_>>()
        };
        let mut all = of(&members.untagged, false);
        all.extend(of(&members.tagged, true));
        all.sort_unstable_by_key(|member| member.port);
        Some(all)
    }
}
