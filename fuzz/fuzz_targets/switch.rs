//! Frames into a switch: nothing panics, and what leaves agrees with the reference.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    vswitch_tests::switch_body::switch_body(data);
});
