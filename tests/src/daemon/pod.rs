//! A pod: a namespace in which the kernel says nothing of its own accord, with one interface of the switch.

use super::{PATIENCE, Raw, raw};
use crate::lab::{Lab, Namespace, until};

/// Keeps the kernel from sending anything unasked by interfaces that come to `namespace`.
pub(crate) fn hush(namespace: &Namespace) {
    namespace.inside(|| {
        for scope in ["all", "default"] {
            // A kernel without IPv6 says nothing in it either.
            let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1");
        }
    });
}

/// A namespace for one TAP.
#[derive(Debug)]
pub struct Pod {
    namespace: Namespace,
}

impl Pod {
    /// A pod, silent.
    ///
    /// # Panics
    /// When no namespace can be made.
    #[must_use]
    pub fn new(lab: &Lab, name: &str) -> Self {
        let namespace = lab.namespace(name);
        hush(&namespace);
        Self { namespace }
    }

    /// Its namespace.
    #[must_use]
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The name that the configuration calls its namespace by.
    #[must_use]
    pub fn name(&self) -> &str {
        self.namespace.name()
    }

    /// The `[[port]]` table of a port in this pod, with further lines of it.
    #[must_use]
    pub fn table(&self, port: &str, lines: &str) -> String {
        format!("[[port]]\nname = {port:?}\nnetns = {:?}\n{lines}\n", self.name())
    }

    /// Every frame in and out of one of its interfaces, which must be there.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn raw(&self, link: &str) -> Raw {
        self.namespace.inside(|| Raw::open(link))
    }

    /// Index of an interface; `None` when there is none.
    #[must_use]
    pub fn index(&self, link: &str) -> Option<u32> {
        self.namespace.inside(|| raw::index(link))
    }

    /// Waits until there is an interface of that name and gives its index.
    ///
    /// # Panics
    /// When there is none in time.
    #[must_use]
    pub fn until_index(&self, link: &str) -> u32 {
        until(&format!("{link} in {}", self.name()), PATIENCE, || self.index(link))
    }
}
