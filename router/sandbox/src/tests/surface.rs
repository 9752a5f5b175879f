//! What a transform can reach: nothing but its rows.

use super::*;
use crate::RowErrorKind;

#[test]
fn there_is_nothing_to_reach_out_with() {
    let names = [
        "fetch",
        "XMLHttpRequest",
        "setTimeout",
        "setInterval",
        "queueMicrotask",
        "require",
        "process",
        "Deno",
        "WebAssembly",
        "SharedArrayBuffer",
        "Atomics",
        "ArrayBuffer",
        "Uint8Array",
        "DataView",
        "WeakRef",
        "FinalizationRegistry",
        "Temporal",
        "ShadowRealm",
        "performance",
        "gc",
        "host",
        "emit",
        "settings",
    ];
    let body = format!("row => ({{found: {names:?}.filter(name => name in globalThis)}})");
    assert_eq!(json(&run(&each(&body), ["{}"])[0]), r#"{"found":[]}"#);
}

#[test]
fn code_from_strings_is_refused() {
    for code in [
        "eval('1')",
        "new Function('return 1')()",
        "(() => {}).constructor('return 1')()",
        "(async () => {}).constructor('1')",
        "(function*(){}).constructor('1')",
    ] {
        let results = run(&each(&format!("row => ({{x: {code}}})")), ["{}"]);
        assert!(failed(&results[0]).message.contains("EvalError"), "{code}: {:?}", results[0]);
    }
}

#[test]
fn a_dynamic_import_fails() {
    let results = run("async function send() { await import('fs'); }", ["{}"]);
    assert_eq!(failed(&results[0]).kind, RowErrorKind::Threw);
    let results = run("export async function send() { await import('data:text/javascript,1'); }", ["{}"]);
    assert_eq!(failed(&results[0]).kind, RowErrorKind::Threw);
}

#[test]
fn time_is_the_batchs() {
    let source = each(
        "row => ({now: Date.now(), date: new Date().toISOString(), called: Date().slice(0, 15), sub: new (class extends Date {})().getTime(),
          given: new Date(2020, 0, 2, 3).toISOString(), one: new Date('2020-01-02').getTime(), is: new Date() instanceof Date, made: new Date().constructor === Date,
          format: new Intl.DateTimeFormat('en-US', {timeZone: 'UTC'}).format(), zone: Intl.DateTimeFormat().resolvedOptions().timeZone, utc: Date.UTC(1970, 0), length: Date.length})",
    );
    assert_eq!(
        json(&run(&source, ["{}"])[0]),
        r#"{"now":1773532800000,"date":"2026-03-15T00:00:00.000Z","called":"Sun Mar 15 2026","sub":1773532800000,"given":"2020-01-02T03:00:00.000Z","one":1577923200000,"is":true,"made":true,"format":"3/15/2026","zone":"UTC","utc":0,"length":7}"#
    );
}

#[test]
fn chance_repeats_itself_for_the_same_batch_only() {
    let pool = pool();
    let transform = load(&pool, &each("row => ({r: Math.random()})"));
    let first = transform.run(&batch(["{}", "{}"]));
    let again = transform.run(&batch(["{}", "{}"]));
    assert_eq!(first.results, again.results);
    assert_ne!(first.results[0], first.results[1]);
    let mut other = batch(["{}"]);
    other.headers.batch = "b-2".into();
    assert_ne!(transform.run(&other).results[0], first.results[0]);
}

#[test]
fn tampering_with_the_built_ins_does_not_reach_the_driver() {
    let source = "JSON.stringify = () => '{\"forged\":1}'; JSON.parse = () => []; Array.isArray = () => false; String.prototype.includes = () => true;
      Promise.prototype.then = () => {}; Map.prototype.get = () => 5; Object.keys = () => ['x']; Reflect.get = null; Object.defineProperty = null;
      function send(payload) { const out = []; for (const row of payload.events) out.push({n: row.n, e: row._event.x}); return out; }";
    let pool = pool();
    let transform = load(&pool, source);
    let mut batch = batch([]);
    batch.rows.push(Row { data: b"{\"n\":1}", overlay: &[], backdrop: &(b"{\"x\":2}" as &[u8], b"" as &[u8]) });
    batch.schema = schema(&["n"]);
    assert_eq!(jsons(&transform.run(&batch)), [r#"{"n":1,"e":2}"#]);
}
