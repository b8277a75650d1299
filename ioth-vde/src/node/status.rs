//! The state of a switch as JSON, for programs.

use std::fmt::Write as _;

use super::commands::{endpoint_id, user_name};
use super::core::{Core, Way};
use crate::bridge::{Loss, NO_VLAN};

/// A value of JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(u64),
    Text(String),
    List(Vec<Value>),
    Object(Vec<(&'static str, Value)>),
}

use Value::{Bool, List, Null, Number, Object, Text};

impl Value {
    /// Appends it as text, on one line.
    pub(super) fn write(&self, out: &mut String) {
        match self {
            Null => out.push_str("null"),
            Bool(yes) => out.push_str(if *yes { "true" } else { "false" }),
            // Writing to a string cannot fail.
            Number(number) => drop(write!(out, "{number}")),
            Text(text) => quote(text, out),
            List(values) => {
                out.push('[');
                for (at, value) in values.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { "," });
                    value.write(out);
                }
                out.push(']');
            }
            Object(fields) => {
                out.push('{');
                for (at, (name, value)) in fields.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { "," });
                    quote(name, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

/// RFC 8259 §7: quotation mark, reverse solidus and the control characters must be escaped.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

impl Core {
    /// All that there is to know.
    pub(super) fn status(&self) -> Value {
        let (stations, capacity, evicted) = self.bridge.occupancy();
        let (expire, persistence) = self.bridge.times();
        let consoles = self.consoles.listeners.iter();
        let number = |count: usize| Number(count as u64);
        Object(vec![
            ("version", Text(env!("CARGO_PKG_VERSION").to_owned())),
            ("path", Text(self.dir.path().display().to_string())),
            ("pid", Number(u64::from(std::process::id()))),
            ("mac", Text(self.config.mac.to_string())),
            ("uptime", Number(u64::from(self.now()))),
            ("hub", Bool(self.bridge.is_hub())),
            ("numports", number(self.bridge.limit())),
            ("management", List(consoles.map(|console| Text(console.path.display().to_string())).collect())),
            (
                "stations",
                Object(vec![
                    ("known", number(stations)),
                    ("most", number(capacity)),
                    ("evicted", Number(evicted)),
                    ("expired", Number(self.bridge.expired(self.now()))),
                    ("moved", Number(self.bridge.moves())),
                    ("expire", Number(u64::from(expire))),
                    ("persistence", Number(u64::from(persistence))),
                ]),
            ),
            (
                "refused",
                Object(self.guests.refused.iter().map(|(why, count)| (*why, Number(*count))).collect()),
            ),
            ("debug_missing", Number(self.consoles.missed)),
            ("mirror_missing", self.mirror.as_ref().map_or(Null, |mirror| Number(mirror.missing))),
            ("vlans", List(self.bridge.vlans().map(|vlan| Number(u64::from(vlan))).collect())),
            ("ports", List(self.bridge.ports().map(|port| self.port_status(port)).collect())),
        ])
    }

    fn port_status(&self, port: u16) -> Value {
        let counters = self.bridge.counters(port);
        let access = self.ports.of(port);
        let untagged = self.bridge.untagged(port).filter(|vlan| *vlan != NO_VLAN);
        let tagged = self.bridge.vlans().filter(|vlan| {
            self.bridge
                .members(*vlan)
                .is_some_and(|members| members.iter().any(|member| member.port == port && member.tagged))
        });
        let lost = Loss::ALL.iter().zip(counters.dropped);
        let there = self.at.get(usize::from(port)).into_iter().flatten();
        let endpoints = there.filter_map(|&key| self.endpoints.get(key)).map(|endpoint| {
            let owner = match &endpoint.way {
                Way::Client(client) => Some(client.owner),
                Way::Owner | Way::Tap(_) => None,
            };
            Object(vec![
                ("id", Number(endpoint_id(endpoint).unsigned_abs().into())),
                ("host", Bool(matches!(endpoint.way, Way::Owner))),
                ("tap", Bool(matches!(endpoint.way, Way::Tap(_)))),
                ("description", Text(endpoint.description.clone())),
                ("user", owner.map_or(Null, |owner| Text(user_name(Some(owner))))),
                ("queued", Number(endpoint.egress.len() as u64)),
                ("slow", Bool(endpoint.egress.is_slow())),
            ])
        });
        Object(vec![
            ("port", Number(port.into())),
            ("active", Bool(self.bridge.is_active(port))),
            ("allocatable", Bool(access.allocatable)),
            ("untagged_vlan", untagged.map_or(Null, |vlan| Number(vlan.into()))),
            ("tagged_vlans", List(tagged.map(|vlan| Number(vlan.into())).collect())),
            ("rx_frames", Number(counters.rx_frames)),
            ("rx_bytes", Number(counters.rx_bytes)),
            ("tx_frames", Number(counters.tx_frames)),
            ("tx_bytes", Number(counters.tx_bytes)),
            ("dropped", Object(lost.map(|(loss, count)| (loss.name(), Number(count))).collect())),
            ("endpoints", List(endpoints.collect())),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json() {
        let mut out = String::new();
        let value = Object(vec![
            ("a", List(vec![Null, Bool(true), Number(7)])),
            ("b", Text("\"x\\\n\u{1b}é".to_owned())),
            ("c", Object(vec![])),
        ]);
        value.write(&mut out);
        assert_eq!(out, r#"{"a":[null,true,7],"b":"\"x\\\u000a\u001bé","c":{}}"#);
    }
}
