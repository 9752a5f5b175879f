//! What the identity decision costs per event, without Kafka and without a disk: known people, new people, and a merge of
//! two large profiles.

#![allow(clippy::unwrap_used, reason = "a bench may stop at the first surprise")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tailwater_core::Timestamp;
use tailwater_core::envelope::Identifier;
use tailwater_identity::{Globals, Incoming, MemoryStore, Normaliser, Resolver, Rules, TypeRule};

const BATCH: usize = 2_000;

fn rules() -> Rules {
    let types = vec![
        TypeRule::new("customer_id", 1).max(1),
        TypeRule::new("email", 2).normaliser(Normaliser::Email),
        TypeRule::new("anonymous_id", 3).max(1_000),
    ];
    Rules::new(types, Globals::default()).unwrap()
}

/// One row per person: the values of the three types.
fn rows() -> Vec<[String; 3]> {
    (0..BATCH).map(|n| [format!("cust_{n}"), format!("Customer.{n}@Example.com"), format!("anon-{n:08x}")]).collect()
}

fn resolve(criterion: &mut Criterion) {
    let rules = rules();
    let resolver = Resolver::new(&rules, "bench");
    let rows = rows();
    let identifiers: Vec<[Identifier<'_>; 3]> = rows
        .iter()
        .map(|[customer_id, email, anonymous_id]| {
            [
                Identifier { kind: "customer_id", value: customer_id },
                Identifier { kind: "email", value: email },
                Identifier { kind: "anonymous_id", value: anonymous_id },
            ]
        })
        .collect();
    let events: Vec<Incoming<'_>> =
        identifiers.iter().map(|identifiers| Incoming { identifiers, time: Timestamp::default() }).collect();
    let decide = |store: &MemoryStore, events: &[Incoming<'_>]| resolver.resolve(store, events).unwrap();

    let empty = MemoryStore::default();
    let mut known = MemoryStore::default();
    known.apply(&decide(&known, &events).writes);

    let mut group = criterion.benchmark_group("resolve");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("known people, three identifiers", |bencher| bencher.iter(|| decide(&known, &events)));
    group.bench_function("new people, three identifiers", |bencher| bencher.iter(|| decide(&empty, &events)));
    group.finish();

    let mut halves = MemoryStore::default();
    for (customer, half) in rows.chunks(450).take(2).enumerate() {
        for row in half.chunks(10) {
            let email = format!("half{customer}@example.com");
            let mut identifiers = vec![Identifier { kind: "email", value: &email }];
            identifiers.extend(row.iter().map(|[_, _, cookie]| Identifier { kind: "anonymous_id", value: cookie }));
            let event = Incoming { identifiers: &identifiers, time: Timestamp::default() };
            halves.apply(&decide(&halves, &[event]).writes);
        }
    }
    let meeting = [
        Identifier { kind: "email", value: "half0@example.com" },
        Identifier { kind: "email", value: "half1@example.com" },
    ];
    let meeting = [Incoming { identifiers: &meeting, time: Timestamp::default() }];
    let merged = decide(&halves, &meeting);
    assert_eq!(merged.decisions[0].resolution().map_or(0, |resolution| resolution.merges.len()), 1);
    criterion.bench_function("merge of two profiles with 451 identifiers each", |bencher| {
        bencher.iter(|| decide(&halves, &meeting));
    });
}

criterion_group!(benches, resolve);
criterion_main!(benches);
