//! A node's part of one pool: its blocks, the single addresses that it was asked for, and who has which.
//!
//! Of each block the first address is nobody's, and of IPv4 the last: they look like a network's and a broadcast. The
//! second one is a gateway's: of the node's first block, this node's. Not here: several pools, and whether a block is
//! really the node's (see [`super::claims`]).

use super::gaps::{Taken, first_free};
use super::{Ground, Owner, Pool};
use crate::config::Prefix;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A node wants another block when no more than this part of one is free.
const LOW: u128 = 16;

/// Addresses of which this node gives each as it likes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Block {
    pub(super) range: Prefix,
    /// Whether the cluster's store says that it is this node's; else the node is alone, or was.
    pub(super) claimed: bool,
    pub(super) leases: BTreeMap<IpAddr, Owner>,
}

impl Block {
    pub(super) const fn new(range: Prefix, claimed: bool) -> Self {
        Self { range, claimed, leases: BTreeMap::new() }
    }

    fn gateway(&self) -> IpAddr {
        self.range.address(self.range.edges().0 + 1)
    }

    /// Those that no pod gets.
    fn never(&self) -> [Taken; 2] {
        let (first, last) = self.range.edges();
        [(first, first + 1), if self.range.network.is_ipv4() { (last, last) } else { (first, first) }]
    }

    fn size(&self) -> u128 {
        let (first, last) = self.range.edges();
        last - first - if self.range.network.is_ipv4() { 2 } else { 1 }
    }
}

/// A node's part of one pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Share {
    pub(super) subnet: Prefix,
    /// In the order in which they came.
    pub(super) blocks: Vec<Block>,
    /// Addresses that are this node's one by one.
    pub(super) singles: BTreeMap<IpAddr, Owner>,
    /// The one given last from a block: the next one is looked for behind it, so that one that was freed is given
    /// again as late as possible.
    last: Option<IpAddr>,
}

impl Share {
    pub(super) const fn new(subnet: Prefix) -> Self {
        Self { subnet, blocks: Vec::new(), singles: BTreeMap::new(), last: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocks.iter().all(|block| block.leases.is_empty()) && self.singles.is_empty()
    }

    /// Blocks that are of another size than the pool's are now, or were this node's in another way, become single
    /// addresses: those in use stay in use, and no more are given from them.
    pub(super) fn adapt(&mut self, pool: &Pool, ground: &Ground<'_>) {
        let (len, claimed) = ground.block_of(pool);
        let fits = |block: &Block| block.range.len == len && block.claimed == claimed;
        let (fitting, other) = std::mem::take(&mut self.blocks).into_iter().partition(fits);
        self.blocks = fitting;
        self.singles.extend(other.into_iter().flat_map(|block| block.leases));
    }

    /// All that is given: address and owner.
    pub(super) fn leases(&self) -> impl Iterator<Item = (IpAddr, &Owner)> {
        let blocks = self.blocks.iter().flat_map(|block| &block.leases);
        blocks.chain(&self.singles).map(|(address, owner)| (*address, owner))
    }

    pub(super) fn owner_of(&self, address: IpAddr) -> Option<&Owner> {
        let in_block = self.blocks.iter().find_map(|block| block.leases.get(&address));
        in_block.or_else(|| self.singles.get(&address))
    }

    /// Gives away what is in use in `subnet`.
    pub(super) fn hand_over(&mut self, subnet: &Prefix) -> BTreeMap<IpAddr, Owner> {
        let mut gone = BTreeMap::new();
        for leases in self.blocks.iter_mut().map(|block| &mut block.leases).chain([&mut self.singles]) {
            let stay = leases.extract_if(.., |address, _| subnet.contains(*address));
            gone.extend(stay);
        }
        gone
    }

    /// Takes away what `goes` likes; those addresses.
    pub(super) fn end(&mut self, goes: impl Fn(&Owner) -> bool) -> Vec<IpAddr> {
        let mut ended = Vec::new();
        let leases = self.blocks.iter_mut().map(|block| &mut block.leases).chain([&mut self.singles]);
        for lease in leases {
            lease.retain(|address, owner| {
                let goes = goes(owner);
                ended.extend(goes.then_some(*address));
                !goes
            });
        }
        ended
    }

    /// The blocks that may be given from.
    fn serving(&self, network: &str, ground: &Ground<'_>) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(move |block| ground.serves(network, &block.range))
    }

    /// This node's own address in the pool.
    pub(super) fn gateway(&self, network: &str, ground: &Ground<'_>) -> Option<IpAddr> {
        self.serving(network, ground).next().map(Block::gateway)
    }

    /// Gives an address of a block, the one behind the last; `None` when there is none.
    pub(super) fn give(
        &mut self,
        network: &str,
        pool: &Pool,
        ground: &Ground<'_>,
        owner: &Owner,
    ) -> Option<IpAddr> {
        let serving: Vec<usize> = (0..self.blocks.len())
            .filter(|at| self.blocks.get(*at).is_some_and(|block| ground.serves(network, &block.range)))
            .collect();
        let last = self.last.map(|last| Prefix::alone(last).edges().0);
        let with_last = |at: &usize| {
            self.last.is_some_and(|last| self.blocks.get(*at).is_some_and(|block| block.range.contains(last)))
        };
        let begin = serving.iter().position(with_last);
        // From behind the last one to the end of its block, then the other blocks, then that one from its beginning.
        let mut places: Vec<(usize, u128)> = serving.iter().map(|at| (*at, 0)).collect();
        if let Some((begin, last)) = begin.zip(last) {
            places.rotate_left(begin);
            places.extend(places.first().copied());
            if let (Some(first), Some(from)) = (places.first_mut(), last.checked_add(1)) {
                first.1 = from;
            }
        }
        let found = places.into_iter().find_map(|(at, from)| {
            let block = self.blocks.get(at)?;
            let free = first_free(
                &block.range,
                block.range.width(),
                &self.taken(network, pool, ground, block),
                from,
            )?;
            Some((at, free.network))
        });
        let (at, address) = found?;
        self.blocks.get_mut(at)?.leases.insert(address, owner.clone());
        self.last = Some(address);
        Some(address)
    }

    /// What of a block is not to be given.
    fn taken(&self, network: &str, pool: &Pool, ground: &Ground<'_>, block: &Block) -> Vec<Taken> {
        let alone = |address: &IpAddr| Prefix::alone(*address).edges();
        let mut taken = block.never().to_vec();
        taken.extend(block.leases.keys().map(alone));
        taken.extend(self.singles.keys().filter(|single| block.range.contains(**single)).map(alone));
        taken.extend(pool.reserved.iter().filter(|range| range.overlaps(&block.range)).map(Prefix::edges));
        taken.extend(ground.singles(network, &block.range));
        taken
    }

    /// Whether a pod may have `address` at all.
    pub(super) fn is_for_pods(&self, address: IpAddr) -> bool {
        let number = Prefix::alone(address).edges().0;
        let whole = Block::new(self.subnet, false).never();
        let never = self.blocks.iter().flat_map(Block::never).chain(whole);
        self.subnet.contains(address) && !never.into_iter().any(|(from, to)| (from..=to).contains(&number))
    }

    /// The block that `address` may be given from.
    pub(super) fn block_with(
        &mut self,
        network: &str,
        ground: &Ground<'_>,
        address: IpAddr,
    ) -> Option<&mut Block> {
        self.blocks
            .iter_mut()
            .find(|block| block.range.contains(address) && ground.serves(network, &block.range))
    }

    /// Whether so little is left that another block should be had before it is needed.
    pub(super) fn is_low(&self, network: &str, ground: &Ground<'_>) -> bool {
        let (mut free, mut one) = (0u128, 0);
        for block in self.serving(network, ground) {
            one = block.size();
            let used = u128::try_from(block.leases.len()).unwrap_or(u128::MAX);
            free = free.saturating_add(one.saturating_sub(used));
        }
        free <= one / LOW
    }

    /// Lets go of blocks that nobody has an address of: those behind the first while enough is left without them, and
    /// those that others have.
    pub(super) fn thin_out(&mut self, network: &str, ground: &Ground<'_>) {
        let mut at = self.blocks.len();
        while let Some(before) = at.checked_sub(1) {
            at = before;
            let Some(block) = self.blocks.get(at) else { break };
            if !block.leases.is_empty() {
                continue;
            }
            let disputed = ground.is_disputed(network, &block.range);
            let block = self.blocks.remove(at);
            if !disputed && (at == 0 || self.is_low(network, ground)) {
                self.blocks.insert(at, block);
            }
        }
    }
}
