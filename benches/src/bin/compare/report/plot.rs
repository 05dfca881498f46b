//! The plot: a panel per scene and metric, a bar per peer, medians with their spread. All colours are of middle
//! lightness, so that they stand on light and on dark ground alike.

use super::short;
use crate::ground::Scene;
use crate::measure::Metric;
use crate::peers::Peer;
use crate::stats::{Results, Summary};
use std::fmt::Write as _;

/// Panels side by side: what is worth a picture.
const SHOWN: [Metric; 3] = [Metric::Tcp1, Metric::Udp, Metric::RoundTripP50];

const WIDTH: f64 = 960.0;
const NAMES: f64 = 205.0;
const ROW: f64 = 20.0;
const HEAD: f64 = 46.0;
const GAP: f64 = 14.0;

pub(super) fn svg(results: &Results) -> String {
    let mut body = String::new();
    let mut top = 0.0;
    for scene in results.scenes() {
        top = panels(&mut body, results, scene, top);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {top}\" width=\"{WIDTH}\" height=\"{top}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\">\n<style>\n\
         text {{ fill: #6e7781 }} .title {{ font-weight: 600; font-size: 14px }} .own {{ font-weight: 600 }}\n\
         .bar {{ fill: #a0a8b2 }} .ours {{ fill: #2f81f7 }} .spread {{ stroke: #6e7781 }}\n\
         </style>\n{body}</svg>\n"
    )
}

/// One scene below `top`; returns where it ends.
fn panels(body: &mut String, results: &Results, scene: Scene, top: f64) -> f64 {
    let peers: Vec<Peer> = Peer::ALL
        .into_iter()
        .filter(|peer| SHOWN.iter().any(|metric| results.summary(scene, *peer, *metric).is_some()))
        .collect();
    let shown: Vec<Metric> = SHOWN
        .into_iter()
        .filter(|metric| peers.iter().any(|peer| results.summary(scene, *peer, *metric).is_some()))
        .collect();
    if shown.is_empty() {
        return top;
    }
    let _ = writeln!(body, "<text class=\"title\" x=\"0\" y=\"{}\">{}</text>", top + 17.0, scene.title());
    let mut y = top + HEAD;
    for peer in &peers {
        let class = if *peer == Peer::Vswitchd { " class=\"own\"" } else { "" };
        let (x, base) = (NAMES - 8.0, y + 14.0);
        let name = peer.title(scene);
        let _ = writeln!(body, "<text{class} x=\"{x}\" y=\"{base}\" text-anchor=\"end\">{name}</text>");
        y += ROW;
    }
    // All panels have the width of a third, so that scenes line up.
    let width = (WIDTH - NAMES) / 3.0;
    let mut left = NAMES;
    for metric in shown {
        let _ = writeln!(body, "<text x=\"{left}\" y=\"{}\">{}</text>", top + HEAD - 8.0, caption(metric));
        panel(body, results, (scene, metric), &peers, (left, top + HEAD, width - 70.0));
        left += width;
    }
    y + GAP
}

fn caption(metric: Metric) -> &'static str {
    match metric {
        Metric::Tcp1 => "TCP, one stream, Gbit/s",
        Metric::Udp => "64-byte UDP received, kpps",
        Metric::RoundTripP50 => "round trip, median, µs: less is better",
        other => other.title(),
    }
}

fn panel(
    body: &mut String,
    results: &Results,
    (scene, metric): (Scene, Metric),
    peers: &[Peer],
    (left, top, width): (f64, f64, f64),
) {
    let all: Vec<Option<Summary>> = peers.iter().map(|peer| results.summary(scene, *peer, metric)).collect();
    let most = all.iter().flatten().fold(0.0_f64, |most, summary| most.max(summary.greatest));
    let scale = if most > 0.0 { width / most } else { 0.0 };
    let mut y = top;
    for (peer, summary) in peers.iter().zip(all) {
        if let Some(Summary { median, least, greatest }) = summary {
            let class = if *peer == Peer::Vswitchd { "bar ours" } else { "bar" };
            let (long, from, to) = (median * scale, left + least * scale, left + greatest * scale);
            let _ = writeln!(
                body,
                "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{long:.1}\" height=\"14\" rx=\"2\"/>\
                 <path class=\"spread\" d=\"M{from:.1} {mid:.1}H{to:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                y + 3.0,
                to + 5.0,
                y + 14.0,
                short(median),
                mid = y + 10.0,
            );
        }
        y += ROW;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measured_peer_has_a_bar_and_the_longest_fills_its_panel() {
        let mut results = Results::default();
        for (peer, value) in [(Peer::Vswitchd, 20.0), (Peer::Ovs, 5.0)] {
            results.add(Scene::Pods, peer, Metric::Tcp1, value);
        }
        let text = svg(&results);
        assert_eq!(text.matches("<rect").count(), 2, "{text}");
        let width = (WIDTH - NAMES) / 3.0 - 70.0;
        assert!(text.contains(&format!("width=\"{width:.1}\"")), "{text}");
        assert!(text.contains(&format!("width=\"{:.1}\"", width / 4.0)), "{text}");
        assert!(text.contains("vswitchd") && text.contains("Open vSwitch"), "{text}");
    }

    #[test]
    fn nothing_measured_is_an_empty_picture() {
        let text = svg(&Results::default());
        assert!(text.starts_with("<svg") && text.ends_with("</svg>\n") && !text.contains("<rect"), "{text}");
    }
}
