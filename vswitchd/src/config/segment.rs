//! Segments: which VLAN has which VNI, and what both are called.
//!
//! Not here: which ports and peers carry them.

use super::Config;
use super::file::Span;
use super::read::{Report, Section};
use std::collections::HashMap;
use std::ops::RangeInclusive;
use vswitch_core::{Vlan, Vni};

/// The largest VNI: 24 bits (RFC 7348 §5).
const MAX_VNI: u32 = (1 << 24) - 1;

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

/// Reads every `[[segment]]`: those that are good, sorted by VLAN.
pub(super) fn read(file: &Section<'_>) -> Vec<(SegmentConfig, Option<Span>)> {
    let mut segments = Vec::new();
    for (number, table, span) in file.tables("segment") {
        let subject = match table.text("name") {
            Some(name) => format!("segment {name:?}: "),
            None => format!("segment {number}: "),
        };
        let section = Section::new("segment", subject, table, span, file.report);
        if let Some(segment) = read_one(&section) {
            segments.push((segment, span.cloned()));
        }
    }
    segments.sort_by_key(|(segment, _)| *segment.vlans.start());
    refuse_clashes(&segments, file.report);
    segments
}

fn read_one(section: &Section<'_>) -> Option<SegmentConfig> {
    let name = section.need("name").and_then(|field| {
        let name = field.name(63)?;
        if name.bytes().all(|c| c.is_ascii_digit()) {
            return field.refuse("is a number, as a VLAN without a name is called; a word is expected");
        }
        Some(name.to_owned())
    });
    let vlans = section.need("vlan").and_then(|field| {
        let range = field.range(4094, "VLAN")?;
        Some(u16::try_from(*range.start()).ok()?..=u16::try_from(*range.end()).ok()?)
    });
    let vni = section.need("vni");
    section.refuse_unknown();
    let vni = vni?;
    let first: u32 = vni.number(0..=MAX_VNI)?;
    let (name, vlans) = (name?, vlans?);
    let last = first + u32::from(vlans.end() - vlans.start());
    if last > MAX_VNI {
        return vni.refuse(format!(
            "is too high for VLANs {}..{}: the last would have VNI {last}; 0..{MAX_VNI} are allowed",
            vlans.start(),
            vlans.end()
        ));
    }
    Some(SegmentConfig { name, vlans, vnis: first..=last })
}

/// Two segments may share neither a name nor a VLAN nor a VNI. The later one in the file is at fault.
fn refuse_clashes(by_vlan: &[(SegmentConfig, Option<Span>)], report: &Report<'_>) {
    let start = |i: usize| by_vlan[i].1.as_ref().map_or(0, |span| span.start);
    let refuse = |i: usize, j: usize, key: &str, clash: &dyn Fn(&str) -> String| {
        let (earlier, later) = if start(i) <= start(j) { (i, j) } else { (j, i) };
        let (segment, span) = &by_vlan[later];
        let reason = format!("segment {:?}: {}", segment.name, clash(&by_vlan[earlier].0.name));
        report.error(span.as_ref(), format!("segment.{key}"), reason);
    };
    let mut names: HashMap<&str, usize> = HashMap::new();
    for (i, (segment, _)) in by_vlan.iter().enumerate() {
        if let Some(j) = names.insert(&segment.name, i) {
            refuse(i, j, "name", &|_| "name is given to two segments; names are unique".to_owned());
        }
    }
    for (i, (segment, _)) in by_vlan.iter().enumerate() {
        // `tenants-137` is what member 137 of the range `tenants` is called already.
        let member = segment.name.rsplit_once('-').and_then(|(name, number)| {
            let j = *names.get(name)?;
            (!by_vlan[j].0.is_single() && by_vlan[j].0.vlans.contains(&number.parse().ok()?)).then_some(j)
        });
        if let Some(j) = member {
            let (name, other) = (&segment.name, &by_vlan[j].0.name);
            refuse(i, j, "name", &|_| format!("name {name:?} is also that of a VLAN of range {other:?}"));
        }
    }
    let mut reach: Option<usize> = None;
    for (i, (segment, _)) in by_vlan.iter().enumerate() {
        if let Some(j) = reach.filter(|j| by_vlan[*j].0.vlans.end() >= segment.vlans.start()) {
            let vlan = segment.vlans.start();
            refuse(i, j, "vlan", &|other| format!("vlan {vlan} belongs to segment {other:?} already"));
        }
        if reach.is_none_or(|j| by_vlan[j].0.vlans.end() < segment.vlans.end()) {
            reach = Some(i);
        }
    }
    let mut by_vni: Vec<usize> = (0..by_vlan.len()).collect();
    by_vni.sort_by_key(|i| *by_vlan[*i].0.vnis.start());
    let mut reach: Option<usize> = None;
    for i in by_vni {
        let vnis = &by_vlan[i].0.vnis;
        if let Some(j) = reach.filter(|j| by_vlan[*j].0.vnis.end() >= vnis.start()) {
            let vni = vnis.start();
            refuse(i, j, "vni", &|other| format!("vni {vni} belongs to segment {other:?} already"));
        }
        if reach.is_none_or(|j| by_vlan[j].0.vnis.end() < vnis.end()) {
            reach = Some(i);
        }
    }
}

impl Config {
    /// The VLAN of the segment or range member called `name`; in words, why there is none.
    pub(super) fn vlan_named(&self, name: &str) -> Result<u16, String> {
        if let Some(segment) = self.segments.iter().find(|segment| segment.name == name) {
            let (low, high) = (segment.vlans.start(), segment.vlans.end());
            return if segment.is_single() {
                Ok(*low)
            } else {
                Err(format!("is VLANs {low}..{high}; name one of them, as \"{name}-{low}\""))
            };
        }
        let member = name.rsplit_once('-').and_then(|(name, number)| {
            let segment = self.segments.iter().find(|s| s.name == name && !s.is_single())?;
            number.parse().ok().filter(|vlan| segment.vlans.contains(vlan))
        });
        member.ok_or_else(|| match self.segments.len() {
            0 => "is unknown; there is no [[segment]]".to_owned(),
            n => {
                let names = self.segments.iter().map(|segment| format!("{:?}", segment.name));
                let more = if n > 20 { format!(" and {} more", n - 20) } else { String::new() };
                format!("is unknown; known are {}{more}", names.take(20).collect::<Vec<_>>().join(", "))
            }
        })
    }

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
