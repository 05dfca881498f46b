//! The forms that answers of plugins have, by release of the specification: what is missing, misplaced or of another
//! release is named. Not here: whether an answer is true.

use super::Release;
use serde_json::{Map, Value};
use std::net::IpAddr;

/// Checks a result of ADD (CNI 0.4.0, 1.0.0 and 1.1.0, "Success").
///
/// # Errors
/// What is wrong with it.
pub fn check_result(release: Release, result: &Value) -> Result<(), String> {
    let result = object(result, "the result")?;
    only(result, &["cniVersion", "interfaces", "ips", "routes", "dns"], "the result")?;
    if result.get("cniVersion") != Some(&release.text().into()) {
        return Err(format!("cniVersion is not {}", release.text()));
    }
    let interfaces = list(result, "interfaces")?;
    let newer = release >= Release::V1_1_0;
    for interface in interfaces {
        let interface = object(interface, "an interface")?;
        only(interface, &["name", "mac", "sandbox"], "an interface").or_else(|wrong| {
            let keys = ["name", "mac", "sandbox", "mtu", "socketPath", "pciID"];
            if newer { only(interface, &keys, "an interface") } else { Err(wrong) }
        })?;
        let name = text(interface, "name")?.ok_or("an interface without a name")?;
        if name.is_empty()
            || name.len() > 15
            || name.contains(['/', ':'])
            || name.contains(char::is_whitespace)
        {
            return Err(format!("{name:?} is no name of an interface"));
        }
        if let Some(mac) = text(interface, "mac")?.filter(|mac| !mac.is_empty()) {
            mac.parse::<vswitch_core::Mac>().map_err(|_| format!("{mac:?} is no MAC address"))?;
        }
        text(interface, "sandbox")?;
    }
    for ip in list(result, "ips")? {
        let ip = object(ip, "an address")?;
        let (address, _) = network(text(ip, "address")?.ok_or("an address without an address")?)?;
        let gateway = text(ip, "gateway")?.map(|gateway| gateway.parse::<IpAddr>());
        if gateway
            .is_some_and(|gateway| gateway.map_or(true, |gateway| gateway.is_ipv4() != address.is_ipv4()))
        {
            return Err(format!("gateway of {address}: {:?}", ip["gateway"]));
        }
        let at = ip.get("interface").map(Value::as_u64);
        if at.is_some_and(|at| {
            at.is_none_or(|at| usize::try_from(at).map_or(true, |at| at >= interfaces.len()))
        }) {
            return Err(format!("{address} is at interface {:?} of {}", ip["interface"], interfaces.len()));
        }
        let family = if address.is_ipv4() { "4" } else { "6" };
        match (release, text(ip, "version")?) {
            (Release::V0_4_0, Some(said)) if said == family => {}
            (Release::V1_0_0 | Release::V1_1_0, None) => {}
            (_, said) => return Err(format!("{address} has the version {said:?} in {}", release.text())),
        }
        only(ip, &["version", "address", "gateway", "interface"], "an address")?;
    }
    for route in list(result, "routes")? {
        let route = object(route, "a route")?;
        let newer_keys = ["dst", "gw", "mtu", "advmss", "priority", "table", "scope"];
        only(route, if newer { &newer_keys } else { &["dst", "gw"] }, "a route")?;
        let (to, _) = network(text(route, "dst")?.ok_or("a route without a destination")?)?;
        let gateway = text(route, "gw")?.map(|gateway| gateway.parse::<IpAddr>());
        if gateway.is_some_and(|gateway| gateway.map_or(true, |gateway| gateway.is_ipv4() != to.is_ipv4())) {
            return Err(format!("gateway of the route to {to}: {:?}", route["gw"]));
        }
    }
    let nothing = Map::new();
    let dns = result.get("dns").map_or(Ok(&nothing), |dns| object(dns, "dns"))?;
    only(dns, &["nameservers", "domain", "search", "options"], "dns")
}

/// Checks an answer to VERSION and gives the releases in it.
///
/// # Errors
/// What is wrong with it.
pub fn check_versions(answer: &Value) -> Result<Vec<String>, String> {
    let answer = object(answer, "the answer")?;
    only(answer, &["cniVersion", "supportedVersions"], "the answer")?;
    text(answer, "cniVersion")?.ok_or("no cniVersion")?;
    let versions = list(answer, "supportedVersions")?;
    versions
        .iter()
        .map(|one| one.as_str().map(str::to_owned).ok_or_else(|| format!("{one} is no version")))
        .collect()
}

fn object<'a>(value: &'a Value, what: &str) -> Result<&'a Map<String, Value>, String> {
    value.as_object().ok_or_else(|| format!("{what} is no object: {value}"))
}

fn only(map: &Map<String, Value>, keys: &[&str], what: &str) -> Result<(), String> {
    let strange = map.keys().find(|key| !keys.contains(&key.as_str()));
    strange.map_or(Ok(()), |key| Err(format!("{what} has a key {key:?}")))
}

fn list<'a>(map: &'a Map<String, Value>, key: &str) -> Result<&'a [Value], String> {
    match map.get(key) {
        None => Ok(&[]),
        Some(Value::Array(values)) => Ok(values),
        Some(other) => Err(format!("{key} is no array: {other}")),
    }
}

fn text<'a>(map: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, String> {
    match map.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("{key} is no text: {other}")),
    }
}

/// `10.0.0.1/8` in its parts.
fn network(text: &str) -> Result<(IpAddr, u8), String> {
    let parts =
        text.split_once('/').and_then(|(address, len)| Some((address.parse().ok()?, len.parse().ok()?)));
    let parts: (IpAddr, u8) = parts.ok_or_else(|| format!("{text:?} is no address with a prefix length"))?;
    let longest = if parts.0.is_ipv4() { 32 } else { 128 };
    if parts.1 <= longest { Ok(parts) } else { Err(format!("{text:?} has a prefix length above {longest}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_result_of_one_release_is_none_of_another() {
        let v4 = json!({"cniVersion": "0.4.0", "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/x"}],
            "ips": [{"version": "4", "address": "10.0.0.2/8", "gateway": "10.0.0.1", "interface": 0}],
            "routes": [{"dst": "0.0.0.0/0"}], "dns": {}});
        assert_eq!(check_result(Release::V0_4_0, &v4), Ok(()));
        let mut v1 = v4;
        v1["cniVersion"] = "1.0.0".into();
        assert!(check_result(Release::V1_0_0, &v1).unwrap_err().contains("version"));
        v1["ips"][0].as_object_mut().unwrap().remove("version");
        assert_eq!(check_result(Release::V1_0_0, &v1), Ok(()));
        v1["interfaces"][0]["mtu"] = 1450.into();
        assert!(check_result(Release::V1_0_0, &v1).unwrap_err().contains("mtu"));
        v1["cniVersion"] = "1.1.0".into();
        assert_eq!(check_result(Release::V1_1_0, &v1), Ok(()));
    }

    #[test]
    fn what_is_wrong_in_a_result_is_named() {
        let wrong = |more: &Value| {
            let mut result = json!({"cniVersion": "1.0.0", "interfaces": [{"name": "eth0"}]});
            result.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            check_result(Release::V1_0_0, &result).unwrap_err()
        };
        for (more, word) in [
            (json!({"ips": [{"address": "10.0.0.2"}]}), "prefix length"),
            (json!({"ips": [{"address": "10.0.0.2/33"}]}), "above 32"),
            (json!({"ips": [{"address": "10.0.0.2/8", "interface": 1}]}), "interface"),
            (json!({"ips": [{"address": "10.0.0.2/8", "gateway": "fd00::1"}]}), "gateway"),
            (json!({"routes": [{"gw": "10.0.0.1"}]}), "destination"),
            (json!({"routes": null}), "no array"),
            (json!({"interfaces": [{"name": "a b"}]}), "no name"),
            (json!({"interfaces": [{"name": "a", "mac": "x"}]}), "no MAC"),
            (json!({"more": 1}), "more"),
        ] {
            let said = wrong(&more);
            assert!(said.contains(word), "{more}: {said}");
        }
    }
}
