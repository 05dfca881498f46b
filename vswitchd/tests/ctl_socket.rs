//! The control socket against clients of every kind, and daemons that want the same socket.
//!
//! Behind the socket stands a control thread that only pretends; the real daemon is tested elsewhere.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod ctl_support;

use ctl_support::{Act, Client, Fake, Place, everybody_is_us};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;
use vswitchd::control::rpc::{Call, RpcError};
use vswitchd::control::socket::{BindError, MAX_CONNECTIONS, MAX_LINE_LEN, Server};
use vswitchd::sys::rights;

fn content(_: &Call) -> Act {
    Act::Answer(Ok(json!({"state": "running"})))
}

/// `status` is answered, everything else waits.
fn patient(call: &Call) -> Act {
    if *call == Call::Status { content(call) } else { Act::Hold }
}

const DOCTOR: &str = "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"doctor\"}\n";

fn code(answer: &Value) -> i64 {
    answer["error"]["code"].as_i64().unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn hello_gives_protocol_version_and_features_without_the_control_thread() {
    let fake = Fake::new(content);
    let answer = fake.client().ask(r#"{"jsonrpc":"2.0","id":"x","method":"hello"}"#);
    assert_eq!((&answer["id"], &answer["result"]["protocol"]), (&json!("x"), &json!(1)));
    assert_eq!(answer["result"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(answer["result"]["features"].as_array().unwrap().contains(&json!("reload")));
    assert!(fake.calls.lock().unwrap().is_empty());
    let refused = fake.client().ask(r#"{"jsonrpc":"2.0","id":1,"method":"hello","params":{"x":1}}"#);
    assert_eq!(code(&refused), -32602);
}

#[test]
fn a_request_is_answered_under_its_id_and_a_notification_is_not() {
    let fake = Fake::new(content);
    let mut client = fake.client();
    for id in ["1", "\"a\"", "null", "-7", "1.5"] {
        let answer = client.ask(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"status","params":{{}}}}"#));
        assert_eq!(answer["id"].to_string(), id);
        assert_eq!((&answer["jsonrpc"], &answer["result"]["state"]), (&json!("2.0"), &json!("running")));
    }
    client.send("{\"jsonrpc\":\"2.0\",\"method\":\"reload\"}\n");
    client.send("{\"jsonrpc\":\"2.0\",\"method\":\"no such\"}\n");
    assert_eq!(client.status()["id"], 1);
    assert_eq!(fake.calls.lock().unwrap()[5..], [Call::Reload, Call::Status]);
    assert_eq!(fake.wakes.load(Ordering::Relaxed), 7);
}

#[test]
fn descriptors_arrive_with_the_call_that_takes_them_and_no_other_call_may_bring_any() {
    let fake = Fake::new(|call| if *call == Call::Status { content(call) } else { Act::Hold });
    let attach = r#"{"jsonrpc":"2.0","id":1,"method":"cni.add","params":{"container":"c","ifname":"eth0","network":"n","netns":"/x"}}"#;
    let (one, other) = UnixStream::pair().unwrap();
    let mut client = fake.client();
    rights::send(&client.stream, format!("{attach}\n").as_bytes(), &[one.as_fd()]).unwrap();
    fake.until_held(1);
    let mut came = fake.held.lock().unwrap().pop().unwrap();
    assert_eq!(came.descriptors.len(), 1);
    // It is the very thing that was sent.
    UnixStream::from(came.descriptors.remove(0)).write_all(b"here").unwrap();
    drop(one);
    let mut said = [0; 4];
    (&other).read_exact(&mut said).unwrap();
    assert_eq!(&said, b"here");
    came.answer(Ok(Value::Null));
    assert_eq!(client.answer().unwrap()["result"], Value::Null);

    assert_eq!(code(&client.ask(attach)), -32602);
    let status = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\"}\n";
    rights::send(&client.stream, status.as_bytes(), &[other.as_fd()]).unwrap();
    assert_eq!(code(&client.answer().unwrap()), -32602);
    // They do not wait for a later line either.
    assert_eq!(client.status()["result"]["state"], "running");
    assert_eq!(code(&client.ask(attach)), -32602);
}

#[test]
fn an_error_of_the_control_thread_arrives_whole() {
    let fake = Fake::new(|_| {
        Act::Answer(Err(RpcError::bad_config("v.toml:3:5: unknown key").because(["why".to_owned()])))
    });
    let error = &fake.client().ask(r#"{"jsonrpc":"2.0","id":1,"method":"reload"}"#)["error"];
    assert_eq!((&error["code"], &error["message"]), (&json!(-32001), &json!("v.toml:3:5: unknown key")));
    assert_eq!(error["data"], json!({"exit": 78, "causes": ["why"]}));
}

#[test]
fn what_is_no_request_gets_the_error_that_the_standard_names_and_has_no_effect() {
    let fake = Fake::new(content);
    let mut client = fake.client();
    for (line, expected, id) in [
        ("garbage", -32700, json!(null)),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":", -32700, json!(null)),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\"} x", -32700, json!(null)),
        ("[]", -32600, json!(null)),
        ("[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"reload\"}]", -32600, json!(null)),
        ("1", -32600, json!(null)),
        ("null", -32600, json!(null)),
        ("{}", -32600, json!(null)),
        ("{\"id\":3,\"method\":\"reload\"}", -32600, json!(3)),
        ("{\"jsonrpc\":\"1.0\",\"id\":3,\"method\":\"reload\"}", -32600, json!(3)),
        ("{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":7}", -32600, json!(3)),
        ("{\"jsonrpc\":\"2.0\",\"id\":[3],\"method\":\"reload\"}", -32600, json!(null)),
        ("{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"reload\",\"force\":1}", -32600, json!(3)),
        ("{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"reload\",\"params\":7}", -32600, json!(3)),
        ("{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"reload\",\"params\":[]}", -32602, json!(3)),
        ("{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"reload\",\"params\":{\"x\":1}}", -32602, json!(3)),
        ("{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"rm\"}", -32601, json!(3)),
        ("{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"capture\"}", -32601, json!(3)),
        (&"[".repeat(100_000), -32700, json!(null)),
    ] {
        let answer = client.ask(line);
        assert_eq!((code(&answer), &answer["id"]), (expected, &id), "{line:.80} {answer}");
        assert!(answer["error"]["data"]["exit"].is_u64(), "{answer}");
    }
    assert!(fake.calls.lock().unwrap().is_empty());
    assert_eq!(client.status()["result"]["state"], "running");
}

#[test]
fn random_bytes_get_one_error_per_line_and_hurt_nobody() {
    let fake = Fake::new(content);
    let mut client = fake.client();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..500 {
        let mut line: Vec<u8> = (0..60)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed.to_le_bytes()[0]
            })
            .filter(|byte| *byte != b'\n')
            .collect();
        line.insert(0, b'?');
        line.push(b'\n');
        client.send(&line);
        assert_eq!(code(&client.answer().unwrap()), -32700);
    }
    assert_eq!(client.status()["id"], 1);
}

#[test]
fn lines_may_come_together_or_byte_by_byte_and_blank_ones_mean_nothing() {
    let fake = Fake::new(content);
    let mut client = fake.client();
    let line = |id| format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"status\"}}\r\n");
    client.send((0..50).map(line).collect::<String>() + "\n  \n");
    for id in 0..50 {
        assert_eq!(client.answer().unwrap()["id"], id);
    }
    for byte in line(99).bytes() {
        client.send([byte]);
    }
    assert_eq!(client.answer().unwrap()["id"], 99);
}

#[test]
fn half_a_line_before_the_end_has_no_effect() {
    let fake = Fake::new(content);
    let mut client = fake.client();
    client.send("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"reload\"}");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.answer(), None);
    fake.client().status();
    assert_eq!(*fake.calls.lock().unwrap(), [Call::Status]);
}

#[test]
fn half_a_line_may_not_last_but_silence_may() {
    let fake = Fake::with(Duration::from_millis(200), everybody_is_us(), content);
    let (mut silent, mut half) = (fake.client(), fake.client());
    half.send("{\"jsonrpc\"");
    assert_eq!(code(&half.answer().unwrap()), -32600);
    assert_eq!(half.answer(), None);
    assert_eq!(silent.status()["id"], 1);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(silent.status()["id"], 1);
}

#[test]
fn a_line_of_the_greatest_length_is_read_and_a_longer_one_ends_the_connection() {
    let fake = Fake::new(content);
    let mut client = fake.client();
    let mut line = r#"{"jsonrpc":"2.0","id":1,"method":"status"}"#.to_owned();
    line.push_str(&" ".repeat(MAX_LINE_LEN - line.len()));
    assert_eq!(client.ask(&line)["id"], 1);
    line.push(' ');
    assert_eq!(code(&client.ask(&line)), -32600);
    assert_eq!(client.answer(), None);
    let mut endless = fake.client();
    let chunk = vec![b'x'; 1 << 16];
    // The server stops reading soon behind the limit; what it said is there all the same.
    let written = (0..1_000).take_while(|_| endless.stream.write_all(&chunk).is_ok()).count();
    assert!(written * chunk.len() < MAX_LINE_LEN * 3, "{written}");
    assert_eq!(code(&endless.answer().unwrap()), -32600);
    assert_eq!(endless.answer(), None);
    fake.client().status();
}

#[test]
fn idle_clients_lock_nobody_out_and_the_longest_idle_one_goes_first() {
    let fake = Fake::new(content);
    let mut idle: Vec<Client> = (0..MAX_CONNECTIONS)
        .map(|_| {
            let mut client = fake.client();
            client.status();
            client
        })
        .collect();
    // The first asks again, so the second is the longest idle now.
    idle[0].status();
    let mut operator = fake.client();
    assert_eq!(operator.status()["id"], 1);
    assert_eq!(idle[1].answer(), None);
    assert_eq!(idle[0].status()["id"], 1);
    let mut forty: Vec<Client> = (0..40).map(|_| fake.client()).collect();
    assert_eq!(forty.last_mut().unwrap().status()["id"], 1);
    assert_eq!(fake.client().status()["id"], 1);
}

#[test]
fn when_all_clients_wait_for_answers_the_next_is_told_so() {
    let mut fake = Fake::new(patient);
    let mut waiting: Vec<Client> = (0..MAX_CONNECTIONS).map(|_| fake.client()).collect();
    waiting.iter_mut().for_each(|client| client.send(DOCTOR));
    fake.until_held(MAX_CONNECTIONS);
    let mut late = fake.client();
    let answer = late.answer().unwrap();
    assert_eq!((code(&answer), &answer["id"]), (-32002, &json!(null)));
    assert_eq!(late.answer(), None);
    for request in fake.held.lock().unwrap().drain(..) {
        request.answer(Ok(json!([])));
    }
    for client in &mut waiting {
        assert_eq!(client.answer().unwrap()["result"], json!([]));
    }
    assert_eq!(fake.client().status()["id"], 1);
    fake.stop();
}

#[test]
fn a_client_that_does_not_read_its_answer_is_dropped_and_delays_nobody() {
    let big = "x".repeat(2 << 20);
    let fake = Fake::with(Duration::from_millis(300), everybody_is_us(), move |call| match call {
        Call::Metrics => Act::Answer(Ok(json!(big))),
        _ => content(call),
    });
    let mut deaf: Vec<Client> = (0..8).map(|_| fake.client()).collect();
    for client in &mut deaf {
        client.send("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"metrics\"}\n");
    }
    assert_eq!(fake.client().status()["id"], 1);
    for client in &mut deaf {
        // Nothing can be written any more once the server has closed its end.
        let closed = (0..200).any(|_| {
            thread::sleep(Duration::from_millis(50));
            client.stream.write_all(b"\n").is_err()
        });
        assert!(closed);
        let mut all = Vec::new();
        drop(client.stream.read_to_end(&mut all));
        assert!(all.len() < 2 << 20, "the answer was delivered");
    }
    // One who reads gets all of it.
    let answer = fake.client().ask(r#"{"jsonrpc":"2.0","id":1,"method":"metrics"}"#);
    assert_eq!(answer["result"].as_str().map(str::len), Some(2 << 20));
}

#[test]
fn a_client_that_leaves_before_its_answer_hurts_nobody() {
    let fake = Fake::new(patient);
    let mut client = fake.client();
    client.send(DOCTOR);
    fake.until_held(1);
    drop(client);
    fake.held.lock().unwrap().pop().unwrap().answer(Ok(json!([])));
    assert_eq!(fake.client().status()["id"], 1);
}

#[test]
fn only_root_and_the_daemons_own_user_are_served() {
    let stranger = Fake::with(Duration::from_secs(10), Box::new(|_| Ok(12_345)), content);
    let mut client = stranger.client();
    let answer = client.answer().unwrap();
    assert!(answer["error"]["message"].as_str().unwrap().contains("12345"), "{answer}");
    assert_eq!(client.answer(), None);
    let unknown =
        Fake::with(Duration::from_secs(10), Box::new(|_| Err(std::io::Error::other("no"))), content);
    assert_eq!(code(&unknown.client().answer().unwrap()), -32002);
    let root = Fake::with(Duration::from_secs(10), Box::new(|_| Ok(0)), content);
    assert_eq!(root.client().status()["id"], 1);
    assert!(stranger.calls.lock().unwrap().is_empty() && unknown.calls.lock().unwrap().is_empty());
}

#[test]
fn stopping_answers_who_waits_ends_who_is_idle_and_takes_the_files_away() {
    let mut fake = Fake::new(patient);
    let (mut waiting, mut idle) = (fake.client(), fake.client());
    waiting.send(DOCTOR);
    fake.until_held(1);
    fake.stop();
    assert_eq!(code(&waiting.answer().unwrap()), -32002);
    assert_eq!(waiting.answer(), None);
    assert_eq!(idle.answer(), None);
    assert_eq!(fs::read_dir(fake.place.path()).unwrap().count(), 0);
    assert!(UnixStream::connect(fake.socket()).is_err());
}

#[test]
fn a_request_that_the_control_thread_drops_is_answered_with_an_error() {
    let fake = Fake::new(patient);
    let mut client = fake.client();
    client.send(DOCTOR);
    fake.until_held(1);
    fake.held.lock().unwrap().clear();
    assert_eq!(code(&client.answer().unwrap()), -32002);
}

#[test]
fn the_socket_is_ours_alone_and_its_directory_is_made() {
    let place = Place::new();
    let path = place.path().join("run/deep/control.sock");
    let server = Server::bind(&path).unwrap();
    assert_eq!(server.path(), path);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let directory = fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777;
    assert_eq!(directory & 0o755, 0o755 & directory);
    drop(server);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let fake = Fake::new(content);
    let error = Server::bind(fake.socket()).unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }));
    let text = error.to_string();
    assert!(text.starts_with("another vswitchd answers on ") && text.contains("control.sock"), "{text}");
    assert_eq!(fake.client().status()["id"], 1);
    // Also when somebody has removed the lock file.
    fs::remove_file(fake.place.path().join("control.sock.lock")).unwrap();
    assert!(matches!(Server::bind(fake.socket()), Err(BindError::InUse { .. })));
    assert_eq!(fake.client().status()["id"], 1);
}

#[test]
fn a_socket_that_a_killed_daemon_left_is_replaced_and_a_file_is_not() {
    let place = Place::new();
    drop(UnixListener::bind(place.socket()).unwrap());
    fs::write(place.path().join("control.sock~"), "left too").unwrap();
    fs::write(place.path().join("control.sock.lock"), "").unwrap();
    drop(Server::bind(place.socket()).unwrap());
    fs::write(place.socket(), "precious").unwrap();
    let error = Server::bind(place.socket()).unwrap_err();
    assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read(place.socket()).unwrap(), b"precious");
}

#[test]
fn a_socket_file_that_is_no_longer_ours_stays_when_we_stop() {
    let place = Place::new();
    let server = Server::bind(place.socket()).unwrap();
    fs::remove_file(place.socket()).unwrap();
    let _other = UnixListener::bind(place.socket()).unwrap();
    let other = fs::metadata(place.socket()).unwrap().ino();
    drop(server);
    assert_eq!(fs::metadata(place.socket()).unwrap().ino(), other);
}

#[test]
fn a_path_that_no_socket_can_have_is_refused_with_its_length() {
    let place = Place::new();
    let long = place.path().join("x".repeat(120));
    for path in [long.as_path(), "control.sock".as_ref(), "".as_ref()] {
        let error = Server::bind(path).unwrap_err();
        assert!(matches!(error, BindError::BadPath { .. }), "{error}");
    }
    let under_a_file = place.path().join("file");
    fs::write(&under_a_file, "").unwrap();
    assert!(matches!(Server::bind(under_a_file.join("control.sock")), Err(BindError::Os { .. })));
}

#[test]
fn of_many_daemons_that_start_at_once_exactly_one_gets_the_socket() {
    for round in 0..100 {
        let place = Place::new();
        if round % 2 == 0 {
            drop(UnixListener::bind(place.socket()).unwrap());
        }
        let (start, end) = (Arc::new(Barrier::new(6)), Arc::new(Barrier::new(6)));
        let contenders: Vec<_> = (0..6)
            .map(|_| {
                let (start, end, path) = (Arc::clone(&start), Arc::clone(&end), place.socket());
                thread::spawn(move || {
                    start.wait();
                    let bound = Server::bind(&path);
                    end.wait();
                    match bound {
                        Ok(server) => {
                            UnixStream::connect(server.path()).unwrap();
                            true
                        }
                        Err(BindError::InUse { .. }) => false,
                        Err(other) => panic!("{other:?}"),
                    }
                })
            })
            .collect();
        let winners =
            contenders.into_iter().filter_map(|contender| contender.join().unwrap().then_some(())).count();
        assert_eq!(winners, 1, "round {round}");
    }
}

#[test]
fn a_socket_is_never_held_by_two_while_daemons_come_and_go() {
    let place = Place::new();
    let holders = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let contenders: Vec<_> = (0..4)
        .map(|_| {
            let (holders, path) = (Arc::clone(&holders), place.socket());
            thread::spawn(move || {
                let mut won = 0;
                for _ in 0..300 {
                    match Server::bind(&path) {
                        Ok(server) => {
                            assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0);
                            UnixStream::connect(&path).unwrap();
                            holders.fetch_sub(1, Ordering::SeqCst);
                            drop(server);
                            won += 1;
                        }
                        Err(BindError::InUse { .. }) => thread::yield_now(),
                        Err(other) => panic!("{other:?}"),
                    }
                }
                won
            })
        })
        .collect();
    let won: u32 = contenders.into_iter().map(|contender| contender.join().unwrap()).sum();
    assert!(won >= 4, "{won}");
}
