//! What the tests share: frame builders, captures, a naive reference switch, a namespace lab. Not here: tests.

pub mod cases;
pub mod frames;
pub mod lab;
pub mod offload_body;
pub mod ovs;
pub mod pcap;
pub mod reference;
pub mod rng;
