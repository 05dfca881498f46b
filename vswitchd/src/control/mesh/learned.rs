//! Stations that are here because they spoke, and through which port.
//!
//! A port's are limited as its MAC entries are. The table forgets the oldest for a new one, so that one who speaks for
//! ever more stations has no more of them at a time; of claims all nodes would hear, and the store. Not here: claims.

use std::collections::HashMap;
use vswitch_core::{Mac, PortId, Vni};

/// A station of a VNI.
type Place = (Vni, Mac);

/// Who spoke.
#[derive(Debug, Default)]
pub(super) struct Learned {
    places: HashMap<Place, PortId>,
    counts: HashMap<PortId, u32>,
}

impl Learned {
    /// The station spoke through `port`, which may have `limit` of them; whether it is noted.
    pub(super) fn insert(&mut self, place: Place, port: PortId, limit: u32) -> bool {
        match self.places.get(&place) {
            Some(before) if *before == port => return true,
            Some(_) => self.remove(place),
            None if self.counts.get(&port).is_some_and(|count| *count >= limit) => return false,
            None => {}
        }
        self.places.insert(place, port);
        *self.counts.entry(port).or_default() += 1;
        true
    }

    /// The station is not here any more.
    pub(super) fn remove(&mut self, place: Place) {
        let Some(port) = self.places.remove(&place) else { return };
        if let Some(count) = self.counts.get_mut(&port) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&port);
            }
        }
    }

    /// Everybody.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Place, PortId)> {
        self.places.iter().map(|(place, port)| (*place, *port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_no_more_than_it_may_and_one_that_moves_stays() {
        let place = |last| (Vni::new(10).unwrap(), Mac::new([2, 0, 0, 0, 0, last]));
        let port = |number| PortId::new(number).unwrap();
        let mut learned = Learned::default();
        assert!(learned.insert(place(1), port(1), 2) && learned.insert(place(2), port(1), 2));
        assert!(!learned.insert(place(3), port(1), 2) && learned.insert(place(2), port(1), 2));
        assert!(learned.insert(place(3), port(2), 2) && learned.insert(place(1), port(2), 2));
        assert!(learned.insert(place(4), port(1), 2), "one has gone from there");
        learned.remove(place(4));
        learned.remove(place(4));
        assert!(learned.insert(place(5), port(1), 2));
        let mut all: Vec<_> = learned.iter().map(|((_, mac), port)| (mac.bytes()[5], port)).collect();
        all.sort();
        assert_eq!(all, [(1, port(2)), (2, port(1)), (3, port(2)), (5, port(1))]);
    }
}
