//! The virtio-net header that a TAP or a packet socket puts in front of a frame (virtio 1.2 §5.1.6): offload facts as a
//! kernel says them, little-endian. What the facts mean is the core's; who may have which is the link's.

use vswitch_core::Offload;
use vswitch_core::offload::{self, Checksum, Gso, GsoKind};
use vswitch_core::wire::ip::Tcp;

/// Its length in bytes, without the count of merged buffers.
pub(super) const LEN: usize = 10;

/// A frame that owes nothing.
pub(super) const NOTHING: [u8; LEN] = [0; LEN];

/// Wire frames that one superframe may stand for: with 32 bytes of data each, 64 KiB. Linux makes none of more unless
/// somebody sets an MSS near the least (48, options included); whoever writes its own headers could ask for 65,000.
pub(super) const MOST: usize = 2048;

const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// Beside a kind of TCP: the superframe has CWR set.
const GSO_ECN: u8 = 0x80;

/// What `header` says that `frame` owes; `None` when it says something that cannot be true of the frame, or that
/// nobody asked for.
pub(super) fn read(header: [u8; LEN], frame: &[u8]) -> Option<Offload> {
    let [flags, kind, .., size_low, size_high, start_low, start_high, offset_low, offset_high] = header;
    let checksum = (flags & NEEDS_CSUM != 0).then_some(Checksum {
        start: u16::from_le_bytes([start_low, start_high]),
        offset: u16::from_le_bytes([offset_low, offset_high]),
    });
    let kind = match kind & !GSO_ECN {
        0 => return Some(Offload { checksum, gso: None }),
        GSO_TCPV4 => GsoKind::Tcp4,
        GSO_TCPV6 => GsoKind::Tcp6,
        GSO_UDP_L4 => GsoKind::Udp,
        _ => return None,
    };
    // The header's own idea of the headers' length is a hint only.
    let header_len = offload::header_len(frame, kind)?;
    let size = u16::from_le_bytes([size_low, size_high]);
    let gso = Gso { kind, size, header_len };
    // None at all where the size is 0.
    (1..=MOST).contains(&offload::count(frame.len(), &gso)).then_some(Offload { checksum, gso: Some(gso) })
}

/// The header of a frame that owes `owed`; `cwr` says that it is a TCP superframe with CWR set.
pub(super) fn header(owed: Offload, cwr: bool) -> [u8; LEN] {
    let [start_low, start_high] = owed.checksum.map_or(0, |checksum| checksum.start).to_le_bytes();
    let [offset_low, offset_high] = owed.checksum.map_or(0, |checksum| checksum.offset).to_le_bytes();
    let [len_low, len_high] = owed.gso.map_or(0, |gso| gso.header_len).to_le_bytes();
    let [size_low, size_high] = owed.gso.map_or(0, |gso| gso.size).to_le_bytes();
    let flags = if owed.checksum.is_some() { NEEDS_CSUM } else { 0 };
    let kind = match owed.gso.map(|gso| gso.kind) {
        None => 0,
        Some(GsoKind::Tcp4) => GSO_TCPV4,
        Some(GsoKind::Tcp6) => GSO_TCPV6,
        Some(GsoKind::Udp) => GSO_UDP_L4,
    };
    let ecn = if cwr { GSO_ECN } else { 0 };
    [
        flags,
        kind | ecn,
        len_low,
        len_high,
        size_low,
        size_high,
        start_low,
        start_high,
        offset_low,
        offset_high,
    ]
}

/// The header of a frame of `pieces` that owes `owed`.
pub(super) fn header_of<'a>(owed: Offload, pieces: impl Iterator<Item = &'a [u8]>) -> [u8; LEN] {
    header(owed, owed.gso.is_some() && has_cwr(pieces, owed))
}

/// Whether a TCP superframe that owes its checksum has CWR set.
fn has_cwr<'a>(pieces: impl Iterator<Item = &'a [u8]>, owed: Offload) -> bool {
    let tcp = owed.gso.is_some_and(|gso| gso.kind != GsoKind::Udp);
    let Some(checksum) = owed.checksum.filter(|_| tcp) else { return false };
    // The flags, from the header's first byte (RFC 9293 §3.1).
    let mut at = usize::from(checksum.start) + 13;
    for piece in pieces {
        match piece.get(at) {
            Some(flags) => return flags & Tcp::CWR != 0,
            None => at -= piece.len(),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ethernet, IPv4 of `total` bytes, TCP without options.
    fn tcp(total: u16) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend([8, 0, 0x45, 0]);
        frame.extend(total.to_be_bytes());
        frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0, 7, 0, 9, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
        frame.resize(14 + usize::from(total), 3);
        frame
    }

    #[test]
    fn what_is_written_is_read_again() {
        let frame = tcp(3040);
        let checksum = Some(Checksum { start: 34, offset: 16 });
        let gso = Some(Gso { kind: GsoKind::Tcp4, size: 1460, header_len: 54 });
        for facts in [Offload { checksum, gso }, Offload { checksum, gso: None }, Offload::NONE] {
            assert_eq!(read(header(facts, false), &frame), Some(facts));
        }
        let with_cwr = header(Offload { checksum, gso }, true);
        assert_eq!((with_cwr[1], read(with_cwr, &frame)), (0x81, Some(Offload { checksum, gso })));
        assert_eq!(header(Offload::NONE, false), NOTHING);
    }

    #[test]
    fn facts_that_cannot_be_true_are_refused() {
        let frame = tcp(3040);
        let gso = |kind, size: u8| [1, kind, 54, 0, size, 0, 34, 0, 16, 0];
        assert!(read(gso(1, 100), &frame).is_some());
        // IPv6 and UDP it is not; a size of 0 cuts nothing; IPv4 fragmentation (3) and 9 nobody asked for.
        for header in [gso(4, 100), gso(5, 100), gso(1, 0), gso(3, 100), gso(9, 100)] {
            assert_eq!(read(header, &frame), None, "{header:?}");
        }
        assert_eq!(read(gso(1, 100), &frame[..60]), None);
        // 3,000 bytes, one or two in a wire frame.
        assert_eq!(read(gso(1, 1), &frame), None);
        assert!(read(gso(1, 2), &frame).is_some());
    }
}
