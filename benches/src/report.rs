//! The table: what was measured, and what it should be.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What one question has brought: a figure, and whether it is within its target.
#[derive(Debug)]
pub struct Figure {
    /// With its unit.
    pub text: String,
    /// Whether it is.
    pub kept: bool,
}

/// Rows, one a question.
#[derive(Debug, Default)]
pub struct Report {
    head: String,
    rows: String,
}

impl Report {
    /// A line above the table.
    pub fn note(&mut self, line: &str) {
        eprintln!("{line}");
        let _ = writeln!(self.head, "- {line}");
    }

    /// A row: `what` was measured, with `target`. A measurement that fails is a row that says so, and the next one is
    /// made all the same.
    pub fn row(&mut self, what: &str, target: &str, measure: impl FnOnce() -> Figure) {
        let figure = catch_unwind(AssertUnwindSafe(measure)).unwrap_or_else(|panic| {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("failed");
            let line: String = said.lines().next().unwrap_or_default().chars().take(120).collect();
            Figure { text: format!("failed: {line}"), kept: false }
        });
        let Figure { text, kept } = figure;
        eprintln!("{what}: {text} (target: {target})");
        let kept = if kept { "yes" } else { "**no**" };
        let _ = writeln!(self.rows, "| {what} | {text} | {target} | {kept} |");
    }

    /// All of it, as Markdown, under this title.
    #[must_use]
    pub fn markdown(&self, title: &str) -> String {
        format!(
            "# {title}\n\n{}\n| what | measured | target | kept |\n|---|---|---|---|\n{}",
            self.head, self.rows
        )
    }
}
