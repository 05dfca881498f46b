//! `[cluster]`, names among the peers, and what follows from them in other tables.

use super::{BOTH, V4, ip, load, parse, port};
use std::path::Path;
use vswitchd::config::{Cluster, Config, PeerConfig, PeerSource, fits_a_node};

const UNDERLAY: &str = "[underlay]\naddress = [\"10.0.0.0/24\", \"fd00::/64\"]\n";
const SEGMENT: &str = "[[segment]]\nname = \"b\"\nvlan = 1\nvni = 1\n";

fn with(text: &str) -> Config {
    parse(&format!("{UNDERLAY}{SEGMENT}{text}"))
}

fn cluster(text: &str) -> Cluster {
    with(&format!("[cluster]\n{text}")).cluster.unwrap()
}

#[test]
fn a_cluster_is_an_etcd_and_what_is_not_said_has_a_default() {
    let least = cluster("etcd = [\"http://10.0.0.2\"]\n");
    let expected = Cluster {
        etcd: vec!["http://10.0.0.2:2379".to_owned()],
        prefix: "/vswitch/default".to_owned(),
        lease: 10,
        cacert: None,
        cert: None,
        key: None,
        user: None,
        password: None,
        password_file: None,
    };
    assert_eq!(least, expected);
    let all = cluster(
        "etcd = [\"https://Etcd-1.example:1/\", \"https://[FD00::2]:65535\", \"https://[::1]\"]\nprefix = \"/a\"\n\
         lease = 3600\ncacert = \"/ca\"\ncert = \"/c\"\nkey = \"/k\"\nuser = \"u\"\npassword = \"p w\"\n",
    );
    let etcd = ["https://etcd-1.example:1", "https://[fd00::2]:65535", "https://[::1]:2379"];
    assert_eq!((all.etcd, all.prefix.as_str(), all.lease), (etcd.map(str::to_owned).to_vec(), "/a", 3600));
    let paths = [all.cacert, all.cert, all.key].map(Option::unwrap);
    assert_eq!(paths, ["/ca", "/c", "/k"].map(|path| Path::new(path).to_owned()));
    assert_eq!((all.user.as_deref(), all.password.as_deref()), (Some("u"), Some("p w")));
    let from_file = cluster("etcd = [\"http://e\"]\nuser = \"u\"\npassword_file = \"/p\"\n");
    assert_eq!((from_file.password, from_file.password_file.as_deref()), (None, Some(Path::new("/p"))));
}

#[test]
fn a_password_is_shown_by_nothing_that_shows_a_configuration() {
    let config = with("[cluster]\netcd = [\"http://e\"]\nuser = \"u\"\npassword = \"secret\"\n");
    let shown = format!("{config:?} {:#?}", config.cluster);
    assert!(shown.contains("password: Some(…)") && !shown.contains("secret"), "{shown}");
    for faulty in
        ["password = \"secret\"\n", "user = \"u\"\npassword = [\"secret\"]\n", "password = secret\n"]
    {
        let text = format!("{UNDERLAY}[cluster]\netcd = [\"http://u:secret@e\"]\n{faulty}");
        let errors = Config::parse(&text, "f.toml").unwrap_err();
        assert!(!format!("{errors} {errors:?} {}", errors.in_one_line()).contains("secret"), "{errors}");
    }
}

#[test]
fn a_cluster_turns_suppression_on_unless_the_file_says_otherwise() {
    let cluster = "[cluster]\netcd = [\"http://e\"]\n";
    let said = |yes: bool| format!("[switch]\nneigh_suppress = {yes}\n");
    assert!(!with("").switch.neigh_suppress);
    assert!(with(cluster).switch.neigh_suppress);
    assert!(!with(&format!("{cluster}{}", said(false))).switch.neigh_suppress);
    assert!(with(&said(true)).switch.neigh_suppress);
}

#[test]
fn with_a_cluster_or_a_word_about_probes_the_mesh_needs_no_list() {
    assert!(with("").probe && with("[mesh]\npeers = []\n").probe);
    assert!(!with("[mesh]\nprobe = false\n").probe);
    assert!(with("[cluster]\netcd = [\"http://e\"]\n[mesh]\n").mesh.is_empty());
}

#[test]
fn a_name_among_the_peers_is_a_name_and_a_range_is_a_range() {
    let config = with(
        "[mesh]\npeers = [\"node-1.example\", \"10.0.0.2-10.0.0.3\", \"Node-1.Example\", \"a\", \"0-7b\",\n\
         \"10.example.\", \"10.0.0.4\"]\n",
    );
    let names: Vec<_> = config.mesh_names.iter().map(|name| name.name.as_str()).collect();
    assert_eq!(names, ["node-1.example", "a", "0-7b", "10.example."]);
    assert_eq!(config.mesh_names[1].place.as_ref().map(|place| (place.line, place.column)), Some((8, 67)));
    assert_eq!(config.mesh.len(), 3);
}

#[test]
fn names_count_among_the_peers_there_may_be() {
    let names: String = (0..4096).map(|i| format!("\"n{i}\", ")).collect();
    assert_eq!(with(&format!("[mesh]\npeers = [{names}]\n")).mesh_names.len(), 4096);
    let text = format!("{UNDERLAY}[mesh]\npeers = [{names}\"10.0.0.2\"]\n");
    let errors = Config::parse(&text, "f.toml").unwrap_err().to_string();
    assert!(
        errors.ends_with("\"10.0.0.2\" is one too many; at most 4096 peers are allowed in all"),
        "{errors}"
    );
}

#[test]
fn a_peer_from_elsewhere_has_the_underlays_settings() {
    let config = with("[mesh]\npeers = [\"10.0.0.2\"]\n");
    let peer = config.underlay.as_ref().unwrap().peer(ip("10.0.0.2"), PeerSource::Cluster);
    assert_eq!(peer, PeerConfig { source: PeerSource::Cluster, ..config.mesh[0].clone() });
    assert_eq!((peer.udp_port, peer.floods), (None, None));
    let strict = parse("[underlay]\naddress = \"10.0.0.1\"\nvxlan_reserved = \"strict\"\n");
    assert!(strict.underlay.unwrap().peer(ip("10.0.0.2"), PeerSource::Dns).strict);
    assert!(fits_a_node(ip("10.0.0.2")) && !fits_a_node(ip("ff02::1")) && !fits_a_node(ip("fe80::1")));
}

#[test]
fn where_peers_come_and_go_every_family_of_the_underlay_is_in_use() {
    assert_eq!(with("[mesh]\npeers = [\"10.0.0.2\"]\n").families(), V4);
    assert_eq!(with("[mesh]\npeers = [\"10.0.0.2\", \"node\"]\n").families(), BOTH);
    assert_eq!(with("[mesh]\npeers = [\"10.0.0.2\"]\n[cluster]\netcd = [\"http://e\"]\n").families(), BOTH);
}

#[test]
fn a_cluster_or_a_name_without_a_segment_is_warned_of() {
    let warnings = |text: &str| parse(text).warnings.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        warnings("[underlay]\naddress = \"10.0.0.1\"\n[cluster]\netcd = [\"http://e\"]\n"),
        ["f.toml:3:1: there is a [cluster], but no [[segment]] with a VNI: nothing would cross"]
    );
    assert_eq!(
        warnings("[underlay]\naddress = \"10.0.0.1\"\n[mesh]\npeers = [\"node\"]\n"),
        ["f.toml:4:10: there are peers, but no [[segment]] with a VNI: nothing would cross"]
    );
}

#[test]
fn nothing_of_a_cluster_needs_a_restart() {
    let new = with(
        "[cluster]\netcd = [\"http://e\"]\n[mesh]\nprobe = false\npeers = [\"n\"]\n[switch]\nneigh_suppress = false\n",
    );
    assert!(Config::restart_needed(&with(""), &new).is_empty());
}

#[test]
fn the_file_for_a_cluster_tells_its_story() {
    let config = load("etcd.toml");
    assert_eq!(config.cluster.as_ref().map(|cluster| cluster.etcd.len()), Some(3));
    assert_eq!((config.mesh.len(), config.mesh_names.len()), (0, 1));
    assert!(config.switch.neigh_suppress && config.probe);
    assert!(port(&config, "blue-0").on_node("any") && !port(&config, "blue-1").on_node("any"));
    assert_eq!(port(&config, "blue-0").mtu_for(&config, 1500, config.families()), 1450);
}
