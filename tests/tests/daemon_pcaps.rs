//! Every shared capture replayed into a pod's port of the running daemon: what leaves and what dies is what the
//! reference switch says, frame by frame and reason by reason.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use vswitch_core::port::{Attachment, Port, PortId, VlanSet};
use vswitch_core::wire::vlan::Vlan;
use vswitch_tests::daemon::{PATIENCE, Pod, Raw, number, with_host};
use vswitch_tests::frames::describe_all;
use vswitch_tests::lab::until;
use vswitch_tests::pcap::{files, read_file, shared_dir};
use vswitch_tests::reference::{Reference, Spec};

const NAMES: [&str; 4] = ["in", "trunk", "acc", "every"];

fn reference() -> Reference {
    let vlan = |number| Vlan::new(number).unwrap();
    let some: VlanSet = [0, 1, 200].into_iter().map(vlan).collect();
    let attachments = [
        Attachment::Trunk { vlans: some.clone(), native: None },
        Attachment::Trunk { vlans: some, native: None },
        Attachment::Access(vlan(5)),
        Attachment::Trunk { vlans: VlanSet::all(), native: None },
    ];
    let ports = (0..).zip(attachments).map(|(n, attachment)| Port::new(PortId::new(n).unwrap(), attachment));
    Reference::new(Spec::new(ports.collect()))
}

#[test]
fn every_capture_leaves_or_is_counted_by_name() {
    let Some(shared) = shared_dir() else { return };
    with_host("every_capture_leaves_or_is_counted_by_name", |lab, mut host| {
        let pods: Vec<Pod> = NAMES.iter().map(|name| Pod::new(lab, name)).collect();
        let settings = ["trunks = [0, 1, 200]", "trunks = [0, 1, 200]", "tag = 5", ""];
        let tables: String = NAMES
            .iter()
            .zip(&pods)
            .zip(settings)
            .map(|((name, pod), line)| {
                format!("[[port]]\nname = {name:?}\nnetns = {:?}\nmtu = 9000\n{line}\n", pod.name())
            })
            .collect();
        host.start_on(&tables);
        let raws: Vec<Raw> = NAMES.iter().zip(&pods).map(|(name, pod)| pod.raw(name)).collect();
        let (mut sent, mut refused_by_kernel) = (0, 0);
        let mut dropped: BTreeMap<String, u64> = BTreeMap::new();
        for file in files(&shared.join("pcaps")) {
            // In at each kind of port: a trunk of few VLANs, an access port, a trunk of all.
            for at in [0, 2, 3] {
                let mut reference = reference();
                let mut expected = Vec::new();
                let before = number(&host.port(NAMES[at]), "rx_frames");
                let mut taken = 0;
                for record in read_file(&file).records {
                    if raws[at].try_send(&record.bytes).is_err() {
                        refused_by_kernel += 1;
                        continue;
                    }
                    taken += 1;
                    let port = PortId::new(u32::try_from(at).unwrap()).unwrap();
                    let out = reference.frame_in(0, port, &record.bytes);
                    if out.is_empty() {
                        let reason = reference.dropped().unwrap().name().to_owned();
                        *dropped.entry(reason).or_default() += 1;
                    }
                    expected.extend(out.into_iter().map(|(port, bytes)| (NAMES[port.index()], bytes)));
                }
                sent += taken;
                until(&format!("{} at {}", file.display(), NAMES[at]), PATIENCE, || {
                    (number(&host.port(NAMES[at]), "rx_frames") == before + taken).then_some(())
                });
                let mut left: Vec<(&str, Vec<u8>)> = Vec::new();
                for (name, raw) in NAMES.iter().zip(&raws) {
                    left.extend(raw.drain().into_iter().map(|bytes| (*name, bytes)));
                }
                // Each port keeps the order in which its frames came.
                expected.sort_by_key(|(name, _)| NAMES.iter().position(|n| n == name));
                assert_eq!(
                    describe_all(&left),
                    describe_all(&expected),
                    "{} at {}",
                    file.display(),
                    NAMES[at]
                );
                assert_eq!(left, expected, "{} at {}", file.display(), NAMES[at]);
                host.must("mac flush");
            }
        }
        assert_eq!(host.drops(), dropped);
        let rows = host.rows("port");
        let total = |key: &str| rows.iter().map(|row| number(row, key)).sum::<u64>();
        assert_eq!((total("rx_frames"), total("rx_dropped")), (sent, dropped.values().sum()));
        assert_eq!(total("tx_dropped"), 0);
        assert!(
            sent > 400 && refused_by_kernel == 0,
            "{sent} sent, {refused_by_kernel} refused by the kernel"
        );
        assert_eq!(host.end("TERM").0, 0, "the daemon lived on");
        eprintln!("{sent} frames; dropped {dropped:?}");
    });
}
