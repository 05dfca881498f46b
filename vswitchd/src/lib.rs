//! vswitchd's rooms.

pub mod control;
pub mod observe;
