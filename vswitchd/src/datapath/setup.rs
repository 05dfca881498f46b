//! Everything a worker runs on, swapped as one.

use crate::link::{AnyLink, UdpReceiver};
use std::sync::Arc;
use std::time::Duration;
use vswitch_core::switch::{Groups, Topology};
use vswitch_core::{MacTable, PortId};

/// A port's link, and which worker reads it; any worker may send on it.
#[derive(Debug)]
pub struct PortLink {
    /// The port.
    pub port: PortId,
    /// The worker that receives from it.
    pub worker: usize,
    /// The operating system's end.
    pub link: AnyLink,
}

/// One state of the whole switch, immutable. The descriptors in it close when the last worker has let go.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// What the core decides by.
    pub topology: Arc<Topology>,
    /// Who is where.
    pub macs: Option<Arc<MacTable>>,
    /// Who listens to which multicast group; `None`: as before.
    pub groups: Option<Arc<Groups>>,
    /// By port number; none where the port is down.
    pub links: Vec<Option<Arc<PortLink>>>,
    /// The underlay's receiving sockets, by worker.
    pub receivers: Vec<Vec<Arc<UdpReceiver>>>,
    /// How long a worker looks for the next frame before it sleeps, where frames come quickly.
    pub busy_poll: Duration,
    /// Port numbers that were given out anew: their counts begin at zero.
    pub fresh: Vec<PortId>,
    /// The same of mirrors' numbers.
    pub fresh_mirrors: Vec<u32>,
}

impl Setup {
    /// The link of `port`, if it is up.
    #[must_use]
    pub fn link(&self, port: PortId) -> Option<&Arc<PortLink>> {
        self.links.get(port.index())?.as_ref()
    }
}
