//! `[cluster]`: the etcd in which the nodes find each other, and the rules by which it is read.
//!
//! Not here: the connection to it, the files that are named here, and what stands in the store.

use super::address::unfit;
use super::file::Value;
use super::host::is_host_name;
use super::read::{Field, Section};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// The most endpoints there may be.
const MAX_ENDPOINTS: usize = 32;

/// etcd's port for clients.
const PORT: u16 = 2379;

/// `[cluster]`. What it shows of itself does not hold the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Endpoints, `http://host:port` or `https://host:port`: 1..=32, each once, of one scheme, in the order
    /// of the file.
    pub etcd: Vec<String>,
    /// What every key of this cluster begins with: begins with `/`, does not end with one, at most 200 bytes of
    /// printable ASCII without white space.
    pub prefix: String,
    /// How long what this node says of itself outlives it, 2..=3600 seconds.
    pub lease: u16,
    /// Certificates of the authorities that are trusted, in PEM, an absolute path; there exactly when the endpoints are
    /// https.
    pub cacert: Option<PathBuf>,
    /// This node's certificate, in PEM, an absolute path; there exactly when `key` is. Only with https.
    pub cert: Option<PathBuf>,
    /// Its private key, in PEM, an absolute path.
    pub key: Option<PathBuf>,
    /// Who logs in; `None`: nobody does.
    pub user: Option<String>,
    /// The user's password. Of a user there is this or `password_file`, not both; without one, neither.
    pub password: Option<String>,
    /// The file whose first line is the password, an absolute path.
    pub password_file: Option<PathBuf>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("etcd", &self.etcd)
            .field("prefix", &self.prefix)
            .field("lease", &self.lease)
            .field("cacert", &self.cacert)
            .field("cert", &self.cert)
            .field("key", &self.key)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| format_args!("…")))
            .field("password_file", &self.password_file)
            .finish()
    }
}

/// Reads `[cluster]`.
pub(super) fn read(section: &Section<'_>) -> Option<Cluster> {
    let etcd_field = section.need("etcd");
    let etcd = etcd_field.and_then(|field| read_endpoints(&field));
    let prefix =
        section.get("prefix").map_or_else(|| Some("/vswitch/default".to_owned()), |f| read_prefix(&f));
    let lease = section.get("lease").map_or(Some(10), |field| field.number(2..=3600));
    let https = etcd.as_ref().is_none_or(|all| all.iter().any(|one| one.starts_with("https:")));
    let [cacert, cert, key] = ["cacert", "cert", "key"].map(|name| (name, section.get(name)));
    for ((one, field), (other, missing)) in [(&cert, &key), (&key, &cert)] {
        if let (Some(field), None) = (field, missing) {
            let _: Option<()> = field.refuse_with_subject(&format!("{one} needs {other}"));
        }
    }
    let [cacert, cert, key] = [cacert, cert, key].map(|(name, field)| match field {
        Some(field) if !https => {
            field.refuse_with_subject(&format!("{name} has no meaning with http; write https in etcd"))
        }
        Some(field) => field.absolute_path().map(|path| Some(PathBuf::from(path))),
        None if https && name == "cacert" && etcd.is_some() => etcd_field
            .and_then(|field| field.refuse_with_subject("https needs cacert: whose signature is trusted")),
        None => Some(None),
    });
    let [user_field, password_field, file_field] =
        ["user", "password", "password_file"].map(|name| section.get(name));
    section.refuse_unknown();
    let (at_fault, reason) = match (user_field, password_field, file_field) {
        (Some(_), Some(_), Some(file)) => {
            (Some(file), "password_file stands beside password; one is allowed")
        }
        (Some(user), None, None) => (Some(user), "user needs password or password_file"),
        (None, Some(password), _) => (Some(password), "password needs user"),
        (None, None, Some(file)) => (Some(file), "password_file needs user"),
        _ => (None, ""),
    };
    if let Some(field) = at_fault {
        let _: Option<()> = field.refuse_with_subject(reason);
    }
    let user = user_field.and_then(|field| field.name(253).map(str::to_owned));
    let password = password_field.and_then(|field| read_password(&field));
    let password_file = file_field.and_then(|field| field.absolute_path().map(PathBuf::from));
    Some(Cluster {
        etcd: etcd?,
        prefix: prefix?,
        lease: lease?,
        cacert: cacert?,
        cert: cert?,
        key: key?,
        user,
        password,
        password_file,
    })
}

/// A password, which no message shows.
fn read_password(field: &Field<'_>) -> Option<String> {
    match field.value() {
        Value::String(text) if text.is_empty() => field.refuse_with_subject("password is empty"),
        Value::String(text) => Some(text.clone()),
        other => field.refuse_with_subject(&format!("password is {}; a string is expected", other.kind())),
    }
}

fn read_prefix(field: &Field<'_>) -> Option<String> {
    let text = field.text()?;
    if text.len() > 200 {
        return field.refuse_with_subject(&format!("prefix has {} bytes; 2..200 are allowed", text.len()));
    }
    if !text.starts_with('/') || text.ends_with('/') {
        return field.refuse("must begin with \"/\" and end without, like /vswitch/default");
    }
    if !text.bytes().all(|c| c.is_ascii_graphic()) {
        return field.refuse("holds what is not printable ASCII, or white space; none is allowed");
    }
    Some(text.to_owned())
}

fn read_endpoints(field: &Field<'_>) -> Option<Vec<String>> {
    let items = field.items()?;
    if items.is_empty() {
        return field.refuse("is empty; at least one endpoint is expected");
    }
    let mut endpoints: Vec<String> = Vec::new();
    for item in &items {
        let endpoint = read_endpoint(item)?;
        if endpoints.len() == MAX_ENDPOINTS {
            return item.refuse(format!("is one too many; at most {MAX_ENDPOINTS} endpoints are allowed"));
        }
        if endpoints.contains(&endpoint) {
            return item.refuse("is given twice");
        }
        let https = |url: &str| url.starts_with("https:");
        if endpoints.first().is_some_and(|first| https(first) != https(&endpoint)) {
            return item.refuse("differs in its scheme; all are http or all are https");
        }
        endpoints.push(endpoint);
    }
    Some(endpoints)
}

/// One endpoint as `scheme://host:port`, without what may be left out.
fn read_endpoint(item: &Field<'_>) -> Option<String> {
    const UNFIT: &str = "is not an endpoint of etcd, like http://10.0.0.1:2379 or https://etcd.example:2379";
    let text = item.text()?;
    if text.contains('@') {
        // What stands before it may be a password, so the message does not show it.
        return item
            .refuse_with_subject("etcd holds a URL with \"@\"; who logs in is said by user and password");
    }
    let Some((scheme @ ("http" | "https"), rest)) = text.split_once("://") else {
        return item.refuse(UNFIT);
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    // The colons of an IPv6 address stand in brackets.
    let (host, port) = match rest.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some((host, port)) => match port.parse::<u16>() {
            Ok(number) if number > 0 && port.bytes().all(|c| c.is_ascii_digit()) => (host, number),
            _ => return item.refuse(format!("{UNFIT}; ports are 1..65535")),
        },
        None => (rest, PORT),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bare.map(str::parse::<Ipv6Addr>) {
        Some(Ok(address)) if unfit(address.into()).is_none() => format!("[{address}]"),
        None if host.parse().is_ok_and(|v4: Ipv4Addr| unfit(v4.into()).is_none()) => host.to_owned(),
        None if is_host_name(host) => host.to_ascii_lowercase(),
        _ => return item.refuse(UNFIT),
    };
    Some(format!("{scheme}://{host}:{port}"))
}
