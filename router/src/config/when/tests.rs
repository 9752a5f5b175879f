use proptest::prelude::*;
use tailwater_core::schema::Column;

use super::*;

pub(super) const EVENT: EventFields<'static> = EventFields {
    source: "ltv_scores",
    event_type: "ltv_scores",
    time: Timestamp::from_millis(1_772_352_000_000),
    change: ChangeKind::Update,
    identifiers: &[("email", "ada@example.com")],
    schema: None,
    aliases: None,
    reassigned: &[],
};

pub(super) fn schema(columns: &[&str]) -> Schema {
    let column = |name: &&str| Column::new(*name, "double");
    Schema { columns: columns.iter().map(column).collect() }
}

fn matches(expression: &str, row: &str) -> Result<bool, WhenError> {
    When::compile(expression)
        .unwrap_or_else(|problem| panic!("{expression}: {problem}"))
        .matches(row.as_bytes(), &EVENT)
}

#[test]
fn conditions_are_evaluated_over_row_event_and_profile() {
    let row = r#"{"rfm_segment":"champions","ltv":2840.5,"orders":7,"big":9007199254740993,"nothing":null,
        "tags":["a","b"],"summary":{"days":91},"name":"Zoë \"Z\"","vip":true}"#;
    for (expression, expected) in [
        ("row.rfm_segment == 'champions'", true),
        ("row.ltv > 100", true),
        ("row.ltv > 100.5 && row.orders >= 7.0", true),
        ("row.orders * 2 == 14", true),
        ("row.big == 9007199254740993", true),
        ("row.nothing == null", true),
        ("row.nothing != null && row.nothing > 5", false),
        ("'a' in row.tags && size(row.tags) == 2", true),
        ("row.tags.exists(tag, tag == 'b')", true),
        ("row.summary.days > 90", true),
        ("row['rfm_segment'].startsWith('cham')", true),
        ("row.name.contains('Zoë')", true),
        ("row.name.matches('^Z')", true),
        ("row.rfm_segment.upperAscii() == 'CHAMPIONS'", true),
        ("row.vip", true),
        ("!row.vip || event.source != 'ltv_scores'", false),
        ("event.change == 'update' && event.type == 'ltv_scores'", true),
        ("event.time >= '2026-03-01'", true),
        ("profile.email.endsWith('@example.com')", true),
        ("profile.phone == null", true),
        ("has(profile.phone)", false),
        ("has(row.ltv) && !has(row.other)", true),
        ("has(row.nothing)", false),
        ("has(row.summary.days)", true),
        ("size(row) == 9", true),
        ("type(row.ltv) == double", true),
        ("true", true),
    ] {
        assert_eq!(matches(expression, row), Ok(expected), "{expression}");
    }
}

#[test]
fn an_absent_column_is_null_where_the_schema_knows_it_and_missing_where_not() {
    let when = When::compile("row.score != null").unwrap();
    let known = schema(&["score"]);
    assert_eq!(when.matches(b"{}", &EventFields { schema: Some(&known), ..EVENT }), Ok(false));
    let other = schema(&["rating"]);
    let missing = when.matches(b"{\"rating\":1}", &EventFields { schema: Some(&other), ..EVENT }).unwrap_err();
    assert_eq!(missing, WhenError::MissingColumn { column: "score".into() });
    assert_eq!(missing.code(), code::MISSING_COLUMN);
    let unknown = when.matches(b"{}", &EVENT).unwrap_err();
    assert_eq!(unknown.code(), code::WHEN_FAILED);
    assert!(unknown.to_string().contains("`score`") && unknown.to_string().contains("has(row.column)"), "{unknown}");
}

#[test]
fn has_means_the_same_for_nulls_that_are_written_and_nulls_that_are_left_out() {
    let when = When::compile("has(row.score) && row.score > 5").unwrap();
    let known = schema(&["score"]);
    let event = EventFields { schema: Some(&known), ..EVENT };
    for (row, expected) in [("{}", false), (r#"{"score":null}"#, false), (r#"{"score":6}"#, true)] {
        assert_eq!(when.matches(row.as_bytes(), &event), Ok(expected), "{row}");
    }
}

#[test]
fn a_renamed_column_reads_under_both_names_while_an_alias_stands() {
    let aliases = BTreeMap::from([("ltv_score".to_owned(), vec!["ltv_predicted".to_owned()])]);
    let new = schema(&["ltv_score"]);
    let event = EventFields { schema: Some(&new), aliases: Some(&aliases), ..EVENT };
    let old_name = When::compile("row.ltv_predicted > 5").unwrap();
    assert_eq!(old_name.matches(br#"{"ltv_score":6}"#, &event), Ok(true));
    assert_eq!(
        old_name.matches(br#"{"ltv_score":6}"#, &EventFields { aliases: None, ..event }).unwrap_err().code(),
        code::MISSING_COLUMN
    );
    let new_name = When::compile("row.ltv_score > 5").unwrap();
    assert_eq!(new_name.matches(br#"{"ltv_predicted":6}"#, &event), Ok(true));
}

#[test]
fn failures_name_no_values() {
    for (expression, row) in [
        ("row.secret > 5", r#"{"secret":"s3cret"}"#),
        ("row.secret + 5 == 6", r#"{"secret":"s3cret"}"#),
        ("row.list[7] == 1", r#"{"list":["s3cret"]}"#),
        ("row.secret", r#"{"secret":"s3cret"}"#),
        ("int(row.secret) == 1", r#"{"secret":"s3cret"}"#),
        ("row.secret.matches(row.pattern)", r#"{"secret":"s3cret","pattern":"(s3cret"}"#),
        ("row.number / 0 == 1", r#"{"number":5}"#),
        ("row.number + 9223372036854775807 > 0", r#"{"number":5}"#),
        ("row.huge == 5 && row.huge > 1", r#"{"huge":123456789012345678901234567890}"#),
        ("row.x == 1", "[1]"),
        ("row.x == 1", "{\"x\": s3cret}"),
        ("row.x == 1", "{\"x\": 1} s3cret"),
        ("row.x == 1", ""),
    ] {
        match matches(expression, row) {
            Err(error) => assert!(!error.to_string().contains("s3cret"), "{expression}: {error}"),
            Ok(holds) => assert!(expression.contains("huge") && !holds, "{expression} must fail on {row}"),
        }
    }
}

#[test]
fn what_does_not_exist_is_found_when_compiling() {
    for (expression, part) in [
        ("", "no valid CEL"),
        ("row.x ==", "no valid CEL"),
        ("row.x = 1", "no valid CEL"),
        ("rows.x == 1", "there is no variable `rows`"),
        ("event.tpye == 'x'", "no field `tpye`"),
        ("row.x.lower() == 'x'", "there is no function `lower`"),
        ("foo(row.x)", "there is no function `foo`"),
        ("row.items.exists(item, itm == 1)", "there is no variable `itm`"),
        ("Point{x: 1}.x == 1", "there is no type"),
    ] {
        let problem = When::compile(expression).unwrap_err();
        assert_eq!(problem.code, code::CONFIG_EXPRESSION);
        assert!(problem.message.contains(part), "{expression}: {problem}");
        assert!(problem.hint.is_some(), "{problem}");
    }
    assert!(When::compile(&"row.x == 1 && ".repeat(1_000)).unwrap_err().message.contains("longer than"));
    assert!(When::compile(&format!("{}1 == 1{}", "(".repeat(1_000), ")".repeat(1_000))).is_err());
}

#[test]
fn what_multiplies_a_row_is_bounded_by_the_expression_and_by_the_row() {
    let nested = |depth: usize| format!("{}true{}", "row.a.all(x, ".repeat(depth), ")".repeat(depth));
    assert!(When::compile(&nested(2)).is_ok());
    assert!(When::compile(&nested(3)).unwrap_err().message.contains("more than twice"));
    assert!(When::compile(&vec![nested(1); 9].join(" && ")).unwrap_err().message.contains("9 macros"));
    let squares = "row.a.replace('', row.a).replace('', row.a).replace('', row.a) == ''";
    assert!(When::compile(squares).unwrap_err().message.contains("more than twice"));
    assert!(When::compile("row.a.replace('-', ' ').replace('+', ' ').replace('.', ' ') == 'x'").is_ok());
    let row = |items: usize| format!("{{\"a\":[{}]}}", vec!["1"; items].join(","));
    for (expression, items, fits) in [
        (nested(1), 1_000, true),
        (nested(1), 100_000, false),
        (nested(2), 100, true),
        (nested(2), 1_000, false),
        ("size(row.a) > 0".to_owned(), 100_000, true),
    ] {
        let answer = matches(&expression, &row(items));
        assert_eq!(answer.is_ok(), fits, "{expression} on {items} items: {answer:?}");
    }
}

#[test]
fn only_the_columns_that_are_read_are_taken_from_the_row() {
    // A value that could not be read does not matter to a condition that does not read it.
    let when = When::compile("row.a == 1").unwrap();
    assert_eq!((when.row.all, when.row.read.len()), (false, 1));
    assert!(When::compile("row.exists(key, key == 'a')").unwrap().row.all);
    assert!(When::compile("row[event.type] == 1").unwrap().row.all);
    assert!(!When::compile("event.source == 'a'").unwrap().row.used());
}

#[test]
fn conditions_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<When>();
}

pub(super) fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("row.a".to_owned()),
        Just("row.b.c".to_owned()),
        Just("row['d']".to_owned()),
        Just("event.change".to_owned()),
        Just("profile.email".to_owned()),
        Just("null".to_owned()),
        Just("'x'".to_owned()),
        Just("[1, 2]".to_owned()),
        Just("{'k': 1}".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| format!("{number:?}")),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (
                inner.clone(),
                prop::sample::select(vec!["==", "<", "+", "-", "*", "/", "%", "&&", "||", "in"]),
                inner.clone()
            )
                .prop_map(|(a, operator, b)| format!("({a} {operator} {b})")),
            inner.clone().prop_map(|a| format!("!{a}")),
            inner.clone().prop_map(|a| format!("size({a})")),
            inner.clone().prop_map(|a| format!("int({a})")),
            inner.clone().prop_map(|a| format!("string({a})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}.exists(x, x == {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}.map(x, {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}.matches({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}.split({b})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
        ]
    })
}

proptest! {
    /// Neither odd text nor odd rows end the process; whatever compiles has an answer.
    #[test]
    fn nothing_panics(text in "\\PC{0,60}|[a-z.()\\[\\]{}'\"&|!=<>+*/%?:, 0-9-]{0,60}", row in "\\PC{0,40}") {
        if let Ok(when) = When::compile(&text)
            && let Err(error) = when.matches(row.as_bytes(), &EVENT)
        {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn whatever_compiles_has_an_answer(text in expression(), a in any::<i32>(), b in ".{0,8}") {
        let row = serde_json::json!({ "a": a, "b": { "c": b }, "d": [a, b, null, 1.5] }).to_string();
        if let Ok(when) = When::compile(&text)
            && let Err(error) = when.matches(row.as_bytes(), &EVENT)
        {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}

// Issue 10, A3 and C1.
#[test]
fn a_name_that_belongs_to_another_column_is_missing_until_an_alias_says_otherwise() {
    let known = schema(&["churn", "upgrade"]);
    let swapped = ["churn".to_owned()];
    let event = EventFields { schema: Some(&known), reassigned: &swapped, ..EVENT };
    let row = br#"{"churn":0.9,"upgrade":0.1}"#;
    let reads = |text| When::compile(text).unwrap().matches(row, &event);
    assert_eq!(reads("row.churn > 0.5"), Err(WhenError::MissingColumn { column: "churn".into() }));
    assert_eq!(reads("row['churn'] > 0.5"), Err(WhenError::MissingColumn { column: "churn".into() }));
    assert_eq!(reads("row.upgrade < 0.5"), Ok(true));
    let known_swap = EventFields { reassigned: &[], ..event };
    assert_eq!(When::compile("row.churn > 0.5").unwrap().matches(row, &known_swap), Ok(true));
}

#[test]
fn a_field_that_its_struct_no_longer_has_is_a_missing_column_with_its_path() {
    let mut known = schema(&["profile", "tags"]);
    known.columns[0].data_type = "struct<rank:double,inner:struct<level:long>>".into();
    known.columns[1].data_type = "map<string,double>".into();
    let moved = ["profile.inner.level".to_owned()];
    let event = EventFields { schema: Some(&known), ..EVENT };
    let row = br#"{"profile":{"rank":1.5,"inner":{"level":3}},"tags":{"a":1.0}}"#;
    let reads = |text, event: &EventFields<'_>| When::compile(text).unwrap().matches(row, event);
    for text in ["row.profile.score > 0.5", "row['profile']['score'] > 0.5"] {
        assert_eq!(reads(text, &event), Err(WhenError::MissingColumn { column: "profile.score".into() }), "{text}");
    }
    assert_eq!(reads("row.profile.rank > 0.5 && row.profile.inner.level == 3", &event), Ok(true));
    assert_eq!(reads("has(row.profile.score)", &event), Ok(false));
    // What a map holds is no matter of the schema.
    assert!(matches!(reads("row.tags.b > 0.5", &event), Err(WhenError::Failed { .. })));
    let event = EventFields { reassigned: &moved, ..event };
    assert_eq!(
        reads("row.profile.inner.level == 3", &event),
        Err(WhenError::MissingColumn { column: "profile.inner.level".into() })
    );
}
