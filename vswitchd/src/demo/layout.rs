//! What the demo builds, as the configuration file says it: nodes and pods, and a picture of them.

use crate::config::Config;
use anyhow::{Context as _, ensure};
use std::net::{IpAddr, Ipv4Addr};

/// The nodes and their underlay addresses, those of `[mesh] peers`.
const NODES: [(&str, Ipv4Addr); 2] =
    [("node-1", Ipv4Addr::new(10, 77, 0, 1)), ("node-2", Ipv4Addr::new(10, 77, 0, 2))];
/// The prefix length of the underlay.
pub(super) const UNDERLAY_PREFIX: u8 = 24;

/// A node of the demo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodePlan {
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
}

/// A pod: a network namespace with one port of the switch in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    /// Its name, and its namespace's.
    pub(super) name: String,
    /// The number of its node.
    pub(super) node: usize,
    pub(super) vlan: u16,
    pub(super) v4: IpAddr,
    pub(super) v6: IpAddr,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) nodes: Vec<NodePlan>,
    pub(super) pods: Vec<Pod>,
}

impl Layout {
    /// What the configuration `text` asks for.
    pub(super) fn of(text: &str) -> anyhow::Result<Self> {
        let config = Config::parse(text, "demo.toml").map_err(|errors| anyhow::anyhow!("{errors}"))?;
        let nodes = NODES.map(|(name, address)| NodePlan { name: name.to_owned(), address });
        let mut pods = Vec::new();
        for port in &config.ports {
            let pod = || {
                let node = port.nodes.as_ref()?.first()?;
                let address = |v4| port.addresses.iter().map(|(ip, _)| *ip).find(|ip| ip.is_ipv4() == v4);
                Some(Pod {
                    name: port.netns.clone()?,
                    node: nodes.iter().position(|known| known.name == *node)?,
                    vlan: port.tag?,
                    v4: address(true)?,
                    v6: address(false)?,
                })
            };
            let pod = pod().with_context(|| {
                format!("port \"{}\" of the demo lacks node, netns, VLAN or an address", port.name)
            })?;
            pods.push(pod);
        }
        for node in &nodes {
            let peer = config.mesh.iter().any(|peer| peer.address == IpAddr::V4(node.address));
            ensure!(peer, "{} of the demo is not among the peers", node.address);
        }
        Ok(Self { nodes: nodes.to_vec(), pods })
    }

    /// Pairs of pods, each once, that are in the same VLAN or not.
    pub(super) fn pairs(&self, same_vlan: bool) -> impl Iterator<Item = (&Pod, &Pod)> {
        let rest = |i| self.pods.iter().skip(i + 1);
        self.pods
            .iter()
            .enumerate()
            .flat_map(move |(i, pod)| rest(i).map(move |other| (pod, other)))
            .filter(move |(pod, other)| (pod.vlan == other.vlan) == same_vlan)
    }

    /// The picture that greets.
    pub(super) fn picture(&self) -> String {
        let mut text =
            String::from("Two nodes, four pods, two VLANs; one file, configs/demo.toml, on both nodes:\n\n");
        let boxes: Vec<_> = (0..self.nodes.len()).map(|number| self.node_box(number)).collect();
        let height = boxes.iter().map(Vec::len).max().unwrap_or(0);
        for line in 0..height {
            // The wire is between the last lines inside, those of the daemons.
            let wire = if line + 2 == height { " ==== VXLAN ==== " } else { "                 " };
            let parts: Vec<_> =
                boxes.iter().map(|lines| lines.get(line).map_or("", String::as_str)).collect();
            text.push_str(&format!("  {}\n", parts.join(wire).trim_end()));
        }
        text.push_str(
            "\nAll pods are in one IP network: nothing but the VLAN keeps blue and green apart.\n\
             All of it lives in private namespaces; this machine's own network is not touched.\n",
        );
        text
    }

    /// A node with its pods and its daemon, in lines of one width.
    fn node_box(&self, number: usize) -> Vec<String> {
        let Some(node) = self.nodes.get(number) else { return Vec::new() };
        let pods = self.pods.iter().filter(|pod| pod.node == number);
        let mut inside: Vec<_> =
            pods.map(|pod| (pod.name.as_str(), format!("VLAN {}", pod.vlan), pod.v4.to_string())).collect();
        inside.push(("vswitchd", String::new(), node.address.to_string()));
        let mut widths = [0; 3];
        for (name, vlan, address) in &inside {
            for (width, text) in widths.iter_mut().zip([name, vlan.as_str(), address]) {
                *width = text.len().max(*width);
            }
        }
        let [a, b, c] = widths;
        let inner = a + b + c + 4;
        let edge = format!("+{}+", "-".repeat(inner + 2));
        let mut lines = vec![format!(" {:w$}", node.name, w = inner + 3), edge.clone()];
        lines.extend(inside.iter().map(|(name, vlan, ip)| format!("| {name:a$}  {vlan:b$}  {ip:c$} |")));
        lines.push(edge);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_makes_two_pods_on_each_of_two_nodes_in_two_vlans() {
        let layout = Layout::of(crate::demo::CONFIG).unwrap();
        let pods: Vec<_> = layout
            .pods
            .iter()
            .map(|pod| (pod.name.as_str(), pod.node, pod.vlan, pod.v4.to_string()))
            .collect();
        let expected = [
            ("blue-1", 0, 10, "10.10.0.1".to_owned()),
            ("green-1", 0, 20, "10.10.1.1".to_owned()),
            ("blue-2", 1, 10, "10.10.0.2".to_owned()),
            ("green-2", 1, 20, "10.10.1.2".to_owned()),
        ];
        assert_eq!(pods, expected);
        assert_eq!((layout.pairs(true).count(), layout.pairs(false).count()), (2, 4));
    }

    #[test]
    fn a_file_that_is_not_the_demos_is_refused_with_a_reason() {
        let short = "[underlay]\naddress = \"10.77.0.0/24\"\n[[port]]\nname = \"a\"\n";
        assert!(Layout::of(short).unwrap_err().to_string().contains("port \"a\""));
        let lonely = "[underlay]\naddress = \"10.77.0.0/24\"\n";
        assert!(Layout::of(lonely).unwrap_err().to_string().contains("10.77.0.1"));
    }

    #[test]
    fn the_picture_shows_every_node_and_pod_and_fits_a_terminal() {
        let layout = Layout::of(crate::demo::CONFIG).unwrap();
        let picture = layout.picture();
        assert!(picture.lines().all(|line| line.len() <= 100), "{picture}");
        let names = layout.pods.iter().map(|pod| &pod.name).chain(layout.nodes.iter().map(|node| &node.name));
        for name in names {
            assert!(picture.contains(name.as_str()), "{name}\n{picture}");
        }
    }
}
