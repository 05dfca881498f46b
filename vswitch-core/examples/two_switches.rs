//! Two switches joined by VXLAN inside one process, and three pods with whole IP stacks (smoltcp) behind them: TCP
//! crosses between two pods of one VLAN, and nothing reaches the third, which is in another.
//! `cargo run --example two_switches`
//!
//! Nothing of the operating system is used but standard output: links are queues, and the clock is a number that the
//! loop moves on, so every run is the same run. Not here: sockets and TAPs, which are `vswitchd`'s.
#![allow(clippy::unwrap_used, reason = "an example that finds nothing where something must be has failed")]

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as PodTime;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use vswitch_core::switch::{Bridge, Topology, Worker};
use vswitch_core::*;

/// What crosses.
const LEN: usize = 200_000;

/// The pod's end of a port: frames it has sent, and frames for it.
#[derive(Default)]
struct Wire {
    sent: VecDeque<Vec<u8>>,
    arrived: VecDeque<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut frame = vec![0; len];
        let result = write(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: PodTime) -> Option<(Received, Sending<'_>)> {
        Some((Received(self.arrived.pop_front()?), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _: PodTime) -> Option<Sending<'_>> {
        Some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        // 1450 bytes of IP and the Ethernet header: what a VXLAN path of 1500 bytes leaves.
        capabilities.max_transmission_unit = 1464;
        capabilities
    }
}

/// A host behind an access port.
struct Pod {
    port: PortId,
    wire: Wire,
    stack: Interface,
    sockets: SocketSet<'static>,
    tcp: SocketHandle,
}

impl Pod {
    fn new(port: PortId, last: u8) -> Self {
        let mut wire = Wire::default();
        let mac = EthernetAddress([2, 0, 0, 0, 0, last]);
        let config = Config::new(HardwareAddress::Ethernet(mac));
        let mut stack = Interface::new(config, &mut wire, PodTime::ZERO);
        let address = IpCidr::new(Ipv4Addr::new(10, 10, 0, last).into(), 24);
        stack.update_ip_addrs(|addresses| addresses.push(address).unwrap());
        let buffer = || tcp::SocketBuffer::new(vec![0; 16_384]);
        let mut sockets = SocketSet::new(Vec::new());
        let tcp = sockets.add(tcp::Socket::new(buffer(), buffer()));
        Self { port, wire, stack, sockets, tcp }
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.tcp)
    }

    fn poll(&mut self, now: Instant) {
        let now = PodTime::from_micros(i64::try_from(now.as_nanos() / 1000).unwrap());
        self.stack.poll(now, &mut self.wire, &mut self.sockets);
    }
}

/// A switch, its pods, and its address on the underlay.
struct Node {
    address: IpAddr,
    worker: Worker,
    batch: Batch,
    tx: TxList,
    pods: Vec<Pod>,
    /// Datagrams that have arrived: from where, and what.
    datagrams: VecDeque<(IpAddr, Vec<u8>)>,
}

const PEER: u32 = 100;

impl Node {
    /// A switch whose pods are in these VLANs, with one peer.
    fn new(address: IpAddr, peer: IpAddr, pods: &[(u16, u8)]) -> Self {
        let vlan = |number| Vlan::new(number).unwrap();
        let id = |number| PortId::new(number).unwrap();
        let mut bridge = Bridge::default();
        for (number, vni) in [(10, 10_010), (20, 10_020)] {
            bridge.vnis.insert(vlan(number), Vni::new(vni).unwrap());
        }
        let access = (1..).zip(pods).map(|(n, pod)| Port::new(id(n), Attachment::Access(vlan(pod.0))));
        let ports: Vec<Port> = access.chain([Port::peer(id(PEER), peer, 4789, 1500)]).collect();
        let macs = Arc::new(MacTable::new(1000, Duration::from_secs(300), [1, 2]));
        ports.iter().for_each(|port| macs.bind(port.id, None));
        let worker = Worker::new(Arc::new(Topology::new(vec![bridge], ports).unwrap()), macs);
        let pods = (1..).zip(pods).map(|(n, (_, last))| Pod::new(id(n), *last)).collect();
        Self { address, worker, batch: Batch::new(32), tx: TxList::new(), pods, datagrams: VecDeque::new() }
    }

    /// Takes what has arrived, switches it, and hands it out: frames to pods, datagrams to `peer`.
    fn turn(&mut self, now: Instant, peer: &mut VecDeque<(IpAddr, Vec<u8>)>) {
        self.batch.clear();
        self.tx.clear();
        for pod in &mut self.pods {
            pod.poll(now);
            while self.batch.len() < self.batch.capacity()
                && let Some(frame) = pod.wire.sent.pop_front()
            {
                self.batch.copy_in(Arrival::Port(pod.port), &frame, Offload::NONE);
            }
        }
        while self.batch.len() < self.batch.capacity()
            && let Some((remote, datagram)) = self.datagrams.pop_front()
        {
            let arrival = Arrival::Underlay { local: self.address, remote, udp_port: 4789 };
            self.batch.copy_in(arrival, &datagram, Offload::NONE);
        }
        self.worker.forward(now, &self.batch, &mut self.tx);
        for port in self.tx.ports() {
            for record in self.tx.records(*port) {
                let mut bytes = Vec::new();
                self.tx.copy_out(record, &self.batch, &mut bytes);
                self.worker.counters_mut().sent(*port, 1, bytes.len() as u64);
                match self.pods.iter_mut().find(|pod| pod.port == *port) {
                    Some(pod) => pod.wire.arrived.push_back(bytes),
                    None => peer.push_back((self.address, bytes)),
                }
            }
        }
    }
}

fn main() {
    let (east, west) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
    // Pods 10.10.0.1 and .2 are in VLAN 10 of two switches; .3 is in VLAN 20.
    let mut a = Node::new(east, west, &[(10, 1)]);
    let mut b = Node::new(west, east, &[(10, 2), (20, 3)]);

    b.pods[0].socket().listen(7).unwrap();
    b.pods[1].socket().listen(7).unwrap();
    let data: Vec<u8> = (0..LEN).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let (mut given, mut taken) = (0, Vec::new());
    let client = &mut a.pods[0];
    let server = (Ipv4Addr::new(10, 10, 0, 2), 7);
    client
        .sockets
        .get_mut::<tcp::Socket<'_>>(client.tcp)
        .connect(client.stack.context(), server, 50_000)
        .unwrap();

    let mut now = Instant::ZERO;
    while taken.len() < LEN {
        now = now.after(Duration::from_micros(100));
        assert!(now < Instant::from_secs(60), "{} of {LEN} bytes after a minute", taken.len());
        a.turn(now, &mut b.datagrams);
        b.turn(now, &mut a.datagrams);
        if a.pods[0].socket().can_send() {
            given += a.pods[0].socket().send_slice(&data[given..]).unwrap();
        }
        if b.pods[0].socket().can_recv() {
            b.pods[0].socket().recv(|bytes| (bytes.len(), taken.extend_from_slice(bytes))).unwrap();
        }
    }
    assert!(taken == data, "TCP delivers what was sent");
    let millis = now.as_nanos() / 1_000_000;
    println!("10.10.0.1 sent {LEN} bytes by TCP to 10.10.0.2, {millis} ms of virtual time");
    for (name, node) in [("east", &a), ("west", &b)] {
        let peer = node.worker.counters().port(PortId::new(PEER).unwrap());
        println!(
            "{name}: {} datagrams to its peer, {} from it, {} stations learned",
            peer.tx_frames,
            peer.rx_frames,
            node.worker.counters().learned
        );
        assert!(peer.tx_frames > 10 && peer.rx_frames > 10);
        assert_eq!(node.worker.counters().learned, 2);
    }

    // The pod in the other VLAN has the same address range, and hears nothing of all this.
    assert!(b.pods[1].wire.arrived.is_empty());
    let unheard = b.worker.counters().port(b.pods[1].port).tx_frames;
    assert_eq!(unheard, 0);
    println!("10.10.0.3 in VLAN 20 heard {unheard} frames");
    a.pods[0].socket().abort();
    let client = &mut a.pods[0];
    let other = (Ipv4Addr::new(10, 10, 0, 3), 7);
    client
        .sockets
        .get_mut::<tcp::Socket<'_>>(client.tcp)
        .connect(client.stack.context(), other, 50_001)
        .unwrap();
    let until = now.after(Duration::from_secs(5));
    while now < until {
        now = now.after(Duration::from_millis(1));
        a.turn(now, &mut b.datagrams);
        b.turn(now, &mut a.datagrams);
    }
    assert_eq!(a.pods[0].socket().state(), tcp::State::SynSent);
    assert!(b.worker.counters().port(b.pods[1].port).tx_frames == 0);
    println!("10.10.0.1 did not reach 10.10.0.3 in five seconds: another segment");
}

#[cfg(test)]
#[test]
fn it_runs() {
    main();
}
