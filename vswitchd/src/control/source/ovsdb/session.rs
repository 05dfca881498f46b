//! One conversation with a database server, pure: messages in, messages out (RFC 7047, ovsdb-server(7)).
//!
//! The schema is asked for, then the lock, then all rows and from then on what changes; what is in force is written back
//! in transactions that count only while the lock is ours. Not here: the stream, and waiting for it.

use super::framing::Garbled;
use super::replica::{Database, Operation};
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
pub(super) enum SessionError {
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
pub(super) struct Known {
    database: Database,
    last: Option<String>,
}

/// A conversation.
#[derive(Debug)]
pub(super) struct Session {
    known: Known,
    schema: Schema,
    monitor: Monitor,
    /// All rows have been told.
    pub(super) monitored: bool,
    /// We hold the lock.
    pub(super) locked: bool,
    /// Rows changed since a wish was last read.
    changed: bool,
    wish: Option<Wish>,
    /// What is in force, as control last said it.
    report: Option<Report>,
    /// The transaction that is not answered yet.
    outstanding: Option<u64>,
    /// Nothing differs between rows and report, as far as it was looked.
    settled: bool,
    refusals: u32,
    greeted: bool,
    transactions: u64,
    outbox: Vec<Value>,
}

impl Session {
    /// A conversation that begins, with what an earlier one left.
    pub(super) fn begin(known: Known, report: Option<Report>) -> Self {
        let mut session = Self {
            known,
            schema: Schema::default(),
            monitor: Monitor::CondSince,
            monitored: false,
            locked: false,
            changed: false,
            wish: None,
            report,
            outstanding: None,
            settled: false,
            refusals: 0,
            greeted: false,
            transactions: 0,
            outbox: Vec::new(),
        };
        session.ask("schema", "get_schema", json!([DATABASE]));
        session
    }

    /// Its end, and what is left for the next.
    pub(super) fn end(self) -> (Known, Option<Report>) {
        (self.known, self.report)
    }

    /// What is to be sent, in order.
    pub(super) fn outgoing(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.outbox)
    }

    /// Asks whether the server is there.
    pub(super) fn probe(&mut self) {
        self.ask("echo", "echo", json!([]));
    }

    /// What is in force from now on.
    pub(super) fn report(&mut self, report: Report) {
        if self.report.as_ref() != Some(&report) {
            (self.report, self.settled) = (Some(report), false);
            self.write_back();
        }
    }

    /// The wish, if it is another than before and ours to carry out.
    pub(super) fn wish(&mut self) -> Option<Wish> {
        if !(self.locked && self.monitored && self.changed) {
            return None;
        }
        self.changed = false;
        let mut wish = read(&self.known.database);
        let same = self.wish.as_mut().is_some_and(|before| {
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
        self.wish = Some(wish.clone());
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
    pub(super) fn take(&mut self, message: &Value) -> Result<(), SessionError> {
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
            Some("locked") => {
                self.gain_lock(true);
                Ok(())
            }
            Some("stolen") => {
                self.gain_lock(false);
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
        if !found {
            self.known.database = Database::default();
        }
        self.known.last = None;
        apply(&mut self.known.database, &self.schema, self.monitor.form(), rows)
            .map_err(SessionError::Nonsense)?;
        self.known.last = last;
        (self.monitored, self.changed, self.settled) = (true, true, false);
        self.write_back();
        Ok(())
    }

    fn told(&mut self, form: Form, rows: Option<&Value>) -> Result<(), SessionError> {
        let rows = rows.ok_or_else(|| SessionError::Nonsense("an update without rows".to_owned()))?;
        let applied = apply(&mut self.known.database, &self.schema, form, rows);
        if applied.is_err() {
            // Nobody knows what they are now.
            self.known = Known::default();
        }
        self.changed |= applied.map_err(SessionError::Nonsense)?;
        self.settled = false;
        self.refusals = 0;
        self.write_back();
        Ok(())
    }

    fn gain_lock(&mut self, is_ours: bool) {
        self.locked = is_ours;
        // Somebody else may have written since.
        (self.changed, self.settled, self.greeted) = (true, false, self.greeted && is_ours);
        self.wish = None;
        self.write_back();
    }

    /// Writes back what differs, one transaction at a time.
    fn write_back(&mut self) {
        let may = self.locked && self.monitored && self.outstanding.is_none() && !self.settled;
        if !may || self.refusals >= TRIES {
            return;
        }
        let mut operations: Vec<Value> = vec![json!({ "op": "assert", "lock": LOCK })];
        if !self.greeted {
            operations.extend(self.greeting());
        }
        if let Some(report) = &self.report {
            let updates = write(&self.known.database, report);
            operations.extend(updates.iter().filter_map(|update| self.update(update)));
        }
        self.settled = true;
        if operations.len() == 1 {
            return;
        }
        self.transactions += 1;
        self.outstanding = Some(self.transactions);
        let params: Vec<Value> = std::iter::once(json!(DATABASE)).chain(operations).collect();
        self.outbox.push(json!({ "id": self.transactions, "method": "transact", "params": params }));
    }

    /// What is written once: who we are and what there is.
    fn greeting(&self) -> Option<Value> {
        let set = |words: &[&str]| json!(["set", words]);
        let row: serde_json::Map<String, Value> = [
            ("ovs_version", json!(super::OVS_VERSION)),
            ("db_version", json!(self.schema.version)),
            ("datapath_types", set(&["netdev", "system"])),
            ("iface_types", set(&["internal", "patch", "system", "tap", "vxlan"])),
            ("dpdk_initialized", json!(false)),
        ]
        .into_iter()
        .filter(|(column, _)| self.schema.has(DATABASE, column))
        .map(|(column, value)| (column.to_owned(), value))
        .collect();
        (!row.is_empty()).then(|| json!({ "op": "update", "table": DATABASE, "where": [], "row": row }))
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
            self.greeted = true;
        }
        // Control may have said more meanwhile, and a refused one is tried again.
        self.settled &= !refused;
        self.write_back();
    }
}
