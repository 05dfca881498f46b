//! vswitchd's rooms.

pub mod control;
