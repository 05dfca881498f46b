//! Silent pods at the ports of one host: a frame goes in at one of them, and what comes out at each is compared, byte for
//! byte.

use super::{Seat, Switch};
use crate::daemon::Raw;
use crate::frames::{Frame, describe};
use crate::lab::{Lab, Namespace};
use crate::node::PATIENCE;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long nothing more must come where nothing more is expected. What comes later yet is found by the next question.
const QUIET: Duration = Duration::from_millis(60);

/// Pods by the names of their ports.
#[derive(Debug, Default)]
pub struct Stage {
    pods: BTreeMap<String, (Namespace, Raw)>,
}

impl Stage {
    /// Adds a port to `bridge`, with words as in [`Seat::pod`].
    ///
    /// # Panics
    /// When that fails.
    pub fn port(&mut self, lab: &Lab, seat: &Seat, bridge: &str, port: &str, words: &str) {
        self.pods.insert(port.to_owned(), seat.raw_pod(lab, bridge, port, words));
    }

    /// All frames in and out of the pod at `port`.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn at(&self, port: &str) -> &Raw {
        &self.pods.get(port).unwrap_or_else(|| panic!("there is no pod at {port:?}")).1
    }

    /// Sends `frame` into `port`, and asserts that exactly these frames come out, each at the port named.
    ///
    /// # Panics
    /// When one does not come, or another does.
    #[track_caller]
    pub fn expect(&self, port: &str, frame: &Frame, expected: &[(&str, Frame)]) {
        self.at(port).send(&frame.bytes());
        let mut wrong = String::new();
        for (name, _) in expected {
            assert!(self.pods.contains_key(*name), "there is no pod at {name:?}");
        }
        for (name, (_, raw)) in &self.pods {
            let here = expected.iter().filter(|(at, _)| at == name);
            let mut got = Vec::new();
            let mut wanted = Vec::new();
            for (_, frame) in here {
                wanted.push(frame.bytes());
                got.extend(raw.receive(PATIENCE));
            }
            while let Some(more) = raw.receive(QUIET) {
                got.push(more);
            }
            // In which order two of them leave one port, nobody says.
            got.sort_unstable();
            wanted.sort_unstable();
            if got != wanted {
                let list =
                    |frames: &[Vec<u8>]| frames.iter().map(|bytes| describe(bytes)).collect::<Vec<_>>();
                wrong += &format!("at {name}: {:#?}\ninstead of {:#?}\n", list(&got), list(&wanted));
            }
        }
        assert!(wrong.is_empty(), "into {port}: {}\n{wrong}", describe(&frame.bytes()));
    }
}

impl Seat {
    /// Has stock Open vSwitch forget the flows it has cached: those of before a change live on for a moment. Stations
    /// that it knows stay known.
    ///
    /// # Panics
    /// When it refuses.
    pub fn settle(&self) {
        if self.switch == Switch::Stock {
            self.sh("ovs-appctl revalidator/purge");
        }
    }
}
