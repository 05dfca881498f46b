//! The daemon's own IPAM in a real cluster: real daemons, the real plugin, a real etcd that is paused and emptied.
//!
//! Not here: every order in which nodes may hear of each other (see `ipam.rs`).
#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use vswitch_tests::cni::{Attachment, Failure, Runner, directories, vswitch};
use vswitch_tests::lab::{Lab, Namespace, until};
use vswitch_tests::mesh::{CLUSTER, Cluster, Plan, in_cluster, membership, name};
use vswitch_tests::node::PATIENCE;

/// CNI's "try again later".
const LATER: u64 = 11;

/// Nodes whose runtimes have one network with these pools.
fn with_pools(test: &str, nodes: usize, pools: &Value, body: impl FnOnce(&Lab, Cluster, &[Runner])) {
    let Some(path) = directories() else { return };
    in_cluster(test, &Plan::new(nodes, membership()), |lab, mut cluster| {
        let all: Vec<usize> = (1..=nodes).collect();
        cluster.start(&all);
        cluster.mesh.until_status("cluster", &"up".into());
        let runners: Vec<Runner> = all.iter().map(|n| runner(&cluster, *n, &path, pools)).collect();
        body(lab, cluster, &runners);
    });
}

fn runner(cluster: &Cluster, n: usize, path: &[PathBuf], pools: &Value) -> Runner {
    let keys = json!({"isGateway": true, "ipam": {"type": "vswitch", "pools": pools}});
    let list = vswitch("blue", cluster.mesh.node(n).socket(), &keys);
    Runner::new(&cluster.mesh.underlay.nodes[n - 1], path, &list)
}

/// Pods by name, each a namespace.
fn pods(lab: &Lab, count: usize) -> Vec<Namespace> {
    (0..count).map(|number| lab.namespace(&format!("pod{number}"))).collect()
}

fn wanting(pod: &Namespace, address: &str) -> Attachment {
    Attachment::new(pod).arg("IP", address)
}

fn add_at_once(adds: &[(&Runner, Attachment)]) -> Vec<Result<Value, Failure>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            adds.iter().map(|(runner, attachment)| scope.spawn(|| runner.add(attachment))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn address(result: &Value) -> String {
    result["ips"][0]["address"].as_str().unwrap().to_owned()
}

fn gateway(result: &Value) -> String {
    result["ips"][0]["gateway"].as_str().unwrap().to_owned()
}

/// What the store has below `ipam/`: key without what all have in common, and the node.
fn claims(cluster: &Cluster) -> BTreeMap<String, String> {
    let prefix = format!("{CLUSTER}/v1/ipam/blue/");
    let keys = cluster.store.keys(&prefix);
    let node = |key: &String| {
        let value: Value = serde_json::from_str(&cluster.store.get(key)?).unwrap();
        Some((key.strip_prefix(&prefix)?.to_owned(), value["node"].as_str()?.to_owned()))
    };
    keys.iter().filter_map(node).collect()
}

fn until_claims(cluster: &Cluster, wanted: &[(&str, usize)]) {
    let wanted: BTreeMap<String, String> =
        wanted.iter().map(|(key, n)| ((*key).to_owned(), name(*n))).collect();
    until(&format!("{wanted:?} in the store"), PATIENCE, || (claims(cluster) == wanted).then_some(()));
}

fn later(failure: &Failure, part: &str) {
    assert!(failure.code == LATER && failure.to_string().contains(part), "{failure}");
}

#[test]
fn nodes_that_begin_at_once_get_blocks_of_their_own_and_no_address_is_given_twice() {
    let test = "nodes_that_begin_at_once_get_blocks_of_their_own_and_no_address_is_given_twice";
    let pools = json!([{"subnet": "10.200.0.0/24", "block": 29}, {"subnet": "fd20::/64", "block": 112}]);
    with_pools(test, 3, &pools, |lab, cluster, runners| {
        // Five addresses of each block are for pods: every node needs two.
        let pods = pods(lab, 21);
        let adds = pods.iter().enumerate().map(|(at, pod)| (&runners[at % 3], Attachment::new(pod)));
        let results = (0..).map(|at| at % 3 + 1).zip(add_at_once(&adds.collect::<Vec<_>>()));
        let results: Vec<(usize, Value)> = results.map(|(node, result)| (node, result.unwrap())).collect();
        let unique: BTreeSet<String> = results.iter().map(|(_, result)| address(result)).collect();
        assert_eq!(unique.len(), pods.len());
        assert!(unique.iter().all(|address| address.starts_with("10.200.0.") && address.ends_with("/24")));
        let v6: BTreeSet<&str> =
            results.iter().map(|(_, result)| result["ips"][1]["address"].as_str().unwrap()).collect();
        assert_eq!(v6.len(), pods.len());
        let gateways: BTreeSet<(usize, String)> =
            results.iter().map(|(node, result)| (*node, gateway(result))).collect();
        assert_eq!(gateways.len(), 3, "one for each node: {gateways:?}");
        let claims = claims(&cluster);
        assert!(claims.len() >= 9, "{claims:?}");
        for (node, result) in &results {
            let plain = address(result);
            let last: u8 = plain.trim_end_matches("/24").rsplit('.').next().unwrap().parse().unwrap();
            let block = format!("blocks/10.200.0.{}-29", last / 8 * 8);
            assert_eq!(claims.get(&block), Some(&name(*node)), "{plain} of node {node}: {claims:?}");
        }
        // Across the mesh, and to the node itself.
        let other = address(&results[1].1);
        for to in [other.trim_end_matches("/24"), &gateway(&results[0].1)] {
            pods[0].run(&format!("ping -c 1 -W 5 {to}"));
        }
        // When all have gone, each node keeps the block with its own address.
        for (number, pod) in pods.iter().enumerate() {
            runners[number % 3].del(&Attachment::new(pod)).unwrap();
        }
        runners.iter().for_each(|runner| runner.gc(&[]).unwrap());
        until("one block of each family for each node", PATIENCE, || {
            (self::claims(&cluster).len() == 6).then_some(())
        });
    });
}

#[test]
fn without_the_store_blocks_go_on_serving_and_what_is_new_comes_later() {
    let test = "without_the_store_blocks_go_on_serving_and_what_is_new_comes_later";
    let pools = json!([{"subnet": "10.200.0.0/24", "block": 29, "static": ["10.200.0.240/28"]}]);
    with_pools(test, 2, &pools, |lab, mut cluster, runners| {
        let pods = pods(lab, 8);
        let one = &runners[0];
        let first = one.add(&Attachment::new(&pods[0])).unwrap();
        let before = claims(&cluster);
        cluster.store.pause();
        cluster.mesh.until_status("cluster", &"down".into());
        for pod in &pods[1..5] {
            assert_eq!(gateway(&one.add(&Attachment::new(pod)).unwrap()), gateway(&first));
        }
        later(&one.add(&Attachment::new(&pods[5])).unwrap_err(), "does not answer");
        later(&one.add(&wanting(&pods[5], "10.200.0.250")).unwrap_err(), "does not answer");
        later(&runners[1].add(&Attachment::new(&pods[6])).unwrap_err(), "does not answer");
        one.del(&Attachment::new(&pods[0])).unwrap();
        assert_eq!(address(&one.add(&Attachment::new(&pods[0])).unwrap()), address(&first));
        cluster.store.resume();
        cluster.mesh.until_status("cluster", &"up".into());
        one.add(&Attachment::new(&pods[5])).unwrap();
        let single = one.add(&wanting(&pods[7], "10.200.0.250")).unwrap();
        assert_eq!((address(&single), gateway(&single)), ("10.200.0.250/24".to_owned(), gateway(&first)));
        runners[1].add(&Attachment::new(&pods[6])).unwrap();
        let after = claims(&cluster);
        assert!(before.iter().all(|claim| after.get(claim.0) == Some(claim.1)), "{before:?} {after:?}");
        // A store that has lost everything is told again.
        cluster.store.lose();
        cluster.mesh.until_status("cluster", &"down".into());
        cluster.store.run();
        cluster.mesh.until_status("cluster", &"up".into());
        until("all claims again", PATIENCE, || {
            let again = claims(&cluster);
            after.iter().all(|claim| again.get(claim.0) == Some(claim.1)).then_some(())
        });
    });
}

#[test]
fn a_node_that_comes_back_has_its_block_and_one_that_forgot_all_gives_it_back() {
    let test = "a_node_that_comes_back_has_its_block_and_one_that_forgot_all_gives_it_back";
    let pools = json!([{"subnet": "10.200.0.0/16", "static": ["10.200.255.0/24"]}]);
    with_pools(test, 2, &pools, |lab, mut cluster, runners| {
        let pods = pods(lab, 4);
        let one = &runners[0];
        let first = one.add(&Attachment::new(&pods[0])).unwrap();
        one.add(&wanting(&pods[1], "10.200.255.9")).unwrap();
        let before = claims(&cluster);
        assert_eq!(before.len(), 2, "{before:?}");
        cluster.mesh.end(1, "KILL");
        // Nobody else gets what is a dead node's.
        let other = runners[1].add(&wanting(&pods[2], "10.200.255.9")).unwrap_err();
        assert!(other.to_string().contains("10.200.255.9 is taken on node \"node-1\""), "{other}");
        cluster.mesh.start(&[1]);
        cluster.mesh.until_status("cluster", &"up".into());
        let again = one.add(&Attachment::new(&pods[3])).unwrap();
        assert_eq!(gateway(&again), gateway(&first));
        assert_ne!(address(&again), address(&first), "the pod is still there");
        let now = claims(&cluster);
        assert!(before.iter().all(|claim| now.get(claim.0) == Some(claim.1)), "{before:?} {now:?}");
        // Its disk is lost.
        let journal = cluster.mesh.node(1).socket().with_file_name("attachments.json");
        cluster.mesh.end(1, "KILL");
        std::fs::remove_file(journal).unwrap();
        cluster.mesh.start(&[1]);
        until("no claim of node-1", PATIENCE, || {
            claims(&cluster).values().all(|node| *node != name(1)).then_some(())
        });
        runners[1].add(&wanting(&pods[2], "10.200.255.9")).unwrap();
    });
}

#[test]
fn a_single_address_has_one_owner_and_is_free_when_that_one_is_gone() {
    let test = "a_single_address_has_one_owner_and_is_free_when_that_one_is_gone";
    let pools = json!([{"subnet": "10.200.0.0/24", "block": 24, "static": ["10.200.0.0/24"]}]);
    with_pools(test, 3, &pools, |lab, cluster, runners| {
        let wanted = "10.200.0.77";
        // A runtime on each node asks for it at once.
        let rivals = pods(lab, 3);
        let keys = json!({"ipam": {"type": "vswitch", "pools": pools}});
        let path = directories().unwrap();
        let runners: Vec<Runner> = (1..=runners.len())
            .map(|n| {
                let list = vswitch("blue", cluster.mesh.node(n).socket(), &keys);
                Runner::new(&cluster.mesh.underlay.nodes[n - 1], &path, &list)
            })
            .collect();
        let adds = runners.iter().zip(&rivals).map(|(runner, pod)| (runner, wanting(pod, wanted)));
        let said = add_at_once(&adds.collect::<Vec<_>>());
        let winners: Vec<usize> = (0..3).filter(|at| said[*at].is_ok()).collect();
        let [winner] = winners[..] else { panic!("{said:?}") };
        until_claims(&cluster, &[("addresses/10.200.0.77", winner + 1)]);
        // It is deleted, and another node may have it.
        let next = (winner + 1) % 3;
        runners[winner].del(&wanting(&rivals[winner], wanted)).unwrap();
        until_claims(&cluster, &[]);
        runners[next].add(&wanting(&rivals[next], wanted)).unwrap();
        until_claims(&cluster, &[("addresses/10.200.0.77", next + 1)]);
        // Its namespace dies without a word.
        let mut rivals = rivals;
        drop(rivals.remove(next));
        until_claims(&cluster, &[]);
    });
}
