//! Explains what would become of a few frames, step by step, without switching any: `cargo run --example trace`.
//!
//! The switch is a trunk, an access port and a peer over VXLAN. Not here: frames that really go somewhere (see
//! `two_switches.rs`).
#![allow(clippy::unwrap_used, reason = "an example that finds nothing where something must be has failed")]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use vswitch_core::switch::{Bridge, Topology, Worker};
use vswitch_core::{
    Arrival, Attachment, DropReason, Instant, Mac, MacTable, Port, PortId, Segment, Verdict, Vlan, Vni,
};

fn main() {
    let [trunk, pod, peer] = [1, 2, 3].map(|number| PortId::new(number).unwrap());
    let name = |port: PortId| {
        if port == trunk {
            "trunk"
        } else if port == pod {
            "pod"
        } else {
            "peer"
        }
        .to_owned()
    };
    let vlan = Vlan::new(10).unwrap();
    let remote = IpAddr::from([192, 0, 2, 7]);

    let mut bridge = Bridge::default();
    bridge.vnis.insert(vlan, Vni::new(10_010).unwrap());
    let ports = [
        Port::new(trunk, Attachment::trunk_all()),
        Port::new(pod, Attachment::Access(vlan)),
        Port::peer(peer, remote, 4789, 1500),
    ];
    let macs = Arc::new(MacTable::new(1000, Duration::from_secs(300), [1, 2]));
    [trunk, pod, peer].into_iter().for_each(|port| macs.bind(port, None));
    let station = Mac::new([2, 0, 0, 0, 0, 9]);
    macs.add_static(Segment::new(0, vlan).unwrap(), station, peer).unwrap();
    let worker = Worker::new(Arc::new(Topology::new(vec![bridge], ports).unwrap()), macs);

    let explain = |what: &str, arrival: Arrival, bytes: &[u8]| {
        println!("{what}");
        let story = worker.explain(Instant::ZERO, arrival, bytes);
        for step in &story.steps {
            println!("  {}", step.text(&name));
        }
        println!("  = {:?}\n", story.verdict);
        story
    };
    let addresses = |dst: Mac| [dst.bytes(), [2, 0, 0, 0, 0, 1]].concat();
    let tagged = [&addresses(Mac::BROADCAST)[..], b"\x81\x00\xa0\x0a\x08\x00hello, everybody"].concat();
    let story = explain("A tagged broadcast from the trunk, priority 5:", Arrival::Port(trunk), &tagged);
    assert_eq!(story.outputs.iter().map(|out| out.port).collect::<Vec<_>>(), [pod, peer]);

    let unicast = [&addresses(station)[..], b"\x08\x00hello, nine"].concat();
    let story = explain("From the pod to a station behind the peer:", Arrival::Port(pod), &unicast);
    assert_eq!(story.verdict, Verdict::To(peer));
    assert_eq!(story.outputs[0].bytes[..8], [8, 0, 0, 0, 0, 0x27, 0x1a, 0]);

    let story = explain("The tagged frame again, but from the pod:", Arrival::Port(pod), &tagged);
    assert_eq!(story.verdict, Verdict::Drop(DropReason::VlanTaggedOnAccess));

    let stranger =
        Arrival::Underlay { local: remote, remote: IpAddr::from([203, 0, 113, 1]), udp_port: 4789 };
    let story = explain("A datagram from nobody we know:", stranger, &[8, 0, 0, 0, 0, 0x27, 0x1a, 0]);
    assert_eq!(story.verdict, Verdict::Drop(DropReason::UnknownPeer));

    assert_eq!(worker.counters().port(trunk).rx_frames, 0, "explaining changes nothing");
}

#[cfg(test)]
#[test]
fn it_runs() {
    main();
}
