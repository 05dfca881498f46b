//! What the daemon does with its keeper: takes back what was kept, and gives it all again to one that has come back.
//!
//! Not here: who keeps (see [`crate::keeper`]), and whether a descriptor fits a port (see [`super::ports`]).

use super::daemon::Control;
use super::ports::{self, Opened, Settings};
use crate::config::{PortConfig, PortKind};
use crate::datapath::clock;
use crate::link::{AnyLink, Link as _};
use crate::observe::log;

impl Control {
    /// The interface of `config` that the keeper had, if it had one that still fits.
    pub(super) fn adopt_kept(&mut self, config: &PortConfig, settings: Settings) -> Option<Opened> {
        let name = &config.name;
        if !matches!(config.kind, PortKind::Tap | PortKind::Internal) {
            return None;
        }
        let descriptor = self.kept.take(name)?;
        match ports::adopt(config, settings, descriptor) {
            Ok(opened) => {
                log::info("port adopted", &[("port", name)]);
                Some(opened)
            }
            Err(reason) => {
                log::warn("port not adopted, but made anew", &[("port", name), ("reason", &reason)]);
                self.keeper.forget(name);
                None
            }
        }
    }

    /// What nobody adopted after everything was made belongs to no port: it is closed.
    pub(super) fn let_kept_go(&mut self) {
        if !self.knows_all_wishes() {
            return;
        }
        // A pod's whose port does not fit the file today may fit tomorrow's, and its interface cannot be made again.
        let left = self.kept.split(|name| self.cni.has(name));
        if left.is_empty() {
            return;
        }
        for name in left.names() {
            log::info("what was kept belongs to no port any more", &[("port", &name)]);
        }
        let names: Vec<String> = left.names().map(str::to_owned).collect();
        if self.ovs.is_followed() {
            left.end_with_us();
        }
        drop(left);
        self.keeper.forget_all(names.iter().map(String::as_str));
    }

    /// Notices that the keeper is gone or back; one that is back is given everything again. What it has and no port
    /// runs may be adopted.
    pub(super) fn look_at_keeper(&mut self) {
        let Some(kept) = self.keeper.look(clock::now()) else { return };
        self.kept = kept;
        for (name, port) in &self.running.ports {
            // Other interfaces are there without us.
            if let Some(AnyLink::Tap(tap)) = port.link.as_ref().map(|link| &link.link)
                && let Some(fd) = tap.fd()
            {
                drop(self.kept.take(name));
                ports::keep(&mut self.keeper, name, fd);
            }
        }
    }
}
