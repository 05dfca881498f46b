//! Interfaces and their ports, tunnels and mirrors.
//!
//! Not here: bridges (see [`super`]).

use super::*;
use crate::config::{MirrorConfig, MirrorOutput, Policing, PriorityTags, TunnelConfig};

#[test]
fn an_interface_becomes_what_its_type_says() {
    let plain = |kind| PortConfig::of_bridge("br0", "p1", kind);
    for (cells, expected) in [
        (vec![], plain(PortKind::System)),
        (vec![("type", text(""))], plain(PortKind::System)),
        (vec![("type", text("system"))], plain(PortKind::System)),
        (vec![("type", text("internal"))], plain(PortKind::Internal)),
        (vec![("type", text("tap"))], plain(PortKind::Internal)),
        (
            vec![("type", text("patch")), ("options", map(&[("peer", "p2")]))],
            plain(PortKind::Patch { peer: "p2".to_owned() }),
        ),
        (
            vec![("type", text("internal")), ("mac", text("02:00:00:00:00:0a"))],
            PortConfig { mac: Some(Mac::new([2, 0, 0, 0, 0, 10])), ..plain(PortKind::Internal) },
        ),
        // Open vSwitch leaves the address of an existing interface alone.
        (vec![("mac", text("02:00:00:00:00:0a"))], plain(PortKind::System)),
        (vec![("mtu_request", integers(&[9000]))], PortConfig { mtu: Some(9000), ..plain(PortKind::System) }),
        (
            vec![("ingress_policing_rate", integers(&[1000]))],
            PortConfig {
                ingress_policing: Some(Policing { rate: 1000, burst: 8000 }),
                ..plain(PortKind::System)
            },
        ),
        (
            vec![
                ("ingress_policing_rate", integers(&[5_000_000_000])),
                ("ingress_policing_burst", integers(&[100])),
            ],
            PortConfig {
                ingress_policing: Some(Policing { rate: u32::MAX, burst: 100 }),
                ..plain(PortKind::System)
            },
        ),
        (
            vec![("ingress_policing_rate", integers(&[0])), ("ingress_policing_burst", integers(&[100]))],
            plain(PortKind::System),
        ),
        (vec![("ingress_policing_rate", integers(&[-4]))], plain(PortKind::System)),
        (vec![("external_ids", map(&[("iface-id", "x")])), ("lldp", map(&[]))], plain(PortKind::System)),
    ] {
        let wish = with_port(vec![], cells.clone());
        assert_eq!(*port(&wish, "p1"), expected, "{cells:?}");
        assert!(wish.refused.is_empty() && wish.complaints.is_empty(), "{cells:?}: {wish:?}");
    }
}

#[test]
fn a_port_treats_vlans_as_its_columns_say() {
    use VlanMode::*;
    let plain = || PortConfig::of_bridge("br0", "p1", PortKind::System);
    let mode = |word: &str| ("vlan_mode", text(word));
    for (cells, expected) in [
        (vec![("tag", integers(&[10]))], PortConfig { tag: Some(10), vlan_mode: Access, ..plain() }),
        (vec![("tag", integers(&[0]))], PortConfig { tag: Some(0), vlan_mode: Access, ..plain() }),
        (vec![mode("access")], PortConfig { vlan_mode: Access, ..plain() }),
        (vec![mode("trunk"), ("tag", integers(&[10]))], plain()),
        (
            vec![("trunks", integers(&[30, 10, 4095, 30]))],
            PortConfig { trunks: Some(vec![10, 30]), ..plain() },
        ),
        (
            vec![mode("native-tagged"), ("tag", integers(&[5])), ("trunks", integers(&[6]))],
            PortConfig { vlan_mode: NativeTagged, tag: Some(5), trunks: Some(vec![6]), ..plain() },
        ),
        (
            vec![mode("native-untagged"), ("tag", integers(&[5]))],
            PortConfig { vlan_mode: NativeUntagged, tag: Some(5), ..plain() },
        ),
        (
            vec![mode("dot1q-tunnel"), ("tag", integers(&[5])), ("cvlans", integers(&[7, 6]))],
            PortConfig { vlan_mode: Dot1qTunnel, tag: Some(5), cvlans: Some(vec![6, 7]), ..plain() },
        ),
        (
            vec![mode("dot1q-tunnel"), ("other_config", map(&[("qinq-ethtype", "802.1q")]))],
            PortConfig { vlan_mode: Dot1qTunnel, qinq_ethertype: 0x8100, ..plain() },
        ),
        (
            vec![mode("dot1q-tunnel"), ("other_config", map(&[("qinq-ethtype", "802.1ad")]))],
            PortConfig { vlan_mode: Dot1qTunnel, ..plain() },
        ),
        (vec![("other_config", map(&[("qinq-ethtype", "802.1q")]))], plain()),
        (
            vec![("other_config", map(&[("priority-tags", "true")]))],
            PortConfig { priority_tags: PriorityTags::IfNonzero, ..plain() },
        ),
        (
            vec![("other_config", map(&[("priority-tags", "if-nonzero")]))],
            PortConfig { priority_tags: PriorityTags::IfNonzero, ..plain() },
        ),
        (
            vec![("other_config", map(&[("priority-tags", "always")]))],
            PortConfig { priority_tags: PriorityTags::Always, ..plain() },
        ),
        (vec![("other_config", map(&[("priority-tags", "never")]))], plain()),
        (vec![("protected", boolean(true))], PortConfig { protected: true, ..plain() }),
        (
            vec![("other_config", map(&[("mcast-snooping-flood", "true")]))],
            PortConfig { mcast_flood: true, ..plain() },
        ),
        (
            vec![("other_config", map(&[("mcast-snooping-flood-reports", "true")]))],
            PortConfig { mcast_flood_reports: true, ..plain() },
        ),
        (vec![("fake_bridge", boolean(true)), ("lacp", text("off"))], plain()),
    ] {
        let wish = with_port(cells.clone(), vec![]);
        assert_eq!(*port(&wish, "p1"), expected, "{cells:?}");
        assert!(wish.refused.is_empty() && wish.complaints.is_empty(), "{cells:?}: {wish:?}");
    }
}

#[test]
fn what_a_port_wishes_in_vain_is_said_and_it_runs_without() {
    for (cells, interface, complaint) in [
        (vec![("tag", integers(&[3])), ("trunks", integers(&[4]))], vec![], "no meaning beside a tag"),
        (vec![("vlan_mode", text("sideways"))], vec![], "vlan_mode \"sideways\" is unknown"),
        (vec![("lacp", text("active"))], vec![], "LACP"),
        (vec![], vec![("mtu_request", integers(&[67]))], "mtu_request 67"),
        (vec![], vec![("mtu_request", integers(&[1 << 40]))], "mtu_request"),
        (vec![], vec![("ingress_policing_kpkts_rate", integers(&[5]))], "kpkts"),
        (vec![], vec![("bfd", map(&[("enable", "true")]))], "BFD"),
        (vec![], vec![("cfm_mpid", integers(&[5]))], "CFM"),
        (vec![], vec![("lldp", map(&[("enable", "true")]))], "LLDP"),
        (vec![], vec![("type", text("internal")), ("mac", text("ff:ff:ff:ff:ff:ff"))], "mac"),
        (
            vec![],
            vec![
                ("type", text("patch")),
                ("options", map(&[("peer", "p2")])),
                ("ingress_policing_rate", integers(&[5])),
            ],
            "ingress_policing_rate",
        ),
    ] {
        let wish = with_port(cells.clone(), interface.clone());
        let [said] = wish.complaints.as_slice() else { panic!("{cells:?} {interface:?}: {wish:?}") };
        assert!(said.starts_with("port p1: ") && said.contains(complaint), "{said}");
        assert!(wish.ports.iter().any(|port| port.name == "p1"));
    }
}

#[test]
fn an_interface_that_cannot_be_had_says_why_and_leaves_the_others() {
    let tunnel = |pairs: &[(&str, &str)]| vec![("type", text("vxlan")), ("options", map(pairs))];
    let patch = |pairs: &[(&str, &str)]| vec![("type", text("patch")), ("options", map(pairs))];
    for (cells, interface, reason) in [
        (vec![("tag", integers(&[4095]))], vec![], "tag 4095 is not a VLAN"),
        (vec![("tag", integers(&[-1]))], vec![], "tag -1"),
        (vec![("trunks", integers(&[4095]))], vec![], "trunks holds no VLAN"),
        (
            vec![],
            vec![("type", text("gre"))],
            "could not open network device p1 (type \"gre\" is not supported;",
        ),
        (vec![], vec![("type", text("geneve"))], "is not supported"),
        (vec![], vec![("type", text("dpdk"))], "is not supported"),
        (vec![], patch(&[]), "p1: patch type requires valid 'peer' argument"),
        (vec![], patch(&[("peer", "a/b")]), "p1: patch type requires valid 'peer' argument"),
        (vec![], patch(&[("peer", "p1")]), "p1: patch peer must not be self"),
        (vec![], patch(&[("peer", "p2"), ("key", "5")]), "p1: patch type takes only a 'peer' argument"),
        (vec![], tunnel(&[]), "p1: vxlan type requires valid 'remote_ip' argument"),
        (
            vec![],
            tunnel(&[("remote_ip", "nowhere")]),
            "p1: bad vxlan 'remote_ip'\np1: vxlan type requires valid 'remote_ip' argument",
        ),
        (vec![], tunnel(&[("remote_ip", "224.0.0.1")]), "p1: multicast remote_ip=224.0.0.1 not allowed"),
        (vec![], tunnel(&[("remote_ip", "ff02::1")]), "p1: multicast remote_ip=ff02::1 not allowed"),
        (vec![], tunnel(&[("remote_ip", "0.0.0.0")]), "p1: vxlan type requires valid 'remote_ip' argument"),
        (vec![], tunnel(&[("remote_ip", "255.255.255.255")]), "p1: bad vxlan 'remote_ip'"),
        (
            vec![],
            tunnel(&[("remote_ip", "flow")]),
            "p1: remote_ip=flow is not offered: a tunnel has one remote",
        ),
        (
            vec![],
            tunnel(&[("key", "flow"), ("remote_ip", "10.0.0.1")]),
            "p1: key=flow is not offered: a tunnel has one key",
        ),
        (
            vec![],
            tunnel(&[("out_key", "flow"), ("remote_ip", "10.0.0.1")]),
            "p1: out_key=flow is not offered",
        ),
        (vec![], tunnel(&[("key", "16777216"), ("remote_ip", "10.0.0.1")]), "p1: bad key 16777216"),
        (vec![], tunnel(&[("key", "-1"), ("remote_ip", "10.0.0.1")]), "p1: bad key -1"),
        (vec![], tunnel(&[("remote_ip", "10.0.0.1"), ("tos", "inherit")]), "p1: tos=inherit is not offered"),
        (vec![], tunnel(&[("remote_ip", "10.0.0.1"), ("ttl", "inherit")]), "p1: ttl=inherit is not offered"),
        (vec![], tunnel(&[("remote_ip", "10.0.0.1"), ("ttl", "256")]), "p1: bad ttl 256"),
        (vec![], tunnel(&[("remote_ip", "10.0.0.1"), ("dst_port", "0")]), "p1: bad dst_port 0"),
        (vec![], tunnel(&[("remote_ip", "10.0.0.1"), ("dst_port", "65536")]), "p1: bad dst_port 65536"),
        (vec![], tunnel(&[("remote_ip", "10.0.0.1"), ("exts", "gbp")]), "p1: exts=gbp is not offered"),
        (
            vec![],
            tunnel(&[("remote_ip", "10.0.0.1"), ("packet_type", "ptap")]),
            "p1: packet_type=ptap is not offered",
        ),
        (
            vec![],
            tunnel(&[("remote_ip", "10.0.0.1"), ("local_ip", "fd00::1")]),
            "p1: 'remote_ip' and 'local_ip' has to be of the same address family",
        ),
    ] {
        let mut rows = Rows::default();
        let bad = rows.port("p1", cells.clone(), interface.clone());
        let good = rows.port("p2", vec![], vec![]);
        let wish = rows.bridge("br0", &[bad, good], vec![]).wish(vec![]);
        let said = wish.refused.get("p1").map_or("", String::as_str);
        assert!(said.contains(reason), "{cells:?} {interface:?}: {wish:?}");
        let names: Vec<_> = wish.ports.iter().map(|port| port.name.as_str()).collect();
        assert_eq!(names, ["br0", "p2"]);
    }
}

#[test]
fn names_that_no_interface_can_have_are_refused() {
    let vxlan = || vec![("type", text("vxlan")), ("options", map(&[("remote_ip", "10.0.0.1")]))];
    let internal = || vec![("type", text("internal"))];
    let long = "x".repeat(100_000);
    for (name, cells) in [
        ("", vec![]),
        ("sixteen-bytes-xx", vec![]),
        ("a/b", vec![]),
        ("a b", vec![]),
        ("zero\0byte", vec![]),
        (".", vec![]),
        ("..", internal()),
        ("tap%d", internal()),
        ("default", internal()),
        ("a/b", vxlan()),
        ("", vxlan()),
        (&long, vxlan()),
        (&long, vec![]),
    ] {
        let mut rows = Rows::default();
        let port = rows.port(name, vec![], cells.clone());
        let wish = rows.bridge("br0", &[port], vec![]).wish(vec![]);
        assert_eq!(wish.ports.len(), 1, "{name:?} {cells:?}");
        assert!(wish.refused[name].len() < 300, "{:?}", wish.refused[name]);
    }
    // What is no interface of the system may be called as Open vSwitch's users call it.
    let mut rows = Rows::default();
    let port = rows.port("patch-br-int-to-br-ex", vec![], vxlan());
    let wish = rows.bridge("br0", &[port], vec![]).wish(vec![]);
    assert_eq!(wish.ports.len(), 2);
}

#[test]
fn a_tunnel_is_what_its_options_say() {
    let plain = || TunnelConfig {
        remote: "192.168.65.116".parse().expect("an address"),
        local: None,
        in_key: Vni::new(0).expect("a VNI"),
        out_key: Vni::new(0).expect("a VNI"),
        udp_port: 4789,
        tos: None,
        ttl: None,
        dont_fragment: true,
        checksum: false,
    };
    let vni = |number| Vni::new(number).expect("a VNI");
    for (pairs, expected) in [
        (&[][..], plain()),
        (&[("key", "5")], TunnelConfig { in_key: vni(5), out_key: vni(5), ..plain() }),
        (&[("key", "0x10")], TunnelConfig { in_key: vni(16), out_key: vni(16), ..plain() }),
        (&[("key", "010")], TunnelConfig { in_key: vni(8), out_key: vni(8), ..plain() }),
        (&[("key", "5"), ("in_key", "6")], TunnelConfig { in_key: vni(6), out_key: vni(5), ..plain() }),
        (&[("out_key", "7")], TunnelConfig { out_key: vni(7), ..plain() }),
        (
            &[("local_ip", "192.168.65.112")],
            TunnelConfig { local: Some("192.168.65.112".parse().expect("an address")), ..plain() },
        ),
        (&[("local_ip", "0.0.0.0")], plain()),
        (&[("dst_port", "8472")], TunnelConfig { udp_port: 8472, ..plain() }),
        (&[("tos", "0x20")], TunnelConfig { tos: Some(32), ..plain() }),
        (&[("tos", "0")], plain()),
        (&[("ttl", "1")], TunnelConfig { ttl: Some(1), ..plain() }),
        (&[("ttl", "0")], plain()),
        (&[("df_default", "false")], TunnelConfig { dont_fragment: false, ..plain() }),
        (&[("df_default", "true")], plain()),
        (&[("csum", "true")], TunnelConfig { checksum: true, ..plain() }),
        (&[("csum", "false"), ("packet_type", "legacy_l2"), ("psk", "x"), ("ipsec_x", "")], plain()),
    ] {
        let pairs = [&[("remote_ip", "192.168.65.116")][..], pairs].concat();
        let wish = with_port(vec![], vec![("type", text("vxlan")), ("options", map(&pairs))]);
        assert_eq!(port(&wish, "p1").kind, PortKind::Vxlan(expected), "{pairs:?}");
        assert!(wish.complaints.is_empty(), "{:?}", wish.complaints);
    }
    for (pair, complaint) in [
        (("tos", "1"), "invalid TOS 1"),
        (("egress_pkt_mark", "1"), "egress_pkt_mark is not offered"),
        (("colour", "red"), "unknown vxlan argument 'colour'"),
    ] {
        let wish = with_port(
            vec![],
            vec![("type", text("vxlan")), ("options", map(&[("remote_ip", "192.168.65.116"), pair]))],
        );
        assert_eq!(port(&wish, "p1").kind, PortKind::Vxlan(plain()));
        assert_eq!(wish.complaints, [format!("port p1: {complaint}")]);
    }
    let v6 = with_port(
        vec![],
        vec![("type", text("vxlan")), ("options", map(&[("remote_ip", "::ffff:192.168.65.116")]))],
    );
    assert_eq!(port(&v6, "p1").kind, PortKind::Vxlan(plain()));
}

#[test]
fn of_two_tunnels_for_the_same_datagrams_the_one_that_runs_is_had() {
    let tunnel = |ofport: &[i64]| {
        vec![
            ("type", text("vxlan")),
            ("options", map(&[("remote_ip", "10.0.0.1")])),
            ("ofport", integers(ofport)),
        ]
    };
    for (a, b, lost) in [(&[][..], &[4][..], "a"), (&[4], &[], "b"), (&[], &[], "b"), (&[-1], &[5], "a")] {
        let mut rows = Rows::default();
        let ports = [rows.port("a", vec![], tunnel(a)), rows.port("b", vec![], tunnel(b))];
        let wish = rows.bridge("br0", &ports, vec![]).wish(vec![]);
        assert_eq!(wish.ports.len(), 2);
        assert_eq!(
            wish.refused[lost],
            format!("could not add network device {lost} to ofproto (File exists)")
        );
    }
}

#[test]
fn bonds_are_refused_interface_by_interface() {
    let mut rows = Rows::default();
    let links = ["e0", "e1"].map(|name| rows.add("Interface", vec![("name", text(name))]));
    let bond = rows.add("Port", vec![("name", text("bond0")), ("interfaces", references(&links))]);
    let wish = rows.bridge("br0", &[bond], vec![]).wish(vec![]);
    assert_eq!(wish.ports.len(), 1);
    assert_eq!(wish.refused["e0"], "e0: bonds are not offered");
    assert_eq!(wish.refused["e1"], "e1: bonds are not offered");
}

#[test]
fn a_port_that_two_bridges_list_is_one_port() {
    let mut rows = Rows::default();
    let port = rows.port("p1", vec![], vec![]);
    let local_of_another = rows.port("br1", vec![], vec![]);
    let wish =
        rows.bridge("br0", &[port, local_of_another], vec![]).bridge("br1", &[port], vec![]).wish(vec![]);
    let names: Vec<_> =
        wish.ports.iter().map(|port| (port.name.as_str(), port.bridge.as_deref().unwrap_or(""))).collect();
    assert_eq!(names, [("br0", "br0"), ("br1", "br1"), ("p1", "br0")]);
    assert_eq!(wish.complaints.len(), 2, "{:?}", wish.complaints);
}

#[test]
fn openflow_numbers_are_taken_where_they_can_be_numbers() {
    for (request, before, expected) in [
        (&[5][..], &[7][..], Some((Some(5), Some(7)))),
        (&[], &[65_279], Some((None, Some(65_279)))),
        (&[65_280], &[-1], None),
        (&[0], &[65_534], None),
    ] {
        let cells = vec![("ofport_request", integers(request)), ("ofport", integers(before))];
        let wish = with_port(vec![], cells);
        let expected = expected.map(|(request, before)| OfportWish { request, before });
        assert_eq!(wish.ofports.get("p1").copied(), expected, "{request:?} {before:?}");
    }
}

#[test]
fn an_egress_policer_is_read_in_kilobits_and_other_qos_is_said() {
    let with_qos = |cells: Cells| {
        let mut rows = Rows::default();
        let qos = rows.add("QoS", cells);
        let port = rows.port("p1", vec![("qos", references(&[qos]))], vec![]);
        rows.bridge("br0", &[port], vec![]).wish(vec![])
    };
    let policer = |pairs: &[(&str, &str)]| {
        with_qos(vec![("type", text("egress-policer")), ("other_config", map(pairs))])
    };
    for (pairs, rate, burst) in [
        (&[("cir", "125000")][..], 1000, 8000),
        (&[("cir", "1"), ("cbs", "2000")], 1, 16),
        (&[("cir", "99999999999999"), ("cbs", "x")], u32::MAX, 8000),
    ] {
        let wish = policer(pairs);
        assert_eq!(port(&wish, "p1").egress_policing, Some(Policing { rate, burst }), "{pairs:?}");
        assert!(wish.complaints.is_empty());
    }
    for wish in [policer(&[]), policer(&[("cir", "0")]), with_qos(vec![("type", text("linux-htb"))])] {
        assert_eq!(port(&wish, "p1").egress_policing, None);
        assert_eq!(wish.complaints.len(), 1, "{:?}", wish.complaints);
    }
    let mut rows = Rows::default();
    let other_config = map(&[("cir", "125000")]);
    let qos = rows.add("QoS", vec![("type", text("egress-policer")), ("other_config", other_config)]);
    let tunnel = vec![("type", text("vxlan")), ("options", map(&[("remote_ip", "10.0.0.1")]))];
    let tunnel = rows.port("p1", vec![("qos", references(&[qos]))], tunnel);
    let wish = rows.bridge("br0", &[tunnel], vec![]).wish(vec![]);
    assert_eq!(port(&wish, "p1").egress_policing, None);
    assert_eq!(wish.complaints, ["port p1: QoS of what is no interface of the system is not offered"]);
    assert!(with_qos(vec![("type", text("linux-noop"))]).complaints.is_empty());
}

#[test]
fn a_mirror_names_its_ports() {
    let mut rows = Rows::default();
    let [p1, p2, p3] = ["p1", "p2", "p3"].map(|name| rows.port(name, vec![], vec![]));
    let elsewhere = rows.port("q1", vec![], vec![]);
    let plain = || MirrorConfig {
        name: "m".to_owned(),
        bridge: "br0".to_owned(),
        select_all: false,
        sources: vec![],
        destinations: vec![],
        vlans: None,
        output: MirrorOutput::Port("p3".to_owned()),
        snaplen: None,
    };
    let name = |text: &str| text.to_owned();
    let vlan = |number| Vlan::new(number).expect("a VLAN");
    let to = || ("output_port", references(&[p3]));
    let table = [
        (vec![to(), ("select_all", boolean(true))], Some(MirrorConfig { select_all: true, ..plain() }), 0),
        (
            vec![to(), ("select_src_port", references(&[p2, p1])), ("select_dst_port", references(&[p1]))],
            Some(MirrorConfig {
                sources: vec![name("p1"), name("p2")],
                destinations: vec![name("p1")],
                ..plain()
            }),
            0,
        ),
        (
            vec![to(), ("select_vlan", integers(&[5, 4095])), ("snaplen", integers(&[64]))],
            Some(MirrorConfig { vlans: Some([vlan(5)].into_iter().collect()), snaplen: Some(64), ..plain() }),
            0,
        ),
        (
            vec![("output_vlan", integers(&[9]))],
            Some(MirrorConfig { output: MirrorOutput::Vlan(vlan(9)), ..plain() }),
            0,
        ),
        (vec![to(), ("output_vlan", integers(&[9]))], Some(plain()), 1),
        (vec![to(), ("filter", text("icmp"))], Some(plain()), 1),
        (vec![to(), ("select_src_port", references(&[elsewhere, Uuid(999)]))], Some(plain()), 2),
        (vec![], None, 1),
        (vec![("output_port", references(&[elsewhere]))], None, 1),
        (vec![("output_vlan", integers(&[4095]))], None, 1),
        (vec![("output_vlan", integers(&[0]))], None, 1),
    ];
    let before = rows;
    for (mut cells, expected, complaints) in table {
        let mut rows = Rows { database: before.database.clone(), last: before.last, bridges: vec![] };
        cells.push(("name", text("m")));
        let mirror = rows.add("Mirror", cells.clone());
        let wish = rows
            .bridge("br0", &[p1, p2, p3], vec![("mirrors", references(&[mirror]))])
            .bridge("br1", &[elsewhere], vec![])
            .wish(vec![]);
        assert_eq!(wish.mirrors, expected.into_iter().collect::<Vec<_>>(), "{cells:?}");
        assert_eq!(wish.complaints.len(), complaints, "{:?}", wish.complaints);
    }
}

#[test]
fn complaints_are_bounded_and_the_rest_is_counted() {
    let mut rows = Rows::default();
    let ports: Vec<_> =
        (0..1000).map(|i| rows.port(&format!("p{i}"), vec![("lacp", text("active"))], vec![])).collect();
    let wish = rows.bridge("br0", &ports, vec![]).wish(vec![]);
    assert_eq!(wish.ports.len(), 1001);
    assert_eq!(wish.complaints.len(), MAX_COMPLAINTS + 1);
    assert_eq!(wish.complaints.last().map(String::as_str), Some("744 more complaints"));
}
