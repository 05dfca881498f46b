//! A thousand random ADDs and DELs while plugin and daemon are killed at random moments, by SIGKILL, under a keeper: no
//! address is held twice, no pod that was added suffers, and after GC nothing is left. And, where there is strace, the
//! plugin killed at each of its system calls in turn.
#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use vswitch_tests::cni::{
    Attachment, Failure, Inside, Keeper, Kill, Runner, host_local, in_cni, left, until_left, vswitch,
};
use vswitch_tests::daemon::{Host, PATIENCE};
use vswitch_tests::lab::{Lab, Namespace, until};
use vswitch_tests::node::is_installed;
use vswitch_tests::rng::Rng;

const BLUE: &str = "[[segment]]\nname = \"blue\"\nvlan = 10\nvni = 10010\n";

/// Operations of the long test: `VSWITCH_CHAOS` makes them more or fewer.
fn rounds() -> usize {
    std::env::var("VSWITCH_CHAOS").map_or(1000, |text| text.parse().expect("a number of operations"))
}

/// Pods that there are at most.
const PODS: usize = 12;

/// What a pod is known to be.
#[derive(Clone, Debug, PartialEq)]
enum State {
    /// Nothing was added, or it was deleted.
    Out,
    /// It was added, and has this interface.
    In(Inside),
    /// Something was killed on the way.
    Unsure,
}

struct Chaos<'a> {
    lab: &'a Lab,
    host: Host,
    keeper: Keeper,
    runner: Runner,
    rng: Rng,
    pods: Vec<(Namespace, State)>,
    names: usize,
    /// What has happened, for people.
    count: BTreeMap<&'static str, usize>,
}

impl Chaos<'_> {
    fn note(&mut self, what: &'static str) {
        *self.count.entry(what).or_insert(0) += 1;
    }

    fn start_daemon(&mut self) {
        let mut command = self.keeper.vswitchd(&self.host);
        self.host.start_with(&mut command);
    }

    /// A moment in which the plugin is likely to be at work.
    fn moment(&mut self) -> Option<Kill> {
        let micros = self.rng.below(40_000) as u64;
        self.rng.one_in(3).then_some(Kill::After(Duration::from_micros(micros)))
    }

    fn space(&mut self) -> Namespace {
        self.names += 1;
        self.lab.namespace(&format!("p{}", self.names))
    }

    fn step(&mut self) {
        let n = self.rng.below(self.pods.len());
        let attachment = Attachment::new(&self.pods[n].0);
        let dies = self.rng.one_in(20);
        let kill = self.moment();
        if dies {
            // The daemon dies at some moment of what is to come.
            let pid = self.host.daemon().pid().to_string();
            let after = Duration::from_micros(self.rng.below(40_000) as u64);
            let killer = std::thread::spawn(move || {
                std::thread::sleep(after);
                let _ = std::process::Command::new("kill").args(["-s", "KILL", &pid]).output();
            });
            self.operate(n, &attachment, kill);
            killer.join().unwrap();
            self.host.end("KILL");
            self.note("daemon killed");
            self.start_daemon();
        } else {
            self.operate(n, &attachment, kill);
        }
    }

    fn operate(&mut self, n: usize, attachment: &Attachment, kill: Option<Kill>) {
        let state = self.pods[n].1.clone();
        if self.rng.one_in(25) {
            // A pod that dies without a word, and another in its place.
            self.note("died");
            let fresh = self.space();
            self.pods[n] = (fresh, State::Out);
            return;
        }
        match state {
            State::Out => {
                let added = self.runner.add_or_die(attachment, kill);
                self.pods[n].1 = match &added {
                    Ok(_) => State::In(Inside::must(&self.pods[n].0, "eth0")),
                    Err(_) => State::Unsure,
                };
                self.note(if added.is_ok() { "added" } else { "not added" });
                self.explain("ADD", kill, added.err());
            }
            State::In(_) | State::Unsure => {
                let deleted = self.runner.del_or_die(attachment, kill);
                self.pods[n].1 = if deleted.is_ok() { State::Out } else { State::Unsure };
                if deleted.is_ok() {
                    assert_eq!(Inside::of(&self.pods[n].0, "eth0"), None, "deleted");
                }
                self.note(if deleted.is_ok() { "deleted" } else { "not deleted" });
                self.explain("DEL", kill, deleted.err());
            }
        }
    }

    /// Nothing fails but what was killed, and what found the daemon dead.
    fn explain(&self, verb: &str, kill: Option<Kill>, failure: Option<Failure>) {
        let Some(failure) = failure else { return };
        let excused = failure.code == 11 || (failure.killed() && kill.is_some());
        assert!(excused, "{verb}: {failure}\n{}", self.host.log());
    }

    /// Every pod that was added is as it was, and no two have the same address.
    fn look(&self) {
        let mut holders = BTreeMap::new();
        for (pod, state) in &self.pods {
            let now = Inside::of(pod, "eth0");
            if let State::In(was) = state {
                assert_eq!(now.as_ref(), Some(was), "{}\n{}", pod.name(), self.host.log());
            }
            for address in now.into_iter().flat_map(|inside| inside.addresses) {
                let other = holders.insert(address.clone(), pod.name());
                assert_eq!(other, None, "{address} is also {}'s", pod.name());
            }
        }
    }

    fn check_all(&self) {
        for (pod, state) in &self.pods {
            if matches!(state, State::In(_)) {
                let checked = self.runner.check(&Attachment::new(pod));
                checked.unwrap_or_else(|failure| panic!("{failure}\n{}", self.host.log()));
            }
        }
    }
}

fn chaos(test: &str, ipam: impl Fn(&Host) -> Value, rounds: usize, seed: u64) {
    in_cni(test, |lab, host, path| {
        host.configure(BLUE);
        let keeper = Keeper::start(&host);
        let list = vswitch("blue", &host.socket(), &json!({"ipam": ipam(&host)}));
        let runner = Runner::new(host.namespace(), path, &list);
        let rng = Rng::from_env(seed);
        let mut chaos =
            Chaos { lab, host, keeper, runner, rng, pods: Vec::new(), names: 0, count: BTreeMap::new() };
        eprintln!("seed {}", chaos.rng.seed());
        for _ in 0..PODS {
            let space = chaos.space();
            chaos.pods.push((space, State::Out));
        }
        chaos.start_daemon();
        for round in 1..=rounds {
            chaos.step();
            if round % 10 == 0 {
                chaos.look();
            }
        }
        chaos.look();
        chaos.check_all();
        // What lives is valid; all else goes.
        let alive = chaos.pods.iter().filter(|(_, state)| matches!(state, State::In(_)));
        let alive: Vec<Attachment> = alive.map(|(pod, _)| Attachment::new(pod)).collect();
        chaos.runner.gc_plugins(Some(&alive)).unwrap();
        chaos.look();
        chaos.check_all();
        let leases = left(&chaos.host, &["blue"]);
        let leases = leases.iter().filter(|line| line.starts_with("lease") || line.starts_with("attachment"));
        let each = leases.count();
        assert!(each == alive.len() || each == 2 * alive.len(), "{each} of {}", alive.len());
        chaos.runner.gc_plugins(Some(&[])).unwrap();
        until_left(&chaos.host, &["blue"]);
        for (pod, _) in &chaos.pods {
            assert_eq!(Inside::of(pod, "eth0"), None);
        }
        eprintln!("{rounds} operations: {:?}", chaos.count);
        drop(chaos.keeper);
    });
}

#[test]
fn nothing_is_lost_or_held_twice_when_anything_is_killed_at_any_time() {
    chaos(
        "nothing_is_lost_or_held_twice_when_anything_is_killed_at_any_time",
        |host| host_local(host, &["10.1.0.0/26"]),
        rounds(),
        1,
    );
}

#[test]
fn nor_when_the_addresses_are_vswitchs_own() {
    chaos(
        "nor_when_the_addresses_are_vswitchs_own",
        |_| json!({"type": "vswitch", "pools": [{"subnet": "10.244.0.0/26"}]}),
        rounds() / 4,
        2,
    );
}

/// System calls by which the plugin acts upon the world, or waits for it; it is killed on the way into each.
const CALLS: [&str; 18] = [
    "connect",
    "sendmsg",
    "sendto",
    "recvmsg",
    "recvfrom",
    "setns",
    "openat",
    "flock",
    "ftruncate",
    "write",
    "unlink",
    "mkdir",
    "clone",
    "clone3",
    "vfork",
    "wait4",
    "read",
    "exit_group",
];

/// Does `body` with a runtime whose plugin is killed on the way into its first call of each kind, then its second, until
/// `body` says that it was not killed any more; gives how often it was.
fn at_each_call(runner: impl Fn(&[&str]) -> Runner, mut body: impl FnMut(&Runner, &str) -> bool) -> usize {
    let mut killed = 0;
    for call in CALLS {
        for at in 1.. {
            let (trace, inject) =
                (format!("trace={call}"), format!("inject={call}:signal=SIGKILL:when={at}"));
            let words = ["strace", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
            if !body(&runner(&words), &format!("{call} number {at}")) {
                break;
            }
            killed += 1;
        }
    }
    killed
}

/// Whether it was killed; it has failed for no other reason.
fn was_killed<T>(done: &Result<T, Failure>, at: &str) -> bool {
    done.as_ref().err().is_some_and(|failure| {
        assert!(failure.killed(), "{at}: {failure}");
        true
    })
}

#[test]
fn the_plugin_may_be_killed_at_any_of_its_system_calls() {
    in_cni("the_plugin_may_be_killed_at_any_of_its_system_calls", |lab, mut host, path| {
        if !is_installed("strace") {
            return vswitch_tests::lab::skip("no strace: Debian's strace has it");
        }
        host.start_on(BLUE);
        // Few addresses: one that leaked would be missed.
        let list = vswitch("blue", &host.socket(), &json!({"ipam": host_local(&host, &["10.1.0.0/29"])}));
        let new = |words: &[&str]| Runner::new(host.namespace(), path, &list).by_way_of(words);
        let plain = new(&[]);
        let pod = lab.namespace("pod");
        let attachment = Attachment::new(&pod);
        let gone = |at: &str| {
            assert_eq!(left(&host, &["blue"]), Vec::<String>::new(), "{at}");
            assert_eq!(Inside::of(&pod, "eth0"), None, "{at}");
        };
        // As every runtime does, and as one does that has forgotten it.
        let by_del = at_each_call(new, |doomed, at| {
            let added = doomed.add(&attachment);
            plain.del(&attachment).unwrap();
            gone(at);
            was_killed(&added, at)
        });
        let by_gc = at_each_call(new, |doomed, at| {
            let added = doomed.add(&attachment);
            plain.gc_plugins(Some(&[])).unwrap();
            gone(at);
            was_killed(&added, at)
        });
        // As one that tries again.
        let again = at_each_call(new, |doomed, at| {
            let added = doomed.add(&attachment);
            if added.is_err() {
                // Whether the first one came to its end, it could not say.
                match plain.add(&attachment) {
                    Ok(_) => plain.check(&attachment).unwrap_or_else(|failure| panic!("{at}: {failure}")),
                    Err(failure) => assert_eq!(failure.code, 100, "{at}: {failure}"),
                }
            }
            plain.del(&attachment).unwrap();
            gone(at);
            was_killed(&added, at)
        });
        let in_del = at_each_call(new, |doomed, at| {
            plain.add(&attachment).unwrap();
            let deleted = doomed.del(&attachment);
            plain.del(&attachment).unwrap();
            gone(at);
            was_killed(&deleted, at)
        });
        eprintln!(
            "killed {by_del} times before DEL, {by_gc} before GC, {again} before ADD, and {in_del} in DEL"
        );
        assert!([by_del, by_gc, again, in_del].iter().all(|kills| *kills > 20));
    });
}

#[test]
fn pods_keep_what_they_have_while_the_daemon_dies_and_comes_back() {
    in_cni("pods_keep_what_they_have_while_the_daemon_dies_and_comes_back", |lab, mut host, path| {
        host.configure(BLUE);
        let keeper = Keeper::start(&host);
        host.start_with(&mut keeper.vswitchd(&host));
        let list = vswitch("blue", &host.socket(), &json!({"ipam": host_local(&host, &["10.1.0.0/16"])}));
        let runner = Runner::new(host.namespace(), path, &list);
        let pods = ["a", "b"].map(|name| lab.namespace(name));
        let attachments = pods.each_ref().map(Attachment::new);
        let results = attachments.each_ref().map(|attachment| runner.add(attachment).unwrap());
        let before = pods.each_ref().map(|pod| Inside::must(pod, "eth0"));
        let to = results[1]["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap();
        let to = vswitch_tests::scene::ip(to);
        for signal in ["KILL", "TERM", "KILL"] {
            host.end(signal);
            assert_eq!(pods.each_ref().map(|pod| Inside::must(pod, "eth0")), before);
            host.start_with(&mut keeper.vswitchd(&host));
            assert_eq!(pods.each_ref().map(|pod| Inside::must(pod, "eth0")), before);
            vswitch_tests::node::pings(&pods[0], to);
            attachments.iter().for_each(|attachment| runner.check(attachment).unwrap());
        }
        // Without the keeper the interfaces go, and CHECK says so.
        host.end("KILL");
        drop(keeper);
        until("the interfaces to go", PATIENCE, || Inside::of(&pods[0], "eth0").is_none().then_some(()));
        host.start();
        for attachment in &attachments {
            let failure = runner.check(attachment).unwrap_err();
            assert!(failure.code >= 100 && failure.msg.contains("lost"), "{failure}");
            runner.del(attachment).unwrap();
            runner.add(attachment).unwrap();
            runner.check(attachment).unwrap();
        }
        runner.gc(&[]).unwrap();
        assert_eq!(left(&host, &["blue"]), Vec::<String>::new());
    });
}
