//! OpenFlow 1.0 as ovs-ofctl speaks it: a flow table for each bridge of a database, and a socket to change it by.
//!
//! Not here: what the core does with flows (see `vswitch_core::switch`).

pub mod codec;
mod table;

pub use table::{
    Count, Flow, FlowAction, FlowCommand, FlowError, FlowMatch, FlowMod, FlowTable, FlowVlan, MAX_ACTIONS,
    MAX_FLOWS, OFPP_LOCAL,
};
