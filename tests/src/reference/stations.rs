//! The naive MAC table: one list, the station that was heard of longest ago first.
//!
//! When it is full, the port with the most entries gives up the learned station it heard of longest ago. Where two
//! ports have equally many, the order of [`Heaviest`] decides, which is that of Open vSwitch 3.1 (measured, not
//! copied): only so can two tables be compared entry by entry. Unlike there, a set entry is never given up: where
//! the heaviest port has nothing else, the heaviest of those that have gives, though not to a port with more.

use vswitch_core::port::{Port, PortId};
use vswitch_core::wire::ethernet::Mac;
use vswitch_core::wire::vlan::Vlan;

/// Bridge, VLAN and address.
pub type Key = (u8, Vlan, Mac);

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// Who.
    pub key: Key,
    /// Where.
    pub port: PortId,
    /// The second in which it was last refreshed.
    pub seen: u64,
    /// Set, not learned: it neither ages nor moves, and is never evicted.
    pub fixed: bool,
}

/// Who is where.
#[derive(Clone, Debug)]
pub struct Stations {
    limit: usize,
    ageing: u64,
    list: Vec<Station>,
    /// Of all ports that have entries, and of those that have learned ones.
    heaviest: Heaviest,
    givers: Heaviest,
}

impl Stations {
    /// An empty table of `limit` entries that forgets after `ageing` seconds.
    #[must_use]
    pub const fn new(limit: usize, ageing: u64) -> Self {
        Self { limit, ageing, list: Vec::new(), heaviest: Heaviest::new(), givers: Heaviest::new() }
    }

    /// The entries at `now`, the one refreshed longest ago first.
    pub fn list(&mut self, now: u64) -> &[Station] {
        self.age(now);
        &self.list
    }

    /// Where a station is.
    pub fn find(&mut self, now: u64, key: Key) -> Option<PortId> {
        self.age(now);
        self.list.iter().find(|station| station.key == key).map(|station| station.port)
    }

    /// A frame from `key` arrived at `port`.
    pub fn learn(&mut self, now: u64, key: Key, port: &Port) {
        self.age(now);
        if key.2.is_group() || key.2.is_zero() {
            return;
        }
        let known = self.list.iter().position(|station| station.key == key);
        if let Some(at) = known {
            let station = self.list[at];
            if station.fixed || (station.port == port.id && station.seen == now) {
                return;
            }
            if station.port == port.id {
                let station = self.list.remove(at);
                self.list.push(Station { seen: now, ..station });
                return;
            }
        }
        // New here. A port at its own limit gives up one of its own, a full table one of the heaviest port's.
        if let Some(limit) = port.mac_limit
            && self.list.iter().filter(|s| !s.fixed && s.port == port.id).count() >= limit as usize
            && !self.evict(port.id)
        {
            return;
        }
        match self.list.iter().position(|station| station.key == key) {
            Some(at) => self.remove(at),
            None if self.list.len() >= self.limit => match self.giver() {
                Some((giver, weight)) if weight >= self.count(port.id).0 => {
                    self.evict(giver);
                }
                _ => return,
            },
            None => {}
        }
        self.list.push(Station { key, port: port.id, seen: now, fixed: false });
        self.weigh(port.id);
    }

    /// Sets an entry, in place of one of the same key. A full table evicts a learned entry; full of set ones, it
    /// refuses.
    pub fn set(&mut self, key: Key, port: PortId) -> bool {
        self.delete(key);
        if self.list.len() >= self.limit && !self.giver().is_some_and(|(giver, _)| self.evict(giver)) {
            return false;
        }
        self.list.push(Station { key, port, seen: 0, fixed: true });
        self.weigh(port);
        true
    }

    /// Takes an entry out, learned or set; whether it was there.
    pub fn delete(&mut self, key: Key) -> bool {
        let at = self.list.iter().position(|station| station.key == key);
        at.map(|at| self.remove(at)).is_some()
    }

    /// Forgets the learned entries that `which` picks.
    pub fn flush(&mut self, which: impl Fn(&Station) -> bool) {
        while let Some(at) = self.list.iter().position(|station| !station.fixed && which(station)) {
            self.remove(at);
        }
    }

    fn age(&mut self, now: u64) {
        let ageing = self.ageing;
        self.flush(|station| now.saturating_sub(station.seen) >= ageing);
    }

    fn evict(&mut self, port: PortId) -> bool {
        let oldest = self.list.iter().position(|station| !station.fixed && station.port == port);
        oldest.map(|at| self.remove(at)).is_some()
    }

    fn remove(&mut self, at: usize) {
        let station = self.list.remove(at);
        self.weigh(station.port);
    }

    /// Who gives up a station when the table is full, and how many entries that port has.
    fn giver(&self) -> Option<(PortId, usize)> {
        self.heaviest.top().filter(|top| self.count(top.0).1 > 0).or_else(|| self.givers.top())
    }

    /// The entries of `port`, and how many of them are learned.
    fn count(&self, port: PortId) -> (usize, usize) {
        let of_port = || self.list.iter().filter(move |station| station.port == port);
        (of_port().count(), of_port().filter(|station| !station.fixed).count())
    }

    fn weigh(&mut self, port: PortId) {
        let (all, learned) = self.count(port);
        self.heaviest.weigh(port, all);
        self.givers.weigh(port, if learned > 0 { all } else { 0 });
    }
}

/// Which port has the most entries: a binary heap, ports with more of them nearer to the root.
#[derive(Clone, Debug)]
struct Heaviest {
    heap: Vec<(PortId, usize)>,
}

impl Heaviest {
    const fn new() -> Self {
        Self { heap: Vec::new() }
    }

    fn top(&self) -> Option<(PortId, usize)> {
        self.heap.first().copied()
    }

    /// `port` has so many entries now.
    fn weigh(&mut self, port: PortId, entries: usize) {
        let at = self.heap.iter().position(|entry| entry.0 == port).unwrap_or_else(|| {
            self.heap.push((port, 0));
            self.heap.len() - 1
        });
        self.heap[at].1 = entries;
        if entries == 0 {
            self.heap.swap_remove(at);
        }
        if at < self.heap.len() {
            self.put_right(at);
        }
    }

    fn put_right(&mut self, mut at: usize) {
        while at > 0 && self.heap[at].1 > self.heap[(at - 1) / 2].1 {
            self.heap.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
        loop {
            let mut most = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if self.heap.get(child).is_some_and(|entry| entry.1 > self.heap[most].1) {
                    most = child;
                }
            }
            if most == at {
                return;
            }
            self.heap.swap(at, most);
            at = most;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::station;
    use vswitch_core::port::Attachment;

    fn port(number: u32) -> Port {
        Port::new(PortId::new(number).unwrap(), Attachment::trunk_all())
    }

    fn key(number: u32) -> Key {
        (0, Vlan::UNTAGGED, station(number))
    }

    fn ports(table: &mut Stations, now: u64) -> Vec<u32> {
        table.list(now).iter().map(|station| station.port.get()).collect()
    }

    #[test]
    fn the_port_with_the_most_gives_up_its_oldest_until_another_has_more() {
        let mut table = Stations::new(10, 300);
        (0..10).for_each(|n| table.learn(0, key(n), &port(1)));
        (20..30).for_each(|n| table.learn(0, key(n), &port(2)));
        assert_eq!(ports(&mut table, 0), [1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
        assert_eq!((table.find(0, key(5)), table.find(0, key(29))), (None, Some(port(2).id)));
    }

    #[test]
    fn a_refresh_makes_young_once_a_second_and_a_move_at_once() {
        let mut table = Stations::new(10, 300);
        (0..3).for_each(|n| table.learn(0, key(n), &port(1)));
        let order =
            |table: &mut Stations| table.list(1).iter().map(|s| s.key.2.as_u64() & 0xff).collect::<Vec<_>>();
        table.learn(0, key(0), &port(1));
        assert_eq!(order(&mut table), [0, 1, 2]);
        table.learn(1, key(0), &port(1));
        assert_eq!(order(&mut table), [1, 2, 0]);
        table.learn(1, key(2), &port(2));
        table.learn(1, key(1), &port(3));
        assert_eq!(order(&mut table), [0, 2, 1]);
        assert_eq!(ports(&mut table, 299), [1, 2, 3]);
        assert_eq!(ports(&mut table, 301), [0; 0]);
    }

    #[test]
    fn a_set_entry_stays_whatever_happens() {
        let mut table = Stations::new(3, 15);
        assert!((0..3).all(|n| table.set(key(n), port(1).id)));
        assert!(!table.set(key(3), port(1).id));
        table.learn(99, key(0), &port(2));
        table.learn(99, key(4), &port(2));
        assert_eq!(ports(&mut table, 99), [1, 1, 1]);
        assert!(table.delete(key(1)) && !table.delete(key(1)));
        table.learn(99, key(4), &port(2));
        assert!(table.set(key(5), port(3).id));
        assert_eq!(ports(&mut table, 99), [1, 1, 3]);
    }

    #[test]
    fn set_entries_weigh_but_are_given_up_by_nobody() {
        let mut table = Stations::new(10, 300);
        assert!((0..5).all(|n| table.set(key(n), port(1).id)));
        (10..13).for_each(|n| table.learn(0, key(n), &port(2)));
        (20..22).for_each(|n| table.learn(0, key(n), &port(3)));
        table.learn(0, key(23), &port(3));
        assert_eq!(ports(&mut table, 0), [1, 1, 1, 1, 1, 2, 2, 3, 3, 3]);
        table.learn(0, key(5), &port(1));
        assert_eq!(ports(&mut table, 0), [1, 1, 1, 1, 1, 2, 2, 3, 3, 3], "others have fewer");
        table.flush(|station| station.key == key(23));
        table.learn(0, key(5), &port(1));
        table.learn(0, key(24), &port(3));
        assert_eq!(ports(&mut table, 0), [1, 1, 1, 1, 1, 2, 2, 3, 3, 3], "the set ones weigh");
    }

    #[test]
    fn a_port_at_its_own_limit_gives_up_its_own() {
        let mut table = Stations::new(10, 300);
        let mut small = port(2);
        small.mac_limit = Some(2);
        (0..3).for_each(|n| table.learn(0, key(n), &port(1)));
        (10..14).for_each(|n| table.learn(0, key(n), &small));
        assert_eq!(ports(&mut table, 0), [1, 1, 1, 2, 2]);
        small.mac_limit = Some(0);
        let mut table = Stations::new(10, 300);
        table.learn(0, key(1), &small);
        assert!(table.list(0).is_empty());
    }
}
