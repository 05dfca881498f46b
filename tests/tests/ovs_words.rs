//! The same commands of the stock tools typed at stock Open vSwitch and at our switch, and what they print compared.
//!
//! Numbers that no two runs share (UUIDs, ages, durations, processes) are made the same first.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fmt::Write as _;
use vswitch_core::wire::ethernet::Mac;
use vswitch_tests::frames::{Frame, station};
use vswitch_tests::lab::Lab;
use vswitch_tests::ovs_seat::{Seat, Stage, Switch, in_seats};

/// What makes the hosts alike before anything is asked: two bridges joined by a patch, pods, an internal port, tunnels.
const SCRIPT: &str = "
ovs-vsctl set Open_vSwitch . ovs_version=3.1.0
ovs-vsctl add-br br0 -- set bridge br0 datapath_type=netdev other_config:hwaddr=02:aa:00:00:00:00 \\
    other-config:datapath-id=00000000000000aa
ovs-vsctl add-br br1 -- set bridge br1 datapath_type=netdev other_config:hwaddr=02:bb:00:00:00:00
ovs-vsctl add-port br0 int0 tag=7 -- set interface int0 type=internal mac='\"02:aa:00:00:00:07\"' ofport_request=7
ovs-vsctl add-port br0 vx0 -- set interface vx0 type=vxlan options:remote_ip=192.0.2.9 options:key=5 ofport_request=8
ovs-vsctl add-port br0 patch0 -- set interface patch0 type=patch options:peer=patch1 ofport_request=9 \\
    -- add-port br1 patch1 -- set interface patch1 type=patch options:peer=patch0 ofport_request=9
";

/// Lines typed one by one.
const TYPED: &str = "
ovs-vsctl show
ovs-vsctl list-br
ovs-vsctl list-ports br0
ovs-vsctl list-ifaces br0
ovs-vsctl port-to-br int0
ovs-vsctl iface-to-br nowhere
ovs-vsctl br-exists br9
ovs-vsctl get bridge br0 datapath_id datapath_type
ovs-vsctl get Open_vSwitch . datapath_types
ovs-vsctl --columns=name,type,ofport,admin_state,link_state,mtu,mac_in_use,error list interface br0
ovs-vsctl --columns=name,type,ofport,admin_state,link_state,mtu,mac_in_use,error list interface int0
ovs-vsctl --columns=name,type,ofport,admin_state,link_state,mtu,mac_in_use,error list interface pa
ovs-vsctl --columns=name,duplex,link_speed,link_resets list interface pa
ovs-vsctl get interface pa status:driver_name
ovs-vsctl --columns=name,type,ofport,admin_state,link_state,mtu,error list interface vx0
ovs-vsctl --columns=name,type,ofport,admin_state,link_state,mtu,error list interface patch0
ovs-vsctl get interface pa statistics:rx_packets statistics:tx_packets statistics:rx_bytes statistics:rx_dropped
ovs-ofctl show br0
ovs-ofctl dump-ports-desc br0
ovs-ofctl dump-flows br0
ovs-ofctl --no-stats dump-flows br0
ovs-ofctl dump-aggregate br0
ovs-ofctl get-frags br0
ovs-ofctl probe br0
ovs-ofctl show br9
ovs-ofctl add-flow br0 priority=7,in_port=1,actions=drop
ovs-ofctl add-flow br0 cookie=0x5,priority=6,dl_vlan=10,dl_dst=02:00:00:00:00:01,actions=output:2,normal
ovs-ofctl --no-stats dump-flows br0
ovs-ofctl --no-stats dump-flows br0 in_port=1
ovs-ofctl del-flows br0 in_port=1
ovs-ofctl --no-stats dump-flows br0
ovs-ofctl --strict del-flows br0 priority=6,dl_vlan=10,dl_dst=02:00:00:00:00:01
ovs-ofctl --no-stats dump-flows br0
ovs-appctl list-commands >/dev/null
ovs-appctl ofproto/list
ovs-appctl dpif/show
ovs-appctl fdb/show br0
ovs-appctl fdb/stats-clear br0
ovs-appctl fdb/show br9
ovs-appctl fdb/add br0 pb 10 02:00:00:00:00:77
ovs-appctl fdb/show br0
ovs-appctl fdb/del br0 10 02:00:00:00:00:77
ovs-appctl fdb/flush br0
ovs-appctl fdb/show br0
ovs-appctl mdb/show br0
ovs-appctl bridge/dump-flows br1
ovs-appctl no-such-command
ovs-vsctl add-port br0 pa
ovs-vsctl --may-exist add-port br0 pa
ovs-vsctl add-port br0 nosuch
ovs-vsctl get interface nosuch error ofport
ovs-vsctl del-port nosuch
ovs-vsctl add-port br0 badvx -- set interface badvx type=vxlan
ovs-vsctl get interface badvx error ofport
ovs-vsctl del-port badvx
ovs-vsctl add-port br0 badpatch -- set interface badpatch type=patch
ovs-vsctl get interface badpatch error ofport
ovs-vsctl del-port badpatch
ovs-vsctl set interface int0 mtu_request=1400
ovs-vsctl get interface int0 mtu
ovs-vsctl del-br br1
ovs-vsctl show
";

/// Replaces what no two runs share.
fn alike(text: &str, seat: &Seat) -> String {
    let directory = seat.file("").display().to_string();
    let text = text.replace(directory.trim_end_matches('/'), "RUN");
    let mut out = String::new();
    for line in text.lines() {
        // "ovs-vsctl: The default log directory is ..." and the like tell of places alone.
        let words = line.split(' ').map(word);
        out += words.collect::<Vec<_>>().join(" ").trim_end();
        out.push('\n');
    }
    out
}

fn word(word: &str) -> String {
    let is_uuid =
        |word: &str| word.len() == 36 && word.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    if is_uuid(word) {
        return "UUID".to_owned();
    }
    for key in ["duration=", "n_packets=", "n_bytes=", "idle_age=", "packet_count=", "byte_count="] {
        if word.starts_with(key) {
            let end = if word.ends_with(',') { "," } else { "" };
            return format!("{key}N{end}");
        }
    }
    // 2026-11-25T21:27:29Z|00001|ofctl|WARN|...
    if let Some((time, rest)) = word.split_once('|')
        && time.ends_with('Z')
    {
        let (_, rest) = rest.split_once('|').unwrap_or(("", rest));
        return format!("TIME|N|{rest}");
    }
    // (xid=0x4):
    if let Some(at) = word.find("(xid=") {
        let end = word[at..].find(')').map_or(word.len(), |end| at + end + 1);
        return format!("{}(xid=N){}", &word[..at], &word[end..]);
    }
    word.to_owned()
}

/// The lines and what each printed: output, complaints and exit code.
fn typed(lab: &Lab, name: &str, switch: Switch) -> Vec<(String, String)> {
    let seat = Seat::new(lab, name, switch);
    seat.sh(SCRIPT);
    let mut stage = Stage::default();
    for (n, (port, words)) in (1..).zip([("pa", "tag=10"), ("pb", "tag=10"), ("pc", "")]) {
        stage.port(lab, &seat, "br0", port, &format!("{words} -- set interface {port} ofport_request={n}"));
        seat.host().ip(&format!("link set dev {port} address 02:cc:00:00:00:0{n}"));
    }
    seat.settle();
    for n in 1..4 {
        stage.at("pa").send(&Frame::new(Mac::BROADCAST, station(n)).bytes());
        stage.at("pb").until(&Frame::new(Mac::BROADCAST, station(n)).bytes());
    }
    // The statistics are written every five seconds; until then there is nothing to compare.
    seat.sh("ovs-vsctl --timeout=25 wait-until interface pa statistics:rx_packets=3 'mac_in_use=\"02:cc:00:00:00:01\"'");
    let lines = TYPED.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let said = seat.try_sh(line);
            let text = format!("{}{}exit {}\n", said.out, said.err, said.code);
            (line.to_owned(), alike(&text, &seat))
        })
        .collect()
}

/// What two runs of the same switch, or the two switches by design, need not share; the rest is sorted: records and
/// ports come in no order that anybody promises.
fn essence(text: &str) -> Vec<String> {
    let mut lines: Vec<_> =
        text.lines().filter(|line| !line.starts_with("table_id=254, ")).map(line).collect();
    lines.sort();
    lines
}

fn line(line: &str) -> String {
    let words: Vec<_> = line.split_whitespace().collect();
    match words[..] {
        // Ours carries bridges of either type, in userspace.
        ["[netdev,", "system]"] => "[netdev]".to_owned(),
        // The last column of `fdb/show`, unless the station is static.
        [port, vlan, mac, age] if mac.matches(':').count() == 5 && age != "static" => {
            format!("{port} {vlan} {mac}")
        }
        // Tunnels and patch ports have made-up addresses.
        [port, mac]
            if mac.starts_with("addr:") && (port.starts_with("8(vx0)") || port.starts_with("9(patch0)")) =>
        {
            port.to_owned()
        }
        // Of `dpif/show`: what the caches met, and the numbers inside the datapath.
        [datapath, hit, missed] if hit.starts_with("hit:") && missed.starts_with("missed:") => {
            datapath.to_owned()
        }
        [port, numbers, ref kind @ ..] if numbers.contains('/') && numbers.ends_with(':') => {
            let number = numbers.split('/').next().unwrap_or_default();
            format!("{port} {number} {}", kind.join(" "))
        }
        // The flows of OpenFlow 1.0 itself, or those of Open vSwitch's extension to it.
        [first, ..] if first.starts_with("NXST_") || first.starts_with("OFPST_") => {
            line.replacen("NXST_", "OFPST_", 1)
        }
        [first, ..] if first.starts_with("cookie=") => line.replace(" idle_age=N,", ""),
        // What of OpenFlow each offers.
        ["capabilities:", ..] => "capabilities:".to_owned(),
        ["actions:", "output", ..] => "actions: output".to_owned(),
        [tables, "n_buffers:0"] if tables.starts_with("n_tables:") => "n_buffers:0".to_owned(),
        _ => line.to_owned(),
    }
}

/// What differs, line by typed line.
fn differences(one: &[(String, String)], other: &[(String, String)]) -> String {
    let mut wrong = String::new();
    for ((line, one), (_, other)) in one.iter().zip(other) {
        if essence(one) != essence(other) {
            let _ = write!(wrong, "$ {line}\n--- one\n{one}--- other\n{other}\n");
        }
    }
    wrong
}

#[test]
fn the_stock_switch_prints_the_same_twice() {
    in_seats("the_stock_switch_prints_the_same_twice", |lab| {
        let runs = ["s", "t"].map(|name| typed(lab, name, Switch::Stock));
        let wrong = differences(&runs[0], &runs[1]);
        assert!(wrong.is_empty(), "{wrong}");
        assert!(runs[0].len() > 50, "{runs:?}");
    });
}

#[test]
fn our_switch_prints_what_the_stock_switch_prints() {
    in_seats("our_switch_prints_what_the_stock_switch_prints", |lab| {
        let runs = [("s", Switch::Stock), ("o", Switch::Ours)].map(|(name, switch)| typed(lab, name, switch));
        let wrong = differences(&runs[0], &runs[1]);
        assert!(wrong.is_empty(), "{wrong}");
    });
}
