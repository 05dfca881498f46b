//! The daemon's own IPAM at work: addresses for attachments, in a book that the journal keeps.
//!
//! A request that needs what only the store can give waits for it, a short while, and everything else goes on. Not
//! here: which address (see [`crate::ipam`]), and how the cluster's store is spoken to (see [`super::mesh`]).

use super::answers;
use super::daemon::Control;
use super::rpc::cni::CniKey;
use super::rpc::{Call, RpcError};
use super::socket::Request;
use crate::cluster::is_node_name;
use crate::datapath::clock;
use crate::ipam::{Book, Claims, Ground, Lacking, Leased, Owner, Pools};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;
use vswitch_core::Instant;

/// How long a request waits for the store.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why an attachment gets no address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LeaseError {
    /// Not now: something has been asked for, or the store does not answer. A sentence.
    Later(String),
    /// Not at all, as things are. A sentence.
    Refused(String),
}

/// Requests that wait for the store.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    requests: Vec<(Request, Instant)>,
    /// Whether the request that is being answered lacks what the store has been asked for.
    asked: bool,
}

impl Waiting {
    /// When the first of them has waited long enough.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.requests.iter().map(|(_, until)| *until).min()
    }
}

impl Control {
    /// Gives `owner` an address of each pool, or those of `wanted`, and notes it in `book`; what it has already, again.
    /// The book counts when the caller makes it count.
    ///
    /// # Errors
    /// As [`LeaseError`] says. `book` is to be thrown away then.
    pub(super) fn lease(
        &mut self,
        book: &mut Book,
        network: &str,
        pools: &Pools,
        owner: &Owner,
        wanted: &[IpAddr],
    ) -> Result<Vec<Leased>, LeaseError> {
        if self.file.cluster.is_some() && !is_node_name(network) {
            return Err(LeaseError::Refused(format!(
                "network name {network:?} cannot stand in the store; letters, digits, '.', '_' and '-' are allowed"
            )));
        }
        let given = self.with_ground(|ground| book.lease(ground, network, pools, owner, wanted));
        let cluster = self.mesh.cluster.as_mut();
        match (given, cluster) {
            (Ok(given), cluster) => {
                if let Some(cluster) = cluster.filter(|cluster| cluster.away().is_none()) {
                    cluster.ask_for(&given.ahead);
                }
                Ok(given.leased)
            }
            (Err(Lacking::Refused(reason)), _) => Err(LeaseError::Refused(reason)),
            (Err(_), None) => {
                let reason = self.mesh.refused.clone().unwrap_or_default();
                Err(LeaseError::Later(format!("the cluster could not be joined: {reason}")))
            }
            (Err(lacking), Some(cluster)) => {
                if let Some(reason) = cluster.away() {
                    let text =
                        format!("no address without the cluster's store, which does not answer: {reason}");
                    return Err(LeaseError::Later(text));
                }
                self.waiting.asked = true;
                let reason = match lacking {
                    Lacking::Claims(claims) => {
                        cluster.ask_for(&claims);
                        let ranges: Vec<String> =
                            claims.iter().map(|claim| claim.range.to_string()).collect();
                        format!("the cluster's store is being asked for {}", ranges.join(" and "))
                    }
                    Lacking::Later(reason) | Lacking::Refused(reason) => reason,
                };
                Err(LeaseError::Later(reason))
            }
        }
    }

    /// Frees what `owner` has in `book`; those addresses.
    pub(super) fn end_lease(&mut self, book: &mut Book, owner: &Owner) -> Vec<IpAddr> {
        book.end(owner)
    }

    /// This node's own addresses in the pools, each with the prefix length of its subnet.
    pub(super) fn node_gateways(&self, book: &Book, network: &str, pools: &Pools) -> Vec<(IpAddr, u8)> {
        self.with_ground(|ground| book.gateways(ground, network, pools))
    }

    /// Frees in `book` what none of `live` has, and lets go of blocks that are not needed.
    pub(super) fn reconcile_leases(&mut self, book: &mut Book, live: &BTreeSet<Owner>) {
        self.with_ground(|ground| book.retain(ground, live));
    }

    fn with_ground<T>(&self, ask: impl FnOnce(&Ground<'_>) -> T) -> T {
        match (&self.file.cluster, &self.mesh.cluster) {
            (None, _) => ask(&Ground::Alone),
            (Some(_), Some(cluster)) => ask(&Ground::Shared(cluster.claims())),
            // What the book has is this node's all the same.
            (Some(_), None) => ask(&Ground::Shared(&Claims::new(&self.node))),
        }
    }

    /// Answers a request, or has it wait for the store.
    pub(super) fn answer(&mut self, request: Request) {
        if let Call::CniDel(del) = &request.call {
            // It would be attached after its end.
            let key = CniKey { container: del.container.clone(), ifname: del.ifname.clone() };
            self.give_up(|call| attaches(call).as_ref() == Some(&key));
        }
        self.answer_until(request, clock::now().after(PATIENCE));
    }

    fn answer_until(&mut self, request: Request, until: Instant) {
        self.waiting.asked = false;
        let answer = answers::answer(self, &request.call, &request.descriptors);
        let waits = self.waiting.asked && attaches(&request.call).is_some() && clock::now() < until;
        if waits && answer.as_ref().is_err_and(|error| error.code == RpcError::UNAVAILABLE) {
            self.waiting.requests.push((request, until));
        } else {
            request.answer(answer);
        }
    }

    /// Answers requests that waited, once the store has said something or their time is up.
    pub(super) fn answer_waiting(&mut self) {
        let now = clock::now();
        let due = self.waiting.next_due().is_some_and(|due| due <= now);
        if std::mem::take(&mut self.mesh.claims_came) || due {
            for (request, until) in std::mem::take(&mut self.waiting.requests) {
                self.answer_until(request, until);
            }
        }
    }

    fn give_up(&mut self, which: impl Fn(&Call) -> bool) {
        for (request, until) in std::mem::take(&mut self.waiting.requests) {
            if which(&request.call) {
                request.answer(Err(RpcError::unavailable("it was deleted before it was attached")));
            } else {
                self.waiting.requests.push((request, until));
            }
        }
    }
}

/// The attachment that a call makes.
fn attaches(call: &Call) -> Option<CniKey> {
    let Call::CniAdd(add) = call else { return None };
    Some(CniKey { container: add.container.clone(), ifname: add.ifname.clone() })
}
