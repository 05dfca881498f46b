//! The recorded VLAN cases through the running daemon and real TAPs, a pod for each port.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use vswitch_core::wire::ethernet::Mac;
use vswitch_core::wire::vlan::Tag;
use vswitch_tests::cases::{CaseFile, PortSpec};
use vswitch_tests::daemon::{PATIENCE, Pod, Raw, number, with_host};
use vswitch_tests::frames::{Frame, ctag, describe_all};
use vswitch_tests::lab::until;
use vswitch_tests::pcap::shared_dir;

/// The port's table in a configuration file.
fn table(port: &PortSpec, netns: &str) -> String {
    let mut table =
        format!("[[port]]\nname = {:?}\nnetns = {netns:?}\nvlan_mode = {:?}\n", port.name, port.vlan_mode);
    if let Some(tag) = port.tag {
        writeln!(table, "tag = {tag}").unwrap();
    }
    for (key, vlans) in [("trunks", &port.trunks), ("cvlans", &port.cvlans)] {
        if let Some(vlans) = vlans {
            writeln!(table, "{key} = {vlans:?}").unwrap();
        }
    }
    for (key, word) in [("priority_tags", &port.priority_tags), ("qinq_ethtype", &port.qinq_ethtype)] {
        if let Some(word) = word {
            writeln!(table, "{key} = {word:?}").unwrap();
        }
    }
    table
}

/// Type of the frames that end a case.
const MARKER: u16 = 0x88b5;

/// A frame that ends case `n`. Nobody learns its source, which is a group's.
fn marker(n: usize, tags: &[Tag]) -> Vec<u8> {
    let number = u32::try_from(n).unwrap().to_be_bytes();
    let group = Mac::new([3, 0, 0, 0, 0, 1]);
    Frame::new(Mac::BROADCAST, group).tags(tags).payload(MARKER, &number.repeat(12)).bytes()
}

fn is_marker(n: usize, bytes: &[u8]) -> Option<bool> {
    let number = u32::try_from(n).unwrap().to_be_bytes();
    let rest = Frame::parse(bytes)?.rest;
    (rest[..2] == MARKER.to_be_bytes()).then(|| rest[2..6] == number)
}

#[test]
fn ninety_of_ninety_recorded_vlan_cases_hold_through_real_taps() {
    let Some(shared) = shared_dir() else { return };
    let file = CaseFile::read(&shared.join("cases/vlan_table.json"));
    with_host("ninety_of_ninety_recorded_vlan_cases_hold_through_real_taps", |lab, mut host| {
        let pods: Vec<Pod> = file.ports.iter().map(|port| Pod::new(lab, &port.name)).collect();
        let tables: String =
            file.ports.iter().zip(&pods).map(|(port, pod)| table(port, pod.name())).collect();
        host.start_on(&tables);
        let raws: BTreeMap<u32, Raw> =
            file.ports.iter().zip(&pods).map(|(port, pod)| (port.id, pod.raw(&port.name))).collect();
        let name = |id: u32| file.ports.iter().find(|port| port.id == id).unwrap().name.as_str();
        let mut wrong = String::new();
        let mut sent: BTreeMap<u32, u64> = BTreeMap::new();
        for (n, case) in file.cases.iter().enumerate() {
            let (_, frame) = case.arrives();
            let arrival = case.input.port;
            raws[&arrival].send(&frame);
            *sent.entry(arrival).or_default() += 1;
            // Counted means that its batch has left: what the daemon writes to a TAP is in the pod's sockets then.
            until(&case.id, PATIENCE, || {
                (number(&host.port(name(arrival)), "rx_frames") == sent[&arrival]).then_some(())
            });
            // Five frames of which every port gets one: of VLAN 10, of VLAN 12, and for port 10 one of a customer.
            let ends: [(u32, &[Tag]); 5] =
                [(2, &[]), (4, &[]), (9, &[ctag(10, 0)]), (100, &[ctag(10, 0)]), (100, &[ctag(12, 0)])];
            for (port, tags) in ends {
                raws[&port].send(&marker(n, tags));
                *sent.entry(port).or_default() += 1;
            }
            let mut left = Vec::new();
            for (id, raw) in &raws {
                loop {
                    let bytes = raw
                        .receive(PATIENCE)
                        .unwrap_or_else(|| panic!("{}: {} heard no end", case.id, name(*id)));
                    match is_marker(n, &bytes) {
                        Some(true) => break,
                        Some(false) => {}
                        None => left.push((*id, bytes)),
                    }
                }
            }
            left.sort();
            let mut expected: Vec<(u32, Vec<u8>)> = case
                .leaves()
                .into_iter()
                .map(|(port, bytes)| (u32::try_from(port.index()).unwrap(), bytes))
                .collect();
            expected.sort();
            if left != expected {
                let (left, expected) = (describe_all(&left), describe_all(&expected));
                writeln!(wrong, "{}:\nexpected\n{expected}\nleft\n{left}", case.id).unwrap();
            }
            host.must("mac flush");
        }
        assert!(wrong.is_empty(), "{wrong}");
        assert_eq!(file.cases.len(), 90);
    });
}
