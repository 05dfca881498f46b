//! The etcd source at the door of a real etcd: endpoints, passwords, permissions, certificates.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use crossbeam_channel::bounded;
use std::sync::Arc;
use vswitch_tests::daemon::PATIENCE;
use vswitch_tests::etcd::{Etcd, Tls, with_etcd};
use vswitch_tests::lab::until;
use vswitch_tests::store::{Node, config, config_of, under};
use vswitchd::config::Cluster;
use vswitchd::control::source::etcd::{Etcd as Source, StoreEvent};

#[test]
fn an_etcd_that_wants_a_password_gets_it_and_a_token_that_it_forgot_is_renewed() {
    with_etcd(|| {
        let mut etcd = Etcd::start();
        etcd.require_password("open sesame");
        let login = |password: &str| Cluster {
            user: Some("root".to_owned()),
            password: Some(password.to_owned()),
            ..config(&etcd)
        };
        let mut wrong = Node::watching(&login("guess"), &["/t"]);
        let reason = wrong.until_down();
        assert!(reason.contains("authentication failed"), "{reason}");
        let mut nobody = Node::watching(&config(&etcd), &["/t"]);
        nobody.put("/t/n", "1");
        nobody.until_down();
        let mut node = Node::watching(&login("open sesame"), &["/t"]);
        node.put("/t/own", "1");
        node.until_up();
        // Tokens are kept in memory, and a change of users makes older ones invalid.
        etcd.ctl(&["user", "add", "other:x"]);
        node.put("/t/own", "2");
        node.source.watch(vec![under("/t"), under("/u")]);
        node.until(
            "the list of /u",
            |event| matches!(event, StoreEvent::Listed { range, .. } if *range == under("/u")),
        );
        until("the new value", PATIENCE, || (etcd.get("/t/own").as_deref() == Some("2")).then_some(()));
        etcd.kill();
        node.until_down();
        etcd.run();
        node.until_up();
        assert_eq!(node.downs(), 1);
    });
}

#[test]
fn a_node_that_may_only_read_says_so_goes_on_reading_and_writes_when_it_may() {
    with_etcd(|| {
        let mut etcd = Etcd::start();
        etcd.ctl(&["role", "add", "nodes"]);
        etcd.ctl(&["role", "grant-permission", "nodes", "--prefix=true", "read", "/t/"]);
        etcd.ctl(&["user", "add", "node:secret"]);
        etcd.ctl(&["user", "grant-role", "node", "nodes"]);
        etcd.require_password("open sesame");
        let (user, password) = (Some("node".to_owned()), Some("secret".to_owned()));
        let mut node = Node::watching(&Cluster { user, password, ..config(&etcd) }, &["/t"]);
        node.until_up();
        node.put("/t/own", "1");
        let reason = node.until_down();
        assert!(reason.contains("permission denied"), "{reason}");
        etcd.put("/t/others", "1");
        node.until_put("/t/others", "1");
        etcd.ctl(&["role", "grant-permission", "nodes", "--prefix=true", "readwrite", "/t/"]);
        node.until_up();
        assert_eq!(etcd.get("/t/own").as_deref(), Some("1"));
        assert_eq!((node.listed(), node.downs()), (1, 1));
    });
}

#[test]
fn the_password_may_stand_in_a_file() {
    with_etcd(|| {
        let mut etcd = Etcd::start();
        etcd.require_password("from a file");
        let file = std::env::temp_dir().join(format!("vswitch-password-{}", std::process::id()));
        std::fs::write(&file, "from a file\n").unwrap();
        let user = Some("root".to_owned());
        let config = Cluster { user, password_file: Some(file.clone()), ..config(&etcd) };
        let mut node = Node::watching(&config, &["/t"]);
        node.until_up();
        std::fs::remove_file(file).unwrap();
    });
}

#[test]
fn over_tls_both_sides_show_certificates_of_one_authority() {
    with_etcd(|| {
        let (tls, foreign) = (Tls::new(), Tls::new());
        let etcd = Etcd::start_tls(&tls);
        let with = |ca: &Tls, node: &Tls| Cluster {
            cacert: Some(ca.ca()),
            cert: Some(node.cert()),
            key: Some(node.key()),
            ..config(&etcd)
        };
        let mut node = Node::watching(&with(&tls, &tls), &["/t"]);
        node.put("/t/own", "1");
        node.until_up();
        assert_eq!(etcd.get("/t/own").as_deref(), Some("1"));
        let mut mistrusting = Node::watching(&with(&foreign, &tls), &["/t"]);
        let reason = mistrusting.until_down();
        assert!(reason.contains("certificate"), "{reason}");
        let mut mistrusted = Node::watching(&with(&tls, &foreign), &["/t"]);
        mistrusted.until_down();
        let mut unnamed = Node::watching(&Cluster { cert: None, key: None, ..with(&tls, &tls) }, &["/t"]);
        unnamed.until_down();
    });
}

#[test]
fn what_cannot_be_an_etcd_is_refused_at_once() {
    let start = |config: &Cluster| {
        let (sender, _events) = bounded(1);
        Source::start(config, sender, Arc::new(|| ())).unwrap_err().to_string()
    };
    let one = |endpoint: &str| config_of(vec![endpoint.to_owned()]);
    assert!(start(&config_of(Vec::new())).contains("no endpoint"));
    assert!(start(&one("ftp://127.0.0.1:1")).contains("neither http:// nor https://"));
    assert!(start(&one("https://127.0.0.1:1")).contains("cacert"));
    let missing = Cluster { cacert: Some("/nonexistent/ca.pem".into()), ..one("https://127.0.0.1:1") };
    assert!(start(&missing).contains("/nonexistent/ca.pem"));
}

#[test]
fn one_dead_endpoint_among_several_is_no_outage() {
    with_etcd(|| {
        let (dead, etcd) = (Etcd::stopped(), Etcd::start());
        let both = Cluster { etcd: vec![dead.url(), etcd.url()], ..config(&etcd) };
        let mut node = Node::watching(&both, &["/t"]);
        node.until_up();
        assert_eq!(node.downs(), 0);
    });
}
