//! Errors as the CNI specification has them: a code, a short message, details (CNI 1.1.0, section 5, "Error").

use crate::version::Version;
use serde_json::{Value, json};

/// Why a call failed, as the runtime is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniError {
    /// One of the constants below, or what a delegated plugin said.
    pub code: u32,
    /// One line.
    pub msg: String,
    /// The rest; may be empty.
    pub details: String,
}

impl CniError {
    /// The version of the specification that is asked for is not spoken here, or has no such verb.
    pub const INCOMPATIBLE: u32 = 1;
    /// A key of the network configuration is not known; the message has the key and its value.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// The container is unknown or does not exist: nothing needs to be cleaned up.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// A variable of the environment is missing or wrong; the message has its name.
    pub const ENVIRONMENT: u32 = 4;
    /// Reading or writing failed.
    pub const IO: u32 = 5;
    /// What was read is no JSON, or not of the form it must have.
    pub const DECODE: u32 = 6;
    /// The network configuration is wrong.
    pub const CONFIG: u32 = 7;
    /// It cannot be done now: try again later.
    pub const TRY_AGAIN: u32 = 11;
    /// STATUS: no ADD can be served.
    pub const UNAVAILABLE: u32 = 50;
    /// STATUS: no ADD can be served, and containers that there are may have lost their connectivity.
    pub const LIMITED: u32 = 51;
    /// This plugin's own: vswitchd refused, or the attachment is not as it should be.
    pub const REFUSED: u32 = 100;
    /// This plugin's own: a delegated plugin could not be run, or answered what is no answer.
    pub const DELEGATE: u32 = 101;
    /// This plugin's own: the pod's interface could not be given its addresses or routes.
    pub const INTERFACE: u32 = 102;

    /// With a code and a message.
    #[must_use]
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// The network configuration is wrong.
    #[must_use]
    pub fn config(msg: impl Into<String>) -> Self {
        Self::new(Self::CONFIG, msg)
    }

    /// With details.
    #[must_use]
    pub fn because(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// With what else went wrong on the way back.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        let also = if other.details.is_empty() {
            other.msg.clone()
        } else {
            format!("{}: {}", other.msg, other.details)
        };
        self.details = if self.details.is_empty() { also } else { format!("{}; {also}", self.details) };
        self
    }

    /// As it is printed.
    #[must_use]
    pub fn json(&self, version: Version) -> Value {
        let mut error = json!({"cniVersion": version.text(), "code": self.code, "msg": self.msg});
        if !self.details.is_empty() {
            error["details"] = json!(self.details);
        }
        error
    }
}
