//! The one image that the runtimes run: a static busybox under all its names, as `docker save` would write it.
//!
//! No registry is asked. Not here: how a runtime takes it in.

use crate::daemon::Directory;
use crate::lab::check;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// The static binary: Debian's package busybox-static.
pub const BUSYBOX: &str = "/bin/busybox";

/// What the image is called.
pub const IMAGE: &str = "localhost/busybox:test";

/// Whether the binary runs where there is nothing else, as in the image.
pub(super) fn is_static() -> bool {
    let root = Directory::new();
    let copied = fs::copy(BUSYBOX, root.0.join("busybox"));
    let mut alone = Command::new("chroot");
    let ran = alone.arg(&root.0).args(["/busybox", "true"]).output();
    copied.is_ok() && ran.is_ok_and(|output| output.status.success())
}

/// Writes the image to `to`: a tar of one layer, its configuration (OCI image specification, config.md) and
/// `manifest.json`, by which a "docker-archive" is known.
///
/// # Panics
/// When a file cannot be written, or `tar` or `sha256sum` fails.
pub(super) fn write(to: &Path) {
    let directory = Directory::new();
    let directory = &directory.0;
    let root = directory.join("root");
    for name in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(root.join(name)).expect("the directory is ours");
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).expect("looked for before the test began");
    let applets = check(Command::new(BUSYBOX).arg("--list"));
    for name in applets.lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(name)).expect("the directory is ours");
    }
    tar(&root, &directory.join("layer.tar"), &["."]);
    let sum = check(Command::new("sha256sum").arg(directory.join("layer.tar")));
    let sum = sum.split(' ').next().expect("a line begins with the sum");
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = serde_json::json!({
        "architecture": machine,
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]},
    });
    let manifest = serde_json::json!([
        {"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}
    ]);
    for (name, json) in [("config.json", config), ("manifest.json", manifest)] {
        fs::write(directory.join(name), json.to_string()).expect("the directory is ours");
    }
    tar(directory, to, &["manifest.json", "config.json", "layer.tar"]);
}

fn tar(directory: &Path, to: &Path, names: &[&str]) {
    check(Command::new("tar").arg("-C").arg(directory).arg("-cf").arg(to).args(names));
}
