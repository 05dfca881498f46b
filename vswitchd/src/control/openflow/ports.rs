//! A bridge's ports as OpenFlow tells of them.
//!
//! Not here: bytes, and how numbers are given (see `control/ovs`).

use super::super::daemon::Control;
use super::super::ovs::{System, statistics_of};
use super::super::running::RunningPort;
use super::codec::{PortDesc, PortMod, PortStats, Refusal};
use super::{Count, Facts};
use crate::datapath::clock;
use vswitch_core::Mac;

/// OFPPC_PORT_DOWN (OpenFlow 1.0.1 §5.2.1).
const PORT_DOWN: u32 = 1 << 0;

/// OFPPF_COPPER: what Linux says of a TAP.
const COPPER: u32 = 1 << 7;

impl Control {
    /// The ports of a bridge that are there, by number, with the names that they have in the database.
    fn numbered<'a>(&'a self, bridge: &'a str) -> Vec<(u16, &'a str, &'a RunningPort)> {
        let of_bridge = |port: &&RunningPort| port.config.bridge.as_deref() == Some(bridge) && port.is_up();
        let mut ports: Vec<_> = self
            .running
            .ports
            .values()
            .filter(of_bridge)
            .filter_map(|port| {
                Some((*self.ovs.ofports.get(&port.config.name)?, port.config.name.as_str(), port))
            })
            .collect();
        ports.sort_unstable_by_key(|(number, ..)| *number);
        ports
    }

    /// What is known of a bridge and its ports.
    pub(super) fn port_facts(&self, bridge: &str) -> Facts {
        let counters = self.counters().unwrap_or_default();
        let system = System::look();
        let ports = self.numbered(bridge);
        let desc = |(number, name, port): &(u16, &str, &RunningPort)| {
            let report = self.interface_report(port, &system);
            PortDesc {
                number: *number,
                name: (*name).to_owned(),
                mac: report.mac.unwrap_or(Mac::from_u64(0)),
                admin_down: report.admin_up == Some(false),
                link_down: report.link_up == Some(false),
                features: features(report.link_speed, report.full_duplex),
            }
        };
        let stats = |(number, _, port): &(u16, &str, &RunningPort)| {
            let counts = statistics_of(&counters, port.id);
            let of = |key: &str| counts.get(key).copied().unwrap_or_default();
            PortStats {
                number: *number,
                rx: Count { frames: of("rx_packets"), bytes: of("rx_bytes") },
                tx: Count { frames: of("tx_packets"), bytes: of("tx_bytes") },
                dropped: (of("rx_dropped"), of("tx_dropped")),
                errors: (of("rx_errors"), of("tx_errors")),
                overruns: of("rx_over_err"),
            }
        };
        Facts {
            datapath_id: self.ovs.bridges.get(bridge).map_or(0, |bridge| bridge.datapath_id),
            ports: ports.iter().map(desc).collect(),
            port_stats: ports.iter().map(stats).collect(),
            now: clock::now(),
        }
    }

    /// Sets a port up or down.
    pub(super) fn mod_port(&self, bridge: &str, port_mod: &PortMod) -> Result<(), Refusal> {
        let facts = self.port_facts(bridge);
        let port = facts.ports.iter().find(|port| port.number == port_mod.number);
        let port = port.ok_or_else(|| Refusal::bad_port("there is no such port"))?;
        if port.mac != port_mod.mac {
            return Err(Refusal::bad_hw_addr("the port has another address"));
        }
        let is = if port.admin_down { PORT_DOWN } else { 0 };
        if (is ^ port_mod.config) & port_mod.mask == 0 {
            return Ok(());
        }
        Err(Refusal::port_config(
            "settings of ports are not changed by OpenFlow: use ip link, or the database",
        ))
    }
}

/// `ofp_port_features` of a speed in bit/s.
fn features(speed: Option<u64>, full_duplex: Option<bool>) -> u32 {
    let full = u32::from(full_duplex.unwrap_or(true));
    let speed = match speed.unwrap_or_default() / 1_000_000 {
        0 => return 0,
        1..100 => 1 << full,
        100..1_000 => 1 << (2 + full),
        1_000..10_000 => 1 << (4 + full),
        _ => 1 << 6,
    };
    speed | COPPER
}
