//! An Open vSwitch database as a source of wishes: this daemon sits where ovs-vswitchd would (RFC 7047).
//!
//! A thread of its own keeps rows as the server tells them, makes wishes of them, and writes back what control reports.
//! While the server is away nothing changes; when it is back, what changed since is asked for. Not here: what control
//! makes of a wish (see `control/ovs`).

mod framing;
mod read;
mod remote;
mod replica;
mod schema;
mod session;
mod thread;
mod updates;
mod words;
mod write;

pub use framing::{Framing, Garbled};
pub use read::read;
pub(crate) use read::{Columns, short};
pub use remote::{NotARemote, Remote};
pub use replica::{Atom, Database, Datum, Operation, Row, Uuid};
pub use session::{Known, Session, SessionError};
pub use thread::{Ovsdb, Status};
pub use words::{BridgeReport, InterfaceReport, OfportWish, Report, Wish};
pub use write::write;

/// The version of Open vSwitch whose words and columns these are.
pub const OVS_VERSION: &str = "3.1.0";
