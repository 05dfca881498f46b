//! Frames that others made: every shared capture through a port and through VXLAN, every frame accounted for; and
//! small captures of Linux and Open vSwitch, reproduced byte for byte.
//!
//! `tests/data/golden/README.md` says how the small ones were made. Not here: the daemon, which meets both alive.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use vswitch_core::port::{InnerVlan, PriorityTags};
use vswitch_core::{Arrival, Attachment, DropReason, Instant, Port, PortId, Vlan, Vni};
use vswitch_tests::driven::{Driven, Passed, from_peer};
use vswitch_tests::frames::{describe, hex, vxlan};
use vswitch_tests::pcap::{Capture, files, read_file, shared_dir};
use vswitch_tests::reference::Spec;

const ACCESS: u32 = 1;
const TRUNK: u32 = 2;
const OTHER: u32 = 3;
const PEER: u32 = 40;

fn id(number: u32) -> PortId {
    PortId::new(number).unwrap()
}

fn vlan(number: u16) -> Vlan {
    Vlan::new(number).unwrap()
}

fn remote() -> IpAddr {
    IpAddr::from([192, 0, 2, 1])
}

/// An access port and a trunk, a second trunk that listens, and a peer; `vni` is VLAN 10's.
fn spec(vni: u32, inner_vlan: InnerVlan) -> Spec {
    let mut peer = Port::peer(id(PEER), remote(), 4789, 65_535);
    if let Attachment::Tunnel(tunnel) = &mut peer.attachment {
        tunnel.inner_vlan = inner_vlan;
    }
    let mut spec = Spec::new(vec![
        Port::new(id(ACCESS), Attachment::Access(vlan(10))),
        Port::new(id(TRUNK), Attachment::trunk_all()),
        Port::new(id(OTHER), Attachment::trunk_all()),
        peer,
    ]);
    spec.bridges[0].vnis.insert(vlan(10), Vni::new(vni).unwrap());
    spec
}

/// What became of many frames: how many left, and how many died of what.
#[derive(Default)]
struct Tally {
    sent: u64,
    dropped: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn add(&mut self, passed: &Passed) {
        match passed.dropped {
            None => self.sent += 1,
            Some(reason) => *self.dropped.entry(reason.name()).or_default() += 1,
        }
    }

    fn all(&self) -> u64 {
        self.sent + self.dropped.values().sum::<u64>()
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Every capture there is: the shared ones and our own.
fn captures() -> Vec<(String, Capture)> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/golden");
    let shared = shared_dir().map(|shared| files(&shared.join("pcaps"))).unwrap_or_default();
    let all: Vec<PathBuf> = shared.into_iter().chain(files(&own)).collect();
    all.iter().map(|path| (name(path), read_file(path))).collect()
}

#[test]
fn every_captured_frame_leaves_or_dies_of_a_counted_reason() {
    for (name, capture) in captures() {
        for (how, inner_vlan) in [("strip", InnerVlan::Strip), ("carry", InnerVlan::Carry)] {
            for port in [ACCESS, TRUNK, PEER] {
                let mut switch = Driven::new(&spec(10_010, inner_vlan));
                let mut tally = Tally::default();
                for record in &capture.records {
                    let now = Instant::from_secs(1);
                    let passed = if port == PEER {
                        let datagram = vxlan(Vni::new(10_010).unwrap(), &record.bytes);
                        switch.pass(now, from_peer(remote()), &datagram)
                    } else {
                        switch.pass(now, Arrival::Port(id(port)), &record.bytes)
                    };
                    tally.add(&passed);
                    for (to, bytes) in &passed.sent {
                        // Whatever is done to tags, the last bytes are nobody's.
                        let kept = record.bytes.len().saturating_sub(12 + 8).min(bytes.len());
                        assert!(
                            bytes.ends_with(&record.bytes[record.bytes.len() - kept..]),
                            "{name} to {to}"
                        );
                    }
                }
                let records = capture.records.len() as u64;
                assert_eq!(tally.all(), records, "{name}");
                let counters = switch.worker().counters();
                assert_eq!(counters.port(id(port)).rx_frames, records, "{name}");
                let counted: u64 =
                    [ACCESS, TRUNK, OTHER, PEER].iter().flat_map(|p| counters.port(id(*p)).dropped).sum();
                assert!(counted >= tally.dropped.values().sum(), "{name}");
                println!("{name} {how} port {port}: {} sent, {:?}", tally.sent, tally.dropped);
            }
        }
    }
}

#[test]
fn what_bridges_keep_to_themselves_stays() {
    for (name, capture) in captures() {
        let keeps = ["STP", "spanning_tree", "MSTP", "LACP"].iter().any(|word| name.contains(word));
        if !name.starts_with("tcpdump__802.1") && !keeps {
            continue;
        }
        let mut switch = Driven::new(&spec(10_010, InnerVlan::Strip));
        for record in capture.records.iter().filter(|r| r.bytes.starts_with(&[1, 0x80, 0xc2, 0, 0])) {
            let passed = switch.pass(Instant::ZERO, Arrival::Port(id(TRUNK)), &record.bytes);
            assert_eq!(passed.dropped, Some(DropReason::ReservedGroup), "{}", describe(&record.bytes));
        }
        assert!(switch.macs().is_empty());
    }
}

/// The payload of the UDP datagram in an IPv4 frame without tags.
fn udp_payload(frame: &[u8]) -> &[u8] {
    assert_eq!((frame[12..14].to_vec(), frame[23]), (vec![8, 0], 17), "{}", describe(frame));
    &frame[14 + usize::from(frame[14] & 15) * 4 + 8..]
}

fn shared_capture(name: &str) -> Option<Capture> {
    Some(read_file(&shared_dir()?.join("pcaps").join(name)))
}

#[test]
fn datagrams_of_other_switches_are_opened_and_made_again_byte_for_byte() {
    for (name, vni, frames) in
        [("tcpdump__vxlan.pcap", 100, 10), ("tcpdump__gso-ipv4-vxlan-ipv6.pcap", 5001, 1)]
    {
        let Some(capture) = shared_capture(name) else { return };
        assert_eq!(capture.records.len(), frames);
        for record in &capture.records {
            let datagram = udp_payload(&record.bytes);
            let mut switch = Driven::new(&spec(vni, InnerVlan::Strip));
            let opened = switch.pass(Instant::ZERO, from_peer(remote()), datagram);
            let access = opened.sent.iter().find(|sent| sent.0 == id(ACCESS)).unwrap();
            assert_eq!(hex(&access.1), hex(&datagram[8..]), "the inner frame as it was");
            // Back the other way, from the pod: the same datagram.
            let mut switch = Driven::new(&spec(vni, InnerVlan::Strip));
            let closed = switch.pass(Instant::ZERO, Arrival::Port(id(ACCESS)), &access.1);
            let again = closed.sent.iter().find(|sent| sent.0 == id(PEER)).unwrap();
            assert_eq!(hex(&again.1), hex(datagram));
        }
    }
}

#[test]
fn a_datagram_of_another_protocol_on_the_port_is_refused_by_name() {
    let Some(capture) = shared_capture("tcpdump__nsh-over-vxlan-gpe.pcap") else { return };
    let datagram = udp_payload(&capture.records[0].bytes);
    // By the letter of the RFC the bits of another protocol are reserved ones, which do not count.
    let passed = Driven::new(&spec(100, InnerVlan::Strip)).pass(Instant::ZERO, from_peer(remote()), datagram);
    assert_eq!(passed.dropped, Some(DropReason::UnknownVni));
    let mut strict = spec(0x00ff_ffff, InnerVlan::Strip);
    strict.ports.iter_mut().for_each(|port| {
        if let Attachment::Tunnel(tunnel) = &mut port.attachment {
            tunnel.strict = true;
        }
    });
    let passed = Driven::new(&strict).pass(Instant::ZERO, from_peer(remote()), datagram);
    assert_eq!(passed.dropped, Some(DropReason::VxlanReserved));
}

fn golden(name: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/golden").join(name);
    read_file(&path).records.into_iter().map(|record| record.bytes).collect()
}

/// A Linux bridge of one pod and a vxlan link: what went in at the pod, and the datagrams that came out.
#[test]
fn linux_makes_the_same_datagrams() {
    let (inside, outside) = (golden("linux-vxlan-inside.pcap"), golden("linux-vxlan-outside.pcap"));
    assert_eq!(inside.len(), outside.len());
    let mut switch = Driven::new(&spec(10_010, InnerVlan::Strip));
    for (frame, packet) in inside.iter().zip(&outside) {
        let passed = switch.pass(Instant::ZERO, Arrival::Port(id(ACCESS)), frame);
        let ours = passed.sent.iter().find(|sent| sent.0 == id(PEER)).unwrap();
        assert_eq!(hex(&ours.1), hex(udp_payload(packet)), "{}", describe(frame));
        assert_eq!(packet[36..38], 4789u16.to_be_bytes(), "{}", describe(packet));
    }
}

/// Open vSwitch's ports `a` (dot1q-tunnel of VLAN 10), `t` (trunk), `c` (access 10), `n` (native-untagged 10):
/// `ovs-IN.pcap` went in at port IN, and `ovs-IN-OUT.pcap` came out of port OUT, one frame for each.
#[test]
fn open_vswitch_translates_tags_the_same() {
    let ports = [
        ("a", Attachment::dot1q_tunnel(vlan(10), None)),
        ("t", Attachment::trunk_all()),
        ("c", Attachment::Access(vlan(10))),
        ("n", Attachment::native(vlan(10), false, vswitch_core::port::VlanSet::all())),
    ];
    let number = |name: &str| ports.iter().position(|port| port.0 == name).unwrap();
    let made: Vec<Port> = (1..)
        .zip(&ports)
        .map(|(n, (_, attachment))| {
            let mut port = Port::new(id(n), attachment.clone());
            port.priority_tags = PriorityTags::No;
            port
        })
        .collect();
    let mut compared = 0;
    for (from, _) in &ports {
        let inside = golden(&format!("ovs-{from}.pcap"));
        let mut left: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
        for frame in &inside {
            // Nothing is known: each floods.
            let mut switch = Driven::new(&Spec::new(made.clone()));
            let arrival = Arrival::Port(made[number(from)].id);
            for (port, bytes) in switch.pass(Instant::ZERO, arrival, frame).sent {
                left.entry(port.index() - 1).or_default().push(bytes);
            }
        }
        for (to, _) in ports.iter().filter(|(to, _)| to != from) {
            let theirs = golden(&format!("ovs-{from}-{to}.pcap"));
            let ours = left.remove(&number(to)).unwrap_or_default();
            let text = |frames: &[Vec<u8>]| frames.iter().map(|f| hex(f) + "\n").collect::<String>();
            assert_eq!(text(&ours), text(&theirs), "from {from} to {to}");
            compared += theirs.len();
        }
    }
    assert!(compared >= 40, "{compared} frames");
}
