//! A real etcd of one member, in a directory of its own, on loopback or in a namespace; asked through `etcdctl`.
//!
//! It can be paused, killed, started again on the same data or on none, and compacted; it goes with its guard.
//! Needs Debian's etcd-server and etcd-client (3.4 upwards). Not here: what a test expects of it.

use crate::daemon::{Directory, PATIENCE};
use crate::lab::{Daemon, Namespace, check, skip};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Files of a private certificate authority made by the openssl program: [`Tls::new`].
#[derive(Debug)]
pub struct Tls {
    directory: Directory,
}

impl Tls {
    /// An authority, and a certificate for 127.0.0.1 and ::1 that serves as server's and as client's.
    ///
    /// # Panics
    /// When openssl is not there or refuses.
    #[must_use]
    pub fn new() -> Self {
        let tls = Self { directory: Directory::new() };
        let run = |words: &str| {
            check(Command::new("openssl").args(words.split_whitespace()).current_dir(&tls.directory.0))
        };
        let curve = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        run(&format!("req -x509 {curve} -subj /CN=test-authority -days 2 -keyout ca.key -out ca.pem"));
        run(&format!("req {curve} -subj /CN=test-node -keyout node.key -out node.csr"));
        let extensions = "subjectAltName=IP:127.0.0.1,IP:::1\nextendedKeyUsage=serverAuth,clientAuth\n";
        std::fs::write(tls.directory.0.join("extensions"), extensions).expect("the directory is ours");
        let ca = "-CA ca.pem -CAkey ca.key -CAcreateserial";
        run(&format!("x509 -req -in node.csr {ca} -days 2 -extfile extensions -out node.pem"));
        tls
    }

    /// The authority's certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.directory.0.join("ca.pem")
    }

    /// The node's certificate.
    #[must_use]
    pub fn cert(&self) -> PathBuf {
        self.directory.0.join("node.pem")
    }

    /// The node's key.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.directory.0.join("node.key")
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self::new()
    }
}

/// The port that IANA gave to etcd's clients.
pub const PORT: u16 = 2379;

/// One etcd, which may come and go.
#[derive(Debug)]
pub struct Etcd {
    daemon: Option<Daemon>,
    directory: Directory,
    /// Words before every program: `ip netns exec NAME`, or none.
    inside: Vec<String>,
    address: IpAddr,
    ports: [u16; 2],
    tls: Option<[PathBuf; 3]>,
    /// `--user` of etcdctl, once authentication is on.
    user: Option<String>,
}

/// Runs `body` where etcd and etcdctl are installed; else a loud word, and in CI a failure.
pub fn with_etcd(body: impl FnOnce()) {
    for program in ["etcd", "etcdctl"] {
        if Command::new(program).arg("--help").output().is_err() {
            return skip(&format!("no {program}: Debian's etcd-server and etcd-client have it"));
        }
    }
    body();
}

impl Etcd {
    /// One on free ports of 127.0.0.1, running.
    ///
    /// # Panics
    /// When it does not start; so do all below.
    #[must_use]
    pub fn start() -> Self {
        let mut etcd = Self::stopped();
        etcd.run();
        etcd
    }

    /// One on free ports of 127.0.0.1 that has yet to [`Etcd::run`].
    #[must_use]
    pub fn stopped() -> Self {
        Self::at(Vec::new(), IpAddr::from(Ipv4Addr::LOCALHOST), free_ports())
    }

    /// One on free ports of 127.0.0.1 that speaks TLS only and wants clients with a certificate, running.
    #[must_use]
    pub fn start_tls(tls: &Tls) -> Self {
        let mut etcd = Self::stopped();
        etcd.tls = Some([tls.ca(), tls.cert(), tls.key()]);
        etcd.run();
        etcd
    }

    /// One inside a namespace at an address that this already has, port 2379, running.
    #[must_use]
    pub fn start_in(namespace: &Namespace, address: IpAddr) -> Self {
        let inside = ["ip", "netns", "exec", namespace.name()].map(str::to_owned).to_vec();
        let mut etcd = Self::at(inside, address, [PORT, PORT + 1]);
        etcd.run();
        etcd
    }

    /// Its process number.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("it runs").pid()
    }

    fn at(inside: Vec<String>, address: IpAddr, ports: [u16; 2]) -> Self {
        Self {
            daemon: None,
            directory: Directory::in_memory(),
            inside,
            address,
            ports,
            tls: None,
            user: None,
        }
    }

    /// What a client is told: `http://127.0.0.1:2379`, or https.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", SocketAddr::new(self.address, self.ports[0]))
    }

    fn data(&self) -> PathBuf {
        self.directory.0.join("data")
    }

    /// A command that will run `program` where this etcd is.
    fn command(&self, program: &str) -> Command {
        let mut words = self.inside.iter().map(String::as_str).chain([program]);
        let mut command = Command::new(words.next().expect("at least the program"));
        command.args(words).env("ETCDCTL_API", "3");
        command
    }

    /// Starts it, on the data that it has, and waits until it serves.
    ///
    /// # Panics
    /// When it does not come up in time.
    pub fn run(&mut self) {
        let client = self.url();
        let peer = format!("http://{}", SocketAddr::new(self.address, self.ports[1]));
        let mut command = self.command("etcd");
        command.arg("--data-dir").arg(self.data());
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        if let Some([ca, cert, key]) = &self.tls {
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(ca);
            command.arg("--cert-file").arg(cert).arg("--key-file").arg(key);
        }
        let daemon = Daemon::spawn(&mut command);
        daemon.until_logged("ready to serve client requests", PATIENCE);
        self.daemon = Some(daemon);
    }

    fn signal(&self, name: &str) {
        self.daemon.as_ref().expect("it runs").signal(name);
    }

    /// Stops the process where it stands (SIGSTOP): its connections stay open and nothing answers.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on after [`Etcd::pause`].
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Kills it; its data stay.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// Kills it and throws its data away.
    ///
    /// # Panics
    /// When the data cannot be deleted.
    pub fn lose(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.data()).expect("the data are there and ours");
    }

    /// What etcdctl makes of these words.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn try_ctl(&self, words: &[&str]) -> Output {
        let mut command = self.command("etcdctl");
        command.args(["--endpoints", &self.url()]);
        if let Some([ca, cert, key]) = &self.tls {
            command.arg("--cacert").arg(ca).arg("--cert").arg(cert).arg("--key").arg(key);
        }
        if let Some(user) = &self.user {
            command.args(["--user", user]);
        }
        command.args(words).output().expect("etcdctl was there a moment ago")
    }

    /// What etcdctl prints for these words.
    ///
    /// # Panics
    /// When it fails.
    pub fn ctl(&self, words: &[&str]) -> String {
        let output = self.try_ctl(words);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "etcdctl {words:?}: {complaint}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Puts a value, under no lease.
    pub fn put(&self, key: &str, value: &str) {
        self.ctl(&["put", "--", key, value]);
    }

    /// Puts the bytes of a file as a value, under no lease.
    ///
    /// # Panics
    /// When the file cannot be read, or etcd refuses.
    pub fn put_file(&self, key: &str, value: &Path) {
        let mut command = self.command("etcdctl");
        command.args(["--endpoints", &self.url(), "put", key]);
        check(command.stdin(std::fs::File::open(value).expect("the file is there")));
    }

    /// The value at a key; `None` when there is no such key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<String> {
        let text = self.ctl(&["get", key]);
        let (_, value) = text.split_once('\n')?;
        Some(value.strip_suffix('\n').unwrap_or(value).to_owned())
    }

    /// All keys that begin with `prefix`, sorted.
    #[must_use]
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let text = self.ctl(&["get", "--prefix", "--keys-only", prefix]);
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// Deletes one key.
    pub fn delete(&self, key: &str) {
        self.ctl(&["del", key]);
    }

    /// The newest revision.
    ///
    /// # Panics
    /// When etcdctl prints something else.
    #[must_use]
    pub fn revision(&self) -> u64 {
        let text = self.ctl(&["get", "", "--prefix", "--limit=1", "--write-out=json"]);
        let answer: serde_json::Value = serde_json::from_str(&text).expect("etcdctl was asked for JSON");
        answer["header"]["revision"].as_u64().expect("every answer has a revision")
    }

    /// Forgets all history: who watches from an older revision is refused.
    pub fn compact(&self) {
        self.ctl(&["compaction", "--physical", &self.revision().to_string()]);
    }

    /// Turns authentication on: `root` with that password may do all, nobody else anything.
    pub fn require_password(&mut self, password: &str) {
        self.ctl(&["user", "add", &format!("root:{password}")]);
        self.ctl(&["user", "grant-role", "root", "root"]);
        self.ctl(&["auth", "enable"]);
        self.user = Some(format!("root:{password}"));
    }
}

/// Two ports of 127.0.0.1 that nobody listens on.
fn free_ports() -> [u16; 2] {
    let listeners =
        [0; 2].map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("loopback is up"));
    listeners.map(|listener| listener.local_addr().expect("it is bound").port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::in_lab;

    #[test]
    fn an_etcd_keeps_its_data_over_a_kill_and_is_gone_with_its_guard() {
        with_etcd(|| {
            let mut etcd = Etcd::start();
            etcd.put("/a", "1");
            etcd.pause();
            etcd.resume();
            etcd.kill();
            etcd.run();
            assert_eq!((etcd.get("/a").as_deref(), etcd.get("/b")), (Some("1"), None));
            etcd.compact();
            etcd.lose();
            etcd.run();
            assert!(etcd.keys("/").is_empty());
            let process = format!("/proc/{}", etcd.daemon.as_ref().unwrap().pid());
            drop(etcd);
            assert!(!Path::new(&process).exists());
        });
    }

    #[test]
    fn an_etcd_inside_a_namespace_serves_those_who_reach_its_address() {
        with_etcd(|| {
            in_lab("etcd::tests::an_etcd_inside_a_namespace_serves_those_who_reach_its_address", |lab| {
                let (store, node) = (lab.namespace("store"), lab.namespace("node"));
                store.veth("under", &node, "under");
                store.address("under", "192.0.2.1/24");
                node.address("under", "192.0.2.2/24");
                let etcd = Etcd::start_in(&store, "192.0.2.1".parse().unwrap());
                etcd.put("/a", "1");
                let url = etcd.url();
                assert_eq!(node.run(&format!("etcdctl --endpoints {url} get --print-value-only /a")), "1\n");
            });
        });
    }
}
