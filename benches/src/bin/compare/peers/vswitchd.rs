//! vswitchd from a TOML file, the same bytes on both nodes.

use super::Switch;
use crate::ground::{Ground, NODE_ADDRESSES, POD_ADDRESSES, POD_INTERFACE, POD_MTU, Scene, VNI};
use crate::place::FILES;
use crate::tools::Tools;
use std::fmt::Write as _;

/// The file for `scene` with so many pods; `more` is put into it as it is.
pub(crate) fn file(scene: Scene, pods: usize, more: &str) -> String {
    let mut text = more.to_owned();
    if scene != Scene::Pods {
        let [near, far] = NODE_ADDRESSES;
        let _ = write!(
            text,
            "[underlay]\naddress = \"192.0.2.0/24\"\n\n[mesh]\npeers = [\"{near}\", \"{far}\"]\n\n\
             [[segment]]\nname = \"pods\"\nvlan = 10\nvni = {VNI}\n\n"
        );
    }
    for (index, address) in POD_ADDRESSES.iter().enumerate().take(pods) {
        let number = index + 1;
        let node = if scene != Scene::Pods && number == 2 { 2 } else { 1 };
        let _ = write!(
            text,
            "[[port]]\nname = \"tap-{number}\"\nnode = \"node-{node}\"\nnetns = \"pod-{number}\"\n\
             ifname = \"{POD_INTERFACE}\"\ntag = 10\nmtu = {POD_MTU}\naddresses = [\"{address}/24\"]\n\n"
        );
    }
    text
}

/// Starts one on each node, with `more` in its file. Sockets and state are apart.
pub(crate) fn start(ground: &Ground, tools: &Tools, more: &str) -> anyhow::Result<Switch> {
    let file = file(ground.scene, ground.pods.len(), more);
    let mut switch = Switch::default();
    for node in &ground.nodes {
        let name = node.name();
        let path = format!("{FILES}/{name}.toml");
        let control =
            format!("[control]\nsocket = \"{FILES}/{name}.sock\"\nstate = \"{FILES}/{name}.json\"\n\n");
        std::fs::write(&path, control + &file)?;
        let words = format!("--config {path} --node {name} --log-level warn");
        switch.processes.push(node.spawn(&tools.vswitchd, &words)?);
    }
    Ok(switch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::vswitchd::config::Config;

    #[test]
    fn the_files_are_good() {
        for scene in Scene::ALL {
            for more in ["", "[datapath]\noffload = false\n\n"] {
                let text = file(scene, 3, more);
                assert!(Config::parse(&text, "vswitchd.toml").is_ok(), "{text}");
            }
        }
    }
}
