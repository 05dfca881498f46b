//! Results on paper: a Markdown table, raw numbers as JSON, a plot.

mod plot;
mod table;

use crate::measure::Metric;
use crate::modes::Table;
use crate::peers::Peer;
use crate::stats::Results;
use anyhow::Context as _;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// Writes `compare.md`, `compare.json` and `compare.svg` into `directory`, and returns the table.
pub(crate) fn write(results: &Results, circumstances: &[String], directory: &Path) -> anyhow::Result<String> {
    let table = table::markdown(results, circumstances);
    let raw = serde_json::to_string_pretty(&raw(results, circumstances))? + "\n";
    save(directory, "compare.md", &table)?;
    save(directory, "compare.json", &raw)?;
    save(directory, "compare.svg", &plot::svg(results))?;
    Ok(table)
}

/// Writes the table of a mode into `directory` as `name.md`, and returns it.
pub(crate) fn write_table(table: &Table, directory: &Path, name: &str) -> anyhow::Result<String> {
    let text = table.markdown();
    save(directory, &format!("{name}.md"), &text)?;
    Ok(text)
}

fn save(directory: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    let path = directory.join(name);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

fn raw(results: &Results, circumstances: &[String]) -> Value {
    let mut scenes = Map::new();
    for scene in results.scenes() {
        let mut peers = Map::new();
        for peer in Peer::ALL.into_iter().filter(|peer| results.has(scene, *peer)) {
            let mut metrics = Map::new();
            for metric in Metric::ALL {
                let samples = results.samples(scene, peer, metric);
                if !samples.is_empty() {
                    metrics.insert(metric.word().to_owned(), json!(samples));
                }
            }
            if let Some(why) = results.why(scene, peer) {
                metrics.insert("note".to_owned(), json!(why));
            }
            peers.insert(peer.word().to_owned(), Value::Object(metrics));
        }
        scenes.insert(scene.word().to_owned(), Value::Object(peers));
    }
    json!({ "circumstances": circumstances, "scenes": scenes })
}

/// A number with as many digits as it deserves.
pub(crate) fn short(value: f64) -> String {
    let digits = match value.abs() {
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        value if value >= 0.0995 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::Scene;

    #[test]
    fn numbers_have_three_digits() {
        let all: Vec<String> =
            [1234.4, 123.4, 99.96, 27.66, 9.999, 1.234, 0.123, 0.0123, 0.0].into_iter().map(short).collect();
        assert_eq!(all, ["1234", "123", "100", "27.7", "10.0", "1.23", "0.12", "0.012", "0.000"]);
    }

    #[test]
    fn three_files_are_written() {
        let directory = std::env::temp_dir().join(format!("vswitch-compare-{}", std::process::id()));
        let mut results = Results::default();
        results.add(Scene::Pods, Peer::Vswitchd, Metric::Tcp1, 10.0);
        results.note(Scene::Pods, Peer::Ovs, "not here".to_owned());
        let table = write(&results, &["a machine".to_owned()], &directory).unwrap();
        assert_eq!(fs::read_to_string(directory.join("compare.md")).unwrap(), table);
        let raw: Value =
            serde_json::from_str(&fs::read_to_string(directory.join("compare.json")).unwrap()).unwrap();
        assert_eq!(raw.pointer("/scenes/pods/vswitchd/tcp_1_gbit_s/0"), Some(&json!(10.0)));
        assert_eq!(raw.pointer("/scenes/pods/ovs/note"), Some(&json!("not here")));
        assert!(fs::read_to_string(directory.join("compare.svg")).unwrap().ends_with("</svg>\n"));
        fs::remove_dir_all(directory).unwrap();
    }
}
