//! `vswitchctl` as a process: every verb, both forms of its answer, every exit code.
//!
//! Behind the socket stands a control thread that only pretends; the real daemon is tested elsewhere.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod ctl_support;

use ctl_support::{Act, Fake, Place};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use vswitchd::control::rpc::{Call, Change, DiffLine, Failed, Finding, Health, ReloadAnswer, RpcError};

fn tool(socket: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vswitchctl"));
    command.arg("--socket").arg(socket).args(line.split_whitespace()).env_remove("VSWITCHD_SOCKET");
    command
}

/// Exit code, stdout, stderr.
fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn run(socket: &Path, line: &str) -> (i32, String, String) {
    said(&tool(socket, line).output().unwrap())
}

fn value(answer: impl serde::Serialize) -> Value {
    serde_json::to_value(answer).unwrap()
}

/// A node with two ports, a peer and a little history.
fn node(call: &Call) -> Act {
    Act::Answer(match call {
        Call::Status => Ok(json!({
            "state": "running", "version": "0.1.0", "workers": 2, "warnings": ["underlay waiting for 192.0.2.0/24"]
        })),
        Call::PortList => Ok(json!([
            {"name": "tap-a", "type": "tap", "vlan_mode": "access", "tag": 10, "trunks": null, "mtu": 1450,
             "link": "up", "rx_frames": 12, "rx_bytes": 1100, "tx_frames": 9, "tx_bytes": 882, "rx_dropped": 0,
             "tx_dropped": 1},
            {"name": "tap-fw", "type": "tap", "vlan_mode": "trunk", "tag": null, "trunks": [10, 20], "mtu": 1450,
             "link": "down", "rx_frames": 0, "rx_bytes": 0, "tx_frames": 0, "tx_bytes": 0, "rx_dropped": 0,
             "tx_dropped": 0},
        ])),
        Call::PeerList => Ok(json!([
            {"address": "192.0.2.2", "name": null, "state": "up", "mtu": 1500, "rx_frames": 1, "rx_bytes": 2,
             "tx_frames": 3, "tx_bytes": 4},
        ])),
        Call::SegmentList => Ok(json!([{"segment": "blue", "vlan": 10, "vni": 10_010}])),
        Call::MacList(_) => Ok(json!([
            {"mac": "02:00:00:00:00:0a", "segment": "blue", "vlan": 10, "vni": 10_010, "port": "tap-a",
             "peer": null, "age_seconds": 3, "state": "learned"},
        ])),
        Call::MacFlush(_) => Ok(json!({"flushed": 1})),
        Call::Drops(drops) if drops.by_port => {
            Ok(json!([{"port": "tap-a", "reason": "same_port", "count": 4}]))
        }
        Call::Drops(_) => Ok(json!([{"reason": "same_port", "count": 4}, {"reason": "tx_full", "count": 0}])),
        Call::Trace(_) => Ok(json!({
            "steps": ["arrives on tap-a", "VLAN 10"], "verdict": "drop", "reason": "same_port", "outputs": [],
            "decided_by": "v.toml:7"
        })),
        Call::Reload => Ok(value(ReloadAnswer { changed: 3, failed: Vec::new() })),
        Call::Diff => Ok(json!([])),
        Call::Doctor => Ok(json!([{"check": "tun", "state": "good", "what": "opens", "remedy": null}])),
        Call::PortDel(port) if port.name == "none" => Err(RpcError::refused("there is no port \"none\"")),
        Call::CniList => Ok(json!([
            {"container": "c1", "ifname": "eth0", "network": "blue", "port": "cni0f3c21a9b4e7", "netns": "/run/netns/c1",
             "mac": "02:00:00:00:00:0a", "addresses": ["10.1.0.5/16"], "gateway": null, "state": "up", "reason": null},
        ])),
        Call::CniAdd(_)
        | Call::CniDel(_)
        | Call::CniCheck(_)
        | Call::CniGc(_)
        | Call::CniGone(_)
        | Call::CniStatus(_) => Err(RpcError::refused("not in this test")),
        Call::PortAdd(_) | Call::PortSet(_) | Call::PortDel(_) | Call::MacAdd(_) | Call::MacDel(_) => {
            Ok(Value::Null)
        }
        Call::Metrics => Err(RpcError::refused("not asked by the tool")),
    })
}

#[test]
fn every_verb_prints_a_text() {
    let fake = Fake::new(node);
    for (line, expected) in [
        (
            "status",
            "state: running\nversion: 0.1.0\nworkers: 2\nwarnings:\n  underlay waiting for 192.0.2.0/24\n",
        ),
        (
            "port",
            "\
name    type  vlan_mode  tag  trunks   mtu  link  rx_frames  rx_bytes  tx_frames  tx_bytes  rx_dropped  tx_dropped
tap-a   tap   access      10  -       1450  up           12      1100          9       882           0           1
tap-fw  tap   trunk        -  10,20   1450  down          0         0          0         0           0           0
",
        ),
        (
            "peer",
            "\
address    name  state   mtu  rx_frames  rx_bytes  tx_frames  tx_bytes
192.0.2.2  -     up     1500          1         2          3         4
",
        ),
        ("segment", "segment  vlan    vni\nblue       10  10010\n"),
        (
            "mac",
            "\
mac                segment  vlan    vni  port   peer  age_seconds  state
02:00:00:00:00:0a  blue       10  10010  tap-a  -               3  learned
",
        ),
        ("drops", "reason     count\nsame_port      4\n"),
        ("drops --all", "reason     count\nsame_port      4\ntx_full        0\n"),
        ("drops --by-port", "port   reason     count\ntap-a  same_port      4\n"),
        (
            "trace tap-a 00ff",
            "arrives on tap-a\nVLAN 10\nverdict: drop (same_port)\ndecided by: v.toml:7\n",
        ),
        ("reload", "changed: 3\n"),
        ("diff", ""),
        ("doctor", "good     tun: opens\n"),
        ("port add x tag=10", ""),
        ("port set x tag=", ""),
        ("port del x", ""),
        ("mac add tap-a 10 02:00:00:00:00:01", ""),
        ("mac del 10 02:00:00:00:00:01", ""),
        ("mac flush", "flushed: 1\n"),
    ] {
        assert_eq!(run(&fake.socket(), line), (0, expected.to_owned(), String::new()), "{line}");
    }
}

#[test]
fn every_verb_prints_json_as_the_daemon_gave_it() {
    let fake = Fake::new(node);
    for line in ["status", "port", "peer", "segment", "mac", "trace tap-a 00ff", "reload", "diff", "doctor"] {
        let (code, out, err) = run(&fake.socket(), &format!("--json {line}"));
        assert_eq!((code, err.as_str()), (0, ""), "{line}");
        assert!(out.ends_with('\n') && out.lines().count() == 1, "{line}: {out}");
        let call = fake.calls.lock().unwrap().last().unwrap().clone();
        let Act::Answer(Ok(expected)) = node(&call) else { panic!() };
        assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), expected, "{line}");
    }
    assert_eq!(run(&fake.socket(), "drops --json").1, "[{\"count\":4,\"reason\":\"same_port\"}]\n");
    assert_eq!(run(&fake.socket(), "diff --json").1, "[]\n");
    assert_eq!(run(&fake.socket(), "port del x --json").1, "");
}

#[test]
fn what_the_daemon_refuses_exits_as_it_says_with_its_reason_and_causes() {
    let fake = Fake::new(|call| {
        Act::Answer(Err(match call {
            Call::Reload => {
                RpcError::bad_config("v.toml:3:5: unknown key \"tagg\"").because(["a\ncause".into()])
            }
            Call::PortAdd(_) => RpcError::params("mtu is 7; expected 68 to 65535"),
            _ => RpcError::refused("no"),
        }))
    });
    let expected = "vswitchctl: v.toml:3:5: unknown key \"tagg\"\n  a\\ncause\n";
    assert_eq!(run(&fake.socket(), "reload"), (78, String::new(), expected.to_owned()));
    assert_eq!(run(&fake.socket(), "--json reload"), (78, String::new(), expected.to_owned()));
    assert_eq!(run(&fake.socket(), "port add x mtu=7").0, 64);
    assert_eq!(run(&fake.socket(), "port del x"), (1, String::new(), "vswitchctl: no\n".to_owned()));
}

#[test]
fn a_reload_that_the_operating_system_refused_in_part_lists_it_and_exits_1() {
    let fake = Fake::new(|_| {
        let failed = Failed { kind: "port".into(), name: "tap-a".into(), reason: "no such netns".into() };
        Act::Answer(Ok(value(ReloadAnswer { changed: 2, failed: vec![failed] })))
    });
    let (code, out, err) = run(&fake.socket(), "reload");
    assert_eq!((code, out.as_str()), (1, "changed: 2\n"));
    assert_eq!(err.lines().nth(1), Some("  port \"tap-a\": no such netns"));
    assert!(run(&fake.socket(), "reload --json").1.contains("no such netns"));
}

#[test]
fn diff_and_doctor_exit_1_when_there_is_something() {
    let fake = Fake::new(|call| {
        Act::Answer(Ok(match call {
            Call::Diff => value([DiffLine {
                change: Change::Change,
                kind: "port".into(),
                name: "tap-a".into(),
                what: "mtu 1500 -> 1450".into(),
            }]),
            _ => value([Finding {
                check: "tun".into(),
                state: Health::Bad,
                what: "/dev/net/tun is missing".into(),
                remedy: Some("modprobe tun".into()),
            }]),
        }))
    });
    assert_eq!(
        run(&fake.socket(), "diff"),
        (1, "~ port tap-a: mtu 1500 -> 1450\n".to_owned(), String::new())
    );
    assert_eq!(run(&fake.socket(), "diff --json").0, 1);
    let text = "bad      tun: /dev/net/tun is missing\n         modprobe tun\n";
    assert_eq!(run(&fake.socket(), "doctor"), (1, text.to_owned(), String::new()));
}

#[test]
fn wrong_usage_exits_64_with_one_line_and_without_a_daemon() {
    let place = Place::new();
    for line in [
        "",
        "frob",
        "port frob",
        "port add",
        "port add x y",
        "port set x",
        "mac add a",
        "mac add a 4095 02:00:00:00:00:01",
        "mac add a 1 zz",
        "mac del 1",
        "trace a",
        "trace a 0",
        "--frob status",
        "status --by-port",
        "--timeout x status",
    ] {
        let (code, out, err) = run(&place.socket(), line);
        assert_eq!((code, out.as_str(), err.lines().count()), (64, "", 1), "{line}: {err}");
        assert!(err.starts_with("vswitchctl: ") && err.contains("--help"), "{line}: {err}");
    }
}

#[test]
fn help_version_and_capture_need_no_daemon() {
    let place = Place::new();
    let (code, help, err) = run(&place.socket(), "--help");
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(help.contains("usage: vswitchctl") && help.contains("exit codes"));
    assert_eq!(run(&place.socket(), "-V").1, format!("vswitchctl {}\n", env!("CARGO_PKG_VERSION")));
    let expected = "vswitchctl: capture is not offered yet\n".to_owned();
    assert_eq!(run(&place.socket(), "capture tap-a"), (1, String::new(), expected));
}

#[test]
fn the_environment_names_the_socket_where_no_option_does() {
    let fake = Fake::new(node);
    let mut command = Command::new(env!("CARGO_BIN_EXE_vswitchctl"));
    command.arg("reload").env("VSWITCHD_SOCKET", fake.socket());
    assert_eq!(said(&command.output().unwrap()).0, 0);
    command.env("VSWITCHD_SOCKET", fake.place.path().join("none")).arg("--socket").arg(fake.socket());
    assert_eq!(said(&command.output().unwrap()).0, 0);
}

/// A listener that treats its one client like this.
fn stranger(place: &Place, treat: impl FnOnce(std::os::unix::net::UnixStream) + Send + 'static) {
    let listener = UnixListener::bind(place.socket()).unwrap();
    thread::spawn(move || treat(listener.accept().unwrap().0));
}

#[test]
fn a_daemon_that_does_not_answer_exits_69_with_one_sentence() {
    let check = |place: &Place, line: &str, word: &str| {
        let (code, out, err) = run(&place.socket(), line);
        assert_eq!((code, out.as_str(), err.lines().count()), (69, "", 1), "{err}");
        assert!(err.contains(word) && err.contains("control.sock"), "{err}");
    };
    let place = Place::new();
    check(&place, "status", "there is no such socket");
    drop(UnixListener::bind(place.socket()).unwrap());
    check(&place, "status", "has gone");
    let place = Place::new();
    stranger(&place, drop);
    check(&place, "status", "without an answer");
    let place = Place::new();
    stranger(&place, |mut stream| stream.write_all(b"220 smtp\r\n").unwrap());
    check(&place, "status", "is no vswitchd");
    let place = Place::new();
    let (release, hold) = std::sync::mpsc::channel::<()>();
    stranger(&place, move |stream| {
        assert!(hold.recv().is_err());
        drop(stream);
    });
    check(&place, "status --timeout 1", "within 1 seconds");
    drop(release);
}

#[test]
fn a_daemon_of_another_protocol_is_asked_nothing() {
    let place = Place::new();
    let (heard, lines) = std::sync::mpsc::channel();
    stranger(&place, move |mut stream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        stream.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"protocol\":2}}\n").unwrap();
        let mut rest = String::new();
        reader.read_line(&mut rest).unwrap();
        heard.send(rest).unwrap();
    });
    let (code, _, err) = run(&place.socket(), "port del x");
    assert_eq!(code, 1);
    assert!(err.contains("speaks version 2"), "{err}");
    assert_eq!(lines.recv().unwrap(), "");
}

#[test]
fn a_stranger_who_is_refused_is_told_why() {
    let fake = Fake::with(std::time::Duration::from_secs(10), Box::new(|_| Ok(12_345)), node);
    for _ in 0..20 {
        let (code, _, err) = run(&fake.socket(), "status");
        assert!(code == 1 && err.contains("user 12345 may not"), "{code} {err}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_failure_and_a_full_disk_is() {
    let row = json!({"name": "tap", "link": "up", "filler": "x".repeat(200)});
    let rows = Value::from(vec![row; 5_000]);
    let fake = Fake::new(move |_| Act::Answer(Ok(rows.clone())));
    for form in ["port", "port --json"] {
        let mut child =
            tool(&fake.socket(), form).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(said(&output), (0, String::new(), String::new()), "{form}");
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = tool(&fake.socket(), form).stdout(full).output().unwrap();
        let (code, _, err) = said(&output);
        assert!(code == 1 && err.starts_with("vswitchctl: cannot write the answer"), "{form}: {err}");
    }
}
