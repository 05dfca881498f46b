# One-liners; `just` alone lists them. CI does not need it.

_list:
    @just --list --unsorted

# The tests; arguments go to `cargo test`
test *ARGS:
    tests/run {{ARGS}}

# Everything that must be green before a commit lands
ci:
    .ci/run

# Format, lints, docs, dependencies
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --locked
    cargo deny --locked check licenses bans sources

# One fuzz target, for a minute unless SECONDS says otherwise; `cargo +nightly fuzz list` names them
fuzz TARGET SECONDS="60":
    cargo run --quiet --locked -p vswitch-fuzz --example seed
    CARGO_PROFILE_RELEASE_LTO=off cargo +nightly fuzz run {{TARGET}} -- -max_total_time={{SECONDS}}

# All benches, or one: wire, mac_table, forward, offload
bench *NAME:
    cargo bench --locked -p vswitch-benches {{ if NAME == "" { "" } else { "--bench " + NAME } }}

# vswitchd beside Open vSwitch, the kernel and the raw limit, as root; --help says what there is
compare *ARGS:
    benches/compare {{ARGS}}

# That many real daemons with one file behind one router, measured, as root; `--static` does without etcd
mesh-lab nodes="100" *ARGS:
    cargo build --release --locked -p vswitchd
    cargo run --release --locked -p vswitch-benches --bin mesh-lab -- {{nodes}} {{ARGS}}

# That many pods at once by CNI, ours beside the stock plugins, measured, as root; `--rounds N`
cni-lab pods="50" *ARGS:
    cargo build --release --locked -p vswitchd -p vswitch-cni
    cargo run --release --locked -p vswitch-benches --bin cni-lab -- {{pods}} {{ARGS}}

# How long scripts wait for ovs-vsctl, our switch and stock Open vSwitch in turns, as root
ovs-lab ports="100" *ARGS:
    cargo build --release --locked -p vswitchd
    cargo run --release --locked -p vswitch-benches --bin ovs-lab -- {{ports}} {{ARGS}}

# Instructions a frame takes in the core, beside the counts kept; `--write` keeps the new ones. Needs valgrind
instructions *ARGS:
    cargo run --quiet --release --locked -p vswitch-benches --bin instructions -- {{ARGS}}

# Two nodes, VLANs, VXLAN and real TAPs in private namespaces
demo *ARGS:
    cargo run --release --locked -p vswitchd -- demo {{ARGS}}

# A Debian package of static programs, in target/packages
deb:
    packaging/deb/build

# A container image of the same, without base image and without any registry
image:
    packaging/image/build

# The documentation, private items and all
doc:
    cargo doc --workspace --no-deps --document-private-items --locked --open

# The MAC table under every interleaving
loom:
    RUSTFLAGS="--cfg loom" cargo test --locked --release --target-dir target/loom -p vswitch-core --test mac_table_loom
