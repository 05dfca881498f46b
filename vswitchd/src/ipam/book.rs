//! What this node has given, and of what: all pools of all networks. It goes into the journal.
//!
//! Every change is made in a copy that counts when it is on the disk; so nothing here tells the store anything.

use super::blocks::{Block, Share};
use super::{Claim, Ground, Leased, Owner, Pool, Pools};
use crate::config::Prefix;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// This node's blocks, single addresses, and who has them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Book {
    networks: BTreeMap<String, Vec<Share>>,
}

/// Why no address was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lacking {
    /// The store has to say that these are this node's.
    Claims(Vec<Claim>),
    /// Something is on its way already; a sentence.
    Later(String),
    /// There is none to be had, or not that one; a sentence.
    Refused(String),
}

/// What was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// An address of each pool, in their order.
    pub leased: Vec<Leased>,
    /// Blocks that will be needed soon.
    pub ahead: Vec<Claim>,
}

impl Book {
    /// Gives `owner` an address of each pool, those of `wanted` where some are; the same ones as before if it has some
    /// already.
    ///
    /// # Errors
    /// What is lacking. The book may have changed then, and is to be thrown away.
    pub fn lease(
        &mut self,
        ground: &Ground<'_>,
        network: &str,
        pools: &Pools,
        owner: &Owner,
        wanted: &[IpAddr],
    ) -> Result<Given, Lacking> {
        for (at, address) in wanted.iter().enumerate() {
            let pool = pools.of(*address).ok_or_else(|| {
                Lacking::Refused(format!("{address} is in no pool of network \"{network}\""))
            })?;
            if wanted.iter().skip(at + 1).any(|other| pool.subnet.contains(*other)) {
                let text = format!("two addresses of {} are asked for; one interface gets one", pool.subnet);
                return Err(Lacking::Refused(text));
            }
        }
        let shares = self.networks.entry(network.to_owned()).or_default();
        // Subnets that the network had once are forgotten with their last address.
        shares.retain(|share| pools.iter().any(|pool| pool.subnet == share.subnet) || !share.is_empty());
        for share in shares.iter_mut().filter(|share| pools.iter().all(|pool| pool.subnet != share.subnet)) {
            share.end(|other| other == owner);
        }
        if matches!(ground, Ground::Alone) {
            take_over(shares, pools);
        }
        let mut given = Given { leased: Vec::new(), ahead: Vec::new() };
        let (mut claims, mut later) = (Vec::new(), None);
        for pool in pools.iter() {
            let at = shares.iter().position(|share| share.subnet == pool.subnet).unwrap_or(shares.len());
            if at == shares.len() {
                shares.push(Share::new(pool.subnet));
            }
            let Some(share) = shares.get_mut(at) else { continue };
            let wanted = wanted.iter().copied().find(|address| pool.subnet.contains(*address));
            let mut part = Part { network, pool, ground, share };
            match part.lease(owner, wanted) {
                Ok(address) => {
                    given.leased.push(Leased {
                        address,
                        prefix_len: pool.subnet.len,
                        gateway: part.share.gateway(network, ground),
                    });
                    given.ahead.extend(part.ahead());
                }
                // All that is lacking is asked for at once.
                Err(Lacking::Claims(more)) => claims.extend(more),
                Err(Lacking::Later(reason)) => later = Some(reason),
                Err(refused) => return Err(refused),
            }
        }
        match later {
            _ if !claims.is_empty() => Err(Lacking::Claims(claims)),
            Some(reason) => Err(Lacking::Later(reason)),
            None => Ok(given),
        }
    }

    /// Frees what `owner` has.
    pub fn end(&mut self, owner: &Owner) -> Vec<IpAddr> {
        self.networks.values_mut().flatten().flat_map(|share| share.end(|other| other == owner)).collect()
    }

    /// Frees what none of `live` has, and lets go of blocks that are not needed.
    pub fn retain(&mut self, ground: &Ground<'_>, live: &BTreeSet<Owner>) {
        for (network, shares) in &mut self.networks {
            for share in shares.iter_mut() {
                share.end(|owner| !live.contains(owner));
                share.thin_out(network, ground);
            }
            shares.retain(|share| !share.is_empty() || !share.blocks.is_empty());
        }
        self.networks.retain(|_, shares| !shares.is_empty());
    }

    /// This node's own address in each pool of which it has a block, with the prefix length of the subnet.
    #[must_use]
    pub fn gateways(&self, ground: &Ground<'_>, network: &str, pools: &Pools) -> Vec<(IpAddr, u8)> {
        let shares = self.networks.get(network).map_or(&[][..], Vec::as_slice);
        let of = |pool: &Pool| {
            let share = shares.iter().find(|share| share.subnet == pool.subnet)?;
            Some((share.gateway(network, ground)?, pool.subnet.len))
        };
        pools.iter().filter_map(of).collect()
    }

    /// All that is given: network, address, owner.
    pub fn leases(&self) -> impl Iterator<Item = (&str, IpAddr, &Owner)> {
        self.networks.iter().flat_map(|(network, shares)| {
            let leases = shares.iter().flat_map(Share::leases);
            leases.map(move |(address, owner)| (network.as_str(), address, owner))
        })
    }

    /// What the cluster's store should say is this node's.
    pub fn claims(&self) -> impl Iterator<Item = Claim> {
        self.networks.iter().flat_map(|(network, shares)| {
            shares.iter().flat_map(move |share| {
                let (ours, alone): (Vec<_>, Vec<_>) = share.blocks.iter().partition(|block| block.claimed);
                // What was given by a node alone is claimed address by address.
                let singles = alone.into_iter().flat_map(|block| &block.leases).chain(&share.singles);
                let singles = singles.map(move |(address, owner)| Claim::address(network, *address, owner));
                let blocks = ours.into_iter().map(move |block| Claim::block(network, block.range));
                blocks.chain(singles.collect::<Vec<_>>())
            })
        })
    }
}

/// What is in use in subnets that the network had once, and lies in one that it has now, is in use there too. (In a
/// cluster no block is chosen that overlaps one that is held.)
fn take_over(shares: &mut Vec<Share>, pools: &Pools) {
    for pool in pools.iter() {
        let mut found = BTreeMap::new();
        for old in shares.iter_mut().filter(|share| pools.iter().all(|pool| pool.subnet != share.subnet)) {
            found.extend(old.hand_over(&pool.subnet));
        }
        if found.is_empty() {
            continue;
        }
        let at = shares.iter().position(|share| share.subnet == pool.subnet).unwrap_or(shares.len());
        if at == shares.len() {
            shares.push(Share::new(pool.subnet));
        }
        if let Some(share) = shares.get_mut(at) {
            share.singles.extend(found);
        }
    }
}

/// One pool of a network, while an address of it is looked for.
struct Part<'a> {
    network: &'a str,
    pool: &'a Pool,
    ground: &'a Ground<'a>,
    share: &'a mut Share,
}

impl Part<'_> {
    fn lease(&mut self, owner: &Owner, wanted: Option<IpAddr>) -> Result<IpAddr, Lacking> {
        self.share.adapt(self.pool, self.ground);
        self.have_block()?;
        let had = self.share.leases().find(|(_, other)| *other == owner).map(|(address, _)| address);
        if let Some(had) = had {
            if wanted.is_none_or(|wanted| wanted == had) {
                return Ok(had);
            }
            self.share.end(|other| other == owner);
        }
        match wanted {
            Some(wanted) => self.lease_this(owner, wanted).map(|()| wanted),
            None => self.lease_any(owner),
        }
    }

    /// Makes sure of a first block, which has the node's own address.
    fn have_block(&mut self) -> Result<(), Lacking> {
        let Ground::Shared(claims) = self.ground else {
            if self.share.blocks.is_empty() {
                self.share.blocks.push(Block::new(self.pool.subnet, false));
            }
            return Ok(());
        };
        let unclaimed = |block: &&Block| claims.holder(self.network, &block.range).is_none();
        if self.share.gateway(self.network, self.ground).is_some() {
            return Ok(());
        }
        if let Some(block) = self.share.blocks.iter().find(unclaimed) {
            // The store has lost it, and is being told.
            return Err(Lacking::Claims(vec![Claim::block(self.network, block.range)]));
        }
        match self.another_block() {
            Err(Lacking::Refused(_)) => Ok(()),
            other => other,
        }
    }

    /// Takes in a block that the store has just said is this node's; else, which one to ask for.
    fn another_block(&mut self) -> Result<(), Lacking> {
        let Ground::Shared(claims) = self.ground else { return Err(self.exhausted()) };
        let known = |range: &Prefix| self.share.blocks.iter().any(|block| block.range == *range);
        if let Some(range) = claims.spare(self.network, self.pool, known) {
            self.share.blocks.push(Block::new(range, true));
            return Ok(());
        }
        if !claims.is_listed() {
            return Err(unknown_yet());
        }
        let free = claims.candidate(self.network, self.pool).ok_or_else(|| self.exhausted())?;
        Err(Lacking::Claims(vec![Claim::block(self.network, free)]))
    }

    fn exhausted(&self) -> Lacking {
        let Self { network, pool, .. } = self;
        Lacking::Refused(format!("pool {} of network \"{network}\" has no free address", pool.subnet))
    }

    fn lease_any(&mut self, owner: &Owner) -> Result<IpAddr, Lacking> {
        loop {
            if let Some(address) = self.share.give(self.network, self.pool, self.ground, owner) {
                return Ok(address);
            }
            self.another_block()?;
        }
    }

    fn lease_this(&mut self, owner: &Owner, wanted: IpAddr) -> Result<(), Lacking> {
        let network = self.network;
        let refused = |reason: String| Err(Lacking::Refused(format!("{wanted} {reason}")));
        if !self.share.is_for_pods(wanted) {
            return refused(format!("is no pod's address in {}", self.pool.subnet));
        }
        if let Some(other) = self.share.owner_of(wanted) {
            return refused(format!("is {} of container {:?}", other.ifname, other.container));
        }
        let Ground::Shared(claims) = self.ground else {
            let block = self.share.block_with(network, self.ground, wanted);
            block.map(|block| block.leases.insert(wanted, owner.clone()));
            return Ok(());
        };
        if !self.pool.keeps(wanted) {
            let single = claims.holder(network, &Prefix::alone(wanted)).is_some();
            let block = self.share.block_with(network, self.ground, wanted).filter(|_| !single);
            let Some(block) = block else {
                return refused("is neither in a static range nor in a block of this node".to_owned());
            };
            block.leases.insert(wanted, owner.clone());
            return Ok(());
        }
        if !claims.is_listed() {
            return Err(unknown_yet());
        }
        let claim = Claim::address(network, wanted, owner);
        match claims.holder(network, &claim.range) {
            Some(holder) if claims.is_ours(&claim) && holder.owner.as_ref() == Some(owner) => {
                self.share.singles.insert(wanted, owner.clone());
                Ok(())
            }
            // One of this node's that nobody has any more.
            Some(holder) if holder.node == claims.node() => {
                Err(Lacking::Later(format!("{wanted} is being freed")))
            }
            Some(holder) => {
                let container = holder.owner.as_ref().map_or("", |owner| owner.container.as_str());
                refused(format!("is taken on node \"{}\" by container {container:?}", holder.node))
            }
            None => Err(Lacking::Claims(vec![claim])),
        }
    }

    /// The block to ask for before it is needed.
    fn ahead(&self) -> Option<Claim> {
        let Ground::Shared(claims) = self.ground else { return None };
        let known = |range: &Prefix| self.share.blocks.iter().any(|block| block.range == *range);
        if !claims.is_listed() || !self.share.is_low(self.network, self.ground) {
            return None;
        }
        let next = claims.spare(self.network, self.pool, known);
        let next = next.or_else(|| claims.candidate(self.network, self.pool))?;
        Some(Claim::block(self.network, next))
    }
}

fn unknown_yet() -> Lacking {
    Lacking::Later("the store has yet to say which addresses are taken".to_owned())
}
