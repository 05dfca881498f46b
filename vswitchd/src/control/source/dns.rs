//! Names among `[mesh] peers`: asked for their addresses at the start, and again whenever the answer's time to
//! live has passed.
//!
//! One thread for all of them. `/etc/hosts` is asked before the servers of `/etc/resolv.conf`, and both files are
//! read again as time goes by. Not here: which of the addresses become peers.

use crate::config::fits_a_node;
use crossbeam_channel::Sender;
use hickory_resolver::config::{ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, Record, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, Resolver, TokioResolver};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep};

/// What is known of a name: the name as it was given; its addresses in rising order, the last known ones where
/// the latest lookup failed; and why it did.
pub type Found = (String, Vec<IpAddr>, Option<String>);

/// An answer is believed at least so long, whatever its time to live.
const SHORTEST: Duration = Duration::from_secs(1);

/// And at most so long.
const LONGEST: Duration = Duration::from_secs(3600);

/// How long a line of `/etc/hosts`, which has no time to live, is believed.
const HOSTS_TTL: Duration = Duration::from_secs(60);

/// The longest pause between two lookups that fail; the first pause is [`SHORTEST`], and each is twice the last.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many names are looked up at the same time.
const AT_ONCE: usize = 16;

/// Names being followed. Dropping it ends that.
#[derive(Debug)]
pub struct Names {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Names {
    /// Follows `names` by the system's `/etc/resolv.conf` and `/etc/hosts`. What is found of a name is sent when
    /// it is first known, and then when it differs from what was sent last; `wake` is called behind each.
    /// `found` must not be a bounded channel that nobody empties while this is dropped.
    ///
    /// # Errors
    /// When no thread or no event queue can be had.
    pub fn start(
        names: Vec<String>,
        found: Sender<Found>,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> io::Result<Self> {
        Self::with_resolv_conf(names, PathBuf::from("/etc/resolv.conf"), found, wake)
    }

    /// The same with another file in place of `/etc/resolv.conf`.
    ///
    /// # Errors
    /// When no thread or no event queue can be had.
    pub fn with_resolv_conf(
        names: Vec<String>,
        resolv_conf: PathBuf,
        found: Sender<Found>,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = Builder::new().name("dns".to_owned()).spawn(move || {
            let system =
                Arc::new(System { resolv_conf, read: Mutex::new(None), permits: Semaphore::new(AT_ONCE) });
            for name in names {
                let telling = Telling { name, found: found.clone(), wake: Arc::clone(&wake) };
                runtime.spawn(follow(telling, Arc::clone(&system)));
            }
            // What it returns is all the same: told to stop, or nobody is there to tell.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was told by its own message.
            let _ = thread.join();
        }
    }
}

/// One name, and whom to tell of it.
struct Telling {
    name: String,
    found: Sender<Found>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

/// Looks the name up again and again, until nobody listens.
async fn follow(telling: Telling, system: Arc<System>) {
    let mut known = Known::default();
    let mut told = None;
    loop {
        let answers = system.ask(&telling.name).await;
        let (trouble, pause) = known.take(answers);
        let news = (known.addresses(), trouble);
        if told.as_ref() != Some(&news) {
            let (addresses, trouble) = news.clone();
            if telling.found.send((telling.name.clone(), addresses, trouble)).is_err() {
                return;
            }
            (telling.wake)();
            told = Some(news);
        }
        sleep(pause).await;
    }
}

/// What was answered for one family: addresses, perhaps none, and how long that holds.
type Answer = Result<(Vec<IpAddr>, Duration), String>;

/// What is known of one name.
#[derive(Debug, Default)]
struct Known {
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
    failures: u32,
}

impl Known {
    /// Takes the answers for both families in; why there is trouble, if there is, and the pause until the next
    /// lookup. A family without an answer keeps its addresses, and both do when no address is left.
    fn take(&mut self, [v4, v6]: [Answer; 2]) -> (Option<String>, Duration) {
        let none = |answer: &Answer| answer.as_ref().is_ok_and(|(addresses, _)| addresses.is_empty());
        let mut trouble = None;
        let mut holds = LONGEST;
        if none(&v4) && none(&v6) {
            trouble = Some("it has no address".to_owned());
        } else {
            for (answer, known, kind) in [(v4, &mut self.v4, "IPv4"), (v6, &mut self.v6, "IPv6")] {
                match answer {
                    Ok((addresses, ttl)) => {
                        *known = addresses;
                        holds = holds.min(ttl);
                    }
                    Err(reason) => {
                        let told = || format!("lookup of its {kind} addresses failed: {reason}");
                        trouble.get_or_insert_with(told);
                    }
                }
            }
        }
        if trouble.is_none() {
            self.failures = 0;
            return (None, holds.max(SHORTEST));
        }
        let pause = SHORTEST.saturating_mul(1 << self.failures.min(16)).min(PATIENCE);
        self.failures = self.failures.saturating_add(1);
        (trouble, pause)
    }

    /// All addresses, in rising order.
    fn addresses(&self) -> Vec<IpAddr> {
        let mut all: Vec<IpAddr> =
            self.v4.iter().chain(&self.v6).copied().filter(|address| fits_a_node(*address)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// What the system's files say.
struct Setting {
    resolver: TokioResolver,
    search: Vec<Name>,
    ndots: usize,
    hosts: Hosts,
}

/// The way to ask what the system asks.
struct System {
    resolv_conf: PathBuf,
    /// The setting and when it was read; read again when that is [`SHORTEST`] ago.
    read: Mutex<Option<(Instant, Arc<Setting>)>>,
    permits: Semaphore,
}

impl System {
    /// Asks for the addresses of `name` in both families, IPv4 first.
    async fn ask(&self, name: &str) -> [Answer; 2] {
        let failed = |reason: String| [Err(reason.clone()), Err(reason)];
        let Ok(_permit) = self.permits.acquire().await else { return failed("the switch stops".to_owned()) };
        let (setting, name) = match (self.setting(), Name::from_utf8(name)) {
            (Ok(setting), Ok(name)) => (setting, name),
            (Err(reason), _) => return failed(reason),
            (_, Err(error)) => return failed(error.to_string()),
        };
        let of_hosts = [RecordType::A, RecordType::AAAA].map(|kind| {
            let lookup = setting.hosts.lookup_static_host(&Query::query(name.clone(), kind));
            lookup.map(|lookup| addresses(lookup.answers())).unwrap_or_default()
        });
        if of_hosts.iter().any(|addresses| !addresses.is_empty()) {
            return of_hosts.map(|addresses| Ok((addresses, HOSTS_TTL)));
        }
        let mut failures: [Option<String>; 2] = [None, None];
        for candidate in candidates(&name, &setting.search, setting.ndots) {
            let (v4, v6) = tokio::join!(
                look_up(&setting.resolver, candidate.clone(), RecordType::A),
                look_up(&setting.resolver, candidate, RecordType::AAAA),
            );
            let answers = [v4, v6];
            if answers.iter().flatten().any(|(addresses, _)| !addresses.is_empty()) {
                return answers;
            }
            for (failure, answer) in failures.iter_mut().zip(answers) {
                *failure = failure.take().or_else(|| answer.err());
            }
        }
        // That it has no address is known only when every candidate was answered for.
        failures.map(|failure| failure.map_or(Ok((Vec::new(), LONGEST)), Err))
    }

    /// The setting as it is now or was a moment ago.
    fn setting(&self) -> Result<Arc<Setting>, String> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, setting)) = &*read
            && at.elapsed() < SHORTEST
        {
            return Ok(Arc::clone(setting));
        }
        let setting = Arc::new(read_setting(&self.resolv_conf)?);
        *read = Some((Instant::now(), Arc::clone(&setting)));
        Ok(setting)
    }
}

/// Reads the system's files. Without a `/etc/hosts` there is nothing in it.
fn read_setting(resolv_conf: &Path) -> Result<Setting, String> {
    let unread =
        |reason: &dyn std::fmt::Display| format!("{} cannot be read: {reason}", resolv_conf.display());
    let text = std::fs::read(resolv_conf).map_err(|error| unread(&error))?;
    let (config, mut options): (ResolverConfig, ResolverOpts) =
        parse_resolv_conf(text).map_err(|error| unread(&error))?;
    // The pauses between lookups follow the answers' time to live, so nothing is gained by keeping answers.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    let (ndots, search) = (
        options.ndots,
        match config.search() {
            [] => config.domain().cloned().into_iter().collect(),
            search => search.to_vec(),
        },
    );
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    let resolver = builder.build().map_err(|error| unread(&error))?;
    Ok(Setting { resolver, search, ndots, hosts: Hosts::from_system().unwrap_or_default() })
}

/// The names that `name` may stand for, in the order in which they are tried (resolv.conf(5), `search` and
/// `ndots`). Both families are asked of one before the next, so that they are of the same host.
fn candidates(name: &Name, search: &[Name], ndots: usize) -> Vec<Name> {
    let mut absolute = name.clone();
    absolute.set_fqdn(true);
    if name.is_fqdn() {
        return vec![absolute];
    }
    // One that would be too long is none.
    let mut candidates: Vec<Name> =
        search.iter().filter_map(|domain| name.clone().append_domain(domain).ok()).collect();
    let at = if usize::from(name.num_labels()) > ndots { 0 } else { candidates.len() };
    candidates.insert(at, absolute);
    candidates
}

/// Asks the servers for the records of one kind.
async fn look_up(resolver: &TokioResolver, name: Name, kind: RecordType) -> Answer {
    match resolver.lookup(name, kind).await {
        Ok(lookup) => {
            let ttl = lookup.answers().iter().map(|record| record.ttl).min();
            let holds = ttl.map_or(LONGEST, |ttl| Duration::from_secs(ttl.into()));
            Ok((addresses(lookup.answers()), holds))
        }
        Err(error) if error.is_no_records_found() => Ok((Vec::new(), LONGEST)),
        Err(error) => Err(error.to_string()),
    }
}

fn addresses(records: &[Record]) -> Vec<IpAddr> {
    records.iter().filter_map(|record| record.data.ip_addr()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(addresses: &[&str], ttl: u64) -> Answer {
        let parse = |text: &&str| text.parse().expect("an address");
        Ok((addresses.iter().map(parse).collect(), Duration::from_secs(ttl)))
    }

    fn bad() -> Answer {
        Err("request timed out".to_owned())
    }

    fn all(known: &Known) -> Vec<String> {
        known.addresses().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_name_is_searched_for_as_the_system_does() {
        let search = ["a.test.", "b.test."].map(|name| Name::from_utf8(name).expect("a name"));
        let tried = |name: &str, ndots| {
            let name = Name::from_utf8(name).expect("a name");
            candidates(&name, &search, ndots).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(tried("n", 1), ["n.a.test.", "n.b.test.", "n."]);
        assert_eq!(tried("n.x", 1), ["n.x.", "n.x.a.test.", "n.x.b.test."]);
        assert_eq!(tried("n.x", 2), ["n.x.a.test.", "n.x.b.test.", "n.x."]);
        assert_eq!(tried("n.", 1), ["n."]);
    }

    #[test]
    fn an_answer_holds_as_long_as_its_shortest_time_to_live_within_a_second_and_an_hour() {
        let mut known = Known::default();
        let mut pause = |v4, v6| known.take([good(&["10.0.0.1"], v4), good(&["fd00::1"], v6)]).1.as_secs();
        assert_eq!((pause(300, 60), pause(0, 60), pause(86_400, 86_400)), (60, 1, 3600));
    }

    #[test]
    fn a_failure_keeps_what_was_known_and_is_repeated_ever_later() {
        let mut known = Known::default();
        assert_eq!(known.take([good(&["10.0.0.2", "10.0.0.1"], 9), good(&["fd00::1"], 9)]).0, None);
        let told = known.take([bad(), bad()]).0;
        assert_eq!(told.as_deref(), Some("lookup of its IPv4 addresses failed: request timed out"));
        assert_eq!(all(&known), ["10.0.0.1", "10.0.0.2", "fd00::1"]);
        let pauses: Vec<_> = (0..8).map(|_| known.take([bad(), bad()]).1.as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(known.take([good(&["10.0.0.3"], 9), good(&[], 3600)]), (None, Duration::from_secs(9)));
        assert_eq!(all(&known), ["10.0.0.3"]);
        assert_eq!(known.take([bad(), bad()]).1, SHORTEST);
    }

    #[test]
    fn each_family_fails_for_itself() {
        let mut known = Known::default();
        known.take([good(&["10.0.0.1"], 9), good(&["fd00::1"], 9)]);
        let (trouble, pause) = known.take([good(&["10.0.0.2"], 9), bad()]);
        assert_eq!(trouble.as_deref(), Some("lookup of its IPv6 addresses failed: request timed out"));
        assert_eq!((all(&known), pause), (vec!["10.0.0.2".to_owned(), "fd00::1".to_owned()], SHORTEST));
    }

    #[test]
    fn a_name_that_has_no_address_any_more_keeps_those_it_had() {
        let mut known = Known::default();
        known.take([good(&["10.0.0.1"], 9), good(&[], 9)]);
        assert_eq!(known.take([good(&[], 9), good(&[], 9)]).0.as_deref(), Some("it has no address"));
        assert_eq!(all(&known), ["10.0.0.1"]);
    }

    #[test]
    fn addresses_that_no_node_can_have_are_left_out() {
        let mut known = Known::default();
        known
            .take([good(&["0.0.0.0", "224.0.0.1", "10.0.0.1"], 9), good(&["fe80::1", "::ffff:10.0.0.2"], 9)]);
        assert_eq!(all(&known), ["10.0.0.1"]);
    }
}
