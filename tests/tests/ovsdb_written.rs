//! What is read from a real database server is what the stock tools wrote, and it takes what is written back.
//!
//! Not here: the connection (see tests/tests/source_ovsdb.rs).

use serde_json::{Value, json};
use std::collections::BTreeMap;
use vswitch_core::Mac;
use vswitch_tests::ovsdb_server::OvsdbServer;
use vswitchd::config::PortKind;
use vswitchd::control::source::ovsdb::{
    BridgeReport, InterfaceReport, OfportWish, Operation, Report, Wish, read, write,
};

/// An update as RFC 7047 §5.2.3 writes it.
fn message(operation: &Operation) -> Value {
    let Operation::Update { table, uuid, row } = operation;
    let row: serde_json::Map<_, _> =
        row.iter().map(|(column, datum)| (column.clone(), datum.to_json())).collect();
    json!({"op": "update", "table": table, "where": [["_uuid", "==", ["uuid", uuid.to_string()]]], "row": row})
}

/// Writes `report`; how many rows differed from it.
fn carry_out(server: &OvsdbServer, report: &Report) -> usize {
    let operations = write(&server.database(), report);
    let answer = server.transact(&operations.iter().map(message).collect::<Vec<_>>());
    for result in answer.as_array().into_iter().flatten() {
        assert_eq!(*result, json!({"count": 1}), "{answer}");
    }
    operations.len()
}

#[test]
fn the_two_commands_that_everybody_types_make_a_tunnel() {
    let Some(server) = OvsdbServer::start() else { return };
    server.vsctl("add-br br1");
    server.vsctl("add-port br1 vx1 -- set interface vx1 type=vxlan options:remote_ip=192.168.65.116");
    let wish = read(&server.database());
    assert!(wish.refused.is_empty() && wish.complaints.is_empty(), "{wish:?}");
    let names: Vec<_> = wish.ports.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["br1", "vx1"]);
    let PortKind::Vxlan(tunnel) = &wish.ports[1].kind else { panic!("{wish:?}") };
    assert_eq!((tunnel.remote.to_string().as_str(), tunnel.in_key.get()), ("192.168.65.116", 0));
}

#[test]
fn the_server_takes_every_status_column_and_keeps_what_is_not_ours() {
    let Some(server) = OvsdbServer::start() else { return };
    server.vsctl(
        "add-br br0 -- set bridge br0 stp_enable=true -- add-port br0 p1 -- add-port br0 p2 \
         -- set interface p1 external_ids:iface-id=x ofport_request=7 \
         -- --id=@m create mirror name=m0 select_all=true output_vlan=9 -- set bridge br0 mirrors=@m",
    );
    server.transact(&[json!({"op": "mutate", "table": "Open_vSwitch", "where": [],
                             "mutations": [["next_cfg", "+=", 1]]})]);
    let Wish { system, next_cfg, .. } = read(&server.database());
    let good = InterfaceReport {
        ofport: Some(7),
        error: None,
        mac: Some(Mac::new([2, 0, 0, 0, 0, 10])),
        mtu: Some(1500),
        ifindex: Some(u32::MAX),
        admin_up: Some(true),
        link_up: Some(false),
        link_resets: Some(0),
        link_speed: Some(100_000_000_000),
        full_duplex: Some(true),
        statistics: BTreeMap::from([("rx_packets".to_owned(), 5), ("tx_bytes".to_owned(), u64::MAX)]),
        status: BTreeMap::from([("driver_name".to_owned(), "tun".to_owned())]),
    };
    let bad = InterfaceReport {
        error: Some("could not open network device p2 (No such device)".to_owned()),
        ..InterfaceReport::default()
    };
    let mut report = Report {
        system,
        cur_cfg: next_cfg,
        bridges: BTreeMap::from([("br0".to_owned(), BridgeReport { datapath_id: 255 })]),
        interfaces: BTreeMap::from([("p1".to_owned(), good), ("p2".to_owned(), bad)]),
        mirrors: BTreeMap::from([(("br0".to_owned(), "m0".to_owned()), (3, 180))]),
    };
    assert_eq!(carry_out(&server, &report), 5);
    assert_eq!(carry_out(&server, &report), 0, "what was written once is not written again");
    let get = |words: &str| server.vsctl(&format!("get {words}")).trim().to_owned();
    for (words, expected) in [
        ("Open_vSwitch . cur_cfg", next_cfg.to_string().as_str()),
        ("bridge br0 datapath_id", "\"00000000000000ff\""),
        ("bridge br0 status", "{error=\"spanning tree protocols are not offered\"}"),
        ("mirror m0 statistics", "{tx_bytes=180, tx_packets=3}"),
        ("interface p1 ofport", "7"),
        ("interface p1 mac_in_use", "\"02:00:00:00:00:0a\""),
        ("interface p1 mtu", "1500"),
        ("interface p1 ifindex", "4294967295"),
        ("interface p1 admin_state", "up"),
        ("interface p1 link_state", "down"),
        ("interface p1 link_resets", "0"),
        ("interface p1 link_speed", "100000000000"),
        ("interface p1 duplex", "full"),
        ("interface p1 statistics", "{rx_packets=5, tx_bytes=9223372036854775807}"),
        ("interface p1 status", "{driver_name=tun}"),
        ("interface p1 error", "[]"),
        ("interface p1 external_ids", "{iface-id=x}"),
        ("interface p2 ofport", "-1"),
        ("interface p2 error", "\"could not open network device p2 (No such device)\""),
    ] {
        assert_eq!(get(words), expected, "{words}");
    }
    let wish = read(&server.database());
    assert_eq!(wish.ofports["p1"], OfportWish { request: Some(7), before: Some(7) });
    assert!(!wish.ofports.contains_key("p2"));
    // A tool may write what only we should: it is put right.
    server.vsctl("set interface p1 ofport=9 -- set interface p2 error=fine");
    assert_eq!(carry_out(&server, &report), 2);
    report
        .interfaces
        .insert("p2".to_owned(), InterfaceReport { ofport: Some(1), ..InterfaceReport::default() });
    assert_eq!(carry_out(&server, &report), 1);
    assert_eq!((get("interface p2 error").as_str(), get("interface p2 ofport").as_str()), ("[]", "1"));
}
