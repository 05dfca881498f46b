//! See fuzz_targets.
