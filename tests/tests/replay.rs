//! Every input that once broke something, through the body of its fuzz target again.
//!
//! Not here: new inputs, which the property tests and the fuzzer make.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use std::panic::catch_unwind;
use std::path::Path;
use vswitch_tests::cluster_body::cluster_body;
use vswitch_tests::cni_body::cni_body;
use vswitch_tests::config_body::config_body;
use vswitch_tests::guard_body::guard_body;
use vswitch_tests::neigh_body::neigh_body;
use vswitch_tests::offload_body::{any_bytes_body, changed_train_body, cut_merge_body};
use vswitch_tests::openflow_body::openflow_body;
use vswitch_tests::prober_body::prober_body;
use vswitch_tests::switch_body::switch_body;
use vswitch_tests::vxlan_body::vxlan_body;

fn body(target: &str, data: &[u8]) {
    match target {
        "switch" => {
            switch_body(data);
        }
        "vxlan" => vxlan_body(data),
        "cut_merge" => {
            cut_merge_body(data);
            changed_train_body(data);
            any_bytes_body(data);
        }
        "cluster" => cluster_body(data),
        "cni" => cni_body(data),
        "config" => config_body(data),
        "guard" => {
            let _ = guard_body(data);
        }
        "neigh" => {
            let _ = neigh_body(data);
        }
        "openflow" => openflow_body(data),
        "probe" => prober_body(data),
        other => panic!("tests/data/crashes/{other} is the directory of no fuzz target"),
    }
}

#[test]
fn every_crash_file_passes_today() {
    let crashes = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/crashes");
    let mut broken = Vec::new();
    let mut passed = 0;
    for target in std::fs::read_dir(crashes).unwrap().map(|entry| entry.unwrap().path()) {
        if !target.is_dir() {
            continue;
        }
        let name = target.file_name().unwrap().to_str().unwrap().to_owned();
        for file in std::fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().path()) {
            let data = std::fs::read(&file).unwrap();
            match catch_unwind(|| body(&name, &data)) {
                Ok(()) => passed += 1,
                Err(_) => broken.push(file),
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(passed >= 6, "at least one for each target");
    println!("{passed} files");
}
