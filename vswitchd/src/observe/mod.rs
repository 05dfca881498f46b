//! What can be seen of the daemon from outside: logs, metrics, who is where. It reads snapshots and is read by
//! nobody on the frame path.

mod directory;
pub mod log;
pub mod metrics;

pub use directory::{Directory, Neighbour, Station};
