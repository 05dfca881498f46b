//! Commands about the process itself: version, log, memory, what was counted.
//!
//! Not here: commands about bridges and tables.

use super::super::daemon::Control;
use super::super::ports;
use super::commands::Answer;
use crate::datapath::clock;
use crate::observe::log::{self, Level};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;
use vswitch_core::{DropReason, Instant};

/// The version of Open vSwitch whose words are spoken.
use crate::control::source::ovsdb::OVS_VERSION;

/// This program's name among the modules that log.
const MODULE: &str = "vswitchd";
/// Open vSwitch's words for levels, the least first.
const LEVELS: [(&str, Level); 6] = [
    ("off", Level::Error),
    ("emer", Level::Error),
    ("err", Level::Error),
    ("warn", Level::Warn),
    ("info", Level::Info),
    ("dbg", Level::Debug),
];
/// Open vSwitch's words for where a log goes; the first is ours.
const DESTINATIONS: [&str; 3] = ["console", "syslog", "file"];

/// The modules of Open vSwitch 3.1 (vlog/list) that scripts name and this program does not have.
const MODULES: &[&str] = &[
    "backtrace",
    "bfd",
    "bond",
    "bridge",
    "bundle",
    "bundles",
    "cfm",
    "collectors",
    "command_line",
    "connmgr",
    "conntrack",
    "conntrack_tp",
    "coverage",
    "ct_dpif",
    "daemon",
    "daemon_unix",
    "dns_resolve",
    "dpdk",
    "dpif",
    "dpif_lookup_autovalidator",
    "dpif_lookup_generic",
    "dpif_mfex_extract_study",
    "dpif_netdev",
    "dpif_netdev_extract",
    "dpif_netdev_impl",
    "dpif_netdev_lookup",
    "dpif_netlink",
    "dpif_netlink_rtnl",
    "entropy",
    "fail_open",
    "fatal_signal",
    "flow",
    "hmap",
    "in_band",
    "ipf",
    "ipfix",
    "jsonrpc",
    "lacp",
    "lldp",
    "lldpd",
    "lldpd_structs",
    "lockfile",
    "memory",
    "meta_flow",
    "native_tnl",
    "netdev",
    "netdev_afxdp",
    "netdev_dummy",
    "netdev_linux",
    "netdev_offload",
    "netdev_offload_tc",
    "netdev_vport",
    "netflow",
    "netlink",
    "netlink_conntrack",
    "netlink_notifier",
    "netlink_socket",
    "nx_match",
    "odp_execute",
    "odp_execute_impl",
    "odp_util",
    "ofp_actions",
    "ofp_bundle",
    "ofp_connection",
    "ofp_errors",
    "ofp_flow",
    "ofp_group",
    "ofp_match",
    "ofp_meter",
    "ofp_monitor",
    "ofp_msgs",
    "ofp_packet",
    "ofp_port",
    "ofp_protocol",
    "ofp_queue",
    "ofp_table",
    "ofp_util",
    "ofproto",
    "ofproto_dpif",
    "ofproto_dpif_mirror",
    "ofproto_dpif_monitor",
    "ofproto_dpif_rid",
    "ofproto_dpif_upcall",
    "ofproto_dpif_xlate",
    "ofproto_xlate_cache",
    "ovs_lldp",
    "ovs_numa",
    "ovs_rcu",
    "ovs_replay",
    "ovs_router",
    "ovs_thread",
    "ovsdb_cs",
    "ovsdb_error",
    "ovsdb_idl",
    "ox_stat",
    "pcap",
    "pmd_perf",
    "poll_loop",
    "process",
    "rconn",
    "reconnect",
    "route_table",
    "rstp",
    "rstp_sm",
    "sflow",
    "sha1",
    "signals",
    "socket_util",
    "socket_util_unix",
    "stp",
    "stream",
    "stream_fd",
    "stream_replay",
    "stream_ssl",
    "stream_tcp",
    "stream_unix",
    "svec",
    "system_stats",
    "tc",
    "timeval",
    "tunnel",
    "unixctl",
    "userspace_tso",
    "util",
    "uuid",
    "vconn",
    "vconn_stream",
    "vlog",
];

impl Control {
    /// `version`: in the seat of ovs-vswitchd the line that scripts read there.
    pub(super) fn version(&self) -> Answer {
        if self.unixctl.as_ovs_vswitchd {
            return Ok(format!("ovs-vswitchd (Open vSwitch) {OVS_VERSION}\n"));
        }
        Ok(concat!("vswitchd (vswitch) ", env!("CARGO_PKG_VERSION"), "\n").to_owned())
    }

    /// `exit --cleanup`: what a keeper would hold for the next daemon goes too, and what would outlive us, but not what pods got by CNI, for that
    /// can be had but once.
    pub(super) fn give_up_kept(&mut self) {
        let names = self.running.ports.keys().filter(|name| !self.cni.has(name));
        self.keeper.forget_all(names.map(String::as_str));
        for port in self.running.ports.values() {
            if let Some(link) = &port.link {
                ports::let_go(&link.link, &port.config);
            }
        }
    }

    /// `memory/show`
    pub(super) fn memory_show(&self) -> Answer {
        let (ports, peers) = (self.running.ports.len(), self.running.peers.len());
        let (macs, bytes) = (self.running.macs.len(), self.running.macs.memory_bytes());
        let workers = self.workers.count();
        Ok(format!("mac-bytes:{bytes} macs:{macs} peers:{peers} ports:{ports} workers:{workers}\n"))
    }

    /// Everything that is counted for the whole switch, by name.
    fn events(&self) -> Result<Vec<(&'static str, u64)>, String> {
        let counters = self.counters().map_err(|error| error.to_string())?;
        let ids = || self.running.setup.topology.port_numbers();
        let ports: Vec<_> = (0..ids())
            .filter_map(|number| vswitch_core::PortId::new(u32::try_from(number).ok()?))
            .map(|id| counters.port(id))
            .collect();
        let mut events = vec![
            ("mac_learning_learned", counters.learned),
            ("mac_learning_moved", counters.moved),
            ("mac_learning_busy", counters.learn_busy),
            ("mac_learning_full", counters.learn_full),
            ("station_events_lost", counters.events_lost),
            ("netdev_received", ports.iter().map(|port| port.rx_frames).sum()),
            ("netdev_sent", ports.iter().map(|port| port.tx_frames).sum()),
        ];
        for reason in DropReason::ALL {
            let at_ports: u64 = ports.iter().map(|port| port.dropped[reason.index()]).sum();
            events.push((reason.name(), at_ports + counters.no_port[reason.index()]));
        }
        Ok(events)
    }

    /// `coverage/show`: nothing is counted by the clock, so the rates are those since somebody last asked at least that
    /// long ago, or since the start.
    pub(super) fn coverage_show(&mut self) -> Answer {
        let events = self.events()?;
        let now = clock::now();
        let counts: Vec<u64> = events.iter().map(|(_, count)| *count).collect();
        let rates = [5, 60, 3600].map(|seconds| {
            let (at, before) = self.unixctl.coverage.before(now, Duration::from_secs(seconds));
            let since = now.since(at.unwrap_or(self.started)).as_secs_f64().max(1.0);
            (since, before)
        });
        let mut text =
            "Event coverage, avg rate over last: 5 seconds, last minute, last hour,  hash=00000000:\n"
                .to_owned();
        let mut never = 0;
        for (at, (name, total)) in events.iter().enumerate() {
            if *total == 0 {
                never += 1;
                continue;
            }
            let rate = |(since, before): &(f64, Vec<u64>)| {
                per_second(total.saturating_sub(before.get(at).copied().unwrap_or(0)), *since)
            };
            let [seconds, minute, hour] = [&rates[0], &rates[1], &rates[2]].map(rate);
            let _ = writeln!(
                text,
                "{name:<24} {seconds:>5.1}/sec {minute:>9.3}/sec {hour:>13.4}/sec   total: {total}"
            );
        }
        let _ = writeln!(text, "{never} events never hit");
        self.unixctl.coverage.keep(now, counts);
        Ok(text)
    }

    /// `coverage/read-counter COUNTER`
    pub(super) fn coverage_read(&self, arguments: &[&str]) -> Answer {
        let events = self.events()?;
        let found = events.iter().find(|(name, _)| *name == arguments[0]);
        found.map(|(_, count)| format!("{count}\n")).ok_or_else(|| "No such counter".to_owned())
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with four digits behind the point at most")]
fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

/// Counts as they were when somebody asked.
#[derive(Debug, Default)]
pub(in super::super) struct Coverage(VecDeque<(Instant, Vec<u64>)>);

impl Coverage {
    /// An hour of somebody who asks every five seconds.
    const KEPT: usize = 720;

    /// The counts at the last time that is `age` ago or more; nothing where there is none.
    fn before(&self, now: Instant, age: Duration) -> (Option<Instant>, Vec<u64>) {
        let found = self.0.iter().rev().find(|(at, _)| now.since(*at) >= age);
        found.map_or((None, Vec::new()), |(at, counts)| (Some(*at), counts.clone()))
    }

    fn keep(&mut self, now: Instant, counts: Vec<u64>) {
        let spacing = Duration::from_secs(5);
        if self.0.back().is_some_and(|(at, _)| now.since(*at) < spacing) {
            return;
        }
        if self.0.len() >= Self::KEPT {
            self.0.pop_front();
        }
        self.0.push_back((now, counts));
    }
}

/// `vlog/list`: one module, which writes to stderr.
pub(super) fn vlog_list() -> Answer {
    let level = LEVELS.iter().rev().find(|(_, level)| log::shows(*level));
    let level = level.map_or_else(|| "OFF".to_owned(), |(word, _)| word.to_ascii_uppercase());
    Ok(format!(
        "                 console    syslog    file\n\
         \x20                -------    ------    ------\n\
         {MODULE:<16}  {level:>4}        OFF        OFF\n"
    ))
}

/// `vlog/list-pattern`
pub(super) fn vlog_list_pattern() -> Answer {
    Ok("         prefix                            format\n\
        \x20        ------                            ------\n\
        CONSOLE  none                              %D{%Y-%m-%dT%H:%M:%S.###Z} %5p %m\n"
        .to_owned())
}

/// `vlog/set SPEC…`: what is meant for modules of Open vSwitch, or for logs that there are none of, changes nothing.
pub(super) fn vlog_set(arguments: &[&str]) -> Answer {
    let levels: Vec<Option<Level>> =
        arguments.iter().map(|spec| parse_spec(spec)).collect::<Result<_, _>>()?;
    levels.into_iter().flatten().for_each(log::set_level);
    Ok(String::new())
}

/// The level that a spec gives this program's log, if it speaks of that.
fn parse_spec(spec: &str) -> Result<Option<Level>, String> {
    let mut words = spec.split([' ', ',', ':', '\t']).filter(|word| !word.is_empty()).peekable();
    let is = |word: &str, name: &str| word.eq_ignore_ascii_case(name);
    if words.peek().is_some_and(|word| is(word, "PATTERN") || is(word, "FACILITY")) {
        return Err("the form of the log is set at the start, by --log-format".to_owned());
    }
    let (mut module, mut destination, mut level) = (None, None, None);
    for word in words {
        if is(word, "ANY") {
            continue;
        }
        let (slot, value, what) = if let Some(known) = DESTINATIONS.iter().find(|name| is(word, name)) {
            (&mut destination, *known, "destinations")
        } else if let Some((known, _)) = LEVELS.iter().find(|(name, _)| is(word, name)) {
            (&mut level, *known, "levels")
        } else if let Some(known) = MODULES.iter().chain([&MODULE]).find(|name| is(word, name)) {
            (&mut module, *known, "modules")
        } else {
            return Err(format!("no destination, level, or module \"{word}\""));
        };
        if slot.replace(value).is_some() {
            return Err(format!("cannot specify multiple {what}"));
        }
    }
    let is_ours = module.is_none_or(|module| module == MODULE)
        && destination.is_none_or(|destination| destination == DESTINATIONS[0]);
    let level = level.unwrap_or("dbg");
    Ok(LEVELS.iter().find(|(name, _)| is_ours && *name == level).map(|(_, level)| *level))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_log_spec_says_is_told_as_open_vswitch_tells_it() {
        for (spec, level) in [
            ("", Some(Level::Debug)),
            ("dbg", Some(Level::Debug)),
            ("ANY:ANY:info", Some(Level::Info)),
            ("ANY:console:warn", Some(Level::Warn)),
            ("vswitchd:Console:ERR", Some(Level::Error)),
            ("off", Some(Level::Error)),
            ("bridge:dbg", None),
            ("vconn:file:warn", None),
            ("syslog:info", None),
        ] {
            assert_eq!(parse_spec(spec), Ok(level), "{spec:?}");
        }
        for (spec, said) in [
            ("nosuchmodule", "no destination, level, or module \"nosuchmodule\""),
            ("dbg info", "cannot specify multiple levels"),
            ("console,file", "cannot specify multiple destinations"),
            ("bridge:vconn", "cannot specify multiple modules"),
        ] {
            assert_eq!(parse_spec(spec), Err(said.to_owned()));
        }
        assert!(parse_spec("PATTERN:console:%m").is_err());
    }

    #[test]
    fn rates_are_those_since_somebody_asked_that_long_ago() {
        let (mut coverage, at) = (Coverage::default(), Instant::from_secs);
        let ask = |coverage: &Coverage, now, age| coverage.before(at(now), Duration::from_secs(age));
        assert_eq!(ask(&coverage, 100, 5), (None, vec![]));
        coverage.keep(at(100), vec![1]);
        coverage.keep(at(103), vec![2]);
        coverage.keep(at(106), vec![3]);
        assert_eq!(ask(&coverage, 106, 5), (Some(at(100)), vec![1]));
        assert_eq!(ask(&coverage, 111, 5), (Some(at(106)), vec![3]));
        assert_eq!(ask(&coverage, 111, 60), (None, vec![]));
        for second in 0..10_000 {
            coverage.keep(at(1_000 + 5 * second), vec![second]);
        }
        assert_eq!(coverage.0.len(), Coverage::KEPT);
    }
}
