//! What is shipped: the Debian package, the units of systemd, the image, the manifests for Kubernetes. Each is built by
//! its own script and looked into with the tools of those who will use it. The programs are those of this build; that
//! release builds are static is not tried here.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing where something must be fails there")]

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use vswitch_tests::daemon::{Directory, Host, Said, program};
use vswitch_tests::lab::{check, skip};
use vswitch_tests::packaged::{
    PROGRAMS, add_libraries, build, built, json as json_of, manifests, packaging, unpacked,
};
use vswitchd::config::Config;
use vswitchd::sys::netns;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode()
        & 0o7777
}

/// Every file below a directory, from there, and links.
fn files(root: &Path) -> BTreeSet<String> {
    let (mut found, mut left) = (BTreeSet::new(), vec![root.to_owned()]);
    while let Some(directory) = left.pop() {
        for path in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() && !path.is_symlink() {
                left.push(path);
            } else {
                found.insert(format!("/{}", path.strip_prefix(root).unwrap().display()));
            }
        }
    }
    found
}

/// That a configuration file is good and warns of nothing.
fn is_good(text: &str, name: &str) {
    let config = Config::parse(text, name).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(config.warnings.is_empty(), "{name}: {:?}", config.warnings);
}

/// That `vswitchctl cni install` takes a network configuration list: it gets as far as asking a daemon that is not there.
fn is_list(file: &Path) {
    let away = Directory::new();
    let mut command = Command::new(program("vswitchctl").unwrap());
    command.env_remove("VSWITCHD_SOCKET").args(["--timeout", "1", "cni", "install"]).arg(file);
    for (option, name) in [("--socket", "none"), ("--bin-dir", "bin"), ("--conf-dir", "net.d")] {
        command.arg(option).arg(away.0.join(name));
    }
    command.arg("--binary").arg(program("vswitch-cni").unwrap());
    let said = Host::run_command(&mut command);
    assert_eq!(said.code, 69, "{}: {said:?}", file.display());
}

#[test]
fn the_debian_package_installs_upgrades_and_leaves_nothing_behind() {
    let Some(binaries) = built(&["dpkg", "dpkg-deb", "strip", "readelf"]) else { return };
    if !netns::is_root() {
        return skip("only root installs packages");
    }
    let directory = Directory::new();
    let package = build("deb/build", &binaries, &directory.0);
    assert_eq!(build("deb/build", &binaries, &directory.0.join("again")).file_name(), package.file_name());
    let bytes = |path: &Path| std::fs::read(path).unwrap();
    let again = directory.0.join("again").join(package.file_name().unwrap());
    assert!(bytes(&package) == bytes(&again), "the same commit and programs give another package");

    let (root, admin) = (directory.0.join("root"), directory.0.join("admin"));
    std::fs::create_dir_all(&root).unwrap();
    std::fs::create_dir_all(admin.join("updates")).unwrap();
    std::fs::write(admin.join("status"), "").unwrap();
    // Its scripts run outside of that root and are told so; what it depends on is not in there.
    let dpkg = |words: &[&str]| {
        let mut command = Command::new("dpkg");
        command
            .arg("--force-depends,script-chrootless,not-root")
            .arg(format!("--instdir={}", root.display()));
        command.arg(format!("--admindir={}", admin.display())).arg("--force-confold").args(words);
        check(&mut command)
    };
    let install = || dpkg(&["--install", package.to_str().unwrap()]);
    install();
    for (path, bits) in [
        ("/usr/sbin/vswitchd", 0o755),
        ("/usr/bin/vswitchctl", 0o755),
        ("/usr/lib/cni/vswitch-cni", 0o755),
        ("/usr/lib/systemd/system/vswitchd.service", 0o644),
        ("/usr/lib/systemd/system/vswitch-cni-install.service", 0o644),
        ("/etc/vswitchd/vswitchd.toml", 0o600),
        ("/etc/vswitchd/cni.conflist", 0o644),
        ("/etc/default/vswitch-cni", 0o644),
        ("/usr/share/doc/vswitch/cni.md", 0o644),
        ("/usr/share/doc/vswitch/copyright", 0o644),
        ("/usr/share/doc/vswitch/changelog.gz", 0o644),
    ] {
        assert_eq!(mode(&root.join(&path[1..])), bits, "{path}");
    }
    let status = dpkg(&["--status", "vswitch"]);
    assert!(status.contains("Status: install ok installed"), "{status}");
    let conffiles: Vec<&str> = status.lines().filter_map(|line| line.strip_prefix(" /etc/")).collect();
    assert_eq!(conffiles.len(), 3, "{status}");

    let config = root.join("etc/vswitchd/vswitchd.toml");
    is_good(&std::fs::read_to_string(&config).unwrap(), "vswitchd.toml");
    is_list(&root.join("etc/vswitchd/cni.conflist"));

    // An upgrade leaves what the administrator wrote; a removal too; a purge leaves nothing.
    std::fs::write(&config, "# mine\n").unwrap();
    std::fs::create_dir_all(root.join("var/lib/vswitchd")).unwrap();
    std::fs::write(root.join("var/lib/vswitchd/state.json"), "{}").unwrap();
    install();
    dpkg(&["--remove", "vswitch"]);
    assert_eq!(std::fs::read_to_string(&config).unwrap(), "# mine\n");
    assert!(!root.join("usr/sbin/vswitchd").exists());
    dpkg(&["--purge", "vswitch"]);
    assert_eq!(files(&root), BTreeSet::new());
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let Some(binaries) = built(&["systemd-analyze"]) else { return };
    let directory = Directory::new();
    let mut command = Command::new("systemd-analyze");
    command.arg("verify");
    for name in ["vswitchd.service", "vswitch-cni-install.service"] {
        let unit = std::fs::read_to_string(packaging().join("systemd").join(name)).unwrap();
        // It looks whether the programs are there, and they are not installed.
        let unit = unit
            .replace("/usr/sbin/vswitchd", binaries.join("vswitchd").to_str().unwrap())
            .replace("/usr/bin/vswitchctl", binaries.join("vswitchctl").to_str().unwrap());
        let path = directory.0.join(name);
        std::fs::write(&path, unit).unwrap();
        command.arg(path);
    }
    let said = Host::run_command(&mut command);
    let own: Vec<&str> = said.err.lines().filter(|line| line.contains("vswitch")).collect();
    assert_eq!((said.code, own), (0, vec![]), "{said:?}");
}

#[test]
fn the_daemons_unit_keeps_descriptors_and_restarts_only_what_may_get_better() {
    let unit = std::fs::read_to_string(packaging().join("systemd/vswitchd.service")).unwrap();
    let set = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let number = |key: &str| set(key).unwrap().parse::<u32>().unwrap();
    assert!((4096..=number("LimitNOFILE")).contains(&number("FileDescriptorStoreMax")));
    assert_eq!((set("Type"), set("NotifyAccess")), (Some("notify"), Some("main")));
    assert_eq!(set("RestartPreventExitStatus"), Some("64"));
    // Mounts of its own would keep namespaces of pods alive.
    for option in
        ["ProtectSystem", "PrivateTmp", "ProtectHome", "PrivateDevices", "ReadWritePaths", "PrivateMounts"]
    {
        assert_eq!(set(option), None, "{option}");
    }
}

/// That both ways into the archive, the OCI layout and what `docker load` reads, lead to the same.
fn is_both(layout: &Path, config: &Value) {
    let docker = json_of(&layout.join("manifest.json"));
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let name = format!("blobs/sha256/{digest}");
        let file = layout.join(&name);
        assert_eq!(std::fs::metadata(&file).unwrap().len(), descriptor["size"].as_u64().unwrap());
        let sum = check(Command::new("sha256sum").arg(&file));
        assert!(sum.starts_with(digest), "{sum}");
        name
    };
    let manifest = json_of(&layout.join(blob(&json_of(&layout.join("index.json"))["manifests"][0])));
    assert_eq!(docker[0]["Config"], json!(blob(&manifest["config"])));
    assert_eq!(docker[0]["Layers"], json!([blob(&manifest["layers"][0])]));
    assert_eq!(config["rootfs"]["diff_ids"], json!([manifest["layers"][0]["digest"]]));
}

#[test]
fn the_image_holds_what_its_containerfile_says() {
    let Some(binaries) = built(&["tar", "strip", "sha256sum"]) else { return };
    let directory = Directory::new();
    let archive = build("image/build", &binaries, &directory.0);
    let (layout, root, config) = unpacked(&archive, &directory.0);
    is_both(&layout, &config);
    let containerfile = std::fs::read_to_string(packaging().join("image/Containerfile")).unwrap();
    let words = |word: &str| -> Vec<String> {
        containerfile.lines().filter_map(|line| line.strip_prefix(word)).map(str::to_owned).collect()
    };
    let copied: BTreeSet<String> =
        words("COPY ").iter().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect();
    assert_eq!(files(&root), copied);
    assert_eq!(words("FROM "), ["scratch"]);
    assert_eq!(config["config"]["Env"], json!(words("ENV ")));
    let command: Value = serde_json::from_str(&words("CMD ")[0]).unwrap();
    assert_eq!(config["config"]["Cmd"], command);
    for path in PROGRAMS {
        assert_eq!(mode(&root.join(&path[1..])), 0o755, "{path}");
    }
    is_good(&std::fs::read_to_string(root.join("etc/vswitchd/vswitchd.toml")).unwrap(), "vswitchd.toml");
    is_list(&root.join("etc/vswitchd/cni.conflist"));
}

/// Runs a program of an empty root, which is all that it sees.
fn run_in(root: &Path, environment: &[(&str, &str)], words: &[&str]) -> Said {
    let mut command = Command::new(if netns::is_root() { "chroot" } else { "unshare" });
    if !netns::is_root() {
        command.args(["--user", "--map-root-user", "chroot"]);
    }
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").envs(environment.iter().copied());
    Host::run_command(command.arg(root).args(words))
}

#[test]
fn the_programs_of_the_image_run_where_there_is_nothing_else() {
    let Some(binaries) = built(&["tar", "strip", "sha256sum", "chroot", "ldd", "readelf"]) else { return };
    let directory = Directory::new();
    let (_, root, _) = unpacked(&build("image/build", &binaries, &directory.0), &directory.0);
    add_libraries(&root);
    let version = env!("CARGO_PKG_VERSION");
    for name in ["vswitchd", "vswitchctl"] {
        let path = PROGRAMS.iter().find(|path| path.ends_with(name)).unwrap();
        let said = run_in(&root, &[], &[path, "--version"]);
        assert_eq!(said.out, format!("{name} {version}\n"), "{said:?}");
    }
    let said = run_in(&root, &[], &[PROGRAMS[0], "--check", "--config", "/etc/vswitchd/vswitchd.toml"]);
    assert!(said.code == 0 && said.out.ends_with(": good\n"), "{said:?}");
    let said = run_in(&root, &[("CNI_COMMAND", "VERSION")], &[PROGRAMS[2]]);
    assert!(said.code == 0 && said.json()["supportedVersions"].is_array(), "{said:?}");
    // The plugin comes with it, and is installed from it.
    let install = [PROGRAMS[1], "--timeout", "1", "cni", "install"];
    let said = run_in(&root, &[], &install);
    assert_eq!(said.code, 69, "{said:?}");
    let plugin = |at: &str| std::fs::read(root.join(at)).unwrap();
    assert!(plugin("opt/cni/bin/vswitch-cni") == plugin("usr/lib/cni/vswitch-cni"));
}

#[test]
fn podman_takes_the_image() {
    let Some(binaries) = built(&["tar", "strip", "sha256sum", "podman"]) else { return };
    if !netns::is_root() {
        return skip("podman without root needs more than a test may ask for");
    }
    let directory = Directory::new();
    let archive = build("image/build", &binaries, &directory.0);
    let podman = |words: &[&str]| {
        let mut command = Command::new("podman");
        command.args(["--storage-driver", "vfs", "--root"]).arg(directory.0.join("root"));
        command.arg("--runroot").arg(directory.0.join("run")).args(words);
        check(&mut command)
    };
    podman(&["load", "--input", archive.to_str().unwrap()]);
    let name = format!("localhost/vswitch:{}", env!("CARGO_PKG_VERSION"));
    let said: Value = serde_json::from_str(&podman(&["image", "inspect", &name])).unwrap();
    assert_eq!(said[0]["Config"]["Cmd"][0], "vswitchd", "{said}");
}

#[test]
fn the_manifests_are_good_by_the_schemas_of_kubernetes() {
    let Some(all) = manifests() else { return };
    assert!(all.len() >= 4, "{}", all.len());
    check(&mut Command::new(packaging().join("kubernetes/validate")));
    // A validator that finds nothing wrong anywhere would prove nothing.
    let directory = Directory::new();
    let bad = directory.0.join("bad.yaml");
    let good = std::fs::read_to_string(packaging().join("kubernetes/20-keeper.yaml")).unwrap();
    std::fs::write(&bad, good.replace("hostNetwork: true", "hostNetwork: 1")).unwrap();
    let output = Command::new(packaging().join("kubernetes/validate")).arg(&bad).output().unwrap();
    assert!(!output.status.success());
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn no_pod_of_the_manifests_may_more_than_it_needs() {
    let Some(all) = manifests() else { return };
    let image = json!(format!("localhost/vswitch:{}", env!("CARGO_PKG_VERSION")));
    let mut added = Vec::new();
    let sets: Vec<&Value> = all.iter().filter(|object| object["kind"] == "DaemonSet").collect();
    assert_eq!(sets.len(), 2);
    for set in sets {
        let pod = &set["spec"]["template"]["spec"];
        assert_eq!((&pod["hostPID"], &pod["hostIPC"]), (&Value::Null, &Value::Null));
        assert_eq!(pod["automountServiceAccountToken"], false);
        let volumes: BTreeSet<&str> =
            list(pod, "volumes").iter().map(|volume| volume["name"].as_str().unwrap()).collect();
        for container in list(pod, "containers") {
            let (name, may) = (container["name"].as_str().unwrap(), &container["securityContext"]);
            assert_eq!(container["image"], image, "{name}: what packaging/image/build makes");
            assert_eq!(may["capabilities"]["drop"], json!(["ALL"]), "{name}");
            assert_eq!(may["privileged"], Value::Null, "{name}");
            assert_eq!(may["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(may["readOnlyRootFilesystem"], true, "{name}");
            added.extend(list(&may["capabilities"], "add").iter().map(|word| (name, word.as_str().unwrap())));
            // A probe that ends the daemon, or a keeper, costs more than one that is not there.
            assert_eq!(container["livenessProbe"], Value::Null, "{name}");
            let command = container["command"][0].as_str().unwrap();
            assert!(PROGRAMS.iter().any(|path| path.ends_with(&format!("/{command}"))), "{name}: {command}");
            for mount in list(container, "volumeMounts") {
                assert!(volumes.contains(mount["name"].as_str().unwrap()), "{name}: {mount}");
            }
        }
    }
    assert_eq!(added, [("vswitchd", "NET_ADMIN")]);
    let roles = all.iter().filter(|object| object["kind"].as_str().unwrap().contains("Role")).count();
    assert_eq!(roles, 0, "nobody asks the API server for anything");
}

#[test]
fn the_keeper_is_replaced_only_by_hand_and_shares_its_socket_with_the_daemon() {
    let Some(all) = manifests() else { return };
    let set = |name: &str| all.iter().find(|object| object["metadata"]["name"] == name).unwrap();
    let (keeper, daemon) = (set("vswitch-keeper"), set("vswitchd"));
    assert_eq!(keeper["spec"]["updateStrategy"]["type"], "OnDelete");
    let pod = |set: &Value| set["spec"]["template"]["spec"].clone();
    let socket = pod(keeper)["containers"][0]["command"][3].clone();
    let environment = pod(daemon)["containers"][0]["env"].clone();
    let told =
        environment.as_array().unwrap().iter().find(|entry| entry["name"] == "VSWITCHD_KEEPER").unwrap();
    assert_eq!(told["value"], socket);
    let run = json!({"name": "run", "hostPath": {"path": "/run/vswitchd", "type": "DirectoryOrCreate"}});
    for set in [keeper, daemon] {
        assert!(list(&pod(set), "volumes").contains(&run), "{set}");
    }
}

#[test]
fn the_configuration_in_the_manifests_is_good() {
    if built(&[]).is_none() {
        return;
    }
    let Some(all) = manifests() else { return };
    let config = all.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
    is_good(config["data"]["vswitchd.toml"].as_str().unwrap(), "vswitchd.toml");
    let directory = Directory::new();
    let file = directory.0.join("cni.conflist");
    std::fs::write(&file, config["data"]["cni.conflist"].as_str().unwrap()).unwrap();
    is_list(&file);
}
