//! Blocks and single addresses of networks between the store and the ipam room: keys and values in, keys and values
//! out.
//!
//! Not here: whose an address is (see [`crate::ipam`]), and who asks for one (see `control/leases.rs`).

use super::super::daemon::Control;
use super::cluster::{Cluster, good};
use crate::cluster::{AddressRecord, BlockRecord, Key};
use crate::config::Prefix;
use crate::datapath::clock;
use crate::ipam::{Claim, Claims, Owner, Step};
use crate::observe::log;

impl Cluster {
    /// What the store says of addresses.
    pub(in super::super) const fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Asks the store to make these this node's.
    pub(in super::super) fn ask_for(&mut self, claims: &[Claim]) {
        for claim in claims {
            self.claims.ask(claim, clock::now());
            let (key, value) = self.written(claim);
            self.etcd.claim(key, value);
        }
    }

    /// The key and the value of this node's claim.
    fn written(&self, claim: &Claim) -> (String, Vec<u8>) {
        let Claim { network, range, owner } = claim;
        let node = self.claims.node().to_owned();
        match owner {
            None => (self.keys.block(network, range.network, range.len), BlockRecord { node }.to_json()),
            Some(Owner { container, ifname }) => {
                let (container, ifname) = (container.clone(), ifname.clone());
                let record = AddressRecord { node, container, ifname };
                (self.keys.address(network, range.network), record.to_json())
            }
        }
    }

    /// The store has a claim.
    pub(super) fn claimed(&mut self, key: &str, parsed: Key, value: &[u8]) {
        if let Some((claim, node)) = read(key, parsed, value) {
            self.claims.put(claim, node);
            self.claims_changed = true;
        }
    }

    /// The store has a claim no more.
    pub(super) fn unclaimed(&mut self, parsed: Key) {
        if let Some((network, range)) = place(parsed) {
            self.claims.deleted(&network, &range);
            self.claims_changed = true;
        }
    }

    /// The store has these claims and no others.
    pub(super) fn claims_listed(&mut self, entries: Vec<(String, Vec<u8>)>) {
        let read = entries.into_iter().filter_map(|(key, value)| read(&key, self.keys.parse(&key)?, &value));
        let all = read.collect();
        self.claims.listed(all);
        self.claims_changed = true;
    }
}

/// Which addresses a key is about.
fn place(key: Key) -> Option<(String, Prefix)> {
    match key {
        Key::Block { network, first, len } => {
            let range = Prefix::around(first, len);
            (range.network == first && range != Prefix::alone(first)).then_some((network, range))
        }
        Key::Address { network, address } => Some((network, Prefix::alone(address))),
        _ => None,
    }
}

/// A claim, and the node that has it.
fn read(key: &str, parsed: Key, value: &[u8]) -> Option<(Claim, String)> {
    let block = matches!(parsed, Key::Block { .. });
    let (network, range) = place(parsed)?;
    if block {
        let BlockRecord { node } = good(key, BlockRecord::from_json(value))?;
        return Some((Claim { network, range, owner: None }, node));
    }
    let AddressRecord { node, container, ifname } = good(key, AddressRecord::from_json(value))?;
    Some((Claim { network, range, owner: Some(Owner { container, ifname }) }, node))
}

impl Control {
    /// Has the store say of addresses what the journal does.
    pub(in super::super) fn follow_claims(&mut self) {
        let Some(cluster) = self.mesh.cluster.as_mut().filter(|cluster| cluster.away().is_none()) else {
            return;
        };
        for step in cluster.claims.due(self.cni.book(), clock::now()) {
            let (Step::Claim(claim) | Step::Release(claim)) = &step;
            let (key, value) = cluster.written(claim);
            let (network, range) = (&claim.network, &claim.range);
            match step {
                Step::Claim(_) => {
                    log::info("addresses claimed", &[("network", network), ("range", range)]);
                    cluster.etcd.claim(key, value);
                }
                Step::Release(_) => {
                    log::info("addresses let go", &[("network", network), ("range", range)]);
                    cluster.etcd.release(key, value);
                }
            }
        }
    }
}
