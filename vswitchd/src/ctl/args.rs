//! What `vswitchctl` was asked: words into one call, checked for form before the daemon hears of it.
//!
//! Not here: talking to the daemon.

use super::client::Daemon;
use super::{DEFAULT_SOCKET, cni, import};
use crate::control::rpc::Call;
use lexopt::{Arg, Parser, ValueExt};
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

const HELP: &str = "\
vswitchctl asks a running vswitchd, or changes it.

usage: vswitchctl [OPTION…] VERB …

  status                          what runs, and warnings; exits 0 once the daemon is ready
  port [list]                     the ports with their counters
  port add NAME [KEY=VALUE…]      add a port; it stays over restarts until it is deleted
  port set NAME KEY=VALUE…        change a port; KEY= takes the setting back to its default
  port del NAME                   delete a port, also one of the configuration file
  peer [list]                     the remote nodes
  segment [list]                  the segments with their VLANs and VNIs
  mac [list] [--port P] [--vlan V]     the MAC table
  mac add PORT VLAN MAC           add a static entry; VLAN 0 is untagged
  mac del VLAN MAC                delete an entry
  mac flush [--port P] [--vlan V] forget the learned entries: of a port, of a VLAN, or all
  drops [--by-port] [--all]       why frames were not carried, how many; --all: zero counts too
  trace PORT FRAME_HEX            what would become of that frame if it arrived on PORT now
  reload                          read the configuration file again
  diff                            what a reload would change (+ add, - remove, ~ change)
  doctor                          look for what is wrong and say what to do
  cni [list]                      the interfaces that container runtimes asked for
  cni install [FILE]              install the CNI plugin and, once the daemon is ready, FILE as its network
                                  configuration list (default /etc/vswitchd/cni.conflist)
  cni uninstall                   remove both
  import ovs                      print a bridge of an Open vSwitch database as a configuration file; what the
                                  file has no words for is listed in it and on standard error
  capture                         not offered yet

options of import ovs:
  --db REMOTE        the database server (default unix:$OVS_RUNDIR/db.sock, or unix:/run/openvswitch/db.sock)
  --file FILE        instead: what \"ovsdb-client dump\" or \"ovs-vsctl show\" printed; - is standard input
  --bridge NAME      which bridge; needed where there are several
  --output FILE      write it there, where no file is yet, and print nothing

options of cni install and cni uninstall:
  --bin-dir DIR      where the runtime looks for plugins (default /opt/cni/bin)
  --conf-dir DIR     where it looks for network configuration (default /etc/cni/net.d)
  --conf-name NAME   what the list is called there (default 10-vswitch.conflist); runtimes take the first
  --binary FILE      install: the plugin (default: vswitch-cni beside vswitchctl, or in /usr/lib/cni)
  --follow           install: stay; the list is there while the daemon is ready, and goes with SIGTERM
  --force            uninstall: remove the plugin also while there are interfaces that it has to remove

options:
  --socket PATH      the daemon's socket (default $VSWITCHD_SOCKET, or /run/vswitchd/control.sock)
  --json             one JSON document instead of text
  --timeout SECONDS  how long to wait for an answer, 1 to 86400 (default 60)
  -h, --help         this text
  -V, --version      the version

KEY=VALUE is a key of the file's [[port]] with its value; lists are written with commas:
  vswitchctl port add tap-a tag=10
  vswitchctl port add tap-fw vlan_mode=trunk trunks=10,20,100-199
  vswitchctl port add pod-a segment=blue netns=pod-a ifname=eth0 addresses=10.10.0.2/24

exit codes:
   0  done; diff: no difference; doctor: nothing bad
   1  refused or failed; diff: there are differences; doctor: something is bad;
      reload: the operating system refused something, which is listed
  64  wrong usage
  69  the daemon does not answer
  78  reload: the configuration is bad, and nothing was changed
";

/// What to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Print this, exit 0.
    Say(String),
    /// Print this as a reason, exit 1.
    Refuse(String),
    /// Ask the daemon.
    Call(Invocation),
    /// Install or remove the CNI plugin.
    Cni(cni::Order),
    /// Make a file of a bridge of Open vSwitch.
    Import(import::Order),
}

/// A call to make and how to show its answer.
#[derive(Debug)]
pub(super) struct Invocation {
    pub(super) daemon: Daemon,
    pub(super) json: bool,
    pub(super) method: &'static str,
    pub(super) params: Value,
    pub(super) answer: Answer,
}

/// What form the answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Status,
    Ports,
    Peers,
    Segments,
    Macs,
    Drops {
        all: bool,
    },
    Trace,
    Reload,
    Diff,
    Doctor,
    Attachments,
    /// Of a change: nothing, or a few numbers.
    Done,
}

/// Why the words make no call, one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct UsageError(String);

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> Self {
        Self(error.to_string())
    }
}

fn usage<T>(text: impl Into<String>) -> Result<T, UsageError> {
    Err(UsageError(text.into()))
}

#[derive(Default)]
struct Options {
    socket: Option<OsString>,
    json: bool,
    timeout: Option<u64>,
    port: Option<String>,
    vlan: Option<u16>,
    by_port: bool,
    all: bool,
    cni: cni::Options,
    import: import::Options,
}

pub(super) fn parse(
    args: impl IntoIterator<Item = OsString>,
    socket: Option<OsString>,
) -> Result<Order, UsageError> {
    let mut options = Options::default();
    let mut words = Vec::new();
    let mut parser = Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Short('h') | Arg::Long("help") => return Ok(Order::Say(HELP.to_owned())),
            Arg::Short('V') | Arg::Long("version") => {
                return Ok(Order::Say(format!("vswitchctl {}\n", env!("CARGO_PKG_VERSION"))));
            }
            Arg::Long("socket") => options.socket = Some(parser.value()?),
            Arg::Long("json") => options.json = true,
            Arg::Long("timeout") => {
                let seconds = parser.value()?.parse::<u64>()?;
                if !(1..=86_400).contains(&seconds) {
                    return usage(format!("--timeout is {seconds}; expected 1 to 86400 seconds"));
                }
                options.timeout = Some(seconds);
            }
            Arg::Long("port") => options.port = Some(parser.value()?.string()?),
            Arg::Long("vlan") => options.vlan = Some(vlan(&parser.value()?.string()?)?),
            Arg::Long("by-port") => options.by_port = true,
            Arg::Long("all") => options.all = true,
            Arg::Long("bin-dir") => options.cni.bin_dir = Some(parser.value()?.into()),
            Arg::Long("conf-dir") => options.cni.conf_dir = Some(parser.value()?.into()),
            Arg::Long("conf-name") => options.cni.conf_name = Some(parser.value()?.string()?),
            Arg::Long("binary") => options.cni.binary = Some(parser.value()?.into()),
            Arg::Long("follow") => options.cni.follow = true,
            Arg::Long("force") => options.cni.force = true,
            Arg::Long("db") => options.import.db = Some(parser.value()?.string()?),
            Arg::Long("file") => options.import.file = Some(parser.value()?.into()),
            Arg::Long("bridge") => options.import.bridge = Some(parser.value()?.string()?),
            Arg::Long("output") => options.import.output = Some(parser.value()?.into()),
            Arg::Value(word) => words.push(word.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let ["capture", ..] = words[..] {
        return Ok(Order::Refuse("capture is not offered yet".to_owned()));
    }
    let empty = |path: &OsString| path.is_empty();
    if options.socket.as_ref().is_some_and(empty) {
        return usage("--socket needs a path");
    }
    let socket = options.socket.clone().or_else(|| socket.filter(|path| !empty(path)));
    let daemon = Daemon {
        socket: socket.map_or_else(|| PathBuf::from(DEFAULT_SOCKET), PathBuf::from),
        timeout: Duration::from_secs(options.timeout.unwrap_or(60)),
    };
    if let ["import", rest @ ..] = &words[..] {
        if options.json {
            return usage("--json goes with questions to the daemon, not with import ovs");
        }
        foreign(&words, &options)?;
        if let Some(name) = options.cni.given() {
            return usage(format!("{name} goes with cni install and cni uninstall only"));
        }
        let rundir = std::env::var_os("OVS_RUNDIR").map(PathBuf::from);
        let order = options.import.order(rest, rundir.as_deref(), daemon.timeout);
        return order.map(Order::Import).map_err(UsageError);
    }
    if let Some(name) = options.import.given() {
        return usage(format!("{name} goes with import ovs only"));
    }
    if let ["cni", verb @ ("install" | "uninstall"), files @ ..] = &words[..] {
        if options.json {
            return usage(format!("--json goes with questions to the daemon, not with cni {verb}"));
        }
        foreign(&words, &options)?;
        return options.cni.order(verb, files, daemon).map(Order::Cni).map_err(UsageError);
    }
    if let Some(name) = options.cni.given() {
        return usage(format!("{name} goes with cni install and cni uninstall only"));
    }
    let (method, params, answer) = call(&words, &options)?;
    // The daemon's own check, so that wrong words are told from a refusal even when no daemon runs.
    Call::parse(method, params.clone()).map_err(|error| UsageError(error.message))?;
    Ok(Order::Call(Invocation { daemon, json: options.json, method, params, answer }))
}

type Made = (&'static str, Value, Answer);

/// Refuses options that go with other verbs.
fn foreign(words: &[&str], options: &Options) -> Result<(), UsageError> {
    let filtered = matches!(words, ["mac"] | ["mac", "list" | "flush"]);
    let drops = matches!(words, ["drops"]);
    for (given, fits, name, verbs) in [
        (options.port.is_some(), filtered, "--port", "mac list and mac flush"),
        (options.vlan.is_some(), filtered, "--vlan", "mac list and mac flush"),
        (options.by_port, drops, "--by-port", "drops"),
        (options.all, drops, "--all", "drops"),
    ] {
        if given && !fits {
            return usage(format!("{name} goes with {verbs} only"));
        }
    }
    Ok(())
}

fn call(words: &[&str], options: &Options) -> Result<Made, UsageError> {
    foreign(words, options)?;
    Ok(match *words {
        [] => return usage("a verb is missing"),
        ["status"] => ("status", json!({}), Answer::Status),
        ["port"] | ["port", "list"] => ("port.list", json!({}), Answer::Ports),
        ["port", "add", name, ref pairs @ ..] => {
            ("port.add", json!({"name": name, "settings": settings(pairs)?}), Answer::Done)
        }
        ["port", "set", _] => return usage("port set needs at least one KEY=VALUE"),
        ["port", "set", name, ref pairs @ ..] => {
            ("port.set", json!({"name": name, "settings": settings(pairs)?}), Answer::Done)
        }
        ["port", "del", name] => ("port.del", json!({"name": name}), Answer::Done),
        ["peer"] | ["peer", "list"] => ("peer.list", json!({}), Answer::Peers),
        ["segment"] | ["segment", "list"] => ("segment.list", json!({}), Answer::Segments),
        ["mac"] | ["mac", "list"] => ("mac.list", filter(options), Answer::Macs),
        ["mac", "flush"] => ("mac.flush", filter(options), Answer::Done),
        ["mac", "add", port, tag, mac] => {
            ("mac.add", json!({"port": port, "vlan": vlan(tag)?, "mac": mac}), Answer::Done)
        }
        ["mac", "del", tag, mac] => ("mac.del", json!({"vlan": vlan(tag)?, "mac": mac}), Answer::Done),
        ["cni"] | ["cni", "list"] => ("cni.list", json!({}), Answer::Attachments),
        ["drops"] => (
            "drops",
            json!({"by_port": options.by_port, "all": options.all}),
            Answer::Drops { all: options.all },
        ),
        ["trace", port, hex] => {
            let digits: String = hex.chars().filter(|c| !c.is_whitespace() && *c != ':').collect();
            ("trace", json!({"port": port, "frame": digits}), Answer::Trace)
        }
        ["reload"] => ("reload", json!({}), Answer::Reload),
        ["diff"] => ("diff", json!({}), Answer::Diff),
        ["doctor"] => ("doctor", json!({}), Answer::Doctor),
        [verb, ..] => return usage(expected(verb, &words[1..])),
    })
}

/// What is wrong with words that fit no verb's form.
fn expected(verb: &str, rest: &[&str]) -> String {
    let form = match (verb, rest.first().copied()) {
        ("port", Some("add")) => "port add NAME [KEY=VALUE…]",
        ("port", Some("set")) => "port set NAME KEY=VALUE…",
        ("port", Some("del")) => "port del NAME",
        ("port", _) => "port [list | add | set | del]",
        ("peer", _) => "peer [list]",
        ("segment", _) => "segment [list]",
        ("mac", Some("add")) => "mac add PORT VLAN MAC",
        ("mac", Some("del")) => "mac del VLAN MAC",
        ("mac", Some("flush")) => "mac flush [--port P] [--vlan V]",
        ("mac", _) => "mac [list | add | del | flush]",
        ("cni", _) => "cni [list | install [FILE] | uninstall]",
        ("trace", _) => "trace PORT FRAME_HEX",
        ("status" | "drops" | "reload" | "diff" | "doctor", Some(extra)) => {
            return format!("{verb} takes no {extra:?}");
        }
        _ => {
            return format!(
                "unknown verb {verb:?}; expected status, port, peer, segment, mac, drops, trace, cni, \
                 import, capture, reload, diff or doctor"
            );
        }
    };
    format!("{:?} is not understood; expected {form}", [&[verb], rest].concat().join(" "))
}

fn vlan(word: &str) -> Result<u16, UsageError> {
    match word.parse() {
        Ok(vlan @ 0..=4094) => Ok(vlan),
        _ => usage(format!("{word:?} is not a VLAN; expected 0 (untagged) to 4094")),
    }
}

fn filter(options: &Options) -> Value {
    let mut filter = Map::new();
    filter.extend(options.port.as_ref().map(|port| ("port".to_owned(), json!(port))));
    filter.extend(options.vlan.map(|vlan| ("vlan".to_owned(), json!(vlan))));
    Value::Object(filter)
}

/// `KEY=VALUE…` as the keys of a `[[port]]` table; an empty value is null.
fn settings(pairs: &[&str]) -> Result<Value, UsageError> {
    let mut settings = Map::new();
    for pair in pairs {
        let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return usage(format!("{pair:?} is not KEY=VALUE"));
        };
        if settings.insert(key.to_owned(), setting(key, value)).is_some() {
            return usage(format!("{key:?} is given twice"));
        }
    }
    Ok(Value::Object(settings))
}

/// A value as TOML would have it for that key. What does not fit stays a string, for the daemon to refuse.
fn setting(key: &str, value: &str) -> Value {
    let number = |text: &str| {
        let canonical = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| canonical).map_or_else(|| json!(text), Value::from)
    };
    let list = |item: &dyn Fn(&str) -> Value| value.split(',').map(item).collect::<Value>();
    match key {
        _ if value.is_empty() => Value::Null,
        "trunks" | "cvlans" => list(&number),
        "addresses" => list(&|text| json!(text)),
        "gateway" | "node" if value.contains(',') => list(&|text| json!(text)),
        "tag" | "mtu" | "key" | "in_key" | "out_key" | "dst_port" | "tos" | "ttl" => number(value),
        "ingress_policing_rate"
        | "ingress_policing_burst"
        | "egress_policing_rate"
        | "egress_policing_burst" => number(value),
        "offload" | "split_horizon" | "df_default" | "csum" => {
            value.parse::<bool>().map_or_else(|_| json!(value), Value::from)
        }
        "anti_spoof" => value.parse::<bool>().map_or_else(|_| list(&|text| json!(text)), Value::from),
        _ => json!(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Order, UsageError> {
        parse(line.split_whitespace().map(OsString::from), None)
    }

    fn invocation(line: &str) -> Invocation {
        match parsed(line).unwrap() {
            Order::Call(invocation) => invocation,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn every_verb_makes_its_call() {
        for (line, method, params) in [
            ("status", "status", json!({})),
            ("port", "port.list", json!({})),
            ("port list", "port.list", json!({})),
            ("port del x", "port.del", json!({"name": "x"})),
            ("port add x", "port.add", json!({"name": "x", "settings": {}})),
            (
                "port add x vlan_mode=trunk trunks=10,20,100-199 offload=false mtu=1400 segment=7",
                "port.add",
                json!({"name": "x", "settings": {
                    "vlan_mode": "trunk", "trunks": [10, 20, "100-199"], "offload": false, "mtu": 1400,
                    "segment": "7"
                }}),
            ),
            (
                "port set x tag= gateway=10.0.0.1 addresses=10.0.0.2/24",
                "port.set",
                json!({"name": "x", "settings": {
                    "tag": null, "gateway": "10.0.0.1", "addresses": ["10.0.0.2/24"]
                }}),
            ),
            (
                "port set x anti_spoof=true split_horizon=false ingress_policing_rate=1000",
                "port.set",
                json!({"name": "x", "settings": {
                    "anti_spoof": true, "split_horizon": false, "ingress_policing_rate": 1000
                }}),
            ),
            (
                "port set x anti_spoof=10.0.0.2,fd00::2 egress_policing_rate=",
                "port.set",
                json!({"name": "x", "settings": {
                    "anti_spoof": ["10.0.0.2", "fd00::2"], "egress_policing_rate": null
                }}),
            ),
            ("peer", "peer.list", json!({})),
            ("segment list", "segment.list", json!({})),
            ("mac", "mac.list", json!({})),
            ("mac list --port x --vlan 10", "mac.list", json!({"port": "x", "vlan": 10})),
            (
                "mac add x 10 02:00:00:00:00:01",
                "mac.add",
                json!({"port": "x", "vlan": 10, "mac": "02:00:00:00:00:01"}),
            ),
            ("mac del 0 02:00:00:00:00:01", "mac.del", json!({"vlan": 0, "mac": "02:00:00:00:00:01"})),
            ("mac flush --vlan 0", "mac.flush", json!({"vlan": 0})),
            ("drops --by-port", "drops", json!({"by_port": true, "all": false})),
            ("trace x 00:ff", "trace", json!({"port": "x", "frame": "00ff"})),
            ("reload", "reload", json!({})),
            ("diff", "diff", json!({})),
            ("doctor", "doctor", json!({})),
            ("cni", "cni.list", json!({})),
            ("cni list", "cni.list", json!({})),
        ] {
            let made = invocation(line);
            assert_eq!((made.method, &made.params), (method, &params), "{line}");
        }
    }

    #[test]
    fn options_stand_anywhere_and_the_environment_comes_last() {
        let made = invocation("port --json --socket /a/b list --timeout 5");
        assert!(made.json);
        assert_eq!(
            (made.daemon.socket, made.daemon.timeout),
            (PathBuf::from("/a/b"), Duration::from_secs(5))
        );
        let from = |env: &str| match parse([OsString::from("status")], Some(env.into())).unwrap() {
            Order::Call(invocation) => invocation.daemon.socket,
            other => panic!("{other:?}"),
        };
        assert_eq!(from("/c"), PathBuf::from("/c"));
        assert_eq!(from(""), PathBuf::from(DEFAULT_SOCKET));
    }

    #[test]
    fn wrong_words_are_named_with_what_is_expected() {
        for (line, word) in [
            ("", "verb is missing"),
            ("prot", "expected status"),
            ("status now", "\"now\""),
            ("port add", "NAME"),
            ("port set x", "KEY=VALUE"),
            ("port set x tag", "\"tag\" is not KEY=VALUE"),
            ("port add x =7", "KEY=VALUE"),
            ("port add x tag=1 tag=2", "twice"),
            ("port del", "port del NAME"),
            ("port rename x y", "list | add"),
            ("mac add x 10", "PORT VLAN MAC"),
            ("mac add x 4095 02:00:00:00:00:01", "4094"),
            ("mac add x 10 02:00", "MAC address"),
            ("mac add x 10 ff:ff:ff:ff:ff:ff", "group"),
            ("mac list --vlan blue", "4094"),
            ("port --vlan 10", "--vlan goes with"),
            ("mac --by-port", "--by-port goes with"),
            ("trace x", "FRAME_HEX"),
            ("trace x 0g", "hexadecimal"),
            ("status --frob", "--frob"),
            ("status --socket", "--socket"),
            ("status --timeout 0", "86400"),
            ("status --json=yes", "--json"),
            ("cni lsit", "cni [list | install"),
            ("cni list --follow", "--follow goes with"),
            ("status --bin-dir /x", "--bin-dir goes with"),
            ("cni install a b", "one FILE"),
            ("cni install --json", "--json"),
            ("cni install --vlan 1", "--vlan goes with"),
            ("cni install --conf-name x.conf", ".conflist"),
            ("import", "expected import ovs"),
            ("import kernel", "expected import ovs"),
            ("import ovs --db here", "unix:PATH or tcp:HOST:PORT"),
            ("import ovs --db unix:/x --file y", "one of them"),
            ("import ovs --json", "--json"),
            ("import ovs --force", "--force goes with"),
            ("import ovs --vlan 1", "--vlan goes with"),
            ("status --bridge br0", "--bridge goes with"),
        ] {
            let Err(error) = parsed(line) else { panic!("{line} was taken") };
            let text = error.to_string();
            assert!(text.contains(word) && !text.contains('\n'), "{line}: {text}");
        }
    }

    #[test]
    fn help_names_every_verb_and_exit_code() {
        let Ok(Order::Say(help)) = parsed("mac add --help") else { panic!() };
        for word in
            ["status", "port", "peer", "segment", "mac", "drops", "trace", "capture", "reload", "diff"]
        {
            assert!(help.contains(&format!("\n  {word} ")), "{word}");
        }
        for code in [" 0 ", " 1 ", " 64 ", " 69 ", " 78 "] {
            assert!(help.contains(code), "{code}");
        }
        assert!(help.contains(DEFAULT_SOCKET) && help.lines().all(|line| line.chars().count() <= 110));
    }
}
