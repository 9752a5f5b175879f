//! What a transform may return.

use super::*;
use crate::RowErrorKind;

fn outputs(result: &RowResult) -> Vec<&str> {
    match result {
        RowResult::Outputs(outputs) => outputs.iter().map(|output| output.json.as_str()).collect(),
        other => panic!("expected outputs, got {other:?}"),
    }
}

#[test]
fn null_skips_and_an_array_makes_several() {
    let source =
        each("row => row.n === 0 ? null : row.n === 1 ? {n: 1} : Array.from({length: row.n - 2}, (_, i) => ({i}))");
    let results = run(&source, [r#"{"n":0}"#, r#"{"n":1}"#, r#"{"n":4}"#, r#"{"n":2}"#, r#"{"n":1}"#]);
    assert_eq!(results[0], RowResult::Skipped);
    assert_eq!(outputs(&results[1]), [r#"{"n":1}"#]);
    assert_eq!(outputs(&results[2]), [r#"{"i":0}"#, r#"{"i":1}"#]);
    assert_eq!(results[3], RowResult::Skipped, "an empty array has nothing to deliver");
    assert_eq!(outputs(&results[4]), [r#"{"n":1}"#]);
}

#[test]
fn anything_else_is_the_wrong_shape_for_its_row_alone() {
    let wrong = [
        ("undefined", "undefined"),
        ("5", "a number"),
        ("'x'", "a string"),
        ("() => 1", "a function"),
        ("[1]", "a number"),
        ("[null]", "null"),
        ("[[{}]]", "an array"),
        ("Promise.resolve({})", "promise"),
        ("new Map([[1, 2]])", "Map"),
        ("new Date()", "expected an object"),
        ("({x: 5n})", "BigInt"),
        ("(() => { const o = {}; o.o = o; return o })()", "refers to itself"),
        ("({_key: {}})", "_key"),
        ("({_key: ''})", "_key"),
        ("({toJSON() {}})", "nothing"),
    ];
    for (value, message) in wrong {
        let results = run(&each(&format!("row => row.bad ? {value} : {{fine: true}}")), ["{}", r#"{"bad":1}"#, "{}"]);
        assert_eq!(json(&results[0]), r#"{"fine":true}"#);
        assert_eq!(json(&results[2]), r#"{"fine":true}"#);
        let error = failed(&results[1]);
        assert_eq!(error.kind, RowErrorKind::Shape, "{value}: {error:?}");
        assert!(error.message.contains(message), "{value}: {}", error.message);
    }
}

#[test]
fn an_array_of_another_length_is_run_again_row_by_row() {
    // With several rows one is lost; alone each has its output, except the one that is dropped again.
    let results = run(
        "function send(payload) { return payload.events.filter(row => !row.bad).map(row => ({n: row.n})); }",
        [r#"{"n":1}"#, r#"{"n":2,"bad":1}"#, r#"{"n":3}"#],
    );
    assert_eq!(json(&results[0]), r#"{"n":1}"#);
    assert_eq!(failed(&results[1]).kind, RowErrorKind::Shape);
    assert_eq!(
        failed(&results[1]).message,
        "the transform returned 0 entries for 1 events; expected one for each, and null to skip one"
    );
    assert_eq!(json(&results[2]), r#"{"n":3}"#);
}

#[test]
fn a_result_that_is_no_array_is_the_wrong_shape() {
    let results = run("function send(payload) { return {events: payload.events}; }", ["{}"]);
    assert!(failed(&results[0]).message.contains("returned an object"), "{:?}", results[0]);
}

#[test]
fn the_authors_key_is_taken_out_of_the_output() {
    let results = run(&each("row => [{_key: 'a', x: 1}, {x: 2, _key: 7}, {x: 3, _key: null}, {x: 4}]"), ["{}"]);
    let RowResult::Outputs(outputs) = &results[0] else { panic!("{results:?}") };
    let found: Vec<_> = outputs.iter().map(|output| (output.json.as_str(), output.key.as_deref())).collect();
    assert_eq!(
        found,
        [(r#"{"x":1}"#, Some("a")), (r#"{"x":2}"#, Some("7")), (r#"{"x":3}"#, None), (r#"{"x":4}"#, None)]
    );
}

/// The output, and what is reported about it.
fn non_finite(mode: NonFinite, value: &str) -> Result<(String, Vec<String>), RowError> {
    let pool = pool();
    let transform = load(&pool, &each(&format!("row => ({value})")));
    let mut batch = batch(["{}"]);
    batch.non_finite = mode;
    match transform.run(&batch).results.remove(0) {
        RowResult::Outputs(mut outputs) => {
            let output = outputs.remove(0);
            Ok((output.json, output.non_finite))
        }
        RowResult::Failed(error) => Err(error),
        other => panic!("{other:?}"),
    }
}

const ODD: &str = "{a: NaN, b: {c: [1, -Infinity], d: null, e: 0, f: new Date(NaN)}, g: [{h: NaN, i: 1}], j: new Date(0), k: {toJSON: () => NaN}, l: new Number(NaN), m: [[NaN]]}";

#[test]
fn a_number_that_is_not_finite_is_left_out_and_reported() {
    let (json, paths) = non_finite(NonFinite::Omit, ODD).unwrap();
    assert_eq!(json, r#"{"b":{"d":null,"e":0},"g":[{"i":1}],"j":"1970-01-01T00:00:00.000Z"}"#);
    assert_eq!(paths, ["a", "b.c", "b.f", "g[0].h", "k", "l", "m"]);
}

#[test]
fn a_number_that_is_not_finite_is_cleared_where_the_destination_says_so() {
    let (json, paths) = non_finite(NonFinite::Clear, ODD).unwrap();
    assert_eq!(
        json,
        r#"{"a":null,"b":{"c":[1,null],"d":null,"e":0,"f":null},"g":[{"h":null,"i":1}],"j":"1970-01-01T00:00:00.000Z","k":null,"l":null,"m":[[null]]}"#
    );
    assert_eq!(paths, ["a", "b.c[1]", "b.f", "g[0].h", "k", "l", "m[0][0]"]);
}

#[test]
fn a_number_that_is_not_finite_is_rejected_where_the_destination_says_so() {
    let error = non_finite(NonFinite::Reject, "{x: {y: NaN}}").unwrap_err();
    assert_eq!(error.kind, RowErrorKind::NonFinite);
    assert_eq!(error.message, "the number at 'x.y' is not finite");
    assert_eq!(non_finite(NonFinite::Reject, "{x: null}").unwrap().0, r#"{"x":null}"#);
    assert_eq!(non_finite(NonFinite::Reject, "{x: [NaN]}").unwrap_err().kind, RowErrorKind::NonFinite);
}

#[test]
fn nulls_and_texts_about_null_are_left_as_they_are() {
    assert_eq!(
        non_finite(NonFinite::Omit, "{a: null, b: 'null', c: JSON.rawJSON('12345678901234567890')}").unwrap(),
        (r#"{"a":null,"b":"null","c":12345678901234567890}"#.to_owned(), vec![])
    );
}

#[test]
fn a_key_and_a_number_that_is_not_finite_go_together() {
    let results = run(&each("row => ({_key: 'k', a: NaN, b: 1})"), ["{}"]);
    let RowResult::Outputs(outputs) = &results[0] else { panic!("{results:?}") };
    assert_eq!(
        (outputs[0].json.as_str(), outputs[0].key.as_deref(), outputs[0].non_finite.as_slice()),
        (r#"{"b":1}"#, Some("k"), &["a".to_owned()][..])
    );
}

#[test]
fn a_row_that_returns_too_much_fails_alone() {
    let pool = pool_with(Options { output_bytes_max: 100, threads: NonZeroUsize::MIN, ..Options::default() });
    let transform = load(&pool, &each("row => ({x: (row.wide ? 'é' : 'e').repeat(row.n)})"));
    let results = transform.run(&batch([r#"{"n":80}"#, r#"{"n":200}"#, r#"{"n":80,"wide":1}"#])).results;
    assert_eq!(json(&results[0]).len(), 88);
    assert_eq!(failed(&results[1]).kind, RowErrorKind::OutputTooLarge);
    assert_eq!(failed(&results[2]).kind, RowErrorKind::OutputTooLarge, "bytes are counted, not characters");
    let many = load(&pool, &each("row => Array(1001).fill({})"));
    assert_eq!(failed(&many.run(&batch(["{}"])).results[0]).kind, RowErrorKind::OutputTooLarge);
}

#[test]
fn several_outputs_of_a_row_count_together() {
    let pool = pool_with(Options { output_bytes_max: 100, threads: NonZeroUsize::MIN, ..Options::default() });
    let transform = load(&pool, &each("row => Array.from({length: row.n}, () => ({x: 'y'.repeat(32)}))"));
    let results = transform.run(&batch([r#"{"n":2}"#, r#"{"n":3}"#])).results;
    assert_eq!(outputs(&results[0]).len(), 2);
    assert_eq!(failed(&results[1]).kind, RowErrorKind::OutputTooLarge);
}
