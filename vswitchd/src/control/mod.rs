//! Wishes become what runs.

pub mod rpc;
pub mod socket;
pub mod state;
