//! A socket that speaks the daemon's words for CNI and does the least that makes them true: a TAP in the pod's
//! namespace. It writes down what it was asked, and can be told to refuse.

use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use vswitchd::sys::netlink::{Change, Netlink};
use vswitchd::sys::netns::{self, NamespaceId};
use vswitchd::sys::{rights, tun};

pub(crate) const UNAVAILABLE: i32 = -32002;
pub(crate) const UNKNOWN: i32 = -32003;

type Key = (String, String);

/// What becomes of a call that is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    Undone,
    Done,
}

#[derive(Debug)]
struct Attachment {
    network: String,
    mac: String,
    addresses: Vec<Value>,
    conf: Value,
    namespace: NamespaceId,
    /// None once its namespace is said to have died.
    tap: Option<OwnedFd>,
}

#[derive(Debug, Default)]
struct State {
    attachments: BTreeMap<Key, Attachment>,
    calls: Vec<(String, Value)>,
    refusals: BTreeMap<String, VecDeque<(i32, String)>>,
    /// Methods at which the connection is closed without an answer.
    deaf: Vec<String>,
    /// Methods of which the client hears nothing while its connection stays.
    held: Vec<(String, Hold)>,
    stopped: bool,
}

/// The socket, served.
#[derive(Debug)]
pub(crate) struct Scripted {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

impl Scripted {
    /// Serves `control.sock` in `directory`.
    pub(crate) fn start(directory: &Path) -> Self {
        let path = directory.join("control.sock");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let state = Arc::<Mutex<State>>::default();
        let serving = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.lock().unwrap().stopped {
                    return;
                }
                let state = Arc::clone(&serving);
                std::thread::spawn(move || serve(&stream.unwrap(), &state));
            }
        });
        Self { path, state }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.path
    }

    /// Stops listening, and removes the socket.
    pub(crate) fn stop(&self) {
        self.state.lock().unwrap().stopped = true;
        drop(UnixStream::connect(&self.path));
        std::fs::remove_file(&self.path).unwrap();
    }

    /// Lets the next call of `method` fail.
    pub(crate) fn refuse(&self, method: &str, code: i32, message: &str) {
        let mut state = self.state.lock().unwrap();
        state.refusals.entry(method.to_owned()).or_default().push_back((code, message.to_owned()));
    }

    /// Lets every call of `method` from now on go unanswered.
    pub(crate) fn ignore(&self, method: &str) {
        self.state.lock().unwrap().deaf.push(method.to_owned());
    }

    /// Lets every call of `method` from now on never be answered.
    pub(crate) fn hold(&self, method: &str, hold: Hold) {
        self.state.lock().unwrap().held.push((method.to_owned(), hold));
    }

    /// Answers to every method again.
    pub(crate) fn hear(&self) {
        let mut state = self.state.lock().unwrap();
        state.deaf.clear();
        state.held.clear();
    }

    /// The parameters of all calls of `method` so far.
    pub(crate) fn asked(&self, method: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        state.calls.iter().filter(|(name, _)| name == method).map(|(_, params)| params.clone()).collect()
    }

    /// The containers that are attached.
    pub(crate) fn containers(&self) -> Vec<String> {
        self.state.lock().unwrap().attachments.keys().map(|(container, _)| container.clone()).collect()
    }

    /// The Ethernet frames that the pod of `container` has sent since it was last asked.
    pub(crate) fn frames(&self, container: &str) -> Vec<Vec<u8>> {
        let state = self.state.lock().unwrap();
        let attachment = state.attachments.iter().find(|(key, _)| key.0 == container).unwrap().1;
        let mut tap = File::from(attachment.tap.as_ref().unwrap().try_clone().unwrap());
        let mut frame = [0; 2048];
        // In front of each is a header of virtio_net, ten bytes.
        let next = || tap.read(&mut frame).ok().map(|len| frame[10..len].to_vec());
        std::iter::from_fn(next).collect()
    }

    /// Lets the namespace of `container` have died.
    pub(crate) fn bury(&self, container: &str) {
        for (key, attachment) in &mut self.state.lock().unwrap().attachments {
            if key.0 == container {
                attachment.tap = None;
            }
        }
    }
}

fn serve(stream: &UnixStream, state: &Mutex<State>) {
    let (mut read, mut descriptors) = (Vec::new(), Vec::new());
    let mut chunk = [0; 4096];
    loop {
        while let Some(end) = read.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = read.drain(..=end).collect();
            let request: Value = serde_json::from_slice(&line).unwrap();
            let method = request["method"].as_str().unwrap().to_owned();
            let mut state = state.lock().unwrap();
            state.calls.push((method.clone(), request["params"].clone()));
            if state.deaf.contains(&method) {
                return;
            }
            let taken = std::mem::take(&mut descriptors);
            let held = state.held.iter().find(|(name, _)| *name == method).map(|(_, hold)| *hold);
            if held == Some(Hold::Undone) {
                continue;
            }
            let refusal = state.refusals.get_mut(&method).and_then(VecDeque::pop_front);
            let answer = refusal.map_or_else(|| answer(&mut state, &method, &request["params"], taken), Err);
            drop(state);
            if held.is_some() {
                continue;
            }
            let id = &request["id"];
            let reply = match answer {
                Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
                Err((code, message)) => {
                    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
                }
            };
            // The plugin may have been killed.
            if (&mut &*stream).write_all(format!("{reply}\n").as_bytes()).is_err() {
                return;
            }
        }
        match rights::receive(stream, &mut chunk) {
            Ok((0, _)) | Err(_) => return,
            Ok((len, more)) => {
                read.extend_from_slice(&chunk[..len]);
                descriptors.extend(more);
            }
        }
    }
}

fn key(params: &Value) -> Key {
    (params["container"].as_str().unwrap().to_owned(), params["ifname"].as_str().unwrap().to_owned())
}

fn row(key: &Key, attachment: &Attachment) -> Value {
    let state = if attachment.tap.is_some() { "up" } else { "gone" };
    json!({
        "container": key.0, "ifname": key.1, "network": attachment.network, "state": state,
        "removed": true, "conf": attachment.conf,
    })
}

fn answer(
    state: &mut State,
    method: &str,
    params: &Value,
    mut descriptors: Vec<OwnedFd>,
) -> Result<Value, (i32, String)> {
    Ok(match method {
        "hello" => json!({"protocol": 1, "version": "0", "features": ["cni"]}),
        "cni.add" => add(state, params, &descriptors.remove(0))?,
        "cni.del" => {
            let key = key(params);
            let gone = state.attachments.remove(&key);
            let conf = gone.as_ref().map(|gone| &gone.conf);
            json!({"container": key.0, "ifname": key.1, "removed": gone.is_some(), "conf": conf, "addresses": []})
        }
        "cni.check" => {
            let unknown = (UNKNOWN, "there is no such attachment".to_owned());
            let attachment = state.attachments.get(&key(params)).ok_or(unknown)?;
            let lost = |what: &str| Err((-32000, format!("port x is lost: {what}")));
            if attachment.tap.is_none() {
                return lost("its namespace died");
            }
            if descriptors.first().is_some_and(|of| netns::id(of.as_fd()).unwrap() != attachment.namespace) {
                return lost("it is in another namespace");
            }
            json!({"port": "x", "mac": attachment.mac, "mtu": 1450, "addresses": attachment.addresses, "link": "up"})
        }
        "cni.gc" => {
            let all = std::mem::take(&mut state.attachments);
            let mut removed = Vec::new();
            for (key, attachment) in all {
                let stays = attachment.network != params["network"]
                    || match &params["attachments"] {
                        Value::Null => attachment.tap.is_some(),
                        listed => {
                            listed.as_array().unwrap().contains(&json!({"container": key.0, "ifname": key.1}))
                        }
                    };
                if stays {
                    state.attachments.insert(key, attachment);
                } else {
                    removed.push(row(&key, &attachment));
                }
            }
            json!({"removed": removed})
        }
        "cni.gone" => {
            let gone = state
                .attachments
                .iter()
                .filter(|(_, of)| of.tap.is_none() && of.network == params["network"]);
            json!({"removed": gone.map(|(key, of)| row(key, of)).collect::<Vec<_>>()})
        }
        "cni.list" => state.attachments.iter().map(|(key, of)| row(key, of)).collect(),
        "cni.status" => Value::Null,
        _ => return Err((-32601, format!("unknown method {method:?}"))),
    })
}

fn add(state: &mut State, params: &Value, namespace: &OwnedFd) -> Result<Value, (i32, String)> {
    let refused = |error: std::io::Error| (-32000, error.to_string());
    let key = key(params);
    let mut hasher = DefaultHasher::new();
    (&key, std::process::id(), std::ptr::from_ref(state) as usize).hash(&mut hasher);
    let port = format!("cni{:012x}", hasher.finish() >> 16);
    let id = netns::id(namespace.as_fd()).unwrap();
    if state.attachments.get(&key).is_some_and(|of| of.namespace != id) {
        state.attachments.remove(&key);
    }
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
    let number = state.attachments.len() + 2;
    let mac = text(&params["settings"]["mac"]).unwrap_or_else(|| "02:00:00:00:00:0a".to_owned());
    if !state.attachments.contains_key(&key) {
        let tap = tun::open_with_header(&port).map_err(refused)?;
        let mut netlink = Netlink::open().unwrap();
        let index = netlink.interface(&port).unwrap().unwrap().index;
        let change = Change {
            namespace: Some(namespace.as_fd()),
            name: Some(&key.1),
            mtu: Some(1450),
            mac: Some(mac.parse().unwrap()),
            up: Some(true),
            ..Change::default()
        };
        netlink.change(index, &change).map_err(refused)?;
        let given = |text: String| json!({"address": text, "gateway": null});
        let addresses = if params["ipam"].is_object() {
            vec![json!({"address": format!("10.244.0.{number}/16"), "gateway": "10.244.0.1"})]
        } else {
            params["addresses"].as_array().unwrap().iter().filter_map(text).map(given).collect()
        };
        let attachment = Attachment {
            network: text(&params["network"]).unwrap(),
            mac,
            addresses,
            conf: params["conf"].clone(),
            namespace: id,
            tap: Some(tap),
        };
        state.attachments.insert(key.clone(), attachment);
    }
    let gateway = &params["gateway"];
    let gateway = gateway.is_object().then(|| {
        let name = text(&gateway["interface"]).unwrap_or_else(|| "vgw10".to_owned());
        json!({"interface": name, "mac": "02:00:00:00:00:01", "addresses": gateway["addresses"]})
    });
    let attachment = &state.attachments[&key];
    Ok(json!({
        "port": port, "mac": attachment.mac, "mtu": 1450, "addresses": attachment.addresses, "gateway": gateway,
    }))
}
