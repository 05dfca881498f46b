//! Anything that stands in a cluster's store: nobody's keys but our own are written, and the right claims win.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vswitch_tests::cluster_body::cluster_body(data));
