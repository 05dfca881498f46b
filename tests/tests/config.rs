//! The configuration from outside: the contract's example, every shipped file, every refusal, any bytes.
//!
//! Not here: what a running daemon makes of it.
#![allow(clippy::unwrap_used, reason = "a test may; the lint overlooks what tests share")]

#[path = "config/any_bytes.rs"]
mod any_bytes;
#[path = "config/cluster.rs"]
mod cluster;
#[path = "config/one_port.rs"]
mod one_port;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vswitch_core::port::{Native, VlanSet};
use vswitch_core::{Attachment, Mac, Vlan, Vni};
use vswitch_tests::config_body::config_body;
use vswitchd::config::{
    AddressSpec, Config, Families, InnerVlan, PeerSource, PortConfig, PortKind, PriorityTags, Reserved,
    VlanMode,
};

const V4: Families = Families { v4: true, v6: false };
const BOTH: Families = Families { v4: true, v6: true };

fn parse(text: &str) -> Config {
    Config::parse(text, "f.toml").unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs").join(name)
}

fn load(name: &str) -> Config {
    Config::load(&shipped(name)).unwrap_or_else(|errors| panic!("{errors}"))
}

fn port<'a>(config: &'a Config, name: &str) -> &'a PortConfig {
    config.ports.iter().find(|port| port.name == name).unwrap()
}

fn vlan(number: u16) -> Vlan {
    Vlan::new(number).unwrap()
}

fn vni(number: u32) -> Vni {
    Vni::new(number).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn set(vlans: impl IntoIterator<Item = u16>) -> VlanSet {
    vlans.into_iter().map(vlan).collect()
}

fn pairs(text: &[(&str, &str)]) -> Vec<(String, String)> {
    text.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn the_contracts_example_means_what_the_contract_says() {
    let config = parse(include_str!("config/contract.toml"));
    assert_eq!(config.warnings, []);
    assert_eq!(config.node.name, None);
    let underlay = config.underlay.as_ref().unwrap();
    assert_eq!(underlay.addresses[0].to_string(), "192.168.65.0/24");
    assert_eq!((underlay.port, underlay.mtu, underlay.send_sockets), (4789, Some(1500), 16));
    assert_eq!((underlay.vxlan_reserved, underlay.vxlan_inner_vlan), (Reserved::Rfc, InnerVlan::Strip));

    // .112, .116 to .120, the 62 of .128/26 without network and broadcast, and .201.
    assert_eq!(config.mesh.len(), 1 + 5 + 62 + 1);
    let addresses: Vec<_> = config.mesh.iter().map(|peer| peer.address).collect();
    assert!(addresses.contains(&ip("192.168.65.129")) && addresses.contains(&ip("192.168.65.190")));
    assert!(!addresses.contains(&ip("192.168.65.128")) && !addresses.contains(&ip("192.168.65.191")));
    let own = config.mesh.iter().find(|peer| peer.address == ip("192.168.65.201")).unwrap();
    assert_eq!((own.source, own.vnis.as_deref()), (PeerSource::Table, Some(&[vni(10_010)][..])));
    let other = config.mesh.iter().find(|peer| peer.address == ip("192.168.65.112")).unwrap();
    assert_eq!((other.source, &other.vnis), (PeerSource::Mesh, &None));

    assert_eq!(config.control.socket, Path::new("/run/vswitchd/control.sock"));
    assert_eq!(config.control.state, Path::new("/var/lib/vswitchd/state.json"));
    assert_eq!((config.datapath.workers, config.datapath.offload), (Some(2), true));
    assert_eq!((config.mac_table.limit, config.mac_table.port_limit), (65_536, 8192));
    assert_eq!(config.mac_table.ageing, Duration::from_secs(300));
    assert!(!config.switch.forward_bpdu);
    assert_eq!((&config.switch.flood_vlans, config.switch.vlan_limit), (&VlanSet::none(), 1));

    assert_eq!(config.segment_name(vlan(10)), "blue");
    assert_eq!(config.segment_name(vlan(137)), "tenants-137");
    assert_eq!(config.segment_name(vlan(2000)), "2000");
    assert_eq!(config.vni_of(vlan(1099)), Some(vni(11_099)));
    assert_eq!(config.vlan_of(vni(10_100)), Some(vlan(100)));
    assert_eq!(
        (config.vni_of(vlan(99)), config.vni_of(vlan(1100)), config.vlan_of(vni(11_100))),
        (None, None, None)
    );

    let a = port(&config, "tap-a");
    assert_eq!((&a.kind, a.vlan_mode, a.tag), (&PortKind::Tap, VlanMode::Access, Some(10)));
    assert!(a.on_node("node-1") && !a.on_node("node-2"));
    assert_eq!(
        (a.netns.as_deref(), a.ifname.as_deref(), a.interface()),
        (Some("pod-a"), Some("eth0"), "eth0")
    );
    assert_eq!(a.mac_for("any"), "02:00:00:00:00:0a".parse::<Mac>().unwrap());
    assert_eq!(a.mtu_for(&config, 9000, BOTH), 1450);
    assert_eq!((&a.addresses[..], &a.gateways[..]), (&[(ip("10.10.0.2"), 24)][..], &[ip("10.10.0.1")][..]));
    assert_eq!(a.attachment(), Attachment::Access(vlan(10)));
    let fw = port(&config, "tap-fw");
    assert!(fw.on_node("node-2") && fw.netns.is_none() && fw.tag.is_none());
    let vlans = set([10, 20].into_iter().chain(100..=199));
    assert_eq!(fw.attachment(), Attachment::Trunk { vlans, native: None });
    assert_eq!(config.places.port("tap-a").map(|place| place.line), Some(43));
}

#[test]
fn every_shipped_file_loads_without_a_warning() {
    let mut seen = 0;
    for entry in std::fs::read_dir(shipped("")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let config = Config::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
            assert_eq!(config.warnings, [], "{}", path.display());
            config_body(&std::fs::read(&path).unwrap());
            seen += 1;
        }
    }
    assert!(seen >= 10, "{seen}");
}

#[test]
fn the_shipped_files_tell_their_stories() {
    let single = load("single-host.toml");
    assert!(single.underlay.is_none() && single.mesh.is_empty());
    assert_eq!(port(&single, "tap-fw").attachment(), Attachment::trunk_all());
    assert_eq!(port(&single, "tap-a").mtu_for(&single, 1500, single.families()), 1500);

    let demo = load("demo.toml");
    for (node, own, other) in [("node-1", "10.77.0.1", "10.77.0.2"), ("node-2", "10.77.0.2", "10.77.0.1")] {
        let peers = demo.peers_for(&[ip("127.0.0.1"), ip(own)]).unwrap();
        assert_eq!(peers.iter().map(|peer| peer.address).collect::<Vec<_>>(), [ip(other)]);
        let ports = demo.ports.iter().filter(|port| port.on_node(node));
        let tags: Vec<_> = ports.map(|port| (port.tag, port.mtu_for(&demo, 1500, demo.families()))).collect();
        assert_eq!(tags, [(Some(10), 1450), (Some(20), 1450)]);
    }

    let trunk = load("trunk.toml");
    let native = |tagged| Attachment::Trunk {
        vlans: set([10, 20, 30]),
        native: Some(Native { vlan: vlan(30), tagged }),
    };
    assert_eq!(port(&trunk, "hypervisor").attachment(), native(false));
    assert_eq!(port(&trunk, "strict").attachment(), native(true));

    let qinq = load("qinq.toml");
    assert_eq!(port(&qinq, "customer-a1").attachment(), Attachment::dot1q_tunnel(vlan(100), None));
    let cvlans = Some(set([5].into_iter().chain(10..=19)));
    assert_eq!(port(&qinq, "customer-a2").attachment(), Attachment::dot1q_tunnel(vlan(100), cvlans));
    assert_eq!(port(&qinq, "customer-b1").qinq_ethertype, 0x8100);

    let v6 = load("ipv6-underlay.toml");
    assert_eq!((v6.families(), v6.mesh.len()), (BOTH, 17));
    assert_eq!(port(&v6, "blue-1").mtu_for(&v6, 1500, v6.families()), 1430);

    let thousand = load("thousand-vlans.toml");
    assert_eq!((thousand.vnis().count(), port(&thousand, "tenant-137").tag), (1000, Some(137)));
    assert_eq!(port(&thousand, "monitor").mtu_for(&thousand, 9000, V4), 8950);

    let kernel = load("kernel-peer.toml");
    assert_eq!(kernel.underlay.unwrap().addresses, [AddressSpec::Exact(ip("192.168.65.112"))]);
    assert_eq!(kernel.mesh[0].label(), "linux");

    let two = load("two-node.toml");
    assert_eq!(port(&two, "green-2").attachment(), Attachment::Access(vlan(20)));
}

#[test]
fn the_reference_names_every_key() {
    let text = std::fs::read_to_string(shipped("reference.toml")).unwrap();
    let config = parse(&text);
    let peer = config.mesh.iter().find(|peer| peer.address == ip("192.168.65.201")).unwrap();
    assert_eq!((peer.name.as_deref(), peer.mtu, peer.strict), (Some("old-router"), Some(1400), true));
    assert_eq!((peer.inner_vlan, peer.vnis.as_ref().map(Vec::len)), (InnerVlan::Carry, Some(101)));
    assert_eq!(config.switch.flood_vlans, set([999].into_iter().chain(3000..=3009)));
    assert_eq!(port(&config, "tap-a").nodes.as_ref().map(Vec::len), Some(2));
    assert_eq!(port(&config, "tap-a").gateways.len(), 2);
    assert_eq!(port(&config, "tap-tenant").tag, Some(137));
    // What is unknown lists what is known: every key of every table stands in the file.
    for table in ["node", "underlay", "mesh", "cluster", "control", "datapath", "mac_table", "switch"] {
        names_every_key(&text, &format!("[{table}]\nzzzzzzzzz = 1\n"));
    }
    for table in ["segment", "peer", "port"] {
        names_every_key(&text, &format!("[[{table}]]\nzzzzzzzzz = 1\n"));
    }
    names_every_key(&text, "zzzzzzzzz = 1\n");
}

fn names_every_key(text: &str, unknown: &str) {
    let complaint = Config::parse(unknown, "f.toml").unwrap_err().to_string();
    let known = complaint.lines().find_map(|line| line.split_once("known are ")).unwrap().1;
    for key in known.split(", ") {
        // A key that may not stand beside another is there as a comment.
        let given = ["\n", "\n# "].map(|begin| format!("{begin}{key} = "));
        let given = given.into_iter().chain([format!("[{key}]"), format!("{key} = \"blue\"")]);
        assert!(given.into_iter().any(|form| text.contains(&form)), "{key}");
    }
}

#[test]
fn an_empty_file_is_a_switch_with_nothing_on_it() {
    assert_eq!(parse(""), Config::default());
}

/// `config/bad.txt`: files called `f.toml`, each with every line of the complaint behind it, after `! `.
#[test]
fn a_bad_file_is_refused_with_exactly_these_words() {
    let (mut text, mut expected, mut count) = (String::new(), Vec::new(), 0);
    for line in include_str!("config/bad.txt").lines().chain([""]) {
        match line.strip_prefix("! ") {
            Some(complaint) => expected.push(complaint),
            None if expected.is_empty() => {
                text.push_str(line);
                text.push('\n');
            }
            None => {
                let text = std::mem::take(&mut text);
                let errors = Config::parse(&text, "f.toml").expect_err(&text).to_string();
                assert_eq!(errors.lines().collect::<Vec<_>>(), std::mem::take(&mut expected), "{text}");
                count += 1;
            }
        }
    }
    assert!(count >= 100, "{count}");
}

#[test]
fn an_error_names_its_key() {
    let errors = Config::parse("[[port]]\nname = \"p\"\ntag = 4095\nx = 1\n", "f.toml").unwrap_err();
    assert_eq!(errors.iter().map(|error| error.key.as_str()).collect::<Vec<_>>(), ["port.tag", "port.x"]);
}

#[test]
fn a_hundred_errors_are_told_and_the_others_counted() {
    let errors = Config::parse(&"[[port]]\n".repeat(250), "f.toml").unwrap_err();
    assert_eq!(
        (errors.iter().len(), errors.iter().last().unwrap().to_string()),
        (101, "and 150 more".to_owned())
    );
}

#[test]
fn what_is_allowed_but_hardly_meant_is_a_warning() {
    let underlay = "[underlay]\naddress = \"10.0.0.1\"\n";
    let segment = "[[segment]]\nname = \"blue\"\nvlan = 10\nvni = 10\n";
    let warnings = |text: &str| parse(text).warnings.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        warnings(&format!("{underlay}[mesh]\npeers = [\"10.0.0.2\"]\n")),
        ["f.toml:4:10: there are peers, but no [[segment]] with a VNI: nothing would cross"]
    );
    assert_eq!(
        warnings(&format!("{underlay}{segment}[[peer]]\naddress = \"10.0.0.2\"\nvnis = [10, 11]\n")),
        ["f.toml:8:11: peer \"10.0.0.2\": vni 11 belongs to no segment"]
    );
    assert_eq!(
        warnings("[[port]]\nname = \"p\"\nvlan_mode = \"dot1q-tunnel\"\n"),
        ["f.toml:3:13: port \"p\": vlan_mode \"dot1q-tunnel\" without a tag: the service VLAN is 0"]
    );
    assert_eq!(
        warnings("[[port]]\nname = \"p\"\ntag = 1\nqinq_ethtype = \"802.1q\"\n"),
        ["f.toml:4:16: port \"p\": qinq_ethtype has no meaning with vlan_mode \"access\"; it is ignored"]
    );
    assert_eq!(
        warnings("[[port]]\nname = \"p\"\naddresses = [\"10.0.0.1/24\"]\ngateway = \"10.0.1.1\"\n"),
        ["f.toml:4:11: port \"p\": gateway 10.0.1.1 is in the network of none of the addresses"]
    );
}

#[test]
fn what_is_not_said_follows_open_vswitch() {
    let config = parse(
        "[[port]]\nname = \"nothing\"\n[[port]]\nname = \"tag\"\ntag = 5\n\
         [[port]]\nname = \"access\"\nvlan_mode = \"access\"\n\
         [[port]]\nname = \"native\"\nvlan_mode = \"native-tagged\"\n\
         [[port]]\nname = \"zero\"\ntrunks = [0, 7]\npriority_tags = \"if-nonzero\"\n",
    );
    assert_eq!(port(&config, "nothing").attachment(), Attachment::trunk_all());
    assert_eq!(port(&config, "tag").attachment(), Attachment::Access(vlan(5)));
    assert_eq!(port(&config, "access").attachment(), Attachment::Access(vlan(0)));
    assert_eq!(port(&config, "native").attachment(), Attachment::native(vlan(0), true, VlanSet::all()));
    let zero = port(&config, "zero");
    assert_eq!(zero.attachment(), Attachment::Trunk { vlans: set([0, 7]), native: None });
    assert_eq!(zero.priority_tags, PriorityTags::IfNonzero);
}

#[test]
fn a_small_prefix_has_no_network_or_broadcast_address() {
    let mesh = |peers: &str| {
        let text =
            format!("[underlay]\naddress = [\"10.0.0.1\", \"fd00::1\"]\n[mesh]\npeers = [\"{peers}\"]\n");
        parse(&text).mesh.iter().map(|peer| peer.address.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(mesh("10.0.0.4/32"), ["10.0.0.4"]);
    assert_eq!(mesh("10.0.0.4/31"), ["10.0.0.4", "10.0.0.5"]);
    assert_eq!(mesh("10.0.0.4/30"), ["10.0.0.5", "10.0.0.6"]);
    assert_eq!(mesh("fd00::4/127"), ["fd00::4", "fd00::5"]);
    assert_eq!(mesh("10.0.0.0/20\", \"10.0.0.0/20").len(), 4094);
    assert_eq!(mesh("fd00::/116").len(), 4096);
}

#[test]
fn a_node_skips_itself_and_names_whom_it_cannot_reach() {
    let config = parse(
        "[underlay]\naddress = [\"10.0.0.0/24\", \"fd00::/64\"]\n\
         [mesh]\npeers = [\"10.0.0.1-10.0.0.3\", \"fd00::9\"]\n\
         [[segment]]\nname = \"b\"\nvlan = 1\nvni = 1\n",
    );
    let underlay = config.underlay.as_ref().unwrap();
    let missing = config.peers_for(&[ip("10.0.0.2"), ip("::1")]).unwrap_err();
    assert_eq!(missing.to_string(), "peer \"fd00::9\": this node has no local IPv6 address for it");
    assert_eq!(missing.usable.len(), 2);
    let local = [ip("10.0.0.3"), ip("fd00::1"), ip("10.0.0.2"), ip("fe80::1")];
    assert_eq!(config.peers_for(&local).unwrap().len(), 2);
    let chosen = underlay.choose(&local);
    assert_eq!(chosen.addresses, [ip("10.0.0.2"), ip("fd00::1")]);
    assert_eq!(chosen.several, [(underlay.addresses[0], vec![ip("10.0.0.2"), ip("10.0.0.3")])]);
    assert_eq!(underlay.choose(&[ip("10.0.0.9")]).waiting, [underlay.addresses[1]]);
}

#[test]
fn ports_of_file_and_state_may_not_clash() {
    let config = parse("[[port]]\nname = \"p\"\nnetns = \"x\"\nifname = \"eth0\"\nnode = \"a\"\n");
    let beside = |name: &str, node: &str| {
        let given = pairs(&[("netns", "/var/run/netns/x"), ("ifname", "eth0"), ("node", node)]);
        let other = PortConfig::from_pairs(name, &given, &config).unwrap();
        config.validate_ports(&[config.ports[0].clone(), other]).map_err(|errors| errors.to_string())
    };
    assert_eq!(
        beside("q", "a,b").unwrap_err(),
        "port \"q\": ifname \"eth0\" in netns \"/var/run/netns/x\" belongs to port \"p\" already"
    );
    assert_eq!(beside("q", "b"), Ok(()));
    assert_eq!(
        beside("p", "b").unwrap_err(),
        "f.toml:1:1: port \"p\": name is given to two ports; names are unique"
    );
}

#[test]
fn a_restart_is_asked_for_by_the_keys_that_need_one() {
    let old = parse("[underlay]\naddress = \"10.0.0.1\"\n");
    let new = parse(
        "[node]\nname = \"n\"\n[underlay]\naddress = \"10.0.0.2\"\nport = 8472\n[control]\nsocket = \"/s\"\n\
         state = \"/t\"\n[datapath]\nworkers = 3\noffload = false\n[mac_table]\nlimit = 10\n",
    );
    assert_eq!(
        Config::restart_needed(&old, &new),
        ["[node] name", "[underlay] port", "[control] socket", "[control] state", "[datapath] workers"]
    );
    assert!(Config::restart_needed(&old, &Config::default()).is_empty());
}

#[test]
fn the_same_wish_elsewhere_in_the_file_is_the_same_wish() {
    let text = "[[port]]\nname = \"p\"\n[[segment]]\nname = \"b\"\nvlan = 1\nvni = 1\n";
    assert_eq!(parse(text), parse(&format!("# moved\n\n{text}")));
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let missing = Config::load(Path::new("/nonexistent/f.toml")).unwrap_err().to_string();
    assert!(
        missing.starts_with("configuration \"/nonexistent/f.toml\" cannot be read: No such file"),
        "{missing}"
    );
    let path = std::env::temp_dir().join(format!("vswitch-config-{}.toml", std::process::id()));
    std::fs::write(&path, b"# good\n# b\xffd\n").unwrap();
    let broken = Config::load(&path).unwrap_err().to_string();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(broken, format!("{}:2:4: this byte is not UTF-8", path.display()));
}
