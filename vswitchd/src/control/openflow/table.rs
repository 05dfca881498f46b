//! A bridge's flow table: what ovs-ofctl adds, changes and deletes, with counts and timeouts.
//!
//! Pure: time and counts are arguments; what the core is to do comes out as its rules. Not here: bytes (see [`super::codec`]), and who asks.

use std::collections::BTreeSet;
use std::time::Duration;
use vswitch_core::switch::{Rule, RuleAction, RuleMatch, RuleVlan};
use vswitch_core::{Instant, Mac, PortId};

/// The most flows that a bridge may have; each has a number of its own in the core, below 65,536 over all bridges.
pub const MAX_FLOWS: usize = 4096;
/// The most actions of a flow.
pub const MAX_ACTIONS: usize = 256;
/// How many bridges share the numbers: those beside the file's.
const BRIDGES: u32 = 15;
/// Numbers of a bridge: more than flows, since one that was given up rests until nobody counts under it any more.
const SLOTS: u16 = 4368;
/// How often flows with an idle timeout are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What of its VLAN tag a frame must have, on the outermost tag as it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowVlan {
    /// No tag.
    Untagged,
    /// A tag with this VID, 0..=4095; 0 is a priority tag.
    Vid(u16),
}

/// Which frames a flow is for; a field that is `None` may be anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowMatch {
    /// `in_port`: an OpenFlow port number.
    pub in_port: Option<u16>,
    /// `dl_vlan`.
    pub vlan: Option<FlowVlan>,
    /// `dl_vlan_pcp`, 0..=7: of a frame with a tag.
    pub pcp: Option<u8>,
    /// `dl_src`.
    pub src: Option<Mac>,
    /// `dl_dst`.
    pub dst: Option<Mac>,
    /// `dl_type`: behind one tag at most; 0x05ff for a frame of IEEE 802.3 without SNAP.
    pub ethertype: Option<u16>,
}

impl FlowMatch {
    /// Whether every frame that `other` is for is one that this is for (OpenFlow 1.0.1 §4.6, without `_STRICT`).
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        fn covers<T: PartialEq + Copy>(mine: Option<T>, other: Option<T>) -> bool {
            mine.is_none() || mine == other
        }
        covers(self.in_port, other.in_port)
            && covers(self.vlan, other.vlan)
            && covers(self.pcp, other.pcp)
            && covers(self.src, other.src)
            && covers(self.dst, other.dst)
            && covers(self.ethertype, other.ethertype)
    }

    /// Whether there can be a frame that both are for.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        fn can<T: PartialEq + Copy>(mine: Option<T>, other: Option<T>) -> bool {
            mine.is_none() || other.is_none() || mine == other
        }
        let apart = |one: &Self, other: &Self| one.vlan == Some(FlowVlan::Untagged) && other.pcp.is_some();
        can(self.in_port, other.in_port)
            && can(self.vlan, other.vlan)
            && can(self.pcp, other.pcp)
            && can(self.src, other.src)
            && can(self.dst, other.dst)
            && can(self.ethertype, other.ethertype)
            && !apart(self, other)
            && !apart(other, self)
    }
}

/// What happens to a frame; a flow without actions drops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowAction {
    /// `NORMAL`: as if there were no flows.
    Normal,
    /// `output:N`, or `LOCAL`: by the port of this number.
    Output(u16),
    /// `IN_PORT`: back where it came from.
    InPort,
    /// `FLOOD`: by all ports but the one it came from.
    Flood,
    /// `ALL`: the same, for no port is kept from floods.
    All,
}

impl FlowAction {
    /// Whether it is what `out_port` of a request asks for: a port's number, or one of those that stand for several.
    const fn is_output(self, port: u16) -> bool {
        match self {
            Self::Output(number) => number == port,
            Self::InPort => port == 0xfff8,
            Self::Normal => port == 0xfffa,
            Self::Flood => port == 0xfffb,
            Self::All => port == 0xfffc,
        }
    }
}

/// Frames and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Frames.
    pub frames: u64,
    /// Bytes, Ethernet header included.
    pub bytes: u64,
}

impl Count {
    pub(super) fn add(&mut self, more: Self) {
        self.frames = self.frames.saturating_add(more.frames);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }

    /// What was counted since `before`; nothing where less was counted.
    pub(super) const fn since(self, before: Self) -> Self {
        Self {
            frames: self.frames.saturating_sub(before.frames),
            bytes: self.bytes.saturating_sub(before.bytes),
        }
    }
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Under what the core counts its frames.
    pub id: u32,
    /// 0..=65535; the highest wins.
    pub priority: u16,
    /// Which frames it is for.
    pub matches: FlowMatch,
    /// What happens to them, in turn; none: they are dropped.
    pub actions: Vec<FlowAction>,
    /// Whatever its owner wants to know it by.
    pub cookie: u64,
    /// Seconds without a frame after which it goes; 0: never.
    pub idle_timeout: u16,
    /// Seconds after which it goes; 0: never.
    pub hard_timeout: u16,
    /// When it was added.
    pub created: Instant,
    /// What was counted.
    pub count: Count,
    /// When it was added or changed.
    modified: Instant,
    /// When it was added, changed or seen to have been used.
    used: Instant,
    /// What the core had counted under its number when that was last read; `None` while the core does not have it.
    seen: Option<Count>,
}

impl Flow {
    /// Whether `matches` covers it and one of its actions is to `out_port`, where that is asked for.
    fn is_asked_for(&self, matches: &FlowMatch, out_port: Option<u16>) -> bool {
        matches.covers(&self.matches)
            && out_port.is_none_or(|port| self.actions.iter().any(|action| action.is_output(port)))
    }

    /// When it goes, as far as is known; `None`: never.
    fn due(&self) -> Option<Instant> {
        let after =
            |since: Instant, secs: u16| (secs > 0).then(|| since.after(Duration::from_secs(secs.into())));
        [after(self.modified, self.hard_timeout), after(self.used, self.idle_timeout)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether it makes a table without others a learning switch.
    fn is_normal_for_all(&self) -> bool {
        self.matches == FlowMatch::default() && self.actions == [FlowAction::Normal]
    }
}

/// What is done with flows (OpenFlow 1.0.1 §5.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowCommand {
    /// Adds one, in place of one with the same match and priority.
    Add,
    /// Changes the actions of those that are covered; adds one where there is none.
    Modify {
        /// Of the one with the same match and priority alone.
        strict: bool,
    },
    /// Deletes those that are covered.
    Delete {
        /// The one with the same match and priority alone.
        strict: bool,
    },
}

/// A change of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowMod {
    /// What to do.
    pub command: FlowCommand,
    /// With which flows.
    pub matches: FlowMatch,
    /// 0..=65535.
    pub priority: u16,
    /// What is to happen to their frames.
    pub actions: Vec<FlowAction>,
    /// Theirs from now on.
    pub cookie: u64,
    /// Seconds; 0: never.
    pub idle_timeout: u16,
    /// Seconds; 0: never.
    pub hard_timeout: u16,
    /// Whether one that overlaps with another of the same priority is refused.
    pub check_overlap: bool,
    /// Deletes only flows with an action to this port.
    pub out_port: Option<u16>,
}

/// Why a change is refused; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// [`MAX_FLOWS`] are there, or their numbers rest until [`FlowTable::published`].
    #[error("the table is full: {MAX_FLOWS} flows")]
    Full,
    /// `check_overlap`.
    #[error("a flow of the same priority overlaps with it")]
    Overlap,
}

/// The flows of one bridge.
#[derive(Debug)]
pub struct FlowTable {
    /// By falling priority; of equal ones the older first.
    flows: Vec<Flow>,
    /// The bridge's number in the core, 1..=15.
    bridge: u8,
    fail_secure: bool,
    /// Whether the core does not have the flows as they are.
    changed: bool,
    /// Whether the core has none, because one does what it does without.
    plain_in_force: bool,
    /// What was counted for flows, those that are gone among them.
    matched: Count,
    /// Frames that arrived on the bridge's ports.
    looked_up: u64,
    free: BTreeSet<u16>,
    /// Given up, but the core may still count under them.
    resting: Vec<u16>,
    next: u16,
}

impl FlowTable {
    /// The table of the new bridge of this number: with `fail_secure` empty, otherwise that of a learning switch.
    #[must_use]
    pub fn new(bridge: u8, fail_secure: bool, now: Instant) -> Self {
        let mut table = Self {
            flows: Vec::new(),
            bridge,
            fail_secure,
            changed: false,
            plain_in_force: false,
            matched: Count::default(),
            looked_up: 0,
            free: BTreeSet::new(),
            resting: Vec::new(),
            next: 0,
        };
        table.reset(now);
        table.plain_in_force = table.is_plain();
        table
    }

    /// Takes what `fail_mode` says; a change of it makes the table that of a new bridge, as in Open vSwitch.
    pub fn set_fail_secure(&mut self, fail_secure: bool, now: Instant) {
        if self.fail_secure != fail_secure {
            self.fail_secure = fail_secure;
            self.reset(now);
        }
    }

    fn reset(&mut self, now: Instant) {
        self.remove(|_| true);
        self.changed = true;
        if !self.fail_secure {
            let flow_mod = FlowMod {
                command: FlowCommand::Add,
                matches: FlowMatch::default(),
                priority: 0,
                actions: vec![FlowAction::Normal],
                cookie: 0,
                idle_timeout: 0,
                hard_timeout: 0,
                check_overlap: false,
                out_port: None,
            };
            // Of all numbers some are free: less than MAX_FLOWS rest.
            let _ = self.add(&flow_mod, now);
        }
    }

    /// The bridge's number in the core.
    #[must_use]
    pub const fn bridge(&self) -> u8 {
        self.bridge
    }

    /// How many frames have arrived on the bridge's ports.
    #[must_use]
    pub const fn looked_up(&self) -> u64 {
        self.looked_up
    }

    /// Every flow, by falling priority.
    #[must_use]
    pub fn flows(&self) -> &[Flow] {
        &self.flows
    }

    /// The flows that `matches` covers and that have an action to `out_port`, where that is asked for.
    pub fn select<'a>(
        &'a self,
        matches: &'a FlowMatch,
        out_port: Option<u16>,
    ) -> impl Iterator<Item = &'a Flow> {
        self.flows.iter().filter(move |flow| flow.is_asked_for(matches, out_port))
    }

    /// Whether the bridge is a learning switch: one flow for every frame, NORMAL. The core needs no rule then.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        matches!(self.flows.as_slice(), [flow] if flow.is_normal_for_all())
    }

    /// Whether the core does not have the flows as they are: publish them, then call [`FlowTable::published`].
    #[must_use]
    pub const fn is_changed(&self) -> bool {
        self.changed
    }

    /// What was counted for all flows that are or were.
    #[must_use]
    pub const fn matched(&self) -> Count {
        self.matched
    }

    /// What the core is to do with frames; `None`: what a learning switch does. A flow for frames from a port that is
    /// not there is for none, and an action to one does nothing: `port_of` knows ports by their OpenFlow numbers.
    #[must_use]
    pub fn rules(&self, port_of: impl Fn(u16) -> Option<PortId>) -> Option<Vec<Rule>> {
        if self.is_plain() {
            return None;
        }
        let rule = |flow: &Flow| {
            let FlowMatch { in_port, vlan, pcp, src, dst, ethertype } = flow.matches;
            let in_port = match in_port {
                Some(number) => Some(port_of(number)?),
                None => None,
            };
            let vlan = vlan.map(|vlan| match vlan {
                FlowVlan::Untagged => RuleVlan::Untagged,
                FlowVlan::Vid(vid) => RuleVlan::Vid(vid),
            });
            let action = |action: &FlowAction| match *action {
                FlowAction::Normal => Some(RuleAction::Normal),
                FlowAction::Output(number) => port_of(number).map(RuleAction::Output),
                FlowAction::InPort => Some(RuleAction::InPort),
                FlowAction::Flood | FlowAction::All => Some(RuleAction::Flood),
            };
            Some(Rule {
                id: flow.id,
                matches: RuleMatch { in_port, vlan, pcp, src, dst, ethertype },
                actions: flow.actions.iter().filter_map(action).collect(),
            })
        };
        let mut rules: Vec<Rule> = self.flows.iter().filter_map(rule).collect();
        if let [Rule { id, matches, actions }] = rules.as_slice()
            && *matches == RuleMatch::default()
            && actions[..] == [RuleAction::Normal]
        {
            // By itself that would be no rule, and not be counted; beside one for frames from nowhere it is.
            let matches = RuleMatch { in_port: PortId::new(PortId::MAX), ..RuleMatch::default() };
            rules.push(Rule { id: *id, matches, actions: Vec::new() });
        }
        Some(rules)
    }

    /// Carries out one change.
    ///
    /// # Errors
    /// [`FlowError`]; the table is as it was.
    pub fn change(&mut self, flow_mod: &FlowMod, now: Instant) -> Result<(), FlowError> {
        match flow_mod.command {
            FlowCommand::Add => self.add(flow_mod, now),
            FlowCommand::Modify { strict } => self.modify(flow_mod, strict, now),
            FlowCommand::Delete { strict } => {
                let FlowMod { matches, priority, out_port, .. } = flow_mod;
                self.remove(|flow| {
                    flow.is_asked_for(matches, *out_port)
                        && (!strict || (flow.matches, flow.priority) == (*matches, *priority))
                });
                Ok(())
            }
        }
    }

    fn add(&mut self, flow_mod: &FlowMod, now: Instant) -> Result<(), FlowError> {
        let FlowMod { matches, priority, .. } = flow_mod;
        let same = self.flows.iter().position(|flow| (flow.matches, flow.priority) == (*matches, *priority));
        let overlaps = |flow: &Flow| flow.priority == *priority && flow.matches.overlaps(matches);
        if same.is_none() {
            if flow_mod.check_overlap && self.flows.iter().any(overlaps) {
                return Err(FlowError::Overlap);
            }
            if self.flows.len() >= MAX_FLOWS {
                return Err(FlowError::Full);
            }
        }
        let slot = self.take_slot().ok_or(FlowError::Full)?;
        let flow = Flow {
            id: u32::from(slot) * BRIDGES + u32::from(self.bridge).saturating_sub(1) % BRIDGES,
            priority: *priority,
            matches: *matches,
            actions: flow_mod.actions.clone(),
            cookie: flow_mod.cookie,
            idle_timeout: flow_mod.idle_timeout,
            hard_timeout: flow_mod.hard_timeout,
            created: now,
            count: Count::default(),
            modified: now,
            used: now,
            seen: None,
        };
        if let Some(same) = same {
            let old = std::mem::replace(&mut self.flows[same], flow);
            self.give_up(old.id);
        } else {
            let at = self.flows.partition_point(|other| other.priority >= *priority);
            self.flows.insert(at, flow);
        }
        self.changed = true;
        Ok(())
    }

    fn modify(&mut self, flow_mod: &FlowMod, strict: bool, now: Instant) -> Result<(), FlowError> {
        let FlowMod { matches, priority, .. } = flow_mod;
        let mut any = false;
        for flow in &mut self.flows {
            let meant = if strict {
                (flow.matches, flow.priority) == (*matches, *priority)
            } else {
                matches.covers(&flow.matches)
            };
            if meant {
                flow.actions.clone_from(&flow_mod.actions);
                flow.cookie = flow_mod.cookie;
                flow.modified = now;
                any = true;
            }
        }
        self.changed |= any;
        if any { Ok(()) } else { self.add(flow_mod, now) }
    }

    /// Removes the flows that `gone` picks.
    fn remove(&mut self, gone: impl Fn(&Flow) -> bool) {
        let ids: Vec<u32> = self.flows.iter().filter(|flow| gone(flow)).map(|flow| flow.id).collect();
        self.flows.retain(|flow| !gone(flow));
        self.changed |= !ids.is_empty();
        for id in ids {
            self.give_up(id);
        }
    }

    fn take_slot(&mut self) -> Option<u16> {
        self.free.pop_first().or_else(|| {
            let slot = (self.next < SLOTS).then_some(self.next)?;
            self.next += 1;
            Some(slot)
        })
    }

    fn give_up(&mut self, id: u32) {
        self.resting.extend(u16::try_from(id / BRIDGES));
    }

    /// Adds what was counted since the last time. `count_of` is what the core has counted under a number, `all` what the
    /// ports of the bridge have received since then: while a learning switch is in force, its flow is counted by that.
    /// Call it before [`FlowTable::published`], with what was counted before the change.
    pub fn settle(&mut self, count_of: impl Fn(u32) -> Count, all: Count, now: Instant) {
        self.looked_up = self.looked_up.saturating_add(all.frames);
        for flow in &mut self.flows {
            let counted = count_of(flow.id);
            // What the core does not have counts nothing; its number may have counted for another one before.
            let Some(seen) = flow.seen.replace(counted) else { continue };
            let more = if self.plain_in_force { all } else { counted.since(seen) };
            flow.count.add(more);
            self.matched.add(more);
            if more.frames > 0 {
                flow.used = now;
            }
        }
    }

    /// The core has the flows as they are now.
    pub fn published(&mut self) {
        self.changed = false;
        self.plain_in_force = self.is_plain();
        self.free.extend(self.resting.drain(..));
    }

    /// Removes the flows whose time is over, by counts as of the last [`FlowTable::settle`].
    pub fn expire(&mut self, now: Instant) {
        self.remove(|flow| flow.due().is_some_and(|due| due <= now));
    }

    /// When it should be settled and [`FlowTable::expire`] be called next; `None`: no flow has a timeout.
    #[must_use]
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        let due = self.flows.iter().filter_map(Flow::due).min()?;
        let idle = self.flows.iter().any(|flow| flow.idle_timeout > 0);
        Some(if idle { due.min(now.after(LOOK)) } else { due })
    }
}
