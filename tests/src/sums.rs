//! The kernel's counters of wrong checksums and damaged headers, which no traffic through the switch may move.

use crate::lab::Namespace;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Counters of /proc/net/snmp, by protocol.
const OF_SNMP: [(&str, &[&str]); 4] = [
    ("Ip", &["InHdrErrors"]),
    ("Icmp", &["InErrors", "InCsumErrors"]),
    ("Tcp", &["InErrs", "InCsumErrors"]),
    // Its InErrors also counts what a full socket lost.
    ("Udp", &["InCsumErrors"]),
];

/// Counters of /proc/net/snmp6.
const OF_SNMP6: [&str; 4] = ["Ip6InHdrErrors", "Icmp6InErrors", "Icmp6InCsumErrors", "Udp6InCsumErrors"];

/// Counters of /proc/net/netstat.
const OF_NETSTAT: [(&str, &[&str]); 2] =
    [("IpExt", &["InCsumErrors", "InTruncatedPkts"]), ("TcpExt", &["TCPMD5Failure", "TCPMD5Unexpected"])];

type Counters = BTreeMap<String, u64>;

/// The counters of some namespaces at one moment.
#[derive(Debug)]
pub struct Watch<'a> {
    spaces: Vec<(&'a Namespace, Counters)>,
}

impl<'a> Watch<'a> {
    /// Reads them.
    ///
    /// # Panics
    /// When the kernel has no such files.
    #[must_use]
    pub fn new(spaces: &[&'a Namespace]) -> Self {
        Self { spaces: spaces.iter().map(|space| (*space, errors(space))).collect() }
    }

    /// Asserts that none has moved since.
    ///
    /// # Panics
    /// When one has; the message names each.
    #[track_caller]
    pub fn unmoved(&self, what: &str) {
        let mut moved = String::new();
        for (space, before) in &self.spaces {
            for (name, now) in errors(space) {
                let before = before.get(&name).copied().unwrap_or(0);
                if now != before {
                    let _ = writeln!(moved, "{}: {name} went from {before} to {now}", space.name());
                }
            }
        }
        assert!(moved.is_empty(), "{what}:\n{moved}");
    }
}

/// A counter of a namespace by the name that it has in the kernel's files, `TcpInCsumErrors` or `TcpExtTCPTimeouts`.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn counter(space: &Namespace, name: &str) -> u64 {
    all(space).get(name).copied().unwrap_or_else(|| panic!("the kernel does not count {name}"))
}

fn errors(space: &Namespace) -> Counters {
    let all = all(space);
    let of_tables = OF_SNMP.iter().chain(&OF_NETSTAT);
    let names = of_tables
        .flat_map(|(table, names)| names.iter().map(move |name| format!("{table}{name}")))
        .chain(OF_SNMP6.iter().map(|name| (*name).to_owned()));
    // A kernel without MD5 or IPv6 counts nothing of them.
    names.filter_map(|name| all.get(&name).map(|count| (name, *count))).collect()
}

fn all(space: &Namespace) -> Counters {
    let files = ["snmp", "netstat", "snmp6"].map(|file| format!("/proc/thread-self/net/{file}"));
    let texts = space.inside(|| files.map(|file| std::fs::read_to_string(file).unwrap_or_default()));
    let mut found = Counters::new();
    for text in &texts[..2] {
        let mut lines = text.lines();
        while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
            let (names, values) = (names.split_whitespace(), values.split_whitespace());
            let table = names.clone().next().unwrap_or_default().trim_end_matches(':').to_owned();
            for (name, value) in names.zip(values).skip(1) {
                found.extend(value.parse().ok().map(|value| (format!("{table}{name}"), value)));
            }
        }
    }
    for line in texts[2].lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(Ok(value))) = (words.next(), words.next().map(str::parse)) {
            found.insert(name.to_owned(), value);
        }
    }
    assert!(found.contains_key("TcpInCsumErrors"), "{} has no counters", space.name());
    found
}
