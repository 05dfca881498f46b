//! `bridge/dump-flows`: what a bridge does with its frames, as flows.
//!
//! Not here: OpenFlow.

use super::super::daemon::Control;
use super::commands::Answer;
use crate::datapath::clock;

impl Control {
    /// `bridge/dump-flows BRIDGE`: a bridge without flows of its own is a learning switch, which is one flow.
    pub(super) fn bridge_dump_flows(&self, arguments: &[&str]) -> Answer {
        let name = arguments.iter().find(|argument| !argument.starts_with('-')).copied().unwrap_or_default();
        let number = self.bridge_number(name, "Unknown bridge")?;
        if self.ovs.bridges.get(name).is_some_and(|bridge| bridge.config.fail_secure) {
            return Ok(String::new());
        }
        let counters = self.counters().map_err(|error| error.to_string())?;
        let (mut frames, mut bytes) = (0, 0);
        for port in self.ports_in(number) {
            let counts = counters.port(port.id);
            (frames, bytes) = (frames + counts.rx_frames, bytes + counts.rx_bytes);
        }
        let duration = clock::now().since(self.started).as_secs();
        Ok(format!("duration={duration}s, n_packets={frames}, n_bytes={bytes}, priority=0,actions=NORMAL\n"))
    }
}
