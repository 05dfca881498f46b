//! Results (CNI 1.1.0, section 5, "Result Types"): what a delegated IPAM answered, what came before in the chain, and
//! what this plugin prints, each in the form of the negotiated version.
//!
//! Not here: making any of it true.

use crate::net::{Address, Cidr, Route};
use crate::version::Version;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// What an IPAM gives for one attachment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lease {
    /// The addresses.
    pub addresses: Vec<Address>,
    /// The routes.
    pub routes: Vec<Route>,
    /// `dns` as it came; null where nothing was said.
    pub dns: Value,
}

/// An interface that an attachment made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MAC address.
    pub mac: String,
    /// Its MTU in bytes of IP packet; 0 where it is not known.
    pub mtu: u32,
    /// The path of its namespace; empty on the host.
    pub sandbox: String,
}

/// What an ADD came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Success {
    /// `prevResult`: what the plugins before this one came to. It stays, and what is made here is added to it.
    pub previous: Map<String, Value>,
    /// The interfaces that were made here; the pod's is the last one.
    pub interfaces: Vec<Interface>,
    /// The addresses of the pod's interface.
    pub addresses: Vec<Address>,
    /// The routes that were set here.
    pub routes: Vec<Route>,
    /// `dns`; null where nothing is said.
    pub dns: Value,
}

#[derive(Deserialize)]
struct WireRoute {
    dst: String,
    #[serde(default)]
    gw: Option<String>,
    #[serde(default)]
    mtu: Option<u32>,
    #[serde(default)]
    advmss: Option<u32>,
    #[serde(default)]
    priority: Option<u32>,
    #[serde(default)]
    table: Option<u32>,
    #[serde(default)]
    scope: Option<u8>,
}

#[derive(Deserialize)]
struct WireAddress {
    address: String,
    #[serde(default)]
    gateway: Option<String>,
    #[serde(default)]
    interface: Option<usize>,
}

/// The routes in `value`, a list; none where it is absent.
///
/// # Errors
/// A sentence.
pub fn routes(value: Option<&Value>) -> Result<Vec<Route>, String> {
    list::<WireRoute>(value)?
        .into_iter()
        .map(|route| {
            let gw = route.gw.filter(|gw| !gw.is_empty());
            Ok(Route {
                dst: Cidr::parse(&route.dst)?,
                gw: gw.map(|gw| gw.parse().map_err(|_| format!("{gw:?} is no IP address"))).transpose()?,
                // Nought is what some say for nothing.
                mtu: route.mtu.filter(|mtu| *mtu > 0),
                advmss: route.advmss.filter(|bytes| *bytes > 0),
                priority: route.priority.filter(|metric| *metric > 0),
                table: route.table.filter(|table| *table > 0),
                scope: route.scope,
            })
        })
        .collect()
}

/// The addresses in `value`, each with the index of its interface.
fn addresses(value: Option<&Value>) -> Result<Vec<(Address, Option<usize>)>, String> {
    list::<WireAddress>(value)?
        .into_iter()
        .map(|of| {
            let gateway = of.gateway.filter(|gateway| !gateway.is_empty());
            let gateway =
                gateway.map(|of| of.parse().map_err(|_| format!("{of:?} is no IP address"))).transpose()?;
            Ok((Address { cidr: Cidr::parse(&of.address)?, gateway }, of.interface))
        })
        .collect()
}

fn list<T: serde::de::DeserializeOwned>(value: Option<&Value>) -> Result<Vec<T>, String> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(value) => Vec::deserialize(value).map_err(|error| error.to_string()),
    }
}

impl Lease {
    /// What a delegated plugin printed, of version 0.3.0 or later.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(text).map_err(|error| format!("not JSON: {error}"))?;
        Ok(Self {
            addresses: addresses(value.get("ips"))?.into_iter().map(|(address, _)| address).collect(),
            routes: routes(value.get("routes"))?,
            dns: value.get("dns").filter(|dns| says_something(dns)).cloned().unwrap_or_default(),
        })
    }
}

/// Whether a value holds more than empty objects, lists and texts.
#[must_use]
pub fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => items.values().any(says_something),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

/// What an attachment was when it was made, as `prevResult` has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// The pod's interface's MAC address, where one was told.
    pub mac: Option<String>,
    /// The addresses of the pod's interface.
    pub addresses: Vec<Cidr>,
    /// All routes of the attachment.
    pub routes: Vec<Route>,
}

impl Expected {
    /// What `previous` says of interface `ifname` in a sandbox.
    ///
    /// # Errors
    /// A sentence: there is no such interface in it, or it is not of the form it must have.
    pub fn read(previous: &Map<String, Value>, ifname: &str) -> Result<Self, String> {
        let text = |of: &Value, key: &str| of.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let interfaces: Vec<Value> = list(previous.get("interfaces"))?;
        let (at, interface) = interfaces
            .iter()
            .enumerate()
            .find(|(_, of)| text(of, "name") == ifname && !text(of, "sandbox").is_empty())
            .ok_or_else(|| format!("it has no interface {ifname:?} in a sandbox"))?;
        let addresses = addresses(previous.get("ips"))?;
        Ok(Self {
            mac: Some(text(interface, "mac")).filter(|mac| !mac.is_empty()),
            addresses: addresses
                .into_iter()
                .filter_map(|(address, interface)| (interface == Some(at)).then_some(address.cidr))
                .collect(),
            routes: routes(previous.get("routes"))?,
        })
    }
}

impl Success {
    /// As it is printed in `version`.
    #[must_use]
    pub fn json(&self, version: Version) -> Value {
        let mut all = self.previous.clone();
        let interfaces = entry(&mut all, "interfaces");
        interfaces.extend(self.interfaces.iter().map(Interface::json));
        let pods = interfaces.len().saturating_sub(1);
        entry(&mut all, "ips").extend(self.addresses.iter().map(|address| {
            let mut ip = json!({"address": address.cidr.to_string(), "interface": pods});
            if let Some(gateway) = address.gateway {
                ip["gateway"] = json!(gateway);
            }
            ip
        }));
        entry(&mut all, "routes").extend(self.routes.iter().map(route_json));
        if says_something(&self.dns) {
            all.insert("dns".into(), self.dns.clone());
        }
        translate(&mut all, version);
        all.retain(|key, value| !matches!(key.as_str(), "ips" | "routes" | "dns") || says_something(value));
        Value::Object(all)
    }
}

impl Interface {
    fn json(&self) -> Value {
        let mut interface = json!({"name": self.name, "mac": self.mac});
        if self.mtu > 0 {
            interface["mtu"] = json!(self.mtu);
        }
        if !self.sandbox.is_empty() {
            interface["sandbox"] = json!(self.sandbox);
        }
        interface
    }
}

fn route_json(route: &Route) -> Value {
    let dst = Cidr { address: route.dst.network(), len: route.dst.len };
    let mut json = json!({"dst": dst.to_string()});
    if let Some(gw) = route.gw {
        json["gw"] = json!(gw);
    }
    for (key, value) in [
        ("mtu", route.mtu),
        ("advmss", route.advmss),
        ("priority", route.priority),
        ("table", route.table),
        ("scope", route.scope.map(u32::from)),
    ] {
        if let Some(value) = value {
            json[key] = json!(value);
        }
    }
    json
}

/// The list under `key`, made where there is none.
fn entry<'a>(all: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let value = all.entry(key.to_owned()).or_insert_with(|| json!([]));
    if !value.is_array() {
        *value = json!([]);
    }
    match value {
        Value::Array(items) => items,
        _ => unreachable!("it was made an array just now"),
    }
}

/// Gives a whole result the form of `version`.
pub fn translate(result: &mut Map<String, Value>, version: Version) {
    result.insert("cniVersion".into(), version.text().into());
    for key in ["interfaces", "ips", "routes"] {
        for item in result.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
            fit(key, item, version);
        }
    }
}

/// Gives an item of list `key` the form of `version`: an address says its family before 1.0.0, and 1.1.0 has more of
/// interfaces and routes.
fn fit(key: &str, item: &mut Value, version: Version) {
    let Value::Object(item) = item else { return };
    if version < Version::V110 {
        let newer: &[&str] = match key {
            "interfaces" => &["mtu", "socketPath", "pciID"],
            "routes" => &["mtu", "advmss", "priority", "table", "scope"],
            _ => &[],
        };
        item.retain(|key, _| !newer.contains(&key.as_str()));
    }
    if key == "ips" {
        item.remove("version");
        if version < Version::V100 {
            let v6 = item.get("address").and_then(Value::as_str).is_some_and(|address| address.contains(':'));
            item.insert("version".into(), json!(if v6 { "6" } else { "4" }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn success(previous: Value) -> Success {
        let Value::Object(previous) = previous else { panic!() };
        let address = |text: &str, gateway: Option<&str>| Address {
            cidr: Cidr::parse(text).unwrap(),
            gateway: gateway.map(|g| g.parse().unwrap()),
        };
        Success {
            previous,
            interfaces: vec![
                Interface {
                    name: "vgw10".into(),
                    mac: "02:00:00:00:00:01".into(),
                    mtu: 1450,
                    sandbox: String::new(),
                },
                Interface {
                    name: "eth0".into(),
                    mac: "02:00:00:00:00:02".into(),
                    mtu: 1450,
                    sandbox: "/run/netns/a".into(),
                },
            ],
            addresses: vec![address("10.1.0.5/16", Some("10.1.0.1")), address("fd00::5/64", None)],
            routes: routes(Some(
                &json!([{"dst": "0.0.0.0/0", "gw": "10.1.0.1", "mtu": 1400, "priority": 5}]),
            ))
            .unwrap(),
            dns: json!({"nameservers": ["10.1.0.1"]}),
        }
    }

    #[test]
    fn each_version_has_its_form() {
        let old = success(json!({})).json(Version::V040);
        assert_eq!(
            old,
            json!({
                "cniVersion": "0.4.0",
                "interfaces": [
                    {"name": "vgw10", "mac": "02:00:00:00:00:01"},
                    {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/a"},
                ],
                "ips": [
                    {"version": "4", "address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 1},
                    {"version": "6", "address": "fd00::5/64", "interface": 1},
                ],
                "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}],
                "dns": {"nameservers": ["10.1.0.1"]},
            })
        );
        let middle = success(json!({})).json(Version::V100);
        assert_eq!(
            middle["ips"][0],
            json!({"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 1})
        );
        assert_eq!(middle["interfaces"], old["interfaces"]);
        let new = success(json!({})).json(Version::V110);
        assert_eq!(new["interfaces"][1]["mtu"], json!(1450));
        assert_eq!(
            new["routes"],
            json!([{"dst": "0.0.0.0/0", "gw": "10.1.0.1", "mtu": 1400, "priority": 5}])
        );
    }

    #[test]
    fn what_came_before_stays_and_its_indices_hold() {
        let before = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "lo", "sandbox": "/run/netns/a", "mtu": 65536}],
            "ips": [{"version": "4", "address": "127.0.0.1/8", "interface": 0}],
            "dns": {"search": ["x"]},
        });
        let json = success(before).json(Version::V100);
        assert_eq!(json["interfaces"][0], json!({"name": "lo", "sandbox": "/run/netns/a"}));
        assert_eq!(json["ips"][0], json!({"address": "127.0.0.1/8", "interface": 0}));
        assert_eq!(json["ips"][1]["interface"], json!(2));
        assert_eq!(json["dns"], json!({"nameservers": ["10.1.0.1"]}));
    }

    #[test]
    fn nothing_empty_is_printed_but_the_interfaces() {
        let nothing = Success {
            previous: Map::new(),
            interfaces: Vec::new(),
            addresses: Vec::new(),
            routes: Vec::new(),
            dns: json!({"nameservers": [], "domain": ""}),
        };
        assert_eq!(nothing.json(Version::V100), json!({"cniVersion": "1.0.0", "interfaces": []}));
    }

    #[test]
    fn the_pods_part_of_a_previous_result_is_found() {
        let previous = success(json!({"interfaces": [{"name": "eth0", "mac": "x"}]})).json(Version::V110);
        let expected = Expected::read(previous.as_object().unwrap(), "eth0").unwrap();
        assert_eq!(expected.mac.as_deref(), Some("02:00:00:00:00:02"));
        assert_eq!(expected.addresses.len(), 2);
        assert_eq!(expected.routes[0].mtu, Some(1400));
        assert!(Expected::read(previous.as_object().unwrap(), "eth1").unwrap_err().contains("eth1"));
        assert!(Expected::read(previous.as_object().unwrap(), "vgw10").is_err());
    }

    #[test]
    fn a_lease_is_read_and_nonsense_is_not() {
        let lease = Lease::parse(
            br#"{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.1.0.5/16","gateway":"10.1.0.1"}],
                "routes":[{"dst":"0.0.0.0/0"}],"dns":{}}"#,
        )
        .unwrap();
        assert_eq!(lease.addresses[0].gateway, Some("10.1.0.1".parse().unwrap()));
        assert_eq!((lease.routes[0].gw, &lease.dns), (None, &Value::Null));
        for wrong in ["", "{", r#"{"ips":[{"address":"10.1.0.5"}]}"#, r#"{"ips":{}}"#, r#"{"routes":[{}]}"#] {
            assert!(Lease::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
