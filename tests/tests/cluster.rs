//! What follows from anything that stands in a cluster's store.
//!
//! `VSWITCH_SEED` repeats a run, `VSWITCH_RUNS` lengthens it. Not here: many nodes together (see `cluster_sim.rs`).
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use std::panic::catch_unwind;
use vswitch_tests::cluster_body::cluster_body;
use vswitch_tests::frames::hex;
use vswitch_tests::rng::Rng;
use vswitchd::cluster::{AddressRecord, BlockRecord, NodeRecord, StationRecord, SuspectRecord};

#[test]
fn whatever_stands_in_the_store_only_own_keys_are_written_and_the_right_claims_win() {
    let runs = std::env::var("VSWITCH_RUNS").map_or(600, |runs| runs.parse().unwrap());
    let mut rng = Rng::from_env(1);
    for run in 0..runs {
        let len = rng.within(4..=1000);
        let data = rng.bytes(len);
        if catch_unwind(|| cluster_body(&data)).is_err() {
            panic!("run {run} of seed {}: {}", rng.seed(), hex(&data));
        }
    }
}

#[test]
fn bytes_of_every_pattern_happen_too() {
    for byte in 0..=255 {
        cluster_body(&[byte; 200]);
        cluster_body(&[byte, 7, 1, 8, 1, byte, 2, 0, 9, 1, 1, 13, 5].repeat(20));
    }
}

#[test]
fn the_values_in_the_documentation_are_what_is_written() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cluster.md");
    let text = std::fs::read_to_string(document).unwrap();
    let blocks: Vec<&str> =
        text.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap().trim()).collect();
    let [node, station, suspect, block, address] = blocks[..] else { panic!("{blocks:?}") };
    let written = [
        (node, NodeRecord::from_json(node.as_bytes()).unwrap().to_json()),
        (station, StationRecord::from_json(station.as_bytes()).unwrap().to_json()),
        (suspect, SuspectRecord::from_json(suspect.as_bytes()).unwrap().to_json()),
        (block, BlockRecord::from_json(block.as_bytes()).unwrap().to_json()),
        (address, AddressRecord::from_json(address.as_bytes()).unwrap().to_json()),
    ];
    for (shown, written) in written {
        let [shown, written] = [shown.as_bytes(), &written]
            .map(|json| serde_json::from_slice::<serde_json::Value>(json).unwrap());
        assert_eq!(shown, written);
    }
}
