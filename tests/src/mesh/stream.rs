//! A load of numbered datagrams between pods, every one of which must arrive: what is lost, is seen.

use super::{Routed, pod};
use crate::lab::Deadline;
use crate::node::PATIENCE;
use crate::socket::set_room;
use std::collections::HashSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// UDP port of the streams.
const PORT: u16 = 7001;

/// Datagrams of one stream that may be under way: far from what a queue holds.
const UNDER_WAY: u64 = 64;

/// Bytes of a datagram.
const LEN: usize = 400;

/// One flow of datagrams.
struct Flow {
    from: usize,
    to: usize,
    sender: UdpSocket,
    receiver: UdpSocket,
    address: Ipv4Addr,
    sent: u64,
    received: HashSet<u64>,
    twice: u64,
}

impl Flow {
    fn receive(&mut self) {
        let mut buffer = [0; LEN];
        while let Ok(len) = self.receiver.recv(&mut buffer) {
            let number = buffer.get(..8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
            let fresh = number.filter(|_| len == LEN).is_some_and(|number| self.received.insert(number));
            self.twice += u64::from(!fresh);
        }
    }

    fn missing(&self) -> u64 {
        self.sent - u64::try_from(self.received.len()).unwrap_or(u64::MAX)
    }
}

/// Flows that run until they are stopped.
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<String>>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Stream {
    /// Starts a flow for each ordered pair of nodes, between their pods of the subnet, which must reach each other; a
    /// node may receive no more than one. Each sends some hundred datagrams a second.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn start(underlay: &Routed, subnet: u8, pairs: &[(usize, usize)]) -> Self {
        let bind = |n: usize, port| {
            let bound = underlay.nodes[n - 1].inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)));
            let socket = bound.expect("the port is free");
            socket.set_nonblocking(true).expect("a socket");
            set_room(&socket);
            socket
        };
        let flow = |(from, to): &(usize, usize)| Flow {
            from: *from,
            to: *to,
            sender: bind(*from, 0),
            receiver: bind(*to, PORT),
            address: pod(subnet, *to),
            sent: 0,
            received: HashSet::new(),
            twice: 0,
        };
        let mut flows: Vec<Flow> = pairs.iter().map(flow).collect();
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for flow in &mut flows {
                    if flow.missing() < UNDER_WAY {
                        let mut bytes = [7; LEN];
                        bytes[..8].copy_from_slice(&flow.sent.to_be_bytes());
                        if flow.sender.send_to(&bytes, (flow.address, PORT)).is_ok() {
                            flow.sent += 1;
                            counted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    flow.receive();
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            let deadline = Deadline::after(PATIENCE);
            while deadline.left().is_some() && flows.iter().any(|flow| flow.missing() > 0) {
                flows.iter_mut().for_each(Flow::receive);
                std::thread::sleep(Duration::from_millis(2));
            }
            let bad = flows.iter().filter(|flow| flow.missing() > 0 || flow.twice > 0);
            bad.map(|flow| {
                let (missing, twice) = (flow.missing(), flow.twice);
                format!("{} → {}: of {} sent, {missing} lost, {twice} twice\n", flow.from, flow.to, flow.sent)
            })
            .collect()
        });
        Self { stop, sent, thread: Some(thread) }
    }

    /// How many datagrams have been sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops the flows, waits for what is under way and gives how many datagrams were sent.
    ///
    /// # Panics
    /// When one was lost or came twice.
    pub fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is stopped once");
        let bad = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(bad.is_empty(), "\n{bad}");
        self.sent()
    }
}
