//! The kernel's bridge with a veth per pod, and between nodes its VXLAN device, as iproute2 makes them.

use super::Switch;
use crate::ground::{Ground, NODE_ADDRESSES, POD_INTERFACE, POD_MTU, UNDERLAY, VNI};

pub(super) fn start(ground: &Ground) -> anyhow::Result<Switch> {
    for node in &ground.nodes {
        node.ip("link add br0 type bridge")?;
        node.ip("link set br0 up")?;
    }
    for (pod, namespace) in ground.pods.iter().enumerate() {
        let (node, port) = (ground.node_of(pod), format!("port-{}", pod + 1));
        node.ip(&format!("link add {port} type veth peer name {POD_INTERFACE} netns {}", namespace.name()))?;
        node.ip(&format!("link set {port} mtu {POD_MTU} master br0 up"))?;
        ground.settle(pod)?;
    }
    if let [first, second] = ground.nodes.as_slice() {
        let [near, far] = NODE_ADDRESSES;
        for (node, local, remote) in [(first, near, far), (second, far, near)] {
            node.ip(&format!(
                "link add vxlan0 type vxlan id {VNI} local {local} remote {remote} dstport 4789 dev {UNDERLAY}"
            ))?;
            node.ip("link set vxlan0 master br0 up")?;
        }
    }
    Ok(Switch::default())
}
