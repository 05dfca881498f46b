//! An Ethernet switch to embed: MAC learning, 802.1Q and 802.1ad VLANs, VXLAN, on raw frames.
//!
//! The crate decides and does nothing else. It opens no file, reads no clock, starts no thread, and owns no
//! descriptor: frames are handed in, with the time, and what leaves is handed back. So the same code switches for a
//! daemon on real TAPs, for a simulator on a virtual clock, and inside a program that joins a few virtual machines.
//!
//! # The journey of a frame
//!
//! ```text
//!  Batch ──▶ ingress ──▶ learn ──▶ forward ──▶ egress ──▶ TxList
//!  frames    which port,  source    one port    in which   heads and ranges
//!  as they   segment, and into the  or all of   dress:     of the batch:
//!  came      may it?      MAC table the segment tag, VXLAN nothing is copied
//! ```
//!
//! Two pods on access ports of VLAN 10, and a third elsewhere:
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use vswitch_core::switch::{Bridge, Topology, Worker};
//! use vswitch_core::*;
//!
//! // What is configured: a bridge, and ports by number. It is immutable; a change is a new one.
//! let vlan = Vlan::new(10).unwrap();
//! let [a, b, c] = [1, 2, 3].map(|n| PortId::new(n).unwrap());
//! let ports = [a, b, c].map(|id| Port::new(id, Attachment::Access(vlan)));
//! let topology = Topology::new(vec![Bridge::default()], ports)?;
//! // Who is where: a thousand stations, forgotten after five minutes. The seed should be random.
//! let macs = Arc::new(MacTable::new(1000, Duration::from_secs(300), [1, 2]));
//! [a, b, c].into_iter().for_each(|id| macs.bind(id, None));
//! // One worker for each thread; they share topology and table.
//! let mut worker = Worker::new(Arc::new(topology), Arc::clone(&macs));
//! let (mut batch, mut tx) = (Batch::new(32), TxList::new());
//!
//! // Alice, on port a, asks for Bob, of whom nobody has heard: everybody else in the segment hears it.
//! let now = Instant::from_secs(1);
//! let ask = b"\x02\0\0\0\0\x0b\x02\0\0\0\0\x0a\x08\x00Are you there, Bob?";
//! batch.copy_in(Arrival::Port(a), ask, Offload::NONE);
//! worker.forward(now, &batch, &mut tx);
//! assert_eq!(tx.ports(), [b, c]);
//! // She has been learned, in passing.
//! let alice = Mac::new([2, 0, 0, 0, 0, 0x0a]);
//! assert_eq!(macs.lookup(now, Segment::new(0, vlan).unwrap(), alice), Some(a));
//!
//! // So Bob's answer goes to her alone.
//! (batch.clear(), tx.clear());
//! batch.copy_in(Arrival::Port(b), b"\x02\0\0\0\0\x0a\x02\0\0\0\0\x0b\x08\x00Here I am.", Offload::NONE);
//! worker.forward(now, &batch, &mut tx);
//! assert_eq!(tx.ports(), [a]);
//! let answer = tx.records(a).next().unwrap();
//! let pieces: Vec<&[u8]> = tx.pieces(answer, &batch).collect();
//! assert!(pieces.concat().ends_with(b"Here I am."));
//!
//! // What would become of a tagged frame there? The same code says so, and changes nothing.
//! let tagged = b"\x02\0\0\0\0\x0a\x02\0\0\0\0\x0b\x81\x00\x00\x14\x08\x00hello";
//! let story = worker.explain(now, Arrival::Port(b), tagged);
//! assert_eq!(story.verdict, Verdict::Drop(DropReason::VlanTaggedOnAccess));
//! # Ok::<(), vswitch_core::switch::TopologyError>(())
//! ```
//!
//! A remote switch is a port too, made with [`Port::peer`]: what leaves by it is the payload of a UDP datagram, and
//! what comes from it is handed in as [`Arrival::Underlay`]. `examples/two_switches.rs` joins two that way and runs
//! TCP across; `examples/trace.rs` prints a frame's whole story.
//!
//! # Where to look
//!
//! | module | what it is |
//! |---|---|
//! | [`wire`] | bytes: Ethernet, tags, VXLAN, IP, checksums |
//! | [`policer`] | how much may pass |
//! | [`port`] | ports, VLAN modes, segments, tunnels |
//! | [`frame`] | what arrived ([`Batch`]) and what leaves ([`TxList`]) |
//! | [`mac_table`] | who is where, shared by all workers |
//! | [`offload`] | what a frame still owes: a checksum, a segmentation |
//! | [`switch`] | the journey itself |
//! | [`verdict`] | what becomes of a frame, and the name of every way it can die |
//!
//! # Promises
//!
//! * `no_std` with `alloc`; no `unsafe`; two small dependencies, which are `no_std` as well. Rust 1.91 or later.
//! * No input panics. A frame that is not carried has a [`DropReason`], which is a counter.
//! * In steady state nothing is allocated, waited for or formatted for a frame: configuration, MAC table and buffers are
//!   made before, and buffers grow to their high-water mark once.
//! * The same configuration, MAC table and frame give the same output, whatever came before.
//!
//! Not here: TAPs, sockets, threads, configuration files and a control interface. Those are `vswitchd`'s.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod frame;
pub mod mac_table;
pub mod offload;
pub mod policer;
pub mod port;
pub mod switch;
pub mod time;
pub mod verdict;
pub mod wire;

pub use frame::{Arrival, Batch, TxList};
pub use mac_table::MacTable;
pub use offload::Offload;
pub use port::{Attachment, Port, PortId, Segment};
pub use time::Instant;
pub use verdict::{DropReason, Verdict};
pub use wire::ethernet::Mac;
pub use wire::vlan::{Vid, Vlan};
pub use wire::vxlan::Vni;
