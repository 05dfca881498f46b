//! Reading and writing what stands on the wire: Ethernet, tags, VXLAN, the flow hash, checksums.

use criterion::Criterion;
use std::hint::black_box;
use vswitch_benches::{criterion, station, tcp, udp};
use vswitch_core::wire::{checksum, ethernet, flow, ip, vlan, vxlan};
use vswitch_core::{Vid, Vni};

fn read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read");
    let frame = udp(64);
    group.bench_function("ethernet addresses", |b| b.iter(|| ethernet::addresses(black_box(&frame))));
    let tag = |vid| vlan::Tag::new(vlan::TPID_CTAG, vlan::Priority::ZERO, vid).bytes();
    for depth in 0..3_u16 {
        let tags: Vec<u8> = (0..depth).flat_map(|i| tag(i + 1)).collect();
        let frame = [&frame[..12], &tags, &frame[12..]].concat();
        group.bench_function(format!("tag, {depth} there"), |b| {
            b.iter(|| vlan::tag_at(black_box(&frame), ethernet::ADDRESSES_LEN));
        });
        group.bench_function(format!("tag stack, {depth} deep"), |b| {
            b.iter(|| vlan::tag_stack(black_box(&frame)));
        });
    }
    let datagram = [&vxlan::header(vni())[..], &frame].concat();
    group.bench_function("vxlan header", |b| {
        b.iter(|| {
            let header = vxlan::Header::parse(black_box(&datagram))?;
            (header.has_vni() && header.reserved_is_zero()).then_some(header.vni())
        });
    });
    let (v4, v6) = (tcp(false, 10), tcp(true, 10));
    for (name, frame) in [("udp4", &frame), ("tcp4", &v4), ("tcp6", &v6)] {
        group.bench_function(format!("ip and transport, {name}"), |b| {
            b.iter(|| {
                let ip = ip::find(black_box(frame))?;
                Some((ip.transport_at, ip.tcp().is_some(), ip.udp().is_some()))
            });
        });
        group.bench_function(format!("entropy, {name}"), |b| b.iter(|| flow::entropy(black_box(frame))));
    }
    group.finish();
}

fn write(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("write");
    group.bench_function("vxlan header", |b| b.iter(|| vxlan::header(black_box(vni()))));
    let vid = Vid::new(100).expect("100 is a VID").get();
    group.bench_function("tag", |b| {
        b.iter(|| vlan::Tag::new(vlan::TPID_CTAG, vlan::Priority::ZERO, black_box(vid)).bytes());
    });
    group.bench_function("ethernet and tag", |b| {
        let (dst, src) = (station(1), station(2));
        let mut head = [0; 16];
        b.iter(|| {
            head[..6].copy_from_slice(&black_box(dst).bytes());
            head[6..12].copy_from_slice(&black_box(src).bytes());
            head[12..].copy_from_slice(
                &vlan::Tag::new(vlan::TPID_CTAG, vlan::Priority::ZERO, black_box(vid)).bytes(),
            );
            black_box(&head);
        });
    });
    group.finish();
}

fn sums(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum");
    for len in [20, 64, 576, 1400, 9000, 65_535] {
        let bytes = udp(len.max(42));
        group.bench_function(format!("{len} bytes"), |b| {
            b.iter(|| checksum::checksum(black_box(&bytes[..len])));
        });
    }
    group.finish();
}

fn vni() -> Vni {
    Vni::new(10_010).expect("10010 is a VNI")
}

fn main() {
    let mut criterion = criterion();
    read(&mut criterion);
    write(&mut criterion);
    sums(&mut criterion);
    criterion.final_summary();
}
