//! Any bytes as a network configuration of CNI, as a plugin's result, and as a call to the daemon: read, or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vswitch_tests::cni_body::cni_body(data));
