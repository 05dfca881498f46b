//! What a process takes, read off /proc; and room for what a hundred nodes on one machine know of each other.

use std::path::PathBuf;
use std::time::Duration;

/// The time that all threads of a process have run, to the nanosecond (Documentation/scheduler/sched-stats.rst).
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn cpu_time(pid: u32) -> Duration {
    let tasks =
        std::fs::read_dir(format!("/proc/{pid}/task")).unwrap_or_else(|error| panic!("{pid}: {error}"));
    let time = |task: PathBuf| -> Option<u64> {
        std::fs::read_to_string(task.join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
    };
    Duration::from_nanos(tasks.flatten().filter_map(|task| time(task.path())).sum())
}

/// Bytes of a process that are resident (proc(5), VmRSS).
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    let status = status.unwrap_or_else(|error| panic!("{pid}: {error}"));
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_else(|| panic!("{pid} has no VmRSS")) * 1024
}

/// How many sockets a process has open.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn sockets(pid: u32) -> usize {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"));
    let descriptors = descriptors.unwrap_or_else(|error| panic!("{pid}: {error}"));
    let is_socket = |path: PathBuf| {
        std::fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
    };
    descriptors.flatten().filter(|entry| is_socket(entry.path())).count()
}

/// The value below which `percent` of a hundred of `values` are, by nearest rank; sorts them.
///
/// # Panics
/// When there are none.
#[must_use]
pub fn percentile<T: Copy + PartialOrd>(values: &mut [T], percent: usize) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values[rank - 1]
}

/// Room for the neighbours of many nodes: the kernel counts those of all namespaces together (arp(7), gc_thresh3), and
/// a hundred nodes that know a hundred each have ten times as many as it allows. Put back when dropped.
#[derive(Debug)]
pub struct NeighbourRoom {
    before: Vec<(String, String)>,
}

impl NeighbourRoom {
    /// Room for `count` in each address family; `None` where this machine does not let us.
    #[must_use]
    pub fn new(count: usize) -> Option<Self> {
        let mut room = Self { before: Vec::new() };
        for family in ["ipv4", "ipv6"] {
            // The highest first: none of them may pass the next.
            for name in ["gc_thresh3", "gc_thresh2", "gc_thresh1"] {
                let file = format!("/proc/sys/net/{family}/neigh/default/{name}");
                let before = std::fs::read_to_string(&file).ok()?;
                if before.trim().parse().is_ok_and(|now: usize| now < count) {
                    std::fs::write(&file, count.to_string()).ok()?;
                    room.before.push((file, before));
                }
            }
        }
        Some(room)
    }
}

impl Drop for NeighbourRoom {
    fn drop(&mut self) {
        for (file, value) in self.before.drain(..).rev() {
            let _ = std::fs::write(file, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_takes_is_read() {
        let pid = std::process::id();
        assert!(cpu_time(pid) > Duration::ZERO && resident(pid) > 100_000);
        let own = [(); 3].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        assert!(sockets(pid) >= own.len());
    }

    #[test]
    fn a_percentile_is_a_value_that_was_there() {
        let mut values: Vec<u32> = (1..=100).rev().collect();
        assert_eq!([50, 99, 100].map(|percent| percentile(&mut values, percent)), [50, 99, 100]);
        assert_eq!(percentile(&mut [7.5], 99), 7.5);
    }
}
