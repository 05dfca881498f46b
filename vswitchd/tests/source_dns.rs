//! Names followed through a real DNS server, Debian's dnsmasq, in a network of the test's own: found at the start,
//! found again when their time is over, kept while nobody answers, waited for.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod link_support;

use crossbeam_channel::{Receiver, unbounded};
use link_support::{LIMIT, isolated};
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use vswitchd::control::source::dns::{Found, Names};

const RESOLV_CONF: &str = "/run/resolv.conf";
const SERVER: &str = "127.0.0.53";

/// A DNS server that ends with it.
struct Server {
    child: Child,
    /// Open as long as the server may write to it.
    _log: BufReader<ChildStderr>,
}

impl Server {
    /// One that knows `records`, each NAME,ADDRESS…,TTL, and answers when this returns.
    fn start(records: &[&str]) -> Self {
        let mut command = Command::new("dnsmasq");
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]);
        command.args(["--bind-interfaces", "--pid-file=", "--user=root", "--local=/test/"]);
        command.arg(format!("--listen-address={SERVER}"));
        command.args(records.iter().map(|record| format!("--host-record={record}")));
        // Its log, on standard error, begins when its sockets are bound.
        let mut child = command.arg("--log-facility=-").stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let (mut said, mut line) = (String::new(), String::new());
        while !line.contains("started, version") {
            said.push_str(&line);
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "dnsmasq ended: {said}");
        }
        Self { child, _log: log }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Names being followed through [`SERVER`], and what is found of them.
struct Following {
    names: Option<Names>,
    found: Receiver<Found>,
    woken: Arc<AtomicUsize>,
}

impl Following {
    fn start(names: &[&str]) -> Self {
        // Of a server that is gone nobody should wait long.
        std::fs::write(
            RESOLV_CONF,
            format!("nameserver {SERVER}\nsearch test\noptions timeout:1 attempts:1\n"),
        )
        .unwrap();
        let (send, found) = unbounded();
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        let wake = move || {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let names = Names::with_resolv_conf(names, Path::new(RESOLV_CONF).to_owned(), send, Arc::new(wake));
        Self { names: Some(names.unwrap()), found, woken }
    }

    /// What is found next: the name, the addresses, and why there is trouble.
    fn next(&self) -> (String, Vec<IpAddr>, Option<String>) {
        self.found.recv_timeout(LIMIT).expect("something is found")
    }

    /// The addresses found next, without trouble.
    fn addresses(&self) -> String {
        let (name, addresses, trouble) = self.next();
        assert_eq!(trouble, None, "{name}");
        shown(&addresses)
    }
}

fn shown(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Runs `test` in namespaces of its own, where there is a dnsmasq; in CI there is.
fn with_dnsmasq(test: fn()) {
    if Command::new("dnsmasq").arg("--version").stdout(Stdio::null()).status().is_ok() {
        return isolated(test);
    }
    assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: dnsmasq is not installed");
    eprintln!("skipped: dnsmasq is not installed");
}

#[test]
fn a_name_is_found_in_both_families_and_by_the_search_list() {
    with_dnsmasq(|| {
        let _server = Server::start(&["node.test,10.0.0.1,fd00::1,300"]);
        for name in ["node.test", "node.test.", "node"] {
            let following = Following::start(&[name]);
            assert_eq!(
                following.next(),
                (name.to_owned(), vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()], None)
            );
        }
    });
}

#[test]
fn what_changed_in_the_dns_is_found_when_the_time_to_live_is_over() {
    with_dnsmasq(|| {
        let server = Server::start(&["node.test,10.0.0.1,1"]);
        let following = Following::start(&["node.test"]);
        assert_eq!(following.addresses(), "10.0.0.1");
        drop(server);
        let _server = Server::start(&["node.test,10.0.0.2,fd00::2,1"]);
        // Asked between the two servers, nobody answers; that is told, and the address is kept.
        let mut next = following.next();
        while next.2.is_some() {
            assert_eq!(shown(&next.1), "10.0.0.1");
            next = following.next();
        }
        assert_eq!(shown(&next.1), "10.0.0.2 fd00::2");
    });
}

#[test]
fn without_a_server_the_last_addresses_are_kept_and_the_trouble_is_told_until_it_is_over() {
    with_dnsmasq(|| {
        let server = Server::start(&["node.test,10.0.0.1,10.0.0.9,1"]);
        let following = Following::start(&["node.test"]);
        let first = following.addresses();
        drop(server);
        let (_, kept, trouble) = following.next();
        assert!(trouble.unwrap().starts_with("lookup of its IPv4 addresses failed: "));
        assert_eq!(shown(&kept), first);
        let _server = Server::start(&["node.test,10.0.0.1,1"]);
        assert_eq!(following.addresses(), "10.0.0.1");
    });
}

#[test]
fn a_server_and_a_name_that_come_late_are_waited_for() {
    with_dnsmasq(|| {
        let following = Following::start(&["node.test"]);
        let (_, none, trouble) = following.next();
        assert!(none.is_empty() && trouble.is_some());
        let server = Server::start(&["other.test,10.0.0.9,1"]);
        assert_eq!(following.next(), ("node.test".to_owned(), vec![], Some("it has no address".to_owned())));
        drop(server);
        let _server = Server::start(&["node.test,10.0.0.1,1"]);
        let mut next = following.next();
        while next.2.is_some() {
            next = following.next();
        }
        assert_eq!(shown(&next.1), "10.0.0.1");
    });
}

#[test]
fn many_names_are_followed_by_one_thread_that_ends_when_it_is_told() {
    with_dnsmasq(|| {
        let names: Vec<String> = (0..200).map(|i| format!("node-{i}.test")).collect();
        let records: Vec<String> = (0..200).map(|i| format!("node-{i}.test,10.0.1.{i},300")).collect();
        let _server = Server::start(&records.iter().map(String::as_str).collect::<Vec<_>>());
        let mut following = Following::start(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let mut found: Vec<_> =
            names.iter().map(|_| following.next()).map(|(name, a, _)| (name, shown(&a))).collect();
        found.sort();
        let mut expected: Vec<_> =
            (0..200).map(|i| (format!("node-{i}.test"), format!("10.0.1.{i}"))).collect();
        expected.sort();
        assert_eq!(found, expected);
        drop(following.names.take());
        assert!(following.found.recv().is_err(), "nothing is found any more");
        assert_eq!(following.woken.load(Ordering::Relaxed), 200);
    });
}

#[test]
fn a_name_in_the_hosts_file_needs_no_server() {
    with_dnsmasq(|| {
        let following = Following::start(&["localhost"]);
        let (_, addresses, trouble) = following.next();
        assert_eq!(trouble, None);
        assert!(shown(&addresses).contains("127.0.0.1"));
    });
}

#[test]
fn a_setting_that_cannot_be_read_is_told_and_read_again() {
    with_dnsmasq(|| {
        let _server = Server::start(&["node.test,10.0.0.1,1"]);
        let following = Following::start(&["node.test"]);
        assert_eq!(following.addresses(), "10.0.0.1");
        std::fs::write(RESOLV_CONF, "# nothing\n").unwrap();
        let (_, kept, trouble) = following.next();
        assert!(trouble.as_ref().unwrap().contains("/run/resolv.conf cannot be read: "), "{trouble:?}");
        assert_eq!(shown(&kept), "10.0.0.1");
        std::fs::write(RESOLV_CONF, format!("nameserver {SERVER}\n")).unwrap();
        assert_eq!(following.addresses(), "10.0.0.1");
    });
}
