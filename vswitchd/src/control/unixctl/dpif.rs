//! What the switch is made of, in the words of Open vSwitch: bridges, ports, tunnels, flows, policing.
//!
//! There is no cache of flows and nobody who waits for a decision, so what tells of those says so. Not here: the MAC
//! table (see [`super::fdb`]) and multicast groups (see [`super::mdb`]).

use super::super::daemon::Control;
use super::bridges::datapath_number;
use super::commands::Answer;
use crate::config::{PortKind, TunnelConfig};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What is said where Open vSwitch lists what its datapath has cached.
const NO_CACHE: &str = "no flows are cached: every frame is decided on by itself (ofproto/trace shows how)\n";

impl Control {
    /// `ofproto/list`
    pub(super) fn ofproto_list(&self) -> Answer {
        Ok(self.bridge_numbers().keys().fold(String::new(), |text, name| text + name + "\n"))
    }

    /// `dpif/dump-dps`
    pub(super) fn dump_dps(&self) -> Answer {
        Ok(self.bridge_numbers().keys().fold(String::new(), |text, name| text + "netdev@" + name + "\n"))
    }

    /// `dpif/show`: every frame that came in was decided on at once, so all were hits.
    pub(super) fn dpif_show(&self) -> Answer {
        let counters = self.counters().map_err(|error| error.to_string())?;
        let bridges: Vec<_> =
            self.bridge_numbers().into_iter().map(|(name, number)| (name, self.ports_in(number))).collect();
        let all = bridges.iter().flat_map(|(_, ports)| ports);
        let hits: u64 = all.map(|port| counters.port(port.id).rx_frames).sum();
        let mut text = format!("netdev@ovs-netdev: hit:{hits} missed:0\n");
        for (name, ports) in bridges {
            let _ = writeln!(text, "  {name}:");
            for port in ports {
                let kind = self.running.ports.get(&port.name).map(|running| &running.config.kind);
                let at = match kind {
                    Some(PortKind::Patch { .. }) => "none".to_owned(),
                    _ => datapath_number(port.id).to_string(),
                };
                // A peer carries many VNIs, as a tunnel whose key flows set.
                let what = kind.map_or_else(|| format!("vxlan: key=flow, remote_ip={}", port.name), in_words);
                let _ = writeln!(text, "    {} {}/{at}: ({what})", port.name, port.number);
            }
        }
        Ok(text)
    }

    /// `dpif/dump-flows BRIDGE`
    pub(super) fn dpif_dump_flows(&self, arguments: &[&str]) -> Answer {
        let name = arguments.iter().find(|argument| !argument.starts_with('-')).copied().unwrap_or_default();
        self.bridge_number(name, "no such bridge").map(|_| NO_CACHE.to_owned())
    }

    /// `upcall/show`
    pub(super) fn upcall_show(&self) -> Answer {
        Ok(format!(
            "netdev@ovs-netdev:\n  flows         : (current 0) (avg 0) (max 0) (limit 0)\n\n  {NO_CACHE}"
        ))
    }

    /// The tunnels that are ports of bridges, by name.
    fn tunnels(&self) -> impl Iterator<Item = (&str, u32, &TunnelConfig)> {
        self.running.ports.iter().filter_map(|(name, port)| match &port.config.kind {
            PortKind::Vxlan(tunnel) => Some((name.as_str(), datapath_number(port.id), tunnel)),
            _ => None,
        })
    }

    /// `ofproto/list-tunnels`
    pub(super) fn list_tunnels(&self) -> Answer {
        let mut text = String::new();
        for (name, number, tunnel) in self.tunnels() {
            let local = tunnel.local.map_or_else(|| "::".to_owned(), |local| local.to_string());
            let _ = write!(text, "port {number}: {name} (vxlan: {local}->{}, ", tunnel.remote);
            let (in_key, out_key) = (tunnel.in_key.get(), tunnel.out_key.get());
            let hex = |key: u32| if key == 0 { "0".to_owned() } else { format!("{key:#x}") };
            let _ = if in_key == out_key {
                write!(text, "key={}", hex(in_key))
            } else {
                write!(text, "in_key={}, out_key={}", hex(in_key), hex(out_key))
            };
            let _ = write!(text, ", legacy_l2, dp port={number}, ttl={}", tunnel.ttl.unwrap_or(64));
            if let Some(tos) = tunnel.tos.filter(|tos| *tos > 0) {
                let _ = write!(text, ", tos={tos:#x}");
            }
            if !tunnel.dont_fragment {
                text.push_str(", df=false");
            }
            if tunnel.checksum {
                text.push_str(", csum=true");
            }
            text.push_str(")\n");
        }
        Ok(text)
    }

    /// `tnl/ports/show`: the UDP ports that are listened on, and how many tunnels share each.
    pub(super) fn tunnel_ports(&self) -> Answer {
        let mut ports: BTreeMap<u16, (u32, usize)> = BTreeMap::new();
        for (_, number, tunnel) in self.tunnels() {
            ports.entry(tunnel.udp_port).or_insert((number, 0)).1 += 1;
        }
        let peers = self.running.peers.values();
        if let Some(number) = peers.map(|peer| datapath_number(peer.id)).min() {
            let udp_port = self.running.underlay.udp_port();
            ports.entry(udp_port).or_insert((number, 0)).1 += self.running.peers.len();
        }
        let mut text = "Listening ports:\n".to_owned();
        for (udp_port, (number, count)) in ports {
            let _ = writeln!(text, "vxlan_sys_{udp_port} ({number}) ref_cnt={count}");
        }
        Ok(text)
    }

    /// `qos/show INTERFACE`
    pub(super) fn qos_show(&self, arguments: &[&str]) -> Answer {
        let name = arguments[0];
        let port = self.running.ports.get(name).ok_or("no such interface")?;
        let Some(policing) = port.config.egress_policing else {
            return Ok(format!("QoS not configured on {name}\n"));
        };
        // In bytes a second and bytes, of kbit/s and kbit.
        let (cir, cbs) = (u64::from(policing.rate) * 125, u64::from(policing.burst) * 125);
        Ok(format!("QoS: {name} egress-policer\ncbs: {cbs}\ncir: {cir}\n"))
    }

    /// `qos/show-types INTERFACE`
    pub(super) fn qos_types(&self, arguments: &[&str]) -> Answer {
        self.running.ports.get(arguments[0]).ok_or("no such interface")?;
        Ok("QoS type: egress-policer\n".to_owned())
    }
}

/// A port's kind and settings as Open vSwitch shows them.
fn in_words(kind: &PortKind) -> String {
    match kind {
        PortKind::Tap | PortKind::Internal => "tap".to_owned(),
        PortKind::System => "system".to_owned(),
        PortKind::Patch { peer } => format!("patch: peer={peer}"),
        PortKind::Vxlan(tunnel) => format!("vxlan: {}", settings(tunnel)),
    }
}

/// What is not as by default, by name.
fn settings(tunnel: &TunnelConfig) -> String {
    let mut words = Vec::new();
    if tunnel.checksum {
        words.push("csum=true".to_owned());
    }
    if !tunnel.dont_fragment {
        words.push("df_default=false".to_owned());
    }
    if tunnel.udp_port != TunnelConfig::UDP_PORT {
        words.push(format!("dst_port={}", tunnel.udp_port));
    }
    let (in_key, out_key) = (tunnel.in_key.get(), tunnel.out_key.get());
    if in_key == out_key && in_key > 0 {
        words.push(format!("key={in_key}"));
    }
    if in_key != out_key {
        words.push(format!("in_key={in_key}"));
    }
    words.extend(tunnel.local.map(|local| format!("local_ip={local}")));
    if in_key != out_key {
        words.push(format!("out_key={out_key}"));
    }
    words.push(format!("remote_ip={}", tunnel.remote));
    words.extend(tunnel.tos.filter(|tos| *tos > 0).map(|tos| format!("tos={tos:#x}")));
    words.extend(tunnel.ttl.map(|ttl| format!("ttl={ttl}")));
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use vswitch_core::Vni;

    #[test]
    fn a_tunnel_is_shown_by_what_is_not_as_by_default() {
        let key = |key| Vni::new(key).unwrap();
        let mut tunnel = TunnelConfig {
            remote: [10, 9, 8, 7].into(),
            local: None,
            in_key: key(77),
            out_key: key(77),
            udp_port: 4789,
            tos: None,
            ttl: None,
            dont_fragment: true,
            checksum: false,
        };
        assert_eq!(settings(&tunnel), "key=77, remote_ip=10.9.8.7");
        tunnel.in_key = key(0);
        tunnel.out_key = key(0);
        tunnel.local = Some([10, 9, 8, 1].into());
        (tunnel.udp_port, tunnel.tos, tunnel.ttl) = (4790, Some(8), Some(9));
        (tunnel.dont_fragment, tunnel.checksum) = (false, true);
        assert_eq!(
            settings(&tunnel),
            "csum=true, df_default=false, dst_port=4790, local_ip=10.9.8.1, remote_ip=10.9.8.7, tos=0x8, ttl=9"
        );
        tunnel.out_key = key(5);
        assert!(settings(&tunnel).contains("in_key=0, local_ip=10.9.8.1, out_key=5, remote_ip"));
    }
}
