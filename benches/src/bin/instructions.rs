//! How many instructions a frame takes on its way through the core, which no other load on the machine can change.
//!
//! Without arguments it runs itself under valgrind's callgrind, each way with fewer and with more frames so that what
//! comes before the first one cancels, and prints what a frame costs beside the counts kept in `instructions.txt`;
//! `--write` keeps the new ones. Another compiler or libc counts otherwise: this reports and judges nothing. Without
//! valgrind it says so, and fails where CI is set. Not here: time.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use vswitch_benches::traffic::{Scene, Traffic, Way};

/// Frames of the shorter and of the longer run.
const FRAMES: [u64; 2] = [3_200, 16_000];
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");

/// Everything counted, by name.
fn scenes() -> Vec<(&'static str, Scene)> {
    let scene = |way| Scene { stations: 1_000, ..Scene::new(way) };
    vec![
        ("plain", scene(Way::Plain)),
        ("tag in", scene(Way::Tag)),
        ("tag out", scene(Way::Untag)),
        ("flood to 15", scene(Way::Flood)),
        ("encap", scene(Way::Encap)),
        ("decap", scene(Way::Decap)),
        ("tag in, 44 in a row", Scene { train: 44, ..scene(Way::Tag) }),
        ("encap, 44 in a row", Scene { train: 44, ..scene(Way::Encap) }),
        ("decap, 44 in a row", Scene { train: 44, ..scene(Way::Decap) }),
        ("tag in, neigh_suppress", Scene { neigh_suppress: true, ..scene(Way::Tag) }),
        ("tag in, watched", Scene { stations: 16, watched: true, ..Scene::new(Way::Tag) }),
        ("encap, neigh_suppress", Scene { neigh_suppress: true, ..scene(Way::Encap) }),
    ]
}

/// What is counted: `frames` frames of a scene, written and, if so asked, forwarded.
fn run(scene: Scene, frames: u64, forwards: bool) {
    let mut traffic = Traffic::new(scene, &scene.table(), 3);
    for _ in 0..frames / 32 {
        if forwards {
            traffic.forward();
        } else {
            traffic.fill();
        }
    }
}

/// Instructions of this program with these arguments.
fn counted(arguments: &[&str]) -> Result<u64, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(own)
        .args(arguments)
        .output()
        .map_err(|error| format!("valgrind cannot be run: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    count.filter(|_| output.status.success()).ok_or_else(|| format!("valgrind failed:\n{text}"))
}

/// Instructions for one frame, to a tenth: forwarding alone.
fn of_frame(name: &str) -> Result<f64, String> {
    let [few, many] = FRAMES;
    let each = |what: &str| {
        let [a, b] = FRAMES.map(|frames| counted(&[what, name, &frames.to_string()]));
        Ok::<_, String>(b?.saturating_sub(a?))
    };
    let tenths = (each("forward")?.saturating_sub(each("fill")?)) * 10 / (many - few);
    Ok(f64::from(u32::try_from(tenths).unwrap_or(u32::MAX)) / 10.0)
}

/// The counts kept, by name.
fn kept() -> Vec<(String, f64)> {
    let text = std::fs::read_to_string(Path::new(KEPT)).unwrap_or_default();
    let line = |line: &str| {
        let (count, name) = line.trim().split_once(' ')?;
        Some((name.trim().to_owned(), count.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

fn report(writes: bool) -> Result<(), String> {
    let kept = kept();
    let mut text = String::new();
    println!("instructions per frame, and as kept");
    for (name, _) in scenes() {
        let now = of_frame(name)?;
        let _ = writeln!(text, "{now:>8.1} {name}");
        match kept.iter().find(|(known, _)| known == name) {
            Some((_, then)) => {
                let change = (now / then - 1.0) * 100.0;
                println!("    {name:<24}{now:>9.1}{then:>9.1}   {change:+.1} %");
            }
            None => println!("    {name:<24}{now:>9.1}        –"),
        }
    }
    if writes {
        std::fs::write(KEPT, text).map_err(|error| format!("{KEPT}: {error}"))?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let [what @ ("forward" | "fill"), name, frames] = words[..] {
        let scene = scenes().into_iter().find(|(known, _)| *known == name);
        let (Some((_, scene)), Ok(frames)) = (scene, frames.parse()) else { return ExitCode::from(64) };
        run(scene, frames, what == "forward");
        return ExitCode::SUCCESS;
    }
    if !words.iter().all(|word| *word == "--write") {
        eprintln!("usage: instructions [--write]");
        return ExitCode::from(64);
    }
    match report(!words.is_empty()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("NO INSTRUCTIONS COUNTED: {error}");
            if std::env::var_os("CI").is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
    }
}
