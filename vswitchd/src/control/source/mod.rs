//! Sources of wishes beside the file and the control socket: what DNS says of names, what a cluster's store says of nodes
//! and stations.
//!
//! Each runs in a thread of its own, whatever it is made of, and sends words; none knows the switch.

pub mod dns;
pub mod etcd;
pub mod ovsdb;
