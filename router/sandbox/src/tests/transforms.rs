//! Loading, calling and failing.

use super::*;
use crate::{ConsoleLevel, LoadErrorKind, RowErrorKind};

#[test]
fn every_customary_form_is_accepted() {
    let forms = [
        "function send(payload) { return payload.events.map(row => ({n: row.n})) }",
        "async function send(payload, headers) { return payload.events.map(row => ({n: row.n})) }",
        "const send = async ({events}) => events.map(({n}) => ({n}));",
        "function transform(payload) { return payload.events.map(row => ({n: row.n})) }",
        "export function send(payload) { return payload.events.map(row => ({n: row.n})) }",
        "export const send = (payload) => payload.events.map(row => ({n: row.n}));",
        "export default async function (payload) { return payload.events.map(row => ({n: row.n})) }",
        "export default (payload) => payload.events.map(row => ({n: row.n}))",
        "const f = await Promise.resolve(row => ({n: row.n})); export const transform = ({events}) => events.map(f);",
        "const wait = () => Promise.resolve(); async function send(payload) { await wait(); return Promise.all(payload.events.map(async row => { await wait(); return {n: row.n} })) }",
    ];
    for form in forms {
        assert_eq!(json(&run(form, [r#"{"n":1}"#])[0]), r#"{"n":1}"#, "{form}");
    }
}

#[test]
fn a_transform_that_does_not_load_says_where_and_why() {
    let pool = pool();
    let refusals = [
        (
            "function send(payload) {\n  return payload.events.map(row => ({n: row.}));\n}",
            LoadErrorKind::Syntax,
            Some((2, 45)),
            "Unexpected token '}'",
        ),
        ("export function send(payload) {\n  retrun 5;\n}", LoadErrorKind::Syntax, Some((2, 10)), "Unexpected number"),
        ("const x = 1;", LoadErrorKind::NoFunction, None, "no function to call"),
        ("export const other = () => 1;", LoadErrorKind::NoFunction, None, "no function to call"),
        (
            "const a = 1;\nimport _ from 'lodash';\nexport function send() {}",
            LoadErrorKind::Import,
            Some((2, 15)),
            "it imports 'lodash'",
        ),
        ("export * from './x.js'", LoadErrorKind::Import, Some((1, 15)), "bundle"),
        (
            "\nnull.x;\nfunction send() {}",
            LoadErrorKind::Threw,
            Some((2, 6)),
            "TypeError: Cannot read properties of null",
        ),
        (
            "export const a = missing;\nexport function send() {}",
            LoadErrorKind::Threw,
            Some((1, 18)),
            "missing is not defined",
        ),
        ("await new Promise(() => {}); export function send() {}", LoadErrorKind::Pending, None, "never comes"),
        ("Promise.reject(new Error('late'));\nfunction send() {}", LoadErrorKind::Threw, Some((1, 16)), "late"),
        ("const send = require('x');", LoadErrorKind::Threw, Some((1, 14)), "require is not defined"),
    ];
    for (source, kind, place, message) in refusals {
        let error = pool.load("transforms/bad.js", source).unwrap_err();
        assert_eq!((error.kind, error.line.zip(error.column)), (kind, place), "{source}: {error}");
        assert!(error.to_string().contains(message), "{source}: {error}");
        assert!(error.to_string().starts_with("could not load transform transforms/bad.js"), "{error}");
    }
    let error = pool.load("transforms/bad.js", "\n\nfunction send( {").unwrap_err();
    assert_eq!(error.excerpt.as_deref(), Some("function send( {"));
    assert_eq!(error.code().as_str(), "transform_syntax");
    let _still_works = load(&pool, &each("row => row"));
}

#[test]
fn a_failing_row_fails_alone_and_tells_where() {
    let source = "function check(row) {\n  if (row.n === 2) throw new RangeError('two');\n  return {n: row.n};\n}\nasync function send(payload) {\n  return payload.events.map(row => check(row));\n}";
    let results = run(source, [r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#]);
    assert_eq!(json(&results[0]), r#"{"n":1}"#);
    assert_eq!(json(&results[2]), r#"{"n":3}"#);
    let error = failed(&results[1]);
    assert_eq!(error.kind, RowErrorKind::Threw);
    assert_eq!(error.message, "RangeError: two");
    assert_eq!((error.line, error.column), (Some(2), Some(26)));
    assert_eq!(error.stack, ["check (transforms/t.js:2:26)", "transforms/t.js:6:36", "send (transforms/t.js:6:25)"]);
    assert_eq!(error.to_string(), "RangeError: two (transforms/t.js:2:26)");
}

#[test]
fn whatever_is_thrown_is_told() {
    let thrown = [
        ("throw 'text'", "threw text, which is no Error"),
        ("throw null", "threw null, which is no Error"),
        ("throw {code: 5}", "threw {\"code\":5}, which is no Error"),
        ("throw Object.assign(new Error('m'), {name: 'Mine'})", "Mine: m"),
        ("throw {get message() { throw 1 }, toJSON() { throw 2 }, toString() { throw 3 }}", "cannot be shown"),
        ("throw row", "threw {}, which is no Error"),
        ("undefined.x", "TypeError: Cannot read properties of undefined (reading 'x')"),
    ];
    for (statement, message) in thrown {
        // In an async function the place is known only from the stack of an Error; in a plain one V8 knows it for any value.
        let asynchronous = each(&format!("row => {{ {statement} }}"));
        let plain = asynchronous.trim_start_matches("async ");
        for source in [asynchronous.as_str(), plain] {
            let results = run(source, ["{}"]);
            let error = failed(&results[0]);
            assert!(error.message.contains(message), "{source}: {}", error.message);
            assert_eq!(error.kind, RowErrorKind::Threw, "{source}");
            assert!(
                error.line == Some(1) || (source.starts_with("async") && !message.contains(": ")),
                "{source}: {error}"
            );
        }
    }
}

#[test]
fn a_long_message_is_cut() {
    let results = run(&each("row => { throw new Error('x'.repeat(100000)) }"), ["{}"]);
    assert!(failed(&results[0]).message.len() <= 4096);
}

#[test]
fn a_rejection_that_nobody_handles_is_a_failure() {
    let body = "row => { if (row.bad) (async () => { throw new Error('lost') })(); return {n: 1}; }";
    let results = run(&each(body), ["{}", r#"{"bad":1}"#]);
    assert_eq!(json(&results[0]), r#"{"n":1}"#);
    assert_eq!(failed(&results[1]).message, "Error: lost");
    let handled = "row => { const p = Promise.reject(new Error('x')); Promise.resolve().then(() => p.catch(() => 0)); return {n: 1}; }";
    assert_eq!(json(&run(&each(handled), ["{}"])[0]), r#"{"n":1}"#);
}

#[test]
fn a_promise_that_never_settles_is_told_apart() {
    let results = run(
        "async function send({events}) { if (events.some(row => row.bad)) await new Promise(() => {}); return events.map(() => ({})); }",
        ["{}", r#"{"bad":1}"#],
    );
    assert_eq!(json(&results[0]), "{}");
    assert_eq!(failed(&results[1]).kind, RowErrorKind::Pending);
    assert_eq!(failed(&results[1]).code().as_str(), "transform_pending");
}

#[test]
fn headers_say_where_the_batch_comes_from_and_goes() {
    let results = run("const send = ({events}, headers) => events.map(() => headers)", ["{}"]);
    assert_eq!(json(&results[0]), r#"{"source":"ltv","destination":"klaviyo","batch_id":"b-1"}"#);
}

#[test]
fn large_batches_come_back_in_order() {
    let pool = pool_with(Options { threads: NonZeroUsize::new(3).unwrap(), ..Options::default() });
    let transform = load(&pool, &each("row => row.n % 7 === 0 ? null : {n: row.n}"));
    let rows: Vec<String> = (0..2345).map(|n| format!("{{\"n\":{n}}}")).collect();
    let report = transform.run(&batch(rows.iter().map(String::as_str)));
    assert_eq!(report.results.len(), 2345);
    for (n, result) in report.results.iter().enumerate() {
        if n % 7 == 0 {
            assert_eq!(*result, RowResult::Skipped);
        } else {
            assert_eq!(json(result), format!("{{\"n\":{n}}}"));
        }
    }
    assert_eq!(report.timing.chunks, 5);
    assert_eq!(report.timing.rows_alone, 0);
}

#[test]
fn an_empty_batch_is_no_work() {
    let pool = pool();
    let report = load(&pool, &each("row => row")).run(&batch([]));
    assert!(report.results.is_empty());
    assert_eq!(report.timing.chunks, 0);
}

#[test]
fn the_console_is_kept_in_order_and_bounded() {
    let pool = pool_with(Options { console_bytes_max: 64, threads: NonZeroUsize::MIN, ..Options::default() });
    let transform = load(
        &pool,
        &each(
            "row => { console.log('n', row.n, {a: [1]}, undefined, 5n); console.warn(row); console.error('x'.repeat(100)); return null; }",
        ),
    );
    let report = transform.run(&batch([r#"{"n":12345678901234567890}"#]));
    assert_eq!(
        report.results[0],
        RowResult::Failed(failed(&report.results[0]).clone()),
        "reading row.n is still an error"
    );
    let report = transform.run(&batch([r#"{"n":1}"#]));
    assert_eq!(report.results[0], RowResult::Skipped);
    let lines: Vec<_> = report.console.iter().map(|line| (line.level, line.text.as_str())).collect();
    assert_eq!(lines, [(ConsoleLevel::Info, "n 1 {\"a\":[1]} undefined 5n"), (ConsoleLevel::Warn, "{\"n\":1}")]);
    assert_eq!(report.console_dropped, 1);
}

#[test]
fn rows_that_are_run_alone_say_so_on_the_console() {
    let pool = pool();
    let transform = load(&pool, &each("row => { console.log(row.n); if (row.n === 1) throw 1; return {}; }"));
    let report = transform.run(&batch([r#"{"n":0}"#, r#"{"n":1}"#, r#"{"n":2}"#]));
    let lines: Vec<_> = report.console.iter().map(|line| (line.text.as_str(), line.row)).collect();
    assert_eq!(lines, [("0", Some(0)), ("1", Some(1)), ("2", Some(2))]);
    assert_eq!(report.timing.rows_alone, 3);
}

#[test]
fn transforms_do_not_see_one_another() {
    let pool = pool();
    let one = load(
        &pool,
        "globalThis.shared = 1; Array.prototype.map = () => [{stolen: true}]; var send = ({events}) => [{shared, n: events.length}];",
    );
    let other = load(&pool, &each("row => ({shared: typeof shared})"));
    assert_eq!(jsons(&one.run(&batch(["{}"]))), [r#"{"shared":1,"n":1}"#]);
    assert_eq!(jsons(&other.run(&batch(["{}"]))), [r#"{"shared":"undefined"}"#]);
}

#[test]
fn a_transform_that_is_dropped_leaves_no_context_behind() {
    let pool = pool();
    let old = load(&pool, &each("row => ({v: 1})"));
    assert_eq!(jsons(&old.run(&batch(["{}"]))), [r#"{"v":1}"#]);
    let new = load(&pool, &each("row => ({v: 2})"));
    assert_ne!(old.hash(), new.hash());
    assert_eq!(pool.stats().contexts, 2);
    drop(old);
    // The worker sweeps before its next job.
    assert_eq!(jsons(&new.run(&batch(["{}"]))), [r#"{"v":2}"#]);
    assert_eq!(pool.stats().contexts, 1);
    for version in 0..50 {
        let reloaded = load(&pool, &each(&format!("row => ({{v: {version}}})")));
        assert_eq!(jsons(&reloaded.run(&batch(["{}"]))), [format!("{{\"v\":{version}}}")]);
    }
    let _again = new.run(&batch(["{}"]));
    assert_eq!(pool.stats().contexts, 1);
}

#[test]
fn after_the_pool_is_gone_rows_are_not_run_and_nothing_hangs() {
    let pool = pool();
    let transform = load(&pool, &each("row => row"));
    drop(pool);
    assert_eq!(transform.run(&batch(["{}", "{}"])).results, [RowResult::NotRun, RowResult::NotRun]);
}

#[test]
fn several_callers_share_the_pool() {
    let pool = pool_with(Options { threads: NonZeroUsize::new(2).unwrap(), ..Options::default() });
    let transform = load(&pool, &each("row => ({n: row.n})"));
    std::thread::scope(|scope| {
        for caller in 0..8 {
            let transform = transform.clone();
            scope.spawn(move || {
                for round in 0..20 {
                    let data = format!("{{\"n\":{}}}", caller * 100 + round);
                    assert_eq!(jsons(&transform.run(&batch([data.as_str()]))), [data.as_str()]);
                }
            });
        }
    });
}
