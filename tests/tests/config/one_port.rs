//! One port: what follows from its words, and its other forms.

use super::{BOTH, V4, ip, load, pairs, parse, port, vni};
use vswitch_core::{Attachment, Mac};
use vswitchd::config::{Config, Families, Policing, PortConfig, PortKind, TunnelConfig, VlanMode};

#[test]
fn the_mtu_is_what_fits_everywhere_the_port_goes() {
    let file = |inner: &str| {
        parse(&format!(
            "[underlay]\naddress = \"10.0.0.1\"\nvxlan_inner_vlan = \"{inner}\"\n\
             [[segment]]\nname = \"b\"\nvlan = 10\nvni = 10\n\
             [[port]]\nname = \"far\"\ntag = 10\n[[port]]\nname = \"near\"\ntag = 11\n\
             [[port]]\nname = \"both\"\n[[port]]\nname = \"only\"\ntrunks = [10]\n\
             [[port]]\nname = \"qinq\"\nvlan_mode = \"dot1q-tunnel\"\ntag = 10\n\
             [[port]]\nname = \"own\"\ntag = 10\nmtu = 9000\n"
        ))
    };
    let strip = file("strip");
    let mtu = |config: &Config, name: &str, underlay, families| {
        port(config, name).mtu_for(config, underlay, families)
    };
    assert_eq!(mtu(&strip, "far", 1500, V4), 1450);
    assert_eq!(mtu(&strip, "far", 1500, Families { v4: false, v6: true }), 1430);
    assert_eq!(mtu(&strip, "far", 1500, BOTH), 1430);
    assert_eq!(mtu(&strip, "far", 9000, V4), 8950);
    assert_eq!(mtu(&strip, "far", 100, V4), 68);
    assert_eq!(mtu(&strip, "near", 9000, V4), 1500);
    assert_eq!((mtu(&strip, "both", 9000, V4), mtu(&strip, "both", 1500, V4)), (1500, 1450));
    assert_eq!(mtu(&strip, "only", 9000, V4), 8950);
    assert_eq!(mtu(&strip, "qinq", 1500, V4), 1450);
    assert_eq!(mtu(&strip, "own", 1500, V4), 9000);
    let carry = file("carry");
    assert_eq!((mtu(&carry, "far", 1500, V4), mtu(&carry, "qinq", 1500, V4)), (1446, 1442));
}

#[test]
fn a_derived_mac_never_changes_and_never_meets_another() {
    let config = parse("[[port]]\nname = \"tap-a\"\n");
    let mac = |node: &str, name: &str| {
        let mut port = config.ports[0].clone();
        port.name = name.to_owned();
        port.mac_for(node)
    };
    // Pinned: it is what a restarted, updated daemon must come to again.
    assert_eq!(mac("node-1", "tap-a").to_string(), "02:08:52:2e:49:94");
    let macs: std::collections::HashSet<Mac> = (0..100)
        .flat_map(|n| (0..100).map(move |p| (n, p)))
        .map(|(n, p)| mac(&format!("n{n}"), &format!("p{p}")))
        .collect();
    assert_eq!(macs.len(), 10_000);
    assert!(macs.iter().all(|mac| mac.bytes()[0] & 3 == 2));
    assert_ne!(mac("a", "bc"), mac("ab", "c"));
}

#[test]
fn key_and_value_follow_the_rules_of_the_file() {
    let config = parse("[[segment]]\nname = \"blue\"\nvlan = 10\nvni = 10\n");
    let new = |text: &[(&str, &str)]| PortConfig::from_pairs("p", &pairs(text), &config);
    let given = new(&[
        ("vlan_mode", "native-untagged"),
        ("tag", "10"),
        ("trunks", "10,20,100-102"),
        ("netns", "pod-a"),
        ("ifname", "eth0"),
        ("addresses", "10.0.0.2/24,fd00::2/64"),
        ("gateway", "10.0.0.1"),
        ("node", "a, b"),
        ("offload", "false"),
        ("mtu", ""),
    ])
    .unwrap();
    let file = parse(
        "[[port]]\nname = \"p\"\nvlan_mode = \"native-untagged\"\ntag = 10\ntrunks = [20, 10, \"100-102\"]\n\
         netns = \"pod-a\"\nifname = \"eth0\"\naddresses = [\"10.0.0.2/24\", \"fd00::2/64\"]\n\
         gateway = \"10.0.0.1\"\nnode = [\"a\", \"b\"]\noffload = false\n",
    );
    assert_eq!(given, file.ports[0]);
    assert_eq!(new(&[("segment", "blue")]).unwrap().tag, Some(10));
    assert_eq!(new(&[("trunks", "[10, \"20-21\"]")]).unwrap().trunks, Some(vec![10, 20, 21]));

    let refused = |text: &[(&str, &str)]| new(text).unwrap_err();
    assert_eq!(refused(&[("tag", "4095")]), "port \"p\": tag 4095 is not a VLAN; 0..4094 are allowed");
    assert_eq!(refused(&[("tag", "x")]), "port \"p\": tag \"x\" is a string; a number 0..4094 is expected");
    assert_eq!(refused(&[("tga", "1")]), "port \"p\": unknown key \"tga\"; did you mean \"tag\"?");
    assert_eq!(
        refused(&[("offload", "yes")]),
        "port \"p\": offload \"yes\" is a string; true or false is expected"
    );
    assert_eq!(refused(&[("tag", "1"), ("tag", "2")]), "port \"p\": tag is given twice");
    assert_eq!(refused(&[("name", "q")]), "port \"p\": name cannot be changed; add a port of the new name");
    assert_eq!(
        refused(&[("tag", "4095"), ("mtu", "1")]),
        "port \"p\": tag 4095 is not a VLAN; 0..4094 are allowed; \
         port \"p\": mtu 1 is out of range; 68..65521 are allowed"
    );
    assert_eq!(
        PortConfig::from_pairs("a b", &[], &config).unwrap_err(),
        "port \"a b\": name \"a b\" is not an interface name; printable ASCII without white space, \"/\", \":\" \
         and \"%\" is allowed"
    );
}

#[test]
fn a_guard_is_made_of_the_ports_own_addresses_or_of_those_that_are_listed() {
    let config = parse("");
    let port = |text: &[(&str, &str)]| PortConfig::from_pairs("p", &pairs(text), &config).unwrap();
    let guard = |text: &[(&str, &str)]| port(text).guard_for("node-1");
    let own = ("addresses", "10.0.0.2/24,fd00::2/64");
    assert_eq!(guard(&[own]), None);
    assert_eq!(guard(&[own, ("anti_spoof", "false")]), None);
    let all_bits = vec![("10.0.0.2".parse().unwrap(), 32), ("fd00::2".parse().unwrap(), 128)];
    let mac = ("mac", "02:00:00:00:00:0a");
    let guarded = guard(&[own, mac, ("anti_spoof", "true")]).unwrap();
    assert_eq!((guarded.mac.to_string().as_str(), guarded.addresses), ("02:00:00:00:00:0a", all_bits));
    let listed = port(&[own, ("anti_spoof", "10.0.0.9,10.1.0.0/16")]);
    let guarded = listed.guard_for("node-1").unwrap();
    assert_eq!(guarded.mac, listed.mac_for("node-1"), "the one that its TAP is given");
    let addresses = vec![("10.0.0.9".parse().unwrap(), 32), ("10.1.0.0".parse().unwrap(), 16)];
    assert_eq!(guarded.addresses, addresses);
    assert_eq!(listed.to_json()["anti_spoof"], serde_json::json!(["10.0.0.9", "10.1.0.0/16"]));
    let nothing = parse("[[port]]\nname = \"p\"\nanti_spoof = []\n");
    assert_eq!(nothing.ports[0].guard_for("node-1").unwrap().addresses, []);
}

#[test]
fn policing_has_the_words_and_the_defaults_of_open_vswitch() {
    let config = parse("");
    let port = |text: &[(&str, &str)]| PortConfig::from_pairs("p", &pairs(text), &config).unwrap();
    assert_eq!(port(&[]).ingress_policing, None);
    assert_eq!(
        port(&[("ingress_policing_rate", "0"), ("ingress_policing_burst", "5")]).ingress_policing,
        None
    );
    let both = port(&[
        ("ingress_policing_rate", "1000"),
        ("egress_policing_rate", "4294967295"),
        ("egress_policing_burst", "100"),
    ]);
    assert_eq!(both.ingress_policing, Some(Policing { rate: 1000, burst: 8000 }));
    assert_eq!(both.egress_policing, Some(Policing { rate: u32::MAX, burst: 100 }));
    for port in [both, port(&[("anti_spoof", "10.0.0.9,10.1.0.0/16"), ("split_horizon", "true")])] {
        assert_eq!(PortConfig::from_json(&port.to_json(), &config).as_ref(), Ok(&port));
        assert_eq!(port.with_pairs(&[], &config).as_ref(), Ok(&port));
    }
}

#[test]
fn a_changed_port_keeps_what_was_not_named() {
    let config = parse(
        "[[segment]]\nname = \"blue\"\nvlan = 10\nvni = 10\n[[port]]\nname = \"p\"\ntag = 5\nmtu = 1400\n",
    );
    let p = &config.ports[0];
    let changed = |port: &PortConfig, text: &[(&str, &str)]| port.with_pairs(&pairs(text), &config);
    let blue = changed(p, &[("segment", "blue")]).unwrap();
    assert_eq!((blue.tag, blue.mtu, blue.vlan_mode), (Some(10), Some(1400), VlanMode::Access));
    let trunk = changed(p, &[("tag", ""), ("trunks", "1-3")]).unwrap();
    assert_eq!((trunk.vlan_mode, trunk.trunks.as_deref()), (VlanMode::Trunk, Some(&[1, 2, 3][..])));
    assert_eq!(changed(&trunk, &[("trunks", ""), ("tag", "5")]).as_ref(), Ok(p));
    assert!(changed(&trunk, &[("tag", "5")]).unwrap_err().contains("trunks has no meaning"));
    assert_eq!(changed(p, &[("mtu", "")]).unwrap().mtu, None);
    assert_eq!(changed(p, &[]).as_ref(), Ok(p));
}

#[test]
fn a_port_survives_the_state_file() {
    for name in ["reference.toml", "qinq.toml", "trunk.toml", "demo.toml"] {
        let config = load(name);
        for port in &config.ports {
            let text = port.to_json().to_string();
            let json = serde_json::from_str(&text).unwrap();
            assert_eq!(PortConfig::from_json(&json, &config).as_ref(), Ok(port));
        }
    }
    let config = Config::default();
    let json = serde_json::json!({"name": "p", "tag": null, "trunks": null, "vlan_mode": "trunk"});
    assert_eq!(PortConfig::from_json(&json, &config).unwrap().attachment(), Attachment::trunk_all());
    let bad = serde_json::json!({"name": "p", "tag": 4095});
    assert_eq!(
        PortConfig::from_json(&bad, &config).unwrap_err(),
        "port \"p\": tag 4095 is not a VLAN; 0..4094 are allowed"
    );
    assert_eq!(
        PortConfig::from_json(&serde_json::json!([1]), &config).unwrap_err(),
        "a port is an object in JSON"
    );
}

#[test]
fn an_existing_interface_an_internal_port_and_a_tunnel_stand_behind_ports() {
    let config = parse(
        "[[port]]\nname = \"eth1\"\ntype = \"system\"\ntag = 10\nmtu = 9000\n\
         [[port]]\nname = \"int0\"\ntype = \"internal\"\nmac = \"02:00:00:00:00:0a\"\n\
         [[port]]\nname = \"vx1\"\ntype = \"vxlan\"\nremote_ip = \"192.168.65.116\"\n\
         [[port]]\nname = \"vx2\"\ntype = \"vxlan\"\nremote_ip = \"fd00::2\"\nlocal_ip = \"fd00::1\"\nkey = 7\n\
         out_key = 8\ndst_port = 8472\ntos = 32\nttl = 9\ndf_default = false\ncsum = true\ntag = 10\n\
         [[port]]\nname = \"vx3\"\ntype = \"vxlan\"\nremote_ip = \"192.168.65.116\"\nkey = 7\ntos = 0\n",
    );
    assert_eq!(port(&config, "eth1").kind, PortKind::System);
    assert_eq!(port(&config, "int0").kind, PortKind::Internal);
    let plain = TunnelConfig {
        remote: ip("192.168.65.116"),
        local: None,
        in_key: vni(0),
        out_key: vni(0),
        udp_port: 4789,
        tos: None,
        ttl: None,
        dont_fragment: true,
        checksum: false,
    };
    let all = TunnelConfig {
        remote: ip("fd00::2"),
        local: Some(ip("fd00::1")),
        in_key: vni(7),
        out_key: vni(8),
        udp_port: 8472,
        tos: Some(32),
        ttl: Some(9),
        dont_fragment: false,
        checksum: true,
    };
    assert_eq!(port(&config, "vx1").kind, PortKind::Vxlan(plain.clone()));
    let keyed = TunnelConfig { in_key: vni(7), out_key: vni(7), ..plain };
    assert_eq!(port(&config, "vx2").kind, PortKind::Vxlan(all));
    assert_eq!(port(&config, "vx3").kind, PortKind::Vxlan(keyed));
    assert!(config.warnings.is_empty());
    // Each survives the state file, and each can be given as KEY=VALUE.
    for port in &config.ports {
        assert_eq!(PortConfig::from_json(&port.to_json(), &config).as_ref(), Ok(port));
    }
    let given = [
        ("type", "vxlan"),
        ("remote_ip", "fd00::2"),
        ("local_ip", "fd00::1"),
        ("in_key", "7"),
        ("out_key", "8"),
        ("dst_port", "8472"),
        ("tos", "32"),
        ("ttl", "9"),
        ("df_default", "false"),
        ("csum", "true"),
        ("tag", "10"),
    ];
    let given = PortConfig::from_pairs("vx2", &pairs(&given), &config);
    assert_eq!(given.as_ref(), Ok(port(&config, "vx2")));
    // The same tunnel on two nodes is no clash.
    parse(
        "[[port]]\nname = \"a\"\nnode = \"n1\"\ntype = \"vxlan\"\nremote_ip = \"10.0.0.2\"\n\
         [[port]]\nname = \"b\"\nnode = \"n2\"\ntype = \"vxlan\"\nremote_ip = \"10.0.0.2\"\n",
    );
}
