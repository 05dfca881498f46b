//! Mirrors of the database: each keeps its number in the core for as long as it is wished, and is counted by it.
//!
//! Not here: how frames are copied (that is the core), and rows of table `Mirror` (see [`super::super::source::ovsdb`]).

use super::super::apply::fail;
use super::super::rpc::Failed;
use super::Ovs;
use crate::config::{MirrorConfig, MirrorOutput};
use std::collections::{BTreeMap, BTreeSet};
use vswitch_core::PortId;
use vswitch_core::switch::{Counters, Mirror, MirrorTo};

/// A mirror: its bridge, its name, and how many of that name come before it.
type Key = (String, String, usize);

/// The numbers of mirrors in the core.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    by_key: BTreeMap<Key, u32>,
    /// By bridge: the places in the wish of the mirrors that there can be on it, each with its number.
    by_bridge: BTreeMap<String, Vec<(usize, u32)>>,
    /// Those that were given out since the workers were last told: their counts begin at zero.
    fresh: Vec<u32>,
}

impl Numbers {
    /// Lets every mirror that stays keep its number, and gives each new one the lowest that is free.
    fn follow(&mut self, mirrors: &[MirrorConfig]) {
        let mut old = std::mem::take(&mut self.by_key);
        let mut new = Vec::new();
        let all: Vec<Key> = keys(mirrors).collect();
        for key in all.iter().cloned() {
            match old.remove(&key) {
                Some(number) => drop(self.by_key.insert(key, number)),
                None => new.push(key),
            }
        }
        let taken: BTreeSet<u32> = self.by_key.values().copied().collect();
        for (key, number) in new.into_iter().zip((0..Mirror::MAX_ID).filter(|number| !taken.contains(number)))
        {
            self.fresh.push(number);
            self.by_key.insert(key, number);
        }
        self.by_bridge.clear();
        for (place, key) in all.iter().enumerate() {
            let Some(number) = self.by_key.get(key) else { continue };
            let here = self.by_bridge.entry(key.0.clone()).or_default();
            if here.len() < Mirror::PER_BRIDGE {
                here.push((place, *number));
            }
        }
    }
}

fn keys(mirrors: &[MirrorConfig]) -> impl Iterator<Item = Key> {
    let mut namesakes: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    mirrors.iter().map(move |mirror| {
        let count = namesakes.entry((&mirror.bridge, &mirror.name)).or_default();
        *count += 1;
        (mirror.bridge.clone(), mirror.name.clone(), *count)
    })
}

impl Ovs {
    /// Numbers the mirrors that are wished now.
    pub(super) fn number_mirrors(&mut self) {
        self.mirror_numbers.follow(&self.wish.mirrors);
    }

    /// Numbers that were given out since the last call.
    pub(in super::super) fn take_fresh_mirrors(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.mirror_numbers.fresh)
    }

    /// The mirrors of `bridge` as the core takes them. Without the port that it has its copies for, a mirror is none.
    pub(super) fn core_mirrors(&self, bridge: &str, id_of: &impl Fn(&str) -> Option<PortId>) -> Vec<Mirror> {
        let here = self.mirror_numbers.by_bridge.get(bridge).map_or(&[][..], Vec::as_slice);
        let ids = |ports: &[String]| ports.iter().filter_map(|port| id_of(port)).collect();
        here.iter()
            .filter_map(|(place, number)| {
                let mirror = self.wish.mirrors.get(*place)?;
                Some(Mirror {
                    id: *number,
                    select_all: mirror.select_all,
                    sources: ids(&mirror.sources),
                    destinations: ids(&mirror.destinations),
                    vlans: mirror.vlans.clone(),
                    output: match &mirror.output {
                        MirrorOutput::Port(port) => MirrorTo::Port(id_of(port)?),
                        MirrorOutput::Vlan(vlan) => MirrorTo::Vlan(*vlan),
                    },
                    snaplen: mirror.snaplen,
                })
            })
            .collect()
    }

    /// What of the mirrors cannot be carried out as the ports are, of which those that `is_there` says are usable.
    pub(in super::super) fn mirror_troubles(&self, is_there: impl Fn(&str) -> bool) -> Vec<Failed> {
        let mut failed = Vec::new();
        let mut on_bridge: BTreeMap<&str, usize> = BTreeMap::new();
        for mirror in &self.wish.mirrors {
            let (bridge, name) = (&mirror.bridge, &mirror.name);
            let mut say = |what: String| {
                failed.push(fail("mirror", name, format!("bridge {bridge}: {what}")));
            };
            let count = on_bridge.entry(bridge).or_default();
            *count += 1;
            if *count > Mirror::PER_BRIDGE {
                let most = Mirror::PER_BRIDGE;
                say(format!("maximum of {most} port mirrors reached, cannot create {name}"));
                continue;
            }
            if matches!(&mirror.output, MirrorOutput::Port(port) if !is_there(port)) {
                say(format!("mirror {name} outputs to port not on bridge"));
            }
            for port in mirror.sources.iter().chain(&mirror.destinations).filter(|port| !is_there(port)) {
                say(format!("mirror {name} cannot match on nonexistent port {port}"));
            }
        }
        failed
    }

    /// Frames and bytes that each mirror copied, by bridge and name; of several of one name together.
    pub(super) fn mirror_counts(&self, counters: &Counters) -> BTreeMap<(String, String), (u64, u64)> {
        let mut counts = BTreeMap::new();
        for ((bridge, name, _), number) in &self.mirror_numbers.by_key {
            let copied = counters.mirror(*number);
            let (frames, bytes): &mut (u64, u64) = counts.entry((bridge.clone(), name.clone())).or_default();
            *frames += copied.frames;
            *bytes += copied.bytes;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(bridge: &str, name: &str) -> MirrorConfig {
        MirrorConfig {
            name: name.to_owned(),
            bridge: bridge.to_owned(),
            select_all: true,
            sources: vec!["p1".to_owned(), "gone".to_owned()],
            destinations: Vec::new(),
            vlans: None,
            output: MirrorOutput::Port("out".to_owned()),
            snaplen: None,
        }
    }

    fn ovs(mirrors: &[(&str, &str)]) -> Ovs {
        let mut ovs = Ovs::default();
        wish(&mut ovs, mirrors);
        ovs
    }

    fn wish(ovs: &mut Ovs, mirrors: &[(&str, &str)]) {
        ovs.wish.mirrors = mirrors.iter().map(|(bridge, name)| mirror(bridge, name)).collect();
        ovs.number_mirrors();
    }

    fn numbers(ovs: &Ovs, bridge: &str) -> Vec<u32> {
        let id_of = |name: &str| (name != "gone").then(|| PortId::new(7)).flatten();
        ovs.core_mirrors(bridge, &id_of).iter().map(|mirror| mirror.id).collect()
    }

    #[test]
    fn a_mirror_keeps_its_number_and_one_that_takes_anothers_begins_at_zero() {
        let mut ovs = ovs(&[("br0", "a"), ("br0", "b"), ("br1", "a")]);
        assert_eq!((numbers(&ovs, "br0"), numbers(&ovs, "br1")), (vec![0, 1], vec![2]));
        assert_eq!(ovs.take_fresh_mirrors(), [0, 1, 2]);
        wish(&mut ovs, &[("br0", "b"), ("br1", "a")]);
        assert_eq!((numbers(&ovs, "br0"), ovs.take_fresh_mirrors()), (vec![1], vec![]));
        // Two of one name are two.
        wish(&mut ovs, &[("br0", "b"), ("br0", "b"), ("br1", "a"), ("br1", "c")]);
        assert_eq!((numbers(&ovs, "br0"), numbers(&ovs, "br1")), (vec![1, 0], vec![2, 3]));
        assert_eq!(ovs.take_fresh_mirrors(), [0, 3]);
    }

    #[test]
    fn a_bridge_has_no_more_mirrors_than_there_can_be_and_others_have_theirs() {
        let many = vec![("br0", "m"); Mirror::PER_BRIDGE + 5];
        let ovs = ovs(&[many.as_slice(), &[("br1", "m")]].concat());
        assert_eq!((numbers(&ovs, "br0").len(), numbers(&ovs, "br1").len()), (Mirror::PER_BRIDGE, 1));
        assert!(numbers(&ovs, "br2").is_empty());
    }

    #[test]
    fn a_mirror_without_its_output_port_is_none_and_says_so() {
        let ovs = ovs(&[("br0", "m")]);
        let p1 = PortId::new(1);
        assert!(ovs.core_mirrors("br0", &|name| p1.filter(|_| name == "p1")).is_empty());
        let reasons: Vec<String> =
            ovs.mirror_troubles(|name| name == "p1").into_iter().map(|failed| failed.reason).collect();
        assert_eq!(
            reasons,
            [
                "bridge br0: mirror m outputs to port not on bridge",
                "bridge br0: mirror m cannot match on nonexistent port gone"
            ]
        );
        let there = ovs.core_mirrors("br0", &|name| p1.filter(|_| name != "gone"));
        assert_eq!(there[0].sources, p1.into_iter().collect::<Vec<_>>());
    }
}
