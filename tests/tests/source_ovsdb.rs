//! The source that follows an Open vSwitch database, against the stock server: in good hours and in bad ones.
//!
//! Not here: what rows mean (see tests/tests/ovsdb_written.rs), and servers that are none of the kind (see
//! tests/tests/source_ovsdb_hostile.rs).
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use serde_json::{Value, json};
use std::net::TcpListener;
use vswitch_tests::daemon::PATIENCE;
use vswitch_tests::ovsdb_follower::Follower;
use vswitch_tests::ovsdb_server::OvsdbServer;
use vswitchd::control::source::ovsdb::OVS_VERSION;

#[test]
fn what_tools_write_is_wished_and_what_is_in_force_is_read_by_tools() {
    let Some(server) = OvsdbServer::start() else { return };
    server.vsctl("add-br br0");
    let mut follower = Follower::start(&server.remote());
    follower.until_ports(&["br0"]);
    server.vsctl("add-port br0 p1 tag=5 -- set interface p1 type=internal");
    follower.until_ports(&["br0", "p1"]);
    follower.carry_out();
    server.until("get interface p1 ofport", "2");
    for (words, expected) in [
        ("get open . ovs_version", format!("\"{OVS_VERSION}\"")),
        ("get open . db_version", OvsdbServer::schema()["version"].to_string()),
        ("get open . datapath_types", "[netdev, system]".to_owned()),
        ("get open . iface_types", "[internal, patch, system, tap, vxlan]".to_owned()),
    ] {
        server.until(words, &expected);
    }
    server.vsctl("del-port br0 p1");
    follower.until_ports(&["br0"]);
    let status = follower.source.status();
    assert!(status.connected && status.locked && status.last_error.is_none(), "{status:?}");
}

#[test]
fn a_tool_that_waits_goes_on_when_its_change_is_in_force_and_not_before() {
    let Some(server) = OvsdbServer::start() else { return };
    let mut follower = Follower::start(&server.remote());
    follower.until_ports(&[]);
    let mut waiting = server.waiting_vsctl("add-br br0");
    follower.until_ports(&["br0"]);
    let wished = follower.wish().next_cfg;
    assert_eq!(server.vsctl("get open . next_cfg").trim(), wished.to_string());
    assert_eq!(server.vsctl("get open . cur_cfg").trim(), (wished - 1).to_string());
    follower.carry_out();
    assert!(waiting.until_exit(PATIENCE).success());
    server.until("get open . cur_cfg", &wished.to_string());
}

#[test]
fn what_we_write_is_no_wish_and_what_was_written_is_not_written_again() {
    let Some(server) = OvsdbServer::start() else { return };
    server.vsctl("add-br br0");
    let mut follower = Follower::start(&server.remote());
    follower.until_ports(&["br0"]);
    let mut client = server.client();
    client.watch(&[("Interface", &["ofport", "mtu"])]);
    for _ in 0..3 {
        follower.carry_out();
    }
    server.until("get interface br0 ofport", "1");
    assert_eq!(client.watched(), 1);
    server.vsctl("set bridge br0 external_ids:x=y");
    server.vsctl("add-port br0 p1");
    follower.until_ports(&["br0", "p1"]);
    // One at first and one for the port.
    follower.until_wishes(2);
    follower.carry_out();
    follower.carry_out_with_mtu("br0", 1400);
    server.until("get interface br0 mtu", "1400");
    assert!(client.watched() <= 4, "the port was added, and both reports were written once");
}

#[test]
fn a_server_that_is_killed_changes_nothing_and_what_came_meanwhile_is_taken() {
    let Some(mut server) = OvsdbServer::start() else { return };
    server.vsctl("add-br br0");
    let mut follower = Follower::start(&server.remote());
    follower.until_ports(&["br0"]);
    server.kill();
    follower.until_away();
    assert_eq!(follower.wish().ports.len(), 1);
    follower.carry_out();
    server.run();
    server.vsctl("add-port br0 p1");
    follower.until_ports(&["br0", "p1"]);
    // What was reported to nobody is written to the server that came.
    server.until("get interface br0 ofport", "1");
    for round in 2..5 {
        server.kill();
        server.run();
        server.vsctl(&format!("add-port br0 p{round}"));
        follower.until(|wish| wish.ports.len() == round + 1);
    }
    follower.carry_out();
    server.until("get interface p4 ofport", "5");
}

#[test]
fn a_daemon_may_start_before_its_server() {
    let Some(mut server) = OvsdbServer::start() else { return };
    server.kill();
    let mut follower = Follower::start(&server.remote());
    follower.until_away();
    server.run();
    server.vsctl("add-br br0");
    follower.until_ports(&["br0"]);
}

#[test]
fn a_database_that_is_emptied_wishes_nothing_and_one_without_its_first_row_is_written_when_it_comes() {
    let Some(mut server) = OvsdbServer::start() else { return };
    server.vsctl("add-br br0");
    let mut follower = Follower::start(&server.remote());
    follower.until_ports(&["br0"]);
    server.vsctl("del-br br0");
    follower.until_ports(&[]);
    server.vsctl("add-br br1");
    follower.until_ports(&["br1"]);
    server.kill();
    server.create(&OvsdbServer::schema());
    server.run();
    follower.until_ports(&[]);
    follower.carry_out();
    server.vsctl("init");
    server.until("get open . ovs_version", &format!("\"{OVS_VERSION}\""));
    server.vsctl("add-br br2");
    follower.until_ports(&["br2"]);
}

#[test]
fn what_is_in_force_of_one_database_is_not_written_to_another_that_takes_its_place() {
    let Some(mut server) = OvsdbServer::start() else { return };
    server.vsctl("add-br br0");
    let mut follower = Follower::start(&server.remote());
    follower.until_ports(&["br0"]);
    let old = follower.report();
    follower.carry_out();
    server.until("get interface br0 ofport", "1");
    server.kill();
    server.create(&OvsdbServer::schema());
    server.run();
    let mut client = server.client();
    client.watch(&[("Interface", &["ofport", "mtu"])]);
    server.vsctl("init -- add-br br0");
    follower.until(|wish| wish.system != old.system && wish.ports.len() == 1);
    follower.carry_out_with_mtu("br0", 1400);
    server.until("get interface br0 mtu", "1400");
    assert_eq!(client.watched(), 2, "the bridge was added, and then only the new report was written");
}

#[test]
fn who_does_not_hold_the_lock_waits_for_its_end_and_neither_wishes_nor_writes() {
    let Some(server) = OvsdbServer::start() else { return };
    server.vsctl("add-br br0");
    let mut first = Follower::start(&server.remote());
    first.until_ports(&["br0"]);
    let mut second = Follower::start(&server.remote());
    second.until_locked(false);
    server.vsctl("add-port br0 p1");
    first.until_ports(&["br0", "p1"]);
    let mut report = first.report();
    report.interfaces.get_mut("br0").unwrap().mtu = Some(1300);
    second.source.report(report);
    let mut client = server.client();
    client.watch(&[("Interface", &["mtu"])]);
    first.carry_out();
    server.until("get interface p1 ofport", "2");
    assert_eq!((client.watched(), second.wishes()), (1, 0));
    drop(first);
    second.until_ports(&["br0", "p1"]);
    second.until_wishes(1);
    second.carry_out_with_mtu("br0", 1400);
    server.until("get interface br0 mtu", "1400");
}

#[test]
fn one_whose_lock_is_stolen_stops_and_goes_on_when_the_thief_ends() {
    let Some(server) = OvsdbServer::start() else { return };
    server.vsctl("add-br br0");
    let mut follower = Follower::start(&server.remote());
    follower.until_ports(&["br0"]);
    follower.carry_out();
    server.until("get interface br0 ofport", "1");
    let mut thief = server.client();
    thief.call("steal", &json!(["ovs_vswitchd"]));
    follower.until_locked(false);
    thief.watch(&[("Interface", &["mtu"])]);
    let wishes = follower.wishes();
    follower.carry_out_with_mtu("br0", 1300);
    server.vsctl("add-port br0 p1");
    // The server has told of the port before it gives the lock back.
    assert_eq!(thief.watched(), 1, "the port was added");
    drop(thief);
    follower.until_ports(&["br0", "p1"]);
    follower.until_wishes(wishes + 1);
    follower.carry_out();
    server.until("get interface p1 ofport", "2");
}

#[test]
fn a_daemon_that_starts_beside_one_that_drives_the_switch_takes_over_when_that_ends() {
    let Some(server) = OvsdbServer::start() else { return };
    let mut other = server.client();
    assert_eq!(other.call("lock", &json!(["ovs_vswitchd"])), json!({"locked": true}));
    server.vsctl("add-br br0");
    let mut follower = Follower::start(&server.remote());
    follower.until_locked(false);
    server.vsctl("add-port br0 p1");
    drop(other);
    follower.until_ports(&["br0", "p1"]);
    follower.until_wishes(1);
}

#[test]
fn a_paused_server_holds_nobody_up_and_the_newest_report_is_written_when_it_wakes() {
    let Some(server) = OvsdbServer::start() else { return };
    server.vsctl("add-br br0");
    let mut follower = Follower::start(&server.remote());
    follower.until_ports(&["br0"]);
    server.signal("STOP");
    for mtu in 1000..3000 {
        follower.carry_out_with_mtu("br0", mtu);
    }
    // One that starts while it is paused waits, and can be ended.
    drop(Follower::start(&server.remote()));
    server.signal("CONT");
    server.until("get interface br0 mtu", "2999");
    server.signal("STOP");
    drop(follower);
    server.signal("CONT");
}

#[test]
fn a_storm_of_rows_ends_in_what_is_there() {
    let Some(server) = OvsdbServer::start() else { return };
    server.vsctl("add-br br0");
    let mut follower = Follower::start(&server.remote());
    follower.until_ports(&["br0"]);
    for round in 0..40 {
        let adds: Vec<String> = (0..50).map(|n| format!("add-port br0 p{n} tag={round}")).collect();
        server.vsctl(&adds.join(" -- "));
        follower.carry_out();
        let dels: Vec<String> = (0..50).map(|n| format!("del-port br0 p{n}")).collect();
        if round < 39 {
            server.vsctl(&dels.join(" -- "));
        }
    }
    follower.until(|wish| {
        wish.ports.len() == 51 && wish.ports.iter().filter(|port| port.tag == Some(39)).count() == 50
    });
    follower.carry_out();
    let number = follower.report().interfaces["p49"].ofport.unwrap();
    server.until("get interface p49 ofport", &number.to_string());
}

#[test]
fn ten_thousand_ports_come_in_one_transaction_and_go_in_one() {
    let Some(server) = OvsdbServer::start() else { return };
    server.vsctl("add-br br0");
    let mut follower = Follower::start(&server.remote());
    follower.until_ports(&["br0"]);
    let bridge = server.vsctl("get bridge br0 _uuid").trim().to_owned();
    let mut operations = Vec::new();
    let mut ports = Vec::new();
    for n in 0..10_000 {
        let (interface, port) = (format!("i{n}"), format!("p{n}"));
        operations.push(json!({"op": "insert", "table": "Interface", "uuid-name": interface,
                               "row": {"name": port, "type": "internal"}}));
        operations.push(json!({"op": "insert", "table": "Port", "uuid-name": port,
                               "row": {"name": port, "interfaces": ["named-uuid", interface]}}));
        ports.push(json!(["named-uuid", port]));
    }
    operations.push(json!({"op": "mutate", "table": "Bridge", "where": [["_uuid", "==", ["uuid", bridge]]],
                           "mutations": [["ports", "insert", ["set", ports]]]}));
    let mut client = server.client();
    client.transact(&operations);
    follower.until(|wish| wish.ports.len() == 10_001);
    follower.carry_out();
    let number = follower.report().interfaces["p9999"].ofport.unwrap();
    server.until("get interface p9999 ofport", &number.to_string());

    // Ports that no bridge has are deleted by the server.
    let local = server.vsctl("get port br0 _uuid").trim().to_owned();
    client
        .transact(&[json!({"op": "update", "table": "Bridge", "where": [["_uuid", "==", ["uuid", bridge]]],
                             "row": {"ports": ["uuid", local]}})]);
    follower.until_ports(&["br0"]);
}

#[test]
fn a_thousand_ports_of_one_transaction_each_are_all_there() {
    let Some(server) = OvsdbServer::start() else { return };
    server.vsctl("add-br br0");
    let mut follower = Follower::start(&server.remote());
    follower.until_ports(&["br0"]);
    let mut client = server.client();
    let bridge = server.vsctl("get bridge br0 _uuid").trim().to_owned();
    for n in 0..1000 {
        let name = format!("p{n}");
        client.transact(&[
            json!({"op": "insert", "table": "Interface", "uuid-name": "i", "row": {"name": name}}),
            json!({"op": "insert", "table": "Port", "uuid-name": "p",
                   "row": {"name": name, "interfaces": ["named-uuid", "i"]}}),
            json!({"op": "mutate", "table": "Bridge", "where": [["_uuid", "==", ["uuid", bridge]]],
                   "mutations": [["ports", "insert", ["set", [["named-uuid", "p"]]]]]}),
        ]);
    }
    follower.until(|wish| wish.ports.len() == 1001);
}

#[test]
fn columns_and_tables_that_an_older_schema_lacks_are_neither_asked_for_nor_written() {
    let Some(mut server) = OvsdbServer::start() else { return };
    let mut schema = OvsdbServer::schema();
    let tables = schema["tables"].as_object_mut().unwrap();
    for (table, column) in [
        ("Open_vSwitch", "iface_types"),
        ("Open_vSwitch", "datapath_types"),
        ("Open_vSwitch", "dpdk_initialized"),
        ("Bridge", "rstp_status"),
        ("Port", "cvlans"),
        ("Port", "protected"),
        ("Interface", "error"),
        ("Interface", "mtu_request"),
        ("Interface", "link_resets"),
    ] {
        tables[table]["columns"].as_object_mut().unwrap().remove(column).unwrap();
    }
    server.kill();
    server.create(&schema);
    server.run();
    server.vsctl("init -- add-br br0");
    let mut follower = Follower::start(&server.remote());
    follower.until_ports(&["br0"]);
    follower.carry_out();
    server.until("get interface br0 ofport", "1");
    server.until("get open . ovs_version", &format!("\"{OVS_VERSION}\""));
}

#[test]
fn a_schema_that_is_converted_while_it_is_followed_is_read_anew() {
    let Some(server) = OvsdbServer::start() else { return };
    server.vsctl("add-br br0");
    let mut follower = Follower::start(&server.remote());
    follower.until_ports(&["br0"]);
    let mut schema = OvsdbServer::schema();
    schema["tables"]["Interface"]["columns"].as_object_mut().unwrap().remove("link_resets").unwrap();
    schema["version"] = Value::from("8.0.0");
    server.convert(&schema);
    server.vsctl("add-port br0 p1");
    follower.until_ports(&["br0", "p1"]);
    follower.carry_out();
    server.until("get interface p1 ofport", "2");
    server.until("get open . db_version", "\"8.0.0\"");
}

#[test]
fn a_row_that_a_tool_spoils_is_put_right_and_a_row_that_is_gone_hinders_nothing() {
    let Some(server) = OvsdbServer::start() else { return };
    server.vsctl("add-br br0 -- add-port br0 p1");
    let mut follower = Follower::start(&server.remote());
    follower.until_ports(&["br0", "p1"]);
    follower.carry_out();
    server.until("get interface p1 ofport", "2");
    server.vsctl("set interface p1 ofport=77");
    server.until("get interface p1 ofport", "2");
    server.vsctl("set open . datapath_types=[]");
    server.until("get open . datapath_types", "[netdev, system]");
    server.vsctl("del-port br0 p1");
    follower.carry_out_with_mtu("br0", 1400);
    server.until("get interface br0 mtu", "1400");
}

#[test]
fn a_server_is_followed_over_tcp_as_well() {
    let Some(server) = OvsdbServer::start() else { return };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    server.appctl(&format!("ovsdb-server/add-remote ptcp:{port}:127.0.0.1"));
    let mut follower = Follower::start(&format!("tcp:localhost:{port}"));
    server.vsctl("add-br br0");
    follower.until_ports(&["br0"]);
    follower.carry_out();
    server.until("get interface br0 ofport", "1");
}

#[test]
fn the_handle_ends_its_thread_and_gives_the_lock_back() {
    let Some(server) = OvsdbServer::start() else { return };
    for _ in 0..20 {
        let follower = Follower::start(&server.remote());
        follower.until_locked(true);
    }
}
