//! What ovs-ofctl is answered about a bridge.
//!
//! Pure: what is known of the bridge is an argument. Not here: bytes, and how a change of flows comes to be in force.

use super::codec::{PortDesc, PortStats, Refusal, StatsRequest, Writer, stats};
use super::table::{Count, FlowError, FlowTable, MAX_FLOWS};
use vswitch_core::Instant;

/// What is known of a bridge.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Its datapath id.
    pub datapath_id: u64,
    /// Its ports, by number.
    pub ports: Vec<PortDesc>,
    /// What passed them, by number.
    pub port_stats: Vec<PortStats>,
    /// The time by which flows are as old as they are.
    pub now: Instant,
}

/// Why a change of flows is refused, in OpenFlow's words.
impl From<FlowError> for Refusal {
    fn from(error: FlowError) -> Self {
        match error {
            FlowError::Full => Self::table_full("a bridge may have 4096 flows"),
            FlowError::Overlap => Self::overlap("a flow of the same priority overlaps with it"),
        }
    }
}

/// Answers a request for statistics.
pub fn stats_reply(request: &StatsRequest, xid: u32, table: &FlowTable, facts: &Facts, writer: &mut Writer) {
    match request {
        StatsRequest::Desc => {
            writer.desc(xid, ["vswitch", "vswitchd", env!("CARGO_PKG_VERSION"), "None", "None"]);
        }
        StatsRequest::Flow { matches, out_port, table: there } => {
            let flows = table.select(matches, *out_port).filter(|_| *there);
            writer.flows(xid, flows.map(|flow| (flow, facts.now.since(flow.created))));
        }
        StatsRequest::Aggregate { matches, out_port, table: there } => {
            let (mut sum, mut flows) = (Count::default(), 0);
            for flow in table.select(matches, *out_port).filter(|_| *there) {
                sum.add(flow.count);
                flows += 1;
            }
            writer.aggregate(xid, sum, flows);
        }
        StatsRequest::Table => {
            let number = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
            let matched = table.matched().frames;
            writer.table(
                xid,
                (number(MAX_FLOWS), number(table.flows().len())),
                (table.looked_up().max(matched), matched),
            );
        }
        StatsRequest::Port(number) => {
            let asked = |port: &&PortStats| number.is_none_or(|number| port.number == number);
            writer.port_stats(xid, facts.port_stats.iter().filter(asked).copied());
        }
        StatsRequest::Queue => writer.stats(xid, stats::QUEUE, std::iter::empty()),
        StatsRequest::PortDesc => writer.port_descs(xid, &facts.ports),
    }
}

/// Whether a request for statistics is about ports.
#[must_use]
pub(super) const fn is_about_ports(request: &StatsRequest) -> bool {
    matches!(request, StatsRequest::Port(_) | StatsRequest::PortDesc)
}
