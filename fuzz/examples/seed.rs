//! Seeds the corpora: every captured frame of ../shared/pcaps (or $VSWITCH_SHARED) to the targets that eat frames,
//! every VXLAN datagram among them to the one that eats datagrams, those of ARP and neighbour discovery to the one that
//! reads them, every file of configs/ to the one that eats files.
//! Run from anywhere: `cargo run -p vswitch-fuzz --example seed`. Running it again changes nothing.
//!
//! Not here: crash files, which the tests replay from where they are kept.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use vswitch_core::Vni;
use vswitch_core::wire::{ip, neigh, vxlan};
use vswitch_tests::cni_body::CNI_SEEDS;
use vswitch_tests::openflow_body::openflow_seeds;
use vswitch_tests::ovsdb_body::ovsdb_seeds;
use vswitch_tests::pcap;

/// The largest seed: longer ones make a fuzzer slow and are never needed.
const MAX_LEN: usize = 4096;

fn main() -> io::Result<()> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut frames = BTreeSet::new();
    if let Some(shared) = pcap::shared_dir() {
        for file in pcap::files(&shared.join("pcaps")) {
            frames.extend(pcap::read_file(&file).records.into_iter().map(|record| record.bytes));
        }
    }
    frames.retain(|frame| frame.len() <= MAX_LEN);
    let vni = Vni::new(10_010).expect("10010 is a VNI");
    let mut datagrams = BTreeSet::new();
    for frame in &frames {
        datagrams.insert([&vxlan::header(vni)[..], frame].concat());
        datagrams.extend(vxlan_payload(frame).map(<[u8]>::to_vec));
    }
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(home.join("../configs"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.insert(std::fs::read(path)?);
        }
    }
    for target in ["switch", "cut_merge"] {
        seed(home, target, &frames)?;
    }
    seed(home, "vxlan", &datagrams)?;
    // Whole frames, and the beginnings of changed ones.
    let mut neighbours: BTreeSet<Vec<u8>> = (1..64).map(|choice| vec![choice]).collect();
    neighbours.extend(
        frames.iter().filter(|frame| is_about_neighbours(frame)).map(|frame| [&[0], &frame[..]].concat()),
    );
    seed(home, "neigh", &neighbours)?;
    // Whole frames, and each of the beginnings in some of the dresses.
    let mut claims: BTreeSet<Vec<u8>> =
        (0..32).flat_map(|base| (0..8).map(move |dress| vec![base, dress << 2, 0, 3])).collect();
    claims.extend(frames.iter().map(|frame| [&[0], &frame[..]].concat()));
    seed(home, "guard", &claims)?;
    seed(home, "probe", &probings())?;
    seed(home, "cluster", &cluster_lives())?;
    seed(home, "cni", &CNI_SEEDS.iter().map(|text| text.as_bytes().to_vec()).collect())?;
    // Each message, and all of them one after the other.
    let messages = openflow_seeds();
    seed(home, "openflow", &messages.iter().cloned().chain([messages.concat()]).collect())?;
    seed(home, "ovsdb", &ovsdb_seeds().into_iter().map(|text| [&[7], text.as_bytes()].concat()).collect())?;
    seed(home, "config", &files)
}

/// Things that happen to a node of a cluster, in turn: claims of others, one of its own, time, what is taken back.
fn cluster_lives() -> BTreeSet<Vec<u8>> {
    let life = |what: u8| {
        let node = [0, 0, 0, 1, 1, 0x12, 0xb5, 0x05, 0xdc, 3, 2, 7];
        let claim = [0, 2, 6, 1, 1, 2, 1, 8, 3, 7];
        let own = [8, 1, 1, 1, 1];
        [&node[..], &claim, &own, &[what, 1, 1, 0, 6], &claim, &[13, 60]].concat().repeat(8)
    };
    (0..16).map(life).collect()
}

/// Things that happen to a prober, in turn: that is how a life of one begins.
fn probings() -> BTreeSet<Vec<u8>> {
    // Time and answers, with each of the other things between them.
    (0..16).map(|what| [0, 20, 4, 0, what, 0x12, 4, 1, 0, 100].repeat(20)).collect()
}

/// Whether the slow path would be asked of it.
fn is_about_neighbours(frame: &[u8]) -> bool {
    neigh::message(frame, false).or_else(|| neigh::message(frame, true)).is_some()
}

/// What a UDP datagram to port 4789 carries.
fn vxlan_payload(frame: &[u8]) -> Option<&[u8]> {
    let ip = ip::find(frame)?;
    let payload = ip.payload();
    let to_vxlan = ip.udp().is_some() && payload.get(2..4) == Some(&4789_u16.to_be_bytes());
    payload.get(8..).filter(|_| to_vxlan)
}

fn seed(home: &Path, target: &str, seeds: &BTreeSet<Vec<u8>>) -> io::Result<()> {
    let directory = home.join("corpus").join(target);
    std::fs::create_dir_all(&directory)?;
    for (number, bytes) in seeds.iter().enumerate() {
        std::fs::write(directory.join(format!("seed-{number:05}")), bytes)?;
    }
    println!("{}: {} seeds", directory.display(), seeds.len());
    Ok(())
}
