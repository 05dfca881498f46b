//! Bytes of answers.
//!
//! A message is at most 65,535 bytes long; statistics that are longer come in several, each but the last saying that
//! more will follow (OpenFlow 1.0.1 §5.3.5). Not here: what is answered.

use super::super::table::{Count, Flow};
use super::{Fields, HEADER_LEN, REPEATED, Refusal, VERSION, actions, kind, matches, stats};
use std::time::Duration;
use vswitch_core::Mac;

/// Bytes of a message at most.
const MAX_LEN: usize = u16::MAX as usize;
/// Bytes of `ofp_phy_port`.
const PORT_LEN: usize = 48;

/// A port as OFPT_FEATURES_REPLY tells of it (`ofp_phy_port`, OpenFlow 1.0.1 §5.2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortDesc {
    /// Its OpenFlow number.
    pub number: u16,
    /// Its name; 15 bytes of it are told.
    pub name: String,
    /// Its address.
    pub mac: Mac,
    /// Whether its interface is set down (OFPPC_PORT_DOWN).
    pub admin_down: bool,
    /// Whether it has no link (OFPPS_LINK_DOWN).
    pub link_down: bool,
    /// How fast it is, of `ofp_port_features`.
    pub features: u32,
}

/// What passed a port (`ofp_port_stats`); what is not counted is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Its OpenFlow number.
    pub number: u16,
    /// What it received.
    pub rx: Count,
    /// What it sent.
    pub tx: Count,
    /// What was received and dropped, and what could not be sent.
    pub dropped: (u64, u64),
    /// Errors of both ways.
    pub errors: (u64, u64),
    /// Frames that the interface had no room for.
    pub overruns: u64,
}

/// Answers, one behind the other.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// All that was written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// How much was written.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A message of this type and body, at most 65,527 bytes of it.
    pub fn message(&mut self, kind: u8, xid: u32, body: &[u8]) {
        let body = &body[..body.len().min(MAX_LEN - HEADER_LEN)];
        let len = u16::try_from(HEADER_LEN + body.len()).unwrap_or(u16::MAX);
        self.bytes.extend([VERSION, kind]);
        self.bytes.extend(len.to_be_bytes());
        self.bytes.extend(xid.to_be_bytes());
        self.bytes.extend(body);
    }

    /// OFPT_HELLO, as one who speaks this version and no other.
    pub fn hello(&mut self) {
        self.message(kind::HELLO, 1, &[]);
    }

    /// OFPT_ERROR: why `request` is refused, and the beginning of it.
    pub fn error(&mut self, refusal: Refusal, request: &[u8]) {
        let xid = Fields(request).u32(4);
        let mut body = refusal.wire();
        body.extend(&request[..request.len().min(REPEATED)]);
        self.message(kind::ERROR, xid, &body);
    }

    /// OFPT_ERROR with words instead of a request: nobody can speak to this one.
    pub fn hello_failed(&mut self, xid: u32, refusal: Refusal) {
        let mut body = refusal.wire();
        body.extend(refusal.reason.as_bytes());
        self.message(kind::ERROR, xid, &body);
    }

    /// OFPT_ECHO_REPLY with what came with `request`.
    pub fn echo(&mut self, request: &[u8]) {
        let body = request.get(HEADER_LEN..).unwrap_or_default();
        self.message(kind::ECHO_REPLY, Fields(request).u32(4), body);
    }

    /// OFPT_GET_CONFIG_REPLY: fragments are treated like other frames.
    pub fn config(&mut self, xid: u32, miss_send_len: u16) {
        let [high, low] = miss_send_len.to_be_bytes();
        self.message(kind::GET_CONFIG_REPLY, xid, &[0, 0, high, low]);
    }

    /// OFPT_QUEUE_GET_CONFIG_REPLY of a port without queues.
    pub fn no_queues(&mut self, xid: u32, port: u16) {
        let [high, low] = port.to_be_bytes();
        self.message(kind::QUEUE_GET_CONFIG_REPLY, xid, &[high, low, 0, 0, 0, 0, 0, 0]);
    }

    /// OFPT_BARRIER_REPLY
    pub fn barrier(&mut self, xid: u32) {
        self.message(kind::BARRIER_REPLY, xid, &[]);
    }

    /// OFPT_FEATURES_REPLY: one table, no buffers, counts of flows, tables and ports, output. Ports that do not fit
    /// are left out; OFPST_PORT_DESC has them all.
    pub fn features(&mut self, xid: u32, datapath_id: u64, ports: &[PortDesc]) {
        let mut body = Vec::new();
        body.extend(datapath_id.to_be_bytes());
        body.extend(0_u32.to_be_bytes());
        body.extend([1, 0, 0, 0]);
        // OFPC_FLOW_STATS, OFPC_TABLE_STATS, OFPC_PORT_STATS
        body.extend(0b111_u32.to_be_bytes());
        // OFPAT_OUTPUT
        body.extend(1_u32.to_be_bytes());
        let room = (MAX_LEN - HEADER_LEN - body.len()) / PORT_LEN;
        ports.iter().take(room).for_each(|port| body.extend(phy_port(port)));
        self.message(kind::FEATURES_REPLY, xid, &body);
    }

    /// OFPT_STATS_REPLY of this type: as many messages as `entries` need, one at least.
    pub fn stats(&mut self, xid: u32, of: u16, entries: impl Iterator<Item = Vec<u8>>) {
        let begin = |body: &mut Vec<u8>| {
            body.clear();
            body.extend(of.to_be_bytes());
            body.extend([0, 0]);
        };
        let mut body = Vec::new();
        begin(&mut body);
        for entry in entries {
            if HEADER_LEN + body.len() + entry.len() > MAX_LEN {
                // OFPSF_REPLY_MORE
                body[3] = 1;
                self.message(kind::STATS_REPLY, xid, &body);
                begin(&mut body);
            }
            body.extend(entry);
        }
        self.message(kind::STATS_REPLY, xid, &body);
    }

    /// OFPST_DESC: who made it, the hardware, the software, a serial number, a description.
    pub fn desc(&mut self, xid: u32, [made, hardware, software, serial, described]: [&str; 5]) {
        let entry = [
            &padded::<256>(made)[..],
            &padded::<256>(hardware),
            &padded::<256>(software),
            &padded::<32>(serial),
            &padded::<256>(described),
        ];
        self.stats(xid, stats::DESC, std::iter::once(entry.concat()));
    }

    /// OFPST_FLOW: each flow, with how long it has been there, in milliseconds as Open vSwitch has it.
    pub fn flows<'a>(&mut self, xid: u32, flows: impl Iterator<Item = (&'a Flow, Duration)>) {
        let entry = |(flow, age): (&Flow, Duration)| {
            let mut entry = vec![0; 4];
            entry.extend(matches::write(&flow.matches));
            entry.extend(u32::try_from(age.as_secs()).unwrap_or(u32::MAX).to_be_bytes());
            entry.extend((age.subsec_millis() * 1_000_000).to_be_bytes());
            for number in [flow.priority, flow.idle_timeout, flow.hard_timeout, 0, 0, 0] {
                entry.extend(number.to_be_bytes());
            }
            for number in [flow.cookie, flow.count.frames, flow.count.bytes] {
                entry.extend(number.to_be_bytes());
            }
            entry.extend(actions::write(&flow.actions));
            let len = u16::try_from(entry.len()).unwrap_or(u16::MAX);
            entry[..2].copy_from_slice(&len.to_be_bytes());
            entry
        };
        self.stats(xid, stats::FLOW, flows.map(entry));
    }

    /// OFPST_AGGREGATE: what was counted for how many flows.
    pub fn aggregate(&mut self, xid: u32, count: Count, flows: u32) {
        let mut entry = [count.frames.to_be_bytes(), count.bytes.to_be_bytes()].concat();
        entry.extend(flows.to_be_bytes());
        entry.extend([0; 4]);
        self.stats(xid, stats::AGGREGATE, std::iter::once(entry));
    }

    /// OFPST_TABLE: the one table, how many flows it may have and has, how many frames were looked up and had one.
    pub fn table(&mut self, xid: u32, (most, active): (u32, u32), (lookups, matched): (u64, u64)) {
        let mut entry = vec![0; 4];
        entry.extend(padded::<32>(""));
        // All fields of OpenFlow 1.0 may be left open.
        for number in [(1 << 22) - 1, most, active] {
            entry.extend(u32::to_be_bytes(number));
        }
        entry.extend(lookups.to_be_bytes());
        entry.extend(matched.to_be_bytes());
        self.stats(xid, stats::TABLE, std::iter::once(entry));
    }

    /// OFPST_PORT
    pub fn port_stats(&mut self, xid: u32, ports: impl Iterator<Item = PortStats>) {
        let entry = |port: PortStats| {
            let mut entry = port.number.to_be_bytes().to_vec();
            entry.extend([0; 6]);
            let numbers = [
                port.rx.frames,
                port.tx.frames,
                port.rx.bytes,
                port.tx.bytes,
                port.dropped.0,
                port.dropped.1,
                port.errors.0,
                port.errors.1,
                // Framing errors, overruns, wrong checksums, collisions.
                0,
                port.overruns,
                0,
                0,
            ];
            entry.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
            entry
        };
        self.stats(xid, stats::PORT, ports.map(entry));
    }

    /// OFPST_PORT_DESC
    pub fn port_descs(&mut self, xid: u32, ports: &[PortDesc]) {
        self.stats(xid, stats::PORT_DESC, ports.iter().map(|port| phy_port(port).to_vec()));
    }
}

/// `text` and zeros behind it, one at least.
fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let end = text.floor_char_boundary(N - 1);
    bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
    bytes
}

fn phy_port(port: &PortDesc) -> [u8; PORT_LEN] {
    let mut bytes = [0; PORT_LEN];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, &port.number.to_be_bytes());
    put(2, &port.mac.bytes());
    put(8, &padded::<16>(&port.name));
    put(24, &u32::from(port.admin_down).to_be_bytes());
    put(28, &u32::from(port.link_down).to_be_bytes());
    put(32, &port.features.to_be_bytes());
    bytes
}
