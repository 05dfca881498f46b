//! What the kernel tells of interfaces for those who look on: up, carrier, MTU, MAC address. All of them come in
//! one answer, however many there are.

use super::{Netlink, describe};
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage};
use std::io;
use vswitch_core::Mac;

/// An interface as it is at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its number, in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address, if it is an Ethernet interface.
    pub mac: Option<Mac>,
    /// Its MTU in bytes of IP packet.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether there is somebody at the other end of the wire. While it is down there never is.
    pub carrier: bool,
    /// How often that has changed.
    pub carrier_changes: u64,
}

impl Netlink {
    /// Of all interfaces, in one request.
    pub fn all_facts(&mut self) -> io::Result<Vec<Facts>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let mut all = Vec::new();
        self.request(RouteNetlinkMessage::GetLink(message), NLM_F_DUMP, |answer| {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                all.push(facts_of(&link));
            }
        })?;
        Ok(all)
    }
}

fn facts_of(message: &LinkMessage) -> Facts {
    let interface = describe(message);
    let mut facts = Facts {
        index: interface.index,
        name: interface.name,
        mac: interface.mac,
        mtu: interface.mtu,
        up: interface.up,
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        carrier_changes: 0,
    };
    for attribute in &message.attributes {
        if let LinkAttribute::CarrierChanges(count) = attribute {
            facts.carrier_changes = (*count).into();
        }
    }
    facts
}
