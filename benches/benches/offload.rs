//! What a frame still owes: finishing a checksum, cutting a superframe, merging a train. The time is that of one
//! wire frame.

use criterion::Criterion;
use std::hint::black_box;
use vswitch_benches::{criterion, each, tcp, udp};
use vswitch_core::offload::{
    self, Checksum, Gso, GsoKind, MAX_PIECES, Offload, Train, finish_checksum, partial_checksum,
};

fn finish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("finish a checksum");
    for len in [64, 576, 1514, 9014] {
        let mut frame = udp(len);
        let owed = Checksum { start: 34, offset: 6 };
        group.bench_function(format!("{len} bytes"), |b| {
            b.iter(|| finish_checksum(black_box(&mut frame), owed));
        });
    }
    let frame = tcp(false, 1448);
    group.bench_function("ask whether one is owed", |b| b.iter(|| partial_checksum(black_box(&frame))));
    group.finish();
}

/// A superframe of `payload` bytes, to be cut at `size`.
fn superframe(kind: GsoKind, payload: usize, size: u16) -> (Vec<u8>, Offload) {
    let (bytes, header_len, start, offset) = match kind {
        GsoKind::Tcp4 => (tcp(false, payload), 66, 34, 16),
        GsoKind::Tcp6 => (tcp(true, payload), 86, 54, 16),
        GsoKind::Udp => (udp(42 + payload), 42, 34, 6),
    };
    let checksum = Some(Checksum { start, offset });
    (bytes, Offload { checksum, gso: Some(Gso { kind, size, header_len }) })
}

const SHAPES: [(&str, GsoKind, usize, u16); 4] = [
    ("tcp4 64k by 1448", GsoKind::Tcp4, 65_160, 1448),
    ("tcp6 64k by 1428", GsoKind::Tcp6, 64_260, 1428),
    ("udp 45k by 1400", GsoKind::Udp, 44_800, 1400),
    ("tcp4 4k by 1448", GsoKind::Tcp4, 4344, 1448),
];

fn cut(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cut, per segment");
    for (name, kind, payload, size) in SHAPES {
        let (bytes, facts) = superframe(kind, payload, size);
        let count = facts.gso.map_or(1, |gso| offload::count(bytes.len(), &gso));
        group.bench_function(name, |b| {
            each(b, count as u64, || {
                let cut = offload::cut(black_box(&bytes), &facts, |head, payload| {
                    black_box((head, payload));
                });
                assert_eq!(cut, Ok(count));
            });
        });
    }
    group.finish();
}

fn merge(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("merge, per segment");
    for (name, kind, payload, size) in SHAPES {
        let (bytes, facts) = superframe(kind, payload, size);
        let mut frames = Vec::new();
        let cut = offload::cut(&bytes, &facts, |head, payload| frames.push([head, &bytes[payload]].concat()));
        assert!(cut.is_ok_and(|count| count <= MAX_PIECES), "{name}: {cut:?}");
        for (how, verified) in [("sums trusted", true), ("sums checked", false)] {
            let mut train = Train::new();
            group.bench_function(format!("{name}, {how}"), |b| {
                each(b, frames.len() as u64, || {
                    train.clear();
                    for (i, frame) in frames.iter().enumerate() {
                        assert!(train.offer(i, 0, black_box(frame), verified));
                    }
                    black_box(train.merged());
                });
            });
        }
    }
    group.finish();
}

fn main() {
    let mut criterion = criterion();
    finish(&mut criterion);
    cut(&mut criterion);
    merge(&mut criterion);
    criterion.final_summary();
}
