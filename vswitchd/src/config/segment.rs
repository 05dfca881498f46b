//! Segments: which VLAN has which VNI, and what both are called.
//!
//! Not here: which ports and peers carry them.

use super::Config;
use std::ops::RangeInclusive;
use vswitch_core::{Vlan, Vni};

/// `[[segment]]`: one VLAN and its VNI, or as many of each, first to first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentConfig {
    /// Its name.
    pub name: String,
    /// Its VLANs, within 0..=4094.
    pub vlans: RangeInclusive<u16>,
    /// Its VNIs, as many as VLANs, within 0..=16,777,215.
    pub vnis: RangeInclusive<u32>,
}

impl SegmentConfig {
    /// Whether it is one VLAN, not a range.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.vlans.start() == self.vlans.end()
    }

    /// What member `vlan` is called: the segment's name, in a range with its number behind, as `tenants-137`.
    #[must_use]
    pub fn member_name(&self, vlan: Vlan) -> String {
        if self.is_single() { self.name.clone() } else { format!("{}-{vlan}", self.name) }
    }
}

impl Config {
    /// The `[[segment]]` that has `vlan`.
    #[must_use]
    pub fn segment_of(&self, vlan: Vlan) -> Option<&SegmentConfig> {
        let behind = self.segments.partition_point(|segment| *segment.vlans.start() <= vlan.get());
        self.segments[..behind].last().filter(|segment| segment.vlans.contains(&vlan.get()))
    }

    /// What the segment of `vlan` is called: `blue`, `tenants-137`, or its number where the file has no name.
    #[must_use]
    pub fn segment_name(&self, vlan: Vlan) -> String {
        self.segment_of(vlan).map_or_else(|| vlan.to_string(), |segment| segment.member_name(vlan))
    }

    /// The VNI of `vlan`; `None` when it is local to the node.
    #[must_use]
    pub fn vni_of(&self, vlan: Vlan) -> Option<Vni> {
        let segment = self.segment_of(vlan)?;
        Vni::new(segment.vnis.start() + u32::from(vlan.get() - segment.vlans.start()))
    }

    /// The VLAN of `vni`.
    #[must_use]
    pub fn vlan_of(&self, vni: Vni) -> Option<Vlan> {
        let segment = self.segments.iter().find(|segment| segment.vnis.contains(&vni.get()))?;
        let offset = u16::try_from(vni.get() - segment.vnis.start()).ok()?;
        segment.vlans.start().checked_add(offset).and_then(Vlan::new)
    }

    /// Every VLAN that has a VNI, in rising order of VLAN.
    pub fn vnis(&self) -> impl Iterator<Item = (Vlan, Vni)> + '_ {
        self.segments
            .iter()
            .flat_map(|segment| segment.vlans.clone().zip(segment.vnis.clone()))
            .filter_map(|(vlan, vni)| Some((Vlan::new(vlan)?, Vni::new(vni)?)))
    }
}
