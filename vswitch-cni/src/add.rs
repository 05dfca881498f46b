//! ADD: addresses from the IPAM, the port from the daemon, addresses and routes into the pod, and all of it back
//! where one of them fails.

use crate::collect;
use crate::conf::{Conf, Ipam, key};
use crate::daemon::{Daemon, Failure};
use crate::delegate::{Delegate, Whose};
use crate::environment::{Environment, Verb};
use crate::error::CniError;
use crate::net::{Address, Cidr, Route};
use crate::owed::Owed;
use crate::pod;
use crate::result::{Interface, Lease, Success, says_something};
use crate::wishes::{Gateway, Wishes};
use serde_json::{Map, Value};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::sleep;
use std::time::Duration;
use vswitchd::control::rpc::cni::{CniAdd, CniAdded, CniGateway};

/// How often a daemon that says "not now" is asked again, and the pause before.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// Attaches, and gives what to print.
///
/// # Errors
/// Why it could not be; then nothing is left of it, as far as that is possible.
pub fn add(environment: &Environment, conf: &Conf) -> Result<Value, CniError> {
    let wishes = Wishes::read(conf, &environment.args)?;
    let previous: Map<String, Value> = key(&conf.raw, "prevResult")?.unwrap_or_default();
    let namespace = pod::open(&environment.netns)?;
    // Before any lease is taken: without a daemon nothing else is worth the while.
    let daemon = Daemon::connect(&conf.socket).map_err(Failure::error)?;
    let mut adding = Adding { environment, conf, wishes: &wishes, namespace, daemon };
    let success = match &conf.ipam {
        Ipam::Delegated(kind) => adding.delegated(&Delegate::new(environment, kind), previous)?,
        Ipam::BuiltIn | Ipam::None => adding.simple(previous)?,
    };
    Ok(success.json(conf.version))
}

struct Adding<'a> {
    environment: &'a Environment,
    conf: &'a Conf,
    wishes: &'a Wishes,
    namespace: OwnedFd,
    daemon: Daemon,
}

/// Why an attachment failed.
struct Undone {
    error: CniError,
    /// Whether it is certain that the daemon has no such attachment.
    nothing_left: bool,
}

impl Adding<'_> {
    /// With addresses of the daemon's, of the runtime's, or none.
    fn simple(&mut self, previous: Map<String, Value>) -> Result<Success, CniError> {
        let mut lease = Lease { routes: self.wishes.routes.clone(), ..Lease::default() };
        if self.conf.ipam == Ipam::None {
            for (address, len) in &self.wishes.ips {
                let len = len.ok_or_else(|| {
                    CniError::config(format!(
                        "{address} is asked for without a prefix length, and there is no IPAM"
                    ))
                })?;
                lease.addresses.push(Address { cidr: Cidr { address: *address, len }, gateway: None });
            }
        }
        self.attach(lease, previous).map_err(|undone| undone.error)
    }

    /// With a lease of another plugin's, of which a note is kept until the daemon has the attachment.
    fn delegated(&mut self, ipam: &Delegate<'_>, previous: Map<String, Value>) -> Result<Success, CniError> {
        // Of one that is not there no lease is to be given back either.
        ipam.find()?;
        let attachment = &self.environment.attachment;
        let owed = Owed::take(self.daemon.socket(), &self.conf.name, attachment)
            .map_err(|error| collect::unwritable(&error))?;
        if owed.was_left {
            // An ADD of the same attachment was killed, or could not be undone.
            self.daemon.del(attachment).map_err(Failure::error)?;
            collect::free(self.environment, attachment, &collect::noted(&owed)?)?;
        }
        let (lease, owed) = self.lease(ipam, owed)?;
        match self.attach(lease, previous) {
            Ok(success) => {
                owed.settle();
                Ok(success)
            }
            Err(Undone { error, nothing_left: false }) => Err(error),
            Err(Undone { error, nothing_left: true }) => Err(self.give_back(ipam, owed, error)),
        }
    }

    /// Gives a lease back because of `error`; where that fails the note stays.
    fn give_back(&self, ipam: &Delegate<'_>, owed: Owed, error: CniError) -> CniError {
        match ipam.run(Verb::Del, Whose::Ours, self.conf) {
            Ok(_) => {
                owed.settle();
                error
            }
            Err(second) => error.and(&second),
        }
    }

    fn lease(&mut self, ipam: &Delegate<'_>, owed: Owed) -> Result<(Lease, Owed), CniError> {
        let first = match ipam.add(self.conf, owed.file()) {
            Ok(text) => return self.read_lease(ipam, owed, &text),
            Err(error) => error,
        };
        let attachment = &self.environment.attachment;
        let mut freed = match self.daemon.check(attachment, self.namespace.as_fd()) {
            Ok(_) => {
                // The lease is the attachment's that there is.
                owed.settle();
                let text = format!("{} is attached already, and was not detached", attachment.ifname);
                return Err(CniError::new(CniError::REFUSED, text).and(&first));
            }
            Err(failure) if failure.is_unknown() => false,
            Err(Failure::Refused(error)) if !Failure::Refused(error.clone()).is_passing() => {
                // What there is of it is lost, or in a namespace that this container has left.
                let old = self.daemon.del(attachment).map_err(Failure::error)?;
                collect::free(self.environment, attachment, &old.conf)?;
                true
            }
            Err(failure) => return Err(failure.error()),
        };
        if let Err(second) = ipam.run(Verb::Del, Whose::Ours, self.conf) {
            return Err(first.and(&second));
        }
        freed |= collect::free_gone(&mut self.daemon, self.environment, self.conf)?;
        if !freed {
            owed.settle();
            return Err(first);
        }
        match ipam.add(self.conf, owed.file()) {
            Ok(text) => self.read_lease(ipam, owed, &text),
            Err(error) => Err(self.give_back(ipam, owed, error)),
        }
    }

    fn read_lease(&self, ipam: &Delegate<'_>, owed: Owed, text: &[u8]) -> Result<(Lease, Owed), CniError> {
        match Lease::parse(text) {
            Ok(lease) => Ok((lease, owed)),
            Err(why) => {
                let error = CniError::new(CniError::DELEGATE, "the IPAM plugin's result is not understood")
                    .because(why);
                Err(self.give_back(ipam, owed, error))
            }
        }
    }

    fn attach(&mut self, mut lease: Lease, previous: Map<String, Value>) -> Result<Success, Undone> {
        let built_in = self.conf.ipam == Ipam::BuiltIn;
        let untouched = |error| Undone { error, nothing_left: true };
        let gateway = self
            .wishes
            .gateway
            .as_ref()
            .map(|gateway| self.gateway(gateway, &mut lease.addresses))
            .transpose()
            .map_err(untouched)?;
        let attachment = &self.environment.attachment;
        let wish = CniAdd {
            container: attachment.container.clone(),
            ifname: attachment.ifname.clone(),
            network: self.conf.name.clone(),
            netns: self.environment.netns.clone(),
            settings: self.wishes.settings.clone(),
            addresses: lease.addresses.iter().map(|of| of.cidr.to_string()).collect(),
            ipam: self.wishes.built_in(),
            gateway,
            conf: self.conf.value(),
        };
        let added = match self.patiently(&wish) {
            Ok(added) => added,
            Err(failure @ Failure::Refused(_)) => return Err(untouched(failure.error())),
            Err(failure) => return Err(self.undo(failure.error())),
        };
        if built_in {
            for given in &added.addresses {
                match Cidr::parse(&given.address) {
                    Ok(cidr) => lease.addresses.push(Address { cidr, gateway: given.gateway }),
                    Err(error) => return Err(self.undo(CniError::new(CniError::REFUSED, error))),
                }
            }
            self.lead_to_anycast(&mut lease.addresses);
        }
        if self.wishes.default_gateway {
            add_default_routes(&lease.addresses, &mut lease.routes);
        }
        let routes =
            match pod::equip(self.namespace.as_fd(), &attachment.ifname, &lease.addresses, &lease.routes) {
                Ok(routes) => routes,
                Err(error) => return Err(self.undo(error)),
            };
        let host = added.gateway.map(|port| Interface {
            name: port.interface,
            mac: port.mac,
            mtu: 0,
            sandbox: String::new(),
        });
        let pod = Interface {
            name: attachment.ifname.clone(),
            mac: added.mac,
            mtu: added.mtu.into(),
            sandbox: self.environment.netns.clone(),
        };
        let dns = self.conf.raw.get("dns").filter(|dns| says_something(dns)).cloned().unwrap_or(lease.dns);
        Ok(Success {
            previous,
            interfaces: host.into_iter().chain([pod]).collect(),
            addresses: lease.addresses,
            routes,
            dns,
        })
    }

    /// Asks for the port, and again for a while where the daemon says "not now", as when an address is on its way from
    /// the cluster's store.
    fn patiently(&mut self, wish: &CniAdd) -> Result<CniAdded, Failure> {
        let mut tries = 0;
        loop {
            match self.daemon.add(wish, self.namespace.as_fd()) {
                Err(failure) if failure.is_passing() && tries < TRIES => {
                    tries += 1;
                    sleep(PAUSE);
                }
                added => return added,
            }
        }
    }

    /// Removes the port because of `error`.
    fn undo(&mut self, error: CniError) -> Undone {
        match self.daemon.del(&self.environment.attachment) {
            Ok(_) => Undone { error, nothing_left: true },
            Err(failure) => Undone { error: error.and(&failure.error()), nothing_left: false },
        }
    }

    /// The host's port as the daemon is asked for it. The pod's addresses get to know who their gateway is.
    fn gateway(&self, gateway: &Gateway, addresses: &mut [Address]) -> Result<CniGateway, CniError> {
        let mut own = Vec::new();
        if gateway.anycast.is_empty() {
            for address in addresses.iter_mut() {
                address.gateway = address.gateway.or_else(|| address.cidr.first_host());
                own.extend(address.gateway.map(|gateway| Cidr { address: gateway, len: address.cidr.len }));
            }
        } else {
            let subnets: Vec<Cidr> =
                addresses.iter().map(|of| of.cidr).chain(self.wishes.subnets()).collect();
            for (address, len) in &gateway.anycast {
                let within = || subnets.iter().find(|of| of.contains(*address)).map(|of| of.len);
                let len = len.or_else(within).ok_or_else(|| {
                    CniError::config(format!("\"anycastGateway\": {address} is in no subnet of the network"))
                })?;
                own.push(Cidr { address: *address, len });
            }
            self.lead_to_anycast(addresses);
        }
        if own.is_empty() && self.conf.ipam != Ipam::BuiltIn {
            return Err(CniError::config("\"isGateway\" needs a network with addresses"));
        }
        Ok(CniGateway {
            interface: gateway.interface.clone(),
            addresses: own.iter().map(ToString::to_string).collect(),
            masquerade: gateway.masquerade,
            anycast: !gateway.anycast.is_empty(),
        })
    }

    /// Makes the anycast addresses the gateways of those in their subnets.
    fn lead_to_anycast(&self, addresses: &mut [Address]) {
        let anycast = self.wishes.gateway.iter().flat_map(|gateway| &gateway.anycast);
        for (gateway, _) in anycast {
            for address in addresses.iter_mut().filter(|of| of.cidr.contains(*gateway)) {
                address.gateway = Some(*gateway);
            }
        }
    }
}

/// The default route to each address's gateway, one of each family, where the IPAM gave none.
fn add_default_routes(addresses: &[Address], routes: &mut Vec<Route>) {
    for gateway in addresses.iter().filter_map(|of| of.gateway) {
        if !routes.iter().any(|route| route.is_default_of(gateway)) {
            routes.push(Route::default_by(gateway));
        }
    }
}
