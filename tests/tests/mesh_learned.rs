//! Stations of a mesh with a real etcd that nobody configured: they are claimed because they speak, no longer than
//! they do, and no more of them than a port may have.
#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::Value;
use std::net::Ipv4Addr;
use vswitch_core::Mac;
use vswitch_tests::daemon::Raw;
use vswitch_tests::frames::Frame;
use vswitch_tests::lab::until;
use vswitch_tests::mesh::{Cluster, Plan, in_cluster, membership, pod};
use vswitch_tests::node::PATIENCE;

/// How many stations a port may have.
const LIMIT: u64 = 16;

fn plan() -> Plan {
    let more = format!("\n[mac_table]\nageing = 10\nport_limit = {LIMIT}\n");
    Plan { more, ..Plan::new(2, membership()) }
}

fn mac(number: u16) -> Mac {
    let [high, low] = number.to_be_bytes();
    Mac::new([2, 0, 0, 0xaa, high, low])
}

/// The pod of node 1, which speaks for others.
fn mouth(cluster: &Cluster) -> Raw {
    cluster.mesh.underlay.nodes[0].inside(|| Raw::open("s1n1"))
}

fn status(cluster: &Cluster, n: usize, key: &str) -> u64 {
    cluster.mesh.node(n).call("status", &Value::Null).unwrap()[key].as_u64().unwrap()
}

#[test]
fn a_station_that_spoke_once_is_known_everywhere_and_forgotten_everywhere_when_it_is_silent() {
    let test = "a_station_that_spoke_once_is_known_everywhere_and_forgotten_everywhere_when_it_is_silent";
    in_cluster(test, &plan(), |_lab, mut cluster| {
        cluster.start(&[1, 2]);
        cluster.until_stations(&[1, 2]);
        // The ethertype is IEEE 802's for experiments.
        mouth(&cluster).send(&Frame::new(Mac::BROADCAST, mac(1)).payload(0x88b5, &[0; 46]).bytes());
        let text = mac(1).to_string();
        cluster.until_known(2, &text, 1);
        assert_eq!(status(&cluster, 2, "cluster_stations"), 3);
        for n in [1, 2] {
            until(&format!("node {n} to forget it"), PATIENCE * 2, || {
                let known = cluster.rows(n, "mac.list").iter().any(|row| row["mac"] == *text);
                (!known && status(&cluster, n, "cluster_stations") == 2).then_some(())
            });
        }
        // The pods that are here by configuration are as silent, and stay.
        cluster.until_stations(&[1, 2]);
    });
}

#[test]
fn a_pod_that_speaks_for_many_gets_no_more_claims_than_its_port_may_have_stations() {
    let test = "a_pod_that_speaks_for_many_gets_no_more_claims_than_its_port_may_have_stations";
    in_cluster(test, &plan(), |_lab, mut cluster| {
        cluster.start(&[1, 2]);
        cluster.until_stations(&[1, 2]);
        let mouth = mouth(&cluster);
        let before = status(&cluster, 1, "neigh_flooded");
        for number in 0..300_u16 {
            let [high, low] = number.to_be_bytes();
            let own = Ipv4Addr::new(10, 1, 200 + high, low);
            mouth.send(
                &Frame::new(Mac::BROADCAST, mac(number))
                    .arp(2, (mac(number), own), (mac(number), own))
                    .bytes(),
            );
        }
        // What is asked behind all that is answered, or given back, behind it.
        let asked = Ipv4Addr::new(10, 1, 251, 1);
        let nobody = Mac::from_u64(0);
        mouth.send(&Frame::new(Mac::BROADCAST, mac(0)).arp(1, (mac(0), pod(1, 1)), (nobody, asked)).bytes());
        until("the question to be asked of all", PATIENCE, || {
            (status(&cluster, 1, "neigh_flooded") > before).then_some(())
        });
        let claimed = status(&cluster, 1, "cluster_stations");
        // And the two pods that are there by configuration.
        assert!((LIMIT..=LIMIT + 2).contains(&claimed), "{claimed} stations");
    });
}
