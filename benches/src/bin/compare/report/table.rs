//! The Markdown table: per scene what was measured, what vswitchd has of what each peer has, and the promises.

use super::short;
use crate::ground::Scene;
use crate::measure::Metric;
use crate::peers::Peer;
use crate::stats::Results;
use crate::targets::{TARGETS, Verdict};
use std::fmt::Write as _;

pub(super) fn markdown(results: &Results, circumstances: &[String]) -> String {
    let mut text = "# vswitchd beside its peers\n\n".to_owned();
    for line in circumstances {
        let _ = writeln!(text, "- {line}");
    }
    for scene in results.scenes() {
        let _ = write!(text, "\n## {}\n", scene.title());
        measured(&mut text, results, scene);
        ratios(&mut text, results, scene);
    }
    promises(&mut text, results);
    text
}

/// The metrics of which a scene has at least one number.
fn columns(results: &Results, scene: Scene) -> Vec<Metric> {
    let has = |metric: &Metric| Peer::ALL.iter().any(|peer| results.summary(scene, *peer, *metric).is_some());
    Metric::ALL.into_iter().filter(has).collect()
}

fn head(text: &mut String, first: &str, columns: &[Metric]) {
    let _ = write!(text, "\n| {first} |");
    for metric in columns {
        let _ = write!(text, " {} |", metric.title());
    }
    let _ = writeln!(text, "\n|---|{}", "---|".repeat(columns.len()));
}

fn measured(text: &mut String, results: &Results, scene: Scene) {
    let columns = columns(results, scene);
    head(text, "median (least–greatest)", &columns);
    for peer in Peer::ALL.into_iter().filter(|peer| results.has(scene, *peer)) {
        let _ = write!(text, "| {} |", peer.title(scene));
        let mut any = false;
        for metric in &columns {
            let Some(summary) = results.summary(scene, peer, *metric) else {
                let _ = write!(text, " – |");
                continue;
            };
            any = true;
            let _ = write!(text, " {}", short(summary.median));
            if results.samples(scene, peer, *metric).len() > 1 {
                let _ = write!(text, " ({}–{})", short(summary.least), short(summary.greatest));
            }
            text.push_str(" |");
        }
        text.push('\n');
        let _ = match results.why(scene, peer) {
            Some(why) if any => writeln!(text, "| *a turn failed: {why}* |{}", " |".repeat(columns.len())),
            Some(why) => writeln!(text, "| *not available: {why}* |{}", " |".repeat(columns.len())),
            None => Ok(()),
        };
    }
}

fn ratios(text: &mut String, results: &Results, scene: Scene) {
    let columns = columns(results, scene);
    let others: Vec<Peer> = Peer::ALL
        .into_iter()
        .filter(|peer| *peer != Peer::Vswitchd)
        .filter(|peer| columns.iter().any(|metric| results.ratio(scene, *metric, *peer).is_some()))
        .collect();
    if others.is_empty() {
        return;
    }
    head(text, "vswitchd ÷", &columns);
    for peer in others {
        let _ = write!(text, "| {} |", peer.title(scene));
        for metric in &columns {
            let ratio = results.ratio(scene, *metric, peer);
            let _ = write!(text, " {} |", ratio.map_or_else(|| "–".to_owned(), |ratio| short(ratio) + "×"));
        }
        text.push('\n');
    }
}

fn promises(text: &mut String, results: &Results) {
    let judged: Vec<_> = TARGETS
        .iter()
        .map(|target| (target, target.judge(results)))
        .filter(|(_, (_, verdict))| *verdict != Verdict::Unknown)
        .collect();
    if judged.is_empty() {
        return;
    }
    text.push_str("\n## Targets\n\n| scene | metric | vswitchd ÷ | ratio | must | moonshot | reached |\n");
    text.push_str("|---|---|---|---|---|---|---|\n");
    for (target, (ratio, verdict)) in judged {
        let (other, moonshot) = target.moonshot;
        let against = target.against.word();
        let whom = if other == target.against { String::new() } else { format!(" of {}", other.word()) };
        let ratio = ratio.map(|ratio| short(ratio) + "×").unwrap_or_default();
        let _ = writeln!(
            text,
            "| {} | {} | {against} | {ratio} | {} | {moonshot}{whom} | {verdict} |",
            target.scene.word(),
            target.metric.title(),
            target.must
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_medians_ratios_and_verdicts() {
        let mut results = Results::default();
        for value in [20.0, 24.0, 22.0] {
            results.add(Scene::Pods, Peer::Vswitchd, Metric::Tcp1, value);
        }
        results.add(Scene::Pods, Peer::Ovs, Metric::Tcp1, 2.0);
        results.note(Scene::Pods, Peer::OvsTso, "no such build".to_owned());
        let text = markdown(&results, &["two CPUs".to_owned()]);
        for line in [
            "- two CPUs",
            "## Two pods on one host",
            "| median (least–greatest) | TCP 1 stream, Gbit/s |",
            "| vswitchd | 22.0 (20.0–24.0) |",
            "| Open vSwitch, userspace-tso | – |",
            "| *not available: no such build* | |",
            "| Open vSwitch (userspace, TAP) | 11.0× |",
            "| pods | TCP 1 stream, Gbit/s | ovs | 11.0× | ≥ 8× | ≥ 12× | **must** |",
        ] {
            assert!(text.lines().any(|have| have == line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("Two nodes"), "{text}");
    }

    #[test]
    fn nothing_measured_is_no_table() {
        let text = markdown(&Results::default(), &[]);
        assert_eq!(text, "# vswitchd beside its peers\n\n");
    }
}
