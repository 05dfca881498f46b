//! VLAN cases as files: ports, one frame in, the frames that must come out.
//!
//! Reads every file of the schema `vswitch-blackbox/1`, of which `cases/vlan_table.json` is one.

use crate::frames::Frame;
use serde::{Deserialize, Deserializer};
use std::path::Path;
use vswitch_core::port::{Attachment, Port, PortId, PriorityTags, VlanSet};
use vswitch_core::wire::ethernet::Mac;
use vswitch_core::wire::vlan::{Priority, TPID_STAG, Tag, Vlan};

/// One file.
#[derive(Clone, Debug, Deserialize)]
pub struct CaseFile {
    /// What holds for the whole switch.
    pub switch: SwitchSpec,
    /// Its ports.
    pub ports: Vec<PortSpec>,
    /// Its cases, each on a switch that has seen nothing.
    pub cases: Vec<Case>,
}

/// What holds for the whole switch.
#[derive(Clone, Debug, Deserialize)]
pub struct SwitchSpec {
    /// How many tags are read; 0 for all.
    #[serde(default = "one")]
    pub vlan_limit: u8,
}

fn one() -> u8 {
    1
}

/// A port as the file describes it, in the words of Open vSwitch.
#[derive(Clone, Debug, Deserialize)]
pub struct PortSpec {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// `access`, `trunk`, `native-tagged`, `native-untagged` or `dot1q-tunnel`.
    pub vlan_mode: String,
    /// The VLAN of an access or tunnel port, the native VLAN of a native one.
    pub tag: Option<u16>,
    /// The VLANs of a trunk; all without.
    pub trunks: Option<Vec<u16>>,
    /// The customer VLANs of a tunnel port; all without.
    pub cvlans: Option<Vec<u16>>,
    /// `no`, `if-nonzero` or `always`.
    #[serde(default)]
    pub priority_tags: Option<String>,
    /// TPID of the service tag.
    #[serde(default)]
    pub qinq_ethtype: Option<String>,
}

/// One case.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// Its name.
    pub id: String,
    /// What arrives.
    #[serde(rename = "in")]
    pub input: Input,
    /// What must leave, in any order.
    #[serde(rename = "out")]
    pub output: Vec<Output>,
}

/// A frame that arrives.
#[derive(Clone, Debug, Deserialize)]
pub struct Input {
    /// Where.
    pub port: u32,
    /// Source address.
    pub src: String,
    /// Destination address.
    pub dst: String,
    /// Tags, outermost first.
    pub tags: Vec<TagSpec>,
    /// Type behind the tags.
    #[serde(deserialize_with = "number")]
    pub ethertype: u16,
}

/// A frame that leaves: the one that arrived, in other tags.
#[derive(Clone, Debug, Deserialize)]
pub struct Output {
    /// Where.
    pub port: u32,
    /// Tags, outermost first.
    pub tags: Vec<TagSpec>,
}

/// A tag.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct TagSpec {
    /// TPID.
    #[serde(deserialize_with = "number")]
    pub tpid: u16,
    /// VID, 0..=4095.
    pub vid: u16,
    /// PCP, 0..=7.
    #[serde(default)]
    pub pcp: u8,
    /// DEI.
    #[serde(default)]
    pub dei: bool,
}

/// A number, or the text of one such as `"0x8100"`.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u16),
        Text(String),
    }
    match Either::deserialize(from)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => parse_number(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not a sixteen-bit number"))),
    }
}

fn parse_number(text: &str) -> Option<u16> {
    match text.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

impl CaseFile {
    /// Reads a file.
    ///
    /// # Panics
    /// When it cannot be read or is of another shape; the message names it.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let file = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&file).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The ports, as the switch takes them.
    #[must_use]
    pub fn ports(&self) -> Vec<Port> {
        self.ports.iter().map(PortSpec::port).collect()
    }
}

fn vlan(number: u16) -> Vlan {
    Vlan::new(number).unwrap_or_else(|| panic!("VLAN {number} is not below 4095"))
}

fn set(vlans: &[u16]) -> VlanSet {
    vlans.iter().map(|number| vlan(*number)).collect()
}

impl PortSpec {
    /// The port as the switch takes it.
    ///
    /// # Panics
    /// When a word or number in it has no meaning.
    #[must_use]
    pub fn port(&self) -> Port {
        let tag = vlan(self.tag.unwrap_or(0));
        let trunks = self.trunks.as_deref().map_or_else(VlanSet::all, set);
        let attachment = match self.vlan_mode.as_str() {
            "access" => Attachment::Access(tag),
            "trunk" => Attachment::Trunk { vlans: trunks, native: None },
            "native-tagged" => Attachment::native(tag, true, trunks),
            "native-untagged" => Attachment::native(tag, false, trunks),
            "dot1q-tunnel" => Attachment::Dot1qTunnel {
                vlan: tag,
                cvlans: self.cvlans.as_deref().map(set),
                tpid: self.qinq_ethtype.as_deref().map_or(TPID_STAG, |text| match text {
                    "802.1ad" => TPID_STAG,
                    "802.1q" => 0x8100,
                    text => parse_number(text).unwrap_or_else(|| panic!("{text:?} is no TPID")),
                }),
            },
            other => panic!("{other:?} is no vlan_mode"),
        };
        let mut port = Port::new(port_id(self.id), attachment);
        port.priority_tags = match self.priority_tags.as_deref() {
            None | Some("no") => PriorityTags::No,
            Some("if-nonzero") => PriorityTags::IfNonzero,
            Some("always") => PriorityTags::Always,
            Some(other) => panic!("{other:?} is no priority_tags"),
        };
        port
    }
}

fn port_id(number: u32) -> PortId {
    PortId::new(number).unwrap_or_else(|| panic!("port {number} is too large a number"))
}

impl TagSpec {
    /// The tag.
    ///
    /// # Panics
    /// When the PCP is above 7.
    #[must_use]
    pub fn tag(&self) -> Tag {
        Tag::new(self.tpid, Priority::new(self.pcp, self.dei).expect("PCP is 0..=7"), self.vid)
    }
}

impl Case {
    /// Where the frame arrives, and its bytes.
    #[must_use]
    pub fn arrives(&self) -> (PortId, Vec<u8>) {
        (port_id(self.input.port), self.frame(&self.input.tags))
    }

    /// What must leave, and where, sorted.
    #[must_use]
    pub fn leaves(&self) -> Vec<(PortId, Vec<u8>)> {
        let mut all: Vec<_> =
            self.output.iter().map(|out| (port_id(out.port), self.frame(&out.tags))).collect();
        all.sort();
        all
    }

    fn frame(&self, tags: &[TagSpec]) -> Vec<u8> {
        let mac = |text: &str| text.parse::<Mac>().unwrap_or_else(|error| panic!("{text:?}: {error}"));
        let tags: Vec<Tag> = tags.iter().map(TagSpec::tag).collect();
        let payload: Vec<u8> = (0..46).collect();
        Frame::new(mac(&self.input.dst), mac(&self.input.src))
            .tags(&tags)
            .payload(self.input.ethertype, &payload)
            .bytes()
    }
}
