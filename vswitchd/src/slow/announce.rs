//! Stations that are announced: once at once, and once more a second later, for whoever lost the first.
//!
//! Not here: the frames (see [`super::neigh`]) and who is to be announced (that is control's).

use super::neigh::announcement;
use crate::datapath::PortLink;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;
use vswitch_core::{Instant, Mac};

/// How long after the first the second follows: ANNOUNCE_INTERVAL is two seconds (RFC 5227 §1.1), RetransTimer one
/// (RFC 4861 §10); the shorter serves both.
const AGAIN: Duration = Duration::from_secs(1);
/// The most frames that wait: more stations at once are announced by what they send.
const LIMIT: usize = 1 << 16;

/// One frame, as if it came in by this link.
#[derive(Clone, Debug)]
pub(super) struct Announcement {
    /// Weak: whoever closes the link need not wait for this.
    link: Weak<PortLink>,
    frame: Vec<u8>,
}

/// What is still to be said.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    due: VecDeque<Announcement>,
    /// In the order of their times.
    later: VecDeque<(Instant, Announcement)>,
}

impl Announcements {
    /// Announces `stations` behind `link`, in the dress of frames that come from there.
    pub(super) fn add(
        &mut self,
        now: Instant,
        link: &Arc<PortLink>,
        tag: Option<[u8; 4]>,
        stations: &[(Mac, IpAddr)],
    ) {
        for frame in stations.iter().filter_map(|(mac, ip)| announcement(*mac, *ip, tag)) {
            if self.later.len() >= LIMIT {
                return;
            }
            let announcement = Announcement { link: Arc::downgrade(link), frame };
            self.due.push_back(announcement.clone());
            self.later.push_back((now.after(AGAIN), announcement));
        }
    }

    /// The next one to be said, and the link it comes in by; those whose link is closed are forgotten.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Arc<PortLink>, Vec<u8>)> {
        while let Some((at, _)) = self.later.front()
            && *at <= now
        {
            self.due.extend(self.later.pop_front().map(|(_, announcement)| announcement));
        }
        while let Some(Announcement { link, frame }) = self.due.pop_front() {
            if let Some(link) = link.upgrade() {
                return Some((link, frame));
            }
        }
        None
    }

    /// When something is to be said next: `now` or later.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        if self.due.is_empty() { self.later.front().map(|(at, _)| *at) } else { Some(now) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{AnyLink, Memory};
    use vswitch_core::PortId;

    #[test]
    fn everything_is_said_at_once_and_a_second_later_while_its_link_is_there() {
        let link = |number| {
            let (near, _far) = Memory::pair(1).unwrap();
            Arc::new(PortLink { port: PortId::new(number).unwrap(), worker: 0, link: AnyLink::Memory(near) })
        };
        let (stays, goes) = (link(1), link(2));
        let mut announcements = Announcements::default();
        let stations = [(Mac::new([2, 0, 0, 0, 0, 1]), IpAddr::from([10, 0, 0, 1]))];
        let begin = Instant::ZERO;
        assert_eq!(announcements.next_due(begin), None);
        announcements.add(begin, &stays, None, &stations);
        announcements.add(begin, &goes, None, &stations);
        let said = |announcements: &mut Announcements, now| {
            std::iter::from_fn(|| announcements.next(now))
                .map(|(link, _)| link.port.get())
                .collect::<Vec<_>>()
        };
        assert_eq!(announcements.next_due(begin), Some(begin));
        assert_eq!(said(&mut announcements, begin), [1, 2]);
        let later = begin.after(AGAIN);
        assert_eq!(announcements.next_due(begin), Some(later));
        drop(goes);
        assert_eq!(said(&mut announcements, later), [1]);
        assert_eq!(announcements.next_due(later), None);
    }
}
