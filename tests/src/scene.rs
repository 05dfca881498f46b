//! Pods on one node or on two, by a table: what the tests of offload build again and again.
//!
//! Every node has a file of its own, so that two nodes may differ. Not here: assertions, and other people's tunnels.

use crate::daemon::hush;
use crate::lab::{Lab, Namespace};
use crate::node::{Fleet, Node, Underlay};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A port and the pod that it is in.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The pod; several ports of one name share a namespace. A port is named after its pod and its number there.
    pub pod: &'a str,
    /// Which node, 1 and up.
    pub node: u8,
    /// Further keys of its `[[port]]`, a line each, such as `tag = 10`.
    pub keys: &'a str,
    /// Its addresses; with none, the pod's kernel says nothing of its own accord.
    pub addresses: &'a [&'a str],
}

/// What a scene is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// For each node, the further text of its file, such as `[datapath]\noffload = false`.
    pub nodes: &'a [&'a str],
    /// Further keys of `[underlay]`.
    pub underlay: &'a str,
    /// Tunnels over IPv6.
    pub v6: bool,
    /// All ports.
    pub places: &'a [Place<'a>],
}

/// What a [`Plan`] has become: daemons that are ready.
#[derive(Debug)]
pub struct Scene {
    /// The running daemons.
    pub nodes: Vec<Node>,
    pods: BTreeMap<String, Namespace>,
    /// What is between the nodes.
    pub underlay: Underlay,
    /// For each node what runs, and where it is written.
    files: Vec<(String, Fleet)>,
}

/// Two segments with a VNI: `blue`, VLAN 10, and `red`, VLAN 20; and `grey`, VLAN 500.
const SEGMENTS: &str = "
[[segment]]
name = \"blue\"
vlan = 10
vni = 10010
[[segment]]
name = \"red\"
vlan = 20
vni = 10020
[[segment]]
name = \"grey\"
vlan = 500
vni = 10500
";

impl Scene {
    /// Builds it and waits until every daemon is ready and has said all that it says of its own accord.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn new(lab: &Lab, plan: &Plan<'_>) -> Self {
        let count = u8::try_from(plan.nodes.len()).expect("a handful of nodes");
        let underlay = Underlay::new(lab, count, 1500);
        let mut pods = BTreeMap::new();
        let mut files: Vec<String> = plan.nodes.iter().map(|text| head(plan, text)).collect();
        let mut links = BTreeMap::<&str, u32>::new();
        for place in plan.places {
            let Place { pod, node, keys, addresses } = place;
            let namespace = pods.entry((*pod).to_owned()).or_insert_with(|| lab.namespace(pod));
            if addresses.is_empty() {
                hush(namespace);
            }
            let number = links.entry(pod).or_insert(0);
            let netns = namespace.name();
            files[usize::from(node - 1)] += &format!(
                "\n[[port]]\nname = \"{pod}{number}\"\nnetns = {netns:?}\nifname = \"eth{number}\"\n\
                 addresses = {addresses:?}\n{keys}\n"
            );
            *number += 1;
        }
        let files: Vec<_> = files.into_iter().map(|file| (file.clone(), Fleet::new(&file))).collect();
        let started = (1..).zip(&files).zip(&underlay.nodes);
        let nodes: Vec<Node> =
            started.map(|((n, (_, fleet)), space)| fleet.spawn(space, &format!("n{n}"))).collect();
        nodes.iter().for_each(Node::until_ready);
        nodes.iter().for_each(Node::until_announced);
        Self { nodes, pods, underlay, files }
    }

    /// Puts `to` for `from` in the file of node `number`, 1 and up, and reloads it.
    ///
    /// # Panics
    /// When `from` is not there, or the daemon refuses.
    pub fn reload(&mut self, number: usize, from: &str, to: &str) {
        let (file, fleet) = &mut self.files[number - 1];
        assert!(file.contains(from), "{from:?} is not in\n{file}");
        *file = file.replace(from, to);
        fleet.write(file);
        self.nodes[number - 1].ctl("reload");
    }

    /// A pod's namespace.
    ///
    /// # Panics
    /// When the plan has none of that name.
    #[must_use]
    pub fn pod(&self, name: &str) -> &Namespace {
        self.pods.get(name).unwrap_or_else(|| panic!("no pod {name:?}"))
    }

    /// Every namespace that has network protocols of its own: pods and nodes.
    #[must_use]
    pub fn spaces(&self) -> Vec<&Namespace> {
        self.pods.values().chain(&self.underlay.nodes).collect()
    }

    /// The sum over all nodes of what was dropped for `reason`.
    #[must_use]
    pub fn drops(&self, reason: &str) -> u64 {
        self.nodes.iter().map(|node| node.drops(reason)).sum()
    }

    /// Stops every daemon where it stands, does `work`, and lets them go on, the first node first, each further one
    /// when `between` is done: what is sent meanwhile lies there in one heap.
    ///
    /// # Panics
    /// When a signal cannot be sent.
    pub fn paused(&self, work: impl FnOnce(), between: impl Fn()) {
        self.nodes.iter().for_each(|node| node.daemon.signal("STOP"));
        work();
        for (n, node) in self.nodes.iter().enumerate() {
            if n > 0 {
                between();
            }
            node.daemon.signal("CONT");
        }
    }
}

fn head(plan: &Plan<'_>, text: &str) -> String {
    let (address, peers) = if plan.v6 {
        ("2001:db8::/64", "2001:db8::1-2001:db8::2")
    } else {
        ("192.0.2.0/24", "192.0.2.1-192.0.2.2")
    };
    let keys = plan.underlay;
    format!("[underlay]\naddress = {address:?}\n{keys}\n[mesh]\npeers = [{peers:?}]\n{text}\n{SEGMENTS}")
}

/// An address that a test spells.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
}
