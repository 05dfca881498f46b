//! Counts as OpenMetrics text (prometheus.io/docs/specs/om/open_metrics_spec).
//!
//! Base units, `_total` on counters, no label that grows with stations. Not here: collecting and serving.

use crate::slow::SlowCounts;
use std::fmt::Write as _;
use std::time::Duration;
use vswitch_core::switch::{Counters, PortCounters};
use vswitch_core::{DropReason, PortId};

/// What is shown.
#[derive(Debug)]
pub struct View<'a> {
    /// Local ports by name.
    pub ports: &'a [(String, PortId)],
    /// Peers by address.
    pub peers: &'a [(String, PortId)],
    /// Whether there is a way to each of them.
    pub peers_up: &'a [(String, bool)],
    /// Attachments of CNI that have a port, and those that are gone and still to be deleted.
    pub attachments: (usize, usize),
    /// All workers' counts together.
    pub counters: &'a Counters,
    /// Entries in the MAC table.
    pub mac_entries: u64,
    /// What the slow path has done.
    pub slow: &'a SlowCounts,
    /// Whether the cluster's store answers; `None` without a cluster.
    pub cluster_up: Option<bool>,
    /// Each worker's time not spent waiting.
    pub busy: &'a [Duration],
}

/// The whole exposition, with its end mark.
#[must_use]
pub fn open_metrics(view: &View<'_>) -> String {
    let mut out = String::new();
    family(&mut out, "vswitch_build", "info", "The version that runs.");
    line(&mut out, "vswitch_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    counts(&mut out, "port", view.ports, view.counters);
    counts(&mut out, "peer", view.peers, view.counters);
    family(&mut out, "vswitch_peer_up", "gauge", "Whether frames can be sent to the peer.");
    for (name, up) in view.peers_up {
        line(&mut out, "vswitch_peer_up", &[("peer", name)], u64::from(*up));
    }
    family(&mut out, "vswitch_dropped_frames", "counter", "Frames that were not carried, by reason.");
    for reason in DropReason::ALL {
        let nowhere = view.counters.no_port[reason.index()];
        let everywhere = view.ports.iter().chain(view.peers);
        let counts =
            everywhere.map(|(name, id)| (name.as_str(), view.counters.port(*id).dropped[reason.index()]));
        for (port, count) in counts.chain([("", nowhere)]).filter(|(_, count)| *count > 0) {
            line(
                &mut out,
                "vswitch_dropped_frames_total",
                &[("reason", reason.name()), ("port", port)],
                count,
            );
        }
    }
    family(&mut out, "vswitch_mac_entries", "gauge", "Entries in the MAC table.");
    line(&mut out, "vswitch_mac_entries", &[], view.mac_entries);
    family(&mut out, "vswitch_stations_moved", "counter", "Stations that changed their port.");
    line(&mut out, "vswitch_stations_moved_total", &[], view.counters.moved);
    family(&mut out, "vswitch_cni_attachments", "gauge", "Interfaces of pods that came by CNI.");
    for (state, count) in [("attached", view.attachments.0), ("gone", view.attachments.1)] {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        line(&mut out, "vswitch_cni_attachments", &[("state", state)], count);
    }
    if let Some(up) = view.cluster_up {
        family(&mut out, "vswitch_cluster_up", "gauge", "Whether the cluster's store answers.");
        line(&mut out, "vswitch_cluster_up", &[], u64::from(up));
    }
    let slow = view.slow;
    family(
        &mut out,
        "vswitch_neigh_requests",
        "counter",
        "ARP requests and neighbour solicitations of pods.",
    );
    for (outcome, count) in [("answered", slow.answered), ("flooded", slow.given_back)] {
        line(&mut out, "vswitch_neigh_requests_total", &[("outcome", outcome)], count);
    }
    family(&mut out, "vswitch_neigh_refused", "counter", "Messages of ARP and ND that were not believed.");
    for (reason, count) in slow.refused.iter().filter(|(_, count)| *count > 0) {
        line(&mut out, "vswitch_neigh_refused_total", &[("reason", reason)], *count);
    }
    family(&mut out, "vswitch_worker_busy_seconds", "counter", "Time a worker did not spend waiting.");
    for (worker, busy) in view.busy.iter().enumerate() {
        let _ =
            writeln!(out, "vswitch_worker_busy_seconds_total{{worker=\"{worker}\"}} {}", busy.as_secs_f64());
    }
    out.push_str("# EOF\n");
    out
}

/// One of [`counts`]: its name, its sentence, and which number it shows.
type Count = (&'static str, &'static str, fn(&PortCounters) -> u64);

fn counts(out: &mut String, kind: &str, all: &[(String, PortId)], counters: &Counters) {
    let shown: [Count; 4] = [
        ("receive_frames", "Frames received.", |c| c.rx_frames),
        ("receive_bytes", "Bytes received.", |c| c.rx_bytes),
        ("transmit_frames", "Frames sent.", |c| c.tx_frames),
        ("transmit_bytes", "Bytes sent.", |c| c.tx_bytes),
    ];
    for (what, help, number) in shown {
        let name = format!("vswitch_{kind}_{what}");
        family(out, &name, "counter", help);
        for (label, id) in all {
            line(out, &format!("{name}_total"), &[(kind, label)], number(&counters.port(*id)));
        }
    }
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# TYPE {name} {kind}\n# HELP {name} {help}");
}

fn line(out: &mut String, name: &str, labels: &[(&str, &str)], value: u64) {
    out.push_str(name);
    for (i, (label, text)) in labels.iter().enumerate() {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(out, "{}{label}=\"{text}\"", if i == 0 { '{' } else { ',' });
    }
    let _ = writeln!(out, "{} {value}", if labels.is_empty() { "" } else { "}" });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_ends_with_its_mark_and_escapes_labels() {
        let ports = [("a\"b".to_owned(), PortId::new(1).unwrap())];
        let view = View {
            ports: &ports,
            peers: &[],
            slow: &SlowCounts::default(),
            cluster_up: Some(true),
            attachments: (3, 1),
            peers_up: &[("10.0.0.1".to_owned(), true)],
            counters: &Counters::default(),
            mac_entries: 7,
            busy: &[Duration::from_millis(1500)],
        };
        let text = open_metrics(&view);
        assert!(text.ends_with("# EOF\n"));
        assert!(text.contains("vswitch_port_receive_frames_total{port=\"a\\\"b\"} 0\n"));
        assert!(text.contains("vswitch_mac_entries 7\n"));
        assert!(text.contains("vswitch_cni_attachments{state=\"attached\"} 3\n"));
        assert!(text.contains("vswitch_peer_up{peer=\"10.0.0.1\"} 1\n"));
        assert!(text.contains("vswitch_worker_busy_seconds_total{worker=\"0\"} 1.5\n"));
    }
}
