//! What can be seen of the daemon from outside.

pub mod log;
