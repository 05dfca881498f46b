//! vswitchd's rooms.
pub mod link;
pub mod sys;

pub mod config;
