//! What a network configuration list must be to be installed, and what the daemon is asked about it. Pure but for the
//! reading of one file. Not here: what the plugin makes of its keys.

use super::PLUGIN;
use crate::ctl::DEFAULT_SOCKET;
use serde_json::{Map, Value, json};
use std::path::Path;

/// The versions of the CNI specification that the plugin speaks.
const SPOKEN: &[&str] = &["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// Those of them that a list without a version of its own offers: whoever reads `cniVersions` knows the first.
const OFFERED: &[&str] = &["0.4.0", "1.0.0", "1.1.0"];
/// The highest that plugins of others surely speak: those of today's distributions know no 1.1.0.
const COMMON: &str = "1.0.0";

/// A network configuration list, checked for form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conflist {
    text: String,
    questions: Vec<Value>,
}

impl Conflist {
    /// The list in `file`, for a daemon at `socket`.
    pub(super) fn read(file: &Path, socket: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|error| format!("cannot be read: {error}"))?;
        Self::parse(&text, socket)
    }

    /// Checks `text` and adds what it leaves open: the versions, and the daemon's socket where it is not the usual one.
    fn parse(text: &str, socket: &Path) -> Result<Self, String> {
        let mut list: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| format!("is no JSON object: {error}"))?;
        let name = list.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        if !is_name(&name) {
            return Err(format!(
                "\"name\" is {name:?}; expected a letter or digit, then letters, digits, \"_\", \".\" or \"-\""
            ));
        }
        let Some(Value::Array(plugins)) = list.get_mut("plugins") else {
            return Err("\"plugins\" is no array; expected a network configuration list".to_owned());
        };
        let (mut questions, mut alone) = (Vec::new(), true);
        for plugin in plugins {
            let Some(kind) = plugin.get("type").and_then(Value::as_str) else {
                return Err("a plugin has no \"type\"".to_owned());
            };
            alone &= kind == PLUGIN && matches!(ipam(plugin), None | Some("vswitch"));
            if kind == PLUGIN {
                questions.push(question(&name, plugin));
                if socket != Path::new(DEFAULT_SOCKET)
                    && let Value::Object(plugin) = plugin
                {
                    plugin.entry("socket").or_insert_with(|| json!(socket));
                }
            }
        }
        if questions.is_empty() {
            return Err(format!("no plugin is of type {PLUGIN:?}"));
        }
        match list.get("cniVersion") {
            None => {
                let offered: Vec<_> = OFFERED.iter().filter(|version| alone || **version <= COMMON).collect();
                list.insert("cniVersion".to_owned(), json!(COMMON));
                list.entry("cniVersions").or_insert_with(|| json!(offered));
            }
            Some(Value::String(version)) if SPOKEN.contains(&version.as_str()) => {}
            Some(other) => {
                return Err(format!("\"cniVersion\" is {other}; expected one of {}", SPOKEN.join(", ")));
            }
        }
        Ok(Self { text: format!("{:#}\n", Value::Object(list)), questions })
    }

    /// The file's text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Parameters of `cni.status`, one for each of the list's plugins that asks the daemon.
    pub(super) fn questions(&self) -> &[Value] {
        &self.questions
    }
}

/// CNI specification 1.1.0, section 1, "Configuration format": the form of a network's name.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

fn ipam(plugin: &Value) -> Option<&str> {
    plugin.get("ipam")?.get("type")?.as_str()
}

/// Whether an ADD could work: of what the plugin would ask, where the pod comes to and where addresses come from.
fn question(network: &str, plugin: &Value) -> Value {
    let mut settings = Map::new();
    for (key, setting) in
        [("segment", "segment"), ("vlan", "tag"), ("vlanMode", "vlan_mode"), ("trunks", "trunks")]
    {
        if let Some(value) = plugin.get(key).filter(|value| !value.is_null()) {
            settings.insert(setting.to_owned(), value.clone());
        }
    }
    // Who names no segment means the one that is called like the network.
    let named = ["segment", "tag"].iter().any(|key| settings.contains_key(*key));
    if !named && settings.get("vlan_mode") != Some(&json!("trunk")) {
        settings.insert("segment".to_owned(), json!(network));
    }
    let mut question = json!({"network": network, "settings": settings});
    if ipam(plugin) == Some("vswitch") {
        question["ipam"] = json!({"pools": plugin["ipam"]["pools"]});
    }
    question
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &Value) -> Result<Conflist, String> {
        Conflist::parse(&value.to_string(), Path::new(DEFAULT_SOCKET))
    }

    fn written(value: &Value) -> Value {
        serde_json::from_str(parse(value).unwrap().text()).unwrap()
    }

    #[test]
    fn a_list_without_versions_offers_what_all_its_plugins_speak() {
        let own = json!({"type": "vswitch-cni", "ipam": {"type": "vswitch", "pools": []}});
        let all = json!(["0.4.0", "1.0.0", "1.1.0"]);
        for (plugins, spoken) in [
            (json!([own]), all.clone()),
            (json!([{"type": "vswitch-cni"}]), all),
            (json!([own, {"type": "portmap"}]), json!(["0.4.0", "1.0.0"])),
            (json!([{"type": "vswitch-cni", "ipam": {"type": "host-local"}}]), json!(["0.4.0", "1.0.0"])),
        ] {
            let list = written(&json!({"name": "blue", "plugins": plugins}));
            assert_eq!((&list["cniVersion"], &list["cniVersions"]), (&json!("1.0.0"), &spoken), "{list}");
        }
    }

    #[test]
    fn a_version_that_was_asked_for_is_left_alone() {
        let list = json!({"name": "blue", "cniVersion": "0.4.0", "plugins": [{"type": "vswitch-cni"}]});
        assert_eq!(written(&list), list);
    }

    #[test]
    fn the_plugin_asks_where_the_installation_asked() {
        let list = json!({"name": "blue", "plugins": [{"type": "vswitch-cni"}, {"type": "tuning"}]});
        let text = Conflist::parse(&list.to_string(), Path::new("/a/b")).unwrap().text;
        let list: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&list["plugins"][0]["socket"], &list["plugins"][1]["socket"]),
            (&json!("/a/b"), &Value::Null)
        );
    }

    #[test]
    fn the_daemon_is_asked_about_each_of_its_networks() {
        let pools = json!([{"subnet": "10.244.0.0/16"}]);
        let list = json!({"name": "blue", "plugins": [
            {"type": "vswitch-cni", "segment": "red", "mtu": 1400, "ipam": {"type": "vswitch", "pools": pools}},
            {"type": "portmap"},
            {"type": "vswitch-cni"},
            {"type": "vswitch-cni", "vlanMode": "trunk"},
            {"type": "vswitch-cni", "vlan": 7, "vlanMode": "native-tagged", "trunks": [8], "ipam": {"type": "host-local"}},
        ]});
        let expected = [
            json!({"network": "blue", "settings": {"segment": "red"}, "ipam": {"pools": pools}}),
            json!({"network": "blue", "settings": {"segment": "blue"}}),
            json!({"network": "blue", "settings": {"vlan_mode": "trunk"}}),
            json!({"network": "blue", "settings": {"tag": 7, "vlan_mode": "native-tagged", "trunks": [8]}}),
        ];
        assert_eq!(parse(&list).unwrap().questions(), expected);
    }

    #[test]
    fn what_is_no_list_for_the_plugin_is_refused_with_the_reason() {
        let plugins = json!([{"type": "vswitch-cni"}]);
        for (list, reason) in [
            (json!([]), "no JSON object"),
            (json!({"plugins": plugins}), "\"name\" is \"\""),
            (json!({"name": "a/b", "plugins": plugins}), "\"a/b\""),
            (json!({"name": "-a", "plugins": plugins}), "\"-a\""),
            (json!({"name": "a", "type": "vswitch-cni"}), "network configuration list"),
            (json!({"name": "a", "plugins": [{}]}), "no \"type\""),
            (json!({"name": "a", "plugins": [{"type": "bridge"}]}), "no plugin is of type"),
            (json!({"name": "a", "cniVersion": "2.0.0", "plugins": plugins}), "0.4.0, 1.0.0, 1.1.0"),
            (json!({"name": "a", "cniVersion": 1, "plugins": plugins}), "0.4.0"),
        ] {
            let error = parse(&list).unwrap_err();
            assert!(error.contains(reason), "{list}: {error}");
        }
    }
}
