//! What is compared besides throughput: each mode measures one thing and makes one table.

mod idle;
mod rfc2544;
mod rfc2889;
mod workers;

use crate::options::Options;
use crate::tools::Tools;

/// The modes besides the comparison itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// CPU of a switch that has nothing to do.
    Idle,
    /// One worker of vswitchd beside two.
    Workers,
    /// RFC 2544: throughput by frame size.
    Rfc2544,
    /// RFC 2889: address caching capacity, address learning rate, broadcast forwarding rate.
    Rfc2889,
}

impl Mode {
    pub(crate) const ALL: [Self; 4] = [Self::Idle, Self::Workers, Self::Rfc2544, Self::Rfc2889];

    /// The word for it on the command line, and the name of its file.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Workers => "workers",
            Self::Rfc2544 => "rfc2544",
            Self::Rfc2889 => "rfc2889",
        }
    }

    /// Measures; returns the table.
    pub(crate) fn run(self, options: &Options, tools: &Tools) -> anyhow::Result<Table> {
        match self {
            Self::Idle => idle::run(options, tools),
            Self::Workers => workers::run(options, tools),
            Self::Rfc2544 => rfc2544::run(options, tools),
            Self::Rfc2889 => rfc2889::run(options, tools),
        }
    }
}

/// A table with what a reader must know of it.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) title: &'static str,
    pub(crate) notes: Vec<String>,
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(title: &'static str, head: &[&str]) -> Self {
        let head = head.iter().map(|&word| word.to_owned()).collect();
        Self { title, head, ..Self::default() }
    }

    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Adds a row, and tells somebody who watches.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let row: Vec<String> = cells.into_iter().collect();
        eprintln!("{}", row.join(" | "));
        self.rows.push(row);
    }

    pub(crate) fn markdown(&self) -> String {
        let lines = |lines: &[String]| lines.iter().map(|line| format!("- {line}\n")).collect::<String>();
        let row = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = format!("|{}\n", "---|".repeat(self.head.len()));
        let rows: String = self.rows.iter().map(|cells| row(cells)).collect();
        format!("# {}\n\n{}\n{}{rule}{rows}", self.title, lines(&self.notes), row(&self.head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown() {
        let mut table = Table::new("Title", &["a", "b"]);
        table.note("note");
        table.row(["1".to_owned(), "2".to_owned()]);
        assert_eq!(table.markdown(), "# Title\n\n- note\n\n| a | b |\n|---|---|\n| 1 | 2 |\n");
    }
}
