//! Frames of ARP and neighbour discovery: nothing panics, and nothing is believed that must not be.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = vswitch_tests::neigh_body::neigh_body(data);
});
