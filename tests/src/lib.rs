//! What the tests share: frame builders, captures, a naive reference switch, a driver of stock Open vSwitch, a
//! namespace lab, and the bodies that property tests and fuzz targets have in common. Not here: tests.

pub mod cases;
pub mod cluster_body;
pub mod cni;
pub mod cni_body;
pub mod cni_runtimes;
pub mod config_body;
pub mod daemon;
pub mod driven;
pub mod etcd;
pub mod fabric;
pub mod frames;
pub mod guard_body;
pub mod headers;
pub mod lab;
pub mod mesh;
pub mod neigh_body;
pub mod node;
pub mod numbered;
pub mod offload_body;
pub mod ovs;
pub mod packaged;
pub mod pcap;
pub mod prober_body;
pub mod probing;
pub mod reference;
pub mod rng;
pub mod scene;
pub mod sight;
pub mod socket;
pub mod store;
pub mod streams;
pub mod sums;
pub mod switch_body;
pub mod trains;
pub mod vxlan_body;
