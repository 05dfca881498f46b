//! Interfaces that exist already, behind packet sockets: opened or refused, down, gone, and more than is read of them.
//! What frames look like is link_packet.rs's.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod link_support;

use link_support::wire::{open, owing_nothing, pair, receive, send, tagged};
use link_support::{assert_clean, isolated, port, repeated, run, wait};
use std::os::fd::AsFd;
use std::process::Command;
use vswitch_core::Batch;
use vswitchd::link::{Link, LinkError, Packet, Scratch, Sent};
use vswitchd::sys::netlink::{Change, Netlink};
use vswitchd::sys::netns;

#[test]
fn what_the_queue_lost_is_counted_once() {
    isolated(|| {
        pair("near", "far");
        let (a, b) = (open("near"), open("far"));
        let (batch, tx) = repeated(&tagged(&[], 1), 0..100);
        let mut sent = 0;
        // Until the queue has overflowed: a frame takes some 700 bytes of it.
        for _ in 0..400 {
            sent += a.send(&batch, &tx, port(), &mut Scratch::new()).ok;
        }
        let (mut frames, mut lost) = (0, 0);
        let mut batch = Batch::new(64);
        let mut count = || {
            loop {
                batch.clear();
                let received = b.receive(port(), &mut batch);
                frames += u64::try_from(received.frames).unwrap();
                lost += received.overflow;
                if received.drained {
                    return [frames, lost];
                }
            }
        };
        let [_, before] = count();
        // Only what was queued after a loss tells of it.
        assert_eq!(send(&a, &owing_nothing([tagged(&[], 2)])).ok, 1);
        wait(b.fd().unwrap());
        let [frames, lost] = count();
        assert!(before == 0 && lost > 0, "{sent} frames fit the queue");
        // Others may not have come so far.
        assert!(frames + lost <= sent + 1, "{frames} came and {lost} were lost of {sent} and 1");
        assert_eq!(send(&a, &owing_nothing([tagged(&[], 3)])).ok, 1);
        wait(b.fd().unwrap());
        assert_eq!(count(), [frames + 1, lost]);
    });
}

fn set_up(name: &str, up: bool) {
    let mut netlink = Netlink::open().unwrap();
    let index = netlink.interface(name).unwrap().unwrap().index;
    netlink.change(index, &Change { up: Some(up), ..Change::default() }).unwrap();
}

#[test]
fn an_interface_that_is_down_refuses_frames_and_is_not_gone() {
    isolated(|| {
        pair("near", "far");
        for offload in [true, false] {
            let (a, b) = (Packet::open("near", offload).unwrap(), open("far"));
            let frames = owing_nothing([tagged(&[], 1), tagged(&[], 2)]);
            set_up("near", false);
            assert_eq!(send(&a, &frames), Sent { down: 2, ..Sent::default() });
            let mut batch = Batch::new(8);
            let received = a.receive(port(), &mut batch);
            assert_clean(received);
            assert!(received.drained && received.frames == 0 && !a.is_gone());
            set_up("near", true);
            assert_eq!(send(&a, &frames).ok, 2);
            assert_eq!(receive(&b, 2), frames);
            assert_eq!(send(&b, &frames).ok, 2);
            assert_eq!(receive(&a, 2), frames);
        }
    });
}

#[test]
fn what_waited_when_the_interface_was_set_down_is_still_received() {
    isolated(|| {
        pair("near", "far");
        let (a, b) = (open("near"), open("far"));
        let frames = owing_nothing([tagged(&[], 1), tagged(&[(0x8100, 3)], 2)]);
        assert_eq!(send(&a, &frames).ok, 2);
        wait(b.fd().unwrap());
        set_up("far", false);
        assert_eq!(receive(&b, 2), frames);
    });
}

#[test]
fn a_deleted_interface_is_gone_whoever_asks() {
    isolated(|| {
        for was_up in [true, false] {
            pair("near", "far");
            let (a, b) = (open("near"), open("far"));
            set_up("far", was_up);
            set_up("near", was_up);
            assert!(!a.is_gone() && !b.is_gone());
            run("ip link delete near");
            assert!(a.is_gone() && b.is_gone());
            if was_up {
                wait(b.fd().unwrap());
                assert!(b.receive(port(), &mut Batch::new(8)).gone);
            }
            let sent = send(&a, &owing_nothing([tagged(&[], 1), tagged(&[], 2)]));
            assert_eq!(sent, Sent { refused: 2, gone: true, ..Sent::default() });
        }
    });
}

#[test]
fn an_interface_that_moves_to_another_namespace_is_gone() {
    isolated(|| {
        pair("near", "far");
        let a = open("near");
        let space = netns::create().unwrap();
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.interface("near").unwrap().unwrap().index;
        netlink.change(index, &Change { namespace: Some(space.as_fd()), ..Change::default() }).unwrap();
        assert!(a.is_gone());
    });
}

#[test]
fn what_cannot_be_opened_is_refused_with_the_reason() {
    isolated(|| {
        let refused = |name: &str| Packet::open(name, true).unwrap_err();
        assert_eq!(refused("eth77").to_string(), "could not open network device eth77 (No such device)");
        assert!(matches!(refused("a-name-of-sixteen"), LinkError::NameTooLong { .. }));
        for name in ["", "a/b", "a\0b", "tap%d"] {
            assert!(matches!(refused(name), LinkError::NameInvalid { .. }), "{name:?}");
        }
        run("ip tuntap add dev tun0 mode tun");
        assert!(matches!(refused("tun0"), LinkError::NotEthernet { .. }));
        // One that is down, and the host's own, are interfaces as well.
        run("ip link add near type veth peer name far");
        assert_eq!((open("near").name(), open("lo").name()), ("near", "lo"));
    });
}

/// Set in a process that is to find out what it may not.
const UNPRIVILEGED: &str = "VSWITCH_TEST_UNPRIVILEGED";

#[test]
fn without_cap_net_raw_it_is_said_what_to_do() {
    if std::env::var_os(UNPRIVILEGED).is_some() {
        let error = Packet::open("lo", true).unwrap_err().to_string();
        assert!(error.contains("Operation not permitted") && error.contains("CAP_NET_RAW"), "{error}");
        return;
    }
    isolated(|| {
        // Root of a user namespace has no say in the network that it came from.
        let exe = std::env::current_exe().unwrap();
        let name = std::thread::current().name().unwrap().to_owned();
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user"])
            .arg(exe)
            .args(["--exact", &name, "--nocapture"])
            .env(UNPRIVILEGED, "1")
            .output()
            .expect("unshare(1) is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    });
}

#[test]
fn an_interface_is_promiscuous_for_each_of_its_readers() {
    isolated(|| {
        pair("near", "far");
        let links = [open("near"), open("near")];
        let shown = Command::new("ip").args(["-details", "link", "show", "near"]).output().unwrap();
        assert!(String::from_utf8_lossy(&shown.stdout).contains("promiscuity 2"), "{shown:?}");
        let frames = owing_nothing([tagged(&[], 1)]);
        assert_eq!(send(&open("far"), &frames).ok, 1);
        for link in &links {
            assert_eq!(receive(link, 1), frames);
        }
    });
}
