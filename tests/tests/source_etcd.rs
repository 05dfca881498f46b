//! The etcd source against a real etcd: what it tells and what it keeps, in good hours and in bad ones.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;
use vswitch_tests::daemon::PATIENCE;
use vswitch_tests::etcd::{Etcd, with_etcd};
use vswitch_tests::lab::{Daemon, until};
use vswitch_tests::store::{Node, config, config_of, under};
use vswitchd::config::Cluster;
use vswitchd::control::source::etcd::StoreEvent;

/// Set in a process that is only there to be killed: where its etcd is.
const KILLED: &str = "VSWITCH_TEST_KILLED";

#[test]
fn what_is_there_is_listed_what_changes_is_told_and_own_keys_go_with_the_handle() {
    with_etcd(|| {
        let etcd = Etcd::start();
        etcd.put("/t/old", "1");
        etcd.put("/u/foreign", "1");
        let mut node = Node::watching(&config(&etcd), &["/t"]);
        node.put("/t/own", "mine");
        node.until_up();
        assert!(node.seen.contains_key("/t/old") && !node.seen.contains_key("/u/foreign"));
        assert_eq!(etcd.get("/t/own").as_deref(), Some("mine"));
        etcd.put("/t/new", "2");
        node.until_put("/t/new", "2");
        etcd.delete("/t/old");
        node.until_deleted("/t/old");
        assert_eq!(node.keys(), ["/t/new", "/t/own"]);
        node.put("/t/own", "changed");
        node.until_put("/t/own", "changed");
        node.source.delete("/t/own".to_owned());
        node.until_deleted("/t/own");
        node.put("/t/again", "x");
        node.until_put("/t/again", "x");
        assert!(node.woken.load(Ordering::Relaxed) >= 5);
        assert_eq!((node.listed(), node.downs()), (1, 0));
        drop(node);
        assert_eq!(etcd.keys("/t"), ["/t/new"]);
    });
}

#[test]
fn an_own_key_that_somebody_deletes_comes_back() {
    with_etcd(|| {
        let etcd = Etcd::start();
        let mut node = Node::watching(&config(&etcd), &["/t"]);
        node.put("/t/own", "mine");
        node.until_up();
        etcd.delete("/t/own");
        node.until_deleted("/t/own");
        node.until_put("/t/own", "mine");
    });
}

#[test]
fn a_node_may_start_before_its_etcd_and_the_latest_wish_counts() {
    with_etcd(|| {
        let mut etcd = Etcd::stopped();
        let mut node = Node::watching(&config(&etcd), &["/t"]);
        node.put("/t/own", "first");
        let reason = node.until_down();
        assert!(reason.contains(&etcd.url()) && reason.to_lowercase().contains("refused"), "{reason}");
        node.put("/t/own", "last");
        node.put("/t/gone", "1");
        node.source.delete("/t/gone".to_owned());
        etcd.run();
        node.until_up();
        assert_eq!(etcd.get("/t/own").as_deref(), Some("last"));
        assert_eq!(etcd.keys("/t"), ["/t/own"]);
        assert_eq!(node.downs(), 1);
    });
}

#[test]
fn after_a_restart_on_the_same_data_all_is_listed_anew_and_nothing_was_flushed() {
    with_etcd(|| {
        let mut etcd = Etcd::start();
        etcd.put("/t/stays", "1");
        let mut node = Node::watching(&config(&etcd), &["/t"]);
        node.put("/t/own", "mine");
        node.put("/t/dropped", "mine");
        node.until_up();
        etcd.kill();
        node.until_down();
        node.source.delete("/t/dropped".to_owned());
        node.put("/t/queued", "later");
        etcd.run();
        node.until_up();
        assert_eq!(etcd.keys("/t"), ["/t/own", "/t/queued", "/t/stays"]);
        assert_eq!(node.downs(), 1);
        // A watch that begins where the list ended: a further change is told once.
        etcd.put("/t/stays", "2");
        node.until_put("/t/stays", "2");
        let told = node.log.iter().filter(|e| matches!(e, StoreEvent::Put { key, .. } if key == "/t/stays"));
        assert_eq!(told.count(), 1);
        let deleted = |e: &&StoreEvent| matches!(e, StoreEvent::Deleted { key } if key != "/t/dropped");
        assert_eq!(node.log.iter().find(deleted), None);
    });
}

#[test]
fn an_etcd_that_is_paused_is_noticed_and_listed_anew_when_it_goes_on() {
    with_etcd(|| {
        let etcd = Etcd::start();
        let mut node = Node::watching(&config(&etcd), &["/t"]);
        node.put("/t/own", "1");
        node.until_up();
        etcd.pause();
        node.until_down();
        node.put("/t/own", "2");
        etcd.resume();
        node.until_up();
        assert_eq!(etcd.get("/t/own").as_deref(), Some("2"));
        assert_eq!(node.downs(), 1);
    });
}

#[test]
fn a_quiet_node_stays_up_over_more_pings_than_etcd_forgives() {
    with_etcd(|| {
        let etcd = Etcd::start();
        let mut node = Node::watching(&Cluster { lease: 60, ..config(&etcd) }, &["/t"]);
        node.until_up();
        // Pings go every two seconds; etcd would end the connection at the third that comes too early.
        let quiet = node.events.recv_timeout(Duration::from_secs(15));
        assert!(quiet.is_err(), "{quiet:?}");
    });
}

#[test]
fn history_that_was_compacted_during_an_outage_is_made_up_by_a_list() {
    with_etcd(|| {
        let mut etcd = Etcd::start();
        etcd.put("/t/goes", "1");
        let mut node = Node::watching(&config(&etcd), &["/t"]);
        node.until_up();
        assert_eq!(node.keys(), ["/t/goes"]);
        // Away from this node, but not from etcdctl.
        etcd.pause();
        node.until_down();
        etcd.kill();
        etcd.run();
        etcd.delete("/t/goes");
        etcd.put("/t/comes", "1");
        etcd.compact();
        until("the new key alone", PATIENCE, || {
            node.until("a list", |event| matches!(event, StoreEvent::Listed { .. }));
            (node.listed() > 1).then_some(())
        });
        etcd.put("/t/last", "1");
        node.until("the last key", |event| match event {
            StoreEvent::Listed { entries, .. } => entries.iter().any(|(key, _)| key == "/t/last"),
            StoreEvent::Put { key, .. } => key == "/t/last",
            _ => false,
        });
        assert_eq!(node.keys(), ["/t/comes", "/t/last"]);
    });
}

#[test]
fn a_reader_too_slow_for_history_that_is_compacted_gets_a_list_and_no_outage() {
    with_etcd(|| {
        let etcd = Etcd::start();
        let mut node = Node::start_with(&config(&etcd), 1, &["/t"]);
        node.until_up();
        // Until etcd can send no more: windows, its own queue of 1,024 answers, and the room here are all full.
        let mut writer = Node::watching(&config(&etcd), &["/t"]);
        let value = |round: u32| [round.to_be_bytes(); 2048].concat();
        for round in 0..1400 {
            writer.source.put("/t/large".to_owned(), value(round));
            writer.until("its own value", |event| {
                matches!(event, StoreEvent::Put { value: seen, .. } if *seen == value(round))
                    || matches!(event, StoreEvent::Listed { entries, .. } if !entries.is_empty())
            });
        }
        etcd.compact();
        etcd.put("/t/end", "1");
        node.until("the end", |event| match event {
            StoreEvent::Listed { entries, .. } => entries.iter().any(|(key, _)| key == "/t/end"),
            StoreEvent::Put { key, .. } => key == "/t/end",
            _ => false,
        });
        assert_eq!(node.seen["/t/large"], value(1399));
        assert_eq!((node.listed(), node.downs()), (2, 0));
    });
}

#[test]
fn an_etcd_that_lost_its_data_gets_every_key_of_ours_again() {
    with_etcd(|| {
        let mut etcd = Etcd::start();
        let mut node = Node::watching(&config(&etcd), &["/t"]);
        let names: Vec<String> = (0..250).map(|number| format!("/t/own{number:03}")).collect();
        names.iter().for_each(|name| node.put(name, "mine"));
        etcd.put("/t/others", "1");
        node.until_up();
        etcd.lose();
        node.until_down();
        etcd.run();
        node.until_up();
        assert_eq!(etcd.keys("/t"), names);
    });
}

#[test]
fn the_keys_of_a_node_that_is_killed_go_with_its_lease_and_others_see_it() {
    // The node that will be killed is this test once more, in a process of its own.
    if let Ok(url) = std::env::var(KILLED) {
        let config = Cluster { lease: 2, ..config_of(vec![url]) };
        let mut killed = Node::start(&config);
        killed.put("/t/killed", "1");
        killed.until_up();
        loop {
            std::thread::park();
        }
    }
    with_etcd(|| {
        let etcd = Etcd::start();
        let mut watcher = Node::watching(&Cluster { lease: 2, ..config(&etcd) }, &["/t"]);
        watcher.put("/t/living", "1");
        watcher.until_up();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "the_keys_of_a_node_that_is_killed_go_with_its_lease_and_others_see_it"]);
        let killed = Daemon::spawn(command.env(KILLED, etcd.url()));
        watcher.until_put("/t/killed", "1");
        drop(killed);
        watcher.until_deleted("/t/killed");
        assert_eq!(watcher.keys(), ["/t/living"]);
    });
}

#[test]
fn a_lease_that_is_revoked_under_a_node_is_granted_anew_with_all_keys() {
    with_etcd(|| {
        let etcd = Etcd::start();
        let mut node = Node::watching(&Cluster { lease: 2, ..config(&etcd) }, &["/t"]);
        node.put("/t/a", "1");
        node.put("/t/b", "1");
        node.until_up();
        let leases = etcd.ctl(&["lease", "list"]);
        let lease = leases.lines().last().unwrap();
        etcd.ctl(&["lease", "revoke", lease]);
        node.until_deleted("/t/b");
        until("both keys again", PATIENCE, || (etcd.keys("/t") == ["/t/a", "/t/b"]).then_some(()));
        assert_eq!(node.downs(), 0);
    });
}

#[test]
fn ranges_come_and_go_while_the_stream_stays() {
    with_etcd(|| {
        let etcd = Etcd::start();
        for key in ["/t/a", "/u/a", "/v/a"] {
            etcd.put(key, "1");
        }
        let mut node = Node::watching(&config(&etcd), &["/t", "/u"]);
        node.until_up();
        assert_eq!(node.keys(), ["/t/a", "/u/a"]);
        node.source.watch(vec![under("/u"), under("/v")]);
        node.until(
            "the list of /v",
            |event| matches!(event, StoreEvent::Listed { range, .. } if *range == under("/v")),
        );
        assert_eq!(node.listed(), 3, "what was watched already is not listed again");
        etcd.put("/t/a", "2");
        etcd.put("/u/a", "2");
        etcd.put("/v/a", "2");
        node.until_put("/v/a", "2");
        assert_eq!(node.seen["/u/a"], b"2");
        assert_eq!(node.seen["/t/a"], b"1", "nobody asked for /t any more");
    });
}

#[test]
fn of_all_who_claim_a_key_at_once_one_gets_it_and_only_that_one_lets_go_of_it() {
    with_etcd(|| {
        let etcd = Etcd::start();
        let mut nodes: Vec<Node> = (0..8).map(|_| Node::watching(&config(&etcd), &["/t"])).collect();
        nodes.iter_mut().for_each(Node::until_up);
        for key in (0..20).map(|key| format!("/t/{key}")) {
            for (number, node) in nodes.iter().enumerate() {
                node.source.claim(key.clone(), format!("node-{number}").into());
            }
        }
        for node in &mut nodes {
            while node.seen.len() < 20 {
                node.until("a key", |event| matches!(event, StoreEvent::Put { .. }));
            }
        }
        let revision = etcd.revision();
        for node in &nodes {
            assert_eq!(node.seen, nodes[0].seen, "all know of the same owners");
        }
        let owner = |node: &Node, key: &str| String::from_utf8(node.seen[key].clone()).unwrap();
        let first = owner(&nodes[0], "/t/0");
        let other = nodes.iter().enumerate().find(|(number, _)| format!("node-{number}") != first).unwrap();
        // What is not one's own stays, and what is claimed a second time is as it was.
        let theirs: Vec<u8> = format!("node-{}", other.0).into();
        other.1.source.release("/t/0".to_owned(), theirs.clone());
        other.1.source.put("/t/last".to_owned(), b"1".to_vec());
        until("what came behind", PATIENCE, || etcd.get("/t/last").map(drop));
        other.1.source.claim("/t/0".to_owned(), theirs);
        other.1.source.put("/t/last".to_owned(), b"2".to_vec());
        nodes[0].until_put("/t/last", "2");
        assert_eq!((etcd.get("/t/0"), etcd.revision()), (Some(first.clone()), revision + 2));
        nodes[0].source.release("/t/0".to_owned(), first.into());
        nodes[0].until_deleted("/t/0");
        // They outlive those who made them.
        drop(nodes);
        assert_eq!(etcd.keys("/t").len(), 19);
    });
}

#[test]
fn a_claim_made_while_there_is_no_store_is_made_when_it_comes_and_the_last_word_counts() {
    with_etcd(|| {
        let mut etcd = Etcd::start();
        etcd.put("/t/taken", "other");
        let mut node = Node::watching(&config(&etcd), &["/t"]);
        node.until_up();
        etcd.kill();
        node.until_down();
        for key in ["/t/new", "/t/taken", "/t/regretted"] {
            node.source.claim(key.to_owned(), b"me".to_vec());
        }
        node.source.release("/t/regretted".to_owned(), b"me".to_vec());
        etcd.run();
        node.until_up();
        assert_eq!(etcd.keys("/t"), ["/t/new", "/t/taken"]);
        assert_eq!(etcd.get("/t/taken").as_deref(), Some("other"));
        // They are no wishes that last: what is deleted stays so until somebody asks again.
        etcd.delete("/t/new");
        node.until_deleted("/t/new");
        node.put("/t/end", "1");
        node.until_put("/t/end", "1");
        assert_eq!(etcd.get("/t/new"), None);
    });
}

#[test]
fn two_clusters_share_one_etcd_by_prefix() {
    with_etcd(|| {
        let etcd = Etcd::start();
        let mut red = Node::watching(&config(&etcd), &["/red"]);
        let mut blue = Node::watching(&config(&etcd), &["/blue"]);
        red.put("/red/n", "1");
        blue.put("/blue/n", "1");
        red.until_up();
        blue.until_up();
        red.put("/red/m", "2");
        blue.put("/blue/m", "2");
        red.until_put("/red/m", "2");
        blue.until_put("/blue/m", "2");
        assert!(red.keys().iter().all(|key| key.starts_with("/red/")), "{:?}", red.keys());
        assert!(blue.keys().iter().all(|key| key.starts_with("/blue/")), "{:?}", blue.keys());
    });
}

#[test]
fn hostile_keys_and_values_are_handed_on_as_they_are_or_left_out() {
    with_etcd(|| {
        let etcd = Etcd::start();
        let directory = std::env::temp_dir().join(format!("vswitch-hostile-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("value");
        // A page of ten of these is more than one message may be.
        let large = vec![0xff; 1_500_000];
        std::fs::write(&file, &large).unwrap();
        for number in 0..10 {
            etcd.put_file(&format!("/t/large{number}"), &file);
        }
        etcd.put("/t/empty", "");
        let mut node = Node::watching(&config(&etcd), &["/t"]);
        node.until_up();
        assert_eq!(node.seen.len(), 11);
        assert_eq!((node.seen["/t/large9"].len(), node.seen["/t/empty"].len()), (large.len(), 0));
        std::fs::write(&file, b"\x00\xfe{\"not\": json").unwrap();
        etcd.put_file("/t/odd", &file);
        node.until("the odd value", |event| {
            matches!(event, StoreEvent::Put { key, value } if key == "/t/odd" && value[..2] == [0, 0xfe])
        });
        etcd.put("/t/a key\nwith \u{1F980} of any kind", "1");
        node.until_put("/t/a key\nwith \u{1F980} of any kind", "1");
        assert_eq!(node.downs(), 0);
        std::fs::remove_dir_all(directory).unwrap();
    });
}

#[test]
fn five_thousand_keys_are_written_in_batches_and_listed_by_pages_at_one_revision() {
    with_etcd(|| {
        let etcd = Etcd::start();
        let mut writer = Node::start(&config(&etcd));
        for number in 0..5000 {
            writer.put(&format!("/t/{number:04}"), "v");
        }
        writer.until_up();
        assert!(etcd.revision() < 200, "some hundred keys go in one transaction");
        let mut node = Node::watching(&config(&etcd), &["/t"]);
        node.until_up();
        assert_eq!(node.seen.len(), 5000);
        assert!(node.seen.contains_key("/t/0000") && node.seen.contains_key("/t/4999"));
        assert_eq!(node.listed(), 1);
        // They all go with one lease, and none is lost on the way even where control is slow.
        drop(writer);
        until("every delete", PATIENCE, || {
            node.until("a delete", |event| matches!(event, StoreEvent::Deleted { .. }));
            node.seen.is_empty().then_some(())
        });
    });
}

#[test]
fn a_channel_that_is_full_delays_events_and_loses_none() {
    with_etcd(|| {
        let etcd = Etcd::start();
        let mut node = Node::start_with(&config(&etcd), 1, &["/t"]);
        node.until_up();
        let mut writer = Node::start(&config(&etcd));
        for number in 0..300 {
            writer.put(&format!("/t/{number:03}"), "v");
            writer.source.put("/t/counter".to_owned(), number.to_string().into_bytes());
        }
        writer.until_up();
        for number in 0..100 {
            writer.put("/t/last", &number.to_string());
        }
        writer.put("/t/end", "1");
        // Nobody has read so far.
        node.until_put("/t/end", "1");
        assert_eq!(node.seen.len(), 303);
        assert_eq!((&*node.seen["/t/counter"], &*node.seen["/t/last"]), (&b"299"[..], &b"99"[..]));
    });
}

#[test]
fn dropping_the_handle_does_not_wait_for_an_etcd_that_is_paused() {
    with_etcd(|| {
        let etcd = Etcd::start();
        let mut node = Node::start(&Cluster { lease: 2, ..config(&etcd) });
        node.put("/t/own", "1");
        node.until_up();
        etcd.pause();
        drop(node);
        etcd.resume();
        until("the lease ran out", PATIENCE, || etcd.get("/t/own").is_none().then_some(()));
    });
}
