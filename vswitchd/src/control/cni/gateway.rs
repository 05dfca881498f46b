//! The host's own ports in pods' segments: gateways, made because attachments ask for them, and the host's packet
//! rules that go with them.
//!
//! Not here: netfilter's own words (see [`crate::sys::nftables`]).

use super::Attachment;
use super::journal::prefix;
use crate::config::{AddressSpec, Config, PortConfig, Prefix};
use crate::control::daemon::Control;
use crate::control::rpc::cni::CniGateway;
use crate::datapath::clock;
use crate::observe::log;
use crate::sys::nftables::{self, Ruleset};
use crate::sys::sysctl;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use vswitch_core::Instant;

/// A name that all nodes take for their own when they make the address of a gateway that is the same on all of them.
const EVERY_NODE: &str = "anycast";

/// The UDP port of VXLAN where the file has no underlay (RFC 7348 §5).
const VXLAN_PORT: u16 = 4789;

/// How often the packet rules are looked for.
const LOOK: Duration = Duration::from_secs(2);

/// The packet rules in force.
#[derive(Debug)]
pub(in super::super) struct Nat {
    applied: Option<Ruleset>,
    /// When they are looked for again.
    next_look: Instant,
    /// Why they are not as they should be.
    pub(in super::super) trouble: Option<String>,
}

impl Default for Nat {
    fn default() -> Self {
        Self { applied: None, next_look: Instant::ZERO, trouble: None }
    }
}

impl Nat {
    /// An earlier daemon may have left rules behind.
    pub(super) fn unknown() -> Self {
        Self { applied: Some(Ruleset::default()), ..Self::default() }
    }
}

/// The port of a gateway that these attachments ask for, all of one interface.
fn port(interface: &str, asking: &[(&Attachment, &CniGateway)], file: &Config) -> Result<PortConfig, String> {
    let mut entry = Map::new();
    entry.insert("name".to_owned(), interface.into());
    let addresses: BTreeSet<&str> =
        asking.iter().flat_map(|(_, gateway)| gateway.addresses.iter()).map(String::as_str).collect();
    entry.insert("addresses".to_owned(), addresses.into_iter().map(Value::from).collect());
    let segment = |attachment: &Attachment| {
        let mut own: Map<String, Value> = Map::new();
        for key in ["segment", "tag", "mtu"] {
            own.extend(attachment.settings.get(key).map(|value| (key.to_owned(), value.clone())));
        }
        own
    };
    let vlan = |own: &Map<String, Value>| {
        let mut entry = own.clone();
        entry.insert("name".to_owned(), interface.into());
        PortConfig::from_json(&Value::Object(entry), file).map(|port| port.vlan())
    };
    let mut segments = asking.iter().map(|(attachment, _)| segment(attachment));
    let own = segments.next().unwrap_or_default();
    for other in segments {
        if vlan(&other)? != vlan(&own)? {
            return Err("two networks of different segments want it as their gateway".to_owned());
        }
    }
    entry.extend(own);
    if !entry.contains_key("segment") && !entry.contains_key("tag") {
        entry.insert("tag".to_owned(), 0.into());
    }
    if asking.iter().any(|(_, gateway)| gateway.anycast) {
        entry.insert("split_horizon".to_owned(), true.into());
    }
    let port = PortConfig::from_json(&Value::Object(entry.clone()), file)?;
    if port.split_horizon {
        entry.insert("mac".to_owned(), port.mac_for(EVERY_NODE).to_string().into());
        return PortConfig::from_json(&Value::Object(entry), file);
    }
    Ok(port)
}

impl Control {
    /// The gateways that attachments ask for.
    pub(super) fn gateway_ports<'a>(
        &'a self,
        file: &'a Config,
    ) -> impl Iterator<Item = (String, Result<PortConfig, String>)> + 'a {
        let mut asking: BTreeMap<&str, Vec<(&Attachment, &CniGateway)>> = BTreeMap::new();
        for attachment in self.cni.journal.alive() {
            if let Some(gateway) = &attachment.gateway
                && let Some(interface) = &gateway.interface
            {
                asking.entry(interface).or_default().push((attachment, gateway));
            }
        }
        asking
            .into_iter()
            .map(move |(interface, asking)| (interface.to_owned(), port(interface, &asking, file)))
    }

    /// Whether the gateway that `attachment` asks for, if any, fits those that ask for it already.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn fits_gateway(&self, attachment: &Attachment) -> Result<(), String> {
        let Some(gateway) = &attachment.gateway else { return Ok(()) };
        let Some(interface) = gateway.interface.as_deref() else { return Ok(()) };
        let others = self.cni.journal.alive().filter(|other| other.port != attachment.port);
        let same = others.filter_map(|other| Some((&**other, other.gateway.as_ref()?)));
        let same = same.filter(|(_, other)| other.interface.as_deref() == Some(interface));
        let asking: Vec<(&Attachment, &CniGateway)> = same.chain([(attachment, gateway)]).collect();
        port(interface, &asking, &self.file)
            .map(drop)
            .map_err(|reason| format!("gateway {interface:?}: {reason}"))
    }

    /// What the host's packet rules should be; none without a gateway.
    fn ruleset(&self) -> Option<Ruleset> {
        let with_gateway: Vec<(&Attachment, &CniGateway)> = self
            .cni
            .journal
            .alive()
            .filter_map(|attachment| Some((&**attachment, attachment.gateway.as_ref()?)))
            .collect();
        if with_gateway.is_empty() {
            return None;
        }
        let network = |(address, len): (IpAddr, u8)| {
            let prefix = Prefix::around(address, len);
            (prefix.network, prefix.len)
        };
        let gateways: BTreeSet<String> =
            with_gateway.iter().filter_map(|(_, gateway)| gateway.interface.clone()).collect();
        let pods: BTreeSet<(IpAddr, u8)> =
            self.cni.journal.alive().flat_map(|attachment| attachment.prefixes()).map(network).collect();
        let masquerade: BTreeSet<(IpAddr, u8)> = with_gateway
            .iter()
            .filter(|(_, gateway)| gateway.masquerade)
            .flat_map(|(attachment, _)| attachment.prefixes())
            .map(network)
            .collect();
        let whole = |address: IpAddr| (address, if address.is_ipv4() { 32 } else { 128 });
        let mut nodes: BTreeSet<(IpAddr, u8)> = self.running.peers.keys().map(|peer| whole(*peer)).collect();
        nodes.extend(self.running.underlay.addresses().into_iter().map(whole));
        let underlay = self.file.underlay.as_ref();
        for spec in underlay.into_iter().flat_map(|underlay| &underlay.addresses) {
            nodes.insert(match spec {
                AddressSpec::Exact(address) => whole(*address),
                AddressSpec::Prefix(prefix) => (prefix.network, prefix.len),
            });
        }
        let own_port = underlay.map_or(VXLAN_PORT, |underlay| underlay.port);
        let ports = self.running.peers.values().filter_map(|peer| peer.config.udp_port);
        Some(Ruleset {
            gateways: gateways.into_iter().collect(),
            pods: pods.into_iter().collect(),
            masquerade: masquerade.into_iter().collect(),
            nodes: nodes.into_iter().collect(),
            vxlan_ports: ports.chain([own_port]).collect::<BTreeSet<u16>>().into_iter().collect(),
        })
    }

    /// Makes the host's packet rules what they should be, before a frame of a new gateway needs them.
    pub(in super::super) fn follow_gateways(&mut self) {
        let wanted = self.ruleset();
        if wanted.is_some() && clock::now() >= self.cni.nat.next_look {
            self.cni.nat.next_look = clock::now().after(LOOK);
            // Who reloads all rules of the host takes ours away.
            if matches!(nftables::is_there(), Ok(false)) && self.cni.nat.applied.take().is_some() {
                log::warn("packet rules of gateways were gone; they are set again", &[]);
            }
        }
        if wanted == self.cni.nat.applied && self.cni.nat.trouble.is_none() {
            return;
        }
        let done = match &wanted {
            None => nftables::remove(),
            Some(rules) => nftables::apply(rules).and_then(|()| {
                let families = |v6: bool| rules.pods.iter().any(|(address, _)| address.is_ipv6() == v6);
                sysctl::forward(families(false), families(true))
            }),
        };
        let trouble = done.err().map(|error| format!("packet rules of gateways: {error}"));
        if let Some(reason) = &trouble
            && self.cni.nat.trouble != trouble
        {
            log::warn("packet rules not set", &[("reason", reason)]);
        }
        if trouble.is_none() {
            self.cni.nat.applied = wanted;
        }
        self.cni.nat.trouble = trouble;
    }
}

/// The gateway as it is kept: named, and with its addresses.
pub(super) fn resolved(
    asked: &CniGateway,
    settings: &Map<String, Value>,
    file: &Config,
    of_blocks: &[(IpAddr, u8)],
) -> Result<CniGateway, String> {
    let mut gateway = asked.clone();
    if gateway.interface.is_none() {
        let mut entry = Map::new();
        entry.insert("name".to_owned(), "vgw".into());
        for key in ["segment", "tag"] {
            entry.extend(settings.get(key).map(|value| (key.to_owned(), value.clone())));
        }
        let vlan = PortConfig::from_json(&Value::Object(entry), file)?.vlan();
        gateway.interface = Some(format!("vgw{vlan}"));
    }
    if let Some(wrong) = gateway.addresses.iter().find(|address| prefix(address).is_none()) {
        return Err(format!("{wrong:?} is not an address with a prefix length"));
    }
    if gateway.addresses.is_empty() {
        gateway.addresses = of_blocks.iter().map(|(address, len)| format!("{address}/{len}")).collect();
    }
    if gateway.addresses.is_empty() {
        return Err(
            "a gateway needs an address: IPAM has to give one, or the network configuration".to_owned()
        );
    }
    Ok(gateway)
}
