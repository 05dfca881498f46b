//! Rules of a bridge that stand before its normal way: what an OpenFlow 1.0 table says of frames (OpenFlow Switch
//! Specification 1.0.1, §3).
//!
//! A bridge without any costs nothing. Not here: OpenFlow's messages, priorities and timeouts; rules come in the order in
//! which they are tried.

use super::enter::Entered;
use super::leave::{output, owed};
use super::topology::TopologyError;
use super::{Sink, Tables};
use crate::port::PortId;
use crate::verdict::{DropReason, Verdict};
use crate::wire::be16;
use crate::wire::ethernet::{self, ADDRESSES_LEN, Mac};
use crate::wire::vlan::{TAG_LEN, tag_at};
use alloc::vec::Vec;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

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

/// Where a rule's id ends.
const IDS: u32 = 1 << 16;
/// Smaller numbers in the place of a type are lengths (IEEE 802.3 §3.2.6).
const LEAST_TYPE: u16 = 0x0600;
/// The type of a frame that has none (OpenFlow 1.0.1 table 3).
const NO_TYPE: u16 = 0x05ff;
/// 802.2 SNAP of an Ethernet type (RFC 1042).
const SNAP: [u8; 6] = [0xaa, 0xaa, 3, 0, 0, 0];

/// What rules ask of a frame.
#[derive(Clone, Copy, Debug)]
struct Fields {
    vlan: RuleVlan,
    pcp: Option<u8>,
    src: Mac,
    dst: Mac,
    ethertype: u16,
}

impl Fields {
    /// Of a frame that is not too short for addresses and type.
    fn of(frame: &[u8]) -> Option<Self> {
        let (dst, src) = ethernet::addresses(frame)?;
        let tag = tag_at(frame, ADDRESSES_LEN);
        let at = ADDRESSES_LEN + if tag.is_some() { TAG_LEN } else { 0 };
        let ethertype = match be16(frame, at)? {
            kind if kind >= LEAST_TYPE => kind,
            _ => {
                let snap = frame.get(at + 2..).filter(|rest| rest.starts_with(&SNAP));
                snap.and_then(|rest| be16(rest, SNAP.len()))
                    .filter(|kind| *kind >= LEAST_TYPE)
                    .unwrap_or(NO_TYPE)
            }
        };
        let vlan = tag.map_or(RuleVlan::Untagged, |tag| RuleVlan::Vid(tag.vid()));
        Some(Self { vlan, pcp: tag.map(|tag| tag.priority().pcp()), src, dst, ethertype })
    }
}

impl RuleMatch {
    /// Whether a frame is as it should be; the port apart.
    fn fits(&self, fields: &Fields) -> bool {
        self.vlan.is_none_or(|vlan| vlan == fields.vlan)
            && self.pcp.is_none_or(|pcp| fields.pcp == Some(pcp))
            && self.src.is_none_or(|src| src == fields.src)
            && self.dst.is_none_or(|dst| dst == fields.dst)
            && self.ethertype.is_none_or(|ethertype| ethertype == fields.ethertype)
    }
}

/// The rules of one bridge, and the ports that its floods go to.
#[derive(Debug, Default)]
pub(super) struct Rules {
    list: Vec<Rule>,
    /// The places in the list of those that name a port, by port, and of those that name none, in rising order.
    by_port: HashMap<PortId, Vec<usize>, FixedState>,
    of_any: Vec<usize>,
    ports: Vec<PortId>,
}

impl Rules {
    /// `None` where they say what is done without any.
    pub(super) fn new(list: Vec<Rule>) -> Result<Option<Self>, TopologyError> {
        if let [Rule { matches, actions, .. }] = &list[..]
            && *matches == RuleMatch::default()
            && actions[..] == [RuleAction::Normal]
        {
            return Ok(None);
        }
        let mut built = Self::default();
        for (at, rule) in list.iter().enumerate() {
            if rule.id >= IDS {
                return Err(TopologyError::RuleId(rule.id));
            }
            match rule.matches.in_port {
                Some(port) => built.by_port.entry(port).or_default().push(at),
                None => built.of_any.push(at),
            }
        }
        Ok(Some(Self { list, ..built }))
    }

    pub(super) fn add_port(&mut self, port: PortId) {
        self.ports.push(port);
    }

    /// One more than the largest id.
    pub(super) fn ids(&self) -> usize {
        self.list.iter().map(|rule| rule.id as usize + 1).max().unwrap_or(0)
    }

    /// The first rule that a frame matches.
    fn first(&self, port: PortId, fields: &Fields) -> Option<&Rule> {
        let fits = |at: &&usize| self.list.get(**at).is_some_and(|rule| rule.matches.fits(fields));
        let named = self.by_port.get(&port).and_then(|places| places.iter().find(fits));
        let before = |at: &&usize| named.is_none_or(|named| **at < *named);
        let any = self.of_any.iter().take_while(before).find(fits);
        self.list.get(*any.or(named)?)
    }
}

/// What becomes of a frame that arrives in a bridge of `rules`, before its VLANs are looked at: `Ok(None)` where it goes
/// the normal way, also after it has left by others.
pub(super) fn follow<S: Sink>(
    tables: &Tables<'_>,
    rules: &Rules,
    frame: &Entered<'_>,
    sink: &mut S,
) -> Result<Option<Verdict>, DropReason> {
    let fields = Fields::of(frame.inner()).ok_or(DropReason::ShortFrame)?;
    let from = frame.port.id;
    let rule = rules.first(from, &fields).ok_or(DropReason::NoFlow)?;
    sink.matched(rule.id, frame.inner().len());
    if rule.actions.is_empty() {
        return Err(DropReason::FlowDrop);
    }
    let offload = owed(tables, frame).ok_or(DropReason::BadOffload)?;
    let (mut left, mut died, mut refused) = (false, None, false);
    let mut send = |to: PortId| {
        if !sink.base(frame).0.crossings().copy(frame.frame) {
            refused = true;
            return;
        }
        match output(tables, frame, &offload, to, sink) {
            None => left = true,
            Some(verdict) => died = Some(verdict),
        }
    };
    for action in &rule.actions {
        match action {
            RuleAction::Output(to) if *to != from => send(*to),
            RuleAction::InPort => send(from),
            RuleAction::Flood => rules.ports.iter().filter(|to| **to != from).for_each(|to| send(*to)),
            RuleAction::Output(_) | RuleAction::Normal => {}
        }
    }
    if refused {
        sink.drop(Some(from), DropReason::TooManyCopies);
    }
    if rule.actions.contains(&RuleAction::Normal) {
        return Ok(None);
    }
    match died {
        _ if left => Ok(Some(Verdict::Rule(rule.id))),
        Some(verdict) => Ok(Some(verdict)),
        None => Err(DropReason::NoEgress),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn fields(bytes: &[u8]) -> (RuleVlan, Option<u8>, u16) {
        let fields = Fields::of(&[&[2; 12], bytes].concat()).unwrap();
        (fields.vlan, fields.pcp, fields.ethertype)
    }

    #[test]
    fn a_frame_has_the_fields_that_openflow_gives_it() {
        let untagged = |ethertype| (RuleVlan::Untagged, None, ethertype);
        let snap = |kind: [u8; 2]| [&[0, 20, 0xaa, 0xaa, 3, 0, 0, 0][..], &kind, &[0; 12]].concat();
        for (bytes, expected) in [
            (&[8, 0, 0x45][..], untagged(0x0800)),
            (&[0x81, 0, 0xa0, 10, 8, 0], (RuleVlan::Vid(10), Some(5), 0x0800)),
            (&[0x88, 0xa8, 0, 10, 0x81, 0, 0, 5, 8, 0], (RuleVlan::Vid(10), Some(0), 0x8100)),
            (&[0x81, 0, 0xe0, 0, 8, 6], (RuleVlan::Vid(0), Some(7), 0x0806)),
            // A tag cut short is none.
            (&[0x81, 0, 0, 10, 8], untagged(0x8100)),
            (&[0, 3, 0x42, 0x42, 3], untagged(0x05ff)),
            (&snap([8, 0]), untagged(0x0800)),
            (&snap([0, 8]), untagged(0x05ff)),
            (&[0, 8, 0xaa, 0xaa, 3, 0, 0, 0], untagged(0x05ff)),
        ] {
            assert_eq!(fields(bytes), expected, "{bytes:x?}");
        }
    }

    #[test]
    fn one_rule_that_says_what_is_done_anyway_is_none() {
        let rule = |matches, actions| Rule { id: 0, matches, actions };
        let all = RuleMatch::default();
        let of_ip = RuleMatch { ethertype: Some(0x0800), ..all };
        let is_none = |list| Rules::new(list).unwrap().is_none();
        assert!(is_none(vec![rule(all, vec![RuleAction::Normal])]));
        assert!(!is_none(vec![]));
        assert!(!is_none(vec![rule(all, vec![])]));
        assert!(!is_none(vec![rule(all, vec![RuleAction::Flood])]));
        assert!(!is_none(vec![rule(of_ip, vec![RuleAction::Normal])]));
        let far = Rule { id: IDS, matches: all, actions: vec![] };
        assert_eq!(Rules::new(vec![far]).err(), Some(TopologyError::RuleId(IDS)));
    }
}
