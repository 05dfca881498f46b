//! The documents speak of what is there: keys, files, commands. Not here: whether they are well written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use vswitchd::config::Config;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the workspace").to_owned()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every table of a TOML text with the keys used in it, over all its entries.
fn keys_of(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    // A key that may not stand beside another is there as a comment.
    let text = text.replace("\n# password = ", "\npassword = ");
    let file: toml::Table = text.parse().expect("the reference is TOML");
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (table, value) in &file {
        let entries: Vec<&toml::Table> = match value {
            toml::Value::Table(entry) => vec![entry],
            toml::Value::Array(entries) => entries.iter().filter_map(toml::Value::as_table).collect(),
            _ => panic!("{table} is no table"),
        };
        for entry in entries {
            all.entry(table.clone()).or_default().extend(entry.keys().cloned());
        }
    }
    all
}

/// The README's table of keys: `[table]` or `[[table]]`, then keys in backticks.
fn keys_of_readme() -> BTreeMap<String, BTreeSet<String>> {
    let readme = read("README.md");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `["));
    rows.map(|row| {
        let (table, keys) = row.split_once('|').expect("two columns");
        let table = table.trim().trim_matches(|c| c == '[' || c == ']' || c == '`');
        let keys = keys.split('`').skip(1).step_by(2).map(str::to_owned);
        (table.to_owned(), keys.collect())
    })
    .collect()
}

#[test]
fn the_readme_names_every_key_of_the_reference_and_no_other() {
    assert_eq!(keys_of_readme(), keys_of(&read("configs/reference.toml")));
}

#[test]
fn every_toml_block_of_the_readme_is_a_good_configuration() {
    let readme = read("README.md");
    let blocks: Vec<&str> =
        readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        if let Err(errors) = Config::parse(block, "README.md") {
            panic!("{errors}\n{block}");
        }
    }
}

#[test]
fn every_file_that_a_document_links_to_exists() {
    let mut documents = vec!["README.md".into(), "ARCHITECTURE.md".into(), "CHANGELOG.md".into()];
    for entry in fs::read_dir(root().join("docs/adr")).expect("there are decision records") {
        documents.push(format!("docs/adr/{}", entry.expect("readable").file_name().to_string_lossy()));
    }
    for document in documents {
        let folder = root().join(&document).parent().expect("a file lies in a folder").to_owned();
        for link in read(&document).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !link.contains("://") && !link.starts_with('#') {
                assert!(folder.join(link).exists(), "{document} links to {link}, which is not there");
            }
        }
    }
}

#[test]
fn the_architecture_names_rooms_that_exist() {
    for room in read("ARCHITECTURE.md").lines().filter_map(|line| line.strip_prefix("| `")) {
        let path = room.split('`').next().expect("a backtick ends it");
        assert!(root().join(path).exists(), "{path}");
    }
}
