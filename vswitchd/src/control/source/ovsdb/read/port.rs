//! Rows of tables `Port`, `Interface`, `QoS`: a port of the switch is one interface and the port it is in.
//!
//! Not here: tunnels (see `tunnel.rs`).

use super::bridge::station;
use super::columns::{Columns, short};
use super::tunnel;
use crate::config::{MAX_MTU, MIN_MTU, Policing, PortConfig, PortKind, PriorityTags, VlanMode};
use vswitch_core::wire::vlan::{TPID_CTAG, TPID_STAG};

/// One interface in its port.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// The name of the interface, and of the port here.
    pub(super) name: &'a str,
    /// Of table `Port`.
    pub(super) port: Columns<'a>,
    /// Of table `Interface`.
    pub(super) interface: Columns<'a>,
    /// Of table `QoS`, where the port has one.
    pub(super) qos: Option<Columns<'a>>,
    /// Whether it is the LOCAL port of its bridge.
    pub(super) is_local: bool,
}

/// Reads one port of `bridge`. What it cannot carry out and can do without goes to `complain`.
///
/// # Errors
/// Why there can be no such port, for `Interface.error`.
pub(super) fn read(
    rows: Rows<'_>,
    bridge: &str,
    complain: &mut impl FnMut(String),
) -> Result<PortConfig, String> {
    let Rows { name, port, interface, .. } = rows;
    let kind = kind(rows, complain)?;
    let vlans = vlans(port, complain)?;
    let mac = interface.text("mac").filter(|_| matches!(kind, PortKind::Internal)).and_then(|text| {
        let mac = station(text);
        match mac {
            None => complain(format!("mac {:?} is no station's MAC address", short(text))),
            Some(_) if rows.is_local => {
                complain(
                    "mac is ignored: a bridge's own comes from other_config:hwaddr of the bridge".to_owned(),
                );
                return None;
            }
            Some(_) => {}
        }
        mac
    });
    let has_interface = matches!(kind, PortKind::Internal | PortKind::System);
    let mtu = interface.integer("mtu_request").filter(|_| has_interface).and_then(|wanted| {
        let mtu = u16::try_from(wanted).ok().filter(|mtu| (MIN_MTU..=MAX_MTU).contains(mtu));
        if mtu.is_none() {
            complain(format!("mtu_request {wanted} is not in {MIN_MTU}..{MAX_MTU}"));
        }
        mtu
    });
    say_what_is_not_offered(port, interface, complain);
    let ingress_policing = ingress(interface).filter(|_| {
        if !has_interface {
            complain("ingress_policing_rate of what is no interface of the system is not offered".to_owned());
        }
        has_interface
    });
    let egress_policing = rows.qos.and_then(|qos| egress(qos, complain)).filter(|_| {
        if !has_interface {
            complain("QoS of what is no interface of the system is not offered".to_owned());
        }
        has_interface
    });
    Ok(PortConfig {
        vlan_mode: vlans.mode,
        tag: vlans.tag,
        trunks: vlans.trunks,
        cvlans: vlans.cvlans,
        qinq_ethertype: vlans.qinq_ethertype,
        priority_tags: match port.option("other_config", "priority-tags") {
            Some("if-nonzero" | "true") => PriorityTags::IfNonzero,
            Some("always") => PriorityTags::Always,
            _ => PriorityTags::No,
        },
        mac,
        mtu,
        ingress_policing,
        egress_policing,
        protected: port.is_true("protected"),
        mcast_flood: port.flag("other_config", "mcast-snooping-flood"),
        mcast_flood_reports: port.flag("other_config", "mcast-snooping-flood-reports"),
        ..PortConfig::of_bridge(bridge, name, kind)
    })
}

fn kind(rows: Rows<'_>, complain: &mut impl FnMut(String)) -> Result<PortKind, String> {
    let Rows { name, interface, .. } = rows;
    let word = interface.text("type").unwrap_or_default();
    match word {
        _ if rows.is_local => Ok(PortKind::Internal),
        "internal" | "tap" => interface_name(name).map(|()| PortKind::Internal),
        // What is sent there comes back.
        "" | "system" if name == "lo" => {
            Err("could not add network device lo to ofproto (Invalid argument)".to_owned())
        }
        "" | "system" => system_name(name).map(|()| PortKind::System),
        "patch" => {
            bare_name(name)?;
            let Some(peer) = interface.option("options", "peer") else {
                return Err(format!("{name}: patch type requires valid 'peer' argument"));
            };
            if interface.pairs("options").count() > 1 {
                return Err(format!("{name}: patch type takes only a 'peer' argument"));
            }
            if peer == name {
                return Err(format!("{name}: patch peer must not be self"));
            }
            if bare_name(peer).is_err() {
                return Err(format!("{name}: patch type requires valid 'peer' argument"));
            }
            Ok(PortKind::Patch { peer: peer.to_owned() })
        }
        "vxlan" => {
            bare_name(name)?;
            tunnel::read(name, interface, complain).map(PortKind::Vxlan)
        }
        // The sentence is Open vSwitch's, which has an errno for a reason.
        word => Err(format!(
            "could not open network device {} (type {:?} is not supported; internal, tap, system, patch and vxlan are)",
            short(name),
            short(word)
        )),
    }
}

/// Whether a port that is no interface of the system may have this name.
fn bare_name(name: &str) -> Result<(), String> {
    const MOST: usize = 63;
    let wrong = match name {
        "" => "a name has at least one byte",
        _ if name.len() > MOST => "a name has at most 63 bytes",
        _ if name.contains('/') => "a name holds no \"/\"",
        _ if name.contains(char::is_control) => "a name holds no control character",
        _ => return Ok(()),
    };
    Err(format!("{}: {wrong}", short(name)))
}

/// Whether an interface of the system may have this name (the kernel's rules).
fn system_name(name: &str) -> Result<(), String> {
    bare_name(name)?;
    let wrong = match name {
        _ if name.len() > 15 => "the name of an interface has at most 15 bytes",
        "." | ".." => "no interface has such a name",
        _ if name.contains(|c: char| c.is_ascii_whitespace() || c == ':') => {
            "the name of an interface holds no white space and no \":\""
        }
        _ => return Ok(()),
    };
    Err(format!("{}: {wrong}", short(name)))
}

/// Whether an interface that the daemon makes may have this name.
pub(super) fn interface_name(name: &str) -> Result<(), String> {
    system_name(name)?;
    // "all" and "default" name directories of /proc/sys/net, and of "%d" the kernel makes another name.
    if matches!(name, "lo" | "all" | "default") || name.contains('%') {
        return Err(format!("{name}: no interface can be made with this name"));
    }
    Ok(())
}

struct Vlans {
    mode: VlanMode,
    tag: Option<u16>,
    trunks: Option<Vec<u16>>,
    cvlans: Option<Vec<u16>>,
    qinq_ethertype: u16,
}

fn vlans(port: Columns<'_>, complain: &mut impl FnMut(String)) -> Result<Vlans, String> {
    let tag = port.integer("tag");
    let mode = match port.text("vlan_mode") {
        None if tag.is_some() => {
            if port.says("trunks") || port.says("cvlans") {
                complain("trunks and cvlans have no meaning beside a tag without vlan_mode".to_owned());
            }
            VlanMode::Access
        }
        None => VlanMode::Trunk,
        Some(word) => VlanMode::ALL.into_iter().find(|mode| mode.as_str() == word).unwrap_or_else(|| {
            complain(format!("vlan_mode {:?} is unknown: a trunk", short(word)));
            VlanMode::Trunk
        }),
    };
    let tag = tag.filter(|_| mode != VlanMode::Trunk).map(vlan).transpose()?;
    let is_trunk = matches!(mode, VlanMode::Trunk | VlanMode::NativeTagged | VlanMode::NativeUntagged);
    let is_tunnel = mode == VlanMode::Dot1qTunnel;
    let trunks = if is_trunk { set(port, "trunks")? } else { None };
    let cvlans = if is_tunnel { set(port, "cvlans")? } else { None };
    let is_ctag = is_tunnel && port.option("other_config", "qinq-ethtype") == Some("802.1q");
    let qinq_ethertype = if is_ctag { TPID_CTAG } else { TPID_STAG };
    Ok(Vlans { mode, tag, trunks, cvlans, qinq_ethertype })
}

/// 4095 is nobody's (IEEE 802.1Q table 9-2).
fn vlan(number: i64) -> Result<u16, String> {
    let vlan = u16::try_from(number).ok().filter(|vlan| *vlan <= 4094);
    vlan.ok_or_else(|| format!("tag {number} is not a VLAN; 0..4094 is allowed"))
}

/// The VLANs of a set, rising; `None` for all.
fn set(port: Columns<'_>, column: &str) -> Result<Option<Vec<u16>>, String> {
    if !port.says(column) {
        return Ok(None);
    }
    let mut vlans: Vec<u16> = port.integers(column).filter_map(|number| vlan(number).ok()).collect();
    vlans.sort_unstable();
    vlans.dedup();
    if vlans.is_empty() {
        Err(format!("{column} holds no VLAN; 0..4094 are allowed"))
    } else {
        Ok(Some(vlans))
    }
}

fn ingress(interface: Columns<'_>) -> Option<Policing> {
    let most = |column| {
        let number = interface.integer(column).filter(|number| *number > 0)?;
        Some(u32::try_from(number).unwrap_or(u32::MAX))
    };
    let rate = most("ingress_policing_rate")?;
    Some(Policing { rate, burst: most("ingress_policing_burst").unwrap_or(Policing::DEFAULT_BURST) })
}

/// `egress-policer` alone: bytes per second and bytes, RFC 2697's committed rate and burst.
fn egress(qos: Columns<'_>, complain: &mut impl FnMut(String)) -> Option<Policing> {
    let kind = qos.text("type").unwrap_or_default();
    if kind != "egress-policer" {
        if !matches!(kind, "" | "linux-noop") {
            complain(format!("QoS {:?} is not offered; egress-policer is", short(kind)));
        }
        return None;
    }
    if qos.says("queues") {
        complain("queues of a QoS are not offered".to_owned());
    }
    let kbit = |key| {
        let bytes: u64 = qos.option("other_config", key)?.trim().parse().ok()?;
        let kbit = bytes.saturating_mul(8).div_ceil(1000);
        (kbit > 0).then(|| u32::try_from(kbit).unwrap_or(u32::MAX))
    };
    let Some(rate) = kbit("cir") else {
        complain("QoS egress-policer without a cir above 0 in other_config: nothing is policed".to_owned());
        return None;
    };
    Some(Policing { rate, burst: kbit("cbs").unwrap_or(Policing::DEFAULT_BURST) })
}

fn say_what_is_not_offered(port: Columns<'_>, interface: Columns<'_>, complain: &mut impl FnMut(String)) {
    if interface.integer("ingress_policing_kpkts_rate").is_some_and(|rate| rate > 0) {
        complain("ingress_policing_kpkts_rate is not offered".to_owned());
    }
    if interface.flag("bfd", "enable") {
        complain("BFD is not offered".to_owned());
    }
    if interface.says("cfm_mpid") {
        complain("CFM is not offered".to_owned());
    }
    if interface.flag("lldp", "enable") {
        complain("LLDP is not offered".to_owned());
    }
    if matches!(port.text("lacp"), Some("active" | "passive")) {
        complain("LACP is not offered".to_owned());
    }
}
