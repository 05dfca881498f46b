//! Free places between taken ones: the first free prefix of a length, from a place on.
//!
//! Not here: what is taken.

use crate::config::Prefix;

/// Numbers of addresses that are taken, from the first to the last.
pub(super) type Taken = (u128, u128);

/// The first prefix of length `len` inside `within` that begins at `from` or behind and of which nothing is taken.
/// `len` is not below that of `within`.
pub(super) fn first_free(within: &Prefix, len: u8, taken: &[Taken], from: u128) -> Option<Prefix> {
    let (first, last) = within.edges();
    let size = 1u128.checked_shl(u32::from(within.width().saturating_sub(len))).unwrap_or(0);
    // All of IPv6 as one prefix has no size that a number holds.
    let rest = size.wrapping_sub(1);
    let mut taken: Vec<Taken> = taken.iter().copied().filter(|(_, to)| *to >= from).collect();
    taken.sort_unstable();
    let mut at = align(from.max(first), rest)?;
    for (begin, end) in taken {
        if at > last || begin > at | rest {
            break;
        }
        if end >= at {
            at = align(end.checked_add(1)?, rest)?;
        }
    }
    (at <= last).then(|| Prefix { network: within.address(at), len })
}

/// `at`, or the next number behind it whose bits `rest` are all zero.
fn align(at: u128, rest: u128) -> Option<u128> {
    Some(at.checked_add(rest)? & !rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        Prefix::parse(text).unwrap()
    }

    fn number(text: &str) -> u128 {
        prefix(text).edges().0
    }

    #[test]
    fn the_first_gap_that_is_large_enough_is_found_wherever_the_search_begins() {
        let within = prefix("10.0.0.0/22");
        let first = number("10.0.0.0/32");
        let taken = [(first + 5, first + 5), (first + 300, first + 600), (first + 280, first + 310)];
        let found = |len, from| first_free(&within, len, &taken, from).map(|found| found.to_string());
        assert_eq!(found(24, 0).as_deref(), Some("10.0.3.0/24"));
        assert_eq!(found(28, 0).as_deref(), Some("10.0.0.16/28"));
        assert_eq!(found(32, first + 5).as_deref(), Some("10.0.0.6/32"));
        assert_eq!(found(32, first + 280).as_deref(), Some("10.0.2.89/32"));
        assert_eq!(found(24, first + 0x301), None);
        assert_eq!(found(22, 0), None);
        assert_eq!(first_free(&within, 22, &[], 0), Some(within));
    }

    #[test]
    fn the_last_addresses_of_a_family_are_no_trap() {
        let end = prefix("255.255.255.252/30");
        let last = end.edges().1;
        assert_eq!(first_free(&end, 32, &[(last, last)], last), None);
        let all = prefix("::/0");
        assert_eq!(first_free(&all, 0, &[], 0), Some(all));
        assert_eq!(first_free(&all, 128, &[(0, u128::MAX)], 0), None);
        assert_eq!(first_free(&all, 128, &[(u128::MAX, u128::MAX)], u128::MAX), None);
    }

    #[test]
    fn what_a_naive_search_finds_is_found() {
        let within = prefix("10.0.0.0/26");
        let first = number("10.0.0.0/32");
        let mut state = 1u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u128::from((state >> 33) % below)
        };
        for _ in 0..20_000 {
            let taken: Vec<Taken> = (0..random(8))
                .map(|_| {
                    let from = first + random(64);
                    (from, from + random(9))
                })
                .collect();
            let len = 26 + u8::try_from(random(7)).unwrap();
            let from = first + random(66);
            let size = 1u128 << (32 - len);
            let free = |at: u128| taken.iter().all(|(begin, end)| *end < at || *begin >= at + size);
            let naive = (0..64 / size).map(|n| first + n * size).find(|at| *at >= from && free(*at));
            let found = first_free(&within, len, &taken, from).map(|found| found.edges().0);
            assert_eq!(found, naive, "{taken:?} /{len} from {from}");
        }
    }
}
