//! Keys and values of the store, version 1.
//!
//! Whatever stands in the store is read with suspicion: every bound is here, what does not fit is an error with a
//! sentence, and fields that are not known are passed over. Not here: what follows from a record.

use super::{VniRanges, addresses};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use vswitch_core::{Mac, Vni};

/// The longest name of a node, in bytes.
pub const MAX_NODE_NAME: usize = 253;
/// The longest value that is read, in bytes.
pub const MAX_VALUE: usize = 64 << 10;
/// The most addresses of one station.
pub const MAX_ADDRESSES: usize = 64;
/// The highest sequence of a claim: far from the end of numbers, so that one more is always one.
pub(super) const MAX_SEQUENCE: u64 = u64::MAX / 2;
/// The longest free text in a record, in bytes.
const MAX_TEXT: usize = 253;

/// Keys from `from` on, up to and without `to`, in the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyRange {
    /// The first key.
    pub from: String,
    /// The first key behind the range.
    pub to: String,
}

impl KeyRange {
    /// Every key that begins with `prefix`, which ends in `/`.
    fn under(prefix: String) -> Self {
        // '0' is what comes behind '/'.
        let to = format!("{}0", prefix.trim_end_matches('/'));
        Self { from: prefix, to }
    }

    /// Whether `key` lies in it.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        self.from.as_str() <= key && key < self.to.as_str()
    }
}

/// What a key is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// A node's record.
    Node(String),
    /// `node`'s claim that the station `mac` is behind one of its ports.
    Station {
        /// The segment's name on the underlay.
        vni: Vni,
        /// The station.
        mac: Mac,
        /// Who claims it.
        node: String,
    },
    /// `by`'s report that `node` does not answer.
    Suspect {
        /// Who does not answer.
        node: String,
        /// Who says so.
        by: String,
    },
    /// A node's block of a network's addresses.
    Block {
        /// The network's name.
        network: String,
        /// Its first address.
        first: IpAddr,
        /// Its prefix length.
        len: u8,
    },
    /// A single address of a network.
    Address {
        /// The network's name.
        network: String,
        /// The address.
        address: IpAddr,
    },
}

/// The keys of one cluster.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Up to and with the `/` behind the version.
    root: String,
}

impl Keys {
    /// The keys below `prefix`, which does not end in `/`.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { root: format!("{prefix}/v1/") }
    }

    /// The record of `node`.
    #[must_use]
    pub fn node(&self, node: &str) -> String {
        format!("{}nodes/{node}", self.root)
    }

    /// The claim of `node` to a station.
    #[must_use]
    pub fn station(&self, vni: Vni, mac: Mac, node: &str) -> String {
        format!("{}stations/{:08}/{mac}/{node}", self.root, vni.get())
    }

    /// The report of `by` about `node`.
    #[must_use]
    pub fn suspect(&self, node: &str, by: &str) -> String {
        format!("{}suspects/{node}/{by}", self.root)
    }

    /// A block of a network's addresses.
    #[must_use]
    pub fn block(&self, network: &str, first: IpAddr, len: u8) -> String {
        format!("{}ipam/{network}/blocks/{first}-{len}", self.root)
    }

    /// A single address of a network.
    #[must_use]
    pub fn address(&self, network: &str, address: IpAddr) -> String {
        format!("{}ipam/{network}/addresses/{address}", self.root)
    }

    /// All blocks and single addresses of all networks.
    #[must_use]
    pub fn ipam_range(&self) -> KeyRange {
        KeyRange::under(format!("{}ipam/", self.root))
    }

    /// All nodes.
    #[must_use]
    pub fn nodes_range(&self) -> KeyRange {
        KeyRange::under(format!("{}nodes/", self.root))
    }

    /// All reports.
    #[must_use]
    pub fn suspects_range(&self) -> KeyRange {
        KeyRange::under(format!("{}suspects/", self.root))
    }

    /// All claims to stations of `vnis`: one range for each row of VNIs without a gap.
    #[must_use]
    pub fn station_ranges(&self, vnis: &BTreeSet<Vni>) -> Vec<KeyRange> {
        let rows: VniRanges = vnis.iter().copied().collect();
        let range = |first: u32, last: u32| KeyRange {
            from: format!("{}stations/{first:08}/", self.root),
            to: format!("{}stations/{last:08}0", self.root),
        };
        rows.ranges().map(|row| range(*row.start(), *row.end())).collect()
    }

    /// The VNIs of a range that [`Self::station_ranges`] gave.
    #[must_use]
    pub fn vnis_of(&self, range: &KeyRange) -> Option<RangeInclusive<Vni>> {
        let stations = format!("{}stations/", self.root);
        let number = |text: &str| text.parse().ok().and_then(Vni::new);
        let first = range.from.strip_prefix(&stations)?.strip_suffix('/')?;
        let last = range.to.strip_prefix(&stations)?.strip_suffix('0')?;
        Some(number(first)?..=number(last)?)
    }

    /// What `key` is about; `None` for every key that this version does not write.
    #[must_use]
    pub fn parse(&self, key: &str) -> Option<Key> {
        let (kind, rest) = key.strip_prefix(&self.root)?.split_once('/')?;
        let name = |name: &str| is_node_name(name).then(|| name.to_owned());
        match kind {
            "nodes" => Some(Key::Node(name(rest)?)),
            "stations" => {
                let (vni, rest) = rest.split_once('/')?;
                let (address, node) = rest.split_once('/')?;
                let mac: Mac = address.parse().ok()?;
                let digits = vni.len() == 8 && vni.bytes().all(|digit| digit.is_ascii_digit());
                let vni = Vni::new(vni.parse().ok().filter(|_| digits)?)?;
                // One station, one key: not in capitals as well.
                let good = !mac.is_group() && !mac.is_zero() && mac.to_string() == address;
                Some(Key::Station { vni, mac: Some(mac).filter(|_| good)?, node: name(node)? })
            }
            "suspects" => {
                let (node, by) = rest.split_once('/')?;
                Some(Key::Suspect { node: name(node)?, by: name(by)? })
            }
            "ipam" => addresses::parse(rest),
            _ => None,
        }
    }
}

/// Whether a node of that name can join, or a network of that name stand in the store: 1..=253 letters, digits, `.`, `_` and `-` of ASCII.
#[must_use]
pub fn is_node_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MAX_NODE_NAME).contains(&name.len()) && name.bytes().all(good)
}

/// Whether a station can have the address: a unicast one, and no IPv4 address in IPv6 clothes.
pub(super) fn is_station_address(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !ip.is_unspecified() && !ip.is_multicast() && !broadcast && ip.to_canonical() == ip
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its tunnel addresses, at most one of each family, in the order in which it would be reached.
    pub addresses: Vec<IpAddr>,
    /// The UDP port that it receives VXLAN on.
    pub udp_port: u16,
    /// The MTU of its interface to the underlay, in bytes of IP packet, 576..=65535.
    pub mtu: u16,
    /// When its daemon began, in milliseconds since 1970: the higher one is the later life.
    pub boot: u64,
    /// What runs there, for people.
    pub version: String,
    /// The VNIs that it hosts.
    pub vnis: VniRanges,
}

/// A claim to a station; the key says whose and of whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StationRecord {
    /// The station's IP addresses, as far as they are known, at most 64.
    pub ips: Vec<IpAddr>,
    /// Mobility sequence (as in RFC 7432 §7.7): the highest one is where the station is.
    pub sequence: u64,
    /// The port that it is behind, for people.
    pub port: String,
}

/// A report that a node does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuspectRecord {
    /// The life of the node that is meant.
    pub boot: u64,
}

/// Why a value is no record; a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RecordError(String);

impl NodeRecord {
    /// Whether the node hosts `vni`.
    #[must_use]
    pub fn hosts(&self, vni: Vni) -> bool {
        self.vnis.contains(vni)
    }

    /// As it stands in the store.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        bytes(&json!({
            "addresses": addresses,
            "port": self.udp_port,
            "mtu": self.mtu,
            "boot": self.boot,
            "version": self.version,
            "vnis": self.vnis.to_json(),
        }))
    }

    /// Reads what [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// What is missing, of another kind or out of its range.
    pub fn from_json(value: &[u8]) -> Result<Self, RecordError> {
        let fields = fields(value)?;
        let addresses = addresses(&fields, "addresses", 2)?;
        let families = addresses.iter().map(IpAddr::is_ipv6).collect::<BTreeSet<_>>().len();
        if addresses.is_empty()
            || families < addresses.len()
            || addresses.iter().any(|ip| !is_station_address(*ip) || ip.is_loopback())
        {
            return Err(wrong("addresses", "one unicast address of one or of each family"));
        }
        let vnis = fields.get("vnis").and_then(VniRanges::from_json);
        Ok(Self {
            addresses,
            udp_port: number(&fields, "port", 1..=65_535)?,
            mtu: number(&fields, "mtu", 576..=65_535)?,
            boot: number(&fields, "boot", 0..=u64::MAX)?,
            version: text(&fields, "version")?,
            vnis: vnis.ok_or_else(|| wrong("vnis", "an array of VNIs and ranges of VNIs"))?,
        })
    }
}

impl StationRecord {
    /// As it stands in the store.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let ips: Vec<String> = self.ips.iter().map(ToString::to_string).collect();
        bytes(&json!({ "ips": ips, "sequence": self.sequence, "port": self.port }))
    }

    /// Reads what [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// What is missing, of another kind or out of its range.
    pub fn from_json(value: &[u8]) -> Result<Self, RecordError> {
        let fields = fields(value)?;
        let ips = addresses(&fields, "ips", MAX_ADDRESSES)?;
        if !ips.iter().all(|ip| is_station_address(*ip)) {
            return Err(wrong("ips", "unicast addresses"));
        }
        let sequence = number(&fields, "sequence", 1..=MAX_SEQUENCE)?;
        Ok(Self { ips, sequence, port: text(&fields, "port")? })
    }
}

impl SuspectRecord {
    /// As it stands in the store.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        bytes(&json!({ "boot": self.boot }))
    }

    /// Reads what [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// What is missing, of another kind or out of its range.
    pub fn from_json(value: &[u8]) -> Result<Self, RecordError> {
        Ok(Self { boot: number(&fields(value)?, "boot", 0..=u64::MAX)? })
    }
}

pub(super) fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

pub(super) fn fields(value: &[u8]) -> Result<Map<String, Value>, RecordError> {
    if value.len() > MAX_VALUE {
        return Err(RecordError(format!(
            "the value has {} bytes; at most {MAX_VALUE} are read",
            value.len()
        )));
    }
    match serde_json::from_slice(value) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(RecordError("the value is no JSON object".to_owned())),
        Err(error) => Err(RecordError(format!("the value is no JSON: {error}"))),
    }
}

pub(super) fn wrong(key: &str, expected: &str) -> RecordError {
    RecordError(format!("\"{key}\" is missing or not as it should be; expected {expected}"))
}

fn number<T: TryFrom<u64>>(
    fields: &Map<String, Value>,
    key: &str,
    range: RangeInclusive<u64>,
) -> Result<T, RecordError> {
    let value = fields.get(key).and_then(Value::as_u64).filter(|value| range.contains(value));
    let expected = || wrong(key, &format!("a number in {}..{}", range.start(), range.end()));
    value.and_then(|value| T::try_from(value).ok()).ok_or_else(expected)
}

pub(super) fn text(fields: &Map<String, Value>, key: &str) -> Result<String, RecordError> {
    let good = |text: &&str| text.len() <= MAX_TEXT && !text.chars().any(char::is_control);
    let value = fields.get(key).and_then(Value::as_str).filter(good);
    value.map(str::to_owned).ok_or_else(|| wrong(key, "a short text without control characters"))
}

fn addresses(fields: &Map<String, Value>, key: &str, most: usize) -> Result<Vec<IpAddr>, RecordError> {
    let items = fields.get(key).and_then(Value::as_array).filter(|items| items.len() <= most);
    let parse = |item: &Value| item.as_str().and_then(|text| text.parse::<IpAddr>().ok());
    let parsed = items.and_then(|items| items.iter().map(parse).collect::<Option<Vec<_>>>());
    let mut addresses =
        parsed.ok_or_else(|| wrong(key, &format!("an array of at most {most} IP addresses")))?;
    for address in &mut addresses {
        *address = address.to_canonical();
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vni(vni: u32) -> Vni {
        Vni::new(vni).unwrap()
    }

    fn mac() -> Mac {
        "02:00:00:00:00:0a".parse().unwrap()
    }

    #[test]
    fn keys_say_what_they_are_about_and_come_back() {
        let keys = Keys::new("/vswitch/default");
        let all = [
            (keys.node("n-1"), "/vswitch/default/v1/nodes/n-1", Key::Node("n-1".into())),
            (
                keys.station(vni(10_010), mac(), "n-1"),
                "/vswitch/default/v1/stations/00010010/02:00:00:00:00:0a/n-1",
                Key::Station { vni: vni(10_010), mac: mac(), node: "n-1".into() },
            ),
            (
                keys.suspect("n-2", "n-1"),
                "/vswitch/default/v1/suspects/n-2/n-1",
                Key::Suspect { node: "n-2".into(), by: "n-1".into() },
            ),
            (
                keys.block("blue", [10, 244, 3, 0].into(), 24),
                "/vswitch/default/v1/ipam/blue/blocks/10.244.3.0-24",
                Key::Block { network: "blue".into(), first: [10, 244, 3, 0].into(), len: 24 },
            ),
            (
                keys.address("blue", "fd00::9".parse().unwrap()),
                "/vswitch/default/v1/ipam/blue/addresses/fd00::9",
                Key::Address { network: "blue".into(), address: "fd00::9".parse().unwrap() },
            ),
        ];
        for (key, text, about) in all {
            assert_eq!(key, text);
            assert_eq!(keys.parse(&key), Some(about));
        }
    }

    #[test]
    fn keys_that_nobody_writes_are_about_nothing() {
        let keys = Keys::new("/v");
        let foreign = [
            "",
            "/v/v1/nodes/",
            "/v/v1/nodes/a/b",
            "/v/v1/nodes/a b",
            "/v/v2/nodes/a",
            "/w/v1/nodes/a",
            "/v/v1/stations/10/02:00:00:00:00:0a/n",
            "/v/v1/stations/+0000010/02:00:00:00:00:0a/n",
            "/v/v1/stations/99999999/02:00:00:00:00:0a/n",
            "/v/v1/stations/00000010/02:00:00:00:00:0A/n",
            "/v/v1/stations/00000010/03:00:00:00:00:0a/n",
            "/v/v1/stations/00000010/00:00:00:00:00:00/n",
            "/v/v1/stations/00000010/02:00:00:00:00:0a/",
            "/v/v1/suspects/a",
            "/v/v1/ipam/blue",
            "/v/v1/ipam/blue/blocks/10.0.0.0",
            "/v/v1/ipam/blue/blocks/10.0.0.0-33",
            "/v/v1/ipam/blue/blocks/10.0.0.0-024",
            "/v/v1/ipam/blue/blocks/10.0.0.0-24/x",
            "/v/v1/ipam/blue/addresses/fd00::09",
            "/v/v1/ipam/blue/addresses/::ffff:10.0.0.1",
            "/v/v1/ipam/b e/addresses/10.0.0.1",
            "/v/v1/ipam/blue/names/10.0.0.1",
        ];
        for key in foreign {
            assert_eq!(keys.parse(key), None, "{key}");
        }
    }

    #[test]
    fn vnis_in_a_row_are_watched_as_one_range() {
        let keys = Keys::new("/v");
        let ranges = keys.station_ranges(&[5, 6, 7, 9].map(vni).into());
        assert_eq!(ranges.len(), 2);
        assert_eq!(keys.vnis_of(&ranges[0]), Some(vni(5)..=vni(7)));
        assert_eq!(keys.vnis_of(&keys.nodes_range()), None);
        let inside = |number: u32| ranges.iter().any(|r| r.contains(&keys.station(vni(number), mac(), "n")));
        assert!([5, 6, 7, 9].into_iter().all(inside) && ![4, 8, 10, 70].into_iter().any(inside));
        assert!(keys.nodes_range().contains(&keys.node("a")) && !keys.nodes_range().contains("/v/v1/nodesX"));
    }

    #[test]
    fn records_come_back_and_unknown_fields_are_passed_over() {
        let node = NodeRecord {
            addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            udp_port: 4789,
            mtu: 1500,
            boot: 7,
            version: "0.1.0".into(),
            vnis: [vni(5), vni(6)].into_iter().collect(),
        };
        assert_eq!(NodeRecord::from_json(&node.to_json()), Ok(node.clone()));
        let mut more: Value = serde_json::from_slice(&node.to_json()).unwrap();
        more["colour"] = json!({ "deep": [1, 2] });
        assert_eq!(NodeRecord::from_json(more.to_string().as_bytes()), Ok(node));
        let station = StationRecord { ips: vec!["10.0.0.9".parse().unwrap()], sequence: 3, port: "a".into() };
        assert_eq!(StationRecord::from_json(&station.to_json()), Ok(station));
        let suspect = SuspectRecord { boot: u64::MAX };
        assert_eq!(SuspectRecord::from_json(&suspect.to_json()), Ok(suspect));
    }

    #[test]
    fn bad_records_are_refused_with_the_field() {
        let good = json!({"addresses": ["10.0.0.1"], "port": 4789, "mtu": 1500, "boot": 1, "version": "", "vnis": []});
        let cases = [
            ("addresses", json!([])),
            ("addresses", json!(["10.0.0.1", "10.0.0.2"])),
            ("addresses", json!(["224.0.0.1"])),
            ("addresses", json!(["127.0.0.1"])),
            ("addresses", json!("10.0.0.1")),
            ("port", json!(0)),
            ("port", json!(65_536)),
            ("mtu", json!(575)),
            ("boot", json!(-1)),
            ("version", json!("a\nb")),
            ("vnis", json!(["7-5"])),
        ];
        for (key, value) in cases {
            let mut bad = good.clone();
            bad[key] = value;
            let error = NodeRecord::from_json(bad.to_string().as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("\"{key}\" ")), "{error}");
        }
        assert!(NodeRecord::from_json(&vec![b' '; MAX_VALUE + 1]).is_err());
        assert!(NodeRecord::from_json(b"[1]").is_err() && NodeRecord::from_json(b"\xff").is_err());
        assert!(StationRecord::from_json(br#"{"ips":["::"],"sequence":1,"port":""}"#).is_err());
        assert!(StationRecord::from_json(br#"{"ips":[],"sequence":0,"port":""}"#).is_err());
    }
}
