//! What each column means, and that no row can hurt another.
//!
//! Not here: rows from a real server (see tests/tests/source_ovsdb.rs).

mod ports;

use super::super::replica::{Atom, Datum};
use super::super::schema::{STATES, WISHES};
use super::*;
use crate::config::{BridgeConfig, SnoopingConfig, VlanMode};
use std::time::Duration;
use vswitch_core::{Mac, Vlan};

type Cells = Vec<(&'static str, Datum)>;

fn text(text: &str) -> Datum {
    Datum { keys: vec![Atom::String(text.to_owned())], values: None }
}

fn integers(numbers: &[i64]) -> Datum {
    Datum { keys: numbers.iter().map(|number| Atom::Integer(*number)).collect(), values: None }
}

fn boolean(value: bool) -> Datum {
    Datum { keys: vec![Atom::Boolean(value)], values: None }
}

fn references(uuids: &[Uuid]) -> Datum {
    Datum { keys: uuids.iter().map(|uuid| Atom::Uuid(*uuid)).collect(), values: None }
}

fn map(pairs: &[(&str, &str)]) -> Datum {
    let atom = |text: &str| Atom::String(text.to_owned());
    let (keys, values) = pairs.iter().map(|(key, value)| (atom(key), atom(value))).unzip();
    Datum { keys, values: Some(values) }
}

/// A database in the making.
#[derive(Default)]
struct Rows {
    database: Database,
    last: u128,
    bridges: Vec<Uuid>,
}

impl Rows {
    fn add(&mut self, table: &str, cells: Cells) -> Uuid {
        self.last += 1;
        let uuid = Uuid(self.last);
        let row = cells.into_iter().map(|(column, datum)| (column.to_owned(), datum)).collect();
        self.database.tables.entry(table.to_owned()).or_default().insert(uuid, row);
        uuid
    }

    fn port(&mut self, name: &str, mut port: Cells, mut interface: Cells) -> Uuid {
        interface.push(("name", text(name)));
        let interface = self.add("Interface", interface);
        port.extend([("name", text(name)), ("interfaces", references(&[interface]))]);
        self.add("Port", port)
    }

    fn bridge(&mut self, name: &str, ports: &[Uuid], mut cells: Cells) -> &mut Self {
        cells.extend([("name", text(name)), ("ports", references(ports))]);
        let bridge = self.add("Bridge", cells);
        self.bridges.push(bridge);
        self
    }

    fn wish(&mut self, mut system: Cells) -> Wish {
        system.push(("bridges", references(&self.bridges)));
        self.add("Open_vSwitch", system);
        let wish = read(&self.database);
        assert_eq!(
            read(&followed(&self.database)),
            wish,
            "it depends on columns that no server is asked for"
        );
        wish
    }
}

/// What a server is asked for of these rows.
fn followed(database: &Database) -> Database {
    let mut followed = database.clone();
    for (table, rows) in &mut followed.tables {
        let lists = WISHES.iter().chain(&STATES).filter(|(name, _)| name == table);
        let columns: Vec<_> = lists.flat_map(|(_, columns)| columns.iter().copied()).collect();
        rows.values_mut().for_each(|row| row.retain(|column, _| columns.contains(&column.as_str())));
    }
    followed
}

/// What a database with the bridge br0 and in it the port p1 wishes.
fn with_port(port: Cells, interface: Cells) -> Wish {
    let mut rows = Rows::default();
    let port = rows.port("p1", port, interface);
    rows.bridge("br0", &[port], vec![]).wish(vec![])
}

fn with_bridge(cells: Cells) -> Wish {
    Rows::default().bridge("br0", &[], cells).wish(vec![])
}

fn port<'a>(wish: &'a Wish, name: &str) -> &'a PortConfig {
    wish.ports.iter().find(|port| port.name == name).expect("the port is wished")
}

#[test]
fn an_empty_database_wishes_nothing() {
    let wish = read(&Database::default());
    assert_eq!(wish, Wish { stats_interval_ms: 5000, ..Wish::default() });
}

#[test]
fn every_bridge_has_its_local_port_whether_the_database_lists_it_or_not() {
    let mut rows = Rows::default();
    let local = rows.port("br1", vec![("tag", integers(&[7]))], vec![("type", text("system"))]);
    let wish = rows.bridge("br1", &[local], vec![]).bridge("br0", &[], vec![]).wish(vec![]);
    let names: Vec<_> = wish.bridges.iter().map(|bridge| bridge.name.as_str()).collect();
    assert_eq!(names, ["br0", "br1"]);
    assert_eq!(*port(&wish, "br0"), PortConfig::of_bridge("br0", "br0", PortKind::Internal));
    // The local port is internal, whatever the database calls it.
    let expected = PortConfig {
        tag: Some(7),
        vlan_mode: VlanMode::Access,
        ..PortConfig::of_bridge("br1", "br1", PortKind::Internal)
    };
    assert_eq!(*port(&wish, "br1"), expected);
    assert!(wish.refused.is_empty() && wish.complaints.is_empty(), "{wish:?}");
}

#[test]
fn columns_of_the_system_row_are_honoured() {
    for (cells, next, interval, limit) in [
        (vec![], 0, 5000, 1),
        (vec![("next_cfg", integers(&[42]))], 42, 5000, 1),
        (
            vec![("other_config", map(&[("stats-update-interval", "60000"), ("vlan-limit", "2")]))],
            0,
            60_000,
            2,
        ),
        (vec![("other_config", map(&[("stats-update-interval", "10"), ("vlan-limit", "0")]))], 0, 5000, 0),
        (vec![("other_config", map(&[("stats-update-interval", "-1"), ("vlan-limit", "-3")]))], 0, 5000, 0),
        (vec![("other_config", map(&[("stats-update-interval", "x"), ("vlan-limit", "9")]))], 0, 5000, 2),
        (vec![("other_config", map(&[("vlan-limit", "many")]))], 0, 5000, 1),
        (vec![("next_cfg", text("soon")), ("other_config", integers(&[4]))], 0, 5000, 1),
    ] {
        let wish = Rows::default().bridge("br0", &[], vec![]).wish(cells.clone());
        let read = (wish.next_cfg, wish.stats_interval_ms, wish.bridges[0].vlan_limit);
        assert_eq!(read, (next, interval, limit), "{cells:?}");
    }
}

#[test]
fn columns_of_a_bridge_are_honoured_in_open_vswitchs_ranges() {
    let plain = || BridgeConfig::new("br0");
    let seconds = Duration::from_secs;
    let other = |pairs: &[(&str, &str)]| vec![("other_config", map(pairs))];
    let snoops = |snooping| BridgeConfig { snooping: Some(snooping), ..plain() };
    let snooping =
        |pairs: &[(&str, &str)]| vec![("mcast_snooping_enable", boolean(true)), ("other_config", map(pairs))];
    let vlans = |vlans: &[u16]| vlans.iter().copied().filter_map(Vlan::new).collect();
    for (cells, expected) in [
        (vec![], plain()),
        (other(&[("forward-bpdu", "true")]), BridgeConfig { forward_bpdu: true, ..plain() }),
        (other(&[("forward-bpdu", "yes")]), plain()),
        (
            vec![("flood_vlans", integers(&[0, 10, 4094, 4095, -1]))],
            BridgeConfig { flood_vlans: vlans(&[0, 10, 4094]), ..plain() },
        ),
        (other(&[("mac-aging-time", "60")]), BridgeConfig { mac_ageing: seconds(60), ..plain() }),
        (other(&[("mac-aging-time", "1")]), BridgeConfig { mac_ageing: seconds(15), ..plain() }),
        (other(&[("mac-aging-time", "-1")]), BridgeConfig { mac_ageing: seconds(15), ..plain() }),
        (other(&[("mac-aging-time", "86400")]), BridgeConfig { mac_ageing: seconds(3600), ..plain() }),
        (other(&[("mac-aging-time", "0")]), plain()),
        (other(&[("mac-aging-time", "never")]), plain()),
        (other(&[("mac-table-size", "100")]), BridgeConfig { mac_limit: 100, ..plain() }),
        (other(&[("mac-table-size", "3")]), BridgeConfig { mac_limit: 10, ..plain() }),
        (other(&[("mac-table-size", "9999999999")]), BridgeConfig { mac_limit: 1_000_000, ..plain() }),
        (other(&[("mac-table-size", "0")]), plain()),
        (vec![("fail_mode", text("secure"))], BridgeConfig { fail_secure: true, ..plain() }),
        (vec![("fail_mode", text("standalone"))], plain()),
        (snooping(&[]), snoops(SnoopingConfig::default())),
        (
            snooping(&[
                ("mcast-snooping-aging-time", "20"),
                ("mcast-snooping-table-size", "50"),
                ("mcast-snooping-disable-flood-unregistered", "true"),
            ]),
            snoops(SnoopingConfig { ageing: seconds(20), limit: 50, flood_unregistered: false }),
        ),
        (
            snooping(&[("mcast-snooping-aging-time", "1"), ("mcast-snooping-table-size", "-5")]),
            snoops(SnoopingConfig { ageing: seconds(15), limit: 1_000_000, flood_unregistered: true }),
        ),
        (
            other(&[("hwaddr", "02:00:00:00:00:0a")]),
            BridgeConfig { mac: Some(Mac::new([2, 0, 0, 0, 0, 10])), ..plain() },
        ),
        (other(&[("datapath-id", "00000000000000ff")]), BridgeConfig { datapath_id: Some(255), ..plain() }),
        (other(&[("datapath-id", "0x00000000000000ff")]), BridgeConfig { datapath_id: Some(255), ..plain() }),
        (vec![("datapath_type", text("netdev"))], plain()),
        (vec![("datapath_type", text("system"))], plain()),
        (vec![("protocols", text("OpenFlow10"))], plain()),
    ] {
        let wish = with_bridge(cells.clone());
        assert_eq!(wish.bridges, [expected], "{cells:?}");
        assert_eq!(port(&wish, "br0").mac, wish.bridges[0].mac, "{cells:?}");
        assert!(wish.complaints.is_empty(), "{:?}", wish.complaints);
    }
}

#[test]
fn what_a_bridge_wishes_in_vain_is_said_and_it_runs_without() {
    for (cells, complaint) in [
        (vec![("stp_enable", boolean(true))], "stp_enable: spanning tree"),
        (vec![("rstp_enable", boolean(true))], "rstp_enable: spanning tree"),
        (vec![("controller", references(&[Uuid(900)]))], "OpenFlow controllers are not offered"),
        (vec![("netflow", references(&[Uuid(900)]))], "NetFlow is not offered"),
        (vec![("sflow", references(&[Uuid(900)]))], "sFlow is not offered"),
        (vec![("ipfix", references(&[Uuid(900)]))], "IPFIX is not offered"),
        (vec![("auto_attach", references(&[Uuid(900)]))], "Auto-Attach is not offered"),
        (vec![("flow_tables", references(&[Uuid(900)]))], "flow tables are not offered"),
        (vec![("protocols", text("OpenFlow13"))], "only OpenFlow10 is offered"),
        (vec![("other_config", map(&[("hwaddr", "01:00:00:00:00:01")]))], "hwaddr"),
        (vec![("other_config", map(&[("hwaddr", "00:00:00:00:00:00")]))], "hwaddr"),
        (vec![("other_config", map(&[("hwaddr", "mine")]))], "hwaddr"),
        (vec![("other_config", map(&[("datapath-id", "0000000000000000")]))], "datapath-id"),
        (vec![("other_config", map(&[("datapath-id", "12")]))], "datapath-id"),
        (vec![("other_config", map(&[("datapath-id", "+000000000000001")]))], "datapath-id"),
    ] {
        let wish = with_bridge(cells.clone());
        assert_eq!(wish.bridges, [BridgeConfig::new("br0")], "{cells:?}");
        let [said] = wish.complaints.as_slice() else { panic!("{cells:?}: {:?}", wish.complaints) };
        assert!(said.starts_with("bridge br0: ") && said.contains(complaint), "{said}");
    }
}

#[test]
fn a_bridge_that_cannot_be_had_takes_its_interfaces_along_and_no_others() {
    for (name, cells) in [
        ("", vec![]),
        ("a/b", vec![]),
        ("sixteen-bytes-xx", vec![]),
        ("with space", vec![]),
        ("br%d", vec![]),
        ("zero\0byte", vec![]),
        ("lo", vec![]),
        ("dummy", vec![("datapath_type", text("dummy"))]),
    ] {
        let mut rows = Rows::default();
        let (lost, kept) = (rows.port("p1", vec![], vec![]), rows.port("p2", vec![], vec![]));
        let wish = rows.bridge(name, &[lost], cells).bridge("good", &[kept], vec![]).wish(vec![]);
        assert_eq!(wish.bridges, [BridgeConfig::new("good")], "{name:?}");
        let names: Vec<_> = wish.ports.iter().map(|port| port.name.as_str()).collect();
        assert_eq!(names, ["good", "p2"], "{name:?}");
        assert!(wish.refused["p1"].contains("cannot be had"), "{:?}", wish.refused);
        assert_eq!(wish.complaints.len(), 1, "{:?}", wish.complaints);
    }
}

#[test]
fn the_sixteenth_bridge_is_refused_and_one_that_runs_never_is() {
    let mut rows = Rows::default();
    for i in 0..15 {
        rows.bridge(&format!("z{i:02}"), &[], vec![("datapath_id", text("0000000000000001"))]);
    }
    let port = rows.port("p1", vec![], vec![]);
    let wish = rows.bridge("a", &[port], vec![]).wish(vec![]);
    assert_eq!(wish.bridges.len(), 15);
    assert!(wish.bridges.iter().all(|bridge| bridge.name.starts_with('z')));
    assert_eq!(wish.refused["p1"], "bridge a cannot be had: no more than 15 bridges are offered");
}
