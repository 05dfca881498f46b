//! Frames that a bridge keeps to itself: to whom they are, and what says that they pass.
//!
//! Not here: all the addresses (see `wire::ethernet`), and what mirrors see of such frames (see `mirrors.rs`).
#![allow(clippy::unwrap_used, reason = "a test's panics are failures")]

use std::sync::Arc;
use std::time::Duration;
use vswitch_core::switch::{Bridge, Topology, Worker};
use vswitch_core::{
    Arrival, Attachment, Batch, DropReason, Instant, Mac, MacTable, Offload, Port, PortId, TxList, Vlan,
};

fn id(number: u32) -> PortId {
    PortId::new(number).unwrap()
}

/// Whether a frame to `dst` comes through `bridge`; if not it has been dropped for that, and taught nothing.
fn passes(bridge: &Bridge, dst: u64) -> bool {
    let access = |number| Port::new(id(number), Attachment::Access(Vlan::new(1).unwrap()));
    let topology = Topology::new(vec![bridge.clone()], [access(1), access(2)]).unwrap();
    let macs = Arc::new(MacTable::few_ports(100, Duration::from_secs(300), [1, 2]));
    topology.ports().for_each(|port| macs.bind(port.id, None));
    let mut worker = Worker::new(Arc::new(topology), macs);
    let (mut batch, mut tx) = (Batch::new(1), TxList::new());
    let frame = [&Mac::from_u64(dst).bytes()[..], &[2, 0, 0, 0, 0, 1, 0x88, 0xb5], &[7; 46]].concat();
    batch.copy_in(Arrival::Port(id(1)), &frame, Offload::NONE);
    worker.forward(Instant::from_secs(1), &batch, &mut tx);
    let left = tx.ports().contains(&id(2));
    let dropped = worker.counters().port(id(1)).dropped[DropReason::ReservedGroup.index()];
    assert_eq!(dropped, u64::from(!left), "{dst:x}");
    assert_eq!(worker.events().count(), usize::from(left), "{dst:x}");
    left
}

#[test]
fn protocols_of_vendors_are_kept_where_the_bridge_says_so_and_bpdus_everywhere() {
    let file = Bridge::default();
    let database = Bridge { keeps_vendor_protocols: true, ..Bridge::default() };
    let forwards = Bridge { forward_bpdu: true, ..database.clone() };
    // STP, PVST+, and EAPS, which is no group.
    for (dst, by_file) in [(0x0180_c200_0000, false), (0x0100_0ccc_cccd, true), (0x00e0_2b00_0004, true)] {
        let all = [&file, &database, &forwards].map(|bridge| passes(bridge, dst));
        assert_eq!(all, [by_file, false, true], "{dst:x}");
    }
    // What looks like them at first.
    for dst in [0x0100_0c00_0001, 0x0000_0000_0001, 0xffff_ffff_ffff] {
        assert!(passes(&database, dst), "{dst:x}");
    }
}
