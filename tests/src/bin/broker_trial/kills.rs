//! Kills the broker again and again under a producer that counts acknowledgements and a group that commits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};
use tailwater_tests::topics::Topics;

use crate::Options;
use crate::child::{Child, client, producer};

const PARTITIONS: i32 = 8;
const QUERY: Duration = Duration::from_secs(20);

/// Remembers what was acknowledged and what was refused.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<(Vec<usize>, Vec<String>)>>);

impl ClientContext for Answers {}

impl ProducerContext for Answers {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, sequence: usize) {
        let (acknowledged, refused) = &mut *self.0.lock().unwrap();
        match result {
            Ok(_) => acknowledged.push(sequence),
            Err((error, _)) => refused.push(format!("{sequence}: {error}")),
        }
    }
}

/// Sends numbered records, about ten thousand a second, until told to stop; then waits for their answers.
fn send(port: u16, answers: Answers, done: &AtomicBool) -> usize {
    let mut config = producer(port);
    config.set("message.timeout.ms", "120000");
    let sender: BaseProducer<Answers> = BaseProducer::from_config_and_context(&config, answers).unwrap();
    let filler = "x".repeat(200);
    let mut sequence = 0;
    while !done.load(Ordering::Relaxed) {
        for _ in 0..50 {
            let value = format!("{sequence} {filler}");
            let partition = i32::try_from(sequence % 8).unwrap();
            let mut record: BaseRecord<'_, str, str, usize> =
                BaseRecord::with_opaque_to("kills", sequence).partition(partition).payload(&value);
            while let Err((_, back)) = sender.send(record) {
                sender.poll(Duration::from_millis(5));
                record = back;
            }
            sequence += 1;
        }
        sender.poll(Duration::from_millis(5));
    }
    sender.flush(Duration::from_secs(150)).unwrap();
    sequence
}

pub fn run(options: &Options) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Child::start(&options.program, folder.path(), None);
    let port = child.port;
    let topics = Topics::at(&format!("127.0.0.1:{port}"));
    topics.create("kills", PARTITIONS, &[]);
    let (answers, done) = (Answers::default(), Arc::new(AtomicBool::new(false)));
    let (given, stop) = (answers.clone(), Arc::clone(&done));
    let sending = std::thread::spawn(move || send(port, given, &stop));
    let committer: BaseConsumer = client(port).set("group.id", "kills").create().unwrap();
    let (mut forgotten, mut starts, mut random) = (0, Vec::new(), 0x2545_f491_4f6c_dd1d_u64);
    for round in 1..=options.kills {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(Duration::from_millis(300 + random % 1200));
        let offset = i64::try_from(round).unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("kills", 0, Offset::Offset(offset)).unwrap();
        committer.commit(&list, CommitMode::Sync).unwrap_or_else(|error| panic!("commit before kill {round}: {error}"));
        child.kill();
        child = Child::start(&options.program, folder.path(), Some(port));
        starts.push(child.started_in.as_millis());
        let mut asked = TopicPartitionList::new();
        asked.add_partition("kills", 0);
        let found = patiently(|| committer.committed_offsets(asked.clone(), QUERY));
        if found.find_partition("kills", 0).unwrap().offset() != Offset::Offset(offset) {
            forgotten += 1;
        }
    }
    done.store(true, Ordering::Relaxed);
    let sent = sending.join().unwrap();
    let (acknowledged, refused) = std::mem::take(&mut *answers.0.lock().unwrap());
    let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
    let (mut reordered, mut last) = (0, BTreeMap::<i32, usize>::new());
    let records = topics.read("kills");
    for record in &records {
        let value = record.value.as_deref().unwrap();
        let sequence: usize = std::str::from_utf8(value).unwrap().split(' ').next().unwrap().parse().unwrap();
        *seen.entry(sequence).or_default() += 1;
        if last.insert(record.partition, sequence).is_some_and(|before| before >= sequence) {
            reordered += 1;
        }
    }
    let lost = acknowledged.iter().filter(|sequence| !seen.contains_key(sequence)).count();
    let duplicated: usize = seen.values().map(|count| count - 1).sum();
    starts.sort_unstable();
    println!(
        "{} kills: {sent} sent, {} acknowledged, {} refused, {} read; lost {lost}, duplicated {duplicated}, reordered {reordered}, \
         commits forgotten {forgotten}; up again after {} ms (median), {} ms (longest)",
        options.kills,
        acknowledged.len(),
        refused.len(),
        records.len(),
        starts[starts.len() / 2],
        starts[starts.len() - 1]
    );
    for text in refused.iter().take(3) {
        println!("  refused {text}");
    }
    child.stop();
    lost + duplicated + reordered + forgotten + refused.len()
}

fn patiently<T, E: std::fmt::Display>(ask: impl Fn() -> Result<T, E>) -> T {
    let began = Instant::now();
    loop {
        match ask() {
            Ok(found) => return found,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(60), "{error}"),
        }
    }
}
