//! Any bytes as what a table's files hold: variants, the lines of a commit, a cursor from the state topic.

use serde_json::Value;
use tailwater_fuzz::{Target, effect};

use crate::log::Actions;
use crate::{Cursor, variant};

const VARIANTS: &[&str] = &[
    "\x01\0\0",
    "\x01\x02\0\x01\x02ab",
    "\x02\x02\0\x01\0\x01\x02",
    "\x03\x02\0\0\x01",
    "\x03\x01\0\x04",
    "\x0c\x7f",
    "\x18",
    "\x1c",
    "\x20\x02",
    "\x24\x02",
    "\x28\x12",
    "\x2c",
    "\x30",
    "\x34",
    "\x38",
    "\x3c\x02\0\0\0",
    "\x40\x01\0\0\0",
    "\x50",
    "\x05x",
    "\0",
    "\u{ff}",
];

/// An input is: the length of the metadata, the metadata, the value.
#[test]
fn variants() {
    let target = Target { name: "variants", tokens: VARIANTS, bytes_max: 2_048 };
    target.run(None, |input| {
        let Some((&length, rest)) = input.split_first() else { return 0 };
        let (metadata, value) = rest.split_at(usize::from(length).min(rest.len()));
        let mut out = Vec::new();
        match variant::write(metadata, value, &mut out) {
            Ok(()) => {
                let json: serde_json::Result<&serde_json::value::RawValue> = serde_json::from_slice(&out);
                assert!(json.is_ok(), "{json:?}: {}", String::from_utf8_lossy(&out));
                // Every value takes a byte of its own; only names and escapes may make the text longer than what it was made of.
                assert!(
                    out.len() <= 600 * (value.len() + 1) * (metadata.len() + 1),
                    "{} bytes of {}",
                    out.len(),
                    input.len()
                );
                let tree = serde_json::from_slice::<Value>(&out).ok();
                let shape = tree.map(|tree| match tree {
                    Value::Null => (0, 0),
                    Value::Bool(_) => (1, 0),
                    Value::Number(number) => (2, number.to_string().len()),
                    Value::String(text) => (3, text.len().min(8)),
                    Value::Array(items) => (4, items.len().min(8)),
                    Value::Object(object) => (5, object.len().min(8)),
                });
                effect((shape, out.len().checked_ilog2()))
            }
            Err(message) => {
                assert!(!message.is_empty());
                effect(message)
            }
        }
    });
}

const COMMITS: &[&str] = &[
    "{\"add\":{\"path\":\"a.parquet\",\"partitionValues\":{},\"size\":1,\"modificationTime\":1,\"dataChange\":true}}\n",
    "{\"remove\":{\"path\":\"b\"}}\n",
    "{\"cdc\":{\"path\":\"c\",\"partitionValues\":{\"p\":null},\"size\":1}}\n",
    "{\"protocol\":{\"minReaderVersion\":1}}\n",
    "{\"metaData\":{\"id\":\"t\",\"schemaString\":\"{}\",\"configuration\":{\"delta.enableChangeDataFeed\":\"true\"}}}\n",
    "{\"commitInfo\":{\"operation\":\"MERGE\",\"operationMetrics\":{\"numTargetRowsInserted\":\"0\",\"numTargetRowsUpdated\":0}}}\n",
    "\"deletionVector\":{\"storageType\":\"u\",\"pathOrInlineDv\":\"ab^-aqEH.-t@S}K{vb[*k^\",\"offset\":4,\"sizeInBytes\":40,\"cardinality\":6}",
    ",",
    "null",
    "\n",
    "}",
    "{",
    "{\"format\":1,\"table\":\"t\",\"generation\":0,\"version\":4,\"ordinal\":0}",
    "\"snapshot\":true",
    "\"schema\":{\"columns\":[]}",
    "18446744073709551615",
    "-1",
];

#[test]
fn commits() {
    let target = Target { name: "commits", tokens: COMMITS, bytes_max: 4_096 };
    target.run(None, |input| {
        let cursor = serde_json::from_slice::<Cursor>(input).ok();
        if let Some(cursor) = &cursor {
            let written = serde_json::to_vec(cursor).expect("strings and numbers");
            assert_eq!(serde_json::from_slice::<Cursor>(&written).ok().as_ref(), Some(cursor));
        }
        let told = match Actions::parse(input) {
            Ok(actions) => {
                let lines = input.split(|byte| *byte == b'\n').count();
                assert!(
                    actions.adds.len() + actions.removes.len() + actions.cdc.len() <= lines * 3,
                    "each line has one of each"
                );
                let feed = actions.metadata.as_ref().map(crate::log::Metadata::change_feed);
                let counts = [actions.adds.len(), actions.removes.len(), actions.cdc.len()].map(|count| count.min(3));
                (counts, feed, actions.is_merge_without_effect(), String::new())
            }
            Err(message) => {
                assert!(message.starts_with("line "), "{message}");
                let kind = message.split(' ').skip(2).take(4).collect::<Vec<_>>().join(" ");
                ([0; 3], None, false, kind)
            }
        };
        effect((told, cursor.is_some()))
    });
}
