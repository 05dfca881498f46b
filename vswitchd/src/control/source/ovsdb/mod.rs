//! An Open vSwitch database as a source of wishes: this daemon sits where ovs-vswitchd would (RFC 7047).
//!
//! Not here: what control makes of a wish (see `control/ovs`).

mod read;
mod replica;
mod words;
mod write;

pub use read::read;
pub(crate) use read::{Columns, short};
pub use replica::{Atom, Database, Datum, Operation, Row, Uuid};
pub use words::{BridgeReport, InterfaceReport, OfportWish, Report, Wish};
pub use write::write;
