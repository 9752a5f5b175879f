//! Code that fills the memory is told from code that takes too long (issue 10, D).

use std::time::Duration;

use super::*;
use crate::RowErrorKind;

/// Runs a statement for one row, alone and among others. The memory is small enough to be filled in time on a busy machine.
#[track_caller]
fn fills_the_memory(statement: &str) {
    let pool = pool_with(Options {
        threads: NonZeroUsize::MIN,
        heap_bytes_max: 48 * 1024 * 1024,
        batch_timeout: Duration::from_secs(3),
        ..Options::default()
    });
    let source = format!(
        "async function send({{events}}) {{ return Promise.all(events.map(async row => {{ if (row.bad) {{ {statement} }} return {{n: row.n}}; }})); }}"
    );
    let transform = load(&pool, &source);
    let alone = transform.run(&batch([r#"{"n":2,"bad":1}"#]));
    assert_eq!(failed(&alone.results[0]).kind, RowErrorKind::OutOfMemory, "{statement}: {:?}", alone.results[0]);
    let among = transform.run(&batch([r#"{"n":1}"#, r#"{"n":2,"bad":1}"#, r#"{"n":3}"#]));
    assert_eq!(json(&among.results[0]), r#"{"n":1}"#, "{statement}");
    assert_eq!(failed(&among.results[1]).kind, RowErrorKind::OutOfMemory, "{statement}: {:?}", among.results[1]);
    assert_eq!(json(&among.results[2]), r#"{"n":3}"#, "{statement}");
    assert_eq!(pool.stats().threads_lost, 0, "{statement}");
}

#[test]
fn arrays_texts_maps_and_promises_that_fill_the_memory_are_out_of_memory() {
    for statement in [
        "const all = []; for (;;) all.push({a: [1, 2, 3]});",
        "const all = []; for (;;) all.push(new Array(1000).fill(all.length));",
        "const all = []; for (let i = 0;; i++) all.push('x'.repeat(1000) + i);",
        "const all = []; for (let i = 0;; i++) all.push(`${i}`.repeat(100000).split(''));",
        "const map = new Map(); for (let i = 0;; i++) map.set(i, [i]);",
        "const set = new Set(); for (let i = 0;; i++) set.add('key ' + i);",
        "const all = []; for (;;) { all.push(new Array(100).fill(0)); await 0; }",
        "const all = {}; for (let i = 0;; i++) all['k' + i] = {i};",
        "let list = null; for (;;) list = {list};",
        "const all = []; for (let i = 1n;; i *= 3n) all.push(i);",
        "const all = []; for (;;) all.push(() => all);",
        "globalThis.kept ??= []; for (;;) kept.push(new Date(kept.length), /x/g);",
        "const f = async () => { await f(); }; const all = []; for (;;) all.push(new Promise(() => {}).then(() => all));",
    ] {
        fills_the_memory(statement);
    }
}

#[test]
fn a_loop_that_only_makes_garbage_is_a_timeout() {
    let pool = pool_with(Options {
        threads: NonZeroUsize::MIN,
        batch_timeout: Duration::from_millis(300),
        ..Options::default()
    });
    for statement in [
        "for (;;);",
        "for (;;) new Array(1000).fill(1);",
        "for (let i = 0;; i++) ('text ' + i).split('');",
        "for (let i = 0;; i++) JSON.parse(JSON.stringify({a: [i, i, i]}));",
        "for (;;) await 0;",
    ] {
        let source = format!("async function send({{events}}) {{ {statement} }}");
        let report = load(&pool, &source).run(&batch(["{}"]));
        assert_eq!(failed(&report.results[0]).kind, RowErrorKind::Timeout, "{statement}: {:?}", report.results[0]);
    }
}
