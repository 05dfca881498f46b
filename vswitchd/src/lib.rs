//! vswitchd's rooms.
pub mod link;
pub mod sys;

pub mod config;

pub mod control;
pub mod ctl;
pub mod observe;
