//! The station directory: who was seen where, since when, and how often it moved; and which IP address is whose.
//!
//! Stations are fed by what the workers learn and read by the control API; neighbours are written by the control
//! thread and read by the slow path, which answers by them. The MAC table alone decides where frames go; this
//! remembers what it does not need. Bounded: when full, who is not in it yet is not remembered.

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Place;
use std::net::IpAddr;
use vswitch_core::mac_table::Entry;
use vswitch_core::switch::StationEvent;
use vswitch_core::{Instant, Mac, PortId, Segment};

/// The most stations remembered, and the most neighbours.
const LIMIT: usize = 1 << 20;

/// What is remembered of one.
#[derive(Clone, Copy, Debug)]
pub struct Station {
    /// Where it is.
    pub port: PortId,
    /// Since when it has been there.
    pub since: Instant,
    /// How often it has moved.
    pub moves: u64,
}

/// Whose an IP address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The station's MAC address.
    pub mac: Mac,
    /// The port it is behind: a local one, or that of the peer where it is.
    pub port: PortId,
}

/// Who is where.
#[derive(Debug, Default)]
pub struct Directory {
    stations: DashMap<(Segment, Mac), Station>,
    neighbours: DashMap<(Segment, IpAddr), Neighbour>,
}

impl Directory {
    /// A worker learned or moved a station.
    pub fn note(&self, event: StationEvent, now: Instant) {
        let key = (event.segment, event.mac);
        let moved = u64::from(event.from.is_some());
        if let Some(mut station) = self.stations.get_mut(&key) {
            *station = Station { port: event.port, since: now, moves: station.moves + moved };
        } else if self.stations.len() < LIMIT {
            self.stations.insert(key, Station { port: event.port, since: now, moves: moved });
        }
    }

    /// The MAC table has a station; it is remembered if nobody has told of it.
    pub fn fill_in(&self, entry: Entry, now: Instant) {
        if self.stations.len() < LIMIT {
            let station = Station { port: entry.port, since: now, moves: 0 };
            self.stations.entry((entry.segment, entry.mac)).or_insert(station);
        }
    }

    /// What is known of a station.
    #[must_use]
    pub fn get(&self, segment: Segment, mac: Mac) -> Option<Station> {
        self.stations.get(&(segment, mac)).map(|station| *station)
    }

    /// Forgets everybody for whom `keep` says no: those that the MAC table has forgotten.
    pub fn retain(&self, keep: impl Fn(Segment, Mac) -> bool) {
        self.stations.retain(|(segment, mac), _| keep(*segment, *mac));
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stations.len()
    }

    /// Whether nobody is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stations.is_empty()
    }

    /// From now on `ip` is known in `segment` as that of `mac`, which is behind `port`. A directory that is full of
    /// others takes no more: whoever asks for the address is then heard by all.
    pub fn set_neighbour(&self, segment: Segment, ip: IpAddr, mac: Mac, port: PortId) {
        // Counted before a place is held: counting looks at every part of the map.
        let full = self.neighbours.len() >= LIMIT;
        match self.neighbours.entry((segment, ip)) {
            Place::Occupied(mut place) => drop(place.insert(Neighbour { mac, port })),
            Place::Vacant(_) if full => {}
            Place::Vacant(place) => drop(place.insert(Neighbour { mac, port })),
        }
    }

    /// `ip` is nobody's that is known of in `segment` any more.
    pub fn remove_neighbour(&self, segment: Segment, ip: IpAddr) {
        self.neighbours.remove(&(segment, ip));
    }

    /// Forgets every address for whose owner `keep` says no.
    pub fn retain_neighbours(&self, keep: impl Fn(Segment, Neighbour) -> bool) {
        self.neighbours.retain(|(segment, _), owner| keep(*segment, *owner));
    }

    /// Whose `ip` is in `segment`, where that is known.
    #[must_use]
    pub fn neighbour(&self, segment: Segment, ip: IpAddr) -> Option<Neighbour> {
        self.neighbours.get(&(segment, ip)).map(|neighbour| *neighbour)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vswitch_core::Vlan;

    #[test]
    fn an_address_is_one_neighbours_in_each_segment_until_it_is_taken_away() {
        let directory = Directory::default();
        let segment = |vlan| Segment::new(0, Vlan::new(vlan).unwrap()).unwrap();
        let (ip, port) = (IpAddr::from([10, 0, 0, 1]), PortId::new(3).unwrap());
        let mac = |last| Mac::new([2, 0, 0, 0, 0, last]);
        directory.set_neighbour(segment(10), ip, mac(1), port);
        directory.set_neighbour(segment(20), ip, mac(2), port);
        directory.set_neighbour(segment(10), ip, mac(3), port);
        assert_eq!(directory.neighbour(segment(10), ip), Some(Neighbour { mac: mac(3), port }));
        assert_eq!(directory.neighbour(segment(20), ip), Some(Neighbour { mac: mac(2), port }));
        directory.remove_neighbour(segment(10), ip);
        assert_eq!(directory.neighbour(segment(10), ip), None);
        assert!(directory.is_empty(), "neighbours are not stations");
    }
}
