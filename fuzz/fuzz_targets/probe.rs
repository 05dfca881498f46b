//! Anything that happens to a prober: only whom it asked changes its mind.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vswitch_tests::prober_body::prober_body(data));
