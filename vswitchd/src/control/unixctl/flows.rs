//! `bridge/dump-flows`: what a bridge does with its frames, as flows; and how Open vSwitch writes one.
//!
//! Not here: OpenFlow (see [`super::super::openflow`]).

use super::super::daemon::Control;
use super::super::openflow::{Count, Flow, FlowAction, FlowMatch, FlowTable, FlowVlan};
use super::super::ovs::OFPP_LOCAL;
use super::commands::Answer;
use crate::datapath::clock;
use std::fmt::Write as _;

/// The priority of a flow of which none is said (OFP_DEFAULT_PRIORITY, OpenFlow 1.0.1 §5.3.3): it is not written.
const DEFAULT_PRIORITY: u16 = 0x8000;

impl Control {
    /// `bridge/dump-flows [--offload-stats] BRIDGE`: the file's bridge is a learning switch, which is one flow.
    pub(super) fn bridge_dump_flows(&mut self, arguments: &[&str]) -> Answer {
        let (offload, name) = match arguments {
            ["--offload-stats", name] => (true, *name),
            _ => (false, arguments.first().copied().unwrap_or_default()),
        };
        let number = self.bridge_number(name, "Unknown bridge")?;
        let line = |secs: u64, count: Count, flow: &str| {
            let Count { frames, bytes } = count;
            // What a network card does by itself: nothing here.
            let offload = if offload { "n_offload_packets=0, n_offload_bytes=0, " } else { "" };
            format!("duration={secs}s, n_packets={frames}, n_bytes={bytes}, {offload}{flow}\n")
        };
        self.settle_flows();
        let now = clock::now();
        if let Some(bridge) = self.ovs.bridges.get(name) {
            let written = |flow: &Flow| {
                let text = format!("{},actions={}", matches_of(flow), actions_of(flow).join(","));
                line(now.since(flow.created).as_secs(), flow.count, &text)
            };
            return Ok(bridge.flows.flows().iter().map(written).collect());
        }
        let counters = self.counters().map_err(|error| error.to_string())?;
        let mut all = Count::default();
        for port in self.ports_in(number) {
            let counts = counters.port(port.id);
            (all.frames, all.bytes) = (all.frames + counts.rx_frames, all.bytes + counts.rx_bytes);
        }
        Ok(line(now.since(self.started).as_secs(), all, "priority=0,actions=NORMAL"))
    }

    /// The table of `bridge`; the file's has none.
    pub(super) fn flow_table(&self, bridge: &str) -> Option<&FlowTable> {
        self.ovs.bridges.get(bridge).map(|bridge| &bridge.flows)
    }

    /// The flow that the core knows by this number.
    pub(super) fn flow_of(&self, rule: u32) -> Option<&Flow> {
        self.ovs.bridges.values().flat_map(|bridge| bridge.flows.flows()).find(|flow| flow.id == rule)
    }
}

/// Which frames a flow is for, its priority in front where it is not the usual one.
fn matches_of(flow: &Flow) -> String {
    let mut words = fields_of(&flow.matches);
    if flow.priority != DEFAULT_PRIORITY {
        words.insert(0, format!("priority={}", flow.priority));
    }
    words.join(",")
}

/// The same with priority and cookie behind, as a trace has it.
pub(super) fn traced(flow: &Flow) -> String {
    let mut text = fields_of(&flow.matches).join(",");
    let comma = if text.is_empty() { "" } else { ", " };
    // Writing to a String cannot fail.
    let _ = write!(text, "{comma}priority {}", flow.priority);
    if flow.cookie != 0 {
        let _ = write!(text, ", cookie {:#x}", flow.cookie);
    }
    text
}

fn fields_of(matches: &FlowMatch) -> Vec<String> {
    let FlowMatch { in_port, vlan, pcp, src, dst, ethertype } = matches;
    let protocol = match ethertype {
        Some(0x0800) => Some("ip"),
        Some(0x0806) => Some("arp"),
        Some(0x8035) => Some("rarp"),
        Some(0x86dd) => Some("ipv6"),
        Some(0x8847) => Some("mpls"),
        Some(0x8848) => Some("mplsm"),
        _ => None,
    };
    let vlan = vlan.map(|vlan| match vlan {
        FlowVlan::Untagged => "vlan_tci=0x0000".to_owned(),
        FlowVlan::Vid(vid) => format!("dl_vlan={vid}"),
    });
    let fields = [
        protocol.map(str::to_owned),
        in_port.map(|number| format!("in_port={}", port_word(number))),
        vlan,
        pcp.map(|pcp| format!("dl_vlan_pcp={pcp}")),
        src.map(|mac| format!("dl_src={mac}")),
        dst.map(|mac| format!("dl_dst={mac}")),
        ethertype.filter(|_| protocol.is_none()).map(|kind| format!("dl_type=0x{kind:04x}")),
    ];
    fields.into_iter().flatten().collect()
}

/// What a flow does, one by one.
pub(super) fn actions_of(flow: &Flow) -> Vec<String> {
    if flow.actions.is_empty() {
        return vec!["drop".to_owned()];
    }
    let word = |action: &FlowAction| match *action {
        FlowAction::Normal => "NORMAL".to_owned(),
        FlowAction::Output(OFPP_LOCAL) => "LOCAL".to_owned(),
        FlowAction::Output(number) => format!("output:{number}"),
        FlowAction::InPort => "IN_PORT".to_owned(),
        FlowAction::Flood => "FLOOD".to_owned(),
        FlowAction::All => "ALL".to_owned(),
    };
    flow.actions.iter().map(word).collect()
}

fn port_word(number: u16) -> String {
    if number == OFPP_LOCAL { "LOCAL".to_owned() } else { number.to_string() }
}
