//! `ofp_match` (OpenFlow 1.0.1 §5.2.3): 40 bytes, and which of them are to be looked at.
//!
//! Not here: what a flow for a port that is not there is for (see [`super::super::FlowTable::rules`]).

use super::super::table::{FlowMatch, FlowVlan};
use super::{Fields, Refusal};
use vswitch_core::Mac;

/// Bytes of `ofp_match`.
pub(super) const LEN: usize = 40;

const IN_PORT: u32 = 1 << 0;
const DL_VLAN: u32 = 1 << 1;
const DL_SRC: u32 = 1 << 2;
const DL_DST: u32 = 1 << 3;
const DL_TYPE: u32 = 1 << 4;
const NW_PROTO: u32 = 1 << 5;
const DL_VLAN_PCP: u32 = 1 << 20;
const NW_TOS: u32 = 1 << 21;
/// Everything.
const ALL: u32 = (1 << 22) - 1;
/// Places of the numbers of bits of `nw_src` and `nw_dst` that do not count: 6 bits each, 32 and above for all.
const NW_SRC_SHIFT: u32 = 8;
const NW_DST_SHIFT: u32 = 14;

/// `dl_vlan` of a frame without a tag.
const VLAN_NONE: u16 = 0xffff;
const ETHERTYPE_IP: u16 = 0x0800;
/// ARP and RARP.
const ETHERTYPES_ARP: [u16; 2] = [0x0806, 0x8035];

/// Reads one, and whether it leaves nothing open: a flow with such a one has the highest priority, whatever it says
/// (OpenFlow 1.0.1 §5.3.3). Fields that do not exist in frames of its `dl_type` do not count, as in Open vSwitch.
///
/// # Errors
/// It looks at what stands behind the Ethernet header.
pub(super) fn read(bytes: Fields<'_>) -> Result<(FlowMatch, bool), Refusal> {
    let wild = bytes.u32(0);
    let asked = |bit: u32| wild & bit == 0;
    let mac = |at: usize| Mac::new(bytes.array(at));
    let vid = bytes.u16(18);
    let vlan = match vid {
        VLAN_NONE => FlowVlan::Untagged,
        vid => FlowVlan::Vid(vid & 0x0fff),
    };
    let vlan = asked(DL_VLAN).then_some(vlan);
    // A frame without a tag has no priority to be looked at.
    let pcp = (asked(DL_VLAN_PCP) && vlan != Some(FlowVlan::Untagged)).then(|| bytes.u8(20) & 7);
    let ethertype = asked(DL_TYPE).then(|| bytes.u16(22));
    if looks_deeper(wild, ethertype) {
        return Err(Refusal::unsupported_match(
            "matches on fields of IP, ARP, TCP, UDP and ICMP (nw_*, tp_*) are not offered",
        ));
    }
    let matches = FlowMatch {
        in_port: asked(IN_PORT).then(|| bytes.u16(4)),
        vlan,
        pcp,
        src: asked(DL_SRC).then(|| mac(6)),
        dst: asked(DL_DST).then(|| mac(12)),
        ethertype,
    };
    Ok((matches, wild & ALL == 0))
}

/// Whether fields count that stand behind the Ethernet header.
fn looks_deeper(wild: u32, ethertype: Option<u16>) -> bool {
    let addresses = [NW_SRC_SHIFT, NW_DST_SHIFT].iter().any(|shift| wild >> shift & 0x3f < 32);
    match ethertype {
        // Ports count only with a protocol.
        Some(ETHERTYPE_IP) => addresses || wild & NW_PROTO == 0 || wild & NW_TOS == 0,
        Some(other) if ETHERTYPES_ARP.contains(&other) => addresses || wild & NW_PROTO == 0,
        _ => false,
    }
}

/// The bytes of one.
pub(super) fn write(matches: &FlowMatch) -> [u8; LEN] {
    let FlowMatch { in_port, vlan, pcp, src, dst, ethertype } = *matches;
    // All bits of both addresses are left open by 32, and nothing more.
    let mut wild =
        ALL & !(0x3f << NW_SRC_SHIFT | 0x3f << NW_DST_SHIFT) | 32 << NW_SRC_SHIFT | 32 << NW_DST_SHIFT;
    let mut asked = |bit: u32, is: bool| wild &= if is { !bit } else { u32::MAX };
    asked(IN_PORT, in_port.is_some());
    asked(DL_VLAN, vlan.is_some());
    asked(DL_VLAN_PCP, pcp.is_some());
    asked(DL_SRC, src.is_some());
    asked(DL_DST, dst.is_some());
    asked(DL_TYPE, ethertype.is_some());
    let vid = match vlan {
        None => 0,
        Some(FlowVlan::Untagged) => VLAN_NONE,
        Some(FlowVlan::Vid(vid)) => vid,
    };
    let mut bytes = [0; LEN];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, &wild.to_be_bytes());
    put(4, &in_port.unwrap_or_default().to_be_bytes());
    put(6, &src.map_or([0; 6], Mac::bytes));
    put(12, &dst.map_or([0; 6], Mac::bytes));
    put(18, &vid.to_be_bytes());
    put(20, &[pcp.unwrap_or_default()]);
    put(22, &ethertype.unwrap_or_default().to_be_bytes());
    bytes
}
