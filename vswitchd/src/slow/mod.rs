//! The slow path: one thread for frames that ask for an answer, and for the probes of peers.
//!
//! It answers packets that do not fit the way to a peer (ICMP fragmentation needed, ICMPv6 packet too big) and, in the
//! place of stations that are known, questions where an address is (ARP, neighbour discovery); it tells control whose
//! addresses it saw; it finds out who listens to which multicast group; it announces stations that have come; it asks
//! peers whether they live, and answers them. Bounded and limited per port: a full queue costs answers, never frames. Not
//! here: deciding which frames come (that is the core), who is known (that is control).

mod announce;
mod counters;
mod messages;
mod neigh;
mod path_mtu;
mod peers;
mod probe;
mod prober;
mod snooping;
mod thread;
mod too_big;

pub use counters::{SlowCounters, SlowCounts};
pub use neigh::{Question, Refusal, Seen, announcement, read};
pub use prober::{Output, PeerState, ProbePeer, Prober, Random, Status};
pub use snooping::{GroupEntry, SnoopedBridge, SnoopedPort};
pub use too_big::too_big;

use crate::datapath::{Event, Injector, PortLink, Punted};
use crate::observe::Directory;
use crossbeam_channel::{Sender, bounded};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use thread::Thread;
use vswitch_core::Mac;

/// Commands that may wait; more make control wait, which the thread never does.
const COMMANDS: usize = 256;
/// How long control waits for an answer; the thread waits for nobody.
const ANSWER: Duration = Duration::from_secs(2);

/// What the thread works with.
pub struct Parts {
    /// What workers hand out.
    pub punted: Punted,
    /// Where it gives back what found no answer.
    pub injector: Injector,
    /// By which it answers.
    pub directory: Arc<Directory>,
    /// Where it tells control what it saw.
    pub events: Sender<Event>,
    /// Called after `events` were sent.
    pub wake_control: Arc<dyn Fn() + Send + Sync>,
    /// Where the numbers come from that peers must return.
    pub random: Random,
}

/// What control tells the thread.
#[derive(Debug)]
enum Command {
    /// See [`SlowPath::announce`].
    Announce { link: Arc<PortLink>, tag: Option<[u8; 4]>, stations: Vec<(Mac, IpAddr)> },
    /// See [`SlowPath::set_peers`].
    Peers(Vec<(ProbePeer, Arc<PortLink>)>),
    /// See [`SlowPath::suspect`].
    Suspect(IpAddr),
    /// See [`SlowPath::heard`].
    Heard(Vec<IpAddr>),
    /// See [`SlowPath::set_snooping`].
    Snooping(Vec<SnoopedBridge>),
    /// See [`SlowPath::flush_groups`].
    FlushGroups(Option<u8>),
    /// See [`SlowPath::groups`].
    Groups(Sender<Vec<GroupEntry>>),
}

/// The thread, for control. It ends when this is dropped, or when there are no more workers.
#[derive(Debug)]
pub struct SlowPath {
    commands: Sender<Command>,
    counters: Arc<SlowCounters>,
}

impl SlowPath {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the kernel gives no thread.
    pub fn start(parts: Parts) -> io::Result<Self> {
        let (commands, orders) = bounded(COMMANDS);
        let counters = Arc::default();
        let thread = Thread::new(parts, orders, Arc::clone(&counters));
        std::thread::Builder::new().name("slow-path".to_owned()).spawn(move || thread.run())?;
        Ok(Self { commands, counters })
    }

    /// What it has done so far.
    #[must_use]
    pub const fn counters(&self) -> &Arc<SlowCounters> {
        &self.counters
    }

    /// Says to a segment that each of `stations` has its address, in frames as if they came in by `link`: with `tag`
    /// (TPID, then control information) where frames of that segment have one there. At once, and once more a second
    /// later. Addresses that no station can have are passed over.
    pub fn announce(&self, link: &Arc<PortLink>, tag: Option<[u8; 4]>, stations: Vec<(Mac, IpAddr)>) {
        self.tell(Command::Announce { link: Arc::clone(link), tag, stations });
    }

    /// These are the peers to be probed, each with the link to it; nobody else is any more. What is known of one stays.
    /// Peers that are not among them are answered, not asked.
    pub fn set_peers(&self, peers: Vec<(ProbePeer, Arc<PortLink>)>) {
        self.tell(Command::Peers(peers));
    }

    /// Somebody says that the peer of this address does not answer: it is asked at once.
    pub fn suspect(&self, peer: IpAddr) {
        self.tell(Command::Suspect(peer));
    }

    /// Frames came from these peers since the last call: they need not be asked for a while.
    pub fn heard(&self, peers: Vec<IpAddr>) {
        self.tell(Command::Heard(peers));
    }

    /// These bridges snoop, and no others. What is known of one stays, as far as its ports do.
    pub fn set_snooping(&self, bridges: Vec<SnoopedBridge>) {
        self.tell(Command::Snooping(bridges));
    }

    /// Forgets who joined which group and where routers are, in this bridge or in all.
    pub fn flush_groups(&self, bridge: Option<u8>) {
        self.tell(Command::FlushGroups(bridge));
    }

    /// Who joined which group, and where routers are, bridge by bridge: groups first, the one heard of longest ago in
    /// front. None where the thread does not answer.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupEntry> {
        let (reply, answer) = bounded(1);
        self.tell(Command::Groups(reply));
        answer.recv_timeout(ANSWER).unwrap_or_default()
    }

    /// A thread that has ended has nobody left to serve.
    fn tell(&self, command: Command) {
        let _ = self.commands.send(command);
    }
}
