//! `fdb/…`: the MAC table of a bridge, listed, flushed and added to.
//!
//! Static entries that are added here last as long as the daemon, as in Open vSwitch; those of vswitchctl are kept.

use super::super::daemon::Control;
use super::commands::Answer;
use crate::datapath::clock;
use std::cmp::Reverse;
use std::fmt::Write as _;
use vswitch_core::mac_table::{Entry, EntryState};
use vswitch_core::switch::StationEvent;
use vswitch_core::{Mac, Segment, Vlan};

const NO_BRIDGE: &str = "no such bridge";
const BAD_MAC: &str = "bad MAC address";

/// What was learned in a bridge.
#[derive(Clone, Copy, Debug, Default)]
struct Learning {
    learned: u64,
    moved: u64,
    /// Learned entries that there were when the counts began.
    before: u64,
    /// Those of them, and of the learned ones, that were flushed here.
    flushed: u64,
}

/// What was learned in every bridge, as far as the workers' events told.
#[derive(Debug, Default)]
pub(in super::super) struct Stations([Learning; Segment::BRIDGES as usize]);

impl Stations {
    /// Counts a station that was learned or moved.
    pub(in super::super) fn note(&mut self, station: &StationEvent) {
        if let Some(bridge) = self.0.get_mut(usize::from(station.segment.bridge())) {
            if station.from.is_some() { bridge.moved += 1 } else { bridge.learned += 1 }
        }
    }
}

impl Control {
    /// The entries of bridge `number`: static ones, then the oldest first.
    fn fdb(&self, number: u8) -> Vec<Entry> {
        let mut entries = Vec::new();
        self.running.macs.for_each(clock::now(), |entry| {
            if entry.segment.bridge() == number {
                entries.push(entry);
            }
        });
        entries.sort_by_key(|entry| {
            (entry.state == EntryState::Learned, Reverse(entry.age), entry.segment, entry.mac)
        });
        entries
    }

    /// The entry of one station.
    fn fdb_entry(&self, segment: Segment, mac: Mac) -> Option<Entry> {
        let mut found = None;
        self.running.macs.for_each(clock::now(), |entry| {
            if (entry.segment, entry.mac) == (segment, mac) {
                found = Some(entry);
            }
        });
        found
    }

    /// `fdb/show BRIDGE`
    pub(super) fn fdb_show(&self, arguments: &[&str]) -> Answer {
        let number = self.bridge_number(arguments[0], NO_BRIDGE)?;
        let ports = self.ports_by_id(number);
        let mut text = " port  VLAN  MAC                Age\n".to_owned();
        for entry in self.fdb(number) {
            // A port that is being taken away has no number any more.
            let Some(port) = ports.get(&entry.port) else { continue };
            let age = match entry.state {
                EntryState::Static => "static".to_owned(),
                EntryState::Learned => format!("{:>3}", entry.age.as_secs()),
            };
            let vlan = entry.segment.vlan().get();
            let _ = writeln!(text, "{:>5}  {vlan:>4}  {}  {age}", port.word(), entry.mac);
        }
        Ok(text)
    }

    /// `fdb/add BRIDGE PORT VLAN MAC`
    pub(super) fn fdb_add(&self, arguments: &[&str]) -> Answer {
        let number = self.bridge_number(arguments[0], NO_BRIDGE)?;
        let mac = parse_mac(arguments[3]).ok_or(BAD_MAC)?;
        let ports = self.ports_in(number);
        // The words of Open vSwitch for a port that the bridge does not have.
        let unknown = "software error, odp port is present but no ofp port";
        let port = ports.iter().find(|port| port.name == arguments[1]).ok_or(unknown)?;
        let segment = parse_segment(number, arguments[2])?;
        let before = self.fdb_entry(segment, mac);
        self.running
            .macs
            .add_static(segment, mac, port.id)
            .map_err(|error| format!("could not add static mac entry: {error}"))?;
        let Some(before) = before.filter(|e| e.port != port.id || e.state == EntryState::Learned) else {
            return Ok(String::new());
        };
        let state = if before.state == EntryState::Static { "static" } else { "dynamic" };
        let from = ports.iter().find(|port| port.id == before.port);
        let from = from.map_or_else(|| self.running.name_of(before.port), super::bridges::Seen::word);
        Ok(format!("Overriding already existing {state} entry on {from}\n"))
    }

    /// `fdb/del BRIDGE VLAN MAC`: static entries only.
    pub(super) fn fdb_del(&mut self, arguments: &[&str]) -> Answer {
        let number = self.bridge_number(arguments[0], NO_BRIDGE)?;
        let mac = parse_mac(arguments[2]).ok_or(BAD_MAC)?;
        let unknown = "could not find static mac entry";
        let segment = parse_segment(number, arguments[1]).map_err(|_| unknown)?;
        if self.fdb_entry(segment, mac).is_none_or(|entry| entry.state != EntryState::Static) {
            return Err(unknown.to_owned());
        }
        let mut state = self.state.clone();
        if number == 0 && state.remove_mac(segment.vlan(), mac).is_ok() {
            self.save(&state).map_err(|error| error.to_string())?;
            self.state = state;
        }
        self.running.macs.remove(clock::now(), segment, mac);
        Ok(String::new())
    }

    /// The bridge that is named, or all.
    fn named_or_all(&self, arguments: &[&str]) -> Result<Vec<u8>, String> {
        match arguments.first() {
            Some(name) => self.bridge_number(name, NO_BRIDGE).map(|number| vec![number]),
            None => Ok(self.bridge_numbers().into_values().collect()),
        }
    }

    /// How many entries of bridge `number` are static, and how many learned.
    fn fdb_counts(&self, number: u8) -> (u64, u64) {
        let (mut fixed, mut learned) = (0, 0);
        self.running.macs.for_each(clock::now(), |entry| {
            if entry.segment.bridge() == number {
                match entry.state {
                    EntryState::Static => fixed += 1,
                    EntryState::Learned => learned += 1,
                }
            }
        });
        (fixed, learned)
    }

    /// `fdb/flush [BRIDGE]`
    pub(super) fn fdb_flush(&mut self, arguments: &[&str]) -> Answer {
        for number in self.named_or_all(arguments)? {
            let (_, flushed) = self.fdb_counts(number);
            for port in self.ports_in(number) {
                self.running.macs.flush_port(port.id);
            }
            if let Some(counts) = self.unixctl.stations.0.get_mut(usize::from(number)) {
                counts.flushed += flushed;
            }
        }
        Ok("table successfully flushed".to_owned())
    }

    /// `fdb/stats-show BRIDGE`. Why an entry is gone is not told apart: what gave way to others counts as expired.
    pub(super) fn fdb_stats_show(&self, arguments: &[&str]) -> Answer {
        let name = arguments[0];
        let number = self.bridge_number(name, NO_BRIDGE)?;
        let (fixed, learned) = self.fdb_counts(number);
        let current = fixed + learned;
        let limit =
            self.ovs.bridges.get(name).map_or_else(|| self.running.macs.limit(), |b| b.config.mac_limit);
        let counts = self.unixctl.stations.0.get(usize::from(number)).copied().unwrap_or_default();
        let expired = (counts.before + counts.learned).saturating_sub(learned + counts.flushed);
        Ok(format!(
            "Statistics for bridge \"{name}\":\n\
             \x20 Current/maximum MAC entries in the table: {current}/{limit}\n\
             \x20 Current static MAC entries in the table : {fixed}\n\
             \x20 Total number of learned MAC entries     : {}\n\
             \x20 Total number of expired MAC entries     : {expired}\n\
             \x20 Total number of evicted MAC entries     : 0\n\
             \x20 Total number of port moved MAC entries  : {}\n",
            counts.learned, counts.moved
        ))
    }

    /// `fdb/stats-clear [BRIDGE]`
    pub(super) fn fdb_stats_clear(&mut self, arguments: &[&str]) -> Answer {
        for number in self.named_or_all(arguments)? {
            let (_, before) = self.fdb_counts(number);
            if let Some(counts) = self.unixctl.stations.0.get_mut(usize::from(number)) {
                *counts = Learning { before, ..Learning::default() };
            }
        }
        Ok("statistics successfully cleared".to_owned())
    }
}

/// A MAC address as Open vSwitch's tools take it: six numbers of one or two hexadecimal digits.
pub(super) fn parse_mac(text: &str) -> Option<Mac> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| (1..=2).contains(&part.len()))?;
        if !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then(|| Mac::new(bytes))
}

fn parse_segment(bridge: u8, vlan: &str) -> Result<Segment, String> {
    let number = vlan.parse().ok().and_then(Vlan::new);
    number
        .and_then(|vlan| Segment::new(bridge, vlan))
        .ok_or_else(|| format!("{vlan:?} is no VLAN; expected 0 to 4094"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_may_leave_out_leading_zeros() {
        assert_eq!(parse_mac("50:54:0:00:0:1"), Some(Mac::new([0x50, 0x54, 0, 0, 0, 1])));
        for bad in
            ["", "50:54:00:00:00", "50:54:00:00:00:00:00", "50:54:00:00:00:001", "50:54:00:00:00:+1", "zz"]
        {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
    }
}
