//! Runs the examples of the reference page of transforms, so that it says what the sandbox does.

use serde_json::Value;

use super::*;

const PAGE: &str = include_str!("../../../../docs/reference/transform.md");
const EVENT: &[u8] = br#"{"id":"e-1","source":"ltv","type":"ltv"}"#;
const PROFILE: &[u8] = br#"{"id":"p-1","identifiers":{"email":"ines@example.com"}}"#;

/// The fenced blocks: what is written behind the fence, and the text.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let mut fences = PAGE.split("```").skip(1);
    let mut blocks = Vec::new();
    while let Some(block) = fences.next() {
        blocks.push(block.split_once('\n').unwrap());
        fences.next();
    }
    blocks
}

fn block(name: &str) -> &'static str {
    blocks().into_iter().find(|(info, _)| *info == name).unwrap().1
}

fn outputs(result: &RowResult) -> Value {
    match result {
        RowResult::Outputs(outputs) if outputs.len() == 1 => serde_json::from_str(&outputs[0].json).unwrap(),
        RowResult::Outputs(outputs) => {
            outputs.iter().map(|output| serde_json::from_str::<Value>(&output.json).unwrap()).collect()
        }
        RowResult::Skipped => Value::Null,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_examples_of_the_page_are_what_happens() {
    let columns: Vec<(&str, &str)> = block("yaml schema").lines().map(|line| line.split_once(": ").unwrap()).collect();
    let schema = strict_rows(&typed(&columns));
    let pool = pool();
    let mut examples = 0;
    let mut source = None;
    for (info, text) in blocks() {
        if info == "js transform" {
            assert!(source.is_none(), "an example without a result");
            source = Some(text);
            continue;
        }
        if info != "json outputs" && info != "text errors" {
            continue;
        }
        let transform = load(&pool, source.take().unwrap());
        let backdrop = (EVENT, PROFILE);
        let mut batch = batch([]);
        for line in block("json rows").lines() {
            batch.rows.push(Row { data: line.as_bytes(), overlay: &[], backdrop: &backdrop });
        }
        batch.schema.clone_from(&schema);
        let results = transform.run(&batch).results;
        if info == "json outputs" {
            let expected: Vec<Value> = serde_json::from_str(text).unwrap();
            assert_eq!(results.iter().map(outputs).collect::<Vec<_>>(), expected, "{text}");
        } else {
            let expected: Vec<&str> = text.lines().collect();
            assert_eq!(results.len(), expected.len(), "{text}");
            for (result, expected) in results.iter().zip(expected) {
                match expected.split_once(": ") {
                    None => assert!(matches!(result, RowResult::Outputs(_)), "{result:?}"),
                    Some((code, message)) => {
                        assert_eq!(failed(result).code().as_str(), code);
                        assert!(failed(result).message.contains(message), "{result:?}");
                    }
                }
            }
        }
        examples += 1;
    }
    assert!(source.is_none() && examples >= 10, "the page has lost its examples");
}

#[test]
fn the_page_lists_every_global() {
    let results =
        run("const send = ({events}) => events.map(() => ({names: Object.getOwnPropertyNames(globalThis)}));", ["{}"]);
    let output: Value = serde_json::from_str(json(&results[0])).unwrap();
    let listed = PAGE.split("## Globals").nth(1).unwrap();
    for name in output["names"].as_array().unwrap() {
        assert!(listed.contains(&format!("`{}`", name.as_str().unwrap())), "{name}");
    }
}

#[test]
fn the_page_lists_every_code_of_a_row() {
    use crate::RowErrorKind as Kind;
    let column = String::new();
    for kind in [
        Kind::MissingColumn { column: column.clone() },
        Kind::UnsafeInteger { column: column.clone() },
        Kind::UnsafeDecimal { column },
        Kind::Threw,
        Kind::Timeout,
        Kind::OutOfMemory,
        Kind::Pending,
        Kind::Shape,
        Kind::OutputTooLarge,
        Kind::NonFinite,
        Kind::Input,
    ] {
        let code = RowError::new(kind, "t.js", "").code();
        assert!(PAGE.contains(&format!("| [`{code}`](../errors/{code}.md) |")), "{code}");
    }
}
