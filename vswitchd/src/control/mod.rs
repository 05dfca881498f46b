//! Wishes become what runs.
//!
//! Every source of change (file, control socket) ends in desired state; one pure diff turns it into steps;
//! [`daemon`] owns the thread that takes them. Nothing here touches a frame.

mod answers;
mod apply;
mod cni;
pub mod daemon;
mod inspect;
mod kept;
mod leases;
mod mesh;
mod objects;
pub mod openflow;
mod ovs;
pub mod plan;
mod ports;
pub mod rpc;
mod running;
pub mod socket;
pub mod source;
pub mod state;
mod stream;
mod underlay;
pub mod unixctl;
