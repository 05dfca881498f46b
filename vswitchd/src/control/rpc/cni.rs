//! The words between the CNI plugin and the daemon: the parameters and answers of the methods `cni.*`.
//!
//! Form only. Not here: what they do (see `control/cni`), nor the plugin's own configuration.
//!
//! | method | descriptor | answer |
//! |---|---|---|
//! | `cni.add` | the pod's network namespace | [`CniAdded`] |
//! | `cni.del` | none | [`CniRemoved`] with `removed` |
//! | `cni.check` | optionally the pod's network namespace | [`CniChecked`] |
//! | `cni.gc` | none | [`CniCollected`] |
//! | `cni.gone` | none | the same, and nothing is removed |
//! | `cni.status` | none | `null` |
//! | `cni.list` | none | array of flat objects |

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::net::IpAddr;

/// An attachment's name: one interface of one container (CNI specification 1.1.0, "attachment").
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CniKey {
    /// CNI_CONTAINERID.
    pub container: String,
    /// CNI_IFNAME.
    pub ifname: String,
}

/// Parameters of `cni.add`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CniAdd {
    /// CNI_CONTAINERID.
    pub container: String,
    /// CNI_IFNAME: what the interface is called in the pod, 1..=15 bytes.
    pub ifname: String,
    /// The network's name.
    pub network: String,
    /// CNI_NETNS: where the namespace is; its descriptor comes beside the request.
    pub netns: String,
    /// Keys and values of a `[[port]]` table that are not given by the attachment itself: its segment, VLANs, MAC, MTU,
    /// what it may send and how fast.
    #[serde(default)]
    pub settings: Map<String, Value>,
    /// The pod's addresses, as a delegated IPAM gave them: `10.1.0.5/16`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Pools of the daemon's own IPAM, instead of `addresses`.
    #[serde(default)]
    pub ipam: Option<CniIpam>,
    /// The host's own port in the segment, where the network asks for one.
    #[serde(default)]
    pub gateway: Option<CniGateway>,
    /// The plugin's network configuration, whole: kept, and given back when the attachment goes.
    #[serde(default)]
    pub conf: Value,
}

/// What the daemon's own IPAM is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CniIpam {
    /// The network's pools (see `ipam::Pools`).
    pub pools: Value,
    /// Addresses that the pod is to have, at most one of each family; any from the node's blocks where none is said.
    #[serde(default)]
    pub wanted: Vec<IpAddr>,
}

/// The host's own port in a network's segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CniGateway {
    /// Its name; by default `vgw` and the VLAN's number.
    #[serde(default)]
    pub interface: Option<String>,
    /// Its addresses with their prefix lengths. With the daemon's own IPAM none need be given: the first of the node's
    /// block of each pool.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Whether what pods send to the world outside wears the node's own address.
    #[serde(default)]
    pub masquerade: bool,
    /// Whether the same addresses are on every node: then nothing of it crosses the mesh.
    #[serde(default)]
    pub anycast: bool,
}

/// Parameters of `cni.gc`. Those of `cni.del` and `cni.check` are a [`CniKey`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CniGc {
    /// The network's name.
    pub network: String,
    /// Those that are to stay. Null: only what is provably gone goes.
    #[serde(default)]
    pub attachments: Option<Vec<CniKey>>,
}

/// Parameters of `cni.gone`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CniNetwork {
    /// The network's name.
    pub network: String,
}

/// Parameters of `cni.status`: what an ADD would ask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CniStatus {
    /// The network's name.
    pub network: String,
    /// As in [`CniAdd`].
    #[serde(default)]
    pub settings: Map<String, Value>,
    /// As in [`CniAdd`].
    #[serde(default)]
    pub ipam: Option<CniIpam>,
}

/// One of a pod's addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniAddress {
    /// With its prefix length: `10.244.3.7/16`.
    pub address: String,
    /// Who forwards what leaves the subnet.
    pub gateway: Option<IpAddr>,
}

/// The answer of `cni.add`: what the pod has got, as far as the daemon gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniAdded {
    /// The port of the switch.
    pub port: String,
    /// The interface's MAC address.
    pub mac: String,
    /// Its MTU in bytes of IP packet.
    pub mtu: u16,
    /// What the pod's interface is to be given.
    pub addresses: Vec<CniAddress>,
    /// The host's own port.
    pub gateway: Option<CniGatewayPort>,
}

/// The host's own port, as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniGatewayPort {
    /// Its interface on the host.
    pub interface: String,
    /// Its MAC address.
    pub mac: String,
    /// Its addresses with their prefix lengths.
    pub addresses: Vec<String>,
}

/// An attachment that is gone: the answer of `cni.del`, and one of those of `cni.gc`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CniRemoved {
    /// CNI_CONTAINERID.
    pub container: String,
    /// CNI_IFNAME.
    pub ifname: String,
    /// Whether there was one.
    #[serde(default)]
    pub removed: bool,
    /// The configuration that it was made with; null where there was none.
    #[serde(default)]
    pub conf: Value,
    /// The addresses that it had.
    #[serde(default)]
    pub addresses: Vec<String>,
}

/// The answer of `cni.gc` and `cni.gone`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CniCollected {
    /// Those that are gone.
    pub removed: Vec<CniRemoved>,
}

/// The answer of `cni.check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniChecked {
    /// The port of the switch.
    pub port: String,
    /// The interface's MAC address.
    pub mac: String,
    /// Its MTU in bytes of IP packet.
    pub mtu: u16,
    /// What the pod's interface was given.
    pub addresses: Vec<CniAddress>,
    /// Always `up`: anything else is an error.
    pub link: String,
}
