//! Flows that the stock `ovs-ofctl` adds, and what becomes of frames: here and in Open vSwitch the same.
//!
//! Not here: what ovs-ofctl is answered (see `openflow.rs`).
#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::PathBuf;
use vswitch_core::port::{Attachment, Port, PortId};
use vswitch_core::wire::ethernet::Mac;
use vswitch_tests::daemon::{Host, PATIENCE, Raw};
use vswitch_tests::frames::{Frame, ctag, describe_all, stag, station};
use vswitch_tests::openflow_seat::{Seat, ofctl_at, with_seat};
use vswitch_tests::ovs::Ovs;

/// The type of frames that say that all before them have arrived (IEEE 802 local experimental).
const MARK: u16 = 0x88b5;
/// A flow by which they do: of frames that come together, those that go the normal way leave last.
const MARKED: &str = "priority=65535,dl_type=0x88b5,actions=normal";

/// Our switch: three ports, whose owners look on.
struct Ours {
    seat: Seat,
    raws: Vec<Raw>,
    marks: u32,
}

impl Ours {
    fn new(seat: Seat) -> Self {
        seat.vsctl("add-port br0 p3 -- set interface p3 type=internal ofport_request=3");
        let raws = ["p1", "p2", "p3"].map(|port| seat.raw(port)).into();
        Self { seat, raws, marks: 0 }
    }

    fn mark(&mut self, from: usize, at: &[usize]) -> Vec<(u32, Vec<u8>)> {
        self.marks += 1;
        let mark = Frame::new(Mac::BROADCAST, station(0xff_ffff))
            .payload(MARK, &[&self.marks.to_be_bytes()[..], &[0; 50]].concat());
        let mark = mark.bytes();
        self.raws[from].send(&mark);
        let mut arrived = Vec::new();
        for port in at {
            loop {
                let frame = self.raws[*port]
                    .receive(PATIENCE)
                    .unwrap_or_else(|| panic!("no mark\n{}", self.seat.host.log()));
                if frame == mark {
                    break;
                }
                if frame[12..14] != MARK.to_be_bytes() {
                    arrived.push((u32::try_from(*port).unwrap() + 1, frame));
                }
            }
        }
        arrived
    }

    /// `frame` arrives at `port`; what leaves, by rising port number.
    fn frame_in(&mut self, port: usize, frame: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let others: Vec<usize> = (0..3).filter(|other| *other != port).collect();
        self.raws[port].send(frame);
        let mut arrived = self.mark(port, &others);
        arrived.extend(self.mark(others[0], &[port]));
        arrived.sort();
        arrived
    }

    fn forget(&self) {
        let mut command = std::process::Command::new("ovs-appctl");
        command.env("OVS_RUNDIR", self.seat.host.file("")).args(["-t", "vswitchd", "fdb/flush", "br0"]);
        let said = Host::run_command(&mut command);
        assert_eq!(said.code, 0, "{said:?}");
    }
}

fn frames() -> Vec<Vec<u8>> {
    let one = || Frame::new(station(2), station(1));
    vec![
        one().bytes(),
        Frame::new(Mac::BROADCAST, station(1)).bytes(),
        Frame::new(station(1), station(2)).bytes(),
        one().tag(ctag(10, 3)).bytes(),
        one().tag(ctag(10, 0)).bytes(),
        one().tag(ctag(11, 3)).bytes(),
        one().tag(ctag(0, 3)).bytes(),
        one().tags(&[stag(10, 0), ctag(11, 0)]).bytes(),
        one().payload(0x0806, &[0; 46]).bytes(),
        one().tag(ctag(10, 3)).payload(0x0806, &[0; 46]).bytes(),
        // IEEE 802.3 with LLC, and with SNAP.
        one().payload(46, &[0x42; 46]).bytes(),
        one().payload(46, &[&[0xaa, 0xaa, 3, 0, 0, 0, 8, 6][..], &[0; 38]].concat()).bytes(),
    ]
}

/// Flows that are there together.
const CASES: &[&[&str]] = &[
    &["priority=0,actions=normal"],
    &[],
    &["actions=drop"],
    &["in_port=1,actions=output:2", "in_port=2,actions=output:1"],
    &[
        "in_port=1,actions=output:1,output:3",
        "in_port=2,actions=in_port",
        "in_port=3,actions=output:2,in_port",
    ],
    &["in_port=1,actions=flood", "in_port=2,actions=all", "in_port=3,actions=local"],
    &["in_port=1,actions=output:77", "in_port=77,actions=normal", "in_port=2,actions=normal,output:77"],
    &["priority=5,dl_vlan=10,actions=drop", "priority=0,actions=normal"],
    &[
        "priority=5,dl_vlan=10,actions=output:3",
        "priority=4,vlan_tci=0,actions=output:2",
        "priority=3,actions=output:1",
    ],
    &["priority=5,dl_vlan=0,actions=output:3", "priority=4,dl_vlan=10,dl_vlan_pcp=3,actions=output:2"],
    &["priority=5,dl_vlan_pcp=3,actions=output:3"],
    &[
        "priority=5,dl_src=02:00:00:00:00:01,actions=output:3",
        "priority=4,dl_dst=02:00:00:00:00:01,actions=output:2",
    ],
    &["dl_dst=ff:ff:ff:ff:ff:ff,actions=normal", "dl_dst=02:00:00:00:00:01,actions=normal"],
    &["arp,actions=output:3", "dl_type=0x5ff,actions=output:2"],
    &["dl_type=0x8100,actions=output:3", "dl_type=0xabcd,actions=normal"],
    &[
        "priority=9,in_port=1,dl_vlan=10,actions=output:2,output:3",
        "priority=8,in_port=1,actions=drop",
        "priority=7,actions=normal",
    ],
];

#[test]
fn frames_go_where_flows_say_here_and_in_open_vswitch() {
    with_seat("frames_go_where_flows_say_here_and_in_open_vswitch", |_, seat| {
        let Some(mut stock) = Ovs::start(1) else { return };
        let ports: Vec<Port> =
            (1..=3).map(|id| Port::new(PortId::new(id).unwrap(), Attachment::trunk_all())).collect();
        stock.bridge(&ports, &[]);
        let stock_at: PathBuf = stock.socket().parent().unwrap().to_owned();
        let mut ours = Ours::new(seat);
        for case in CASES {
            ours.seat.flows("del-flows", "");
            assert_eq!(ofctl_at(&stock_at, &["del-flows", "br0"]).code, 0);
            ours.seat.flows("add-flow", MARKED);
            for flow in *case {
                ours.seat.flows("add-flow", flow);
                assert_eq!(ofctl_at(&stock_at, &["add-flow", "br0", flow]).code, 0, "{flow}");
            }
            for (port, stock_port) in ports.iter().enumerate() {
                for frame in frames() {
                    ours.forget();
                    stock.forget();
                    let mut theirs: Vec<(u32, Vec<u8>)> = stock
                        .frame_in(stock_port.id, &frame)
                        .into_iter()
                        .map(|(port, bytes)| (port.get(), bytes))
                        .collect();
                    theirs.sort();
                    let out = ours.frame_in(port, &frame);
                    let show = |sent: &[(u32, Vec<u8>)]| describe_all(sent);
                    assert_eq!(
                        show(&out),
                        show(&theirs),
                        "{case:?}, port {}, {}",
                        port + 1,
                        show(&[(0, frame)])
                    );
                }
            }
        }
    });
}

/// The numbers behind `key=` in the flow that contains `what`.
fn counted(seat: &Seat, what: &str) -> (u64, u64) {
    let text = seat.must(&["dump-flows", "br0"]);
    let line = text.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}: {text}"));
    let number = |key: &str| {
        let from = line.split(key).nth(1).unwrap();
        from.split(',').next().unwrap().parse().unwrap()
    };
    (number("n_packets="), number("n_bytes="))
}

#[test]
fn frames_are_counted_for_the_flow_that_they_match_and_what_is_dropped_has_a_name() {
    with_seat("frames_are_counted_for_the_flow_that_they_match_and_what_is_dropped_has_a_name", |_, seat| {
        let mut ours = Ours::new(seat);
        let from = |number| Frame::new(station(9), station(number)).bytes();
        ours.seat.flows("del-flows", "");
        for flow in
            [MARKED, "dl_src=02:00:00:00:00:01,actions=normal", "dl_src=02:00:00:00:00:02,actions=drop"]
        {
            ours.seat.flows("add-flow", flow);
        }
        for _ in 0..5 {
            assert_eq!(ours.frame_in(0, &from(1)).len(), 2);
        }
        for _ in 0..3 {
            assert_eq!(ours.frame_in(1, &from(2)), []);
        }
        assert_eq!(ours.frame_in(2, &from(3)), []);
        assert_eq!(counted(&ours.seat, "00:01"), (5, 5 * 62));
        assert_eq!(counted(&ours.seat, "00:02"), (3, 3 * 62));
        let drops = ours.seat.host.drops();
        assert_eq!(drops.get("flow_drop"), Some(&3), "{drops:?}");
        assert!(drops.get("no_flow").is_some_and(|count| *count >= 1), "{drops:?}");
        // What was counted stays with the flow when others come and go, and when its actions change.
        ours.seat.flows("mod-flows", "dl_src=02:00:00:00:00:02,actions=flood");
        ours.seat.flows("add-flow", "priority=1,in_port=3,actions=normal");
        ours.seat.flows("del-flows", "dl_src=02:00:00:00:00:01");
        assert_eq!(ours.frame_in(1, &from(2)).len(), 2);
        assert_eq!(counted(&ours.seat, "00:02"), (4, 4 * 62));
        // One that is added anew begins at nothing.
        ours.seat.flows("add-flow", "dl_src=02:00:00:00:00:02,actions=drop");
        ours.seat.flows("add-flow", "dl_src=02:00:00:00:00:01,actions=drop");
        assert_eq!(ours.frame_in(1, &from(2)), []);
        assert_eq!(counted(&ours.seat, "00:02"), (1, 62));
        assert_eq!(counted(&ours.seat, "00:01"), (0, 0));
    });
}

#[test]
fn a_secure_bridge_passes_nothing_until_there_are_flows_and_names_of_ports_stay_with_them() {
    with_seat(
        "a_secure_bridge_passes_nothing_until_there_are_flows_and_names_of_ports_stay_with_them",
        |_, seat| {
            let mut ours = Ours::new(seat);
            let frame = Frame::new(Mac::BROADCAST, station(1)).bytes();
            ours.seat.vsctl("set-fail-mode br0 secure");
            ours.seat.flows("add-flow", MARKED);
            assert_eq!(ours.frame_in(0, &frame), []);
            ours.seat.flows("add-flow", "in_port=1,actions=output:3");
            assert_eq!(ours.frame_in(0, &frame), [(3, frame.clone())]);
            // Port 3 goes: nothing leaves. It comes again by its number: it does.
            ours.seat.vsctl("del-port br0 p3");
            ours.raws[0].send(&frame);
            ours.seat.vsctl("add-port br0 p3 -- set interface p3 type=internal ofport_request=3");
            ours.raws[2] = ours.seat.raw("p3");
            assert_eq!(ours.frame_in(0, &frame), [(3, frame.clone())]);
            ours.seat.vsctl("del-fail-mode br0");
            // The switch learns again: NORMAL for all.
            ours.raws[0].reaches(&ours.raws[1], &frame);
        },
    );
}
