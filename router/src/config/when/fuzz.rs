//! Any text as a condition, any row under it. The text is the operator's, the row is everybody's.

use tailwater_fuzz::{Target, effect, generated};

use super::tests::{EVENT, expression, schema};
use super::*;

/// Between the expression and the row of an input.
const BETWEEN: u8 = 0;

/// Stands in rows of the corpus; no error may show it.
const SECRET: &str = "s3cr3t";

const ROWS: &[&str] = &[
    "{}",
    r#"{"a":1,"b":{"c":"s3cr3t"},"d":[1,"x",null,1.5]}"#,
    r#"{"a":"s3cr3t","b":null,"d":{"k":[{"k":true}]},"rfm_segment":"champions"}"#,
    r#"{"a":9223372036854775807,"b":123456789012345678901234567890,"d":-0.0,"e":1e308}"#,
];

const TOKENS: &[&str] = &[
    "row.",
    "row",
    "row.a",
    "row.b.c",
    "row['d']",
    "row.d[0]",
    "event.",
    "event.type",
    "event.time",
    "profile.email",
    "profile",
    "has(",
    "size(",
    "int(",
    "uint(",
    "double(",
    "string(",
    "bytes(",
    "type(",
    "timestamp(",
    "duration(",
    "dyn(",
    ".exists(x, ",
    ".all(x, ",
    ".exists_one(x, ",
    ".map(x, ",
    ".filter(x, ",
    ".map(x, x > 1, ",
    ".contains(",
    ".startsWith(",
    ".endsWith(",
    ".matches(",
    ".split(",
    ".join(",
    ".replace(",
    ".substring(",
    ".lowerAscii()",
    ".upperAscii()",
    ".trim()",
    ".charAt(",
    ".indexOf(",
    ".lastIndexOf(",
    ".reverse()",
    ".format([",
    ".getFullYear()",
    "strings.quote(",
    " in ",
    " == ",
    " != ",
    " < ",
    " >= ",
    " && ",
    " || ",
    " ? ",
    " : ",
    " + ",
    " - ",
    " * ",
    " / ",
    " % ",
    "!",
    "-",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    "'x'",
    "\"\"\"",
    "r'",
    "b'\\xff'",
    "'\\u00e9'",
    "'%s %d'",
    "null",
    "true",
    "1u",
    "0xff",
    "1.5e300",
    "9223372036854775807",
    "-9223372036854775808",
    "{'k': 1}",
    "[1, 2]",
    "'(a*)*b'",
    "'(?P<'",
    "x",
    "\n",
    "//",
    ".?a",
    "[?0]",
    "\0{\"a\":",
    "\"s3cr3t\"",
    "\u{e9}",
];

#[test]
fn when() {
    use proptest::prelude::*;

    let known = schema(&["a", "b", "d"]);
    let mut inputs = generated(
        (expression(), prop::sample::select(ROWS))
            .prop_map(|(expression, row)| [expression.as_bytes(), &[BETWEEN], row.as_bytes()].concat()),
    );
    let target = Target { name: "when", tokens: TOKENS, bytes_max: 6_000 };
    target.run(Some(&mut inputs), |input| {
        let cut = input.iter().position(|byte| *byte == BETWEEN).unwrap_or(input.len());
        let text = String::from_utf8_lossy(&input[..cut]);
        let row = input.get(cut + 1..).unwrap_or_default();
        let when = match When::compile(&text) {
            Ok(when) => when,
            Err(problem) => {
                assert_eq!(problem.code, code::CONFIG_EXPRESSION);
                assert!(!problem.message.is_empty());
                let kind: String = problem.message.chars().filter(char::is_ascii_alphabetic).take(40).collect();
                return effect(kind);
            }
        };
        let answers = [None, Some(&known)].map(|schema| when.matches(row, &EventFields { schema, ..EVENT }));
        for answer in &answers {
            let Err(error) = answer else { continue };
            assert!([code::MISSING_COLUMN, code::WHEN_FAILED].contains(&error.code()));
            let shown = error.to_string();
            assert!(text.contains(SECRET) || !shown.contains(SECRET), "a value of the row is shown: {shown}");
        }
        let told = answers.map(|answer| answer.map_err(|error| error.to_string().chars().take(60).collect::<String>()));
        effect((told, text.len().checked_ilog2()))
    });
}
