//! Datagrams into the tunnel: nothing panics, and what is refused is named.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vswitch_tests::vxlan_body::vxlan_body(data));
