//! A mesh that is written down in names alone, which a real DNS server (Debian's dnsmasq) knows: late, otherwise, or no
//! more. How answers are read and kept is tested in `source_dns.rs` of the daemon.
#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::Value;
use std::net::IpAddr;
use vswitch_tests::lab::{Daemon, skip, until};
use vswitch_tests::mesh::{Flood, Membership, Mesh, Plan, Pods, ROUTER, Stream, v4};
use vswitch_tests::node::{PATIENCE, in_nodes, is_installed};

fn name(n: usize) -> String {
    format!("node-{n}.test")
}

/// A server on the router that knows these addresses of these nodes for a second at a time; it answers when this
/// returns, and until it is dropped.
fn server(mesh: &Mesh, records: &[(usize, IpAddr)]) -> Daemon {
    let mut command = mesh.underlay.router.command("dnsmasq");
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"]);
    command.args(["--bind-interfaces", "--pid-file=", "--user=root", "--local=/test/", "--log-facility=-"]);
    command.arg(format!("--listen-address={ROUTER}"));
    command.args(records.iter().map(|(n, address)| format!("--host-record={},{address},1", name(*n))));
    let server = Daemon::spawn(&mut command);
    server.until_logged("started, version", PATIENCE);
    server
}

/// The peers of node `n`: name, address and state.
fn peers(mesh: &Mesh, n: usize) -> Vec<(String, String, String)> {
    let rows = mesh.node(n).call("peer.list", &Value::Null).unwrap_or_default();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let rows = rows.as_array().into_iter().flatten();
    let mut peers: Vec<_> =
        rows.map(|row| (text(row, "name"), text(row, "address"), text(row, "state"))).collect();
    peers.sort();
    peers
}

/// Waits until each of these nodes has the others as its peers, at these addresses, and all are up.
fn until_peers(mesh: &Mesh, records: &[(usize, IpAddr)]) {
    for (n, _) in records {
        let others = records.iter().filter(|(other, _)| other != n);
        let wanted: Vec<_> =
            others.map(|(other, address)| (name(*other), address.to_string(), "up".to_owned())).collect();
        until(&format!("the peers of node {n}: {wanted:?}"), PATIENCE, || {
            (peers(mesh, *n) == wanted).then_some(())
        });
    }
}

fn until_troubled(mesh: &Mesh, n: usize) {
    until(&format!("node {n} to say that a name has no answer"), PATIENCE, || {
        let status = mesh.node(n).call("status", &Value::Null).ok()?;
        status["troubles"].as_array()?.iter().find(|line| line.to_string().contains(".test")).map(drop)
    });
}

#[test]
fn nodes_that_know_only_names_find_each_other_follow_what_changes_and_need_no_server_to_go_on() {
    let test = "nodes_that_know_only_names_find_each_other_follow_what_changes_and_need_no_server_to_go_on";
    if !is_installed("dnsmasq") {
        return skip("dnsmasq is not installed (Debian: dnsmasq-base)");
    }
    in_nodes(test, |lab| {
        let all = [1, 2, 3];
        let names = all.map(name).to_vec();
        let plan = Plan::new(3, Membership::Named { names, server: ROUTER.into() });
        let mut mesh = Mesh::new(lab, &plan);
        let pods = Pods::open(&mesh.underlay);
        // Nodes that start before anybody knows a name wait for it, and work.
        mesh.start(&all);
        all.iter().for_each(|n| until_troubled(&mesh, *n));
        let mut records = all.map(|n| (n, v4(n)));
        let dns = server(&mesh, &records);
        until_peers(&mesh, &records);
        pods.until_all_reach(1, &all, PATIENCE);

        // The third node gets another address.
        let stream = Stream::start(&mesh.underlay, 1, &[(1, 2), (2, 1)]);
        drop(dns);
        mesh.underlay.move_to(3, 9);
        records[2].1 = v4(9);
        let dns = server(&mesh, &records);
        until_peers(&mesh, &records);
        pods.until_all_reach(1, &all, PATIENCE);
        let copies = Flood { mesh: &mesh, pods: &pods, from: 1, subnet: 1 }.copies(&[2, 3]);
        assert_eq!(copies.datagrams, [(v4(2), 1), (v4(9), 1)].into());

        // Nobody knows any name any more.
        drop(dns);
        all.iter().for_each(|n| until_troubled(&mesh, *n));
        until_peers(&mesh, &records);
        pods.until_all_reach(1, &all, PATIENCE);
        assert!(stream.stop() > 0);
    });
}
