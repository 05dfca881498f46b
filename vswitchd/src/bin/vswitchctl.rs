//! The control tool.
fn main() {}
