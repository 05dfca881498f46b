//! Finishing a transport checksum, and recognising one that somebody forgot to finish.

use super::{Checksum, OffloadError};
use crate::wire::checksum::{Sum, udp_field};
use crate::wire::ip::{self, PROTOCOL_TCP, PROTOCOL_UDP, Tcp, Udp};

/// Writes the finished checksum into `frame`. Everything from [`Checksum::start`] to the end is summed, so that
/// padding behind the datagram must be zeros (as in [`partial_checksum`]).
///
/// # Errors
/// [`OffloadError::Checksum`], and nothing is written, when the field does not lie in the frame or stands
/// across two words.
pub fn finish_checksum(frame: &mut [u8], checksum: Checksum) -> Result<(), OffloadError> {
    let value = finished_value([&*frame], checksum).ok_or(OffloadError::Checksum)?;
    let at = usize::from(checksum.start) + usize::from(checksum.offset);
    let field = frame.get_mut(at..at + 2).ok_or(OffloadError::Checksum)?;
    field.copy_from_slice(&value.to_be_bytes());
    Ok(())
}

/// The value that belongs into the checksum field of the frame made of `pieces`, which may be of any lengths.
/// `None` when the field does not lie in the frame or stands across two words.
///
/// The field itself is summed with the rest: it holds the folded sum of the pseudo-header. A field at offset 6
/// is that of UDP, UDP-Lite (RFC 3828 §3.1) or DCCP; TCP's is at 16, ICMP's at 2. The first two must not show 0,
/// which means "none" there (RFC 768), so a 0 at offset 6 becomes 0xffff. That is safe without knowing the
/// protocol: both are zero in one's complement, and a receiver sums the field with the rest.
#[must_use]
pub fn finished_value<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, checksum: Checksum) -> Option<u16> {
    let mut before = usize::from(checksum.start);
    let (mut sum, mut len) = (Sum::new(), 0);
    for piece in pieces {
        let (skipped, summed) = piece.split_at(before.min(piece.len()));
        before -= skipped.len();
        sum = sum.with(summed);
        len += summed.len();
    }
    if !checksum.offset.is_multiple_of(2) || usize::from(checksum.offset) + 2 > len {
        return None;
    }
    let value = sum.checksum();
    Some(if checksum.offset == Udp::CHECKSUM_OFFSET { udp_field(value) } else { value })
}

/// Recognises a TCP or UDP frame whose checksum its sender left to an interface that never did it: the field
/// equals the folded sum of the pseudo-header, not complemented. A Linux VXLAN peer over veth leaves such inner
/// frames behind. `None` for every other frame, for parts of fragmented datagrams, behind a routing header that
/// is not used up, for UDP without a checksum (0: a pseudo-header never sums to that), and when the padding
/// behind the datagram is not all zeros.
///
/// Finishing such a frame harms nobody, even when the field was right and equal by chance (one frame in 65,536).
/// Let P be the sum of the pseudo-header, D that of header and data without the field. Right means that the
/// field is ~(P + D). Finishing sums D and the field, and the field is P: the result is ~(P + D), so a field
/// that was right stays as it is. What is lost is only the one chance in 65,536 to notice damage that turned the
/// sum of a finished frame into this very value; the outer checksum and the link's own still stand before it.
#[must_use]
pub fn partial_checksum(frame: &[u8]) -> Option<Checksum> {
    let ip = ip::find(frame)?;
    if ip.is_part() {
        return None;
    }
    let len = ip.end - ip.transport_at;
    let (field, offset) = match ip.protocol {
        PROTOCOL_TCP => (ip.tcp()?.checksum, Tcp::CHECKSUM_OFFSET),
        PROTOCOL_UDP => {
            let udp = ip.udp().filter(|udp| usize::from(udp.len) == len)?;
            (udp.checksum, Udp::CHECKSUM_OFFSET)
        }
        _ => return None,
    };
    if field != ip.pseudo_header(len)?.folded() || frame.get(ip.end..)?.iter().any(|byte| *byte != 0) {
        return None;
    }
    Some(Checksum { start: u16::try_from(ip.transport_at).ok()?, offset })
}
