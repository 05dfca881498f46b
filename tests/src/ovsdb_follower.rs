//! Control's side of a followed database: the source under test, and what a reader of its wishes believes.
//!
//! Not here: servers (see `ovsdb_server.rs`), and what a test expects.

use crate::daemon::PATIENCE;
use crate::lab::{Deadline, until};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use vswitchd::control::source::ovsdb::{BridgeReport, InterfaceReport, Ovsdb, Report, Wish};

/// A source, and the newest wish it has told.
#[derive(Debug)]
pub struct Follower {
    /// The source under test.
    pub source: Ovsdb,
    wish: Option<Wish>,
    woken: Arc<AtomicUsize>,
}

impl Follower {
    /// Follows the database at `remote`.
    ///
    /// # Panics
    /// When `remote` is none, or no thread can be had.
    #[must_use]
    pub fn start(remote: &str) -> Self {
        let remote = remote.parse().expect("a remote");
        let woken = Arc::new(AtomicUsize::new(0));
        let wakes = Arc::clone(&woken);
        let wake = Arc::new(move || {
            wakes.fetch_add(1, Ordering::SeqCst);
        });
        let source = Ovsdb::start(&remote, wake).expect("a thread can be had");
        Self { source, wish: None, woken }
    }

    /// How many wishes there were: control is woken for each.
    #[must_use]
    pub fn wishes(&self) -> usize {
        self.woken.load(Ordering::SeqCst)
    }

    /// Waits until there were `count` wishes; a wish is there a moment before control is woken for it.
    ///
    /// # Panics
    /// When there were not, or more.
    #[track_caller]
    pub fn until_wishes(&self, count: usize) {
        let wishes = until("a wish", PATIENCE, || Some(self.wishes()).filter(|wishes| *wishes >= count));
        assert_eq!(wishes, count);
    }

    /// The newest wish, if there is any.
    pub fn try_wish(&mut self) -> Option<&Wish> {
        if let Some(newest) = self.source.wishes().try_iter().last() {
            self.wish = Some(newest);
        }
        self.wish.as_ref()
    }

    /// The newest wish.
    ///
    /// # Panics
    /// When there has been none.
    pub fn wish(&mut self) -> &Wish {
        self.try_wish().expect("there is a wish")
    }

    /// Waits until the newest wish is `as_it_should_be`.
    ///
    /// # Panics
    /// When it does not become so.
    #[track_caller]
    pub fn until(&mut self, mut as_it_should_be: impl FnMut(&Wish) -> bool) {
        let deadline = Deadline::after(PATIENCE);
        while !self.try_wish().is_some_and(&mut as_it_should_be) {
            let Some(left) = deadline.left() else {
                panic!("the wish is another: {:?}, {:?}", self.wish, self.source.status());
            };
            if let Ok(wish) = self.source.wishes().recv_timeout(left) {
                self.wish = Some(wish);
            }
        }
    }

    /// Waits until these ports, by name, are wished and no other.
    ///
    /// # Panics
    /// When they are not.
    #[track_caller]
    pub fn until_ports(&mut self, names: &[&str]) {
        self.until(|wish| wish.ports.iter().map(|port| port.name.as_str()).eq(names.iter().copied()));
    }

    /// Waits until the lock is held, or not.
    ///
    /// # Panics
    /// When it is not so.
    #[track_caller]
    pub fn until_locked(&self, locked: bool) {
        let is_so = |status: vswitchd::control::source::ovsdb::Status| {
            (status.connected && status.locked == locked).then_some(())
        };
        until("connected and the lock", PATIENCE, || is_so(self.source.status()));
    }

    /// Waits until the server is away and known to be.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn until_away(&self) {
        until("the server is away", PATIENCE, || {
            let status = self.source.status();
            (!status.connected && status.last_error.is_some()).then_some(())
        });
    }

    /// A report that all of the newest wish is in force: ports are numbered from 1 in order of their names.
    ///
    /// # Panics
    /// When there has been no wish.
    pub fn report(&mut self) -> Report {
        let wish = self.wish();
        let interface =
            |number| InterfaceReport { ofport: Some(number), mtu: Some(1500), ..InterfaceReport::default() };
        let interfaces = wish.ports.iter().zip(1..).map(|(port, n)| (port.name.clone(), interface(n)));
        let bridges = wish
            .bridges
            .iter()
            .zip(1..)
            .map(|(bridge, datapath_id)| (bridge.name.clone(), BridgeReport { datapath_id }));
        Report {
            system: wish.system.clone(),
            cur_cfg: wish.next_cfg,
            bridges: bridges.collect(),
            interfaces: interfaces.collect(),
            mirrors: BTreeMap::new(),
        }
    }

    /// Reports that all of the newest wish is in force.
    pub fn carry_out(&mut self) {
        let report = self.report();
        self.source.report(report);
    }

    /// Reports the same, and `mtu` of the bridge `bridge`: what has come to the database tells that all before has.
    ///
    /// # Panics
    /// When there is no such bridge.
    pub fn carry_out_with_mtu(&mut self, bridge: &str, mtu: u32) {
        let mut report = self.report();
        report.interfaces.get_mut(bridge).expect("the bridge is wished").mtu = Some(mtu);
        self.source.report(report);
    }
}
