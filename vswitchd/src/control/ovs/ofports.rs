//! OpenFlow port numbers: each port keeps its own for as long as it is wished, and over a restart.
//!
//! Not here: OpenFlow (see [`super::super::openflow`]).

use super::Ovs;
use std::collections::{BTreeMap, BTreeSet};

/// OpenFlow's number of a bridge's own port (OFPP_LOCAL, OpenFlow 1.0.1 §5.2.1).
pub(in super::super) const OFPP_LOCAL: u16 = 0xfffe;
/// The largest number of an ordinary port that Open vSwitch gives or takes.
const MAX: u16 = 0xfeff;

impl Ovs {
    /// Gives every port that is wished its number: what is asked for where that is free, what it had, what the
    /// database says it had, or the lowest that is free.
    pub(super) fn number_ports(&mut self) {
        let old = std::mem::take(&mut self.ofports);
        let mut by_bridge: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for port in &self.wish.ports {
            if let Some(bridge) = &port.bridge {
                by_bridge.entry(bridge).or_default().push(&port.name);
            }
        }
        for (bridge, names) in by_bridge {
            let mut taken = BTreeSet::new();
            let mut left: Vec<&str> = Vec::new();
            for name in names {
                if name == bridge {
                    self.ofports.insert(name.to_owned(), OFPP_LOCAL);
                } else {
                    left.push(name);
                }
            }
            let said = |name: &str| self.wish.ofports.get(name).copied().unwrap_or_default();
            let choices: [&dyn Fn(&str) -> Option<u16>; 3] =
                [&|name| said(name).request, &|name| old.get(name).copied(), &|name| said(name).before];
            for choice in choices {
                left.retain(|name| {
                    let wanted = choice(name).filter(|number| (1..=MAX).contains(number));
                    match wanted {
                        Some(number) if taken.insert(number) => {
                            self.ofports.insert((*name).to_owned(), number);
                            false
                        }
                        _ => true,
                    }
                });
            }
            let mut free = (1..=MAX).filter(|number| !taken.contains(number));
            for (name, number) in left.into_iter().zip(&mut free) {
                self.ofports.insert(name.to_owned(), number);
            }
        }
    }
}
