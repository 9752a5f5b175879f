//! Reads what the driver answers: a first line of JSON about everything that is not simply one output, then a line per output.
//! (JSON text never has a line feed in it, so the lines need no other frame.)

use std::borrow::Cow;

use serde::Deserialize;

use crate::batch::{Output, RowResult};
use crate::error::{RowError, RowErrorKind};

#[derive(Debug, Deserialize)]
struct Special {
    /// The row.
    i: usize,
    /// The outputs of a row that has none, several, or one with something to say about it.
    #[serde(default)]
    o: Vec<Extra>,
    /// Why it failed.
    #[serde(default)]
    f: Option<Fault>,
}

#[derive(Debug, Default, Deserialize)]
struct Extra {
    #[serde(default)]
    k: Option<String>,
    #[serde(default)]
    n: Vec<String>,
}

/// An error as the driver describes it.
#[derive(Debug, Deserialize)]
pub(crate) struct Fault {
    kind: Kind,
    message: String,
    #[serde(default)]
    column: Option<String>,
    #[serde(default)]
    stack: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    MissingColumn,
    UnsafeInteger,
    UnsafeDecimal,
    Threw,
    Timeout,
    Pending,
    Shape,
    TooLarge,
    NonFinite,
    Input,
}

/// The text with U+FFFD for every half of a surrogate pair. JavaScript's texts may hold one, and it escapes it (`\ud83d`); Unicode has no such
/// character, so nobody who reads the JSON could.
pub(crate) fn well_formed(text: &str) -> Cow<'_, str> {
    let mut fixed = String::new();
    let mut copied = 0;
    let mut escapes = memchr::memchr_iter(b'\\', text.as_bytes());
    while let Some(at) = escapes.next() {
        let Some(unit) = unit(text, at) else {
            // An escaped backslash is not the beginning of the next escape.
            if text.as_bytes().get(at + 1) == Some(&b'\\') {
                escapes.next();
            }
            continue;
        };
        match unit {
            0xd800..=0xdbff if unit_is_low(text, at + UNIT_BYTES) => {
                escapes.next();
            }
            0xd800..=0xdfff => {
                fixed.push_str(text.get(copied..at).unwrap_or_default());
                fixed.push(char::REPLACEMENT_CHARACTER);
                copied = at + UNIT_BYTES;
            }
            _ => {}
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    fixed.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(fixed)
}

/// Bytes of `\ud83d`.
const UNIT_BYTES: usize = 6;

/// The UTF-16 unit that is escaped at a place.
fn unit(text: &str, at: usize) -> Option<u16> {
    let digits = text.get(at..at + UNIT_BYTES)?.strip_prefix("\\u")?;
    u16::from_str_radix(digits, 16).ok()
}

fn unit_is_low(text: &str, at: usize) -> bool {
    unit(text, at).is_some_and(|unit| (0xdc00..=0xdfff).contains(&unit))
}

/// Reads the results of `rows` rows. An error means that driver and sandbox misunderstand one another (an author can
/// bring that about by replacing built-ins); nothing can be said about any row then.
pub(crate) fn read(text: &str, rows: usize, file: &str, output_bytes_max: usize) -> Result<Vec<RowResult>, String> {
    let text = well_formed(text);
    let mut lines = text.split('\n');
    let first = lines.next().unwrap_or_default();
    let special: Vec<Special> = if first.is_empty() {
        Vec::new()
    } else {
        serde_json::from_str(first).map_err(|error| format!("the driver's answer cannot be read: {error}"))?
    };
    let mut special = special.into_iter().peekable();
    let mut results = Vec::with_capacity(rows);
    for row in 0..rows {
        let extras = match special.next_if(|special| special.i == row) {
            Some(Special { f: Some(fault), .. }) => {
                results.push(RowResult::Failed(fault.into_error(file)));
                continue;
            }
            Some(Special { o, .. }) => o,
            // Nearly all rows: one output, and nothing to say about it.
            None => {
                let json = lines.next().ok_or("the driver's answer has too few lines")?;
                results.push(if json.len() > output_bytes_max {
                    too_large(json.len(), output_bytes_max, file)
                } else {
                    RowResult::Outputs(vec![Output { json: json.to_owned(), key: None, non_finite: Vec::new() }])
                });
                continue;
            }
        };
        if extras.is_empty() {
            results.push(RowResult::Skipped);
            continue;
        }
        let mut outputs = Vec::with_capacity(extras.len());
        for extra in extras {
            let line = lines.next().ok_or("the driver's answer has too few lines")?;
            outputs.push(Output { json: line.to_owned(), key: extra.k, non_finite: extra.n });
        }
        let bytes: usize = outputs.iter().map(|output| output.json.len()).sum();
        results.push(if bytes > output_bytes_max {
            too_large(bytes, output_bytes_max, file)
        } else {
            RowResult::Outputs(outputs)
        });
    }
    if lines.next().is_some() || special.next().is_some() {
        return Err("the driver's answer has too many lines".to_owned());
    }
    Ok(results)
}

fn too_large(bytes: usize, bytes_max: usize, file: &str) -> RowResult {
    let message = format!("the outputs have {bytes} bytes; at most {bytes_max} are allowed for one row");
    RowResult::Failed(RowError::new(RowErrorKind::OutputTooLarge, file, message))
}

impl Fault {
    pub(crate) fn into_error(self, file: &str) -> RowError {
        let column = self.column.unwrap_or_default();
        let kind = match self.kind {
            Kind::MissingColumn => RowErrorKind::MissingColumn { column },
            Kind::UnsafeInteger => RowErrorKind::UnsafeInteger { column },
            Kind::UnsafeDecimal => RowErrorKind::UnsafeDecimal { column },
            Kind::Threw => RowErrorKind::Threw,
            Kind::Timeout => RowErrorKind::Timeout,
            Kind::Pending => RowErrorKind::Pending,
            Kind::Shape => RowErrorKind::Shape,
            Kind::TooLarge => RowErrorKind::OutputTooLarge,
            Kind::NonFinite => RowErrorKind::NonFinite,
            Kind::Input => RowErrorKind::Input,
        };
        let mut error = RowError::new(kind, file, self.message);
        let frames: Vec<Frame<'_>> =
            self.stack.iter().flat_map(|stack| stack.lines()).filter_map(|line| frame(line, file)).collect();
        if let Some(innermost) = frames.first() {
            error.line = Some(innermost.line);
            error.column = Some(innermost.column);
        }
        error.stack = frames.into_iter().take(RowError::FRAMES_MAX).map(|frame| frame.shown(file)).collect();
        error
    }
}

/// A frame of the author's code.
struct Frame<'a> {
    function: &'a str,
    line: u32,
    column: u32,
}

impl Frame<'_> {
    fn shown(&self, file: &str) -> String {
        if self.function.is_empty() {
            format!("{file}:{}:{}", self.line, self.column)
        } else {
            format!("{} ({file}:{}:{})", self.function, self.line, self.column)
        }
    }
}

/// Reads `    at async send (transforms/ltv.js:3:14)` or `    at transforms/ltv.js:3:14`; frames of other code are left out.
fn frame<'a>(line: &'a str, file: &str) -> Option<Frame<'a>> {
    let text = line.trim_start().strip_prefix("at ")?;
    let (function, place) = match text.strip_suffix(')').and_then(|text| text.rsplit_once(" (")) {
        Some((function, place)) => (function, place),
        None => ("", text.strip_prefix("async ").unwrap_or(text)),
    };
    let (line, column) = place.strip_prefix(file)?.strip_prefix(':')?.split_once(':')?;
    Some(Frame { function, line: line.parse().ok()?, column: column.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_output_is_the_plain_case() {
        let results = read("\n{\"a\":1}\n{\"b\":2}", 2, "t.js", 100).unwrap();
        let json: Vec<_> = results
            .iter()
            .map(|result| match result {
                RowResult::Outputs(outputs) => outputs[0].json.as_str(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(json, ["{\"a\":1}", "{\"b\":2}"]);
    }

    #[test]
    fn an_answer_with_the_wrong_number_of_lines_is_refused() {
        assert!(read("\n{}", 2, "t.js", 100).is_err());
        assert!(read("\n{}\n{}", 1, "t.js", 100).is_err());
        assert!(read("[{\"i\":5,\"o\":[]}]\n{}", 1, "t.js", 100).is_err());
        assert!(read("nonsense\n{}", 1, "t.js", 100).is_err());
    }

    // Issue 10, D.
    #[test]
    fn halves_of_surrogate_pairs_are_replaced() {
        for (given, expected) in [
            (r#"{"a":"x\ud83d"}"#, "{\"a\":\"x\u{fffd}\"}"),
            (r#"\udc00\ud83d"#, "\u{fffd}\u{fffd}"),
            (r#"\uD83D\uDE00 \ud83d\ud83d\ude00"#, "\\uD83D\\uDE00 \u{fffd}\\ud83d\\ude00"),
            (r#"\\ud83d \\\ud83d \u00e9 \n"#, "\\\\ud83d \\\\\u{fffd} \\u00e9 \\n"),
            (r#"é\ud83dé"#, "é\u{fffd}é"),
            ("plain", "plain"),
        ] {
            assert_eq!(well_formed(given), expected, "{given}");
        }
    }

    #[test]
    fn only_the_authors_frames_are_kept_and_the_innermost_tells_where() {
        let stack = "Error: x\n    at Object.get (tailwater:driver:1:2)\n    at inner (a b/t.js:3:14)\n    at Array.map (<anonymous>)\n    at async a b/t.js:9:1";
        let fault = Fault { kind: Kind::Threw, message: "x".into(), column: None, stack: Some(stack.into()) };
        let error = fault.into_error("a b/t.js");
        assert_eq!((error.line, error.column), (Some(3), Some(14)));
        assert_eq!(error.stack, ["inner (a b/t.js:3:14)", "a b/t.js:9:1"]);
    }
}
