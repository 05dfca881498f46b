//! An attachment of a container to a network, as a runtime knows it and caches it. Not here: calling plugins.

use crate::lab::Namespace;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// One interface of one container on a network, and what its runtime wants for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_NETNS`; `None` once the namespace is gone.
    pub netns: Option<PathBuf>,
    /// `CNI_ARGS`.
    pub args: Vec<(String, String)>,
    /// Values of capabilities, by their names; a plugin gets those that it declares.
    pub capabilities: Map<String, Value>,
}

impl Attachment {
    /// `eth0` of a container whose namespace is `pod`, with no further wishes; the container is called as the namespace.
    #[must_use]
    pub fn new(pod: &Namespace) -> Self {
        Self {
            container: pod.name().to_owned(),
            ifname: "eth0".to_owned(),
            netns: Some(pod.path()),
            args: Vec::new(),
            capabilities: Map::new(),
        }
    }

    /// The same of a container with another name.
    #[must_use]
    pub fn of(mut self, container: &str) -> Self {
        container.clone_into(&mut self.container);
        self
    }

    /// The same under another interface name.
    #[must_use]
    pub fn at(mut self, ifname: &str) -> Self {
        ifname.clone_into(&mut self.ifname);
        self
    }

    /// The same without a namespace: the runtime has forgotten it.
    #[must_use]
    pub fn without_netns(mut self) -> Self {
        self.netns = None;
        self
    }

    /// The same with a further pair in `CNI_ARGS`.
    #[must_use]
    pub fn arg(mut self, key: &str, value: &str) -> Self {
        self.args.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The same with a value for a capability.
    #[must_use]
    pub fn capability(mut self, name: &str, value: Value) -> Self {
        self.capabilities.insert(name.to_owned(), value);
        self
    }

    /// Whether both are the same attachment of a network: container and interface name.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        (&self.container, &self.ifname) == (&other.container, &other.ifname)
    }

    fn file(&self, cache: &Path, network: &str) -> PathBuf {
        // No name has a slash in it.
        cache.join(network).join(format!("{}-{}", self.container, self.ifname))
    }

    pub(super) fn store(&self, cache: &Path, network: &str, result: &Value) {
        let file = self.file(cache, network);
        let Self { container, ifname, netns, args, capabilities } = self;
        let whole = json!({"containerId": container, "ifName": ifname, "netns": netns, "cniArgs": args,
            "capabilityArgs": capabilities, "result": result});
        let written = std::fs::create_dir_all(file.parent().expect("below the cache"))
            .and_then(|()| std::fs::write(&file, whole.to_string()));
        written.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }

    pub(super) fn forget(&self, cache: &Path, network: &str) {
        let _ = std::fs::remove_file(self.file(cache, network));
    }

    pub(super) fn result(&self, cache: &Path, network: &str) -> Option<Value> {
        Some(read(&self.file(cache, network))?["result"].take())
    }

    pub(super) fn all(cache: &Path, network: &str) -> Vec<Self> {
        let files = std::fs::read_dir(cache.join(network)).into_iter().flatten().flatten();
        files.filter_map(|file| Self::parse(&read(&file.path())?)).collect()
    }

    fn parse(whole: &Value) -> Option<Self> {
        let text = |key: &str| whole[key].as_str().map(str::to_owned);
        Some(Self {
            container: text("containerId")?,
            ifname: text("ifName")?,
            netns: text("netns").map(PathBuf::from),
            args: serde_json::from_value(whole["cniArgs"].clone()).ok()?,
            capabilities: whole["capabilityArgs"].as_object()?.clone(),
        })
    }
}

fn read(file: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}
