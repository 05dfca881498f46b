//! What must hold for any bytes given as a network configuration of CNI, as another plugin's result, or as a call of
//! the plugin to the daemon: the body that the fuzz target and the property tests share.
//!
//! Not here: what a particular configuration means, and anything that is executed or connected to.

use serde::Deserialize as _;
use serde_json::{Map, Value};
use vswitch_cni::conf::Conf;
use vswitch_cni::error::CniError;
use vswitch_cni::result::{Expected, Lease, Success};
use vswitch_cni::version::Version;
use vswitch_cni::wishes::Wishes;
use vswitchd::config::{Config, PortConfig};
use vswitchd::control::rpc::{Call, RpcError};
use vswitchd::ipam::Pools;

/// Good ones of each kind, from which the search begins: a line of CNI_ARGS, then JSON.
pub const CNI_SEEDS: [&str; 6] = [
    concat!(
        "IgnoreUnknown=1;K8S_POD_NAME=p;IP=10.244.255.9,fd00:244::ff;MAC=02:00:00:00:00:07\n",
        r#"{"cniVersion":"1.1.0","name":"blue","type":"vswitch-cni","segment":"blue","mtu":1400,"isGateway":true,"#,
        r#""isDefaultGateway":true,"ipMasq":true,"gatewayInterface":"vgw10","antiSpoof":true,"socket":"/run/x.sock","#,
        r#""capabilities":{"ips":true,"mac":true,"bandwidth":true},"runtimeConfig":{"ips":["10.244.255.8/16"],"#,
        r#""mac":"02:00:00:00:00:08","bandwidth":{"ingressRate":1000000,"ingressBurst":800000,"egressRate":1,"egressBurst":1}},"#,
        r#""args":{"cni":{"ips":["10.244.255.7"],"mac":"02:00:00:00:00:09"}},"dns":{"nameservers":["10.0.0.1"]},"#,
        r#""ipam":{"type":"vswitch","pools":[{"subnet":"10.244.0.0/16","block":24,"static":["10.244.255.0/24"]},"#,
        r#"{"subnet":"fd00:244::/64","block":112}],"routes":[{"dst":"10.9.0.0/16","gw":"10.244.0.1"}]}}"#
    ),
    concat!(
        "\n",
        r#"{"cniVersion":"0.4.0","name":"trunk","type":"vswitch-cni","vlanMode":"native-untagged","vlan":7,"#,
        r#""trunks":[10,"100-199"],"isGateway":true,"anycastGateway":["10.1.0.1"],"ipam":{"type":"host-local","subnet":"10.1.0.0/16"}}"#
    ),
    concat!(
        "\n",
        r#"{"cniVersion":"1.0.0","interfaces":[{"name":"br0","mac":"02:00:00:00:00:01"},{"name":"eth0","#,
        r#""mac":"02:00:00:00:00:02","sandbox":"/run/netns/x"}],"ips":[{"address":"10.1.0.5/16","gateway":"10.1.0.1","#,
        r#""interface":1}],"routes":[{"dst":"0.0.0.0/0","gw":"10.1.0.1","mtu":1400,"priority":5}],"dns":{}}"#
    ),
    concat!(
        "\n",
        r#"{"container":"c","ifname":"eth0","network":"blue","netns":"/run/netns/c","settings":{"segment":"blue"},"#,
        r#""addresses":["10.1.0.5/16"],"ipam":null,"gateway":{"interface":"vgw10","addresses":["10.1.0.1/16"],"#,
        r#""masquerade":true,"anycast":false},"conf":{"name":"blue"}}"#
    ),
    concat!("\n", r#"{"network":"blue","attachments":[{"container":"c","ifname":"eth0"}]}"#),
    concat!("\n", r#"[{"subnet":"10.244.0.0/16","block":24,"static":["10.244.255.0/24"]}]"#),
];

/// Reads the first line of `data` as CNI_ARGS and the rest as JSON of every kind.
///
/// # Panics
/// When what must hold does not.
pub fn cni_body(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n');
    let (args, text) = at.map_or((&[][..], data), |at| (&data[..at], &data[at + 1..]));
    let args = String::from_utf8_lossy(args);
    match Conf::parse(text) {
        Ok(conf) => {
            assert_eq!(Conf::kept(&conf.value()).as_ref(), Some(&conf), "what is kept is what was read");
            match Wishes::read(&conf, &args) {
                Ok(wishes) => wished(&wishes),
                Err(error) => good_error(&error, conf.version),
            }
        }
        Err((error, version)) => good_error(&error, version),
    }
    match Lease::parse(text) {
        Ok(lease) => printed(lease),
        Err(reason) => assert!(!reason.is_empty()),
    }
    let Ok(json) = serde_json::from_slice::<Value>(text) else { return };
    if let Value::Object(previous) = &json {
        let _ = Expected::read(previous, "eth0");
    }
    for method in ["cni.add", "cni.del", "cni.check", "cni.gc", "cni.gone", "cni.status", "cni.list"] {
        if let Err(error) = Call::parse(method, json.clone()) {
            assert_eq!(error.code, RpcError::INVALID_PARAMS, "{method}: {error}");
            assert!(error.message.starts_with(method), "{error}");
        }
    }
    if let Ok(pools) = Pools::deserialize(&json)
        && let Err(reason) = pools.validate()
    {
        assert!(!reason.is_empty());
    }
}

/// An error is one object with a code of the specification's or of this plugin's own, and a sentence.
fn good_error(error: &CniError, version: Version) {
    let json = error.json(version);
    assert!(matches!(error.code, 1..=11 | 50 | 51 | 100..=199), "{json}");
    assert!(!error.msg.is_empty() && json["cniVersion"] == version.text(), "{json}");
}

/// What the plugin asks of the daemon is a port, or is refused with a reason.
fn wished(wishes: &Wishes) {
    let mut entry = wishes.settings.clone();
    entry.insert("name".to_owned(), "cni000000000000".into());
    match PortConfig::from_json(&Value::Object(entry), &Config::default()) {
        Ok(port) => assert!(port.netns.is_none() && port.addresses.is_empty()),
        Err(reason) => assert!(!reason.is_empty()),
    }
}

/// A lease that was read can be told in every version, and is found again by CHECK.
fn printed(lease: Lease) {
    let interface = vswitch_cni::result::Interface {
        name: "eth0".to_owned(),
        mac: "02:00:00:00:00:01".to_owned(),
        mtu: 1450,
        sandbox: "/run/netns/pod".to_owned(),
    };
    let success = Success {
        previous: Map::new(),
        interfaces: vec![interface],
        addresses: lease.addresses,
        routes: lease.routes,
        dns: lease.dns,
    };
    for version in Version::ALL {
        let Value::Object(told) = success.json(version) else { panic!("a result is an object") };
        let expected = Expected::read(&told, "eth0").unwrap_or_else(|reason| panic!("{version}: {reason}"));
        assert_eq!(expected.addresses.len(), success.addresses.len(), "{version}");
    }
}
