//! What the nodes of a cluster tell each other, and what follows from it. The data model: docs/cluster.md.
//!
//! Pure: keys and values as bytes, time as an argument. Not here: the store that carries them (see
//! [`crate::control::source`]) and what is done with the answers.

mod addresses;
mod members;
mod model;
mod stations;
mod vnis;

pub use addresses::{AddressRecord, BlockRecord};
pub use members::Members;
pub use model::{
    Key, KeyRange, Keys, MAX_ADDRESSES, MAX_NODE_NAME, MAX_VALUE, NodeRecord, RecordError, StationRecord,
    SuspectRecord, is_node_name,
};
pub use stations::{Change, Stations, Whereabouts};
pub use vnis::VniRanges;
