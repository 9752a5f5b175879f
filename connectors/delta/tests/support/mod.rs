//! Reads a table to its end, and compares rows value by value.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod own;

use serde_json::{Map, Value};
use tailwater_core::position::ChangeKind;
use tailwater_delta::{CoalesceReport, Cursor, Error, Options, Reader, Row, SchemaChange, Step, Waiting};

/// Everything that a reader gave until it had caught up or failed.
#[derive(Default)]
pub struct Everything {
    pub rows: Vec<(u64, Row)>,
    pub schemas: Vec<SchemaChange>,
    pub reports: Vec<CoalesceReport>,
    /// The version that is waited for.
    pub waiting: Option<Waiting>,
    /// The cursor after each step with rows, and how many rows there were by then.
    pub cursors: Vec<(usize, Cursor)>,
    pub end: Option<Cursor>,
    pub error: Option<Error>,
}

/// Steps after which a reader that does not end is taken for broken.
const STEPS_MAX: usize = 100_000;

pub fn read(options: Options, cursor: Option<Cursor>) -> Everything {
    let mut everything = Everything::default();
    let mut reader = match Reader::open(options, cursor) {
        Ok(reader) => reader,
        Err(error) => {
            everything.error = Some(error);
            return everything;
        }
    };
    everything.read_on(&mut reader);
    everything
}

impl Everything {
    pub fn read_on(&mut self, reader: &mut Reader) {
        for _ in 0..STEPS_MAX {
            match reader.next() {
                Ok(Step::Schema(change)) => self.schemas.push(change),
                Ok(Step::Coalesced(report)) => self.reports.push(report),
                Ok(Step::Rows(rows)) => {
                    assert_eq!(&rows.cursor, reader.cursor());
                    let announced = self.schemas.last().expect("a schema comes before the first rows");
                    assert_eq!(
                        announced.schema, rows.schema,
                        "rows of version {} come under the announced schema",
                        rows.version
                    );
                    self.rows.extend(rows.rows.into_iter().map(|row| (rows.version, row)));
                    self.cursors.push((self.rows.len(), rows.cursor));
                }
                Ok(Step::Waiting(waiting)) => {
                    self.waiting = Some(waiting);
                    return;
                }
                Ok(Step::CaughtUp { cursor, .. }) => {
                    self.waiting = None;
                    self.end = Some(cursor);
                    return;
                }
                Err(error) => {
                    self.error = Some(error);
                    return;
                }
            }
        }
        panic!("the reader does not end");
    }

    /// The rows as Spark's change feed has them: an update as its two images. Sorted.
    pub fn as_feed(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (version, row) in &self.rows {
            let mut line =
                |kind: &str, json: &[u8]| lines.push(format!("{version:05} {kind} {}", canonical_bytes(json)));
            match row.change {
                ChangeKind::Insert => line("insert", &row.data),
                ChangeKind::Delete => line("delete", &row.data),
                ChangeKind::Update => {
                    line("update_preimage", row.before.as_deref().expect("an update has the row before it"));
                    line("update_postimage", &row.data);
                }
                ChangeKind::None => panic!("a row of a table is a change"),
            }
        }
        lines.sort();
        lines
    }

    pub fn expect_no_error(&self, what: &str) {
        if let Some(error) = &self.error {
            panic!("{what}: {error}");
        }
    }
}

pub fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(bytes)))
}

/// The lines of a file; they end at `\n` and nowhere else.
pub fn ndjson(text: &str) -> Vec<Value> {
    text.split('\n').filter(|line| !line.is_empty()).map(|line| json(line.as_bytes())).collect()
}

fn canonical_bytes(bytes: &[u8]) -> String {
    canonical(&json(bytes))
}

/// The value in one text for equal values: keys sorted, numbers by value. Integers and decimals are exact; what fits a double
/// is compared as one, as writers may print other digits that read back equal.
pub fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| name.as_str());
            let fields: Vec<_> = fields
                .into_iter()
                .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), canonical(value)))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Number(number) => {
            let text = number.to_string();
            let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
            let digits = mantissa.bytes().filter(u8::is_ascii_digit).skip_while(|&digit| digit == b'0').count();
            if text.contains(['.', 'e', 'E']) && digits <= 17 {
                format!("{:?}", text.parse::<f64>().unwrap())
            } else {
                text
            }
        }
        other => other.to_string(),
    }
}

/// Takes the fields out of `expected` that `found` does not have, if they are null: Spark reads old rows under the newest
/// schema.
pub fn without_later_columns(expected: &Value, found: &Value) -> Value {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => Value::Object(
            expected
                .iter()
                .filter(|(name, value)| found.contains_key(*name) || !value.is_null())
                .map(|(name, value)| {
                    (name.clone(), found.get(name).map_or(value.clone(), |found| without_later_columns(value, found)))
                })
                .collect::<Map<_, _>>(),
        ),
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            expected.iter().zip(found).map(|(expected, found)| without_later_columns(expected, found)).collect()
        }
        (other, _) => other.clone(),
    }
}
