//! The state store beside what it stands on: reads beside its disk, writes beside a plain transactional producer, a restore beside a plain read
//! of the changelog.

use std::path::Path;
use std::time::{Duration, Instant};

use fjall::{Database, KeyspaceCreateOptions};
use rdkafka::config::FromClientConfig as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use tailwater::config::model::Kafka;
use tailwater::kafka::{Consumer, Log as _, Outgoing, Outputs as _, Producer, client};
use tailwater::stages::shared::commit::{Stage, UnitOfWork};
use tailwater::state::{Cache, Store};
use tailwater_tests::topics::Topics;
use tempfile::TempDir;

use super::{ROUNDS, Run};
use crate::report::{Figure, Report, median};
use crate::workspace::{self, Setup, Workspace};

/// Entries of the changelog.
const ENTRIES: usize = 1_000_000;

/// Entries in one transaction: as many as a full batch of a stage.
const BATCH: usize = 5_000;

/// Entries that are written in one round.
const WRITTEN: usize = 200_000;

/// Keys that are looked up in one round, every second of which is there.
const LOOKED_UP: usize = 400_000;

fn key(entry: usize) -> Vec<u8> {
    // Spread as hashes are, so that neighbours in time are no neighbours on disk.
    let mixed = (entry as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut key = vec![b'k'];
    key.extend_from_slice(&mixed.to_be_bytes());
    key.extend_from_slice(&(entry as u64).to_be_bytes());
    key
}

fn value(entry: usize) -> Vec<u8> {
    format!("{{\"position\":[0,7,{entry}],\"delivery\":\"0191d7f0a1b2c3d4e5f60718{entry:08x}\",\"content\":\"5f6d\"}}")
        .into_bytes()
}

fn open(folder: &Path) -> Cache {
    Cache::open(folder, tailwater::runtime::clock::now).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
}

fn folder() -> TempDir {
    TempDir::new().unwrap_or_else(|error| panic!("no folder: {error}"))
}

pub fn measure(run: &mut Run, report: &mut Report) {
    let workspace = Workspace::new(&run.brokers(), "state", &Setup::new("throughput"));
    let config = workspace::load(&workspace.config());
    let (kafka, topic) = (&config.kafka, workspace.name("state.bench"));
    Topics::at(workspace.brokers()).create(&topic, 1, &[("cleanup.policy", "compact")]);

    let home = folder();
    let cache = open(home.path());
    let mut store = Store::new(kafka, &cache, &topic);
    let producer = connect(kafka, "store", &topic);
    store.restore(&[0], &|| {}).unwrap_or_else(|error| panic!("{error}"));
    let mut unit = UnitOfWork::new(Stage::Route, producer, store, None);
    write(kafka, &mut unit, 0..ENTRIES);

    restores(kafka, &topic, report);
    reads(unit.store(), report);
    writes(kafka, &topic, &mut unit, report);
}

fn connect(kafka: &Kafka, name: &str, topic: &str) -> Producer {
    Producer::connect(kafka, Some(&format!("{topic}.{name}")), &[topic.to_owned()])
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Writes entries as a stage does: into the store, to the changelog, in transactions of a batch each.
fn write(kafka: &Kafka, unit: &mut UnitOfWork, entries: std::ops::Range<usize>) {
    let group = Consumer::create(kafka, unit.store().topic()).unwrap_or_else(|error| panic!("{error}"));
    let mut batch = |entries: std::ops::Range<usize>| -> Result<(), tailwater::stages::Error> {
        for entry in entries {
            unit.store_mut().put(0, key(entry), Some(value(entry)))?;
        }
        unit.commit([], &group)
    };
    for start in entries.clone().step_by(BATCH) {
        batch(start..(start + BATCH).min(entries.end)).unwrap_or_else(|error| panic!("{error}"));
    }
}

fn restores(kafka: &Kafka, topic: &str, report: &mut Report) {
    let bytes = (0..1000).map(|entry| key(entry).len() + value(entry).len()).sum::<usize>() as f64 / 1000.0;
    let (mut ours, mut limits) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let started = Instant::now();
        // One more than was put: the store's marker, by which a topic that was made anew is known.
        assert_eq!(plain_read(kafka, topic), ENTRIES + 1);
        limits.push(ENTRIES as f64 / started.elapsed().as_secs_f64());
        let home = folder();
        let cache = open(home.path());
        let mut store = Store::new(kafka, &cache, topic);
        let started = Instant::now();
        store.restore(&[0], &|| {}).unwrap_or_else(|error| panic!("{error}"));
        ours.push(ENTRIES as f64 / started.elapsed().as_secs_f64());
        let found = store.get(0, &key(ENTRIES - 1)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(found, Some(value(ENTRIES - 1)));
    }
    let (ours, limit) = (median(ours), median(limits));
    let what = "restore of a changelog of 1,000,000 entries to an empty disk, beside a plain read";
    report.add(Figure::new("state", what, "entries/s", ours).beside(limit));
    report.add(Figure::new("state", what, "MB/s", ours * bytes / 1e6).beside(limit * bytes / 1e6));
}

/// Reads a changelog and does nothing with it.
fn plain_read(kafka: &Kafka, topic: &str) -> usize {
    let mut config = client::consumer(kafka, None);
    config.set("enable.partition.eof", "true");
    let consumer = BaseConsumer::from_config(&config).unwrap_or_else(|error| panic!("no consumer: {error}"));
    let mut list = TopicPartitionList::new();
    let added = list.add_partition_offset(topic, 0, Offset::Beginning);
    added.and_then(|()| consumer.assign(&list)).unwrap_or_else(|error| panic!("{topic}: {error}"));
    let mut count = 0;
    loop {
        // A wait asks the clock for every record; there is one only where nothing is ready.
        match consumer.poll(Duration::ZERO).or_else(|| consumer.poll(Duration::from_secs(30))) {
            Some(Ok(message)) => count += usize::from(message.key().is_some()),
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => return count,
            Some(Err(error)) => panic!("{topic}: {error}"),
            None => panic!("nothing came from {topic}"),
        }
    }
}

fn reads(store: &Store, report: &mut Report) {
    let home = folder();
    let failed = |error: fjall::Error| -> ! { panic!("{error}") };
    let database = Database::builder(home.path()).open().unwrap_or_else(|error| failed(error));
    let disk = database.keyspace("bench", KeyspaceCreateOptions::default).unwrap_or_else(|error| failed(error));
    for start in (0..ENTRIES).step_by(BATCH) {
        let mut batch = database.batch();
        for entry in start..start + BATCH {
            batch.insert(&disk, key(entry), value(entry));
        }
        batch.commit().unwrap_or_else(|error| failed(error));
    }
    // Half of the keys are not there: a stage asks as often for people whom it does not know.
    let wanted: Vec<Vec<u8>> = (0..LOOKED_UP).map(|look| key(look.wrapping_mul(7919) % (2 * ENTRIES))).collect();
    let there = (0..LOOKED_UP).filter(|look| look.wrapping_mul(7919) % (2 * ENTRIES) < ENTRIES).count();
    let (mut ours, mut limits) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let found = wanted.iter().filter(|key| disk.get(key).unwrap_or_else(|error| failed(error)).is_some()).count();
        assert_eq!(found, there);
        limits.push(LOOKED_UP as f64 / started.elapsed().as_secs_f64());
        let started = Instant::now();
        let found = wanted.iter().filter(|key| store.get(0, key).unwrap_or_else(|error| panic!("{error}")).is_some());
        assert_eq!(found.count(), there);
        ours.push(LOOKED_UP as f64 / started.elapsed().as_secs_f64());
    }
    let what = "get among 1,000,000 entries, half of the keys absent, beside the embedded database alone";
    report.add(Figure::new("state", what, "gets/s", median(ours)).beside(median(limits)));
}

fn writes(kafka: &Kafka, topic: &str, unit: &mut UnitOfWork, report: &mut Report) {
    let mut plain = connect(kafka, "plain", topic);
    let (mut ours, mut limits) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let entries = round * WRITTEN..(round + 1) * WRITTEN;
        let started = Instant::now();
        for start in entries.clone().step_by(BATCH) {
            for entry in start..start + BATCH {
                let (key, value) = (key(entry), value(entry));
                plain
                    .send(&Outgoing::to(topic).partition(0).key(&key).value(Some(&value)))
                    .unwrap_or_else(|error| panic!("{error}"));
            }
            plain.commit_without_offsets().unwrap_or_else(|error| panic!("{error}"));
        }
        limits.push(WRITTEN as f64 / started.elapsed().as_secs_f64());
        let started = Instant::now();
        write(kafka, unit, entries);
        ours.push(WRITTEN as f64 / started.elapsed().as_secs_f64());
    }
    let what = "put, in transactions of 5,000, to topic and disk, beside a plain transactional producer";
    report.add(Figure::new("state", what, "puts/s", median(ours)).beside(median(limits)));
}
