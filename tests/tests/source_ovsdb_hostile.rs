//! The source that follows an Open vSwitch database, against servers that are none: they are left, and tried again.
//!
//! Not here: what a conversation makes of any bytes (see `ovsdb_body.rs`).
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use proptest::prelude::*;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use vswitch_tests::daemon::{Directory, PATIENCE};
use vswitch_tests::lab::until;
use vswitch_tests::ovsdb_body::{ovsdb_body, ovsdb_seeds};
use vswitch_tests::ovsdb_follower::Follower;

/// A place where somebody listens who is no database server, and one who follows it.
struct Place {
    listener: UnixListener,
    follower: Follower,
    _directory: Directory,
}

fn place() -> Place {
    let directory = Directory::new();
    let path: PathBuf = directory.0.join("db.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let follower = Follower::start(&format!("unix:{}", path.display()));
    Place { listener, follower, _directory: directory }
}

/// Reads until `stream` ends, as it does when the follower leaves.
fn until_left(stream: &mut UnixStream) {
    let mut read = [0; 1 << 16];
    while stream.read(&mut read).is_ok_and(|len| len > 0) {}
}

#[test]
fn who_says_something_else_is_left_with_a_word_and_tried_again() {
    for (said, word) in [
        ("x", "something else than JSON objects"),
        ("{]", "cannot be read"),
        ("{}", "without id and method"),
        (r#"{"id":"schema","result":{"version":"1"},"error":null}"#, "no tables"),
        (r#"{"id":"schema","result":{"tables":{}},"error":null}"#, "no table Open_vSwitch"),
        (
            r#"{"id":"schema","result":null,"error":"unknown database"}"#,
            "refused its schema: \"unknown database\"",
        ),
        (r#"{"id":"monitor","result":[true,1,{}],"error":null}"#, "monitor_cond_since"),
        (r#"{"method":"update2","params":["rows",{"Port":{"x":{}}}]}"#, "not a UUID"),
        (r#"{"method":"update2","params":["rows",5]}"#, "no object"),
        (r#"{"method":"update3","params":[]}"#, "without rows"),
        (&"{\"a\":".repeat(100_000), "deep"),
    ] {
        let mut place = place();
        let (mut stream, _) = place.listener.accept().unwrap();
        // It may leave before all is said.
        let _ = stream.write_all(said.as_bytes());
        until_left(&mut stream);
        until(word, PATIENCE, || {
            let error = place.follower.source.status().last_error;
            error.filter(|error| error.contains(word))
        });
        place.listener.accept().unwrap();
        assert!(place.follower.try_wish().is_none());
    }
}

#[test]
fn what_was_wished_stays_when_a_server_turns() {
    for seed in ovsdb_seeds() {
        let mut place = place();
        let (mut stream, _) = place.listener.accept().unwrap();
        let good = seed.lines().filter(|line| !line.contains("monitor_canceled"));
        stream.write_all(good.collect::<String>().as_bytes()).unwrap();
        place.follower.until(|wish| wish.next_cfg == 3);
        stream.write_all(b"]").unwrap();
        until_left(&mut stream);
        place.follower.until_away();
        let wishes = place.follower.wishes();
        let (mut stream, _) = place.listener.accept().unwrap();
        stream.write_all(b"{}").unwrap();
        until_left(&mut stream);
        assert_eq!((place.follower.wishes(), place.follower.wish().next_cfg), (wishes, 3));
    }
}

#[test]
fn one_that_asks_without_end_and_never_listens_is_left() {
    let place = place();
    let (mut stream, _) = place.listener.accept().unwrap();
    let echo = format!(r#"{{"id":1,"method":"echo","params":["{}"]}}"#, "x".repeat(1 << 20));
    while stream.write_all(echo.as_bytes()).is_ok() {}
    until("it is left", PATIENCE, || {
        place.follower.source.status().last_error.filter(|error| error.contains("does not read"))
    });
}

#[test]
fn one_that_never_pauses_and_one_that_never_speaks_hold_nobody_up() {
    let talker = place();
    let (mut stream, _) = talker.listener.accept().unwrap();
    let noise = std::thread::spawn(move || {
        let piece = r#"{"id":null,"method":"update2","params":["rows",{}]}"#.repeat(1000);
        while stream.write_all(piece.as_bytes()).is_ok() {}
    });
    drop(talker.follower);
    noise.join().unwrap();
    let mute = place();
    let (mut stream, _) = mute.listener.accept().unwrap();
    drop(mute.follower);
    until_left(&mut stream);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_of_a_server_do_no_harm(data in prop::collection::vec(any::<u8>(), 0..300)) {
        ovsdb_body(&data);
    }

    #[test]
    fn no_edit_of_a_good_conversation_does_harm(
        seed in 0..3_usize,
        size in any::<u8>(),
        edits in prop::collection::vec(
            (any::<prop::sample::Index>(), 0..8_usize, prop_oneof![
                "[\\[\\]{}\",:0-9a-z-]{0,6}",
                prop::sample::select(vec![
                    "null", "-1", "1e400", "9223372036854775808", "[\"set\",[]]", "[\"map\",[]]", "\"stolen\"", "\"delete\"",
                    "\"modify\"", "\"new\"", "\"\\ud800\"", "{}", "[]", "true",
                ]).prop_map(str::to_owned),
            ]),
            0..6,
        ),
    ) {
        let mut text = ovsdb_seeds()[seed].clone().into_bytes();
        for (at, len, piece) in edits {
            let at = at.index(text.len().max(1));
            let end = (at + len).min(text.len());
            text.splice(at..end, piece.into_bytes());
        }
        ovsdb_body(&[&[size], &text[..]].concat());
    }
}
