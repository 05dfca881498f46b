//! Superframes cut and trains merged: one is the inverse of the other, and false facts are refused.
#![no_main]

use vswitch_tests::offload_body::{any_bytes_body, changed_train_body, cut_merge_body};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    cut_merge_body(data);
    changed_train_body(data);
    any_bytes_body(data);
});
