//! Any frame read as ARP or neighbour discovery: believed only where the RFCs allow it, answered with what was asked.
//!
//! `VSWITCH_SEED` repeats a run, `VSWITCH_RUNS` lengthens it. Not here: particular frames (see the slow path's own
//! tests).
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use vswitch_tests::frames::hex;
use vswitch_tests::neigh_body::neigh_body;
use vswitch_tests::rng::Rng;
use vswitchd::slow::{Refusal, Seen};

#[test]
fn frames_near_to_good_ones_are_believed_and_answered_as_the_rfcs_say() {
    let runs = std::env::var("VSWITCH_RUNS").map_or(40_000, |runs| runs.parse().unwrap());
    let mut rng = Rng::from_env(1);
    let mut ends: BTreeMap<&str, u32> = BTreeMap::new();
    for run in 0..runs {
        let len = rng.within(1..=12);
        let data = rng.bytes(len);
        match catch_unwind(|| neigh_body(&data)) {
            Ok(Ok(Seen { question: Some(_), .. })) => *ends.entry("asks").or_default() += 1,
            Ok(Ok(_)) => *ends.entry("tells").or_default() += 1,
            Ok(Err(refusal)) => *ends.entry(refusal.name()).or_default() += 1,
            Err(_) => panic!("run {run} of seed {}: {}", rng.seed(), hex(&data)),
        }
    }
    println!("{runs} frames: {ends:?}");
    // A run that never meets an end says nothing about it.
    let rare = [Refusal::OptionFromNobody];
    for refusal in Refusal::ALL.iter().filter(|refusal| !rare.contains(refusal)) {
        assert!(runs < 40_000 || ends.contains_key(refusal.name()), "{} never came", refusal.name());
    }
    assert!(ends.contains_key("asks") && ends.contains_key("tells"));
}

#[test]
fn bytes_of_every_pattern_are_a_frame_too() {
    for byte in [0, 1, 0x55, 0x80, 0xaa, 0xff] {
        for len in [0, 1, 7, 43, 87, 2000] {
            let _ = neigh_body(&vec![byte; len]);
        }
    }
}
