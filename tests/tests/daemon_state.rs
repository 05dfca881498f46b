//! What was changed at run time: it survives restarts and kills, and the file has the last word.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::atomic::{AtomicBool, Ordering};
use vswitch_core::wire::ethernet::Mac;
use vswitch_tests::daemon::{Host, PATIENCE, Pod, number, text, with_host};
use vswitch_tests::frames::{Frame, station};
use vswitch_tests::lab::until;

const FILE: &str = "[[port]]\nname = \"one\"\ntag = 10\n[[port]]\nname = \"two\"\ntag = 10\n";

/// Name, tag and source of each port.
fn ports(host: &Host) -> Vec<(String, u64, String)> {
    host.rows("port").iter().map(|row| (text(row, "name"), number(row, "tag"), text(row, "source"))).collect()
}

fn port(name: &str, tag: u64, source: &str) -> (String, u64, String) {
    (name.to_owned(), tag, source.to_owned())
}

fn restart(host: &mut Host) {
    assert_eq!(host.end("TERM").0, 0);
    host.start();
}

#[test]
fn ports_deletions_and_static_entries_survive_a_restart() {
    with_host("ports_deletions_and_static_entries_survive_a_restart", |lab, mut host| {
        host.start_on(FILE);
        let pod = Pod::new(lab, "pod");
        host.must(&format!("port add new tag=30 netns={} ifname=eth0 mac=02:00:00:00:00:99", pod.name()));
        host.must("port set one tag=11");
        host.must("port del two");
        host.must("mac add new 30 02:00:00:00:00:01");
        host.must("mac add one 11 02:00:00:00:00:02");
        let (before, macs) = (ports(&host), host.macs());
        assert_eq!(before, [port("new", 30, "runtime"), port("one", 11, "runtime")]);
        for signal in ["TERM", "KILL"] {
            host.end(signal);
            host.start();
            assert_eq!((ports(&host), host.macs()), (before.clone(), macs.clone()), "{signal}");
            assert!(pod.index("eth0").is_some());
            assert_eq!(host.ctl("diff").out, "");
            host.must("reload");
            assert_eq!((ports(&host), host.macs()), (before.clone(), macs.clone()), "{signal}");
        }
        // Another setting, and one taken back; until they are deleted.
        host.must("port set new tag=31");
        host.must("port del one");
        host.must("mac add new 31 02:00:00:00:00:03");
        host.must("mac del 31 02:00:00:00:00:03");
        restart(&mut host);
        assert_eq!(ports(&host), [port("new", 31, "runtime")]);
        assert!(host.macs().iter().all(|(_, vlan, ..)| *vlan != 11), "{:?}", host.macs());
        host.must("port del new");
        restart(&mut host);
        assert!(ports(&host).is_empty() && host.macs().is_empty());
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(host.state()).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    });
}

#[test]
fn the_file_wins_at_a_reload_and_at_a_start() {
    with_host("the_file_wins_at_a_reload_and_at_a_start", |_, mut host| {
        for by_restart in [false, true] {
            let _ = std::fs::remove_file(host.state());
            host.start_on(FILE);
            let take = |host: &mut Host, toml: &str| {
                host.configure(toml);
                if by_restart { restart(host) } else { host.must("reload") }
            };
            // A name in both is the file's, and stays the file's.
            host.must("port add both tag=30");
            let both = FILE.to_owned() + "[[port]]\nname = \"both\"\ntag = 40\n";
            take(&mut host, &both);
            let expected = [port("both", 40, "file"), port("one", 10, "file"), port("two", 10, "file")];
            assert_eq!(ports(&host), expected, "restart: {by_restart}");
            assert_eq!(host.ctl("port add both tag=1").code, 1);
            take(&mut host, FILE);
            assert_eq!(
                ports(&host),
                [port("one", 10, "file"), port("two", 10, "file")],
                "restart: {by_restart}"
            );

            // A deletion lasts as long as the entry stays as it was; comments and order do not matter.
            host.must("port del one");
            take(
                &mut host,
                "# another line\n[[port]]\nname = \"two\"\ntag = 10\n[[port]]\ntag = 10\nname = \"one\"\n",
            );
            assert_eq!(ports(&host), [port("two", 10, "file")]);
            take(&mut host, &FILE.replacen("10", "11", 1));
            assert_eq!(
                ports(&host),
                [port("one", 11, "file"), port("two", 10, "file")],
                "restart: {by_restart}"
            );
            take(&mut host, FILE);
            assert_eq!(
                ports(&host),
                [port("one", 10, "file"), port("two", 10, "file")],
                "it has ended for good"
            );

            // It ends as well when the entry goes.
            host.must("port del two");
            take(&mut host, "[[port]]\nname = \"one\"\ntag = 10\n");
            take(&mut host, FILE);
            assert_eq!(
                ports(&host),
                [port("one", 10, "file"), port("two", 10, "file")],
                "restart: {by_restart}"
            );

            // A port of the file that was set differently: the same rule.
            host.must("port set two tag=50");
            take(&mut host, FILE);
            assert_eq!(ports(&host), [port("one", 10, "file"), port("two", 50, "runtime")]);
            let other = "[[port]]\nname = \"one\"\ntag = 10\n[[port]]\nname = \"two\"\ntag = 51\n";
            take(&mut host, other);
            assert_eq!(
                ports(&host),
                [port("one", 10, "file"), port("two", 51, "file")],
                "restart: {by_restart}"
            );

            // What can no longer be together with the file is refused whole.
            host.must("port add taken tag=1 mac=02:00:00:00:00:77");
            restart(&mut host);
            assert!(ports(&host).contains(&port("taken", 1, "runtime")));
            assert_eq!(host.end("TERM").0, 0);
        }
    });
}

#[test]
fn a_killed_daemon_has_lost_nothing_that_it_confirmed() {
    with_host("a_killed_daemon_has_lost_nothing_that_it_confirmed", |lab, mut host| {
        let (a, b) = (Pod::new(lab, "a"), Pod::new(lab, "b"));
        host.start_on(&(a.table("tap-a", "tag = 10") + &b.table("tap-b", "tag = 10")));
        let mut confirmed: Vec<u32> = Vec::new();
        for round in 0..6 {
            let over = AtomicBool::new(false);
            // Under load: frames as fast as they go, and a change after the other.
            let changed = std::thread::scope(|scope| {
                let load = scope.spawn(|| {
                    let raw = a.raw("tap-a");
                    let mut number = 0;
                    while !over.load(Ordering::Relaxed) {
                        number += 1;
                        // Full, or gone with the daemon.
                        let _ = raw.try_send(&Frame::new(Mac::BROADCAST, station(number % 5000)).bytes());
                    }
                });
                let (host, over) = (&host, &over);
                let changes = scope.spawn(move || {
                    let mut done = Vec::new();
                    for number in (round * 1000..).take_while(|_| !over.load(Ordering::Relaxed)) {
                        if host.ctl(&format!("port add r{number} tag=20")).code == 0 {
                            done.push(number);
                        }
                    }
                    done
                });
                until("some changes", PATIENCE, || {
                    host.log().contains(&format!("port=r{}", round * 1000 + 3)).then_some(())
                });
                host.daemon().signal("KILL");
                over.store(true, Ordering::Relaxed);
                load.join().unwrap();
                changes.join().unwrap()
            });
            assert!(changed.len() >= 2, "{changed:?}");
            confirmed.extend(changed);
            host.end("KILL");
            host.start();
            let there: Vec<String> = host.rows("port").iter().map(|row| text(row, "name")).collect();
            for number in &confirmed {
                assert!(there.contains(&format!("r{number}")), "round {round}: r{number} of {there:?}");
            }
            // At most the one that was being added is there besides; it was not refused either.
            assert!(there.len() <= confirmed.len() + 2 + round as usize + 1, "{there:?}");
            a.raw("tap-a").reaches(&b.raw("tap-b"), &Frame::new(Mac::BROADCAST, station(1)).bytes());
        }
        let leftovers: Vec<_> = std::fs::read_dir(host.state().parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains("state.json") && name != "state.json")
            .collect();
        assert!(leftovers.len() <= 1, "{leftovers:?}");
    });
}

#[test]
fn a_state_file_that_cannot_be_read_ends_the_start_and_is_not_touched() {
    with_host("a_state_file_that_cannot_be_read_ends_the_start_and_is_not_touched", |_, mut host| {
        host.configure(FILE);
        for (content, word) in [
            ("", "damaged"),
            ("{\"version\":1,\"ports\":[{\"name\":\"x\"", "damaged"),
            ("{\"version\":1,\"nonsense\":[]}", "nonsense"),
            (
                "{\"version\":1,\"macs\":[{\"port\":\"one\",\"vlan\":4095,\"mac\":\"02:00:00:00:00:01\"}]}",
                "4095",
            ),
            ("{\"version\":2,\"ports\":[]}", "version 2"),
        ] {
            std::fs::write(host.state(), content).unwrap();
            let said = host.run("");
            assert_eq!((said.code, said.out.as_str()), (1, ""), "{said:?}");
            assert!(said.err.contains(word) && said.err.contains("state.json"), "{said:?}");
            assert_eq!(std::fs::read_to_string(host.state()).unwrap(), content);
            assert!(!host.has_interface("one") && !host.socket().exists());
        }
        // One that says what makes no sense any more costs what is in it, not the daemon.
        std::fs::write(host.state(), "{\"version\":1,\"ports\":[{\"name\":\"x\",\"segment\":\"gone\"}],\"macs\":[{\"port\":\"nobody\",\"vlan\":1,\"mac\":\"02:00:00:00:00:01\"}]}").unwrap();
        host.start();
        assert_eq!(host.rows("port").len(), 2);
        let doctor = host.ctl("doctor");
        assert!(doctor.code == 1 && doctor.out.contains("port x"), "{doctor:?}");
        // And it can be taken away.
        host.must("port del x");
        assert_eq!(host.ctl("doctor").code, 0);
    });
}
