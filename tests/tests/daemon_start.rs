//! How the daemon starts, refuses to start, and ends: exit codes, and one sentence that says what to do.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use vswitch_tests::daemon::{Host, PATIENCE, Pod, Said, program, text, with_host};
use vswitch_tests::frames::{Frame, station};
use vswitch_tests::lab::until;

const ONE: &str = "[[port]]\nname = \"one\"\ntag = 10\n";

/// A start that must fail: with this code, nothing on standard output, and all of `words` in the reason.
#[track_caller]
fn refused(said: &Said, code: i32, words: &[&str]) {
    assert_eq!((said.code, said.out.as_str()), (code, ""), "{said:?}");
    for word in words {
        assert!(said.err.contains(word), "{word:?} in {}", said.err);
    }
    assert!(!said.err.contains("panicked") && !said.err.contains("stack backtrace"), "{}", said.err);
}

/// Runs the daemon's start as these words of `sh` say; `"$@"` is the daemon.
fn shell(host: &Host, script: &str) -> Said {
    let mut command = host.namespace().command("sh");
    command.args(["-c", script, "sh"]).arg(program("vswitchd").unwrap()).arg("--config").arg(host.config());
    Host::run_command(&mut command)
}

/// That nothing was made.
#[track_caller]
fn nothing_made(host: &Host) {
    assert!(!host.has_interface("one") && !host.socket().exists() && !host.state().exists());
}

#[test]
fn a_bad_file_is_exit_78_with_its_place_and_nothing_is_made() {
    with_host("a_bad_file_is_exit_78_with_its_place_and_nothing_is_made", |_, host| {
        let missing = host.run("");
        assert!([1, 78].contains(&missing.code), "{missing:?}");
        refused(&missing, missing.code, &[host.config().to_str().unwrap(), "No such file"]);
        for (toml, line, column) in [
            ("[[port]]\nname = \"one\"\ntag = 4095\n", "tag = 4095", 7),
            ("[[port]]\nname = \"one\"\ntga = 10\n", "tga", 1),
            ("[[port]]\nname = \"all\"\n", "name = \"all\"", 8),
            ("[mac_table]\nlimit = 9\n", "limit = 9", 9),
        ] {
            host.configure(toml);
            let place = format!("{}:{}:{column}", host.config().display(), host.line_of(line));
            for words in ["", "--check"] {
                refused(&host.run(words), 78, &[&place]);
                nothing_made(&host);
            }
        }
        std::fs::write(host.config(), "no toml [\n").unwrap();
        refused(&host.run(""), 78, &["vswitch.toml:1:"]);
        std::fs::write(host.config(), b"name = \"\xff\"\n").unwrap();
        refused(&host.run(""), 78, &["vswitch.toml"]);
        std::fs::write(host.config(), "[control]\nsocket = \"control.sock\"\n").unwrap();
        refused(&host.run(""), 78, &["vswitch.toml:2:10", "absolute"]);
    });
}

#[test]
fn check_prints_and_changes_nothing() {
    with_host("check_prints_and_changes_nothing", |_, host| {
        host.configure(ONE);
        let said = host.run("--check");
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
        assert!(said.out.contains("good"), "{said:?}");
        nothing_made(&host);
        host.configure("[underlay]\naddress = \"192.0.2.1\"\n[mesh]\npeers = [\"192.0.2.2\"]\n");
        let said = host.run("--check");
        assert!(said.code == 0 && said.out.contains("nothing would cross"), "{said:?}");
        // Where a privilege is missing it says so, and is still no failure.
        host.configure(&(ONE.to_owned() + "netns = \"x\"\naddresses = [\"10.0.0.1/24\"]\n"));
        let said = shell(
            &host,
            "exec setpriv --bounding-set -all --inh-caps -all --reuid 65534 --clear-groups -- \"$@\" --check",
        );
        if said.code == 0 {
            assert!(said.out.contains("CAP_NET_ADMIN") && said.out.contains("CAP_SYS_ADMIN"), "{said:?}");
        } else {
            // The directory of the test may be closed to others, or there is no other user here.
            eprintln!("not shown: --check without privileges: {}", said.err);
        }
    });
}

#[test]
fn wrong_words_are_exit_64() {
    with_host("wrong_words_are_exit_64", |_, host| {
        host.configure(ONE);
        for words in
            ["--nonsense", "extra", "--log-level loud", "--log-format xml", "--check --check extra", "--keep"]
        {
            let said = host.run(words);
            refused(&said, 64, &["--help"]);
            assert_eq!(said.err.lines().count(), 1, "{said:?}");
        }
        let daemon =
            |words: &[&str]| Host::run_command(Command::new(program("vswitchd").unwrap()).args(words));
        refused(&daemon(&[]), 64, &["--config"]);
        refused(&daemon(&["--config"]), 64, &["--config"]);
        assert_eq!((daemon(&["--help"]).code, daemon(&["--version"]).code), (0, 0));
        nothing_made(&host);
    });
}

#[test]
fn a_second_daemon_on_the_socket_is_refused_and_the_first_is_not_disturbed() {
    with_host("a_second_daemon_on_the_socket_is_refused_and_the_first_is_not_disturbed", |_, mut host| {
        host.start_on(ONE);
        let before = host.rows("port");
        refused(&host.run(""), 1, &["another vswitchd", "control.sock", "stop it"]);
        assert_eq!(host.rows("port"), before);
        assert_eq!(host.end("TERM").0, 0);
        // A file of that name which is no socket.
        std::fs::write(host.socket(), "mine").unwrap();
        refused(&host.run(""), 1, &["is not a socket", "remove it"]);
        assert_eq!(std::fs::read(host.socket()).unwrap(), b"mine");
        assert!(!host.has_interface("one"));
    });
}

#[test]
fn what_the_node_lacks_ends_the_start_with_what_to_do() {
    with_host("what_the_node_lacks_ends_the_start_with_what_to_do", |lab, host| {
        host.configure(ONE);
        let dev = "mount --bind /dev/null /dev/net/tun || exit 99; exec \"$@\"";
        let said = shell(&host, dev);
        assert_ne!(said.code, 99, "{said:?}");
        refused(&said, 1, &["/dev/net/tun"]);
        assert!(said.err.contains("modprobe tun") || said.err.contains("mknod"), "{said:?}");
        let said = shell(&host, "mount -t tmpfs none /dev/net || exit 99; exec \"$@\"");
        refused(&said, 1, &["/dev/net/tun", "modprobe tun"]);
        assert!(!host.socket().exists() && !host.state().exists(), "nothing is left behind");

        // As root of nothing: no capability at all.
        let said = shell(&host, "exec setpriv --bounding-set -all --inh-caps -all -- \"$@\"");
        refused(&said, 1, &["CAP_NET_ADMIN"]);
        assert!(!host.socket().exists(), "nothing is left behind");

        // A name that something else has: the only port, so that the start fails.
        host.namespace().ip("link add name one type bridge");
        refused(&host.run(""), 1, &["\"one\"", "another name"]);
        host.namespace().ip("link delete one");
        let _keep = lab;
    });
}

fn text_of(host: &Host, port: &str, key: &str) -> String {
    text(&host.port(port), key)
}

#[test]
fn without_the_right_to_enter_namespaces_a_port_works_and_says_what_it_lacks() {
    let name = "without_the_right_to_enter_namespaces_a_port_works_and_says_what_it_lacks";
    with_host(name, |lab, mut host| {
        let (a, b) = (Pod::new(lab, "a"), Pod::new(lab, "b"));
        host.configure(
            &(a.table("tap-a", "tag = 10\naddresses = [\"10.0.0.1/24\"]") + &b.table("tap-b", "tag = 10")),
        );
        let mut command = host.namespace().command("setpriv");
        command.args(["--bounding-set", "-sys_admin", "--"]).arg(program("vswitchd").unwrap());
        host.start_with(command.arg("--config").arg(host.config()));
        let row = host.port("tap-a");
        assert_eq!(text(&row, "link"), "up", "{row}");
        let status = host.ctl("status");
        assert!(status.code == 0 && status.out.contains("CAP_SYS_ADMIN"), "{status:?}");
        a.raw("tap-a").reaches(&b.raw("tap-b"), &frame());
        assert_eq!(host.ctl("reload").code, 1, "it is not as wished");
    });
}

fn frame() -> Vec<u8> {
    Frame::new(station(2), station(1)).bytes()
}

#[test]
fn what_has_arrived_before_the_end_is_still_delivered() {
    with_host("what_has_arrived_before_the_end_is_still_delivered", |lab, mut host| {
        let (a, b) = (Pod::new(lab, "a"), Pod::new(lab, "b"));
        host.start_on(&(a.table("tap-a", "tag = 10") + &b.table("tap-b", "tag = 10")));
        let (raw_a, raw_b) = (a.raw("tap-a"), b.raw("tap-b"));
        (0..300).for_each(|_| raw_a.send(&frame()));
        assert_eq!(host.end("TERM").0, 0);
        assert_eq!(raw_b.drain().len(), 300);
    });
}

#[test]
fn a_taken_name_costs_one_port_not_the_start() {
    with_host("a_taken_name_costs_one_port_not_the_start", |_, mut host| {
        host.namespace().ip("link add name two type bridge");
        host.start_on(&(ONE.to_owned() + "[[port]]\nname = \"two\"\n"));
        assert_eq!(text(&host.port("one"), "link"), "up");
        let two = host.port("two");
        assert!(text(&two, "link") == "down" && text(&two, "reason").contains("\"two\""), "{two}");
        let reload = host.ctl("reload");
        assert!(reload.code == 1 && reload.err.contains("two"), "{reload:?}");
        let doctor = host.ctl("doctor");
        assert!(doctor.code == 1 && doctor.out.contains("two"), "{doctor:?}");
        // Another daemon finds its names taken, and disturbs nobody.
        let other = host.file("other.toml");
        let text = std::fs::read_to_string(host.config()).unwrap();
        let text = text.replace("control.sock", "other.sock").replace("state.json", "other.json");
        std::fs::write(&other, text).unwrap();
        let mut command = host.namespace().command(program("vswitchd").unwrap());
        refused(&Host::run_command(command.arg("--config").arg(&other)), 1, &["\"one\"", "in use"]);
        assert_eq!(text_of(&host, "one", "link"), "up");
        // It is tried again.
        host.namespace().ip("link delete two");
        host.until_link("two", "up");
        host.must("reload");
    });
}

#[test]
fn a_taken_udp_port_ends_the_start_also_when_its_owner_shares_it() {
    with_host("a_taken_udp_port_ends_the_start_also_when_its_owner_shares_it", |lab, mut host| {
        let far = lab.namespace("far");
        host.namespace().veth("under", &far, "under");
        host.namespace().address("under", "192.0.2.1/24");
        let toml = "[underlay]\naddress = \"192.0.2.1\"\n[mesh]\npeers = [\"192.0.2.2\"]\n[[segment]]\nname = \"blue\"\nvlan = 10\nvni = 10\n";
        host.configure(&(toml.to_owned() + ONE));
        for address in ["192.0.2.1:4789", "0.0.0.0:4789"] {
            let taken = host.namespace().inside(|| std::net::UdpSocket::bind(address)).unwrap();
            refused(&host.run(""), 1, &["4789"]);
            assert!(!host.has_interface("one") && !host.socket().exists());
            drop(taken);
        }
        // A second vswitchd: its sockets share the port among themselves, and with nobody else.
        host.start();
        let other = host.file("other.toml");
        let text = std::fs::read_to_string(host.config()).unwrap();
        let text = text
            .replace("control.sock", "other.sock")
            .replace("state.json", "other.json")
            .replace("\"one\"", "\"two\"");
        std::fs::write(&other, text).unwrap();
        let mut command = host.namespace().command(program("vswitchd").unwrap());
        refused(&Host::run_command(command.arg("--config").arg(&other)), 1, &["4789"]);
        assert_eq!(host.ctl("status").code, 0);
    });
}

#[test]
fn sigterm_and_sigint_drain_and_leave_nothing() {
    with_host("sigterm_and_sigint_drain_and_leave_nothing", |lab, mut host| {
        let a = Pod::new(lab, "a");
        for signal in ["TERM", "INT"] {
            host.start_on(&(ONE.to_owned() + &a.table("tap-a", "tag = 10")));
            let mode = std::fs::metadata(host.socket()).unwrap().mode();
            assert_eq!(mode & 0o777, 0o600, "the socket is its owner's");
            let (code, log) = host.end(signal);
            assert_eq!(code, 0, "{log}");
            assert!(!host.socket().exists() && !host.has_interface("one") && a.index("tap-a").is_none());
            assert!(!host.state().exists(), "nothing was changed at run time");
        }
        // One that was killed leaves its socket file, and the next start takes it over.
        host.start();
        host.end("KILL");
        assert!(host.socket().exists());
        until("the TAPs of a killed daemon gone", PATIENCE, || (!host.has_interface("one")).then_some(()));
        host.start();
        assert_eq!(host.end("TERM").0, 0);
    });
}

#[test]
fn systemd_is_told_when_it_is_ready_and_when_it_stops() {
    with_host("systemd_is_told_when_it_is_ready_and_when_it_stops", |_, mut host| {
        let path = host.file("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut word = [0; 100];
        host.configure(ONE);
        let mut command = host.vswitchd();
        host.start_with(command.env("NOTIFY_SOCKET", &path));
        // Its interface is kept first, by whoever hears that.
        for expected in ["FDSTORE=1\nFDNAME=one\nFDPOLL=0", "READY=1"] {
            let len = socket.recv(&mut word).unwrap();
            assert_eq!(&word[..len], expected.as_bytes());
        }
        assert!(host.has_interface("one"));
        host.end("TERM");
        let len = socket.recv(&mut word).unwrap();
        assert_eq!(&word[..len], b"STOPPING=1");
    });
}

#[test]
fn the_log_may_be_json_lines_and_says_nothing_per_frame() {
    with_host("the_log_may_be_json_lines_and_says_nothing_per_frame", |lab, mut host| {
        let (a, b) = (Pod::new(lab, "a"), Pod::new(lab, "b"));
        host.configure(&(a.table("tap-a", "tag = 10") + &b.table("tap-b", "tag = 10")));
        let mut command = host.vswitchd();
        host.start_with(command.args(["--log-format", "json", "--log-level", "debug"]));
        let (raw_a, raw_b) = (a.raw("tap-a"), b.raw("tap-b"));
        let frame = frame();
        raw_a.reaches(&raw_b, &frame);
        let before = host.log().lines().count();
        (0..100).for_each(|_| raw_a.reaches(&raw_b, &frame));
        // What cannot be carried is no reason for a line either.
        (0..100).for_each(|_| raw_a.send(&frame[..14]));
        assert!(host.log().lines().count() <= before + 1, "{}", host.log());
        host.daemon().signal("HUP");
        host.daemon().until_logged("reloaded", PATIENCE);
        let (code, log) = host.end("TERM");
        assert_eq!(code, 0);
        for line in log.lines() {
            let object: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(object.is_object(), "{line}");
        }
        assert!(log.lines().count() > 3, "{log}");
    });
}
