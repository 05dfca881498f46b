//! Multicast in a bridge that snoops, one behaviour at a time (RFC 4541): who is sent what.
#![allow(clippy::unwrap_used, reason = "a test's panics are failures")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;
use vswitch_core::switch::{Bridge, Groups, Snooping, Topology, Worker};
use vswitch_core::verdict::Why;
use vswitch_core::{
    Arrival, Attachment, Batch, DropReason, Instant, MacTable, Offload, Port, PortId, Segment, TxList, Vlan,
};

/// Two hosts, a router, and ports that are sent all multicast and all reports; an access port of another VLAN; a trunk.
const HOST: u32 = 1;
const MEMBER: u32 = 2;
const ROUTER: u32 = 3;
const FLOODED: u32 = 4;
const REPORTED: u32 = 5;
const OTHER: u32 = 6;
const TRUNK: u32 = 7;
const EVERYBODY: [u32; 5] = [MEMBER, ROUTER, FLOODED, REPORTED, TRUNK];

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);

fn id(number: u32) -> PortId {
    PortId::new(number).unwrap()
}

fn vlan(number: u16) -> Vlan {
    Vlan::new(number).unwrap()
}

fn segment() -> Segment {
    Segment::new(0, vlan(10)).unwrap()
}

fn v4(group: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let [_, b, c, d] = group.octets();
    let mut bytes = vec![1, 0, 0x5e, b & 0x7f, c, d, 2, 0, 0, 0, 0, 1, 8, 0];
    let total = u8::try_from(20 + payload.len()).unwrap();
    bytes.extend([0x45, 0, 0, total, 0, 0, 0, 0, 1, protocol, 0, 0, 10, 0, 0, 1]);
    bytes.extend(group.octets());
    bytes.extend(payload);
    bytes
}

/// With a hop-by-hop header where `alert`, as messages of MLD have.
fn v6(group: Ipv6Addr, alert: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let octets = group.octets();
    let mut bytes = vec![0x33, 0x33];
    bytes.extend(&octets[12..]);
    bytes.extend([2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0, 0]);
    let options: &[u8] = if alert { &[protocol, 0, 5, 2, 0, 0, 1, 0] } else { &[] };
    bytes.push(u8::try_from(options.len() + payload.len()).unwrap());
    bytes.extend([if alert { 0 } else { protocol }, 1]);
    bytes.extend(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).octets());
    bytes.extend(octets);
    bytes.extend(options);
    bytes.extend(payload);
    bytes
}

fn igmp(kind: u8, group: Ipv4Addr) -> Vec<u8> {
    v4(group, 2, &[&[kind, 0, 0, 0][..], &group.octets()].concat())
}

fn mld(kind: u8) -> Vec<u8> {
    v6(GROUP6, true, 58, &[&[kind, 0, 0, 0, 0, 0, 0, 0][..], &GROUP6.octets()].concat())
}

struct Switch {
    worker: Worker,
    tx: TxList,
    batch: Batch,
}

impl Switch {
    fn new(flood_unregistered: bool) -> Self {
        let access = |number: u32, tag| Port::new(id(number), Attachment::Access(vlan(tag)));
        let mut ports = [HOST, MEMBER, ROUTER, FLOODED, REPORTED].map(|number| access(number, 10)).to_vec();
        ports[3].mcast_flood = true;
        ports[4].mcast_flood_reports = true;
        ports.extend([access(OTHER, 20), Port::new(id(TRUNK), Attachment::trunk_all())]);
        let snooping = Some(Snooping { flood_unregistered });
        let topology = Topology::new(vec![Bridge { snooping, ..Bridge::default() }], ports).unwrap();
        let macs = Arc::new(MacTable::few_ports(100, Duration::from_secs(300), [1, 2]));
        topology.ports().for_each(|port| macs.bind(port.id, None));
        let mut worker = Worker::new(Arc::new(topology), macs);
        let members = [IpAddr::V4(GROUP), IpAddr::V6(GROUP6)].map(|group| (segment(), group, id(MEMBER)));
        // One that is in a group, and a router as well; one that has gone to another VLAN since.
        let members = members.into_iter().chain([
            (segment(), IpAddr::V4(GROUP), id(ROUTER)),
            (segment(), IpAddr::V4(GROUP), id(OTHER)),
            (segment(), IpAddr::V4(GROUP), id(77)),
        ]);
        worker.set_groups(Arc::new(Groups::new(members, [(segment(), id(ROUTER))])));
        Self { worker, tx: TxList::new(), batch: Batch::new(1) }
    }

    /// By which ports it leaves, once for each time, and whether the slow path sees it.
    fn pass(&mut self, port: u32, bytes: &[u8]) -> (Vec<u32>, bool) {
        let now = Instant::from_secs(1);
        let told = self.worker.explain(now, Arrival::Port(id(port)), bytes);
        let mut told: Vec<u32> = told.outputs.iter().map(|output| output.port.get()).collect();
        self.batch.clear();
        self.tx.clear();
        self.batch.copy_in(Arrival::Port(id(port)), bytes, Offload::NONE);
        self.worker.forward(now, &self.batch, &mut self.tx);
        let records = self.tx.ports().iter().flat_map(|port| self.tx.records(*port).map(|_| port.get()));
        let mut sent: Vec<u32> = records.collect();
        told.sort_unstable();
        sent.sort_unstable();
        assert_eq!(told, sent, "explain and forward agree");
        let punts: Vec<Why> = self.worker.punts().iter().map(|punt| punt.why).collect();
        assert!(punts.is_empty() || punts == [Why::Snoop], "{punts:?}");
        assert!(self.worker.punts().iter().all(|punt| punt.segment.is_some() && punt.port == id(port)));
        (sent, !punts.is_empty())
    }
}

#[test]
fn a_group_that_somebody_joined_is_for_its_members_for_routers_and_for_who_is_sent_all() {
    for flood_unregistered in [false, true] {
        let mut switch = Switch::new(flood_unregistered);
        for bytes in [v4(GROUP, 17, &[0; 8]), v6(GROUP6, false, 17, &[0; 8])] {
            assert_eq!(switch.pass(HOST, &bytes), (vec![MEMBER, ROUTER, FLOODED], false));
            assert_eq!(switch.pass(MEMBER, &bytes), (vec![ROUTER, FLOODED], false));
        }
    }
}

#[test]
fn a_group_that_nobody_joined_is_flooded_unless_it_is_for_routers_alone() {
    let stranger = v4(Ipv4Addr::new(239, 9, 9, 9), 17, &[0; 8]);
    assert_eq!(Switch::new(true).pass(HOST, &stranger), (EVERYBODY.to_vec(), false));
    let mut switch = Switch::new(false);
    assert_eq!(switch.pass(HOST, &stranger), (vec![ROUTER, FLOODED], false));
    // In a VLAN without a router nobody hears it.
    assert_eq!(switch.pass(OTHER, &stranger), (vec![], false));
    let dropped = switch.worker.counters().port(id(OTHER)).dropped;
    assert_eq!(dropped[DropReason::NoListener.index()], 1);
}

#[test]
fn reports_are_for_routers_and_queries_for_all() {
    let mut switch = Switch::new(false);
    for kind in [0x12, 0x16, 0x22, 0x17] {
        assert_eq!(switch.pass(HOST, &igmp(kind, GROUP)), (vec![ROUTER, REPORTED], true), "{kind:#x}");
    }
    for kind in [131, 143] {
        assert_eq!(switch.pass(HOST, &mld(kind)), (vec![ROUTER, REPORTED], true), "{kind}");
    }
    assert_eq!(switch.pass(HOST, &igmp(0x11, Ipv4Addr::new(224, 0, 0, 1))), (EVERYBODY.to_vec(), true));
    for kind in [130, 132] {
        assert_eq!(switch.pass(HOST, &mld(kind)), (EVERYBODY.to_vec(), true), "{kind}");
    }
}

#[test]
fn what_stays_on_a_link_is_flooded() {
    let mut switch = Switch::new(false);
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut arp = vec![0xff; 6];
    arp.extend([2, 0, 0, 0, 0, 1, 8, 6]);
    arp.extend([0; 28]);
    let mut other = arp.clone();
    other[0] = 0x09;
    for bytes in [
        v4(Ipv4Addr::new(224, 0, 0, 251), 17, &[0; 8]),
        v6(all_nodes, false, 58, &[135, 0, 0, 0]),
        arp,
        other,
        // Cut short: no IP at all.
        v4(GROUP, 17, &[])[..30].to_vec(),
    ] {
        assert_eq!(switch.pass(HOST, &bytes), (EVERYBODY.to_vec(), false), "{bytes:02x?}");
    }
}

#[test]
fn a_part_of_a_datagram_is_no_message_and_one_behind_a_tag_is() {
    let mut switch = Switch::new(false);
    let mut part = igmp(0x16, GROUP);
    part[20] = 0x20;
    // IGMP all the same, and not known to be a report.
    assert_eq!(switch.pass(HOST, &part).0, EVERYBODY.to_vec());
    let mut tagged = igmp(0x16, GROUP);
    tagged.splice(12..12, [0x81, 0, 0, 10]);
    assert_eq!(switch.pass(TRUNK, &tagged), (vec![ROUTER, REPORTED], true));
}

#[test]
fn a_bridge_that_does_not_snoop_floods() {
    let ports = [1, 2, 3].map(|number| Port::new(id(number), Attachment::Access(vlan(10))));
    let topology = Topology::new(vec![Bridge::default()], ports).unwrap();
    let macs = Arc::new(MacTable::few_ports(100, Duration::from_secs(300), [1, 2]));
    let mut switch =
        Switch { worker: Worker::new(Arc::new(topology), macs), tx: TxList::new(), batch: Batch::new(1) };
    for bytes in [igmp(0x16, GROUP), v4(GROUP, 17, &[0; 8])] {
        assert_eq!(switch.pass(1, &bytes), (vec![2, 3], false));
    }
}
