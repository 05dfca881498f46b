//! The frame path: worker threads that wait, receive, forward, send and, between two batches, take changes.
//!
//! Not here: what a change means (see `control`), what a link is (see `link`), and any decision about a frame
//! (that is `vswitch-core`). No lock, no log, no text per frame.

pub mod clock;
mod idle;
mod punt;
mod setup;
mod thread;
mod workers;

pub use punt::{Copied, Injector, Neigh, Probe, Punted, Punts, Snooped, TooBig, punts};
pub use setup::{PortLink, Setup};
pub use thread::Event;
pub use workers::{Load, Snapshot, StuckError, Workers};
