//! What holds of any bytes that come in at a bridge's OpenFlow socket: shared by the property tests and fuzzing.
//!
//! Bytes are cut into messages, and those that are read change a flow table beside a naive one. Not here: sockets, and
//! where wild bytes come from.

use vswitch_core::{Instant, PortId};
use vswitchd::control::openflow::codec::{self, Message, Writer, decode, has_version, kind, split};
use vswitchd::control::openflow::{
    Count, Facts, FlowAction, FlowCommand, FlowMatch, FlowMod, FlowTable, MAX_ACTIONS, MAX_FLOWS, stats_reply,
};

/// A flow of the naive table: match, priority, actions, cookie.
type Naive = (FlowMatch, u16, Vec<FlowAction>, u64);

/// Reads `bytes` as what a client sends, answers it, and checks what must hold.
///
/// # Panics
/// When something does not hold.
pub fn openflow_body(bytes: &[u8]) {
    let mut now = Instant::ZERO;
    let mut table = FlowTable::new(1, false, now);
    let mut naive = vec![(FlowMatch::default(), 0, vec![FlowAction::Normal], 0)];
    let (mut left, mut table_ids) = (bytes, false);
    for turn in 0..u64::MAX {
        now = Instant::from_nanos(turn * 1_000_000);
        let Ok(Some(message)) = split(left) else { break };
        left = &left[message.len()..];
        let mut writer = Writer::default();
        let _ = has_version(message);
        match decode(message, table_ids) {
            Ok(Message::FlowMod(flow_mod)) => {
                assert!(flow_mod.actions.len() <= MAX_ACTIONS);
                if table.change(&flow_mod, now).is_ok() {
                    change(&mut naive, &flow_mod);
                }
            }
            Ok(Message::Stats(request)) => {
                let facts = Facts { now, ..Facts::default() };
                stats_reply(&request, 7, &table, &facts, &mut writer);
                assert!(!writer.is_empty(), "statistics are always answered");
            }
            Ok(Message::Barrier) => {
                table.settle(|id| Count { frames: u64::from(id), bytes: turn }, Count::default(), now);
                table.published();
            }
            Ok(Message::FlowModTableId(set)) => table_ids = set,
            Ok(Message::Echo) => writer.echo(message),
            Ok(_) => {}
            Err(refusal) => {
                assert!(!refusal.reason.is_empty());
                writer.error(refusal, message);
            }
        }
        well_formed(&writer.into_bytes());
        holds(&table, &naive);
    }
    // All that there is can be told.
    let mut writer = Writer::default();
    writer.flows(9, table.flows().iter().map(|flow| (flow, now.since(flow.created))));
    well_formed(&writer.into_bytes());
}

/// The same change, one flow after the other.
fn change(naive: &mut Vec<Naive>, flow_mod: &FlowMod) {
    let FlowMod { matches, priority, actions, cookie, out_port, .. } = flow_mod;
    let same = |flow: &Naive| flow.0 == *matches && flow.1 == *priority;
    let covered = |flow: &Naive, strict: bool| if strict { same(flow) } else { matches.covers(&flow.0) };
    let port_of = |action: &FlowAction| match action {
        FlowAction::Normal => codec::port::NORMAL,
        FlowAction::Output(number) => *number,
        FlowAction::InPort => codec::port::IN_PORT,
        FlowAction::Flood => codec::port::FLOOD,
        FlowAction::All => codec::port::ALL,
    };
    let added = (*matches, *priority, actions.clone(), *cookie);
    match flow_mod.command {
        FlowCommand::Add => {
            naive.retain(|flow| !same(flow));
            naive.push(added);
        }
        FlowCommand::Modify { strict } => {
            let mut any = false;
            for flow in naive.iter_mut().filter(|flow| covered(flow, strict)) {
                (flow.2, flow.3) = (actions.clone(), *cookie);
                any = true;
            }
            if !any {
                naive.push(added);
            }
        }
        FlowCommand::Delete { strict } => naive.retain(|flow| {
            let outputs = out_port.is_none_or(|port| flow.2.iter().any(|action| port_of(action) == port));
            !(covered(flow, strict) && outputs)
        }),
    }
}

/// Panics unless `bytes` are whole messages of our version.
fn well_formed(bytes: &[u8]) {
    let mut left = bytes;
    while !left.is_empty() {
        let message = split(left).expect("no shorter than its header").expect("whole");
        assert_eq!(message[0], codec::VERSION);
        assert!(
            message[1] == kind::ERROR || message[1] == kind::ECHO_REPLY || message[1] == kind::STATS_REPLY
        );
        left = &left[message.len()..];
    }
}

fn holds(table: &FlowTable, naive: &[Naive]) {
    let flows = table.flows();
    assert!(flows.len() <= MAX_FLOWS);
    assert!(flows.is_sorted_by_key(|flow| std::cmp::Reverse(flow.priority)));
    let mut ids: Vec<u32> = flows.iter().map(|flow| flow.id).collect();
    ids.sort_unstable();
    assert!(ids.is_sorted_by(|a, b| a < b), "each flow is counted under a number of its own");
    assert!(ids.iter().all(|id| *id < 65_536));
    let mut ours: Vec<String> = flows
        .iter()
        .map(|flow| format!("{:?}", (flow.matches, flow.priority, &flow.actions, flow.cookie)))
        .collect();
    let mut theirs: Vec<String> = naive.iter().map(|flow| format!("{flow:?}")).collect();
    ours.sort_unstable();
    theirs.sort_unstable();
    assert_eq!(ours, theirs);
    // Ports up to 8 are there.
    let there = |number: u16| number <= 8;
    match table.rules(|number| there(number).then(|| PortId::new(number.into())).flatten()) {
        None => assert_eq!((flows.len(), &flows[0].actions[..]), (1, &[FlowAction::Normal][..])),
        Some(rules) => {
            let reachable: Vec<u32> =
                flows.iter().filter(|f| f.matches.in_port.is_none_or(there)).map(|flow| flow.id).collect();
            // One that the core would not count has another beside it.
            let ids: Vec<u32> = rules.iter().map(|rule| rule.id).collect();
            assert!(ids == reachable || (reachable.len() == 1 && ids == [reachable[0]; 2]));
        }
    }
}

/// Messages that ovs-ofctl sends, and some that it does not: seeds, and a stock of parts for wild ones.
#[must_use]
pub fn openflow_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        message(kind::HELLO, &[]),
        message(kind::HELLO, &[0, 1, 0, 8, 0, 0, 0, 0x7e]),
        message(kind::ECHO_REQUEST, b"ping"),
        message(kind::VENDOR, &[0, 0, 0x23, 0x20, 0, 0, 0, 12, 0, 0, 0, 2]),
        table_ids(true),
        table_ids(false),
        message(kind::FEATURES_REQUEST, &[]),
        message(kind::GET_CONFIG_REQUEST, &[]),
        message(kind::SET_CONFIG, &[0, 0, 0, 128]),
        message(kind::BARRIER_REQUEST, &[]),
        message(kind::QUEUE_GET_CONFIG_REQUEST, &[0, 1, 0, 0]),
    ];
    let everything = |wild: u32, in_port: u16| {
        let mut matches = wild.to_be_bytes().to_vec();
        matches.extend(in_port.to_be_bytes());
        matches.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0, 10, 3, 0, 8, 6, 0, 0]);
        matches.resize(40, 0);
        matches
    };
    for (command, wild) in
        // Those above 255 name a table.
        [
            (0_u16, 0x0038_20fe),
            (1, 0x0038_20ff),
            (2, 0x0028_20f1),
            (3, 0x0038_20fe),
            (4, 0),
            (0x0100, 0),
            (0xff03, 0),
        ]
    {
        for actions in
            [&[][..], &[0, 0, 0, 8, 0, 2, 0, 0], &[0, 0, 0, 8, 0xff, 0xfa, 0, 0, 0, 1, 0, 8, 0, 5, 0, 0]]
        {
            let mut body = everything(wild, 1 + command % 3);
            body.extend([0, 0, 0, 0, 0, 0, 0, 9]);
            for number in [command, 10, 20, 0x8000, 0xffff, 0xffff, 0xffff, 2] {
                body.extend(number.to_be_bytes());
            }
            body.extend(actions);
            seeds.push(message(kind::FLOW_MOD, &body));
        }
    }
    for of in [0_u16, 3, 4, 5, 13, 99] {
        let mut body = of.to_be_bytes().to_vec();
        body.extend([0, 0]);
        if matches!(of, 4 | 5) {
            body.extend([0xff, 0xff, 0, 0, 0, 0, 0, 0]);
        }
        seeds.push(message(kind::STATS_REQUEST, &body));
    }
    for of in [1_u16, 2] {
        let mut body = of.to_be_bytes().to_vec();
        body.extend([0, 0]);
        body.extend(everything(0x0038_20ff, 0));
        body.extend([0xff, 0, 0xff, 0xff]);
        seeds.push(message(kind::STATS_REQUEST, &body));
    }
    seeds
}

/// NXT_FLOW_MOD_TABLE_ID
#[must_use]
pub fn table_ids(set: bool) -> Vec<u8> {
    message(kind::VENDOR, &[0, 0, 0x23, 0x20, 0, 0, 0, 15, set.into(), 0, 0, 0, 0, 0, 0, 0])
}

/// A message of this type and body.
#[must_use]
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.message(kind, 0x0102_0304, body);
    writer.into_bytes()
}
