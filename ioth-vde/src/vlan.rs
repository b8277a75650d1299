//! `vlan://id{inner}`: a VLAN, or several, of another link (IEEE 802.1Q); the tagging is done here, not by the switch.
//!
//! ```text
//!   vlan://3{vde:///tmp/sw}                        VLAN 3, whose tag the node does not see
//!   vlan://3[tag=10:11-12]{vde:///tmp/sw}          VLAN 10 as well, and the network's VLAN 12 as the node's 11, tagged
//!   vlan://3[untag=4/trunk]{vde:///tmp/sw}         the network's untagged frames as VLAN 4, all other VLANs as they are
//!   vlan://4{vlan://5/qinq{vxvde://}}              VLAN 4 within VLAN 5 of a service provider (802.1ad)
//! ```
//!
//! | option | meaning |
//! |---|---|
//! | `untag=ID` | the node's tag of the network's untagged frames |
//! | `tag=LIST` | VLANs that the node has tagged, separated by `:` or `.`; `A-B` is the network's B as the node's A |
//! | `trunk`, `x` | VLANs that nothing else is said of pass as they are |
//! | `qinq`, `ad` | the tags are those of IEEE 802.1ad (0x88a8) |
//!
//! Without a VLAN before the brace the node's untagged frames are the network's. Frames of other VLANs are dropped and
//! counted: `tx_unreachable`, `rx_bad_header`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ether::{HEADER, TAG, TAG_TYPE, vlan_of};
use crate::schemes::Spec;
use crate::tally::Tally;
use crate::vnl::{self, Keys, Params, syntax};
use crate::{Batch, Counters, Filter, Frame, Link, LinkError, Properties, Receiver};

/// The type of a service provider's tag (IEEE 802.1ad).
const SERVICE_TAG_TYPE: [u8; 2] = [0x88, 0xa8];
/// The highest VLAN: IEEE 802.1Q-2018 §9.6 reserves 4095.
const ID_MAX: u16 = 4094;
/// Smallest MTU that is left for a network: IPv4's.
const MTU_MIN: usize = 68;

const KEYS: Keys = &["untag", "tag", "x", "trunk", "qinq", "ad"];

/// Which VLANs of a network a node has, and as which. Tags are translated one to one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The network's VLAN of the node's untagged frames.
    own: Option<u16>,
    /// The node's VLAN of the network's untagged frames.
    untag: Option<u16>,
    /// By the node's VLAN: the network's.
    out: BTreeMap<u16, u16>,
    /// By the network's VLAN: the node's.
    back: BTreeMap<u16, u16>,
    /// VLANs that nothing is said of pass.
    trunk: bool,
    /// The tags are a service provider's.
    service: bool,
}

/// Where a frame belongs on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Untagged,
    Tagged(u16),
    Nowhere,
}

impl Rules {
    /// Reads what stands before the inner VNL: `3[untag=4/trunk]`, or `5/qinq`. `vnl` is the whole, for messages.
    ///
    /// # Errors
    /// [`LinkError::Syntax`].
    pub fn parse(text: &str, vnl: &str) -> Result<Self, LinkError> {
        let (own, params) = if text.contains('[') {
            let (own, params) = vnl::bracket(text, KEYS, vnl)?;
            (own.to_owned(), params)
        } else {
            vnl::slash(text, KEYS, vnl)?
        };
        let wrong = |what: &str| {
            syntax(format!("{what} in \"{vnl}\" (a VLAN is a number from 1 to {ID_MAX}, 0 stands for none)"))
        };
        let mut rules = Rules {
            own: optional(&own).ok_or_else(|| wrong(&format!("VLAN \"{own}\"")))?,
            untag: match params.get("untag") {
                None => None,
                Some(text) => optional(text).ok_or_else(|| wrong(&format!("\"untag={text}\"")))?,
            },
            trunk: either(&params, "x", "trunk")?,
            service: either(&params, "qinq", "ad")?,
            ..Rules::default()
        };
        let list = params.get("tag").unwrap_or_default();
        for item in list.split([':', '.']).filter(|item| !item.is_empty()) {
            let (node, network) = item.split_once('-').unwrap_or((item, item));
            let (Some(node), Some(network)) = (id(node), id(network)) else {
                return Err(wrong(&format!("\"{item}\" of \"tag={list}\"")));
            };
            let taken = rules.own == Some(network) || rules.untag == Some(node);
            let twice =
                rules.out.insert(node, network).is_some() | rules.back.insert(network, node).is_some();
            if taken || twice {
                let what = format!("\"{item}\" of \"tag={list}\"");
                return Err(syntax(format!("{what} in \"{vnl}\" names a VLAN that has its place already")));
            }
        }
        Ok(rules)
    }

    /// The way of the node's frame into the network.
    fn outward(&self, vlan: Option<u16>) -> Way {
        translate(vlan, self.own, self.untag, &self.out, |id| {
            self.trunk && !self.back.contains_key(&id) && self.own != Some(id)
        })
    }

    /// The way of the network's frame to the node.
    fn inward(&self, vlan: Option<u16>) -> Way {
        translate(vlan, self.untag, self.own, &self.back, |id| {
            self.trunk && !self.out.contains_key(&id) && self.untag != Some(id)
        })
    }

    fn tag_type(&self) -> [u8; 2] {
        if self.service { SERVICE_TAG_TYPE } else { TAG_TYPE }
    }

    /// Gives the node's frame the form that it has in the network; false when it belongs nowhere there.
    pub fn send(&self, frame: &mut Frame) -> bool {
        self.apply(frame, Rules::outward)
    }

    /// Gives the network's frame the form that it has for the node; false when it is not for it.
    pub fn receive(&self, frame: &mut Frame) -> bool {
        self.apply(frame, Rules::inward)
    }

    fn apply(&self, frame: &mut Frame, way: fn(&Rules, Option<u16>) -> Way) -> bool {
        if frame.len() < HEADER {
            return false;
        }
        let tagged = frame[12..HEADER] == self.tag_type();
        let control = match frame.get(HEADER..HEADER + TAG) {
            Some(control) if tagged => Some([control[0], control[1]]),
            // What is left without the tag would be less than a header.
            None if tagged => return false,
            _ => None,
        };
        // IEEE 802.1Q-2018 §9.6: the null VLAN; the tag has a priority only.
        let vlan = control.map(vlan_of).filter(|vlan| *vlan != 0);
        // Untagged on either side, a frame with a tag behind its tag would be one of that VLAN.
        let second = control.is_some() && frame.get(HEADER + 2..HEADER + TAG) == Some(&self.tag_type());
        match (way(self, vlan), control) {
            (Way::Nowhere, _) => return false,
            (way, _) if second && (vlan.is_none() || way == Way::Untagged) => return false,
            (Way::Untagged, None) => (),
            // With its priority.
            (Way::Untagged, Some(_)) if vlan.is_none() => (),
            (Way::Untagged, Some(_)) => take_tag(frame),
            (Way::Tagged(id), Some(control)) => {
                let kept = u16::from_be_bytes(control) & 0xf000;
                frame[HEADER..HEADER + 2].copy_from_slice(&(kept | id).to_be_bytes());
            }
            (Way::Tagged(id), None) => put_tag(frame, self.tag_type(), id),
        }
        true
    }
}

/// The way of a frame of this VLAN, or untagged, to a side where untagged frames have the VLAN `own`, and where those of the
/// VLAN `other` are untagged.
fn translate(
    vlan: Option<u16>,
    own: Option<u16>,
    other: Option<u16>,
    ids: &BTreeMap<u16, u16>,
    passes: impl FnOnce(u16) -> bool,
) -> Way {
    match vlan {
        None => match (own, other) {
            (Some(id), _) => Way::Tagged(id),
            (None, None) => Way::Untagged,
            // The other side's untagged frames have a tag here: these are none of them.
            (None, Some(_)) => Way::Nowhere,
        },
        Some(id) if other == Some(id) => Way::Untagged,
        Some(id) => match ids.get(&id) {
            Some(&id) => Way::Tagged(id),
            None if passes(id) => Way::Tagged(id),
            None => Way::Nowhere,
        },
    }
}

fn put_tag(frame: &mut Frame, kind: [u8; 2], id: u16) {
    if frame.headroom() < TAG {
        let mut roomy = frame.clone();
        std::mem::swap(frame, &mut roomy);
    }
    frame.push_front(TAG);
    frame.copy_within(TAG..TAG + 12, 0);
    frame[12..HEADER].copy_from_slice(&kind);
    frame[HEADER..HEADER + 2].copy_from_slice(&id.to_be_bytes());
}

fn take_tag(frame: &mut Frame) {
    frame.copy_within(0..12, TAG);
    frame.pull_front(TAG);
}

/// A VLAN's number.
fn id(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && (1..=ID_MAX).contains(id))
}

/// A VLAN's number, or none: nothing, or 0.
fn optional(text: &str) -> Option<Option<u16>> {
    match text {
        "" | "0" => Some(None),
        text => id(text).map(Some),
    }
}

fn either(params: &Params, one: &str, other: &str) -> Result<bool, LinkError> {
    Ok(params.flag(one)? | params.flag(other)?)
}

/// Opens `vlan://...`.
pub(crate) fn open(spec: &Spec<'_>) -> Result<Arc<dyn Link>, LinkError> {
    let parts = spec.nested()?;
    if !parts.after.is_empty() {
        let what =
            format!("\"{}\" behind '}}' in \"{}\" (options come before the '{{')", parts.after, spec.vnl);
        return Err(syntax(what));
    }
    let rules = Rules::parse(parts.before, spec.vnl)?;
    let inner = spec.inner(parts.inner)?;
    let mut properties = inner.properties();
    if rules.service {
        // A service provider's tag counts against the MTU, and so does a customer's behind it.
        properties.mtu = properties.mtu.saturating_sub(2 * TAG);
        if properties.mtu < MTU_MIN {
            return Err(syntax(format!("the network of \"{}\" has no room for tags", spec.vnl)));
        }
    }
    Ok(Arc::new(Vlan { inner, side: Arc::new(Side { rules, tally: Tally::default() }), properties }))
}

/// A link to VLANs of another.
#[derive(Debug)]
pub struct Vlan {
    inner: Arc<dyn Link>,
    side: Arc<Side>,
    properties: Properties,
}

#[derive(Debug)]
struct Side {
    rules: Rules,
    /// What is lost here, and what reaches the receiver.
    tally: Tally,
}

impl Link for Vlan {
    fn properties(&self) -> Properties {
        self.properties
    }

    fn attach(&self, receiver: Arc<dyn Receiver>) -> Result<(), LinkError> {
        self.inner.attach(Arc::new(Inbound { side: self.side.clone(), receiver }))
    }

    fn send(&self, frames: &mut Batch) -> Result<(), LinkError> {
        let Side { rules, tally } = &*self.side;
        tally.admit(frames, &self.properties);
        let before = frames.len();
        frames.retain_mut(|frame| rules.send(frame));
        tally.unreachables(before - frames.len());
        let sent = self.inner.send(frames);
        // Translated back, what found no room is the sender's again.
        frames.retain_mut(|frame| rules.receive(frame));
        sent
    }

    fn set_filter(&self, filter: &Filter) {
        self.inner.set_filter(filter);
    }

    fn detach(&self) {
        self.inner.detach();
    }

    fn counters(&self) -> Counters {
        let (inner, here) = (self.inner.counters(), self.side.tally.counters());
        Counters {
            rx_frames: here.rx_frames,
            rx_bytes: here.rx_bytes,
            tx_bad_length: inner.tx_bad_length + here.tx_bad_length,
            tx_unreachable: inner.tx_unreachable + here.tx_unreachable,
            rx_bad_header: inner.rx_bad_header + here.rx_bad_header,
            ..inner
        }
    }
}

impl Drop for Vlan {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Translates what arrives.
#[derive(Debug)]
struct Inbound {
    side: Arc<Side>,
    receiver: Arc<dyn Receiver>,
}

impl Receiver for Inbound {
    fn receive(&self, frames: &mut Batch) {
        let Side { rules, tally } = &*self.side;
        let before = frames.len();
        frames.retain_mut(|frame| rules.receive(frame));
        tally.received_bad_header((before - frames.len()) as u64);
        if !frames.is_empty() {
            tally.received(frames);
            self.receiver.receive(frames);
        }
    }

    fn writable(&self) {
        self.receiver.writable();
    }

    fn down(&self, cause: LinkError) {
        self.receiver.down(cause);
    }
}

#[cfg(test)]
mod tests;
