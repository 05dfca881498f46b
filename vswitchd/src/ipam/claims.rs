//! What the cluster's store says of all nodes' blocks and single addresses, and what of it this node wants changed.
//!
//! A claim is a key that is made only where there is none, so no two nodes ever have the same one; and the store tells
//! of claims in one order to everybody: of two that overlap, who comes second knows the first when it hears of its own. Not here:
//! keys and values (see [`crate::cluster::Keys`]), and who asks the store.

use super::gaps::first_free;
use super::{Book, Owner, Pool};
use crate::config::Prefix;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::time::Duration;
use vswitch_core::Instant;

/// The most claims of others that are kept.
const MOST: usize = 1 << 20;
/// How long a claim that was asked for may wait to be used.
const PATIENCE: Duration = Duration::from_secs(60);

/// A block, or a single address with its owner, of a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The network's name.
    pub network: String,
    /// Which addresses; one alone where there is an owner.
    pub range: Prefix,
    /// Whose the single address is.
    pub owner: Option<Owner>,
}

impl Claim {
    pub(super) fn block(network: &str, range: Prefix) -> Self {
        Self { network: network.to_owned(), range, owner: None }
    }

    pub(super) fn address(network: &str, address: IpAddr, owner: &Owner) -> Self {
        Self { network: network.to_owned(), range: Prefix::alone(address), owner: Some(owner.clone()) }
    }
}

/// Who has a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The node's name.
    pub node: String,
    /// On that node, of a single address.
    pub owner: Option<Owner>,
}

/// What the store is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// This is this node's, unless it is somebody's.
    Claim(Claim),
    /// This is not this node's any more.
    Release(Claim),
}

/// How this node came to have a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ours {
    /// It was asked for, for the first time or again, and is waiting to be used.
    Asked(Instant),
    /// The book has it.
    Booked,
    /// A listing had it: of an earlier life.
    Found,
}

/// Where a node gives addresses.
#[derive(Clone, Copy, Debug)]
pub enum Ground<'a> {
    /// Every pool is this node's alone.
    Alone,
    /// Other nodes have their part.
    Shared(&'a Claims),
}

impl Ground<'_> {
    /// The prefix length of a node's block, and whether it is claimed.
    pub(super) fn block_of(&self, pool: &Pool) -> (u8, bool) {
        match self {
            Self::Alone => (pool.subnet.len, false),
            Self::Shared(_) => (pool.block_len(), true),
        }
    }

    /// Whether a block of the book may be given from. A store that has not said anything does not unmake it.
    pub(super) fn serves(&self, network: &str, range: &Prefix) -> bool {
        match self {
            Self::Alone => true,
            Self::Shared(claims) => {
                let holder = claims.holder(network, range);
                holder.map_or(!claims.listed, |holder| holder.node == claims.node)
            }
        }
    }

    /// Whether a block of the book is another node's.
    pub(super) fn is_disputed(&self, network: &str, range: &Prefix) -> bool {
        match self {
            Self::Alone => false,
            Self::Shared(claims) => {
                claims.holder(network, range).is_some_and(|holder| holder.node != claims.node)
            }
        }
    }

    /// Single addresses of a block that are somebody's.
    pub(super) fn singles(&self, network: &str, range: &Prefix) -> Vec<(u128, u128)> {
        let Self::Shared(claims) = self else { return Vec::new() };
        let Some(held) = claims.networks.get(network) else { return Vec::new() };
        let singles = held.range(*range..).take_while(|(other, _)| range.contains(other.network));
        singles.filter(|(_, holder)| holder.owner.is_some()).map(|(single, _)| single.edges()).collect()
    }
}

/// What the store says of the addresses of all networks.
#[derive(Clone, Debug)]
pub struct Claims {
    node: String,
    networks: BTreeMap<String, BTreeMap<Prefix, Holder>>,
    count: usize,
    listed: bool,
    too_many: bool,
    /// Of the book's, those that are others' for the store: each in a sentence.
    disputed: Vec<String>,
    ours: BTreeMap<(String, Prefix), Ours>,
}

impl Claims {
    /// Nothing known yet, on node `node`.
    #[must_use]
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            networks: BTreeMap::new(),
            count: 0,
            listed: false,
            too_many: false,
            disputed: Vec::new(),
            ours: BTreeMap::new(),
        }
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Whether the store has said all that there is, once at least.
    #[must_use]
    pub const fn is_listed(&self) -> bool {
        self.listed
    }

    /// Takes in all that there is.
    pub fn listed(&mut self, all: Vec<(Claim, String)>) {
        self.networks.clear();
        (self.count, self.listed, self.too_many) = (0, true, false);
        for (claim, node) in all {
            let key = (claim.network.clone(), claim.range);
            if node == self.node {
                self.ours.entry(key).or_insert(Ours::Found);
            }
            self.put(claim, node);
        }
    }

    /// Takes in that `node` has a claim.
    pub fn put(&mut self, claim: Claim, node: String) {
        let known = self.holder(&claim.network, &claim.range).is_some();
        if !known && self.count >= MOST && node != self.node {
            self.too_many = true;
            return;
        }
        self.count += usize::from(!known);
        let holder = Holder { node, owner: claim.owner };
        self.networks.entry(claim.network).or_default().insert(claim.range, holder);
    }

    /// Takes in that nobody has it any more.
    pub fn deleted(&mut self, network: &str, range: &Prefix) {
        let Some(held) = self.networks.get_mut(network) else { return };
        self.count -= usize::from(held.remove(range).is_some());
        if held.is_empty() {
            self.networks.remove(network);
        }
    }

    /// Who has it.
    #[must_use]
    pub fn holder(&self, network: &str, range: &Prefix) -> Option<&Holder> {
        self.networks.get(network)?.get(range)
    }

    /// Notes that the store is being asked for it.
    pub fn ask(&mut self, claim: &Claim, now: Instant) {
        self.ours.insert((claim.network.clone(), claim.range), Ours::Asked(now));
    }

    /// Whether the store has said that what was asked for is this node's.
    pub(super) fn is_ours(&self, claim: &Claim) -> bool {
        let asked = self.ours.get(&(claim.network.clone(), claim.range));
        let ours = self.holder(&claim.network, &claim.range).is_some_and(|holder| holder.node == self.node);
        ours && matches!(asked, Some(Ours::Asked(_) | Ours::Booked))
    }

    /// Whether another node has a block that overlaps with it.
    fn overlaps(&self, network: &str, range: &Prefix) -> bool {
        let held = self.networks.get(network).into_iter().flatten();
        held.filter(|(_, holder)| holder.owner.is_none() && holder.node != self.node)
            .any(|(other, _)| other.overlaps(range))
    }

    /// A block that was asked for, is this node's, and is not `known` yet.
    pub(super) fn spare(
        &self,
        network: &str,
        pool: &Pool,
        known: impl Fn(&Prefix) -> bool,
    ) -> Option<Prefix> {
        let singles = |range: &Prefix| {
            let held = self.networks.get(network).into_iter().flat_map(|held| held.range(*range..));
            held.take_while(|(single, _)| range.contains(single.network))
                .filter(|(single, holder)| holder.owner.is_some() && !pool.keeps(single.network))
                .any(|(_, holder)| holder.node != self.node)
        };
        let asked =
            self.ours.iter().filter(|((of, _), ours)| of == network && matches!(ours, Ours::Asked(_)));
        asked.map(|((_, range), _)| *range).find(|range| {
            let holder = self.holder(network, range);
            range.len == pool.block_len()
                && pool.subnet.contains(range.network)
                && holder.is_some_and(|holder| holder.node == self.node && holder.owner.is_none())
                && !known(range)
                && !self.overlaps(network, range)
                && !singles(range)
        })
    }

    /// A block that nobody has. Nodes begin to look in different places, so that they do not run into each other.
    pub(super) fn candidate(&self, network: &str, pool: &Pool) -> Option<Prefix> {
        let len = pool.block_len();
        let held = self.networks.get(network).into_iter().flatten();
        // A single address of a static range may lie in anybody's block; one beside them belongs to no block yet.
        let held = held.filter(|(range, holder)| holder.owner.is_none() || !pool.keeps(range.network));
        let whole = pool.reserved.iter().filter(|range| range.len <= len);
        let taken: Vec<(u128, u128)> =
            held.map(|(range, _)| range.edges()).chain(whole.map(Prefix::edges)).collect();
        let mut hasher = DefaultHasher::new();
        (&self.node, network).hash(&mut hasher);
        let (first, last) = pool.subnet.edges();
        let from = first + u128::from(hasher.finish()) % (last - first + 1);
        first_free(&pool.subnet, len, &taken, from).or_else(|| first_free(&pool.subnet, len, &taken, first))
    }

    /// What the store is to be told, so that it says what the book does. A claim that nothing came of is let go.
    pub fn due(&mut self, book: &Book, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        if !self.listed {
            return steps;
        }
        self.disputed.clear();
        let mut booked = BTreeSet::new();
        for claim in book.claims() {
            let key = (claim.network.clone(), claim.range);
            match self.holder(&claim.network, &claim.range) {
                None => {
                    self.ours.insert(key.clone(), Ours::Booked);
                    steps.push(Step::Claim(claim));
                }
                Some(holder) if holder.node == self.node => {
                    if holder.owner != claim.owner {
                        // Another container's a moment ago.
                        steps.push(Step::Release(Claim { owner: holder.owner.clone(), ..claim }));
                    }
                    self.ours.insert(key.clone(), Ours::Booked);
                }
                Some(holder) => self.disputed.push(format!(
                    "{} of network \"{}\" is in use here, and the store says that it is node \"{}\"'s",
                    claim.range, claim.network, holder.node
                )),
            }
            booked.insert(key);
        }
        let mut ours = std::mem::take(&mut self.ours);
        ours.retain(|key, how| {
            if booked.contains(key) {
                return true;
            }
            let (network, range) = key;
            let holder = self.holder(network, range);
            let waiting = matches!(how, Ours::Asked(since) if now.since(*since) < PATIENCE);
            match holder {
                None => waiting,
                Some(holder) if holder.node != self.node => false,
                Some(holder) => {
                    let keep = waiting && (holder.owner.is_some() || !self.overlaps(network, range))
                        || self.shelters(network, range, &booked);
                    if !keep {
                        let (network, owner) = (network.clone(), holder.owner.clone());
                        steps.push(Step::Release(Claim { network, range: *range, owner }));
                    }
                    keep
                }
            }
        });
        self.ours = ours;
        steps
    }

    /// Whether somebody has an address of a block that was let go, and the store does not yet say so: until it does, the
    /// block keeps others away.
    fn shelters(&self, network: &str, range: &Prefix, booked: &BTreeSet<(String, Prefix)>) -> bool {
        let inside = booked.range((network.to_owned(), *range)..);
        inside
            .take_while(|(of, single)| of == network && range.contains(single.network))
            .any(|(_, single)| self.holder(network, single).is_none())
    }

    /// What was not as it should be when it was last compared with the book, each a sentence.
    pub fn troubles(&self) -> impl Iterator<Item = String> {
        let too_many = || format!("there are more than {MOST} claims to addresses; some are ignored");
        self.disputed.iter().cloned().chain(self.too_many.then(too_many))
    }
}
