//! The rooms of vswitchd; `main.rs` and `vswitchctl` are the doors.
//!
//! Dependencies run one way: sys ← link ← datapath ← control ← main, {config, keeper} ← control; observe reads snapshots.
//! This is a library only so that the two programs and the tests can share it: its interface is the programs',
//! not this one.

pub mod cluster;
pub mod config;
pub mod control;
pub mod ctl;
pub mod datapath;
pub mod demo;
pub mod ipam;
pub mod keeper;
pub mod link;
pub mod observe;
pub mod slow;
pub mod sys;
