//! Snooping whole, as a kernel's own hosts set it off: sockets join groups behind a TAP, a real worker hands their reports
//! out, the slow path tells of them, and multicast goes to them alone. Not here: the rules one by one (see
//! `slow/snooping/tests.rs`), and the daemon, in whose place the test gives workers what the slow path tells.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod link_support;

use crossbeam_channel::{Receiver, bounded};
use link_support::{LIMIT, isolated, up};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use vswitch_core::switch::{Bridge, Groups, Snooping, Topology};
use vswitch_core::wire::checksum::{Sum, checksum};
use vswitch_core::{Attachment, Batch, MacTable, Offload, Port, PortId, Segment, Vlan};
use vswitchd::config::SnoopingConfig;
use vswitchd::datapath::{Event, PortLink, Setup, Workers, punts};
use vswitchd::link::{AnyLink, Link as _, Memory, Source, open_or_adopt};
use vswitchd::slow::{Parts, SlowPath, SnoopedBridge, SnoopedPort};
use vswitchd::sys::event::wait_readable;
use vswitchd::sys::netlink::Netlink;

const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 1);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0x101);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

fn port(number: u32) -> PortId {
    PortId::new(number).unwrap()
}

fn segment() -> Segment {
    Segment::new(0, Vlan::new(10).unwrap()).unwrap()
}

/// A datagram of UDP to `group`, port 4000, from the pod behind port 2.
fn datagram(group: IpAddr, text: &str) -> Vec<u8> {
    let len = u16::try_from(8 + text.len()).unwrap();
    let mut udp = [4000_u16.to_be_bytes(), 4000_u16.to_be_bytes(), len.to_be_bytes(), [0; 2]].concat();
    udp.extend(text.bytes());
    match group {
        IpAddr::V4(group) => {
            let mut frame = vec![1, 0, 0x5e];
            frame.extend(&group.octets()[1..]);
            frame.extend([2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0]);
            frame.extend((len + 20).to_be_bytes());
            frame.extend([0, 0, 0, 0, 4, 17, 0, 0, 10, 9, 0, 9]);
            frame.extend(group.octets());
            let sum = checksum(&frame[14..]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
            [frame, udp].concat()
        }
        IpAddr::V6(group) => {
            let mut frame = vec![0x33, 0x33];
            frame.extend(&group.octets()[12..]);
            frame.extend([2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend([17, 4]);
            frame.extend("fe80::9".parse::<Ipv6Addr>().unwrap().octets());
            frame.extend(group.octets());
            let addresses = frame[22..54].first_chunk().unwrap();
            let sum = Sum::pseudo_v6(addresses, 17, len.into()).with(&udp).checksum();
            udp[6..8].copy_from_slice(&sum.to_be_bytes());
            [frame, udp].concat()
        }
    }
}

/// A general query of IGMPv2 from 10.9.0.9, behind port 2, to be answered within a tenth of a second.
fn query() -> Vec<u8> {
    let mut frame = datagram(Ipv4Addr::new(224, 0, 0, 1).into(), "");
    frame[23] = 2;
    frame[34..].copy_from_slice(&[0x11, 1, 0xee, 0xfe, 0, 0, 0, 0]);
    frame[24..26].fill(0);
    let sum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// What the switch has sent to `pod`, up to a frame of which this is the end.
fn hears_until(pod: &Memory, end: &[u8]) -> Vec<Vec<u8>> {
    let (mut batch, mut heard) = (Batch::new(16), Vec::new());
    loop {
        batch.clear();
        pod.receive(port(0), &mut batch);
        heard.extend((0..batch.len()).map(|i| batch.bytes(i).to_vec()));
        if heard.iter().any(|frame| frame.ends_with(end)) {
            return heard;
        }
        if batch.is_empty() {
            let ready = wait_readable(pod.fd().unwrap(), Some(LIMIT)).unwrap();
            assert!(ready.readable, "{end:?} did not come");
        }
    }
}

/// One worker and ports in VLAN 10: 1 is the TAP "tap1" of a host, 2 and 3 lead to pods in memory.
struct Scene {
    workers: Workers,
    slow: SlowPath,
    events: Receiver<Event>,
    setup: Setup,
    pods: [Memory; 2],
    tap_index: u32,
}

impl Scene {
    fn new() -> Self {
        let snooping = Some(Snooping { flood_unregistered: true });
        let bridge = Bridge { snooping, ..Bridge::default() };
        let ports = [1, 2, 3].map(|n| Port::new(port(n), Attachment::Access(Vlan::new(10).unwrap())));
        let macs = Arc::new(MacTable::new(1024, Duration::from_secs(300), [1, 2]));
        ports.iter().for_each(|port| macs.bind(port.id, None));
        let (tell, events) = bounded(4096);
        let (punts, punted) = punts();
        let workers = Workers::start(1, tell.clone(), Arc::new(|| {}), punts).unwrap();
        let tap = open_or_adopt(Source::Open { name: "tap1", offload: false }).unwrap();
        let (near, far): (Vec<_>, Vec<_>) = (0..2).map(|_| Memory::pair(4096).unwrap()).unzip();
        let all = std::iter::once(AnyLink::Tap(tap)).chain(near.into_iter().map(AnyLink::Memory));
        let links =
            (1..).zip(all).map(|(n, link)| Some(Arc::new(PortLink { port: port(n), worker: 0, link })));
        let setup = Setup {
            topology: Arc::new(Topology::new(vec![bridge], ports).unwrap()),
            macs: Some(macs),
            links: std::iter::once(None).chain(links).collect(),
            ..Setup::default()
        };
        workers.apply(&Arc::new(setup.clone())).unwrap();
        let slow = SlowPath::start(Parts {
            punted,
            injector: workers.injector(),
            directory: Arc::default(),
            events: tell,
            wake_control: Arc::new(|| {}),
            random: Box::new(|bytes| bytes.fill(7)),
        });
        let snooped = (1..=3).map(|n| (port(n), SnoopedPort::default()));
        let slow = slow.unwrap();
        slow.set_snooping(vec![SnoopedBridge {
            number: 0,
            config: SnoopingConfig::default(),
            ports: snooped.collect(),
        }]);
        let tap_index = up("tap1");
        Netlink::open().unwrap().add_address(tap_index, HOST.into(), 24).unwrap();
        let pods = far.try_into().unwrap();
        Self { workers, slow, events, setup, pods, tap_index }
    }

    /// Does what control does, until workers know groups that `wanted` likes.
    fn learns(&mut self, wanted: impl Fn(&Groups) -> bool) {
        loop {
            let event = self.events.recv_timeout(LIMIT).expect("groups are told");
            let Event::Groups(groups) = event else { continue };
            self.setup.groups = Some(Arc::clone(&groups));
            self.workers.apply(&Arc::new(self.setup.clone())).unwrap();
            if wanted(&groups) {
                return;
            }
        }
    }

    /// What the pod behind port 3 has been sent up to now.
    fn third_heard(&self, mark: &str) -> Vec<Vec<u8>> {
        // Everybody hears it, on a port of UDP at which nobody listens.
        let mut frame = datagram(Ipv4Addr::new(224, 0, 0, 1).into(), mark);
        frame[36..38].copy_from_slice(&4001_u16.to_be_bytes());
        self.pods[0].offer(&frame, Offload::NONE).unwrap();
        hears_until(&self.pods[1], mark.as_bytes())
    }

    /// The pod behind port 2 sends to `group`; whether the one behind port 3 hears it.
    fn third_hears(&self, group: IpAddr, text: &str) -> bool {
        self.pods[0].offer(&datagram(group, text), Offload::NONE).unwrap();
        let heard = self.third_heard(&format!("after: {text}."));
        heard.iter().any(|frame| frame.ends_with(text.as_bytes()))
    }
}

fn assert_hears(socket: &UdpSocket, text: &str) {
    let mut buffer = [0; 100];
    let (len, _) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(std::str::from_utf8(&buffer[..len]).unwrap(), text);
}

fn listens_until_it_leaves(bind: &str, group: IpAddr) {
    let mut scene = Scene::new();
    let socket = UdpSocket::bind((bind, 4000)).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    assert!(scene.third_hears(group, "to whom it may concern"), "nobody has joined: flooded");
    match group {
        IpAddr::V4(group) => socket.join_multicast_v4(&group, &HOST).unwrap(),
        IpAddr::V6(group) => socket.join_multicast_v6(&group, scene.tap_index).unwrap(),
    }
    scene.learns(|groups| groups.members(segment(), group) == Some(&[port(1)]));
    let listed = |scene: &Scene| scene.slow.groups().iter().any(|entry| entry.group == Some(group));
    assert!(listed(&scene));
    assert!(!scene.third_hears(group, "to the listener"), "it goes to who has joined");
    assert_hears(&socket, "to the listener");
    match group {
        IpAddr::V4(group) => socket.leave_multicast_v4(&group, &HOST).unwrap(),
        IpAddr::V6(group) => socket.leave_multicast_v6(&group, scene.tap_index).unwrap(),
    }
    scene.learns(|groups| groups.members(segment(), group).is_none());
    assert!(!listed(&scene));
    assert!(scene.third_hears(group, "to nobody in particular"));
    scene.workers.stop();
}

#[test]
fn who_joins_by_igmp_is_sent_the_group_and_nobody_else_is_until_it_leaves() {
    isolated(|| listens_until_it_leaves("0.0.0.0", GROUP_V4.into()));
}

#[test]
fn who_joins_by_mld_is_sent_the_group_and_nobody_else_is_until_it_leaves() {
    isolated(|| listens_until_it_leaves("::", GROUP_V6.into()));
}

#[test]
fn a_router_that_asks_is_sent_reports_and_other_hosts_are_not() {
    isolated(|| {
        let mut scene = Scene::new();
        scene.pods[0].offer(&query(), Offload::NONE).unwrap();
        scene.learns(|groups| groups.routers(segment()) == [port(2)]);
        // The host answers it as it was asked, in version 2: a report to the group itself.
        let socket = UdpSocket::bind(("0.0.0.0", 4000)).unwrap();
        socket.join_multicast_v4(&GROUP_V4, &HOST).unwrap();
        let mut report = vec![0x16, 0, 0, 0];
        report.extend(GROUP_V4.octets());
        let sum = checksum(&report);
        report[2..4].copy_from_slice(&sum.to_be_bytes());
        hears_until(&scene.pods[0], &report);
        scene.learns(|groups| groups.members(segment(), GROUP_V4.into()) == Some(&[port(1)]));
        let others = scene.third_heard("the end");
        assert!(!others.iter().any(|frame| frame.ends_with(&report)), "{others:?}");
        scene.workers.stop();
    });
}
