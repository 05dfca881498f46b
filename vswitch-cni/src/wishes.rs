//! What a network configuration asks for, key by key, with what the runtime adds for one attachment: `runtimeConfig`
//! before `args.cni` before `CNI_ARGS`.
//!
//! A key that is not known is refused: a wish that nobody hears is worse than none. Not here: what the daemon
//! decides, such as whether there is such a segment.

use crate::conf::{Conf, Ipam, key, within};
use crate::error::CniError;
use crate::net::{Cidr, Route};
use crate::result::routes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use vswitch_core::Mac;
use vswitchd::control::rpc::cni::CniIpam;

/// The keys of a network configuration, the specification's and our own.
const KEYS: [&str; 25] = [
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "args",
    "capabilities",
    "runtimeConfig",
    "prevResult",
    "ipam",
    "dns",
    "disableCheck",
    "disableGC",
    "ipMasq",
    "segment",
    "vlan",
    "vlanMode",
    "trunks",
    "mtu",
    "isGateway",
    "isDefaultGateway",
    "gatewayInterface",
    "anycastGateway",
    "antiSpoof",
    "socket",
    "bandwidth",
];

/// An address that somebody asked for.
pub type Wanted = (IpAddr, Option<u8>);

/// The host's own port, as the network asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// What it is to be called; the daemon's choice where nothing is said.
    pub interface: Option<String>,
    /// The addresses that every node has alike, with the prefix lengths that were given.
    pub anycast: Vec<Wanted>,
    /// Whether what leaves through it wears the node's own address.
    pub masquerade: bool,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Wishes {
    /// Keys and values of the daemon's `[[port]]`.
    pub settings: Map<String, Value>,
    /// `isGateway` and what goes with it.
    pub gateway: Option<Gateway>,
    /// `isDefaultGateway`: the pod's default route leads to the gateway.
    pub default_gateway: bool,
    /// Addresses asked for by the runtime.
    pub ips: Vec<Wanted>,
    /// Of the daemon's own IPAM: its pools.
    pub pools: Option<Value>,
    /// Of the daemon's own IPAM: the routes that every pod gets.
    pub routes: Vec<Route>,
}

/// The daemon's default for a burst, in bits.
const LEAST_BURST: u64 = 8_000_000;

/// Rates in bit/s and bursts in bits, as the bandwidth capability has them: *ingress* is towards the pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Bandwidth {
    ingress_rate: u64,
    ingress_burst: u64,
    egress_rate: u64,
    egress_burst: u64,
}

/// What the runtime says of one attachment, in one of its ways.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    ips: Option<Vec<String>>,
    mac: Option<String>,
}

impl Wishes {
    /// What `conf` asks for, with `args` (`CNI_ARGS`).
    ///
    /// # Errors
    /// [`CniError::UNSUPPORTED_FIELD`], [`CniError::CONFIG`] or, of `args`, [`CniError::ENVIRONMENT`].
    pub fn read(conf: &Conf, args: &str) -> Result<Self, CniError> {
        let raw = &conf.raw;
        let known = |name: &str| KEYS.contains(&name) || name.starts_with("cni.dev/");
        only(raw, known, "")?;
        let capabilities: Map<String, Value> = key(raw, "capabilities")?.unwrap_or_default();
        let by_ipam = matches!(conf.ipam, Ipam::Delegated(_));
        only(&capabilities, |name| by_ipam || matches!(name, "ips" | "mac" | "bandwidth"), "capabilities.")?;
        let runtime: Said = key(raw, "runtimeConfig")?.unwrap_or_default();
        let arguments: Map<String, Value> = key(raw, "args")?.unwrap_or_default();
        let arguments: Said =
            key(&arguments, "cni").map_err(|error| within("args", error))?.unwrap_or_default();
        let environment = said_in_args(args)?;
        let (mut ips, mut mac) = (None, None);
        for (place, said) in [("runtimeConfig", runtime), ("args.cni", arguments)] {
            let wrong = |error: String| CniError::config(format!("\"{place}\": {error}"));
            // Nothing in a list or a text is nothing said.
            if let Some(texts) = said.ips.filter(|texts| ips.is_none() && !texts.is_empty()) {
                ips = Some(wanted(&texts).map_err(wrong)?);
            }
            if let Some(text) = said.mac.filter(|text| mac.is_none() && !text.is_empty()) {
                mac = Some(station(&text).map_err(wrong)?);
            }
        }
        let mac = mac.or(environment.1);
        let mut wishes = Self {
            settings: Map::new(),
            gateway: None,
            default_gateway: key(raw, "isDefaultGateway")?.unwrap_or(false),
            ips: ips.or(environment.0).unwrap_or_default(),
            pools: None,
            routes: Vec::new(),
        };
        let tag = wishes.read_segment(conf)?;
        wishes.read_port(raw, mac)?;
        wishes.read_gateway(raw, tag)?;
        if conf.ipam == Ipam::BuiltIn {
            wishes.read_pools(raw)?;
        }
        Ok(wishes)
    }

    /// What the daemon's own IPAM is asked for.
    #[must_use]
    pub fn built_in(&self) -> Option<CniIpam> {
        let pools = self.pools.clone()?;
        Some(CniIpam { pools, wanted: self.ips.iter().map(|(address, _)| *address).collect() })
    }

    /// The subnets of the daemon's own IPAM.
    pub fn subnets(&self) -> impl Iterator<Item = Cidr> {
        let pools = self.pools.iter().filter_map(Value::as_array).flatten();
        pools.filter_map(|pool| Cidr::parse(pool.get("subnet")?.as_str()?).ok())
    }

    /// Reads which segment, and how its frames look; gives the VLAN where one is named.
    fn read_segment(&mut self, conf: &Conf) -> Result<Option<u16>, CniError> {
        let raw = &conf.raw;
        let segment: Option<String> = key(raw, "segment")?;
        let vlan: Option<u16> = key(raw, "vlan")?;
        let mode: String = key(raw, "vlanMode")?.unwrap_or_else(|| "access".to_owned());
        let trunks: Option<Vec<Value>> = key(raw, "trunks")?;
        if !matches!(mode.as_str(), "access" | "trunk" | "native-tagged" | "native-untagged") {
            return Err(CniError::config(format!("\"vlanMode\" is {mode:?}"))
                .because("expected access, trunk, native-tagged or native-untagged"));
        }
        if vlan.is_some_and(|vlan| vlan > 4094) {
            return Err(
                CniError::config(format!("\"vlan\" is {}", raw["vlan"])).because("expected 0 to 4094")
            );
        }
        if segment.is_some() && vlan.is_some() {
            return Err(CniError::config(
                "\"segment\" and \"vlan\" name the same thing; one of them is enough",
            ));
        }
        if trunks.is_some() && mode == "access" {
            return Err(CniError::config(
                "\"trunks\" goes with \"vlanMode\" trunk, native-tagged or native-untagged",
            ));
        }
        let settings = &mut self.settings;
        match (segment, vlan) {
            (Some(_), _) | (_, Some(_)) if mode == "trunk" => {
                return Err(CniError::config("a trunk has no VLAN of its own").because(
                    "name its VLANs in \"trunks\", or take \"vlanMode\" native-tagged or native-untagged",
                ));
            }
            (Some(segment), _) => drop(settings.insert("segment".into(), json!(segment))),
            (None, Some(vlan)) => drop(settings.insert("tag".into(), json!(vlan))),
            (None, None) if mode == "trunk" => {}
            (None, None) => drop(settings.insert("segment".into(), json!(conf.name))),
        }
        settings.insert("vlan_mode".into(), json!(mode));
        settings.extend(trunks.map(|trunks| ("trunks".to_owned(), json!(trunks))));
        Ok(vlan)
    }

    fn read_port(&mut self, raw: &Map<String, Value>, mac: Option<Mac>) -> Result<(), CniError> {
        let settings = &mut self.settings;
        if let Some(mtu) = key::<u16>(raw, "mtu")? {
            settings.insert("mtu".into(), json!(mtu));
        }
        settings.extend(mac.map(|mac| ("mac".to_owned(), json!(mac.to_string()))));
        if key::<bool>(raw, "antiSpoof")?.unwrap_or(true) {
            settings.insert("anti_spoof".into(), json!(true));
        }
        let runtime: Map<String, Value> = key(raw, "runtimeConfig")?.unwrap_or_default();
        let bandwidth =
            match key::<Bandwidth>(&runtime, "bandwidth").map_err(|error| within("runtimeConfig", error))? {
                Some(bandwidth) => bandwidth,
                None => key(raw, "bandwidth")?.unwrap_or_default(),
            };
        for (rate, burst, word) in [
            // Towards the pod is out of the switch, and the other way round.
            (bandwidth.ingress_rate, bandwidth.ingress_burst, "egress"),
            (bandwidth.egress_rate, bandwidth.egress_burst, "ingress"),
        ] {
            if rate == 0 && burst > 0 {
                return Err(CniError::config("\"bandwidth\" has a burst without a rate"));
            }
            if rate > 0 {
                settings.insert(format!("{word}_policing_rate"), json!(kilobits(rate)));
            }
            // A tenth of a second's worth, where the daemon's own default would be less than that.
            let burst = if burst == 0 && rate / 10 > LEAST_BURST { rate / 10 } else { burst };
            if burst > 0 {
                settings.insert(format!("{word}_policing_burst"), json!(kilobits(burst)));
            }
        }
        Ok(())
    }

    fn read_gateway(&mut self, raw: &Map<String, Value>, vlan: Option<u16>) -> Result<(), CniError> {
        let wanted_at_all = key::<bool>(raw, "isGateway")?.unwrap_or(false) || self.default_gateway;
        let masquerade = key::<bool>(raw, "ipMasq")?.unwrap_or(false);
        let interface: Option<String> = key(raw, "gatewayInterface")?;
        let anycast: Option<Vec<String>> = key(raw, "anycastGateway")?;
        if !wanted_at_all {
            return [
                (masquerade, "ipMasq"),
                (interface.is_some(), "gatewayInterface"),
                (anycast.is_some(), "anycastGateway"),
            ]
            .into_iter()
            .find(|(given, _)| *given)
            .map_or(Ok(()), |(_, name)| Err(CniError::config(format!("\"{name}\" needs \"isGateway\""))));
        }
        if raw.get("vlanMode") == Some(&json!("trunk")) {
            return Err(CniError::config("a trunk has no VLAN of its own, so there is none for a gateway"));
        }
        let anycast = anycast.unwrap_or_default();
        let anycast =
            wanted(&anycast).map_err(|error| CniError::config(format!("\"anycastGateway\": {error}")))?;
        let interface = interface.or_else(|| vlan.map(|vlan| format!("vgw{vlan}")));
        self.gateway = Some(Gateway { interface, anycast, masquerade });
        Ok(())
    }

    fn read_pools(&mut self, raw: &Map<String, Value>) -> Result<(), CniError> {
        let ipam: Map<String, Value> = key(raw, "ipam")?.unwrap_or_default();
        only(&ipam, |name| matches!(name, "type" | "pools" | "routes"), "ipam.")?;
        let pools = ipam.get("pools").filter(|pools| pools.as_array().is_some_and(|pools| !pools.is_empty()));
        self.pools = Some(pools.cloned().ok_or_else(|| {
            CniError::config("\"ipam.pools\" is missing").because("expected a list of {\"subnet\": …}")
        })?);
        self.routes = routes(ipam.get("routes"))
            .map_err(|error| CniError::config(format!("\"ipam.routes\": {error}")))?;
        Ok(())
    }
}

/// Bits as the daemon counts them, in thousands: never fewer, and no more than it takes.
fn kilobits(bits: u64) -> u32 {
    u32::try_from(bits.div_ceil(1000)).unwrap_or(u32::MAX)
}

fn only(raw: &Map<String, Value>, known: impl Fn(&str) -> bool, place: &str) -> Result<(), CniError> {
    match raw.iter().find(|(name, _)| !known(name)) {
        None => Ok(()),
        Some((name, value)) => Err(CniError::new(
            CniError::UNSUPPORTED_FIELD,
            format!("unsupported key in the network configuration: \"{place}{name}\": {value}"),
        )),
    }
}

fn wanted(texts: &[String]) -> Result<Vec<Wanted>, String> {
    texts.iter().map(|text| Cidr::with_or_without(text.trim())).collect()
}

/// An address that an interface may have.
fn station(text: &str) -> Result<Mac, String> {
    match text.parse::<Mac>() {
        Ok(mac) if mac.bytes()[0] & 1 == 0 && mac.bytes() != [0; 6] => Ok(mac),
        _ => Err(format!("{text:?} is no MAC address of an interface; expected one like 02:00:00:00:00:0a")),
    }
}

/// What `CNI_ARGS` asks for.
fn said_in_args(args: &str) -> Result<(Option<Vec<Wanted>>, Option<Mac>), CniError> {
    let wrong = |error: String| CniError::new(CniError::ENVIRONMENT, format!("CNI_ARGS: {error}"));
    let (mut ips, mut mac, mut unknown, mut ignore) = (None, None, None, false);
    for pair in args.split(';').filter(|pair| !pair.is_empty()) {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(wrong(format!("{pair:?} is not KEY=VALUE")));
        };
        match name {
            "IP" if value.is_empty() => {}
            "IP" => {
                let texts: Vec<String> = value.split(',').map(ToOwned::to_owned).collect();
                ips = Some(wanted(&texts).map_err(wrong)?);
            }
            "MAC" if value.is_empty() => {}
            "MAC" => mac = Some(station(value).map_err(wrong)?),
            "IgnoreUnknown" => ignore = matches!(value.to_ascii_lowercase().as_str(), "1" | "t" | "true"),
            _ if name.starts_with("K8S_") => {}
            _ => unknown = Some(name),
        }
    }
    match unknown {
        Some(name) if !ignore => Err(wrong(format!("{name:?} is not known, and IgnoreUnknown is not set"))),
        _ => Ok((ips, mac)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn read_with(more: &Value, args: &str) -> Result<Wishes, CniError> {
        let mut conf = json!({"cniVersion": "1.1.0", "name": "blue", "type": "vswitch-cni"});
        conf.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Wishes::read(&Conf::parse(conf.to_string().as_bytes()).unwrap(), args)
    }

    fn settings(more: &Value) -> Value {
        Value::Object(read_with(more, "").unwrap().settings)
    }

    #[test]
    fn a_network_is_the_segment_of_its_name_unless_it_says_otherwise() {
        let with = |more: &Value| {
            let mut all = json!({"anti_spoof": true, "vlan_mode": "access"});
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all
        };
        assert_eq!(settings(&json!({})), with(&json!({"segment": "blue"})));
        assert_eq!(settings(&json!({"segment": "red"})), with(&json!({"segment": "red"})));
        assert_eq!(settings(&json!({"vlan": 0})), with(&json!({"tag": 0})));
        assert_eq!(
            settings(&json!({"vlan": 4094, "mtu": 1400, "antiSpoof": false})),
            json!({"tag": 4094, "mtu": 1400, "vlan_mode": "access"})
        );
        assert_eq!(
            settings(&json!({"vlanMode": "trunk", "trunks": [10, "100-199"]})),
            with(&json!({"vlan_mode": "trunk", "trunks": [10, "100-199"]}))
        );
        assert_eq!(
            settings(&json!({"vlanMode": "native-untagged", "vlan": 10, "trunks": [20]})),
            with(&json!({"vlan_mode": "native-untagged", "tag": 10, "trunks": [20]}))
        );
    }

    #[test]
    fn a_burst_is_a_tenth_of_a_second_where_nobody_says_and_the_daemons_own_is_less() {
        let burst = |rate: u64| {
            settings(&json!({"bandwidth": {"egressRate": rate}})).get("ingress_policing_burst").cloned()
        };
        assert_eq!(burst(80_000_000), None);
        assert_eq!(burst(200_000_000), Some(json!(20_000)));
    }

    #[test]
    fn towards_the_pod_is_out_of_the_switch() {
        let bandwidth = json!({"ingressRate": 1_000_001, "ingressBurst": 2_000, "egressRate": u64::MAX});
        let both = json!({"bandwidth": {"ingressRate": 5}, "runtimeConfig": {"bandwidth": bandwidth}});
        let settings = settings(&both);
        assert_eq!(settings["egress_policing_rate"], 1001);
        assert_eq!(settings["egress_policing_burst"], 2);
        assert_eq!(settings["ingress_policing_rate"], u32::MAX, "no limit that anybody reaches");
    }

    #[test]
    fn the_runtimes_newest_way_of_saying_a_thing_wins() {
        let args = "IgnoreUnknown=1;K8S_POD_NAME=x;FOO=y;IP=10.0.0.1,fd00::1;MAC=02:00:00:00:00:01";
        let conf = json!({"args": {"cni": {"ips": ["10.0.0.2/24"], "labels": []}}});
        let wishes = read_with(&conf, args).unwrap();
        assert_eq!(wishes.ips, [("10.0.0.2".parse().unwrap(), Some(24))]);
        assert_eq!(wishes.settings["mac"], "02:00:00:00:00:01");
        let conf = json!({
            "args": {"cni": {"ips": ["10.0.0.2/24"], "mac": "02:00:00:00:00:02"}},
            "runtimeConfig": {"ips": [], "mac": "", "portMappings": []},
        });
        let wishes = read_with(&conf, args).unwrap();
        assert_eq!(wishes.ips, [("10.0.0.2".parse().unwrap(), Some(24))]);
        assert_eq!(wishes.settings["mac"], "02:00:00:00:00:02");
        let conf = json!({
            "args": {"cni": {"ips": ["10.0.0.2/24"], "mac": "02:00:00:00:00:02"}},
            "runtimeConfig": {"ips": ["10.0.0.3"], "mac": "02:00:00:00:00:03"},
        });
        let wishes = read_with(&conf, args).unwrap();
        assert_eq!(wishes.ips, [("10.0.0.3".parse().unwrap(), None)]);
        assert_eq!(wishes.settings["mac"], "02:00:00:00:00:03");
        let wishes = read_with(&json!({}), args).unwrap();
        assert_eq!(wishes.ips.len(), 2);
    }

    #[test]
    fn a_gateway_is_asked_for_with_all_that_goes_with_it() {
        let wishes = read_with(&json!({"isDefaultGateway": true, "vlan": 10, "ipMasq": true}), "").unwrap();
        let interface = Some("vgw10".to_owned());
        assert_eq!(wishes.gateway, Some(Gateway { interface, anycast: Vec::new(), masquerade: true }));
        assert!(wishes.default_gateway);
        let conf = json!({"isGateway": true, "gatewayInterface": "g", "anycastGateway": ["10.0.0.1"]});
        let wishes = read_with(&conf, "").unwrap();
        let anycast = vec![("10.0.0.1".parse().unwrap(), None)];
        assert_eq!(wishes.gateway, Some(Gateway { interface: Some("g".into()), anycast, masquerade: false }));
        assert!(!wishes.default_gateway);
        assert_eq!(read_with(&json!({"isGateway": true}), "").unwrap().gateway.unwrap().interface, None);
    }

    #[test]
    fn the_daemons_own_ipam_is_told_its_pools_and_what_is_wanted() {
        let ipam = json!({"type": "vswitch", "pools": [{"subnet": "10.244.0.0/16"}], "routes": [{"dst": "10.0.0.0/8"}]});
        let wishes = read_with(&json!({"ipam": ipam}), "IP=10.244.255.9/16").unwrap();
        let asked = wishes.built_in().unwrap();
        assert_eq!(asked.pools, json!([{"subnet": "10.244.0.0/16"}]));
        assert_eq!(asked.wanted, ["10.244.255.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(wishes.routes.len(), 1);
        assert_eq!(wishes.subnets().count(), 1);
    }

    #[test]
    fn what_is_wrong_or_not_known_is_refused_by_name() {
        let unknown = CniError::UNSUPPORTED_FIELD;
        let config = CniError::CONFIG;
        for (more, code, word) in [
            (json!({"vlanmode": "trunk"}), unknown, "\"vlanmode\": \"trunk\""),
            (json!({"capabilities": {"portMappings": true}}), unknown, "\"capabilities.portMappings\": true"),
            (json!({"ipam": {"type": "vswitch", "pools": [{}], "range": 1}}), unknown, "\"ipam.range\": 1"),
            (json!({"vlan": 4095}), config, "4095"),
            (json!({"vlan": "10"}), config, "\"vlan\" is \"10\""),
            (json!({"vlan": 10, "segment": "x"}), config, "segment"),
            (json!({"vlanMode": "dot1q-tunnel"}), config, "vlanMode"),
            (json!({"vlanMode": "trunk", "vlan": 10}), config, "trunk"),
            (json!({"trunks": [1]}), config, "trunks"),
            (json!({"mtu": -1}), config, "mtu"),
            (json!({"ipMasq": true}), config, "ipMasq"),
            (json!({"gatewayInterface": "x"}), config, "gatewayInterface"),
            (json!({"anycastGateway": []}), config, "anycastGateway"),
            (json!({"vlanMode": "trunk", "isGateway": true}), config, "gateway"),
            (json!({"isGateway": true, "anycastGateway": ["x"]}), config, "anycastGateway"),
            (json!({"bandwidth": {"ingressBurst": 1}}), config, "burst"),
            (json!({"runtimeConfig": {"mac": "01:00:00:00:00:01"}}), config, "01:00"),
            (json!({"runtimeConfig": {"ips": ["10.0.0.0/33"]}}), config, "10.0.0.0/33"),
            (json!({"runtimeConfig": {"bandwidth": {"ingressRate": -1}}}), config, "runtimeConfig.bandwidth"),
            (json!({"args": {"cni": {"mac": "x"}}}), config, "args.cni"),
            (json!({"ipam": {"type": "vswitch"}}), config, "ipam.pools"),
            (json!({"ipam": {"type": "vswitch", "pools": [{}], "routes": [{}]}}), config, "ipam.routes"),
        ] {
            let error = read_with(&more, "").unwrap_err();
            assert_eq!(error.code, code, "{more}: {error:?}");
            assert!(format!("{}: {}", error.msg, error.details).contains(word), "{more}: {error:?}");
        }
        for args in ["FOO=1", "IP", "IP=x", "MAC=ff:ff:ff:ff:ff:ff", "IgnoreUnknown=0;FOO=1"] {
            assert_eq!(read_with(&json!({}), args).unwrap_err().code, CniError::ENVIRONMENT, "{args}");
        }
        assert!(read_with(&json!({"capabilities": {"ips": true}, "cni.dev/x": 1, "dns": {}}), "").is_ok());
    }
}
