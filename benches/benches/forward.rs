//! The whole decision for frames of 64 bytes: as it is, with a tag put in or taken out, a flood, into the tunnel and
//! out of it, in batches of 1 to 64; every port has a limit of stations, everything is counted.
//!
//! What criterion prints is the time of one frame, with writing its addresses into the batch. The tables behind it
//! subtract that: by how many stations there are, by ports and peers, with many flows, in trains of one flow, and with
//! two threads over one MAC table. `cargo bench … --bench forward -- tables` prints these alone.

use criterion::Criterion;
use std::sync::Arc;
use vswitch_benches::traffic::{Scene, Traffic, Way};
use vswitch_benches::{SLICE, Slices, abreast, criterion, each, timed};
use vswitch_core::MacTable;

const WAYS: [(&str, Way); 6] = [
    ("plain", Way::Plain),
    ("tag in", Way::Tag),
    ("tag out", Way::Untag),
    ("flood to 15", Way::Flood),
    ("encap", Way::Encap),
    ("decap", Way::Decap),
];

fn batches(criterion: &mut Criterion) {
    for (name, way) in WAYS {
        let mut group = criterion.benchmark_group(name);
        for batch in [1, 8, 32, 64] {
            let scene = Scene { batch, ..Scene::new(way) };
            let mut traffic = Traffic::new(scene, &scene.table(), 3);
            let size = u64::try_from(batch).unwrap_or(1);
            group.bench_function(format!("batch {batch}"), |b| each(b, size, || traffic.forward()));
        }
        group.finish();
    }
}

/// Nanoseconds for writing a frame, and for forwarding it.
fn net(traffic: &mut Traffic, slices: usize) -> (f64, f64) {
    let (mut both, mut write) = (Slices::default(), Slices::default());
    let rounds = SLICE / 32;
    for _ in 0..slices {
        both.add(timed(|| (0..rounds).for_each(|_| traffic.forward())), SLICE);
        write.add(timed(|| (0..rounds).for_each(|_| traffic.fill())), SLICE);
    }
    let write = write.nanos();
    (write, both.nanos() - write)
}

/// Prints what a frame of each scene costs: the median of five laps, interleaved.
fn table(title: &str, scenes: &[(String, Scene)], laps: usize) {
    let mut traffic: Vec<_> =
        scenes.iter().map(|(_, scene)| Traffic::new(*scene, &scene.table(), 3)).collect();
    let mut times = vec![(Slices::default(), Slices::default()); scenes.len()];
    for _ in 0..laps {
        for (traffic, times) in traffic.iter_mut().zip(&mut times) {
            let (write, forward) = net(traffic, if laps == 1 { 10 } else { 1500 });
            times.0.note(write);
            times.1.note(forward);
        }
    }
    println!("{title}");
    for ((name, _), (write, forward)) in scenes.iter().zip(&mut times) {
        println!("    {name:<44}{:>7.1} ns, beside {:.1} for writing it", forward.nanos(), write.nanos());
    }
}

/// One thread, then two, over one table: nanoseconds a frame of all threads together.
fn threads(stations: u64, laps: usize) {
    let scene = Scene { stations, ..Scene::new(Way::Either) };
    let macs = scene.table();
    let (mut one, mut two) = (Slices::default(), Slices::default());
    for _ in 0..laps {
        one.note(of_threads(scene, &macs, 1));
        two.note(of_threads(scene, &macs, 2));
    }
    let (one, two) = (one.nanos(), two.nanos());
    println!("two threads over one table of {stations} stations");
    println!("    one thread {one:.1} ns a frame, two {two:.1} together: × {:.2}", one / two);
}

/// Without what writing the frames takes: half of that for each of two.
fn of_threads(scene: Scene, macs: &Arc<MacTable>, threads: u64) -> f64 {
    let traffic = || (0..threads).map(|seed| Traffic::new(scene, macs, 5 + seed));
    let forward = traffic().map(|mut traffic| move || traffic.forward()).collect();
    let write = traffic().map(|mut traffic| move || traffic.fill()).collect();
    abreast(forward, 32) - abreast(write, 32)
}

fn tables(laps: usize) {
    let tagged = Scene::new(Way::Either);
    let of = |name: String, scene| (name, scene);
    let scenes = [1_000, 10_000, 100_000, 1_000_000]
        .map(|stations| of(format!("{stations} stations"), Scene { stations, ..tagged }));
    table("a tag put in or taken out, at random", &scenes, laps);
    let all = [
        of("the same, all frames in".into(), Scene::new(Way::Untag)),
        of("the same, all frames out".into(), Scene::new(Way::Tag)),
        of("no tag".into(), Scene::new(Way::Plain)),
        of("5,000 stations, 20,000 flows".into(), Scene { stations: 5_000, flows: 20_000, ..tagged }),
        of("one flow".into(), Scene { stations: 2, flows: 1, ..tagged }),
    ];
    table("10,000 stations", &all, laps);
    let ports = |name: &str, way, ports, peers| {
        of(format!("{name}, {ports} ports, {peers} peers"), Scene { ports, peers, ..Scene::new(way) })
    };
    let many = [("a tag in or out", Way::Either), ("encap", Way::Encap), ("decap", Way::Decap)]
        .map(|(name, way)| [ports(name, way, 2, 2), ports(name, way, 1000, 1000)]);
    table("few and many ports and peers", &many.concat(), laps);
    let trains = [("a tag in or out", Way::Either), ("encap", Way::Encap), ("decap", Way::Decap)].map(
        |(name, way)| {
            [1, 44].map(|train| of(format!("{name}, {train} in a row"), Scene { train, ..Scene::new(way) }))
        },
    );
    table("frames of one flow in a row", &trains.concat(), laps);
    for stations in [10_000, 1_000_000] {
        threads(stations, laps);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_test = arguments.iter().any(|argument| argument == "--test");
    let is_tables = arguments.iter().any(|argument| argument == "tables");
    if !is_tables {
        let mut criterion = criterion();
        batches(&mut criterion);
        criterion.final_summary();
    }
    if is_test {
        let few = Scene { stations: 100, ..Scene::new(Way::Either) };
        table("as a test", &[("100 stations".into(), few)], 1);
        threads(100, 1);
    } else if is_tables || arguments.iter().all(|argument| argument.starts_with("--")) {
        tables(5);
    }
}
