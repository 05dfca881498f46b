//! What `packaging/` builds, unpacked: the image as a root that a container would have, the manifests as objects. The
//! programs in it are those of this build. Not here: whether it is good.

use crate::daemon::program;
use crate::lab::{check, skip};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs that are shipped, by their places in the image.
pub const PROGRAMS: [&str; 3] = ["/usr/sbin/vswitchd", "/usr/bin/vswitchctl", "/usr/lib/cni/vswitch-cni"];

/// The directory `packaging`.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn packaging() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging");
    path.canonicalize().expect("packaging lies beside tests")
}

/// The directory of this build's programs; `None`, after a loud word, where one was not built or one of these tools is
/// missing.
///
/// # Panics
/// In CI instead of the word.
#[must_use]
pub fn built(tools: &[&str]) -> Option<PathBuf> {
    let has = |tool: &str| {
        let looked = Command::new("sh").args(["-c", &format!("command -v {tool} >/dev/null")]).status();
        looked.is_ok_and(|status| status.success())
    };
    if let Some(tool) = tools.iter().find(|tool| !has(tool)) {
        skip(&format!("{tool} is not installed"));
        return None;
    }
    let names = PROGRAMS.map(|path| path.rsplit('/').next().unwrap_or(path));
    if let Some(name) = names.into_iter().find(|name| program(name).is_none()) {
        skip(&format!("{name} is not beside the test: cargo build --bins builds it"));
        return None;
    }
    program("vswitchd")?.parent().map(Path::to_owned)
}

/// Runs a script of `packaging/`, quick rather than small, and gives the path that it prints.
///
/// # Panics
/// When it fails.
#[must_use]
pub fn build(script: &str, binaries: &Path, out: &Path) -> PathBuf {
    let mut command = Command::new(packaging().join(script));
    // dpkg-deb(1): any of its compressors will do, and this one takes a tenth of the time.
    command.env("DPKG_DEB_COMPRESSOR_TYPE", "gzip");
    command.arg("--binaries").arg(binaries).arg("--out").arg(out);
    PathBuf::from(check(&mut command).trim())
}

/// The image's archive taken apart below `directory`: the directory of the archive's own files, that of the only
/// layer's, and the image's configuration.
///
/// # Panics
/// When it is no archive as `docker save` makes them, of one layer.
#[must_use]
pub fn unpacked(archive: &Path, directory: &Path) -> (PathBuf, PathBuf, Value) {
    let (layout, root) = (directory.join("layout"), directory.join("image-root"));
    let untar = |archive: &Path, to: &Path| {
        std::fs::create_dir_all(to).expect("a test's directory can be written");
        check(Command::new("tar").args(["--extract", "--file"]).arg(archive).arg("--directory").arg(to));
    };
    untar(archive, &layout);
    let docker = json(&layout.join("manifest.json"));
    let layers = docker[0]["Layers"].as_array().map_or(&[][..], Vec::as_slice);
    let [Value::String(layer)] = layers else { panic!("{docker}") };
    untar(&layout.join(layer), &root);
    let config = json(&layout.join(docker[0]["Config"].as_str().expect("a path")));
    (layout, root, config)
}

/// Puts the C library beside the programs of an unpacked image where they are not static, which those of a test's build
/// are not.
///
/// # Panics
/// When it cannot be found.
pub fn add_libraries(root: &Path) {
    for path in PROGRAMS.map(|path| root.join(&path[1..])) {
        if !check(Command::new("readelf").arg("-lW").arg(&path)).contains("INTERP") {
            continue;
        }
        let listed = check(Command::new("ldd").arg(&path));
        for library in listed.split_whitespace().filter(|word| word.starts_with('/')) {
            let to = root.join(&library[1..]);
            std::fs::create_dir_all(to.parent().expect("a file lies in a directory"))
                .and_then(|()| std::fs::copy(library, &to))
                .unwrap_or_else(|error| panic!("{library}: {error}"));
        }
    }
}

/// A file of JSON.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn json(path: &Path) -> Value {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The manifests as `kubectl` would see them; `None`, after a loud word, where their validator cannot be had.
///
/// # Panics
/// When they are no YAML; in CI instead of the word.
#[must_use]
pub fn manifests() -> Option<Vec<Value>> {
    let mut command = Command::new(packaging().join("kubernetes/validate"));
    let output = command.arg("--json").output().expect("the script can be run");
    if output.status.code() == Some(69) {
        skip("the validator of manifests cannot be installed (python3 with venv and pip)");
        return None;
    }
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8_lossy(&output.stdout);
    Some(lines.lines().map(|line| serde_json::from_str(line).expect("JSON was asked for")).collect())
}
