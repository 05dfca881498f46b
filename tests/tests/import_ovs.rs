//! `vswitchctl import ovs` against a real database server, and on what the stock tools print of it.
//!
//! Not here: what each column means (see `control/source/ovsdb/read`).
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::{Path, PathBuf};
use vswitch_tests::daemon::with_host;
use vswitch_tests::ovsdb_server::OvsdbServer;
use vswitchd::config::{Config, PortKind};

/// `vswitchctl import ovs` of what the server has.
fn import_from(server: &OvsdbServer, more: &str) -> Said {
    import(&["--db", &server.remote()], more)
}

fn file(server: &OvsdbServer, name: &str, text: &str) -> PathBuf {
    let path = server.at(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// What the program said, and its exit code.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    code: u8,
    out: String,
    err: String,
}

impl Said {
    /// What the file does not express, as it was said.
    fn unsaid(&self) -> Vec<&str> {
        self.err.lines().filter_map(|line| line.strip_prefix("  ")).collect()
    }
}

fn import(words: &[&str], more: &str) -> Said {
    let words = ["import", "ovs"].into_iter().chain(words.iter().copied()).chain(more.split_whitespace());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = vswitchd::ctl::run(words.map(Into::into), None, &mut out, &mut err);
    Said { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

fn import_file(file: &Path, more: &str) -> Said {
    import(&["--file", file.to_str().unwrap()], more)
}

/// A bridge with something of everything that the file has words for.
const EXPRESSED: &str = "\
    add-br br0 -- set bridge br0 datapath_type=netdev flood_vlans=999,3000,3001,3002 \
        other_config:forward-bpdu=true other_config:mac-aging-time=60 other_config:mac-table-size=4096 \
        other_config:hwaddr=02:00:00:00:00:0a -- set Open_vSwitch . other_config:vlan-limit=2 \
    -- add-port br0 eth1 tag=10 -- set interface eth1 mtu_request=9000 ingress_policing_rate=1000 \
        ingress_policing_burst=100 \
    -- add-port br0 int0 trunks=1,2,3,10 -- set interface int0 type=internal mac=\"02:00:00:00:00:0b\" \
    -- add-port br0 nat0 tag=5 vlan_mode=native-untagged other_config:priority-tags=always \
    -- add-port br0 qinq tag=500 vlan_mode=dot1q-tunnel cvlans=5,6 other_config:qinq-ethtype=802.1q \
    -- add-port br0 vx1 -- set interface vx1 type=vxlan options:remote_ip=192.168.65.116 \
    -- add-port br0 vx2 tag=10 -- set interface vx2 type=vxlan options:remote_ip=fd00::2 options:local_ip=fd00::1 \
        options:key=7 options:out_key=8 options:dst_port=8472 options:tos=0x20 options:ttl=9 \
        options:df_default=false options:csum=true \
    -- set port eth1 qos=@q -- --id=@q create qos type=egress-policer other_config:cir=125000";

const FILE: &str = r#"# The bridge br0 of an Open vSwitch database, by vswitchctl import ovs.

[switch]
forward_bpdu = true
flood_vlans = [999, "3000-3002"]
vlan_limit = 2

[mac_table]
limit = 4096
ageing = 60

[[port]]
name = "br0"
type = "internal"
mac = "02:00:00:00:00:0a"

[[port]]
name = "eth1"
type = "system"
tag = 10
mtu = 9000
ingress_policing_rate = 1000
ingress_policing_burst = 100
egress_policing_rate = 1000

[[port]]
name = "int0"
type = "internal"
trunks = ["1-3", 10]
mac = "02:00:00:00:00:0b"

[[port]]
name = "nat0"
type = "system"
vlan_mode = "native-untagged"
tag = 5
priority_tags = "always"

[[port]]
name = "qinq"
type = "system"
vlan_mode = "dot1q-tunnel"
tag = 500
cvlans = [5, 6]
qinq_ethtype = "802.1q"

[[port]]
name = "vx1"
type = "vxlan"
remote_ip = "192.168.65.116"

[[port]]
name = "vx2"
type = "vxlan"
tag = 10
remote_ip = "fd00::2"
local_ip = "fd00::1"
in_key = 7
out_key = 8
dst_port = 8472
tos = 32
ttl = 9
df_default = false
csum = true
"#;

#[test]
fn a_bridge_becomes_the_same_file_from_the_server_and_from_every_form_of_its_dump() {
    let Some(server) = OvsdbServer::start() else { return };
    server.vsctl(EXPRESSED);
    let expected = Said { code: 0, out: FILE.to_owned(), err: String::new() };
    assert_eq!(import_from(&server, ""), expected);
    assert_eq!(import_file(&file(&server, "dump", &server.dump("table")), ""), expected);
    assert_eq!(import_file(&file(&server, "dump", &server.dump("json")), "--bridge br0"), expected);
    let config = Config::parse(FILE, "f.toml").unwrap();
    assert_eq!(config.ports.iter().filter(|port| port.kind == PortKind::System).count(), 3);
    assert!(config.warnings.is_empty());
}

#[test]
fn what_the_file_has_no_words_for_is_listed_column_by_column() {
    let Some(server) = OvsdbServer::start() else { return };
    server.vsctl(
        "add-br br0 -- set bridge br0 fail_mode=secure stp_enable=true mcast_snooping_enable=true \
         other_config:datapath-id=00000000000000ff external_ids:owner=\"me\" \
         -- add-port br0 eth1 -- set port eth1 protected=true other_config:mcast-snooping-flood=true \
         -- set interface eth1 ofport_request=7 external_ids:iface-id=x lldp:enable=true bfd:enable=true \
            bfd:min_rx=1000 \
         -- add-port br0 vx1 -- set interface vx1 type=vxlan options:remote_ip=10.0.0.1 options:psk=secret \
            options:colour=red \
         -- add-port br0 gre0 -- set interface gre0 type=gre options:remote_ip=10.0.0.1 \
         -- add-port br0 pp0 -- set interface pp0 type=patch options:peer=pp1 \
         -- add-bond br0 bond0 e0 e1 \
         -- set-controller br0 tcp:127.0.0.1:6653 \
         -- --id=@m create mirror name=m0 select_all=true output_vlan=9 -- set bridge br0 mirrors=@m \
         -- add-br br1 -- set Open_vSwitch . external_ids:system-id=s",
    );
    let said = import_from(&server, "--bridge br0");
    assert_eq!(said.code, 0);
    let expected = [
        "bridge br0: OpenFlow controllers are not offered",
        "bridge br0: stp_enable: spanning tree protocols are not offered",
        "bridge br0: fail_mode=secure",
        "bridge br0: external_ids:owner=me",
        "bridge br0: mcast_snooping_enable=true",
        "bridge br0: other_config:datapath-id=00000000000000ff",
        "mirror m0: the file has no mirrors",
        "port e0: left out: e0: bonds are not offered",
        "port e1: left out: e1: bonds are not offered",
        "port eth1: BFD is not offered",
        "port eth1: LLDP is not offered",
        "interface eth1: bfd:min_rx=1000",
        "interface eth1: external_ids:iface-id=x",
        "interface eth1: ofport_request=7",
        "port eth1: other_config:mcast-snooping-flood=true",
        "port eth1: protected=true",
        "port gre0: left out: could not open network device gre0 (type \"gre\" is not supported; internal, tap, system, \
         patch and vxlan are)",
        "port pp0: left out: the file has one bridge, and nothing for a patch port to lead to",
        "port vx1: unknown vxlan argument 'colour'",
        "interface vx1: options:psk=…",
        "bridge br1: a file has one bridge; --bridge makes a file of this one",
        "Open_vSwitch: external_ids:system-id=s",
    ];
    assert_eq!(said.unsaid(), expected);
    for line in expected {
        assert!(said.out.contains(&format!("\n#   {line}\n")), "{line}");
    }
    let config = Config::parse(&said.out, "f.toml").unwrap();
    let names: Vec<_> = config.ports.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["br0", "eth1", "vx1"]);
}

#[test]
fn of_show_no_more_is_read_than_it_tells() {
    let Some(server) = OvsdbServer::start() else { return };
    server.vsctl(
        "add-br br0 -- add-port br0 eth1 tag=10 -- add-port br0 eth2 trunks=1,2 \
         -- add-port br0 vx1 -- set interface vx1 type=vxlan options:remote_ip=10.0.0.1 options:key=5 \
         -- set-controller br0 tcp:127.0.0.1:6653 \
         -- set interface vx1 error=\"a:b\"",
    );
    server.vsctl("set-manager punix:nowhere.sock");
    let show = file(&server, "show", &server.vsctl("show"));
    let (shown, whole) = (import_file(&show, ""), import_from(&server, ""));
    assert_eq!(shown.code, 0);
    let bare = |text: &str| text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    assert_eq!(bare(&shown.out), bare(&whole.out));
    assert!(shown.unsaid().last().unwrap().contains("tells no more than"), "{shown:?}");
    assert!(shown.unsaid().contains(&"bridge br0: OpenFlow controllers are not offered"), "{shown:?}");
}

#[test]
fn which_of_several_bridges_is_meant_must_be_said() {
    let Some(server) = OvsdbServer::start() else { return };
    let failed = |more: &str, word: &str| {
        let said = import_from(&server, more);
        assert!(said.code == 1 && said.out.is_empty() && said.err.contains(word), "{said:?}");
    };
    failed("", "the database has no bridge");
    server.vsctl("add-br br0 -- add-br br1");
    failed("", "the database has the bridges br0, br1; --bridge says which is meant");
    failed("--bridge br2", "there is no bridge \"br2\"; there are br0, br1");
    assert!(import_from(&server, "--bridge br1").out.contains("name = \"br1\""));
}

#[test]
fn a_file_that_is_there_is_not_written_over() {
    let Some(server) = OvsdbServer::start() else { return };
    server.vsctl("add-br br0");
    let output = server.at("f.toml");
    let more = format!("--output {}", output.display());
    let said = import_from(&server, &more);
    assert_eq!((said.code, said.out.as_str()), (0, ""));
    assert_eq!(std::fs::read_to_string(&output).unwrap(), import_from(&server, "").out);
    let said = import_from(&server, &more);
    assert!(said.code == 1 && said.err.contains("cannot be written"), "{said:?}");
}

#[test]
fn what_is_no_database_is_refused_in_one_sentence() {
    let Some(server) = OvsdbServer::start() else { return };
    for (text, word) in [
        ("", "empty"),
        ("hello\n", "line 1: neither a title"),
        ("{", "not JSON"),
        ("{}", "no table"),
        ("{\"caption\":\"Port table\",\"headings\":[\"name\"],\"data\":[[\"x\"]]}", "no _uuid"),
        ("{\"caption\":\"Port table\",\"headings\":[\"name\"],\"data\":[[{}]]}", "column name"),
        ("{\"caption\":\"Port table\",\"headings\":[\"name\"],\"data\":[[]]}", "no table"),
        ("{\"caption\":\"Port table\",\"headings\":[],\"data\":[]}", "no table Open_vSwitch"),
        ("Port table\nname\n----\nbr0\n", "no _uuid"),
        ("Port table\nname\n", "no dashes"),
        ("Port table\na b\n----\n", "2 headings over 1 columns"),
        ("Port table\n_uuid name\n----- ----\n[1,   br0\n", "column _uuid"),
        ("6c77f6a5-eb71-4f4a-b015-8fae77f3e563\n    Port x\n", "does not stand in a Bridge"),
        ("6c77f6a5-eb71-4f4a-b015-8fae77f3e563\n    Sausage x\n", "not understood"),
        ("6c77f6a5-eb71-4f4a-b015-8fae77f3e563\n    Bridge \"x\n", "no end"),
    ] {
        let said = import_file(&file(&server, "bad", text), "");
        assert!(said.code == 1 && said.out.is_empty() && said.err.contains(word), "{text:?}: {said:?}");
        assert_eq!(said.err.lines().count(), 1, "{said:?}");
    }
    let said = import_file(&server.at("conf.db"), "");
    assert!(said.code == 1 && said.err.contains("the file of a database server"), "{said:?}");
    let said = import(&["--db", "unix:/nowhere/db.sock"], "");
    assert!(said.code == 1 && said.err.contains("does not answer"), "{said:?}");
}

#[test]
fn a_daemon_that_runs_what_was_imported_differs_in_nothing_from_it() {
    let Some(server) = OvsdbServer::start() else { return };
    with_host("a_daemon_that_runs_what_was_imported_differs_in_nothing_from_it", |_, mut host| {
        server.vsctl(
            "add-br br0 -- add-port br0 int0 tag=10 -- set interface int0 type=internal \
             -- add-port br0 int1 trunks=1,2,3 -- set interface int1 type=internal",
        );
        let imported = import_from(&server, "");
        assert_eq!((imported.code, imported.err.as_str()), (0, ""));
        host.configure(&imported.out);
        let said = host.run("--check");
        assert_eq!(said.code, 0, "{said:?}");
        host.start();
        let said = host.ctl("diff");
        assert_eq!((said.code, said.out.as_str()), (0, ""), "{said:?}");
    });
}
