//! The fast spanning tree of `vde_switch`, which there is not: what is set for it is kept and shown, as there when it is off.

use std::collections::{BTreeMap, BTreeSet};

use ioth_core::Errno;

use super::commands::{atoi, show, two, vlan_number};
use super::core::Core;
use super::debug::Category;
use crate::bridge::VLAN_MAX;

/// What a port costs that is not faster than any other.
const PORT_COST: u32 = 20_000_000;
/// First half of a bridge's identifier: IEEE 802.1D's middle priority.
const PRIORITY: u16 = 0x8000;

/// What is set, by VLAN.
#[derive(Debug, Default)]
pub(super) struct Fstp {
    trees: BTreeMap<u16, Tree>,
}

#[derive(Debug, Default)]
struct Tree {
    edges: BTreeSet<u16>,
    /// A port and what it costs less.
    bonus: (u16, i64),
}

impl Fstp {
    /// The VLAN is no more.
    pub(super) fn forget(&mut self, vlan: u16) {
        self.trees.remove(&vlan);
    }
}

impl Core {
    /// Tells who is a new VLAN's root: we are.
    pub(super) fn tell_root(&mut self, vlan: u16) {
        let root = self.root();
        let [high, low] = vlan.to_be_bytes();
        self.tell(Category::FstpRoot, format_args!("Port 0000 VLAN {high:02x}:{low:02x} -> {root}"));
    }

    /// Our identifier as a bridge.
    fn root(&self) -> String {
        let [high, low] = PRIORITY.to_be_bytes();
        format!("{high:02x}:{low:02x}:{}", self.config.mac)
    }

    fn show_tree(&self, vlan: u16, data: &mut String) {
        let Some(members) = self.bridge.members(vlan) else { return };
        let tree = self.fstp.trees.get(&vlan);
        let (bonus_port, bonus) = tree.map_or((0, 0), |tree| tree.bonus);
        let (root, age) = (self.root(), self.now());
        show(data, format_args!("FST DATA VLAN {vlan:04} ROOTSWITCH FSTP IS DISABLED\n ++ root {root}\n"));
        show(
            data,
            format_args!(
                " ++ designated ff:ff:ff:ff:ff:ff:ff:ff\n ++ rootport 0000 cost 0 age {age} bonusport \
                 {bonus_port:04} bonuscost {bonus}\n"
            ),
        );
        for member in members.iter().filter(|member| member.active) {
            let (port, tagged) = (member.port, u8::from(member.tagged));
            let edge = tree.is_some_and(|tree| tree.edges.contains(&port));
            let role = if edge { "Edge" } else { "Designated" };
            show(data, format_args!(" -- Port {port:04} tagged={tagged} portcost={PORT_COST} role={role}\n"));
        }
    }

    /// Whether there is such a VLAN.
    fn tree_of(&self, vlan: u16) -> Result<(), Errno> {
        if vlan > VLAN_MAX {
            return Err(Errno::EINVAL);
        }
        self.bridge.members(vlan).map(drop).ok_or(Errno::ENXIO)
    }

    /// A VLAN that is there, a port that may be, and a number.
    fn tree_arguments(&self, text: &str) -> Result<(u16, u16, i64), Errno> {
        let (vlan, rest) = two(text)?;
        let (port, number) = two(rest)?;
        let (vlan, port) = (vlan_number(vlan)?, self.port(port)?);
        // As there, the port need not have been made.
        self.tree_of(vlan)?;
        Ok((vlan, port, atoi(number)))
    }
}

pub(super) fn fstp_showinfo(core: &mut Core, _: &str, data: &mut String) -> Result<(), Errno> {
    show(data, format_args!("MAC {} Priority {PRIORITY} ({PRIORITY:#06x})\nFSTP=false\n", core.config.mac));
    Ok(())
}

pub(super) fn fstp_setfstp(_: &mut Core, text: &str, _: &mut String) -> Result<(), Errno> {
    if atoi(text) == 0 { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
}

pub(super) fn fstp_setedge(core: &mut Core, text: &str) -> Result<(), Errno> {
    let (vlan, port, edge) = core.tree_arguments(text)?;
    let edges = &mut core.fstp.trees.entry(vlan).or_default().edges;
    if edge == 0 {
        edges.remove(&port);
    } else if edges.insert(port) && core.bridge.is_active(port) {
        let [high, low] = vlan.to_be_bytes();
        core.tell(
            Category::FstpStatus,
            format_args!("Port {port:04} VLAN {high:02x}:{low:02x} learning+forwarding"),
        );
    }
    Ok(())
}

pub(super) fn fstp_bonus(core: &mut Core, text: &str) -> Result<(), Errno> {
    let (vlan, port, cost) = core.tree_arguments(text)?;
    core.fstp.trees.entry(vlan).or_default().bonus = (port, cost);
    Ok(())
}

pub(super) fn fstp_print(core: &mut Core, text: &str, data: &mut String) -> Result<(), Errno> {
    if text.is_empty() {
        core.bridge.vlans().for_each(|vlan| core.show_tree(vlan, data));
        return Ok(());
    }
    let vlan = vlan_number(text)?;
    core.tree_of(vlan)?;
    core.show_tree(vlan, data);
    Ok(())
}
