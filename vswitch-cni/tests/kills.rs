//! What is left when a process is killed or an end is not told: nothing, once DEL, GC or the next ADD has come. With
//! host-local, which has no GC of its own. Not here: the daemon's own end.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

mod support;

use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use support::{Call, Directory, Hold, Scripted, conf, host_local, leases};
use vswitch_tests::lab::{Lab, Namespace, in_lab, until};

struct Scene {
    directory: Directory,
    daemon: Scripted,
    pod: Namespace,
    add: Call,
}

impl Scene {
    fn new(lab: &Lab) -> Self {
        let directory = Directory::new();
        let daemon = Scripted::start(directory.path());
        let pod = lab.namespace("pod");
        let add = Call::new("c1", &pod.path(), &conf("1.1.0", &daemon, &host_local(directory.path())));
        Self { directory, daemon, pod, add }
    }

    /// Kills `call` at its call of `method`, which the daemon has done or not.
    fn kill_at(&self, call: &Call, method: &str, hold: Hold) {
        let before = self.daemon.asked(method).len();
        self.daemon.hold(method, hold);
        let mut plugin = call.start();
        until("the plugin asks", Duration::from_secs(20), || {
            (self.daemon.asked(method).len() > before).then_some(())
        });
        plugin.kill().unwrap();
        plugin.wait().unwrap();
        self.daemon.hear();
    }

    fn gc(&self, valid: &[&str]) -> Call {
        let valid: Vec<Value> =
            valid.iter().map(|container| json!({"containerID": container, "ifname": "eth0"})).collect();
        self.add.is("GC").with("cni.dev/valid-attachments", json!(valid))
    }

    /// Nothing is left.
    fn clean(&self, when: &str) {
        assert_eq!(leases(self.directory.path()), [""; 0], "{when}");
        assert_eq!(self.daemon.containers(), [""; 0], "{when}");
        assert_eq!(notes(self.directory.path()), 0, "{when}");
        assert!(!self.pod.ip("link show").contains("eth0"), "{when}");
    }
}

fn notes(directory: &Path) -> usize {
    std::fs::read_dir(directory.join("cni/blue")).map_or(0, Iterator::count)
}

#[test]
fn an_add_that_is_killed_leaves_nothing_once_del_or_gc_or_the_next_add_has_come() {
    in_lab("an_add_that_is_killed_leaves_nothing_once_del_or_gc_or_the_next_add_has_come", |lab| {
        for hold in [Hold::Undone, Hold::Done] {
            let scene = Scene::new(lab);
            for (end, name) in [(scene.add.is("DEL"), "DEL"), (scene.gc(&[]), "GC")] {
                scene.kill_at(&scene.add, "cni.add", hold);
                assert_eq!(leases(scene.directory.path()).len(), 2);
                assert_eq!(end.good(), Value::Null);
                scene.clean(name);
            }
            scene.kill_at(&scene.add, "cni.add", hold);
            let result = scene.add.good();
            assert_eq!(leases(scene.directory.path()).len(), 2);
            scene.add.is("CHECK").with("prevResult", result).good();
            scene.add.is("DEL").good();
            scene.clean("ADD and DEL");
        }
    });
}

#[test]
fn a_del_that_is_killed_leaves_nothing_once_del_or_gc_has_come() {
    in_lab("a_del_that_is_killed_leaves_nothing_once_del_or_gc_has_come", |lab| {
        for hold in [Hold::Undone, Hold::Done] {
            let scene = Scene::new(lab);
            let del = scene.add.is("DEL");
            for end in [del.clone(), scene.gc(&[])] {
                scene.add.good();
                scene.kill_at(&del, "cni.del", hold);
                assert_eq!(leases(scene.directory.path()).len(), 2);
                end.good();
                scene.clean(end.command);
            }
        }
    });
}

#[test]
fn a_gc_that_is_killed_leaves_nothing_once_gc_has_come() {
    in_lab("a_gc_that_is_killed_leaves_nothing_once_gc_has_come", |lab| {
        for hold in [Hold::Undone, Hold::Done] {
            let scene = Scene::new(lab);
            scene.add.good();
            scene.kill_at(&scene.gc(&[]), "cni.gc", hold);
            assert_eq!(leases(scene.directory.path()).len(), 2);
            scene.gc(&[]).good();
            scene.clean("GC");
        }
    });
}

#[test]
fn who_comes_after_a_killed_plugin_waits_for_the_ipam_it_had_started() {
    in_lab("who_comes_after_a_killed_plugin_waits_for_the_ipam_it_had_started", |lab| {
        let mut scene = Scene::new(lab);
        let at = scene.directory.path().to_owned();
        // Leases only after it is let go on.
        scene.directory.plugin(
            "host-local",
            &format!(
                "if [ $CNI_COMMAND = ADD ]; then
                    touch {at}/began; while ! [ -e {at}/go ]; do sleep 0.01; done
                 fi
                 exec /usr/lib/cni/host-local",
                at = at.display()
            ),
        );
        scene.add.path = at.display().to_string();
        let mut plugin = scene.add.start();
        until("the IPAM began", Duration::from_secs(20), || at.join("began").exists().then_some(()));
        plugin.kill().unwrap();
        plugin.wait().unwrap();
        let del = scene.add.is("DEL").start();
        std::fs::write(at.join("go"), "").unwrap();
        assert!(del.wait_with_output().unwrap().status.success());
        scene.clean("DEL");
    });
}

#[test]
fn gc_keeps_what_is_valid_and_without_a_list_what_is_not_provably_gone() {
    in_lab("gc_keeps_what_is_valid_and_without_a_list_what_is_not_provably_gone", |lab| {
        let scene = Scene::new(lab);
        let pods = [lab.namespace("b"), lab.namespace("c")];
        let second = Call::new("c2", &pods[0].path(), &scene.add.conf);
        let third = Call::new("c3", &pods[1].path(), &scene.add.conf);
        for call in [&scene.add, &second, &third] {
            call.good();
        }
        scene.gc(&["c1", "c2"]).good();
        assert_eq!(scene.daemon.containers(), ["c1", "c2"]);
        assert_eq!(leases(scene.directory.path()).len(), 4);
        scene.daemon.bury("c2");
        scene.add.is("GC").good();
        assert_eq!(scene.daemon.containers(), ["c1"]);
        assert_eq!(leases(scene.directory.path()).len(), 2);
        assert_eq!(notes(scene.directory.path()), 0);
    });
}

#[test]
fn gc_goes_on_behind_an_error_and_tells_an_ipam_that_knows_gc() {
    in_lab("gc_goes_on_behind_an_error_and_tells_an_ipam_that_knows_gc", |lab| {
        let mut scene = Scene::new(lab);
        let at = scene.directory.path().display().to_string();
        // Speaks 1.1.0, and cannot give back while there is a file `broken`.
        scene.directory.plugin(
            "giver",
            &format!(
                r#"conf=$(cat)
                echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS" >> {at}/log
                case $CNI_COMMAND in
                VERSION) echo '{{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0"]}}' ;;
                ADD) echo '{{"cniVersion":"1.1.0","ips":[{{"address":"10.1.0.5/16"}}]}}' ;;
                GC) echo "$conf" > {at}/gc ;;
                STATUS) ! [ -e {at}/broken ] || {{ echo '{{"code":50,"msg":"full"}}'; exit 1; }} ;;
                DEL) ! [ -e {at}/broken ] || {{ echo '{{"code":11,"msg":"busy"}}'; exit 1; }} ;;
                esac"#
            ),
        );
        scene.add = scene.add.with("ipam", json!({"type": "giver"}));
        scene.add.path.clone_from(&at);
        scene.add.good();
        let netns = scene.add.netns.clone();
        let log = || std::fs::read_to_string(scene.directory.path().join("log")).unwrap();
        assert_eq!(log(), format!("ADD c1 {netns}\n"));
        std::fs::write(scene.directory.path().join("broken"), "").unwrap();
        assert_eq!(scene.add.is("STATUS").code(), 50);
        let error = scene.gc(&[]).bad();
        assert_eq!((error["code"].as_u64(), error["msg"].as_str()), (Some(11), Some("giver: busy")));
        let told = std::fs::read_to_string(scene.directory.path().join("gc")).unwrap();
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["cni.dev/valid-attachments"], json!([]), "it was told all the same");
        assert_eq!((scene.daemon.containers().len(), notes(scene.directory.path())), (0, 1));
        std::fs::remove_file(scene.directory.path().join("broken")).unwrap();
        scene.gc(&[]).good();
        assert!(log().contains("DEL c1 \n"), "{}", log());
        assert_eq!(notes(scene.directory.path()), 0);
        assert_eq!(scene.add.is("STATUS").good(), Value::Null);
    });
}

#[test]
fn an_ipam_that_has_nothing_left_gets_back_what_dead_pods_had() {
    in_lab("an_ipam_that_has_nothing_left_gets_back_what_dead_pods_had", |lab| {
        let scene = Scene::new(lab);
        let mut ipam = host_local(scene.directory.path());
        ipam["ranges"] =
            json!([[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.7", "rangeEnd": "10.1.0.7"}]]);
        let first = scene.add.with("ipam", ipam.clone());
        first.good();
        let pod = lab.namespace("b");
        let second = Call::new("c2", &pod.path(), &first.conf);
        let error = second.bad();
        assert!(error["msg"].as_str().unwrap().starts_with("host-local"), "{error}");
        assert_eq!((leases(scene.directory.path()).len(), notes(scene.directory.path())), (1, 0));
        scene.daemon.bury("c1");
        assert_eq!(second.good()["ips"][0]["address"], "10.1.0.7/24");
        assert_eq!(scene.daemon.containers(), ["c2"]);
        // The first one's late end takes nothing of the second's.
        first.is("DEL").good();
        assert_eq!(leases(scene.directory.path()), ["10.1.0.7"]);
    });
}

#[test]
fn what_is_attached_is_not_attached_again_unless_it_has_moved() {
    in_lab("what_is_attached_is_not_attached_again_unless_it_has_moved", |lab| {
        let scene = Scene::new(lab);
        let result = scene.add.good();
        assert_eq!(scene.add.code(), 100);
        assert_eq!(leases(scene.directory.path()).len(), 2, "they are the first one's");
        scene.add.is("CHECK").with("prevResult", result).good();
        let other = lab.namespace("other");
        let moved = Call { netns: other.path().display().to_string(), ..scene.add.clone() };
        let result = moved.good();
        moved.is("CHECK").with("prevResult", result).good();
        assert!(!scene.pod.ip("link show").contains("eth0"));
        assert_eq!((scene.daemon.containers().len(), leases(scene.directory.path()).len()), (1, 2));
    });
}

#[test]
fn a_daemon_that_leaves_in_the_midst_leaves_a_note_that_del_settles() {
    in_lab("a_daemon_that_leaves_in_the_midst_leaves_a_note_that_del_settles", |lab| {
        let scene = Scene::new(lab);
        scene.daemon.ignore("cni.add");
        scene.daemon.ignore("cni.del");
        assert_eq!(scene.add.code(), 11);
        assert_eq!((leases(scene.directory.path()).len(), notes(scene.directory.path())), (2, 1));
        assert_eq!(scene.add.is("DEL").code(), 11);
        scene.daemon.hear();
        scene.add.is("DEL").good();
        scene.clean("DEL");
        // Where it comes back in time, all of it is taken back at once.
        scene.daemon.ignore("cni.add");
        assert_eq!(scene.add.code(), 11);
        scene.clean("ADD");
    });
}

#[test]
fn an_ipam_that_is_not_there_or_talks_nonsense_is_named() {
    in_lab("an_ipam_that_is_not_there_or_talks_nonsense_is_named", |lab| {
        let scene = Scene::new(lab);
        let mut call = scene.add.with("ipam", json!({"type": "giver"}));
        call.path = scene.directory.path().display().to_string();
        assert_eq!(call.code(), 7, "not in CNI_PATH");
        for (script, code) in [
            ("echo '{\"code\": 11, \"msg\": \"later\"}'; exit 1", 11),
            ("echo nonsense; exit 3", 101),
            ("[ $CNI_COMMAND != ADD ] || echo nonsense", 101),
            ("[ $CNI_COMMAND != ADD ] || kill -9 $$", 101),
        ] {
            scene.directory.plugin("giver", script);
            let error = call.bad();
            assert_eq!(error["code"], code, "{script}: {error}");
        }
        scene.directory.plugin("giver", "true");
        call.is("DEL").good();
        assert_eq!(notes(scene.directory.path()), 0);
    });
}
