//! Who listens to which multicast group, and behind which ports routers are, as their messages tell (RFC 4541): the rules
//! of Open vSwitch's `mcast_snooping_enable`. Time is an argument.
//!
//! Not here: what a message says (see [`super::messages`]), and where a frame goes (that is the core).

use super::messages::Said;
use crate::config::SnoopingConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use vswitch_core::switch::Groups;
use vswitch_core::{Instant, PortId, Segment};

/// How long a port is taken for a router's after a query: as long as Open vSwitch does.
const ROUTER_AGEING: Duration = Duration::from_secs(180);

/// A bridge that snoops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnoopedBridge {
    /// Its number in the core.
    pub number: u8,
    /// What is wished.
    pub config: SnoopingConfig,
    /// Its ports; of others nothing is noted.
    pub ports: BTreeMap<PortId, SnoopedPort>,
}

/// What is said of a port in a bridge that snoops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnoopedPort {
    /// It is sent all multicast anyway, so no router is noted there and no group joined.
    pub flood: bool,
    /// It is sent all reports, so more than one host may be behind it: a group is not left at the first word.
    pub flood_reports: bool,
}

/// A port that joined a group, or behind which a router is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupEntry {
    /// In which VLAN of which bridge.
    pub segment: Segment,
    /// The port.
    pub port: PortId,
    /// The group; `None`: a router asks there.
    pub group: Option<IpAddr>,
    /// How long ago that was last said.
    pub age: Duration,
}

/// A number that goes up with everything that is heard: which was heard last.
type Turn = u64;
/// A group of a segment.
type Key = (Segment, IpAddr);

/// When something was last said.
#[derive(Clone, Copy, Debug)]
struct Heard {
    turn: Turn,
    at: Instant,
}

#[derive(Debug, Default)]
struct Group {
    turn: Turn,
    members: BTreeMap<PortId, Heard>,
}

#[derive(Debug)]
struct Bridge {
    wish: SnoopedBridge,
    groups: BTreeMap<Key, Group>,
    /// The same by when they were last heard of: all members, and all groups.
    members_by_turn: BTreeMap<Turn, (Key, PortId)>,
    groups_by_turn: BTreeMap<Turn, Key>,
    routers: BTreeMap<(Segment, PortId), Heard>,
}

/// All bridges that snoop.
#[derive(Debug, Default)]
pub(super) struct Snooper {
    bridges: BTreeMap<u8, Bridge>,
    turn: Turn,
}

impl Snooper {
    /// These bridges snoop, and no others; what is known of one stays, as far as its ports do. Whether that changed who
    /// is sent what.
    pub(super) fn set(&mut self, wishes: Vec<SnoopedBridge>) -> bool {
        let numbers: BTreeSet<u8> = wishes.iter().map(|wish| wish.number).collect();
        let mut changed = self.flush_where(|number| !numbers.contains(&number));
        self.bridges.retain(|number, _| numbers.contains(number));
        for wish in wishes {
            match self.bridges.get_mut(&wish.number) {
                Some(bridge) => changed |= bridge.set(wish),
                None => {
                    self.bridges.insert(wish.number, Bridge::new(wish));
                }
            }
        }
        changed
    }

    /// Notes what was said at a port; whether that changes who is sent what.
    pub(super) fn hear(&mut self, now: Instant, segment: Segment, port: PortId, said: Said) -> bool {
        self.turn += 1;
        let heard = Heard { turn: self.turn, at: now };
        match self.bridges.get_mut(&segment.bridge()) {
            Some(bridge) => bridge.hear(heard, segment, port, said),
            None => false,
        }
    }

    /// Forgets what has not been said for too long; whether there was anything.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        self.bridges.values_mut().fold(false, |changed, bridge| bridge.expire(now) | changed)
    }

    /// When there will be something to forget.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.bridges.values().filter_map(Bridge::next_due).min()
    }

    /// Forgets all of one bridge, or of all; whether there was anything.
    pub(super) fn flush(&mut self, bridge: Option<u8>) -> bool {
        self.flush_where(|number| bridge.is_none_or(|bridge| bridge == number))
    }

    fn flush_where(&mut self, which: impl Fn(u8) -> bool) -> bool {
        let mut changed = false;
        for (_, bridge) in self.bridges.iter_mut().filter(|(number, _)| which(**number)) {
            changed |= !bridge.groups.is_empty() || !bridge.routers.is_empty();
            *bridge = Bridge::new(bridge.wish.clone());
        }
        changed
    }

    /// As the core wants it.
    pub(super) fn groups(&self) -> Groups {
        let members = self.bridges.values().flat_map(|bridge| {
            let groups = bridge.groups.iter();
            groups.flat_map(|((segment, group), known)| {
                known.members.keys().map(move |port| (*segment, *group, *port))
            })
        });
        Groups::new(members, self.bridges.values().flat_map(|bridge| bridge.routers.keys().copied()))
    }

    /// How many groups and ports with routers there are.
    pub(super) fn len(&self) -> usize {
        self.bridges.values().map(|bridge| bridge.members_by_turn.len() + bridge.routers.len()).sum()
    }

    /// Everything that is known: of each bridge the groups first, the one heard of longest ago in front, then routers.
    pub(super) fn list(&self, now: Instant) -> Vec<GroupEntry> {
        let mut entries = Vec::new();
        for bridge in self.bridges.values() {
            for key in bridge.groups_by_turn.values() {
                let members = bridge.groups.get(key).into_iter().flat_map(|group| &group.members);
                let mut members: Vec<_> = members.collect();
                members.sort_by_key(|(_, heard)| heard.turn);
                entries.extend(members.into_iter().map(|(port, heard)| {
                    let (segment, group) = *key;
                    GroupEntry { segment, port: *port, group: Some(group), age: now.since(heard.at) }
                }));
            }
            let mut routers: Vec<_> = bridge.routers.iter().collect();
            routers.sort_by_key(|(_, heard)| heard.turn);
            entries.extend(routers.into_iter().map(|((segment, port), heard)| GroupEntry {
                segment: *segment,
                port: *port,
                group: None,
                age: now.since(heard.at),
            }));
        }
        entries
    }
}

impl Bridge {
    const fn new(wish: SnoopedBridge) -> Self {
        Self {
            wish,
            groups: BTreeMap::new(),
            members_by_turn: BTreeMap::new(),
            groups_by_turn: BTreeMap::new(),
            routers: BTreeMap::new(),
        }
    }

    fn set(&mut self, wish: SnoopedBridge) -> bool {
        self.wish = wish;
        let before = (self.members_by_turn.len(), self.routers.len());
        let ports = &self.wish.ports;
        let is_noted = |port: &PortId| ports.get(port).is_some_and(|port| !port.flood);
        let gone: Vec<(Key, PortId)> =
            self.members_by_turn.values().filter(|(_, port)| !is_noted(port)).copied().collect();
        self.routers.retain(|(_, port), _| is_noted(port));
        for (key, port) in gone {
            self.leave(key, port);
        }
        while self.groups.len() > self.limit() && self.give_up_oldest() {}
        before != (self.members_by_turn.len(), self.routers.len())
    }

    fn limit(&self) -> usize {
        usize::try_from(self.wish.config.limit).unwrap_or(usize::MAX)
    }

    fn hear(&mut self, heard: Heard, segment: Segment, port: PortId, said: Said) -> bool {
        let Some(settings) = self.wish.ports.get(&port).copied().filter(|settings| !settings.flood) else {
            return false;
        };
        match said {
            Said::Query => self.routers.insert((segment, port), heard).is_none(),
            // It is sent everything anyway.
            Said::Joined(_) if self.routers.contains_key(&(segment, port)) => false,
            Said::Joined(group) => self.join(heard, (segment, group), port),
            Said::Left(_) if settings.flood_reports => false,
            Said::Left(group) => self.leave((segment, group), port),
        }
    }

    /// Whether it is new.
    fn join(&mut self, heard: Heard, key: Key, port: PortId) -> bool {
        if !self.groups.contains_key(&key) && self.groups.len() >= self.limit() {
            self.give_up_oldest();
        }
        let group = self.groups.entry(key).or_default();
        self.groups_by_turn.remove(&group.turn);
        group.turn = heard.turn;
        let before = group.members.insert(port, heard);
        self.groups_by_turn.insert(heard.turn, key);
        if let Some(before) = before {
            self.members_by_turn.remove(&before.turn);
        }
        self.members_by_turn.insert(heard.turn, (key, port));
        before.is_none()
    }

    /// Whether it was there.
    fn leave(&mut self, key: Key, port: PortId) -> bool {
        let Some(group) = self.groups.get_mut(&key) else { return false };
        let Some(heard) = group.members.remove(&port) else { return false };
        self.members_by_turn.remove(&heard.turn);
        if group.members.is_empty() {
            self.groups_by_turn.remove(&group.turn);
            self.groups.remove(&key);
        }
        true
    }

    /// Forgets the group that was heard of longest ago.
    fn give_up_oldest(&mut self) -> bool {
        let Some((_, key)) = self.groups_by_turn.pop_first() else { return false };
        for heard in self.groups.remove(&key).into_iter().flat_map(|group| group.members.into_values()) {
            self.members_by_turn.remove(&heard.turn);
        }
        true
    }

    /// The member that was heard of longest ago, and when it is forgotten.
    fn oldest(&self) -> Option<(Key, PortId, Instant)> {
        let (_, (key, port)) = self.members_by_turn.first_key_value()?;
        let heard = self.groups.get(key)?.members.get(port)?;
        Some((*key, *port, heard.at.after(self.wish.config.ageing)))
    }

    fn expire(&mut self, now: Instant) -> bool {
        let routers = self.routers.len();
        self.routers.retain(|_, heard| heard.at.after(ROUTER_AGEING) > now);
        let mut changed = routers != self.routers.len();
        while let Some((key, port, _)) = self.oldest().filter(|(_, _, due)| *due <= now) {
            changed |= self.leave(key, port);
        }
        changed
    }

    fn next_due(&self) -> Option<Instant> {
        let routers = self.routers.values().map(|heard| heard.at.after(ROUTER_AGEING));
        routers.chain(self.oldest().map(|(_, _, due)| due)).min()
    }
}

#[cfg(test)]
mod tests;
