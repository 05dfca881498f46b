//! Rules of a bridge that stand before its normal way: what an OpenFlow 1.0 table says of frames (OpenFlow Switch
//! Specification 1.0.1, §3).
//!
//! A bridge without any costs nothing. Not here: OpenFlow's messages, priorities and timeouts; rules come in the order in
//! which they are tried.

use crate::port::PortId;
use crate::wire::ethernet::Mac;
use alloc::vec::Vec;

/// Which frames, and what becomes of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// By which it is counted: dense, below 65,536, unique over all bridges.
    pub id: u32,
    /// Which frames.
    pub matches: RuleMatch,
    /// What is done with them, in order; nothing: they are dropped.
    pub actions: Vec<RuleAction>,
}

/// What a frame must be like as it arrives; what is `None` is not asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleMatch {
    /// The port it arrives on (`in_port`).
    pub in_port: Option<PortId>,
    /// Its outermost tag (`dl_vlan`).
    pub vlan: Option<RuleVlan>,
    /// The priority code point of that tag, 0..=7 (`dl_vlan_pcp`); a frame without a tag has none.
    pub pcp: Option<u8>,
    /// Its source address (`dl_src`).
    pub src: Option<Mac>,
    /// Its destination address (`dl_dst`).
    pub dst: Option<Mac>,
    /// The type behind at most one tag (`dl_type`). An 802.3 frame has that of its SNAP header, or 0x05FF.
    pub ethertype: Option<u16>,
}

/// The outermost tag of a frame as it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleVlan {
    /// There is none.
    Untagged,
    /// It has this VID, 0..=4095; 0 is a priority tag.
    Vid(u16),
}

/// What is done with a frame that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// It goes the way that it would go without rules: learned, and by its VLAN and destination.
    Normal,
    /// It leaves by this port of the bridge as it arrived; not by the one it arrived on.
    Output(PortId),
    /// It leaves by the port it arrived on, as it arrived.
    InPort,
    /// It leaves by every port of the bridge but the one it arrived on, as it arrived.
    Flood,
}

/// What matched a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCount {
    /// Frames.
    pub frames: u64,
    /// Their bytes, Ethernet header included; of a tunnel those of the inner frames.
    pub bytes: u64,
}
