//! Interfaces whose frames are the switch's alone: the host's own stack does not see what comes in by them.
//!
//! A packet socket gets copies. Where an interface is a port of the switch and the bridge's own port has the host's
//! address, the host would take everything twice, and answer for the wire's address with the interface's. So a chain at
//! the interface's ingress, which is behind packet sockets, drops the other copy. The table is owned by a socket: it ends
//! with the process, however that ends. Not here: which interfaces those are.

use super::batch::{Batch, Family, open};
use netlink_sys::Socket;
use std::collections::BTreeSet;
use std::io;

/// What is claimed, in the network namespace of whoever first claimed something.
#[derive(Default)]
pub struct Claims {
    socket: Option<Socket>,
    interfaces: BTreeSet<(String, u32)>,
}

impl Claims {
    /// Makes the claimed interfaces those `wished`, which exist, by name and number.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_NET_ADMIN; `NotFound` for an interface that does not exist; `Unsupported` or
    /// EPROTONOSUPPORT where the kernel lacks nftables, its family `netdev`, or (before Linux 5.12) tables with an owner.
    /// Nothing is claimed then.
    pub fn set(&mut self, wished: BTreeSet<(String, u32)>) -> io::Result<()> {
        if wished == self.interfaces {
            return Ok(());
        }
        let table = format!("vswitch-{}", std::process::id());
        if let Some(socket) = &mut self.socket {
            let mut batch = Batch::new(Family::Netdev, &table);
            self.interfaces.difference(&wished).for_each(|(name, _)| batch.delete_chain(name));
            wished.difference(&self.interfaces).for_each(|(name, _)| batch.add_ingress(name));
            if batch.commit_by(socket).is_ok() {
                self.interfaces = wished;
                return Ok(());
            }
        }
        // An interface that went has taken its chain along. The table goes with its socket, and all begins anew.
        *self = Self::default();
        if wished.is_empty() {
            return Ok(());
        }
        let mut socket = open()?;
        let mut batch = Batch::new(Family::Netdev, &table);
        batch.add_own_table();
        wished.iter().for_each(|(name, _)| batch.add_ingress(name));
        batch.commit_by(&mut socket)?;
        *self = Self { socket: Some(socket), interfaces: wished };
        Ok(())
    }
}

impl std::fmt::Debug for Claims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claims").field("interfaces", &self.interfaces).finish_non_exhaustive()
    }
}
