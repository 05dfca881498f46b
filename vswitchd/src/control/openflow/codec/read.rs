//! Messages out of bytes.
//!
//! Not here: answers (see `write.rs`).

use super::super::table::{FlowCommand, FlowMatch, FlowMod};
use super::{Fields, HEADER_LEN, NICIRA, Refusal, VERSION, actions, kind, matches, port, stats};
use vswitch_core::Mac;

/// `buffer_id` of a message that stands for no frame.
const NO_BUFFER: u32 = u32::MAX;
/// OFPFF_CHECK_OVERLAP
const CHECK_OVERLAP: u16 = 1 << 1;
/// OFPFF_EMERG
const EMERGENCY: u16 = 1 << 2;
/// Bytes of OFPT_FLOW_MOD before its actions.
const FLOW_MOD_LEN: usize = 72;
/// Bytes of OFPT_PORT_MOD.
const PORT_MOD_LEN: usize = 32;
/// Bytes of a request for statistics before what it is about.
const STATS_LEN: usize = HEADER_LEN + 4;
/// Bytes of NXT_FLOW_MOD_TABLE_ID, which is padded.
const FLOW_MOD_TABLE_ID_LEN: usize = 24;
/// NXT_FLOW_MOD_TABLE_ID, of Nicira's messages.
const FLOW_MOD_TABLE_ID: u32 = 15;
/// `table_id` of a message that means the first table, and of one that means all.
const TABLES: [u8; 2] = [0, 0xff];

/// What a client may say once it has said hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Nothing is answered: a second hello, an error, the answer to an echo that nobody asked for.
    Ignored,
    /// An echo is to be sent back.
    Echo,
    /// OFPT_FEATURES_REQUEST
    Features,
    /// OFPT_GET_CONFIG_REQUEST
    GetConfig,
    /// OFPT_SET_CONFIG: how fragments are treated, which is never changed, and how much of a frame a controller gets.
    SetConfig {
        /// `miss_send_len`
        miss_send_len: u16,
    },
    /// NXT_FLOW_MOD_TABLE_ID, an extension of Open vSwitch: whether OFPT_FLOW_MOD says from now on which table it means.
    FlowModTableId(bool),
    /// OFPT_FLOW_MOD
    FlowMod(FlowMod),
    /// OFPT_PORT_MOD
    PortMod(PortMod),
    /// OFPT_STATS_REQUEST
    Stats(StatsRequest),
    /// OFPT_BARRIER_REQUEST
    Barrier,
    /// OFPT_QUEUE_GET_CONFIG_REQUEST, of a port: there are no queues.
    Queues(u16),
}

/// OFPT_PORT_MOD
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortMod {
    /// Of which port.
    pub number: u16,
    /// Its address as the client knows it.
    pub mac: Mac,
    /// Bits of `ofp_port_config` as they shall be.
    pub config: u32,
    /// Which of them count.
    pub mask: u32,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatsRequest {
    /// OFPST_DESC
    Desc,
    /// OFPST_FLOW
    Flow {
        /// Those that this covers.
        matches: FlowMatch,
        /// Those with an action to this port.
        out_port: Option<u16>,
        /// Whether the table that is meant is there.
        table: bool,
    },
    /// OFPST_AGGREGATE
    Aggregate {
        /// Those that this covers.
        matches: FlowMatch,
        /// Those with an action to this port.
        out_port: Option<u16>,
        /// Whether the table that is meant is there.
        table: bool,
    },
    /// OFPST_TABLE
    Table,
    /// OFPST_PORT, of one or of all.
    Port(Option<u16>),
    /// OFPST_QUEUE: there are none.
    Queue,
    /// OFPST_PORT_DESC
    PortDesc,
}

/// The first whole message in `bytes`, and how long it is; `None` while there is none.
///
/// # Errors
/// It says that it is shorter than its header: where the next one begins nobody knows.
pub fn split(bytes: &[u8]) -> Result<Option<&[u8]>, Refusal> {
    if bytes.len() < HEADER_LEN {
        return Ok(None);
    }
    let len = usize::from(Fields(bytes).u16(2));
    if len < HEADER_LEN {
        return Err(Refusal::bad_len("a message is shorter than its header"));
    }
    Ok(bytes.get(..len))
}

/// Whether a hello is of somebody who speaks OpenFlow 1.0: by its bitmap of versions where it has one (OpenFlow 1.3.1
/// §7.5.1), otherwise by its version, the highest that is spoken.
#[must_use]
pub fn has_version(hello: &[u8]) -> bool {
    let mut left = hello.get(HEADER_LEN..).unwrap_or_default();
    while left.len() >= 4 {
        let element = Fields(left);
        let len = usize::from(element.u16(2));
        if len < 4 {
            break;
        }
        // OFPHET_VERSIONBITMAP
        if element.u16(0) == 1 && (8..=left.len()).contains(&len) {
            return element.u32(4) >> VERSION & 1 == 1;
        }
        left = left.get(len.next_multiple_of(8)..).unwrap_or_default();
    }
    Fields(hello).u8(0) >= VERSION
}

/// Reads a whole message; `table_ids` is what the last [`Message::FlowModTableId`] said, at first `false`.
///
/// # Errors
/// What is to be answered instead.
pub fn decode(bytes: &[u8], table_ids: bool) -> Result<Message, Refusal> {
    let message = Fields(bytes);
    let len = bytes.len();
    let exactly = |wanted: usize| {
        if len == wanted { Ok(()) } else { Err(Refusal::bad_len("a message's length is wrong")) }
    };
    let kind = message.u8(1);
    if message.u8(0) != VERSION {
        return match kind {
            kind::HELLO | kind::ERROR => Ok(Message::Ignored),
            _ => Err(Refusal::bad_version("only OpenFlow 1.0 is spoken")),
        };
    }
    match kind {
        kind::HELLO | kind::ERROR | kind::ECHO_REPLY => Ok(Message::Ignored),
        kind::ECHO_REQUEST => Ok(Message::Echo),
        kind::VENDOR if message.u32(8) == NICIRA && message.u32(12) == FLOW_MOD_TABLE_ID => {
            exactly(FLOW_MOD_TABLE_ID_LEN).map(|()| Message::FlowModTableId(message.u8(16) != 0))
        }
        kind::VENDOR => Err(Refusal::bad_vendor("extensions of vendors are not offered")),
        kind::FEATURES_REQUEST => exactly(HEADER_LEN).map(|()| Message::Features),
        kind::GET_CONFIG_REQUEST => exactly(HEADER_LEN).map(|()| Message::GetConfig),
        kind::SET_CONFIG => {
            exactly(HEADER_LEN + 4).map(|()| Message::SetConfig { miss_send_len: message.u16(10) })
        }
        kind::FLOW_MOD => flow_mod(bytes, table_ids).map(Message::FlowMod),
        kind::PORT_MOD => exactly(PORT_MOD_LEN).map(|()| {
            Message::PortMod(PortMod {
                number: message.u16(8),
                mac: Mac::new(message.array(10)),
                config: message.u32(16),
                mask: message.u32(20),
            })
        }),
        kind::STATS_REQUEST => stats_request(bytes).map(Message::Stats),
        kind::BARRIER_REQUEST => exactly(HEADER_LEN).map(|()| Message::Barrier),
        kind::QUEUE_GET_CONFIG_REQUEST => exactly(HEADER_LEN + 4).map(|()| Message::Queues(message.u16(8))),
        _ => Err(Refusal::bad_type("messages of this type are not offered")),
    }
}

fn flow_mod(bytes: &[u8], table_ids: bool) -> Result<FlowMod, Refusal> {
    let message = Fields(bytes);
    if bytes.len() < FLOW_MOD_LEN {
        return Err(Refusal::bad_len("a message's length is wrong"));
    }
    let (matches, exact) = matches::read(Fields(&bytes[HEADER_LEN..]))?;
    let actions = actions::read(&bytes[FLOW_MOD_LEN..])?;
    // Where it is asked for, the command's upper half is the table.
    let (table, command) =
        if table_ids { (message.u8(56), message.u8(57).into()) } else { (TABLES[0], message.u16(56)) };
    let command = match command {
        0 => FlowCommand::Add,
        1 => FlowCommand::Modify { strict: false },
        2 => FlowCommand::Modify { strict: true },
        3 => FlowCommand::Delete { strict: false },
        4 => FlowCommand::Delete { strict: true },
        _ => return Err(Refusal::bad_command("there is no such command for flows")),
    };
    if !TABLES.contains(&table) {
        return Err(Refusal::bad_table("other tables are not offered"));
    }
    let deletes = matches!(command, FlowCommand::Delete { .. });
    if !deletes && message.u32(64) != NO_BUFFER {
        return Err(Refusal::buffer_unknown("no frames are buffered"));
    }
    let flags = message.u16(70);
    if flags & EMERGENCY != 0 {
        return Err(Refusal::table_full("there is no emergency flow cache"));
    }
    let out_port = message.u16(68);
    Ok(FlowMod {
        command,
        matches,
        priority: if exact { u16::MAX } else { message.u16(62) },
        actions,
        cookie: message.u64(48),
        idle_timeout: message.u16(58),
        hard_timeout: message.u16(60),
        check_overlap: flags & CHECK_OVERLAP != 0,
        out_port: (deletes && out_port != port::NONE).then_some(out_port),
    })
}

fn stats_request(bytes: &[u8]) -> Result<StatsRequest, Refusal> {
    let message = Fields(bytes);
    let body = bytes.get(STATS_LEN..).ok_or_else(|| Refusal::bad_len("a message's length is wrong"))?;
    let fields = Fields(body);
    let exactly = |wanted: usize| {
        if body.len() == wanted { Ok(()) } else { Err(Refusal::bad_len("a message's length is wrong")) }
    };
    let of_flows = || {
        exactly(matches::LEN + 4)?;
        let (matches, _) = matches::read(fields)?;
        let out_port = fields.u16(42);
        Ok((matches, (out_port != port::NONE).then_some(out_port), TABLES.contains(&fields.u8(40))))
    };
    match message.u16(8) {
        stats::DESC => exactly(0).map(|()| StatsRequest::Desc),
        stats::FLOW => {
            of_flows().map(|(matches, out_port, table)| StatsRequest::Flow { matches, out_port, table })
        }
        stats::AGGREGATE => {
            of_flows().map(|(matches, out_port, table)| StatsRequest::Aggregate { matches, out_port, table })
        }
        stats::TABLE => exactly(0).map(|()| StatsRequest::Table),
        stats::PORT => exactly(8).map(|()| {
            let number = fields.u16(0);
            StatsRequest::Port((number != port::NONE).then_some(number))
        }),
        stats::QUEUE => exactly(8).map(|()| StatsRequest::Queue),
        stats::PORT_DESC => exactly(0).map(|()| StatsRequest::PortDesc),
        stats::VENDOR => Err(Refusal::bad_vendor("statistics of vendors are not offered")),
        _ => Err(Refusal::bad_stat("statistics of this type are not offered")),
    }
}
