//! The stock `ovs-ofctl` and our daemon: it finds each bridge, is answered as Open vSwitch answers, and is refused what
//! is not offered by OpenFlow's own errors; clients of no good will harm nobody.
//!
//! Not here: what flows do to frames (see `openflow_frames.rs`).
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use vswitch_tests::daemon::{PATIENCE, Said};
use vswitch_tests::lab::until;
use vswitch_tests::openflow_body::{message, table_ids};
use vswitch_tests::openflow_seat::{Seat, appctl_at, ask, ofctl_at, receive, with_seat};
use vswitch_tests::ovs::Ovs;
use vswitchd::control::openflow::MAX_FLOWS;
use vswitchd::control::openflow::codec::kind;
use vswitchd::control::openflow::server::Serving;

/// Words for ovs-ofctl, in turn; `@` is a file of flows. Flows are shown in the order of their priorities, where Open
/// vSwitch has one: of equal ones each of the two switches has its own.
const WORDS: &[&str] = &[
    "probe br0",
    "--no-stats dump-flows br0",
    "add-flow br0 priority=11,in_port=1,actions=output:2",
    "add-flow br0 priority=12,in_port=p2,actions=p1",
    "add-flow br0 priority=13,dl_vlan=10,dl_vlan_pcp=3,actions=drop",
    "add-flow br0 priority=14,dl_vlan=10,actions=drop",
    "add-flow br0 priority=15,vlan_tci=0,actions=normal",
    "add-flow br0 priority=16,dl_vlan_pcp=2,actions=in_port",
    "add-flow br0 priority=17,arp,actions=normal,flood,all,local,in_port,output:1",
    "add-flow br0 priority=18,dl_src=02:00:00:00:00:01,dl_dst=ff:ff:ff:ff:ff:ff,actions=all",
    "add-flow br0 priority=19,dl_type=0x0800,cookie=0x12,idle_timeout=600,hard_timeout=700,actions=LOCAL",
    "add-flow br0 priority=20,in_port=LOCAL,actions=output:77",
    "add-flow br0 priority=21,in_port=77,actions=drop",
    "add-flow br0 priority=22,dl_type=0x1234,nw_src=1.2.3.4,actions=drop",
    "--no-stats dump-flows br0",
    "--no-stats dump-flows br0 in_port=1",
    "--no-stats dump-flows br0 out_port=1",
    "--no-stats dump-flows br0 out_port=LOCAL",
    "--no-stats dump-flows br0 table=0,dl_vlan=10",
    "--no-stats dump-flows br0 table=7",
    "add-flow br0 table=0,priority=23,in_port=1,dl_vlan=30,actions=drop",
    "add-flow br0 table=255,priority=24,in_port=1,dl_vlan=30,actions=drop",
    "mod-flows br0 table=0,dl_vlan=30,actions=normal",
    "add-flows br0 @0",
    "--no-stats dump-flows br0 table=0",
    "--strict del-flows br0 table=0,priority=23,in_port=1,dl_vlan=30",
    "del-flows br0 table=0,dl_vlan=31",
    "--no-stats dump-flows br0",
    "del-flows br0 table=255,dl_vlan=30",
    "add-flow br0 priority=11,in_port=1,actions=drop",
    "mod-flows br0 dl_vlan=10,actions=normal",
    "mod-flows br0 priority=5,dl_vlan=11,cookie=7,actions=normal",
    "--strict mod-flows br0 priority=14,dl_vlan=10,actions=drop",
    "--strict mod-flows br0 priority=10,dl_vlan=10,actions=drop",
    "--no-stats dump-flows br0",
    "add-flow br0 check_overlap,priority=11,in_port=1,actions=drop",
    "add-flow br0 check_overlap,priority=11,dl_vlan=3,actions=drop",
    "--strict del-flows br0 priority=99,in_port=1",
    "--strict del-flows br0 priority=11,in_port=1",
    "del-flows br0 dl_vlan=10",
    "del-flows br0 out_port=2",
    "del-flows br0 out_port=normal",
    "--no-stats dump-flows br0",
    "diff-flows br0 @",
    "replace-flows br0 @",
    "diff-flows br0 @",
    "--no-stats dump-flows br0",
    "add-flows br0 @",
    "del-flows br0",
    "--no-stats dump-flows br0",
    "add-flow br0 actions=normal",
    "--no-stats dump-flows br0",
    "get-frags br0",
    "mod-port br0 7 up",
    "dump-ports br0 99",
    "dump-aggregate br0 dl_vlan=99",
];

/// In `@0`: with tables, and without.
const FLOWS_OF_TABLES: &str =
    "table=0,priority=25,dl_vlan=31,actions=drop\npriority=26,dl_vlan=31,actions=output:2\n";

const FLOWS: &str =
    "priority=3,in_port=1,dl_vlan=5,actions=output:2\n# and the others\npriority=1,actions=normal\n";

/// What two switches that do the same say alike: without the names of messages, where stock ovs-ofctl speaks Nicira's
/// dialect to Open vSwitch, and without numbers of messages and ages.
fn alike(said: &Said) -> (i32, Vec<String>) {
    let words = |line: &str| {
        let line = line.replace("NXST_", "OFPST_");
        let words = line.split_whitespace().filter(|word| !word.starts_with("(xid="));
        words.collect::<Vec<_>>().join(" ")
    };
    let mut lines: Vec<String> = said.out.lines().chain(said.err.lines()).map(words).collect();
    lines.sort();
    (said.code, lines)
}

/// Stock Open vSwitch with a bridge like that of the seat.
fn stock() -> Option<Ovs> {
    let stock = Ovs::start(1)?;
    let words = "--may-exist add-br br0 -- set bridge br0 datapath_type=dummy fail-mode=standalone \
                 -- add-port br0 p1 -- set interface p1 type=dummy ofport_request=1 \
                 -- add-port br0 p2 -- set interface p2 type=dummy ofport_request=2";
    stock.configure(&words.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    Some(stock)
}

#[test]
fn the_stock_tool_gets_the_same_answers_here_and_from_open_vswitch() {
    with_seat("the_stock_tool_gets_the_same_answers_here_and_from_open_vswitch", |_, seat| {
        let Some(stock) = stock() else { return };
        let socket = stock.socket();
        let file = seat.host.file("flows");
        std::fs::write(&file, FLOWS).unwrap();
        std::fs::write(seat.host.file("flows0"), FLOWS_OF_TABLES).unwrap();
        for line in WORDS {
            let line = line.replace('@', file.to_str().unwrap());
            let words: Vec<&str> = line.split(' ').collect();
            let theirs = ofctl_at(socket.parent().unwrap(), &words);
            let ours = seat.ofctl(&words);
            assert_eq!(alike(&ours), alike(&theirs), "{line}\nours: {ours:?}\ntheirs: {theirs:?}");
        }
    });
}

/// Flows as ovs-appctl shows them, none of which shadows another.
const SHOWN: &[&str] = &[
    "priority=11,in_port=1,actions=output:2",
    "in_port=p2,dl_vlan=0,actions=output:77,p1,p2",
    "priority=13,in_port=p2,dl_vlan=10,dl_vlan_pcp=3,actions=drop",
    "priority=14,in_port=p2,vlan_tci=0,dl_dst=02:00:00:00:00:02,actions=normal",
    "priority=15,dl_vlan=11,actions=in_port",
    "priority=17,arp,dl_vlan=3,dl_dst=ff:ff:ff:ff:ff:ff,actions=normal,flood,all,local,in_port,output:1",
    "priority=18,dl_src=02:00:00:00:00:01,dl_dst=ff:ff:ff:ff:ff:ff,actions=all",
    "priority=19,ip,dl_vlan=5,cookie=0x12,idle_timeout=600,hard_timeout=700,actions=LOCAL",
    "in_port=LOCAL,dl_type=0x1234,actions=flood",
    "ipv6,dl_vlan=6,actions=drop",
    "priority=0,dl_type=0x05ff,actions=normal",
];

/// What flows a frame may match, each in turn, and none.
const TRACED: &[&str] = &[
    "in_port=1",
    "in_port=2,dl_vlan=0",
    "in_port=2,dl_vlan=10,dl_vlan_pcp=3",
    "in_port=2,dl_dst=02:00:00:00:00:02",
    "in_port=2,dl_vlan=11,dl_vlan_pcp=1",
    "in_port=2,arp,dl_vlan=3,dl_dst=ff:ff:ff:ff:ff:ff",
    "in_port=2,dl_src=02:00:00:00:00:01,dl_dst=ff:ff:ff:ff:ff:ff",
    "in_port=2,ip,dl_vlan=5",
    "in_port=LOCAL,dl_type=0x1234",
    "in_port=2,ipv6,dl_vlan=6",
    "in_port=2,dl_vlan=9,dl_type=0xabcd",
];

/// Of a trace: the flow that is matched, and its actions.
fn matched(trace: &str) -> Vec<&str> {
    let told = trace.lines().filter(|line| line.starts_with(" 0. ") || line.starts_with("    "));
    let step = |line: &str| line.starts_with("     ");
    told.filter(|line| !step(line) || line.ends_with("input port") || line.ends_with("output port")).collect()
}

#[test]
fn ovs_appctl_shows_flows_and_which_of_them_a_frame_matches_as_open_vswitch_does() {
    with_seat("ovs_appctl_shows_flows_and_which_of_them_a_frame_matches_as_open_vswitch_does", |_, seat| {
        let Some(stock) = stock() else { return };
        let socket = stock.socket();
        let ask = |words: &[&str]| {
            let target = socket.to_str().unwrap();
            let ours = appctl_at(&seat.host.file(""), &[&["-t", "vswitchd"], words].concat());
            let theirs = appctl_at(&seat.host.file(""), &[&["-t", target], words].concat());
            (ours, theirs)
        };
        let shown = |said: &Said| {
            let lines = said.out.lines().filter(|line| !line.starts_with("table_id=254"));
            let mut lines: Vec<_> = lines.map(|line| line.split_once(", ").unwrap().1.to_owned()).collect();
            lines.sort();
            (said.code, lines)
        };
        let same = |words: &[&str]| {
            let (ours, theirs) = ask(words);
            assert_eq!(shown(&ours), shown(&theirs), "{words:?}");
        };
        same(&["bridge/dump-flows", "br0"]);
        same(&["bridge/dump-flows", "--offload-stats", "br0"]);
        assert_eq!(seat.must(&["del-flows", "br0"]), "");
        assert_eq!(ofctl_at(socket.parent().unwrap(), &["del-flows", "br0"]).code, 0);
        same(&["bridge/dump-flows", "br0"]);
        for flow in SHOWN {
            seat.flows("add-flow", flow);
            assert_eq!(ofctl_at(socket.parent().unwrap(), &["add-flow", "br0", flow]).code, 0, "{flow}");
        }
        same(&["bridge/dump-flows", "br0"]);
        for flow in TRACED {
            let (ours, theirs) = ask(&["ofproto/trace", "br0", flow]);
            assert_eq!(matched(&ours.out), matched(&theirs.out), "{flow}\n{ours:?}\n{theirs:?}");
            let dropped = |said: &Said| said.out.ends_with("Datapath actions: drop\n");
            assert_eq!(dropped(&ours), dropped(&theirs), "{flow}\n{ours:?}\n{theirs:?}");
        }
    });
}

#[test]
fn what_is_shown_of_a_bridge_and_its_ports_is_what_it_is() {
    with_seat("what_is_shown_of_a_bridge_and_its_ports_is_what_it_is", |_, seat| {
        seat.vsctl(
            "set bridge br0 other-config:datapath-id=0000001122334455 other-config:hwaddr=02:00:00:00:00:99",
        );
        let text = seat.must(&["show", "br0"]);
        assert!(
            text.starts_with(
                "OFPT_FEATURES_REPLY (xid=0x2): dpid:0000001122334455\nn_tables:1, n_buffers:0\n"
            ),
            "{text}"
        );
        assert!(text.contains("\nactions: output\n"), "{text}");
        for port in [" 1(p1): addr:", " 2(p2): addr:", " LOCAL(br0): addr:02:00:00:00:00:99"] {
            assert!(text.contains(port), "{port}: {text}");
        }
        assert!(text.contains("frags=normal miss_send_len=0"), "{text}");
        let described = seat.must(&["dump-ports-desc", "br0"]);
        assert!(
            described.contains(" 1(p1): addr:") && described.contains(" LOCAL(br0): addr:02"),
            "{described}"
        );
        let counted = seat.must(&["dump-ports", "br0"]);
        assert!(counted.starts_with("OFPST_PORT reply (xid=0x2): 3 ports\n  port  1: rx pkts="), "{counted}");
        assert!(seat.must(&["dump-ports", "br0", "p2"]).contains(": 1 ports\n  port  2: rx pkts="));
        assert!(seat.must(&["dump-desc", "br0"]).contains("Manufacturer: vswitch\n"));
        let table = seat.must(&["dump-tables", "br0"]);
        assert!(table.contains("table 0:\n    active=1, ") && table.contains("max_entries=4096"), "{table}");
        assert!(seat.must(&["dump-flows", "br0"]).contains("table=0, n_packets="));
        assert!(seat.must(&["dump-aggregate", "br0"]).contains("flow_count=1"));
        assert!(seat.must(&["queue-stats", "br0"]).contains(": 0 queues"));
        assert!(seat.must(&["queue-get-config", "br0", "1"]).starts_with("OFPT_QUEUE_GET_CONFIG_REPLY"));
        assert!(seat.must(&["ping", "br0", "200"]).contains("200 bytes from br0"));
        // A port that comes and one that goes.
        seat.vsctl("del-port br0 p1 -- add-port br0 p3 -- set interface p3 type=internal");
        let text = seat.must(&["show", "br0"]);
        assert!(!text.contains("(p1)") && text.contains("(p3)"), "{text}");
    });
}

#[test]
fn what_is_not_offered_is_refused_by_openflows_own_errors_and_changes_nothing() {
    with_seat("what_is_not_offered_is_refused_by_openflows_own_errors_and_changes_nothing", |_, seat| {
        let refused = [
            (&["add-flow", "br0", "ip,nw_src=10.0.0.1,actions=drop"][..], "OFPFMFC_UNSUPPORTED"),
            (&["add-flow", "br0", "icmp,actions=drop"], "OFPFMFC_UNSUPPORTED"),
            (&["add-flow", "br0", "tcp,tp_dst=80,actions=drop"], "OFPFMFC_UNSUPPORTED"),
            (&["add-flow", "br0", "arp,arp_op=1,actions=drop"], "OFPFMFC_UNSUPPORTED"),
            (&["add-flow", "br0", "in_port=1,actions=mod_vlan_vid:5,output:2"], "OFPBAC_BAD_TYPE"),
            (&["add-flow", "br0", "in_port=1,actions=strip_vlan,output:2"], "OFPBAC_BAD_TYPE"),
            (&["add-flow", "br0", "in_port=1,actions=controller"], "OFPBAC_BAD_OUT_PORT"),
            (&["add-flow", "br0", "in_port=1,actions=resubmit(,1)"], "OFPBAC_BAD_VENDOR"),
            (&["add-flow", "br0", "in_port=1,actions=learn(table=1)"], "OFPBAC_BAD_VENDOR"),
            (&["mod-port", "br0", "p1", "up"], "OFPBRC_EPERM"),
            (&["mod-port", "br0", "p1", "no-flood"], "OFPBRC_EPERM"),
            (
                &["packet-out", "br0", "in_port=1,packet=ffffffffffff0200000000010800,actions=output:2"],
                "OFPBRC_BAD_TYPE",
            ),
            (&["add-flow", "br0", "table=1,in_port=1,actions=drop"], "OFPBRC_BAD_TABLE_ID"),
            (&["del-flows", "br0", "table=1"], "OFPBRC_BAD_TABLE_ID"),
            // What ovs-ofctl asks for by Nicira's dialect, or another version, and does without nothing instead.
            (
                &["add-flow", "br0", "dl_src=02:00:00:00:00:00/ff:00:00:00:00:00,actions=drop"],
                "does not support any",
            ),
            (&["del-flows", "br0", "cookie=1/-1"], "does not support any of the usable flow formats"),
            (&["-O", "OpenFlow13", "show", "br0"], "version negotiation failed"),
            (&["--bundle", "add-flow", "br0", "in_port=1,actions=drop"], "version negotiation failed"),
            (&["set-frags", "br0", "drop"], "setting fragment handling mode failed"),
        ];
        let before = seat.dump();
        for (words, error) in refused {
            let said = seat.ofctl(words);
            assert_eq!(said.code, 1, "{words:?}: {said:?}");
            assert!(said.err.contains(error) || said.out.contains(error), "{words:?}: {said:?}");
        }
        assert_eq!(seat.dump(), before);
        // The error repeats the flow; what OpenFlow has no words for stands in the log.
        let said = seat.ofctl(&["add-flow", "br0", "ip,nw_src=10.0.0.1,actions=drop"]);
        assert!(said.err.contains("ADD ip,nw_src=10.0.0.1 actions=drop"), "{said:?}");
        let log = seat.host.log();
        assert!(
            log.contains("matches on fields of IP, ARP, TCP, UDP and ICMP (nw_*, tp_*) are not offered"),
            "{log}"
        );
        assert!(log.contains("other tables are not offered"), "{log}");
        let said = seat.ofctl(&["show", "br7"]);
        assert!(said.code == 1 && said.err.contains("is not a bridge or a socket"), "{said:?}");
    });
}

#[test]
fn sockets_come_and_go_with_bridges_and_are_there_when_the_database_says_so() {
    with_seat("sockets_come_and_go_with_bridges_and_are_there_when_the_database_says_so", |_, mut seat| {
        let mut stream = greeted(&seat);
        for _ in 0..10 {
            seat.vsctl("add-br br1");
            let flow = ["add-flow", "br1", "in_port=LOCAL,actions=drop"];
            assert_eq!(seat.must(&flow), "");
            assert!(seat.must(&["--no-stats", "dump-flows", "br1"]).contains("in_port=LOCAL actions=drop"));
            // Another bridge of the same name begins anew.
            seat.vsctl("del-br br1");
            assert!(!seat.host.file("br1.mgmt").exists());
        }
        // The other bridge has not noticed.
        assert_eq!(ask(&mut stream, &message(kind::ECHO_REQUEST, b"x"))[1], kind::ECHO_REPLY);
        assert_eq!(seat.dump(), ["priority=0 actions=NORMAL"]);
        seat.vsctl("del-br br0");
        assert!(is_ended(&mut stream));
        seat.vsctl("add-br br0");
        assert_eq!(seat.dump(), ["priority=0 actions=NORMAL"]);
        let (code, log) = seat.host.end("TERM");
        assert_eq!(code, 0, "{log}");
        assert!(!seat.host.file("br0.mgmt").exists());
    });
}

#[test]
fn fail_mode_says_what_a_table_begins_with() {
    with_seat("fail_mode_says_what_a_table_begins_with", |_, seat| {
        seat.flows("add-flow", "in_port=1,actions=drop");
        seat.vsctl("set-fail-mode br0 secure");
        assert_eq!(seat.dump(), [] as [&str; 0]);
        seat.flows("add-flow", "in_port=1,actions=drop");
        seat.vsctl("set bridge br0 other-config:forward-bpdu=true");
        assert_eq!(
            seat.dump(),
            ["in_port=1 actions=drop"],
            "another change of the bridge leaves flows alone"
        );
        seat.vsctl("del-fail-mode br0");
        assert_eq!(seat.dump(), ["priority=0 actions=NORMAL"]);
    });
}

#[test]
fn flows_go_when_their_time_is_over() {
    with_seat("flows_go_when_their_time_is_over", |_, seat| {
        seat.flows("add-flow", "in_port=1,hard_timeout=1,actions=drop");
        seat.flows("add-flow", "in_port=2,idle_timeout=1,actions=drop");
        seat.flows("add-flow", "in_port=1,dl_vlan=7,hard_timeout=3600,idle_timeout=3600,actions=drop");
        until("two flows gone", PATIENCE, || (seat.dump().len() == 2).then_some(()));
        let last = "idle_timeout=3600, hard_timeout=3600, in_port=1,dl_vlan=7 actions=drop";
        assert_eq!(seat.dump(), [last, "priority=0 actions=NORMAL"]);
    });
}

#[test]
fn thousands_of_flows_are_added_replaced_and_told_and_no_more_than_fit() {
    with_seat("thousands_of_flows_are_added_replaced_and_told_and_no_more_than_fit", |_, seat| {
        let file = seat.host.file("flows");
        let write = |priority: u32, count: usize| {
            let line = |number| {
                format!(
                    "priority={priority},dl_src=02:00:00:00:{:02x}:{:02x},actions=output:2,normal\n",
                    number >> 8,
                    number & 255
                )
            };
            std::fs::write(&file, (0..count).map(line).collect::<String>()).unwrap();
        };
        let path = file.to_str().unwrap();
        seat.flows("del-flows", "");
        // More than there are numbers of flows, in turn.
        for (priority, count) in [(5, 500), (6, 500), (7, MAX_FLOWS), (8, 500), (9, MAX_FLOWS)] {
            write(priority, count);
            seat.flows("replace-flows", path);
            let dumped = seat.dump();
            assert_eq!(dumped.len(), count);
            assert!(
                dumped[0].starts_with(&format!("priority={priority},dl_src=02:00:00:00:00:00 ")),
                "{}",
                dumped[0]
            );
        }
        seat.flows("diff-flows", path);
        let said = seat.ofctl(&["add-flow", "br0", "in_port=1,actions=drop"]);
        assert!(said.code == 1 && said.err.contains("OFPFMFC_TABLE_FULL"), "{said:?}");
        seat.flows("del-flows", "dl_src=02:00:00:00:00:07");
        seat.flows("add-flow", "in_port=1,actions=drop");
        seat.flows("del-flows", "");
        assert_eq!(seat.dump(), [] as [&str; 0]);
    });
}

/// A connection over which hello was said.
fn greeted(seat: &Seat) -> UnixStream {
    let mut stream = seat.connect();
    assert_eq!(receive(&mut stream)[..2], [1, kind::HELLO]);
    stream.write_all(&message(kind::HELLO, &[])).unwrap();
    stream
}

/// Whether the daemon has hung up, after whatever it said before.
fn is_ended(stream: &mut UnixStream) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn what_the_server_answers_itself_is_sent_although_the_daemon_is_busy() {
    let (serving, requests) = Serving::start(Arc::new(|| ())).unwrap();
    let path = std::env::temp_dir().join(format!("vswitch-openflow-{}", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let owner = std::fs::metadata(&path).unwrap().uid();
    listener.set_nonblocking(true).unwrap();
    serving.open("br0", listener, owner);
    let mut stream = UnixStream::connect(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(receive(&mut stream)[1], kind::HELLO);
    let [hello, echo, barrier] =
        [kind::HELLO, kind::ECHO_REQUEST, kind::BARRIER_REQUEST].map(|kind| message(kind, &[]));
    stream.write_all(&[hello, echo, barrier].concat()).unwrap();
    // Here is nobody who answers the request.
    let request = requests.recv_timeout(PATIENCE).unwrap();
    assert_eq!(receive(&mut stream)[1], kind::ECHO_REPLY);
    request.reply.answer(message(kind::BARRIER_REPLY, &[]));
    assert_eq!(receive(&mut stream)[1], kind::BARRIER_REPLY);
}

#[test]
fn clients_of_no_good_will_harm_nobody() {
    with_seat("clients_of_no_good_will_harm_nobody", |_, seat| {
        // What begins with no hello, or tells a length that cannot be, ends the connection.
        let hostile: [&[u8]; 5] = [
            b"GET / HTTP/1.1\r\n\r\n",
            &message(kind::FEATURES_REQUEST, &[]),
            &[1, 0, 0, 7, 0, 0, 0, 0],
            &[&message(kind::HELLO, &[])[..], &[1, 5, 0, 0, 0, 0, 0, 0]].concat(),
            &[0xff; 100],
        ];
        for bytes in hostile {
            let mut stream = seat.connect();
            // It may be gone before all is written.
            drop(stream.write_all(bytes));
            assert!(is_ended(&mut stream), "{:?}", &bytes[..bytes.len().min(40)]);
        }
        // Who speaks another version alone hears so in words.
        let mut stream = seat.connect();
        receive(&mut stream);
        let answer = ask(&mut stream, &[4, 0, 0, 16, 0, 0, 0, 9, 0, 1, 0, 8, 0, 0, 0, 0x10]);
        assert_eq!(answer[..12], [1, kind::ERROR, 0, 44, 0, 0, 0, 9, 0, 0, 0, 0]);
        assert_eq!(&answer[12..], b"only OpenFlow 1.0 is spoken here");
        drop(stream);
        // What is read but wrong is answered, in turn, and the connection goes on.
        let mut stream = greeted(&seat);
        let wrong: [(Vec<u8>, [u8; 4]); 5] = [
            (message(99, &[]), [0, 1, 0, 1]),
            (message(kind::VENDOR, &[0, 0, 0x23, 0x20]), [0, 1, 0, 3]),
            (message(kind::FLOW_MOD, &[0; 20]), [0, 1, 0, 6]),
            (message(kind::STATS_REQUEST, &[0, 99, 0, 0]), [0, 1, 0, 2]),
            ([&[4][..], &message(kind::BARRIER_REQUEST, &[])[1..]].concat(), [0, 1, 0, 0]),
        ];
        for (request, code) in &wrong {
            let answer = ask(&mut stream, request);
            assert_eq!((answer[1], &answer[8..12], &answer[12..]), (kind::ERROR, &code[..], &request[..]));
        }
        // A table is in a command where that was asked for on this connection, and as long as it is.
        let mut change = vec![0; 40];
        // Whatever it is, of priority 9, into no buffer, from no port.
        change[..4].copy_from_slice(&0x003f_ffff_u32.to_be_bytes());
        change.extend([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 9]);
        change.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
        let change = message(kind::FLOW_MOD, &change);
        let answer = ask(&mut stream, &change);
        assert_eq!((answer[1], &answer[8..12], &answer[12..]), (kind::ERROR, &[0, 3, 0, 4][..], &change[..]));
        for _ in 0..2 {
            let answer = ask(&mut stream, &[table_ids(true), change.clone(), table_ids(false)].concat());
            let error = [0xb0, 0xc2, 0, 0, 0, 0, 0x23, 0x20, 0, 1, 2, 0];
            assert_eq!((answer[1], &answer[8..20], &answer[20..]), (kind::ERROR, &error[..], &change[..]));
            assert_eq!(ask(&mut stream, &change)[8..12], [0, 3, 0, 4]);
        }
        assert_eq!(ask(&mut stream, &message(kind::VENDOR, &table_ids(true)[8..20]))[8..12], [0, 1, 0, 6]);
        // In pieces, and many at once.
        let barrier = message(kind::BARRIER_REQUEST, &[]);
        for byte in &barrier {
            stream.write_all(&[*byte]).unwrap();
        }
        assert_eq!(receive(&mut stream)[1], kind::BARRIER_REPLY);
        stream.write_all(&barrier.repeat(1000)).unwrap();
        for _ in 0..1000 {
            assert_eq!(receive(&mut stream)[1], kind::BARRIER_REPLY);
        }
        // Hundreds that say nothing, half a message, or leave their answers unread.
        let mut idle: Vec<_> = (0..300).map(|_| seat.connect()).collect();
        for (number, stream) in idle.iter_mut().enumerate() {
            let mut words = message(kind::HELLO, &[]);
            match number % 3 {
                0 => words.extend(&barrier[..5]),
                1 => words.extend(message(kind::ECHO_REQUEST, &[7; 60_000]).repeat(50)),
                _ => words.clear(),
            }
            // Whoever came long ago may have had to make room.
            stream.set_nonblocking(true).unwrap();
            drop(stream.write_all(&words));
        }
        assert_eq!(seat.dump(), ["priority=0 actions=NORMAL"]);
        drop(idle);
        assert_eq!(seat.dump(), ["priority=0 actions=NORMAL"]);
        assert!(Path::new(&seat.host.file("br0.mgmt")).exists());
    });
}
