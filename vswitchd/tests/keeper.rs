//! The keeper's process and whoever speaks to it: what is kept comes back, nobody else gets it, nothing ends it.
//!
//! Without privilege: the descriptors are pipes and files. Not here: interfaces and the daemon.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use vswitch_core::Instant;
use vswitchd::keeper::{Keeper, Kept};
use vswitchd::sys::{event, process, rights};

const PATIENCE: Duration = Duration::from_secs(30);

/// A keeper's process in a directory of its own; both go with it.
struct Running {
    child: Child,
    directory: PathBuf,
}

impl Running {
    fn start(command: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("vswitch-keeper-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let child = Self::spawn(&directory, command);
        Self { child, directory }
    }

    fn spawn(directory: &Path, command: &[&str]) -> Child {
        let socket = directory.join("keeper.sock");
        let mut keeper = Command::new(env!("CARGO_BIN_EXE_vswitchd"));
        keeper.arg("keeper").arg("--socket").arg(&socket);
        if !command.is_empty() {
            keeper.arg("--").args(command);
        }
        // It says that it keeps once it can be connected to.
        let mut child = keeper.current_dir(directory).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = child.stderr.take().unwrap();
        let mut text = Vec::new();
        while !String::from_utf8_lossy(&text).contains("keeping") {
            let mut byte = [0];
            assert_eq!(said.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&text));
            text.push(byte[0]);
        }
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        child
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("keeper.sock")
    }

    fn keeper(&self) -> (Keeper, Kept) {
        Keeper::process(self.socket())
    }

    fn end(&mut self) -> ExitStatus {
        process::ask_to_end(&mut self.child).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Whether nobody but us has the other end of this pipe open any more.
fn ends(reader: &impl std::os::fd::AsFd) -> bool {
    event::wait_readable(reader.as_fd(), Some(PATIENCE)).unwrap().failed
}

fn names(kept: &Kept) -> Vec<&str> {
    kept.names().collect()
}

#[test]
fn what_is_kept_comes_back_replaced_by_name_until_it_is_forgotten() {
    let running = Running::start(&[]);
    let (mut keeper, kept) = running.keeper();
    assert!(keeper.is_there() && kept.is_empty());
    assert_eq!((keeper.kind(), keeper.descriptors()), ("process", 0));
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (first, old) = std::io::pipe().unwrap();
    keeper.keep("tap b:ä%", old.as_fd()).unwrap();
    keeper.keep("tap-a", writer.as_fd()).unwrap();
    keeper.keep("tap b:ä%", writer.as_fd()).unwrap();
    drop((old, writer));
    assert!(ends(&first), "what was replaced is closed");
    assert_eq!(keeper.descriptors(), 2);
    drop(keeper);

    let (mut keeper, mut kept) = running.keeper();
    assert_eq!((names(&kept), keeper.descriptors()), (vec!["tap b:ä%", "tap-a"], 2));
    std::fs::File::from(kept.take("tap-a").unwrap()).write_all(b"hello").unwrap();
    assert!(kept.take("tap-a").is_none());
    drop(kept);
    let mut bytes = [0; 5];
    reader.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"hello");
    keeper.forget_all(["tap-a", "tap b:ä%", "nobody"]);
    assert_eq!(keeper.descriptors(), 0);
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "what is forgotten is closed");
    assert!(running.keeper().1.is_empty());
}

#[test]
fn a_thousand_descriptors_are_kept_and_given_back() {
    let running = Running::start(&[]);
    let (mut keeper, _) = running.keeper();
    let (reader, writer) = std::io::pipe().unwrap();
    for number in 0..1000 {
        keeper.keep(&format!("tap{number}"), writer.as_fd()).unwrap();
    }
    drop((keeper, writer));
    process::raise_descriptor_limit().unwrap();
    let (mut keeper, kept) = running.keeper();
    assert_eq!(kept.names().count(), 1000);
    let all: Vec<String> = kept.names().map(str::to_owned).collect();
    drop(kept);
    keeper.forget_all(all.iter().map(String::as_str));
    assert!(ends(&reader));
}

#[test]
fn a_client_that_says_what_is_none_of_its_business_is_disconnected_and_nothing_else() {
    let running = Running::start(&[]);
    let (mut keeper, _) = running.keeper();
    let (reader, writer) = std::io::pipe().unwrap();
    keeper.keep("tap-a", writer.as_fd()).unwrap();
    drop(writer);
    let talk = |lines: &[u8], descriptors: usize| {
        let mut stream = UnixStream::connect(running.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (_, other) = std::io::pipe().unwrap();
        let descriptors = vec![other.as_fd(); descriptors];
        let _ = rights::send(&stream, lines, &descriptors);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        // Whoever is disconnected with words unread hears of it so.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    };
    let long = [b'x'; 3000];
    for garbage in [
        &b"\0\xff\xfe\n"[..],
        b"forget tap-a\nforget tap-a\n",
        b"forget tap-a\nforg",
        b"forget tap-a",
        b"",
        &long,
    ] {
        assert_eq!(talk(garbage, 0), "", "{garbage:?}");
        assert_eq!(talk(garbage, 1), "", "{garbage:?}");
    }
    assert_eq!(talk(b"keep tap-a\n", 2), "");
    for (line, descriptors) in [
        (&b"\n"[..], 0),
        (b"keep tap-a\n", 0),
        (b"keep \n", 1),
        (b"forget tap-a\n", 1),
        (b"after\n", 1),
        (b"forget tap%\n", 0),
        (b"forget tap a\n", 0),
        (b"steal tap-a\n", 0),
    ] {
        assert!(talk(line, descriptors).starts_with("refused "), "{line:?}");
    }
    let name = "n".repeat(256);
    assert!(talk(format!("keep {name}\n").as_bytes(), 1).starts_with("refused "));
    // More than it lets in, and then it lets in again.
    let crowd: Vec<_> = (0..100).map(|_| UnixStream::connect(running.socket()).unwrap()).collect();
    drop(crowd);
    assert_eq!(names(&running.keeper().1), ["tap-a"]);
    assert!(keeper.look(Instant::ZERO).is_none() && keeper.is_there());
    keeper.forget("tap-a");
    assert!(ends(&reader));
}

#[test]
fn another_user_is_turned_away_even_where_the_file_lets_it_in() {
    let running = Running::start(&[]);
    let mode = std::fs::metadata(running.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    if process::user() != 0 {
        eprintln!("SKIPPED: only root can be another user");
        assert!(std::env::var_os("CI").is_none(), "in CI nothing is skipped");
        return;
    }
    let (mut keeper, _) = running.keeper();
    let (_reader, writer) = std::io::pipe().unwrap();
    keeper.keep("tap-a", writer.as_fd()).unwrap();
    for path in [running.directory.clone(), running.socket()] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let socket = running.socket();
    let answer = std::thread::spawn(move || {
        #[expect(unsafe_code, reason = "the standard library cannot be another user")]
        // SAFETY: the bare system call takes numbers and changes the calling thread alone, which ends after this.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) };
        assert_eq!(changed, 0);
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(b"after \n");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    });
    assert_eq!(answer.join().unwrap(), b"");
}

#[test]
fn a_keeper_that_is_away_is_found_again_and_two_do_not_share_a_socket() {
    let mut running = Running::start(&[]);
    let (mut keeper, _) = running.keeper();
    let (reader, writer) = std::io::pipe().unwrap();
    keeper.keep("tap-a", writer.as_fd()).unwrap();
    drop(writer);
    let second = Command::new(env!("CARGO_BIN_EXE_vswitchd"))
        .args(["keeper", "--socket"])
        .arg(running.socket())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another keeper"), "{second:?}");
    assert!(running.keeper().0.is_there(), "the first one is not disturbed");

    running.child.kill().unwrap();
    running.child.wait().unwrap();
    assert!(ends(&reader), "what is kept ends with the keeper");
    assert!(keeper.look(Instant::ZERO).is_none() && !keeper.is_there());
    assert_eq!(keeper.descriptors(), 0);
    assert!(keeper.trouble().unwrap().contains("keeper.sock"));
    assert!(keeper.keep("tap-a", reader.as_fd()).is_err());
    // Its socket is still there, with nobody behind it.
    running.child = Running::spawn(&running.directory, &[]);
    assert!(keeper.look(Instant::ZERO).is_none(), "it is not looked for all the time");
    let found = keeper.look(Instant::ZERO.after(Duration::from_secs(60))).unwrap();
    assert!(found.is_empty() && keeper.is_there() && keeper.trouble().is_none());
    assert!(running.end().success());
    assert!(!running.socket().exists());
    // Nobody there at the start is no error either.
    let (keeper, kept) = running.keeper();
    assert!(!keeper.is_there() && kept.is_empty());
}

#[test]
fn a_keeper_that_does_not_answer_holds_nobody_up_and_is_found_again_with_what_it_has() {
    let running = Running::start(&[]);
    let (mut keeper, _) = running.keeper();
    let (reader, writer) = std::io::pipe().unwrap();
    keeper.keep("tap-a", writer.as_fd()).unwrap();
    let signal = |name: &str| {
        let pid = running.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    };
    signal("STOP");
    let refused = keeper.keep("tap-b", writer.as_fd()).unwrap_err();
    drop(writer);
    assert_eq!((refused.kind(), keeper.is_there()), (std::io::ErrorKind::WouldBlock, false));
    assert!(keeper.trouble().unwrap().contains("does not answer"));
    // What is not wanted any more meanwhile comes back as well: whoever does not want it forgets it then.
    keeper.forget("tap-a");
    signal("CONT");
    let found = keeper.look(Instant::ZERO).unwrap();
    // It did what it was asked before it listened to anybody new.
    assert_eq!((names(&found), keeper.is_there()), (vec!["tap-a", "tap-b"], true));
    drop(found);
    keeper.forget_all(["tap-a", "tap-b"]);
    assert!(ends(&reader));
}

#[test]
fn a_command_is_started_again_when_it_fails_and_not_when_it_ends_as_it_meant() {
    // Three lives fail, one by a signal, one by what only a first end would be let end by; the fourth ends well.
    let script = "echo life >> lives; case $(wc -l < lives) in 1) exit 1;; 2) kill -9 $$;; 3) exit 78;; *) exit 0;; esac";
    let mut running = Running::start(&["sh", "-c", script]);
    assert_eq!(running.child.wait().unwrap().code(), Some(0));
    let lives = std::fs::read_to_string(running.directory.join("lives")).unwrap();
    assert_eq!(lives.lines().count(), 4);

    // One that is asked to end may end as it likes; the keeper's signal mask is not its.
    let script = "echo $VSWITCHD_KEEPER > there~; mv there~ there; while :; do sleep 0.01; done";
    let mut running = Running::start(&["sh", "-c", script]);
    let there = running.directory.join("there");
    while !there.exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let socket = std::fs::read_to_string(there).unwrap();
    assert_eq!(Path::new(socket.trim()), running.socket());
    assert_eq!(running.end().code(), Some(128 + 15));

    let none = Command::new(env!("CARGO_BIN_EXE_vswitchd"))
        .args(["keeper", "--socket"])
        .arg(running.socket())
        .args(["--", "/nonexistent/program"])
        .output()
        .unwrap();
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("/nonexistent/program"), "{none:?}");
}
