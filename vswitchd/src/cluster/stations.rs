//! Claims to stations, and which of them wins.
//!
//! Every node claims the stations behind its ports, under keys of its own. Of all claims to one station of a segment
//! the one with the highest sequence wins, at equal ones that of the lower node name; so all nodes that have seen the
//! same claims agree, whatever order they saw them in. Who loses takes its claim back. Whoever gets a station gives it a
//! sequence above every one it knows for that station, and for its IP addresses behind other ones.
//!
//! A station that moves to and fro is on two nodes at once: after five moves within 180 s (the defaults of RFC 7432
//! §15.1) this node says so once and claims it no more for 180 s.
//!
//! Not here: the store, and where frames go.

use super::model::MAX_ADDRESSES;
use super::{Key, StationRecord};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;
use vswitch_core::{Instant, Mac, Vni};

/// The most claims in all.
const MAX_CLAIMS: usize = 1 << 20;
/// The most claims of one node.
const MAX_OF_NODE: usize = 1 << 16;
/// Moves within [`WINDOW`] after which a station counts as being on two nodes at once.
const MOVES: usize = 5;
/// For how long moves are remembered, and a station that had too many is not claimed.
const WINDOW: Duration = Duration::from_secs(180);
/// How long a claim that was taken back is kept: the word that its node is gone may come a moment later, and of a node
/// that the store has lost nothing is forgotten while it lives.
const SECOND_THOUGHT: Duration = Duration::from_millis(500);

type Place = (Vni, Mac);

/// Where a station is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whereabouts<'a> {
    /// The node.
    pub node: &'a str,
    /// Its port.
    pub port: &'a str,
    /// The claim's sequence.
    pub sequence: u64,
}

/// What follows from what was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This node's claim is to be written.
    Claim {
        /// Of the station's segment.
        vni: Vni,
        /// The station.
        mac: Mac,
        /// The value.
        record: StationRecord,
    },
    /// This node's claim is to be deleted.
    Withdraw {
        /// Of the station's segment.
        vni: Vni,
        /// The station.
        mac: Mac,
    },
    /// Where the station is, or what addresses it has, may have changed: see [`Stations::get`].
    Station {
        /// Of its segment.
        vni: Vni,
        /// The station.
        mac: Mac,
    },
    /// Who has the address may have changed: see [`Stations::address`].
    Address {
        /// Of its segment.
        vni: Vni,
        /// The address.
        ip: IpAddr,
    },
    /// The station is on two nodes at once. Said once for each 180 s.
    Duplicate {
        /// Of its segment.
        vni: Vni,
        /// The station.
        mac: Mac,
        /// This node's port.
        here: String,
        /// The other node.
        there: String,
        /// The other node's port.
        their_port: String,
        /// How often it moved within 180 s.
        moves: usize,
    },
}

#[derive(Clone, Debug)]
struct Claim {
    record: StationRecord,
    /// When to let go of it, unless it is made again.
    doomed: Option<Instant>,
}

/// A station behind a port of this node, claimed or not.
#[derive(Clone, Debug)]
struct Local {
    port: String,
    ips: Vec<IpAddr>,
    /// Moves to and from here.
    moves: Vec<Instant>,
    /// Not claimed before that.
    held: Option<Instant>,
}

/// All claims of the VNIs that are watched.
#[derive(Clone, Debug)]
pub struct Stations {
    name: String,
    lease: Duration,
    claims: BTreeMap<Place, BTreeMap<String, Claim>>,
    count: usize,
    of_node: HashMap<String, usize>,
    /// Who claims an address, by segment.
    owners: BTreeMap<(Vni, IpAddr), BTreeSet<Mac>>,
    local: BTreeMap<Place, Local>,
    doomed: BTreeSet<(Instant, Place, String)>,
    changes: Vec<Change>,
    ignored: Option<String>,
}

impl Stations {
    /// None, yet; `name` is this node's, `lease` the time after which the store forgets a silent node.
    #[must_use]
    pub fn new(name: &str, lease: Duration) -> Self {
        Self {
            name: name.to_owned(),
            lease,
            claims: BTreeMap::new(),
            count: 0,
            of_node: HashMap::new(),
            owners: BTreeMap::new(),
            local: BTreeMap::new(),
            doomed: BTreeSet::new(),
            changes: Vec::new(),
            ignored: None,
        }
    }

    /// The station is, from now on, behind `port` of this node; `ips` are added to those it is known to have.
    pub fn local(&mut self, now: Instant, vni: Vni, mac: Mac, ips: &[IpAddr], port: &str) {
        let place = (vni, mac);
        let new = || Local { port: port.to_owned(), ips: Vec::new(), moves: Vec::new(), held: None };
        let local = self.local.entry(place).or_insert_with(new);
        port.clone_into(&mut local.port);
        for ip in ips {
            if !local.ips.contains(ip) && local.ips.len() < MAX_ADDRESSES {
                local.ips.push(*ip);
            }
        }
        let rival = self.best(place).filter(|(node, _)| *node != self.name);
        if let Some((there, claim)) = rival.map(|(node, claim)| (node.to_owned(), claim.record.port.clone()))
            && !self.may_move(now, place, &there, &claim)
        {
            return;
        }
        self.claim(place);
    }

    /// The station is behind no port of this node any more.
    pub fn local_gone(&mut self, vni: Vni, mac: Mac) {
        let place = (vni, mac);
        if self.local.remove(&place).is_some() {
            self.withdraw(place);
        }
    }

    /// The store has these claims to stations of `vnis`, and no others.
    pub fn listed(
        &mut self,
        now: Instant,
        vnis: &RangeInclusive<Vni>,
        records: Vec<(Place, String, StationRecord)>,
    ) {
        let mut seen: BTreeSet<(Place, String)> = BTreeSet::new();
        for (place, node, record) in records.into_iter().filter(|(place, ..)| vnis.contains(&place.0)) {
            if node == self.name && !self.is_claimed(place, &node) {
                // Of an earlier life, and nobody is there any more.
                self.changes.push(Change::Withdraw { vni: place.0, mac: place.1 });
            }
            self.put(now, place.0, place.1, &node, record);
            seen.insert((place, node));
        }
        let first = (*vnis.start(), Mac::from_u64(0));
        let last = (*vnis.end(), Mac::from_u64((1 << 48) - 1));
        let missing: Vec<(Place, String)> = self
            .claims
            .range(first..=last)
            .flat_map(|(place, claims)| claims.keys().map(|node| (*place, node.clone())))
            .filter(|claim| claim.1 != self.name && !seen.contains(claim))
            .collect();
        let deadline = now.after(self.lease * 2);
        for (place, node) in missing {
            self.doom(place, &node, deadline);
        }
    }

    /// The store has this claim.
    pub fn put(&mut self, now: Instant, vni: Vni, mac: Mac, node: &str, record: StationRecord) {
        let place = (vni, mac);
        if node == self.name {
            // Our own word; or that of a rival under our name, with whom there is no point in fighting over a key.
            return;
        }
        let was_ours = self.best(place).is_some_and(|(node, _)| node == self.name);
        if !self.insert(place, node, record) {
            return;
        }
        if was_ours && self.best(place).is_some_and(|(node, _)| node != self.name) {
            if let Some(local) = self.local.get_mut(&place) {
                local.moves.push(now);
            }
            self.withdraw(place);
        }
    }

    /// The store does not have that claim any more.
    pub fn deleted(&mut self, now: Instant, vni: Vni, mac: Mac, node: &str) {
        if node == self.name {
            // Ours is written again by whoever writes it, as long as it stands.
            return;
        }
        self.doom((vni, mac), node, now.after(SECOND_THOUGHT));
    }

    /// The node is no member any more: its claims go.
    pub fn node_gone(&mut self, node: &str) {
        let places: Vec<Place> = self
            .claims
            .iter()
            .filter(|(_, claims)| claims.contains_key(node))
            .map(|(place, _)| *place)
            .collect();
        for place in places {
            self.remove(place, node);
        }
    }

    /// The VNI is not watched any more: what others claim there is not known.
    pub fn forget(&mut self, vni: Vni) {
        let range = (vni, Mac::from_u64(0))..=(vni, Mac::from_u64((1 << 48) - 1));
        let claims: Vec<(Place, String)> = self
            .claims
            .range(range)
            .flat_map(|(place, claims)| claims.keys().map(|node| (*place, node.clone())))
            .filter(|(_, node)| *node != self.name)
            .collect();
        for (place, node) in claims {
            self.remove(place, &node);
        }
    }

    /// Lets go of claims whose time is over; `present` says whether the store lists a node. Of a node that it does not
    /// list nothing is let go: either it lives, or [`Self::node_gone`] follows.
    pub fn due(&mut self, now: Instant, present: impl Fn(&str) -> bool) {
        while let Some((at, place, node)) = self.doomed.pop_first() {
            if at > now {
                self.doomed.insert((at, place, node));
                return;
            }
            let Some(claim) = self.claims.get_mut(&place).and_then(|claims| claims.get_mut(&node)) else {
                continue;
            };
            if claim.doomed != Some(at) {
                continue;
            }
            if present(&node) {
                self.remove(place, &node);
            } else {
                let again = now.after(self.lease);
                claim.doomed = Some(again);
                self.doomed.insert((again, place, node));
            }
        }
    }

    /// When [`Self::due`] has something to do.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.doomed.first().map(|(at, ..)| *at)
    }

    /// What followed since the last call, in order.
    pub fn drain(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Where a station is, and what addresses it has.
    #[must_use]
    pub fn get(&self, vni: Vni, mac: Mac) -> Option<(Whereabouts<'_>, &[IpAddr])> {
        let (node, claim) = self.best((vni, mac))?;
        let StationRecord { ips, sequence, port } = &claim.record;
        Some((Whereabouts { node, port, sequence: *sequence }, ips))
    }

    /// The station that has an address.
    #[must_use]
    pub fn address(&self, vni: Vni, ip: IpAddr) -> Option<Mac> {
        let owners = self.owners.get(&(vni, ip))?.iter().filter_map(|mac| {
            let (_, claim) = self.best((vni, *mac)).filter(|(_, claim)| claim.record.ips.contains(&ip))?;
            // The later one; of two at once the lower one.
            Some((claim.record.sequence, std::cmp::Reverse(*mac)))
        });
        owners.max().map(|(_, mac)| mac.0)
    }

    /// Every station that is claimed.
    pub fn macs(&self) -> impl ExactSizeIterator<Item = (Vni, Mac)> {
        self.claims.keys().copied()
    }

    /// Every address that is claimed.
    pub fn addresses(&self) -> impl Iterator<Item = (Vni, IpAddr)> {
        self.owners.keys().copied()
    }

    /// Why some claims are not known, in words.
    #[must_use]
    pub fn ignored(&self) -> Option<&str> {
        self.ignored.as_deref()
    }

    fn is_claimed(&self, place: Place, node: &str) -> bool {
        self.claims.get(&place).is_some_and(|claims| claims.contains_key(node))
    }

    fn best(&self, place: Place) -> Option<(&str, &Claim)> {
        let claims = self.claims.get(&place)?;
        let best =
            claims.iter().max_by_key(|(node, claim)| (claim.record.sequence, std::cmp::Reverse(*node)))?;
        Some((best.0, best.1))
    }

    /// Whether a station that is elsewhere may come here, or has come and gone too often.
    fn may_move(&mut self, now: Instant, place: Place, there: &str, their_port: &str) -> bool {
        let Some(local) = self.local.get_mut(&place) else { return false };
        if local.held.is_some_and(|held| now < held) {
            return false;
        }
        local.held = None;
        local.moves.retain(|then| now.since(*then) < WINDOW);
        local.moves.push(now);
        if local.moves.len() <= MOVES {
            return true;
        }
        let moves = local.moves.len();
        local.held = Some(now.after(WINDOW));
        local.moves.clear();
        self.changes.push(Change::Duplicate {
            vni: place.0,
            mac: place.1,
            here: local.port.clone(),
            there: there.to_owned(),
            their_port: their_port.to_owned(),
            moves,
        });
        false
    }

    /// Makes this node's claim to a station that is here the winning one, if it is not, and up to date.
    fn claim(&mut self, place: Place) {
        let Some(local) = self.local.get(&place) else { return };
        let own = self.claims.get(&place).and_then(|claims| claims.get(&self.name));
        let of_station = self
            .claims
            .get(&place)
            .into_iter()
            .flatten()
            .filter(|(node, _)| **node != self.name)
            .map(|(_, claim)| claim.record.sequence);
        let of_addresses = local
            .ips
            .iter()
            .filter(|ip| own.is_none_or(|own| !own.record.ips.contains(ip)))
            .filter_map(|ip| Some((place.0, self.address(place.0, *ip).filter(|mac| *mac != place.1)?)))
            .filter_map(|other| self.best(other).map(|(_, claim)| claim.record.sequence));
        let above = of_station.chain(of_addresses).max().unwrap_or(0) + 1;
        let sequence = own.map_or(above, |own| own.record.sequence.max(above));
        let record = StationRecord { ips: local.ips.clone(), sequence, port: local.port.clone() };
        if own.is_some_and(|own| own.record == record) {
            return;
        }
        let name = self.name.clone();
        if self.insert(place, &name, record.clone()) {
            self.changes.push(Change::Claim { vni: place.0, mac: place.1, record });
        }
    }

    /// Takes this node's claim back.
    fn withdraw(&mut self, place: Place) {
        let name = self.name.clone();
        if self.remove(place, &name) {
            self.changes.push(Change::Withdraw { vni: place.0, mac: place.1 });
        }
    }

    fn doom(&mut self, place: Place, node: &str, at: Instant) {
        let claim = self.claims.get_mut(&place).and_then(|claims| claims.get_mut(node));
        let Some(claim) = claim.filter(|claim| claim.doomed.is_none_or(|then| at < then)) else { return };
        claim.doomed = Some(at);
        self.doomed.insert((at, place, node.to_owned()));
    }

    /// Notes a claim; `false` where there are too many.
    fn insert(&mut self, place: Place, node: &str, record: StationRecord) -> bool {
        let known = self.is_claimed(place, node);
        let of_node = self.of_node.get(node).copied().unwrap_or(0);
        if !known && (self.count >= MAX_CLAIMS || of_node >= MAX_OF_NODE) {
            self.ignored = Some(format!("node \"{node}\" has {of_node} stations, all nodes {}", self.count));
            return false;
        }
        for ip in &record.ips {
            self.owners.entry((place.0, *ip)).or_default().insert(place.1);
            self.changes.push(Change::Address { vni: place.0, ip: *ip });
        }
        let claim = Claim { record, doomed: None };
        match self.claims.entry(place).or_default().insert(node.to_owned(), claim) {
            Some(old) => self.disown(place, &old.record.ips),
            None => {
                self.count += 1;
                *self.of_node.entry(node.to_owned()).or_default() += 1;
            }
        }
        self.changes.push(Change::Station { vni: place.0, mac: place.1 });
        true
    }

    fn remove(&mut self, place: Place, node: &str) -> bool {
        let Some(claims) = self.claims.get_mut(&place) else { return false };
        let Some(claim) = claims.remove(node) else { return false };
        if claims.is_empty() {
            self.claims.remove(&place);
        }
        self.count -= 1;
        if let Some(count) = self.of_node.get_mut(node) {
            *count -= 1;
            if *count == 0 {
                self.of_node.remove(node);
            }
        }
        self.disown(place, &claim.record.ips);
        self.changes.push(Change::Station { vni: place.0, mac: place.1 });
        // Nobody else has it, and it is here after all.
        if node != self.name && !self.claims.contains_key(&place) && self.local.contains_key(&place) {
            self.claim(place);
        }
        true
    }

    /// A claim to a station with these addresses is gone: those that no other claim to it has are nobody's, or another
    /// one's.
    fn disown(&mut self, place: Place, ips: &[IpAddr]) {
        for ip in ips {
            let others = self.claims.get(&place).into_iter().flat_map(BTreeMap::values);
            if !others.into_iter().any(|claim| claim.record.ips.contains(ip))
                && let Some(owners) = self.owners.get_mut(&(place.0, *ip))
            {
                owners.remove(&place.1);
                if owners.is_empty() {
                    self.owners.remove(&(place.0, *ip));
                }
            }
            self.changes.push(Change::Address { vni: place.0, ip: *ip });
        }
    }
}

/// The place and node of a claim's key.
impl Key {
    /// Of a claim: the station and its node.
    #[must_use]
    pub fn into_claim(self) -> Option<((Vni, Mac), String)> {
        match self {
            Self::Station { vni, mac, node } => Some(((vni, mac), node)),
            Self::Node(_) | Self::Suspect { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn vni() -> Vni {
        Vni::new(10).unwrap()
    }

    fn mac(last: u8) -> Mac {
        Mac::from_u64(0x0200_0000_0000 + u64::from(last))
    }

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn record(ips: &[IpAddr], sequence: u64) -> StationRecord {
        StationRecord { ips: ips.to_vec(), sequence, port: "theirs".into() }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_secs(seconds)
    }

    fn claims(changes: &[Change]) -> Vec<u64> {
        let claim = |change: &Change| match change {
            Change::Claim { record, .. } => Some(record.sequence),
            Change::Withdraw { .. } => Some(0),
            _ => None,
        };
        changes.iter().filter_map(claim).collect()
    }

    fn node(stations: &Stations, last: u8) -> Option<&str> {
        stations.get(vni(), mac(last)).map(|(at, _)| at.node)
    }

    #[test]
    fn a_station_that_comes_here_gets_a_sequence_above_all_others() {
        let mut stations = Stations::new("me", LEASE);
        stations.local(at(0), vni(), mac(1), &[ip(1)], "a");
        assert_eq!(claims(&stations.drain()), [1]);
        stations.local(at(0), vni(), mac(1), &[], "a");
        assert!(stations.drain().is_empty());
        stations.put(at(0), vni(), mac(2), "other", record(&[ip(2)], 7));
        stations.local(at(0), vni(), mac(2), &[], "a");
        assert_eq!(claims(&stations.drain()), [8]);
        assert_eq!(node(&stations, 2), Some("me"));
    }

    #[test]
    fn whoever_loses_takes_its_claim_back() {
        let mut stations = Stations::new("me", LEASE);
        stations.local(at(0), vni(), mac(1), &[ip(1)], "a");
        stations.drain();
        stations.put(at(1), vni(), mac(1), "other", record(&[ip(1)], 2));
        assert_eq!(claims(&stations.drain()), [0]);
        assert_eq!(node(&stations, 1), Some("other"));
        assert_eq!(stations.address(vni(), ip(1)), Some(mac(1)));
        // It is still here, and the other one lets go of it.
        stations.deleted(at(2), vni(), mac(1), "other");
        stations.due(at(3), |_| true);
        assert_eq!(claims(&stations.drain()), [1]);
        assert_eq!(node(&stations, 1), Some("me"));
    }

    #[test]
    fn at_equal_sequences_the_lower_name_wins_on_both_sides() {
        let mut low = Stations::new("a", LEASE);
        let mut high = Stations::new("b", LEASE);
        low.local(at(0), vni(), mac(1), &[], "p");
        high.local(at(0), vni(), mac(1), &[], "p");
        low.drain();
        high.drain();
        low.put(at(0), vni(), mac(1), "b", record(&[], 1));
        high.put(at(0), vni(), mac(1), "a", record(&[], 1));
        assert_eq!((claims(&low.drain()), claims(&high.drain())), (vec![], vec![0]));
        assert_eq!((node(&low, 1), node(&high, 1)), (Some("a"), Some("a")));
    }

    #[test]
    fn an_address_follows_to_another_station() {
        let mut stations = Stations::new("me", LEASE);
        stations.put(at(0), vni(), mac(1), "other", record(&[ip(9)], 4));
        assert_eq!(stations.address(vni(), ip(9)), Some(mac(1)));
        stations.local(at(1), vni(), mac(2), &[ip(9)], "a");
        assert_eq!(stations.address(vni(), ip(9)), Some(mac(2)));
        assert_eq!(claims(&stations.drain()), [5]);
        stations.local_gone(vni(), mac(2));
        assert_eq!(stations.address(vni(), ip(9)), Some(mac(1)));
        stations.node_gone("other");
        assert_eq!((stations.address(vni(), ip(9)), stations.macs().len()), (None, 0));
        assert_eq!(stations.addresses().count(), 0);
    }

    #[test]
    fn a_claim_that_was_taken_back_goes_unless_its_node_is_lost_as_well() {
        let mut stations = Stations::new("me", LEASE);
        stations.put(at(0), vni(), mac(1), "other", record(&[], 1));
        stations.deleted(at(0), vni(), mac(1), "other");
        assert_eq!(stations.next_due(), Some(Instant::ZERO.after(SECOND_THOUGHT)));
        stations.due(at(1), |_| false);
        assert_eq!(node(&stations, 1), Some("other"));
        stations.put(at(2), vni(), mac(1), "other", record(&[], 1));
        stations.due(at(60), |_| true);
        assert_eq!(node(&stations, 1), Some("other"));
        stations.deleted(at(61), vni(), mac(1), "other");
        stations.due(at(62), |_| true);
        assert_eq!((node(&stations, 1), stations.next_due()), (None, None));
    }

    #[test]
    fn a_listing_is_a_difference() {
        let mut stations = Stations::new("me", LEASE);
        let all = vni()..=vni();
        stations.local(at(0), vni(), mac(9), &[], "a");
        let one = |last| ((vni(), mac(last)), "other".to_owned(), record(&[], 1));
        stations.listed(at(0), &all, vec![one(1), one(2)]);
        stations.listed(at(1), &all, vec![one(1)]);
        stations.due(at(20), |_| true);
        assert_eq!((node(&stations, 1), node(&stations, 2)), (Some("other"), Some("other")));
        stations.due(at(21), |_| true);
        assert_eq!(
            (node(&stations, 1), node(&stations, 2), node(&stations, 9)),
            (Some("other"), None, Some("me"))
        );
        // What stands under our name without our knowing is from an earlier life.
        stations.drain();
        stations.listed(at(22), &all, vec![((vni(), mac(7)), "me".to_owned(), record(&[], 1)), one(1)]);
        assert_eq!(stations.drain()[0], Change::Withdraw { vni: vni(), mac: mac(7) });
    }

    #[test]
    fn a_station_on_two_nodes_is_named_once_and_left_alone_for_a_while() {
        let mut stations = Stations::new("me", LEASE);
        let mut sequence = 0;
        let mut duplicates = 0;
        let mut last = Vec::new();
        for second in 0..60 {
            stations.local(at(second), vni(), mac(1), &[], "mine");
            last = stations.drain();
            for change in &last {
                match change {
                    Change::Claim { record, .. } => sequence = record.sequence,
                    Change::Duplicate { here, there, their_port, .. } => {
                        assert_eq!(
                            (here.as_str(), there.as_str(), their_port.as_str()),
                            ("mine", "other", "theirs")
                        );
                        duplicates += 1;
                    }
                    _ => {}
                }
            }
            sequence += 1;
            stations.put(at(second), vni(), mac(1), "other", record(&[], sequence));
            stations.drain();
        }
        assert_eq!((duplicates, claims(&last).len()), (1, 0));
        stations.local(at(400), vni(), mac(1), &[], "mine");
        assert_eq!(claims(&stations.drain()).len(), 1);
    }

    #[test]
    fn a_vni_that_is_not_watched_any_more_is_forgotten_but_for_what_is_here() {
        let mut stations = Stations::new("me", LEASE);
        stations.put(at(0), vni(), mac(1), "other", record(&[ip(1)], 1));
        stations.local(at(0), vni(), mac(2), &[], "a");
        stations.forget(vni());
        assert_eq!((node(&stations, 1), node(&stations, 2)), (None, Some("me")));
    }
}
