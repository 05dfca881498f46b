//! Forwarding between interfaces switched on in a real kernel, each test in a network namespace of its own.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod link_support;

use link_support::{isolated, up};
use pnet_packet::icmpv6;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::Ipv6Addr;
use vswitchd::link::{Link as _, Source, open_or_adopt};
use vswitchd::sys::netlink::Netlink;
use vswitchd::sys::sysctl;

#[test]
fn forwarding_is_switched_on_for_the_families_asked_for() {
    isolated(|| {
        let (v4, v6) = ("/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding");
        let values = || [v4, v6].map(|path| fs::read_to_string(path).unwrap().trim().to_owned());
        [v4, v6].iter().for_each(|path| fs::write(path, "0").unwrap());
        sysctl::forward(false, false).unwrap();
        assert_eq!(values(), ["0", "0"]);
        sysctl::forward(true, false).unwrap();
        assert_eq!(values(), ["1", "0"]);
        sysctl::forward(false, true).unwrap();
        assert_eq!(values(), ["1", "1"]);
        sysctl::forward(true, true).unwrap();
        assert_eq!(values(), ["1", "1"]);
    });
}

/// An unsolicited router advertisement (RFC 4861 §4.2) of `router`, for half an hour.
fn advertisement(router: Ipv6Addr) -> Vec<u8> {
    let all: Ipv6Addr = "ff02::1".parse().unwrap();
    let mut body = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    let sum = icmpv6::checksum(&icmpv6::Icmpv6Packet::new(&body).unwrap(), &router, &all);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = vec![0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 0x86, 0xdd];
    frame.extend([0x60, 0, 0, 0, 0, u8::try_from(body.len()).unwrap(), 58, 255]);
    frame.extend(router.octets());
    frame.extend(all.octets());
    frame.extend(body);
    frame
}

#[test]
fn an_interface_that_lives_by_router_advertisements_goes_on_and_no_other_begins() {
    isolated(|| {
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "0").unwrap();
        let open = |name: &str| {
            let tap = open_or_adopt(Source::Open { name, offload: false }).unwrap();
            fs::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_ra"), "1").unwrap();
            let wire = File::from(tap.fd().unwrap().try_clone_to_owned().unwrap());
            (up(name), wire, tap)
        };
        let (uplink, mut uplink_wire, _uplink) = open("uplink");
        let (pods, mut pods_wire, _pods) = open("pods");
        let mut netlink = Netlink::open().unwrap();
        let router = |n: u16| Ipv6Addr::from([0xfe80, 0, 0, 0, 0, 0, 0, n]);
        let mut until_learned = |routers: &[Ipv6Addr]| {
            // The kernel has looked at a frame when writing it returns, or a moment later.
            let mut learned = Vec::new();
            for _ in 0..100_000 {
                learned = netlink.gateways(uplink).unwrap();
                learned.sort();
                if learned == routers {
                    return netlink.gateways(pods).unwrap();
                }
            }
            panic!("{learned:?}, not {routers:?}");
        };
        uplink_wire.write_all(&advertisement(router(1))).unwrap();
        until_learned(&[router(1)]);
        sysctl::forward(false, true).unwrap();
        pods_wire.write_all(&advertisement(router(9))).unwrap();
        uplink_wire.write_all(&advertisement(router(2))).unwrap();
        let by_pods = until_learned(&[router(1), router(2)]);
        assert!(by_pods.is_empty(), "{by_pods:?}");
        let accepts = |name: &str| {
            fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/accept_ra")).unwrap().trim().to_owned()
        };
        assert_eq!((accepts("uplink"), accepts("pods")), ("2".to_owned(), "1".to_owned()));
    });
}
