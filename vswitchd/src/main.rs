//! The daemon's process: arguments in, exit code out. All it does is in the library beside it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use vswitchd::config::{Config, ConfigErrors};
use vswitchd::control::daemon::{self, Options};
use vswitchd::control::unixctl;
use vswitchd::demo;
use vswitchd::keeper::{self, process};
use vswitchd::observe::log::{self, Format, Level};

const USAGE: &str = "\
vswitchd: a virtual switch for container hosts

  vswitchd --config FILE [--node NAME] [--log-level LEVEL] [--log-format text|json]
           [--unixctl PATH] [--as-ovs-vswitchd]
      run in the foreground; SIGHUP reloads, SIGTERM and SIGINT drain and stop
  vswitchd --ovsdb REMOTE [--config FILE] ...
      the same where an Open vSwitch database says what is wished, as to ovs-vswitchd; REMOTE is
      unix:/run/openvswitch/db.sock or tcp:HOST:PORT
  vswitchd --check --config FILE
      say what is wrong with the file, change nothing
  vswitchd demo [--keep]
      two nodes, VLANs and VXLAN on real TAPs in private namespaces; --keep stays up
  vswitchd keeper [--socket PATH] [-- COMMAND ARG...]
      hold the interfaces of a daemon that finds PATH in VSWITCHD_KEEPER, so that they outlive it; with a
      COMMAND start it so, and again when it fails
  vswitchd --version | --help

  --node NAME        the node's name; by default [node] name of the file, or the host name
  --unixctl PATH     ovs-appctl's socket; by default vswitchd.PID.ctl in OVS_RUNDIR or /run/openvswitch; \"none\": none
  --as-ovs-vswitchd  have the pidfile and the socket of ovs-vswitchd as well
  --log-level LEVEL  error, warn, info (default) or debug
Exit codes: 0 good, 64 wrong usage, 78 bad configuration, 1 anything else. vswitchctl talks to a running vswitchd.";

const VERSION: &str = concat!("vswitchd ", env!("CARGO_PKG_VERSION"));
const EX_USAGE: u8 = 64;
const EX_CONFIG: u8 = 78;

enum Command {
    Run(Options),
    Check(PathBuf),
    Demo { keep: bool },
    Keep(process::Options),
    Print(String),
}

fn main() -> ExitCode {
    let wrong = |error: &lexopt::Error| eprintln!("vswitchd: {error}; vswitchd --help shows the usage");
    let Ok(command) = parse(lexopt::Parser::from_env()).inspect_err(wrong) else {
        return ExitCode::from(EX_USAGE);
    };
    let done = match command {
        Command::Run(options) => daemon::run(&options),
        Command::Check(file) => check(&file),
        Command::Demo { keep } => demo::run(keep),
        Command::Keep(options) => match process::run(&options) {
            Ok(code) => return ExitCode::from(code),
            Err(error) => Err(error),
        },
        Command::Print(text) => {
            say([text]);
            Ok(())
        }
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    if let Some(errors) = error.downcast_ref::<ConfigErrors>() {
        errors.iter().for_each(|error| eprintln!("{error}"));
        return ExitCode::from(EX_CONFIG);
    }
    eprintln!("vswitchd: {error}");
    error.chain().skip(1).for_each(|cause| eprintln!("  because: {cause}"));
    ExitCode::FAILURE
}

fn parse(mut arguments: lexopt::Parser) -> Result<Command, lexopt::Error> {
    use lexopt::prelude::*;
    let (mut config, mut node, mut check, mut demo, mut keep) = (None, None, false, false, false);
    let mut ovsdb = None;
    let (mut level, mut format) = (Level::Info, Format::Text);
    let mut unixctl = unixctl::Options::default();
    while let Some(argument) = arguments.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Print(USAGE.to_owned())),
            Short('V') | Long("version") => return Ok(Command::Print(VERSION.to_owned())),
            Short('c') | Long("config") => config = Some(PathBuf::from(arguments.value()?)),
            Long("ovsdb") => ovsdb = Some(arguments.value()?.parse()?),
            Long("node") => node = Some(arguments.value()?.string()?),
            Long("log-level") => level = arguments.value()?.parse()?,
            Long("log-format") => format = arguments.value()?.parse()?,
            Long("unixctl") => unixctl.path = Some(PathBuf::from(arguments.value()?)),
            Long("as-ovs-vswitchd") => unixctl.as_ovs_vswitchd = true,
            Long("check") => check = true,
            Value(word) if word == "demo" && !demo => demo = true,
            Value(word) if word == "keeper" && !demo && !check && config.is_none() && node.is_none() => {
                log::configure(level, format);
                return parse_keeper(arguments).map(Command::Keep);
            }
            Long("keep") if demo => keep = true,
            other => return Err(other.unexpected()),
        }
    }
    log::configure(level, format);
    match (demo, check, config) {
        (true, false, None) => Ok(Command::Demo { keep }),
        (true, ..) => Err("demo takes no --config and no --check".into()),
        (false, true, Some(file)) => Ok(Command::Check(file)),
        (false, true, None) => Err("--config FILE is missing".into()),
        (false, false, None) if ovsdb.is_none() => Err("--config FILE or --ovsdb REMOTE is missing".into()),
        (false, false, config) => Ok(Command::Run(Options { config, node, unixctl, ovsdb })),
    }
}

fn parse_keeper(mut arguments: lexopt::Parser) -> Result<process::Options, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = process::Options { socket: keeper::SOCKET.into(), command: Vec::new() };
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("socket") => options.socket = arguments.value()?.into(),
            Value(program) => {
                options.command = std::iter::once(program).chain(arguments.raw_args()?).collect();
                break;
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(options)
}

fn check(file: &std::path::Path) -> anyhow::Result<()> {
    let config = Config::load(file)?;
    say(config.warnings.iter().map(|warning| format!("warning: {warning}")));
    say(daemon::missing_privileges(&config).iter().map(|sentence| format!("warning: {sentence}")));
    say([format!("{}: good", file.display())]);
    Ok(())
}

/// Prints lines; a reader who has left is no error.
fn say(lines: impl IntoIterator<Item = String>) {
    lines.into_iter().for_each(|line| drop(writeln!(std::io::stdout(), "{line}")));
}
