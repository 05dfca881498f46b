//! What `--keep` prints: commands to look around, to be copied as they are.

use super::layout::Layout;
use super::node::Node;
use crate::sys::netns;
use std::fmt::Write as _;
use std::path::Path;

/// The commands, for another terminal of the same user. `own_user`: the demo has a user namespace of its own.
pub(super) fn commands(layout: &Layout, nodes: &[Node], own_user: bool) -> String {
    let user = if own_user { " --preserve-credentials -U" } else { "" };
    let tool = std::env::current_exe().map(|program| program.with_file_name("vswitchctl"));
    let tool = tool.unwrap_or_else(|_| "vswitchctl".into());
    let mut text = String::from("It stays up. In another terminal:\n");
    let mut put = |what: &str, command: &str| {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  # {what}\n  {command}\n");
    };
    if !tool.exists() {
        let release = if cfg!(debug_assertions) { "" } else { " --release" };
        put("vswitchctl is not built yet", &format!("cargo build{release} -p vswitchd"));
    }
    for (node, verb) in nodes.iter().zip(["status", "mac"]) {
        let command = format!("nsenter -t {}{user} -m -n {} {verb}", node.pid(), quoted(&tool));
        put(&format!("the switch of {}", node.name), &command);
    }
    let here = std::process::id();
    let inside = |pod: &str| {
        let namespace = format!("/proc/{here}/root{}/{pod}", netns::DIRECTORY);
        format!("nsenter -t {here}{user} -m --net={namespace}")
    };
    if let Some((from, to)) = layout.pairs(true).next().filter(|_| on_path("ping")) {
        let command = format!("{} ping -c 3 {}", inside(&from.name), to.v4);
        put(&format!("from {} to {}", from.name, to.name), &command);
    }
    if let Some(pod) = layout.pods.last() {
        put(&format!("a shell in {}", pod.name), &format!("{} sh", inside(&pod.name)));
    }
    text.push_str("\nCtrl-C ends it.");
    text
}

/// Whether the user has `program`.
fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).exists())
}

/// `path` as one word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_odd_letters_is_one_word() {
        assert_eq!(quoted(Path::new("/a/b-1.x")), "/a/b-1.x");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
