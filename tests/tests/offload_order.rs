//! Many numbered flows at once, with TCP beside them, over two workers: nothing is overtaken within its flow, nothing
//! comes twice.
#![allow(clippy::unwrap_used, reason = "a test")]

use vswitch_tests::lab::Lab;
use vswitch_tests::node::{in_nodes, pings};
use vswitch_tests::numbered::{Numbered, numbered};
use vswitch_tests::rng::Rng;
use vswitch_tests::scene::{Place, Plan, Scene, ip};
use vswitch_tests::streams::{Tcp, tcp};
use vswitch_tests::sums::{Watch, counter};

const A: [&str; 2] = ["10.10.0.1/24", "fd10::1/64"];
const B: [&str; 2] = ["10.10.0.2/24", "fd10::2/64"];

/// Pods `a` and `b`, on these nodes.
fn every_flow_keeps_its_order(lab: &Lab, nodes: &[&str], v6: bool) {
    let last = u8::try_from(nodes.len()).unwrap();
    let places = [
        Place { pod: "a", node: 1, keys: "tag = 10", addresses: &A },
        Place { pod: "b", node: last, keys: "tag = 10", addresses: &B },
    ];
    let scene = Scene::new(lab, &Plan { nodes, underlay: "", v6, places: &places });
    let (a, b) = (scene.pod("a"), scene.pod("b"));
    // Who waits for a neighbour's address is overtaken in the pod's own kernel.
    [B[0], B[1]].iter().for_each(|b| pings(a, ip(b.split('/').next().unwrap())));
    let watch = Watch::new(&scene.spaces());
    let lost = || scene.drops("rx_overflow") + scene.drops("tx_full");
    for (one, other, longest) in [("10.10.0.1", "10.10.0.2", 1400), ("fd10::1", "fd10::2", 64)] {
        let how = Numbered { flows: 24, datagrams: 200, longest };
        let outcome = std::thread::scope(|scope| {
            let load = scope.spawn(|| {
                let mut rng = Rng::new(1);
                let how = Tcp { bytes: 2_000_000, ..Tcp::default() };
                tcp(a, b, ip(other), &how, &mut rng);
                tcp(b, a, ip(one), &how, &mut rng);
            });
            let outcome = numbered((a, ip(one)), (b, ip(other)), &how);
            load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcome
        });
        println!("{outcome:?}, {} lost by the daemons", lost());
        assert!(outcome.received * 2 > outcome.sent, "{outcome:?}");
    }
    let reordered = ["TcpExtTCPSACKReorder", "TcpExtTCPRenoReorder", "TcpExtTCPTSReorder"];
    for name in reordered {
        assert_eq!((counter(a, name), counter(b, name)), (0, 0), "{name}");
    }
    watch.unmoved("many flows");
}

const TWO: &str = "[datapath]\nworkers = 2";

#[test]
fn every_flow_keeps_its_order_on_one_node() {
    in_nodes("every_flow_keeps_its_order_on_one_node", |lab| {
        every_flow_keeps_its_order(lab, &[TWO], false);
    });
}

#[test]
fn every_flow_keeps_its_order_between_two_nodes() {
    in_nodes("every_flow_keeps_its_order_between_two_nodes", |lab| {
        every_flow_keeps_its_order(lab, &[TWO, TWO], false);
    });
}

#[test]
fn every_flow_keeps_its_order_between_two_nodes_one_of_them_without_offload() {
    in_nodes("every_flow_keeps_its_order_between_two_nodes_one_of_them_without_offload", |lab| {
        let basic = "[datapath]\nworkers = 2\noffload = false";
        every_flow_keeps_its_order(lab, &[TWO, basic], true);
    });
}
