//! What the runtime says through the environment (CNI 1.1.0, section 2, "Parameters"), checked for form.
//!
//! Not here: the network configuration, which comes on standard input.

use crate::error::CniError;
use std::ffi::OsString;
use std::path::PathBuf;
use vswitchd::control::rpc::cni::CniKey;

/// What is asked for (`CNI_COMMAND`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Attach a container.
    Add,
    /// Detach it.
    Del,
    /// Look whether it is attached as it should be.
    Check,
    /// Remove what belongs to no valid attachment.
    Gc,
    /// Say whether an ADD could be served.
    Status,
    /// Say which versions are spoken.
    Version,
}

impl Verb {
    const ALL: [Self; 6] = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version];

    /// As `CNI_COMMAND` has it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    const fn is_of_an_attachment(self) -> bool {
        matches!(self, Self::Add | Self::Del | Self::Check)
    }
}

/// All that the environment says.
#[derive(Clone, Debug)]
pub struct Environment {
    /// `CNI_COMMAND`.
    pub verb: Verb,
    /// `CNI_CONTAINERID` and `CNI_IFNAME`, of ADD, DEL and CHECK; empty for the others.
    pub attachment: CniKey,
    /// `CNI_NETNS`; empty where there is none, as a DEL may have it.
    pub netns: String,
    /// `CNI_ARGS`.
    pub args: String,
    /// `CNI_PATH`: where delegated plugins are looked for.
    pub path: Vec<PathBuf>,
}

impl Environment {
    /// What `variables` say.
    ///
    /// # Errors
    /// [`CniError::ENVIRONMENT`] with the names of the variables that are missing or wrong.
    pub fn read(variables: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, CniError> {
        let text = |name: &str| match variables(name).map(OsString::into_string) {
            None => Ok(String::new()),
            Some(Ok(text)) => Ok(text),
            Some(Err(_)) => Err(CniError::new(CniError::ENVIRONMENT, format!("{name} is not UTF-8"))),
        };
        let command = text("CNI_COMMAND")?;
        if command.is_empty() {
            return Err(CniError::new(CniError::ENVIRONMENT, "CNI_COMMAND is missing").because(
                "this is a CNI plugin: a container runtime starts it, with the network configuration on its \
                 standard input",
            ));
        }
        let Some(verb) = Verb::ALL.into_iter().find(|verb| verb.text() == command) else {
            return Err(CniError::new(CniError::ENVIRONMENT, format!("CNI_COMMAND is {command:?}"))
                .because("expected ADD, DEL, CHECK, GC, STATUS or VERSION"));
        };
        let read = Self {
            verb,
            attachment: CniKey { container: text("CNI_CONTAINERID")?, ifname: text("CNI_IFNAME")? },
            netns: text("CNI_NETNS")?,
            args: text("CNI_ARGS")?,
            path: variables("CNI_PATH")
                .map(|list| std::env::split_paths(&list).collect())
                .unwrap_or_default(),
        };
        if verb.is_of_an_attachment() {
            read.check()?;
        }
        Ok(read)
    }

    fn check(&self) -> Result<(), CniError> {
        let CniKey { container, ifname } = &self.attachment;
        let needs_netns = matches!(self.verb, Verb::Add | Verb::Check);
        let missing: Vec<&str> = [
            (container.is_empty(), "CNI_CONTAINERID"),
            (ifname.is_empty(), "CNI_IFNAME"),
            (needs_netns && self.netns.is_empty(), "CNI_NETNS"),
        ]
        .into_iter()
        .filter_map(|(missing, name)| missing.then_some(name))
        .collect();
        if !missing.is_empty() {
            let names = missing.join(", ");
            return Err(CniError::new(CniError::ENVIRONMENT, format!("missing in the environment: {names}")));
        }
        if !is_identifier(container) {
            return Err(CniError::new(CniError::ENVIRONMENT, format!("CNI_CONTAINERID is {container:?}"))
                .because("expected a letter or digit, then letters, digits, _ . and -"));
        }
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if ifname.len() > 15 || ifname == "." || ifname == ".." || ifname.contains(bad) {
            return Err(CniError::new(CniError::ENVIRONMENT, format!("CNI_IFNAME is {ifname:?}")).because(
                "expected an interface name: 1 to 15 bytes, neither . nor .., without / : and white space",
            ));
        }
        Ok(())
    }
}

/// Whether `text` may name a network or a container: a letter or digit, then letters, digits, `_`, `.` and `-`.
#[must_use]
pub fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Environment, CniError> {
        Environment::read(&|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let add = |container, ifname, netns| {
            read(&[
                ("CNI_COMMAND", "ADD"),
                ("CNI_CONTAINERID", container),
                ("CNI_IFNAME", ifname),
                ("CNI_NETNS", netns),
            ])
        };
        assert!(add("c1", "eth0", "/run/netns/a").is_ok());
        for (read, name) in [
            (read(&[]), "CNI_COMMAND"),
            (read(&[("CNI_COMMAND", "add")]), "CNI_COMMAND"),
            (read(&[("CNI_COMMAND", "ADD")]), "CNI_CONTAINERID, CNI_IFNAME, CNI_NETNS"),
            (read(&[("CNI_COMMAND", "DEL")]), "CNI_CONTAINERID, CNI_IFNAME"),
            (add("c1", "eth0", ""), "CNI_NETNS"),
            (add("-c1", "eth0", "/x"), "CNI_CONTAINERID"),
            (add("c/1", "eth0", "/x"), "CNI_CONTAINERID"),
            (add("c1", "..", "/x"), "CNI_IFNAME"),
            (add("c1", "a:b", "/x"), "CNI_IFNAME"),
            (add("c1", "a b", "/x"), "CNI_IFNAME"),
            (add("c1", "sixteen-bytes-ab", "/x"), "CNI_IFNAME"),
        ] {
            let error = read.unwrap_err();
            assert_eq!(error.code, CniError::ENVIRONMENT);
            assert!(error.msg.contains(name), "{error:?}");
        }
    }

    #[test]
    fn del_needs_no_namespace_and_version_nothing() {
        let del = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c"), ("CNI_IFNAME", "e"), ("CNI_NETNS", "")];
        assert_eq!(read(&del).unwrap().netns, "");
        assert_eq!(read(&[("CNI_COMMAND", "VERSION")]).unwrap().verb, Verb::Version);
        let gc = read(&[("CNI_COMMAND", "GC"), ("CNI_PATH", "/a:/b")]).unwrap();
        assert_eq!(gc.path, [PathBuf::from("/a"), PathBuf::from("/b")]);
    }
}
