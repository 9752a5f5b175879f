//! Turns rows into the one JSON text that crosses into V8, with notes on what the text alone cannot say.

use std::borrow::Cow;
use std::ops::Range;

use serde::Serialize;

use crate::batch::{Batch, NonFinite, Row};
use crate::error::{RowError, RowErrorKind};
use crate::numbers::{self, Exactness, Look, Path, Step};
use crate::schema::{RowSchema, Wanted};

/// Rows as text, and everything else that a run needs of their batch.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// A JSON array of the rows.
    pub(crate) text: Vec<u8>,
    /// Whether the text is ASCII throughout.
    pub(crate) ascii: bool,
    /// Which rows of the batch the array holds, in order.
    pub(crate) rows: Vec<usize>,
    notes: Result<Option<String>, String>,
    /// Rows that are not in the array, because they are no JSON objects.
    pub(crate) failures: Vec<(usize, RowError)>,
    /// The second argument of the transform, as JSON.
    pub(crate) headers: String,
    /// The number of the schema; 0 for none.
    pub(crate) schema: u64,
    pub(crate) now_ms: i64,
    /// As the driver counts the choices.
    pub(crate) non_finite: i32,
}

/// The rows while they are written.
struct Rows<'a> {
    text: Vec<u8>,
    rows: Vec<usize>,
    notes: Notes<'a>,
    failures: Vec<(usize, RowError)>,
}

/// A value inside a struct: the row's place in the array, the path, and what stands there.
type Inside<'a> = (usize, Vec<Cow<'a, str>>, Option<&'a str>);

/// The index is the one within the array.
#[derive(Debug, Default, Serialize)]
struct Notes<'a> {
    /// Numbers that must not be read.
    u: Vec<(usize, Path, Rounded)>,
    /// Values inside structs: the path and what stands there.
    o: Vec<Inside<'a>>,
    /// Columns: the name and what stands there in each row.
    c: Vec<(&'a str, Vec<Cover<'a>>)>,
    /// Whether texts stand for numbers that are not finite.
    f: bool,
}

/// What a number is that would be rounded, as the driver counts the cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounded {
    Integer = 0,
    /// A number with a fraction, of a column whose type is not known.
    Fraction = 1,
    /// A number in a decimal column.
    Decimal = 2,
}

impl Serialize for Rounded {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self as u8)
    }
}

/// What is laid over one row's column.
#[derive(Debug, Clone, Copy)]
enum Cover<'a> {
    Nothing,
    With(Option<&'a str>),
}

impl Serialize for Cover<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            // Values are texts or null, so that a number can mean that there is none.
            Self::Nothing => serializer.serialize_u8(0),
            Self::With(value) => value.serialize(serializer),
        }
    }
}

/// Encodes a range of a batch's rows. `file` is the transform's name.
pub(crate) fn encode(batch: &Batch<'_>, range: Range<usize>, file: &str) -> Encoded {
    // Whether the rows are valid UTF-8 is asked of all of them at once; only if they are not, of each.
    let mut rows = encode_rows(batch, range.clone(), file, false);
    let mut ascii = rows.text.is_ascii();
    if !ascii && std::str::from_utf8(&rows.text).is_err() {
        rows = encode_rows(batch, range, file, true);
        ascii = rows.text.is_ascii();
    }
    let headers = &batch.headers;
    Encoded {
        ascii,
        notes: rows.notes(),
        text: rows.text,
        rows: rows.rows,
        failures: rows.failures,
        headers: serde_json::json!({
            "source": headers.source,
            "destination": headers.destination,
            "batch_id": headers.batch,
        })
        .to_string(),
        schema: batch.schema.as_ref().map_or(0, |schema| schema.id()),
        now_ms: batch.now_ms,
        non_finite: match batch.non_finite {
            NonFinite::Omit => 0,
            NonFinite::Reject => 1,
            NonFinite::Clear => 2,
        },
    }
}

fn encode_rows<'a>(batch: &Batch<'a>, range: Range<usize>, file: &str, check_utf8: bool) -> Rows<'a> {
    let rows = batch.rows.get(range.clone()).unwrap_or_default();
    let bytes: usize = rows.iter().map(|row| row.data.len() + 1).sum();
    let mut encoded = Rows {
        text: Vec::with_capacity(bytes + 2),
        rows: Vec::with_capacity(rows.len()),
        notes: Notes::default(),
        failures: Vec::new(),
    };
    encoded.text.push(b'[');
    for (index, row) in range.zip(rows) {
        match inner(row.data, check_utf8) {
            Ok(inner) => {
                if !encoded.rows.is_empty() {
                    encoded.text.push(b',');
                }
                encoded.row(row, inner, batch.schema.as_deref());
                encoded.rows.push(index);
            }
            Err(problem) => {
                let message = format!("the row's data is not a JSON object: {problem}");
                encoded.failures.push((index, RowError::new(RowErrorKind::Input, file, message)));
            }
        }
    }
    encoded.text.push(b']');
    encoded.notes.f = batch.schema.as_ref().is_some_and(|schema| schema.has_floats()) && names_no_number(&encoded.text);
    let rows = encoded.rows.len();
    for (_, covers) in &mut encoded.notes.c {
        covers.resize(rows, Cover::Nothing);
    }
    encoded
}

impl Encoded {
    /// The notes as JSON; `None` if there are none.
    pub(crate) fn notes(&self) -> Result<Option<&str>, String> {
        match &self.notes {
            Ok(notes) => Ok(notes.as_deref()),
            Err(error) => Err(error.clone()),
        }
    }
}

impl<'a> Rows<'a> {
    fn notes(&self) -> Result<Option<String>, String> {
        if self.notes.u.is_empty() && self.notes.o.is_empty() && self.notes.c.is_empty() && !self.notes.f {
            return Ok(None);
        }
        serde_json::to_string(&self.notes).map(Some).map_err(|error| error.to_string())
    }

    fn row(&mut self, row: &Row<'a>, inner: &[u8], schema: Option<&RowSchema>) {
        let position = self.rows.len();
        self.text.push(b'{');
        let covered = |path: &Path| {
            row.overlay.iter().any(|(overlaid, _)| {
                let is = |step: &Step, name: &str| matches!(step, Step::Key(key) if key == name);
                if is_column(overlaid, schema) {
                    path.first().is_some_and(|step| is(step, overlaid))
                } else {
                    let mut steps = path.iter();
                    overlaid.split('.').all(|name| steps.next().is_some_and(|step| is(step, name)))
                }
            })
        };
        let kept = spell_numbers(&mut self.text, inner, row.data, schema);
        let kept = kept.into_iter().filter(|(path, _)| !covered(path));
        self.notes.u.extend(kept.map(|(path, rounded)| (position, path, rounded)));
        for &(path, value) in row.overlay {
            if is_column(path, schema) {
                self.cover(position, path, value);
            } else {
                self.notes.o.push((position, tailwater_core::path::steps(path), value));
            }
        }
        self.text.push(b'}');
    }

    fn cover(&mut self, position: usize, column: &'a str, value: Option<&'a str>) {
        let covers = &mut self.notes.c;
        let place = covers.iter().position(|(name, _)| *name == column).unwrap_or_else(|| {
            covers.push((column, Vec::with_capacity(self.rows.capacity())));
            covers.len() - 1
        });
        if let Some((_, covers)) = covers.get_mut(place) {
            covers.resize(position, Cover::Nothing);
            covers.push(Cover::With(value));
        }
    }
}

/// A text that is parsed on its own, only when somebody asks for it: `[value, [paths that must not be read]]`.
pub(crate) fn lend(value: &[u8], schema: Option<&RowSchema>) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = Vec::with_capacity(value.len() + 8);
    text.push(b'[');
    let kept = spell_numbers(&mut text, value, value, schema);
    if value.trim_ascii().is_empty() {
        text.extend_from_slice(b"null");
    }
    text.push(b',');
    serde_json::to_writer(&mut text, &kept)?;
    text.push(b']');
    Ok(text)
}

/// Copies a text; numbers that the schema wants as texts become strings. Returns the paths of the others that would be rounded.
///
/// `part` is what is copied, and stands within `whole`, which is what the paths begin in.
fn spell_numbers(target: &mut Vec<u8>, part: &[u8], whole: &[u8], schema: Option<&RowSchema>) -> Vec<(Path, Rounded)> {
    let found = numbers::find(whole, schema.map_or(Look::Usual, RowSchema::look));
    if found.is_empty() {
        target.extend_from_slice(part);
        return Vec::new();
    }
    let lead = part.as_ptr() as usize - whole.as_ptr() as usize;
    let mut copied = 0;
    let mut kept = Vec::new();
    for number in found {
        let wanted = schema.map_or(Wanted::Exact, |schema| schema.wanted(&number.path, number.exactness));
        match (wanted, number.exactness) {
            (Wanted::Text, _) => {
                let (start, end) = (number.start - lead, number.end - lead);
                target.extend_from_slice(&part[copied..start]);
                target.push(b'"');
                target.extend_from_slice(&part[start..end]);
                target.push(b'"');
                copied = end;
            }
            (Wanted::Double, _) | (_, Exactness::Exact) | (Wanted::Exact, Exactness::AsDouble) => {}
            (Wanted::ExactDecimal, _) => kept.push((number.path, Rounded::Decimal)),
            (Wanted::Exact, Exactness::Integer) => kept.push((number.path, Rounded::Integer)),
            (Wanted::Exact, Exactness::Decimal) => kept.push((number.path, Rounded::Fraction)),
        }
    }
    target.extend_from_slice(&part[copied..]);
    kept
}

/// Whether the text has a string that Delta writes for a number that is not finite: `"NaN"`, `"Infinity"`, `"-Infinity"`.
fn names_no_number(text: &[u8]) -> bool {
    memchr::memchr2_iter(b'N', b'I', text).any(|at| {
        let rest = text.get(at..).unwrap_or_default();
        rest.starts_with(b"NaN\"") || rest.starts_with(b"Infinity\"")
    })
}

/// What stands between the braces of an object.
fn inner(data: &[u8], check_utf8: bool) -> Result<&[u8], &'static str> {
    let trimmed = data.trim_ascii();
    let Some(inner) = trimmed.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")) else {
        return Err(if trimmed.is_empty() { "it is empty" } else { "it is not enclosed in braces" });
    };
    if check_utf8 && std::str::from_utf8(inner).is_err() { Err("it is not valid UTF-8") } else { Ok(inner) }
}

fn is_column(path: &str, schema: Option<&RowSchema>) -> bool {
    !path.contains(['.', '`']) || schema.is_some_and(|schema| schema.has_column(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Headers;

    fn batch<'a>(rows: Vec<Row<'a>>) -> Batch<'a> {
        Batch { rows, headers: Headers::default(), now_ms: 0, non_finite: NonFinite::Omit, schema: None }
    }

    fn row<'a>(data: &'a [u8], overlay: &'a [(&'a str, Option<&'a str>)]) -> Row<'a> {
        Row { data, overlay, backdrop: &() }
    }

    #[test]
    fn overlaid_columns_and_values_inside_structs_travel_in_the_notes() {
        let overlay = [("email", Some("a\"b@c")), ("x.y", Some("z")), ("phone", None)];
        let batch = batch(vec![row(br#" {"email":"old"} "#, &overlay), row(b"{ }", &overlay[..1]), row(b"{}", &[])]);
        let encoded = encode(&batch, 0..3, "t.js");
        assert_eq!(encoded.text, br#"[{"email":"old"},{ },{}]"#);
        let notes =
            r#"{"u":[],"o":[[0,["x","y"],"z"]],"c":[["email",["a\"b@c","a\"b@c",0]],["phone",[null,0,0]]],"f":false}"#;
        assert_eq!(encoded.notes().unwrap().unwrap(), notes);
    }

    #[test]
    fn rows_that_are_no_objects_are_left_out_and_named() {
        let batch = batch(vec![row(b"", &[]), row(b"{}", &[]), row(b"[1]", &[]), row(b"{\"a\":\"\xff\"}", &[])]);
        let encoded = encode(&batch, 0..4, "t.js");
        assert_eq!(encoded.text, b"[{}]");
        assert_eq!(encoded.rows, [1]);
        assert_eq!(encoded.failures.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 2, 3]);
    }

    #[test]
    fn an_overlaid_integer_needs_no_guard() {
        let overlay = [("id", Some("7"))];
        let batch = batch(vec![row(br#"{"id":12345678901234567890,"other":[12345678901234567890]}"#, &overlay)]);
        assert_eq!(
            encode(&batch, 0..1, "t.js").notes().unwrap().unwrap(),
            r#"{"u":[[0,["other",0],0]],"o":[],"c":[["id",["7"]]],"f":false}"#
        );
    }
}
