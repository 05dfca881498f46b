//! A container runtime's side of CNI, of our own: network configuration lists, chains of plugins, the cache of results
//! and of attachments, and every verb, as the specification (versions 0.4.0, 1.0.0, 1.1.0) wants them of a runtime.
//!
//! Strict: an answer that is not of the form that its version has is a failure of the test. Pods are namespaces of the
//! laboratory, and a plugin runs in the namespace that stands for its host. Not here: what a test expects of a network.

mod attachment;
mod form;
mod host;
mod list;
mod plugin;
mod pod;

pub use attachment::Attachment;
pub use form::{check_result, check_versions};
pub use host::{Keeper, STOCK, directories, host_local, host_local_leases, in_cni, stock, vswitch};
pub use list::{List, Release};
pub use plugin::{Execution, Failure, Verb};
pub use pod::{Inside, attached, left, until_left};

use crate::daemon::{Directory, Said};
use crate::lab::Namespace;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// One network on one host, as a runtime holds it.
#[derive(Debug)]
pub struct Runner {
    /// The namespace that stands for the host.
    host: PathBuf,
    list: List,
    path: Vec<PathBuf>,
    speaks: Vec<Release>,
    cache: Directory,
    /// Words before every plugin, such as those of a tracer.
    before: Vec<String>,
}

/// How an ADD is to end before its time.
#[derive(Clone, Copy, Debug)]
pub enum Kill {
    /// By SIGKILL to the plugin, so long after its start.
    After(Duration),
}

impl Runner {
    /// A runtime on `host` with this network configuration list; plugins are looked for in `path`, in that order.
    ///
    /// # Panics
    /// When `list` is no network configuration list.
    #[must_use]
    pub fn new(host: &Namespace, path: &[PathBuf], list: &Value) -> Self {
        let (list, path) = (List::new(list), path.to_vec());
        let speaks = vec![Release::V0_4_0, Release::V1_0_0, Release::V1_1_0];
        Self { host: host.path(), list, path, speaks, cache: Directory::in_memory(), before: Vec::new() }
    }

    /// The same runtime of another age: it speaks these releases of the specification only.
    #[must_use]
    pub fn speaking(mut self, speaks: &[Release]) -> Self {
        self.speaks = speaks.to_vec();
        self
    }

    /// The same runtime whose plugins are started by way of another program, such as a tracer; these are its words.
    #[must_use]
    pub fn by_way_of(mut self, before: &[&str]) -> Self {
        self.before = before.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Puts another configuration in place of the one so far; what is cached stays.
    ///
    /// # Panics
    /// When `list` is no network configuration list.
    pub fn configure(&mut self, list: &Value) {
        self.list = List::new(list);
    }

    /// The network's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.list.name()
    }

    /// The release that runtime and list have in common (CNI 1.1.0, `cniVersions`).
    #[must_use]
    pub fn release(&self) -> Release {
        self.list.release(&self.speaks)
    }

    /// Runs every plugin's ADD in order, each with the result of the one before it, and caches the last result.
    ///
    /// # Errors
    /// What the first plugin that fails says; nothing is cached then.
    ///
    /// # Panics
    /// When a plugin answers in a form that the specification does not have.
    pub fn add(&self, attachment: &Attachment) -> Result<Value, Failure> {
        self.add_or_die(attachment, None)
    }

    /// The same; with `kill` the last plugin of the chain may be killed, as that says.
    ///
    /// # Errors
    /// As [`Runner::add`]; [`Failure::killed`] tells when the plugin died of the signal.
    ///
    /// # Panics
    /// As [`Runner::add`].
    pub fn add_or_die(&self, attachment: &Attachment, kill: Option<Kill>) -> Result<Value, Failure> {
        let mut result = None;
        let plugins = self.list.plugins();
        for (n, plugin) in plugins.iter().enumerate() {
            let config = self.derive(plugin, attachment, result.as_ref());
            let kill = kill.filter(|_| n + 1 == plugins.len());
            let said = self.execute(Verb::Add, plugin, Some(attachment), &config, kill);
            let answer = Failure::or_answer(Verb::Add, plugin, &said)?;
            let answer: Value = serde_json::from_str(&answer)
                .unwrap_or_else(|error| panic!("{plugin} ADD: {error}: {said:?}"));
            check_result(self.release(), &answer)
                .unwrap_or_else(|wrong| panic!("{plugin} ADD: {wrong}: {answer}"));
            result = Some(answer);
        }
        let result = result.expect("a list has a plugin");
        attachment.store(&self.cache.0, self.name(), &result);
        Ok(result)
    }

    /// Runs every plugin's CHECK with the cached result; a list with `disableCheck` is not checked.
    ///
    /// # Errors
    /// What the first plugin that fails says.
    ///
    /// # Panics
    /// When the attachment was never added: a runtime must not ask then.
    pub fn check(&self, attachment: &Attachment) -> Result<(), Failure> {
        if self.list.flag("disableCheck") {
            return Ok(());
        }
        let result = self.cached(attachment).expect("only what was added may be checked");
        for plugin in self.list.plugins() {
            let config = self.derive(plugin, attachment, Some(&result));
            let said = self.execute(Verb::Check, plugin, Some(attachment), &config, None);
            Failure::or_answer(Verb::Check, plugin, &said)?;
        }
        Ok(())
    }

    /// Runs every plugin's DEL, last plugin first, with the cached result where there is one, and forgets that.
    ///
    /// # Errors
    /// What the first plugin that fails says; the cache is left as it was then.
    pub fn del(&self, attachment: &Attachment) -> Result<(), Failure> {
        self.del_or_die(attachment, None)
    }

    /// The same; with `kill` the first plugin that is asked may be killed, as that says.
    ///
    /// # Errors
    /// As [`Runner::del`]; [`Failure::killed`] tells when the plugin died of the signal.
    pub fn del_or_die(&self, attachment: &Attachment, kill: Option<Kill>) -> Result<(), Failure> {
        let result = self.cached(attachment);
        let mut kill = kill;
        for plugin in self.list.plugins().iter().rev() {
            let config = self.derive(plugin, attachment, result.as_ref());
            let said = self.execute(Verb::Del, plugin, Some(attachment), &config, kill.take());
            Failure::or_answer(Verb::Del, plugin, &said)?;
        }
        attachment.forget(&self.cache.0, self.name());
        Ok(())
    }

    /// Collects garbage: DEL of what is cached and not `valid`, then, from release 1.1.0 on and unless the list has
    /// `disableGC`, every plugin's GC with the valid attachments.
    ///
    /// # Errors
    /// What the first plugin that fails says.
    pub fn gc(&self, valid: &[Attachment]) -> Result<(), Failure> {
        for stale in self.attachments().iter().filter(|cached| !valid.iter().any(|one| one.is(cached))) {
            self.del(stale)?;
        }
        self.gc_plugins(Some(valid))
    }

    /// Every plugin's GC alone, as of a runtime that has lost its cache; with `None` it does not say which attachments
    /// are valid.
    ///
    /// # Errors
    /// What the first plugin that fails says.
    pub fn gc_plugins(&self, valid: Option<&[Attachment]>) -> Result<(), Failure> {
        if self.release() < Release::V1_1_0 || self.list.flag("disableGC") {
            return Ok(());
        }
        let valid: Option<Value> = valid.map(|valid| {
            valid.iter().map(|one| json!({"containerID": one.container, "ifname": one.ifname})).collect()
        });
        self.ask_all(Verb::Gc, valid.as_ref().map(|valid| ("cni.dev/valid-attachments", valid)))
    }

    /// Asks every plugin for its STATUS, from release 1.1.0 on.
    ///
    /// # Errors
    /// What the first plugin that cannot serve an ADD says.
    pub fn status(&self) -> Result<(), Failure> {
        if self.release() < Release::V1_1_0 {
            return Ok(());
        }
        self.ask_all(Verb::Status, None)
    }

    fn ask_all(&self, verb: Verb, more: Option<(&str, &Value)>) -> Result<(), Failure> {
        for plugin in self.list.plugins() {
            let config = self.list.derive(plugin, self.release(), &Map::new(), None, more);
            let said = self.execute(verb, plugin, None, &config, None);
            Failure::or_answer(verb, plugin, &said)?;
        }
        Ok(())
    }

    /// The releases that the list's plugin of this type supports, as it says.
    ///
    /// # Panics
    /// When its answer has not the form of VERSION's.
    #[must_use]
    pub fn versions(&self, plugin: &str) -> Vec<String> {
        let config = json!({"cniVersion": self.release().text()});
        let said = self.execute(Verb::Version, &json!({"type": plugin}), None, &config, None);
        assert_eq!(said.code, 0, "{plugin} VERSION: {said:?}");
        check_versions(&said.json()).unwrap_or_else(|wrong| panic!("{plugin} VERSION: {wrong}: {said:?}"))
    }

    /// Calls the first plugin as told, with nothing looked at: for what no runtime should do. `edit` changes what the
    /// runtime would have given it.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn call(&self, verb: Verb, attachment: &Attachment, edit: impl FnOnce(&mut Execution)) -> Said {
        let plugin = &self.list.plugins()[0];
        let config = self.derive(plugin, attachment, self.cached(attachment).as_ref());
        let mut execution = self.execution(verb, plugin, Some(attachment), &config);
        edit(&mut execution);
        execution.run()
    }

    /// The result of the attachment's last ADD.
    #[must_use]
    pub fn cached(&self, attachment: &Attachment) -> Option<Value> {
        attachment.result(&self.cache.0, self.name())
    }

    /// What was added and not deleted, by the cache.
    #[must_use]
    pub fn attachments(&self) -> Vec<Attachment> {
        Attachment::all(&self.cache.0, self.name())
    }

    fn derive(&self, plugin: &Value, attachment: &Attachment, result: Option<&Value>) -> Value {
        self.list.derive(plugin, self.release(), &attachment.capabilities, result, None)
    }

    fn execution(
        &self,
        verb: Verb,
        plugin: &Value,
        attachment: Option<&Attachment>,
        config: &Value,
    ) -> Execution {
        let kind = plugin["type"].as_str().expect("every plugin has a type");
        let found = self.path.iter().map(|directory| directory.join(kind)).find(|file| file.is_file());
        let program = found.unwrap_or_else(|| panic!("no plugin {kind:?} in {:?}", self.path));
        Execution::new(&self.host, &self.before, &program, verb, attachment, &self.path, config)
    }

    fn execute(
        &self,
        verb: Verb,
        plugin: &Value,
        attachment: Option<&Attachment>,
        config: &Value,
        kill: Option<Kill>,
    ) -> Said {
        let mut execution = self.execution(verb, plugin, attachment, config);
        execution.kill = kill;
        execution.run()
    }
}
