//! A superframe that a Linux peer's kernel handed over uncut, with its checksum unfinished, through the core.
//! That such frames arrive at all is shown by the tests with a real Linux peer.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use vswitch_core::offload::GsoKind;
use vswitch_core::port::{Carries, InnerVlan, Port, PortId, Tunnel};
use vswitch_core::switch::{Bridge, Topology, Worker};
use vswitch_core::wire::vxlan::Vni;
use vswitch_core::{Arrival, Attachment, Batch, Instant, MacTable, Offload, TxList, Vlan};
use vswitch_tests::frames::{Frame, Tcp, checksum, protocol, pseudo_header, station, tcp_flag, vxlan};

fn port(number: u32) -> PortId {
    PortId::new(number).unwrap()
}

/// The facts with which a datagram from `remote` with this inner frame leaves by a local port.
fn facts(remote: &str, inner: &[u8]) -> Offload {
    let (vlan, vni, remote) = (Vlan::new(10).unwrap(), Vni::new(10).unwrap(), remote.parse().unwrap());
    let tunnel = Tunnel {
        remote,
        local: None,
        udp_port: 4789,
        carries: Carries::PerVni(None),
        floods: None,
        inner_vlan: InnerVlan::Strip,
        strict: false,
    };
    let mut peer = Port::new(port(1), Attachment::Tunnel(tunnel));
    peer.mtu = 1500;
    let bridge = Bridge { vnis: [(vlan, vni)].into(), ..Bridge::default() };
    let topology = Topology::new(vec![bridge], [Port::new(port(0), Attachment::Access(vlan)), peer]).unwrap();
    let macs = MacTable::new(64, Duration::from_secs(300), [1, 2]);
    let mut worker = Worker::new(Arc::new(topology), Arc::new(macs));
    let (mut batch, mut tx) = (Batch::new(1), TxList::new());
    let arrival = Arrival::Underlay { local: remote, remote, udp_port: 4789 };
    assert!(batch.copy_in(arrival, &vxlan(vni, inner), Offload::NONE));
    worker.forward(Instant::ZERO, &batch, &mut tx);
    let record = tx.records(port(0)).next().expect("it is carried");
    record.offload
}

/// A TCP frame with `len` bytes of payload whose checksum field holds the pseudo-header's sum only.
fn unfinished(src: &str, dst: &str, len: usize) -> Vec<u8> {
    let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
    let tcp = Tcp { src: (src, 1), dst: (dst, 2), seq: 3, ack: 4, flags: tcp_flag::ACK, window: 5 };
    let mut frame = Frame::new(station(1), station(2)).tcp(&tcp, &vec![7; len]).bytes();
    let at = frame.len() - len - 20;
    let sum = !checksum(pseudo_header(src, dst, protocol::TCP, len + 20), &[]);
    frame[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn a_superframe_from_a_linux_peer_is_to_be_cut_to_what_fits_the_path() {
    for (remote, src, dst, header, kind) in [
        ("192.0.2.1", "10.0.0.1", "10.0.0.2", 54, GsoKind::Tcp4),
        ("192.0.2.1", "fd00::1", "fd00::2", 74, GsoKind::Tcp6),
        ("2001:db8::1", "10.0.0.1", "10.0.0.2", 54, GsoKind::Tcp4),
    ] {
        // An inner IP packet of 1,450 or 1,430 bytes crosses an underlay of 1,500.
        let room = if remote.contains(':') { 1430 } else { 1450 } + 14;
        let largest = facts(remote, &unfinished(src, dst, room - header));
        assert!(largest.checksum.is_some() && largest.gso.is_none());
        for len in [room - header + 1, 65_000] {
            let offload = facts(remote, &unfinished(src, dst, len));
            let gso = offload.gso.expect("a superframe");
            assert_eq!(gso.kind, kind);
            assert_eq!((usize::from(gso.header_len), usize::from(gso.size)), (header, room - header));
            assert_eq!(usize::from(offload.checksum.unwrap().start), header - 20);
        }
    }
}

#[test]
fn a_large_frame_that_owes_nothing_is_carried_as_it_is() {
    let mut frame = unfinished("10.0.0.1", "10.0.0.2", 4000);
    let finished = Frame::parse(&frame).unwrap();
    assert_eq!(finished.bytes(), frame);
    // Another value than the pseudo-header's: somebody has summed.
    frame[50] ^= 1;
    assert_eq!(facts("192.0.2.1", &frame), Offload::NONE);
}
