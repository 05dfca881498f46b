//! Any bytes as what a client of OpenFlow sends: read or refused, and the flow table is what a naive one is.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vswitch_tests::openflow_body::openflow_body(data));
