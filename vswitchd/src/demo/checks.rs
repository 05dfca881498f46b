//! What the demo proves, one check after the other, from inside the pods. How it is shown is the table's.

use super::layout::{Layout, Pod};
use super::node;
use super::ping::{Ping, is_routeless};
use super::transfer::transfer;
use crate::datapath::clock;
use crate::sys::netns;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// Replies that make "reached".
const REPLIES: usize = 3;
/// How long the first reply may take: the daemon was ready a moment ago.
const FIRST_REPLY: Duration = Duration::from_secs(3);
/// How long each later one may take.
const REPLY: Duration = Duration::from_secs(1);
/// How long nobody may answer where nobody should: hundreds of round trips.
const SILENCE: Duration = Duration::from_millis(150);
/// Round trips of which the median is taken.
const ROUND_TRIPS: usize = 200;

/// One line of the table.
#[derive(Clone, Debug)]
pub(super) struct Check {
    what: What,
    pub(super) from: String,
    pub(super) to: String,
}

#[derive(Clone, Debug)]
enum What {
    /// Echo replies come from this address.
    Reached(IpAddr),
    /// Not one comes from any of these.
    Apart { addresses: Vec<IpAddr>, same_node: bool },
    /// The round trip to this address.
    RoundTrip(IpAddr),
    /// A TCP transfer to this address.
    Transfer(IpAddr),
    /// What came so far went through the tunnel: from the node of this number to that one.
    Tunnel(usize, usize),
}

/// What came of a check.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) check: Check,
    pub(super) holds: bool,
    /// A figure, or why not.
    pub(super) figure: String,
}

/// All checks, in order: who must reach whom first, so that silence later means something.
pub(super) fn all(layout: &Layout, ipv6: bool) -> Vec<Check> {
    let check = |from: &str, to: &str, what| Check { what, from: from.to_owned(), to: to.to_owned() };
    let between = |from: &Pod, to: &Pod, what| check(&from.name, &to.name, what);
    let families = |pod: &Pod| if ipv6 { vec![pod.v4, pod.v6] } else { vec![pod.v4] };
    let mut checks = Vec::new();
    for (from, to) in layout.pairs(true) {
        checks.extend(families(to).into_iter().map(|address| between(from, to, What::Reached(address))));
    }
    for (from, to) in layout.pairs(false).filter(|(from, _)| from.node == 0) {
        let same_node = from.node == to.node;
        checks.push(between(from, to, What::Apart { addresses: families(to), same_node }));
    }
    for (i, (from, to)) in layout.pairs(true).enumerate() {
        if i == 0 {
            checks.push(between(from, to, What::RoundTrip(to.v4)));
        }
        // Both families have their turn.
        let address = if ipv6 && i == 1 { to.v6 } else { to.v4 };
        checks.push(between(from, to, What::Transfer(address)));
    }
    if let [first, second, ..] = layout.nodes.as_slice() {
        checks.push(check(&first.name, &second.name, What::Tunnel(0, 1)));
    }
    checks
}

impl Check {
    /// What is checked, in a word or two.
    pub(super) fn name(&self) -> &'static str {
        match &self.what {
            What::Reached(IpAddr::V4(_)) => "ping",
            What::Reached(IpAddr::V6(_)) => "ping, IPv6",
            What::Apart { .. } => "kept apart",
            What::RoundTrip(_) => "round trip",
            What::Transfer(IpAddr::V4(_)) => "TCP",
            What::Transfer(IpAddr::V6(_)) => "TCP, IPv6",
            What::Tunnel(..) => "over VXLAN",
        }
    }

    /// The check and between whom.
    pub(super) fn title(&self) -> String {
        format!("{} {} -> {}", self.name(), self.from, self.to)
    }

    /// Does it. `sockets` are the control sockets of the nodes.
    pub(super) fn run(self, sockets: &[PathBuf]) -> Outcome {
        let done = match &self.what {
            What::Reached(address) => self.reached(*address),
            What::Apart { addresses, same_node } => self.apart(addresses, *same_node),
            What::RoundTrip(address) => self.round_trip(*address),
            What::Transfer(address) => self.transferred(*address),
            What::Tunnel(from, to) => tunnelled(sockets, *from, *to),
        };
        let (holds, figure) = match done {
            Ok(figure) => (true, figure),
            Err(reason) => (false, reason.to_string()),
        };
        Outcome { check: self, holds, figure }
    }

    fn ping(&self, address: IpAddr) -> anyhow::Result<Ping> {
        Ok(Ping::new(netns::open(&self.from)?.as_fd(), address)?)
    }

    fn reached(&self, address: IpAddr) -> anyhow::Result<String> {
        let pod = netns::open(&self.from)?;
        let started = clock::now();
        let mut ping = loop {
            let first = Ping::new(pod.as_fd(), address).and_then(|mut ping| {
                let came = ping.once(FIRST_REPLY / 10)?;
                Ok(came.map(|_| ping))
            });
            match first {
                Ok(Some(ping)) => break ping,
                Err(error) if !is_routeless(&error) => return Err(error.into()),
                _ => anyhow::ensure!(clock::now().since(started) < FIRST_REPLY, "no reply from {address}"),
            }
            // After a reply that did not come this is nothing; for a route that is still being made it is a pause.
            thread::sleep(Duration::from_millis(5));
        };
        for number in 2..=REPLIES {
            let came = ping.once(REPLY)?.is_some();
            anyhow::ensure!(came, "reply {number} of {REPLIES} from {address} did not come");
        }
        Ok(format!("{REPLIES} of {REPLIES} replies from {address}"))
    }

    fn apart(&self, addresses: &[IpAddr], same_node: bool) -> anyhow::Result<String> {
        let mut sent = 0;
        for address in addresses {
            let mut ping = self.ping(*address)?;
            for _ in 0..2 {
                let started = clock::now();
                let came = ping.once(SILENCE)?;
                anyhow::ensure!(came.is_none(), "{address} answered across VLANs");
                thread::sleep(SILENCE.saturating_sub(clock::now().since(started)));
                sent += 1;
            }
        }
        let place = if same_node { "same node" } else { "other node" };
        Ok(format!("0 of {sent} replies, as it must be ({place}, other VLAN)"))
    }

    fn round_trip(&self, address: IpAddr) -> anyhow::Result<String> {
        let mut ping = self.ping(address)?;
        let mut trips = Vec::with_capacity(ROUND_TRIPS);
        for _ in 0..ROUND_TRIPS {
            trips.extend(ping.once(REPLY)?);
            anyhow::ensure!(!trips.is_empty(), "no reply from {address}");
        }
        anyhow::ensure!(trips.len() == ROUND_TRIPS, "{} of {ROUND_TRIPS} replies", trips.len());
        trips.sort_unstable();
        let median = trips[ROUND_TRIPS / 2];
        Ok(format!("median {} us of {ROUND_TRIPS} pings", median.as_micros()))
    }

    fn transferred(&self, address: IpAddr) -> anyhow::Result<String> {
        let (from, to) = (netns::open(&self.from)?, netns::open(&self.to)?);
        let transfer = transfer(from.as_fd(), to.as_fd(), address)?;
        let (megabytes, seconds) = (transfer.bytes / 1_000_000, transfer.time.as_secs_f64());
        let rate = transfer.rate() / 1e9;
        Ok(format!("{rate:.2} Gbit/s, {megabytes} MB in {seconds:.2} s, every byte compared"))
    }
}

/// Frames that went into the tunnel on one node and came out of it on the other, by the daemons' own count.
fn tunnelled(sockets: &[PathBuf], from: usize, to: usize) -> anyhow::Result<String> {
    let count = |node: usize, key: &str| -> anyhow::Result<u64> {
        let socket = sockets.get(node).ok_or_else(|| anyhow::anyhow!("there is no such node"))?;
        let peers: serde_json::Value = serde_json::from_str(&node::ask(socket, &["--json", "peer"])?)?;
        let rows = peers.as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(rows.iter().filter_map(|row| row.get(key)?.as_u64()).sum())
    };
    let (sent, received) = (count(from, "tx_frames")?, count(to, "rx_frames")?);
    anyhow::ensure!(sent > 0 && received > 0, "{sent} frames sent, {received} received");
    Ok(format!("{sent} frames sent, {received} received"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink::{Change, Netlink};

    #[test]
    fn the_checks_cover_both_vlans_both_families_and_both_kinds_of_apart() {
        let layout = Layout::of(crate::demo::CONFIG).unwrap();
        let titles: Vec<_> = all(&layout, true).iter().map(Check::title).collect();
        let expected = [
            "ping blue-1 -> blue-2",
            "ping, IPv6 blue-1 -> blue-2",
            "ping green-1 -> green-2",
            "ping, IPv6 green-1 -> green-2",
            "kept apart blue-1 -> green-1",
            "kept apart blue-1 -> green-2",
            "kept apart green-1 -> blue-2",
            "round trip blue-1 -> blue-2",
            "TCP blue-1 -> blue-2",
            "TCP, IPv6 green-1 -> green-2",
            "over VXLAN node-1 -> node-2",
        ];
        assert_eq!(titles, expected);
        assert!(all(&layout, false).iter().all(|check| !check.name().contains("IPv6")));
    }

    /// Runs `test` as root of a network namespace of its own, in a process of its own. In it are its loopback and a
    /// link to the empty network 192.0.2.0/24.
    fn alone(name: &str, test: impl FnOnce()) {
        const ALONE: &str = "VSWITCHD_TEST_ALONE";
        if std::env::var_os(ALONE).is_some() {
            let mut netlink = Netlink::open().unwrap();
            netlink.add_veth("near", "far", netns::current().unwrap().as_fd()).unwrap();
            for name in ["lo", "near", "far"] {
                let index = netlink.interface(name).unwrap().unwrap().index;
                netlink.change(index, &Change { up: Some(true), ..Change::default() }).unwrap();
            }
            let near = netlink.interface("near").unwrap().unwrap().index;
            netlink.add_address(near, IpAddr::from([192, 0, 2, 2]), 24).unwrap();
            return test();
        }
        let mut command = std::process::Command::new("unshare");
        command.arg("-Urn").arg(std::env::current_exe().unwrap());
        command.args(["--exact", "--nocapture", &format!("demo::checks::tests::{name}")]).env(ALONE, "1");
        let output = command.output().expect("unshare(1) is installed");
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }

    fn outcome(what: What) -> Outcome {
        let here = "/proc/thread-self/ns/net".to_owned();
        Check { what, from: here.clone(), to: here }.run(&[])
    }

    #[test]
    fn every_check_can_fail() {
        alone("every_check_can_fail", || {
            let (own, nobody): (IpAddr, IpAddr) =
                ("127.0.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap());
            let own_v6 = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
            let apart = |addresses| What::Apart { addresses, same_node: false };
            for what in [
                What::Reached(own),
                What::Reached(own_v6),
                What::RoundTrip(own),
                What::Transfer(own),
                apart(vec![nobody]),
            ] {
                let outcome = outcome(what);
                assert!(outcome.holds, "{outcome:?}");
            }
            for what in [
                What::Reached(nobody),
                What::RoundTrip(nobody),
                What::Transfer(nobody),
                What::Tunnel(0, 1),
                // What cannot even be sent proves nothing.
                apart(vec![IpAddr::from([198, 51, 100, 1])]),
                apart(vec![nobody, own]),
                apart(vec![nobody, own_v6]),
            ] {
                let outcome = outcome(what);
                assert!(!outcome.holds && !outcome.figure.is_empty(), "{outcome:?}");
            }
        });
    }
}
