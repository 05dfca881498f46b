//! The stock `ovs-appctl` and our daemon: it is found and answered, in Open vSwitch's words where scripts read them,
//! and clients of no good will harm nobody.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use vswitch_core::wire::ethernet::Mac;
use vswitch_tests::daemon::{Host, PATIENCE, Pod, Raw, Said, program, with_host};
use vswitch_tests::frames::{Frame, station};
use vswitch_tests::lab::{Daemon, Lab, skip, until};
use vswitch_tests::ovs::Ovs;

/// Runs `body` with a host, where there is an `ovs-appctl`.
fn with_appctl(test: &str, body: impl FnOnce(&Lab, Host)) {
    if Command::new("ovs-appctl").arg("--version").output().is_err() {
        return skip("there is no ovs-appctl (Debian: openvswitch-common)");
    }
    with_host(test, body);
}

/// Asks the stock tool in the run directory of `host`.
fn appctl(host: &Host, words: &[&str]) -> Said {
    let mut command = Command::new("ovs-appctl");
    command.env("OVS_RUNDIR", host.file("")).arg("--timeout=20").args(words);
    Host::run_command(&mut command)
}

/// Asks `vswitchd` by its own name, with words split at blanks.
fn ask(host: &Host, words: &str) -> Said {
    let words: Vec<&str> = ["-t", "vswitchd"].into_iter().chain(words.split_whitespace()).collect();
    appctl(host, &words)
}

/// What it says, which must be no error.
#[track_caller]
fn must(host: &Host, words: &str) -> String {
    let said = ask(host, words);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{words}: {said:?}\n{}", host.log());
    said.out
}

/// The error it gives.
#[track_caller]
fn refusal(host: &Host, words: &str) -> String {
    let said = ask(host, words);
    assert_eq!(said.code, 2, "{words}: {said:?}");
    said.err.lines().next().unwrap_or_default().to_owned()
}

/// Names in the run directory that belong to the tools of Open vSwitch.
fn places(host: &Host) -> Vec<String> {
    let names = fs::read_dir(host.file("")).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".pid") || name.ends_with(".ctl")).collect();
    names.sort();
    names
}

/// Two pods on VLAN 10, whose ports have the numbers 1 and 2.
fn pods(lab: &Lab, host: &mut Host) -> (Raw, Raw, [Pod; 2]) {
    let (a, b) = (Pod::new(lab, "a"), Pod::new(lab, "b"));
    host.start_on(&(a.table("tap-a", "tag = 10") + &b.table("tap-b", "tag = 10")));
    (a.raw("tap-a"), b.raw("tap-b"), [a, b])
}

fn broadcast(from: u32) -> Vec<u8> {
    Frame::new(Mac::BROADCAST, station(from)).bytes()
}

const PORTS: &str = "[[port]]\nname = \"tap-a\"\ntag = 10\n[[port]]\nname = \"tap-b\"\n";

#[test]
fn the_stock_tool_finds_the_daemon_by_either_name_and_it_leaves_nothing_behind() {
    with_appctl(
        "the_stock_tool_finds_the_daemon_by_either_name_and_it_leaves_nothing_behind",
        |_, mut host| {
            host.configure(PORTS);
            let mut command = host.vswitchd();
            host.start_with(command.arg("--as-ovs-vswitchd"));
            let pid = host.daemon().pid();
            let here = [
                format!("ovs-vswitchd.{pid}.ctl"),
                "ovs-vswitchd.pid".to_owned(),
                format!("vswitchd.{pid}.ctl"),
                "vswitchd.pid".to_owned(),
            ];
            assert_eq!(places(&host), here);
            let said = appctl(&host, &["version"]);
            assert_eq!(said.code, 0, "{said:?}");
            let lines: Vec<_> = said.out.lines().collect();
            assert_eq!(lines[0], "ovs-vswitchd (Open vSwitch) 3.1.0");
            assert_eq!(must(&host, "version"), said.out);

            // A second one in that seat is refused, and changes nothing.
            let second = Host::run_command(host.vswitchd().arg("--as-ovs-vswitchd").arg("--log-level=error"));
            assert_ne!(second.code, 0);
            assert_eq!(places(&host), here);

            let said = appctl(&host, &["exit"]);
            assert_eq!((said.code, said.out.as_str()), (0, ""), "{said:?}");
            let (code, log) = host.end("CONT");
            assert_eq!(code, 0, "{log}");
            assert_eq!(places(&host), Vec::<String>::new());
        },
    );
}

#[test]
fn the_places_of_a_killed_daemon_are_taken_over_and_those_of_a_living_one_are_not() {
    with_appctl(
        "the_places_of_a_killed_daemon_are_taken_over_and_those_of_a_living_one_are_not",
        |_, mut host| {
            host.start_on(PORTS);
            let killed = host.daemon().pid();
            host.end("KILL");
            assert_eq!(places(&host), [format!("vswitchd.{killed}.ctl"), "vswitchd.pid".to_owned()]);
            host.start();
            let pid = host.daemon().pid();
            assert_eq!(places(&host), [format!("vswitchd.{pid}.ctl"), "vswitchd.pid".to_owned()]);
            assert!(must(&host, "version").starts_with("vswitchd (vswitch) "));

            // What an ovs-vswitchd left goes when its seat is taken; else nobody knows whose it was.
            let left = ["br0.mgmt", "ovs-vswitchd.1.ctl"].map(|name| host.file(name));
            left.iter().for_each(|path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()));
            host.end("TERM");
            host.start();
            assert!(left.iter().all(|path| path.exists()));
            host.end("TERM");
            let mut command = host.vswitchd();
            host.start_with(command.arg("--as-ovs-vswitchd"));
            assert!(left.iter().all(|path| !path.exists()));

            // Whoever else has the pidfile of ovs-vswitchd keeps it: here a process that locks as that one does.
            let pidfile = host.file("ovs-vswitchd.pid");
            host.end("TERM");
            let Some(mut holder) = hold(&pidfile) else { return };
            let said = Host::run_command(host.vswitchd().arg("--as-ovs-vswitchd"));
            assert_eq!(said.code, 1, "{said:?}");
            let sentence = format!("already running as pid {}", holder.id());
            assert!(said.err.contains(&sentence), "{said:?}");
            assert!(pidfile.exists());
            holder.kill().unwrap();
            holder.wait().unwrap();
        },
    );
}

/// A process that has the lock of a pidfile; `None`, after a loud word, without a Python to write it in.
fn hold(pidfile: &Path) -> Option<std::process::Child> {
    let script = format!(
        "import fcntl, os, time\nf = open({:?}, 'w')\nfcntl.lockf(f, fcntl.LOCK_EX)\nf.write(str(os.getpid()))\n\
         f.flush()\ntime.sleep(600)",
        pidfile.display().to_string()
    );
    let Ok(child) = Command::new("python3").args(["-c", &script]).spawn() else {
        skip("there is no python3");
        return None;
    };
    until("the lock is held", PATIENCE, || {
        let text = fs::read_to_string(pidfile).unwrap_or_default();
        (text.trim() == child.id().to_string()).then_some(())
    });
    Some(child)
}

#[test]
fn the_socket_is_where_it_is_said_and_nowhere_when_nothing_is_wished() {
    with_appctl("the_socket_is_where_it_is_said_and_nowhere_when_nothing_is_wished", |_, mut host| {
        host.configure(PORTS);
        let mut command = host.vswitchd();
        host.start_with(command.arg("--unixctl").arg("here.ctl"));
        assert_eq!(places(&host), ["here.ctl", "vswitchd.pid"]);
        let socket = host.file("here.ctl").display().to_string();
        assert!(appctl(&host, &["-t", &socket, "version"]).out.starts_with("vswitchd"));
        host.end("TERM");
        let mut command = host.vswitchd();
        host.start_with(command.arg("--unixctl").arg("none"));
        assert_eq!(places(&host), Vec::<String>::new());
    });
}

#[test]
fn a_mac_table_is_shown_added_to_and_flushed_as_scripts_expect() {
    with_appctl("a_mac_table_is_shown_added_to_and_flushed_as_scripts_expect", |lab, mut host| {
        let (raw_a, raw_b, _pods) = pods(lab, &mut host);
        let title = " port  VLAN  MAC                Age\n";
        assert_eq!(must(&host, "fdb/show vswitch"), title);
        host.teach(&raw_a, &raw_b, &broadcast(1), "tap-a");
        let shown = must(&host, "fdb/show vswitch");
        let row = shown.strip_prefix(title).unwrap();
        assert!(row.starts_with(&format!("    1    10  {}  ", station(1))), "{shown}");
        let age: u32 = row.split_whitespace().last().unwrap().parse().unwrap();
        assert!(age < 30, "{shown}");

        assert_eq!(must(&host, "fdb/add vswitch tap-b 10 50:54:0:0:0:9"), "");
        assert!(must(&host, "fdb/show vswitch").contains("    2    10  50:54:00:00:00:09  static\n"));
        let said = must(&host, "fdb/add vswitch tap-a 10 50:54:00:00:00:09");
        assert_eq!(said, "Overriding already existing static entry on 2\n");
        let stats = must(&host, "fdb/stats-show vswitch");
        assert!(stats.starts_with("Statistics for bridge \"vswitch\":\n"), "{stats}");
        for line in [
            "  Current/maximum MAC entries in the table: 2/65536",
            "  Current static MAC entries in the table : 1",
            "  Total number of learned MAC entries     : 1",
            "  Total number of port moved MAC entries  : 0",
        ] {
            assert!(stats.lines().any(|other| other == line), "{line}: {stats}");
        }
        assert_eq!(must(&host, "fdb/flush"), "table successfully flushed\n");
        let shown = must(&host, "fdb/show vswitch");
        assert_eq!(shown, format!("{title}    1    10  50:54:00:00:00:09  static\n"));
        assert_eq!(must(&host, "fdb/del vswitch 10 50:54:00:00:00:09"), "");
        assert_eq!(refusal(&host, "fdb/del vswitch 10 50:54:00:00:00:09"), "could not find static mac entry");
        assert_eq!(must(&host, "fdb/show vswitch"), title);
        assert_eq!(must(&host, "fdb/stats-clear vswitch"), "statistics successfully cleared\n");
        assert!(must(&host, "fdb/stats-show vswitch").contains("learned MAC entries     : 0\n"));
        assert!(refusal(&host, "fdb/add vswitch tap-a 4095 50:54:00:00:00:09").contains("4095"));
    });
}

#[test]
fn a_trace_ends_in_what_the_workers_do_and_changes_nothing() {
    with_appctl("a_trace_ends_in_what_the_workers_do_and_changes_nothing", |lab, mut host| {
        let (a, b) = (Pod::new(lab, "a"), Pod::new(lab, "b"));
        host.start_on(&(a.table("tap-a", "tag = 10") + &b.table("tap-b", "")));
        let (raw_a, raw_b) = (a.raw("tap-a"), b.raw("tap-b"));
        let last = |words: &str| must(&host, words).lines().last().unwrap_or_default().to_owned();
        let trace = "ofproto/trace vswitch in_port=tap-a,dl_src=50:54:00:00:00:05,dl_dst=50:54:00:00:00:07";
        assert_eq!(last(trace), "Datapath actions: push_vlan(vid=10,pcp=0),2");
        assert_eq!(last(&format!("{trace} --names")), "Datapath actions: push_vlan(vid=10,pcp=0),tap-b");
        assert_eq!(last("ofproto/trace vswitch in_port=1,dl_vlan=20"), "Datapath actions: drop");
        assert_eq!(last("ofproto/trace vswitch in_port=77"), "Datapath actions: drop");
        let keys = "ofproto/trace in_port(2),eth(src=50:54:00:00:00:05,dst=50:54:00:00:00:07),eth_type(0x8100),\
                    vlan(vid=10,pcp=3),encap(eth_type(0x0800),ipv4(proto=6))";
        assert_eq!(last(keys), "Datapath actions: pop_vlan,1");
        assert_eq!(must(&host, "fdb/show vswitch").lines().count(), 1, "nothing was learned by it");

        // What a frame of bytes does is what is said of it.
        let frame = Frame::new(station(2), station(1)).bytes();
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        until("station 1 is learned", PATIENCE, || {
            raw_a.send(&broadcast(1));
            host.macs().iter().any(|(.., at, _)| at == "tap-a").then_some(())
        });
        let tagged = Frame::new(Mac::BROADCAST, station(2)).tag(vswitch_tests::frames::ctag(10, 0)).bytes();
        until("station 2 is learned", PATIENCE, || {
            raw_b.send(&tagged);
            host.macs().iter().any(|(.., at, _)| at == "tap-b").then_some(())
        });
        let told = must(&host, &format!("ofproto/trace vswitch in_port=tap-a {hex}"));
        assert!(
            told.contains("\nbridge(\"vswitch\")\n-----------------\n 0. priority 0\n    NORMAL\n"),
            "{told}"
        );
        assert!(told.contains("     -> forwarding to learned port\n"), "{told}");
        assert!(told.contains(&format!("dl_src={},dl_dst={}", station(1), station(2))), "{told}");
        assert!(told.ends_with("Datapath actions: push_vlan(vid=10,pcp=0),2\n"), "{told}");
    });
}

#[test]
fn every_command_that_is_listed_answers_in_one_way_or_the_other() {
    with_appctl("every_command_that_is_listed_answers_in_one_way_or_the_other", |_, mut host| {
        host.start_on(PORTS);
        let listed = must(&host, "list-commands");
        let mut lines = listed.lines();
        assert_eq!(lines.next(), Some("The available commands are:"));
        let names: Vec<_> = lines.map(|line| line.split_whitespace().next().unwrap()).collect();
        assert!(names.is_sorted() && names.len() > 30, "{names:?}");
        for name in names.iter().filter(|name| **name != "exit") {
            for arguments in ["", " vswitch", " tap-a", " x", " vswitch tap-a", " a b c d e f"] {
                let said = ask(&host, &format!("{name}{arguments}"));
                assert!(said.code == 0 || said.code == 2, "{name}{arguments}: {said:?}");
            }
        }
        assert!(
            must(&host, "dpif/show").contains("  vswitch:\n    tap-a 1/1: (tap)\n    tap-b 2/2: (tap)\n")
        );
        assert_eq!(must(&host, "ofproto/list"), "vswitch\n");
        assert_eq!(must(&host, "qos/show tap-a"), "QoS not configured on tap-a\n");
        let flow = must(&host, "bridge/dump-flows vswitch");
        assert!(flow.starts_with("duration=") && flow.ends_with(", priority=0,actions=NORMAL\n"), "{flow}");
        let coverage = must(&host, "coverage/show");
        assert!(
            coverage.starts_with("Event coverage, avg rate over last: 5 seconds, last minute, last hour,")
        );
        assert!(coverage.ends_with(" events never hit\n"), "{coverage}");
        must(&host, "vlog/set ANY:console:dbg");
        assert!(
            must(&host, "vlog/list")
                .lines()
                .any(|line| line == "vswitchd           DBG        OFF        OFF")
        );
        assert_eq!(must(&host, "vlog/set vconn:file:warn bridge:info"), "");
    });
}

#[test]
fn the_same_questions_have_the_same_answers_as_those_of_the_stock_switch() {
    with_appctl("the_same_questions_have_the_same_answers_as_those_of_the_stock_switch", |_, mut host| {
        let Some(stock) = Ovs::start(2) else { return };
        let words = "add-br br0 -- set bridge br0 datapath_type=dummy -- add-port br0 tap-a tag=10 -- set interface \
                     tap-a type=dummy ofport_request=1 -- add-port br0 tap-b -- set interface tap-b type=dummy \
                     ofport_request=2";
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        stock.configure(&words);
        host.start_on(PORTS);
        let theirs = stock.socket().display().to_string();
        let theirs = |words: &str| {
            let words: Vec<&str> = ["-t", &theirs].into_iter().chain(words.split_whitespace()).collect();
            appctl(&host, &words)
        };
        // The names of the bridges differ, and the line that says which daemon spoke.
        let first_error = |said: &Said| said.err.lines().next().unwrap_or_default().to_owned();
        for words in [
            "nosuch",
            "fdb/show",
            "fdb/show nobr",
            "fdb/show br0",
            "fdb/show a b",
            "fdb/add br0 nosuch 10 50:54:00:00:00:01",
            "fdb/add br0 tap-a 10 garbage",
            "fdb/add nobr tap-a 10 50:54:00:00:00:01",
            "fdb/add br0 tap-a 10 50:54:00:00:00:01",
            "fdb/add br0 tap-b 10 50:54:00:00:00:01",
            "fdb/show br0",
            "ofproto/list",
            "ofproto/trace nobr in_port=1",
            "ofproto/trace br0",
            "ofproto/trace br0 in_port=nosuch",
            "ofproto/trace br0 foo=1",
            "ofproto/trace br0 in_port=1,nw_src=1.2.3.4",
            "ofproto/trace br0 in_port=1 zz",
            "fdb/del br0 10 zz",
            "fdb/del br0 10 50:54:00:00:00:01",
            "fdb/del br0 10 50:54:00:00:00:01",
            "fdb/del nobr 10 50:54:00:00:00:01",
            "fdb/flush br0",
            "fdb/flush",
            "fdb/flush nobr",
            "fdb/stats-clear",
            "fdb/stats-clear nobr",
            "fdb/stats-show nobr",
            "mdb/show nobr",
            "mdb/show br0",
            "mdb/flush br0",
            "dpif/dump-flows nobr",
            "bridge/dump-flows nobr",
            "qos/show nosuch",
            "qos/show tap-a",
            "bond/list",
            "bond/show",
            "bond/show x",
            "lacp/show x",
            "stp/show x",
            "rstp/show x",
            "cfm/show x",
            "bfd/show x",
            "coverage/read-counter nosuch",
            "vlog/set nosuchmodule",
            "vlog/set dpif_netdev:dbg ofproto_dpif_xlate:info",
            "vlog/set ANY:syslog:off",
            "revalidator/wait",
        ] {
            let (ours, theirs) = (ask(&host, &words.replace("br0", "vswitch")), theirs(words));
            let named = |text: &str| text.replace("vswitch", "br0");
            assert_eq!((ours.code, named(&ours.out)), (theirs.code, named(&theirs.out)), "{words}");
            assert_eq!(named(&first_error(&ours)), named(&first_error(&theirs)), "{words}");
        }
        // Of a trace, what is asked and what comes of it.
        ask(&host, "fdb/add vswitch tap-b 10 50:54:00:00:00:07");
        theirs("fdb/add br0 tap-b 10 50:54:00:00:00:07");
        let told = |text: &str| {
            let is_told = |line: &&str| {
                ["Flow: ", "Final flow: ", "Megaflow: ", "Datapath actions: "]
                    .iter()
                    .any(|head| line.starts_with(head))
            };
            text.lines().filter(is_told).map(str::to_owned).collect::<Vec<_>>()
        };
        for flow in [
            "dl_src=50:54:00:00:00:05,dl_dst=50:54:00:00:00:07",
            "dl_src=50:54:00:00:00:05,dl_dst=50:54:00:00:00:07,tcp,nw_src=10.0.0.1,nw_ttl=64,tcp_dst=80,tcp_flags=syn",
            "dl_src=50:54:00:00:00:05,dl_dst=50:54:00:00:00:07,arp,arp_spa=10.0.0.1,arp_op=1",
            "dl_src=50:54:00:00:00:05,dl_dst=50:54:00:00:00:07,icmp6,ipv6_src=fe80::1,icmpv6_type=128",
            "dl_src=50:54:00:00:00:05,dl_dst=50:54:00:00:00:07,dl_vlan=20",
            "dl_src=50:54:00:00:00:05,dl_dst=01:80:c2:00:00:00",
            "dl_dst=50:54:00:00:00:07,dl_type=0x88b5",
        ] {
            let words = format!("ofproto/trace br0 in_port=tap-a,{flow}");
            let (ours, theirs) = (must(&host, &words.replace("br0", "vswitch")), theirs(&words));
            assert_eq!(told(&ours), told(&theirs.out), "{words}\n{ours}\n{}", theirs.out);
        }
    });
}

#[test]
fn an_exit_leaves_interfaces_with_their_keeper_and_one_that_cleans_up_does_not() {
    with_appctl(
        "an_exit_leaves_interfaces_with_their_keeper_and_one_that_cleans_up_does_not",
        |_, mut host| {
            host.configure(PORTS);
            let socket = host.file("keeper.sock");
            let mut command = host.namespace().command(program("vswitchd").unwrap());
            let keeper = Daemon::spawn(command.arg("keeper").arg("--socket").arg(&socket));
            drop(keeper.until_connectable(&socket, PATIENCE));
            for (words, stays) in [("exit", true), ("exit --cleanup", false)] {
                let mut command = host.vswitchd();
                host.start_with(command.env("VSWITCHD_KEEPER", &socket));
                assert!(host.has_interface("tap-a"));
                assert_eq!(must(&host, words), "");
                assert_eq!(host.end("CONT").0, 0);
                assert_eq!(host.has_interface("tap-a"), stays, "{words}");
            }
        },
    );
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
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
fn clients_of_no_good_will_harm_nobody() {
    with_appctl("clients_of_no_good_will_harm_nobody", |lab, mut host| {
        let (raw_a, raw_b, _pods) = pods(lab, &mut host);
        let path: PathBuf = host.file(&format!("vswitchd.{}.ctl", host.daemon().pid()));
        // What is no request ends the connection.
        let deep = b"{\"method\":".repeat(10_000);
        let endless = [&b"{\"id\":0,\"method\":\""[..], &[b'a'; 2 << 20]].concat();
        let hostile: [&[u8]; 9] = [
            b"GET / HTTP/1.1\r\n\r\n",
            b"\0\xff\xfe",
            b"[]",
            b"{}",
            b"{\"id\":null,\"method\":\"version\",\"params\":[]}",
            b"{\"id\":0,\"result\":\"\",\"error\":null}",
            b"{\"id\":0,\"method\":\"version\",\"params\":{}}",
            &deep,
            &endless,
        ];
        for bytes in hostile {
            let mut stream = connect(&path);
            // It may be gone before all is written.
            drop(stream.write_all(bytes));
            assert!(is_ended(&mut stream), "{:?}", &bytes[..bytes.len().min(40)]);
        }
        // Arguments that are no strings, or name what is not there, are answered.
        let mut stream = connect(&path);
        stream.write_all(b"{\"id\":[1],\"method\":\"fdb/show\",\"params\":[1]}{\"id\":2,\"method\":\"\\u0000\",\"params\":[]}").unwrap();
        let mut said = String::new();
        while said.matches('}').count() < 2 {
            let mut chunk = [0; 4096];
            let len = stream.read(&mut chunk).unwrap();
            said += std::str::from_utf8(&chunk[..len]).unwrap();
        }
        assert!(said.contains("\\\"fdb/show\\\" command has non-string argument"), "{said}");
        assert!(said.contains("is not a valid command"), "{said}");

        // Hundreds that say nothing, half a request, or leave their answers unread; frames pass all the same.
        let mut idle: Vec<_> = (0..300).map(|_| connect(&path)).collect();
        for (number, stream) in idle.iter_mut().enumerate() {
            let words: &[u8] = match number % 3 {
                0 => b"{\"id\":0,\"method\":\"ver",
                1 => &b"{\"id\":0,\"method\":\"list-commands\",\"params\":[]}".repeat(200),
                _ => b"",
            };
            // Whoever came long ago may have had to make room.
            stream.set_nonblocking(true).unwrap();
            drop(stream.write_all(words));
        }
        for number in 0..50 {
            raw_a.reaches(&raw_b, &broadcast(100 + number));
        }
        assert!(must(&host, "version").starts_with("vswitchd"));
        drop(idle);
        assert!(must(&host, "fdb/show vswitch").starts_with(" port  VLAN  MAC"));
        let (code, log) = host.end("TERM");
        assert_eq!(code, 0, "{log}");
    });
}
