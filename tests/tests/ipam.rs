//! The daemon's own IPAM: one node alone, and many with a store between them that tells late, in order, and is away now
//! and then.
//!
//! `VSWITCH_SEED` repeats a run, `VSWITCH_RUNS` lengthens it. Not here: a real store (see `ipam_cluster.rs`).
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;
use vswitch_core::Instant;
use vswitch_tests::rng::Rng;
use vswitchd::config::Prefix;
use vswitchd::ipam::{Book, Claim, Claims, Ground, Lacking, Leased, Owner, Pools, Step};

const NETWORK: &str = "blue";

fn pools(text: &str) -> Pools {
    let pools: Pools = serde_json::from_str(text).unwrap();
    pools.validate().unwrap();
    pools
}

fn owner(number: usize) -> Owner {
    Owner { container: format!("c{number}"), ifname: "eth0".to_owned() }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn add(book: &mut Book, pools: &Pools, number: usize, wanted: &[&str]) -> Result<Vec<Leased>, Lacking> {
    let wanted: Vec<IpAddr> = wanted.iter().map(|text| ip(text)).collect();
    let mut changed = book.clone();
    let given = changed.lease(&Ground::Alone, NETWORK, pools, &owner(number), &wanted)?;
    *book = changed;
    Ok(given.leased)
}

fn address(book: &mut Book, pools: &Pools, number: usize) -> String {
    add(book, pools, number, &[]).unwrap()[0].address.to_string()
}

fn refused(book: &mut Book, pools: &Pools, number: usize, wanted: &[&str]) -> String {
    match add(book, pools, number, wanted) {
        Err(Lacking::Refused(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_in_use_stays_so_when_the_pool_is_made_wider() {
    let mut book = Book::default();
    let (narrow, wide) = (pools(r#"[{"subnet": "10.1.0.0/24"}]"#), pools(r#"[{"subnet": "10.1.0.0/16"}]"#));
    let first = address(&mut book, &narrow, 1);
    let others: BTreeSet<String> = (2..300).map(|number| address(&mut book, &wide, number)).collect();
    assert!(others.len() == 298 && !others.contains(&first), "{first}");
    refused(&mut book, &wide, 300, &[&first]);
    // It is free when its owner goes.
    assert_eq!(book.end(&owner(1)), [ip(&first)]);
    add(&mut book, &wide, 300, &[&first]).unwrap();
}

#[test]
fn a_node_alone_has_the_whole_pool_and_the_first_address_is_its_own() {
    let pools = pools(r#"[{"subnet":"10.0.0.0/29"},{"subnet":"fd00::/125"}]"#);
    let mut book = Book::default();
    let both = add(&mut book, &pools, 0, &[]).unwrap();
    let v4 = Leased { address: ip("10.0.0.2"), prefix_len: 29, gateway: Some(ip("10.0.0.1")) };
    let v6 = Leased { address: ip("fd00::2"), prefix_len: 125, gateway: Some(ip("fd00::1")) };
    assert_eq!(both, [v4, v6]);
    assert_eq!(book.gateways(&Ground::Alone, NETWORK, &pools), [(ip("10.0.0.1"), 29), (ip("fd00::1"), 125)]);
    assert_eq!(add(&mut book, &pools, 0, &[]).unwrap(), both, "the same attachment gets the same");
    for number in 1..5 {
        add(&mut book, &pools, number, &[]).unwrap();
    }
    let before = book.clone();
    let reason = refused(&mut book, &pools, 5, &[]);
    assert_eq!(reason, "pool 10.0.0.0/29 of network \"blue\" has no free address");
    assert_eq!(book, before);
    assert_eq!(book.end(&owner(0)), [ip("10.0.0.2"), ip("fd00::2")]);
    // Of IPv6 there is one more, which nobody has had.
    let next = add(&mut book, &pools, 5, &[]).unwrap();
    assert_eq!(next, [v4, Leased { address: ip("fd00::7"), ..v6 }]);
}

#[test]
fn a_freed_address_is_given_again_as_late_as_possible() {
    let pools = pools(r#"[{"subnet":"10.0.0.0/28"}]"#);
    let mut book = Book::default();
    address(&mut book, &pools, 0);
    let mut given = Vec::new();
    for number in 1..40 {
        given.push(address(&mut book, &pools, number));
        book.end(&owner(number));
    }
    // 13 addresses are for pods; one is in use all the time.
    for (at, address) in given.iter().enumerate() {
        let again = given.iter().skip(at + 1).position(|other| other == address);
        assert!(again.is_none_or(|gap| gap == 11), "{address} after {again:?} others");
    }
}

#[test]
fn addresses_kept_apart_are_given_when_they_are_asked_for_and_not_otherwise() {
    let pools = pools(r#"[{"subnet":"10.0.0.0/28","static":["10.0.0.8/29"]}]"#);
    let mut book = Book::default();
    assert_eq!(add(&mut book, &pools, 0, &["10.0.0.9"]).unwrap()[0].address, ip("10.0.0.9"));
    assert_eq!(add(&mut book, &pools, 1, &["10.0.0.5"]).unwrap()[0].address, ip("10.0.0.5"));
    assert_eq!(refused(&mut book, &pools, 2, &["10.0.0.9"]), "10.0.0.9 is eth0 of container \"c0\"");
    for (wanted, reason) in [
        ("10.0.0.0", "10.0.0.0 is no pod's address in 10.0.0.0/28"),
        ("10.0.0.1", "10.0.0.1 is no pod's address in 10.0.0.0/28"),
        ("10.0.0.15", "10.0.0.15 is no pod's address in 10.0.0.0/28"),
        ("10.0.1.1", "10.0.1.1 is in no pool of network \"blue\""),
    ] {
        assert_eq!(refused(&mut book, &pools, 2, &[wanted]), reason);
    }
    let twice = refused(&mut book, &pools, 2, &["10.0.0.9", "10.0.0.10"]);
    assert!(twice.contains("two addresses"), "{twice}");
    let any: Vec<String> = (3..8).map(|number| address(&mut book, &pools, number)).collect();
    assert_eq!(any, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.6", "10.0.0.7"]);
    refused(&mut book, &pools, 8, &[]);
    // Another address for the same attachment: it has that one then, and no longer the first.
    assert_eq!(add(&mut book, &pools, 0, &["10.0.0.10"]).unwrap()[0].address, ip("10.0.0.10"));
    assert_eq!(add(&mut book, &pools, 9, &["10.0.0.9"]).unwrap()[0].address, ip("10.0.0.9"));
}

#[test]
fn the_book_comes_back_from_the_journal_and_frees_what_nobody_has() {
    let pools = pools(r#"[{"subnet":"10.0.0.0/24","static":["10.0.0.128/25"]},{"subnet":"fd00::/64"}]"#);
    let mut book = Book::default();
    for number in 0..4 {
        let wanted: &[&str] = if number == 2 { &["10.0.0.200"] } else { &[] };
        add(&mut book, &pools, number, wanted).unwrap();
    }
    let text = serde_json::to_string(&book).unwrap();
    let mut again: Book = serde_json::from_str(&text).unwrap();
    assert_eq!(again, book);
    again.retain(&Ground::Alone, &[owner(1), owner(2)].into());
    let left: BTreeSet<&Owner> = again.leases().map(|(.., owner)| owner).collect();
    assert_eq!(left, [&owner(1), &owner(2)].into());
    assert_eq!(address(&mut again, &pools, 9), address(&mut book, &pools, 9), "where it was, it goes on");
}

#[test]
fn random_comings_and_goings_on_one_node_keep_to_the_rules() {
    let runs = runs(60);
    let mut rng = Rng::from_env(1);
    for _ in 0..runs {
        let pools = pools(
            r#"[{"subnet":"10.0.0.0/27","static":["10.0.0.16/30"]},{"subnet":"fd00::/120","static":["fd00::80/121"]}]"#,
        );
        let mut book = Book::default();
        let mut has: BTreeMap<usize, Vec<IpAddr>> = BTreeMap::new();
        for _ in 0..300 {
            let number = rng.below(40);
            if rng.one_in(2) {
                let mut ended = book.end(&owner(number));
                ended.sort_unstable();
                assert_eq!(ended, has.remove(&number).unwrap_or_default());
                continue;
            }
            let kept = format!("10.0.0.{}", 16 + rng.below(4));
            let wanted: &[&str] = if rng.one_in(6) { &[&kept] } else { &[] };
            let taken: BTreeSet<IpAddr> =
                has.iter().filter(|(other, _)| **other != number).flat_map(|(_, all)| all.clone()).collect();
            match add(&mut book, &pools, number, wanted) {
                Ok(leased) => {
                    let addresses: Vec<IpAddr> = leased.iter().map(|leased| leased.address).collect();
                    assert!(addresses.iter().all(|address| !taken.contains(address)), "{addresses:?}");
                    let again = has.get(&number) == Some(&addresses);
                    let static_range = Prefix::around(ip("10.0.0.16"), 30).contains(addresses[0]);
                    assert!(again || static_range != wanted.is_empty());
                    assert!(again || wanted.is_empty() || addresses[0] == ip(wanted[0]));
                    has.insert(number, addresses);
                }
                Err(Lacking::Refused(_)) => {
                    let v4 = taken.iter().filter(|address| address.is_ipv4());
                    let plain = v4.filter(|address| !Prefix::around(ip("10.0.0.16"), 30).contains(**address));
                    let full = plain.count() == 32 - 3 - 4;
                    assert!(full || wanted.first().is_some_and(|wanted| taken.contains(&ip(wanted))));
                }
                Err(other) => panic!("{other:?} on a node alone"),
            }
            let all: BTreeSet<(IpAddr, &Owner)> =
                book.leases().map(|(_, address, owner)| (address, owner)).collect();
            let count: usize = has.values().map(Vec::len).sum();
            assert_eq!(all.len(), count);
        }
    }
}

fn runs(usual: usize) -> usize {
    std::env::var("VSWITCH_RUNS").map_or(usual, |runs| runs.parse().unwrap())
}

type Place = (String, Prefix);

/// What the nodes have between them. Whoever reads, reads the log from where it was.
#[derive(Default)]
struct Store {
    keys: BTreeMap<Place, (Claim, String)>,
    log: Vec<(Place, Option<(Claim, String)>)>,
}

impl Store {
    /// Carries out a wish, as a transaction does.
    fn carry_out(&mut self, node: &str, step: &Step) {
        let (Step::Claim(claim) | Step::Release(claim)) = step;
        let place = (claim.network.clone(), claim.range);
        let ours = (claim.clone(), node.to_owned());
        match step {
            Step::Claim(_) if !self.keys.contains_key(&place) => {
                self.keys.insert(place.clone(), ours.clone());
                self.log.push((place, Some(ours)));
            }
            Step::Release(_) if self.keys.get(&place) == Some(&ours) => {
                self.keys.remove(&place);
                self.log.push((place, None));
            }
            Step::Claim(_) | Step::Release(_) => {}
        }
    }
}

/// A node: its book is on the disk, the rest in memory.
struct Node {
    name: String,
    book: Book,
    claims: Claims,
    /// How far it has read; none before it has listed.
    read: Option<usize>,
    wishes: BTreeMap<Place, Step>,
    pods: BTreeSet<usize>,
}

impl Node {
    fn new(number: usize) -> Self {
        let name = format!("n{number}");
        let claims = Claims::new(&name);
        let (wishes, pods) = (BTreeMap::new(), BTreeSet::new());
        Self { name, book: Book::default(), claims, read: None, wishes, pods }
    }

    fn wish(&mut self, step: Step) {
        let (Step::Claim(claim) | Step::Release(claim)) = &step;
        self.wishes.insert((claim.network.clone(), claim.range), step);
    }

    fn follow(&mut self, now: Instant) {
        for step in self.claims.due(&self.book, now) {
            self.wish(step);
        }
    }

    fn list(&mut self, store: &Store, now: Instant) {
        self.claims.listed(store.keys.values().cloned().collect());
        self.read = Some(store.log.len());
        self.follow(now);
    }

    fn hear(&mut self, store: &Store, events: usize, now: Instant) {
        let Some(read) = self.read else { return };
        for (place, held) in store.log.iter().skip(read).take(events) {
            match held.clone() {
                Some((claim, node)) => self.claims.put(claim, node),
                None => self.claims.deleted(&place.0, &place.1),
            }
        }
        self.read = Some(store.log.len().min(read + events));
        self.follow(now);
    }

    fn lease(&mut self, pools: &Pools, pod: usize, wanted: &[IpAddr], now: Instant, disk: bool) -> bool {
        let mut book = self.book.clone();
        let given = book.lease(&Ground::Shared(&self.claims), NETWORK, pools, &owner(pod), wanted);
        let claims = match &given {
            Ok(given) => given.ahead.clone(),
            Err(Lacking::Claims(claims)) => claims.clone(),
            Err(_) => Vec::new(),
        };
        for claim in claims {
            self.claims.ask(&claim, now);
            self.wish(Step::Claim(claim));
        }
        if given.is_err() || !disk {
            return false;
        }
        self.book = book;
        self.pods.insert(pod);
        self.follow(now);
        true
    }

    fn end(&mut self, pod: usize, now: Instant) {
        self.book.end(&owner(pod));
        self.pods.remove(&pod);
        self.follow(now);
    }

    fn ground(&self) -> Ground<'_> {
        Ground::Shared(&self.claims)
    }
}

/// No address, of a pod or of a node, is on two nodes.
fn check(nodes: &[Node], pools: &Pools) {
    let mut seen: BTreeMap<IpAddr, (&str, &Owner)> = BTreeMap::new();
    for node in nodes {
        for (_, address, owner) in node.book.leases() {
            let other = seen.insert(address, (&node.name, owner));
            assert_eq!(other, None, "{address} is {owner:?}'s on {} as well", node.name);
        }
        let owners: BTreeSet<&Owner> = node.book.leases().map(|(.., owner)| owner).collect();
        assert_eq!(owners.len(), node.pods.len());
    }
    let mut gateways = BTreeSet::new();
    for node in nodes {
        for (gateway, _) in node.book.gateways(&node.ground(), NETWORK, pools) {
            assert!(gateways.insert(gateway) && !seen.contains_key(&gateway), "{gateway} of {}", node.name);
        }
    }
}

#[test]
fn a_block_in_which_another_node_had_something_first_is_not_used() {
    let pools = pools(r#"[{"subnet":"10.0.0.0/26","block":28}]"#);
    let asked = |node: &Node| match node.wishes.values().next() {
        Some(Step::Claim(claim)) => claim.clone(),
        other => panic!("{other:?}"),
    };
    let inside = |claim: &Claim, len: u8, owner: Option<Owner>| {
        let range = Prefix::around(claim.range.network, len);
        Claim { range, owner, ..claim.clone() }
    };
    for (len, holder) in [(29, None), (27, None), (32, Some(owner(9)))] {
        let (mut node, now) = (Node::new(1), Instant::from_secs(1));
        node.list(&Store::default(), now);
        assert!(!node.lease(&pools, 0, &[], now, true));
        let mine = asked(&node);
        node.claims.put(inside(&mine, len, holder), "other".to_owned());
        node.claims.put(mine.clone(), node.name.clone());
        node.wishes.clear();
        assert!(!node.lease(&pools, 0, &[], now, true), "{mine:?} beside a /{len}");
        assert_ne!(asked(&node).range, mine.range);
    }
}

#[test]
fn however_late_nodes_hear_of_each_other_no_address_is_on_two_and_nothing_leaks() {
    let mut rng = Rng::from_env(2);
    let mut leased = 0;
    for run in 0..runs(40) {
        let kinds = [
            r#"[{"subnet":"10.0.0.0/25","block":29,"static":["10.0.0.64/28"]}]"#,
            r#"[{"subnet":"10.0.0.0/26","block":28},{"subnet":"fd00::/120","block":124,"static":["fd00::80/122"]}]"#,
        ];
        // Some nodes have a configuration of other blocks, for a time, as while one is rolled out.
        let other = pools(r#"[{"subnet":"10.0.0.0/25","block":28,"static":["10.0.0.64/28"]}]"#);
        let pools = pools(kinds[run % 2]);
        let mut store = Store::default();
        let mut nodes: Vec<Node> = (0..4).map(Node::new).collect();
        let mut differs = [false; 4];
        let mut now = Instant::from_secs(1);
        for pod in 0..1500 {
            let n = rng.below(nodes.len());
            let node = &mut nodes[n];
            match rng.below(16) {
                0..=3 => {
                    let single = if run % 2 == 0 { "10.0.0.7" } else { "fd00::9" };
                    let wanted = [ip(&format!("{single}{}", rng.below(8)))];
                    let wanted = if rng.one_in(4) { &wanted[..] } else { &[] };
                    let disk = !rng.one_in(10);
                    differs[n] ^= run % 4 == 2 && rng.one_in(12);
                    let pools = if differs[n] { &other } else { &pools };
                    leased += usize::from(node.lease(pools, pod, wanted, now, disk));
                }
                4 | 5 => {
                    let pods: Vec<usize> = node.pods.iter().copied().collect();
                    if !pods.is_empty() {
                        node.end(*rng.pick(&pods), now);
                    }
                }
                6..=8 => node.hear(&store, rng.below(4), now),
                9..=11 => {
                    if let Some((_, step)) = node.wishes.pop_first() {
                        let twice = rng.one_in(5).then(|| step.clone());
                        store.carry_out(&node.name, &step);
                        // The answer was lost, and it is asked again.
                        if let Some(step) = twice {
                            let (Step::Claim(claim) | Step::Release(claim)) = &step;
                            node.wishes.entry((claim.network.clone(), claim.range)).or_insert(step);
                        }
                    }
                }
                12 => node.list(&store, now),
                13 if rng.one_in(4) => {
                    // Killed, with wishes on their way.
                    node.claims = Claims::new(&node.name);
                    (node.read, node.wishes) = (None, BTreeMap::new());
                }
                14 if rng.one_in(4) => {
                    let live: BTreeSet<Owner> = node.pods.iter().map(|pod| owner(*pod)).collect();
                    let mut book = node.book.clone();
                    book.retain(&node.ground(), &live);
                    node.book = book;
                    node.follow(now);
                }
                _ => now = now.after(Duration::from_secs(7)),
            }
            check(&nodes, &pools);
        }
        // Everything ends: the store keeps a first block of each node for each pool, and nothing else.
        for node in &mut nodes {
            for pod in node.pods.clone() {
                node.end(pod, now);
            }
        }
        now = now.after(Duration::from_secs(100));
        for _ in 0..4 {
            for node in &mut nodes {
                node.list(&store, now);
                let mut book = node.book.clone();
                book.retain(&node.ground(), &BTreeSet::new());
                node.book = book;
                node.follow(now);
                while let Some((_, step)) = node.wishes.pop_first() {
                    store.carry_out(&node.name, &step);
                }
            }
        }
        let booked: BTreeSet<Place> = nodes
            .iter()
            .flat_map(|node| node.book.claims())
            .map(|claim| (claim.network, claim.range))
            .collect();
        assert_eq!(store.keys.keys().cloned().collect::<BTreeSet<_>>(), booked);
        assert!(booked.len() <= nodes.len() * 2, "{booked:?}");
    }
    assert!(leased > 1000, "{leased} leases are not much of a test");
}
