//! Three figures of RFC 2889, with three pods: address caching capacity (§5.7), address learning rate (§5.8), broadcast
//! forwarding rate (§5.6, here at one frame size, 64 bytes).
//!
//! Pod 2 is all the stations that are taught, pod 1 asks for them, pod 3 must see none of what it asks: a frame to a
//! station that is not known is flooded. Every trial has a switch that was started for it.

use super::Table;
use crate::ground::{Ground, POD_INTERFACE, Scene};
use crate::measure::{Pods, json, number, search};
use crate::options::Options;
use crate::peers::{Peer, Switch, vswitchd};
use crate::report::short;
use crate::tools::Tools;

/// No more stations are tried.
const STATIONS: f64 = 131_072.0;
/// Frames a second at which nothing is lost on the way.
const GENTLY: f64 = 50_000.0;
/// Stations taught when it is about how fast: what every switch here can keep.
const FEW: f64 = 4096.0;
/// Lost of what was sent, at most.
const LOSS: f64 = 0.001;
const STEPS: u32 = 8;

/// A switch under test.
#[derive(Clone, Copy)]
enum Device {
    As(Peer),
    /// vswitchd with room for every station of the test on one port.
    Roomy,
}

pub(super) fn run(options: &Options, tools: &Tools) -> anyhow::Result<Table> {
    let head = [
        "switch",
        "address caching capacity",
        "address learning rate, kpps",
        "broadcast without loss, kpps",
        "broadcast received, kpps",
    ];
    let mut table = Table::new("Addresses and broadcasts, after RFC 2889", &head);
    table.note(format!(
        "three pods on one host, 64-byte frames; capacity up to {STATIONS}; learning of {FEW} stations; at most {} % \
         lost; bisections of {STEPS} steps",
        LOSS * 100.0
    ));
    let peers = options.peers.clone().unwrap_or_else(|| vec![Peer::Vswitchd, Peer::Ovs, Peer::Kernel]);
    for peer in peers {
        let why = match peer {
            Peer::Copier | Peer::CopierOffload => Some("it has two ports and learns nothing".to_owned()),
            _ => peer.unavailable(Scene::Pods),
        };
        match why {
            Some(why) => table.row([peer.title(Scene::Pods).to_owned(), why]),
            None => table.row(row(peer.title(Scene::Pods), Device::As(peer), tools)?),
        }
        if peer == Peer::Vswitchd {
            table.row(row("vswitchd, mac_table limits raised", Device::Roomy, tools)?);
        }
    }
    Ok(table)
}

fn row(title: &str, device: Device, tools: &Tools) -> anyhow::Result<[String; 5]> {
    let capacity = search(STATIONS * 2.0, STEPS + 2, |stations| {
        // Twice, so that a frame lost on the way is not taken for a station forgotten.
        Ok(stations <= STATIONS && learned(device, tools, stations.floor(), GENTLY, 2)?)
    })?;
    let most = offered(device, tools)?;
    let rate = search(most, STEPS, |rate| learned(device, tools, FEW.min(capacity), rate, 1))?;
    let (ground, mut switch) = start(device, tools)?;
    let trial = Trial { ground: &ground, tools };
    let broadcast = search(most, STEPS, |rate| {
        let Heard { sent, received } = trial.listen("broadcast", rate, rate)?;
        Ok(received.iter().all(|count| count.frames >= sent.frames * (1.0 - LOSS)))
    })?;
    let [second, third] = trial.listen("broadcast", most, 0.0)?.received;
    let received = second.rate().min(third.rate());
    switch.must_live()?;
    Ok([
        title.to_owned(),
        format!("{:.0}", capacity.floor()),
        short(rate / 1e3),
        short(broadcast / 1e3),
        short(received / 1e3),
    ])
}

fn start(device: Device, tools: &Tools) -> anyhow::Result<(Ground, Switch)> {
    let ground = Ground::with_pods(Scene::Pods, 3)?;
    let mut switch = match device {
        Device::As(peer) => peer.start(&ground, tools)?,
        Device::Roomy => {
            vswitchd::start(&ground, tools, "[mac_table]\nlimit = 1048576\nport_limit = 1048576\n\n")?
        }
    };
    Pods::new(&ground, tools)?.meet(&mut switch)?;
    Ok((ground, switch))
}

/// Frames a second that a pod sends when nothing holds it.
fn offered(device: Device, tools: &Tools) -> anyhow::Result<f64> {
    let (ground, _switch) = start(device, tools)?;
    Ok(Trial { ground: &ground, tools }.send(0, "broadcast", 200_000.0, 0.0)?.rate())
}

/// Whether a fresh switch that is taught so many stations at this rate, so many times, knows all of them.
fn learned(device: Device, tools: &Tools, stations: f64, rate: f64, times: u32) -> anyhow::Result<bool> {
    let (ground, mut switch) = start(device, tools)?;
    let trial = Trial { ground: &ground, tools };
    // Pod 1 shows itself, so that what is taught goes there alone.
    trial.send(0, "probe", 1.0, GENTLY)?;
    for _ in 0..times {
        trial.send(1, "teach", stations, rate)?;
    }
    let Heard { sent, received: [asked, flooded] } = trial.listen("probe", stations, GENTLY)?;
    switch.must_live()?;
    Ok(flooded.frames == 0.0 && asked.frames >= sent.frames * (1.0 - LOSS))
}

/// Frames that were sent, or received.
#[derive(Clone, Copy, Debug)]
struct Count {
    frames: f64,
    /// From the first to the last.
    seconds: f64,
}

impl Count {
    fn read(result: &str, word: &str) -> anyhow::Result<Self> {
        let result = json(result)?;
        Ok(Self { frames: number(&result, word)?, seconds: number(&result, "/seconds")? })
    }

    fn rate(self) -> f64 {
        if self.seconds > 0.0 { self.frames / self.seconds } else { 0.0 }
    }
}

/// What was sent, and what two other pods received meanwhile.
#[derive(Clone, Copy, Debug)]
struct Heard {
    sent: Count,
    received: [Count; 2],
}

/// The pods of a trial.
#[derive(Clone, Copy)]
struct Trial<'a> {
    ground: &'a Ground,
    tools: &'a Tools,
}

impl Trial<'_> {
    /// One pod sends.
    fn send(self, pod: usize, kind: &str, count: f64, rate: f64) -> anyhow::Result<Count> {
        let words = format!("{kind} {POD_INTERFACE} {count:.0} {rate:.0}");
        Count::read(&self.ground.pods[pod].run(&self.tools.load, &words)?, "/sent")
    }

    /// Pod 1 sends, pods 2 and 3 listen.
    fn listen(self, kind: &str, count: f64, rate: f64) -> anyhow::Result<Heard> {
        let listen = |pod: usize| {
            let words = format!("count {POD_INTERFACE} 30000");
            let mut listener = self.ground.pods[pod].spawn(&self.tools.load, &words)?;
            listener.until_it_says("ready").map(|()| listener)
        };
        let (second, third) = (listen(1)?, listen(2)?);
        let sent = self.send(0, kind, count, rate)?;
        let received =
            [Count::read(&second.stop()?, "/received")?, Count::read(&third.stop()?, "/received")?];
        Ok(Heard { sent, received })
    }
}
