//! The architecture's rules, read off the source: what each room may not touch, and how a file begins and ends.
//!
//! Only code counts: comments, and what stands behind a file's `#[cfg(test)]`, are left out where a rule is about
//! rooms. Not here: what the compiler and clippy already refuse.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use std::path::{Path, PathBuf};

/// Lines of the longest file.
const LONGEST: usize = 600;

/// Files that may be longer, each with the reason.
const LONGER: [(&str, &str); 0] = [];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Every Rust file of the workspace, by its path from the root.
fn sources() -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut left = vec![root.clone()];
    while let Some(directory) = left.pop() {
        for path in std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && name != ".git" {
                    left.push(path);
                }
            } else if name.ends_with(".rs") {
                let from_root = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                found.push((from_root, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(found.len() > 50, "{} files under {}", found.len(), root.display());
    found
}

/// The code of a file without its tests and comments, line by line with its number.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .enumerate()
        .map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default()))
}

/// Whether `word` stands in `line` by itself, not as part of another word.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(part) && !line[at + word.len()..].starts_with(part))
}

/// Panics with every line of the files that `room` picks in which one of `words` stands.
fn may_not_touch(room: impl Fn(&str) -> bool, words: &[&str]) {
    let mut wrong = String::new();
    let mut looked = 0;
    for (path, text) in sources().iter().filter(|(path, _)| room(path)) {
        looked += 1;
        for (number, line) in code(text) {
            for word in words.iter().filter(|word| has_word(line, word)) {
                wrong += &format!("{path}:{number}: {word}: {}\n", line.trim());
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(looked > 0, "no file is in the room");
}

fn product(path: &str) -> bool {
    path.starts_with("vswitch-core/src/") || path.starts_with("vswitchd/src/")
}

#[test]
fn the_wire_room_uses_nothing_of_the_rest_and_allocates_nothing() {
    let words = ["crate::", "alloc", "Vec", "String", "Box", "std"];
    may_not_touch(|path| path.starts_with("vswitch-core/src/wire/"), &words);
}

#[test]
fn the_core_knows_no_clock_no_input_and_no_log() {
    let words = ["std", "println", "eprintln", "log", "tracing", "unsafe", "getrandom", "rand"];
    may_not_touch(|path| path.starts_with("vswitch-core/src/"), &words);
}

#[test]
fn rooms_of_the_core_depend_one_way() {
    let inside = |room: &'static str| move |path: &str| path.starts_with(&format!("vswitch-core/src/{room}"));
    may_not_touch(inside("offload"), &["switch", "topology", "mac_table", "frame::Batch", "crate::port"]);
    may_not_touch(inside("frame.rs"), &["switch", "mac_table", "topology"]);
    may_not_touch(
        inside("port.rs"),
        &["crate::switch", "crate::mac_table", "crate::frame", "crate::offload"],
    );
    may_not_touch(inside("mac_table"), &["crate::switch", "crate::frame", "crate::offload"]);
    may_not_touch(inside("verdict.rs"), &["crate::switch", "crate::frame", "crate::mac_table"]);
}

#[test]
fn the_frame_path_does_not_format_or_lock() {
    let path_files = [
        "switch/mod.rs",
        "switch/enter.rs",
        "switch/leave.rs",
        "switch/dress.rs",
        "switch/edge.rs",
        "switch/guard.rs",
        "switch/sending.rs",
        "switch/topology.rs",
        "switch/counters.rs",
        "mac_table/ask.rs",
        "frame.rs",
        "policer.rs",
    ];
    let room = |path: &str| path_files.iter().any(|file| path == format!("vswitch-core/src/{file}"));
    may_not_touch(room, &["format", "String", "to_string", "Mutex", "RwLock", "spin", "panic", "unwrap"]);
}

#[test]
fn unsafe_stands_in_the_sys_room_alone() {
    may_not_touch(|path| product(path) && !path.starts_with("vswitchd/src/sys/"), &["unsafe"]);
}

#[test]
fn the_config_room_touches_no_descriptor_and_no_switch() {
    let words = ["OwnedFd", "BorrowedFd", "RawFd", "vswitch_core::switch", "Worker", "Topology", "MacTable"];
    may_not_touch(|path| path.starts_with("vswitchd/src/config/"), &words);
    // It reads one file, in `load`, and writes none.
    let mut reads = Vec::new();
    for (path, text) in sources().iter().filter(|(path, _)| path.starts_with("vswitchd/src/config/")) {
        reads
            .extend(code(text).filter(|(_, line)| line.contains("fs::")).map(|(n, _)| format!("{path}:{n}")));
    }
    assert!(reads.len() <= 1, "{reads:?}");
}

#[test]
fn the_datapath_room_has_no_text_no_locks_and_no_log() {
    let words = ["serde", "serde_json", "Mutex", "RwLock", "log", "println", "eprintln", "async", "tokio"];
    may_not_touch(|path| path.starts_with("vswitchd/src/datapath/"), &words);
}

#[test]
fn the_link_room_does_not_know_the_switch() {
    let words =
        ["vswitch_core::switch", "Worker", "Topology", "MacTable", "crate::control", "crate::datapath"];
    may_not_touch(|path| path.starts_with("vswitchd/src/link/"), &words);
}

#[test]
fn the_sys_room_has_no_policy() {
    let words = ["crate::control", "crate::config", "crate::datapath", "crate::link", "vswitch_core::switch"];
    may_not_touch(|path| path.starts_with("vswitchd/src/sys/"), &words);
}

#[test]
fn the_clock_is_read_in_one_place() {
    let mut readers: Vec<String> = Vec::new();
    for (path, text) in sources().iter().filter(|(path, _)| product(path)) {
        let reads = |line: &str| {
            line.contains("std::time::Instant")
                || line.contains("time::{Instant")
                || has_word(line, "SystemTime")
        };
        // Only the frames' clock: a log line and a control client look at the wall.
        let elsewhere =
            ["vswitchd/src/observe/", "vswitchd/src/ctl/", "vswitchd/src/demo/", "vswitchd/src/control/"];
        if code(text).any(|(_, line)| reads(line)) && !elsewhere.iter().any(|room| path.starts_with(room)) {
            readers.push(path.clone());
        }
    }
    assert_eq!(readers, ["vswitchd/src/datapath/clock.rs"]);
}

#[test]
fn the_cluster_room_knows_no_store_no_clock_and_no_switch() {
    let words = [
        "std::fs",
        "std::io",
        "std::thread",
        "std::sync",
        "std::process",
        "UdpSocket",
        "TcpStream",
        "TcpListener",
        "SystemTime",
        "std::time::Instant",
        "clock",
        "log",
        "rand",
        "getrandom",
        "tokio",
        "tonic",
        "async",
        "crate::config",
        "crate::control",
        "crate::datapath",
        "crate::link",
        "crate::observe",
        "crate::slow",
        "crate::sys",
        "vswitch_core::switch",
        "Topology",
        "MacTable",
        "Worker",
    ];
    may_not_touch(|path| path.starts_with("vswitchd/src/cluster/"), &words);
}

#[test]
fn the_ipam_room_knows_no_store_no_clock_no_disk_and_no_switch() {
    let words = [
        "std::fs",
        "std::io",
        "std::thread",
        "std::sync",
        "std::process",
        "UdpSocket",
        "TcpStream",
        "TcpListener",
        "OwnedFd",
        "BorrowedFd",
        "RawFd",
        "SystemTime",
        "std::time::Instant",
        "clock",
        "log",
        "rand",
        "getrandom",
        "tokio",
        "tonic",
        "async",
        "crate::cluster",
        "crate::control",
        "crate::datapath",
        "crate::link",
        "crate::observe",
        "crate::slow",
        "crate::sys",
        "vswitch_core::switch",
        "Topology",
        "MacTable",
        "Worker",
    ];
    may_not_touch(|path| path.starts_with("vswitchd/src/ipam/"), &words);
}

#[test]
fn what_waits_in_a_runtime_is_a_source_of_control() {
    let words = ["tokio", "tonic", "hyper", "async", "await"];
    let source = |path: &str| path.starts_with("vswitchd/src/control/source/");
    may_not_touch(|path| product(path) && !source(path), &words);
}

#[test]
fn who_decides_whether_a_peer_lives_sends_nothing_and_reads_no_clock() {
    let words = [
        "std::fs",
        "std::io",
        "std::thread",
        "std::sync",
        "UdpSocket",
        "OwnedFd",
        "BorrowedFd",
        "RawFd",
        "SystemTime",
        "std::time::Instant",
        "clock",
        "log",
        "getrandom",
        "crate::config",
        "crate::control",
        "crate::datapath",
        "crate::link",
        "crate::observe",
        "crate::sys",
    ];
    let rooms = ["prober.rs", "prober/", "path_mtu.rs", "probe.rs"];
    may_not_touch(|path| rooms.iter().any(|at| path.starts_with(&format!("vswitchd/src/slow/{at}"))), &words);
}

#[test]
fn every_file_begins_by_saying_what_it_is_and_is_short() {
    let mut wrong = String::new();
    for (path, text) in sources() {
        if !text.starts_with("//! ") {
            wrong += &format!("{path}: does not begin with //!\n");
        }
        let lines = text.lines().count();
        if lines > LONGEST && !LONGER.iter().any(|(longer, _)| *longer == path) {
            wrong += &format!("{path}: {lines} lines\n");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn no_name_is_of_the_four_that_say_nothing() {
    let banned =
        [["man", "ager"], ["hand", "ler"], ["help", "er"], ["ut", "ils"]].map(|parts| parts.concat());
    let mut wrong = String::new();
    for (path, text) in sources() {
        for word in &banned {
            if path.to_lowercase().contains(word.as_str()) {
                wrong += &format!("{path}\n");
            }
            for (number, line) in code(&text) {
                // Texts may say what they like; names may not.
                let outside: String = line.split('"').step_by(2).collect();
                // The language's own word.
                let outside = outside.replace("#[panic_handler]", "");
                if outside.to_lowercase().contains(word.as_str()) {
                    wrong += &format!("{path}:{number}: {}\n", line.trim());
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn every_shipped_configuration_is_loaded_by_a_test() {
    let tests: String =
        sources().into_iter().filter(|(path, _)| path.contains("tests/")).map(|(_, text)| text).collect();
    for path in std::fs::read_dir(root().join("configs")).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with(".toml") {
            assert!(tests.contains(&name), "configs/{name} is loaded by no test");
            let text = std::fs::read_to_string(&path).unwrap();
            let config = vswitchd::config::Config::parse(&text, &name);
            assert!(config.is_ok(), "configs/{name}: {:?}", config.err());
        }
    }
}

#[test]
fn what_a_newcomer_looks_for_is_there() {
    for file in ["README.md", "CHANGELOG.md", "ARCHITECTURE.md", "LICENSE-MIT", "LICENSE-APACHE", "justfile"]
    {
        let text = std::fs::read_to_string(root().join(file)).unwrap_or_default();
        assert!(!text.trim().is_empty(), "{file} is missing or empty");
    }
    let changes = std::fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    assert!(changes.contains("## [Unreleased]"), "Keep a Changelog wants a place for what comes next");
}
