//! `mdb/…`: the multicast groups of a bridge that snoops (RFC 4541).
//!
//! Not here: how they are found out.

use super::super::daemon::Control;
use super::commands::Answer;

const NO_BRIDGE: &str = "no such bridge";
const DISABLED: &str = "multicast snooping is disabled";

impl Control {
    /// The number of the bridge `name`, if it snoops.
    fn snooping_bridge(&self, name: &str) -> Result<u8, String> {
        let number = self.bridge_number(name, NO_BRIDGE)?;
        let snoops = self.ovs.bridges.get(name).is_some_and(|bridge| bridge.config.snooping.is_some());
        if snoops { Ok(number) } else { Err(DISABLED.to_owned()) }
    }

    /// `mdb/show BRIDGE`
    pub(super) fn mdb_show(&self, arguments: &[&str]) -> Answer {
        self.snooping_bridge(arguments[0])?;
        Err("multicast groups are not listed".to_owned())
    }

    /// `mdb/flush [BRIDGE]`
    pub(super) fn mdb_flush(&self, arguments: &[&str]) -> Answer {
        match arguments.first() {
            Some(name) => {
                self.snooping_bridge(name)?;
                Err("multicast groups are not listed".to_owned())
            }
            None => Ok("table successfully flushed".to_owned()),
        }
    }
}
