//! vswitchd's rooms.

pub mod control;
pub mod ctl;
pub mod observe;
