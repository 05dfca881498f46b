//! What must hold of a conversation with a database server, whatever this says: the body that the fuzz target and the
//! property tests share.
//!
//! Not here: sockets (see tests/tests/source_ovsdb_hostile.rs), and what rows mean (see `ovsdb_rows_body.rs`).

use crate::ovsdb_rows_body::report_on;
use serde_json::{Value, json};
use vswitchd::control::source::ovsdb::{Framing, Known, Session, SessionError, Wish};

/// What a server says in conversations that go well, by each of the three ways to be told of rows: from these the
/// search begins.
#[must_use]
pub fn ovsdb_seeds() -> Vec<String> {
    let text = |messages: &[Value]| messages.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    let lock = json!({"id": "lock", "result": {"locked": true}, "error": null});
    let unknown = json!({"id": "monitor", "result": null, "error": {"error": "unknown method"}});
    let answer = |rows: Value| json!({"id": "monitor", "result": rows, "error": null});
    let written = json!({"id": 1, "result": [{}, {"count": 1}, {"count": 1}], "error": null});
    let refused = json!({"id": 1, "result": [{}, {"error": "constraint violation"}], "error": null});
    let echo = json!({"id": "echo", "method": "echo", "params": []});
    let lost = |word: &str| json!({"id": null, "method": word, "params": ["ovs_vswitchd"]});
    let last = |n: u32| format!("{n:08}-0000-0000-0000-000000000000");
    let change = json!({"Port": {uuid(4): {"modify": {"tag": 7, "trunks": ["set", [1, 2]]}}},
                        "Interface": {uuid(6): {"modify": {"options": ["map", [["remote_ip", "10.0.0.9"]]]}}},
                        "Bridge": {uuid(2): {"delete": null}}, "Mirror": {}});
    let whole = json!({"Port": {uuid(4): {"old": {"tag": 5}, "new": {"name": "p1", "tag": 7}}},
                       "Bridge": {uuid(2): {"old": {"name": "br0"}}}});
    vec![
        text(&[
            schema(),
            lock.clone(),
            answer(json!([false, last(1), rows("initial")])),
            written.clone(),
            json!({"id": null, "method": "update3", "params": ["rows", last(2), change]}),
            lost("stolen"),
            echo,
            lost("locked"),
        ]),
        text(&[
            schema(),
            unknown.clone(),
            answer(rows("initial")),
            lock,
            refused,
            json!({"id": null, "method": "update2", "params": ["rows", change]}),
        ]),
        text(&[
            schema(),
            json!({"id": "lock", "result": {"locked": false}, "error": null}),
            unknown.clone(),
            unknown,
            answer(rows("new")),
            json!({"id": null, "method": "update", "params": ["rows", whole]}),
            lost("locked"),
            written,
            json!({"id": null, "method": "monitor_canceled", "params": ["rows"]}),
        ]),
    ]
}

fn uuid(n: u32) -> String {
    format!("{n:08x}-1111-2222-3333-444444444444")
}

fn schema() -> Value {
    let one = json!({"type": {"key": {"type": "integer"}, "min": 0, "max": 1}});
    let many = json!({"type": {"key": "string", "min": 0, "max": "unlimited"}});
    let map = json!({"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}});
    let word = json!({"type": "string"});
    json!({"id": "schema", "error": null, "result": {"name": "Open_vSwitch", "version": "8.3.1", "tables": {
        "Open_vSwitch": {"columns": {"bridges": many, "next_cfg": one, "cur_cfg": one, "ovs_version": one,
                                     "iface_types": many, "other_config": map}},
        "Bridge": {"columns": {"name": word, "ports": many, "datapath_id": one, "mirrors": many}},
        "Port": {"columns": {"name": word, "interfaces": many, "tag": one, "trunks": many}},
        "Interface": {"columns": {"name": word, "type": word, "options": map, "ofport": one, "error": one, "mtu": one}},
        "Mirror": {"columns": {"name": word, "select_all": word, "output_vlan": one, "statistics": map}},
    }}})
}

/// A bridge, its LOCAL, a tunnel and a mirror, each told as `word` has it.
fn rows(word: &str) -> Value {
    let to = |n: u32| json!(["uuid", uuid(n)]);
    json!({
        "Open_vSwitch": {uuid(1): {word: {"bridges": to(2), "next_cfg": 3, "cur_cfg": 2}}},
        "Bridge": {uuid(2): {word: {"name": "br0", "ports": ["set", [to(3), to(4)]], "mirrors": to(7)}}},
        "Port": {uuid(3): {word: {"name": "br0", "interfaces": to(5)}},
                 uuid(4): {word: {"name": "p1", "interfaces": to(6), "tag": 5, "trunks": ["set", []]}}},
        "Interface": {uuid(5): {word: {"name": "br0", "type": "internal"}},
                      uuid(6): {word: {"name": "p1", "type": "vxlan",
                                       "options": ["map", [["remote_ip", "10.0.0.1"], ["key", "9"]]]}}},
        "Mirror": {uuid(7): {word: {"name": "m0", "select_all": true, "output_vlan": 9}}},
    })
}

/// What one conversation came to.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    sent: Vec<Value>,
    wishes: Vec<Wish>,
    error: Option<SessionError>,
}

/// Takes all but the first byte of `data` for what a server says; the first says how it is cut.
///
/// # Panics
/// When what must hold does not.
pub fn ovsdb_body(data: &[u8]) {
    let Some((size, said)) = data.split_first() else { return };
    let (whole, left) = converse(Known::default(), said, said.len().max(1));
    let (pieces, _) = converse(Known::default(), said, usize::from(*size).max(1));
    assert_eq!(whole, pieces, "how a stream is cut says nothing");
    // What one conversation left must do for the next.
    converse(left, said, said.len().max(1));
}

fn converse(known: Known, said: &[u8], size: usize) -> (Outcome, Known) {
    let (mut framing, mut session) = (Framing::default(), Session::begin(known, None));
    let mut outcome = Outcome::default();
    'heard: for piece in said.chunks(size) {
        framing.push(piece);
        loop {
            let taken = match framing.message() {
                Ok(Some(message)) => session.take(&message),
                Ok(None) => break,
                Err(garbled) => Err(garbled.into()),
            };
            if let Err(error) = taken {
                outcome.error = Some(error);
                break 'heard;
            }
            follow(&mut session, &mut outcome);
        }
    }
    follow(&mut session, &mut outcome);
    let (known, _) = session.end();
    (outcome, known)
}

/// Control's side.
fn follow(session: &mut Session, outcome: &mut Outcome) {
    let may = session.locked && session.monitored;
    if let Some(wish) = session.wish() {
        assert!(may, "nobody is told of a wish who may not carry it out");
        session.report(report_on(&wish));
        outcome.wishes.push(wish);
        assert_eq!(session.wish(), None, "a wish is told once");
    }
    for message in session.outgoing() {
        if message["method"] == "transact" {
            assert!(may, "nobody writes who does not hold the lock");
            transaction(&message);
        }
        outcome.sent.push(message);
    }
    assert_eq!(session.outgoing(), Vec::<Value>::new(), "what was sent is sent once");
}

/// A transaction counts only under the lock, and changes nothing but what is ours.
fn transaction(message: &Value) {
    let params = message["params"].as_array().expect("a transaction has operations");
    assert_eq!(params[0], "Open_vSwitch");
    assert_eq!(params[1], json!({"op": "assert", "lock": "ovs_vswitchd"}));
    assert!(params.len() > 2, "nothing is not written");
    for operation in &params[2..] {
        assert_eq!(operation["op"], "update");
        let row = operation["row"].as_object().expect("an update has columns");
        let ours = |column: &String| {
            !["name", "external_ids", "other_config", "bridges", "ports", "interfaces", "next_cfg"]
                .contains(&column.as_str())
        };
        assert!(!row.is_empty() && row.keys().all(ours), "{operation}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_conversations_go_well() {
        for (seed, wishes) in ovsdb_seeds().iter().zip([3, 2, 1]) {
            let (outcome, _) = converse(Known::default(), seed.as_bytes(), 5);
            let canceled = seed.contains("monitor_canceled");
            assert_eq!(outcome.error.is_some(), canceled, "{:?}", outcome.error);
            assert_eq!(outcome.wishes.len(), wishes, "{seed}");
            assert!(outcome.sent.iter().any(|message| message["method"] == "transact"));
            ovsdb_body(&[&[7], seed.as_bytes()].concat());
        }
    }
}
