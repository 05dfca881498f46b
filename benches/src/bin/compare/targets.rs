//! What the project has promised about its speed beside others, and whether a run has kept it.

use crate::ground::Scene;
use crate::measure::Metric;
use crate::peers::Peer;
use crate::stats::Results;

/// A bound on vswitchd's median divided by a peer's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    pub(crate) fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(bound) => ratio >= bound,
            Self::AtMost(bound) => ratio <= bound,
        }
    }

    /// By which part of the bound it is missed; 0 when it is not.
    pub(crate) fn missed_by(self, ratio: f64) -> f64 {
        match self {
            Self::AtLeast(bound) => ((bound - ratio) / bound).max(0.0),
            Self::AtMost(bound) => ((ratio - bound) / bound).max(0.0),
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "≥ {bound}×"),
            Self::AtMost(bound) => write!(f, "≤ {bound}×"),
        }
    }
}

/// One promise. The moonshot may be against somebody else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) scene: Scene,
    pub(crate) metric: Metric,
    pub(crate) against: Peer,
    pub(crate) must: Bound,
    pub(crate) moonshot: (Peer, Bound),
}

/// What became of a promise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    Moonshot,
    Must,
    /// By this part of the bound.
    Missed(f64),
    /// One of the two has no number.
    Unknown,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Moonshot => write!(f, "**moonshot**"),
            Self::Must => write!(f, "**must**"),
            Self::Missed(part) => write!(f, "missed by {:.0} %", part * 100.0),
            Self::Unknown => write!(f, "not measured"),
        }
    }
}

const fn at_least(scene: Scene, metric: Metric, against: Peer, must: f64, moonshot: f64) -> Target {
    let moonshot = (against, Bound::AtLeast(moonshot));
    Target { scene, metric, against, must: Bound::AtLeast(must), moonshot }
}

const fn at_most(scene: Scene, metric: Metric, against: Peer, must: f64, moonshot: f64) -> Target {
    let moonshot = (against, Bound::AtMost(moonshot));
    Target { scene, metric, against, must: Bound::AtMost(must), moonshot }
}

const fn like_kernel(metric: Metric, must: f64) -> Target {
    let moonshot = (Peer::Kernel, Bound::AtMost(1.0));
    Target { scene: Scene::Pods, metric, against: Peer::Ovs, must: Bound::AtMost(must), moonshot }
}

/// All of them.
pub(crate) const TARGETS: [Target; 20] = [
    at_least(Scene::Pods, Metric::Tcp1, Peer::Ovs, 8.0, 12.0),
    at_least(Scene::Pods, Metric::Tcp4, Peer::Ovs, 8.0, 12.0),
    at_least(Scene::Pods, Metric::Tcp1, Peer::OvsTso, 1.0, 1.15),
    at_least(Scene::Pods, Metric::Tcp4, Peer::OvsTso, 1.0, 1.15),
    at_least(Scene::Pods, Metric::Tcp1, Peer::CopierOffload, 0.95, 1.0),
    at_least(Scene::Pods, Metric::Tcp4, Peer::CopierOffload, 0.95, 1.0),
    at_least(Scene::Pods, Metric::Udp, Peer::Ovs, 1.4, 1.8),
    like_kernel(Metric::RoundTripP50, 0.8),
    like_kernel(Metric::RoundTripP99, 0.7),
    at_most(Scene::Pods, Metric::CpuPerGb, Peer::Ovs, 0.1, 0.08),
    at_most(Scene::Pods, Metric::Resident, Peer::Ovs, 0.5, 0.25),
    at_least(Scene::Nodes, Metric::Tcp1, Peer::Ovs, 7.0, 10.0),
    at_least(Scene::Nodes, Metric::Tcp1, Peer::Kernel, 0.33, 0.5),
    at_least(Scene::Nodes, Metric::Tcp1, Peer::CopierOffload, 1.0, 1.5),
    at_least(Scene::Nodes, Metric::Udp, Peer::Ovs, 3.0, 4.0),
    at_least(Scene::Nodes, Metric::Udp, Peer::Kernel, 1.4, 1.75),
    at_most(Scene::Nodes, Metric::RoundTripP50, Peer::Ovs, 0.65, 0.5),
    at_most(Scene::Nodes, Metric::RoundTripP50, Peer::Kernel, 1.6, 1.2),
    at_most(Scene::Nodes, Metric::CpuPerGb, Peer::Ovs, 0.2, 0.12),
    at_least(Scene::Segmented, Metric::Tcp1, Peer::Kernel, 1.05, 1.25),
];

impl Target {
    /// The ratio that counts for the must, and what became of the promise.
    pub(crate) fn judge(&self, results: &Results) -> (Option<f64>, Verdict) {
        let Some(ratio) = results.ratio(self.scene, self.metric, self.against) else {
            return (None, Verdict::Unknown);
        };
        let (peer, moonshot) = self.moonshot;
        let reached = results.ratio(self.scene, self.metric, peer).is_some_and(|ratio| moonshot.holds(ratio));
        let verdict = match (self.must.holds(ratio), reached) {
            (true, true) => Verdict::Moonshot,
            (true, false) => Verdict::Must,
            (false, _) => Verdict::Missed(self.must.missed_by(ratio)),
        };
        (Some(ratio), verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(target: &Target, samples: &[(Peer, f64)]) -> Verdict {
        let mut results = Results::default();
        for (peer, value) in samples {
            results.add(target.scene, *peer, target.metric, *value);
        }
        target.judge(&results).1
    }

    #[test]
    fn more_is_better_where_it_is() {
        let target = at_least(Scene::Pods, Metric::Tcp1, Peer::Ovs, 8.0, 12.0);
        let at = |ours| judged(&target, &[(Peer::Vswitchd, ours), (Peer::Ovs, 2.0)]);
        assert_eq!(at(24.0), Verdict::Moonshot);
        assert_eq!(at(16.0), Verdict::Must);
        assert_eq!(at(12.0), Verdict::Missed(0.25));
        assert_eq!(judged(&target, &[(Peer::Vswitchd, 1.0)]), Verdict::Unknown);
        assert_eq!(at(12.0).to_string(), "missed by 25 %");
    }

    #[test]
    fn less_is_better_where_it_is_and_the_moonshot_may_be_against_another() {
        let target = like_kernel(Metric::RoundTripP50, 0.8);
        let at = |ours| judged(&target, &[(Peer::Vswitchd, ours), (Peer::Ovs, 100.0), (Peer::Kernel, 60.0)]);
        assert_eq!(at(60.0), Verdict::Moonshot);
        assert_eq!(at(80.0), Verdict::Must);
        assert_eq!(at(120.0).to_string(), "missed by 50 %");
        let without_kernel = judged(&target, &[(Peer::Vswitchd, 10.0), (Peer::Ovs, 100.0)]);
        assert_eq!(without_kernel, Verdict::Must);
    }

    #[test]
    fn every_moonshot_is_harder_than_its_must() {
        for target in TARGETS.iter().filter(|target| target.moonshot.0 == target.against) {
            match (target.must, target.moonshot.1) {
                (Bound::AtLeast(must), Bound::AtLeast(moonshot)) => assert!(moonshot > must, "{target:?}"),
                (Bound::AtMost(must), Bound::AtMost(moonshot)) => assert!(moonshot < must, "{target:?}"),
                _ => panic!("{target:?}"),
            }
        }
    }
}
