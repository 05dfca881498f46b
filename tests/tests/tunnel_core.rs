//! Ordinary tunnels by the core: ports whose wire is the underlay, as Open vSwitch's `vxlan` interfaces are.
//!
//! What such a port does with VLANs is what a port of the same attachment does on a wire of its own, so the two are held
//! to each other. Not here: peers of a mesh (see `vxlan_core.rs`), sockets.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use std::net::IpAddr;
use vswitch_core::offload::{Checksum, Gso, GsoKind};
use vswitch_core::port::{Carries, Group, InnerVlan, Tunnel};
use vswitch_core::switch::{Bridge, Topology};
use vswitch_core::verdict::Why;
use vswitch_core::{
    Arrival, Attachment, DropReason, Instant, Mac, Offload, Port, PortId, Segment, Vlan, Vni,
};
use vswitch_tests::driven::{Driven, Passed};
use vswitch_tests::frames::{Frame, Tcp, ctag, describe_all, hex, stag, station, tcp_flag, vxlan};
use vswitch_tests::offload_body::Choices;
use vswitch_tests::reference::{Sent, Spec};
use vswitch_tests::rng::Rng;
use vswitch_tests::switch_body::{some_frame, some_spec};

const IN: u32 = 7;
const OUT: u32 = 8;

fn id(number: u32) -> PortId {
    PortId::new(number).unwrap()
}

fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

fn remote(n: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, n])
}

fn trunk(number: u32) -> Port {
    Port::new(id(number), Attachment::trunk_all())
}

fn access(number: u32, vlan: u16) -> Port {
    Port::new(id(number), Attachment::Access(Vlan::new(vlan).unwrap()))
}

/// `port` with the underlay in the place of its wire, towards `remote`.
fn tunnelled(port: Port, remote: IpAddr) -> Port {
    let tunnel = Tunnel {
        remote,
        local: None,
        udp_port: 4789,
        carries: Carries::Inside {
            in_vni: vni(IN),
            out_vni: vni(OUT),
            attachment: Box::new(port.attachment),
        },
        floods: None,
        inner_vlan: InnerVlan::Strip,
        strict: false,
    };
    Port { attachment: Attachment::Tunnel(tunnel), ..port }
}

fn edit(port: &mut Port, change: impl FnOnce(&mut Tunnel)) {
    let Attachment::Tunnel(tunnel) = &mut port.attachment else { panic!("port {} is no tunnel", port.id) };
    change(tunnel);
}

fn to(local: IpAddr, udp_port: u16, remote: IpAddr) -> Arrival {
    Arrival::Underlay { local, remote, udp_port }
}

fn from_remote(switch: &mut Driven, remote: IpAddr, datagram: &[u8]) -> Passed {
    switch.pass(Instant::ZERO, to(IpAddr::from([0, 0, 0, 0]), 4789, remote), datagram)
}

fn from_local(switch: &mut Driven, port: u32, frame: &Frame) -> Passed {
    switch.pass(Instant::ZERO, Arrival::Port(id(port)), &frame.bytes())
}

fn ports(passed: &Passed) -> Vec<u32> {
    passed.sent.iter().map(|sent| sent.0.get()).collect()
}

fn plain() -> Frame {
    Frame::new(Mac::BROADCAST, station(1))
}

#[test]
fn a_tunnel_does_with_every_frame_what_a_port_of_its_attachment_does() {
    let mut rng = Rng::from_env(61);
    let (mut sent, mut refused) = (0, 0);
    for _ in 0..200 {
        let data = rng.bytes(2500);
        let choices = &mut Choices::new(&data);
        let mut wired = some_spec(choices);
        wired.ports.retain(|port| port.tunnel().is_none());
        wired.bridges.iter_mut().for_each(|bridge| bridge.neigh_suppress = false);
        let mut mixed = wired.clone();
        let chosen = choices.byte() | 1;
        let is_tunnel = |port: PortId| chosen >> (port.get() % 8) & 1 != 0;
        let address = |port: PortId| remote(u8::try_from(port.get()).unwrap());
        for port in mixed.ports.iter_mut().filter(|port| is_tunnel(port.id)) {
            *port = tunnelled(port.clone(), address(port.id));
            port.mtu = 9000;
        }
        let (mut wired, mut mixed, ports) = (Driven::new(&wired), Driven::new(&mixed), wired.ports);
        for step in 0..40u64 {
            let port = ports[usize::from(choices.byte()) % ports.len()].id;
            let frame = some_frame(choices, 5);
            let now = Instant::from_secs(step);
            let expected = wired.pass(now, Arrival::Port(port), &frame);
            let passed = if is_tunnel(port) {
                let arrival = to(remote(200), 4789, address(port));
                mixed.pass(now, arrival, &vxlan(vni(IN), &frame))
            } else {
                mixed.pass(now, Arrival::Port(port), &frame)
            };
            let wrap = |(port, bytes): &(PortId, Vec<u8>)| {
                (*port, if is_tunnel(*port) { vxlan(vni(OUT), bytes) } else { bytes.clone() })
            };
            let expected_sent: Sent = expected.sent.iter().map(wrap).collect();
            assert_eq!(describe_all(&passed.sent), describe_all(&expected_sent), "{}", hex(&frame));
            assert_eq!((passed.sent, passed.dropped), (expected_sent, expected.dropped));
            let (counted, wired) =
                (mixed.worker().counters().port(port), wired.worker().counters().port(port));
            assert_eq!((counted.rx_frames, counted.rx_bytes), (wired.rx_frames, wired.rx_bytes));
            *(if passed.dropped.is_some() { &mut refused } else { &mut sent }) += 1;
        }
    }
    assert!(sent > 1000 && refused > 1000, "{sent} sent, {refused} refused");
}

#[test]
fn tags_go_inside_and_each_way_has_its_vni() {
    let mut switch = Driven::new(&Spec::new(vec![
        access(1, 10),
        trunk(2),
        tunnelled(trunk(8), remote(8)),
        tunnelled(access(9, 10), remote(9)),
    ]));
    let tagged = plain().tag(ctag(10, 0)).bytes();
    let untagged = plain().bytes();
    let passed = from_local(&mut switch, 1, &plain());
    let expected =
        [(id(2), tagged.clone()), (id(8), vxlan(vni(OUT), &tagged)), (id(9), vxlan(vni(OUT), &untagged))];
    assert_eq!(passed.sent, expected);
    // Without split horizon: what one brings, the other hears.
    let passed = from_remote(&mut switch, remote(8), &vxlan(vni(IN), &tagged));
    assert_eq!(
        passed.sent,
        [(id(1), untagged.clone()), (id(2), tagged), (id(9), vxlan(vni(OUT), &untagged))]
    );
    assert_eq!(
        from_remote(&mut switch, remote(8), &vxlan(vni(OUT), &untagged)).dropped,
        Some(DropReason::UnknownVni)
    );
    // A station behind a tunnel is found there, and moves like any other.
    let answer = Frame::new(station(1), station(2)).tag(ctag(10, 0));
    assert_eq!(ports(&from_local(&mut switch, 2, &answer)), [8]);
    assert_eq!(ports(&from_remote(&mut switch, remote(9), &vxlan(vni(IN), &untagged))), [1, 2, 8]);
    assert_eq!(ports(&from_local(&mut switch, 2, &answer)), [9]);
    let twice = plain().tag(stag(10, 5)).tag(ctag(7, 1)).bytes();
    let passed = switch.pass(Instant::ZERO, Arrival::Port(id(2)), &twice);
    assert_eq!(passed.sent.iter().find(|sent| sent.0 == id(8)).unwrap().1, vxlan(vni(OUT), &twice));
}

#[test]
fn tunnels_of_one_group_do_not_hear_each_other() {
    let mut spec = Spec::new(vec![trunk(1), tunnelled(trunk(8), remote(8)), tunnelled(trunk(9), remote(9))]);
    spec.ports.iter_mut().skip(1).for_each(|port| port.group = Group::MESH);
    let mut switch = Driven::new(&spec);
    assert_eq!(ports(&from_remote(&mut switch, remote(8), &vxlan(vni(IN), &plain().bytes()))), [1]);
}

#[test]
fn a_datagram_is_for_the_tunnel_that_says_most_of_it() {
    let here = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]);
    let far = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 2]);
    let with = |number: u32, change: &dyn Fn(&mut Tunnel)| {
        let mut port = tunnelled(trunk(number), far);
        edit(&mut port, |tunnel| change(tunnel));
        port
    };
    let set_vni = |tunnel: &mut Tunnel, number: u32| {
        if let Carries::Inside { in_vni, .. } = &mut tunnel.carries {
            *in_vni = vni(number);
        }
    };
    let mut spec = Spec::new(vec![
        trunk(1),
        with(10, &|_| {}),
        with(11, &|tunnel| tunnel.local = Some(here)),
        with(12, &|tunnel| tunnel.udp_port = 8472),
        with(13, &|tunnel| set_vni(tunnel, 99)),
        Port::peer(id(40), far, 4789, 1500),
    ]);
    spec.bridges[0].vnis.insert(Vlan::new(10).unwrap(), vni(1010));
    let mut switch = Driven::new(&spec);
    for (local, udp_port, number, expected) in [
        (remote(1), 4789, IN, Some(10)),
        (IpAddr::from([0; 16]), 4789, IN, Some(10)),
        (here, 4789, IN, Some(11)),
        (here, 8472, IN, Some(12)),
        (here, 4789, 99, Some(13)),
        (here, 4789, 1010, Some(40)),
        (here, 8472, 1010, Some(40)),
        (here, 8472, 99, None),
        (here, 4789, 5, None),
    ] {
        let frame = Frame::new(Mac::BROADCAST, station(number)).bytes();
        let passed = switch.pass(Instant::ZERO, to(local, udp_port, far), &vxlan(vni(number), &frame));
        assert_eq!(passed.dropped, expected.is_none().then_some(DropReason::UnknownVni));
        let found = [0, 10].iter().find_map(|vlan| {
            let segment = Segment::new(0, Vlan::new(*vlan).unwrap()).unwrap();
            switch.macs().lookup(Instant::ZERO, segment, station(number))
        });
        assert_eq!(found.map(PortId::get), expected, "{local} {udp_port} {number}");
        switch.macs().flush();
    }
    // What no tunnel takes is the peer's, and counted there.
    assert_eq!(switch.worker().counters().port(id(40)).dropped[DropReason::UnknownVni.index()], 2);
}

#[test]
fn a_remote_of_tunnels_alone_is_known_and_its_other_datagrams_belong_to_nobody() {
    let mut spec = Spec::new(vec![trunk(1), tunnelled(trunk(8), remote(8))]);
    edit(&mut spec.ports[1], |tunnel| tunnel.strict = true);
    let mut switch = Driven::new(&spec);
    let good = vxlan(vni(IN), &plain().bytes());
    let mut reserved = good.clone();
    reserved[7] = 1;
    let mut without_vni = good.clone();
    without_vni[0] = 0;
    for (from, datagram, reason, port) in [
        (8, &vxlan(vni(5), &plain().bytes()), DropReason::UnknownVni, None),
        (8, &without_vni, DropReason::VxlanNoVni, None),
        (8, &good[..7].to_vec(), DropReason::VxlanShort, None),
        (8, &good[..20].to_vec(), DropReason::ShortFrame, Some(8)),
        (8, &reserved, DropReason::VxlanReserved, Some(8)),
        (9, &good, DropReason::UnknownPeer, None),
    ] {
        let passed = from_remote(&mut switch, remote(from), datagram);
        assert_eq!(passed.dropped, Some(reason));
        let counters = switch.worker().counters();
        let at = port.map_or(counters.no_port, |port| counters.port(id(port)).dropped);
        assert_eq!(at[reason.index()], 1, "{reason}");
    }
    assert_eq!(switch.worker().counters().port(id(8)).rx_frames, 2);
}

#[test]
fn two_tunnels_for_the_same_datagrams_are_refused_by_name() {
    let two = |change: &dyn Fn(&mut Tunnel)| {
        let mut other = tunnelled(trunk(9), remote(8));
        edit(&mut other, |tunnel| change(tunnel));
        let built = Topology::new(vec![Bridge::default()], [tunnelled(trunk(8), remote(8)), other]);
        built.err().map(|error| error.to_string())
    };
    let same = Some("two tunnels take VNI 7 from 192.0.2.8".to_owned());
    assert_eq!(two(&|_| {}), same);
    assert_eq!(two(&|tunnel| tunnel.local = Some(IpAddr::from([0; 4]))), same);
    assert_eq!(two(&|tunnel| tunnel.local = Some(remote(1))), None);
    assert_eq!(two(&|tunnel| tunnel.udp_port = 8472), None);
    let nested = tunnelled(tunnelled(trunk(8), remote(8)), remote(9));
    let built = Topology::new(vec![Bridge::default()], [nested]);
    assert_eq!(built.err().unwrap().to_string(), "port 8 is a tunnel inside a tunnel");
}

#[test]
fn what_does_not_fit_the_path_is_told_to_the_sender() {
    for (remote, overhead) in [(remote(8), 50), (IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 8]), 70)] {
        let mut switch = Driven::new(&Spec::new(vec![access(1, 10), tunnelled(trunk(8), remote)]));
        let frame = |len: usize| Frame::new(station(9), station(1)).payload(0x0800, &vec![0x45; len]);
        // The tag travels inside, so it takes four bytes of what fits.
        let fits = 1500 - overhead - 4;
        assert_eq!(ports(&from_local(&mut switch, 1, &frame(fits))), [8]);
        let passed = from_local(&mut switch, 1, &frame(fits + 1));
        assert_eq!(passed.dropped, Some(DropReason::TooBig));
        assert_eq!(passed.punts[0].why, Why::TooBig { mtu: u16::try_from(fits).unwrap() });
    }
}

#[test]
fn a_superframe_crosses_whole_with_its_facts() {
    let mut switch = Driven::new(&Spec::new(vec![access(1, 10), tunnelled(trunk(8), remote(8))]));
    let header = Tcp {
        src: (IpAddr::from([10, 0, 0, 1]), 1),
        dst: (IpAddr::from([10, 0, 0, 2]), 2),
        seq: 1,
        ack: 1,
        flags: tcp_flag::ACK,
        window: 9,
    };
    let frame = Frame::new(Mac::BROADCAST, station(1)).tcp(&header, &[7; 20_000]);
    let owed = |at: u16| Offload {
        checksum: Some(Checksum { start: at + 20, offset: 16 }),
        gso: Some(Gso { kind: GsoKind::Tcp4, size: 1300, header_len: at + 40 }),
    };
    let passed = switch.pass_owing(Instant::ZERO, Arrival::Port(id(1)), &frame.bytes(), owed(14));
    assert_eq!(passed.sent, [(id(8), vxlan(vni(OUT), &frame.clone().tag(ctag(10, 0)).bytes()))]);
    assert_eq!(passed.facts[0].0, owed(14 + 4 + 8));
    let datagram = vxlan(vni(IN), &frame.clone().tag(ctag(10, 0)).bytes());
    let passed =
        switch.pass_owing(Instant::ZERO, to(remote(1), 4789, remote(8)), &datagram, owed(14 + 4 + 8));
    assert_eq!((&passed.sent[..], passed.facts[0].0), (&[(id(1), frame.bytes())][..], owed(14)));
}
