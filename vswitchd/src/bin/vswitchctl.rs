//! The control tool's process: arguments in, exit code out. All it does is in [`vswitchd::ctl`].

use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Rust ignores SIGPIPE, so a reader who leaves shows as an error of write(2), which run() expects.
    let (out, err) = (io::stdout(), io::stderr());
    let socket = std::env::var_os("VSWITCHD_SOCKET");
    ExitCode::from(vswitchd::ctl::run(std::env::args_os().skip(1), socket, &mut out.lock(), &mut err.lock()))
}
