//! What the plugin asks for: ADD, DEL, CHECK, GC and STATUS of the CNI specification, as far as they are the daemon's.
//!
//! Each is whole or undone. A crash anywhere leaves either no attachment and no interface, or an attachment in the
//! journal that DEL or GC takes away. Not here: what the plugin does inside the pod.

use super::journal::{Attachment, Journal, prefix};
use super::{BTreeSet, gateway, port_of};
use crate::config::PortConfig;
use crate::control::apply::is_waiting;
use crate::control::daemon::Control;
use crate::control::leases::LeaseError;
use crate::control::ports;
use crate::control::rpc::cni::{
    CniAdd, CniAdded, CniAddress, CniChecked, CniCollected, CniGatewayPort, CniGc, CniIpam, CniKey,
    CniRemoved, CniStatus,
};
use crate::control::rpc::{Call, RpcError};
use crate::control::state::fingerprint;
use crate::ipam::{Leased, Owner, Pools};
use crate::link::Link as _;
use crate::observe::log;
use crate::sys::netns::{self, NamespaceId};
use crate::sys::tun;
use serde::Deserialize as _;
use serde_json::{Value, json};
use std::os::fd::{AsFd as _, OwnedFd};

/// The longest container ID: the plugin's and the runtimes' are shorter.
const LONGEST_ID: usize = 253;

/// Answers a call of this room; `descriptors` came beside it.
pub(in super::super) fn answer(
    control: &mut Control,
    call: &Call,
    descriptors: &[OwnedFd],
) -> Result<Value, RpcError> {
    match (call, descriptors.first()) {
        (Call::CniAdd(add), Some(namespace)) => control.cni_add(add, namespace).map(|added| json!(added)),
        (Call::CniDel(key), _) => control.cni_del(key).map(|removed| json!(removed)),
        (Call::CniCheck(key), namespace) => control.cni_check(key, namespace).map(|checked| json!(checked)),
        (Call::CniGc(gc), _) => control.cni_gc(gc).map(|collected| json!(collected)),
        (Call::CniGone(network), _) => Ok(json!(control.cni_gone(&network.network))),
        (Call::CniStatus(status), _) => control.cni_status(status).map(|()| Value::Null),
        (Call::CniList, _) => Ok(control.cni_list()),
        _ => Err(RpcError::params("the descriptor is missing")),
    }
}

/// Who holds an attachment's addresses.
pub(super) fn owner(key: &CniKey) -> Owner {
    Owner { container: key.container.clone(), ifname: key.ifname.clone() }
}

/// The name of an attachment's port: no two that live at once are alike, unless two hashes of 48 bits are.
fn port_name(key: &CniKey) -> String {
    let digits = fingerprint(&json!([key.container, key.ifname]));
    format!("{PORT_PREFIX}{}", &digits[digits.len() - DIGITS..])
}

const PORT_PREFIX: &str = "cni";
const DIGITS: usize = 12;

/// Whether a port of an attachment may be called so.
fn is_port_name(name: &str) -> bool {
    let digits = name.strip_prefix(PORT_PREFIX);
    digits.is_some_and(|digits| digits.len() == DIGITS && digits.bytes().all(|c| c.is_ascii_hexdigit()))
}

fn check_key(key: &CniKey) -> Result<(), RpcError> {
    let id = key.container.as_str();
    if id.is_empty()
        || id.len() > LONGEST_ID
        || id.bytes().any(|byte| byte.is_ascii_control() || byte == b'/')
    {
        return Err(RpcError::params(format!("{id:?} is no container ID of 1..{LONGEST_ID} bytes")));
    }
    Ok(())
}

/// The pools of a request.
fn pools(ipam: &CniIpam) -> Result<Pools, RpcError> {
    let pools =
        Pools::deserialize(&ipam.pools).map_err(|error| RpcError::params(format!("pools: {error}")))?;
    pools.validate().map_err(|reason| RpcError::params(format!("pools: {reason}")))?;
    Ok(pools)
}

fn refused(error: LeaseError) -> RpcError {
    match error {
        LeaseError::Later(reason) => RpcError::unavailable(reason),
        LeaseError::Refused(reason) => RpcError::refused(reason),
    }
}

fn address_of(leased: &Leased) -> CniAddress {
    CniAddress { address: format!("{}/{}", leased.address, leased.prefix_len), gateway: leased.gateway }
}

impl Control {
    fn cni_add(&mut self, add: &CniAdd, namespace: &OwnedFd) -> Result<CniAdded, RpcError> {
        let key = CniKey { container: add.container.clone(), ifname: add.ifname.clone() };
        check_key(&key)?;
        if !netns::is_network(namespace.as_fd()) {
            return Err(RpcError::params("the descriptor is no network namespace"));
        }
        let id = netns::id(namespace.as_fd()).map_err(|error| RpcError::of(&error))?;
        if let Some(there) = self.cni.journal.get(&key).cloned() {
            let running = self.running.ports.get(&there.port);
            let up = running.is_some_and(|port| port.link.is_some());
            if up && there.namespace == id.into() && there.conf == add.conf {
                return self.added(&there);
            }
            self.remove_attachments(vec![key.clone()])?;
        }
        let mut journal = self.cni.journal.clone();
        let attachment = self.attachment(add, &key, id, &mut journal)?;
        let config = self.fitting_port(&attachment)?;
        journal.put(attachment.clone());
        let inside = PortConfig { ifname: Some(key.ifname.clone()), ..config.clone() };
        let settings = self.settings(&config);
        let made = ports::open_in(&inside, Some(namespace), settings, &mut self.keeper)
            .map_err(|error| RpcError::refused(format!("port of {:?}: {error}", key.container)))?;
        // From here on it is in the keeper and in the pod: whatever fails takes it back.
        if let Err(error) = self.commit(journal) {
            self.keeper.forget(&attachment.port);
            return Err(error);
        }
        self.cni.made.insert(attachment.port.clone(), made.link);
        self.reconcile(false, &BTreeSet::new()).map_err(|error| RpcError::of(&error))?;
        let interface = attachment.gateway.as_ref().and_then(|gateway| gateway.interface.as_deref());
        let trouble = interface.and_then(|interface| {
            let port = self.running.ports.get(interface)?;
            port.reason.clone().map(|reason| format!("gateway \"{interface}\": {reason}"))
        });
        let trouble = trouble.or_else(|| self.cni.nat.trouble.clone().filter(|_| interface.is_some()));
        if let Some(reason) = trouble {
            self.remove_attachments(vec![key])?;
            return Err(RpcError::refused(reason));
        }
        log::info(
            "pod attached",
            &[("container", &add.container), ("network", &add.network), ("port", &config.name)],
        );
        self.added(&attachment)
    }

    /// The attachment that is asked for, with addresses and all; leases go into `journal`.
    fn attachment(
        &mut self,
        add: &CniAdd,
        key: &CniKey,
        id: NamespaceId,
        journal: &mut Journal,
    ) -> Result<Attachment, RpcError> {
        let mut of_blocks = Vec::new();
        let addresses = match &add.ipam {
            None => {
                let wrong = add.addresses.iter().find(|address| prefix(address).is_none());
                if let Some(wrong) = wrong {
                    return Err(RpcError::params(format!(
                        "{wrong:?} is not an address with a prefix length"
                    )));
                }
                let plain = |address: &String| CniAddress { address: address.clone(), gateway: None };
                add.addresses.iter().map(plain).collect()
            }
            Some(_) if !add.addresses.is_empty() => {
                return Err(RpcError::params("addresses come from pools or are given, not both"));
            }
            Some(ipam) => {
                let pools = pools(ipam)?;
                let leased = self
                    .lease(&mut journal.book, &add.network, &pools, &owner(key), &ipam.wanted)
                    .map_err(refused)?;
                of_blocks = self.node_gateways(&journal.book, &add.network, &pools);
                leased.iter().map(address_of).collect::<Vec<_>>()
            }
        };
        let gateway = add
            .gateway
            .as_ref()
            .map(|asked| gateway::resolved(asked, &add.settings, &self.file, &of_blocks))
            .transpose()
            .map_err(RpcError::bad_config)?;
        let mut attachment = Attachment {
            container: add.container.clone(),
            ifname: add.ifname.clone(),
            network: add.network.clone(),
            netns: add.netns.clone(),
            namespace: id.into(),
            port: port_name(key),
            settings: add.settings.clone(),
            addresses,
            gateway,
            conf: add.conf.clone(),
            gone: false,
        };
        attachment.point_at_gateway();
        Ok(attachment)
    }

    /// The attachment's port, if it can stand beside all others.
    fn fitting_port(&self, attachment: &Attachment) -> Result<PortConfig, RpcError> {
        let config = port_of(attachment, &self.file).map_err(RpcError::bad_config)?;
        let (mut desired, _) = self.desired(&self.file, &self.state);
        if desired.ports.contains_key(&config.name) {
            let taken = format!("port \"{}\" exists already: two names of pods are alike", config.name);
            return Err(RpcError::refused(taken));
        }
        if let Some(interface) = attachment.gateway.as_ref().and_then(|gateway| gateway.interface.as_ref())
            && desired.ports.contains_key(interface)
            && !self.gateway_ports(&self.file).any(|(name, _)| name == *interface)
        {
            let taken = format!("gateway \"{interface}\": the file or a command has a port of that name");
            return Err(RpcError::bad_config(taken));
        }
        self.fits_gateway(attachment).map_err(RpcError::bad_config)?;
        desired.ports.insert(config.name.clone(), config.clone());
        let all: Vec<_> = desired.ports.into_values().collect();
        self.file.validate_ports(&all).map_err(|errors| RpcError::bad_config(errors.in_one_line()))?;
        Ok(PortConfig { offload: config.offload.or(Some(self.file.datapath.offload)), ..config })
    }

    fn added(&self, attachment: &Attachment) -> Result<CniAdded, RpcError> {
        let running = |name: &str| {
            let port = self.running.ports.get(name);
            port.ok_or_else(|| RpcError::refused(format!("port \"{name}\" vanished while it was attached")))
        };
        let config = &running(&attachment.port)?.config;
        let settings = self.settings(config);
        let gateway = attachment.gateway.as_ref().and_then(|gateway| {
            let interface = gateway.interface.clone()?;
            let mac = self.settings(&self.running.ports.get(&interface)?.config).mac.to_string();
            Some(CniGatewayPort { interface, mac, addresses: gateway.addresses.clone() })
        });
        Ok(CniAdded {
            port: attachment.port.clone(),
            mac: settings.mac.to_string(),
            mtu: settings.mtu,
            addresses: attachment.addresses.clone(),
            gateway,
        })
    }

    fn cni_del(&mut self, key: &CniKey) -> Result<CniRemoved, RpcError> {
        let removed = self.remove_attachments(vec![key.clone()])?.pop();
        Ok(removed.unwrap_or_else(|| CniRemoved {
            container: key.container.clone(),
            ifname: key.ifname.clone(),
            removed: false,
            conf: Value::Null,
            addresses: Vec::new(),
        }))
    }

    /// Takes attachments away: from the journal first, then their ports and interfaces. Unknown ones are passed over.
    fn remove_attachments(&mut self, keys: Vec<CniKey>) -> Result<Vec<CniRemoved>, RpcError> {
        let mut journal = self.cni.journal.clone();
        let mut removed = Vec::new();
        for key in keys {
            // Also of one that is not in the journal: an add that was cut short may have left a lease.
            self.end_lease(&mut journal.book, &owner(&key));
            let Some(attachment) = journal.remove(&key) else { continue };
            if !attachment.gone {
                log::info("pod detached", &[("container", &key.container), ("port", &attachment.port)]);
            }
            removed.push(gone(&attachment));
        }
        if removed.is_empty() && journal.book == self.cni.journal.book {
            return Ok(removed);
        }
        self.commit(journal)?;
        self.forget_static_macs()?;
        self.reconcile(false, &BTreeSet::new()).map_err(|error| RpcError::of(&error))?;
        Ok(removed)
    }

    /// Takes static MAC entries away whose port came by CNI and is gone: no later pod is to inherit them.
    fn forget_static_macs(&mut self) -> Result<(), RpcError> {
        let orphans: Vec<_> = self
            .state
            .macs()
            .filter(|(.., port)| is_port_name(port) && !self.cni.has(port))
            .map(|(vlan, mac, _)| (vlan, mac))
            .collect();
        if orphans.is_empty() {
            return Ok(());
        }
        let mut state = self.state.clone();
        for (vlan, mac) in orphans {
            state.remove_mac(vlan, mac).map_err(|error| RpcError::of(&error))?;
        }
        self.save(&state)?;
        self.state = state;
        Ok(())
    }

    fn cni_check(&self, key: &CniKey, namespace: Option<&OwnedFd>) -> Result<CniChecked, RpcError> {
        let unknown =
            || RpcError::unknown(format!("no {} of container {:?} is attached", key.ifname, key.container));
        let attachment = self.cni.journal.get(key).ok_or_else(unknown)?;
        let name = &attachment.port;
        if attachment.gone {
            return Err(RpcError::refused(format!("port \"{name}\" is lost: its network namespace is gone")));
        }
        let port = self.running.ports.get(name).ok_or_else(unknown)?;
        let Some(link) = &port.link else {
            let reason = port.reason.as_deref().unwrap_or("it is down");
            return Err(RpcError::refused(format!("port \"{name}\" is lost: {reason}")));
        };
        if let (Some(namespace), Some(fd)) = (namespace, link.link.fd()) {
            let there = tun::namespace(fd).and_then(|there| netns::id(there.as_fd()));
            let meant = netns::id(namespace.as_fd());
            if !matches!((there, meant), (Ok(there), Ok(meant)) if there == meant) {
                let text = format!("port \"{name}\": its interface is in another network namespace");
                return Err(RpcError::refused(text));
            }
        }
        let settings = self.settings(&port.config);
        Ok(CniChecked {
            port: name.clone(),
            mac: settings.mac.to_string(),
            mtu: settings.mtu,
            addresses: attachment.addresses.clone(),
            link: "up".to_owned(),
        })
    }

    fn cni_gc(&mut self, gc: &CniGc) -> Result<CniCollected, RpcError> {
        self.reap_attachments();
        let stays = |attachment: &Attachment| match &gc.attachments {
            Some(valid) => valid.contains(&attachment.key()),
            None => !attachment.gone,
        };
        let keys: Vec<CniKey> = self
            .cni
            .journal
            .all()
            .filter(|attachment| attachment.network == gc.network && !stays(attachment))
            .map(|attachment| attachment.key())
            .collect();
        let removed = self.remove_attachments(keys)?;
        self.tidy_leases();
        // What was reaped just now is not among the removed, but its port goes too.
        self.reconcile(false, &BTreeSet::new()).map_err(|error| RpcError::of(&error))?;
        Ok(CniCollected { removed })
    }

    fn cni_gone(&self, network: &str) -> CniCollected {
        let dead = self.cni.journal.all().filter(|there| there.network == network && there.gone);
        CniCollected { removed: dead.map(|attachment| gone(attachment)).collect() }
    }

    fn cni_status(&mut self, status: &CniStatus) -> Result<(), RpcError> {
        ports::tun_available().map_err(RpcError::unavailable)?;
        let mut entry = status.settings.clone();
        entry.insert("name".to_owned(), "cni".into());
        entry.remove("anti_spoof");
        PortConfig::from_json(&Value::Object(entry), &self.file).map_err(RpcError::bad_config)?;
        if let Some(ipam) = &status.ipam {
            let pools = pools(ipam)?;
            // Nobody's, in a copy that is thrown away: only whether there would be one.
            let nobody = Owner { container: String::new(), ifname: String::new() };
            let mut book = self.cni.journal.book.clone();
            self.lease(&mut book, &status.network, &pools, &nobody, &[]).map_err(|error| match error {
                LeaseError::Later(reason) | LeaseError::Refused(reason) => RpcError::unavailable(reason),
            })?;
        }
        Ok(())
    }

    fn cni_list(&self) -> Value {
        let rows = self.cni.journal.all().map(|attachment| {
            let port = self.running.ports.get(&attachment.port);
            let up = port.is_some_and(|port| port.link.is_some());
            let state = match (attachment.gone, up) {
                (true, _) => "gone",
                (false, true) => "up",
                (false, false) => "lost",
            };
            json!({
                "container": attachment.container,
                "ifname": attachment.ifname,
                "network": attachment.network,
                "port": attachment.port,
                "netns": attachment.netns,
                "mac": port.map(|port| self.settings(&port.config).mac.to_string()),
                "addresses": attachment.addresses.iter().map(|address| &address.address).collect::<Vec<_>>(),
                "gateway": attachment.gateway.as_ref().and_then(|gateway| gateway.interface.as_ref()),
                "state": state,
                "reason": port.and_then(|port| port.reason.clone()).filter(|reason| !is_waiting(reason)),
            })
        });
        rows.collect()
    }
}

fn gone(attachment: &Attachment) -> CniRemoved {
    CniRemoved {
        container: attachment.container.clone(),
        ifname: attachment.ifname.clone(),
        removed: true,
        conf: attachment.conf.clone(),
        addresses: attachment.addresses.iter().map(|address| address.address.clone()).collect(),
    }
}
