//! Support for tests.
pub mod offload_body;
