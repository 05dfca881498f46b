//! Who is a member of the cluster: the nodes that the store lists, and those it has lost that live all the same.
//!
//! A listing is a difference, never a flush: a store that lost its data, or a node that lost the store, must not cost
//! a frame. Not here: how it is known that a node lives.

use super::NodeRecord;
use std::collections::BTreeMap;

/// The most members beside this node.
const MAX_MEMBERS: usize = 4096;

#[derive(Clone, Debug)]
struct Member {
    record: NodeRecord,
    /// The store does not have it any more.
    stale: bool,
}

/// The other nodes of a cluster.
#[derive(Clone, Debug)]
pub struct Members {
    name: String,
    boot: u64,
    members: BTreeMap<String, Member>,
    rival: Option<String>,
    ignored: Option<String>,
}

impl Members {
    /// None, yet, beside the node `name`, whose daemon began at `boot`.
    #[must_use]
    pub fn new(name: &str, boot: u64) -> Self {
        let members = BTreeMap::new();
        Self { name: name.to_owned(), boot, members, rival: None, ignored: None }
    }

    /// The store has these nodes and no others; whether anybody's record changed.
    pub fn listed(&mut self, records: Vec<(String, NodeRecord)>) -> bool {
        self.members.values_mut().for_each(|member| member.stale = true);
        records.into_iter().fold(false, |changed, (name, record)| self.put(&name, record) | changed)
    }

    /// The store has this record; whether it is news.
    pub fn put(&mut self, name: &str, record: NodeRecord) -> bool {
        if name == self.name {
            // Our own, or that of an earlier life of ours; a later one is not ours.
            let other = record.boot > self.boot;
            self.rival = other.then(|| {
                let at: Vec<String> = record.addresses.iter().map(ToString::to_string).collect();
                format!("it has the tunnel addresses {}", at.join(", "))
            });
            return false;
        }
        if self.members.len() >= MAX_MEMBERS && !self.members.contains_key(name) {
            self.ignored = Some(format!("there are more than {MAX_MEMBERS} nodes"));
            return false;
        }
        let news = self.members.get(name).is_none_or(|old| old.record != record);
        self.members.insert(name.to_owned(), Member { record, stale: false });
        news
    }

    /// The store does not have the node's record any more. It stays a member while it lives: see [`Self::missed`].
    pub fn deleted(&mut self, name: &str) {
        if name == self.name {
            self.rival = None;
        }
        if let Some(member) = self.members.get_mut(name) {
            member.stale = true;
        }
    }

    /// Lets go of members that the store has lost and that do not live either; their names.
    pub fn missed(&mut self, lives: impl Fn(&str) -> bool) -> Vec<String> {
        let gone: Vec<String> = self
            .members
            .iter()
            .filter(|(name, member)| member.stale && !lives(name))
            .map(|(name, _)| name.clone())
            .collect();
        gone.iter().for_each(|name| drop(self.members.remove(name)));
        gone
    }

    /// The record of a member.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&NodeRecord> {
        self.members.get(name).map(|member| &member.record)
    }

    /// Whether `name` is a member that the store has lost.
    #[must_use]
    pub fn is_lost(&self, name: &str) -> bool {
        self.members.get(name).is_some_and(|member| member.stale)
    }

    /// All members by name, and whether the store has lost them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &NodeRecord, bool)> {
        self.members.iter().map(|(name, member)| (name.as_str(), &member.record, member.stale))
    }

    /// Who else uses this node's name, in words.
    #[must_use]
    pub fn rival(&self) -> Option<&str> {
        self.rival.as_deref()
    }

    /// Why some nodes are not members, in words.
    #[must_use]
    pub fn ignored(&self) -> Option<&str> {
        self.ignored.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(last: u8, boot: u64) -> NodeRecord {
        NodeRecord {
            addresses: vec![[10, 0, 0, last].into()],
            udp_port: 4789,
            mtu: 1500,
            boot,
            version: String::new(),
            vnis: super::super::VniRanges::default(),
        }
    }

    fn names(members: &Members) -> Vec<(&str, bool)> {
        members.iter().map(|(name, _, stale)| (name, stale)).collect()
    }

    #[test]
    fn a_listing_without_a_node_costs_it_nothing_while_it_lives() {
        let mut members = Members::new("me", 5);
        assert!(members.listed(vec![("a".into(), record(1, 1)), ("b".into(), record(2, 1))]));
        assert!(!members.listed(vec![("a".into(), record(1, 1))]));
        assert_eq!(names(&members), [("a", false), ("b", true)]);
        assert!(members.missed(|name| name == "b").is_empty());
        // It comes back as it was: no news.
        assert!(!members.put("b", record(2, 1)));
        assert_eq!(names(&members), [("a", false), ("b", false)]);
        members.deleted("b");
        assert_eq!(members.missed(|_| false), ["b"]);
        assert_eq!(names(&members), [("a", false)]);
    }

    #[test]
    fn a_node_that_changes_its_address_is_followed() {
        let mut members = Members::new("me", 5);
        assert!(members.put("a", record(1, 1)) && !members.put("a", record(1, 1)));
        assert!(members.put("a", record(9, 1)));
        assert_eq!(members.get("a"), Some(&record(9, 1)));
    }

    #[test]
    fn a_later_life_under_our_name_is_a_rival_and_an_earlier_one_is_not() {
        let mut members = Members::new("me", 5);
        assert!(!members.put("me", record(1, 4)) && members.rival().is_none());
        assert!(!members.put("me", record(1, 6)));
        assert_eq!(members.rival(), Some("it has the tunnel addresses 10.0.0.1"));
        members.put("me", record(1, 5));
        assert_eq!((members.rival(), members.iter().count()), (None, 0));
    }

    #[test]
    fn there_is_an_end_to_members() {
        let mut members = Members::new("me", 5);
        for n in 0..=MAX_MEMBERS {
            members.put(&format!("n{n}"), record(1, 1));
        }
        assert_eq!(members.iter().count(), MAX_MEMBERS);
        assert_eq!(members.ignored(), Some("there are more than 4096 nodes"));
    }
}
