//! OpenFlow 1.0.1 on the wire: messages out of bytes, and bytes of answers.
//!
//! Lengths are checked before anything is believed; what cannot be read becomes the error that Open vSwitch would
//! answer with. Not here: sockets (see [`super::server`]), and what the messages do.

mod actions;
mod matches;
mod read;
mod write;

pub use read::{Message, PortMod, StatsRequest, decode, has_version, split};
pub use write::{PortDesc, PortStats, Writer};

/// The version spoken: OpenFlow 1.0.
pub const VERSION: u8 = 0x01;
/// Bytes of a message's header (OpenFlow 1.0.1 §5.1).
pub const HEADER_LEN: usize = 8;
/// How much of a refused message an error repeats: 64 bytes at least (OpenFlow 1.0.1 §5.4.4), and where the message is
/// a flow, so much that ovs-ofctl can show it.
pub const REPEATED: usize = 1024;

/// Nicira, by whose name Open vSwitch calls its extensions.
const NICIRA: u32 = 0x0000_2320;

/// Types of messages (OpenFlow 1.0.1 §5.1).
pub mod kind {
    /// OFPT_HELLO
    pub const HELLO: u8 = 0;
    /// OFPT_ERROR
    pub const ERROR: u8 = 1;
    /// OFPT_ECHO_REQUEST
    pub const ECHO_REQUEST: u8 = 2;
    /// OFPT_ECHO_REPLY
    pub const ECHO_REPLY: u8 = 3;
    /// OFPT_VENDOR
    pub const VENDOR: u8 = 4;
    /// OFPT_FEATURES_REQUEST
    pub const FEATURES_REQUEST: u8 = 5;
    /// OFPT_FEATURES_REPLY
    pub const FEATURES_REPLY: u8 = 6;
    /// OFPT_GET_CONFIG_REQUEST
    pub const GET_CONFIG_REQUEST: u8 = 7;
    /// OFPT_GET_CONFIG_REPLY
    pub const GET_CONFIG_REPLY: u8 = 8;
    /// OFPT_SET_CONFIG
    pub const SET_CONFIG: u8 = 9;
    /// OFPT_FLOW_MOD
    pub const FLOW_MOD: u8 = 14;
    /// OFPT_PORT_MOD
    pub const PORT_MOD: u8 = 15;
    /// OFPT_STATS_REQUEST
    pub const STATS_REQUEST: u8 = 16;
    /// OFPT_STATS_REPLY
    pub const STATS_REPLY: u8 = 17;
    /// OFPT_BARRIER_REQUEST
    pub const BARRIER_REQUEST: u8 = 18;
    /// OFPT_BARRIER_REPLY
    pub const BARRIER_REPLY: u8 = 19;
    /// OFPT_QUEUE_GET_CONFIG_REQUEST
    pub const QUEUE_GET_CONFIG_REQUEST: u8 = 20;
    /// OFPT_QUEUE_GET_CONFIG_REPLY
    pub const QUEUE_GET_CONFIG_REPLY: u8 = 21;
}

/// Types of statistics (OpenFlow 1.0.1 §5.3.5), and Open vSwitch's 13.
pub mod stats {
    /// OFPST_DESC
    pub const DESC: u16 = 0;
    /// OFPST_FLOW
    pub const FLOW: u16 = 1;
    /// OFPST_AGGREGATE
    pub const AGGREGATE: u16 = 2;
    /// OFPST_TABLE
    pub const TABLE: u16 = 3;
    /// OFPST_PORT
    pub const PORT: u16 = 4;
    /// OFPST_QUEUE
    pub const QUEUE: u16 = 5;
    /// OFPST_PORT_DESC, which Open vSwitch has in every version.
    pub const PORT_DESC: u16 = 13;
    /// OFPST_VENDOR
    pub const VENDOR: u16 = 0xffff;
}

/// Numbers of ports that are none (OpenFlow 1.0.1 §5.2.1).
pub mod port {
    /// The largest number of an ordinary port.
    pub const MAX: u16 = 0xff00;
    /// OFPP_IN_PORT
    pub const IN_PORT: u16 = 0xfff8;
    /// OFPP_NORMAL
    pub const NORMAL: u16 = 0xfffa;
    /// OFPP_FLOOD
    pub const FLOOD: u16 = 0xfffb;
    /// OFPP_ALL
    pub const ALL: u16 = 0xfffc;
    /// OFPP_LOCAL
    pub const LOCAL: u16 = 0xfffe;
    /// OFPP_NONE
    pub const NONE: u16 = 0xffff;
}

/// An error of OpenFlow 1.0.1 §5.4.4 or one of Open vSwitch's own, with the words for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `type` and `code`; a code of 256 or above is Open vSwitch's.
    pub code: (u16, u16),
    /// What was wrong, or is not offered.
    pub reason: &'static str,
}

impl Refusal {
    /// Whether it is of an extension that is not there.
    #[must_use]
    pub fn is_of_vendor(self) -> bool {
        self.code == Self::bad_vendor("").code
    }

    /// `type` and `code` as they are on the wire: Open vSwitch's own stand behind its vendor's number.
    fn wire(self) -> Vec<u8> {
        let (kind, code) = self.code;
        let error = [kind.to_be_bytes(), code.to_be_bytes()].concat();
        // NXET_VENDOR and NXVC_VENDOR_ERROR
        if code < 256 { error } else { [&[0xb0, 0xc2, 0, 0][..], &NICIRA.to_be_bytes(), &error].concat() }
    }
}

macro_rules! refusals {
    ($($(#[$text:meta])* $name:ident = $code:expr;)*) => {
        impl Refusal {
            $($(#[$text])* #[must_use] pub const fn $name(reason: &'static str) -> Self {
                Self { code: $code, reason }
            })*
        }
    };
}

refusals! {
    /// OFPHFC_INCOMPATIBLE
    incompatible = (0, 0);
    /// OFPBRC_BAD_VERSION
    bad_version = (1, 0);
    /// OFPBRC_BAD_TYPE
    bad_type = (1, 1);
    /// OFPBRC_BAD_STAT
    bad_stat = (1, 2);
    /// OFPBRC_BAD_VENDOR
    bad_vendor = (1, 3);
    /// OFPBRC_BAD_LEN
    bad_len = (1, 6);
    /// OFPBRC_BUFFER_UNKNOWN
    buffer_unknown = (1, 8);
    /// OFPBRC_BAD_TABLE_ID, for which OpenFlow 1.0 has no number.
    bad_table = (1, 512);
    /// OFPBAC_BAD_TYPE
    bad_action = (2, 0);
    /// OFPBAC_BAD_LEN
    bad_action_len = (2, 1);
    /// OFPBAC_BAD_VENDOR
    bad_action_vendor = (2, 2);
    /// OFPBAC_BAD_OUT_PORT
    bad_out_port = (2, 4);
    /// OFPBAC_TOO_MANY
    too_many_actions = (2, 7);
    /// OFPFMFC_ALL_TABLES_FULL
    table_full = (3, 0);
    /// OFPFMFC_OVERLAP
    overlap = (3, 1);
    /// OFPFMFC_BAD_COMMAND
    bad_command = (3, 4);
    /// OFPFMFC_UNSUPPORTED
    unsupported_match = (3, 5);
    /// OFPPMFC_BAD_PORT
    bad_port = (4, 0);
    /// OFPPMFC_BAD_HW_ADDR
    bad_hw_addr = (4, 1);
    /// OFPBRC_EPERM: of a port's settings, for which OpenFlow 1.0 has no error of its own.
    port_config = (1, 5);
}

/// Big-endian numbers at fixed places of a message whose length was checked.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(self, at: usize) -> [u8; N] {
        self.0.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
    }

    fn u8(self, at: usize) -> u8 {
        let [byte] = self.array(at);
        byte
    }

    fn u16(self, at: usize) -> u16 {
        u16::from_be_bytes(self.array(at))
    }

    fn u32(self, at: usize) -> u32 {
        u32::from_be_bytes(self.array(at))
    }

    fn u64(self, at: usize) -> u64 {
        u64::from_be_bytes(self.array(at))
    }
}
