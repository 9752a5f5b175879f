//! What a transform sees of a row.

use super::*;
use crate::RowErrorKind;

fn missing(column: &str) -> RowErrorKind {
    RowErrorKind::MissingColumn { column: column.into() }
}

/// Runs a transform that maps each row over rows with the schema `a`, `b`.
fn strict(body: &str, rows: &[&str]) -> Vec<RowResult> {
    let pool = pool();
    let transform = load(&pool, &each(body));
    let mut batch = batch(rows.iter().copied());
    batch.schema = schema(&["a", "b"]);
    transform.run(&batch).results
}

#[test]
fn every_way_to_read_a_missing_column_fails() {
    let bodies = [
        "row => ({x: row.c})",
        "row => ({x: row?.c})",
        "row => ({x: row['c']})",
        "({c}) => ({x: c})",
        "({c = 1}) => ({x: c})",
        "row => ({x: row.c ?? 0})",
        "row => ({x: Reflect.get(row, 'c')})",
        "row => ({x: Object.create(row).c})",
    ];
    for body in bodies {
        let results = strict(body, &[r#"{"a":1,"b":2}"#]);
        assert_eq!(failed(&results[0]).kind, missing("c"), "{body}");
    }
}

#[test]
fn a_missing_column_comes_up_although_the_transform_swallows_it() {
    let body = "row => { try { return {x: row.c} } catch { return {x: 'fallback'} } }";
    let results = strict(body, &[r#"{"a":1}"#, r#"{"a":2}"#]);
    assert_eq!(failed(&results[0]).kind, missing("c"));
    assert_eq!(failed(&results[1]).kind, missing("c"));
}

#[test]
fn only_the_row_that_reads_a_missing_column_fails() {
    let results = strict(
        "row => ({x: row.a > 1 ? row.c : row.b})",
        &[r#"{"a":1,"b":5}"#, r#"{"a":2,"b":6}"#, r#"{"a":1,"b":7}"#],
    );
    assert_eq!(json(&results[0]), r#"{"x":5}"#);
    assert_eq!(failed(&results[1]).kind, missing("c"));
    assert_eq!(json(&results[2]), r#"{"x":7}"#);
}

#[test]
fn a_known_column_that_is_absent_is_null() {
    assert_eq!(json(&strict("row => ({a: row.a, b: row.b})", &[r#"{"a":1}"#])[0]), r#"{"a":1,"b":null}"#);
}

#[test]
fn what_the_language_itself_asks_of_a_row_is_allowed() {
    let body = "async row => {
      const same = await row;
      return {
        text: String(row), json: JSON.stringify(row), has: 'c' in row, own: row.hasOwnProperty('a'), object: row instanceof Object,
        keys: Object.keys(row), spread: {...row}, optional: row.optional('c') ?? 'none', known: row.optional('b'), entries: Object.entries(same).length,
      };
    }";
    let pool = pool();
    let source = format!("async function send(payload) {{ return Promise.all(payload.events.map({body})); }}");
    let transform = load(&pool, &source);
    let mut batch = batch([r#"{"a":1}"#]);
    batch.schema = schema(&["a", "b"]);
    assert_eq!(
        jsons(&transform.run(&batch)),
        [
            r#"{"text":"[object Object]","json":"{\"a\":1}","has":false,"own":true,"object":true,"keys":["a"],"spread":{"a":1},"optional":"none","known":null,"entries":1}"#
        ]
    );
}

#[test]
fn a_row_can_be_written_to_and_returned() {
    assert_eq!(
        json(&strict("row => { row.c = 3; row.b = 4; return row; }", &[r#"{"a":1}"#])[0]),
        r#"{"a":1,"c":3,"b":4}"#
    );
}

#[test]
fn without_a_schema_a_missing_column_is_undefined() {
    let results = run(&each("row => ({x: row.c, y: typeof row.c, z: row.optional('a')})"), [r#"{"a":1}"#]);
    assert_eq!(json(&results[0]), r#"{"y":"undefined","z":1}"#);
}

#[test]
fn both_names_of_a_renamed_column_read_whichever_is_there() {
    let names = Schema { columns: vec![column("ltv_score"), column("id")] };
    let aliases = BTreeMap::from([
        ("ltv_score".to_owned(), vec!["ltv_predicted".to_owned()]),
        ("gone".to_owned(), vec!["went".to_owned()]),
    ]);
    let pool = pool();
    let transform = load(
        &pool,
        &each("row => ({old: row.ltv_predicted, new: row.ltv_score, optional: row.optional('ltv_predicted')})"),
    );
    let mut batch = batch([r#"{"ltv_score":5}"#, r#"{"ltv_predicted":6}"#, r#"{"id":"x"}"#]);
    batch.schema = Some(Arc::new(RowSchema::new(&names, &aliases, true)));
    assert_eq!(
        jsons(&transform.run(&batch)),
        [
            r#"{"old":5,"new":5,"optional":5}"#,
            r#"{"old":6,"new":6,"optional":6}"#,
            r#"{"old":null,"new":null,"optional":null}"#
        ]
    );
    let other = load(&pool, &each("row => ({x: row.went})"));
    assert_eq!(
        failed(&other.run(&batch).results[0]).kind,
        missing("went"),
        "an alias of a column that the schema lacks"
    );
}

#[test]
fn aliases_serve_rows_that_are_not_strict_too() {
    let aliases = BTreeMap::from([("new".to_owned(), vec!["old".to_owned()])]);
    let pool = pool();
    let transform = load(&pool, &each("row => ({x: row.new, y: row.other === undefined})"));
    let mut batch = batch([r#"{"old":1}"#]);
    batch.schema = Some(Arc::new(RowSchema::new(&Schema::default(), &aliases, false)));
    assert_eq!(jsons(&transform.run(&batch)), [r#"{"x":1,"y":true}"#]);
}

#[test]
fn the_overlay_shows_and_the_original_stays_within_reach() {
    let overlay = [
        ("email", Some("new@x")),
        ("phone", None),
        ("contact.email", Some("deep@x")),
        ("a.b", Some("dotted")),
        ("none.x", None),
    ];
    let pool = pool();
    let transform = load(
        &pool,
        &each("row => ({email: row.email, phone: row.phone, deep: row.contact.email, kept: row.contact.k, dotted: row['a.b'], none: row.optional('none') === undefined,
               was: row._event.data.email, deepWas: row._event.data.contact.email, id: row._event.id})"),
    );
    let mut batch = batch([]);
    let data = br#"{"email":"old@x","contact":{"email":"old","k":1}}"#;
    batch.rows.push(Row { data, overlay: &overlay, backdrop: &(br#"{"id":"e1"}"# as &[u8], b"" as &[u8]) });
    batch.schema = schema(&["email", "contact", "phone", "a.b"]);
    assert_eq!(
        jsons(&transform.run(&batch)),
        [
            r#"{"email":"new@x","phone":null,"deep":"deep@x","kept":1,"dotted":"dotted","none":true,"was":"old@x","deepWas":"old","id":"e1"}"#
        ]
    );
}

#[test]
fn a_column_may_have_any_name_in_a_row_of_any_shape() {
    let names = [
        "a",
        "",
        "0",
        "-1",
        "7up",
        "a b",
        "from",
        "at",
        "c0",
        "names",
        "constructor",
        "prototype",
        "__proto__",
        "toString",
        "optional",
        "quo\"te",
        "back\\slash",
        "line\nfeed",
        "\u{2028}",
        "ü",
        "${x}",
    ];
    let pool = pool();
    let transform = load(
        &pool,
        &each("row => ({own: Object.keys(row).map(name => [name, Object.getOwnPropertyDescriptor(row, name).value])})"),
    );
    for name in names {
        let key = serde_json::to_string(name).unwrap();
        let data = [
            format!("{{{key}:1,\"z\":2}}"),
            format!("{{{key}:3,\"z\":4}}"),
            "{\"z\":5}".to_owned(),
            format!("{{\"z\":6,{key}:7}}"),
        ];
        let expected = [
            format!("{{\"own\":[[{key},\"over\"],[\"z\",2]]}}"),
            format!("{{\"own\":[[{key},3],[\"z\",4]]}}"),
            format!("{{\"own\":[[\"z\",5],[{key},\"over\"]]}}"),
            format!("{{\"own\":[[\"z\",6],[{key},7]]}}"),
        ];
        // JavaScript keeps the order of names, except that numbers come first.
        let rows = if name == "0" { &data[..2] } else { &data[..] };
        let overlay = [(name, Some("over"))];
        for schema in [None, schema(&[name, "z"])] {
            let mut batch = batch([]);
            for (place, data) in rows.iter().enumerate() {
                let overlay = if place % 2 == 0 { &overlay[..] } else { &[] };
                batch.rows.push(Row { data: data.as_bytes(), overlay, backdrop: &() });
            }
            batch.schema = schema;
            assert_eq!(jsons(&transform.run(&batch)), expected[..rows.len()], "{name:?}");
        }
    }
}

#[test]
fn rows_of_more_shapes_than_are_remembered_stay_strict() {
    let pool = pool();
    let transform = load(&pool, &each("row => ({n: row.n, late: row.late, gone: row.optional('gone')})"));
    let columns: Vec<String> = (0..40).map(|n| format!("c{n}")).collect();
    let mut known: Vec<&str> = columns.iter().map(String::as_str).collect();
    known.extend(["n", "late"]);
    let schema = schema(&known);
    for round in 0..3 {
        for column in &columns {
            let data = format!("{{\"n\":{round},\"{column}\":1}}");
            let mut batch = batch([]);
            batch.rows.push(Row { data: data.as_bytes(), overlay: &[], backdrop: &() });
            batch.schema = schema.clone();
            assert_eq!(jsons(&transform.run(&batch)), [format!("{{\"n\":{round},\"late\":null}}")]);
        }
    }
    let missing = load(&pool, &each("row => ({n: row.nn})"));
    let mut batch = batch([]);
    batch.rows.push(Row { data: b"{\"n\":1}", overlay: &[], backdrop: &() });
    batch.schema = schema;
    let report = missing.run(&batch);
    assert_eq!(failed(&report.results[0]).kind, RowErrorKind::MissingColumn { column: "nn".into() });
}

#[test]
fn an_overlaid_struct_that_is_not_there_comes_into_being() {
    let overlay = [("contact.email", Some("x@y"))];
    let pool = pool();
    let transform = load(&pool, &each("row => ({contact: row.contact})"));
    let mut batch = batch([]);
    batch.rows.push(Row { data: br#"{"contact":null}"#, overlay: &overlay, backdrop: &() });
    assert_eq!(jsons(&transform.run(&batch)), [r#"{"contact":{"email":"x@y"}}"#]);
}

#[test]
fn event_and_profile_belong_to_their_row_and_are_not_enumerable() {
    let pool = pool();
    let transform = load(
        &pool,
        "function send({events}) {
           const backwards = [...events].reverse().map(row => row._event.n);
           return events.map((row, i) => ({n: row._event.n, p: row._profile.id, b: backwards[i], keys: Object.keys({...row}), same: row._event === row._event, d: row._event.data.a}));
         }",
    );
    let mut batch = batch([]);
    batch.rows.push(Row {
        data: br#"{"a":1}"#,
        overlay: &[],
        backdrop: &(br#"{"n":1}"# as &[u8], br#"{"id":"p1"}"# as &[u8]),
    });
    batch.rows.push(Row {
        data: br#"{"a":2}"#,
        overlay: &[],
        backdrop: &(br#"{"n":2}"# as &[u8], br#"{"id":"p2"}"# as &[u8]),
    });
    batch.schema = schema(&["a"]);
    assert_eq!(
        jsons(&transform.run(&batch)),
        [
            r#"{"n":1,"p":"p1","b":2,"keys":["a"],"same":true,"d":1}"#,
            r#"{"n":2,"p":"p2","b":1,"keys":["a"],"same":true,"d":2}"#
        ]
    );
}

#[test]
fn a_row_of_an_earlier_batch_does_not_show_the_event_of_a_later_one() {
    let pool = pool();
    let transform = load(
        &pool,
        "let first; function send({events}) { first ??= events[0]; return events.map(() => ({n: first._event.n})); }",
    );
    let run = |event: &[u8]| {
        let mut batch = batch([]);
        let backdrop = (event, b"" as &[u8]);
        batch.rows.push(Row { data: b"{}", overlay: &[], backdrop: &backdrop });
        transform.run(&batch)
    };
    assert_eq!(jsons(&run(b"{\"n\":1}")), [r#"{"n":1}"#]);
    let report = run(b"{\"n\":2}");
    assert!(failed(&report.results[0]).message.contains("only while the row's own batch runs"));
}

#[test]
fn an_unsafe_integer_is_never_rounded() {
    let rows = [r#"{"a":9007199254740993,"b":{"list":[1,9007199254740993]}}"#, r#"{"a":1,"b":null}"#];
    let cases = [
        ("row => ({x: row.a})", "a"),
        ("row => ({x: row.b?.list[1]})", "b.list.1"),
        ("row => ({...row})", "a"),
        ("row => row", "a"),
        ("row => ({x: row._event.data.a})", "a"),
    ];
    for (body, path) in cases {
        let results = strict(body, &rows);
        let error = failed(&results[0]);
        assert_eq!(error.kind, RowErrorKind::UnsafeInteger { column: path.into() }, "{body}");
        assert_eq!(error.code().as_str(), "unsafe_integer");
        let _fine = json(&results[1]);
    }
    assert_eq!(json(&strict("row => ({x: row.b?.list?.[0]})", &rows)[0]), r#"{"x":1}"#);
}

#[test]
fn a_column_of_long_integers_has_strings_whatever_their_size() {
    let mut names = typed(&[("id", "bigint"), ("s", "struct<x:array<bigint>>"), ("n", "int")]);
    names.columns[0].longs_as_strings = true;
    names.columns[1].longs_as_strings = true;
    let pool = pool();
    let transform = load(&pool, &each("row => ({id: row.id, s: row.s, n: row.n, raw: row._event.data.id})"));
    let mut batch = batch([
        r#"{"id":12345678901234567890,"n":7,"s":null}"#,
        r#"{"id":5,"n":8,"s":{"x":[]}}"#,
        r#"{"id":null,"n":9,"s":{"x":[1,-12345678901234567890]}}"#,
    ]);
    batch.schema = Some(Arc::new(RowSchema::new(&names, &BTreeMap::new(), true)));
    assert_eq!(
        jsons(&transform.run(&batch)),
        [
            r#"{"id":"12345678901234567890","s":null,"n":7,"raw":"12345678901234567890"}"#,
            r#"{"id":"5","s":{"x":[]},"n":8,"raw":"5"}"#,
            r#"{"id":null,"s":{"x":["1","-12345678901234567890"]},"n":9,"raw":null}"#
        ]
    );
}

#[test]
fn an_unsafe_integer_in_the_event_or_the_profile_is_guarded() {
    let pool = pool();
    let transform = load(&pool, &each("row => ({x: row._event.before.id})"));
    let mut batch = batch([]);
    batch.rows.push(Row {
        data: b"{}",
        overlay: &[],
        backdrop: &(br#"{"before":{"id":12345678901234567890}}"# as &[u8], b"" as &[u8]),
    });
    let report = transform.run(&batch);
    assert_eq!(failed(&report.results[0]).kind, RowErrorKind::UnsafeInteger { column: "before.id".into() });
}

#[test]
fn text_of_all_scripts_comes_through() {
    let rows = [r#"{"a":"grüße"}"#, r#"{"a":"你好 👋 \ud83d\ude00"}"#, r#"{"a":"\ud800"}"#];
    let results = run(&each("row => ({a: row.a, n: row.a.length})"), rows);
    assert_eq!(json(&results[0]), r#"{"a":"grüße","n":5}"#);
    assert_eq!(json(&results[1]), r#"{"a":"你好 👋 😀","n":8}"#);
    // Unicode has no half of a pair, so nobody could read it.
    assert_eq!(json(&results[2]), "{\"a\":\"\u{fffd}\",\"n\":1}");
}

#[test]
fn a_row_that_is_no_object_fails_alone_and_the_others_keep_their_places() {
    let rows = ["[]", r#"{"a":1}"#, "{} , {}", "{\"a\":", r#"{"a":2}"#, ""];
    let results = run(&each("row => ({a: row.a})"), rows);
    for bad in [0, 2, 3, 5] {
        assert_eq!(failed(&results[bad]).kind, RowErrorKind::Input, "row {bad}");
        assert_eq!(failed(&results[bad]).code().as_str(), "decode_failed");
    }
    assert_eq!(json(&results[1]), r#"{"a":1}"#);
    assert_eq!(json(&results[4]), r#"{"a":2}"#);
}
