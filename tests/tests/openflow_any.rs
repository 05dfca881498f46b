//! Whatever comes in at a bridge's OpenFlow socket: read or refused, and the flow table is what a naive one is.
//!
//! Not here: the socket (see `openflow.rs`).

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use vswitch_tests::openflow_body::{openflow_body, openflow_seeds};

/// A message of the stock with a few bytes changed; mostly none, or one of those that make a difference.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), prop_oneof![any::<u8>(), 0..8_u8, Just(0xff)]);
    (select(openflow_seeds()), prop_oneof![4 => Just(Vec::new()), 3 => vec(change, 1..4)]).prop_map(
        |(mut message, changes)| {
            for (at, byte) in changes {
                let at = at.index(message.len());
                // Lengths stay: what they are wrong in is tried below.
                if !(2..4).contains(&at) {
                    message[at] = byte;
                }
            }
            message
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn messages_at_random_make_the_table_that_a_naive_one_is(messages in vec(message(), 0..60)) {
        openflow_body(&messages.concat());
    }

    #[test]
    fn no_bytes_do_harm(bytes in vec(any::<u8>(), 0..2000)) {
        openflow_body(&bytes);
    }

    #[test]
    fn a_message_with_any_of_its_bytes_wrong_does_no_harm(
        message in select(openflow_seeds()),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut message = message;
        for (at, byte) in changes {
            let at = at.index(message.len());
            message[at] = byte;
        }
        openflow_body(&message);
        openflow_body(&message[..cut.index(message.len())]);
    }
}
