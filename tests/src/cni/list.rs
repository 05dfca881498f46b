//! Network configuration lists, and what a runtime makes of them for one plugin (CNI 1.1.0, sections 1 and 3).

use serde_json::{Map, Value, json};

/// A release of the specification that plugins are called by here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// 0.4.0: CHECK; addresses say their family.
    V0_4_0,
    /// 1.0.0: they do so no longer.
    V1_0_0,
    /// 1.1.0: STATUS, GC, `cniVersions`.
    V1_1_0,
}

impl Release {
    /// Those that there are, oldest first.
    pub const ALL: [Self; 3] = [Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// As `cniVersion` has it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    fn parse(text: &Value) -> Option<Self> {
        Self::ALL.into_iter().find(|release| text == release.text())
    }
}

/// A network configuration list.
#[derive(Clone, Debug)]
pub struct List(Value);

impl List {
    pub(super) fn new(list: &Value) -> Self {
        let list = Self(list.clone());
        assert!(!list.name().is_empty() && !list.plugins().is_empty(), "{list:?}");
        list
    }

    /// The network's name.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0["name"].as_str().expect("a network has a name")
    }

    pub(super) fn plugins(&self) -> &[Value] {
        self.0["plugins"].as_array().expect("a list has plugins")
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        self.0[key] == true
    }

    /// The highest release that the list names in `cniVersion` or `cniVersions` and that is among `speaks`.
    pub(super) fn release(&self, speaks: &[Release]) -> Release {
        let also = self.0["cniVersions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let named = also.iter().chain([&self.0["cniVersion"]]).filter_map(Release::parse);
        let common = named.filter(|release| speaks.contains(release)).max();
        common.unwrap_or_else(|| panic!("{self:?} and a runtime that speaks {speaks:?}"))
    }

    /// The configuration that one plugin of the list is called with.
    pub(super) fn derive(
        &self,
        plugin: &Value,
        release: Release,
        capabilities: &Map<String, Value>,
        result: Option<&Value>,
        more: Option<(&str, &Value)>,
    ) -> Value {
        let mut config = plugin.as_object().expect("a plugin's configuration").clone();
        config.insert("cniVersion".to_owned(), release.text().into());
        config.insert("name".to_owned(), self.name().into());
        let declared = config.remove("capabilities").unwrap_or_default();
        let wanted = capabilities.iter().filter(|(name, _)| declared[name.as_str()] == true);
        let wanted: Map<_, _> = wanted.map(|(name, value)| (name.clone(), value.clone())).collect();
        if !wanted.is_empty() {
            config.insert("runtimeConfig".to_owned(), wanted.into());
        }
        if let Some(result) = result {
            config.insert("prevResult".to_owned(), result.clone());
        }
        if let Some((key, value)) = more {
            config.insert(key.to_owned(), value.clone());
        }
        json!(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> List {
        List::new(
            &json!({"cniVersion": "1.0.0", "cniVersions": ["0.4.0", "1.0.0", "1.1.0", "7.0.0"], "name": "blue",
            "plugins": [{"type": "one", "capabilities": {"mac": true, "ips": false}, "key": 1}]}),
        )
    }

    #[test]
    fn a_runtime_and_a_list_meet_at_the_highest_release_that_both_know() {
        assert_eq!(list().release(&Release::ALL), Release::V1_1_0);
        assert_eq!(list().release(&[Release::V0_4_0]), Release::V0_4_0);
        let plain = List::new(&json!({"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "b"}]}));
        assert_eq!(plain.release(&Release::ALL), Release::V1_0_0);
    }

    #[test]
    fn a_plugin_gets_the_capabilities_that_it_declares_and_no_word_of_the_list() {
        let mac = json!("02:00:00:00:00:01");
        let wanted = [("mac", mac.clone()), ("ips", json!(["10.0.0.1/8"])), ("portMappings", json!([]))];
        let wanted = wanted.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
        let list = list();
        let config = list.derive(&list.plugins()[0], Release::V1_0_0, &wanted, Some(&json!({"x": 1})), None);
        let expected = json!({"cniVersion": "1.0.0", "name": "blue", "type": "one", "key": 1,
            "runtimeConfig": {"mac": mac}, "prevResult": {"x": 1}});
        assert_eq!(config, expected);
        let bare = list.derive(&list.plugins()[0], Release::V0_4_0, &Map::new(), None, None);
        assert_eq!(bare, json!({"cniVersion": "0.4.0", "name": "blue", "type": "one", "key": 1}));
    }
}
