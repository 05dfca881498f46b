//! Frames from a guarded port: nothing panics, and what passes is what a naive reader lets pass.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = vswitch_tests::guard_body::guard_body(data);
});
