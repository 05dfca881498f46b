//! The core against the naive reference switch, step by step, over random configurations, frames and times.
//!
//! `VSWITCH_SEED` repeats a run, `VSWITCH_RUNS` lengthens it. Not here: rules of VXLAN one by one.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use std::panic::catch_unwind;
use vswitch_core::DropReason;
use vswitch_core::verdict::Why;
use vswitch_tests::rng::Rng;
use vswitch_tests::switch_body::{Ends, switch_body};

#[test]
fn the_core_does_what_the_reference_does_in_every_random_run() {
    let runs = std::env::var("VSWITCH_RUNS").map_or(400, |runs| runs.parse().unwrap());
    let mut rng = Rng::from_env(1);
    let mut all = Ends::new();
    for run in 0..runs {
        let len = rng.within(200..=1500);
        let data = rng.bytes(len);
        match catch_unwind(|| switch_body(&data)) {
            Ok(ends) => ends.into_iter().for_each(|(name, count)| *all.entry(name).or_default() += count),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map_or("", String::as_str);
                panic!("run {run} of seed {}: {text}", rng.seed());
            }
        }
    }
    println!("{runs} configurations: {all:?}");
    // A run that never meets an end says nothing about it.
    for reason in DropReason::ALL {
        let elsewhere = matches!(
            reason,
            // Said by links, or for frames longer than a test writes.
            DropReason::LongFrame
                | DropReason::LinkDown
                | DropReason::TxFull
                | DropReason::TxError
                | DropReason::RxOverflow
                | DropReason::RxTruncated
                | DropReason::BadOffload
                // Of bridges with mirrors or snooping: see the core's own tests.
                | DropReason::MirrorOutput
                | DropReason::NoListener
                // Of ports that are guarded or policed: see `guard.rs` and `policing.rs`.
                | DropReason::SpoofedMac
                | DropReason::SpoofedArp
                | DropReason::SpoofedIpv4
                | DropReason::SpoofedIpv6
                | DropReason::SpoofedNd
                | DropReason::DhcpServer
                | DropReason::RouterAdvertisement
                | DropReason::Policed
                | DropReason::PolicedEgress
                // Of patch ports and of rules.
                | DropReason::PatchLoop
                | DropReason::NoFlow
                | DropReason::FlowDrop
                | DropReason::TooManyCopies
        );
        assert!(elsewhere || runs < 400 || all.contains_key(reason.name()), "{reason} never came");
    }
    for why in [Why::Neigh, Why::NeighSeen, Why::Probe].map(Why::name) {
        assert!(runs < 400 || all.contains_key(why), "{why} never came");
    }
}

#[test]
fn bytes_of_every_pattern_are_a_run_too() {
    for byte in [0, 1, 0x55, 0x80, 0xaa, 0xff] {
        for len in [0, 1, 7, 100, 2000] {
            switch_body(&vec![byte; len]);
        }
    }
}
