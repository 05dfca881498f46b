//! One conversation with a database server, pure: messages in, messages out (RFC 7047, ovsdb-server(7)).
//!
//! The schema is asked for, then the lock, then all rows and from then on what changes; what is in force is written back
//! in transactions that count only while the lock is ours. Not here: the stream, and waiting for it.

use super::framing::Garbled;
use super::replica::{Atom, Database, Datum, Operation};
use super::schema::Schema;
use super::updates::{Form, apply};
use super::words::{Report, Wish};
use super::{read, write};
use serde_json::{Value, json};

/// The database.
const DATABASE: &str = "Open_vSwitch";
/// The lock that whoever drives the switch holds.
const LOCK: &str = "ovs_vswitchd";
/// How many conflicts or refusals in a row are answered by trying again at the next change only.
const TRIES: u32 = 3;

/// Why a conversation is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// What came is no message.
    #[error(transparent)]
    Garbled(#[from] Garbled),
    /// What came is no answer to what was asked.
    #[error("the database server says what it should not: {0}")]
    Nonsense(String),
    /// It has no such database, or will not tell of it.
    #[error("the database server refused {what}: {answer}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// What it said.
        answer: String,
    },
}

/// How rows are asked for: the newest way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Monitor {
    CondSince,
    Cond,
    Plain,
}

impl Monitor {
    const fn method(self) -> &'static str {
        match self {
            Self::CondSince => "monitor_cond_since",
            Self::Cond => "monitor_cond",
            Self::Plain => "monitor",
        }
    }

    const fn form(self) -> Form {
        match self {
            Self::Plain => Form::Rows,
            Self::CondSince | Self::Cond => Form::Differences,
        }
    }
}

/// What outlives a conversation: rows as they were last told, and up to where.
#[derive(Debug, Default)]
pub struct Known {
    database: Database,
    /// The server's name for the newest change that was told, and the version of the schema it was told by.
    last: Option<String>,
    version: String,
    /// The wish that was made of it last.
    wish: Option<Wish>,
}

/// A conversation.
#[derive(Debug)]
pub struct Session {
    known: Known,
    schema: Schema,
    monitor: Monitor,
    /// All rows have been told.
    pub monitored: bool,
    /// We hold the lock.
    pub locked: bool,
    /// Rows changed since a wish was last read.
    changed: bool,
    /// What is in force, as control last said it.
    report: Option<Report>,
    /// The transaction that is not answered yet.
    outstanding: Option<u64>,
    /// Nothing differs between rows and report, as far as it was looked.
    settled: bool,
    refusals: u32,
    transactions: u64,
    outbox: Vec<Value>,
}

impl Session {
    /// A conversation that begins, with what an earlier one left.
    #[must_use]
    pub fn begin(known: Known, report: Option<Report>) -> Self {
        let mut session = Self {
            known,
            schema: Schema::default(),
            monitor: Monitor::CondSince,
            monitored: false,
            locked: false,
            changed: false,
            report,
            outstanding: None,
            settled: false,
            refusals: 0,
            transactions: 0,
            outbox: Vec::new(),
        };
        session.ask("schema", "get_schema", json!([DATABASE]));
        session
    }

    /// Its end, and what is left for the next.
    #[must_use]
    pub fn end(self) -> (Known, Option<Report>) {
        (self.known, self.report)
    }

    /// What is to be sent, in order.
    pub fn outgoing(&mut self) -> Vec<Value> {
        self.write_back();
        std::mem::take(&mut self.outbox)
    }

    /// Asks whether the server is there.
    pub fn probe(&mut self) {
        self.ask("echo", "echo", json!([]));
    }

    /// What is in force from now on.
    pub fn report(&mut self, report: Report) {
        if self.report.as_ref() != Some(&report) {
            (self.report, self.settled, self.refusals) = (Some(report), false, 0);
        }
    }

    /// The wish, if it is another than before and ours to carry out.
    pub fn wish(&mut self) -> Option<Wish> {
        if !(self.locked && self.monitored && self.changed) {
            return None;
        }
        self.changed = false;
        let mut wish = read(&self.known.database);
        let same = self.known.wish.as_mut().is_some_and(|before| {
            // What we wrote ourselves is no news.
            std::mem::swap(&mut before.ofports, &mut wish.ofports);
            let same = *before == wish
                && before.ofports.len() == wish.ofports.len()
                && before
                    .ofports
                    .iter()
                    .zip(&wish.ofports)
                    .all(|(a, b)| a.0 == b.0 && a.1.request == b.1.request);
            std::mem::swap(&mut before.ofports, &mut wish.ofports);
            same
        });
        if same {
            return None;
        }
        self.known.wish = Some(wish.clone());
        Some(wish)
    }

    fn ask(&mut self, id: &str, method: &str, params: Value) {
        let mut message = json!({ "id": id, "method": method });
        message["params"] = params;
        self.outbox.push(message);
    }

    /// Takes a message.
    ///
    /// # Errors
    /// The conversation cannot go on.
    pub fn take(&mut self, message: &Value) -> Result<(), SessionError> {
        let params = || message.get("params").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        match message.get("method").and_then(Value::as_str) {
            Some("echo") => {
                let id = message.get("id").cloned().unwrap_or_default();
                let mut answer = json!({ "id": id, "error": null });
                answer["result"] = message.get("params").cloned().unwrap_or_default();
                self.outbox.push(answer);
                Ok(())
            }
            Some("update") => self.told(Form::Rows, params().get(1)),
            Some("update2") => self.told(Form::Differences, params().get(1)),
            Some("update3") => {
                let last = params().get(1).and_then(Value::as_str).map(str::to_owned);
                self.told(Form::Differences, params().get(2))?;
                self.known.last = last;
                Ok(())
            }
            Some(word @ ("locked" | "stolen")) => {
                if params().first().and_then(Value::as_str) == Some(LOCK) {
                    self.gain_lock(word == "locked");
                }
                Ok(())
            }
            // Its database was converted to another schema, or is gone: all is asked for anew.
            Some("monitor_canceled") => {
                Err(SessionError::Nonsense("it tells no more of its rows".to_owned()))
            }
            Some(_) => Ok(()),
            None => self.answered(message),
        }
    }

    fn answered(&mut self, message: &Value) -> Result<(), SessionError> {
        let error = message.get("error").filter(|error| !error.is_null());
        let result = message.get("result").unwrap_or(&Value::Null);
        let nonsense = |text: &str| SessionError::Nonsense(text.to_owned());
        match message.get("id") {
            Some(Value::String(id)) => match (id.as_str(), error) {
                ("schema", None) => {
                    self.schema = Schema::read(result).map_err(SessionError::Nonsense)?;
                    if self.schema.version != self.known.version {
                        // Rows of another schema lack what this one has.
                        self.known.version.clone_from(&self.schema.version);
                        self.known.last = None;
                    }
                    self.ask("lock", "lock", json!([LOCK]));
                    self.monitor();
                    Ok(())
                }
                ("schema", Some(error)) => {
                    Err(SessionError::Refused { what: "its schema", answer: error.to_string() })
                }
                ("lock", None) => {
                    if result.get("locked") == Some(&Value::Bool(true)) {
                        self.gain_lock(true);
                    }
                    Ok(())
                }
                ("lock", Some(error)) => {
                    Err(SessionError::Refused { what: "the lock", answer: error.to_string() })
                }
                ("monitor", None) => self.all_rows(result),
                ("monitor", Some(error)) => {
                    self.monitor = match self.monitor {
                        Monitor::CondSince => Monitor::Cond,
                        Monitor::Cond => Monitor::Plain,
                        Monitor::Plain => {
                            return Err(SessionError::Refused {
                                what: "its rows",
                                answer: error.to_string(),
                            });
                        }
                    };
                    self.monitor();
                    Ok(())
                }
                _ => Ok(()),
            },
            Some(id) => {
                let Some(id) = id.as_u64() else { return Err(nonsense("an answer to nothing")) };
                if self.outstanding == Some(id) {
                    self.outstanding = None;
                    self.written(error, result);
                }
                Ok(())
            }
            None => Err(nonsense("a message without id and method")),
        }
    }

    fn monitor(&mut self) {
        let mut params = vec![json!(DATABASE), json!("rows"), self.schema.requests()];
        if self.monitor == Monitor::CondSince {
            let nothing = "00000000-0000-0000-0000-000000000000";
            params.push(json!(self.known.last.as_deref().unwrap_or(nothing)));
        }
        self.ask("monitor", self.monitor.method(), params.into());
    }

    /// The answer to a monitor: all rows, or what changed since the conversation before.
    fn all_rows(&mut self, result: &Value) -> Result<(), SessionError> {
        let (found, last, rows) = match (self.monitor, result) {
            (Monitor::CondSince, Value::Array(parts)) => match parts.as_slice() {
                [Value::Bool(found), Value::String(last), rows] => (*found, Some(last.clone()), rows),
                _ => {
                    return Err(SessionError::Nonsense(
                        "an answer to monitor_cond_since that is none".to_owned(),
                    ));
                }
            },
            (_, rows) => (false, None, rows),
        };
        // One of whom nothing was known cannot tell what differs from it.
        if self.known.last.take().is_none() || !found {
            self.known.database = Database::default();
        }
        apply(&mut self.known.database, &self.schema, self.monitor.form(), rows)
            .map_err(SessionError::Nonsense)?;
        self.known.last = last;
        (self.monitored, self.changed, self.settled) = (true, true, false);
        Ok(())
    }

    fn told(&mut self, form: Form, rows: Option<&Value>) -> Result<(), SessionError> {
        let rows = rows.ok_or_else(|| SessionError::Nonsense("an update without rows".to_owned()))?;
        let applied = apply(&mut self.known.database, &self.schema, form, rows);
        if applied.is_err() {
            // Nobody knows what they are now.
            self.known.last = None;
        }
        self.changed |= applied.map_err(SessionError::Nonsense)?;
        self.settled = false;
        self.refusals = 0;
        Ok(())
    }

    fn gain_lock(&mut self, is_ours: bool) {
        self.locked = is_ours;
        // Somebody else may have written since.
        (self.changed, self.settled) = (true, false);
        if !is_ours {
            // And carried out what control did not hear of.
            self.known.wish = None;
        }
    }

    /// Writes back what differs, one transaction at a time.
    fn write_back(&mut self) {
        let may = self.locked && self.monitored && self.outstanding.is_none() && !self.settled;
        if !may || self.refusals >= TRIES {
            return;
        }
        let mut operations: Vec<Value> = vec![json!({ "op": "assert", "lock": LOCK })];
        let mut updates = self.greeting();
        if let Some(report) = &self.report {
            updates.extend(write(&self.known.database, report));
        }
        operations.extend(updates.iter().filter_map(|update| self.update(update)));
        self.settled = true;
        if operations.len() == 1 {
            return;
        }
        self.transactions += 1;
        self.outstanding = Some(self.transactions);
        let params: Vec<Value> = std::iter::once(json!(DATABASE)).chain(operations).collect();
        self.outbox.push(json!({ "id": self.transactions, "method": "transact", "params": params }));
    }

    /// Who we are and what there is, where the database says otherwise.
    fn greeting(&self) -> Vec<Operation> {
        let atom = |atom| Datum { keys: vec![atom], values: None };
        let text = |text: &str| Atom::String(text.to_owned());
        let set = |words: &[&str]| Datum { keys: words.iter().copied().map(text).collect(), values: None };
        let wanted = [
            ("ovs_version", atom(text(super::OVS_VERSION))),
            ("db_version", atom(text(&self.schema.version))),
            ("datapath_types", set(&["netdev", "system"])),
            ("iface_types", set(&["internal", "patch", "system", "tap", "vxlan"])),
            ("dpdk_initialized", atom(Atom::Boolean(false))),
        ];
        let rows = self.known.database.tables.get(DATABASE).into_iter().flatten();
        let differing = rows.map(|(uuid, row)| {
            let differs = |(column, datum): &&(&str, Datum)| row.get(*column) != Some(datum);
            let columns = wanted.iter().filter(differs);
            let columns = columns.map(|(column, datum)| ((*column).to_owned(), datum.clone())).collect();
            Operation::update(DATABASE, *uuid, columns)
        });
        differing.collect()
    }

    /// An update as the server takes it: without columns that it does not have.
    fn update(&self, operation: &Operation) -> Option<Value> {
        let Operation::Update { table, uuid, row } = operation;
        let row: serde_json::Map<String, Value> = row
            .iter()
            .filter(|(column, _)| self.schema.has(table, column))
            .map(|(column, datum)| (column.clone(), datum.to_json()))
            .collect();
        let place = json!([["_uuid", "==", ["uuid", uuid.to_string()]]]);
        (!row.is_empty()).then(|| json!({ "op": "update", "table": table, "where": place, "row": row }))
    }

    /// The answer to a transaction.
    fn written(&mut self, error: Option<&Value>, result: &Value) {
        let refused = |result: &Value| result.get("error").is_some_and(|error| !error.is_null());
        let refused = error.is_some() || result.as_array().is_none_or(|results| results.iter().any(refused));
        if refused {
            self.refusals += 1;
            crate::observe::log::limited(
                crate::observe::log::Level::Warn,
                "ovsdb-write",
                "the database did not take what is in force",
                &[("answer", &error.unwrap_or(result))],
            );
        } else {
            self.refusals = 0;
        }
        // Control may have said more meanwhile, and a refused one is tried again.
        self.settled &= !refused;
    }
}
