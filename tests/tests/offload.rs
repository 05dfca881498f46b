//! Properties of offload: cutting, merging, finishing checksums; with pnet as an independent opinion.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use pnet_packet::{ipv4, ipv6, tcp, udp};
use proptest::collection::vec;
use proptest::prelude::*;
use vswitch_core::Offload;
use vswitch_core::frame::MAX_HEAD_LEN;
use vswitch_core::offload::{self, Checksum, MAX_HEADERS_LEN, MAX_PIECES, OffloadError, Sums, Train};
use vswitch_core::wire::checksum::Sum;
use vswitch_tests::offload_body::{
    Choices, Layout, Superframe, any_bytes_body, changed_train_body, cut_merge_body, merged_frame, ones_sum,
    repair, right_checksum, seed, superframe, wire_frames, word_at,
};

/// What pnet says the transport checksum should be. It leaves it to its caller that UDP must not show 0.
fn pnet_checksum(frame: &[u8], layout: &Layout) -> u16 {
    match pnet_sum(frame, layout) {
        0 if layout.is_udp() => 0xffff,
        sum => sum,
    }
}

fn pnet_sum(frame: &[u8], layout: &Layout) -> u16 {
    let (ip_bytes, transport) = (&frame[layout.ip_at..], &frame[layout.transport_at..]);
    if layout.v6 {
        let ip = ipv6::Ipv6Packet::new(ip_bytes).unwrap();
        let (from, to) = (ip.get_source(), ip.get_destination());
        if layout.is_udp() {
            udp::ipv6_checksum(&udp::UdpPacket::new(transport).unwrap(), &from, &to)
        } else {
            tcp::ipv6_checksum(&tcp::TcpPacket::new(transport).unwrap(), &from, &to)
        }
    } else {
        let ip = ipv4::Ipv4Packet::new(ip_bytes).unwrap();
        let (from, to) = (ip.get_source(), ip.get_destination());
        if layout.is_udp() {
            udp::ipv4_checksum(&udp::UdpPacket::new(transport).unwrap(), &from, &to)
        } else {
            tcp::ipv4_checksum(&tcp::TcpPacket::new(transport).unwrap(), &from, &to)
        }
    }
}

/// A superframe of at least two wire frames that may be merged again.
fn mergeable(data: &[u8]) -> Option<(Superframe, Vec<Vec<u8>>)> {
    let mut whole = superframe(&mut Choices::new(data));
    if !whole.layout.is_udp() {
        whole.bytes[whole.layout.transport_at + 13] = 0x10;
    }
    let frames = wire_frames(&whole.bytes, &whole.facts).ok()?;
    (frames.len() >= 2).then_some((whole, frames))
}

/// How many of `frames` a fresh train takes.
fn taken(frames: &[Vec<u8>]) -> usize {
    let mut train = Train::new();
    frames.iter().enumerate().take_while(|(i, frame)| train.offer(*i, 0, frame, false)).count()
}

/// The superframe of `frames`, all of which must be taken.
fn merge(frames: &[Vec<u8>]) -> (Vec<u8>, Offload) {
    let mut train = Train::new();
    assert!(frames.iter().enumerate().all(|(i, frame)| train.offer(i, 0, frame, false)));
    merged_frame(&mut train, frames).unwrap()
}

/// `frame` in pieces, cut at `cuts` (any numbers).
fn in_pieces<'a>(frame: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (frame.len() + 1)).collect();
    cuts.extend([0, frame.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|ends| &frame[ends[0]..ends[1]]).collect()
}

fn bytes(range: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), range)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn cutting_and_merging_are_each_others_reverse(data in bytes(0..200)) {
        cut_merge_body(&data);
    }

    #[test]
    fn whatever_a_train_takes_comes_out_again(data in bytes(100..300)) {
        changed_train_body(&data);
    }

    #[test]
    fn any_bytes_with_any_facts_are_survived(data in bytes(0..400)) {
        any_bytes_body(&data);
    }

    #[test]
    fn wire_frames_have_the_checksums_that_pnet_computes(data in bytes(100..200)) {
        let whole = superframe(&mut Choices::new(&data));
        let layout = whole.layout;
        for frame in wire_frames(&whole.bytes, &whole.facts).unwrap_or_default() {
            if !layout.v6 {
                let ip = ipv4::Ipv4Packet::new(&frame[layout.ip_at..]).unwrap();
                prop_assert_eq!(ip.get_checksum(), ipv4::checksum(&ip));
                prop_assert_eq!(usize::from(ip.get_total_length()), frame.len() - layout.ip_at);
            }
            let field = word_at(&frame, layout.checksum_at());
            prop_assert_eq!(field, pnet_checksum(&frame, &layout));
        }
    }

    #[test]
    fn a_finished_checksum_is_the_one_that_pnet_computes(data in bytes(100..200), cuts in vec(0..70_000usize, 0..6)) {
        let whole = superframe(&mut Choices::new(&data));
        let (mut frame, layout) = (whole.bytes, whole.layout);
        let checksum = whole.facts.checksum.unwrap();
        prop_assert_eq!(offload::partial_checksum(&frame), Some(checksum));
        let value = offload::finished_value(in_pieces(&frame, &cuts), checksum);
        offload::finish_checksum(&mut frame, checksum).unwrap();
        prop_assert_eq!(Some(word_at(&frame, layout.checksum_at())), value);
        prop_assert_eq!(value, Some(pnet_checksum(&frame, &layout)));
        prop_assert_eq!(value, Some(right_checksum(&frame, &layout)));
    }

    #[test]
    fn finishing_a_right_checksum_that_looks_unfinished_changes_nothing(data in bytes(100..200)) {
        // Two payload bytes are chosen so that the right checksum equals the sum of the pseudo-header.
        let mut whole = superframe(&mut Choices::new(&data));
        let layout = whole.layout;
        let at = layout.header_len;
        whole.bytes.truncate(at);
        whole.bytes.extend([0, 0]);
        seed(&mut whole.bytes, &layout);
        let wanted = word_at(&whole.bytes, layout.checksum_at());
        // A pseudo-header that sums to 0xffff: the right checksum is its equal in one's complement, 0, and looks finished.
        prop_assume!(wanted != 0xffff || layout.is_udp());
        repair(&mut whole.bytes, &layout);
        let found = word_at(&whole.bytes, layout.checksum_at());
        let missing = ones_sum(&[found.to_be_bytes(), (!wanted).to_be_bytes()].concat());
        whole.bytes[at..].copy_from_slice(&missing.to_be_bytes());
        repair(&mut whole.bytes, &layout);
        prop_assert_eq!(word_at(&whole.bytes, layout.checksum_at()), wanted);
        let checksum = offload::partial_checksum(&whole.bytes).unwrap();
        let before = whole.bytes.clone();
        offload::finish_checksum(&mut whole.bytes, checksum).unwrap();
        prop_assert_eq!(whole.bytes, before);
    }

    #[test]
    fn frames_that_differ_in_what_must_not_differ_are_not_merged(data in bytes(100..200), bit in any::<u16>()) {
        let Some((whole, mut frames)) = mergeable(&data) else { return Ok(()) };
        let layout = whole.layout;
        let Layout { ip_at, transport_at, .. } = layout;
        frames.truncate(2);
        prop_assert_eq!(taken(&frames), 2);
        let at = usize::from(bit >> 3) % layout.header_len;
        let mut may_differ = vec![layout.checksum_at(), layout.checksum_at() + 1];
        may_differ.extend(if layout.v6 { vec![4, 5] } else { vec![2, 3, 10, 11] }.iter().map(|i| ip_at + i));
        may_differ.extend(if layout.is_udp() { transport_at + 4..transport_at + 6 } else { 0..0 });
        let is_push = !layout.is_udp() && at == transport_at + 13 && bit % 8 == 3;
        // 0, 1 may become 0, 0.
        let is_id_zero = !layout.v6 && at == ip_at + 5 && word_at(&frames[0], ip_at + 4) == 0;
        if may_differ.contains(&at) || is_push || is_id_zero {
            return Ok(());
        }
        frames[1][at] ^= 1 << (bit % 8);
        repair(&mut frames[1], &layout);
        prop_assert_eq!(taken(&frames), 1, "byte {} of {:?}", at, layout);
    }

    #[test]
    fn a_damaged_frame_is_not_merged_unless_it_is_vouched_for(data in bytes(100..200), at in any::<u16>()) {
        let Some((whole, mut frames)) = mergeable(&data) else { return Ok(()) };
        let layout = whole.layout;
        frames.truncate(2);
        let both = |frames: &[Vec<u8>]| {
            let mut train = Train::new();
            (0..2).all(|i| train.offer(i, 0, &frames[i], true))
        };
        let mut damaged = frames.clone();
        let payload = damaged[1].len() - layout.header_len;
        damaged[1][layout.header_len + usize::from(at) % payload] ^= 0x10;
        prop_assert_eq!(taken(&damaged), 1);
        prop_assert!(both(&damaged));
        if !layout.v6 {
            frames[1][layout.ip_at + 10] ^= 1;
            prop_assert!(!both(&frames));
        }
    }

    #[test]
    fn unfinished_frames_merge_like_finished_ones(data in bytes(100..200)) {
        let Some((whole, mut frames)) = mergeable(&data) else { return Ok(()) };
        frames.truncate(MAX_PIECES);
        let finished = merge(&frames);
        frames.iter_mut().for_each(|frame| seed(frame, &whole.layout));
        prop_assert!(merge(&frames) == finished);
    }

    #[test]
    fn a_frame_in_two_parts_is_taken_like_a_whole_one(data in bytes(100..200), cuts in vec(any::<u16>(), 20), damage in any::<u16>()) {
        let Some((whole, mut frames)) = mergeable(&data) else { return Ok(()) };
        frames.truncate(cuts.len());
        let header_len = whole.layout.header_len;
        // Now and then a frame that must be refused, wherever its parts meet.
        let bent = usize::from(damage >> 4) % frames.len();
        let payload = frames[bent].len() - header_len;
        frames[bent][header_len + usize::from(damage) % payload] ^= u8::from(damage % 3 == 0);
        let (mut in_one, mut in_two) = (Train::new(), Train::new());
        for ((i, frame), cut) in frames.iter().enumerate().zip(cuts) {
            let (front, rest) = frame.split_at(header_len + usize::from(cut) % (frame.len() - header_len + 1));
            let taken = in_one.offer(i, 7, frame, false);
            prop_assert_eq!(in_two.offer_parts(i, 7, front, rest, Sums::Unknown), taken, "frame {}", i);
        }
        let [one, two] = [&mut in_one, &mut in_two].map(|train| {
            train.merged().map(|merged| (merged.head.to_vec(), merged.pieces.to_vec(), merged.offload))
        });
        prop_assert!(one == two);
    }

    #[test]
    fn a_frame_that_owes_a_checksum_is_taken_when_it_is_that_of_its_transport(data in bytes(100..200), bit in 0..16_u16) {
        let Some((whole, mut frames)) = mergeable(&data) else { return Ok(()) };
        frames.truncate(2);
        frames.iter_mut().for_each(|frame| seed(frame, &whole.layout));
        let right = whole.facts.checksum.unwrap();
        let taken = |checksum| {
            let mut train = Train::new();
            let offered = frames.iter().enumerate();
            offered.take_while(|(i, f)| train.offer_parts(*i, 0, f, &[], Sums::Owed(checksum))).count()
        };
        prop_assert_eq!(taken(right), 2);
        prop_assert_eq!(taken(Checksum { start: right.start ^ (1 << bit), ..right }), 0);
        prop_assert_eq!(taken(Checksum { offset: right.offset ^ (1 << bit), ..right }), 0);
    }

    #[test]
    fn sums_of_pieces_equal_the_sum_of_the_whole(bytes in bytes(1..3000), cuts in vec(0..3000usize, 0..8)) {
        let sum = in_pieces(&bytes, &cuts).into_iter().fold(Sum::new(), Sum::with);
        prop_assert_eq!(sum.folded(), ones_sum(&bytes));
        prop_assert_eq!(sum.checksum(), pnet_packet::util::checksum(&bytes, usize::MAX));
    }
}

/// Two full frames and a short one: TCP over IPv4, DF as given, identifications from `id` on.
fn tcp4(dont_fragment: bool, id: u16) -> (Layout, Vec<Vec<u8>>) {
    let mut whole = superframe(&mut Choices::new(&[]));
    whole.bytes.resize(whole.layout.header_len + 250, 7);
    let at = whole.layout.ip_at;
    whole.bytes[at + 4..at + 6].copy_from_slice(&id.to_be_bytes());
    whole.bytes[at + 6] = if dont_fragment { 0x40 } else { 0 };
    seed(&mut whole.bytes, &whole.layout);
    whole.facts.gso.as_mut().unwrap().size = 100;
    (whole.layout, wire_frames(&whole.bytes, &whole.facts).unwrap())
}

#[test]
fn the_identification_grows_by_one_or_stays_zero_under_df() {
    for (dont_fragment, ids, expected) in [
        (true, [0u16, 0, 0], 3),
        (false, [0, 0, 0], 1),
        (true, [5, 5, 5], 1),
        (true, [5, 6, 7], 3),
        (false, [65_535, 0, 1], 3),
        (true, [0, 1, 2], 3),
        (true, [0, 1, 1], 2),
        (true, [0, 0, 1], 2),
        (false, [5, 7, 9], 1),
    ] {
        let (layout, mut frames) = tcp4(dont_fragment, 0);
        for (frame, id) in frames.iter_mut().zip(ids) {
            frame[layout.ip_at + 4..layout.ip_at + 6].copy_from_slice(&id.to_be_bytes());
            repair(frame, &layout);
        }
        assert_eq!(taken(&frames), expected, "DF {dont_fragment}, {ids:?}");
    }
}

#[test]
fn push_or_a_short_frame_ends_a_train() {
    let (layout, frames) = tcp4(true, 1);
    assert_eq!(taken(&frames), 3);
    let mut pushed = frames.clone();
    pushed[1][layout.transport_at + 13] |= 8;
    repair(&mut pushed[1], &layout);
    assert_eq!(taken(&pushed), 2);
    let (merged, _) = merge(&pushed[..2]);
    assert_eq!(merged[layout.transport_at + 13], 0x18);
    // The short frame in front: the long ones are too long for it.
    assert_eq!(taken(&[frames[2].clone(), frames[0].clone()]), 1);
}

#[test]
fn a_cleared_train_begins_anew() {
    let (_, frames) = tcp4(true, 1);
    let mut train = Train::new();
    assert!(train.merged().is_none());
    for _ in 0..2 {
        assert!((0..3).all(|i| train.offer(i, 0, &frames[i], false)));
        assert!(!train.offer(3, 0, &frames[0], false));
        assert_eq!(merged_frame(&mut train, &frames), Some(merge(&frames)));
        train.clear();
        assert!(train.is_empty() && train.merged().is_none());
    }
}

#[test]
fn pieces_count_from_the_arrived_frames_first_byte() {
    let (layout, frames) = tcp4(true, 1);
    let mut train = Train::new();
    assert!(train.offer(7, 8, &frames[0], false) && train.offer(9, 50, &frames[1], false));
    let pieces = train.merged().unwrap().pieces.to_vec();
    let from = u32::try_from(layout.header_len).unwrap();
    let numbers: Vec<_> = pieces.iter().map(|p| (p.frame, p.from, p.to)).collect();
    assert_eq!(numbers, [(7, 8 + from, 108 + from), (9, 50 + from, 150 + from)]);
}

#[test]
fn padding_is_neither_merged_nor_summed() {
    let (_, frames) = tcp4(true, 1);
    let mut padded = frames.clone();
    padded.iter_mut().for_each(|frame| frame.extend([0xee; 9]));
    assert_eq!(merge(&padded), merge(&frames));
}

#[test]
fn a_train_stops_at_what_ip_and_its_own_room_can_hold() {
    let whole = superframe(&mut Choices::new(&[]));
    let Layout { ip_at, transport_at, header_len, .. } = whole.layout;
    for (size, expected) in [(1400, (65_535 - 40) / 1400), (10, MAX_PIECES), (65_495, 1)] {
        let frame = |i: usize| {
            let mut frame = whole.bytes[..header_len].to_vec();
            frame.resize(header_len + size, 1);
            frame[ip_at + 4..ip_at + 6].copy_from_slice(&u16::try_from(i).unwrap().to_be_bytes());
            let sequence = u32::try_from(i * size).unwrap();
            frame[transport_at + 4..transport_at + 8].copy_from_slice(&sequence.to_be_bytes());
            seed(&mut frame, &whole.layout);
            repair(&mut frame, &whole.layout);
            frame
        };
        assert_eq!(taken(&(0..200).map(frame).collect::<Vec<_>>()), expected, "{size}");
    }
}

#[test]
fn udp_without_a_checksum_is_neither_unfinished_nor_merged() {
    // The second bit of the first byte draws UDP.
    let mut whole = superframe(&mut Choices::new(&[2]));
    let at = whole.layout.checksum_at();
    assert!(offload::partial_checksum(&whole.bytes).is_some());
    whole.bytes[at..at + 2].copy_from_slice(&[0, 0]);
    assert_eq!(offload::partial_checksum(&whole.bytes), None);
    assert!(!Train::new().offer(0, 0, &whole.bytes, true));
    // Nor behind one that has a checksum.
    let mut whole = superframe(&mut Choices::new(&[2]));
    whole.bytes.resize(whole.layout.header_len + 300, 7);
    seed(&mut whole.bytes, &whole.layout);
    whole.facts.gso.as_mut().unwrap().size = 100;
    let mut frames = wire_frames(&whole.bytes, &whole.facts).unwrap();
    assert_eq!(taken(&frames), 3);
    frames[1][at..at + 2].copy_from_slice(&[0, 0]);
    assert_eq!(taken(&frames), 1);
}

#[test]
fn an_unfinished_checksum_is_recognised_before_zeros_only() {
    let (layout, mut frames) = tcp4(true, 1);
    assert_eq!(offload::partial_checksum(&frames[0]), None);
    let frame = &mut frames[0];
    seed(frame, &layout);
    frame.extend([0; 6]);
    let checksum = offload::partial_checksum(frame).unwrap();
    let mut finished = frame.clone();
    offload::finish_checksum(&mut finished, checksum).unwrap();
    finished.truncate(finished.len() - 6);
    assert_eq!(word_at(&finished, layout.checksum_at()), right_checksum(&finished, &layout));
    frame.push(1);
    assert_eq!(offload::partial_checksum(frame), None);
}

#[test]
fn what_is_no_whole_plain_segment_begins_no_train() {
    let (layout, frames) = tcp4(false, 1);
    let refused = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = frames[0].clone();
        change(&mut frame);
        repair(&mut frame, &layout);
        !Train::new().offer(0, 0, &frame, false)
    };
    let at = layout.transport_at;
    for flags in [0x00, 0x08, 0x11, 0x12, 0x14, 0x30, 0x50, 0x90] {
        assert!(refused(&|frame| frame[at + 13] = flags), "flags {flags:02x}");
    }
    assert!(refused(&|frame| frame[at + 12] |= 1), "the ninth flag");
    assert!(refused(&|frame| frame[layout.ip_at + 6] |= 0x20), "more fragments");
    assert!(refused(&|frame| frame[layout.ip_at + 7] = 1), "a later fragment");
    assert!(refused(&|frame| {
        frame.truncate(layout.header_len);
        seed(frame, &layout);
    }));
    assert!(!refused(&|_| ()));
}

#[test]
fn a_checksum_outside_the_frame_is_an_error_and_changes_nothing() {
    let mut frame = [1; 40];
    for (start, offset) in [(34, 6), (39, 0), (40, 0), (65_535, 65_534), (10, 7)] {
        let checksum = Checksum { start, offset };
        assert_eq!(offload::finish_checksum(&mut frame, checksum), Err(OffloadError::Checksum));
        assert_eq!(frame, [1; 40], "{start} {offset}");
    }
    assert_eq!(offload::finish_checksum(&mut frame, Checksum { start: 34, offset: 4 }), Ok(()));
}

#[test]
fn zero_becomes_all_ones_for_udp_alone() {
    let mut frame = [0; 20];
    frame[..2].copy_from_slice(&[0xff, 0xff]);
    for (offset, expected) in [(6, 0xffff), (16, 0)] {
        assert_eq!(offload::finished_value([&frame[..]], Checksum { start: 0, offset }), Some(expected));
    }
}

#[test]
fn facts_that_do_not_fit_are_refused_before_anything_is_cut() {
    let whole = superframe(&mut Choices::new(&[]));
    let wrong = |change: &dyn Fn(&mut Offload)| {
        let mut facts = whole.facts;
        change(&mut facts);
        wire_frames(&whole.bytes, &facts).map(|frames| frames.len())
    };
    let gso = whole.facts.gso.unwrap();
    let checksum = whole.facts.checksum.unwrap();
    let with = |gso| move |facts: &mut Offload| facts.gso = Some(gso);
    assert_eq!(wrong(&|_| ()), Ok(1));
    assert_eq!(wrong(&|facts| facts.gso = None), Err(OffloadError::NotSuperframe));
    assert_eq!(wrong(&with(offload::Gso { size: 0, ..gso })), Err(OffloadError::Size));
    let header_len = gso.header_len + 1;
    assert_eq!(wrong(&with(offload::Gso { header_len, ..gso })), Err(OffloadError::HeaderLen));
    for kind in [offload::GsoKind::Tcp6, offload::GsoKind::Udp] {
        assert_eq!(wrong(&with(offload::Gso { kind, ..gso })), Err(OffloadError::Headers));
    }
    for wrong_checksum in
        [Checksum { start: checksum.start + 1, ..checksum }, Checksum { offset: 6, ..checksum }]
    {
        let result = wrong(&|facts| facts.checksum = Some(wrong_checksum));
        assert_eq!(result, Err(OffloadError::Checksum));
    }
    let mut longer = whole.bytes.clone();
    longer.push(0);
    assert_eq!(wire_frames(&longer, &whole.facts), Err(OffloadError::Headers));
}

#[test]
fn behind_a_routing_header_the_senders_own_sum_is_used() {
    // UDP over IPv6, a routing header with one segment still to come.
    let mut whole = superframe(&mut Choices::new(&[3]));
    let Layout { ip_at, transport_at, .. } = whole.layout;
    whole.bytes.splice(transport_at..transport_at, [17, 0, 4, 1, 0, 0, 0, 0]);
    whole.bytes.resize(transport_at + 16 + 250, 9);
    whole.bytes[ip_at + 6] = 43;
    let layout = Layout { transport_at: transport_at + 8, header_len: transport_at + 16, ..whole.layout };
    seed(&mut whole.bytes, &layout);
    let mut facts = whole.facts.shifted(8).unwrap();
    facts.gso.as_mut().unwrap().size = 100;
    // The sender here meant the address in the header: as good as any other, as long as it is the sender's sum.
    let frames = wire_frames(&whole.bytes, &facts).unwrap();
    assert_eq!(frames.len(), 3);
    for frame in frames {
        assert_eq!(word_at(&frame, layout.checksum_at()), right_checksum(&frame, &layout));
        assert!(!Train::new().offer(0, 0, &frame, true));
    }
    facts.checksum = None;
    assert_eq!(wire_frames(&whole.bytes, &facts), Err(OffloadError::Headers));
}

#[test]
fn a_head_of_cut_and_merge_fits_the_transmit_list() {
    const { assert!(MAX_HEADERS_LEN <= MAX_HEAD_LEN) };
}
