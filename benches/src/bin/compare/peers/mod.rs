//! The switches that are compared, each put on a [`Ground`] in the way a user of it would.

mod copier;
mod kernel;
mod ovs;
mod uring;
pub(crate) mod vswitchd;

use crate::ground::{Ground, Scene};
use crate::place::Process;
use crate::tools::Tools;

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    /// This repository's daemon as it comes.
    Vswitchd,
    /// The same with `offload = false`.
    VswitchdPlain,
    /// Debian's Open vSwitch in userspace.
    Ovs,
    /// Debian's DPDK build of it, for the one thing it has more: userspace-tso-enable.
    OvsTso,
    /// The kernel's bridge, and its VXLAN device.
    Kernel,
    /// The raw copier, one call in and one out per frame.
    Copier,
    /// The raw copier with offload.
    CopierOffload,
    /// The same with two queues for each TAP.
    CopierQueues,
    /// The raw copier with offload over io_uring, in the way that reads many frames with one call and wakes once.
    CopierUring,
    /// The same with 4 reads that wait.
    CopierUring4,
    /// The same with 64 reads that wait.
    CopierUring64,
}

impl Peer {
    pub(crate) const ALL: [Self; 11] = [
        Self::Vswitchd,
        Self::VswitchdPlain,
        Self::Ovs,
        Self::OvsTso,
        Self::Kernel,
        Self::Copier,
        Self::CopierOffload,
        Self::CopierQueues,
        Self::CopierUring,
        Self::CopierUring4,
        Self::CopierUring64,
    ];

    /// Ways that were tried and not taken (ADR 8: two queues; ADR 9: io_uring): whoever wants to try again names them.
    pub(crate) const TRIED: [Self; 4] =
        [Self::CopierQueues, Self::CopierUring, Self::CopierUring4, Self::CopierUring64];

    /// The word for it on the command line and in results.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Vswitchd => "vswitchd",
            Self::VswitchdPlain => "vswitchd-plain",
            Self::Ovs => "ovs",
            Self::OvsTso => "ovs-tso",
            Self::Kernel => "kernel",
            Self::Copier => "copier",
            Self::CopierOffload => "copier-offload",
            Self::CopierQueues => "copier-queues",
            Self::CopierUring => "copier-uring",
            Self::CopierUring4 => "copier-uring-4",
            Self::CopierUring64 => "copier-uring-64",
        }
    }

    /// What a reader is told.
    pub(crate) fn title(self, scene: Scene) -> &'static str {
        match (self, scene) {
            (Self::Vswitchd, _) => "vswitchd",
            (Self::VswitchdPlain, _) => "vswitchd, offload = false",
            (Self::Ovs, _) => "Open vSwitch (userspace, TAP)",
            (Self::OvsTso, _) => "Open vSwitch, userspace-tso",
            (Self::Kernel, Scene::Pods) => "kernel bridge + veth",
            (Self::Kernel, _) => "kernel VXLAN + bridge + veth",
            (Self::Copier, _) => "raw copier",
            (Self::CopierOffload, _) => "raw copier with offload",
            (Self::CopierQueues, _) => "raw copier with offload, two queues per TAP",
            (Self::CopierUring, _) => "raw copier with offload, io_uring",
            (Self::CopierUring4, _) => "raw copier with offload, io_uring, 4 reads wait",
            (Self::CopierUring64, _) => "raw copier with offload, io_uring, 64 reads wait",
        }
    }

    /// Why it cannot be had here; `None` when it can.
    pub(crate) fn unavailable(self, scene: Scene) -> Option<String> {
        match self {
            Self::Ovs | Self::OvsTso => ovs::unavailable(self == Self::OvsTso, scene),
            _ if Self::TRIED.contains(&self) && scene != Scene::Pods => {
                Some("it copies between TAPs only".to_owned())
            }
            // Whether the kernel has io_uring, the copier says when it starts.
            _ => None,
        }
    }

    /// Starts it. Pods may talk some moments later.
    pub(crate) fn start(self, ground: &Ground, tools: &Tools) -> anyhow::Result<Switch> {
        match self {
            Self::Vswitchd => vswitchd::start(ground, tools, ""),
            Self::VswitchdPlain => vswitchd::start(ground, tools, "[datapath]\noffload = false\n"),
            Self::Ovs => ovs::start(ground, false),
            Self::OvsTso => ovs::start(ground, true),
            Self::Kernel => kernel::start(ground),
            Self::Copier => copier::start(ground, tools, ""),
            Self::CopierOffload => copier::start(ground, tools, "-o "),
            Self::CopierQueues => copier::start(ground, tools, "-q "),
            Self::CopierUring => uring::start(ground, "16"),
            Self::CopierUring4 => uring::start(ground, "-w 4"),
            Self::CopierUring64 => uring::start(ground, "-w 64"),
        }
    }
}

/// A running switch, on as many nodes as the scene has; gone when dropped.
#[derive(Debug, Default)]
pub(crate) struct Switch {
    /// Empty for the kernel.
    pub(crate) processes: Vec<Process>,
}

impl Switch {
    /// CPU seconds used so far, all nodes; `None` for the kernel, whose work nobody's clock shows.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<Option<f64>> {
        self.sum(Process::cpu_seconds)
    }

    /// The same to the nanosecond; 0 for the kernel.
    pub(crate) fn cpu_seconds_exactly(&self) -> anyhow::Result<f64> {
        self.processes.iter().map(Process::cpu_seconds_exactly).sum()
    }

    /// Bytes resident, all nodes.
    pub(crate) fn resident(&self) -> anyhow::Result<Option<f64>> {
        self.sum(Process::resident)
    }

    fn sum(&self, of: impl Fn(&Process) -> anyhow::Result<f64>) -> anyhow::Result<Option<f64>> {
        if self.processes.is_empty() {
            return Ok(None);
        }
        self.processes.iter().map(of).sum::<anyhow::Result<f64>>().map(Some)
    }

    /// Fails when one of its processes has ended.
    pub(crate) fn must_live(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().try_for_each(Process::must_live)
    }
}
