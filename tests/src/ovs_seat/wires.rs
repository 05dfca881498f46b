//! Hosts with a switch each on one underlay, and pods that find each other over it.

use super::{Seat, Switch};
use crate::lab::{Lab, Namespace, until};
use crate::node::PATIENCE;
use std::net::IpAddr;

/// The addresses of the two hosts in IPv4: those that the commands of the project's source were written for.
pub const V4: [&str; 2] = ["192.168.65.112", "192.168.65.116"];

/// The same in IPv6.
pub const V6: [&str; 2] = ["fd65::112", "fd65::116"];

/// Two hosts on one wire.
#[derive(Debug)]
pub struct Nodes {
    /// Both hosts, the one that ends in .112 first.
    pub seats: [Seat; 2],
    /// Where the wire is: a kernel bridge `wire` with a link to each, `w0` and `w1`.
    pub wire: Namespace,
}

impl Nodes {
    /// Two hosts with these switches, with both addresses each. Stock Open vSwitch in userspace finds a tunnel's way
    /// only through a bridge of its own, so there the underlay's link is in `br-phy` and that has the addresses; at ours
    /// they are on the link.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn new(lab: &Lab, switches: [Switch; 2]) -> Self {
        Self::with(lab, switches, switches.map(|switch| switch == Switch::Stock))
    }

    /// The same; at each host it is said whether the underlay's link is in a bridge of the switch.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn with(lab: &Lab, switches: [Switch; 2], in_bridge: [bool; 2]) -> Self {
        let wire = lab.namespace("wire");
        wire.bridge("wire", &[]);
        let host = |n: usize| {
            let seat = Seat::new(lab, &format!("h{n}"), switches[n]);
            join(&seat, &wire, n, in_bridge[n]);
            seat
        };
        let seats = [host(0), host(1)];
        // A datagram that ends in a packet socket of stock Open vSwitch must carry its checksum.
        for n in 0..2 {
            if !in_bridge[n] && switches[1 - n] == Switch::Stock {
                seats[n].host().ethtool("under", "tx off");
            }
        }
        Self { seats, wire }
    }
}

/// A host with a switch, and one whose kernel makes its tunnels.
#[derive(Debug)]
pub struct Facing {
    /// The host that ends in .112.
    pub seat: Seat,
    /// The other, with the link `under` and both addresses that end in 116.
    pub kernel: Namespace,
    /// Where the wire is, as in [`Nodes`].
    pub wire: Namespace,
}

impl Facing {
    /// Both on one wire; see [`Nodes::new`].
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn new(lab: &Lab, switch: Switch) -> Self {
        let wire = lab.namespace("wire");
        wire.bridge("wire", &[]);
        let seat = Seat::new(lab, "h0", switch);
        join(&seat, &wire, 0, switch == Switch::Stock);
        let kernel = lab.namespace("kernel");
        kernel.veth("under", &wire, "w1");
        wire.ip("link set dev w1 master wire");
        kernel.address("under", &format!("{}/24", V4[1]));
        kernel.address("under", &format!("{}/64", V6[1]));
        if switch == Switch::Stock {
            kernel.ethtool("under", "tx off");
        }
        Self { seat, kernel, wire }
    }
}

/// Puts host `n` on the wire with its addresses, through a bridge of its switch or not.
fn join(seat: &Seat, wire: &Namespace, n: usize, in_bridge: bool) {
    seat.host().veth("under", wire, &format!("w{n}"));
    wire.ip(&format!("link set dev w{n} master wire"));
    if seat.switch() == Switch::Stock {
        seat.host().ethtool("under", "tx off");
    }
    let link = if in_bridge { "br-phy" } else { "under" };
    if in_bridge {
        seat.bridge(link);
        seat.sh("ovs-vsctl add-port br-phy under");
    }
    seat.host().address(link, &format!("{}/24", V4[n]));
    seat.host().address(link, &format!("{}/64", V6[n]));
}

/// Waits until `to` answers: a switch that learns its way, or asks for an address of the underlay, loses what comes
/// before.
///
/// # Panics
/// When it never does.
#[track_caller]
pub fn reach(from: &Namespace, to: IpAddr) {
    until(&format!("an answer of {to} to {}", from.name()), PATIENCE, || {
        (from.ping(to, 56, 1).received == 1).then_some(())
    });
}
