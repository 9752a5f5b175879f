//! Built-in functions that V8 does not interrupt (issue 10). The surface bounds those that are known; a thread that is lost all the same is replaced.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::*;
use crate::RowErrorKind;

fn quick() -> Options {
    Options {
        threads: NonZeroUsize::MIN,
        batch_timeout: Duration::from_millis(200),
        row_timeout: Duration::from_millis(50),
        ..Options::default()
    }
}

/// Runs a statement for one row among others; the row fails with a code, the others do not, and no thread is lost.
#[track_caller]
fn is_bounded(pool: &Pool, statement: &str) {
    let transform = load(pool, &each(&format!("row => {{ if (row.bad) {{ {statement} }} return {{n: row.n}}; }}")));
    let report = transform.run(&batch([r#"{"n":1}"#, r#"{"n":2,"bad":1}"#, r#"{"n":3}"#]));
    assert_eq!(pool.stats().threads_lost, 0, "{statement}");
    assert_eq!(json(&report.results[0]), r#"{"n":1}"#, "{statement}");
    failed(&report.results[1]);
    assert_eq!(json(&report.results[2]), r#"{"n":3}"#, "{statement}");
}

#[test]
fn built_ins_over_huge_array_likes_fail_their_row_alone() {
    let pool = pool_with(quick());
    let mut statements: Vec<String> = [
        "includes",
        "indexOf",
        "lastIndexOf",
        "reverse",
        "join",
        "fill",
        "copyWithin",
        "sort",
        "forEach",
        "map",
        "filter",
        "some",
        "every",
        "find",
        "findIndex",
        "findLast",
        "reduce",
        "reduceRight",
        "slice",
        "splice",
        "shift",
        "unshift",
        "toReversed",
        "toSorted",
        "toSpliced",
        "with",
        "flatMap",
        "toLocaleString",
    ]
    .iter()
    .flat_map(|name| {
        let arguments = if *name == "splice" { "0, 1" } else { "Boolean" };
        [
            format!("[].{name}.call({{length: 2 ** 53 - 1}}, {arguments});"),
            format!("[].{name}.call({{length: '9007199254740991'}}, {arguments});"),
            format!("new Array(2 ** 32 - 1).{name}({arguments});"),
        ]
    })
    .collect();
    statements.extend(
        [
            "Array.from({length: 2 ** 32 - 1});",
            "[].concat({length: 2 ** 53 - 1, [Symbol.isConcatSpreadable]: true}, 1);",
            "[new Array(2 ** 32 - 1)].flat();",
            "String.raw({raw: {length: 2 ** 53 - 1}});",
            "'a'.repeat(2 ** 24).lastIndexOf('a'.repeat(2 ** 23) + 'b');",
            "'a'.repeat(2 ** 24).includes('b' + 'a'.repeat(2 ** 23));",
            "({__proto__: Iterator.prototype, next: Object}).some(Array.isArray);",
            "({__proto__: Iterator.prototype, next: Object}).drop(2 ** 53 - 1).next();",
        ]
        .map(str::to_owned),
    );
    for statement in statements {
        is_bounded(&pool, &statement);
    }
}

// Issue 10, report H: such a row ended as `transform_threw`.
#[test]
fn a_row_that_calls_what_cannot_be_stopped_has_exceeded_its_time() {
    let kind = |statement: &str| {
        let results = run(&each(&format!("row => {{ {statement} }}")), ["{}"]);
        failed(&results[0]).kind.clone()
    };
    for statement in [
        "[].includes.call({length: 2 ** 53 - 1}, 1);",
        "[].indexOf.call({length: 2 ** 53 - 1}, 1);",
        "[].reverse.call({length: 2 ** 53 - 1});",
        "'a'.repeat(2 ** 24).lastIndexOf('a'.repeat(2 ** 23) + 'b');",
        "try { [].includes.call({length: 2 ** 53 - 1}, 1); } catch (error) { throw error; }",
    ] {
        assert_eq!(kind(statement), RowErrorKind::Timeout, "{statement}");
    }
    for statement in [
        "throw new RangeError('includes refuses a size beyond 33554432');",
        "(1).toFixed(1000);",
        "new Array(-1);",
        "try { [].includes.call({length: 2 ** 53 - 1}, 1); } catch (error) { throw new RangeError(error.message); }",
    ] {
        assert_eq!(kind(statement), RowErrorKind::Threw, "{statement}");
    }
}

#[test]
fn bounded_built_ins_behave_as_before() {
    let source = "
      class Numbers extends Array {}
      const like = {length: 3, 0: 'a', 2: 'c'};
      const send = ({events}) => events.map(() => ({
        found: [[1, NaN].includes(NaN), [].includes.call(like, 'c'), [].indexOf.call('xyz', 'z'), [].lastIndexOf.call(like, 'a')],
        made: [[].map.call(like, x => x + x), [].slice.call('xyz', 1), [].concat([1], [[2]], like.length), [[1, [2, [3]]]].flat(2)],
        changed: [].reverse.call({length: 2, 0: 1, 1: 2}), joined: [].join.call(like, '-'), species: Numbers.of(1, 2).map(x => x).constructor === Numbers,
        third: (() => { let same; [].forEach.call(like, (x, i, all) => { same = all === like; }); return same; })(),
        getter: [].map.call({get length() { return 2; }, 0: 5, 1: 6}, x => x),
        holes: [1, , 3].map(x => x).hasOwnProperty(1), reduced: [1, 2].reduce((a, b) => a + b), empty: (() => { try { [].reduce((a, b) => a); } catch (e) { return e.name; } })(),
        from: [Array.from('ab'), Array.from({length: 2}, (_, i) => i), Array.from(new Set([1, 1, 2]))],
        text: ['abc'.includes('b'), 'abc'.lastIndexOf('c'), 'a-b'.split('-'), 'aXbX'.replaceAll('X', '$&!'), String.raw`a\\n${1}`],
        iterators: [[1, 2, 3].values().filter(x => x > 1).map(x => x * 2).toArray(), [1, 2, 3].values().drop(1).take(1).toArray()],
        shapes: [[].map.name, [].map.length, [].includes.length, ''.includes.length, Object.keys([].map)],
        errors: [() => [].map.call(null, x => x), () => ''.includes.call(null), () => new [].map(), () => [1].map(5)].map(f => { try { f(); } catch (e) { return e.name; } }),
      }));";
    let results = run(source, ["{}"]);
    let expected = r#"{"found":[true,true,2,0],"made":[["aa",null,"cc"],["y","z"],[1,[2],3],[1,2,[3]]],"changed":{"0":2,"1":1,"length":2},"joined":"a--c","species":true,"third":true,"getter":[5,6],"holes":false,"reduced":3,"empty":"TypeError","from":[["a","b"],[0,1],[1,2]],"text":[true,2,["a","b"],"aX!bX!","a\\n1"],"iterators":[[4,6],[2]],"shapes":["map",1,1,1,[]],"errors":["TypeError","TypeError","TypeError","TypeError"]}"#;
    assert_eq!(json(&results[0]), expected);
}

/// The property that would have found them: whatever can be called returns or is stopped.
#[test]
fn every_built_in_returns_or_is_stopped_whatever_it_is_given() {
    let pool = pool_with(Options { batch_timeout: Duration::from_millis(100), ..quick() });
    let transform = load(&pool, include_str!("builtins.js"));
    let listed: serde_json::Value = serde_json::from_str(json(&transform.run(&batch(["{}"])).results[0])).unwrap();
    let functions = listed["functions"].as_array().unwrap();
    assert!(functions.len() > 500, "{}", functions.len());
    let cases = listed["cases"].as_u64().unwrap() + listed["constructions"].as_u64().unwrap();
    let mut lost = Vec::new();
    // A part of the cases, another one for each function; `TAILWATER_BUILTINS=all` runs all of them, which takes about half an hour.
    let all = std::env::var("TAILWATER_BUILTINS").is_ok();
    for (f, name) in functions.iter().enumerate() {
        for c in 0..cases {
            if !all && !(c + f as u64).is_multiple_of(97) {
                continue;
            }
            let before = pool.stats().threads_lost;
            let row = format!("{{\"f\":{f},\"c\":{c}}}");
            let report = transform.run(&batch([row.as_str()]));
            assert_eq!(report.results.len(), 1);
            if pool.stats().threads_lost > before {
                lost.push(format!("{name} case {c}"));
            }
        }
        assert!(lost.len() < 4, "a thread was lost for {lost:#?}");
    }
    assert!(lost.is_empty(), "a thread was lost for {lost:#?}");
}

/// Stands for a built-in function that nobody has bounded: a call that does not return until it is released.
const STUCK: &str = "console.log('test: do not return');";

#[test]
fn a_thread_that_does_not_return_is_replaced() {
    let pool = pool_with(Options { stop_grace: Duration::from_millis(100), ..quick() });
    let transform = load(&pool, &each(&format!("row => {{ if (row.bad) {{ {STUCK} }} return {{n: row.n}}; }}")));
    let rows = [r#"{"n":1}"#, r#"{"n":2,"bad":1}"#, r#"{"n":3}"#];
    // Once for the batch, and once for the row.
    let report = transform.run(&batch(rows));
    assert_eq!(json(&report.results[0]), r#"{"n":1}"#);
    assert_eq!(failed(&report.results[1]).kind, RowErrorKind::Timeout);
    assert!(failed(&report.results[1]).message.contains("does not return"), "{report:?}");
    assert_eq!(json(&report.results[2]), r#"{"n":3}"#);
    assert_eq!((report.threads_lost, report.exhausted), (2, false));
    // Then for the row alone, until the transform has cost too many.
    for lost in 3..=5 {
        let report = transform.run(&batch(rows));
        assert_eq!(json(&report.results[0]), r#"{"n":1}"#);
        assert_eq!((report.threads_lost, pool.stats().threads_lost), (1, lost));
    }
    let report = transform.run(&batch(rows));
    assert!(report.results.iter().all(|result| failed(result).kind == RowErrorKind::Timeout), "{report:?}");
    assert!(failed(&report.results[0]).message.contains("until it is reloaded"), "{report:?}");
    // Other transforms run on, and so does a new version of this one.
    let reloaded = load(&pool, &each("row => ({n: row.n})"));
    assert_eq!(jsons(&reloaded.run(&batch([r#"{"n":4}"#]))), [r#"{"n":4}"#]);
    assert_eq!(pool.stats().threads_lost_now, 5);
    crate::host::RELEASED.store(true, Ordering::Relaxed);
    let waiting = Instant::now();
    while pool.stats().threads_lost_now > 0 {
        assert!(waiting.elapsed() < Duration::from_secs(60), "a thread that returns ends");
        std::thread::sleep(Duration::from_millis(10));
    }
}
