//! The raw copier over io_uring: `uring.c`, compiled when it is asked for, as older systems cannot.

use super::Switch;
use crate::ground::{Ground, POD_INTERFACE};
use crate::tools::compile;

/// Starts it between the first two pods. `way` is its depth, with what stands before that on its command line.
pub(super) fn start(ground: &Ground, way: &str) -> anyhow::Result<Switch> {
    let program = compile("uring", include_str!("../uring.c"))?;
    let [near, far] = [0, 1].map(|pod: usize| ground.pods[pod].name());
    let words = format!("{way} {near} {POD_INTERFACE} {far} {POD_INTERFACE}");
    let mut copier = ground.nodes[0].spawn(&program, &words)?;
    copier.until_it_says("ready")?;
    [0, 1].into_iter().try_for_each(|pod| ground.settle(pod))?;
    Ok(Switch { processes: vec![copier] })
}
