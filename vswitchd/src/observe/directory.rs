//! The station directory: who was seen where, since when, and how often it moved.
//!
//! Fed by what the workers learn, read by the control API. The MAC table alone decides where frames go; this
//! remembers what it does not need. Bounded: when full, stations that are not in it yet are not remembered.

use dashmap::DashMap;
use vswitch_core::mac_table::Entry;
use vswitch_core::switch::StationEvent;
use vswitch_core::{Instant, Mac, PortId, Segment};

/// The most stations remembered.
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

/// Who is where.
#[derive(Debug, Default)]
pub struct Directory {
    stations: DashMap<(Segment, Mac), Station>,
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
}
