//! What the command line wishes.

use crate::ground::Scene;
use crate::modes::Mode;
use crate::peers::Peer;
use lexopt::prelude::*;
use std::path::PathBuf;

pub(crate) const USAGE: &str = "\
benches/compare: vswitchd beside its peers, in one interleaved run on this machine; as root

  benches/compare [--quick] [--rounds N] [--seconds N] [--only SCENES] [--peers PEERS] [--out DIR]
      TCP, 64-byte UDP, round trips, CPU and memory of every peer, in turn, round by round
  benches/compare idle       vswitchd with nothing to do, with 2 and with 200 ports
  benches/compare workers    vswitchd with one worker and with two, 64 flows
  benches/compare rfc2544    throughput by frame size
  benches/compare rfc2889    address caching capacity, address learning rate, broadcast forwarding rate

  --rounds N      rounds; 5 (the last two have one)
  --seconds N     of each throughput; 2
  --quick         2 rounds of 1 second, no search for the rate without loss
  --only SCENES   of pods,nodes,segmented: two pods on one host; two nodes with VXLAN; the same over an underlay that
                  must segment
  --peers PEERS   of vswitchd,vswitchd-plain,ovs,ovs-tso,kernel,copier,copier-offload; and between pods of what was
                  tried and not taken: copier-queues,copier-uring,copier-uring-4,copier-uring-64
  --out DIR       where the table goes, and for the comparison raw numbers and a plot; benches/results
Nothing is installed, and nothing is left behind: all happens in private namespaces.";

/// What to do.
#[derive(Debug)]
pub(crate) enum Wish {
    Help,
    /// The comparison, or a mode besides.
    Run(Option<Mode>, Options),
}

/// How to do it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) rounds: u32,
    pub(crate) seconds: u32,
    pub(crate) quick: bool,
    pub(crate) scenes: Vec<Scene>,
    /// `None`: those that a scene is about.
    pub(crate) peers: Option<Vec<Peer>>,
    pub(crate) out: PathBuf,
}

impl Options {
    /// Who takes part in `scene`.
    pub(crate) fn peers(&self, scene: Scene) -> Vec<Peer> {
        match (&self.peers, scene) {
            (Some(peers), _) => peers.clone(),
            // It asks one question, which is about superframes.
            (None, Scene::Segmented) => {
                vec![Peer::Vswitchd, Peer::Ovs, Peer::Kernel, Peer::CopierOffload]
            }
            (None, _) => Peer::ALL.into_iter().filter(|peer| !Peer::TRIED.contains(peer)).collect(),
        }
    }
}

/// Reads the arguments.
pub(crate) fn parse(mut arguments: lexopt::Parser) -> Result<Wish, lexopt::Error> {
    let (mut rounds, mut seconds, mut quick) = (None, None, false);
    let (mut scenes, mut peers) = (Scene::ALL.to_vec(), None);
    let mut mode = None;
    let mut out = PathBuf::from("benches/results");
    while let Some(argument) = arguments.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Wish::Help),
            Long("quick") => quick = true,
            Long("rounds") => rounds = Some(positive(&arguments.value()?.string()?)?),
            Long("seconds") => seconds = Some(positive(&arguments.value()?.string()?)?),
            Long("only") => scenes = list(&arguments.value()?.string()?, &Scene::ALL, Scene::word)?,
            Long("peers") => peers = Some(list(&arguments.value()?.string()?, &Peer::ALL, Peer::word)?),
            Value(word) if mode.is_none() => mode = Some(one_of(&word.string()?, &Mode::ALL, Mode::word)?),
            Long("out") => out = PathBuf::from(arguments.value()?),
            other => return Err(other.unexpected()),
        }
    }
    let options = Options {
        rounds: rounds.unwrap_or(if quick { 2 } else { 5 }),
        seconds: seconds.unwrap_or(if quick { 1 } else { 2 }),
        quick,
        scenes,
        peers,
        out,
    };
    Ok(Wish::Run(mode, options))
}

fn positive(text: &str) -> Result<u32, lexopt::Error> {
    match text.parse() {
        Ok(number) if (1..=3600).contains(&number) => Ok(number),
        _ => Err(format!("\"{text}\" is no number from 1 to 3600").into()),
    }
}

/// Words with commas between, each the word of one of `all`.
fn list<T: Copy>(text: &str, all: &[T], word: impl Fn(T) -> &'static str) -> Result<Vec<T>, lexopt::Error> {
    text.split(',').map(|one| one_of(one, all, &word)).collect()
}

fn one_of<T: Copy>(text: &str, all: &[T], word: impl Fn(T) -> &'static str) -> Result<T, lexopt::Error> {
    all.iter().copied().find(|item| word(*item) == text).ok_or_else(|| {
        let words: Vec<&str> = all.iter().map(|item| word(*item)).collect();
        format!("\"{text}\" is none of {}", words.join(", ")).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options, lexopt::Error> {
        match parse(lexopt::Parser::from_args(line.split_whitespace()))? {
            Wish::Run(_, options) => Ok(options),
            Wish::Help => Err("help".into()),
        }
    }

    #[test]
    fn without_arguments_everything_is_compared_but_what_was_tried_and_not_taken() {
        let options = options("").unwrap();
        assert_eq!((options.rounds, options.seconds), (5, 2));
        assert_eq!(options.scenes, Scene::ALL);
        let peers = options.peers(Scene::Pods);
        assert!(Peer::ALL.iter().all(|peer| peers.contains(peer) != Peer::TRIED.contains(peer)));
        assert!(options.peers(Scene::Segmented).contains(&Peer::Kernel));
    }

    #[test]
    fn what_is_asked_for_is_what_is_done() {
        let options =
            options("--quick --rounds 1 --only pods,nodes --peers vswitchd,kernel --out x").unwrap();
        assert_eq!((options.rounds, options.seconds), (1, 1));
        assert_eq!(options.scenes, [Scene::Pods, Scene::Nodes]);
        assert_eq!(options.peers(Scene::Nodes), [Peer::Vswitchd, Peer::Kernel]);
        assert_eq!(options.out, PathBuf::from("x"));
    }

    #[test]
    fn a_word_is_a_mode() {
        let mode = |line: &str| match parse(lexopt::Parser::from_args(line.split_whitespace())) {
            Ok(Wish::Run(mode, _)) => mode,
            _ => None,
        };
        assert_eq!(mode("--quick"), None);
        assert_eq!(mode("idle --rounds 1"), Some(Mode::Idle));
        assert!(options("idle workers").is_err());
    }

    #[test]
    fn nonsense_is_refused_with_what_would_do() {
        let refused = |line: &str| options(line).unwrap_err().to_string();
        assert!(refused("--only moon").contains("pods, nodes, segmented"));
        assert!(refused("--rounds 0").contains("from 1 to"));
        assert!(refused("--what").contains("--what"));
    }
}
