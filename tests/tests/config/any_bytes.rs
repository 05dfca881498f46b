//! Any bytes as a configuration: refused or understood, never worse, and in time.

use super::shipped;
use proptest::prelude::*;
use std::net::IpAddr;
use vswitch_tests::config_body::config_body;

#[test]
fn hostile_nesting_and_bulk_are_refused_in_time() {
    config_body("[".repeat(100_000).as_bytes());
    config_body(format!("a = {}", "[".repeat(100_000)).as_bytes());
    config_body(format!("a{} = 1", ".a".repeat(100_000)).as_bytes());
    let peers = "\"10.0.0.0/20\",".repeat(5000);
    config_body(format!("[underlay]\naddress = \"10.9.0.1\"\n[mesh]\npeers = [{peers}]\n").as_bytes());
    let unknown: String = (0..20_000).map(|n| format!("k{n} = 1\n")).collect();
    config_body(unknown.as_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_mutation_of_the_reference_panics(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..40, any::<Edit>()), 1..6),
    ) {
        let mut text = std::fs::read(shipped("reference.toml")).unwrap();
        for (at, len, edit) in edits {
            let at = at.index(text.len());
            let end = (at + len).min(text.len());
            match edit {
                Edit::Cut => drop(text.drain(at..end)),
                Edit::Copy => {
                    let piece = text[at..end].to_vec();
                    text.splice(at..at, piece);
                }
                Edit::Put(bytes) => drop(text.splice(at..end, bytes)),
            }
            if text.is_empty() {
                break;
            }
        }
        config_body(&text);
    }

    #[test]
    fn no_value_behind_a_key_panics(line in 0usize..200, value in value()) {
        let text = std::fs::read_to_string(shipped("reference.toml")).unwrap();
        let keys: Vec<usize> = text.lines().enumerate().filter(|(_, l)| l.contains(" = ") && !l.starts_with('#')).map(|(i, _)| i).collect();
        let chosen = keys[line % keys.len()];
        let changed: String = text
            .lines()
            .enumerate()
            .map(|(i, l)| if i == chosen { format!("{} = {value}\n", l.split(" = ").next().unwrap()) } else { format!("{l}\n") })
            .collect();
        config_body(changed.as_bytes());
    }
}

#[derive(Clone, Debug)]
enum Edit {
    Cut,
    Copy,
    Put(Vec<u8>),
}

impl Arbitrary for Edit {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        prop_oneof![
            Just(Self::Cut),
            Just(Self::Copy),
            prop::collection::vec(any::<u8>(), 0..8).prop_map(Self::Put),
            "[0-9a-z\"\\[\\]\\-/:.,= \n]{0,8}".prop_map(|text| Self::Put(text.into_bytes())),
        ]
        .boxed()
    }
}

/// Values that may or may not fit a key.
fn value() -> BoxedStrategy<String> {
    let number =
        prop_oneof![any::<i64>(), -2i64..70_000, Just(4094), Just(16_777_215)].prop_map(|n| n.to_string());
    let text = prop_oneof![
        "[a-z0-9./:\\-]{0,20}".boxed(),
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| format!("{a}-{b}")).boxed(),
        (any::<IpAddr>(), 0u8..140).prop_map(|(a, l)| format!("{a}/{l}")).boxed(),
        (any::<IpAddr>(), any::<IpAddr>()).prop_map(|(a, b)| format!("{a}-{b}")).boxed(),
    ]
    .prop_map(|text| format!("\"{text}\""));
    let leaf = prop_oneof![number, text, any::<bool>().prop_map(|b| b.to_string())].boxed();
    prop_oneof![
        leaf.clone(),
        prop::collection::vec(leaf, 0..6).prop_map(|items| format!("[{}]", items.join(", "))),
    ]
    .boxed()
}
