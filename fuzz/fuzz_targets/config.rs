//! Any bytes as a configuration file: read, or refused with a reason and a place.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vswitch_tests::config_body::config_body(data));
