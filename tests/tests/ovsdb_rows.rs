//! Any rows of a database: a wish that holds together, or as much of one as there is, and never worse.
//!
//! Not here: what each column means (see `control/source/ovsdb/read`).
#![allow(clippy::unwrap_used, reason = "a test")]

use proptest::prelude::*;
use std::collections::BTreeMap;
use vswitch_tests::ovsdb_rows_body::ovsdb_rows_body;
use vswitchd::control::source::ovsdb::{Atom, Database, Datum, Row, Uuid};

/// Tables, and columns that somebody looks at.
const TABLES: [(&str, &str); 7] = [
    ("Open_vSwitch", "bridges next_cfg cur_cfg other_config external_ids"),
    (
        "Bridge",
        "name ports mirrors datapath_type datapath_id other_config flood_vlans fail_mode stp_enable \
         mcast_snooping_enable controller protocols",
    ),
    ("Port", "name interfaces tag trunks cvlans vlan_mode qos other_config lacp protected"),
    (
        "Interface",
        "name type options mac mtu_request ofport ofport_request ingress_policing_rate ingress_policing_burst bfd \
         external_ids error statistics",
    ),
    ("Mirror", "name select_all select_src_port select_dst_port select_vlan output_port output_vlan snaplen"),
    ("QoS", "type queues other_config"),
    ("Queue", "other_config"),
];

/// How many rows a table has: few, so that they refer to each other.
const ROWS: u128 = 6;

fn uuid(table: usize, row: u128) -> Uuid {
    Uuid((table as u128) << 64 | row)
}

fn string() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("br0".to_owned()),
        Just("p1".to_owned()),
        "[a-c]{1}",
        "[ -~]{0,20}",
        any::<String>(),
        prop::sample::select(vec![
            "vxlan",
            "patch",
            "internal",
            "system",
            "tap",
            "gre",
            "access",
            "trunk",
            "dot1q-tunnel",
            "native-tagged",
            "secure",
            "flow",
            "inherit",
            "true",
            "false",
            "10.0.0.1",
            "fd00::1",
            "224.0.0.1",
            "0x10",
            "-1",
            "99999999999999999999",
            "02:00:00:00:00:01",
            "0000000000000001",
            "egress-policer",
            "always",
        ])
        .prop_map(str::to_owned),
        "[x/\u{0}%:. ]{1,4}",
        Just("x".repeat(1000)),
    ]
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => prop::sample::select(vec![
            "remote_ip", "local_ip", "key", "in_key", "out_key", "dst_port", "tos", "ttl", "df_default", "csum",
            "peer", "vlan-limit", "mac-aging-time", "mac-table-size", "hwaddr", "datapath-id", "forward-bpdu",
            "priority-tags", "qinq-ethtype", "cir", "cbs", "stats-update-interval", "enable",
            "mcast-snooping-table-size",
        ])
        .prop_map(str::to_owned),
        1 => string(),
    ]
}

fn atom() -> impl Strategy<Value = Atom> {
    prop_oneof![
        4 => (0..TABLES.len(), 0..ROWS + 1).prop_map(|(table, row)| Atom::Uuid(uuid(table, row))),
        2 => prop_oneof![-2i64..4100, any::<i64>()].prop_map(Atom::Integer),
        3 => string().prop_map(Atom::String),
        1 => any::<bool>().prop_map(Atom::Boolean),
        1 => any::<f64>().prop_map(Atom::Real),
    ]
}

fn wild() -> impl Strategy<Value = Datum> {
    prop_oneof![
        prop::collection::vec(atom(), 0..4).prop_map(|keys| Datum { keys, values: None }),
        prop::collection::vec((atom(), atom()), 0..4).prop_map(|pairs| {
            let (keys, values) = pairs.into_iter().unzip();
            Datum { keys, values: Some(values) }
        }),
    ]
}

/// Of the type that the schema gives the column, more often than not.
fn datum(column: &str) -> BoxedStrategy<Datum> {
    let references = |table: usize| {
        prop::collection::vec((0..ROWS).prop_map(move |row| Atom::Uuid(uuid(table, row))), 1..4)
            .prop_map(|keys| Datum { keys, values: None })
            .boxed()
    };
    let good = match column {
        "bridges" => references(1),
        "ports" | "select_src_port" | "select_dst_port" | "output_port" => references(2),
        "interfaces" => references(3),
        "mirrors" => references(4),
        "qos" => references(5),
        "other_config" | "options" | "bfd" => prop::collection::btree_map(key(), string(), 0..5)
            .prop_map(|pairs| {
                let (keys, values) =
                    pairs.into_iter().map(|(key, value)| (Atom::String(key), Atom::String(value))).unzip();
                Datum { keys, values: Some(values) }
            })
            .boxed(),
        "name" => words(&["br0", "br1", "p1", "p2", "p3", "p4", "p5", "p6"]),
        "type" => words(&["", "internal", "vxlan", "patch", "system", "egress-policer"]),
        "datapath_type" => words(&["", "netdev", "system"]),
        "vlan_mode" => words(&["access", "trunk", "native-tagged", "native-untagged", "dot1q-tunnel"]),
        "mac" | "fail_mode" => words(&["secure", "02:00:00:00:00:01"]),
        "tag" | "trunks" | "cvlans" | "select_vlan" => prop::collection::vec(0i64..4096, 0..4)
            .prop_map(|numbers| Datum {
                keys: numbers.into_iter().map(Atom::Integer).collect(),
                values: None,
            })
            .boxed(),
        _ => wild().boxed(),
    };
    prop_oneof![12 => good, 1 => wild()].boxed()
}

/// Whether a row without it leads nowhere.
fn must_be(column: &str) -> bool {
    matches!(column, "name" | "bridges" | "ports" | "interfaces")
}

/// One of these, more often than not.
fn words(words: &'static [&'static str]) -> BoxedStrategy<Datum> {
    prop_oneof![8 => prop::sample::select(words).prop_map(str::to_owned), 1 => string()]
        .prop_map(|text| Datum { keys: vec![Atom::String(text)], values: None })
        .boxed()
}

fn row(columns: &'static str) -> impl Strategy<Value = Row> {
    let columns: Vec<_> = columns
        .split_whitespace()
        .map(|column| {
            prop::option::weighted(if must_be(column) { 0.98 } else { 0.6 }, datum(column))
                .prop_map(move |datum| (column, datum))
        })
        .collect();
    columns.prop_map(|columns| {
        columns.into_iter().filter_map(|(column, datum)| Some((column.to_owned(), datum?))).collect()
    })
}

fn database() -> impl Strategy<Value = Database> {
    let tables: Vec<_> = TABLES
        .iter()
        .enumerate()
        .map(|(number, (_, columns))| {
            let rows = if number == 0 { 1..2 } else { 1..ROWS as usize };
            prop::collection::vec(row(columns), rows)
        })
        .collect();
    tables.prop_map(|tables| {
        let named = tables.into_iter().enumerate().map(|(number, rows)| {
            let rows = (0..).zip(rows).map(|(row, columns)| (uuid(number, row), columns));
            (TABLES[number].0.to_owned(), rows.collect::<BTreeMap<_, _>>())
        });
        Database { tables: named.collect() }
    })
}

/// As `ovsdb-client dump --format=json` prints it.
fn dump(database: &Database) -> String {
    use serde_json::json;
    let mut text = String::new();
    for (table, rows) in &database.tables {
        for (uuid, row) in rows {
            let mut headings = vec![json!("_uuid")];
            headings.extend(row.keys().map(|column| json!(column)));
            let mut cells = vec![json!(["uuid", uuid.to_string()])];
            cells.extend(row.values().map(Datum::to_json));
            let object = json!({"caption": format!("{table} table"), "headings": headings, "data": [cells]});
            text += &format!("{object}\n");
        }
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_rows_make_a_wish_that_holds_together(database in database()) {
        ovsdb_rows_body(&database);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_rows_can_be_imported_or_are_refused_in_a_sentence(database in database()) {
        let directory = std::env::temp_dir().join(format!("vswitch-rows-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("dump.json");
        std::fs::write(&file, dump(&database)).unwrap();
        let words = ["import", "ovs", "--bridge", "br0", "--file", file.to_str().unwrap()];
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = vswitchd::ctl::run(words.map(Into::into), None, &mut out, &mut err);
        std::fs::remove_dir_all(&directory).unwrap();
        let text = String::from_utf8(out).unwrap();
        if code == 0 {
            vswitchd::config::Config::parse(&text, "f.toml").unwrap();
        } else {
            let said = String::from_utf8(err).unwrap();
            prop_assert!(code == 1 && text.is_empty() && !said.contains("f.toml"), "{code} {said}");
            prop_assert!(!said.contains("imported:"), "{said}");
        }
    }

    #[test]
    fn any_text_can_be_offered_as_a_dump(text in prop_oneof![
        any::<String>(),
        "(Port table\n)?[_uidname -]{0,30}\n[- ]{0,20}\n[\\[\\]{}a-c,=\" ]{0,30}\n",
        "\\PC{0,20}( table)?\n[a-z ]{0,10}\n[- ]{0,12}\n\\PC{0,20}",
        "6c77f6a5-eb71-4f4a-b015-8fae77f3e563\n( {0,9}(Bridge|Port|Interface|tag:|type:) [\\[\\]{}a-c0-9,=\"]{0,8}\n){0,9}",
    ]) {
        let file = std::env::temp_dir().join(format!("vswitch-text-{}", std::process::id()));
        std::fs::write(&file, text).unwrap();
        let words = ["import", "ovs", "--file", file.to_str().unwrap()];
        let code = vswitchd::ctl::run(words.map(Into::into), None, &mut Vec::new(), &mut Vec::new());
        std::fs::remove_file(&file).unwrap();
        prop_assert!(code <= 1);
    }
}
