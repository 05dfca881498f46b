//! The network configuration that the runtime streams to the plugin: what every verb needs of it.
//!
//! DEL and GC must go through whatever has become of a configuration, so this reads no more than its name, its version,
//! its IPAM and the daemon's socket; the rest is read by [`crate::wishes`].

use crate::environment::is_identifier;
use crate::error::CniError;
use crate::result::translate;
use crate::version::Version;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// Who gives a pod its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ipam {
    /// Nobody: the interface has none.
    None,
    /// vswitchd itself (`"type": "vswitch"`).
    BuiltIn,
    /// The plugin of this name.
    Delegated(String),
}

/// A network configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Conf {
    /// All of it.
    pub raw: Map<String, Value>,
    /// `cniVersion`.
    pub version: Version,
    /// `name`: the network's.
    pub name: String,
    /// `ipam`.
    pub ipam: Ipam,
    /// `socket`: the daemon's control socket.
    pub socket: PathBuf,
}

/// The type by which a configuration names the daemon's own IPAM.
pub const BUILT_IN: &str = "vswitch";

impl Conf {
    /// What `text` says.
    ///
    /// # Errors
    /// The error, and in which version to say it.
    pub fn parse(text: &[u8]) -> Result<Self, (CniError, Version)> {
        let latest = |error| (error, Version::V110);
        let raw: Value = serde_json::from_slice(text).map_err(|error| {
            latest(CniError::new(CniError::DECODE, format!("the network configuration is not JSON: {error}")))
        })?;
        let Value::Object(raw) = raw else {
            return Err(latest(CniError::new(
                CniError::DECODE,
                "the network configuration is not an object",
            )));
        };
        let version = version_of(&raw).map_err(latest)?;
        Self::read(raw, version).map_err(|error| (error, version))
    }

    /// The configuration that was kept with an attachment; `None` where there is none that can be read.
    #[must_use]
    pub fn kept(value: &Value) -> Option<Self> {
        let raw = value.as_object()?.clone();
        let version = version_of(&raw).ok()?;
        Self::read(raw, version).ok()
    }

    fn read(raw: Map<String, Value>, version: Version) -> Result<Self, CniError> {
        let name: String = key(&raw, "name")?.ok_or_else(|| CniError::config("\"name\" is missing"))?;
        if !is_identifier(&name) {
            return Err(CniError::config(format!("\"name\" is {name:?}"))
                .because("expected a letter or digit, then letters, digits, _ . and -"));
        }
        let socket: Option<PathBuf> = key(&raw, "socket")?;
        let ipam: Option<Map<String, Value>> = key(&raw, "ipam")?;
        let kind: Option<String> = ipam
            .as_ref()
            .map_or(Ok(None), |ipam| key(ipam, "type"))
            .map_err(|error| within("ipam", error))?;
        let ipam = match kind {
            None => Ipam::None,
            Some(kind) if kind.is_empty() => Ipam::None,
            Some(kind) if kind == BUILT_IN => Ipam::BuiltIn,
            Some(kind) if kind.contains('/') => {
                return Err(CniError::config(format!("\"ipam.type\" is {kind:?}"))
                    .because("expected the name of a plugin, not a path"));
            }
            Some(kind) => Ipam::Delegated(kind),
        };
        Ok(Self {
            raw,
            version,
            name,
            ipam,
            socket: socket.unwrap_or_else(|| PathBuf::from(vswitchd::ctl::DEFAULT_SOCKET)),
        })
    }

    /// The whole of it as JSON.
    #[must_use]
    pub fn value(&self) -> Value {
        Value::Object(self.raw.clone())
    }

    /// The same for a delegated plugin that speaks no later version than `version`; `prevResult` too is of that.
    #[must_use]
    pub fn spoken_as(&self, version: Version) -> Self {
        let mut conf = self.clone();
        conf.version = version;
        conf.raw.insert("cniVersion".to_owned(), version.text().into());
        if let Some(Value::Object(previous)) = conf.raw.get_mut("prevResult") {
            translate(previous, version);
        }
        conf
    }
}

/// `cniVersion`; a configuration without one is of version 0.1.0 (CNI 0.2.0).
fn version_of(raw: &Map<String, Value>) -> Result<Version, CniError> {
    let text: String = key(raw, "cniVersion")
        .map_err(|error| CniError { code: CniError::DECODE, ..error })?
        .unwrap_or_else(|| "0.1.0".to_owned());
    Version::parse(&text).ok_or_else(|| {
        let spoken = Version::ALL.map(Version::text).join(", ");
        CniError::new(CniError::INCOMPATIBLE, format!("\"cniVersion\" is {text:?}"))
            .because(format!("this plugin speaks {spoken}"))
    })
}

/// The value of `name`; null is as absent.
///
/// # Errors
/// [`CniError::CONFIG`] when it is of another kind.
pub fn key<T: DeserializeOwned>(raw: &Map<String, Value>, name: &str) -> Result<Option<T>, CniError> {
    match raw.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => T::deserialize(value)
            .map(Some)
            .map_err(|error| CniError::config(format!("\"{name}\" is {value}")).because(error.to_string())),
    }
}

/// `error` about a key of the object that is called `object`.
#[must_use]
pub fn within(object: &str, error: CniError) -> CniError {
    CniError { msg: error.msg.replacen('"', &format!("\"{object}."), 1), ..error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> (u32, String) {
        let (error, _) = Conf::parse(text.as_bytes()).unwrap_err();
        (error.code, format!("{}: {}", error.msg, error.details))
    }

    #[test]
    fn what_every_verb_needs_is_read() {
        let conf = Conf::parse(br#"{"cniVersion":"1.0.0","name":"blue","type":"vswitch-cni"}"#).unwrap();
        assert_eq!((conf.version, conf.name.as_str(), &conf.ipam), (Version::V100, "blue", &Ipam::None));
        assert_eq!(conf.socket, PathBuf::from("/run/vswitchd/control.sock"));
        let ipam = |text: &str| {
            let text = format!(r#"{{"cniVersion":"1.1.0","name":"n","socket":"/s","ipam":{text}}}"#);
            Conf::parse(text.as_bytes()).unwrap().ipam
        };
        assert_eq!(ipam("null"), Ipam::None);
        assert_eq!(ipam("{}"), Ipam::None);
        assert_eq!(ipam(r#"{"type":""}"#), Ipam::None);
        assert_eq!(ipam(r#"{"type":"vswitch"}"#), Ipam::BuiltIn);
        assert_eq!(ipam(r#"{"type":"host-local","x":1}"#), Ipam::Delegated("host-local".into()));
    }

    #[test]
    fn an_older_plugin_is_told_of_the_past_in_its_own_version() {
        let text = br#"{"cniVersion":"1.1.0","name":"n","prevResult":{"cniVersion":"1.1.0",
            "interfaces":[{"name":"eth0","mtu":1450}],"ips":[{"address":"10.1.0.5/16","interface":0}]}}"#;
        let old = Conf::parse(text).unwrap().spoken_as(Version::V040);
        let expected = serde_json::json!({"cniVersion": "0.4.0", "name": "n", "prevResult": {"cniVersion": "0.4.0",
            "interfaces": [{"name": "eth0"}], "ips": [{"version": "4", "address": "10.1.0.5/16", "interface": 0}]}});
        assert_eq!(old.value(), expected);
    }

    #[test]
    fn every_fault_has_its_code_and_names_the_key() {
        for (text, code, word) in [
            ("", CniError::DECODE, "not JSON"),
            ("[]", CniError::DECODE, "object"),
            (r#"{"name":"n"}"#, CniError::INCOMPATIBLE, "0.1.0"),
            (r#"{"cniVersion":"0.2.0","name":"n"}"#, CniError::INCOMPATIBLE, "1.1.0"),
            (r#"{"cniVersion":"2.0.0","name":"n"}"#, CniError::INCOMPATIBLE, "2.0.0"),
            (r#"{"cniVersion":1,"name":"n"}"#, CniError::DECODE, "cniVersion"),
            (r#"{"cniVersion":"1.0.0"}"#, CniError::CONFIG, "name"),
            (r#"{"cniVersion":"1.0.0","name":"../x"}"#, CniError::CONFIG, "name"),
            (r#"{"cniVersion":"1.0.0","name":"n","socket":7}"#, CniError::CONFIG, "\"socket\" is 7"),
            (r#"{"cniVersion":"1.0.0","name":"n","ipam":[]}"#, CniError::CONFIG, "\"ipam\""),
            (r#"{"cniVersion":"1.0.0","name":"n","ipam":{"type":1}}"#, CniError::CONFIG, "\"ipam.type\""),
            (r#"{"cniVersion":"1.0.0","name":"n","ipam":{"type":"../x"}}"#, CniError::CONFIG, "ipam.type"),
        ] {
            let (got, said) = refusal(text);
            assert_eq!(got, code, "{text}: {said}");
            assert!(said.contains(word), "{text}: {said}");
        }
    }
}
