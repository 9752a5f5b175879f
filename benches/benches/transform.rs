//! What a row costs in the sandbox, against the least that V8 can do it for.
//!
//! The *bare* loop parses a batch of rows, calls the transform and turns the results into one text that is copied out: what any host must do.
//! The sandbox does that too, and besides lays strict rows and overlays, keeps the limits, and takes the outputs apart. Both run the
//! winback transform over batches of 500 rows of 1 KB.
//!
//! `cargo bench -p tailwater-benches --bench transform`; the ratio of the two is printed at the end (goal: at least 0.7).

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing else to do")]
#![allow(clippy::print_stdout, reason = "its result")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use tailwater_core::schema::{Column, Schema};
use tailwater_sandbox::{Batch, Headers, NonFinite, Options, Pool, Row, RowResult, RowSchema, Transform};

/// As in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: usize = 500;

const WINBACK: &str = "async function send(payload, headers) {
  return payload.events.map(row => ({data: {type: 'profile', attributes: {email: row.email, properties: {
    rfm_segment: row.rfm_segment, lifetime_value: parseFloat(row.ltv_predicted), days_since_purchase: row.days_since_purchase}}}}));
}";

const COLUMNS: [(&str, &str); 10] = [
    ("customer_id", "string"),
    ("email", "string"),
    ("ltv_predicted", "double"),
    ("rfm_segment", "string"),
    ("last_purchase_date", "date"),
    ("days_since_purchase", "int"),
    ("feature_summary", "struct<orders_90d:int,avg_basket:double,top_category:string,channel:string,tenure_days:int>"),
    ("scores", "array<double>"),
    ("notes", "string"),
    ("updated_at", "timestamp"),
];

/// Rows of about 1 KB, like those of an LTV model's table.
fn rows() -> Vec<Vec<u8>> {
    (0..ROWS)
        .map(|n| {
            format!(
                r#"{{"customer_id":"C{n:06}","email":"customer{n}@example.com","ltv_predicted":{}.5,"rfm_segment":"{}","last_purchase_date":"2026-02-{:02}","days_since_purchase":{},"feature_summary":{{"orders_90d":{},"avg_basket":{}.25,"top_category":"outdoor","channel":"web","tenure_days":{}}},"scores":[0.{n},0.25,0.125,0.5,0.75,0.0625],"notes":"{}","updated_at":"2026-03-15T04:05:06.789Z"}}"#,
                100 + n,
                ["champions", "at_risk", "loyal"][n % 3],
                1 + n % 28,
                n % 90,
                n % 7,
                20 + n % 50,
                n * 3,
                "model run of the night, features frozen at midnight; ".repeat(11),
            )
            .into_bytes()
        })
        .collect()
}

fn batch<'a>(
    rows: &'a [Vec<u8>],
    overlays: &'a [Vec<(&'a str, Option<&'a str>)>],
    schema: &Arc<RowSchema>,
) -> Batch<'a> {
    const EVENT: &[u8] = br#"{"id":"01957f6e-0000-7000-8000-000000000000","source":"ltv","type":"ltv","time":"2026-03-15T04:05:06.789Z"}"#;
    const PROFILE: &[u8] = br#"{"id":"0b5bff0e-5d3a-5c0e-9a55-0b8f9b0a4a01","identifiers":{"email":"customer@example.com","customer_id":"C1"}}"#;
    Batch {
        rows: rows
            .iter()
            .zip(overlays)
            .map(|(data, overlay)| Row { data, overlay, backdrop: &(EVENT, PROFILE) })
            .collect(),
        headers: Headers { source: "ltv".into(), destination: "klaviyo".into(), batch: "bench".into() },
        now_ms: 1_773_532_800_000,
        non_finite: NonFinite::Omit,
        schema: Some(Arc::clone(schema)),
    }
}

fn run(transform: &Transform, batch: &Batch<'_>) -> usize {
    let report = transform.run(batch);
    let outputs = report.results.iter().filter(|result| matches!(result, RowResult::Outputs(_))).count();
    assert_eq!(outputs, ROWS, "{:?}", report.results.first());
    outputs
}

/// The least that a host can do.
struct Bare {
    isolate: v8::OwnedIsolate,
    context: v8::Global<v8::Context>,
    send: v8::Global<v8::Function>,
    headers: v8::Global<v8::Value>,
    text: String,
}

impl Bare {
    fn new() -> Self {
        let mut isolate = v8::Isolate::new(v8::CreateParams::default().heap_limits(0, 128 * 1024 * 1024));
        isolate.set_microtasks_policy(v8::MicrotasksPolicy::Explicit);
        let (context, send, headers) = {
            v8::scope!(let scope, &mut isolate);
            let context = v8::Context::new(scope, v8::ContextOptions::default());
            let scope = &mut v8::ContextScope::new(scope, context);
            let source = v8::String::new(scope, &format!("{WINBACK}; send")).unwrap();
            let send = v8::Script::compile(scope, source, None).unwrap().run(scope).unwrap();
            let send = v8::Local::<v8::Function>::try_from(send).unwrap();
            let headers: v8::Local<'_, v8::Value> = v8::Object::new(scope).into();
            (v8::Global::new(scope, context), v8::Global::new(scope, send), v8::Global::new(scope, headers))
        };
        Self { isolate, context, send, headers, text: String::new() }
    }

    fn run(&mut self, rows: &[Vec<u8>]) -> usize {
        let mut input = Vec::with_capacity(rows.iter().map(|row| row.len() + 1).sum::<usize>() + 16);
        input.extend_from_slice(b"{\"events\":[");
        for (n, row) in rows.iter().enumerate() {
            if n > 0 {
                input.push(b',');
            }
            input.extend_from_slice(row);
        }
        input.extend_from_slice(b"]}");
        v8::scope!(let scope, &mut self.isolate);
        let context = v8::Local::new(scope, &self.context);
        let scope = &mut v8::ContextScope::new(scope, context);
        let input = v8::String::new_external_onebyte(scope, input.into_boxed_slice()).unwrap();
        let payload = v8::json::parse(scope, input).unwrap();
        let send = v8::Local::new(scope, &self.send);
        let headers = v8::Local::new(scope, &self.headers);
        let receiver = v8::undefined(scope).into();
        let promise = send.call(scope, receiver, &[payload, headers]).unwrap();
        scope.perform_microtask_checkpoint();
        let promise = v8::Local::<v8::Promise>::try_from(promise).unwrap();
        let results = promise.result(scope);
        let text = v8::json::stringify(scope, results).unwrap();
        text.write_utf8_into(scope, &mut self.text);
        self.text.len()
    }
}

/// Processor time of all threads of this process, if the system tells; else wall time. A machine that does other things besides
/// makes wall time useless for a ratio.
fn processor_time(since: Instant) -> Duration {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return since.elapsed() };
    let nanoseconds = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    if nanoseconds == 0 { since.elapsed() } else { Duration::from_nanos(nanoseconds) }
}

/// Rows per second of processor time of each of some ways to do a batch. They take turns of a few milliseconds for as long as it takes, so
/// that whatever else the machine does slows all of them alike.
fn rates<const N: usize>(mut subjects: [&mut dyn FnMut() -> usize; N]) -> [f64; N] {
    const BATCHES: u32 = 30;
    const TURNS: u32 = 60;
    let mut spent = [Duration::ZERO; N];
    for turn in 0..=TURNS {
        for (subject, spent) in subjects.iter_mut().zip(&mut spent) {
            let started = Instant::now();
            let before = processor_time(started);
            for _ in 0..BATCHES {
                black_box(subject());
            }
            // The first turn warms up.
            if turn > 0 {
                *spent += processor_time(started) - before;
            }
        }
    }
    spent.map(|spent| f64::from(BATCHES * TURNS) * ROWS as f64 / spent.as_secs_f64())
}

fn main() {
    tailwater_sandbox::initialize();
    let rows = rows();
    let column = |(name, data_type): &(&str, &str)| Column::new(*name, *data_type);
    let schema =
        Arc::new(RowSchema::new(&Schema { columns: COLUMNS.iter().map(column).collect() }, &BTreeMap::new(), true));
    // Each case has an isolate of its own: the rows of a source are either overlaid or not, and V8 learns which.
    let pools = [(); 2].map(|()| Pool::start(Options { threads: NonZeroUsize::MIN, ..Options::default() }).unwrap());
    let [transform, overlaying] = pools.each_ref().map(|pool| pool.load("transforms/winback.js", WINBACK).unwrap());
    let mut bare = Bare::new();

    let none = vec![Vec::new(); ROWS];
    let plain = batch(&rows, &none, &schema);
    let overlays = vec![vec![("email", Some("ada@example.com")), ("phone_number", None)]; ROWS];
    let overlaid = batch(&rows, &overlays, &schema);

    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("winback, 500 rows of 1 KB");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("bare V8", |bencher| bencher.iter(|| bare.run(&rows)));
    group.bench_function("sandbox", |bencher| bencher.iter(|| run(&transform, &plain)));
    group.bench_function("sandbox with two overlaid columns", |bencher| bencher.iter(|| run(&overlaying, &overlaid)));
    group.finish();
    criterion.final_summary();

    let rates = rates([&mut || bare.run(&rows), &mut || run(&transform, &plain), &mut || run(&overlaying, &overlaid)]);
    let bytes = rows.iter().map(Vec::len).sum::<usize>() / ROWS;
    println!(
        "rows of {bytes} bytes per second of processor time: bare {:.0}, sandbox {:.0} (ratio {:.2}), with overlay {:.0} (ratio {:.2})",
        rates[0],
        rates[1],
        rates[1] / rates[0],
        rates[2],
        rates[2] / rates[0]
    );
}
