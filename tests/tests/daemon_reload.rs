//! Reloads: what they keep, what they forget, what they cost others; a thousand ports; bad files in between.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use vswitch_core::wire::ethernet::Mac;
use vswitch_tests::daemon::{Host, PATIENCE, Pod, Raw, number, text, with_host};
use vswitch_tests::frames::{Frame, station};
use vswitch_tests::lab::{Deadline, until};

fn frame(to: u32, from: u32) -> Vec<u8> {
    Frame::new(station(to), station(from)).bytes()
}

fn broadcast(from: u32) -> Vec<u8> {
    Frame::new(Mac::BROADCAST, station(from)).bytes()
}

/// A frame between two stations, with a number.
fn numbered(to: u32, from: u32, number: u32) -> Vec<u8> {
    Frame::new(station(to), station(from)).payload(0x88b5, &number.to_be_bytes().repeat(12)).bytes()
}

/// Sends frames to and fro between stations 1 and 2 while `work` runs, one at a time: each must arrive, once and in
/// order. Gives how many there were.
fn without_loss(a: &Raw, b: &Raw, work: impl FnOnce()) -> u32 {
    let (over, count) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let _ = (a.drain(), b.drain());
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                for (from, to, frame) in [(a, b, numbered(2, 1, number)), (b, a, numbered(1, 2, number))] {
                    from.send(&frame);
                    let heard = to.receive(PATIENCE);
                    assert_eq!(heard, Some(frame), "exchange {number}");
                }
                number += 1;
                count.store(number, Ordering::Relaxed);
            }
            assert!(a.drain().is_empty() && b.drain().is_empty(), "none twice");
        });
        // Also when `work` fails: the traffic must end.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("traffic", PATIENCE, || (count.load(Ordering::Relaxed) > 10).then_some(()));
            work();
        }));
        over.store(true, Ordering::Relaxed);
        traffic.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    count.into_inner()
}

/// Reloads by signal and waits for the word `said`.
fn hang_up(host: &Host, said: &str) {
    let before = host.log().matches(said).count();
    host.daemon().signal("HUP");
    until(said, PATIENCE, || (host.log().matches(said).count() > before).then_some(()));
}

#[test]
fn a_changed_vlan_keeps_the_interface_and_forgets_only_that_port() {
    with_host("a_changed_vlan_keeps_the_interface_and_forgets_only_that_port", |lab, mut host| {
        let (a, b, c) = (Pod::new(lab, "a"), Pod::new(lab, "b"), Pod::new(lab, "c"));
        let configure = |host: &Host, tag: u16| {
            let c = c.table("tap-c", &format!("tag = {tag}\naddresses = [\"10.0.0.3/24\"]"));
            host.configure(&(a.table("tap-a", "tag = 10") + &b.table("tap-b", "tag = 10") + &c));
        };
        configure(&host, 10);
        host.start();
        until("tap-c's pod to be announced twice", PATIENCE, || {
            (number(&host.json("status"), "neigh_announced") == 2).then_some(())
        });
        host.must("mac flush");
        let (raw_a, raw_b, raw_c) = (a.raw("tap-a"), b.raw("tap-b"), c.raw("tap-c"));
        for by_signal in [false, true] {
            host.teach(&raw_a, &raw_b, &broadcast(1), "tap-a");
            host.teach(&raw_b, &raw_a, &broadcast(2), "tap-b");
            host.teach(&raw_c, &raw_a, &broadcast(3), "tap-c");
            let (index, before) = (c.index("tap-c"), host.port("tap-a"));
            assert_eq!(host.rows("mac").len(), 3);
            configure(&host, 12);
            if by_signal {
                hang_up(&host, "INFO  reloaded");
            } else {
                host.must("reload");
            }
            assert_eq!(c.index("tap-c"), index, "the same interface");
            let left: Vec<_> = host.macs().into_iter().map(|(_, _, port, _)| port).collect();
            assert_eq!(left, ["tap-a", "tap-b"]);
            assert_eq!(host.port("tap-a"), before, "nothing of an untouched port has changed");
            let _ = raw_c.drain();
            raw_a.reaches(&raw_b, &broadcast(1));
            assert!(raw_c.drain().is_empty(), "it is in another VLAN");
            configure(&host, 10);
            if by_signal {
                hang_up(&host, "INFO  reloaded");
            } else {
                host.must("reload");
            }
            raw_a.reaches(&raw_c, &broadcast(1));
            assert_eq!(c.index("tap-c"), index);
            host.must("mac flush");
        }
        // The file as it is: nothing happens at all.
        let before = host.rows("port");
        assert_eq!(number(&host.json("reload"), "changed"), 0);
        assert_eq!(host.rows("port"), before);
    });
}

#[test]
fn a_thousand_ports_come_change_and_go_while_others_lose_no_frame() {
    with_host("a_thousand_ports_come_change_and_go_while_others_lose_no_frame", |lab, mut host| {
        let (a, b) = (Pod::new(lab, "a"), Pod::new(lab, "b"));
        let pair = a.table("tap-a", "tag = 10") + &b.table("tap-b", "tag = 10");
        let thousand = |tag: u16| -> String {
            (0..1000).map(|n| format!("[[port]]\nname = \"t{n}\"\ntag = {tag}\n")).collect()
        };
        host.start_on(&pair);
        let (raw_a, raw_b) = (a.raw("tap-a"), b.raw("tap-b"));
        let indexes = (a.index("tap-a"), b.index("tap-b"));
        let host = &host;
        let timed = |what: &str, toml: &str, ports: usize| {
            host.configure(&(pair.clone() + toml));
            let mut took = Duration::ZERO;
            let exchanges = without_loss(&raw_a, &raw_b, || {
                let began = Deadline::after(Duration::from_secs(600));
                host.must("--timeout 120 reload");
                took = Duration::from_secs(600).saturating_sub(began.left().unwrap_or_default());
            });
            let rows = host.rows("port");
            assert_eq!(rows.len(), ports);
            assert!(rows.iter().all(|row| row["link"] == "up"), "{what}");
            eprintln!("{what}: {} ms, {exchanges} exchanges, none lost", took.as_millis());
        };
        timed("1,000 ports added", &thousand(20), 1002);
        assert!(host.has_interface("t0") && host.has_interface("t999"));
        timed("1,000 ports moved to another VLAN", &thousand(21), 1002);
        timed("nothing changed", &thousand(21), 1002);
        // A bad file in the middle.
        host.configure(&(pair.clone() + &thousand(22) + "[[port]]\nname = \"t1\"\n"));
        let said = host.ctl("reload");
        assert!(said.code == 78 && said.err.contains("t1"), "{said:?}");
        assert_eq!(number(&host.port("t0"), "tag"), 21);
        timed("1,000 ports removed", "", 2);
        assert!(!host.has_interface("t0") && !host.has_interface("t999"));
        assert_eq!((a.index("tap-a"), b.index("tap-b")), indexes);
        let drops = host.drops();
        assert_eq!(drops, BTreeMap::new(), "nothing was dropped anywhere");
    });
}

/// How long `work` took, for people.
fn timed(what: &str, work: impl FnOnce()) {
    let began = Deadline::after(Duration::from_secs(600));
    work();
    let took = Duration::from_secs(600).saturating_sub(began.left().unwrap_or_default());
    eprintln!("{what}: {} ms", took.as_millis());
}

#[test]
fn hundreds_of_ports_in_pods_come_and_go_and_the_end_is_prompt() {
    with_host("hundreds_of_ports_in_pods_come_and_go_and_the_end_is_prompt", |lab, mut host| {
        let pod = Pod::new(lab, "pod");
        let many: String = (0..100).map(|n| pod.table(&format!("p{n}"), "tag = 10")).collect();
        host.start_on("");
        host.configure(&many);
        timed("100 ports added in a pod", || host.must("reload"));
        assert!(host.rows("port").iter().all(|row| row["link"] == "up") && pod.index("p99").is_some());
        host.configure("");
        timed("100 ports removed from a pod", || host.must("reload"));
        assert_eq!((pod.index("p0"), pod.index("p99")), (None, None));
        let many: String = (0..300).map(|n| format!("[[port]]\nname = \"t{n}\"\n")).collect();
        host.configure(&many);
        timed("300 ports added", || host.must("reload"));
        timed("the end with 300 ports", || assert_eq!(host.end("TERM").0, 0));
        assert!(!host.has_interface("t0") && !host.has_interface("t299"));
        timed("a start with 300 ports", || host.start());
        timed("a kill with 300 ports", || drop(host.end("KILL")));
    });
}

#[test]
fn a_bad_file_at_a_signal_is_logged_and_changes_nothing() {
    with_host("a_bad_file_at_a_signal_is_logged_and_changes_nothing", |lab, mut host| {
        let (a, b) = (Pod::new(lab, "a"), Pod::new(lab, "b"));
        let pair = a.table("tap-a", "tag = 10") + &b.table("tap-b", "tag = 10");
        host.start_on(&pair);
        let (raw_a, raw_b) = (a.raw("tap-a"), b.raw("tap-b"));
        raw_a.reaches(&raw_b, &broadcast(1));
        let before = (host.rows("port"), host.macs());
        host.configure(&(pair.replace("tag = 10", "tag = 12") + "[[port]]\nname = \"x\"\ntag = \"ten\"\n"));
        hang_up(&host, "reload refused");
        let place = format!("{}:{}:7", host.config().display(), host.line_of("ten"));
        assert!(host.log().contains(&place), "{}", host.log());
        assert_eq!((host.rows("port"), host.macs()), before);
        raw_a.reaches(&raw_b, &broadcast(1));
        std::fs::remove_file(host.config()).unwrap();
        hang_up(&host, "reload refused");
        host.configure(&pair);
        hang_up(&host, "INFO  reloaded");
    });
}

#[test]
fn a_smaller_table_keeps_the_entries_that_fit() {
    with_host("a_smaller_table_keeps_the_entries_that_fit", |lab, mut host| {
        let (a, b) = (Pod::new(lab, "a"), Pod::new(lab, "b"));
        let configure = |host: &Host, lines: &str| {
            let pair = a.table("tap-a", "tag = 10") + &b.table("tap-b", "tag = 10");
            host.configure(&format!("[mac_table]\n{lines}\n{pair}"));
        };
        configure(&host, "limit = 1000");
        host.start();
        let (raw_a, raw_b) = (a.raw("tap-a"), b.raw("tap-b"));
        (1..=12).for_each(|number| host.teach(&raw_a, &raw_b, &broadcast(number), "tap-a"));
        (101..=106).for_each(|number| host.teach(&raw_b, &raw_a, &broadcast(number), "tap-b"));
        host.must("mac add tap-a 10 02:00:00:00:00:aa");
        let all = host.macs();
        assert_eq!(all.len(), 19);
        configure(&host, "limit = 50");
        host.must("reload");
        assert_eq!(host.macs(), all, "all fit");
        raw_b.reaches(&raw_a, &frame(1, 101));
        configure(&host, "limit = 10");
        host.must("reload");
        let kept = host.macs();
        assert_eq!(kept.len(), 10);
        assert!(kept.iter().all(|entry| all.contains(entry)), "{kept:?}");
        assert!(kept.iter().any(|(.., state)| state == "static"), "a static entry is kept: {kept:?}");
        assert_eq!(number(&host.json("status"), "mac_limit"), 10);
        // Larger again: what is there stays, and more can be learned.
        configure(&host, "limit = 1000");
        host.must("reload");
        assert_eq!(host.macs(), kept);
        (1..=12).for_each(|number| host.teach(&raw_a, &raw_b, &broadcast(number), "tap-a"));
        assert!(host.rows("mac --port tap-a").len() == 13, "{:?}", host.macs());
        // A limit for each port, while it holds more.
        configure(&host, "limit = 1000\nport_limit = 5");
        host.must("reload");
        (21..=40).for_each(|number| host.teach(&raw_a, &raw_b, &broadcast(number), "tap-a"));
        let rows = host.rows("mac --port tap-a");
        let learned = rows.iter().filter(|row| row["state"] == "learned").count();
        assert!(rows.len() <= 6 && learned >= 4, "{rows:?}");
        assert!(rows.iter().any(|row| row["mac"] == "02:00:00:00:00:28"), "the youngest is there: {rows:?}");
        configure(&host, "limit = 1000\nageing = 20");
        host.must("reload");
        assert_eq!(number(&host.json("status"), "ageing_seconds"), 20);
        assert_eq!(host.rows("mac --port tap-a").len(), rows.len(), "another age forgets nobody at once");
    });
}

#[test]
fn a_port_that_the_system_refuses_is_listed_and_tried_again_while_others_go_on() {
    with_host(
        "a_port_that_the_system_refuses_is_listed_and_tried_again_while_others_go_on",
        |lab, mut host| {
            let (a, b) = (Pod::new(lab, "a"), Pod::new(lab, "b"));
            let pair = a.table("tap-a", "tag = 10") + &b.table("tap-b", "tag = 10");
            host.start_on(&pair);
            let (raw_a, raw_b) = (a.raw("tap-a"), b.raw("tap-b"));
            a.namespace().ip("link add name eth0 type bridge");
            host.configure(
                &(pair + &a.table("other", "ifname = \"eth0\"") + "[[port]]\nname = \"good\"\ntag = 10\n"),
            );
            without_loss(&raw_a, &raw_b, || {
                let said = host.ctl("reload");
                assert!(
                    said.code == 1 && said.err.contains("other") && said.err.contains("eth0"),
                    "{said:?}"
                );
            });
            assert_eq!(
                (text(&host.port("good"), "link"), text(&host.port("other"), "link")),
                ("up".into(), "down".into())
            );
            assert!(!host.has_interface("other"), "a TAP that cannot be moved is not left on the host");
            a.namespace().ip("link delete eth0");
            host.until_link("other", "up");
            assert!(a.index("eth0").is_some());
            host.must("reload");
        },
    );
}
