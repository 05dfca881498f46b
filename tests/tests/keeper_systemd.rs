//! systemd itself as keeper: the real one, first process of namespaces of its own, with the daemon as its service.
//!
//! Needs root, systemd and a cgroup2 that may be written. Not here: what the daemon makes of what is kept.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use vswitch_tests::daemon::{Host, PATIENCE, number, program, text, with_host};
use vswitch_tests::lab::{self, Daemon, Namespace, until};
use vswitchd::sys::socket::peer_credentials;

/// Where systemd is.
const SYSTEMD: &str = "/lib/systemd/systemd";

/// A group of processes, for systemd to be the root of; removed when dropped.
struct Group(PathBuf);

impl Group {
    fn new() -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
        let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
        let path = Path::new(mount.split(' ').nth(1)?).join(format!("vswitch-test-{}", std::process::id()));
        std::fs::create_dir(&path).ok()?;
        Some(Self(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Those that were killed leave it a moment later; the groups that systemd made in it go first.
        until("the group is empty", PATIENCE, || {
            let inner = std::fs::read_dir(&self.0).into_iter().flatten().flatten().map(|entry| entry.path());
            let inner: Vec<_> = inner.filter(|path| path.is_dir()).collect();
            for path in inner {
                for deeper in std::fs::read_dir(&path).into_iter().flatten().flatten() {
                    let _ = std::fs::remove_dir(deeper.path());
                }
                let _ = std::fs::remove_dir(path);
            }
            std::fs::remove_dir(&self.0).ok()
        });
    }
}

/// Starts systemd with the daemon of `host` as its only service, and waits until that is ready.
fn start(host: &Host, group: &Group) -> Daemon {
    let unit = format!(
        "[Unit]\nDefaultDependencies=no\nStartLimitIntervalSec=0\n[Service]\nType=notify\nNotifyAccess=main\n\
         ExecStart={} --config {}\nRestart=always\nRestartSec=50ms\nFileDescriptorStoreMax=100\n\
         StandardError=append:{}\n",
        program("vswitchd").unwrap().display(),
        host.config().display(),
        host.file("log").display(),
    );
    std::fs::write(host.file("vswitchd.service"), unit).unwrap();
    // The machine's own /etc and /run/systemd are none of its business; /run/netns is.
    let script = format!(
        "set -e\nmount -t cgroup2 none /sys/fs/cgroup\nmount --rbind /run /run\nmkdir -p /run/systemd\n\
         mount -t tmpfs none /run/systemd\nmount -t tmpfs none /etc\nmkdir -p /run/systemd/system\n\
         cp {} /run/systemd/system/\necho 0123456789abcdef0123456789abcdef > /etc/machine-id\n\
         exec env -i container=test PATH=$PATH {SYSTEMD} --system --unit=vswitchd.service \
         --log-target=console --show-status=no\n",
        host.file("vswitchd.service").display()
    );
    // The processes of new namespaces begin in the group, which is the root for them.
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", group.0.display());
    let mut command = Command::new("sh");
    command.args(["-c", &enter, "sh", "unshare", "--pid", "--fork", "--mount", "--cgroup", "--uts"]);
    command.args(["--ipc", "--net", "--kill-child", "--mount-proc", "sh", "-c", &script]);
    let systemd = Daemon::spawn(&mut command);
    drop(systemd.until_connectable(&host.socket(), PATIENCE));
    systemd
}

/// The daemon's process, by our number for it.
fn pid(host: &Host) -> Option<i32> {
    let stream = UnixStream::connect(host.socket()).ok()?;
    peer_credentials(stream.as_fd()).ok().map(|who| who.pid)
}

fn index(pod: &Namespace) -> Option<String> {
    let said = pod.try_run("cat /sys/class/net/eth0/ifindex");
    said.status.success().then(|| String::from_utf8(said.stdout).unwrap())
}

#[test]
fn systemd_keeps_interfaces_while_a_service_is_killed_or_restarted() {
    with_host("systemd_keeps_interfaces_while_a_service_is_killed_or_restarted", |lab, host| {
        if !Path::new(SYSTEMD).exists() {
            return lab::skip("there is no systemd");
        }
        let Some(group) = Group::new() else {
            return lab::skip("no cgroup2 that may be written (and root)");
        };
        let pods = [lab.namespace("a"), lab.namespace("b")];
        let table = |n: usize| {
            format!(
                "[[port]]\nname = \"tap{n}\"\nnetns = {:?}\nifname = \"eth0\"\ntag = 10\n\
                 addresses = [\"10.10.0.{n}/24\"]\n",
                pods[n - 1].name()
            )
        };
        host.configure(&(table(1) + &table(2)));
        let systemd = start(&host, &group);
        let status = host.json("status");
        assert_eq!((text(&status, "keeper"), number(&status, "keeper_descriptors")), ("systemd".into(), 2));
        let pings = || {
            let to = "10.10.0.2".parse().unwrap();
            until("ping", PATIENCE, || (pods[0].ping(to, 56, 1).received == 1).then_some(()));
        };
        pings();
        let before = pods.each_ref().map(|pod| index(pod).unwrap());
        for signal in ["KILL", "TERM", "KILL"] {
            let old = pid(&host).unwrap();
            lab::check(Command::new("kill").args(["-s", signal, &old.to_string()]));
            until("another daemon", PATIENCE, || {
                let another = pid(&host).is_some_and(|new| new != old);
                (another && host.ctl("status").code == 0).then_some(())
            });
            assert_eq!(pods.each_ref().map(|pod| index(pod).unwrap()), before, "{}", systemd.log());
            pings();
            assert_eq!(number(&host.json("status"), "keeper_descriptors"), 2);
        }
        let log = std::fs::read_to_string(host.file("log")).unwrap();
        assert_eq!(log.matches("port adopted").count(), 6, "{log}");
        // It lets go of what is not wanted any more before the daemon says that it is gone.
        host.configure(&table(2));
        host.must("reload");
        assert_eq!((index(&pods[0]), index(&pods[1]).as_ref()), (None, Some(&before[1])));
        drop(systemd);
    });
}
