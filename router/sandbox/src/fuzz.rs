//! Any body of a record on its way into V8, as far as that goes without V8: the text that the rows are joined to, and the integers
//! that JavaScript cannot hold, held against a reader that builds a tree.

use proptest::prelude::*;
use serde_json::{Value, json};
use tailwater_fuzz::{Target, effect, generated};

use crate::batch::{Batch, Headers, NonFinite, Row};
use crate::encode::{encode, lend};
use crate::numbers::{self, Exactness, Look, Path, Step};

const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\\",
    "\\\\",
    "\\\"",
    "\\u0022",
    "\\ud800",
    "9007199254740991",
    "9007199254740992",
    "-9007199254740993",
    "12345678901234567890",
    "0.12345678901234567",
    "12345678901234567.5",
    "1e300",
    "12345678901234567e1",
    "-",
    "\"id\":",
    "\"a.b\":",
    "null",
    "é",
    "\u{2028}",
    " ",
    "\n",
];

fn rows() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        "-?[1-9][0-9]{14,18}",
        "-?[0-9]{1,3}\\.[0-9]{1,20}",
        "\"[0-9a-z\\\\\\\\\\\\\"]{0,20}\"",
        "null|true"
    ];
    let value = leaf.prop_recursive(4, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" ,"))),
            prop::collection::vec(("[a-z.]{0,3}", inner), 0..4).prop_map(|entries| {
                let entries: Vec<String> =
                    entries.into_iter().map(|(name, value)| format!("\"{name}\" :{value}")).collect();
                format!("{{{}}}", entries.join(","))
            }),
        ]
    });
    value.prop_map(|value| format!("{{\"k\":{value}}}").into_bytes())
}

#[test]
fn rows_for_v8() {
    let overlay = [("id", Some("c\"1\n")), ("a.b", Some("x")), ("gone", None)];
    let mut rows = generated(rows());
    let target = Target { name: "rows_for_v8", tokens: TOKENS, bytes_max: 4_096 };
    target.run(Some(&mut rows), |input| {
        let row = Row { data: input, overlay: &overlay, backdrop: &() };
        let other = Row { data: b"{\"other\":1}", overlay: &[], backdrop: &() };
        let batch = Batch {
            rows: vec![other, row, other],
            headers: Headers::default(),
            now_ms: 0,
            non_finite: NonFinite::Omit,
            schema: None,
        };
        let encoded = encode(&batch, 0..3, "t.js");
        assert_eq!(encoded.rows.len() + encoded.failures.len(), 3, "each row is in the text or has failed");
        assert_eq!(encoded.ascii, encoded.text.is_ascii());
        assert!(std::str::from_utf8(&encoded.text).is_ok(), "V8 is handed text");
        assert!(encoded.notes().is_ok() && lend(input, None).is_ok());
        let found: Vec<Path> = numbers::find(input, Look::Usual)
            .into_iter()
            .filter(|found| found.exactness == Exactness::Integer)
            .map(|found| found.path)
            .collect();
        let Some(tree) = tree(input) else { return effect((found.len().min(4), encoded.failures.len())) };
        let text: Value = serde_json::from_slice(&encoded.text).expect("right rows make a right text");
        let rows = text.as_array().expect("a list");
        assert_eq!(rows.len(), 3, "one row stays one row");
        let notes = encoded.notes().expect("notes are JSON").expect("there is an overlay");
        let notes: Value = serde_json::from_str(notes).expect("notes are JSON");
        assert_eq!(notes["c"], json!([["id", [0, "c\"1\n", 0]], ["gone", [0, null, 0]]]));
        let mut expected = Vec::new();
        unsafe_integers(&tree, &mut Vec::new(), &mut expected);
        // A name that stands twice is in the tree once.
        if !repeats_a_name(input, &tree) {
            assert_eq!(found, expected);
        }
        effect((found.len().min(4), found.iter().map(Vec::len).max(), encoded.ascii))
    });
}

/// The row as a tree, where one can be built: not of half a surrogate pair, nor of what is nested too deep.
fn tree(input: &[u8]) -> Option<Value> {
    if input.windows(12).any(|part| part == b"$serde_json:") {
        return None;
    }
    serde_json::from_slice(input).ok().filter(Value::is_object)
}

fn unsafe_integers(value: &Value, path: &mut Path, found: &mut Vec<Path>) {
    match value {
        Value::Number(number) => {
            let text = number.to_string();
            let digits = text.strip_prefix('-').unwrap_or(&text);
            let integer = digits.bytes().all(|byte| byte.is_ascii_digit());
            if integer && digits.parse::<u128>().map_or(true, |number| number > 9_007_199_254_740_991) {
                found.push(path.clone());
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push(Step::Index(index));
                unsafe_integers(item, path, found);
                path.pop();
            }
        }
        Value::Object(object) => {
            for (key, item) in object {
                path.push(Step::Key(key.clone()));
                unsafe_integers(item, path, found);
                path.pop();
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// Whether writing the tree loses something: so many members are there in the text and in the tree.
fn repeats_a_name(input: &[u8], tree: &Value) -> bool {
    fn members(value: &Value) -> usize {
        match value {
            Value::Array(items) => items.iter().map(members).sum(),
            Value::Object(object) => object.len() + object.values().map(members).sum::<usize>(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        }
    }
    let (mut count, mut quoted, mut escaped) = (0, false, false);
    for byte in input {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b':' if !quoted => count += 1,
            _ => {}
        }
    }
    count != members(tree)
}
