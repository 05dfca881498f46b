//! The arithmetic of results: samples by scene, peer and metric, medians, spreads, ratios.

use crate::ground::Scene;
use crate::measure::Metric;
use crate::peers::Peer;
use std::collections::BTreeMap;

/// All that was measured in one run.
#[derive(Debug, Default)]
pub(crate) struct Results {
    samples: BTreeMap<(Scene, Peer, Metric), Vec<f64>>,
    /// Why a peer has no numbers, or fewer.
    notes: BTreeMap<(Scene, Peer), String>,
}

/// Median, least and greatest of some samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Results {
    pub(crate) fn add(&mut self, scene: Scene, peer: Peer, metric: Metric, value: f64) {
        self.samples.entry((scene, peer, metric)).or_default().push(value);
    }

    /// Remembers why; the first word stands.
    pub(crate) fn note(&mut self, scene: Scene, peer: Peer, why: String) {
        self.notes.entry((scene, peer)).or_insert(why);
    }

    pub(crate) fn why(&self, scene: Scene, peer: Peer) -> Option<&str> {
        self.notes.get(&(scene, peer)).map(String::as_str)
    }

    /// The samples, round by round.
    pub(crate) fn samples(&self, scene: Scene, peer: Peer, metric: Metric) -> &[f64] {
        self.samples.get(&(scene, peer, metric)).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn summary(&self, scene: Scene, peer: Peer, metric: Metric) -> Option<Summary> {
        summary(self.samples(scene, peer, metric))
    }

    /// What vswitchd has of what the peer has: its median divided by the peer's.
    pub(crate) fn ratio(&self, scene: Scene, metric: Metric, peer: Peer) -> Option<f64> {
        let ours = self.summary(scene, Peer::Vswitchd, metric)?.median;
        let theirs = self.summary(scene, peer, metric)?.median;
        (theirs > 0.0).then(|| ours / theirs)
    }

    /// The scenes in which anything was measured or noted.
    pub(crate) fn scenes(&self) -> impl Iterator<Item = Scene> {
        Scene::ALL.into_iter().filter(|scene| Peer::ALL.iter().any(|peer| self.has(*scene, *peer)))
    }

    /// Whether anything was measured or noted.
    pub(crate) fn has(&self, scene: Scene, peer: Peer) -> bool {
        self.why(scene, peer).is_some()
            || Metric::ALL.iter().any(|metric| !self.samples(scene, peer, *metric).is_empty())
    }
}

/// `None` of nothing. The median of an even number is the mean of the two in the middle.
pub(crate) fn summary(samples: &[f64]) -> Option<Summary> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (least, greatest) = (*sorted.first()?, *sorted.last()?);
    let half = sorted.len() / 2;
    let median =
        if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) };
    Some(Summary { median, least, greatest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let all = |median, least, greatest| Some(Summary { median, least, greatest });
        assert_eq!(summary(&[]), None);
        assert_eq!(summary(&[3.0]), all(3.0, 3.0, 3.0));
        assert_eq!(summary(&[9.0, 1.0, 2.0]), all(2.0, 1.0, 9.0));
        assert_eq!(summary(&[4.0, 1.0, 2.0, 9.0]), all(3.0, 1.0, 9.0));
    }

    #[test]
    fn a_ratio_is_of_medians_and_of_vswitchd_to_the_peer() {
        let mut results = Results::default();
        for value in [2.0, 30.0, 20.0] {
            results.add(Scene::Pods, Peer::Vswitchd, Metric::Tcp1, value);
        }
        results.add(Scene::Pods, Peer::Ovs, Metric::Tcp1, 2.5);
        results.add(Scene::Pods, Peer::Copier, Metric::Tcp1, 0.0);
        assert_eq!(results.ratio(Scene::Pods, Metric::Tcp1, Peer::Ovs), Some(8.0));
        assert_eq!(results.ratio(Scene::Pods, Metric::Tcp1, Peer::Copier), None);
        assert_eq!(results.ratio(Scene::Pods, Metric::Tcp1, Peer::Kernel), None);
        assert_eq!(results.scenes().collect::<Vec<_>>(), [Scene::Pods]);
    }
}
