//! The shared table of VLAN cases through the core: one frame in, exactly these frames out.
//!
//! Not here: the same table through the running daemon.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use std::path::PathBuf;
use vswitch_core::{Arrival, Instant};
use vswitch_tests::cases::CaseFile;
use vswitch_tests::driven::Driven;
use vswitch_tests::frames::describe_all;
use vswitch_tests::pcap::shared_dir;
use vswitch_tests::reference::Spec;

/// Every file of cases there is; each of the same schema.
fn files() -> Vec<PathBuf> {
    let Some(shared) = shared_dir() else { return Vec::new() };
    let entries = std::fs::read_dir(shared.join("cases")).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vlan")))
        .collect();
    files.sort();
    files
}

#[test]
fn every_case_of_the_shared_vlan_table_leaves_as_recorded_and_as_explained() {
    let mut passed = 0;
    let mut wrong = String::new();
    for path in files() {
        let file = CaseFile::read(&path);
        let mut spec = Spec::new(file.ports());
        spec.bridges[0].vlan_limit = if file.switch.vlan_limit == 1 { 1 } else { 2 };
        for case in &file.cases {
            let (port, bytes) = case.arrives();
            // `pass` compares forward with explain, byte by byte.
            let sent = Driven::new(&spec).pass(Instant::ZERO, Arrival::Port(port), &bytes).sent;
            let (got, want) = (describe_all(&sent), describe_all(&case.leaves()));
            if sent == case.leaves() {
                passed += 1;
            } else {
                wrong += &format!("{}: left\n{got}instead of\n{want}", case.id);
            }
        }
        println!("{}: {passed} of {}", path.display(), file.cases.len());
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(passed >= 90 || shared_dir().is_none(), "{passed} cases");
}
