//! `vswitchd demo`: the main job on real TAPs and VXLAN, on any Linux, with nothing else installed.
//!
//! In private namespaces it builds two nodes and four pods of the shipped `configs/demo.toml`, starts a real
//! vswitchd on each node, and proves from inside the pods who reaches whom. Everything lives in namespaces that
//! only these processes hold, on file systems in memory: with the processes all of it is gone, however they end.
//! Not here: anything of the switch; the daemons are this program, started as anybody would start it.

mod checks;
mod keep;
mod layout;
mod node;
mod ping;
mod place;
mod table;
mod transfer;

use crate::datapath::clock;
use crate::sys::event::{Signals, wait_readable};
use anyhow::{Context as _, bail, ensure};
use checks::{Check, Outcome};
use layout::Layout;
use node::Node;
use std::io::Write as _;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// The file that both nodes read, byte for byte.
const CONFIG: &str = include_str!("../../../configs/demo.toml");

/// How long the daemons may take until they are ready. They take a fraction of a second.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How long one check may take, whatever comes of it.
const CHECK_WITHIN: Duration = Duration::from_secs(20);
/// How long the daemons may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// What happens while the demo runs.
#[derive(Debug)]
enum Event {
    /// The daemon of this node (its number) says that it is ready.
    Ready(usize),
    /// The daemon of this node has closed its log: it has ended.
    Ended(usize),
    /// Somebody wants the demo to stop.
    Stop,
    /// The next check is done.
    Checked(Outcome),
}

/// Runs the demo; with `keep`, until somebody stops it. Call it while the process has one thread.
///
/// # Errors
/// A sentence: what this machine does not offer and what to do about it, or which checks did not hold.
pub fn run(keep: bool) -> anyhow::Result<()> {
    if let Some(request) = node::requested() {
        return node::become_daemon(&request);
    }
    let layout = Layout::of(CONFIG)?;
    let private = place::isolate()?;
    // Before any thread is made: they all inherit the mask.
    let signals = Signals::take().context("taking signals")?;
    let checks = checks::all(&layout, private.ipv6);
    say(&layout.picture());
    place::build(&layout).context("building the nodes and pods")?;

    let (sender, events) = channel();
    let mut nodes = Vec::new();
    let started = clock::now();
    for number in 0..layout.nodes.len() {
        let name = &layout.nodes[number].name;
        let node =
            Node::start(number, name, &sender).with_context(|| format!("starting vswitchd on {name}"))?;
        nodes.push(node);
    }
    watch_signals(signals, sender.clone())?;
    let proved = wait_until_ready(&mut nodes, &events).and_then(|()| {
        let took = clock::now().since(started);
        say(&format!("Two vswitchd are ready, after {:.2} s.\n", took.as_secs_f64()));
        if !private.ipv6 {
            say("IPv6 is off in this kernel: its checks are left out.\n");
        }
        prove(&layout, checks, &nodes, &sender, &events)
    });
    let kept = proved.and_then(|()| {
        if keep {
            say(&keep::commands(&layout, &nodes, private.own_user));
            wait_for_stop(&nodes, &events)?;
        }
        stop(&mut nodes, &events)
    });
    if let Err(error) = kept {
        if !error.is::<Stopped>() {
            show_logs(&nodes);
        }
        return Err(error);
    }
    say("Every check holds. Both vswitchd have stopped; nothing is left behind.");
    if !keep {
        say("`vswitchd demo --keep` stays up, to look around.");
    }
    Ok(())
}

fn wait_until_ready(nodes: &mut [Node], events: &Receiver<Event>) -> anyhow::Result<()> {
    let deadline = clock::now().after(READY_WITHIN);
    let mut waiting: Vec<usize> = (0..nodes.len()).collect();
    while let Some(first) = waiting.first() {
        match events.recv_timeout(deadline.since(clock::now())) {
            Ok(Event::Ready(number)) => waiting.retain(|other| *other != number),
            Ok(Event::Ended(_)) if stop_follows(events) => return Err(Stopped.into()),
            Ok(Event::Ended(number)) => bail!("vswitchd on {} ended before it was ready", nodes[number].name),
            Ok(Event::Stop) => return Err(Stopped.into()),
            Ok(Event::Checked(_)) => {}
            Err(_) => {
                bail!("vswitchd on {} is not ready after {} s", nodes[*first].name, READY_WITHIN.as_secs())
            }
        }
    }
    nodes.iter().try_for_each(Node::ask_status)
}

/// Runs the checks on a thread of its own, so that a signal or the end of a daemon is noticed at once, and shows
/// each as it is done.
fn prove(
    layout: &Layout,
    checks: Vec<Check>,
    nodes: &[Node],
    sender: &Sender<Event>,
    events: &Receiver<Event>,
) -> anyhow::Result<()> {
    let table = table::Table::new(layout, &checks);
    say(&table.heading());
    let names: Vec<_> = checks.iter().map(Check::title).collect();
    let (sender, sockets) = (sender.clone(), nodes.iter().map(Node::socket).collect::<Vec<_>>());
    thread::Builder::new().name("checks".into()).spawn(move || {
        for check in checks {
            let outcome = check.run(&sockets);
            if sender.send(Event::Checked(outcome)).is_err() {
                return;
            }
        }
    })?;
    let mut failed = Vec::new();
    for name in names {
        let outcome = loop {
            match events.recv_timeout(CHECK_WITHIN) {
                Ok(Event::Checked(outcome)) => break outcome,
                Ok(Event::Ended(_)) if stop_follows(events) => return Err(Stopped.into()),
                Ok(Event::Ended(number)) => bail!("vswitchd on {} ended in the middle", nodes[number].name),
                Ok(Event::Stop) => return Err(Stopped.into()),
                Ok(Event::Ready(_)) => {}
                Err(_) => bail!("{name}: nothing came of it within {} s", CHECK_WITHIN.as_secs()),
            }
        };
        say(&table.row(&outcome));
        if !outcome.holds {
            failed.push(name);
        }
    }
    say("");
    ensure!(failed.is_empty(), "not every check holds: {}", failed.join("; "));
    Ok(())
}

fn wait_for_stop(nodes: &[Node], events: &Receiver<Event>) -> anyhow::Result<()> {
    loop {
        match events.recv() {
            Ok(Event::Ended(_)) if stop_follows(events) => return Ok(()),
            Ok(Event::Ended(number)) => bail!("vswitchd on {} ended", nodes[number].name),
            Ok(Event::Stop) | Err(_) => return Ok(()),
            Ok(Event::Ready(_) | Event::Checked(_)) => {}
        }
    }
}

/// Whether the end of a daemon was meant: a terminal's Ctrl-C reaches all processes, and the daemons may be faster.
fn stop_follows(events: &Receiver<Event>) -> bool {
    let deadline = clock::now().after(Duration::from_millis(200));
    loop {
        match events.recv_timeout(deadline.since(clock::now())) {
            Ok(Event::Stop) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

fn stop(nodes: &mut [Node], events: &Receiver<Event>) -> anyhow::Result<()> {
    nodes.iter_mut().try_for_each(Node::ask_to_end).context("stopping vswitchd")?;
    let deadline = clock::now().after(STOP_WITHIN);
    while nodes.iter().any(|node| !node.log_ended()) {
        if events.recv_timeout(deadline.since(clock::now())).is_err() {
            bail!("vswitchd was asked to stop and did not within {} s", STOP_WITHIN.as_secs());
        }
    }
    for node in nodes {
        let status = node.wait().context("waiting for vswitchd")?;
        if !status.success() {
            bail!("vswitchd on {} was asked to stop and did so with {status}", node.name);
        }
    }
    Ok(())
}

/// Somebody stopped the demo too early.
#[derive(Debug, thiserror::Error)]
#[error("stopped before everything was proved")]
struct Stopped;

fn watch_signals(signals: Signals, sender: Sender<Event>) -> std::io::Result<()> {
    let watch = move || {
        loop {
            // An error here can only be an interrupted wait.
            let _ = wait_readable(signals.fd(), None);
            if let Ok(Some(_)) = signals.next()
                && sender.send(Event::Stop).is_err()
            {
                return;
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(watch).map(drop)
}

fn show_logs(nodes: &[Node]) {
    for node in nodes {
        let mut text = format!("The last that vswitchd on {} said:\n", node.name);
        for line in node.last_lines() {
            text.push_str(&format!("  {line}\n"));
        }
        // There is nobody to tell that stderr is closed.
        drop(std::io::stderr().lock().write_all(text.as_bytes()));
    }
}

/// A line or more for the person. A reader who has gone is no reason to stop.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()));
}
