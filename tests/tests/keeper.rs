//! Interfaces that outlive the daemon: killed, stopped or upgraded under running traffic, with the keeper's process
//! beside it, above it, or dead.
//!
//! Not here: what the keeper and its clients say to each other, which needs no interface.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use vswitch_tests::daemon::{Host, PATIENCE, number, program, text, with_host};
use vswitch_tests::lab::{Daemon, Lab, Namespace, until};

/// The address of pod `n`.
fn ip(n: u8) -> IpAddr {
    IpAddr::from([10, 10, 0, n])
}

/// The `[[port]]` table of pod `n`, which calls its interface eth0.
fn table(n: u8, pod: &Namespace, lines: &str) -> String {
    let netns = pod.name();
    format!(
        "[[port]]\nname = \"tap{n}\"\nnetns = {netns:?}\nifname = \"eth0\"\ntag = 10\n\
         addresses = [\"10.10.0.{n}/24\", \"fd00::{n}/64\"]\n{lines}\n"
    )
}

/// Two pods, one with offload and one in the basic way, and the configuration of both.
fn two(lab: &Lab) -> (Namespace, Namespace, String) {
    let (a, b) = (lab.namespace("a"), lab.namespace("b"));
    let toml = table(1, &a, "offload = true\ngateway = \"10.10.0.9\"") + &table(2, &b, "offload = false");
    (a, b, toml)
}

/// A keeper's process by itself.
fn keeper(socket: &Path) -> Daemon {
    let mut command = Command::new(program("vswitchd").unwrap());
    let keeper = Daemon::spawn(command.arg("keeper").arg("--socket").arg(socket));
    drop(keeper.until_connectable(socket, PATIENCE));
    keeper
}

/// A command that starts the host's daemon with that keeper.
fn kept_by(host: &Host, socket: &Path) -> Command {
    let mut command = host.vswitchd();
    command.env("VSWITCHD_KEEPER", socket);
    command
}

/// Everything of a pod that its interface's end would take away: index, MAC, MTU, addresses and routes, also those
/// that somebody else has set. Whether the kernel still looks for duplicates of its own link-local address is left out.
fn picture(pod: &Namespace) -> String {
    ["-o link show dev eth0", "-o address show dev eth0", "route show", "-6 route show"]
        .map(|line| pod.ip(line))
        .join("\n")
        .replace(" tentative", "")
}

/// What the plugin, or a pod itself, sets: the daemon knows nothing of it.
fn dress(pod: &Namespace) {
    pod.ip("address add 192.168.7.1/24 dev eth0");
    pod.ip("route add 172.16.0.0/12 via 10.10.0.77 dev eth0 metric 50");
}

/// A TCP connection that carries numbers, for as long as nobody stops it.
struct Stream {
    stop: Arc<AtomicBool>,
    heard: Arc<AtomicU64>,
    threads: [JoinHandle<()>; 2],
}

impl Stream {
    fn start(from: &Namespace, to: &Namespace, address: IpAddr) -> Self {
        let (stop, heard) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let listener = to.inside(|| TcpListener::bind((address, 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut sender = from.inside(|| TcpStream::connect((address, port))).unwrap();
        let (mut receiver, _) = listener.accept().unwrap();
        for stream in [&sender, &receiver] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
        }
        let stopped = Arc::clone(&stop);
        let speaks = std::thread::spawn(move || {
            let mut number = 0_u64;
            while !stopped.load(Ordering::Relaxed) {
                sender.write_all(&[number.to_be_bytes(); 512].concat()).unwrap();
                number += 1;
            }
            sender.shutdown(Shutdown::Write).unwrap();
            // Until the other side has heard all of it.
            assert_eq!(sender.read(&mut [0]).unwrap(), 0);
        });
        let count = Arc::clone(&heard);
        let hears = std::thread::spawn(move || {
            let mut bytes = [0; 8 * 512];
            while receiver.read_exact(&mut bytes).is_ok() {
                let number = count.fetch_add(1, Ordering::Relaxed);
                assert_eq!(bytes[..], [number.to_be_bytes(); 512].concat());
            }
        });
        Self { stop, heard, threads: [speaks, hears] }
    }

    /// Waits until it has carried more.
    #[track_caller]
    fn until_moving(&self) {
        let before = self.heard.load(Ordering::Relaxed);
        until("the connection goes on", PATIENCE, || {
            let failed = self.threads.iter().any(JoinHandle::is_finished);
            (failed || self.heard.load(Ordering::Relaxed) > before + 100).then_some(())
        });
    }

    /// Ends it; both sides must have seen nothing but numbers in order.
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    }
}

fn pings(from: &Namespace, to: IpAddr) {
    until(&format!("ping {to}"), PATIENCE, || (from.ping(to, 56, 1).received == 1).then_some(()));
}

#[test]
fn a_daemon_that_is_killed_or_stopped_leaves_its_pods_as_they_are_and_the_next_one_goes_on() {
    let name = "a_daemon_that_is_killed_or_stopped_leaves_its_pods_as_they_are_and_the_next_one_goes_on";
    with_host(name, |lab, mut host| {
        let (a, b, toml) = two(lab);
        let socket = host.file("keeper.sock");
        let keeper = keeper(&socket);
        host.configure(&toml);
        host.start_with(&mut kept_by(&host, &socket));
        [&a, &b].into_iter().for_each(dress);
        let status = host.json("status");
        assert_eq!((text(&status, "keeper"), number(&status, "keeper_descriptors")), ("process".into(), 2));
        let streams = [Stream::start(&a, &b, ip(2)), Stream::start(&b, &a, "fd00::1".parse().unwrap())];
        let before = [&a, &b].map(picture);
        assert!(before[0].contains("172.16.0.0/12"), "{}", before[0]);
        for signal in ["KILL", "TERM", "KILL", "INT"] {
            streams.iter().for_each(Stream::until_moving);
            host.end(signal);
            assert_eq!([&a, &b].map(picture), before, "after {signal}, without a daemon");
            host.start_with(&mut kept_by(&host, &socket));
            streams.iter().for_each(Stream::until_moving);
            assert_eq!([&a, &b].map(picture), before, "after {signal}");
            assert_eq!(host.log().matches("port adopted").count(), 2, "{}", host.log());
            assert_eq!(host.json("status")["troubles"].to_string(), "[]");
            assert_eq!(number(&host.json("status"), "keeper_descriptors"), 2);
        }
        streams.into_iter().for_each(Stream::end);
        // What a port loses it loses with the keeper beside it: nothing stays behind.
        host.configure(&table(2, &b, "offload = false"));
        host.must("reload");
        assert!(!a.ip("link").contains("eth0"), "{}", a.ip("link"));
        assert_eq!(number(&host.json("status"), "keeper_descriptors"), 1);
        assert!(keeper.log().contains("keeping"), "{}", keeper.log());
    });
}

#[test]
fn what_does_not_fit_the_configuration_any_more_is_made_anew_or_gone() {
    with_host("what_does_not_fit_the_configuration_any_more_is_made_anew_or_gone", |lab, mut host| {
        let (a, b, c) = (lab.namespace("a"), lab.namespace("b"), lab.namespace("c"));
        let socket = host.file("keeper.sock");
        let _keeper = keeper(&socket);
        host.configure(&(table(1, &a, "") + &table(2, &b, "") + &table(3, &c, "")));
        host.start_with(&mut kept_by(&host, &socket));
        let index = |pod: &Namespace, name: &str| {
            let path = format!("cat /sys/class/net/{name}/ifindex");
            pod.try_run(&path).status.success().then(|| pod.run(&path))
        };
        let before = [&a, &b, &c].map(|pod| index(pod, "eth0").unwrap());
        host.end("TERM");

        // Another name and MTU are changed in place; another header needs another interface; a port that is gone,
        // goes; one that lives elsewhere now is gone where it was.
        let one = table(1, &a, "mtu = 1300").replace("\"eth0\"", "\"net1\"");
        host.configure(&(one.clone() + &table(2, &b, "offload = false") + &table(4, &a, "")));
        host.start_with(&mut kept_by(&host, &socket));
        assert_eq!(index(&a, "net1").as_ref(), Some(&before[0]));
        assert!(a.ip("link show dev net1").contains("mtu 1300"));
        assert_ne!(index(&b, "eth0").unwrap(), before[1]);
        assert_eq!(index(&c, "eth0"), None);
        pings(&a, ip(2));
        assert_eq!(number(&host.json("status"), "keeper_descriptors"), 3);
        host.end("KILL");

        host.configure(&(one + &table(2, &c, "offload = false")));
        host.start_with(&mut kept_by(&host, &socket));
        assert_eq!(index(&a, "net1").as_ref(), Some(&before[0]));
        assert_eq!((index(&a, "eth0"), index(&b, "eth0")), (None, None));
        pings(&c, ip(1));
        host.end("KILL");

        // A namespace that dies while no daemon runs takes its interface along, also out of the keeper.
        drop(c);
        host.start_with(&mut kept_by(&host, &socket));
        assert_eq!(text(&host.port("tap2"), "link"), "down");
        assert_eq!(number(&host.json("status"), "keeper_descriptors"), 1);
    });
}

#[test]
fn a_keeper_that_dies_is_missed_and_one_that_comes_back_is_given_everything_again() {
    let name = "a_keeper_that_dies_is_missed_and_one_that_comes_back_is_given_everything_again";
    with_host(name, |lab, mut host| {
        let (a, b, toml) = two(lab);
        let socket = host.file("keeper.sock");
        let first = keeper(&socket);
        host.configure(&toml);
        host.start_with(&mut kept_by(&host, &socket));
        let before = [&a, &b].map(picture);
        drop(first);
        let kept = |host: &Host| number(&host.json("status"), "keeper_descriptors");
        until("the keeper is missed", PATIENCE, || (kept(&host) == 0).then_some(()));
        assert!(host.json("status")["warnings"].to_string().contains("keeper"), "{}", host.json("status"));
        assert!(host.ctl("doctor").out.contains("keeper"), "{:?}", host.ctl("doctor"));
        pings(&a, ip(2));

        let second = keeper(&socket);
        until("the keeper has everything", PATIENCE, || (kept(&host) == 2).then_some(()));
        assert_eq!(host.json("status")["warnings"].to_string(), "[]");
        host.end("KILL");
        host.start_with(&mut kept_by(&host, &socket));
        assert_eq!([&a, &b].map(picture), before);
        pings(&a, ip(2));

        // Both at once: then the interfaces are gone, and made anew.
        drop(second);
        host.end("KILL");
        assert!(!a.ip("link").contains("eth0"));
        host.start_with(&mut kept_by(&host, &socket));
        assert_ne!([&a, &b].map(picture), before);
        pings(&a, ip(2));
        assert!(host.json("status")["warnings"].to_string().contains("nobody keeps descriptors at"));
    });
}

#[test]
fn a_keeper_that_starts_the_daemon_starts_it_again_and_ends_with_it() {
    with_host("a_keeper_that_starts_the_daemon_starts_it_again_and_ends_with_it", |lab, mut host| {
        let (a, b, toml) = two(lab);
        host.configure(&toml);
        let daemon: PathBuf = program("vswitchd").unwrap();
        let above = |host: &Host| {
            let mut command = host.namespace().command(&daemon);
            command.arg("keeper").arg("--socket").arg(host.file("keeper.sock")).arg("--");
            command.arg(&daemon).arg("--config").arg(host.config());
            command
        };
        host.start_with(&mut above(&host));
        let before = [&a, &b].map(picture);
        let stream = Stream::start(&a, &b, ip(2));
        for _ in 0..2 {
            stream.until_moving();
            let pid = number(&host.json("status"), "pid");
            vswitch_tests::lab::check(Command::new("kill").args(["-s", "KILL", &pid.to_string()]));
            until("another daemon", PATIENCE, || {
                let status = host.ctl("--json status");
                (status.code == 0 && number(&status.json(), "pid") != pid).then_some(())
            });
            stream.until_moving();
            assert_eq!([&a, &b].map(picture), before);
        }
        stream.end();
        // What is said to the keeper is said to the daemon.
        host.configure(&(toml + &table(3, &lab.namespace("c"), "")));
        host.daemon().signal("HUP");
        until("a reload", PATIENCE, || (number(&host.json("status"), "ports") == 3).then_some(()));
        let (code, log) = host.end("TERM");
        assert_eq!(code, 0, "{log}");
        assert!(log.contains("stopped"), "{log}");
        assert!(!a.ip("link").contains("eth0") && !host.file("keeper.sock").exists());
        // Ends that are meant are passed on.
        host.configure("[[port]]\nname = 7\n");
        let said = Host::run_command(&mut above(&host));
        assert_eq!(said.code, 78, "{said:?}");
    });
}

#[test]
fn cap_net_admin_alone_is_enough_to_adopt_what_is_as_it_should_be() {
    with_host("cap_net_admin_alone_is_enough_to_adopt_what_is_as_it_should_be", |lab, mut host| {
        let (a, b) = (lab.namespace("a"), lab.namespace("b"));
        let socket = host.file("keeper.sock");
        let _keeper = keeper(&socket);
        // The addresses are somebody else's work, as with CNI.
        let bare = |n: u8, pod: &Namespace| {
            let whole = table(n, pod, "");
            let lines = whole.lines().filter(|line| !line.starts_with("addresses"));
            lines.map(|line| format!("{line}\n")).collect::<String>()
        };
        host.configure(&(bare(1, &a) + &bare(2, &b)));
        let weak = |host: &Host| {
            let strong = kept_by(host, &socket);
            let program = strong.get_args().position(|word| word == vswitchd_path().as_os_str()).unwrap();
            let words: Vec<_> = strong.get_args().collect();
            let mut command = Command::new(strong.get_program());
            command.args(&words[..program]).args(["setpriv", "--bounding-set", "-all,+net_admin"]);
            command.args(&words[program..]).env("VSWITCHD_KEEPER", &socket);
            command
        };
        host.start_with(&mut weak(&host));
        a.address("eth0", "10.10.0.1/24");
        b.address("eth0", "10.10.0.2/24");
        pings(&a, ip(2));
        let before = [&a, &b].map(picture);
        for signal in ["KILL", "TERM"] {
            host.end(signal);
            host.start_with(&mut weak(&host));
            assert_eq!(host.log().matches("port adopted").count(), 2, "{}", host.log());
            assert_eq!(host.json("status")["troubles"].to_string(), "[]");
            pings(&a, ip(2));
            assert_eq!([&a, &b].map(picture), before);
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", host.daemon().pid())).unwrap();
        assert!(status.contains("CapEff:\t0000000000001000"), "{status}");
    });
}

fn vswitchd_path() -> PathBuf {
    program("vswitchd").unwrap()
}
