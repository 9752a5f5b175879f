//! Work that an earlier call left behind (issue 10, B10, report 28).

use super::*;
use crate::RowErrorKind;

/// Each call wakes what the calls before it left waiting; what is woken does as the row that left it says.
fn waking(body: &str) -> String {
    format!(
        "let waiting = []; let log = [];
         async function send({{events}}) {{
           const earlier = waiting; waiting = []; earlier.forEach(wake => wake());
           const later = async row => {{ await new Promise(wake => waiting.push(wake)); {body} }};
           return events.map(row => {{ later(row); return {{n: row.n, log: log.length}}; }});
         }}"
    )
}

#[test]
fn what_an_earlier_call_left_does_not_fail_a_later_row() {
    for body in [
        "throw new Error('late ' + row.n);",
        "for (;;);",
        "row.gone;",
        "log.push(row.n);",
        "row._event;",
        "const all = []; for (;;) all.push([1, 2, 3]);",
        "await 0; throw new Error('later still');",
    ] {
        let pool = pool();
        let transform = load(&pool, &waking(body));
        for n in 0..4 {
            let row = format!("{{\"n\":{n}}}");
            let mut batch = batch([row.as_str()]);
            batch.schema = schema(&["n"]);
            let report = transform.run(&batch);
            assert_eq!(jsons(&report), [format!("{{\"n\":{n},\"log\":0}}")], "{body}");
            // Nobody is told about the first, which left nothing from before.
            let told = report.console.iter().any(|line| line.text.contains("left work behind"));
            assert_eq!(told, n > 0, "{body} {n}");
        }
        assert_eq!(pool.stats().terminations, 0, "{body}");
    }
}

#[test]
fn what_toplevel_code_and_the_outputs_put_off_is_handled_too() {
    // A promise of the top level that the calls await is no work of a call.
    let pool = pool();
    let transform = load(
        &pool,
        "let ready; const table = new Promise(resolve => { ready = resolve; }).then(() => ({a: 1}));
         async function send({events}) { ready(); const {a} = await table; return events.map(row => ({n: row.n + a})); }",
    );
    for _ in 0..3 {
        let report = transform.run(&batch([r#"{"n":1}"#]));
        assert_eq!(jsons(&report), [r#"{"n":2}"#]);
        assert!(report.console.is_empty(), "{:?}", report.console);
    }
    // The outputs are turned into text after the last reaction has run.
    let transform = load(
        &pool,
        "async function send({events}) {
           return events.map(row => ({toJSON() { Promise.resolve().then(() => { throw new Error('late'); }); return {n: row.n}; }}));
         }",
    );
    for n in 1..4 {
        let row = format!("{{\"n\":{n}}}");
        assert_eq!(jsons(&transform.run(&batch([row.as_str()]))), [row]);
    }
}

#[test]
fn a_rejected_promise_fails_the_row_that_made_it() {
    let results =
        run(&each("row => { if (row.bad) Promise.reject(new Error('mine')); return {}; }"), ["{}", r#"{"bad":1}"#]);
    assert_eq!(json(&results[0]), "{}");
    assert_eq!(failed(&results[1]).kind, RowErrorKind::Threw);
}

#[test]
fn rows_of_one_batch_do_not_see_each_others_left_over_work() {
    // The batch fails as a whole; then its rows run alone, each after what the others have left.
    let pool = pool();
    let transform =
        load(&pool, &waking("throw new Error('late ' + row.n);").replace("log.length", "log.length, bad: row.bad.x"));
    let report = transform.run(&batch([r#"{"n":1,"bad":{}}"#, r#"{"n":2}"#, r#"{"n":3,"bad":{}}"#]));
    assert_eq!(json(&report.results[0]), r#"{"n":1,"log":0}"#);
    assert!(failed(&report.results[1]).message.contains("TypeError"), "{:?}", report.results[1]);
    assert_eq!(json(&report.results[2]), r#"{"n":3,"log":0}"#);
}
