//! `[cluster]`: where the store is and how this node speaks to it.

use std::path::PathBuf;

/// `[cluster]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Where etcd is: `http://host:port` or `https://host:port`, tried in turn.
    pub etcd: Vec<String>,
    /// What every key begins with.
    pub prefix: String,
    /// Seconds after which a silent node's keys go, 2..=3600.
    pub lease: u16,
    /// Certificate of the authority that etcd's certificate must come from; needed for https.
    pub cacert: Option<PathBuf>,
    /// This node's certificate; with `key` or not at all.
    pub cert: Option<PathBuf>,
    /// The key of `cert`.
    pub key: Option<PathBuf>,
    /// User of etcd.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// A file whose first line is the password.
    pub password_file: Option<PathBuf>,
}
