//! Namespaces and rtnetlink against a real kernel, each test in a network namespace of its own.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod link_support;

use link_support::{isolated, run, up};
use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use vswitch_core::Mac;
use vswitchd::link::{Source, Tap, open_or_adopt};
use vswitchd::sys::ethtool::{Ethtool, Wire};
use vswitchd::sys::netlink::{Change, Netlink};
use vswitchd::sys::netns;

fn open(name: &str) -> (Tap, u32) {
    let tap = open_or_adopt(Source::Open { name, offload: false }).unwrap();
    let interface = Netlink::open().unwrap().interface(name).unwrap().unwrap();
    assert!(!interface.up);
    (tap, interface.index)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn an_interface_of_another_namespace_is_seen_without_going_there() {
    isolated(|| {
        let pods = [(); 2].map(|()| netns::create().unwrap());
        let mut here = Netlink::open().unwrap();
        // The second time each namespace has its number already.
        for (round, pod) in pods.iter().chain(&pods).enumerate() {
            let seen = here.interface_in(pod.as_fd(), "lo").unwrap().unwrap();
            let there = Netlink::open_in(pod.as_fd()).unwrap().interface("lo").unwrap().unwrap();
            assert_eq!(seen, there, "round {round}");
            assert_eq!(here.interface_in(pod.as_fd(), "eth0").unwrap(), None);
        }
        let (_tap, index) = open("tap0");
        let settings = Change { mtu: Some(1300), gso_max: Some(40_000), up: Some(true), ..Change::default() };
        assert!(Change::default().is_nothing() && !settings.is_nothing());
        here.change(index, &Change { namespace: Some(pods[1].as_fd()), ..settings }).unwrap();
        let seen = here.interface_in(pods[1].as_fd(), "tap0").unwrap().unwrap();
        assert_eq!((seen.mtu, seen.gso_max, seen.up), (1300, Some(40_000), true));
        assert_eq!(here.interface_in(pods[0].as_fd(), "tap0").unwrap(), None);
    });
}

#[test]
fn one_request_moves_names_and_raises_a_tap_and_its_addresses_serve_at_once() {
    isolated(|| {
        let path = netns::path("pod-a");
        assert_eq!(netns::open("pod-a").unwrap_err().kind(), ErrorKind::NotFound);
        netns::pin(netns::create().unwrap().as_fd(), &path).unwrap();
        let pod = netns::open("pod-a").unwrap();
        let (_tap, index) = open("tap0");
        let mac = Mac::new([2, 0, 0, 0, 0, 0xa]);
        let change = Change {
            namespace: Some(pod.as_fd()),
            name: Some("eth0"),
            mtu: Some(1446),
            mac: Some(mac),
            gso_max: None,
            up: Some(true),
        };
        let mut here = Netlink::open().unwrap();
        here.change(index, &change).unwrap();
        assert_eq!(here.interface("tap0").unwrap(), None);

        let mut inside = Netlink::open_in(pod.as_fd()).unwrap();
        let eth0 = inside.interface("eth0").unwrap().unwrap();
        assert_eq!((eth0.mtu, eth0.mac, eth0.up), (1446, Some(mac), true));
        // Twice: what is there already is no error.
        for _ in 0..2 {
            inside.add_address(eth0.index, ip("10.10.0.2"), 24).unwrap();
            inside.add_address(eth0.index, ip("fd00:10::2"), 64).unwrap();
            inside.set_gateway(eth0.index, ip("10.10.0.1")).unwrap();
            inside.set_gateway(eth0.index, ip("fd00:10::1")).unwrap();
        }
        assert_eq!(inside.gateways(eth0.index).unwrap(), [ip("10.10.0.1"), ip("fd00:10::1")]);
        let addresses = inside.addresses().unwrap();
        for (address, prefix_len) in [(ip("10.10.0.2"), 24), (ip("fd00:10::2"), 64)] {
            let found = addresses.iter().find(|found| found.address == address).unwrap();
            assert_eq!((found.prefix_len, found.interface.as_str(), found.mtu), (prefix_len, "eth0", 1446));
            assert_eq!(found.index, eth0.index);
            // A tentative address could not be bound.
            netns::within(pod.as_fd(), || UdpSocket::bind((address, 0)).map(drop)).unwrap().unwrap();
        }
        assert!(here.addresses().unwrap().iter().all(|found| found.interface == "lo"));
        inside.delete_address(eth0.index, ip("10.10.0.2"), 24).unwrap();
        inside.delete_address(eth0.index, ip("10.10.0.2"), 24).unwrap();
        assert!(!inside.addresses().unwrap().iter().any(|found| found.address == ip("10.10.0.2")));
        netns::unpin(&path).unwrap();
        assert_eq!(netns::open("pod-a").unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn a_taken_name_inside_is_refused_after_the_move() {
    isolated(|| {
        let pod = netns::create().unwrap();
        let (tap, index) = open("tap0");
        let change = Change { namespace: Some(pod.as_fd()), name: Some("lo"), ..Change::default() };
        let mut here = Netlink::open().unwrap();
        assert_eq!(here.change(index, &change).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(here.interface("tap0").unwrap(), None);
        let mut inside = Netlink::open_in(pod.as_fd()).unwrap();
        assert!(!inside.interface("tap0").unwrap().unwrap().up);
        drop(tap);
        assert_eq!(inside.interface("tap0").unwrap(), None);
    });
}

#[test]
fn a_gateway_replaces_its_own_and_never_another_interface_s() {
    isolated(|| {
        let mut here = Netlink::open().unwrap();
        let (_left, left) = open("left");
        let (_right, right) = open("right");
        for (name, index, net) in [("left", left, 1), ("right", right, 2)] {
            up(name);
            here.add_address(index, ip(&format!("10.{net}.0.2")), 24).unwrap();
            here.add_address(index, ip(&format!("fd00:{net}::2")), 64).unwrap();
        }
        for (first, second, other) in
            [("10.1.0.1", "10.1.0.9", "10.2.0.1"), ("fd00:1::1", "fd00:1::9", "fd00:2::1")]
        {
            here.set_gateway(left, ip(first)).unwrap();
            here.set_gateway(left, ip(second)).unwrap();
            assert_eq!(here.set_gateway(right, ip(other)).unwrap_err().kind(), ErrorKind::AlreadyExists);
        }
        assert_eq!(here.gateways(left).unwrap(), [ip("10.1.0.9"), ip("fd00:1::9")]);
        assert_eq!(here.gateways(right).unwrap(), [] as [IpAddr; 0]);
        let error = here.set_gateway(right, ip("10.77.0.1")).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NetworkUnreachable | ErrorKind::AlreadyExists), "{error}");
    });
}

#[test]
fn what_is_no_network_namespace_is_refused() {
    isolated(|| {
        std::fs::write(netns::path("half-made"), "").unwrap();
        let error = netns::open("half-made").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), "/run/netns/half-made is no network namespace");
        assert_eq!(netns::open("/proc/self/ns/mnt").unwrap_err().kind(), ErrorKind::InvalidInput);
        let here = netns::current().unwrap();
        let same = netns::open("/proc/thread-self/ns/net").unwrap();
        assert_eq!(netns::id(here.as_fd()).unwrap(), netns::id(same.as_fd()).unwrap());
        let other = netns::create().unwrap();
        assert_ne!(netns::id(here.as_fd()).unwrap(), netns::id(other.as_fd()).unwrap());
    });
}

#[test]
fn work_inside_a_namespace_leaves_the_caller_where_it_is() {
    isolated(|| {
        let here = netns::id(netns::current().unwrap().as_fd()).unwrap();
        let pod = netns::create().unwrap();
        let there = netns::within(pod.as_fd(), || netns::id(netns::current().unwrap().as_fd()).unwrap());
        assert_eq!(there.unwrap(), netns::id(pod.as_fd()).unwrap());
        assert_eq!(netns::id(netns::current().unwrap().as_fd()).unwrap(), here);
        let error = netns::within(pod.as_fd(), || panic!("on purpose")).unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
    });
}

#[test]
fn an_absent_interface_is_none() {
    isolated(|| {
        let mut here = Netlink::open().unwrap();
        assert_eq!(here.interface("tap9").unwrap(), None);
        let lo = here.interface("lo").unwrap().unwrap();
        assert_eq!((lo.index, lo.name.as_str(), lo.mtu, lo.up), (1, "lo", 65_536, true));
        assert_eq!(here.interfaces().unwrap(), [lo]);
        assert_eq!(here.delete(4711).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    });
}

#[test]
fn what_the_kernel_tells_of_all_interfaces_comes_at_once() {
    isolated(|| {
        for line in ["add near type veth peer name far", "set near mtu 1300 up"] {
            run(&format!("ip link {line}"));
        }
        let _tap = open("tap0");
        let mut netlink = Netlink::open().unwrap();
        let mut told = || {
            let all = netlink.all_facts().unwrap();
            ["near", "tap0"].map(|name| all.iter().find(|facts| facts.name == name).unwrap().clone())
        };
        let [near, tap] = told();
        assert_eq!((near.mtu, near.up, near.carrier), (1300, true, false));
        assert_eq!((tap.up, tap.carrier), (false, false));
        let before = near.carrier_changes;
        run("ip link set far up");
        let [near, _] = told();
        assert!(near.carrier && near.carrier_changes > before && near.mac.is_some());
    });
}

#[test]
fn a_driver_says_its_name_and_how_fast_its_wire_is() {
    isolated(|| {
        run("ip link add near type veth peer name far");
        let _tap = open("tap0");
        let ethtool = Ethtool::open().unwrap();
        assert_eq!(
            (ethtool.driver("near").unwrap().name, ethtool.driver("tap0").unwrap().name),
            ("veth".into(), "tun".into())
        );
        assert_eq!(ethtool.wire("near").unwrap(), Wire { mbits: Some(10_000), full_duplex: Some(true) });
        assert!(ethtool.wire("tap0").unwrap().mbits.is_some());
        for name in ["eth77", "a-name-of-sixteen"] {
            assert!(ethtool.driver(name).is_err() && ethtool.wire(name).is_err());
        }
        assert_eq!(ethtool.wire("lo").unwrap_err().raw_os_error(), Some(95), "EOPNOTSUPP");
    });
}
