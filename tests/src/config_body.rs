//! What must hold for any bytes given as a configuration: the body that the fuzz target and the property tests
//! share.
//!
//! Not here: what a particular file means.

use vswitch_core::Attachment;
use vswitchd::config::{Config, Families, MAX_PEERS, PortConfig};

/// Reads `data` as a file, and its lines as KEY=VALUE of a port.
///
/// # Panics
/// When what must hold does not.
pub fn config_body(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let config = match Config::parse(&text, "fuzz.toml") {
        Ok(config) => config,
        Err(errors) => {
            assert!(errors.iter().len() > 0, "refused without a reason");
            for error in errors.iter() {
                assert!(!error.reason.is_empty() && !error.reason.contains('\n'), "{error}");
                let lines = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
                assert!(
                    error.place.as_ref().is_none_or(|place| (1..=lines).contains(&place.line)),
                    "{error}"
                );
            }
            Config::default()
        }
    };
    assert!(config.mesh.len() + config.mesh_names.len() <= MAX_PEERS);
    assert!(config.mesh.is_sorted_by_key(|peer| peer.address));
    assert_eq!(config.validate_ports(&config.ports), Ok(()));
    assert!(Config::restart_needed(&config, &config).is_empty());
    let _ = config.peers_for(&[]);
    for (vlan, vni) in config.vnis() {
        assert_eq!((config.vni_of(vlan), config.vlan_of(vni)), (Some(vni), Some(vlan)));
    }
    let pairs: Vec<(String, String)> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .take(32)
        .collect();
    let typed = PortConfig::from_pairs("typed", &pairs, &config);
    for port in config.ports.iter().chain(&typed) {
        good_port(port, &config);
    }
}

fn good_port(port: &PortConfig, config: &Config) {
    assert_eq!(PortConfig::from_json(&port.to_json(), config).as_ref(), Ok(port));
    assert_eq!(port.with_pairs(&[], config).as_ref(), Ok(port));
    let mac = port.mac_for("node");
    assert!(!mac.is_group() && !mac.is_zero());
    assert!((68..=65_521).contains(&port.mtu_for(config, 1500, Families { v4: true, v6: true })));
    assert!(!matches!(port.attachment(), Attachment::Tunnel(_)));
}
