//! `mdb/…`: the multicast groups of a bridge that snoops (RFC 4541).
//!
//! Not here: how they are found out (see [`crate::slow`]).

use super::super::daemon::Control;
use super::commands::Answer;
use std::fmt::Write as _;

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
        let number = self.snooping_bridge(arguments[0])?;
        let ports = self.ports_by_id(number);
        let mut text = " port  VLAN  GROUP                Age\n".to_owned();
        for entry in self.slow.groups() {
            // A port that is being taken away has no number any more.
            let Some(port) = ports.get(&entry.port).filter(|_| entry.segment.bridge() == number) else {
                continue;
            };
            let (port, vlan, age) = (port.word(), entry.segment.vlan().get(), entry.age.as_secs());
            let group = entry.group.map(|group| group.to_string());
            let group = group.as_deref().unwrap_or("querier    ");
            let _ = writeln!(text, "{port:>5}  {vlan:>4}  {group}         {age:>3}");
        }
        Ok(text)
    }

    /// `mdb/flush [BRIDGE]`
    pub(super) fn mdb_flush(&self, arguments: &[&str]) -> Answer {
        let number = arguments.first().map(|name| self.snooping_bridge(name)).transpose()?;
        self.slow.flush_groups(number);
        Ok("table successfully flushed".to_owned())
    }
}
