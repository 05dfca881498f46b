//! The raw copier: `copier.c`, compiled on the spot.

use super::Switch;
use crate::ground::{Ground, NODE_ADDRESSES, POD_INTERFACE, VNI};
use crate::tools::Tools;

pub(super) fn start(ground: &Ground, tools: &Tools, option: &str) -> anyhow::Result<Switch> {
    let mut switch = Switch::default();
    let pods: Vec<&str> = ground.pods.iter().map(|pod| pod.name()).collect();
    let words: Vec<String> = if ground.nodes.len() == 1 {
        vec![format!("{option}pods {} {POD_INTERFACE} {} {POD_INTERFACE}", pods[0], pods[1])]
    } else {
        let [near, far] = NODE_ADDRESSES;
        let node =
            |pod: &str, local, remote| format!("{option}nodes {pod} {POD_INTERFACE} {local} {remote} {VNI}");
        vec![node(pods[0], near, far), node(pods[1], far, near)]
    };
    for (node, words) in ground.nodes.iter().zip(words) {
        let mut copier = node.spawn(&tools.copier, &words)?;
        copier.until_it_says("ready")?;
        switch.processes.push(copier);
    }
    for pod in 0..pods.len() {
        ground.settle(pod)?;
    }
    Ok(switch)
}
