//! Answers as text for a person: aligned tables, `key: value` lines, a line per step.
//!
//! Everything comes from the JSON of the answer, so that both forms say the same. Keys that this program does
//! not know are shown behind those it does. Not here: the JSON form, which is the answer itself.

use super::args::Answer;
use serde_json::{Map, Value};

type Row = Map<String, Value>;

const PORTS: &[&str] = &[
    "name",
    "type",
    "vlan_mode",
    "tag",
    "trunks",
    "mtu",
    "link",
    "rx_frames",
    "rx_bytes",
    "tx_frames",
    "tx_bytes",
    "rx_dropped",
    "tx_dropped",
];
const PEERS: &[&str] = &["address", "name", "state", "mtu", "rx_frames", "rx_bytes", "tx_frames", "tx_bytes"];
const SEGMENTS: &[&str] = &["segment", "name", "vlan", "vni"];
const MACS: &[&str] = &["mac", "segment", "vlan", "vni", "port", "peer", "age_seconds", "state"];
const DROPS: &[&str] = &["port", "reason", "count"];
const ATTACHMENTS: &[&str] =
    &["container", "ifname", "network", "port", "netns", "mac", "addresses", "state"];
const STATUS: &[&str] = &["state", "version", "node", "uptime_seconds", "config", "underlay", "workers"];
/// The tables whose columns are always the same, so that an empty one can show them.
const HEADED: &[&[&str]] = &[PORTS, PEERS, MACS, ATTACHMENTS];

pub(super) fn render(answer: Answer, value: &Value) -> String {
    match (answer, value) {
        (Answer::Ports, Value::Array(rows)) => table(PORTS, rows),
        (Answer::Peers, Value::Array(rows)) => table(PEERS, rows),
        (Answer::Segments, Value::Array(rows)) => table(SEGMENTS, rows),
        (Answer::Macs, Value::Array(rows)) => table(MACS, rows),
        (Answer::Attachments, Value::Array(rows)) => table(ATTACHMENTS, rows),
        (Answer::Drops { .. }, Value::Array(rows)) => table(DROPS, rows),
        (Answer::Diff, Value::Array(lines)) => lines.iter().map(difference).collect(),
        (Answer::Doctor, Value::Array(findings)) => findings.iter().map(finding).collect(),
        (Answer::Trace, Value::Object(trace)) => traced(trace),
        (Answer::Reload, Value::Object(answer)) => match answer.get("changed") {
            Some(changed) => format!("changed: {}\n", cell(changed)),
            None => object(&[], answer),
        },
        (_, Value::Object(members)) => object(STATUS, members),
        (_, Value::Array(rows)) => table(&[], rows),
        (_, scalar) => format!("{}\n", cell(scalar)),
    }
}

/// Whether `doctor` found something bad.
pub(super) fn has_bad(findings: &Value) -> bool {
    findings.as_array().is_some_and(|all| all.iter().any(|finding| word(finding, "state") == "bad"))
}

/// `text` with its control characters escaped: names come from elsewhere and must not drive the terminal.
pub(super) fn printable(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().collect() } else { String::from(c) };
    text.chars().map(escape).collect()
}

/// A value in one cell: lists joined with commas, null as `-`.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => printable(text),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => match items.iter().map(Value::as_u64).collect::<Option<Vec<_>>>() {
            Some(numbers) => ranges(&numbers),
            None => items.iter().map(cell).collect::<Vec<_>>().join(","),
        },
        other => other.to_string(),
    }
}

/// Numbers joined with commas, three and more in a row as a range: a trunk may carry thousands of VLANs.
fn ranges(numbers: &[u64]) -> String {
    let runs = numbers.chunk_by(|a, b| a.checked_add(1) == Some(*b));
    let words = runs.flat_map(|run| match run {
        [first, _, .., last] => vec![format!("{first}-{last}")],
        few => few.iter().map(u64::to_string).collect(),
    });
    words.collect::<Vec<_>>().join(",")
}

/// The keys of `rows`: those of `order` that occur, in that order, then the others.
fn columns<'a>(order: &[&'a str], rows: &'a [Value]) -> Vec<&'a str> {
    if rows.is_empty() {
        return if HEADED.contains(&order) { order.to_vec() } else { Vec::new() };
    }
    let has = |key: &str| rows.iter().any(|row| row.get(key).is_some());
    let mut columns: Vec<&str> = order.iter().copied().filter(|key| has(key)).collect();
    for key in rows.iter().filter_map(Value::as_object).flat_map(Row::keys) {
        if !columns.contains(&key.as_str()) {
            columns.push(key);
        }
    }
    columns
}

fn table(order: &[&str], rows: &[Value]) -> String {
    let columns = columns(order, rows);
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| columns.iter().map(|key| row.get(*key).map_or_else(|| "-".to_owned(), cell)).collect())
        .collect();
    let numeric: Vec<bool> = columns
        .iter()
        .map(|key| {
            let mut values =
                rows.iter().filter_map(|row| row.get(*key)).filter(|value| !value.is_null()).peekable();
            values.peek().is_some() && values.all(Value::is_number)
        })
        .collect();
    let header: Vec<String> = columns.iter().map(|key| printable(key)).collect();
    let width = |text: &String| text.chars().count();
    let widths: Vec<usize> = (0..columns.len())
        .map(|i| cells.iter().map(|row| width(&row[i])).chain([width(&header[i])]).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in [&header].into_iter().chain(&cells).filter(|row| !row.is_empty()) {
        let padded = row.iter().zip(&widths).zip(&numeric).map(|((text, width), numeric)| {
            if *numeric { format!("{text:>width$}") } else { format!("{text:<width$}") }
        });
        out.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// `key: value` lines; a list of objects or of sentences becomes indented lines under its key, at the end.
fn object(order: &[&str], members: &Row) -> String {
    let known = order.iter().filter_map(|key| members.get_key_value(*key));
    let others = members.iter().filter(|(key, _)| !order.contains(&key.as_str()));
    let is_list = |value: &Value| {
        let long = |item: &Value| item.is_object() || item.as_str().is_some_and(|text| text.contains(' '));
        value.as_array().is_some_and(|items| items.iter().any(long))
    };
    let (mut lines, mut lists) = (String::new(), String::new());
    for (key, value) in known.chain(others) {
        match value {
            Value::Array(items) if is_list(value) => {
                lists.push_str(&format!("{}:\n", printable(key)));
                for item in items {
                    lists.push_str(&format!("  {}\n", flat(item)));
                }
            }
            value => lines.push_str(&format!("{}: {}\n", printable(key), cell(value))),
        }
    }
    lines + &lists
}

/// An object on one line.
fn flat(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let pairs = members.iter().map(|(key, value)| format!("{}={}", printable(key), cell(value)));
            pairs.collect::<Vec<_>>().join(" ")
        }
        other => cell(other),
    }
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn difference(line: &Value) -> String {
    let sign = match word(line, "change") {
        "add" => '+',
        "remove" => '-',
        _ => '~',
    };
    let head = format!("{sign} {} {}", word(line, "kind"), word(line, "name"));
    match word(line, "what") {
        "" => format!("{}\n", printable(&head)),
        what => format!("{}: {}\n", printable(&head), printable(what)),
    }
}

fn finding(finding: &Value) -> String {
    let remedy = match word(finding, "remedy") {
        "" => String::new(),
        remedy => format!("         {}\n", printable(remedy)),
    };
    let (state, check, what) = (word(finding, "state"), word(finding, "check"), word(finding, "what"));
    format!("{:<7}  {}: {}\n{remedy}", printable(state), printable(check), printable(what))
}

fn traced(trace: &Row) -> String {
    let list = |key: &str| trace.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let text = |key: &str| trace.get(key).and_then(Value::as_str);
    let mut out = String::new();
    for step in list("steps") {
        out.push_str(&format!("{}\n", flat(step)));
    }
    let reason = text("reason").map_or_else(String::new, |reason| format!(" ({reason})"));
    out.push_str(&printable(&format!("verdict: {}{reason}", text("verdict").unwrap_or("-"))));
    out.push('\n');
    for output in list("outputs") {
        let (port, peer) = (word(output, "port"), word(output, "peer"));
        let way = match output.get("vni").filter(|vni| !vni.is_null()) {
            Some(vni) => format!("peer {peer} VNI {vni}"),
            None if port.is_empty() => format!("peer {peer}"),
            None => format!("port {port}"),
        };
        out.push_str(&printable(&format!("output: {way} {}", word(output, "frame"))));
        out.push('\n');
    }
    if let Some(line) = text("decided_by") {
        out.push_str(&format!("decided by: {}\n", printable(line)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_is_aligned_with_known_columns_first() {
        let rows = json!([
            {"name": "tap-a", "link": "up", "tag": 10, "trunks": null, "zeta": true, "rx_frames": 7},
            {"name": "x", "link": "down", "tag": null, "trunks": [10, "100-199"], "rx_frames": 12345},
        ]);
        let expected = "\
name   tag  trunks      link  rx_frames  zeta
tap-a   10  -           up            7  true
x        -  10,100-199  down      12345  -
";
        assert_eq!(render(Answer::Ports, &rows), expected);
    }

    #[test]
    fn numbers_in_a_row_are_shown_as_a_range() {
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[7]), "7");
        assert_eq!(ranges(&[1, 2, 4, 5, 6, 8]), "1,2,4-6,8");
        let all: Vec<u64> = (0..=4094).collect();
        assert_eq!(ranges(&all), "0-4094");
        assert_eq!(cell(&json!([10, 11, 12])), "10-12");
    }

    #[test]
    fn an_empty_table_shows_its_columns() {
        let header = "mac  segment  vlan  vni  port  peer  age_seconds  state\n";
        assert_eq!(render(Answer::Macs, &json!([])), header);
        assert_eq!(render(Answer::Drops { all: false }, &json!([])), "");
    }

    #[test]
    fn names_cannot_drive_the_terminal() {
        let rows = json!([{"name": "a\u{1b}[2J\nb", "\u{7}": "x"}]);
        let text = render(Answer::Ports, &rows);
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains(['\u{1b}', '\u{7}']), "{text:?}");
    }

    #[test]
    fn status_is_lines_with_the_lists_at_the_end() {
        let status = json!({
            "warnings": ["nothing would cross"], "workers": 2, "state": "running", "ports": 3,
            "families": ["ipv4", "ipv6"], "down": [{"name": "a", "reason": "no netns"}], "none": []
        });
        let expected = "\
state: running
workers: 2
families: ipv4,ipv6
none: -
ports: 3
down:
  name=a reason=no netns
warnings:
  nothing would cross
";
        assert_eq!(render(Answer::Status, &status), expected);
    }

    #[test]
    fn a_trace_ends_with_verdict_outputs_and_what_decided() {
        let trace = json!({
            "steps": ["arrives on tap-a", "VLAN 10"], "verdict": "flood", "reason": null,
            "outputs": [{"port": "tap-b", "peer": null, "vni": null, "frame": "00ff"},
                        {"port": null, "peer": "192.0.2.1", "vni": 10010, "frame": "00ff"}],
            "decided_by": "/etc/v.toml:12"
        });
        let expected = "\
arrives on tap-a
VLAN 10
verdict: flood
output: port tap-b 00ff
output: peer 192.0.2.1 VNI 10010 00ff
decided by: /etc/v.toml:12
";
        assert_eq!(render(Answer::Trace, &trace), expected);
        let dropped = json!({"steps": [], "verdict": "drop", "reason": "same_port", "outputs": []});
        assert_eq!(render(Answer::Trace, &dropped), "verdict: drop (same_port)\n");
    }

    #[test]
    fn differences_and_findings_are_a_line_each() {
        let diff = json!([
            {"change": "add", "kind": "port", "name": "a", "what": "access VLAN 10"},
            {"change": "remove", "kind": "peer", "name": "192.0.2.1", "what": ""},
            {"change": "change", "kind": "port", "name": "b", "what": "mtu 1500 -> 1450"},
        ]);
        let expected = "+ port a: access VLAN 10\n- peer 192.0.2.1\n~ port b: mtu 1500 -> 1450\n";
        assert_eq!(render(Answer::Diff, &diff), expected);
        let doctor = json!([
            {"check": "tun", "state": "good", "what": "/dev/net/tun opens", "remedy": null},
            {"check": "mtu", "state": "bad", "what": "too small", "remedy": "raise it"},
        ]);
        let expected = "good     tun: /dev/net/tun opens\nbad      mtu: too small\n         raise it\n";
        assert_eq!(render(Answer::Doctor, &doctor), expected);
        assert!(has_bad(&doctor) && !has_bad(&diff));
    }
}
