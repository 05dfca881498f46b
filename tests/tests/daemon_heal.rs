//! Interfaces and namespaces that come late, go, return, move or are renamed while the daemon runs.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;
use vswitch_core::wire::ethernet::Mac;
use vswitch_tests::daemon::{Host, PATIENCE, Pod, text, with_host};
use vswitch_tests::frames::{Frame, station};
use vswitch_tests::lab::{Deadline, Lab, until};

fn frame(to: u32, from: u32) -> Vec<u8> {
    Frame::new(station(to), station(from)).bytes()
}

fn broadcast(from: u32) -> Vec<u8> {
    Frame::new(Mac::BROADCAST, station(from)).bytes()
}

/// A frame of station 1 to everybody, with a number.
fn numbered(number: u32) -> Vec<u8> {
    Frame::new(Mac::BROADCAST, station(1)).payload(0x88b5, &number.to_be_bytes().repeat(12)).bytes()
}

/// The name of a namespace that is not there yet.
fn future_name(lab: &Lab, name: &str) -> String {
    Pod::new(lab, name).name().to_owned()
}

/// How long `what` took, for people.
fn timed(what: &str, wait: impl FnOnce()) {
    let began = Deadline::after(Duration::from_secs(3600));
    wait();
    let took = Duration::from_secs(3600).saturating_sub(began.left().unwrap_or_default());
    eprintln!("{what}: {} ms", took.as_millis());
}

#[test]
fn a_namespace_that_is_not_there_yet_is_waited_for() {
    with_host("a_namespace_that_is_not_there_yet_is_waited_for", |lab, mut host| {
        let a = Pod::new(lab, "a");
        let name = future_name(lab, "late");
        host.start_on(
            &(a.table("tap-a", "tag = 10")
                + &format!("[[port]]\nname = \"late\"\nnetns = {name:?}\ntag = 10\n")),
        );
        let row = host.port("late");
        assert_eq!(text(&row, "link"), "down");
        assert!(text(&row, "reason").contains("waiting") && text(&row, "reason").contains(&name), "{row}");
        let doctor = host.ctl("doctor");
        assert!(doctor.code == 0 && doctor.out.contains("late"), "{doctor:?}");
        // What waits is no failure.
        host.must("reload");
        let late = Pod::new(lab, "late");
        timed("port up after ip netns add", || drop(host.until_link("late", "up")));
        a.raw("tap-a").reaches(&late.raw("late"), &broadcast(1));
        assert!(host.json("status")["troubles"].as_array().unwrap().is_empty());
    });
}

#[test]
fn a_namespace_deleted_under_traffic_costs_nobody_else_a_frame_and_heals() {
    with_host("a_namespace_deleted_under_traffic_costs_nobody_else_a_frame_and_heals", |lab, mut host| {
        let (a, b) = (Pod::new(lab, "a"), Pod::new(lab, "b"));
        let c = Pod::new(lab, "c");
        let table = |pod: &Pod, name: &str| pod.table(name, "tag = 10\nifname = \"eth0\"");
        host.start_on(&(table(&a, "tap-a") + &table(&b, "tap-b") + &table(&c, "tap-c")));
        let (raw_a, raw_b) = (a.raw("eth0"), b.raw("eth0"));
        {
            let raw_c = c.raw("eth0");
            raw_c.reaches(&raw_a, &broadcast(3));
        }
        // The kernel of a namespace that returns has things to say; a frame that does not come ends the search.
        let ours = |bytes: Option<&[u8]>| bytes.is_none_or(|bytes| bytes[12..14] == [0x88, 0xb5]);
        let mut number = 0;
        let mut exchange = || {
            // To everybody, so to the dying port too.
            raw_a.send(&numbered(number));
            let heard =
                std::iter::repeat_with(|| raw_b.receive(PATIENCE)).find(|heard| ours(heard.as_deref()));
            assert_eq!(heard.flatten(), Some(numbered(number)), "each once and in order");
            number += 1;
        };
        let _ = raw_b.drain();
        (0..200).for_each(|_| exchange());
        for _ in 0..3 {
            let told = || {
                host.log()
                    .matches("port=tap-c reason=\"its interface or network namespace was deleted\"")
                    .count()
            };
            let before = told();
            // Nothing of ours is open in there.
            c.namespace().ip("link show eth0");
            let name = c.name().to_owned();
            std::process::Command::new("ip").args(["netns", "delete", &name]).status().unwrap();
            timed("port down after ip netns delete", || {
                until("tap-c down", PATIENCE, || {
                    exchange();
                    (text(&host.port("tap-c"), "link") == "down").then_some(())
                });
            });
            // The log takes a way of its own.
            until("the word", PATIENCE, || (told() > before).then_some(()));
            assert!(host.rows("mac").iter().all(|row| row["port"] != "tap-c"), "its stations are forgotten");
            (0..50).for_each(|_| exchange());
            std::process::Command::new("ip").args(["netns", "add", &name]).status().unwrap();
            timed("port up after ip netns add", || {
                until("tap-c up", PATIENCE, || {
                    exchange();
                    (text(&host.port("tap-c"), "link") == "up").then_some(())
                });
            });
            assert_eq!(told(), before + 1, "told once: {}", host.log());
            let raw_c = c.raw("eth0");
            raw_c.reaches(&raw_a, &broadcast(3));
            raw_b.until(&broadcast(3));
            raw_a.reaches(&raw_c, &frame(3, 1));
            (0..50).for_each(|_| exchange());
        }
        assert!(!raw_b.drain().iter().any(|bytes| ours(Some(bytes))), "none twice");
    });
}

#[test]
fn an_interface_that_somebody_deletes_is_made_again() {
    with_host("an_interface_that_somebody_deletes_is_made_again", |lab, mut host| {
        let (a, b) = (Pod::new(lab, "a"), Pod::new(lab, "b"));
        let more = "[[port]]\nname = \"bare\"\ntag = 10\n";
        host.start_on(
            &(a.table("tap-a", "tag = 10") + &b.table("tap-b", "tag = 10\nifname = \"eth0\"") + more),
        );
        let raw_a = a.raw("tap-a");
        let index = b.index("eth0").unwrap();
        b.namespace().ip("link delete eth0");
        host.namespace().ip("link delete bare");
        let again = until("another eth0", PATIENCE, || b.index("eth0").filter(|new| *new != index));
        assert_ne!(again, index);
        until("bare again", PATIENCE, || host.has_interface("bare").then_some(()));
        host.until_link("tap-b", "up");
        host.until_link("bare", "up");
        raw_a.reaches(&b.raw("eth0"), &broadcast(1));
        assert_eq!(host.ctl("diff").out, "");
    });
}

#[test]
fn an_interface_that_somebody_renames_or_moves_stays_attached() {
    with_host("an_interface_that_somebody_renames_or_moves_stays_attached", |lab, mut host| {
        let (a, b, elsewhere) = (Pod::new(lab, "a"), Pod::new(lab, "b"), Pod::new(lab, "elsewhere"));
        let table = b.table("tap-b", "tag = 10\nifname = \"eth0\"");
        host.start_on(&(a.table("tap-a", "tag = 10") + &table));
        let raw_a = a.raw("tap-a");
        b.namespace().ip("link set eth0 down");
        b.namespace().ip("link set eth0 name eth7");
        b.namespace().ip("link set eth7 up");
        let raw_b = b.raw("eth7");
        raw_a.reaches(&raw_b, &broadcast(1));
        raw_b.reaches(&raw_a, &frame(1, 2));
        assert_eq!(text(&host.port("tap-b"), "link"), "up");
        drop(raw_b);

        b.namespace().ip(&format!("link set eth7 netns {}", elsewhere.name()));
        elsewhere.namespace().ip("link set eth7 up");
        let raw = elsewhere.raw("eth7");
        raw_a.reaches(&raw, &broadcast(1));
        raw.reaches(&raw_a, &frame(1, 2));
        // Nor does a reload of the same file, or a change of its VLAN and back, take it away.
        host.must("reload");
        host.configure(&(a.table("tap-a", "tag = 10") + &table.replace("tag = 10", "tag = 12")));
        host.must("reload");
        host.configure(&(a.table("tap-a", "tag = 10") + &table));
        host.must("reload");
        raw_a.reaches(&raw, &broadcast(1));
        assert_eq!((text(&host.port("tap-b"), "link"), b.index("eth0")), ("up".into(), None));
        assert!(!host.log().contains("port down"), "{}", host.log());
        // The namespace that it left may go.
        drop(b);
        raw.reaches(&raw_a, &frame(1, 2));
        assert_eq!(text(&host.port("tap-b"), "link"), "up");
    });
}

/// Addresses of an interface, without link-local ones.
fn addresses(host: &Host, pod: Option<&Pod>, link: &str) -> Vec<String> {
    let namespace = pod.map_or_else(|| host.namespace(), Pod::namespace);
    let list = namespace.ip(&format!("-o address show dev {link}"));
    let mut all: Vec<String> = list
        .lines()
        .filter_map(|line| line.split_whitespace().skip_while(|word| !word.starts_with("inet")).nth(1))
        .filter(|address| !address.starts_with("fe80"))
        .map(str::to_owned)
        .collect();
    all.sort();
    all
}

#[test]
fn addresses_and_gateways_of_both_families_are_set_and_follow_a_reload() {
    with_host("addresses_and_gateways_of_both_families_are_set_and_follow_a_reload", |lab, mut host| {
        let (a, b) = (lab.namespace("a"), lab.namespace("b"));
        let by_path = format!("/run/netns/{}", b.name());
        let tables = |address: &str, gateways: &str| {
            format!(
                "[[port]]\nname = \"tap-a\"\nnetns = {:?}\nifname = \"eth0\"\ntag = 10\nmtu = 1400\n\
                 mac = \"02:00:00:00:00:0a\"\naddresses = [{address:?}, \"fd00::2/64\"]\ngateway = {gateways}\n\
                 [[port]]\nname = \"tap-b\"\nnetns = {by_path:?}\ntag = 10\naddresses = [\"10.10.0.1/24\", \"fd00::1/64\"]\n\
                 [[port]]\nname = \"bare\"\ntag = 10\naddresses = [\"10.10.0.9/24\"]\n",
                a.name()
            )
        };
        host.start_on(&tables("10.10.0.2/24", "[\"10.10.0.1\", \"fd00::1\"]"));
        let of = |list: &str| {
            let mut all: Vec<String> = list
                .lines()
                .filter_map(|line| {
                    line.split_whitespace().skip_while(|word| !word.starts_with("inet")).nth(1)
                })
                .filter(|address| !address.starts_with("fe80"))
                .map(str::to_owned)
                .collect();
            all.sort();
            all
        };
        assert_eq!(of(&a.ip("-o address show dev eth0")), ["10.10.0.2/24", "fd00::2/64"]);
        assert_eq!(
            of(&b.ip("-o address show dev tap-b")),
            ["10.10.0.1/24", "fd00::1/64"],
            "a namespace by its path"
        );
        let link = a.ip("link show dev eth0");
        assert!(
            link.contains("mtu 1400") && link.contains("02:00:00:00:00:0a") && link.contains("UP"),
            "{link}"
        );
        assert!(a.ip("route show default").contains("via 10.10.0.1"), "{}", a.ip("route"));
        assert!(a.ip("-6 route show default").contains("via fd00::1"), "{}", a.ip("-6 route"));
        // Without a namespace it is the host's own, and up.
        assert_eq!(addresses(&host, None, "bare"), ["10.10.0.9/24"]);
        assert!(host.namespace().ip("link show dev bare").contains("UP"));
        for to in ["10.10.0.1", "fd00::1", "10.10.0.9"] {
            let ping = until(&format!("ping {to}"), PATIENCE, || {
                Some(a.ping(to.parse().unwrap(), 56, 1)).filter(|ping| ping.received == 1)
            });
            assert_eq!(ping.duplicates, 0);
        }

        host.configure(&tables("10.10.0.3/24", "\"10.10.0.9\""));
        host.must("reload");
        assert_eq!(of(&a.ip("-o address show dev eth0")), ["10.10.0.3/24", "fd00::2/64"]);
        let route = a.ip("route show default");
        assert!(route.contains("via 10.10.0.9") && !route.contains("via 10.10.0.1"), "{route}");
        assert_eq!(a.ip("-6 route show default").trim(), "", "a gateway that is no longer wished is gone");
        assert_eq!(a.ping("10.10.0.1".parse().unwrap(), 56, 2).received, 2);
    });
}

#[test]
fn a_namespace_may_be_that_of_a_process_or_an_empty_name_of_the_future() {
    with_host("a_namespace_may_be_that_of_a_process_or_an_empty_name_of_the_future", |lab, mut host| {
        let (a, b) = (Pod::new(lab, "a"), Pod::new(lab, "b"));
        let mut sleeper = b.namespace().command("sleep").arg("1000").spawn().unwrap();
        let path = format!("/proc/{}/ns/net", sleeper.id());
        // `ip` enters the namespace before it becomes the sleeper.
        until("the sleeper inside", PATIENCE, || {
            let comm = std::fs::read_to_string(format!("/proc/{}/comm", sleeper.id())).ok()?;
            (comm.trim() == "sleep").then_some(())
        });
        host.start_on(
            &(a.table("tap-a", "tag = 10")
                + &format!("[[port]]\nname = \"tap-b\"\nnetns = {path:?}\ntag = 10\n")),
        );
        a.raw("tap-a").reaches(&b.raw("tap-b"), &broadcast(1));
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        // Neither the process nor its path is needed any more.
        a.raw("tap-a").reaches(&b.raw("tap-b"), &broadcast(1));
        host.must("reload");
        assert_eq!(text(&host.port("tap-b"), "link"), "up");
    });
}

#[test]
fn an_underlay_address_that_comes_late_goes_and_returns_is_followed() {
    with_host("an_underlay_address_that_comes_late_goes_and_returns_is_followed", |lab, mut host| {
        let far = lab.namespace("far");
        host.namespace().veth("under", &far, "under");
        let segment = "[[segment]]\nname = \"blue\"\nvlan = 10\nvni = 10010\n";
        let pod = Pod::new(lab, "pod");
        let port = pod.table("tap-a", "tag = 10");
        let underlay = "[underlay]\naddress = \"192.0.2.0/24\"\n[mesh]\npeers = [\"192.0.2.2\"]\n";
        host.start_on(&format!("{underlay}{segment}{port}"));
        let is = |state: &str| {
            until(state, PATIENCE, || (text(&host.json("status"), "underlay") == state).then_some(()));
        };
        is("waiting");
        assert!(host.ctl("doctor").out.contains("192.0.2.0/24"));
        for _ in 0..2 {
            host.namespace().address("under", "192.0.2.1/24");
            far.ip("address replace 192.0.2.2/24 dev under");
            is("ready");
            // The far end hears what the pod says, behind a VXLAN header.
            let socket = far.inside(|| std::net::UdpSocket::bind("192.0.2.2:4789")).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            pod.raw("tap-a").send(&broadcast(1));
            let mut datagram = [0; 200];
            let len = socket.recv(&mut datagram).unwrap();
            assert_eq!(datagram[8..len], broadcast(1));
            host.namespace().ip("address delete 192.0.2.1/24 dev under");
            is("waiting");
        }
    });
}
