//! The rules by which a `[[port]]` is read, and those that hold between ports.
//!
//! One set for all: the file, the state file and `vswitchctl port add` come through [`read`]. Not here: what
//! follows from a good port.

use super::address::{read_addresses_and_prefixes, read_gateways, read_interface_addresses};
use super::file::Value;
use super::port::{AntiSpoof, MAX_MTU, MIN_MTU, Policing, PortConfig, PortKind, VlanMode};
use super::read::{Field, Section};
use super::{Config, PriorityTags, tunnel_rules};
use std::collections::HashMap;
use vswitch_core::Mac;
use vswitch_core::wire::vlan::{TPID_CTAG, TPID_STAG};

/// Words for `priority_tags`, as in Open vSwitch.
pub(super) const PRIORITY_TAGS: [(&str, PriorityTags); 3] =
    [("no", PriorityTags::No), ("if-nonzero", PriorityTags::IfNonzero), ("always", PriorityTags::Always)];

/// Words for `qinq_ethtype`; the first of a kind is the one that is written.
pub(super) const QINQ_ETHTYPE: [(&str, u16); 4] =
    [("802.1ad", TPID_STAG), ("802.1q", TPID_CTAG), ("0x88a8", TPID_STAG), ("0x8100", TPID_CTAG)];

/// Reads one port; `None` when something is wrong, which is then in the report.
pub(super) fn read(section: &Section<'_>, config: &Config) -> Option<PortConfig> {
    let wrong_before = section.report.len();
    let name = section.need("name").and_then(|field| field.interface_name()).map(str::to_owned);
    let kind = read_kind(section);
    let nodes = section.get("node").and_then(|field| read_nodes(&field));
    let vlans = read_vlans(section, config);
    let priority_tags = section.get("priority_tags").and_then(|field| field.word(&PRIORITY_TAGS));
    let netns_field = section.get("netns");
    let netns = netns_field.and_then(|field| read_netns(&field)).map(str::to_owned);
    let ifname = section.get("ifname").and_then(|field| {
        if netns_field.is_none() {
            return field.refuse("is a name inside netns, and netns is missing");
        }
        field.interface_name().map(str::to_owned)
    });
    let mac = section.get("mac").and_then(|field| read_mac(&field));
    let mtu = section.get("mtu").and_then(|field| field.number(MIN_MTU..=MAX_MTU));
    let addresses_field = section.get("addresses");
    let addresses =
        addresses_field.map_or_else(|| Some(Vec::new()), |field| read_interface_addresses(&field));
    let gateway = section.get("gateway");
    // Where the addresses are wrong, nothing is known of their families.
    let gateways = gateway.zip(addresses.as_ref()).and_then(|(field, known)| read_gateways(&field, known));
    let offload = section.get("offload").and_then(|field| field.boolean());
    let anti_spoof = section.get("anti_spoof").and_then(|field| read_anti_spoof(&field));
    let ingress_policing = read_policing(section, ["ingress_policing_rate", "ingress_policing_burst"]);
    let egress_policing = read_policing(section, ["egress_policing_rate", "egress_policing_burst"]);
    let split_horizon = section.get("split_horizon").and_then(|field| field.boolean());
    let kind = kind.and_then(|kind| read_what_goes_with(section, kind));
    section.refuse_unknown();
    let (name, kind, vlans, addresses) = (name?, kind?, vlans?, addresses?);
    (section.report.len() == wrong_before).then(|| PortConfig {
        nodes,
        vlan_mode: vlans.mode,
        tag: vlans.tag,
        trunks: vlans.trunks,
        cvlans: vlans.cvlans,
        qinq_ethertype: vlans.qinq_ethertype,
        priority_tags: priority_tags.unwrap_or_default(),
        netns,
        ifname,
        mac,
        mtu,
        addresses,
        gateways: gateways.unwrap_or_default(),
        offload,
        anti_spoof: anti_spoof.unwrap_or_default(),
        ingress_policing,
        egress_policing,
        split_horizon: split_horizon.unwrap_or_default(),
        ..PortConfig::new(&name, kind)
    })
}

/// What a file may put behind a port.
const TYPES: [&str; 4] = ["tap", "internal", "system", "vxlan"];

fn read_kind(section: &Section<'_>) -> Option<&'static str> {
    let Some(field) = section.get("type") else { return Some("tap") };
    field.word(&TYPES.map(|word| (word, word)))
}

/// Keys that set up a TAP, and the types whose ports have them.
const KEYS_OF_TYPES: [(&[&str], &[&str]); 4] = [
    (&["tap"], &["netns", "ifname", "addresses", "gateway"]),
    (&["tap", "internal"], &["mac", "anti_spoof"]),
    (&["tap", "internal", "system"], &["mtu", "offload", "ingress_policing_rate", "ingress_policing_burst"]),
    (&["tap", "internal", "system"], &["egress_policing_rate", "egress_policing_burst"]),
];

/// What stands behind a port of type `kind`; keys that do not go with it are refused.
fn read_what_goes_with(section: &Section<'_>, kind: &str) -> Option<PortKind> {
    for (types, keys) in KEYS_OF_TYPES.iter().filter(|(types, _)| !types.contains(&kind)) {
        for field in keys.iter().filter_map(|key| section.get(key)) {
            let types = types.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
            let _: Option<()> =
                field.refuse(format!("has no meaning with type {kind:?}; it goes with {types}"));
        }
    }
    if kind == "vxlan" {
        return tunnel_rules::read(section).map(PortKind::Vxlan);
    }
    tunnel_rules::refuse(section, kind);
    Some(match kind {
        "internal" => PortKind::Internal,
        "system" => PortKind::System,
        _ => PortKind::Tap,
    })
}

fn read_nodes(field: &Field<'_>) -> Option<Vec<String>> {
    let mut nodes: Vec<String> = Vec::new();
    for item in field.one_or_more()? {
        let node = item.name(253)?;
        if nodes.iter().any(|other| other == node) {
            return item.refuse("is given twice");
        }
        nodes.push(node.to_owned());
    }
    Some(nodes)
}

fn read_netns<'a>(field: &Field<'a>) -> Option<&'a str> {
    let text = field.text()?;
    if text.starts_with('/') {
        return field.absolute_path();
    }
    if text == "." || text == ".." || text.contains('/') {
        return field.refuse("is not a namespace; a name under /run/netns or an absolute path is expected");
    }
    field.name(255)
}

fn read_mac(field: &Field<'_>) -> Option<Mac> {
    let Ok(mac) = field.text()?.parse::<Mac>() else {
        return field.refuse("is not a MAC address, like \"02:00:00:00:00:0a\"");
    };
    if mac.is_group() {
        return field.refuse("is a group address; a station's own, with an even first byte, is expected");
    }
    if mac.is_zero() { field.refuse("is no station's address") } else { Some(mac) }
}

fn read_anti_spoof(field: &Field<'_>) -> Option<AntiSpoof> {
    match field.value() {
        Value::Boolean(false) => Some(AntiSpoof::Off),
        Value::Boolean(true) => Some(AntiSpoof::Own),
        Value::Array(_) => read_addresses_and_prefixes(field).map(AntiSpoof::These),
        _ => field.refuse_type("true, false or an array of addresses is expected"),
    }
}

/// A rate and a burst; as in Open vSwitch, a rate of 0 is none, and a burst of 0 the default.
fn read_policing(section: &Section<'_>, [rate_key, burst_key]: [&'static str; 2]) -> Option<Policing> {
    let (rate_field, burst_field) = (section.get(rate_key), section.get(burst_key));
    let rate = rate_field.and_then(|field| field.number(0..=u32::MAX));
    let burst = burst_field.and_then(|field| {
        if rate_field.is_none() {
            return field.refuse(format!("has no meaning without {rate_key}"));
        }
        field.number(0..=u32::MAX)
    });
    let burst = burst.filter(|burst| *burst > 0).unwrap_or(Policing::DEFAULT_BURST);
    rate.filter(|rate| *rate > 0).map(|rate| Policing { rate, burst })
}

struct Vlans {
    mode: VlanMode,
    tag: Option<u16>,
    trunks: Option<Vec<u16>>,
    cvlans: Option<Vec<u16>>,
    qinq_ethertype: u16,
}

fn read_vlans(section: &Section<'_>, config: &Config) -> Option<Vlans> {
    let words = VlanMode::ALL.map(|mode| (mode.as_str(), mode));
    let mode_field = section.get("vlan_mode");
    let tag_field = section.get("tag");
    let segment_field = section.get("segment");
    let trunks_field = section.get("trunks");
    let cvlans_field = section.get("cvlans");
    let ethtype_field = section.get("qinq_ethtype");

    let tag = tag_field.and_then(|field| field.vlan());
    let segment = segment_field.and_then(|field| read_segment(&field, tag, config));
    let trunks = trunks_field.and_then(|field| some_vlans(&field));
    let cvlans = cvlans_field.and_then(|field| some_vlans(&field));
    let ethtype = ethtype_field.and_then(|field| field.word(&QINQ_ETHTYPE));
    // Open vSwitch: a port with a tag is an access port, one without a trunk, unless it says otherwise.
    let said_tag = tag_field.or(segment_field);
    let mode = match mode_field {
        Some(field) => field.word(&words)?,
        None if said_tag.is_some() => VlanMode::Access,
        None => VlanMode::Trunk,
    };

    let implied =
        if mode_field.is_none() { " (which a port with a tag is where it says nothing)" } else { "" };
    let shown = mode.as_str();
    if let (VlanMode::Trunk, Some(field)) = (mode, said_tag) {
        let _: Option<()> = field.refuse(
            "has no meaning with vlan_mode \"trunk\"; for untagged frames use \"native-untagged\" or \
             \"native-tagged\"",
        );
    }
    if let (VlanMode::Access | VlanMode::Dot1qTunnel, Some(field)) = (mode, trunks_field) {
        let _: Option<()> = field.refuse(format!(
            "has no meaning with vlan_mode {shown:?}{implied}; \"trunk\", \"native-tagged\" or \
             \"native-untagged\" is expected beside it"
        ));
    }
    if mode != VlanMode::Dot1qTunnel {
        if let Some(field) = cvlans_field {
            let _: Option<()> = field.refuse(format!(
                "has no meaning with vlan_mode {shown:?}{implied}; \"dot1q-tunnel\" is expected beside it"
            ));
        }
        if let (Some(field), Some(_)) = (ethtype_field, ethtype) {
            field.warn(format!("qinq_ethtype has no meaning with vlan_mode {shown:?}; it is ignored"));
        }
    } else if said_tag.is_none()
        && let Some(field) = mode_field
    {
        field.warn("vlan_mode \"dot1q-tunnel\" without a tag: the service VLAN is 0");
    }
    let qinq_ethertype = ethtype.filter(|_| mode == VlanMode::Dot1qTunnel).unwrap_or(TPID_STAG);
    Some(Vlans { mode, tag: tag.or(segment), trunks, cvlans, qinq_ethertype })
}

fn some_vlans(field: &Field<'_>) -> Option<Vec<u16>> {
    let vlans = field.vlans()?;
    if vlans.is_empty() { field.refuse("is empty; leave it out for all VLANs") } else { Some(vlans) }
}

fn read_segment(field: &Field<'_>, tag: Option<u16>, config: &Config) -> Option<u16> {
    match config.vlan_named(field.text()?) {
        Ok(vlan) => match tag {
            Some(tag) if tag != vlan => field.refuse(format!("is VLAN {vlan}, but tag is {tag}")),
            _ => Some(vlan),
        },
        // A segment that is itself in error would be missed once more here.
        Err(_) if field.report().has_error_under("segment") => None,
        Err(reason) => field.refuse(reason),
    }
}

/// Of `ports`, each that may not stand beside an earlier one: its number, the key and the reason.
pub(super) fn clashes(ports: &[PortConfig]) -> Vec<(usize, &'static str, String)> {
    let mut found = Vec::new();
    let mut names: HashMap<&str, usize> = HashMap::new();
    let mut inside: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
    let mut tunnels: HashMap<_, Vec<usize>> = HashMap::new();
    for (i, port) in ports.iter().enumerate() {
        if names.insert(&port.name, i).is_some() {
            found.push((
                i,
                "name",
                format!("port {:?}: name is given to two ports; names are unique", port.name),
            ));
            continue;
        }
        if let PortKind::Vxlan(tunnel) = &port.kind {
            let same =
                tunnels.entry((tunnel.remote, tunnel.local, tunnel.udp_port, tunnel.in_key)).or_default();
            if let Some(other) = same.iter().map(|j| &ports[*j]).find(|other| share_a_node(port, other)) {
                let reason = format!(
                    "port {:?}: the datagrams of this remote_ip, local_ip, dst_port and key belong to port {:?} \
                     already",
                    port.name, other.name
                );
                found.push((i, "remote_ip", reason));
            }
            same.push(i);
        }
        let Some(netns) = &port.netns else { continue };
        let same = inside.entry((bare_name(netns), port.interface())).or_default();
        if let Some(other) = same.iter().map(|j| &ports[*j]).find(|other| share_a_node(port, other)) {
            let reason = format!(
                "port {:?}: ifname {:?} in netns {netns:?} belongs to port {:?} already",
                port.name,
                port.interface(),
                other.name
            );
            found.push((i, "ifname", reason));
        }
        same.push(i);
    }
    found
}

/// A path under /run/netns is another way to write the name.
fn bare_name(netns: &str) -> &str {
    let name = netns.strip_prefix("/var").unwrap_or(netns).strip_prefix("/run/netns/");
    name.filter(|name| !name.contains('/')).unwrap_or(netns)
}

fn share_a_node(a: &PortConfig, b: &PortConfig) -> bool {
    a.nodes.as_ref().is_none_or(|nodes| nodes.iter().any(|node| b.on_node(node)))
}
