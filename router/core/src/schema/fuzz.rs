//! Any history of schemas: their records come from a topic, and a route explains a missing column from them while rows wait.

use proptest::prelude::*;
use tailwater_fuzz::{Target, effect, generated};

use super::fields::path_of;
use super::*;

const TOKENS: &[&str] = &[
    r#"{"source":"s","columns":["#,
    r#"{"name":"a","type":"double","nullable":true}"#,
    r#"{"name":"b","type":"struct<a:int,b:array<struct<c:int>>>","nullable":true,"field_ids":{"a":2,"b.c":3}}"#,
    "struct<`a``b`:",
    "array<",
    "map<string,",
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
    const TYPES: &[&str] = &[
        "double",
        "long",
        "string",
        "struct<a:double,b:array<struct<c:string>>>",
        "struct<b:double,d:map<string,int>>",
    ];
    let field_ids = prop::collection::btree_map(prop::sample::select(vec!["a", "b", "b.c", "d"]), 0_i64..6, 0..3);
    let column = (0_u8..12, 0..TYPES.len(), prop::option::weighted(0.2, 0_i64..4), field_ids).prop_map(
        |(name, kind, id, field_ids)| Column {
            id,
            field_ids: field_ids.into_iter().map(|(path, id)| (path.to_owned(), id)).collect(),
            ..Column::new(char::from(b'a' + name).to_string(), TYPES[kind])
        },
    );
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
    let column = |version: usize, place: usize| Column::new(format!("c{place}_{version}"), "double");
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
        let columns = history.iter().flat_map(|record| &record.columns).take(50);
        let fields = columns.clone().flat_map(|column| {
            let inner = column.inner();
            inner.fields().iter().map(|field| format!("{}.{}", column.name, field.name)).collect::<Vec<_>>()
        });
        for name in columns.clone().map(|column| column.name.clone()).chain(fields.take(50)) {
            let missing = explain_missing(&name, &history);
            assert!(missing.known, "{missing:?}");
            let there = |name: &String| path_of(&newest.columns, name).is_some();
            assert!(missing.candidates.iter().all(there), "{missing:?}");
            most = most.max(missing.candidates.len());
        }
        for name in reassigned(&history) {
            assert!(explain_missing(&name.column, &history).known, "{name:?}");
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
