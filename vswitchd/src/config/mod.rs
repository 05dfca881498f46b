//! What the switch is wished to be: [`Config`], made of one TOML file, the same bytes on every node.
//!
//! [`Config::parse`] turns text into meaning and refuses, all at once and with their places, the wishes that
//! make no sense. Everything here is pure: no descriptor, no netlink, no switch, no clock. What a node has
//! (its name, its addresses, its interfaces) is an argument.

use self::peer_rules::Gathered;
use self::read::{Report, Section};
use std::collections::HashMap;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vswitch_core::Vlan;
use vswitch_core::port::VlanSet;

mod address;
mod bridge;
mod cluster;
mod error;
mod file;
mod host;
mod peer;
mod peer_rules;
mod port;
mod port_rules;
mod read;
mod record;
mod segment;
mod tunnel_rules;

pub use address::{AddressSpec, Prefix, fits_a_node};
pub use bridge::{BridgeConfig, MirrorConfig, MirrorOutput, SnoopingConfig, TunnelConfig};
pub use cluster::Cluster;
pub use error::{ConfigError, ConfigErrors, Place, Warning};
pub use host::PeerName;
pub use peer::{Chosen, Families, FamilyMissing, MAX_PEERS, PeerConfig, PeerSource, Reserved, Underlay};
pub use port::{AntiSpoof, MAX_MTU, MIN_MTU, Policing, PortConfig, PortKind, VlanMode};
pub use segment::SegmentConfig;
pub use vswitch_core::port::{InnerVlan, PriorityTags};

/// The whole wish. Two that are equal ask for the same, wherever in their files the words stand.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[node]`.
    pub node: NodeConfig,
    /// `[underlay]`; without it the node has no tunnels.
    pub underlay: Option<Underlay>,
    /// `[mesh]` and `[[peer]]`: ranges and prefixes expanded, duplicates merged, sorted by address. This
    /// node's own address may still be among them: see [`Config::peers_for`].
    pub mesh: Vec<PeerConfig>,
    /// Names among `[mesh] peers`, each once, in the order of the file.
    pub mesh_names: Vec<PeerName>,
    /// `[mesh] probe`: whether peers are asked if they live; if not, the state of all stays unknown.
    pub probe: bool,
    /// `[cluster]`; without it the node knows the peers of its file alone.
    pub cluster: Option<Cluster>,
    /// `[control]`.
    pub control: Control,
    /// `[datapath]`.
    pub datapath: Datapath,
    /// `[mac_table]`.
    pub mac_table: MacTableConfig,
    /// `[switch]`.
    pub switch: Switch,
    /// `[[segment]]`, sorted by VLAN.
    pub segments: Vec<SegmentConfig>,
    /// `[[port]]`, of all nodes, in the order of the file.
    pub ports: Vec<PortConfig>,
    /// What is allowed but hardly meant.
    pub warnings: Vec<Warning>,
    /// Where in the file the things above stand.
    pub places: Places,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: NodeConfig::default(),
            underlay: None,
            mesh: Vec::new(),
            mesh_names: Vec::new(),
            probe: true,
            cluster: None,
            control: Control::default(),
            datapath: Datapath::default(),
            mac_table: MacTableConfig::default(),
            switch: Switch::default(),
            segments: Vec::new(),
            ports: Vec::new(),
            warnings: Vec::new(),
            places: Places::default(),
        }
    }
}

/// Where things stand in the file, for messages that name what decided. All are equal, as places are.
#[derive(Clone, Debug, Default)]
pub struct Places {
    ports: HashMap<String, Place>,
    segments: HashMap<String, Place>,
    peers: HashMap<IpAddr, Place>,
}

impl PartialEq for Places {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Places {
    /// Of the `[[port]]` called `name`; `None` when the file has none.
    #[must_use]
    pub fn port(&self, name: &str) -> Option<&Place> {
        self.ports.get(name)
    }

    /// Of the `[[segment]]` called `name`.
    #[must_use]
    pub fn segment(&self, name: &str) -> Option<&Place> {
        self.segments.get(name)
    }

    /// Of the `[[peer]]`, or of the entry of `[mesh] peers`, that names `address`.
    #[must_use]
    pub fn peer(&self, address: IpAddr) -> Option<&Place> {
        self.peers.get(&address)
    }
}

/// `[node]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeConfig {
    /// The node's name; `None`: the host name.
    pub name: Option<String>,
}

/// `[control]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The control socket, an absolute path.
    pub socket: PathBuf,
    /// What was changed at run time, an absolute path.
    pub state: PathBuf,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/run/vswitchd/control.sock"),
            state: PathBuf::from("/var/lib/vswitchd/state.json"),
        }
    }
}

/// `[datapath]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datapath {
    /// Worker threads, 1..=64; `None`: as many as there are CPUs, at most four.
    pub workers: Option<u16>,
    /// Checksum and segmentation offload on TAPs, GSO and GRO on the underlay, where the kernel has them.
    pub offload: bool,
    /// Microseconds for which a worker whose frames come quickly looks for the next before it sleeps, 0..=1000.
    pub busy_poll: u16,
}

impl Default for Datapath {
    fn default() -> Self {
        Self { workers: None, offload: true, busy_poll: 50 }
    }
}

/// `[mac_table]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MacTableConfig {
    /// Entries in all, 10..=16,777,216.
    pub limit: u32,
    /// Entries one port may hold, at least 1; above `limit` a port has no limit of its own. Not for peers.
    pub port_limit: u32,
    /// How long a station may be silent, 10..=1,000,000 seconds.
    pub ageing: Duration,
}

impl Default for MacTableConfig {
    fn default() -> Self {
        Self { limit: 65_536, port_limit: 8192, ageing: Duration::from_secs(300) }
    }
}

/// `[switch]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Switch {
    /// Whether frames to 01-80-C2-00-00-00 … 0F are forwarded.
    pub forward_bpdu: bool,
    /// VLANs in which nothing is learned and all is flooded.
    pub flood_vlans: VlanSet,
    /// How many tags are read, as Open vSwitch's `other_config:vlan-limit`: 1, 2, or 0 for no limit.
    pub vlan_limit: u8,
    /// Whether requests for stations that are known are answered here instead of being flooded (ARP and
    /// neighbour discovery), as iproute2's word for it says. By default exactly when there is a `[cluster]`.
    pub neigh_suppress: bool,
}

impl Default for Switch {
    fn default() -> Self {
        Self { forward_bpdu: false, flood_vlans: VlanSet::none(), vlan_limit: 1, neigh_suppress: false }
    }
}

/// No configuration is larger, in bytes.
const MAX_FILE_LEN: u64 = 16 << 20;

impl Config {
    /// Reads the file `path`.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with `path:line:column`; or why it cannot be read.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let name = path.display().to_string();
        let unread = |reason: &dyn std::fmt::Display| {
            ConfigErrors::one(None, format!("configuration {name:?} cannot be read: {reason}"))
        };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(|error| unread(&error))?;
        file.take(MAX_FILE_LEN + 1).read_to_end(&mut bytes).map_err(|error| unread(&error))?;
        if bytes.len() as u64 > MAX_FILE_LEN {
            return Err(unread(&format!("it is larger than {MAX_FILE_LEN} bytes")));
        }
        match std::str::from_utf8(&bytes) {
            Ok(text) => Self::parse(text, &name),
            Err(error) => {
                let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
                let place = Report::on_file(&name, &good).place(Some(good.len()));
                Err(ConfigErrors::one(place, "this byte is not UTF-8".to_owned()))
            }
        }
    }

    /// Reads `text`; errors and warnings call it `file_name`.
    ///
    /// # Errors
    /// Everything that is wrong with it. Of a text that is not TOML, only the first fault.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, ConfigErrors> {
        let report = Report::on_file(file_name, text);
        let table = match file::parse(text) {
            Ok(table) => table,
            Err(file::NotToml { span, reason }) => {
                let place = report.place(span.map(|span| span.start));
                return Err(ConfigErrors::one(place, format!("not TOML: {reason}")));
            }
        };
        let mut config = Self::default();
        config.read(&Section::new("", String::new(), &table, None, &report));
        config.warnings = report.finish()?;
        Ok(config)
    }

    /// What must hold between ports, of whatever source: no two of one name, no two of one name in the same
    /// namespace of the same node.
    ///
    /// # Errors
    /// Each port of `ports` that may not stand beside an earlier one, with its place when this file has it.
    pub fn validate_ports(&self, ports: &[PortConfig]) -> Result<(), ConfigErrors> {
        let errors: Vec<_> = port_rules::clashes(ports)
            .into_iter()
            .map(|(i, key, reason)| ConfigError {
                place: self.places.port(&ports[i].name).cloned(),
                key: format!("port.{key}"),
                reason,
            })
            .collect();
        if errors.is_empty() { Ok(()) } else { Err(ConfigErrors::new(errors)) }
    }

    /// The keys that differ between `old` and `new` and take a restart to change.
    #[must_use]
    pub fn restart_needed(old: &Self, new: &Self) -> Vec<&'static str> {
        let udp_port = |config: &Self| config.underlay.as_ref().map(|underlay| underlay.port);
        // An underlay that comes or goes as a whole takes its port along.
        let other_port = udp_port(old).zip(udp_port(new)).is_some_and(|(old, new)| old != new);
        let differing = [
            ("[node] name", old.node != new.node),
            ("[underlay] port", other_port),
            ("[control] socket", old.control.socket != new.control.socket),
            ("[control] state", old.control.state != new.control.state),
            ("[datapath] workers", old.datapath.workers != new.datapath.workers),
        ];
        differing.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }

    fn read(&mut self, file: &Section<'_>) {
        if let Some(section) = file.table("node") {
            self.node.name = section.get("name").and_then(|field| field.name(253)).map(str::to_owned);
            section.refuse_unknown();
        }
        self.read_control(file);
        self.read_datapath(file);
        self.read_switch(file);
        for (segment, _, span) in segment::read(file) {
            if let Some(place) = file.report.place(span.map(|span| span.start)) {
                self.places.segments.insert(segment.name.clone(), place);
            }
            self.segments.push(segment);
        }
        self.read_peers(file);
        self.read_ports(file);
        file.refuse_unknown();
    }

    fn read_control(&mut self, file: &Section<'_>) {
        let Some(section) = file.table("control") else { return };
        let path = |field: read::Field<'_>| field.absolute_path().map(PathBuf::from);
        put(&mut self.control.socket, section.get("socket").and_then(path));
        put(&mut self.control.state, section.get("state").and_then(path));
        section.refuse_unknown();
    }

    fn read_datapath(&mut self, file: &Section<'_>) {
        if let Some(section) = file.table("datapath") {
            self.datapath.workers = section.get("workers").and_then(|field| field.number(1..=64));
            put(&mut self.datapath.offload, section.get("offload").and_then(|field| field.boolean()));
            put(
                &mut self.datapath.busy_poll,
                section.get("busy_poll").and_then(|field| field.number(0..=1000)),
            );
            section.refuse_unknown();
        }
        if let Some(section) = file.table("mac_table") {
            let table = &mut self.mac_table;
            put(&mut table.limit, section.get("limit").and_then(|field| field.number(10..=16_777_216)));
            put(
                &mut table.port_limit,
                section.get("port_limit").and_then(|field| field.number(1..=u32::MAX)),
            );
            let ageing = section.get("ageing").and_then(|field| field.number(10..=1_000_000u32));
            put(&mut table.ageing, ageing.map(|seconds| Duration::from_secs(seconds.into())));
            section.refuse_unknown();
        }
    }

    fn read_switch(&mut self, file: &Section<'_>) {
        self.switch.neigh_suppress = file.has("cluster");
        let Some(section) = file.table("switch") else { return };
        put(&mut self.switch.forward_bpdu, section.get("forward_bpdu").and_then(|field| field.boolean()));
        let flood = section.get("flood_vlans").and_then(|field| field.vlans());
        put(
            &mut self.switch.flood_vlans,
            flood.map(|vlans| vlans.into_iter().filter_map(Vlan::new).collect()),
        );
        put(&mut self.switch.vlan_limit, section.get("vlan_limit").and_then(|field| field.number(0..=2)));
        put(&mut self.switch.neigh_suppress, section.get("neigh_suppress").and_then(|field| field.boolean()));
        section.refuse_unknown();
    }

    fn read_peers(&mut self, file: &Section<'_>) {
        let section = file.table("underlay");
        self.underlay = section.as_ref().and_then(peer_rules::read_underlay);
        // Of an underlay in error, the families are not known, and its peers cannot be judged.
        let known = self.underlay.is_some() || !file.has("underlay");
        let mut gathered = Gathered::new(known);
        let section = file.table("cluster");
        if let Some(section) = &section {
            self.cluster = cluster::read(section);
            if self.underlay.is_none() && known {
                let text = "[cluster] needs [underlay] address, this node's own tunnel address";
                file.report.error(section.span(), "cluster", text);
            }
        }
        let listed = section.is_none();
        if let Some(section) = file.table("mesh") {
            peer_rules::read_mesh(&section, listed, self.underlay.as_ref(), &mut gathered, &mut self.probe);
        }
        peer_rules::read_tables(file, self.underlay.as_ref(), &mut gathered);
        let mut nothing_crosses = None;
        for (address, (peer, span)) in gathered.peers {
            for vni in peer.vnis.iter().flatten().filter(|vni| self.vlan_of(**vni).is_none()) {
                let text = format!("peer {:?}: vni {vni} belongs to no segment", peer.label());
                file.report.warn(span.as_ref(), text);
            }
            if let Some(place) = file.report.place(span.as_ref().map(|span| span.start)) {
                self.places.peers.insert(address, place);
            }
            nothing_crosses = nothing_crosses.or(span);
            self.mesh.push(peer);
        }
        for (name, span) in gathered.names {
            nothing_crosses = nothing_crosses.or(span);
            self.mesh_names.push(name);
        }
        if self.segments.is_empty() && !(self.mesh.is_empty() && self.mesh_names.is_empty()) {
            let text = "there are peers, but no [[segment]] with a VNI: nothing would cross";
            file.report.warn(nothing_crosses.as_ref(), text);
        } else if let Some(section) = section.filter(|_| self.segments.is_empty()) {
            let text = "there is a [cluster], but no [[segment]] with a VNI: nothing would cross";
            file.report.warn(section.span(), text);
        }
    }

    fn read_ports(&mut self, file: &Section<'_>) {
        let mut tables = Vec::new();
        for (number, table, span) in file.tables("port") {
            let subject = match table.text("name") {
                Some(name) => format!("port {name:?}: "),
                None => format!("port {number}: "),
            };
            let section = Section::new("port", subject, table, span, file.report);
            let Some(port) = port_rules::read(&section, self) else { continue };
            if let Some(place) = file.report.place(span.map(|span| span.start)) {
                self.places.ports.entry(port.name.clone()).or_insert(place);
            }
            tables.push(table);
            self.ports.push(port);
        }
        for (i, key, reason) in port_rules::clashes(&self.ports) {
            let at = tables[i].get(key).or_else(|| tables[i].get("name")).and_then(|node| node.span.as_ref());
            file.report.error(at, format!("port.{key}"), reason);
        }
    }
}

fn put<T>(into: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *into = value;
    }
}
