//! The table of what was proved: one aligned row per check, shown as soon as it is known.

use super::checks::{Check, Outcome};
use super::layout::Layout;

/// Column widths, known before the first row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    check: usize,
    end: usize,
}

impl Table {
    pub(super) fn new(layout: &Layout, checks: &[Check]) -> Self {
        let pods = layout.pods.iter().map(|pod| pod.name.len());
        let nodes = layout.nodes.iter().map(|node| node.name.len());
        Self {
            check: checks.iter().map(|check| check.name().len()).max().unwrap_or(0),
            end: pods.chain(nodes).max().unwrap_or(0),
        }
    }

    pub(super) fn heading(self) -> String {
        self.line("CHECK", "FROM", "TO", "RESULT", "FIGURE")
    }

    pub(super) fn row(self, outcome: &Outcome) -> String {
        let Outcome { check, holds, figure } = outcome;
        let result = if *holds { "ok" } else { "FAILED" };
        self.line(check.name(), &check.from, &check.to, result, figure)
    }

    fn line(self, check: &str, from: &str, to: &str, result: &str, figure: &str) -> String {
        let Self { check: width, end } = self;
        format!("{check:width$}  {from:end$}  {to:end$}  {result:6}  {figure}")
    }
}
