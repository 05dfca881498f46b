//! vswitchd's rooms.

pub mod config;
