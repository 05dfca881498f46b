//! Lists of `ofp_action_header` (OpenFlow 1.0.1 §5.2.4): output, and nothing else.
//!
//! Not here: which ports there are; a flow may name one that comes later, as in Open vSwitch.

use super::super::table::{FlowAction, MAX_ACTIONS};
use super::{Fields, Refusal, port};

/// OFPAT_OUTPUT, 8 bytes: type, length, port, and how much of a frame goes to the controller.
const OUTPUT: u16 = 0;
/// The last type that the standard has (OFPAT_ENQUEUE).
const LAST: u16 = 11;
/// OFPAT_VENDOR
const VENDOR: u16 = 0xffff;

/// Reads a list.
///
/// # Errors
/// It is malformed, or has an action that is not offered.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<FlowAction>, Refusal> {
    let mut actions = Vec::new();
    let mut left = bytes;
    while !left.is_empty() {
        let action = Fields(left);
        let len = usize::from(action.u16(2));
        if left.len() < 8 || len < 8 || !len.is_multiple_of(8) || len > left.len() {
            return Err(Refusal::bad_action_len("an action's length is wrong"));
        }
        if actions.len() == MAX_ACTIONS {
            return Err(Refusal::too_many_actions("a flow may have 256 actions"));
        }
        match action.u16(0) {
            OUTPUT if len == 8 => actions.push(output(action.u16(4))?),
            OUTPUT => return Err(Refusal::bad_action_len("an action's length is wrong")),
            VENDOR => return Err(Refusal::bad_action_vendor("actions of vendors are not offered")),
            1..=LAST => {
                return Err(Refusal::bad_action("actions that change frames or queue them are not offered"));
            }
            _ => return Err(Refusal::bad_action("there is no such action")),
        }
        left = &left[len..];
    }
    Ok(actions)
}

fn output(number: u16) -> Result<FlowAction, Refusal> {
    match number {
        1..port::MAX | port::LOCAL => Ok(FlowAction::Output(number)),
        port::IN_PORT => Ok(FlowAction::InPort),
        port::NORMAL => Ok(FlowAction::Normal),
        port::FLOOD => Ok(FlowAction::Flood),
        port::ALL => Ok(FlowAction::All),
        _ => Err(Refusal::bad_out_port(
            "an action to this port is not offered: controller, table and none are no ports here",
        )),
    }
}

/// The bytes of a list.
pub(super) fn write(actions: &[FlowAction]) -> impl Iterator<Item = u8> {
    actions.iter().flat_map(|action| {
        let number = match *action {
            FlowAction::Normal => port::NORMAL,
            FlowAction::Output(number) => number,
            FlowAction::InPort => port::IN_PORT,
            FlowAction::Flood => port::FLOOD,
            FlowAction::All => port::ALL,
        };
        let [high, low] = number.to_be_bytes();
        [0, 0, 0, 8, high, low, 0, 0]
    })
}
