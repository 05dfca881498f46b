//! Any bytes from a database server: a conversation goes on or ends, and writes only what it may.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vswitch_tests::ovsdb_body::ovsdb_body(data));
