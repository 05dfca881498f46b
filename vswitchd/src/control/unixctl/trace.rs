//! `ofproto/trace`: what would become of a frame, in Open vSwitch's form: the flow, what each step did, and
//! `Datapath actions:` at the end.
//!
//! The journey is the production one ([`Worker::explain`]); it changes nothing. Not here: fields and frames (see
//! [`super::flow`] and [`super::fields`]).

use super::super::daemon::Control;
use super::super::openflow::FlowAction;
use super::super::ovs::OFPP_LOCAL;
use super::bridges::{Seen, datapath_number};
use super::commands::Answer;
use super::fields::{self, describe, tags};
use super::flow::{Flow, parse_hex};
use super::flows;
use crate::config::PortKind;
use crate::datapath::clock;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vswitch_core::switch::{Explanation, Output, Step, Worker};
use vswitch_core::wire::vxlan;
use vswitch_core::{Arrival, DropReason, PortId, Verdict, Vni};

/// The longest frame that is traced, in bytes.
const MAX_LEN: usize = 65_535;

/// What was asked.
struct Asked<'a> {
    /// The bridge's name; none with a flow in the datapath's keys.
    bridge: Option<&'a str>,
    flow: &'a str,
    frame: Option<Vec<u8>>,
    /// Ports by name instead of by number.
    names: bool,
}

impl<'a> Asked<'a> {
    fn parse(arguments: &[&'a str]) -> Result<Self, String> {
        let (mut names, mut plain) = (false, Vec::new());
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match *argument {
                "-names" | "--names" => names = true,
                // There is no packet to send on, and nothing that differs between two traces.
                "-generate" | "--generate" | "-consistent" | "--consistent" => {}
                // What a connection tracker or a payload would say changes nothing here.
                option @ ("--ct-next" | "--l7" | "--l7-len") => {
                    arguments.next().ok_or_else(|| format!("Missing argument for option {option}"))?;
                }
                option if option.starts_with('-') => return Err(format!("{option}: unknown option")),
                argument => plain.push(argument),
            }
        }
        let garbage = "Trailing garbage in packet data";
        let is_key = |flow: &str| flow.contains('(');
        let (bridge, flow, frame) = match plain[..] {
            [flow] => (None, flow, None),
            [flow, frame] if is_key(flow) => (None, flow, Some(frame)),
            [_, flow] if is_key(flow) => (None, flow, None),
            [_, flow, frame] if is_key(flow) => (None, flow, Some(frame)),
            [bridge, flow] => match parse_hex(flow).filter(|frame| frame.len() >= 14) {
                Some(_) => return Err(format!("syntax error at {bridge} (or the bridge name was omitted)")),
                None => (Some(bridge), flow, None),
            },
            [bridge, flow, frame] => (Some(bridge), flow, Some(frame)),
            [] => return Err("Syntax error".to_owned()),
            _ => return Err("too many arguments".to_owned()),
        };
        let frame = frame.map(|hex| parse_hex(hex).filter(|frame| frame.len() <= MAX_LEN).ok_or(garbage));
        Ok(Self { bridge, flow, frame: frame.transpose()?, names })
    }
}

impl Control {
    /// `ofproto/trace {[dp_name] odp_flow | bridge br_flow} [OPTIONS...] [-generate|packet]`
    pub(super) fn ofproto_trace(&self, arguments: &[&str]) -> Answer {
        let asked = Asked::parse(arguments)?;
        let (bridge, flow) = match asked.bridge {
            Some(name) => {
                self.bridge_number(name, &format!("{name}: unknown bridge"))?;
                (name, Flow::parse(asked.flow)?)
            }
            None => {
                let flow = Flow::parse_keys(asked.flow)?;
                let in_port = flow.in_port.as_deref().unwrap_or_default();
                let found = self.bridge_numbers().into_iter().find(|(_, number)| {
                    let is_it = |port: &Seen| datapath_number(port.id).to_string() == in_port;
                    self.ports_in(*number).iter().any(|port| is_it(port) || port.name == in_port)
                });
                (found.ok_or_else(|| format!("no port {in_port:?} in the datapath"))?.0, flow)
            }
        };
        let frame = asked.frame.unwrap_or_else(|| flow.frame());
        let ports = self.ports_in(self.bridge_number(bridge, "")?);
        let port = match &flow.in_port {
            None => None,
            Some(word) => find_port(&ports, word, asked.bridge.is_none()).or_else(|_: String| {
                // A number is a port that may come; a name that nobody has is a mistake.
                let number = word.parse::<u16>().map(|_| None);
                number.map_err(|_| {
                    format!(
                        "Bad openflow flow syntax: {}: bad value for in_port ({word}: invalid or unknown port \
                         for in_port)",
                        asked.flow
                    )
                })
            })?,
        };
        let in_port = match (port, &flow.in_port) {
            (Some(port), _) if asked.names => port.name.clone(),
            (Some(port), _) => port.word(),
            (None, Some(word)) => word.clone(),
            (None, None) => "ANY".to_owned(),
        };
        let described = describe(&frame, &in_port);
        let mut text = format!("Flow: {}\n\nbridge(\"{bridge}\")\n", described.flow);
        let _ = writeln!(text, "{}", "-".repeat(bridge.len() + 10));
        let actions = if let Some(port) = port {
            let story = self.explain(port, &flow, &frame)?;
            self.tell_flow(&mut text, bridge, &story, port, &ports);
            self.tell(&mut text, &story);
            self.actions(&story, &frame, asked.names)
        } else {
            // With flows of its own it may do anything; from a port that is not there nothing comes.
            match self.flow_table(bridge) {
                None => text.push_str(" 0. priority 0\n    NORMAL\n"),
                Some(table) => table.flows().iter().filter(|_| table.is_plain()).for_each(|flow| {
                    let _ = writeln!(text, " 0. {}\n    NORMAL", flows::traced(flow));
                }),
            }
            let _ = writeln!(text, "     >>>> received packet on unknown port {in_port} <<<<");
            text.push_str("     >> no input bundle, dropping\n");
            "drop".to_owned()
        };
        let _ = writeln!(text, "\nFinal flow: unchanged\nMegaflow: {}", described.megaflow);
        let _ = writeln!(text, "Datapath actions: {actions}");
        Ok(text)
    }

    /// What would become of `frame` on `port`; in a tunnel's datagram, where that is one.
    fn explain(&self, port: &Seen, flow: &Flow, frame: &[u8]) -> Result<Explanation, String> {
        let setup = &self.running.setup;
        let worker = Worker::new(setup.topology.clone(), self.running.macs.clone());
        let Some(tunnel) = setup.topology.port(port.id).and_then(|port| port.tunnel()) else {
            return Ok(worker.explain(clock::now(), Arrival::Port(port.id), frame));
        };
        let any = || match tunnel.remote {
            IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        let own = self.running.ports.get(&port.name).and_then(|port| match &port.config.kind {
            PortKind::Vxlan(config) => Some(config),
            _ => None,
        });
        let local = own.map_or_else(
            || self.running.underlay.addresses().into_iter().find(|a| a.is_ipv4() == tunnel.remote.is_ipv4()),
            |config| config.local,
        );
        let vni = own.map(|config| config.in_key).or_else(|| flow.tun_id.and_then(Vni::new));
        let vni = vni.ok_or_else(|| {
            format!("port {} carries many VNIs: tun_id=VNI says which the frame arrives with", port.name)
        })?;
        let local = local.unwrap_or_else(any);
        let arrival = Arrival::Underlay { local, remote: tunnel.remote, udp_port: tunnel.udp_port };
        let datagram = [&vxlan::header(vni)[..], frame].concat();
        Ok(worker.explain(clock::now(), arrival, &datagram))
    }

    /// Which flow of `bridge` the frame matches first, and what that does, in Open vSwitch's form. Nothing, where the
    /// frame did not come so far.
    fn tell_flow(&self, text: &mut String, bridge: &str, story: &Explanation, from: &Seen, ports: &[Seen]) {
        let asked = story.steps.iter().find_map(|step| match step {
            Step::Matched { rule } => Some(self.flow_of(*rule)),
            Step::Dropped { reason: DropReason::NoFlow, .. } => Some(None),
            _ => None,
        });
        let plain = self.flow_table(bridge).filter(|table| table.is_plain());
        let flow = match (asked, plain.and_then(|table| table.flows().first())) {
            (_, Some(flow)) | (Some(Some(flow)), None) => flow,
            (Some(None), None) => return text.push_str(" 0. No match.\n    drop\n"),
            (None, None) => {
                if self.flow_table(bridge).is_none() {
                    text.push_str(" 0. priority 0\n    NORMAL\n");
                }
                return;
            }
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, " 0. {}", flows::traced(flow));
        for (word, action) in flows::actions_of(flow).iter().zip(flow.actions.iter().map(Some).chain([None]))
        {
            let _ = writeln!(text, "    {word}");
            let Some(FlowAction::Output(number)) = action else { continue };
            if u32::from(*number) == from.number {
                text.push_str("     >> skipping output to input port\n");
            } else if !ports.iter().any(|port| port.number == u32::from(*number)) {
                text.push_str("     >> Nonexistent output port\n");
            }
        }
    }

    /// The steps, in our words, and in Open vSwitch's where it has some for it.
    fn tell(&self, text: &mut String, story: &Explanation) {
        let names = self.names();
        let name = |id: PortId| names.get(&id).cloned().unwrap_or_else(|| id.to_string());
        for step in &story.steps {
            let theirs = match step {
                Step::Group | Step::LookedUp(None) => Some("-> no learned MAC for destination, flooding"),
                Step::LookedUp(Some(_)) => Some("-> forwarding to learned port"),
                Step::Dropped { reason, .. } => match reason {
                    DropReason::ReservedGroup => Some("-> packet has reserved destination MAC, dropping"),
                    DropReason::VlanTaggedOnAccess
                    | DropReason::VlanNotTrunked
                    | DropReason::CvlanNotAllowed => {
                        Some(">> disallowed VLAN VID for this input port, dropping")
                    }
                    DropReason::SamePort => Some("-> learned port is input port, dropping"),
                    _ => None,
                },
                _ => None,
            };
            let mark = if matches!(step, Step::Dropped { .. }) { ">>" } else { "->" };
            let said = match step {
                Step::Matched { rule } => self.flow_of(*rule).map(|flow| {
                    format!(
                        "matches flow {}, actions {}",
                        flows::traced(flow),
                        flows::actions_of(flow).join(",")
                    )
                }),
                _ => None,
            };
            let _ = writeln!(text, "     {mark} {}", said.unwrap_or_else(|| step.text(&name)));
            if let Some(theirs) = theirs {
                let _ = writeln!(text, "     {theirs}");
            }
        }
    }

    /// What leaves, as actions of a datapath.
    fn actions(&self, story: &Explanation, frame: &[u8], names: bool) -> String {
        if let Verdict::Punt(why) = story.verdict
            && story.outputs.is_empty()
        {
            return format!("userspace({})", why.name());
        }
        let mut actions = Vec::new();
        let mut current = tags(frame);
        for output in &story.outputs {
            let (tunnel, carried) = self.tunnel_action(output);
            retag(&mut current, tags(carried), &mut actions);
            actions.extend(tunnel);
            actions.push(if names {
                self.running.name_of(output.port)
            } else {
                datapath_number(output.port).to_string()
            });
        }
        if actions.is_empty() { "drop".to_owned() } else { actions.join(",") }
    }

    /// Into which tunnel it goes, if it does, and what is carried.
    fn tunnel_action<'a>(&self, output: &'a Output) -> (Option<String>, &'a [u8]) {
        let port = self.running.setup.topology.port(output.port);
        let Some(tunnel) = port.and_then(|port| port.tunnel()) else { return (None, &output.bytes) };
        let header = vxlan::Header::parse(&output.bytes);
        let key = header.map_or(0, |header| header.vni().get());
        let (remote, udp_port) = (tunnel.remote, tunnel.udp_port);
        let to = if remote.is_ipv4() { "dst" } else { "ipv6_dst" };
        let action = format!("set(tunnel(tun_id={key:#x},{to}={remote},tp_dst={udp_port},flags(key)))");
        (Some(action), output.bytes.get(vxlan::HEADER_LEN..).unwrap_or_default())
    }
}

/// The port of that OpenFlow number or name; with `in_datapath`, of that number of the datapath.
fn find_port<'a>(ports: &'a [Seen], word: &str, in_datapath: bool) -> Result<Option<&'a Seen>, String> {
    let number = |port: &Seen| if in_datapath { datapath_number(port.id) } else { port.number };
    let named = ports.iter().find(|port| port.name == word);
    let local = word.eq_ignore_ascii_case("LOCAL") && !in_datapath;
    let wanted = if local { Some(u32::from(OFPP_LOCAL)) } else { word.parse().ok() };
    let numbered = || ports.iter().find(|port| Some(number(port)) == wanted);
    named.or_else(numbered).map(Some).ok_or_else(String::new)
}

/// Changes the tags that a frame has to those that it should have, the inner ones kept where they are the same.
fn retag(current: &mut Vec<(u16, u16)>, wanted: Vec<(u16, u16)>, actions: &mut Vec<String>) {
    let same = current.iter().rev().zip(wanted.iter().rev()).take_while(|(one, other)| one == other).count();
    for _ in same..current.len() {
        actions.push("pop_vlan".to_owned());
    }
    for (tpid, tci) in wanted[..wanted.len() - same].iter().rev() {
        let tpid = if *tpid == fields::CTAG { String::new() } else { format!("tpid={tpid:#x},") };
        actions.push(format!("push_vlan({tpid}vid={},pcp={})", tci & 0xfff, tci >> 13));
    }
    *current = wanted;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_told_apart_as_open_vswitch_does() {
        let parse = |words: &[&'static str]| {
            Asked::parse(words).map(|asked| (asked.bridge, asked.flow, asked.frame.is_some(), asked.names))
        };
        assert_eq!(parse(&["br0", "in_port=1"]), Ok((Some("br0"), "in_port=1", false, false)));
        assert_eq!(parse(&["br0", "--names", "in_port=1"]), Ok((Some("br0"), "in_port=1", false, true)));
        assert_eq!(parse(&["br0", "in_port=1", "-generate"]), Ok((Some("br0"), "in_port=1", false, false)));
        assert_eq!(parse(&["br0", "in_port=1", "00ff"]), Ok((Some("br0"), "in_port=1", true, false)));
        assert_eq!(parse(&["in_port(1)"]), Ok((None, "in_port(1)", false, false)));
        assert_eq!(parse(&["ovs-netdev", "in_port(1)", "00"]), Ok((None, "in_port(1)", true, false)));
        assert_eq!(parse(&["br0", "in_port=1", "zz"]), Err("Trailing garbage in packet data".to_owned()));
        assert_eq!(parse(&["br0", "in_port=1", "--l7"]), Err("Missing argument for option --l7".to_owned()));
        assert_eq!(parse(&["br0", "-x"]), Err("-x: unknown option".to_owned()));
        assert!(parse(&["a", "b", "00", "d"]).is_err());
        assert!(parse(&[]).is_err());
    }

    #[test]
    fn tags_are_popped_and_pushed_one_by_one() {
        let (ctag, stag) = (|tci| (0x8100, tci), |tci| (0x88a8, tci));
        let mut current = vec![];
        let mut change = |wanted: &[(u16, u16)]| {
            let mut actions = Vec::new();
            retag(&mut current, wanted.to_vec(), &mut actions);
            actions.join(",")
        };
        assert_eq!(change(&[ctag(10)]), "push_vlan(vid=10,pcp=0)");
        assert_eq!(change(&[ctag(10)]), "");
        assert_eq!(change(&[stag(0x6014), ctag(10)]), "push_vlan(tpid=0x88a8,vid=20,pcp=3)");
        assert_eq!(change(&[ctag(11)]), "pop_vlan,pop_vlan,push_vlan(vid=11,pcp=0)");
        assert_eq!(change(&[]), "pop_vlan");
    }
}
