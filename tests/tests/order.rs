//! Same configuration, same MAC table, same frame: same output, whatever came before.
//!
//! Frames are passed through one switch again and again in random order, one by one and in whole batches; what each
//! becomes must be what it became on a switch that had seen nothing. Not here: what the output should be.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use vswitch_core::port::{Segment, VlanSet};
use vswitch_core::{Arrival, Instant, PortId, Vlan};
use vswitch_tests::cases::CaseFile;
use vswitch_tests::driven::Driven;
use vswitch_tests::frames::{describe, describe_all, station};
use vswitch_tests::offload_body::Choices;
use vswitch_tests::pcap::shared_dir;
use vswitch_tests::reference::{Sent, Spec};
use vswitch_tests::rng::Rng;
use vswitch_tests::switch_body::{VLANS, some_arrival, some_spec};

const SHUFFLES: usize = 20;

type Case = (Arrival, Vec<u8>);

/// Stations that neither move nor age: the table is the same before and after every frame.
fn settle(switch: &Driven, spec: &Spec, rng: &mut Rng) {
    let ports: Vec<PortId> = spec.ports.iter().map(|port| port.id).collect();
    for bridge in (0..).take(spec.bridges.len()) {
        for vlan in VLANS {
            let segment = Segment::new(bridge, Vlan::new(vlan).unwrap()).unwrap();
            for number in 0..8 {
                switch.macs().add_static(segment, station(number), *rng.pick(&ports)).unwrap();
            }
        }
    }
}

fn same_in_every_order(make: &dyn Fn() -> Driven, cases: &[Case], rng: &mut Rng) {
    let alone: Vec<Sent> = cases
        .iter()
        .map(|(arrival, bytes)| make().pass(Instant::from_secs(1), *arrival, bytes).sent)
        .collect();
    let (mut switch, mut at_once) = (make(), make());
    let mut order: Vec<usize> = (0..cases.len()).collect();
    for shuffle in 0..SHUFFLES {
        rng.shuffle(&mut order);
        let now = Instant::from_secs(shuffle as u64);
        for case in &order {
            let (arrival, bytes) = &cases[*case];
            let sent = switch.pass(now, *arrival, bytes).sent;
            assert!(
                sent == alone[*case],
                "seed {}, shuffle {shuffle}, {arrival:?} {}: left\n{}and alone\n{}",
                rng.seed(),
                describe(bytes),
                describe_all(&sent),
                describe_all(&alone[*case])
            );
        }
        for part in order.chunks(64) {
            let frames: Vec<Case> = part.iter().map(|case| cases[*case].clone()).collect();
            let mut expected: Sent = part.iter().flat_map(|case| alone[*case].clone()).collect();
            // By port; within a port in the order of arrival.
            expected.sort_by_key(|sent| sent.0);
            assert!(at_once.pass_all(now, &frames) == expected, "a batch of seed {}", rng.seed());
        }
    }
}

#[test]
fn frames_of_random_configurations_leave_the_same_in_every_order() {
    let mut rng = Rng::from_env(7);
    let mut all = 0;
    for _ in 0..20 {
        let data = rng.bytes(2000);
        let choices = &mut Choices::new(&data);
        let mut spec = some_spec(choices);
        spec.ports.iter_mut().for_each(|port| port.mac_limit = None);
        let cases: Vec<Case> = (0..30).map(|_| some_arrival(choices, &spec)).collect();
        let table = rng.fork();
        let make = || {
            let switch = Driven::new(&spec);
            settle(&switch, &spec, &mut table.clone());
            switch
        };
        same_in_every_order(&make, &cases, &mut rng);
        all += cases.len();
    }
    assert_eq!(all, 600);
}

#[test]
fn the_shared_vlan_cases_leave_the_same_in_every_order() {
    let Some(shared) = shared_dir() else { return };
    let file = CaseFile::read(&shared.join("cases/vlan_table.json"));
    let mut spec = Spec::new(file.ports());
    spec.bridges[0].vlan_limit = file.switch.vlan_limit;
    // Nothing is learned, so that every case finds the table empty.
    spec.bridges[0].flood_vlans = VlanSet::all();
    let cases: Vec<Case> = file
        .cases
        .iter()
        .map(|case| {
            let (port, bytes) = case.arrives();
            (Arrival::Port(port), bytes)
        })
        .collect();
    let make = || Driven::new(&spec);
    same_in_every_order(&make, &cases, &mut Rng::from_env(8));
    let mut switch = make();
    for (case, (arrival, bytes)) in file.cases.iter().zip(&cases) {
        assert_eq!(switch.pass(Instant::ZERO, *arrival, bytes).sent, case.leaves(), "{}", case.id);
    }
}
