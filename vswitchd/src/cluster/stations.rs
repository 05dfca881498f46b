//! Claims to stations, and which of them wins.
//!
//! Every node claims the stations behind its ports, under keys of its own. Of all claims to one station of a segment
//! the one with the highest sequence wins, at equal ones that of the lower node name; so all nodes that have seen the
//! same claims agree, whatever order they saw them in. A claim that the store does not have any more loses against one
//! that it has. Who loses takes its claim back. Whoever gets a station gives it a sequence above every one it knows for
//! that station, and for the IP addresses it is seen to use that are behind other ones.
//!
//! A station that moves to and fro is on two nodes at once: after five moves within 180 s (the defaults of RFC 7432
//! §15.1) this node says so once and claims it no more for 180 s.
//!
//! Not here: the store, and where frames go.

use super::model::{MAX_ADDRESSES, MAX_SEQUENCE, is_station_address};
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
#[derive(Clone, Debug, Default)]
struct Local {
    port: String,
    ips: Vec<IpAddr>,
    /// Moves to and from here.
    moves: Vec<Instant>,
    /// When it was seen to use an address again that another station had got.
    returns: Vec<Instant>,
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
    /// VNIs whose claims are known: they were listed.
    known: BTreeSet<Vni>,
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
            known: BTreeSet::new(),
            doomed: BTreeSet::new(),
            changes: Vec::new(),
            ignored: None,
        }
    }

    /// The station is, from now on, behind `port` of this node, and was seen to use `ips`: they are added to those it
    /// is known to have. What is no station's address is passed over.
    pub fn local(&mut self, now: Instant, vni: Vni, mac: Mac, ips: &[IpAddr], port: &str) {
        let place = (vni, mac);
        let new = || Local { port: port.to_owned(), ..Local::default() };
        let local = self.local.entry(place).or_insert_with(new);
        port.clone_into(&mut local.port);
        for ip in ips.iter().filter(|ip| is_station_address(**ip)) {
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
        let above = self.above_other_stations(now, place, ips);
        self.claim(place, above);
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
            if node == self.name {
                // Of an earlier life, and nobody is there any more.
                if !self.is_claimed(place, &node) {
                    self.changes.push(Change::Withdraw { vni: place.0, mac: place.1 });
                }
                continue;
            }
            let first = !self.known.contains(&place.0);
            self.take(now, place, &node, record, first);
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
        // What came here before anybody could know where it had been.
        let early = self.local.range(first..=last).filter(|(place, _)| !self.known.contains(&place.0));
        let early: Vec<Place> = early.map(|(place, _)| *place).collect();
        self.known.extend((vnis.start().get()..=vnis.end().get()).filter_map(Vni::new));
        for place in early {
            let ips = self.local.get(&place).into_iter().flat_map(|local| &local.ips);
            let others = ips.filter_map(|ip| self.best((place.0, self.address(place.0, *ip)?)));
            let others = others.filter(|(node, _)| *node != self.name);
            let above = others.map(|(_, claim)| claim.record.sequence).max().unwrap_or(0);
            self.claim(place, above);
        }
    }

    /// The store has this claim.
    pub fn put(&mut self, now: Instant, vni: Vni, mac: Mac, node: &str, record: StationRecord) {
        // Of our own it tells nothing new. One that we did not write is of somebody with our name, who would write it
        // again and again if we took it back.
        if node != self.name {
            self.take(now, (vni, mac), node, record, false);
        }
    }

    /// Notes another node's claim; `first`: until now nobody here could know of it, and what follows is seen
    /// to with the whole listing.
    fn take(&mut self, now: Instant, place: Place, node: &str, record: StationRecord, first: bool) {
        let was_ours = self.is_ours(place);
        if !self.insert(place, node, record) || first || !was_ours || self.is_ours(place) {
            return;
        }
        if let Some(local) = self.local.get_mut(&place) {
            local.moves.retain(|then| now.since(*then) < WINDOW);
            local.moves.push(now);
        }
        self.withdraw(place);
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
        self.known.remove(&vni);
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

    /// Lets go of claims whose time is over; `lost` says whether a node is a member that the store has lost. Of such a
    /// one nothing is let go: either it lives, or [`Self::node_gone`] follows.
    pub fn due(&mut self, now: Instant, lost: impl Fn(&str) -> bool) {
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
            if lost(&node) {
                let again = now.after(self.lease);
                claim.doomed = Some(again);
                self.doomed.insert((again, place, node));
            } else {
                self.remove(place, &node);
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
            Some((claim.doomed.is_none(), claim.record.sequence, std::cmp::Reverse(*mac)))
        });
        owners.max().map(|(.., mac)| mac.0)
    }

    /// This node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// This node's own claims.
    pub fn own(&self) -> impl Iterator<Item = (Vni, Mac, &StationRecord)> {
        self.claims
            .iter()
            .filter_map(|((vni, mac), claims)| Some((*vni, *mac, &claims.get(&self.name)?.record)))
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
        let rank = |claim: &Claim| (claim.doomed.is_none(), claim.record.sequence);
        let best = claims.iter().max_by(|one, other| {
            // Of two at once the lower name.
            rank(one.1).cmp(&rank(other.1)).then_with(|| other.0.cmp(one.0))
        });
        best.map(|(node, claim)| (node.as_str(), claim))
    }

    fn is_ours(&self, place: Place) -> bool {
        self.best(place).is_some_and(|(node, _)| node == self.name)
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

    /// The highest sequence of other stations that have addresses which the station at `place` has now as well: those
    /// that are new to it, and those of `used` that it had before, as often as a station may move.
    fn above_other_stations(&mut self, now: Instant, place: Place, used: &[IpAddr]) -> u64 {
        let Some(local) = self.local.get(&place) else { return 0 };
        let claimed = self.claims.get(&place).and_then(|claims| claims.get(&self.name));
        let of = |ip: &IpAddr| {
            let other = self.address(place.0, *ip).filter(|mac| *mac != place.1)?;
            self.best((place.0, other)).map(|(_, claim)| claim.record.sequence)
        };
        let is_new = |ip: &IpAddr| claimed.is_none_or(|own| !own.record.ips.contains(ip));
        let above = local.ips.iter().filter(|ip| is_new(ip)).filter_map(of).max().unwrap_or(0);
        let returned = local.ips.iter().filter(|ip| used.contains(ip) && !is_new(ip)).filter_map(of).max();
        let (Some(returned), Some(local)) = (returned, self.local.get_mut(&place)) else { return above };
        local.returns.retain(|then| now.since(*then) < WINDOW);
        if local.returns.len() >= MOVES {
            return above;
        }
        local.returns.push(now);
        above.max(returned)
    }

    /// Makes this node's claim to a station that is here the winning one, if it is not, and up to date; its sequence
    /// is greater than `above`, as well.
    fn claim(&mut self, place: Place, above: u64) {
        let Some(local) = self.local.get(&place) else { return };
        let claims = self.claims.get(&place);
        let own = claims.and_then(|claims| claims.get(&self.name));
        let others = claims.into_iter().flatten().filter(|(node, _)| **node != self.name);
        let above = others.map(|(_, claim)| claim.record.sequence).max().unwrap_or(0).max(above);
        let sequence =
            own.map_or(0, |own| own.record.sequence).max(above.saturating_add(1)).min(MAX_SEQUENCE);
        let record = StationRecord { ips: local.ips.clone(), sequence, port: local.port.clone() };
        if own.is_some_and(|own| own.record == record) {
            return;
        }
        let name = self.name.clone();
        if self.insert(place, &name, record.clone()) {
            self.changes.push(Change::Claim { vni: place.0, mac: place.1, record });
            if !self.is_ours(place) {
                // Nothing is above the highest sequence.
                self.withdraw(place);
            }
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
        if claim.doomed.replace(at).is_none() {
            // Others may win now.
            self.changes.push(Change::Station { vni: place.0, mac: place.1 });
            let ips = claim.record.ips.iter();
            self.changes.extend(ips.map(|ip| Change::Address { vni: place.0, ip: *ip }));
        }
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
            self.claim(place, 0);
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
            Self::Node(_) | Self::Suspect { .. } | Self::Block { .. } | Self::Address { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
