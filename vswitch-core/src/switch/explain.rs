//! What would become of a frame, step by step: the production journey over a sink that writes down.
//!
//! It holds nothing that can change a table, a counter or a queue.

use super::cross::{Crossings, Origin};
use super::dress::Dress;
use super::enter::Entered;
use super::guard::{Allowed, Breach};
use super::leave::write_head;
use super::{Punt, Sink, Tables, journey};
use crate::frame::{Arrival, TxList};
use crate::mac_table::{Learned, MacTable, Refused};
use crate::offload::Offload;
use crate::policer::Policer;
use crate::port::{PortId, Segment};
use crate::time::Instant;
use crate::verdict::{DropReason, Verdict, Why};
use crate::wire::ethernet::Mac;
use crate::wire::vlan::{Priority, Tag};
use crate::wire::vxlan::Vni;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};
use core::net::IpAddr;

/// One thing that happened on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It came in.
    Arrived {
        /// The port.
        port: PortId,
        /// Its bytes.
        len: usize,
    },
    /// A VXLAN header was taken off.
    Decapsulated {
        /// Its VNI.
        vni: Vni,
        /// The segment of that name; none where the VNI is an ordinary tunnel's, and the tags inside say the VLAN.
        segment: Option<Segment>,
    },
    /// Its addresses and outermost tag.
    Addresses {
        /// Destination.
        dst: Mac,
        /// Source.
        src: Mac,
        /// The outermost tag.
        tag: Option<Tag>,
    },
    /// The port let it in.
    Admitted {
        /// The port.
        port: PortId,
        /// Where it belongs.
        segment: Segment,
        /// Its priority in there.
        priority: Priority,
    },
    /// It says what who is behind the guarded port may not say.
    Spoofed {
        /// The port.
        port: PortId,
        /// Which rule it breaks, and by what.
        breach: Breach,
        /// What would have been right.
        guard: Allowed,
    },
    /// It is more than the port may send, or be sent, just now.
    Policed {
        /// The port.
        port: PortId,
        /// What may pass, in kbit/s.
        rate: u32,
    },
    /// Its VLAN is one in which all is flooded and nothing learned.
    FloodVlan,
    /// What learning its source would do.
    Learned(Learned),
    /// Its destination is a group address.
    Group,
    /// The MAC table's answer for the destination.
    LookedUp(Option<PortId>),
    /// It leaves.
    Left {
        /// The port.
        port: PortId,
        /// Its bytes, VXLAN header included.
        len: usize,
        /// The tag written in front, if one was written.
        tag: Option<Tag>,
        /// The VNI, into a tunnel.
        vni: Option<Vni>,
    },
    /// A rule of the bridge says what becomes of it.
    Matched {
        /// The rule's id.
        rule: u32,
    },
    /// It leaves by one end of a cable between patch ports, to arrive at the other.
    Crossed {
        /// The end it leaves by.
        from: PortId,
        /// The end it arrives at.
        to: PortId,
    },
    /// A port of the segment that does not take it.
    Refused {
        /// The port.
        port: PortId,
        /// Why.
        reason: DropReason,
    },
    /// It died.
    Dropped {
        /// Where, if anywhere.
        port: Option<PortId>,
        /// Why.
        reason: DropReason,
    },
    /// The slow path sees it.
    Punted(Why),
    /// It is copied: the next steps say where to.
    Mirrored {
        /// The number of the mirror.
        mirror: u32,
    },
    /// It goes to those who joined its group, and to routers.
    Multicast {
        /// The group; none for a report, which is for routers.
        group: Option<IpAddr>,
        /// Whether somebody joined it.
        joined: bool,
    },
}

impl Step {
    /// The step in words; `name` says what a port is called.
    #[must_use]
    pub fn text(&self, name: &dyn Fn(PortId) -> String) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut out, name);
        out
    }

    fn write(&self, f: &mut String, name: &dyn Fn(PortId) -> String) -> fmt::Result {
        let tagged = |f: &mut String, tag: &Option<Tag>| match tag {
            Some(tag) => {
                let (vid, pcp, dei) = (tag.vid(), tag.priority().pcp(), u8::from(tag.priority().dei()));
                write!(f, "tag {:#06x} vid {vid} pcp {pcp} dei {dei}", tag.tpid)
            }
            None => f.write_str("no tag"),
        };
        match self {
            Self::Arrived { port, len } => write!(f, "arrived on port {}, {len} bytes", name(*port)),
            Self::Decapsulated { vni, segment: Some(segment) } => {
                write!(f, "decapsulated: VNI {vni} is VLAN {}", segment.vlan())
            }
            Self::Decapsulated { vni, segment: None } => write!(f, "decapsulated: VNI {vni}"),
            Self::Addresses { dst, src, tag } => {
                write!(f, "from {src} to {dst}, ")?;
                tagged(f, tag)
            }
            Self::Admitted { port, segment, priority } => {
                let (vlan, pcp, dei) = (segment.vlan(), priority.pcp(), u8::from(priority.dei()));
                write!(f, "admitted by port {} to VLAN {vlan}, pcp {pcp} dei {dei}", name(*port))
            }
            Self::Spoofed { port, breach, guard } => {
                write!(f, "port {} may not say that: {breach}", name(*port))?;
                write_expected(f, *breach, guard)
            }
            Self::Policed { port, rate } => {
                write!(f, "more than the {rate} kbit/s and the burst that port {} has", name(*port))
            }
            Self::FloodVlan => f.write_str("the VLAN is among flood_vlans: not learned, flooded"),
            Self::Learned(learned) => match learned {
                Learned::New => f.write_str("source is new: learned on the arrival port"),
                Learned::Same => f.write_str("source is known on the arrival port"),
                Learned::Moved { from } => write!(f, "source moves from port {}", name(*from)),
                Learned::Refused(Refused::Busy) => {
                    f.write_str("source not learned: the table is being written; the next frame teaches")
                }
                Learned::Refused(Refused::Full) => f.write_str("source not learned: the MAC table is full"),
                Learned::Refused(Refused::Static) => {
                    f.write_str("source not learned: a static entry says otherwise")
                }
                Learned::Refused(Refused::Invalid) => {
                    f.write_str("source not learned: a group or zero address, or the port does not learn")
                }
            },
            Self::Group => f.write_str("destination is a group address: flooded"),
            Self::LookedUp(Some(port)) => write!(f, "destination is on port {}", name(*port)),
            Self::LookedUp(None) => f.write_str("destination is unknown: flooded"),
            Self::Left { port, len, tag, vni } => {
                write!(f, "leaves by port {}, {len} bytes", name(*port))?;
                if let Some(vni) = vni {
                    write!(f, ", VNI {vni}")?;
                }
                if tag.is_some() {
                    f.write_str(", ")?;
                    tagged(f, tag)?;
                }
                Ok(())
            }
            Self::Matched { rule } => write!(f, "matches rule {rule}"),
            Self::Crossed { from, to } => {
                write!(f, "crosses from patch port {} to patch port {}", name(*from), name(*to))
            }
            Self::Refused { port, reason } => write!(f, "not by port {}: {}", name(*port), reason.text()),
            Self::Dropped { port: Some(port), reason } => {
                write!(f, "dropped at port {}: {} ({})", name(*port), reason.text(), reason.name())
            }
            Self::Dropped { port: None, reason } => {
                write!(f, "dropped: {} ({})", reason.text(), reason.name())
            }
            Self::Mirrored { mirror } => write!(f, "copied by mirror {mirror}"),
            Self::Multicast { group: Some(group), joined: true } => {
                write!(f, "to those who joined {group}, and to routers")
            }
            Self::Multicast { group: Some(group), joined: false } => {
                write!(f, "nobody joined {group}: to routers alone")
            }
            Self::Multicast { group: None, .. } => f.write_str("a report of a listener: to routers alone"),
            Self::Punted(Why::TooBig { mtu }) => {
                write!(f, "the sender is told that packets of at most {mtu} bytes fit")
            }
            Self::Punted(Why::Probe) => {
                f.write_str("a probe of the path, not a frame: answered by the node itself")
            }
            Self::Punted(Why::Neigh) => f.write_str(
                "asks where an address is: answered here where the station is known, flooded where it is not",
            ),
            Self::Punted(Why::NeighSeen) => f.write_str("says where an address is: noted"),
            Self::Punted(Why::Snoop) => f.write_str("says who listens to which group: noted"),
        }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SourceMac(mac) => write!(f, "the source MAC is {mac}"),
            Self::ArpForm => f.write_str("ARP that is not of Ethernet and IPv4, or is cut short"),
            Self::ArpMac(mac) => write!(f, "the sender of the ARP message has MAC {mac}"),
            Self::ArpSender(ip) => write!(f, "the sender of the ARP message has address {ip}"),
            Self::ArpProbe(ip) => write!(f, "the ARP probe wants address {ip}"),
            Self::Ipv4Form => f.write_str("the headers of IPv4 cannot be read to the end"),
            Self::Ipv4Source(ip) => write!(f, "the IPv4 source is {ip}"),
            Self::Ipv6Form => f.write_str("the headers of IPv6 cannot be read to the end in this packet"),
            Self::Ipv6Source(ip) => write!(f, "the IPv6 source is {ip}"),
            Self::NdFragment => f.write_str("Neighbor Discovery in fragments"),
            Self::NdForm => f.write_str("Neighbor Discovery that cannot be read to the end"),
            Self::NdTarget(ip) => write!(f, "the Neighbor Discovery message claims address {ip}"),
            Self::NdMac(Some(mac)) => write!(f, "the Neighbor Discovery message names MAC {mac}"),
            Self::NdMac(None) => f.write_str("the Neighbor Discovery message names no Ethernet address"),
            Self::DhcpServer(from, to) => write!(f, "UDP from port {from} to port {to} is a DHCP server's"),
            Self::Router(kind) => write!(f, "ICMPv6 type {kind} is a router's"),
        }
    }
}

/// What would have been right, where something would.
fn write_expected(f: &mut String, breach: Breach, allowed: &Allowed) -> fmt::Result {
    let v6 = match breach {
        Breach::SourceMac(_) | Breach::ArpMac(_) | Breach::NdMac(_) => {
            return write!(f, "; its own is {}", allowed.mac);
        }
        Breach::ArpSender(_) | Breach::ArpProbe(_) | Breach::Ipv4Source(_) => false,
        Breach::Ipv6Source(_) | Breach::NdTarget(_) => true,
        _ => return Ok(()),
    };
    let mut own =
        allowed.addresses.iter().flatten().filter(|(address, _)| address.is_ipv6() == v6).peekable();
    let link_local = v6.then_some(allowed.link_local);
    if own.peek().is_none() && link_local.is_none() {
        return f.write_str("; it has none of that family");
    }
    f.write_str("; its own are ")?;
    for (address, len) in own {
        write!(f, "{address}")?;
        if *len < if v6 { 128 } else { 32 } {
            write!(f, "/{len}")?;
        }
        f.write_str(", ")?;
    }
    if let Some(address) = link_local {
        write!(f, "{address}, ")?;
    }
    if allowed.more > 0 {
        write!(f, "{} more of both families, ", allowed.more)?;
    }
    f.truncate(f.len() - 2);
    Ok(())
}

/// A frame or datagram that would leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The port.
    pub port: PortId,
    /// All its bytes.
    pub bytes: Vec<u8>,
}

/// The whole story of a hypothetical frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What happened, in order.
    pub steps: Vec<Step>,
    /// What became of it.
    pub verdict: Verdict,
    /// What would leave.
    pub outputs: Vec<Output>,
}

struct Writing<'a> {
    macs: &'a MacTable,
    now: Instant,
    steps: Vec<Step>,
    outputs: Vec<Output>,
    crossings: Crossings,
    /// For heads alone.
    tx: TxList,
}

pub(super) fn explain(tables: &Tables<'_>, now: Instant, arrival: Arrival, bytes: &[u8]) -> Explanation {
    let mut sink = Writing {
        macs: tables.macs,
        now,
        steps: Vec::new(),
        outputs: Vec::new(),
        crossings: Crossings::new(),
        tx: TxList::new(),
    };
    let arrived = (&arrival, &Offload::NONE, bytes);
    let verdict = journey(tables, arrived, &mut sink);
    Explanation { steps: sink.steps, verdict, outputs: sink.outputs }
}

impl Sink for Writing<'_> {
    const ARRIVING: bool = true;
    type Base = Self;

    fn base(&mut self, frame: &Entered<'_>) -> (&mut Self, Origin) {
        (self, Origin::of(frame))
    }

    fn crossings(&mut self) -> &mut Crossings {
        &mut self.crossings
    }

    fn matched(&mut self, rule: u32, _bytes: usize) {
        self.steps.push(Step::Matched { rule });
    }

    fn crossed(&mut self, from: PortId, to: PortId, _bytes: usize) {
        self.steps.push(Step::Crossed { from, to });
    }

    fn note(&mut self, step: Step) {
        self.steps.push(step);
    }

    fn received(&mut self, _port: PortId, _bytes: usize) {}

    fn learn(&mut self, frame: &Entered<'_>) -> Learned {
        self.macs.would_learn(self.now, frame.segment, frame.src.mac(), frame.port.id)
    }

    fn admits(&mut self, policer: &Policer, bytes: usize) -> bool {
        policer.would_admit(self.now, bytes)
    }

    fn drop(&mut self, port: Option<PortId>, reason: DropReason) {
        self.steps.push(Step::Dropped { port, reason });
    }

    fn punt(&mut self, punt: Punt) {
        self.steps.push(Step::Punted(punt.why));
    }

    fn mirrored(&mut self, id: u32, _bytes: usize) {
        self.steps.push(Step::Mirrored { mirror: id });
    }

    fn emit<const MANY: bool>(
        &mut self,
        port: PortId,
        frame: &Entered<'_>,
        dress: &Dress,
        _offload: Offload,
        _entropy: u32,
    ) {
        let head = write_head(&mut self.tx, frame, dress);
        let body = frame.inner().get(dress.from as usize..).unwrap_or_default();
        let bytes = [self.tx.head_bytes(head), body].concat();
        self.steps.push(Step::Left { port, len: bytes.len(), tag: dress.tag.get(), vni: dress.vni });
        self.outputs.push(Output { port, bytes });
    }

    fn emit_across(
        &mut self,
        port: PortId,
        frame: &Entered<'_>,
        (dress, _): (&Dress, &Origin),
        offload: Offload,
        entropy: u32,
    ) {
        self.emit::<false>(port, frame, dress, offload, entropy);
    }
}
