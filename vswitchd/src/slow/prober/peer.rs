//! What is remembered of one peer. Not here: what is done about it.

use super::super::path_mtu::PathMtu;
use super::{PeerState, ProbePeer};
use std::time::Duration;
use vswitch_core::Instant;

/// How long a direct answer is awaited at least, and at most; in between, three times what answers take.
const PATIENCE: Duration = Duration::from_millis(250);
const MOST_PATIENCE: Duration = Duration::from_secs(1);
/// How soon a peer that never answered is asked again, at first and at last.
const UNKNOWN_FIRST: Duration = Duration::from_secs(1);
const UNKNOWN_LAST: Duration = Duration::from_secs(60);

/// A question that is under way, and until when an answer is awaited.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trial {
    /// One probe is; `full`: of the path's size.
    First { until: Instant, full: bool },
    /// A small one and others' are; `left`: so many small ones may follow.
    Second { until: Instant, full: bool, left: u8 },
}

impl Trial {
    pub(super) const fn until(self) -> Instant {
        match self {
            Self::First { until, .. } | Self::Second { until, .. } => until,
        }
    }

    /// Whether it began with a datagram of the path's size.
    pub(super) const fn full(self) -> bool {
        match self {
            Self::First { full, .. } | Self::Second { full, .. } => full,
        }
    }

    pub(super) const fn wait_until(&mut self, later: Instant) {
        match self {
            Self::First { until, .. } | Self::Second { until, .. } => *until = later,
        }
    }
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) spec: ProbePeer,
    pub(super) state: PeerState,
    pub(super) rtt: Option<Duration>,
    pub(super) path: PathMtu,
    pub(super) trial: Option<Trial>,
    /// In which round traffic came last.
    pub(super) heard: Option<u64>,
    /// In which round its turn was put off because of that.
    pub(super) put_off: Option<u64>,
    pub(super) only_others: u8,
    /// It waits to be asked before its turn.
    pub(super) soon: bool,
    /// Questions of others that it had honoured in which round, and how many.
    pub(super) favours: (u64, u8),
    /// When one that never answered is asked again, and how long it is waited for after that.
    pub(super) next: Option<Instant>,
    pub(super) wait: Option<Duration>,
    /// What stands in `Prober::timers`.
    pub(super) timer: Option<Instant>,
}

impl Peer {
    pub(super) fn new(spec: ProbePeer) -> Self {
        Self {
            path: PathMtu::new(spec.address, spec.mtu_limit),
            spec,
            state: PeerState::Unknown,
            rtt: None,
            trial: None,
            heard: None,
            put_off: None,
            only_others: 0,
            soon: false,
            favours: (0, 0),
            next: None,
            wait: None,
            timer: None,
        }
    }

    pub(super) fn patience(&self) -> Duration {
        self.rtt.map_or(PATIENCE, |rtt| (rtt * 3).clamp(PATIENCE, MOST_PATIENCE))
    }

    /// Whether no traffic came in this round and in the one before.
    pub(super) fn is_quiet(&self, round: u64) -> bool {
        self.heard.is_none_or(|heard| heard + 1 < round)
    }

    /// Whether it is not known to answer probes at all.
    pub(super) fn may_be_mute(&self) -> bool {
        self.state == PeerState::Unknown && !self.spec.speaks
    }

    /// Whether much is done to have it answer: of one that may be mute others know nothing either, and of a dead one
    /// they have told.
    pub(super) fn is_hopeful(&self) -> bool {
        !self.may_be_mute() && self.state != PeerState::Down
    }

    /// How long it is left alone after it has not answered: longer each time.
    pub(super) fn wait_longer(&mut self) -> Duration {
        let wait = self.wait.map_or(UNKNOWN_FIRST, |wait| (wait * 2).min(UNKNOWN_LAST));
        self.wait = Some(wait);
        wait
    }
}
