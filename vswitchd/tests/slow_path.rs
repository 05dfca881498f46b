//! The slow path beside a real worker, ports in memory: questions where an address is are answered or flooded, each once,
//! whatever is full. Not here: what an answer looks like (see `slow/neigh.rs`) and the daemon around it.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod link_support;

use crossbeam_channel::{Receiver, bounded};
use link_support::{LIMIT, isolated, kernel, run};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use vswitch_core::switch::{Bridge, Groups, Snooping, Topology};
use vswitch_core::{Attachment, Batch, Mac, MacTable, Offload, Port, PortId, Segment, Vlan};
use vswitchd::config::SnoopingConfig;
use vswitchd::datapath::{Event, PortLink, Punted, Setup, Workers, punts};
use vswitchd::link::{AnyLink, Link as _, Memory};
use vswitchd::observe::Directory;
use vswitchd::slow::{Parts, SlowPath, SnoopedBridge, SnoopedPort};
use vswitchd::sys::event::wait_readable;

/// More frames than any queue on the way takes.
const ROOM: usize = 4096;

fn port(number: u32) -> PortId {
    PortId::new(number).unwrap()
}

fn segment() -> Segment {
    Segment::new(0, Vlan::new(10).unwrap()).unwrap()
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn mac(last: u8) -> Mac {
    Mac::new([2, 0, 0, 0, 0, last])
}

/// 02:…:01, which has 10.0.0.1, asks everybody for 10.0.0.`target`; `number` stands behind the message.
fn question(target: u8, number: u16) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac(1).bytes());
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac(1).bytes());
    frame.extend([10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, target]);
    frame.extend(number.to_be_bytes());
    frame
}

fn number(question: &[u8]) -> u16 {
    u16::from_be_bytes([question[42], question[43]])
}

/// A pod's end of a port.
struct Pod {
    link: Memory,
    heard: RefCell<VecDeque<Vec<u8>>>,
}

impl Pod {
    fn says(&self, frame: &[u8]) {
        self.link.offer(frame, Offload::NONE).unwrap();
    }

    /// How many frames have come that nobody has looked at.
    fn heard_so_far(&self) -> u64 {
        std::iter::from_fn(|| self.link.take()).map(|_| 1).sum()
    }

    /// The next frame that comes.
    fn hears(&self) -> Vec<u8> {
        loop {
            if let Some(frame) = self.heard.borrow_mut().pop_front() {
                return frame;
            }
            let mut batch = Batch::new(16);
            self.link.receive(port(0), &mut batch);
            self.heard.borrow_mut().extend((0..batch.len()).map(|i| batch.bytes(i).to_vec()));
            if batch.is_empty() {
                let ready = wait_readable(self.link.fd().unwrap(), Some(LIMIT)).unwrap();
                assert!(ready.readable, "nothing came");
            }
        }
    }
}

/// One worker, ports 1 and 2 in VLAN 10, and the slow path once it is started.
struct Scene {
    workers: Workers,
    directory: Arc<Directory>,
    punted: Option<Punted>,
    slow: Option<SlowPath>,
    events: Receiver<Event>,
    tell: crossbeam_channel::Sender<Event>,
    topology: Arc<Topology>,
    macs: Arc<MacTable>,
    links: Vec<Option<Arc<PortLink>>>,
}

impl Scene {
    fn new() -> (Self, Pod, Pod) {
        let bridge = Bridge { neigh_suppress: true, ..Bridge::default() };
        let ports = [1, 2].map(|n| Port::new(port(n), Attachment::Access(Vlan::new(10).unwrap())));
        let macs = Arc::new(MacTable::new(1024, Duration::from_secs(300), [1, 2]));
        ports.iter().for_each(|port| macs.bind(port.id, None));
        let (tell, events) = bounded(4096);
        let (punts, punted) = punts();
        let mut scene = Self {
            workers: Workers::start(1, tell.clone(), Arc::new(|| {}), punts).unwrap(),
            directory: Arc::default(),
            punted: Some(punted),
            slow: None,
            events,
            tell,
            topology: Arc::new(Topology::new(vec![bridge], ports).unwrap()),
            macs,
            links: vec![None; 3],
        };
        let pods = [1, 2].map(|n| scene.plug(n));
        let [one, two] = pods;
        (scene, one, two)
    }

    /// Gives a port a new link in memory.
    fn plug(&mut self, number: u32) -> Pod {
        let (near, far) = Memory::pair(ROOM).unwrap();
        self.plug_in(number, AnyLink::Memory(near));
        Pod { link: far, heard: RefCell::default() }
    }

    fn plug_in(&mut self, number: u32, link: AnyLink) {
        let link = PortLink { port: port(number), worker: 0, link };
        self.links[port(number).index()] = Some(Arc::new(link));
        self.apply(None);
    }

    fn apply(&self, groups: Option<Arc<Groups>>) {
        let setup = Setup {
            topology: Arc::clone(&self.topology),
            macs: Some(Arc::clone(&self.macs)),
            links: self.links.clone(),
            groups,
            ..Setup::default()
        };
        self.workers.apply(&Arc::new(setup)).unwrap();
    }

    fn start(&mut self) {
        self.slow = Some(
            SlowPath::start(Parts {
                punted: self.punted.take().unwrap(),
                injector: self.workers.injector(),
                directory: Arc::clone(&self.directory),
                events: self.tell.clone(),
                wake_control: Arc::new(|| {}),
                random: Box::new(|bytes| bytes.fill(7)),
            })
            .unwrap(),
        );
    }

    /// Waits until the slow path has counted so many answers, and so many questions given back: it counts what it has
    /// done.
    fn comes_to(&self, answered: u64, given_back: u64) {
        let counters = self.slow.as_ref().unwrap().counters();
        let count = || (counters.read().answered, counters.read().given_back);
        let reached = (0..10_000_000).any(|_| {
            std::thread::yield_now();
            count() == (answered, given_back)
        });
        assert!(reached, "{:?}", count());
    }

    /// The next neighbour that control is told of.
    fn told(&self) -> (PortId, Segment, Mac, IpAddr) {
        loop {
            if let Event::Neighbour { port, segment, mac, ip } = self.events.recv_timeout(LIMIT).unwrap() {
                return (port, segment, mac, ip);
            }
        }
    }

    /// The next that control is told of multicast groups.
    fn told_groups(&self) -> Arc<Groups> {
        loop {
            if let Event::Groups(groups) = self.events.recv_timeout(LIMIT).unwrap() {
                return groups;
            }
        }
    }

    fn received(&self) -> u64 {
        let snapshots = self.workers.snapshots().unwrap();
        snapshots[0].counters.port(port(1)).rx_frames
    }
}

#[test]
fn a_question_for_a_known_station_is_answered_and_nobody_else_hears_it() {
    let (mut scene, asker, other) = Scene::new();
    scene.start();
    scene.directory.set_neighbour(segment(), ip(9), mac(9), port(40));
    asker.says(&question(9, 0));
    let answer = asker.hears();
    assert_eq!(
        (&answer[..12], &answer[20..32]),
        (
            &[mac(1).bytes(), mac(9).bytes()].concat()[..],
            &{
                let mut tells = vec![0, 2];
                tells.extend(mac(9).bytes());
                tells.extend([10, 0, 0, 9]);
                tells
            }[..]
        )
    );
    // Had the first been flooded, the other would hear it before this one.
    asker.says(&question(8, 1));
    assert_eq!(number(&other.hears()), 1);
    scene.comes_to(1, 1);
}

#[test]
fn a_question_for_an_unknown_station_is_flooded_once_counted_once_and_tells_of_its_asker() {
    let (mut scene, asker, other) = Scene::new();
    scene.start();
    asker.says(&question(9, 1));
    assert_eq!(other.hears(), question(9, 1));
    assert_eq!(scene.told(), (port(1), segment(), mac(1), ip(1)));
    // Known now as what it says: not told again.
    scene.directory.set_neighbour(segment(), ip(1), mac(1), port(1));
    asker.says(&question(9, 2));
    assert_eq!(number(&other.hears()), 2);
    assert_eq!(scene.received(), 2);
    assert!(!scene.events.try_iter().any(|event| matches!(event, Event::Neighbour { .. })));
    // Moved from where it was thought to be.
    scene.directory.set_neighbour(segment(), ip(1), mac(1), port(40));
    asker.says(&question(9, 3));
    assert_eq!(scene.told(), (port(1), segment(), mac(1), ip(1)));
}

#[test]
fn who_is_behind_the_askers_port_or_has_its_address_is_left_to_answer() {
    let (mut scene, asker, other) = Scene::new();
    scene.start();
    scene.directory.set_neighbour(segment(), ip(8), mac(8), port(1));
    scene.directory.set_neighbour(segment(), ip(9), mac(1), port(40));
    let elsewhere = Segment::new(0, Vlan::new(20).unwrap()).unwrap();
    scene.directory.set_neighbour(elsewhere, ip(7), mac(7), port(40));
    for target in [8, 9, 7] {
        asker.says(&question(target, target.into()));
        assert_eq!(number(&other.hears()), u16::from(target));
    }
    scene.comes_to(0, 3);
}

#[test]
fn a_full_queue_or_a_long_question_costs_no_frame() {
    let (mut scene, asker, other) = Scene::new();
    // Nobody serves the queue: what it has no room for is flooded at once.
    let many = 1500;
    for number in 0..many {
        asker.says(&question(9, number));
    }
    let mut long = question(9, many);
    long.resize(300, 0);
    asker.says(&long);
    let mut heard = vec![other.hears()];
    while heard.last().unwrap().len() < 300 {
        heard.push(other.hears());
    }
    assert!(heard.len() > 100, "{} were flooded at once", heard.len());
    // What waited is given back, however little the worker takes at a time.
    scene.start();
    while heard.len() <= many.into() {
        heard.push(other.hears());
    }
    let mut numbers: Vec<_> = heard.iter().map(|frame| number(frame)).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..=many), "each exactly once");
    assert_eq!(scene.received(), u64::from(many) + 1);
}

#[test]
fn who_asks_too_much_is_flooded_instead_of_answered() {
    let (mut scene, asker, other) = Scene::new();
    scene.start();
    scene.directory.set_neighbour(segment(), ip(9), mac(9), port(40));
    let many = 3000;
    for number in 0..many {
        asker.says(&question(9, number));
    }
    // Each ends here or there.
    let (mut answers, mut flooded) = (0, 0);
    while answers + flooded < many.into() {
        answers += asker.heard_so_far();
        flooded += other.heard_so_far();
        std::thread::yield_now();
    }
    assert_eq!(answers + flooded, u64::from(many));
    assert!(answers > 0 && flooded > 0, "{answers} answered, {flooded} flooded");
}

#[test]
fn an_announcement_is_heard_by_the_others_at_once_and_once_more() {
    let (mut scene, announced, other) = Scene::new();
    scene.start();
    let link = scene.links[1].clone().unwrap();
    let stations = vec![(mac(1), ip(1)), (mac(1), "fd00::1".parse().unwrap())];
    scene.slow.as_ref().unwrap().announce(&link, None, stations);
    let frames = [(); 4].map(|()| other.hears());
    assert_eq!(frames[..2], frames[2..]);
    assert_eq!(
        (&frames[0][..14], frames[0][38..42].as_ref()),
        (&[&[0xff; 6], &mac(1).bytes()[..], &[8, 6]].concat()[..], &[10, 0, 0, 1][..])
    );
    assert_eq!(&frames[1][..6], [0x33, 0x33, 0, 0, 0, 1]);
    // The switch has learned where it is: a frame to it goes nowhere else.
    let mut to_it = [mac(1).bytes(), mac(2).bytes()].concat();
    to_it.resize(60, 0xab);
    other.says(&to_it);
    assert_eq!(announced.hears(), to_it);
    assert_eq!(scene.received(), 0);
}

#[test]
fn a_frame_is_not_given_back_to_a_port_that_is_another_now() {
    let (mut scene, asker, other) = Scene::new();
    asker.says(&question(9, 1));
    // The worker has handed it out once it has heard the next, which is no question.
    let mut plain = [Mac::BROADCAST.bytes(), mac(1).bytes()].concat();
    plain.resize(60, 0xab);
    asker.says(&plain);
    assert_eq!(other.hears(), plain);
    let anew = scene.plug(1);
    scene.start();
    anew.says(&question(9, 2));
    assert_eq!(number(&other.hears()), 2);
    scene.comes_to(0, 2);
}

#[test]
fn the_kernel_believes_what_it_is_answered() {
    isolated(|| {
        let (mut scene, _, other) = Scene::new();
        scene.start();
        let (tap, _, socket) = kernel(true);
        scene.plug_in(1, AnyLink::Tap(tap));
        let known = ["10.9.0.9", "fd00::9"].map(|ip| ip.parse::<IpAddr>().unwrap());
        known.iter().for_each(|ip| scene.directory.set_neighbour(segment(), *ip, mac(9), port(40)));
        run("ip -6 address add fd00::2/64 dev tap0 nodad");
        let socket_v6 = UdpSocket::bind("[fd00::2]:9000").unwrap();
        for (socket, ip) in [socket, socket_v6].iter().zip(known) {
            socket.send_to(b"to whom the answer named", (ip, 9000)).unwrap();
            let mut heard = other.hears();
            while !heard.ends_with(b"to whom the answer named") {
                // Others are asked for by the kernel itself.
                let asked = heard.ends_with(&[10, 9, 0, 9]) || heard.get(54) == Some(&135) && heard[77] == 9;
                assert!(!asked, "the question was flooded: {heard:02x?}");
                heard = other.hears();
            }
            assert_eq!(heard[..6], mac(9).bytes());
        }
    });
}

/// 02:…:`last` says by IGMP of version 2 that it listens to 239.0.0.7 (0x16), or no more (0x17).
fn membership(last: u8, kind: u8) -> Vec<u8> {
    let group = [239, 0, 0, 7];
    let mut frame = vec![1, 0, 0x5e, 0, 0, 7];
    frame.extend(mac(last).bytes());
    frame.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 1, 2, 0, 0, 10, 0, 0, last]);
    frame.extend(group);
    let message = [&[kind, 0, 0, 0][..], &group].concat();
    let sum = vswitch_core::wire::checksum::checksum(&message).to_be_bytes();
    frame.extend([kind, 0, sum[0], sum[1]]);
    frame.extend(group);
    frame
}

#[test]
fn who_joins_a_group_is_told_to_control_and_hears_it_until_it_leaves() {
    let (mut scene, source, host) = Scene::new();
    let snooping = Some(Snooping { flood_unregistered: false });
    let ports = [1, 2].map(|n| Port::new(port(n), Attachment::Access(Vlan::new(10).unwrap())));
    let bridge = Bridge { snooping, ..Bridge::default() };
    scene.topology = Arc::new(Topology::new(vec![bridge], ports).unwrap());
    scene.apply(None);
    scene.start();
    let ports = [1, 2].map(|n| (port(n), SnoopedPort::default())).into();
    let slow = scene.slow.as_ref().unwrap();
    slow.set_snooping(vec![SnoopedBridge { number: 0, config: SnoopingConfig::default(), ports }]);
    // It has heard that when it answers.
    assert!(slow.groups().is_empty());
    let group = IpAddr::from([239, 0, 0, 7]);
    let mut data = membership(1, 0);
    data[23] = 17;

    host.says(&membership(2, 0x16));
    let groups = scene.told_groups();
    assert_eq!(groups.members(segment(), group), Some(&[port(2)][..]));
    let listed = scene.slow.as_ref().unwrap().groups();
    assert_eq!(
        listed.iter().map(|entry| (entry.port, entry.group)).collect::<Vec<_>>(),
        [(port(2), Some(group))]
    );
    scene.apply(Some(groups));
    source.says(&data);
    assert_eq!(host.hears(), data);

    host.says(&membership(2, 0x17));
    let groups = scene.told_groups();
    assert_eq!(groups.members(segment(), group), None);
    scene.apply(Some(groups));
    source.says(&data);
    // Had that been carried, the host would hear it before this one.
    let mut plain = [Mac::BROADCAST.bytes(), mac(1).bytes()].concat();
    plain.resize(60, 0xab);
    source.says(&plain);
    assert_eq!(host.hears(), plain);
}
