//! Every verb of `vswitchctl` against the running daemon: text, JSON, keys, exit codes, and what each changes.
#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::Value;
use vswitch_core::wire::ethernet::Mac;
use vswitch_tests::daemon::{Host, PATIENCE, Pod, Raw, number, text, with_host};
use vswitch_tests::frames::{Frame, ctag, station};
use vswitch_tests::lab::{Lab, until};

fn frame(to: u32, from: u32) -> Vec<u8> {
    Frame::new(station(to), station(from)).bytes()
}

fn broadcast(from: u32) -> Vec<u8> {
    Frame::new(Mac::BROADCAST, station(from)).bytes()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Two pods on VLAN 10, and their sockets.
struct Pair {
    a: Pod,
    b: Pod,
    raw_a: Raw,
    raw_b: Raw,
}

fn pair(lab: &Lab, host: &mut Host, more: &str) -> Pair {
    let (a, b) = (Pod::new(lab, "a"), Pod::new(lab, "b"));
    let tables = a.table("tap-a", "tag = 10") + &b.table("tap-b", "tag = 10");
    host.start_on(&format!("{more}\n{tables}"));
    let (raw_a, raw_b) = (a.raw("tap-a"), b.raw("tap-b"));
    Pair { a, b, raw_a, raw_b }
}

fn has_keys(row: &Value, keys: &[&str]) {
    for key in keys {
        assert!(row.get(key).is_some(), "{key:?} is missing in {row}");
    }
    let flat = row.as_object().unwrap().values().all(|value| !value.is_object());
    assert!(flat, "not flat: {row}");
}

#[test]
fn every_table_has_the_keys_of_the_contract_and_a_text_form() {
    with_host("every_table_has_the_keys_of_the_contract_and_a_text_form", |lab, mut host| {
        let far = lab.namespace("far");
        host.namespace().veth("under", &far, "under");
        host.namespace().address("under", "192.0.2.1/24");
        let more = "[underlay]\naddress = \"192.0.2.0/24\"\n[mesh]\npeers = [\"192.0.2.1\", \"192.0.2.9\"]\n\
                    [[segment]]\nname = \"blue\"\nvlan = 10\nvni = 10010";
        let Pair { raw_a, raw_b, .. } = pair(lab, &mut host, more);
        host.must("port add tap-fw vlan_mode=trunk trunks=10,20,100-199");
        host.teach(&raw_a, &raw_b, &broadcast(1), "tap-a");
        raw_a.send(&Frame::new(station(9), station(1)).tag(ctag(10, 0)).bytes());
        until("the drop", PATIENCE, || (!host.drops().is_empty()).then_some(()));

        for row in host.rows("port") {
            let keys = [
                "name",
                "type",
                "vlan_mode",
                "tag",
                "trunks",
                "mtu",
                "link",
                "rx_frames",
                "rx_bytes",
                "tx_frames",
                "tx_bytes",
                "rx_dropped",
                "tx_dropped",
            ];
            has_keys(&row, &keys);
        }
        let a = host.port("tap-a");
        assert_eq!(
            (text(&a, "vlan_mode"), number(&a, "tag"), &a["trunks"]),
            ("access".into(), 10, &Value::Null)
        );
        // The underlay's 1500 less what VXLAN over IPv4 takes.
        assert_eq!(
            (text(&a, "type"), text(&a, "link"), number(&a, "mtu")),
            ("tap".into(), "up".into(), 1450)
        );
        assert!(number(&a, "rx_frames") >= 2 && number(&a, "rx_dropped") == 1, "{a}");
        let fw = host.port("tap-fw");
        assert_eq!((text(&fw, "vlan_mode"), &fw["tag"]), ("trunk".into(), &Value::Null));
        let trunks: Vec<u64> = [10, 20].into_iter().chain(100..=199).collect();
        assert_eq!(fw["trunks"], serde_json::json!(trunks));
        assert!(host.ctl("port").out.contains("  10,20,100-199  "), "people read ranges");

        let peers = host.rows("peer");
        let keys = ["address", "name", "state", "mtu", "rx_frames", "rx_bytes", "tx_frames", "tx_bytes"];
        assert_eq!(peers.len(), 1, "the own address is no peer: {peers:?}");
        has_keys(&peers[0], &keys);
        assert_eq!(text(&peers[0], "address"), "192.0.2.9");
        assert!(["up", "down", "unknown"].contains(&text(&peers[0], "state").as_str()));

        let macs = host.rows("mac");
        has_keys(&macs[0], &["mac", "segment", "vlan", "vni", "port", "peer", "age_seconds", "state"]);
        assert_eq!((text(&macs[0], "segment"), number(&macs[0], "vni")), ("blue".into(), 10010));
        assert_eq!((text(&macs[0], "port"), &macs[0]["peer"]), ("tap-a".into(), &Value::Null));
        assert_eq!(host.macs(), [("02:00:00:00:00:01".into(), 10, "tap-a".into(), "learned".into())]);

        has_keys(&host.rows("drops")[0], &["reason", "count"]);
        has_keys(&host.rows("drops --by-port")[0], &["reason", "count", "port"]);
        has_keys(&host.rows("segment")[0], &["segment", "vlan", "vni"]);
        has_keys(&host.json("status"), &["node", "version", "warnings"]);
        assert_eq!(host.json("diff"), serde_json::json!([]));
        assert!(host.json("doctor").is_array());

        for (words, word) in [
            ("status", "ports"),
            ("port", "tap-fw"),
            ("port list", "access"),
            ("peer", "192.0.2.9"),
            ("segment", "blue"),
            ("mac", "02:00:00:00:00:01"),
            ("mac list --port tap-a --vlan 10", "learned"),
            ("drops", "vlan_tagged_on_access"),
            ("drops --by-port", "tap-a"),
            ("doctor", "tun"),
        ] {
            let said = host.ctl(words);
            assert_eq!((said.code, said.err.as_str()), (0, ""), "{words}");
            assert!(said.out.contains(word), "{words}: {}", said.out);
        }
        let said = host.ctl("diff");
        assert_eq!((said.code, said.out.as_str()), (0, ""));
    });
}

#[test]
fn a_port_of_the_run_time_comes_changes_and_goes_with_its_interface() {
    with_host("a_port_of_the_run_time_comes_changes_and_goes_with_its_interface", |lab, mut host| {
        let Pair { a, raw_a, .. } = pair(lab, &mut host, "");
        let c = Pod::new(lab, "c");
        host.must(&format!("port add tap-c tag=10 netns={} ifname=eth0", c.name()));
        // It has taken effect when the command returns.
        let (raw_c, index) = (c.raw("eth0"), c.index("eth0"));
        raw_a.reaches(&raw_c, &broadcast(1));
        host.teach(&raw_c, &raw_a, &broadcast(3), "tap-c");
        host.must("mac add tap-c 10 02:00:00:00:00:33");
        assert_eq!(host.rows("mac list --port tap-c").len(), 2);

        host.must("port set tap-c tag=20");
        assert_eq!((c.index("eth0"), number(&host.port("tap-c"), "tag")), (index, 20));
        let before = number(&host.port("tap-a"), "rx_frames");
        raw_a.send(&broadcast(1));
        raw_a.send(&frame(3, 1));
        until("both", PATIENCE, || (number(&host.port("tap-a"), "rx_frames") == before + 2).then_some(()));
        assert!(raw_c.drain().is_empty(), "VLAN 10 does not reach it any more");
        host.must("port set tap-c tag= vlan_mode=trunk trunks=10");
        raw_a.send(&broadcast(1));
        raw_c.until(&Frame::new(Mac::BROADCAST, station(1)).tag(ctag(10, 0)).bytes());

        let said = host.ctl("port add tap-a tag=20");
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains("port set") && said.err.contains("vswitch.toml"), "{said:?}");
        assert_eq!(host.ctl("port add tap-c tag=20").code, 1, "there is one");
        assert_eq!(host.ctl("port set nobody tag=20").code, 1);
        assert_eq!(host.ctl("port del nobody").code, 1);

        host.must("port del tap-c");
        assert_eq!(c.index("eth0"), None, "the TAP is gone when the command returns");
        assert!(!host.macs().iter().any(|(_, _, port, _)| port == "tap-c"), "{:?}", host.macs());
        assert_eq!(host.ctl("port del tap-c").code, 1, "it is gone");

        // One of the file goes the same way, and the file keeps it.
        host.must("port del tap-a");
        assert_eq!(a.index("tap-a"), None);
        assert!(host.rows("port").iter().all(|row| row["name"] != "tap-a"));
        // A port added, deleted and added again has forgotten all.
        host.must(&format!("port add tap-c tag=10 netns={} ifname=eth0", c.name()));
        assert!(host.rows("mac list --port tap-c").is_empty());
        assert_eq!(number(&host.port("tap-c"), "rx_frames"), 0);
    });
}

#[test]
fn static_and_learned_entries_obey_add_del_and_flush() {
    with_host("static_and_learned_entries_obey_add_del_and_flush", |lab, mut host| {
        let Pair { raw_a, raw_b, .. } = pair(lab, &mut host, "[[port]]\nname = \"trunk\"");
        let entry = |mac: &str, vlan, port: &str, state: &str| {
            (mac.to_owned(), vlan, port.to_owned(), state.to_owned())
        };
        let (one, two) = ("02:00:00:00:00:01", "02:00:00:00:00:02");
        host.teach(&raw_a, &raw_b, &broadcast(1), "tap-a");
        host.teach(&raw_b, &raw_a, &broadcast(2), "tap-b");
        assert_eq!(host.macs(), [entry(one, 10, "tap-a", "learned"), entry(two, 10, "tap-b", "learned")]);
        // Over a learned one, and over a static one; upper case is the same address.
        host.must("mac add tap-b 10 02:00:00:00:00:01");
        assert_eq!(host.macs()[0], entry(one, 10, "tap-b", "static"));
        host.must("mac add tap-a 10 02:00:00:00:00:01");
        host.must("mac add tap-a 10 02:00:00:00:00:0A");
        host.must("mac add trunk 20 02:00:00:00:00:01");
        let all = [
            entry(one, 10, "tap-a", "static"),
            entry(two, 10, "tap-b", "learned"),
            entry("02:00:00:00:00:0a", 10, "tap-a", "static"),
            entry(one, 20, "trunk", "static"),
        ];
        assert_eq!(host.macs(), all);
        // A static entry does not move to where its address speaks.
        raw_b.reaches(&raw_a, &Frame::new(Mac::BROADCAST, station(1)).bytes());
        assert_eq!(host.macs(), all);
        // It is used: a frame to it does not flood.
        raw_b.reaches(&raw_a, &frame(10, 2));

        assert_eq!(host.json("mac flush"), serde_json::json!({"flushed": 1}));
        assert!(host.macs().iter().all(|(.., state)| state == "static") && host.macs().len() == 3);
        host.teach(&raw_b, &raw_a, &broadcast(2), "tap-b");
        host.teach(&raw_a, &raw_b, &broadcast(5), "tap-a");
        assert_eq!(host.json("mac flush --port tap-b"), serde_json::json!({"flushed": 1}));
        assert_eq!(host.json("mac flush --vlan 20"), serde_json::json!({"flushed": 0}));
        assert_eq!(host.rows("mac --port tap-a").len(), 3);
        assert_eq!(host.json("mac flush --port tap-a --vlan 10"), serde_json::json!({"flushed": 1}));

        // A learned entry can be deleted too.
        host.teach(&raw_b, &raw_a, &broadcast(2), "tap-b");
        host.must("mac del 10 02:00:00:00:00:02");
        host.must("mac del 10 02:00:00:00:00:01");
        assert_eq!(host.rows("mac").len(), 2);
        for absent in ["10 02:00:00:00:00:01", "30 02:00:00:00:00:01", "10 02:00:00:00:00:77"] {
            let said = host.ctl(&format!("mac del {absent}"));
            assert_eq!(said.code, 1, "{said:?}");
            assert!(said.err.contains("no entry"), "{said:?}");
        }
        for (refused, code) in [
            ("mac add nobody 10 02:00:00:00:00:01", 1),
            ("mac add tap-a 20 02:00:00:00:00:01", 1),
            ("mac add tap-a 10 03:00:00:00:00:01", 64),
            ("mac add tap-a 10 00:00:00:00:00:00", 64),
            ("mac add tap-a 4095 02:00:00:00:00:01", 64),
            ("mac flush --port nobody", 1),
        ] {
            let said = host.ctl(refused);
            assert_eq!((said.code, said.err.lines().count()), (code, 1), "{refused}: {said:?}");
        }
        assert_eq!(host.rows("mac").len(), 2);
    });
}

#[test]
fn drops_are_told_by_reason_and_port_and_survive_the_port() {
    with_host("drops_are_told_by_reason_and_port_and_survive_the_port", |lab, mut host| {
        let Pair { raw_a, raw_b, .. } = pair(lab, &mut host, "");
        let tagged = Frame::new(station(9), station(1)).tag(ctag(10, 0)).bytes();
        (0..3).for_each(|_| raw_a.send(&tagged));
        (0..2).for_each(|_| raw_b.send(&tagged));
        raw_a.send(&Frame::new(Mac::new([1, 0x80, 0xc2, 0, 0, 0]), station(1)).bytes());
        let sum = || host.drops().values().sum::<u64>();
        until("six drops", PATIENCE, || (sum() == 6).then_some(()));
        let expected = [("reserved_group".to_owned(), 1), ("vlan_tagged_on_access".to_owned(), 5)];
        assert_eq!(host.drops(), expected.into());
        let by_port: Vec<_> = host
            .rows("drops --by-port")
            .iter()
            .map(|row| (text(row, "reason"), text(row, "port"), number(row, "count")))
            .collect();
        let row = |reason: &str, port: &str, count| (reason.to_owned(), port.to_owned(), count);
        let expected = [
            row("reserved_group", "tap-a", 1),
            row("vlan_tagged_on_access", "tap-a", 3),
            row("vlan_tagged_on_access", "tap-b", 2),
        ];
        assert_eq!(by_port, expected);
        assert!(host.rows("drops --all").iter().any(|row| row["count"] == 0));
        let before = host.drops();
        host.must("port del tap-a");
        assert_eq!(host.drops(), before, "no total ever falls");
        host.must("port add other tag=10");
        assert_eq!(host.drops(), before);
        assert_eq!(number(&host.port("other"), "rx_dropped"), 0, "a new port begins at zero");
    });
}

#[test]
fn a_trace_tells_verdict_ways_and_line_and_changes_nothing() {
    with_host("a_trace_tells_verdict_ways_and_line_and_changes_nothing", |lab, mut host| {
        let Pair { raw_a, raw_b, .. } = pair(lab, &mut host, "[[port]]\nname = \"trunk\"\ntrunks = [10, 12]");
        host.teach(&raw_b, &raw_a, &broadcast(2), "tap-b");
        let everything = || {
            let mut macs = host.rows("mac");
            macs.iter_mut().for_each(|row| {
                row.as_object_mut().unwrap().retain(|key, _| !key.ends_with("_seconds"));
            });
            (host.rows("port"), macs, host.rows("drops --all --by-port"), std::fs::read(host.state()).ok())
        };
        let before = everything();

        let trace = |port: &str, bytes: &[u8]| host.json(&format!("trace {port} {}", hex(bytes)));
        let dropped = trace("tap-a", &Frame::new(station(2), station(7)).tag(ctag(20, 3)).bytes());
        assert_eq!(
            (text(&dropped, "verdict"), text(&dropped, "reason")),
            ("drop".into(), "vlan_tagged_on_access".into())
        );
        let header = host.line_of("name = \"tap-a\"") - 1;
        assert_eq!(text(&dropped, "decided_by"), format!("{}:{header}", host.config().display()));
        assert!(
            !dropped["steps"].as_array().unwrap().is_empty()
                && dropped["outputs"].as_array().unwrap().is_empty()
        );
        let refused = trace("trunk", &Frame::new(station(2), station(7)).tag(ctag(20, 0)).bytes());
        assert_eq!(text(&refused, "reason"), "vlan_not_trunked");

        let to_b = trace("tap-a", &frame(2, 7));
        assert_eq!((text(&to_b, "verdict"), &to_b["reason"]), ("forward".into(), &Value::Null));
        assert_eq!(to_b["outputs"].as_array().unwrap().len(), 1);
        assert_eq!(
            (text(&to_b["outputs"][0], "port"), text(&to_b["outputs"][0], "frame")),
            ("tap-b".into(), hex(&frame(2, 7)))
        );
        let flooded = trace("tap-a", &broadcast(7));
        assert_eq!(text(&flooded, "verdict"), "flood");
        let ways: Vec<_> = flooded["outputs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|way| (text(way, "port"), text(way, "frame")))
            .collect();
        let tagged = Frame::new(Mac::BROADCAST, station(7)).tag(ctag(10, 0)).bytes();
        assert_eq!(ways.len(), 2);
        assert!(
            ways.contains(&("tap-b".into(), hex(&broadcast(7))))
                && ways.contains(&("trunk".into(), hex(&tagged)))
        );

        let said = host.ctl(&format!("trace tap-a {}", hex(&frame(2, 7))));
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.out.contains("verdict: forward") && said.out.contains("tap-b"), "{}", said.out);
        assert_eq!(text(&trace("tap-a", &[1, 2, 3]), "reason"), "short_frame");
        for (words, code) in
            [("trace tap-a 0g", 64), ("trace tap-a 012", 64), ("trace nobody 0011", 1), ("trace tap-a", 64)]
        {
            assert_eq!(host.ctl(words).code, code, "{words}");
        }
        assert_eq!(everything(), before);
    });
}

#[test]
fn diff_and_reload_tell_what_changes_what_is_wrong_and_what_needs_a_restart() {
    with_host("diff_and_reload_tell_what_changes_what_is_wrong_and_what_needs_a_restart", |lab, mut host| {
        let Pair { a, b, raw_a, raw_b } = pair(lab, &mut host, "");
        let tables = |tag: u16| a.table("tap-a", &format!("tag = {tag}")) + &b.table("tap-b", "tag = 10");
        host.configure(&(tables(12) + "[[port]]\nname = \"new\"\n"));
        let said = host.ctl("diff");
        assert_eq!(said.code, 1, "{said:?}");
        assert!(
            said.out.contains("~ port tap-a: tag: 10 -> 12") && said.out.contains("+ port new"),
            "{}",
            said.out
        );
        let said = host.ctl("--json diff");
        assert_eq!((said.code, said.json().as_array().unwrap().len()), (1, 2), "{said:?}");
        assert_eq!(number(&host.port("tap-a"), "tag"), 10, "diff changes nothing");
        host.must("reload");
        assert_eq!(host.ctl("diff").code, 0);
        assert_eq!(number(&host.port("tap-a"), "tag"), 12);
        host.configure(&tables(10));
        assert_eq!(host.json("reload")["failed"], serde_json::json!([]));
        assert!(!host.has_interface("new"), "gone when reload returns");

        let before = host.rows("port");
        host.configure(&(tables(12) + "[[port]]\nname = \"worse\"\ntag = 4095\nnonsense = 1\n"));
        for verb in ["reload", "diff"] {
            let said = host.ctl(verb);
            assert_eq!((said.code, said.out.as_str()), (78, ""), "{said:?}");
            for (key, column) in [("tag = 4095", 7), ("nonsense", 1)] {
                let place = format!("{}:{}:{column}", host.config().display(), host.line_of(key));
                assert!(said.err.contains(&place), "{place} in {said:?}");
            }
        }
        std::fs::write(host.config(), "[[port\n").unwrap();
        let said = host.ctl("reload");
        assert!(said.code == 78 && said.err.contains("vswitch.toml:1:"), "{said:?}");
        std::fs::remove_file(host.config()).unwrap();
        assert_ne!(host.ctl("reload").code, 0);
        assert_eq!(host.rows("port"), before);

        for (line, key) in
            [("[node]\nname = \"another\"", "[node]"), ("[datapath]\nworkers = 3", "[datapath] workers")]
        {
            host.configure(&format!("{line}\n{}", tables(12)));
            let said = host.ctl("reload");
            assert_eq!((said.code, said.out.as_str()), (1, ""), "{said:?}");
            assert!(said.err.contains(key) && said.err.contains("restart"), "{said:?}");
            assert_eq!(host.rows("port"), before);
        }
        for key in ["socket", "state"] {
            let (socket, state) = (host.socket(), host.state());
            let text = format!("[control]\nsocket = {socket:?}\nstate = {state:?}\n{}", tables(12));
            let path = if key == "socket" { socket } else { state };
            let elsewhere = host.file("elsewhere");
            std::fs::write(host.config(), text.replace(path.to_str().unwrap(), elsewhere.to_str().unwrap()))
                .unwrap();
            let said = host.ctl("reload");
            assert!(said.code == 1 && said.err.contains(&format!("[control] {key}")), "{said:?}");
        }
        assert_eq!(host.rows("port"), before);
        raw_a.reaches(&raw_b, &broadcast(1));
    });
}

#[test]
fn exit_codes_tell_wrong_words_from_no_daemon_from_a_refusal() {
    with_host("exit_codes_tell_wrong_words_from_no_daemon_from_a_refusal", |_, mut host| {
        let said = host.ctl("status");
        assert_eq!((said.code, said.out.as_str(), said.err.lines().count()), (69, "", 1), "{said:?}");
        host.start_on("[[port]]\nname = \"one\"\n");
        for words in [
            "",
            "nonsense",
            "port nonsense",
            "port add",
            "port set one",
            "port add x tag",
            "port add x tag=1 tag=2",
            "mac add one 10",
            "mac del 10",
            "status now",
            "status --port one",
            "drops --vlan 10",
            "--timeout 0 status",
            "--nonsense status",
            "port add x nonsense=1",
            "port add x tag=4095",
            "port set one mtu=big",
        ] {
            let said = host.ctl(words);
            assert_eq!((said.code, said.out.as_str()), (64, ""), "{words}: {said:?}");
            assert!(said.err.starts_with("vswitchctl: "), "{words}: {said:?}");
        }
        for words in ["port del two", "mac del 10 02:00:00:00:00:01", "capture", "trace two 0011"] {
            let said = host.ctl(words);
            assert_eq!((said.code, said.out.as_str()), (1, ""), "{words}: {said:?}");
        }
        assert_eq!(host.ctl("--help").code, 0);
        // A socket that nobody serves any more.
        host.end("KILL");
        assert_eq!(host.ctl("status").code, 69);
    });
}
