//! One turn of one peer: what its pods see, and what it costs.
//!
//! TCP by iperf3 (`-C cubic`), the rest by `load.c`. Frames of 64 bytes are counted as usual, with their frame check
//! sequence: 18 bytes of UDP payload. Not here: which peer, and what the numbers mean.

use crate::ground::{Ground, POD_ADDRESSES};
use crate::peers::Switch;
use crate::place::{Namespace, until};
use crate::tools::Tools;
use anyhow::{Context as _, bail};
use serde_json::Value;
use std::time::Duration;

/// What is measured, in the order of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// TCP with one stream, Gbit/s received.
    Tcp1,
    /// TCP with four.
    Tcp4,
    /// 64-byte frames of UDP received while one sender sends all it can, thousands a second.
    Udp,
    /// The highest rate tried at which at most one in a hundred was lost.
    UdpLossless,
    /// Median round trip of 18 bytes of UDP payload, µs.
    RoundTripP50,
    /// The 99th percentile of it.
    RoundTripP99,
    /// CPU seconds of the switch, user and kernel, per 10⁹ bytes that TCP delivered; both nodes together.
    CpuPerGb,
    /// Resident memory of the switch after the load, MB (10⁶ bytes); both nodes together.
    Resident,
}

impl Metric {
    pub(crate) const ALL: [Self; 8] = [
        Self::Tcp1,
        Self::Tcp4,
        Self::Udp,
        Self::UdpLossless,
        Self::RoundTripP50,
        Self::RoundTripP99,
        Self::CpuPerGb,
        Self::Resident,
    ];

    /// The word for it in the raw results.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Tcp1 => "tcp_1_gbit_s",
            Self::Tcp4 => "tcp_4_gbit_s",
            Self::Udp => "udp_64_kpps",
            Self::UdpLossless => "udp_64_at_1_percent_loss_kpps",
            Self::RoundTripP50 => "round_trip_p50_us",
            Self::RoundTripP99 => "round_trip_p99_us",
            Self::CpuPerGb => "cpu_s_per_gb",
            Self::Resident => "resident_mb",
        }
    }

    /// The head of its column.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Tcp1 => "TCP 1 stream, Gbit/s",
            Self::Tcp4 => "TCP 4 streams, Gbit/s",
            Self::Udp => "64 B UDP received, kpps",
            Self::UdpLossless => "… at ≤ 1 % loss, kpps",
            Self::RoundTripP50 => "round trip p50, µs",
            Self::RoundTripP99 => "p99, µs",
            Self::CpuPerGb => "switch CPU, s/GB",
            Self::Resident => "RSS, MB",
        }
    }
}

/// How long, and what, a turn measures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Seconds of each throughput.
    pub(crate) seconds: u32,
    /// Round trips.
    pub(crate) round_trips: u32,
    /// Steps of the search for the rate without loss; 0: none.
    pub(crate) steps: u32,
    /// TCP alone.
    pub(crate) tcp_only: bool,
}

/// UDP payload of a 64-byte frame: less 14 of Ethernet, 20 of IPv4, 8 of UDP and 4 of the frame check sequence.
pub(crate) const SMALLEST_PAYLOAD: u32 = 18;

const PORT: u16 = 7777;
/// What an iperf3 client has to say.
const LOG: &str = "/run/vswitch-compare/iperf3.json";

/// The pods of a turn, and the tools they have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pods<'a> {
    near: &'a Namespace,
    far: &'a Namespace,
    tools: &'a Tools,
}

/// What came of a run of UDP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagrams {
    /// Sent a second.
    pub(crate) offered: f64,
    /// Received a second, from the first to the last.
    pub(crate) rate: f64,
    /// Lost of those sent, 0 to 1.
    pub(crate) loss: f64,
    /// Received after one that was sent later in the same flow.
    pub(crate) reordered: f64,
}

/// A run of UDP to make.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    pub(crate) milliseconds: u32,
    /// Datagrams a second; 0: all it can.
    pub(crate) rate: f64,
    pub(crate) payload: u32,
    pub(crate) flows: u32,
}

impl<'a> Pods<'a> {
    pub(crate) fn new(ground: &'a Ground, tools: &'a Tools) -> anyhow::Result<Self> {
        let [near, far, ..] = ground.pods.as_slice() else { bail!("a turn needs two pods") };
        Ok(Self { near, far, tools })
    }

    /// Waits until the pods reach each other, and a little is learned.
    pub(crate) fn meet(self, switch: &mut Switch) -> anyhow::Result<()> {
        until("the pods reach each other", Duration::from_secs(20), || {
            switch.must_live()?;
            Ok(self.round_trips(1).is_ok())
        })?;
        self.round_trips(200).map(drop)
    }

    /// Median and 99th percentile of so many round trips, µs; an error when some are lost.
    pub(crate) fn round_trips(self, count: u32) -> anyhow::Result<(f64, f64)> {
        let mut echo = self.far.spawn(&self.tools.load, &format!("echo {PORT}"))?;
        echo.until_it_says("ready")?;
        let words = format!("ping {} {PORT} {count}", POD_ADDRESSES[1]);
        let result = json(&self.near.run(&self.tools.load, &words)?)?;
        let answered = number(&result, "/answered")?;
        if answered < f64::from(count) * 0.99 {
            bail!("{answered} of {count} round trips were answered");
        }
        Ok((number(&result, "/p50")?, number(&result, "/p99")?))
    }

    /// Sends UDP from the near pod to the far one.
    pub(crate) fn datagrams(self, stream: Stream) -> anyhow::Result<Datagrams> {
        let Stream { milliseconds, rate, payload, flows } = stream;
        let limit = milliseconds + 20_000;
        let mut receiver = self.far.spawn(&self.tools.load, &format!("receive {PORT} {limit} {flows}"))?;
        receiver.until_it_says("ready")?;
        let words = format!("send {} {PORT} {milliseconds} {rate:.0} {payload} {flows}", POD_ADDRESSES[1]);
        let sent = json(&self.near.run(&self.tools.load, &words)?)?;
        let received = json(&receiver.stop()?)?;
        let (got, sent_in_all) = (number(&received, "/received")?, number(&sent, "/sent")?);
        Ok(Datagrams {
            offered: sent_in_all / number(&sent, "/seconds")?,
            rate: per_second(got, number(&received, "/seconds")?),
            loss: (1.0 - got / sent_in_all.max(1.0)).max(0.0),
            reordered: number(&received, "/reordered")?,
        })
    }

    /// Fails when a pod has received anything with a wrong checksum.
    pub(crate) fn no_checksum_errors(self) -> anyhow::Result<()> {
        for pod in [self.near, self.far] {
            let errors = checksum_errors(&pod.run("cat", "/proc/net/snmp")?);
            if errors > 0 {
                bail!("{errors} checksum errors in {}", pod.name());
            }
        }
        Ok(())
    }

    /// TCP for `seconds`: bits a second and bytes, as received.
    pub(crate) fn tcp(self, streams: u32, seconds: u32) -> anyhow::Result<(f64, f64)> {
        let mut server = self.far.spawn("iperf3", "-s -1 --forceflush")?;
        server.until_it_says("listening")?;
        let words = format!("-c {} -t {seconds} -P {streams} -C cubic -J --logfile {LOG}", POD_ADDRESSES[1]);
        let _ = std::fs::remove_file(LOG);
        let client = self.near.spawn("iperf3", &words)?;
        // By itself it would wait for ever for a switch that has stopped.
        let ended = client.end_within(Duration::from_secs((seconds + 10).into()));
        let result = json(&std::fs::read_to_string(LOG)?)?;
        if let Some(error) = result.pointer("/error").and_then(Value::as_str) {
            bail!("iperf3: {error}");
        }
        ended?;
        Ok((
            number(&result, "/end/sum_received/bits_per_second")?,
            number(&result, "/end/sum_received/bytes")?,
        ))
    }
}

/// Measures all of `plan`.
pub(crate) fn turn(
    plan: Plan,
    ground: &Ground,
    switch: &mut Switch,
    tools: &Tools,
) -> anyhow::Result<Vec<(Metric, f64)>> {
    let pods = Pods::new(ground, tools)?;
    pods.meet(switch)?;
    let mut found = Vec::new();
    let before = switch.cpu_seconds()?;
    let (one, bytes_one) = pods.tcp(1, plan.seconds).context("TCP, one stream")?;
    let (four, bytes_four) = pods.tcp(4, plan.seconds).context("TCP, four streams")?;
    found.extend([(Metric::Tcp1, one / 1e9), (Metric::Tcp4, four / 1e9)]);
    if let (Some(before), Some(after)) = (before, switch.cpu_seconds()?) {
        found.push((Metric::CpuPerGb, (after - before) / ((bytes_one + bytes_four) / 1e9)));
    }
    if !plan.tcp_only {
        let blast =
            Stream { milliseconds: plan.seconds * 1000, rate: 0.0, payload: SMALLEST_PAYLOAD, flows: 1 };
        let got = pods.datagrams(blast).context("64-byte UDP")?;
        found.push((Metric::Udp, got.rate / 1e3));
        if plan.steps > 0 {
            let best = search(got.offered, plan.steps, |rate| {
                Ok(pods.datagrams(Stream { milliseconds: 300, rate, ..blast })?.loss <= 0.01)
            })?;
            found.push((Metric::UdpLossless, best / 1e3));
        }
        let (p50, p99) = pods.round_trips(plan.round_trips).context("round trips")?;
        found.extend([(Metric::RoundTripP50, p50), (Metric::RoundTripP99, p99)]);
    }
    if let Some(bytes) = switch.resident()? {
        found.push((Metric::Resident, bytes / 1e6));
    }
    switch.must_live()?;
    pods.no_checksum_errors()?;
    Ok(found)
}

/// The highest rate that `works`, by bisection between 0 and `most`, in so many steps.
pub(crate) fn search(
    most: f64,
    steps: u32,
    mut works: impl FnMut(f64) -> anyhow::Result<bool>,
) -> anyhow::Result<f64> {
    let (mut good, mut bad) = (0.0, most);
    for _ in 0..steps {
        let middle = (good + bad) / 2.0;
        if works(middle)? {
            good = middle;
        } else {
            bad = middle;
        }
    }
    Ok(good)
}

/// The sum of all InCsumErrors in a /proc/net/snmp, where a line of names stands before each line of numbers.
fn checksum_errors(snmp: &str) -> u64 {
    let lines: Vec<&str> = snmp.lines().collect();
    let pairs = lines.chunks_exact(2).flat_map(|pair| pair[0].split(' ').zip(pair[1].split(' ')));
    pairs.filter(|(name, _)| *name == "InCsumErrors").filter_map(|(_, count)| count.parse::<u64>().ok()).sum()
}

fn per_second(count: f64, seconds: f64) -> f64 {
    if seconds > 0.0 { count / seconds } else { 0.0 }
}

pub(crate) fn json(text: &str) -> anyhow::Result<Value> {
    // A line that says "ready" may stand before it.
    let from = text.find('{').context("a result")?;
    Ok(serde_json::from_str(&text[from..])?)
}

pub(crate) fn number(value: &Value, pointer: &str) -> anyhow::Result<f64> {
    value.pointer(pointer).and_then(Value::as_f64).with_context(|| format!("{pointer} is not in the result"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_ends_close_below_what_works() {
        let mut tried = 0;
        let found = search(800.0, 6, |rate| {
            tried += 1;
            Ok(rate <= 333.0)
        });
        let found = found.unwrap();
        assert!((320.5..=333.0).contains(&found), "{found}");
        assert_eq!(tried, 6);
        assert!(search(1.0, 1, |_| bail!("no")).is_err());
    }

    #[test]
    fn checksum_errors_of_all_protocols_count() {
        let text = "Tcp: InSegs InCsumErrors OutRsts\nTcp: 9 2 7\nUdp: InCsumErrors MemErrors\nUdp: 3 8\n";
        assert_eq!(checksum_errors(text), 5);
        assert_eq!(checksum_errors(""), 0);
    }

    #[test]
    fn results_are_read_past_the_word_ready() {
        let value = json("ready\n{\"a\": {\"b\": 2.5}}\n").unwrap();
        assert_eq!(number(&value, "/a/b").unwrap(), 2.5);
        assert!(number(&value, "/a/c").is_err());
        assert!(json("nothing").is_err());
        assert_eq!(per_second(10.0, 0.0), 0.0);
    }
}
