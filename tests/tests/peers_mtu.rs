//! Nodes of a mesh one of which is behind a narrower link: what the path carries is found, shown, and told to the pods.
//! What the interfaces alone say is tested in `vxlan_mtu.rs`.
#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vswitch_tests::lab::{Lab, Namespace, until};
use vswitch_tests::mesh::{Membership, Mesh, PREFIX, PREFIX_V6, Plan, Pods, pod, pod6, v4, v6};
use vswitch_tests::node::{PATIENCE, in_nodes, is_fragment, tcp};

/// What a full path carries, and what the narrow one does.
const WIDE: u64 = 1500;
const NARROW: u64 = 1400;
/// How exactly a path is known.
const EXACT: u64 = 8;

/// Three nodes; what is between the second one and the router can be narrowed.
struct Scene {
    mesh: Mesh,
    address: fn(usize) -> IpAddr,
    /// Bytes around a pod's packet.
    around: u64,
}

impl Scene {
    fn new(lab: &Lab, over_ipv6: bool) -> (Self, Pods) {
        let (prefix, address, around): (_, fn(usize) -> IpAddr, _) =
            if over_ipv6 { (PREFIX_V6, v6, 70) } else { (PREFIX, v4, 50) };
        let plan = Plan { underlay: vec![prefix], v6: true, ..Plan::new(3, Membership::Static) };
        let mesh = Mesh::new(lab, &plan);
        let pods = Pods::open(&mesh.underlay);
        (Self { mesh, address, around }, pods)
    }

    /// The router says nothing of what it drops for its size.
    fn hush_router(&self) {
        let router = &self.mesh.underlay.router;
        for words in [
            "add table inet hush",
            "add chain inet hush output { type filter hook output priority 0 ; }",
            "add rule inet hush output icmp type destination-unreachable drop",
            "add rule inet hush output icmpv6 type packet-too-big drop",
        ] {
            router.run(&format!("nft {words}"));
        }
    }

    /// Lets the link between the router and the second node carry `mtu` bytes.
    fn link(&self, mtu: u64) {
        self.mesh.underlay.router.ip(&format!("link set dev w2 mtu {mtu}"));
    }

    fn row(&self, at: usize, of: usize) -> Value {
        let rows = self.mesh.node(at).call("peer.list", &Value::Null).unwrap_or_default();
        let address = (self.address)(of).to_string();
        let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["address"] == *address));
        row.cloned().unwrap_or_default()
    }

    /// Waits until node `at` knows that node `of` is up and that its path carries `mtu`, exactly enough.
    fn until_known(&self, at: usize, of: usize, mtu: u64) {
        until(&format!("node {at} to know {mtu} of node {of}: {}", self.row(at, of)), PATIENCE, || {
            let row = self.row(at, of);
            let known = row["mtu"].as_u64()?;
            (row["state"] == "up" && known <= mtu && known + EXACT > mtu).then_some(())
        });
    }

    /// The largest packet of a pod that node `at` says fits to node `of`.
    fn fitting(&self, at: usize, of: usize) -> u64 {
        self.row(at, of)["mtu"].as_u64().unwrap() - self.around
    }

    fn space(&self, n: usize) -> &Namespace {
        &self.mesh.underlay.nodes[n - 1]
    }
}

/// The MTU of the way to `to` as the pod's kernel has learned it.
fn learned(space: &Namespace, to: IpAddr) -> Option<String> {
    let route = space.ip(&format!("route get {to}"));
    let mut words = route.split_whitespace().skip_while(|word| *word != "mtu");
    words.nth(1).map(str::to_owned)
}

fn narrow_from_the_start(lab: &Lab, over_ipv6: bool, told: bool) {
    let (mut scene, pods) = Scene::new(lab, over_ipv6);
    if !told {
        scene.hush_router();
    }
    scene.link(NARROW);
    scene.mesh.start(&[1, 2, 3]);
    for (at, of, mtu) in [(1, 2, NARROW), (2, 1, NARROW), (3, 2, NARROW), (2, 3, NARROW), (1, 3, WIDE)] {
        scene.until_known(at, of, mtu);
    }
    pods.until_all_reach(1, &[1, 2, 3], PATIENCE);
    let (own, full) = (scene.space(1), WIDE - scene.around);
    let mut narrow = scene.mesh.underlay.wire(2);
    for (near, far, wide, headers) in [
        (IpAddr::from(pod(1, 1)), IpAddr::from(pod(1, 2)), IpAddr::from(pod(1, 3)), 28),
        (pod6(1, 1).into(), pod6(1, 2).into(), pod6(1, 3).into(), 48),
    ] {
        let size = usize::try_from(full - headers).unwrap();
        let before = scene.mesh.node(1).drops("too_big");
        let ping = own.ping_with(far, size, 1, "-M do -W 1");
        let fitting = scene.fitting(1, 2).to_string();
        assert!(ping.received == 0 && ping.text.contains(&fitting), "{fitting}: {}", ping.text);
        assert_eq!(learned(own, far), Some(fitting), "{far}");
        assert!(scene.mesh.node(1).drops("too_big") > before);
        // Over the others' paths everything goes as before.
        let ping = own.ping_with(wide, size, 1, "-M do -W 10");
        assert_eq!(ping.received, 1, "{}", ping.text);
        tcp(own, scene.space(2), far, 2 << 20);
        tcp(scene.space(2), own, near, 2 << 20);
        let fits = usize::try_from(scene.fitting(1, 2) - headers).unwrap();
        let ping = own.ping_with(far, fits, 1, "-M do -W 10");
        assert_eq!(ping.received, 1, "{}", ping.text);
    }
    assert!(!narrow.frames().iter().any(|frame| is_fragment(frame)), "nothing is cut into fragments");
    assert_eq!(scene.row(1, 3)["mtu"], WIDE);
}

#[test]
fn a_narrow_path_is_found_and_told_to_pods() {
    in_nodes("a_narrow_path_is_found_and_told_to_pods", |lab| narrow_from_the_start(lab, false, true));
}

#[test]
fn a_narrow_path_over_ipv6_is_found_and_told_to_pods() {
    in_nodes("a_narrow_path_over_ipv6_is_found_and_told_to_pods", |lab| {
        narrow_from_the_start(lab, true, true);
    });
}

#[test]
fn a_narrow_path_that_swallows_silently_is_found_and_told_to_pods() {
    let test = "a_narrow_path_that_swallows_silently_is_found_and_told_to_pods";
    in_nodes(test, |lab| narrow_from_the_start(lab, false, false));
}

#[test]
fn a_narrow_path_over_ipv6_that_swallows_silently_is_found_and_told_to_pods() {
    let test = "a_narrow_path_over_ipv6_that_swallows_silently_is_found_and_told_to_pods";
    in_nodes(test, |lab| narrow_from_the_start(lab, true, false));
}

/// Bytes that a connection must carry for it to be said to flow.
const FLOW: u64 = 4 << 20;

fn narrowed_while_it_carries(lab: &Lab, told: bool) {
    let (mut scene, pods) = Scene::new(lab, false);
    if !told {
        scene.hush_router();
    }
    scene.mesh.start(&[1, 2, 3]);
    pods.until_all_reach(1, &[1, 2, 3], PATIENCE);
    for (at, of) in [(1, 2), (2, 1)] {
        scene.until_known(at, of, WIDE);
    }
    let listener = scene.space(2).inside(|| TcpListener::bind("0.0.0.0:0")).unwrap();
    let to = SocketAddr::from((pod(1, 2), listener.local_addr().unwrap().port()));
    let mut client = scene.space(1).inside(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let (stop, arrived) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let chunk = vec![7; 1 << 16];
            client.set_write_timeout(Some(PATIENCE)).unwrap();
            loop {
                if stop.load(Ordering::Relaxed) || client.write_all(&chunk).is_err() {
                    return drop(client);
                }
            }
        });
        scope.spawn(|| {
            let mut buffer = vec![0; 1 << 16];
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            while let Ok(len @ 1..) = server.read(&mut buffer) {
                arrived.fetch_add(len as u64, Ordering::Relaxed);
            }
        });
        let flows = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for narrow in [false, true] {
                if narrow {
                    scene.link(NARROW);
                    // What is there after the path is known came over it.
                    scene.until_known(1, 2, NARROW);
                    scene.until_known(2, 1, NARROW);
                }
                let before = arrived.load(Ordering::Relaxed);
                until("the connection to flow", PATIENCE, || {
                    (arrived.load(Ordering::Relaxed) > before + FLOW).then_some(())
                });
            }
        }));
        stop.store(true, Ordering::Relaxed);
        flows.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert_eq!(learned(scene.space(1), pod(1, 2).into()), Some(scene.fitting(1, 2).to_string()));
}

#[test]
fn a_path_that_narrows_while_it_carries_a_connection_goes_on_carrying_it() {
    let test = "a_path_that_narrows_while_it_carries_a_connection_goes_on_carrying_it";
    in_nodes(test, |lab| narrowed_while_it_carries(lab, true));
}

#[test]
fn a_path_that_narrows_silently_while_it_carries_a_connection_goes_on_carrying_it() {
    let test = "a_path_that_narrows_silently_while_it_carries_a_connection_goes_on_carrying_it";
    in_nodes(test, |lab| narrowed_while_it_carries(lab, false));
}

#[test]
fn a_path_that_was_widened_while_its_peer_was_down_is_known_when_it_is_up() {
    let test = "a_path_that_was_widened_while_its_peer_was_down_is_known_when_it_is_up";
    in_nodes(test, |lab| {
        let (mut scene, pods) = Scene::new(lab, false);
        scene.link(NARROW);
        scene.mesh.start(&[1, 2, 3]);
        scene.until_known(1, 2, NARROW);
        scene.until_known(3, 2, NARROW);
        scene.mesh.end(2, "KILL");
        for at in [1, 3] {
            until("node 2 to be down", PATIENCE, || (scene.row(at, 2)["state"] == "down").then_some(()));
        }
        scene.link(WIDE);
        scene.mesh.start(&[2]);
        for (at, of) in [(1, 2), (2, 1), (3, 2), (2, 3)] {
            scene.until_known(at, of, WIDE);
        }
        pods.until_all_reach(1, &[1, 2, 3], PATIENCE);
        // Nor is there anything else that still thinks it narrow.
        let again = scene.mesh.node(1).call("reload", &json!(null)).unwrap();
        assert_eq!(again["failed"], json!([]));
        scene.until_known(1, 2, WIDE);
    });
}
