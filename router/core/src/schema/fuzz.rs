//! Any history of schemas: their records come from a topic, and a route explains a missing column from them while rows wait.

use proptest::prelude::*;
use tailwater_fuzz::{Target, effect, generated};

use super::*;

const TOKENS: &[&str] = &[
    r#"{"source":"s","columns":["#,
    r#"{"name":"a","type":"double","nullable":true}"#,
    r#","id":1"#,
    r#""b""#,
    r#""c""#,
    "]}",
    ",",
    r#","version":7"#,
    r#","predecessor":"00000000000000000000000000000001""#,
    r#""long""#,
    "null",
];

/// Versions in which columns come and go under few names, so that they take one another's place.
fn histories() -> impl Strategy<Value = Vec<u8>> {
    let column = (0_u8..12, 0_u8..3, prop::option::weighted(0.2, 0_i64..4)).prop_map(|(name, kind, id)| Column {
        name: char::from(b'a' + name).to_string(),
        data_type: ["double", "long", "string"][usize::from(kind)].to_owned(),
        nullable: true,
        id,
        longs_as_strings: false,
    });
    let record = prop::collection::vec(column, 0..6).prop_map(|columns| SchemaRecord {
        source: "s".into(),
        columns,
        predecessor: None,
        version: Some(1),
        difference: Difference::default(),
    });
    prop_oneof![3 => prop::collection::vec(record, 0..40), 1 => (1_usize..8, 1_usize..60).prop_map(all_renamed)]
        .prop_map(|history| serde_json::to_vec(&history).expect("strings and numbers"))
}

/// A table whose columns, all of one type, get new names in every version: each may have taken the place of each.
fn all_renamed((columns, versions): (usize, usize)) -> Vec<SchemaRecord> {
    let column = |version: usize, place: usize| Column {
        name: format!("c{place}_{version}"),
        data_type: "double".into(),
        nullable: true,
        id: None,
        longs_as_strings: false,
    };
    let record = |version: usize| SchemaRecord {
        source: "s".into(),
        columns: (0..columns).map(|place| column(version, place)).collect(),
        predecessor: None,
        version: None,
        difference: Difference::default(),
    };
    (0..versions).rev().map(record).collect()
}

#[test]
fn schemas() {
    let mut histories = generated(histories());
    let target = Target { name: "schemas", tokens: TOKENS, bytes_max: 16_384 };
    target.run(Some(&mut histories), |input| {
        let Ok(history) = serde_json::from_slice::<Vec<SchemaRecord>>(input) else { return 0 };
        let written = serde_json::to_vec(&history).expect("strings and numbers");
        assert_eq!(serde_json::from_slice::<Vec<SchemaRecord>>(&written).ok().as_ref(), Some(&history));
        let Some(newest) = history.first() else { return 1 };
        let mut most = 0;
        for column in history.iter().flat_map(|record| &record.columns).take(50) {
            let missing = explain_missing(&column.name, &history);
            assert!(missing.known);
            assert!(missing.candidates.iter().all(|name| newest.has(name)), "{missing:?}");
            most = most.max(missing.candidates.len());
        }
        for pair in history.windows(2) {
            let schema = |record: &SchemaRecord| Schema { columns: record.columns.clone() };
            let difference = schema(&pair[0]).difference(&schema(&pair[1]));
            if pair[0].columns == pair[1].columns {
                assert!(difference.removed.is_empty() && difference.added.is_empty(), "{difference:?}");
            }
        }
        effect((history.len(), most))
    });
}
