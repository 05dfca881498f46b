//! One worker's counts: plain numbers, added to by the worker alone; whoever wants totals adds the workers up.
//!
//! Not here: names and formats (see [`crate::verdict`] for the names of drops).

use super::rules::RuleCount;
use crate::port::PortId;
use crate::verdict::DropReason;
use alloc::vec::Vec;

/// What passed one port, and what died there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortCounters {
    /// Frames that came in, dropped ones included; not those that a link lost, which are counted as drops alone.
    pub rx_frames: u64,
    /// Their bytes, Ethernet header included; of a tunnel those of the inner frames.
    pub rx_bytes: u64,
    /// Frames that the link took.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames that died, by [`DropReason::index`].
    pub dropped: [u64; DropReason::COUNT],
}

impl Default for PortCounters {
    fn default() -> Self {
        Self { rx_frames: 0, rx_bytes: 0, tx_frames: 0, tx_bytes: 0, dropped: [0; DropReason::COUNT] }
    }
}

impl PortCounters {
    /// Adds another's counts, of another worker say.
    pub fn add(&mut self, other: &Self) {
        self.rx_frames += other.rx_frames;
        self.rx_bytes += other.rx_bytes;
        self.tx_frames += other.tx_frames;
        self.tx_bytes += other.tx_bytes;
        for (mine, theirs) in self.dropped.iter_mut().zip(other.dropped) {
            *mine += theirs;
        }
    }
}

/// What passed one port: half a cache line, apart from the drops, because every frame writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(align(32))]
struct Passed {
    rx_frames: u64,
    rx_bytes: u64,
    tx_frames: u64,
    tx_bytes: u64,
}

/// What a mirror copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MirrorCount {
    /// Frames, each once however many ports its copy left by.
    pub frames: u64,
    /// Their bytes as they arrived, Ethernet header included.
    pub bytes: u64,
}

/// Everything one worker counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// By port, both of one length.
    passed: Vec<Passed>,
    dropped: Vec<[u64; DropReason::COUNT]>,
    /// By the number of the mirror.
    mirrors: Vec<MirrorCount>,
    /// By the rules' ids.
    rules: Vec<RuleCount>,
    /// Drops that belong to no port: datagrams of strangers.
    pub no_port: [u64; DropReason::COUNT],
    /// Stations learned.
    pub learned: u64,
    /// Stations that moved.
    pub moved: u64,
    /// Sources not learned because another worker was inserting.
    pub learn_busy: u64,
    /// Sources not learned because the table or the port's share of it was full.
    pub learn_full: u64,
    /// Learning events that nobody fetched in time.
    pub events_lost: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            passed: Vec::new(),
            dropped: Vec::new(),
            mirrors: Vec::new(),
            rules: Vec::new(),
            no_port: [0; DropReason::COUNT],
            learned: 0,
            moved: 0,
            learn_busy: 0,
            learn_full: 0,
            events_lost: 0,
        }
    }
}

impl Counters {
    /// The counts of `port`; zeros for one that was never there.
    #[must_use]
    pub fn port(&self, port: PortId) -> PortCounters {
        let passed = self.passed.get(port.index()).copied().unwrap_or_default();
        PortCounters {
            rx_frames: passed.rx_frames,
            rx_bytes: passed.rx_bytes,
            tx_frames: passed.tx_frames,
            tx_bytes: passed.tx_bytes,
            dropped: self.dropped.get(port.index()).copied().unwrap_or([0; DropReason::COUNT]),
        }
    }

    /// What matched the rule of this id; zeros for one that was never there.
    #[must_use]
    pub fn rule(&self, id: u32) -> RuleCount {
        usize::try_from(id).ok().and_then(|id| self.rules.get(id)).copied().unwrap_or_default()
    }

    /// Adds another worker's counts.
    pub fn add(&mut self, other: &Self) {
        self.grow(other.passed.len());
        for (mine, theirs) in self.passed.iter_mut().zip(&other.passed) {
            mine.rx_frames += theirs.rx_frames;
            mine.rx_bytes += theirs.rx_bytes;
            mine.tx_frames += theirs.tx_frames;
            mine.tx_bytes += theirs.tx_bytes;
        }
        for (mine, theirs) in self.dropped.as_flattened_mut().iter_mut().zip(other.dropped.as_flattened()) {
            *mine += theirs;
        }
        self.grow_rules(other.rules.len());
        for (mine, theirs) in self.rules.iter_mut().zip(&other.rules) {
            mine.frames += theirs.frames;
            mine.bytes += theirs.bytes;
        }
        for (mine, theirs) in self.no_port.iter_mut().zip(other.no_port) {
            *mine += theirs;
        }
        self.grow_mirrors(other.mirrors.len());
        for (mine, theirs) in self.mirrors.iter_mut().zip(&other.mirrors) {
            mine.frames += theirs.frames;
            mine.bytes += theirs.bytes;
        }
        self.learned += other.learned;
        self.moved += other.moved;
        self.learn_busy += other.learn_busy;
        self.learn_full += other.learn_full;
        self.events_lost += other.events_lost;
    }

    /// `count` frames died at `port`, or at none.
    pub fn drop(&mut self, port: Option<PortId>, reason: DropReason, count: u64) {
        let place = match port {
            Some(port) => self.dropped.get_mut(port.index()).unwrap_or(&mut self.no_port),
            None => &mut self.no_port,
        };
        place[reason.index()] += count;
    }

    /// The link of `port` took `frames` of `bytes` in all.
    pub fn sent(&mut self, port: PortId, frames: u64, bytes: u64) {
        if let Some(counters) = self.passed.get_mut(port.index()) {
            counters.tx_frames += frames;
            counters.tx_bytes += bytes;
        }
    }

    pub(crate) fn received(&mut self, port: PortId, bytes: u64) {
        if let Some(counters) = self.passed.get_mut(port.index()) {
            counters.rx_frames += 1;
            counters.rx_bytes += bytes;
        }
    }

    pub(crate) fn matched(&mut self, rule: u32, bytes: u64) {
        if let Some(count) = usize::try_from(rule).ok().and_then(|id| self.rules.get_mut(id)) {
            count.frames += 1;
            count.bytes += bytes;
        }
    }

    /// Makes room for port numbers below `ports`; none is ever taken away.
    pub(crate) fn grow(&mut self, ports: usize) {
        if self.passed.len() < ports {
            self.passed.resize(ports, Passed::default());
            self.dropped.resize(ports, [0; DropReason::COUNT]);
        }
    }

    /// The counts of the mirror of this number; zeros for one that was never there.
    #[must_use]
    pub fn mirror(&self, id: u32) -> MirrorCount {
        usize::try_from(id).ok().and_then(|id| self.mirrors.get(id)).copied().unwrap_or_default()
    }

    pub(crate) fn mirrored(&mut self, id: u32, bytes: u64) {
        if let Some(count) = usize::try_from(id).ok().and_then(|id| self.mirrors.get_mut(id)) {
            count.frames += 1;
            count.bytes += bytes;
        }
    }

    /// Makes room for mirrors of numbers below `mirrors`; none is ever taken away.
    pub(crate) fn grow_mirrors(&mut self, mirrors: usize) {
        if self.mirrors.len() < mirrors {
            self.mirrors.resize(mirrors, MirrorCount::default());
        }
    }

    /// Starts the counts of a mirror's number again from zero, because another mirror is going to have it.
    pub fn reset_mirror(&mut self, id: u32) {
        if let Some(count) = usize::try_from(id).ok().and_then(|id| self.mirrors.get_mut(id)) {
            *count = MirrorCount::default();
        }
    }

    /// Makes room for rules' ids below `rules`; none is ever taken away.
    pub(crate) fn grow_rules(&mut self, rules: usize) {
        if self.rules.len() < rules {
            self.rules.resize(rules, RuleCount::default());
        }
    }

    /// Starts the counts of a number again from zero, because another port is going to have it.
    pub fn reset_port(&mut self, port: PortId) {
        if let (Some(passed), Some(dropped)) =
            (self.passed.get_mut(port.index()), self.dropped.get_mut(port.index()))
        {
            *passed = Passed::default();
            *dropped = [0; DropReason::COUNT];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_add_up_whatever_ports_each_has_room_for() {
        let [a, b] = [1, 5].map(|number| PortId::new(number).unwrap());
        let (mut one, mut other) = (Counters::default(), Counters::default());
        one.grow(2);
        other.grow(6);
        one.received(a, 60);
        other.received(a, 40);
        other.sent(b, 3, 300);
        other.drop(Some(b), DropReason::TxFull, 2);
        one.drop(None, DropReason::UnknownPeer, 1);
        // A port that it has no room for: counted, not lost.
        one.drop(Some(b), DropReason::TxFull, 1);
        one.add(&other);
        assert_eq!((one.port(a).rx_frames, one.port(a).rx_bytes), (2, 100));
        assert_eq!((one.port(b).tx_frames, one.port(b).tx_bytes), (3, 300));
        assert_eq!(one.port(b).dropped[DropReason::TxFull.index()], 2);
        assert_eq!(one.no_port[DropReason::TxFull.index()], 1);
        assert_eq!(one.no_port[DropReason::UnknownPeer.index()], 1);
        one.reset_port(b);
        assert_eq!(one.port(b), PortCounters::default());
        assert_eq!(one.port(PortId::new(99).unwrap()), PortCounters::default());
    }
}
