//! Support for tests.

pub mod config_body;
