//! Policed ports: what passes is the burst and the rate, each way, and the rest is dropped by name.
//!
//! The clock is the test's, but for the daemon's, where a rate of one frame in eight seconds is as good as none. Not here:
//! the arithmetic (see the policer's own tests).
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use std::sync::Arc;
use std::time::Duration;
use vswitch_core::policer::Policer;
use vswitch_core::port::{Attachment, Policers, Segment};
use vswitch_core::{Arrival, DropReason, Instant, Mac, Port, PortId, Verdict, Vlan, Vni};
use vswitch_tests::daemon::{Host, PATIENCE, Pod, Raw, number, with_host};
use vswitch_tests::driven::{Driven, from_peer};
use vswitch_tests::frames::{Frame, ctag, station, vxlan};
use vswitch_tests::lab::until;
use vswitch_tests::reference::Spec;

/// The least burst there is is one of the largest superframes, 65,557 bytes: so many frames of 1,000.
const BURST: usize = 65;
const LEN: usize = 1_000;
const START: Instant = Instant::from_secs(1);

fn id(number: u32) -> PortId {
    PortId::new(number).unwrap()
}

fn ten() -> Vlan {
    Vlan::new(10).unwrap()
}

fn frame(to: Mac, from: u32) -> Frame {
    Frame::new(to, station(from)).payload(0x88b5, &[0; LEN - 14])
}

/// A byte in a millisecond, 8 kbit/s, and the least burst.
fn policer() -> Option<Arc<Policer>> {
    Some(Arc::new(Policer::new(8, 0)))
}

/// Three access ports of VLAN 10, with these limits.
fn spec(limits: [Policers; 3]) -> Spec {
    let ports = (1..).zip(limits).map(|(number, policers)| {
        let mut port = Port::new(id(number), Attachment::Access(ten()));
        port.policers = policers;
        port
    });
    Spec::new(ports.collect())
}

fn from_port() -> Policers {
    Policers { ingress: policer(), egress: None }
}

fn to_port() -> Policers {
    Policers { ingress: None, egress: policer() }
}

fn none() -> Policers {
    Policers::default()
}

fn dropped(switch: &mut Driven, port: u32, reason: DropReason) -> u64 {
    switch.worker().counters().port(id(port)).dropped[reason.index()]
}

#[test]
fn a_port_sends_its_burst_and_then_its_rate_and_what_is_too_much_teaches_nothing() {
    let mut switch = Driven::new(&spec([from_port(), none(), none()]));
    let broadcast = frame(Mac::BROADCAST, 1).bytes();
    for _ in 0..BURST {
        assert_eq!(switch.pass(START, Arrival::Port(id(1)), &broadcast).sent.len(), 2);
    }
    let stranger = frame(Mac::BROADCAST, 7).bytes();
    let passed = switch.pass(START, Arrival::Port(id(1)), &stranger);
    assert_eq!(
        (passed.dropped, passed.story.verdict),
        (Some(DropReason::Policed), Verdict::Drop(DropReason::Policed))
    );
    assert_eq!(switch.macs().lookup(START, Segment::new(0, ten()).unwrap(), station(7)), None);
    let texts: Vec<String> =
        passed.story.steps.iter().map(|step| step.text(&|_| "\"pod\"".to_owned())).collect();
    assert!(
        texts.contains(&"more than the 8 kbit/s and the burst that port \"pod\" has".to_owned()),
        "{texts:?}"
    );
    // Others are not its affair, and it may be sent what there is.
    assert_eq!(switch.pass(START, Arrival::Port(id(2)), &frame(station(1), 2).bytes()).sent.len(), 1);
    // A second is a frame.
    let later = START.after(Duration::from_secs(1));
    assert_eq!(switch.pass(later, Arrival::Port(id(1)), &broadcast).dropped, None);
    assert_eq!(switch.pass(later, Arrival::Port(id(1)), &broadcast).dropped, Some(DropReason::Policed));
    assert_eq!(dropped(&mut switch, 1, DropReason::Policed), 2);
}

#[test]
fn what_is_dropped_for_another_reason_costs_nothing_of_what_may_pass() {
    let mut spec = spec([from_port(), none(), none()]);
    spec.ports[0].guard = Some(Arc::new(vswitch_core::port::Guard { mac: station(1), addresses: vec![] }));
    let mut switch = Driven::new(&spec);
    for _ in 0..2 * BURST {
        let spoofed = switch.pass(START, Arrival::Port(id(1)), &frame(Mac::BROADCAST, 7).bytes());
        assert_eq!(spoofed.dropped, Some(DropReason::SpoofedMac));
        let tagged = frame(Mac::BROADCAST, 1).tag(ctag(20, 0));
        let passed = switch.pass(START, Arrival::Port(id(1)), &tagged.bytes());
        assert_eq!(passed.dropped, Some(DropReason::VlanTaggedOnAccess));
    }
    for _ in 0..BURST {
        let passed = switch.pass(START, Arrival::Port(id(1)), &frame(Mac::BROADCAST, 1).bytes());
        assert_eq!(passed.dropped, None);
    }
}

#[test]
fn a_port_is_sent_its_burst_and_then_its_rate_whoever_sends_and_wherever_from() {
    let mut spec = spec([to_port(), none(), none()]);
    let remote = std::net::IpAddr::from([192, 0, 2, 8]);
    let vni = Vni::new(10_010).unwrap();
    spec.ports.push(Port::peer(id(4), remote, 4789, 1500));
    spec.bridges[0].vnis.insert(ten(), vni);
    let mut switch = Driven::new(&spec);
    switch.pass(START, Arrival::Port(id(1)), &frame(Mac::BROADCAST, 1).bytes());
    for n in 0..BURST {
        let sent = match n % 3 {
            0 => switch.pass(START, Arrival::Port(id(2)), &frame(station(1), 2).bytes()).sent,
            1 => switch.pass(START, Arrival::Port(id(3)), &frame(station(1), 3).bytes()).sent,
            _ => switch.pass(START, from_peer(remote), &vxlan(vni, &frame(station(1), 4).bytes())).sent,
        };
        assert_eq!(sent.len(), 1);
    }
    let refused = switch.pass(START, from_peer(remote), &vxlan(vni, &frame(station(1), 4).bytes()));
    assert_eq!(refused.dropped, Some(DropReason::PolicedEgress));
    assert_eq!(dropped(&mut switch, 1, DropReason::PolicedEgress), 1, "counted where it should have left");
    let other_way = switch.pass(START, Arrival::Port(id(1)), &frame(station(2), 1).bytes());
    assert_eq!(other_way.sent.len(), 1, "it may send what it likes");
}

#[test]
fn of_a_flood_each_policed_port_hears_its_own_share_and_the_others_all() {
    let mut switch = Driven::new(&spec([none(), to_port(), to_port()]));
    let broadcast = frame(Mac::BROADCAST, 1).bytes();
    // Port 3 has had one frame more.
    switch.pass(START, Arrival::Port(id(3)), &frame(Mac::BROADCAST, 3).bytes());
    switch.pass(START, Arrival::Port(id(2)), &frame(station(3), 2).bytes());
    for n in 0..BURST {
        let sent = switch.pass(START, Arrival::Port(id(1)), &broadcast).sent;
        // Port 2 heard the first frame of port 3 as well.
        assert_eq!(sent.len(), if n < BURST - 1 { 2 } else { 0 }, "{n}");
    }
    let nobody = switch.pass(START, Arrival::Port(id(1)), &broadcast);
    assert_eq!(nobody.story.verdict, Verdict::Drop(DropReason::PolicedEgress));
    assert_eq!(dropped(&mut switch, 2, DropReason::PolicedEgress), 2);
    assert_eq!(dropped(&mut switch, 3, DropReason::PolicedEgress), 2);
    assert_eq!(dropped(&mut switch, 1, DropReason::PolicedEgress), 0);
}

#[test]
fn a_new_configuration_with_the_same_policer_fills_no_bucket() {
    let limits = from_port();
    let spec = spec([limits, none(), none()]);
    let broadcast = frame(Mac::BROADCAST, 1).bytes();
    let mut before = Driven::new(&spec);
    (0..BURST).for_each(|_| drop(before.pass(START, Arrival::Port(id(1)), &broadcast)));
    // Another switch of the same ports is what a republish makes.
    let passed = Driven::new(&spec).pass(START, Arrival::Port(id(1)), &broadcast);
    assert_eq!(passed.dropped, Some(DropReason::Policed));
}

/// Sends `frames` frames and waits until the daemon has had them all.
fn send(host: &Host, raw: &Raw, port: &str, frames: u64) {
    let before = number(&host.port(port), "rx_frames");
    let bytes = frame(Mac::BROADCAST, 1).bytes();
    for sent in 1..=frames {
        raw.send(&bytes);
        if sent % 16 == 0 || sent == frames {
            until("the frames are read", PATIENCE, || {
                (number(&host.port(port), "rx_frames") == before + sent).then_some(())
            });
        }
    }
}

#[test]
fn the_daemon_polices_both_ways_and_a_change_elsewhere_fills_no_bucket() {
    with_host("the_daemon_polices_both_ways_and_a_change_elsewhere_fills_no_bucket", |lab, mut host| {
        let pods = [Pod::new(lab, "a"), Pod::new(lab, "b"), Pod::new(lab, "c")];
        let tables = [
            pods[0].table("pa", "tag = 10\ningress_policing_rate = 1\ningress_policing_burst = 1"),
            pods[1].table("pb", "tag = 10"),
            pods[2].table("pc", "tag = 20"),
        ];
        host.start_on(&tables.concat());
        let raws: Vec<Raw> = pods.iter().zip(["pa", "pb", "pc"]).map(|(pod, port)| pod.raw(port)).collect();
        let dropped = |reason: &str| host.drops().get(reason).copied().unwrap_or(0);
        send(&host, &raws[0], "pa", 100);
        // A frame more for every eight seconds that this takes.
        let policed = dropped("policed");
        assert!((20..=35).contains(&policed), "{policed} of 100");
        assert_eq!(number(&host.port("pa"), "rx_dropped"), policed);
        // What runs is published anew, with the bucket as it was.
        host.must("port set pc tag=30");
        send(&host, &raws[0], "pa", 65);
        assert!(dropped("policed") >= policed + 50, "{}", dropped("policed"));
        // Another rate is another bucket.
        let before = dropped("policed");
        host.must("port set pa ingress_policing_rate=2");
        send(&host, &raws[0], "pa", 64);
        assert_eq!(dropped("policed"), before);
        // No limit any more, but one for who hears it.
        host.must("port set pa ingress_policing_rate= ingress_policing_burst=");
        host.must("port set pb egress_policing_rate=1 egress_policing_burst=1");
        send(&host, &raws[0], "pa", 100);
        assert_eq!(dropped("policed"), before);
        let policed = dropped("policed_egress");
        assert!((20..=35).contains(&policed), "{policed} of 100");
        assert_eq!(number(&host.port("pb"), "tx_dropped"), policed);
    });
}
