//! Copies of frames for somebody who looks on: Open vSwitch's mirrors.
//!
//! Not here: how a frame got where it is copied (see [`super::enter`]).

use crate::port::{PortId, VlanSet};
use crate::wire::vlan::Vlan;
use alloc::vec::Vec;

/// Which frames of a bridge are copied, and where the copies go (ovs-vswitchd.conf.db(5), table `Mirror`).
///
/// A frame is copied once, however many of the conditions it meets, and however many mirrors have the same output.
/// Copies are not copied again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Its number, by which it is counted: below [`Self::MAX_ID`], unique over all bridges.
    pub id: u32,
    /// Whether every port is both a source and a destination.
    pub select_all: bool,
    /// Frames that arrive on these ports, if they are admitted, whatever becomes of them.
    pub sources: Vec<PortId>,
    /// Frames that leave by these ports.
    pub destinations: Vec<PortId>,
    /// Of these, the ones in these VLANs; `None`: in any.
    pub vlans: Option<VlanSet>,
    /// Where the copies go.
    pub output: MirrorTo,
    /// How many bytes of each frame are copied, 14..=65,535; `None`: all.
    pub snaplen: Option<u16>,
}

impl Mirror {
    /// How many of a bridge copy frames.
    pub const PER_BRIDGE: usize = 32;
    /// Numbers from here on are not counted.
    pub const MAX_ID: u32 = 1 << 16;
}

/// Where the copies of a mirror go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorTo {
    /// To this port, in the frame's VLAN and in the dress of that port. It carries nothing else, and what arrives on it
    /// is dropped.
    Port(PortId),
    /// To every port of this VLAN (RSPAN). Frames of that VLAN are not copied, nor those to 01-80-C2-00-00-00…0F.
    Vlan(Vlan),
}
