//! The daemon's process: arguments in, exit code out.
fn main() {}
