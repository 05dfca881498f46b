//! Which address a pod gets: the daemon's own IPAM.
//!
//! A network has pools. Of a pool every node has blocks, which it shares out by itself, and a pod may ask for a single
//! address of the ranges that are kept for that. [`Book`] is what this node has given; [`Claims`] is what the
//! cluster's store says of all nodes. A node alone has every pool to itself. Pure: time is an argument, and nothing is
//! read or written. Not here: the store and the journal (see `control/leases.rs`), and other IPAM plugins.

mod blocks;
mod book;
mod claims;
mod gaps;
mod pools;

pub use book::{Book, Given, Lacking};
pub use claims::{Claim, Claims, Ground, Holder, Step};
pub use pools::{Pool, Pools};

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Who has an address: one interface of one container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// The container's ID.
    pub container: String,
    /// What the interface is called in it.
    pub ifname: String,
}

/// An address that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leased {
    /// The address.
    pub address: IpAddr,
    /// The prefix length of the pool's subnet, all of which is on the link.
    pub prefix_len: u8,
    /// The node's own address in the pool, if it has a block of it.
    pub gateway: Option<IpAddr>,
}
