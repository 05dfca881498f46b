//! An embeddable Ethernet switch.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod frame;
pub mod mac_table;
pub mod offload;
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
