//! A Linux VXLAN link with a bridge behind it as the remote node, and our node: pods on either side talk.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use vswitch_tests::lab::{Lab, Namespace, skip};
use vswitch_tests::node::{
    Fleet, Node, PATIENCE, Underlay, Wire, in_nodes, is_fragment, knows, pings, pod, talk, tcp, udp_echo, v4,
    v6,
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Our node with a pod at 10.10.0.1 and fd10::1, a Linux node with one at 10.10.0.2 and fd10::2.
struct Pair {
    underlay: Underlay,
    ours: Namespace,
    theirs: Namespace,
    node: Node,
    _fleet: Fleet,
}

/// `offload`: whether our pod's TAP has it.
fn pair(lab: &Lab, address: fn(u8) -> IpAddr, offload: bool) -> Pair {
    let underlay = Underlay::new(lab, 2, 1500);
    let (ours, theirs) = (lab.namespace("ours"), lab.namespace("theirs"));
    let linux = &underlay.nodes[1];
    // As CNI plugins do it: no default remote, but an entry for everything unknown.
    linux.ip(&format!("link add name vx type vxlan id 10010 local {} dstport 4789", address(2)));
    linux.run(&format!("bridge fdb append 00:00:00:00:00:00 dev vx dst {}", address(1)));
    linux.veth("pod", &theirs, "eth0");
    linux.bridge("br", &["vx", "pod"]);
    let mtu = if address(1).is_ipv4() { 1450 } else { 1430 };
    theirs.ip(&format!("link set dev eth0 mtu {mtu}"));
    theirs.address("eth0", "10.10.0.2/24");
    theirs.address("eth0", "fd10::2/64");
    let keys = format!("tag = 10\noffload = {offload}");
    let port = pod("ours", "n1", &ours, &keys, &["10.10.0.1/24", "fd10::1/64"]);
    let fleet = Fleet::new(&format!(
        "[underlay]\naddress = \"{0}\"\n[mesh]\npeers = [\"{0}\", \"{1}\"]\n[[segment]]\nname = \"blue\"\n\
         vlan = 10\nvni = 10010\n{port}",
        address(1),
        address(2)
    ));
    let node = fleet.start(&underlay.nodes[0], "n1");
    Pair { underlay, ours, theirs, node, _fleet: fleet }
}

/// `superframes`: whether the Linux node leaves cutting to an underlay that never does it. `offload`: whether our pod
/// takes superframes.
fn talks(
    lab: &Lab,
    address: fn(u8) -> IpAddr,
    superframes: bool,
    offload: bool,
    prepare: impl FnOnce(&Pair),
) {
    if !knows(&lab.namespace("vxlan"), "type vxlan id 1 dstport 4789") {
        return skip("the kernel has no VXLAN");
    }
    let pair = pair(lab, address, offload);
    prepare(&pair);
    let mut wire = Wire::open(&pair.underlay.nodes[0], "under");
    let mut inside = Wire::open(&pair.ours, "eth0");
    for (ours, theirs) in [("10.10.0.1", "10.10.0.2"), ("fd10::1", "fd10::2")] {
        talk(&pair.ours, ip(ours), &pair.theirs, ip(theirs));
        pings(&pair.theirs, ip(ours));
        udp_echo(&pair.theirs, &pair.ours, ip(ours));
        // Enough for the sender to reach its largest superframes.
        tcp(&pair.theirs, &pair.ours, ip(ours), 8 << 20);
    }
    let arrived = |key| pair.node.peer(address(2), key);
    let mean = arrived("rx_bytes") / arrived("rx_frames");
    assert_eq!(mean > 1600, superframes, "frames of {mean} bytes on average");
    assert!(!wire.frames().iter().any(|frame| is_fragment(frame)));
    // Superframes that came uncut are cut for a pod that takes none, into full segments; what came cut is put together
    // again for one that does.
    let longest = inside.frames().iter().map(Vec::len).max().unwrap();
    let full = if address(1).is_ipv4() { 1464 } else { 1444 };
    assert!(if offload { longest > 10 * full } else { longest == full }, "{longest}");
    for reason in ["unknown_peer", "bad_offload", "rx_truncated", "long_frame", "too_big", "tx_error"] {
        assert_eq!(pair.node.drops(reason), 0, "{reason}: {}", pair.node.ctl("drops"));
    }
}

#[test]
fn linux_talks_over_ipv4_with_every_offload_on() {
    in_nodes("linux_talks_over_ipv4_with_every_offload_on", |lab| talks(lab, v4, true, true, |_| ()));
}

#[test]
fn linux_talks_over_ipv6_with_every_offload_on() {
    in_nodes("linux_talks_over_ipv6_with_every_offload_on", |lab| talks(lab, v6, true, true, |_| ()));
}

#[test]
fn linux_with_every_offload_on_talks_to_a_pod_with_none() {
    in_nodes("linux_with_every_offload_on_talks_to_a_pod_with_none", |lab| {
        talks(lab, v4, true, false, |_| ());
        talks(&Lab::new(), v6, true, false, |_| ());
    });
}

#[test]
fn linux_talks_over_ipv4_with_transmit_checksums_done_in_software() {
    in_nodes("linux_talks_over_ipv4_with_transmit_checksums_done_in_software", |lab| {
        talks(lab, v4, false, true, |pair| pair.underlay.nodes[1].ethtool("under", "tx off"));
    });
}

#[test]
fn linux_talks_over_ipv6_when_it_cuts_superframes_itself() {
    in_nodes("linux_talks_over_ipv6_when_it_cuts_superframes_itself", |lab| {
        talks(lab, v6, false, true, |pair| pair.underlay.nodes[1].ethtool("under", "tso off gso off"));
    });
}

/// Makes the kernel cut what `socket` sends into datagrams of `size` bytes, as late as it can (udp(7)).
#[expect(unsafe_code, reason = "the standard library does not know UDP_SEGMENT")]
fn segment(socket: &UdpSocket, size: libc::c_int) {
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap();
    // SAFETY: `size` is a c_int, outlives the call, and `len` is its size.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, (&raw const size).cast(), len)
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn datagrams_that_linux_sends_as_one_superframe_arrive_one_by_one() {
    in_nodes("datagrams_that_linux_sends_as_one_superframe_arrive_one_by_one", |lab| {
        if !knows(&lab.namespace("vxlan"), "type vxlan id 1 dstport 4789") {
            return skip("the kernel has no VXLAN");
        }
        for (address, offload) in [(v4 as fn(u8) -> IpAddr, true), (v6, true), (v4, false), (v6, false)] {
            let lab = &Lab::new();
            let pair = pair(lab, address, offload);
            pings(&pair.theirs, ip("10.10.0.1"));
            let any = SocketAddr::from(([0, 0, 0, 0], 0));
            let server = pair.ours.inside(|| UdpSocket::bind(any)).unwrap();
            let client = pair.theirs.inside(|| UdpSocket::bind(any)).unwrap();
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            segment(&client, 1000);
            let sent: Vec<u8> = (0..30_500_u32).map(|i| u8::try_from(i / 1000).unwrap()).collect();
            client.send_to(&sent, ("10.10.0.1", server.local_addr().unwrap().port())).unwrap();
            let mut buffer = [0; 1 << 16];
            for datagram in sent.chunks(1000) {
                let len = server.recv(&mut buffer).unwrap_or_else(|error| panic!("{error}: {}", datagram[0]));
                assert_eq!(&buffer[..len], datagram, "{len} bytes");
            }
        }
    });
}
