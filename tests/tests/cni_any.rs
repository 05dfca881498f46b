//! Anything as a network configuration, a result or a call: understood or refused by name, never worse.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use proptest::prelude::*;
use vswitch_cni::conf::Conf;
use vswitch_cni::result::Lease;
use vswitch_cni::wishes::Wishes;
use vswitch_tests::cni_body::{CNI_SEEDS, cni_body};
use vswitchd::control::rpc::Call;
use vswitchd::ipam::Pools;

#[test]
fn every_seed_is_read_and_hostile_nesting_is_refused() {
    for seed in CNI_SEEDS {
        cni_body(seed.as_bytes());
    }
    let parts = CNI_SEEDS.map(|seed| seed.split_once('\n').unwrap());
    for (args, text) in &parts[..2] {
        Wishes::read(&Conf::parse(text.as_bytes()).unwrap(), args).unwrap();
    }
    assert_eq!(Lease::parse(parts[2].1.as_bytes()).unwrap().addresses.len(), 1);
    for (method, (_, text)) in ["cni.add", "cni.gc"].iter().zip(&parts[3..]) {
        Call::parse(method, serde_json::from_str(text).unwrap()).unwrap();
    }
    serde_json::from_str::<Pools>(parts[5].1).unwrap().validate().unwrap();
    cni_body(format!("\n{}", "[".repeat(100_000)).as_bytes());
    cni_body(format!("\n{}", "{\"a\":".repeat(100_000)).as_bytes());
    cni_body(format!("{}\n{{}}", "IP=1.2.3.4;".repeat(10_000)).as_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_edit_of_a_good_one_panics(
        seed in 0..CNI_SEEDS.len(),
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), 0_usize..20, prop::sample::select(PIECES.to_vec())), 1..5),
    ) {
        let mut text = CNI_SEEDS[seed].as_bytes().to_vec();
        for (at, len, piece) in edits {
            let at = at.index(text.len());
            let end = (at + len).min(text.len());
            text.splice(at..end, piece.bytes());
            if text.is_empty() {
                break;
            }
        }
        cni_body(&text);
    }

    #[test]
    fn no_other_value_behind_a_key_panics(
        seed in 0..CNI_SEEDS.len(), at in any::<prop::sample::Index>(), piece in prop::sample::select(PIECES.to_vec()),
    ) {
        let text = CNI_SEEDS[seed];
        let keys: Vec<usize> = text.match_indices("\":").map(|(at, _)| at + 2).collect();
        let from = keys[at.index(keys.len())];
        let rest = &text[from..];
        let to = rest.find([',', '}', ']']).map_or(text.len(), |len| from + len);
        cni_body(format!("{}{piece}{}", &text[..from], &text[to..]).as_bytes());
    }
}

const PIECES: [&str; 16] = [
    "",
    "null",
    "true",
    "-1",
    "65536",
    "1e99",
    "18446744073709551616",
    "\"\"",
    "\"::/0\"",
    "\"10.0.0.1/33\"",
    "[]",
    "{}",
    "\"a/b\"",
    "\"\\u0000\"",
    "[[\"x\"]]",
    "\"ff:ff:ff:ff:ff:ff\"",
];
