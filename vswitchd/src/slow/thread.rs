//! The slow path's loop: probes first, then what control says, then a share of each kind of frame, over and over; then
//! it waits for the next of them or for the time.
//!
//! It waits for nobody else: what control or a worker has no room for is told again by the next frame, and questions
//! that could not be given back are left where they are, whereupon workers keep theirs. Not here: what an answer is.

use super::announce::Announcements;
use super::counters::SlowCounters;
use super::neigh::{Question, read};
use super::peers::Peers;
use super::snooping::Snooper;
use super::{Command, Parts, messages, too_big};
use crate::datapath::{Event, Injector, Neigh, PortLink, Punted, Snooped, TooBig, clock};
use crate::link::{Link as _, Scratch, Sent};
use crate::observe::Directory;
use crossbeam_channel::{Receiver, Select, Sender, TryRecvError};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use vswitch_core::frame::{Head, TxRange};
use vswitch_core::{Arrival, Batch, Instant, Mac, Offload, PortId, Segment, TxList};

/// How many of a kind are served before the next kind's turn.
const SHARE: usize = 32;
/// How long it takes a worker to make room.
const ROOM: Duration = Duration::from_millis(1);

/// What a port may ask of the slow path: so much at once, and one more after each interval.
#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u32,
    refill: Duration,
}

/// An answer to what is too big quotes it, and one is enough for a path.
const TOO_BIG_RATE: Rate = Rate { burst: 50, refill: Duration::from_millis(10) };
/// A node that boots asks for all its neighbours.
const NEIGH_RATE: Rate = Rate { burst: 500, refill: Duration::from_millis(1) };

/// A host that comes up reports all its groups, a few in a frame.
const SNOOP_RATE: Rate = Rate { burst: 500, refill: Duration::from_millis(1) };
/// How long control is left alone after it was told who listens to what, and how much longer for each that does: what it
/// makes of it is read by all workers.
const QUIET: Duration = Duration::from_millis(100);
const QUIET_EACH: Duration = Duration::from_micros(10);

/// How much a port may still ask.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    rate: Rate,
    left: u32,
    since: Instant,
}

impl Allowance {
    const fn full(rate: Rate, now: Instant) -> Self {
        Self { rate, left: rate.burst, since: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let earned = now.since(self.since).as_nanos() / self.rate.refill.as_nanos();
        if earned > 0 {
            self.left =
                self.left.saturating_add(u32::try_from(earned).unwrap_or(u32::MAX)).min(self.rate.burst);
            self.since = now;
        }
        self.left = match self.left.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }
}

/// By port; port numbers are reused, so there are not many.
#[derive(Debug)]
struct Allowances {
    rate: Rate,
    ports: HashMap<PortId, Allowance>,
}

impl Allowances {
    fn new(rate: Rate) -> Self {
        Self { rate, ports: HashMap::new() }
    }

    fn take(&mut self, port: PortId, now: Instant) -> bool {
        self.ports.entry(port).or_insert_with(|| Allowance::full(self.rate, now)).take(now)
    }
}

/// What frames and datagrams of the switch's own are sent with.
pub(super) struct Out {
    batch: Batch,
    tx: TxList,
    scratch: Scratch,
}

impl Out {
    pub(super) fn send(&mut self, link: &PortLink, frame: &[u8]) -> Sent {
        self.batch.clear();
        self.tx.clear();
        if self.batch.copy_in(Arrival::Port(link.port), frame, Offload::NONE)
            && let Some(whole) = TxRange::new(0, 0, frame.len())
        {
            self.tx.push(link.port, Head::NONE, &[whole], Offload::NONE, 0);
        }
        link.link.send(&self.batch, &self.tx, link.port, &mut self.scratch)
    }
}

pub(super) struct Thread {
    punted: Punted,
    commands: Receiver<Command>,
    injector: Injector,
    directory: Arc<Directory>,
    events: Sender<Event>,
    wake_control: Arc<dyn Fn() + Send + Sync>,
    /// Whether control has something new to read.
    told: bool,
    counters: Arc<SlowCounters>,
    too_big: Allowances,
    neigh: Allowances,
    snoop: Allowances,
    snooper: Snooper,
    /// From when on control is to be told of groups; `None`: it knows them.
    groups_due: Option<Instant>,
    /// Until when it is left alone.
    quiet_until: Instant,
    announcements: Announcements,
    peers: Peers,
    out: Out,
}

/// Those whom the thread serves are gone.
struct Ended;

impl Thread {
    pub(super) fn new(parts: Parts, commands: Receiver<Command>, counters: Arc<SlowCounters>) -> Self {
        let Parts { punted, injector, directory, events, wake_control, random } = parts;
        Self {
            punted,
            commands,
            injector,
            directory,
            events,
            wake_control,
            told: false,
            counters,
            too_big: Allowances::new(TOO_BIG_RATE),
            neigh: Allowances::new(NEIGH_RATE),
            snoop: Allowances::new(SNOOP_RATE),
            snooper: Snooper::default(),
            groups_due: None,
            quiet_until: Instant::ZERO,
            announcements: Announcements::default(),
            peers: Peers::new(clock::now(), random),
            out: Out { batch: Batch::new(1), tx: TxList::new(), scratch: Scratch::default() },
        }
    }

    /// Runs until nobody is left to be served.
    pub(super) fn run(mut self) {
        while let Ok(busy) = self.round(clock::now()) {
            if std::mem::take(&mut self.told) {
                (self.wake_control)();
            }
            if !busy {
                self.wait(clock::now());
            }
        }
    }

    /// Serves a share of everything that waits; whether there was anything.
    fn round(&mut self, now: Instant) -> Result<bool, Ended> {
        let mut busy = false;
        for _ in 0..SHARE {
            let Some(probe) = next(&self.punted.probes)? else { break };
            self.peers.hear(now, &probe, &mut self.out);
            busy = true;
        }
        for _ in 0..SHARE {
            let Some(command) = next(&self.commands)? else { break };
            self.obey(command, now);
            busy = true;
        }
        self.peers.do_due(now, &mut self.out);
        self.told |= self.peers.tell(&self.events);
        for _ in 0..SHARE {
            let Some(heard) = next(&self.punted.snooped)? else { break };
            self.hear_snooped(&heard, now);
            busy = true;
        }
        let expired = self.snooper.expire(now);
        self.note_groups(expired, now);
        self.tell_groups(now);
        while self.injector.has_room()
            && let Some((link, frame)) = self.announcements.next(now)
        {
            if self.injector.inject(&link, Offload::NONE, &frame) {
                self.counters.announced();
            }
            busy = true;
        }
        for _ in 0..SHARE {
            let Some(asked) = next(&self.punted.too_big)? else { break };
            self.refuse(&asked, now);
            busy = true;
        }
        for _ in 0..SHARE {
            // Nobody else injects, so what is taken now can be given back.
            if !self.injector.has_room() {
                break;
            }
            let Some(heard) = next(&self.punted.neigh)? else { break };
            self.hear_neigh(&heard, now);
            busy = true;
        }
        Ok(busy)
    }

    /// Until something has come or is due.
    fn wait(&self, now: Instant) {
        let has_room = self.injector.has_room();
        let mut select = Select::new();
        select.recv(&self.punted.probes);
        select.recv(&self.commands);
        select.recv(&self.punted.too_big);
        select.recv(&self.punted.snooped);
        if has_room {
            select.recv(&self.punted.neigh);
        }
        let room = (!has_room).then(|| now.after(ROOM));
        let said = self.announcements.next_due(now).filter(|_| has_room);
        // What is ready is looked for by whoever reads it.
        let dues = [room, said, self.peers.next_due(now), self.snooper.next_due(), self.groups_due];
        match dues.into_iter().flatten().min() {
            Some(due) => drop(select.ready_timeout(due.since(now))),
            None => drop(select.ready()),
        }
    }

    fn obey(&mut self, command: Command, now: Instant) {
        match command {
            Command::Announce { link, tag, stations } => {
                self.announcements.add(now, &link, tag, &stations);
            }
            Command::Peers(peers) => self.peers.set(peers),
            Command::Suspect(peer) => self.peers.suspect(now, peer),
            Command::Heard(peers) => self.peers.heard(peers),
            Command::Snooping(bridges) => {
                let changed = self.snooper.set(bridges);
                self.note_groups(changed, now);
            }
            Command::FlushGroups(bridge) => {
                let changed = self.snooper.flush(bridge);
                self.note_groups(changed, now);
            }
            // Whoever does not wait any more has no use for it.
            Command::Groups(reply) => drop(reply.try_send(self.snooper.list(now))),
        }
    }

    /// Tells a sender which packets fit.
    fn refuse(&mut self, TooBig { link, mtu, frame }: &TooBig, now: Instant) {
        if self.too_big.take(link.port, now)
            && let Some(answer) = too_big(frame, *mtu)
            // An answer that is lost is asked for again by the next frame.
            && self.out.send(link, &answer).ok > 0
        {
            self.counters.too_big();
        }
    }

    /// Notes who listens to what.
    fn hear_snooped(&mut self, heard: &Snooped, now: Instant) {
        if !self.snoop.take(heard.port, now) {
            return;
        }
        let mut changed = false;
        messages::read(&heard.frame, heard.owed, |said| {
            changed |= self.snooper.hear(now, heard.segment, heard.port, said);
        });
        self.note_groups(changed, now);
    }

    /// What is `changed` is told as soon as control is not left alone any more.
    fn note_groups(&mut self, changed: bool, now: Instant) {
        if changed && self.groups_due.is_none() {
            self.groups_due = Some(self.quiet_until.max(now));
        }
    }

    /// Tells control who listens to what, if that is due. If it has no room, it is told a little later.
    fn tell_groups(&mut self, now: Instant) {
        if self.groups_due.is_none_or(|due| due > now) {
            return;
        }
        let groups = Arc::new(self.snooper.groups());
        let told = self.events.try_send(Event::Groups(groups)).is_ok();
        let each = QUIET_EACH.saturating_mul(u32::try_from(self.snooper.len()).unwrap_or(u32::MAX));
        self.quiet_until = now.after(QUIET + each);
        self.told |= told;
        self.groups_due = (!told).then_some(self.quiet_until);
    }

    /// Notes what a frame says, and answers what it asks or gives it back: a switch carries what it does not believe, too.
    fn hear_neigh(&mut self, heard: &Neigh, now: Instant) {
        let understood = self.neigh.take(heard.link.port, now).then(|| self.understand(heard)).flatten();
        if !heard.held {
            return;
        }
        let answered = understood.is_some_and(|question| self.answer(heard, &question));
        if answered {
            self.counters.answered();
        } else {
            self.injector.inject(&heard.link, heard.offload, &heard.frame);
            self.counters.given_back();
        }
    }

    /// Reads a frame and notes what it says of its sender; what it asks.
    fn understand(&mut self, heard: &Neigh) -> Option<Question> {
        let seen = match read(&heard.frame, heard.offload.checksum.is_some()) {
            Ok(seen) => seen,
            Err(refusal) => {
                self.counters.refused(refusal);
                return None;
            }
        };
        if let Some((mac, ip)) = seen.station {
            self.snoop(heard.link.port, heard.segment, mac, ip);
        }
        seen.question
    }

    /// Tells control of a station and its address, unless that is known. If control has no room, the station's next
    /// message tells it.
    fn snoop(&mut self, port: PortId, segment: Segment, mac: Mac, ip: IpAddr) {
        let known = self.directory.neighbour(segment, ip);
        if known.is_some_and(|known| known.mac == mac && known.port == port) {
            return;
        }
        if self.events.try_send(Event::Neighbour { port, segment, mac, ip }).is_ok() {
            self.told = true;
            self.counters.snooped();
        }
    }

    /// Answers in the place of whom is asked for, if that is known. Whoever is behind the asker's own port hears the
    /// question and answers it; whoever asks for an address of its own would hear of others that have it too.
    fn answer(&mut self, heard: &Neigh, question: &Question) -> bool {
        self.directory
            .neighbour(heard.segment, question.target())
            .filter(|owner| owner.port != heard.link.port && owner.mac != question.asker)
            .and_then(|owner| question.answer(&heard.frame, owner.mac))
            .is_some_and(|answer| self.out.send(&heard.link, &answer).ok > 0)
    }
}

/// What waits in a queue.
fn next<T>(queue: &Receiver<T>) -> Result<Option<T>, Ended> {
    match queue.try_recv() {
        Ok(next) => Ok(Some(next)),
        Err(TryRecvError::Empty) => Ok(None),
        Err(TryRecvError::Disconnected) => Err(Ended),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_gets_a_burst_and_then_one_answer_per_refill() {
        let mut allowance = Allowance::full(TOO_BIG_RATE, Instant::ZERO);
        assert_eq!((0..100).filter(|_| allowance.take(Instant::ZERO)).count(), 50);
        let later = Instant::ZERO.after(TOO_BIG_RATE.refill * 3);
        assert_eq!((0..100).filter(|_| allowance.take(later)).count(), 3);
    }
}
