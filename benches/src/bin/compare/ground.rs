//! The ground a switch is put on: pods and nodes as namespaces, and between two nodes an underlay.
//!
//! Made anew for each turn of each peer, so that none inherits another's state. No switch here.

use crate::place::Namespace;

/// VNI of the segment in every scene of two nodes.
pub(crate) const VNI: u32 = 7700;
/// MTU of the pods, in bytes.
pub(crate) const POD_MTU: u32 = 1500;
/// MTU of the underlay: the pods' and VXLAN's 50 bytes over IPv4, rounded up.
const UNDERLAY_MTU: u32 = 1600;
/// Ends of the underlay.
pub(crate) const UNDERLAY: &str = "underlay";

/// Where the pods are, and what lies between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scene {
    /// Two pods on one node.
    Pods,
    /// Two nodes with a pod each, joined by VXLAN; superpackets pass the underlay whole.
    Nodes,
    /// The same, and the underlay carries nothing longer than its MTU.
    Segmented,
}

impl Scene {
    pub(crate) const ALL: [Self; 3] = [Self::Pods, Self::Nodes, Self::Segmented];

    /// The word for it on the command line and in results.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Nodes => "nodes",
            Self::Segmented => "segmented",
        }
    }

    /// What a reader is told.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Pods => "Two pods on one host",
            Self::Nodes => "Two nodes, VXLAN; superpackets pass the underlay whole",
            Self::Segmented => "Two nodes, VXLAN; the underlay must segment",
        }
    }
}

/// Addresses of the pods, each of the node of the same number if the scene has that many nodes.
pub(crate) const POD_ADDRESSES: [&str; 3] = ["10.77.0.1", "10.77.0.2", "10.77.0.3"];
const POD_NAMES: [&str; 3] = ["pod-1", "pod-2", "pod-3"];
/// Underlay addresses of the nodes.
pub(crate) const NODE_ADDRESSES: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
/// The pods' interface.
pub(crate) const POD_INTERFACE: &str = "eth0";

/// Namespaces of a scene.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) scene: Scene,
    pub(crate) pods: Vec<Namespace>,
    /// One or two.
    pub(crate) nodes: Vec<Namespace>,
}

impl Ground {
    /// Makes what `scene` needs before there is a switch, with two pods.
    pub(crate) fn new(scene: Scene) -> anyhow::Result<Self> {
        Self::with_pods(scene, 2)
    }

    /// The same with so many pods, three at most; the third is on the first node.
    pub(crate) fn with_pods(scene: Scene, pods: usize) -> anyhow::Result<Self> {
        let pods =
            POD_NAMES.into_iter().take(pods).map(Namespace::new).collect::<anyhow::Result<Vec<_>>>()?;
        let mut nodes = vec![Namespace::new("node-1")?];
        if scene != Scene::Pods {
            nodes.push(Namespace::new("node-2")?);
        }
        let ground = Self { scene, pods, nodes };
        if let [first, second] = ground.nodes.as_slice() {
            first
                .ip(&format!("link add {UNDERLAY} type veth peer name {UNDERLAY} netns {}", second.name()))?;
            for (node, address) in ground.nodes.iter().zip(NODE_ADDRESSES) {
                node.ip(&format!("address add {address}/24 dev {UNDERLAY}"))?;
                node.ip(&format!("link set {UNDERLAY} mtu {UNDERLAY_MTU} up"))?;
                if scene == Scene::Segmented {
                    node.run("ethtool", &format!("-K {UNDERLAY} {SUPERPACKETS}"))?;
                }
            }
        }
        Ok(ground)
    }

    /// The node of the pod with this index.
    pub(crate) fn node_of(&self, pod: usize) -> &Namespace {
        self.nodes.get(pod).unwrap_or(&self.nodes[0])
    }

    /// Gives a pod whose interface is there its address, and sets it up.
    pub(crate) fn settle(&self, pod: usize) -> anyhow::Result<()> {
        self.pods[pod].ip(&format!("address add {}/24 dev {POD_INTERFACE}", POD_ADDRESSES[pod]))?;
        self.pods[pod].ip(&format!("link set {POD_INTERFACE} mtu {POD_MTU} up"))
    }
}

/// Takes from an interface what lets the kernel leave the cutting to it: of UDP trains, of tunnelled superframes with
/// and without an outer checksum, and of the nodes' own TCP.
const SUPERPACKETS: &str = "tx-udp-segmentation off tx-udp_tnl-segmentation off \
     tx-udp_tnl-csum-segmentation off tso off";
