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
    /// database says it had, or the next that is free behind the one given last.
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
            let choices = |name: &str| [said(name).request, old.get(name).copied(), said(name).before];
            // Of all ports the first choices, then the second.
            for turn in 0..3 {
                left.retain(|name| {
                    let wanted = choices(name)[turn];
                    match wanted.filter(|number| (1..=MAX).contains(number)) {
                        Some(number) if taken.insert(number) => {
                            self.ofports.insert((*name).to_owned(), number);
                            false
                        }
                        _ => true,
                    }
                });
            }
            // Not the number of a port that has just gone: a flow may still speak of it.
            let last = self.last_ofports.get(bridge).copied().unwrap_or(0);
            let free = (last + 1..=MAX).chain(1..=last).filter(|number| !taken.contains(number));
            for (name, number) in left.into_iter().zip(free) {
                self.ofports.insert(name.to_owned(), number);
                self.last_ofports.insert(bridge.to_owned(), number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{PortConfig, PortKind};
    use crate::control::source::ovsdb::OfportWish;

    /// The numbers of these ports of one bridge, each with what is asked for and what the database says it had.
    fn numbers(ovs: &mut Ovs, ports: &[(&str, Option<u16>, Option<u16>)]) -> Vec<u16> {
        let port = |(name, ..): &(&str, _, _)| PortConfig::of_bridge("br1", name, PortKind::Internal);
        ovs.wish.ports = ports.iter().map(port).collect();
        let said = |(name, request, before): &(&str, Option<u16>, Option<u16>)| {
            ((*name).to_owned(), OfportWish { request: *request, before: *before })
        };
        ovs.wish.ofports = ports.iter().map(said).collect();
        ovs.number_ports();
        ports.iter().map(|(name, ..)| ovs.ofports[*name]).collect()
    }

    #[test]
    fn a_port_keeps_its_number_until_another_asks_for_it() {
        let mut ovs = Ovs::default();
        let local = ("br1", None, None);
        assert_eq!(numbers(&mut ovs, &[local, ("a", None, None), ("b", None, Some(7))]), [OFPP_LOCAL, 1, 7]);
        // What it has counts for more than what the database says it had.
        assert_eq!(numbers(&mut ovs, &[("a", None, Some(9)), ("b", None, None)]), [1, 7]);
        assert_eq!(numbers(&mut ovs, &[("a", None, None), ("c", Some(1), None)]), [2, 1]);
        // Two that ask for one number: the first has it; one beyond the range is not had.
        assert_eq!(numbers(&mut ovs, &[("x", Some(5), None), ("y", Some(5), None)]), [5, 3]);
        assert_eq!(numbers(&mut ovs, &[("z", Some(0xff00), Some(0))]), [4]);
    }
}
