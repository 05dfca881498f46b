//! What runs, for the database's status columns.
//!
//! Not here: columns (see `control/source/ovsdb`).

use super::super::daemon::Control;
use super::super::running::RunningPort;
use super::super::source::ovsdb::{BridgeReport, InterfaceReport, Report};
use super::system::System;
use crate::config::{PortConfig, PortKind};
use crate::datapath::clock;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use vswitch_core::switch::Counters;
use vswitch_core::{DropReason, PortId};

/// How often the interfaces are looked at, where looking is quick.
const LOOK: Duration = Duration::from_secs(1);
/// What looking may cost: one part in so many of the time.
const SHARE: u32 = 20;

impl Control {
    /// Tells the database what is in force, if it is time to.
    pub(in super::super) fn report_to_ovsdb(&mut self) {
        let began = clock::now();
        if self.ovs_report_due().is_none_or(|due| began < due) {
            return;
        }
        let statistics = &self.ovs.statistics;
        let running = &self.running.ports;
        let is_new =
            |port: &PortConfig| running.contains_key(&port.name) && !statistics.contains_key(&port.name);
        if began >= self.ovs.next_statistics {
            let interval = Duration::from_millis(self.ovs.wish.stats_interval_ms.max(1000));
            self.ovs.next_statistics = began.after(interval);
            if let Ok(counters) = self.counters() {
                self.ovs.statistics = self.statistics(&counters);
                self.ovs.copied = self.ovs.mirror_counts(&counters);
            }
        } else if self.ovs.wish.ports.iter().any(is_new)
            && let Ok(counters) = self.counters()
        {
            // Those that came begin at once; the others stay as they were told last.
            let told = std::mem::take(&mut self.ovs.statistics);
            self.ovs.statistics = self.statistics(&counters);
            self.ovs.statistics.extend(told);
        }
        let report = self.ovs_report();
        if let Some(source) = &self.ovs.source {
            source.report(report);
        }
        let cost = clock::now().since(began);
        self.ovs.next_report = clock::now().after(LOOK.max(cost * SHARE));
    }

    fn ovs_report(&mut self) -> Report {
        let system = System::look();
        self.ovs.carriers = system.carriers(&self.ovs.wish.ports, &self.ovs.carriers);
        self.hold_mtus(&system);
        let ovs = &self.ovs;
        let refused = ovs.failed.iter().filter(|failed| failed.kind == "port");
        let refused: HashMap<&str, &str> =
            refused.map(|failed| (failed.name.as_str(), failed.reason.as_str())).collect();
        let mut interfaces = BTreeMap::new();
        for port in &ovs.wish.ports {
            let running =
                self.running.ports.get(&port.name).filter(|running| running.config.bridge == port.bridge);
            let mut report = match running {
                Some(running) => self.interface_report(running, &system),
                None => InterfaceReport::default(),
            };
            if running.is_none() {
                let no_bridge = "its bridge could not be added: there are 15 already";
                report.error = Some(refused.get(port.name.as_str()).copied().unwrap_or(no_bridge).to_owned());
            }
            report.statistics = ovs.statistics.get(&port.name).cloned().unwrap_or_default();
            interfaces.insert(port.name.clone(), report);
        }
        for (name, reason) in &ovs.wish.refused {
            interfaces.insert(
                name.clone(),
                InterfaceReport { error: Some(reason.clone()), ..InterfaceReport::default() },
            );
        }
        let bridges = ovs
            .bridges
            .iter()
            .map(|(name, bridge)| (name.clone(), BridgeReport { datapath_id: bridge.datapath_id }));
        Report {
            system: ovs.wish.system.clone(),
            cur_cfg: ovs.wish.next_cfg,
            bridges: bridges.collect(),
            interfaces,
            mirrors: ovs.copied.clone(),
        }
    }

    /// An MTU that is asked for is put back where somebody changed it.
    fn hold_mtus(&mut self, system: &System) {
        let strayed = self.ovs.wish.ports.iter().filter(|port| system.has_another_mtu(port));
        let strayed: Vec<_> = strayed.map(|port| (port.name.clone(), self.settings(port))).collect();
        for (name, settings) in strayed {
            if let Some(running) = self.running.ports.get_mut(&name).filter(|port| port.reason.is_none()) {
                running.reconfigure(settings);
            }
        }
    }

    pub(in super::super) fn interface_report(&self, port: &RunningPort, system: &System) -> InterfaceReport {
        let config = &port.config;
        let mut report = InterfaceReport { error: port.reason.clone(), ..InterfaceReport::default() };
        let is_patch = matches!(config.kind, PortKind::Patch { .. });
        if !port.is_up() && !is_patch {
            return report;
        }
        report.ofport = self.ovs.ofports.get(&config.name).copied();
        report.link_resets = Some(0);
        if !config.has_interface() {
            report.mac = Some(self.mac_of(config));
            (report.admin_up, report.link_up, report.ifindex) = (Some(true), Some(true), Some(0));
            return report;
        }
        report.error = None;
        report.mac = Some(self.mac_of(config));
        system.tell(&config.name, &self.ovs.carriers, &mut report);
        report
    }

    /// Open vSwitch's counters of every port of the database, by name.
    fn statistics(&self, counters: &Counters) -> BTreeMap<String, BTreeMap<String, u64>> {
        let of = |port: &PortConfig| {
            let running = self.running.ports.get(&port.name)?;
            Some((port.name.clone(), statistics_of(counters, running.id)))
        };
        self.ovs.wish.ports.iter().filter_map(of).collect()
    }
}

/// Open vSwitch's counters of one port.
pub(in super::super) fn statistics_of(counters: &Counters, id: PortId) -> BTreeMap<String, u64> {
    let counts = counters.port(id);
    let sum = |reasons: &dyn Fn(DropReason) -> bool| -> u64 {
        DropReason::ALL
            .iter()
            .filter(|reason| reasons(**reason))
            .map(|reason| counts.dropped[reason.index()])
            .sum()
    };
    let rx_errors = sum(&|reason| {
        matches!(reason, DropReason::ShortFrame | DropReason::LongFrame | DropReason::RxTruncated)
    });
    let tx_errors = sum(&|reason| matches!(reason, DropReason::TxError));
    let rx_dropped = sum(&|reason| reason.is_ingress()) - rx_errors;
    let tx_dropped = sum(&|reason| !reason.is_ingress()) - tx_errors;
    [
        ("rx_packets", counts.rx_frames),
        ("rx_bytes", counts.rx_bytes),
        ("rx_dropped", rx_dropped),
        ("rx_errors", rx_errors),
        ("tx_packets", counts.tx_frames),
        ("tx_bytes", counts.tx_bytes),
        ("tx_dropped", tx_dropped),
        ("tx_errors", tx_errors),
        ("collisions", 0),
        ("rx_crc_err", 0),
        ("rx_frame_err", 0),
        ("rx_missed_errors", 0),
        ("rx_over_err", counts.dropped[DropReason::RxOverflow.index()]),
    ]
    .into_iter()
    .map(|(key, count)| (key.to_owned(), count))
    .collect()
}
