//! The state file on a real file system: what is saved is loaded, and what is killed loses nothing.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod ctl_support;

use ctl_support::Place;
use serde_json::{Map, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;
use vswitch_core::{Mac, Vlan};
use vswitchd::control::state::{State, StateError, StateFile, fingerprint};

fn full() -> State {
    let mut state = State::default();
    let settings = json!({"vlan_mode": "trunk", "trunks": [10, "100-199"], "offload": false});
    state.add_port("tap-x", settings.as_object().unwrap().clone()).unwrap();
    state.add_port("tap-y \"quoted\"", Map::new()).unwrap();
    state.add_mac(Vlan::UNTAGGED, Mac::new([2, 0, 0, 0, 0, 9]), "tap-a");
    state.add_mac(Vlan::new(4094).unwrap(), Mac::new([2, 0, 0, 0, 0, 10]), "tap-x");
    state.delete_file_port("tap-b", &fingerprint(&json!({"tag": 10})));
    state
}

#[test]
fn what_is_saved_is_loaded_and_a_missing_file_is_empty() {
    let place = Place::new();
    let file = StateFile::new(place.path().join("lib/vswitchd/state.json"));
    assert!(file.load().unwrap().is_empty());
    for state in [full(), State::default(), full()] {
        file.save(&state).unwrap();
        assert_eq!(file.load().unwrap(), state);
    }
    assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(file.path().parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn the_file_has_the_documented_form() {
    let place = Place::new();
    let file = StateFile::new(place.path().join("state.json"));
    file.save(&full()).unwrap();
    let written: serde_json::Value = serde_json::from_slice(&fs::read(file.path()).unwrap()).unwrap();
    assert_eq!(
        written,
        json!({
            "version": 1,
            "ports": [
                {"name": "tap-x", "vlan_mode": "trunk", "trunks": [10, "100-199"], "offload": false},
                {"name": "tap-y \"quoted\""},
            ],
            "macs": [
                {"port": "tap-a", "vlan": 0, "mac": "02:00:00:00:00:09"},
                {"port": "tap-x", "vlan": 4094, "mac": "02:00:00:00:00:0a"},
            ],
            "deleted": [{"name": "tap-b", "fingerprint": fingerprint(&json!({"tag": 10}))}],
        })
    );
}

#[test]
fn a_damaged_or_newer_file_is_refused_by_name_and_left_alone() {
    let place = Place::new();
    let file = StateFile::new(place.path().join("state.json"));
    for (text, word) in [
        ("", "damaged"),
        ("{\"version\":1", "line 1"),
        ("[]", "damaged"),
        ("{}", "version"),
        ("{\"version\":0}", "version 0"),
        ("{\"version\":1,\"extra\":1}", "extra"),
        ("{\"version\":1,\"ports\":[{}]}", "name"),
        ("{\"version\":1,\"ports\":[{\"name\":\"a\"},{\"name\":\"a\"}]}", "twice"),
        ("{\"version\":1,\"macs\":[{\"port\":\"a\",\"vlan\":4095,\"mac\":\"02:00:00:00:00:01\"}]}", "4095"),
        ("{\"version\":1,\"macs\":[{\"port\":\"a\",\"vlan\":1,\"mac\":\"x\"}]}", "\"x\""),
        ("{\"version\":1,\"deleted\":[{\"name\":\"a\"}]}", "fingerprint"),
        ("{\"version\":1}{\"version\":1}", "trailing"),
        ("\u{0}\u{0}\u{0}\u{0}", "damaged"),
    ] {
        fs::write(file.path(), text).unwrap();
        let error = file.load().unwrap_err();
        let shown = error.to_string();
        assert!(matches!(error, StateError::Damaged { .. }), "{text}: {shown}");
        assert!(shown.contains(word) && shown.contains("state.json"), "{text}: {shown}");
        assert_eq!(fs::read_to_string(file.path()).unwrap(), text);
    }
    fs::write(file.path(), "{\"version\":2,\"whatever\":[1]}").unwrap();
    let error = file.load().unwrap_err();
    assert!(matches!(error, StateError::Newer { version: 2, .. }), "{error}");
}

#[test]
fn what_a_daemon_killed_before_the_rename_left_is_not_read_and_not_in_the_way() {
    let place = Place::new();
    let file = StateFile::new(place.path().join("state.json"));
    file.save(&full()).unwrap();
    let unfinished = place.path().join("state.json.new");
    fs::write(&unfinished, "{\"version\":1,\"ports\":[{\"na").unwrap();
    assert_eq!(file.load().unwrap(), full());
    file.save(&State::default()).unwrap();
    assert!(file.load().unwrap().is_empty() && !unfinished.exists());
    // A link in its place leads nowhere.
    let target = place.path().join("precious");
    fs::write(&target, "precious").unwrap();
    std::os::unix::fs::symlink(&target, &unfinished).unwrap();
    file.save(&full()).unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"precious");
}

#[test]
fn a_save_that_fails_leaves_the_old_content() {
    let place = Place::new();
    let file = StateFile::new(place.path().join("state.json"));
    file.save(&full()).unwrap();
    // A directory in the place of the unfinished file cannot be removed as a file.
    fs::create_dir(place.path().join("state.json.new")).unwrap();
    let error = file.save(&State::default()).unwrap_err();
    assert!(matches!(error, StateError::Os { .. }), "{error}");
    assert_eq!(file.load().unwrap(), full());
}

const KILLED: &str = "VSWITCH_TEST_STATE_FILE";

/// Not a test of its own: the process that the next test kills.
#[test]
fn saves_until_it_is_killed() {
    let Some(path) = std::env::var_os(KILLED) else { return };
    let file = StateFile::new(path);
    // Bounded, should nobody kill it.
    for _ in 0..20_000 {
        file.save(&full()).unwrap();
        file.save(&State::default()).unwrap();
    }
}

#[test]
fn a_kill_at_any_moment_leaves_the_old_content_or_the_new() {
    let place = Place::new();
    let file = StateFile::new(place.path().join("state.json"));
    file.save(&full()).unwrap();
    let mut seen = [0, 0];
    for round in 0..40_u64 {
        let mut saver = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "saves_until_it_is_killed"])
            .env(KILLED, file.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_micros(10_000 + round * 777));
        saver.kill().unwrap();
        saver.wait().unwrap();
        let state = file.load().unwrap();
        assert!(state == full() || state.is_empty());
        seen[usize::from(state.is_empty())] += 1;
    }
    println!("old content {} times, new {} times", seen[0], seen[1]);
}
