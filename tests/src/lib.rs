//! Support for tests.

pub mod cases;
pub mod frames;
pub mod lab;
pub mod ovs;
pub mod pcap;
pub mod reference;
pub mod rng;
