//! Commands about the process itself: version, memory, coverage.
//!
//! Not here: commands about bridges and tables.

use super::super::daemon::Control;
use super::commands::Answer;

/// The version of Open vSwitch whose words are spoken.
const OVS_VERSION: &str = "3.1.0";

impl Control {
    /// `version`: in the seat of ovs-vswitchd the line that scripts read there, and who it really is.
    pub(super) fn version(&self) -> Answer {
        let own = concat!("vswitchd (vswitch) ", env!("CARGO_PKG_VERSION"), "\n");
        if self.unixctl.as_ovs_vswitchd {
            return Ok(format!("ovs-vswitchd (Open vSwitch) {OVS_VERSION}\n{own}"));
        }
        Ok(own.to_owned())
    }
}
