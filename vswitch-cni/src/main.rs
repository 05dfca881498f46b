//! The plugin's process: environment and standard input in, one JSON document and an exit code out. All it does is
//! in [`vswitch_cni`].

use std::io::{stdin, stdout};
use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(vswitch_cni::run(
        &|name| std::env::var_os(name),
        &mut stdin().lock(),
        &mut stdout().lock(),
    ))
}
