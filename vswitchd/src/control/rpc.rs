//! The control protocol's words: every method, its parameters, its errors and the answers that have a form.
//!
//! JSON-RPC 2.0 (jsonrpc.org/specification), one object per line. Parameters are always named; an unknown
//! method, an unknown parameter and a parameter of the wrong kind are errors. Not here: the socket (see
//! [`super::socket`]) and what the calls do.
//!
//! | method | parameters | answer |
//! |---|---|---|
//! | `hello` | none | `{"protocol", "version", "features"}`; answered by the socket itself |
//! | `status` | none | one flat object; a member may be an array of strings or of flat objects |
//! | `port.list` | none | array of flat objects |
//! | `port.add` | `name`, `settings` | `null` |
//! | `port.set` | `name`, `settings`; a `null` value takes the setting back to its default | `null` |
//! | `port.del` | `name` | `null` |
//! | `peer.list`, `segment.list` | none | array of flat objects |
//! | `mac.list` | `port`?, `vlan`? | array of flat objects |
//! | `mac.add` | `port`, `vlan`, `mac` | `null` |
//! | `mac.del` | `vlan`, `mac` | `null` |
//! | `mac.flush` | `port`?, `vlan`? | `{"flushed": number of entries}` |
//! | `drops` | `by_port`? (false), `all`? (false: only what was counted) | array of flat objects |
//! | `trace` | `port`, `frame` (hexadecimal digits) | [`TraceAnswer`] |
//! | `reload` | none | [`ReloadAnswer`] |
//! | `diff` | none | array of [`DiffLine`] |
//! | `doctor` | none | array of [`Finding`] |
//! | `metrics` | none | a string, OpenMetrics text |
//! | `cni.…` | | see [`cni`] |

pub mod cni;

use self::cni::{CniAdd, CniGc, CniKey, CniNetwork, CniStatus};
use serde::de::{DeserializeOwned, Error as _, Unexpected};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::fmt;
use vswitch_core::{Mac, Vlan};

/// Version of the protocol, as `hello` gives it. It changes when an old client would be misled.
pub const PROTOCOL: u32 = 1;

/// What `hello` lists beside the version, so that a client need not try.
pub const FEATURES: &[&str] =
    &["cni", "diff", "doctor", "drops", "mac", "metrics", "port", "reload", "trace"];

/// The longest frame `trace` takes, in bytes.
pub const MAX_TRACE_LEN: usize = 65_535;

/// A call, with its parameters checked for form: names, kinds and ranges, not whether the port exists.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// `status`
    Status,
    /// `port.list`
    PortList,
    /// `port.add`
    PortAdd(PortSettings),
    /// `port.set`
    PortSet(PortSettings),
    /// `port.del`
    PortDel(PortName),
    /// `peer.list`
    PeerList,
    /// `segment.list`
    SegmentList,
    /// `mac.list`
    MacList(MacFilter),
    /// `mac.add`
    MacAdd(MacAdd),
    /// `mac.del`
    MacDel(MacKey),
    /// `mac.flush`
    MacFlush(MacFilter),
    /// `drops`
    Drops(Drops),
    /// `trace`
    Trace(Trace),
    /// `reload`
    Reload,
    /// `diff`
    Diff,
    /// `doctor`
    Doctor,
    /// `metrics`
    Metrics,
    /// `cni.add`
    CniAdd(Box<CniAdd>),
    /// `cni.del`
    CniDel(CniKey),
    /// `cni.check`
    CniCheck(CniKey),
    /// `cni.gc`
    CniGc(CniGc),
    /// `cni.gone`
    CniGone(CniNetwork),
    /// `cni.status`
    CniStatus(Box<CniStatus>),
    /// `cni.list`
    CniList,
}

/// A port and its settings, of `port.add` and `port.set`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortSettings {
    /// The port's name.
    pub name: String,
    /// Keys and values of a `[[port]]` table, without `name`; values as the TOML file takes them.
    #[serde(default)]
    pub settings: Map<String, Value>,
}

/// A port, of `port.del`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortName {
    /// The port's name.
    pub name: String,
}

/// Which entries, of `mac.list` and `mac.flush`; all where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MacFilter {
    /// Only entries of this port.
    #[serde(default)]
    pub port: Option<String>,
    /// Only entries of this VLAN, 0..=4094; 0 is untagged.
    #[serde(default, deserialize_with = "some_vlan")]
    pub vlan: Option<Vlan>,
}

/// A static entry, of `mac.add`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MacAdd {
    /// The port behind which the station is.
    pub port: String,
    /// Its VLAN, 0..=4094; 0 is untagged.
    #[serde(deserialize_with = "vlan")]
    pub vlan: Vlan,
    /// Its address: six pairs of hexadecimal digits with colons; neither group nor zero.
    #[serde(deserialize_with = "mac")]
    pub mac: Mac,
}

/// An entry's key, of `mac.del`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MacKey {
    /// Its VLAN, 0..=4094; 0 is untagged.
    #[serde(deserialize_with = "vlan")]
    pub vlan: Vlan,
    /// Its address.
    #[serde(deserialize_with = "mac")]
    pub mac: Mac,
}

/// Parameters of `drops`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drops {
    /// One row per reason and port instead of one per reason.
    #[serde(default)]
    pub by_port: bool,
    /// Also the reasons that were never counted.
    #[serde(default)]
    pub all: bool,
}

/// A frame to follow, of `trace`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// The port it would arrive on.
    pub port: String,
    /// Its bytes, 0..=[`MAX_TRACE_LEN`]; hexadecimal on the wire.
    #[serde(deserialize_with = "hex")]
    pub frame: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl Call {
    /// How many descriptors may come beside it: at least, at most.
    pub(super) const fn descriptors(&self) -> (usize, usize) {
        match self {
            Self::CniAdd(_) => (1, 1),
            Self::CniCheck(_) => (0, 1),
            _ => (0, 0),
        }
    }

    /// The call that `method` and `params` make. `params` is an object, or null for none.
    ///
    /// # Errors
    /// [`RpcError::METHOD_NOT_FOUND`] or [`RpcError::INVALID_PARAMS`], saying which and what is allowed.
    pub fn parse(method: &str, params: Value) -> Result<Self, RpcError> {
        Ok(match method {
            "status" => none(method, params).map(|()| Self::Status)?,
            "port.list" => none(method, params).map(|()| Self::PortList)?,
            "port.add" => Self::PortAdd(typed(method, params)?),
            "port.set" => Self::PortSet(typed(method, params)?),
            "port.del" => Self::PortDel(typed(method, params)?),
            "peer.list" => none(method, params).map(|()| Self::PeerList)?,
            "segment.list" => none(method, params).map(|()| Self::SegmentList)?,
            "mac.list" => Self::MacList(typed(method, params)?),
            "mac.add" => {
                let add: MacAdd = typed(method, params)?;
                if add.mac.is_group() || add.mac.is_zero() {
                    let kind = if add.mac.is_zero() { "zero" } else { "a group address" };
                    return Err(RpcError::params(format!(
                        "mac.add: \"{}\" is {kind}, and no station has it; expected the address of one station",
                        add.mac
                    )));
                }
                Self::MacAdd(add)
            }
            "mac.del" => Self::MacDel(typed(method, params)?),
            "mac.flush" => Self::MacFlush(typed(method, params)?),
            "drops" => Self::Drops(typed(method, params)?),
            "trace" => Self::Trace(typed(method, params)?),
            "reload" => none(method, params).map(|()| Self::Reload)?,
            "diff" => none(method, params).map(|()| Self::Diff)?,
            "doctor" => none(method, params).map(|()| Self::Doctor)?,
            "metrics" => none(method, params).map(|()| Self::Metrics)?,
            "cni.add" => Self::CniAdd(Box::new(typed(method, params)?)),
            "cni.del" => Self::CniDel(typed(method, params)?),
            "cni.check" => Self::CniCheck(typed(method, params)?),
            "cni.gc" => Self::CniGc(typed(method, params)?),
            "cni.gone" => Self::CniGone(typed(method, params)?),
            "cni.status" => Self::CniStatus(Box::new(typed(method, params)?)),
            "cni.list" => none(method, params).map(|()| Self::CniList)?,
            "capture" => {
                return Err(RpcError::method("method \"capture\" is not offered yet".to_owned()));
            }
            other => {
                return Err(RpcError::method(format!(
                    "unknown method {other:?}; \"hello\" lists what is offered"
                )));
            }
        })
    }
}

/// Checks that there are no parameters.
pub(super) fn none(method: &str, params: Value) -> Result<(), RpcError> {
    typed::<Nothing>(method, params).map(|Nothing {}| ())
}

fn typed<T: DeserializeOwned>(method: &str, params: Value) -> Result<T, RpcError> {
    let params = match params {
        Value::Null => Value::Object(Map::new()),
        Value::Object(_) => params,
        _ => return Err(RpcError::params(format!("{method}: parameters are named; expected an object"))),
    };
    serde_json::from_value(params).map_err(|error| RpcError::params(format!("{method}: {error}")))
}

fn vlan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vlan, D::Error> {
    let number = u64::deserialize(deserializer)?;
    u16::try_from(number)
        .ok()
        .and_then(Vlan::new)
        .ok_or_else(|| D::Error::invalid_value(Unexpected::Unsigned(number), &"a VLAN, 0 to 4094"))
}

fn some_vlan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vlan>, D::Error> {
    vlan(deserializer).map(Some)
}

fn mac<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mac, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), &"a MAC address like 02:00:00:00:00:0a"))
}

fn hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_hex(&text).map_err(D::Error::custom)
}

/// The bytes that `text` writes in hexadecimal, at most [`MAX_TRACE_LEN`] of them.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn parse_hex(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.as_bytes();
    if let Some(at) = digits.iter().position(|digit| !digit.is_ascii_hexdigit()) {
        return Err(format!("the frame is not hexadecimal at character {}", at + 1));
    }
    if digits.len() % 2 == 1 {
        return Err(format!("the frame has {} hexadecimal digits; expected an even number", digits.len()));
    }
    if digits.len() / 2 > MAX_TRACE_LEN {
        return Err(format!("the frame has {} bytes; at most {MAX_TRACE_LEN} are allowed", digits.len() / 2));
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.to_ascii_lowercase().wrapping_sub(b'a').wrapping_add(10),
    };
    Ok(digits.chunks_exact(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect())
}

/// Why a call failed, as the wire and `vswitchctl` show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RpcError {
    /// The kind, by JSON-RPC: one of the constants below.
    pub code: i32,
    /// One line.
    pub message: String,
    /// The rest.
    #[serde(default)]
    pub data: ErrorData,
}

/// What JSON-RPC leaves to the application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorData {
    /// What `vswitchctl` exits with: 1, 64 or 78.
    pub exit: u8,
    /// What lies behind the message, nearest first, one line each.
    #[serde(default)]
    pub causes: Vec<String>,
}

impl Default for ErrorData {
    fn default() -> Self {
        Self { exit: 1, causes: Vec::new() }
    }
}

impl RpcError {
    /// The line is not JSON.
    pub const PARSE: i32 = -32700;
    /// The JSON is not a request.
    pub const INVALID_REQUEST: i32 = -32600;
    /// No such method.
    pub const METHOD_NOT_FOUND: i32 = -32601;
    /// The parameters are wrong in form.
    pub const INVALID_PARAMS: i32 = -32602;
    /// The call was understood and refused, or failed.
    pub const REFUSED: i32 = -32000;
    /// The configuration file or a setting is bad; nothing was changed.
    pub const BAD_CONFIG: i32 = -32001;
    /// The server cannot take the request now, or not yet: it may be tried again.
    pub const UNAVAILABLE: i32 = -32002;
    /// What the call is about is not known.
    pub const UNKNOWN: i32 = -32003;

    fn new(code: i32, message: String, exit: u8) -> Self {
        Self { code, message, data: ErrorData { exit, causes: Vec::new() } }
    }

    /// The call was understood and is refused or failed: exit 1.
    #[must_use]
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Self::REFUSED, message.into(), 1)
    }

    /// The configuration is bad, nothing was changed: exit 78.
    #[must_use]
    pub fn bad_config(message: impl Into<String>) -> Self {
        Self::new(Self::BAD_CONFIG, message.into(), 78)
    }

    /// The parameters are wrong: exit 64.
    #[must_use]
    pub fn params(message: impl Into<String>) -> Self {
        Self::new(Self::INVALID_PARAMS, message.into(), 64)
    }

    /// `error` with all its sources as causes: exit 1.
    #[must_use]
    pub fn of(error: &dyn std::error::Error) -> Self {
        let sources = std::iter::successors(error.source(), |cause| cause.source());
        Self::refused(error.to_string()).because(sources.map(ToString::to_string))
    }

    /// With further causes behind those it has.
    #[must_use]
    pub fn because(mut self, causes: impl IntoIterator<Item = String>) -> Self {
        self.data.causes.extend(causes);
        self
    }

    pub(super) fn parse(message: String) -> Self {
        Self::new(Self::PARSE, message, 1)
    }

    pub(super) fn request(message: impl Into<String>) -> Self {
        Self::new(Self::INVALID_REQUEST, message.into(), 1)
    }

    pub(super) fn unknown(message: impl Into<String>) -> Self {
        Self::new(Self::UNKNOWN, message.into(), 1)
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Self::UNAVAILABLE, message.into(), 1)
    }

    fn method(message: String) -> Self {
        Self::new(Self::METHOD_NOT_FOUND, message, 1)
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RpcError {}

/// What `reload` did. Bad configuration is an error instead, and so is one that needs a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadAnswer {
    /// How many objects were added, removed or changed.
    pub changed: usize,
    /// What the operating system refused; `vswitchctl` lists it and exits 1.
    pub failed: Vec<Failed>,
}

/// An object that is down because the operating system refused a step; it is retried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// `port`, `peer`, `underlay` …
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// One difference between file + state and what runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffLine {
    /// What a reload would do with it.
    pub change: Change,
    /// `port`, `peer`, `segment`, `mac` …
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What is different, or what it is; empty where the name says all.
    pub what: String,
}

/// What a reload would do with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It is desired and does not run.
    Add,
    /// It runs and is not desired.
    Remove,
    /// It runs otherwise than desired.
    Change,
}

/// One thing that `doctor` looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How it is.
    pub state: Health,
    /// What was seen, one sentence.
    pub what: String,
    /// What to do about it, where something can be done.
    pub remedy: Option<String>,
}

/// How a thing is that `doctor` looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// As it should be.
    Good,
    /// It works, with less than it could or than was meant.
    Warning,
    /// It does not work.
    Bad,
}

/// What would become of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceAnswer {
    /// What the datapath did, in order, one line each.
    pub steps: Vec<String>,
    /// `forward`, `flood`, `drop` or `punt`.
    pub verdict: String,
    /// The drop's reason as `drops` names it; of a punt `too_big`, `neigh` or `probe`.
    pub reason: Option<String>,
    /// Where it would leave.
    pub outputs: Vec<TraceOutput>,
    /// `file:line` of what decided, where the configuration did.
    pub decided_by: Option<String>,
}

/// One way by which a frame would leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceOutput {
    /// The local port; null for a peer.
    pub port: Option<String>,
    /// The remote node's address; null for a local port.
    pub peer: Option<String>,
    /// The VNI it would wear; null for a local port.
    pub vni: Option<u32>,
    /// The frame as it would leave, in hexadecimal, without the outer headers.
    pub frame: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(method: &str, params: Value) -> (i32, u8, String) {
        let error = Call::parse(method, params).unwrap_err();
        (error.code, error.data.exit, error.message)
    }

    #[test]
    fn every_method_takes_its_parameters() {
        let ten = Vlan::new(10).unwrap();
        let mac = Mac::new([2, 0, 0, 0, 0, 10]);
        assert_eq!(Call::parse("status", Value::Null), Ok(Call::Status));
        assert_eq!(Call::parse("reload", json!({})), Ok(Call::Reload));
        assert_eq!(
            Call::parse("mac.add", json!({"port": "a", "vlan": 10, "mac": "02:00:00:00:00:0A"})),
            Ok(Call::MacAdd(MacAdd { port: "a".into(), vlan: ten, mac }))
        );
        assert_eq!(
            Call::parse("mac.flush", json!({"vlan": 10})),
            Ok(Call::MacFlush(MacFilter { port: None, vlan: Some(ten) }))
        );
        assert_eq!(Call::parse("mac.list", Value::Null), Ok(Call::MacList(MacFilter::default())));
        assert_eq!(
            Call::parse("drops", json!({"by_port": true})),
            Ok(Call::Drops(Drops { by_port: true, all: false }))
        );
        assert_eq!(
            Call::parse("trace", json!({"port": "a", "frame": "00fFA9"})),
            Ok(Call::Trace(Trace { port: "a".into(), frame: vec![0, 0xff, 0xa9] }))
        );
        let Ok(Call::PortAdd(add)) = Call::parse("port.add", json!({"name": "a", "settings": {"tag": 10}}))
        else {
            panic!()
        };
        assert_eq!((add.name.as_str(), &add.settings["tag"]), ("a", &json!(10)));
    }

    #[test]
    fn unknown_methods_and_parameters_are_refused_by_name() {
        let (code, exit, text) = refusal("mac.steal", Value::Null);
        assert_eq!((code, exit), (RpcError::METHOD_NOT_FOUND, 1));
        assert!(text.contains("mac.steal"), "{text}");
        assert!(refusal("capture", Value::Null).2.contains("not offered yet"));
        for (method, params, word) in [
            ("status", json!({"x": 1}), "`x`"),
            ("port.del", json!({"name": "a", "force": true}), "`force`"),
            ("port.del", json!({}), "`name`"),
            ("port.del", json!(["a"]), "named"),
            ("port.add", json!({"name": "a", "settings": 7}), "a map"),
            ("mac.list", json!({"vlan": 4095}), "0 to 4094"),
            ("mac.list", json!({"vlan": -1}), "u64"),
            ("mac.del", json!({"vlan": 1, "mac": "02:00"}), "MAC address"),
            ("mac.add", json!({"port": "a", "vlan": 1, "mac": "ff:ff:ff:ff:ff:ff"}), "group"),
            ("mac.add", json!({"port": "a", "vlan": 1, "mac": "00:00:00:00:00:00"}), "zero"),
            ("drops", json!({"by_port": "yes"}), "boolean"),
            ("trace", json!({"port": "a", "frame": "0"}), "even number"),
            ("trace", json!({"port": "a", "frame": "0g"}), "character 2"),
            ("trace", json!({"port": "a", "frame": "é"}), "character 1"),
            ("trace", json!({"port": "a", "frame": "00".repeat(65_536)}), "65535"),
        ] {
            let (code, exit, text) = refusal(method, params);
            assert_eq!((code, exit), (RpcError::INVALID_PARAMS, 64), "{method}: {text}");
            assert!(text.contains(word) && text.starts_with(method), "{method}: {text}");
        }
    }

    #[test]
    fn an_error_carries_its_causes() {
        let source = std::io::Error::other("deep");
        let error = super::super::socket::BindError::Os { what: "listen on", path: "/x".into(), source };
        let error = RpcError::of(&error);
        assert_eq!((error.data.exit, error.data.causes.as_slice()), (1, &["deep".to_owned()][..]));
    }
}
