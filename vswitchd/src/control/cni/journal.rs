//! What has been attached, and must outlive the daemon: the journal of attachments, a file beside the state file.
//!
//! Not here: carrying anything out, and which addresses are free (see the ipam room).
//!
//! ```json
//! {"version":1,"boot":"1f6c…","book":{…},
//!  "attachments":[{"container":"c1","ifname":"eth0","network":"blue","netns":"/run/netns/c1",
//!                  "namespace":{"device":4,"inode":4026532300},"port":"cni0f3c21a9b4e7",
//!                  "settings":{"segment":"blue"},"addresses":[{"address":"10.1.0.5/16","gateway":null}],
//!                  "gateway":null,"conf":{…},"gone":false}]}
//! ```

use crate::config::Prefix;
use crate::control::rpc::cni::{CniAddress, CniGateway, CniKey};
use crate::control::state::{StateError, replace};
use crate::ipam::Book;
use crate::sys::netns::NamespaceId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The version of the file that this daemon writes, and the newest that it reads.
const VERSION: u64 = 1;

/// Which namespace it is, in one life of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Namespace {
    device: u64,
    inode: u64,
}

impl From<NamespaceId> for Namespace {
    fn from(id: NamespaceId) -> Self {
        let (device, inode) = id.numbers();
        Self { device, inode }
    }
}

/// One interface of one container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Attachment {
    pub(super) container: String,
    pub(super) ifname: String,
    pub(super) network: String,
    /// Where its namespace was.
    pub(super) netns: String,
    /// Which namespace it was; of the life of the machine that the journal names.
    pub(super) namespace: Namespace,
    /// The switch's port.
    pub(super) port: String,
    /// Keys of its `[[port]]` table.
    pub(super) settings: Map<String, Value>,
    pub(super) addresses: Vec<CniAddress>,
    /// The host's own port that it asked for, with all that is left to the daemon filled in.
    pub(super) gateway: Option<CniGateway>,
    /// What it was made with.
    pub(super) conf: Value,
    /// Its namespace died and nobody has said so yet: it has no port any more, but another IPAM may think that its
    /// addresses are in use.
    pub(super) gone: bool,
}

impl Attachment {
    pub(super) fn key(&self) -> CniKey {
        CniKey { container: self.container.clone(), ifname: self.ifname.clone() }
    }

    /// Whether its addresses were given by another IPAM, which must be told when it goes.
    pub(super) fn is_delegated(&self) -> bool {
        self.conf.pointer("/ipam/type").and_then(Value::as_str).is_some_and(|kind| kind != BUILT_IN)
    }

    /// Names, for each of its addresses, the host's own port as the gateway, if there is one on that subnet.
    pub(super) fn point_at_gateway(&mut self) {
        let gateways: Vec<(IpAddr, u8)> = self
            .gateway
            .iter()
            .flat_map(|gateway| &gateway.addresses)
            .filter_map(|text| prefix(text))
            .collect();
        for address in &mut self.addresses {
            let own = prefix(&address.address);
            let near = |(gateway, len): &&(IpAddr, u8)| {
                own.is_some_and(|(own, _)| Prefix::around(*gateway, *len).contains(own))
            };
            address.gateway = gateways.iter().find(near).map(|(gateway, _)| *gateway);
        }
    }

    /// Its addresses with their prefix lengths.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = (IpAddr, u8)> + '_ {
        self.addresses.iter().filter_map(|address| prefix(&address.address))
    }
}

/// `ipam.type` of a network whose addresses the daemon gives.
const BUILT_IN: &str = "vswitch";

/// The address and the prefix length in `text`, as `10.1.0.5/16`.
pub(super) fn prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (address, len) = text.split_once('/')?;
    let (address, len): (IpAddr, u8) = (address.parse().ok()?, len.parse().ok()?);
    (len <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, len))
}

/// All that has been attached. Cheap to clone: change a clone, save it, then make it the one that counts.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Journal {
    attachments: BTreeMap<CniKey, Arc<Attachment>>,
    /// Addresses that the daemon gave.
    pub(super) book: Book,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<B, A> {
    version: u64,
    /// Which life of the machine it is: namespaces are gone with it.
    boot: String,
    book: B,
    attachments: Vec<A>,
}

impl Journal {
    pub(super) fn get(&self, key: &CniKey) -> Option<&Arc<Attachment>> {
        self.attachments.get(key)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Attachment>> {
        self.attachments.values()
    }

    /// Those that have a port, or should have.
    pub(super) fn alive(&self) -> impl Iterator<Item = &Arc<Attachment>> {
        self.all().filter(|attachment| !attachment.gone)
    }

    pub(super) fn put(&mut self, attachment: Attachment) {
        self.attachments.insert(attachment.key(), Arc::new(attachment));
    }

    pub(super) fn remove(&mut self, key: &CniKey) -> Option<Arc<Attachment>> {
        self.attachments.remove(key)
    }

    fn to_json(&self, boot: &str) -> Vec<u8> {
        let attachments = self.attachments.values().map(|attachment| &**attachment).collect();
        let written = Written { version: VERSION, boot: boot.to_owned(), book: &self.book, attachments };
        let mut text = serde_json::to_vec(&written).expect("every key is a string");
        text.push(b'\n');
        text
    }
}

/// Where the journal is kept.
#[derive(Clone, Debug)]
pub(in super::super) struct JournalFile {
    path: PathBuf,
    boot: String,
}

impl JournalFile {
    /// Beside the state file `state`, in the life `boot` of the machine; nothing is opened.
    pub(super) fn beside(state: &Path, boot: String) -> Self {
        let name = state.file_stem().unwrap_or_default().to_string_lossy();
        let name =
            if name == "state" { "attachments.json".to_owned() } else { format!("{name}.attachments.json") };
        Self { path: state.with_file_name(name), boot }
    }

    /// Whether there is one.
    pub(super) fn exists(&self) -> bool {
        self.path.exists()
    }

    /// What it holds, nothing when there is none; and whether it is of this life of the machine.
    ///
    /// # Errors
    /// When it cannot be read, is damaged or comes from a newer daemon. The daemon must not start then: its next save
    /// would lose what the file holds.
    pub(super) fn load(&self) -> Result<(Journal, bool), StateError> {
        #[derive(Deserialize)]
        struct Version {
            version: u64,
        }
        let damaged = |reason: String| StateError::Damaged { path: self.path.clone(), reason };
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((Journal::default(), true)),
            Err(source) => {
                return Err(StateError::Os { what: "read state file", path: self.path.clone(), source });
            }
        };
        let read = |error: serde_json::Error| damaged(error.to_string());
        let Version { version } = serde_json::from_slice(&text).map_err(read)?;
        if version > VERSION {
            return Err(StateError::Newer { path: self.path.clone(), version });
        }
        let written: Written<Book, Attachment> = serde_json::from_slice(&text).map_err(read)?;
        let mut journal = Journal { book: written.book, ..Journal::default() };
        for attachment in written.attachments {
            let key = attachment.key();
            if journal.get(&key).is_some() {
                return Err(damaged(format!("{} of {:?} is in it twice", key.ifname, key.container)));
            }
            journal.put(attachment);
        }
        Ok((journal, written.boot == self.boot))
    }

    /// Replaces what it holds, wholly or not at all.
    ///
    /// # Errors
    /// When the operating system refuses; the old content is still there then.
    pub(super) fn save(&self, journal: &Journal) -> Result<(), StateError> {
        replace(&self.path, &journal.to_json(&self.boot))
    }
}
