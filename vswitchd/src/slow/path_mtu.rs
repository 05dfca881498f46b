//! What the path to one peer carries, found by full-size probes (in the manner of RFC 8899).
//!
//! A size that is answered is carried. One that is not, three times, while small ones are, is not: then smaller ones
//! are tried, the usual ones first, then halves of what is left. Not here: sending, and whether the peer lives.

use std::net::IpAddr;
use std::time::Duration;
use vswitch_core::Instant;

/// Sizes that paths mostly have, in bytes of outer IP packet, falling.
const USUAL: [u16; 12] = [9000, 8950, 4352, 1500, 1492, 1480, 1472, 1450, 1420, 1400, 1380, 1280];
/// How exactly the size is found, in bytes.
const EXACT: u16 = 8;
/// How often a size is tried: a lost probe is not yet a small path.
const TRIES: u8 = 3;
/// How often it is looked whether the path has grown (RFC 8899 §5.1.1, PMTU_RAISE_TIMER).
const RAISE: Duration = Duration::from_secs(600);
/// How many full-size signs of life in a row are lost, while small ones are not, until the path is searched anew.
const LOSSES: u8 = 2;

#[derive(Clone, Copy, Debug)]
struct Search {
    /// The least size that is not carried.
    above: u16,
    size: u16,
    tries: u8,
    /// When the try counts as lost; none while nothing is under way.
    deadline: Option<Instant>,
}

/// The state for one peer.
#[derive(Clone, Debug)]
pub(super) struct PathMtu {
    least: u16,
    limit: u16,
    /// The largest size that was answered.
    found: Option<u16>,
    search: Option<Search>,
    losses: u8,
    next_raise: Option<Instant>,
}

impl PathMtu {
    /// Nothing is known, and no more than `limit` is wanted.
    pub(super) fn new(peer: IpAddr, limit: u16) -> Self {
        //= RFC 8200 §5, RFC 791 §3.2: what every link, and every host, must take.
        let least = if peer.to_canonical().is_ipv6() { 1280 } else { 576 };
        Self { least, limit: limit.max(least), found: None, search: None, losses: 0, next_raise: None }
    }

    /// What the path carries, as far as that was found out.
    pub(super) const fn found(&self) -> Option<u16> {
        self.found
    }

    /// The size of the next sign of life.
    pub(super) fn size(&self) -> u16 {
        self.found.unwrap_or(self.limit)
    }

    /// Begins at the top.
    pub(super) const fn restart(&mut self, limit: u16) {
        self.limit = if limit < self.least { self.least } else { limit };
        (self.found, self.search, self.losses, self.next_raise) = (None, None, 0, None);
    }

    /// Nobody answers: a search says nothing, and begins at the top when somebody does.
    pub(super) fn give_up(&mut self) {
        if self.search.is_some() {
            self.restart(self.limit);
        }
    }

    /// The peer is back, perhaps by another way: whether that carries more is not left to the clock.
    pub(super) fn look_again(&mut self, now: Instant) {
        if self.search.is_none() && self.found.is_some_and(|found| found < self.limit) {
            self.next_raise = Some(now);
        }
    }

    /// A try that is under way is waited for until `later`.
    pub(super) fn wait_until(&mut self, later: Instant) {
        if let Some(deadline) = self.search.as_mut().and_then(|search| search.deadline.as_mut()) {
            *deadline = later;
        }
    }

    /// A probe of `size` was answered; whether what is known changed.
    pub(super) fn answered(&mut self, now: Instant, size: u16) -> bool {
        // The limit may have been lowered since it was asked.
        if size > self.limit {
            return false;
        }
        let before = self.found;
        self.losses = 0;
        if self.found.is_none_or(|found| size > found) {
            self.found = Some(size);
        }
        if let Some(search) = &mut self.search {
            search.deadline = None;
            self.step(now);
        } else if size < self.limit {
            self.next_raise.get_or_insert_with(|| now.after(RAISE));
        }
        self.found != before
    }

    /// A sign of life of `size` was lost, and a smaller one was not; it counts if that is what is asked with today.
    pub(super) fn lost(&mut self, now: Instant, size: u16) {
        if size != self.size() {
            return;
        }
        self.losses += 1;
        if self.losses >= LOSSES && self.search.is_none() && size > self.least {
            self.losses = 0;
            self.found = None;
            self.search = Some(Search { above: size, size: 0, tries: 0, deadline: None });
            self.step(now);
        }
    }

    /// The kernel refuses datagrams of `size`.
    pub(super) fn refused(&mut self, now: Instant, size: u16) {
        // What is larger than the limit was never sent by us.
        if !(self.least + 1..=self.limit).contains(&size) {
            return;
        }
        self.found = self.found.filter(|found| *found < size);
        let search = Search { above: size, size: 0, tries: 0, deadline: None };
        self.search = Some(self.search.filter(|search| search.above < size).unwrap_or(search));
        self.step(now);
    }

    /// When [`Self::due`] has something to do.
    pub(super) fn next_due(&self) -> Option<Instant> {
        match &self.search {
            Some(search) => Some(search.deadline.unwrap_or(Instant::ZERO)),
            None => self.next_raise,
        }
    }

    /// The size that is to be tried now, if any; an answer is awaited for `patience`.
    pub(super) fn due(&mut self, now: Instant, patience: Duration) -> Option<u16> {
        if self.search.is_none() && self.next_raise.is_some_and(|at| at <= now) {
            self.next_raise = Some(now.after(RAISE));
            let above = self.limit.saturating_add(1);
            self.search = Some(Search { above, size: self.limit, tries: 0, deadline: None });
        }
        let search = self.search.as_mut()?;
        if search.deadline.is_some_and(|deadline| now < deadline) {
            return None;
        }
        if search.tries >= TRIES {
            search.above = search.size;
            search.deadline = None;
            self.step(now);
        }
        let search = self.search.as_mut()?;
        search.tries += 1;
        search.deadline = Some(now.after(patience));
        Some(search.size)
    }

    /// The next size of a search, or its end.
    fn step(&mut self, now: Instant) {
        let Some(search) = &mut self.search else { return };
        let low = self.found.unwrap_or(self.least);
        if search.above.saturating_sub(low) <= EXACT || search.above <= self.least {
            // Within reach of what was answered; or not even the least was, and nothing smaller is allowed.
            self.found = Some(low);
            self.search = None;
            self.next_raise = (low < self.limit).then(|| now.after(RAISE));
            return;
        }
        let usual = USUAL.into_iter().find(|size| *size < search.above && *size > low);
        let size = match (self.found, usual) {
            (None, Some(usual)) => usual,
            (None, None) => low,
            // Mostly a usual size that is carried is all that is.
            (Some(found), _) if USUAL.contains(&found) => low + EXACT,
            (Some(_), Some(usual)) => usual,
            (Some(_), None) => low.midpoint(search.above),
        };
        if search.size != size {
            (search.size, search.tries, search.deadline) = (size, 0, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(250);

    /// Runs the searches of a path that carries `carries`; what was found, and in how many probes.
    fn search(path: &mut PathMtu, now: &mut Instant, carries: u16) -> (Option<u16>, usize) {
        let mut probes = 0;
        for _ in 0..1000 {
            if let Some(size) = path.due(*now, PATIENCE) {
                probes += 1;
                if size <= carries {
                    path.answered(*now, size);
                }
            }
            if path.search.is_none() {
                break;
            }
            *now = now.after(PATIENCE);
        }
        (path.found(), probes)
    }

    #[test]
    fn a_path_that_carries_everything_is_found_by_one_answer() {
        let mut path = PathMtu::new([10, 0, 0, 1].into(), 1500);
        assert_eq!((path.size(), path.found(), path.next_due()), (1500, None, None));
        assert!(path.answered(Instant::ZERO, 1500));
        assert_eq!((path.found(), path.next_due()), (Some(1500), None));
        assert!(!path.answered(Instant::ZERO, 1500));
    }

    #[test]
    fn smaller_paths_are_found_within_eight_bytes_and_never_too_large() {
        for carries in (576..=1499).step_by(7).chain([1280, 1400, 1420, 1450, 1492]) {
            let mut path = PathMtu::new([10, 0, 0, 1].into(), 1500);
            let mut now = Instant::ZERO;
            path.lost(now, 1500);
            assert_eq!(path.next_due(), None, "one may be lost");
            path.lost(now, 1500);
            let (found, probes) = search(&mut path, &mut now, carries);
            let found = found.unwrap();
            assert!(found <= carries && carries - found <= EXACT, "{found} of {carries}");
            assert!(probes < 60, "{probes} probes");
        }
    }

    #[test]
    fn below_the_least_there_is_nothing() {
        let mut path = PathMtu::new("fd00::1".parse().unwrap(), 1500);
        let mut now = Instant::ZERO;
        path.lost(now, 1500);
        path.lost(now, 1500);
        assert_eq!(search(&mut path, &mut now, 1000).0, Some(1280));
    }

    #[test]
    fn a_path_that_has_grown_is_found_out_after_a_while() {
        let mut path = PathMtu::new([10, 0, 0, 1].into(), 1500);
        let mut now = Instant::ZERO;
        path.lost(now, 1500);
        path.lost(now, 1500);
        assert_eq!(search(&mut path, &mut now, 1400).0, Some(1400));
        let raise = path.next_due().unwrap();
        assert_eq!(path.due(now, PATIENCE), None);
        now = raise;
        assert_eq!(search(&mut path, &mut now, 1400).0, Some(1400));
        now = path.next_due().unwrap();
        assert_eq!(search(&mut path, &mut now, 1500).0, Some(1500));
        assert_eq!(path.next_due(), None);
    }

    #[test]
    fn one_that_is_back_is_looked_at_at_once_unless_its_path_carries_everything() {
        let mut path = PathMtu::new([10, 0, 0, 1].into(), 1500);
        let mut now = Instant::ZERO;
        path.look_again(now);
        assert_eq!(path.next_due(), None, "it is searched anyway");
        path.lost(now, 1500);
        path.lost(now, 1500);
        assert_eq!(search(&mut path, &mut now, 1400).0, Some(1400));
        path.look_again(now);
        assert_eq!(search(&mut path, &mut now, 1500).0, Some(1500));
        path.look_again(now);
        assert_eq!(path.next_due(), None);
    }

    #[test]
    fn a_size_that_the_kernel_refuses_needs_no_tries() {
        let mut path = PathMtu::new([10, 0, 0, 1].into(), 9000);
        let mut now = Instant::ZERO;
        path.refused(now, 9000);
        assert_eq!(search(&mut path, &mut now, 1500).0, Some(1500));
    }
}
