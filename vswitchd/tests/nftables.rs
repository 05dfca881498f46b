//! The packet rules of gateways against a real kernel, each test in a network namespace of
//! its own; nft(8) reads what we have said to the kernel, and says the same in its own words.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod link_support;

use link_support::isolated;
use serde_json::Value;
use std::io::{ErrorKind, Write as _};
use std::net::{IpAddr, Ipv6Addr};
use std::process::{Command, Stdio};
use vswitchd::sys::nftables::{Ruleset, apply, is_there, remove};

/// Runs nft(8) in this thread's namespace; `None`, said aloud, where there is none.
fn nft(arguments: &[&str], input: &str) -> Option<String> {
    let mut command = Command::new("nft");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped: nft is not installed");
            eprintln!("SKIPPED: nft is not installed (Debian: nftables)");
            return None;
        }
        child => child.unwrap(),
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nft {arguments:?}: {complaint}\n{input}");
    Some(String::from_utf8(output.stdout).unwrap())
}

/// All rules of this namespace as nft(8) sees them, without the numbers that the kernel gives things.
fn listed() -> Option<Value> {
    fn without_handles(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.remove("handle");
                map.values_mut().for_each(without_handles);
            }
            Value::Array(array) => array.iter_mut().for_each(without_handles),
            _ => {}
        }
    }
    let mut listed: Value = serde_json::from_str(&nft(&["-j", "list", "ruleset"], "")?).unwrap();
    without_handles(&mut listed);
    Some(listed["nftables"].take())
}

fn prefix(text: &str) -> (IpAddr, u8) {
    let (address, len) = text.split_once('/').unwrap();
    (address.parse().unwrap(), len.parse().unwrap())
}

fn prefixes(texts: &[&str]) -> Vec<(IpAddr, u8)> {
    texts.iter().map(|text| prefix(text)).collect()
}

fn rules() -> Ruleset {
    Ruleset {
        gateways: vec!["vgw10".to_owned(), "a-name-of-15-by".to_owned()],
        // In no order, with host bits, overlapping, touching, and one that ends with the last address.
        pods: prefixes(&[
            "10.244.7.9/16",
            "10.244.0.0/24",
            "10.245.0.0/16",
            "240.0.0.0/4",
            "fd00:1::/64",
            "ff00::/8",
        ]),
        masquerade: prefixes(&["10.244.0.0/16", "fd00:1::/64"]),
        nodes: prefixes(&[
            "192.0.2.1/32",
            "192.0.2.2/32",
            "198.51.100.7/32",
            "2001:db8::/64",
            "2001:db8:1::1/128",
        ]),
        vxlan_ports: vec![4789, 8472],
    }
}

/// What [`rules`] is, in the words of nft(8).
const WORDS: &str = "
table inet vswitch {
    set gateways { type ifname; elements = { \"vgw10\", \"a-name-of-15-by\" }; }
    set pods4 { type ipv4_addr; flags interval; elements = { 10.244.0.0/15, 240.0.0.0/4 }; }
    set masquerade4 { type ipv4_addr; flags interval; elements = { 10.244.0.0/16 }; }
    set nodes4 { type ipv4_addr; flags interval; elements = { 192.0.2.1-192.0.2.2, 198.51.100.7 }; }
    set pods6 { type ipv6_addr; flags interval; elements = { fd00:1::/64, ff00::/8 }; }
    set masquerade6 { type ipv6_addr; flags interval; elements = { fd00:1::/64 }; }
    set nodes6 { type ipv6_addr; flags interval; elements = { 2001:db8::/64, 2001:db8:1::1 }; }
    set ports { type inet_service; elements = { 4789, 8472 }; }
    chain prerouting {
        type filter hook prerouting priority -150; policy accept;
        iifname != @gateways accept
        meta l4proto ipv6-icmp icmpv6 type nd-router-advert counter drop
        meta l4proto ipv6-icmp icmpv6 type nd-redirect counter drop
        udp dport @ports ip daddr @nodes4 counter drop
        udp dport @ports ip daddr != @pods4 counter drop
        udp dport @ports ip6 daddr @nodes6 counter drop
        udp dport @ports ip6 daddr != @pods6 counter drop
    }
    chain input {
        type filter hook input priority 0; policy accept;
        iifname != @gateways accept
        udp dport @ports counter drop
    }
    chain forward {
        type filter hook forward priority 0; policy accept;
        iifname != @gateways accept
        udp dport @ports ip daddr @nodes4 counter drop
        udp dport @ports ip daddr != @pods4 counter drop
        udp dport @ports ip6 daddr @nodes6 counter drop
        udp dport @ports ip6 daddr != @pods6 counter drop
    }
    chain postrouting {
        type nat hook postrouting priority 100; policy accept;
        ip saddr @masquerade4 ip daddr != @pods4 ip daddr != @nodes4 fib daddr type unicast masquerade
        ip6 saddr @masquerade6 ip6 daddr != @pods6 ip6 daddr != @nodes6 fib daddr type unicast masquerade
    }
}
";

#[test]
fn the_kernel_is_told_what_nft_would_tell_it() {
    isolated(|| {
        apply(&rules()).unwrap();
        let Some(ours) = listed() else { return };
        remove().unwrap();
        nft(&["-f", "-"], WORDS);
        let theirs = listed().unwrap();
        let (ours, theirs) = (ours.as_array().unwrap(), theirs.as_array().unwrap());
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert_eq!(ours, theirs);
        }
        assert_eq!(ours.len(), theirs.len());
    });
}

#[test]
fn rules_are_replaced_whole_and_other_tables_are_left_alone() {
    isolated(|| {
        // Nothing there: nothing to remove.
        remove().unwrap();
        let other = "table inet others { chain input { type filter hook input priority 0; }; }";
        if nft(&["-f", "-"], other).is_none() {
            return;
        }
        let before = listed().unwrap();
        apply(&rules()).unwrap();
        apply(&rules()).unwrap();
        let once = listed().unwrap();
        let fewer =
            Ruleset { gateways: vec!["vgw20".to_owned()], vxlan_ports: vec![4789], ..Ruleset::default() };
        apply(&fewer).unwrap();
        let sets = nft(&["list", "sets"], "").unwrap();
        assert!(sets.contains("vgw20") && !sets.contains("vgw10") && !sets.contains("10.244"), "{sets}");
        apply(&rules()).unwrap();
        assert_eq!(listed().unwrap(), once);
        remove().unwrap();
        remove().unwrap();
        assert_eq!(listed().unwrap(), before);
    });
}

#[test]
fn a_refused_batch_changes_nothing_and_names_the_step() {
    isolated(|| {
        apply(&rules()).unwrap();
        let Some(before) = listed() else { return };
        // No interface has such a name: the key is longer than the set's.
        let wrong = Ruleset { gateways: vec!["a-name-of-sixteen-bytes".to_owned()], ..rules() };
        let error = apply(&wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("filling set gateways"), "{error}");
        assert_eq!(listed().unwrap(), before);
    });
}

#[test]
fn thousands_of_nodes_fit_into_one_transaction() {
    isolated(|| {
        let address = |n: u32| {
            // No two touch.
            let v6 = (0xfd00_u128 << 112) | u128::from(n) << 32;
            [
                (IpAddr::from((0x0a00_0000 + 2 * n).to_be_bytes()), 32),
                (IpAddr::from(Ipv6Addr::from_bits(v6)), 128),
            ]
        };
        let many = Ruleset { nodes: (0..20_000).flat_map(address).collect(), ..rules() };
        apply(&many).unwrap();
        let Some(listed) = listed() else { return };
        let elements = |name: &str| {
            let set = listed.as_array().unwrap().iter().find(|row| row["set"]["name"] == name).unwrap();
            set["set"]["elem"].as_array().unwrap().len()
        };
        assert_eq!((elements("nodes4"), elements("nodes6")), (20_000, 20_000));
    });
}

#[test]
fn a_table_that_somebody_flushed_is_missed() {
    isolated(|| {
        assert!(!is_there().unwrap());
        apply(&rules()).unwrap();
        let before = listed();
        assert!(is_there().unwrap());
        assert_eq!(listed(), before, "looking changes nothing");
        if nft(&["flush", "ruleset"], "").is_some() {
            assert!(!is_there().unwrap());
            assert_eq!(listed(), Some(Value::Array(listed().unwrap().as_array().unwrap()[..1].to_vec())));
        }
    });
}
