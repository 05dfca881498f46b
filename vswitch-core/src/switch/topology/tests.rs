//! A topology is built whole or refused by name, and knows who hears a flood.
//!
//! Not here: frames (see the core's own tests).

use super::*;
use alloc::string::ToString;
use alloc::vec;

fn id(number: u32) -> PortId {
    PortId::new(number).unwrap()
}

fn vlan(number: u16) -> Vlan {
    Vlan::new(number).unwrap()
}

fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

fn access(number: u32, tag: u16) -> Port {
    Port::new(id(number), Attachment::Access(vlan(tag)))
}

fn peer(number: u32, last: u8) -> Port {
    Port::peer(id(number), IpAddr::from([192, 0, 2, last]), 4789, 1500)
}

fn with_vnis(vnis: [(Vlan, Vni); 2]) -> Bridge {
    Bridge { vnis: vnis.into(), ..Bridge::default() }
}

fn hears(topology: &Topology, tag: u16) -> Vec<u32> {
    let segment = Segment::new(0, vlan(tag)).unwrap();
    let mut all: Vec<u32> = topology.listeners(segment).map(|edge| edge.id.get()).collect();
    all.sort_unstable();
    all
}

#[test]
fn two_things_of_one_name_are_refused_with_the_name() {
    let twice = with_vnis([(vlan(1), vni(5)), (vlan(2), vni(5))]);
    let mut elsewhere = access(1, 10);
    elsewhere.bridge = 1;
    let one = || vec![Bridge::default()];
    let cases = [
        (Topology::new(one(), [access(1, 1), access(1, 2)]), "two ports have the number 1"),
        (Topology::new(one(), [peer(1, 7), peer(2, 7)]), "two tunnels go to 192.0.2.7"),
        (Topology::new(vec![twice], []), "two segments have VNI 5"),
        (Topology::new(one(), [elsewhere]), "port 1 is in bridge 1, which does not exist"),
        (Topology::new(vec![Bridge::default(); 17], []), "17 bridges; 16 are allowed"),
    ];
    for (topology, text) in cases {
        assert_eq!(topology.unwrap_err().to_string(), text);
    }
}

#[test]
fn a_flood_is_heard_by_members_trunks_and_the_peers_of_its_vni() {
    let bridge = with_vnis([(vlan(10), vni(10)), (vlan(20), vni(20))]);
    let mut some = peer(8, 8);
    if let Attachment::Tunnel(tunnel) = &mut some.attachment {
        // A VNI named twice, and one that no segment has.
        tunnel.carries = Carries::PerVni(Some(vec![vni(20), vni(20), vni(99)]));
    }
    let trunk = Attachment::Trunk { vlans: [0, 10].map(vlan).into_iter().collect(), native: None };
    let ports = [
        access(1, 10),
        access(2, 20),
        Port::new(id(3), Attachment::trunk_all()),
        Port::new(id(4), trunk),
        Port::new(id(5), Attachment::native(vlan(20), false, VlanSet::all())),
        Port::new(id(6), Attachment::dot1q_tunnel(vlan(10), None)),
        peer(7, 7),
        some,
    ];
    let topology = Topology::new(vec![bridge], ports).unwrap();
    assert_eq!(hears(&topology, 0), [3, 4]);
    assert_eq!(hears(&topology, 10), [1, 3, 4, 5, 6, 7]);
    assert_eq!(hears(&topology, 20), [2, 3, 5, 7, 8]);
    assert_eq!(hears(&topology, 30), [3, 5]);
    assert_eq!(topology.port_numbers(), 9);
    assert_eq!(topology.ports().count(), 8);
    assert_eq!(topology.peer(IpAddr::from([192, 0, 2, 8])).map(|port| port.id), Some(id(8)));
    assert_eq!(topology.segment_of(vni(20)), Segment::new(0, vlan(20)));
    assert_eq!(topology.vni_of(Segment::new(0, vlan(10)).unwrap()), Some(vni(10)));
    assert_eq!(topology.vni_of(Segment::new(1, vlan(10)).unwrap()), None);
}

fn flooding(mut port: Port, carries: Option<Vec<Vni>>, floods: Option<Vec<Vni>>) -> Port {
    if let Attachment::Tunnel(tunnel) = &mut port.attachment {
        (tunnel.carries, tunnel.floods) = (Carries::PerVni(carries), floods);
    }
    port
}

#[test]
fn a_peer_hears_the_floods_of_the_vnis_that_it_hosts_and_still_shares_the_others() {
    let bridge = with_vnis([(vlan(10), vni(10)), (vlan(20), vni(20))]);
    let some = |vnis: &[u32]| Some(vnis.iter().copied().map(vni).collect::<Vec<_>>());
    let ports = [
        // In front of the local ports: their order says nothing.
        flooding(peer(3, 3), None, some(&[20, 20, 99])),
        flooding(peer(4, 4), None, some(&[])),
        flooding(peer(5, 5), some(&[10]), some(&[10, 20])),
        flooding(peer(6, 6), some(&[10, 20]), some(&[20])),
        flooding(peer(7, 7), None, None),
        access(1, 10),
        access(2, 20),
    ];
    let topology = Topology::new(vec![bridge], ports).unwrap();
    assert_eq!(hears(&topology, 10), [1, 5, 7]);
    assert_eq!(hears(&topology, 20), [2, 3, 6, 7]);
    assert_eq!(topology.port(id(4)).and_then(Port::tunnel).unwrap().floods, some(&[]));
}

#[test]
fn a_list_of_peers_is_kept_only_where_somebody_can_send_to_them() {
    let bridge = || vec![with_vnis([(vlan(10), vni(10)), (vlan(20), vni(20))])];
    let listed = |number, last| flooding(peer(number, last), None, Some(vec![vni(10), vni(20)]));
    let one = Topology::new(bridge(), [listed(8, 8), listed(9, 9), access(1, 10)]).unwrap();
    assert_eq!((hears(&one, 10), hears(&one, 20)), (vec![1, 8, 9], vec![]));
    // A trunk of all VLANs is in every one.
    let trunk = Port::new(id(1), Attachment::trunk_all());
    let all = Topology::new(bridge(), [listed(8, 8), trunk]).unwrap();
    assert_eq!((hears(&all, 10), hears(&all, 20)), (vec![1, 8], vec![1, 8]));
    // A tunnel in no group may be heard by another.
    let mut ordinary = listed(9, 9);
    ordinary.group = Group::NONE;
    let apart = Topology::new(bridge(), [listed(8, 8), ordinary, access(1, 10)]).unwrap();
    assert_eq!(hears(&apart, 20), [8, 9]);
}

/// Two million names are read to build it: anything that searched a list for each would take minutes.
#[test]
fn a_thousand_peers_of_a_thousand_vnis_each_are_built_in_one_pass() {
    let vnis: BTreeMap<Vlan, Vni> = (1..=1000).map(|n| (vlan(n), vni(10_000 + u32::from(n)))).collect();
    let all: Vec<Vni> = vnis.values().copied().collect();
    let peers = (0..1000u16).map(|n| {
        let remote = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n]);
        let port = Port::peer(id(10 + u32::from(n)), remote, 4789, 1500);
        flooding(port, (n % 2 == 0).then(|| all.clone()), Some(all.clone()))
    });
    let bridge = Bridge { vnis, ..Bridge::default() };
    let topology =
        Topology::new(vec![bridge], [access(1, 1), access(2, 500)].into_iter().chain(peers)).unwrap();
    assert_eq!(hears(&topology, 1).len(), 1001);
    assert_eq!(hears(&topology, 500).len(), 1001);
    assert!(hears(&topology, 2).is_empty());
}

#[test]
fn bridges_are_worlds_apart() {
    let mut other = access(2, 10);
    other.bridge = 1;
    let topology = Topology::new(vec![Bridge::default(); 2], [access(1, 10), other]).unwrap();
    assert_eq!(hears(&topology, 10), [1]);
    let far = Segment::new(1, vlan(10)).unwrap();
    assert_eq!(topology.listeners(far).map(|edge| edge.id.get()).collect::<Vec<_>>(), [2]);
    assert_eq!(topology.listeners(Segment::new(2, vlan(10)).unwrap()).count(), 0);
}
