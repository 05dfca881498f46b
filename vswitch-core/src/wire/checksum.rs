//! The internet checksum (RFC 1071): the one's complement sum of 16-bit words, over any number of pieces.
//!
//! Not here: where a checksum stands in a frame (see [`super::ip`]) and who owes one (see [`crate::offload`]).

/// A running sum over pieces that lie one behind the other. A piece of odd length is allowed anywhere: the
/// next one goes on in the middle of a word.
///
/// ```
/// use vswitch_core::wire::checksum::Sum;
/// let whole = Sum::new().with(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
/// let pieces = Sum::new().with(&[0x00]).with(&[0x01, 0xf2]).with(&[]).with(&[0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
/// assert_eq!((whole.folded(), pieces.folded()), (0xddf2, 0xddf2)); // the example of RFC 1071 §3
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Sum of folded pieces: 2⁴⁸ of them fit.
    total: u64,
    /// Whether the bytes so far end in the middle of a word.
    odd: bool,
}

impl Sum {
    /// Nothing summed yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { total: 0, odd: false }
    }

    /// The sum with `bytes` behind what was summed before.
    #[inline]
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        let piece = folded(bytes);
        // RFC 1071 §2 (B): a sum of swapped words is the swapped sum.
        let piece = if self.odd { piece.swap_bytes() } else { piece };
        Self { total: self.total.wrapping_add(u64::from(piece)), odd: self.odd ^ (bytes.len() % 2 == 1) }
    }

    /// The sum with a whole word added, wherever the bytes stand: for fields of a pseudo-header, or a word that
    /// replaces zeros.
    #[inline]
    #[must_use]
    pub const fn with_word(self, word: u16) -> Self {
        Self { total: self.total.wrapping_add(word as u64), odd: self.odd }
    }

    /// The sum without a whole word that was part of it (RFC 1624: subtraction is addition of the complement).
    #[inline]
    #[must_use]
    pub const fn without_word(self, word: u16) -> Self {
        self.with_word(!word)
    }

    /// The sum with both halves of `value` added.
    #[inline]
    #[must_use]
    pub const fn with_double_word(self, value: u32) -> Self {
        Self { total: self.total.wrapping_add((value >> 16) as u64 + (value & 0xffff) as u64), odd: self.odd }
    }

    /// The sum of an IPv4 pseudo-header (RFC 768, RFC 793 §3.1): `addresses` are source and destination as they
    /// stand in the header, `len` the bytes of transport header and data.
    #[inline]
    #[must_use]
    pub fn pseudo_v4(addresses: &[u8; 8], protocol: u8, len: u16) -> Self {
        Self::new().with(addresses).with_word(u16::from(protocol)).with_word(len)
    }

    /// The sum of an IPv6 pseudo-header (RFC 8200 §8.1): `addresses` are source and final destination, `len` the
    /// bytes of transport header and data.
    #[inline]
    #[must_use]
    pub fn pseudo_v6(addresses: &[u8; 32], protocol: u8, len: u32) -> Self {
        Self::new().with(addresses).with_word(u16::from(protocol)).with_double_word(len)
    }

    /// The sum folded to 16 bits, not complemented: what a sender that leaves a checksum to its port writes
    /// into the field, when only the pseudo-header was summed. 0 only if every byte was 0.
    #[inline]
    #[must_use]
    pub const fn folded(self) -> u16 {
        fold(self.total)
    }

    /// The checksum: the complement of the folded sum. The value of the field when the field counted as 0;
    /// 0 when a correct field was part of the sum.
    #[inline]
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.folded()
    }
}

/// The checksum of `bytes` on their own, as over an IPv4 header (RFC 791 §3.1): 0 when a correct one stands in
/// them.
#[inline]
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    !folded(bytes)
}

/// What a UDP header shows for `checksum`: 0 there means that there is none, so 0 is sent as 0xffff, its equal
/// in one's complement (RFC 768, RFC 8200 §8.1).
#[inline]
#[must_use]
pub const fn udp_field(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

#[inline]
const fn fold(mut sum: u64) -> u16 {
    sum = (sum & 0xffff_ffff) + (sum >> 32); // below 2³³
    sum = (sum & 0xffff) + (sum >> 16); // below 2¹⁸
    sum = (sum & 0xffff) + (sum >> 16); // at most 0x10002
    sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) as u16
}

/// Lanes of [`folded`]'s wide loop, 32 bits each.
const LANES: usize = 8;
/// Bytes of one step of it.
const BLOCK: usize = LANES * 4;
/// Steps after which neither half of a lane can have overflowed: 65,536 × 65,535 < 2³².
const STEPS: usize = 65_536;

/// The folded sum of `bytes`, a last odd byte counting as the upper half of a word.
///
/// Words are summed as they lie in memory and swapped once at the end (RFC 1071 §2 (B)), 32 bits at a time in
/// independent lanes. A lane needs no carry: beside the wrapping sum of its words it keeps the sum of their
/// upper halves, and what the lower halves came to is the difference. That is two additions and a shift, which
/// every instruction set has for vectors.
#[inline]
fn folded(bytes: &[u8]) -> u16 {
    let mut sum = 0;
    let mut rest = bytes;
    while rest.len() >= BLOCK {
        let (now, later) = rest.split_at(rest.len().min(BLOCK * STEPS));
        let (blocks, tail) = now.as_chunks::<BLOCK>();
        sum += wide(blocks);
        // Only the last round has a tail.
        rest = if later.is_empty() { tail } else { later };
    }
    let (words, last) = rest.as_chunks::<4>();
    for word in words {
        sum += u64::from(u32::from_ne_bytes(*word));
    }
    let mut end = [0; 4];
    for (to, from) in end.iter_mut().zip(last) {
        *to = *from;
    }
    sum += u64::from(u32::from_ne_bytes(end));
    u16::from_be(fold(sum))
}

/// The sum of at most [`STEPS`] blocks, below 2⁵¹.
#[inline]
fn wide(blocks: &[[u8; BLOCK]]) -> u64 {
    let (mut all, mut upper) = ([0u32; LANES], [0u32; LANES]);
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for lane in 0..LANES {
            let word = u32::from_ne_bytes(words[lane]);
            all[lane] = all[lane].wrapping_add(word);
            upper[lane] = upper[lane].wrapping_add(word >> 16);
        }
    }
    let lanes = all.iter().zip(&upper);
    lanes.map(|(all, upper)| (u64::from(*upper) << 16) + u64::from(all.wrapping_sub(upper << 16))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// RFC 1071 §1 by the letter.
    fn by_the_letter(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for word in bytes.chunks(2) {
            sum += u32::from(word[0]) << 8 | word.get(1).map_or(0, |b| u32::from(*b));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64 ^ len as u64;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.to_be_bytes()[0]
            })
            .collect()
    }

    #[test]
    fn every_length_sums_as_the_rfc_says() {
        for len in 0..400 {
            assert_eq!(Sum::new().with(&noise(len)).folded(), by_the_letter(&noise(len)), "{len}");
        }
        for len in [1399, 1400, 9000, 65_535, 65_536, BLOCK * STEPS - 1, BLOCK * STEPS, BLOCK * STEPS + 33] {
            assert_eq!(Sum::new().with(&noise(len)).folded(), by_the_letter(&noise(len)), "{len}");
            assert_eq!(Sum::new().with(&alloc::vec![0xff; len - len % 2]).folded(), 0xffff);
        }
    }

    #[test]
    fn a_fold_is_the_remainder_of_65535_and_zero_only_of_zero() {
        let edges =
            [0, 1, 0xfffe, 0xffff, 0x1_0000, 0xffff_ffff, 1 << 32, (1 << 33) - 2, u64::MAX - 1, u64::MAX];
        let sums =
            edges.into_iter().chain((0..64).map(|bit| u64::MAX >> bit)).chain((0..64).map(|bit| 1 << bit));
        for sum in sums {
            let expected = if sum == 0 { 0 } else { (sum - 1) % 0xffff + 1 };
            assert_eq!(u64::from(fold(sum)), expected, "{sum:x}");
        }
    }

    #[test]
    fn pieces_of_any_length_sum_like_the_whole() {
        let bytes = noise(300);
        let whole = Sum::new().with(&bytes);
        for a in 0..=140 {
            for b in [a, a + 1, a + 2, a + 77, 300] {
                let sum = Sum::new().with(&bytes[..a]).with(&bytes[a..b]).with(&bytes[b..]);
                assert_eq!(sum.folded(), whole.folded(), "{a} {b}");
            }
        }
    }

    #[test]
    fn a_correct_field_sums_to_zero_and_words_come_out_again() {
        // A TCP datagram's header, 172.16.10.99 to 172.16.10.12.
        let header =
            [0x45, 0, 0, 0x3c, 0x1c, 0x46, 0x40, 0, 0x40, 6, 0xb1, 0xe6, 172, 16, 10, 99, 172, 16, 10, 12];
        assert_eq!(checksum(&header), 0);
        let sum = Sum::new().with(&header).without_word(0xb1e6);
        assert_eq!(sum.checksum(), 0xb1e6);
        assert_eq!((udp_field(0), udp_field(0xffff), udp_field(7)), (0xffff, 0xffff, 7));
    }

    #[test]
    fn a_pseudo_header_sums_like_its_bytes() {
        let v4 = [10, 0, 0, 1, 10, 0, 0, 2];
        assert_eq!(
            Sum::pseudo_v4(&v4, 17, 0x1234).folded(),
            by_the_letter(&[10, 0, 0, 1, 10, 0, 0, 2, 0, 17, 0x12, 0x34])
        );
        let v6: [u8; 32] = noise(32).try_into().unwrap();
        let mut bytes = v6.to_vec();
        bytes.extend([0, 1, 0x23, 0x45, 0, 0, 0, 6]);
        assert_eq!(Sum::pseudo_v6(&v6, 6, 0x12345).folded(), by_the_letter(&bytes));
    }
}
