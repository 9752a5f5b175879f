//! A route's condition: CEL, compiled once, evaluated against each row before V8 is troubled with it.
//!
//! An expression sees `row` (the event's data), `event` (`source`, `type`, `time`, `change`) and `profile` (the person's identifiers
//! by type). Only the columns that it reads are taken from the row's JSON.
//!
//! What is absent follows the rules of transforms: a column that the schema knows and the row lacks is `null`; one that
//! the schema does not have is a missing column, never quietly false. `has(row.x)` asks whether the row has a value that is not null,
//! so that a producer who leaves nulls out and one who writes them mean the same. A name that belongs to another column than before, and a
//! field that its struct no longer has, are missing columns too.
//!
//! A macro goes over a list, a macro within a macro over its square, and nothing stops an evaluation that has begun: so how much an expression
//! may multiply is counted when it is compiled, and bounds the row that it is evaluated over. The rows are foreign; the expression is
//! the operator's own, and one that sets out to be costly can be.
//!
//! Nothing in here may panic or show a value of the row: errors travel into dead letters and logs.

mod scan;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::objects::{Key, Map};
use cel::{Context, Env, ExecutionError, Program, Value};
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use tailwater_core::schema::Schema;
use tailwater_core::{ChangeKind, Code, Timestamp, code};

use self::scan::Scan;
use super::problem::{Path, Problem};

/// Characters of an expression.
pub const WHEN_CHARS_MAX: usize = 4_096;

/// Macros (`exists`, `map`, …) of an expression, wherever they stand.
pub const MACROS_MAX: usize = 8;

/// How often an expression may multiply what it reads: by a macro, or by putting one text into another again and again.
const GROWTH_MAX: usize = 2;

/// Bytes of JSON in the columns that an expression reads, by how often it multiplies them: half of them in a list and half in a text give some
/// hundred megabytes at worst, or a few million steps.
const ROW_BYTES_MAX: [usize; GROWTH_MAX + 1] = [usize::MAX, 32 * 1024, 1024];

/// A compiled condition. Cheap to share; evaluating needs no lock.
pub struct When {
    text: String,
    program: Program,
    row: Fields,
    profile: Fields,
    event: bool,
    /// Fields inside of columns that it reads.
    paths: BTreeSet<Vec<String>>,
    /// Up to [`GROWTH_MAX`].
    growth: usize,
}

/// What an expression may ask about an event besides its row.
#[derive(Debug, Clone, Copy)]
pub struct EventFields<'a> {
    pub source: &'a str,
    pub event_type: &'a str,
    /// Shown as RFC 3339 in UTC: texts of that form compare in the order of time.
    pub time: Timestamp,
    /// Shown as `insert`, `update`, `delete` or `none`.
    pub change: ChangeKind,
    /// The profile's identifiers in use: (type, value).
    pub identifiers: &'a [(&'a str, &'a str)],
    /// The row's schema; without one an absent column is an error.
    pub schema: Option<&'a Schema>,
    /// The source's aliases: new column → older names. Either name reads the column.
    pub aliases: Option<&'a BTreeMap<String, Vec<String>>>,
    /// Names, and paths of fields, that belong to another column than before. Reading one is an error, as if it was missing.
    pub reassigned: &'a [String],
}

/// Why a condition has no answer for a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhenError {
    /// The expression reads a column that the row's schema does not have.
    #[error(
        "the condition reads the column `{column}`, which the row's schema does not have; correct `when`, or add an alias to the source"
    )]
    MissingColumn { column: String },
    #[error("the condition could not be evaluated: {reason}; guard it with `has(row.column)` or `row.column != null`")]
    Failed { reason: String },
    #[error("the row is no JSON object, so the condition could not be evaluated")]
    NoObject,
}

impl WhenError {
    pub fn code(&self) -> Code {
        match self {
            Self::MissingColumn { .. } => code::MISSING_COLUMN,
            Self::Failed { .. } | Self::NoObject => code::WHEN_FAILED,
        }
    }
}

/// Which fields of a variable an expression reads.
#[derive(Debug, Default)]
struct Fields {
    /// It uses the variable as a whole, or an index that is only known later.
    all: bool,
    read: BTreeSet<String>,
    /// Fields that `has(…)` asks for: these are never filled in with null.
    tested: BTreeSet<String>,
}

// === impl When ===

impl When {
    /// Compiles an expression, and checks its variables and functions. The problem has no path yet.
    ///
    /// # Errors
    /// The text is no CEL, or speaks of what does not exist.
    pub fn compile(text: &str) -> Result<Self, Problem> {
        if text.chars().count() > WHEN_CHARS_MAX {
            return Err(wrong(format!("the condition is longer than {WHEN_CHARS_MAX} characters"))
                .hint("move the decision into the transform: it may return null"));
        }
        // The parser is generated code; whatever it does with odd input must not end the process.
        let program = catch_unwind(|| env().compile(text))
            .map_err(|_| wrong("the condition could not be parsed"))?
            .map_err(|errors| syntax(&errors))?;
        let mut scan = Scan::default();
        scan.expression(program.expression(), &mut Vec::new());
        if let Some(problem) = scan.problem {
            return Err(problem);
        }
        if scan.macros > MACROS_MAX {
            return Err(wrong(format!("the condition has {} macros, at most {MACROS_MAX} are possible", scan.macros))
                .hint("move the decision into the transform: it may return null"));
        }
        let growth = scan.growth();
        if growth > GROWTH_MAX {
            return Err(wrong("the condition goes over lists within lists, or multiplies texts, more than twice")
                .hint("move the decision into the transform: its time and memory are limited"));
        }
        let Scan { row, profile, event, paths, .. } = scan;
        Ok(Self { text: text.to_owned(), program, row, profile, event, paths, growth })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The identifier types that the expression names, so that a slip of the pen is found before the first event.
    pub fn profile_types(&self) -> impl Iterator<Item = &str> {
        self.profile.read.iter().chain(&self.profile.tested).map(String::as_str)
    }

    /// Whether the condition holds for a row.
    ///
    /// # Errors
    /// The row lacks what the expression reads, or holds values that it cannot compare.
    pub fn matches(&self, row_json: &[u8], event: &EventFields<'_>) -> Result<bool, WhenError> {
        let mut context = Context::with_env(Arc::clone(env()));
        if self.row.used() {
            context.add_variable_from_value("row", self.row(row_json, event)?);
        }
        if self.profile.used() {
            context.add_variable_from_value("profile", self.identifiers(event.identifiers));
        }
        if self.event {
            let time = event.time.to_string();
            let fields = [
                ("source", event.source),
                ("type", event.event_type),
                ("time", &time),
                ("change", event.change.as_str()),
            ];
            context.add_variable_from_value("event", map(fields.map(|(name, value)| (name.to_owned(), text(value)))));
        }
        match catch_unwind(AssertUnwindSafe(|| self.program.execute(&context))) {
            Ok(Ok(Value::Bool(holds))) => Ok(holds),
            Ok(Ok(other)) => Err(failed(format!("it is neither true nor false but of the type {}", other.type_of()))),
            Ok(Err(error)) => Err(self.explain(&error, event)),
            Err(_) => Err(failed("the expression's evaluation broke down")),
        }
    }

    /// The columns that the expression reads.
    fn row(&self, row_json: &[u8], event: &EventFields<'_>) -> Result<Value, WhenError> {
        let mut json = serde_json::Deserializer::from_slice(row_json);
        let aliases = event.aliases.filter(|aliases| !aliases.is_empty());
        let Read { mut values, bytes } =
            Columns { fields: &self.row, aliases }.deserialize(&mut json).map_err(|_| WhenError::NoObject)?;
        json.end().map_err(|_| WhenError::NoObject)?;
        let bytes_max = ROW_BYTES_MAX.get(self.growth).copied().unwrap_or(0);
        if bytes > bytes_max {
            return Err(failed(format!(
                "the columns that it reads have {bytes} bytes, and it may multiply at most {bytes_max}"
            )));
        }
        if let Some(aliases) = aliases {
            self.row.serve_aliases(&mut values, aliases);
        }
        for tested in &self.row.tested {
            if matches!(values.get(tested), Some(Value::Null)) {
                values.remove(tested);
            }
        }
        for column in event.schema.iter().flat_map(|schema| &schema.columns) {
            let wanted = self.row.all || self.row.read.contains(&column.name);
            if wanted && !self.row.tested.contains(&column.name) && !values.contains_key(&column.name) {
                values.insert(column.name.clone(), Value::Null);
            }
        }
        for path in event.reassigned {
            remove(&mut values, path);
        }
        Ok(map(values))
    }

    /// A type of which the profile has no identifier is null, unless `has` asks for it.
    fn identifiers(&self, identifiers: &[(&str, &str)]) -> Value {
        let mut values: HashMap<String, Value> =
            identifiers.iter().map(|(kind, value)| ((*kind).to_owned(), text(value))).collect();
        for kind in self.profile.read.difference(&self.profile.tested) {
            values.entry(kind.clone()).or_insert(Value::Null);
        }
        map(values)
    }

    /// Says what went wrong by its kind and by names, never by values.
    fn explain(&self, error: &ExecutionError, event: &EventFields<'_>) -> WhenError {
        match error {
            ExecutionError::NoSuchKey(key) => match self.missing(key, event) {
                Some(column) => WhenError::MissingColumn { column },
                None => failed(format!("there is no `{key}`")),
            },
            // An overload is told by types alone.
            ExecutionError::NoSuchOverload(overload) => failed(overload.to_string()),
            ExecutionError::UnexpectedType { got, want } => failed(format!("expected the type {want}, got {got}")),
            ExecutionError::FunctionError { function, .. } => failed(format!("the function {function} failed")),
            ExecutionError::UndeclaredReference(name) => failed(format!("there is no variable or function `{name}`")),
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => failed("a division by zero"),
            ExecutionError::Overflow(operator, ..) => failed(format!("an overflow in {operator}")),
            ExecutionError::IndexOutOfBounds(_) => failed("an index lies outside of its list"),
            ExecutionError::ValuesNotComparable(a, b) => {
                failed(format!("{} cannot be compared with {}", a.type_of(), b.type_of()))
            }
            ExecutionError::UnsupportedBinaryOperator(operator, a, b) => {
                failed(format!("{operator} does not work on {} and {}", a.type_of(), b.type_of()))
            }
            _ => failed("a function or operator does not fit its values"),
        }
    }
}

impl When {
    /// The column, or the path of the field, that a missing key stands for; none if the schema has it.
    fn missing(&self, key: &str, event: &EventFields<'_>) -> Option<String> {
        let schema = event.schema?;
        let is_reassigned = |path: &str| event.reassigned.iter().any(|reassigned| reassigned == path);
        let read = self.row.all || self.row.read.contains(key);
        if read && (schema.column(key).is_none() || is_reassigned(key)) {
            return Some(key.to_owned());
        }
        self.paths.iter().find_map(|path| {
            let (last, parent) = path.split_last()?;
            let whole = path.join(".");
            let in_struct = || schema.type_at(&parent.join(".")).is_some_and(|kind| kind.starts_with("struct<"));
            let missing = is_reassigned(&whole) || in_struct() && schema.type_at(&whole).is_none();
            (last == key && missing).then_some(whole)
        })
    }
}

impl fmt::Debug for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("When").field(&self.text).finish()
    }
}

// === impl Fields ===

impl Fields {
    fn used(&self) -> bool {
        self.all || !self.read.is_empty() || !self.tested.is_empty()
    }

    fn wants(&self, name: &str) -> bool {
        self.all || self.read.contains(name) || self.tested.contains(name)
    }

    /// A column reads under its new name and its older ones, whichever the row has.
    fn serve_aliases(&self, values: &mut HashMap<String, Value>, aliases: &BTreeMap<String, Vec<String>>) {
        for (new, older) in aliases {
            let names = || std::iter::once(new).chain(older);
            let Some(value) = names().find_map(|name| values.get(name)).cloned() else { continue };
            for name in names().filter(|name| self.wants(name)) {
                values.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
    }
}

/// Reads from an object the columns that an expression wants, under any of their names.
struct Columns<'a> {
    fields: &'a Fields,
    aliases: Option<&'a BTreeMap<String, Vec<String>>>,
}

impl Columns<'_> {
    fn wants(&self, name: &str) -> bool {
        self.fields.wants(name)
            || self.aliases.is_some_and(|aliases| {
                aliases.iter().any(|(new, older)| {
                    (new == name || older.iter().any(|old| old == name))
                        && (self.fields.wants(new) || older.iter().any(|old| self.fields.wants(old)))
                })
            })
    }
}

/// What was read of a row.
struct Read {
    values: HashMap<String, Value>,
    /// Bytes of JSON that the values took.
    bytes: usize,
}

impl<'de> DeserializeSeed<'de> for Columns<'_> {
    type Value = Read;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Columns<'_> {
    type Value = Read;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut read = Read { values: HashMap::new(), bytes: 0 };
        while let Some(name) = object.next_key::<std::borrow::Cow<'de, str>>()? {
            if self.wants(&name) {
                let raw: &'de RawValue = object.next_value()?;
                let json: serde_json::Value = serde_json::from_str(raw.get()).map_err(serde::de::Error::custom)?;
                read.bytes += name.len() + raw.get().len();
                read.values.insert(name.into_owned(), value(json));
            } else {
                object.next_value::<IgnoredAny>()?;
            }
        }
        Ok(read)
    }
}

/// JSON as CEL. Written out, because numbers are kept as text (`arbitrary_precision`), which a conversion through serde would turn into maps.
fn value(json: serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(flag) => Value::Bool(flag),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), _, _) => Value::Int(number),
            (None, Some(number), _) => Value::UInt(number),
            // An integer beyond 64 bits would be rounded as a double; as a text it compares with no number, which fails visibly.
            (None, None, Some(double)) if !is_integer(&number) => Value::Float(double),
            (None, None, _) => text(&number.to_string()),
        },
        serde_json::Value::String(string) => Value::String(Arc::new(string)),
        serde_json::Value::Array(items) => Value::List(Arc::new(items.into_iter().map(value).collect())),
        serde_json::Value::Object(object) => map(object.into_iter().map(|(key, json)| (key, value(json)))),
    }
}

/// Takes a column, or a field inside of one, out of a row. A column whose own name holds the dots comes first.
fn remove(values: &mut HashMap<String, Value>, path: &str) {
    if values.remove(path).is_some() {
        return;
    }
    let Some((column, rest)) = path.split_once('.') else { return };
    if let Some(Value::Map(fields)) = values.get_mut(column) {
        remove_field(Arc::make_mut(&mut fields.map), rest);
    }
}

fn remove_field(fields: &mut HashMap<Key, Value>, path: &str) {
    let key = |name: &str| Key::String(Arc::new(name.to_owned()));
    if fields.remove(&key(path)).is_some() {
        return;
    }
    let Some((field, rest)) = path.split_once('.') else { return };
    if let Some(Value::Map(inner)) = fields.get_mut(&key(field)) {
        remove_field(Arc::make_mut(&mut inner.map), rest);
    }
}

fn is_integer(number: &serde_json::Number) -> bool {
    number.to_string().bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
}

fn text(text: &str) -> Value {
    Value::String(Arc::new(text.to_owned()))
}

fn map(entries: impl IntoIterator<Item = (String, Value)>) -> Value {
    let map: HashMap<Key, Value> =
        entries.into_iter().map(|(key, value)| (Key::String(Arc::new(key)), value)).collect();
    Value::Map(Map { map: Arc::new(map) })
}

fn failed(reason: impl Into<String>) -> WhenError {
    WhenError::Failed { reason: reason.into() }
}

/// The standard functions and CEL's strings extension (`lowerAscii`, `split`, …).
fn env() -> &'static Arc<Env> {
    static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
        let mut env = Env::stdlib();
        // The extension is declared on a fresh environment once; the tests call a function of it.
        let declared = env.add_extension(cel::extensions::strings);
        debug_assert!(declared.is_ok(), "{declared:?}");
        Arc::new(env)
    });
    &ENV
}

fn wrong(message: impl Into<String>) -> Problem {
    Problem::error(code::CONFIG_EXPRESSION, &Path::default(), message)
}

fn syntax(errors: &cel::ParseErrors) -> Problem {
    let problem = match errors.errors.first() {
        Some(error) => {
            let reason = error.msg.lines().next().unwrap_or("unknown reason").trim_start_matches("Syntax error: ");
            // What the parser would have taken instead is a list of a dozen kinds of tokens, which helps nobody.
            let reason = reason.split(" expecting ").next().unwrap_or(reason).replace("'<EOF>'", "the end");
            wrong(format!(
                "the condition is no valid CEL: {reason} (line {}, column {} of the expression)",
                error.pos.0, error.pos.1
            ))
        }
        None => wrong("the condition is no valid CEL"),
    };
    problem.hint("for example: row.rfm_segment == \"champions\" && event.change != \"delete\"")
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
