//! An Open vSwitch database as a source of wishes: this daemon sits where ovs-vswitchd would (RFC 7047).
//!
//! Not here: what control makes of a wish (see `control/ovs`).

mod words;

pub use words::{BridgeReport, InterfaceReport, OfportWish, Report, Wish};
