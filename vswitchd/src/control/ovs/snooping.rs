//! Which bridges of the database snoop, for the slow path, and how.
//!
//! Not here: who joined what (see [`crate::slow`]), and where a frame goes (that is the core).

use super::super::daemon::Control;
use crate::slow::{SnoopedBridge, SnoopedPort};

impl Control {
    /// Tells the slow path of bridges that snoop and of their ports, if that is news.
    pub(in super::super) fn tell_snooping(&mut self) {
        let snooped = self.snooped();
        if snooped != self.ovs.snooped {
            self.slow.set_snooping(snooped.clone());
            self.ovs.snooped = snooped;
        }
    }

    fn snooped(&self) -> Vec<SnoopedBridge> {
        let mut snooped = Vec::new();
        for (name, bridge) in &self.ovs.bridges {
            let Some(config) = bridge.config.snooping.clone() else { continue };
            let here = self.running.ports.values().filter(|port| port.config.bridge.as_ref() == Some(name));
            let ports = here.map(|port| {
                let (flood, flood_reports) = (port.config.mcast_flood, port.config.mcast_flood_reports);
                (port.id, SnoopedPort { flood, flood_reports })
            });
            snooped.push(SnoopedBridge { number: bridge.number, config, ports: ports.collect() });
        }
        snooped
    }
}
