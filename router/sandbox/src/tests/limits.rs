//! Loops, memory and depth: the process stays alive, and good rows succeed.

use std::time::Duration;

use super::*;
use crate::{LoadErrorKind, RowErrorKind};

/// Short limits, so that the tests are.
fn short() -> Options {
    Options {
        threads: NonZeroUsize::MIN,
        heap_bytes_max: 48 * 1024 * 1024,
        batch_timeout: Duration::from_millis(200),
        row_timeout: Duration::from_millis(50),
        ..Options::default()
    }
}

/// Runs a statement for the second of three rows: it must fail as expected, and its neighbours must not.
#[track_caller]
fn fails_alone(pool: &Pool, statement: &str, expected: &[RowErrorKind]) {
    let source = each(&format!("row => {{ if (row.bad) {{ {statement} }} return {{n: row.n}}; }}"));
    let transform = load(pool, &source);
    let report = transform.run(&batch([r#"{"n":1}"#, r#"{"n":2,"bad":1}"#, r#"{"n":3}"#]));
    assert_eq!(json(&report.results[0]), r#"{"n":1}"#, "{statement}");
    assert!(expected.contains(&failed(&report.results[1]).kind), "{statement}: {:?}", report.results[1]);
    assert_eq!(json(&report.results[2]), r#"{"n":3}"#, "{statement}");
    // And once more, in whatever is left of the isolate.
    assert_eq!(jsons(&transform.run(&batch([r#"{"n":4}"#]))), [r#"{"n":4}"#], "{statement}");
}

#[test]
fn endless_loops_are_stopped() {
    let pool = pool_with(short());
    for statement in [
        "for (;;);",
        "(async () => { for (;;) await 0; })();",
        "const again = () => Promise.resolve().then(again); again();",
        "try { for (;;); } catch { for (;;); } finally { for (;;); }",
        "/^(a+)+$/.test('a'.repeat(40) + 'b');",
        "[3, 1, 2].sort(() => { for (;;); });",
        "return {get x() { for (;;); }};",
        "return {toJSON() { for (;;); }};",
        "throw {get message() { for (;;); }, toString() { for (;;); }, toJSON() { for (;;); }};",
        "let n = 3n; for (;;) n *= n;",
        // V8 would lose the outer loop's interrupt check (see the flags).
        "for (;;) new Array(1000).fill(1);",
        "const f = () => { try { return f() } catch { return f() } }; f();",
    ] {
        // Some of them fill the memory before their time is up.
        fails_alone(&pool, statement, &[RowErrorKind::Timeout, RowErrorKind::OutOfMemory]);
    }
    assert!(pool.stats().terminations >= 20);
}

#[test]
fn endless_allocation_costs_the_isolate_and_not_the_process() {
    let pool =
        pool_with(Options { batch_timeout: Duration::from_secs(10), row_timeout: Duration::from_secs(10), ..short() });
    let restarts = pool.stats().isolate_restarts;
    for statement in [
        "const all = []; for (;;) all.push({a: [1, 2, 3]});",
        "let all = 'x'; const kept = []; for (let i = 0;; i++) kept.push((all + i).repeat(1000).split(''));",
        "let text = 'x'.repeat(1 << 24); const all = []; for (;;) all.push(text.replace('x', 'y' + all.length));",
        "globalThis.leak = []; for (;;) leak.push(new Array(1000).fill(leak.length));",
        "const map = new Map(); for (let i = 0;; i++) map.set(i, [i]);",
        "const all = []; (async () => { for (;;) { all.push(new Array(100).fill(0)); await 0; } })();",
    ] {
        fails_alone(&pool, statement, &[RowErrorKind::OutOfMemory, RowErrorKind::Threw]);
    }
    assert!(pool.stats().isolate_restarts > restarts);
}

#[test]
fn single_huge_allocations_are_survived() {
    let pool =
        pool_with(Options { batch_timeout: Duration::from_secs(10), row_timeout: Duration::from_secs(10), ..short() });
    for statement in [
        "return {x: 'x'.repeat(1 << 28)};",
        "return {x: 'é'.repeat(1 << 28)};",
        "const t = 'x'.repeat(1 << 28); return {x: t.split('').length};",
        "return {x: [...'x'.repeat(1 << 26)].length};",
        "return {x: Array(1 << 27).fill(0)};",
        "return {x: Array(1 << 25).join('xxxxxxxxxxx')};",
        "return {x: JSON.stringify('\"'.repeat(1 << 27))};",
        "return {x: new Array(1 << 28).fill(0).length};",
        "let t = 'x'; for (let i = 0; i < 28; i++) t += t; return {x: t.match(/x/g).length};",
        "let t = 'x'; for (let i = 0; i < 28; i++) t += t; return {x: t.split('').length};",
        "let t = 'x'; for (let i = 0; i < 28; i++) t += t; return {x: t.replaceAll('x', 'yy').length};",
        "let t = '[0'; for (let i = 0; i < 26; i++) t += ',' + t.slice(1); return {x: JSON.parse(t + ']').length};",
        "let t = 'ab'; for (let i = 0; i < 27; i++) t += t; return {x: t};",
        "let t = 'ab'; for (let i = 0; i < 25; i++) t += t; return {x: Object.keys(new String(t)).length};",
        "return {x: Reflect.apply(Math.max, null, {length: 1 << 28})};",
        "const a = []; a.length = 4294967295; a.unshift(1);",
        "return {x: new Array(1 << 28).toSorted().length};",
        "return {x: 'x'.repeat(1 << 28).toUpperCase().charCodeAt(5)};",
        "return {x: 'x'.repeat(1 << 29)};",
        "return {x: Array.from({length: 1 << 26}, () => ({})).length};",
    ] {
        fails_alone(
            &pool,
            statement,
            &[RowErrorKind::OutOfMemory, RowErrorKind::Threw, RowErrorKind::OutputTooLarge, RowErrorKind::Timeout],
        );
    }
}

#[test]
fn deep_recursion_is_an_error_of_its_row() {
    let pool = pool_with(short());
    for statement in [
        "const f = () => f() + 1; f();",
        "const f = (n) => [1].map(() => f(n + 1)); f(0);",
        "let o = {x: NaN}; for (let i = 0; i < 1e5; i++) o = {o}; return o;",
        "const p = new Proxy({}, {get: (t, k, r) => r[k]}); p.x;",
    ] {
        fails_alone(&pool, statement, &[RowErrorKind::Threw]);
    }
    assert_eq!(pool.stats().isolate_restarts, 0);
}

#[test]
fn the_memory_of_one_row_too_many_comes_back() {
    // A transform that leaks: every batch keeps its rows. The isolate is replaced now and then, and no row is lost.
    let pool = pool_with(Options {
        heap_bytes_max: 24 * 1024 * 1024,
        batch_timeout: Duration::from_secs(10),
        row_timeout: Duration::from_secs(10),
        ..short()
    });
    let transform = load(
        &pool,
        "const kept = []; const send = ({events}) => { kept.push(events.map(row => row.text.split(''))); return events.map(row => ({n: row.n})); };",
    );
    let text = "x".repeat(1000);
    let rows: Vec<String> = (0..100).map(|n| format!("{{\"n\":{n},\"text\":\"{text}\"}}")).collect();
    for _ in 0..100 {
        let report = transform.run(&batch(rows.iter().map(String::as_str)));
        for (n, result) in report.results.iter().enumerate() {
            assert_eq!(json(result), format!("{{\"n\":{n}}}"));
        }
    }
    assert!(pool.stats().isolate_restarts > 0);
}

#[test]
fn a_row_does_not_pay_for_what_the_rows_before_it_left() {
    // Each row leaks an eighth of the heap, so that they fill it between them; each alone has room enough.
    let pool = pool_with(Options {
        heap_bytes_max: 32 * 1024 * 1024,
        batch_timeout: Duration::from_secs(10),
        row_timeout: Duration::from_secs(10),
        ..short()
    });
    let transform = load(
        &pool,
        "const kept = []; const send = ({events}) => events.map(row => { kept.push(new Array(1 << 19).fill(row.n)); return {n: row.n}; });",
    );
    let rows: Vec<String> = (0..40).map(|n| format!("{{\"n\":{n}}}")).collect();
    let report = transform.run(&batch(rows.iter().map(String::as_str)));
    for (n, result) in report.results.iter().enumerate() {
        assert_eq!(json(result), format!("{{\"n\":{n}}}"));
    }
    assert!(pool.stats().isolate_restarts > 1);
}

#[test]
fn a_batch_of_loops_is_given_back_after_a_few_of_them() {
    let pool = pool_with(short());
    let transform = load(&pool, &each("row => { if (row.bad) for (;;); return {}; }"));
    let rows: Vec<&str> = std::iter::once("{}").chain(std::iter::repeat_n(r#"{"bad":1}"#, 30)).collect();
    let report = transform.run(&batch(rows));
    assert_eq!(json(&report.results[0]), "{}");
    assert!(report.results[1..11].iter().all(|result| failed(result).kind == RowErrorKind::Timeout));
    assert!(report.results[11..].iter().all(|result| *result == RowResult::NotRun));
}

#[test]
fn loading_is_limited_too() {
    let pool = pool_with(short());
    for (source, kind) in [
        ("for (;;);", LoadErrorKind::Timeout),
        ("export const x = 1; for (;;);", LoadErrorKind::Timeout),
        ("(async () => { for (;;) await 0; })(); function send() {}", LoadErrorKind::Timeout),
        ("const all = []; for (;;) all.push(new Array(1000).fill(all.length));", LoadErrorKind::OutOfMemory),
    ] {
        let error = pool.load("transforms/bad.js", source).unwrap_err();
        assert_eq!(error.kind, kind, "{source}: {error}");
    }
    assert_eq!(jsons(&load(&pool, &each("row => row")).run(&batch(["{}"]))), ["{}"]);
}

#[test]
fn other_transforms_survive_the_isolate() {
    let pool = pool_with(short());
    let good = load(&pool, &each("row => ({n: row.n})"));
    let bad = load(&pool, &each("row => { const all = []; for (;;) all.push([all.length]); }"));
    assert_eq!(jsons(&good.run(&batch([r#"{"n":1}"#]))), [r#"{"n":1}"#]);
    let report = bad.run(&batch(["{}"]));
    assert!(matches!(failed(&report.results[0]).kind, RowErrorKind::OutOfMemory | RowErrorKind::Timeout));
    assert_eq!(jsons(&good.run(&batch([r#"{"n":2}"#]))), [r#"{"n":2}"#]);
}

#[test]
fn buffers_cannot_be_made() {
    let results = run(&each("row => new ArrayBuffer(1 << 30)"), ["{}"]);
    assert_eq!(failed(&results[0]).message, "ReferenceError: ArrayBuffer is not defined");
}

#[test]
fn options_are_checked() {
    initialize_for_tests();
    for (options, option) in [
        (Options { heap_bytes_max: 1, ..short() }, "heap_bytes_max"),
        (Options { row_timeout: Duration::ZERO, ..short() }, "row_timeout"),
        (Options { output_bytes_max: 0, ..short() }, "output_bytes_max"),
    ] {
        let error = Pool::start(options).err().unwrap();
        assert!(error.to_string().contains(option), "{error}");
    }
}
