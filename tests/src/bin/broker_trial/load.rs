//! Throughput, memory and latency.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};
use tailwater_tests::topics::Topics;

use crate::Options;
use crate::child::{Child, producer};

const PARTITIONS: i32 = 8;
const RECORD_BYTES: usize = 1024;

/// Counts acknowledgements.
#[derive(Clone, Default)]
struct Acknowledged(Arc<AtomicUsize>);

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            panic!("a record was refused: {error}");
        }
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// Text that hardly compresses, as ids and hashes do.
fn payload(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = Vec::with_capacity(RECORD_BYTES);
    while text.len() < RECORD_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.extend_from_slice(format!("{state:016x}").as_bytes());
    }
    text
}

fn all(topic: &str, offset: Offset) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, offset).unwrap();
    }
    list
}

pub fn throughput(options: &Options) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let child = Child::start(&options.program, folder.path(), None);
    let idle = child.memory() >> 20;
    Topics::at(&format!("127.0.0.1:{}", child.port)).create("load", PARTITIONS, &[]);
    let payloads: Vec<Vec<u8>> = (0..1000).map(payload).collect();
    for round in 1..=3 {
        let acknowledged = Acknowledged::default();
        let sender: BaseProducer<Acknowledged> =
            BaseProducer::from_config_and_context(&producer(child.port), acknowledged.clone()).unwrap();
        let (began, cpu) = (Instant::now(), child.cpu());
        for index in 0..options.records {
            let key = index.to_string();
            let mut record = BaseRecord::to("load").key(&key).payload(&payloads[index % payloads.len()]);
            while let Err((_, back)) = sender.send(record) {
                sender.poll(Duration::from_millis(5));
                record = back;
            }
            if index % 1024 == 0 {
                sender.poll(Duration::ZERO);
            }
        }
        while acknowledged.0.load(Ordering::Acquire) < options.records {
            sender.poll(Duration::from_millis(1));
        }
        report("produced", round, options.records, began.elapsed(), child.cpu() - cpu, &child);
    }
    for round in 1..=3 {
        let reader: BaseConsumer =
            child.client().set("fetch.wait.max.ms", "20").set("fetch.queue.backoff.ms", "50").create().unwrap();
        reader.assign(&all("load", Offset::Beginning)).unwrap();
        let (began, cpu, mut seen) = (Instant::now(), child.cpu(), 0);
        while seen < options.records * 3 {
            match reader.poll(Duration::from_secs(30)) {
                Some(Ok(_)) => seen += 1,
                other => panic!("after {seen} records: {:?}", other.map(|result| result.map(|_| ()))),
            }
        }
        report("consumed", round, seen, began.elapsed(), child.cpu() - cpu, &child);
    }
    println!("resident: idle {idle} MB, after the load {} MB", child.memory() >> 20);
    child.stop();
    let disk: u64 = walk(folder.path());
    println!("on disk: {} MB for {} MB of values", disk >> 20, (options.records * 3 * RECORD_BYTES) >> 20);
    0
}

fn report(what: &str, round: usize, records: usize, took: Duration, cpu: Duration, child: &Child) {
    println!(
        "{what} (round {round}): {:.0} records/s, {:.1} us of the broker's CPU a record, resident {} MB",
        records as f64 / took.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / records as f64,
        child.memory() >> 20
    );
}

fn walk(folder: &std::path::Path) -> u64 {
    std::fs::read_dir(folder)
        .unwrap()
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => walk(&entry.path()),
            // Index files are reserved and not written: what counts is what takes place.
            Ok(data) => std::os::unix::fs::MetadataExt::blocks(&data) * 512,
            Err(_) => 0,
        })
        .sum()
}

/// One record at a time, two hundred a second: until it is acknowledged, and until a reader has it.
pub fn latency(options: &Options) -> usize {
    const COUNT: usize = 2000;
    let folder = tempfile::tempdir().unwrap();
    let child = Child::start(&options.program, folder.path(), None);
    Topics::at(&format!("127.0.0.1:{}", child.port)).create("latency", PARTITIONS, &[]);
    let epoch = Instant::now();
    let reader: BaseConsumer = child.client().set("fetch.wait.max.ms", "5").create().unwrap();
    reader.assign(&all("latency", Offset::Beginning)).unwrap();
    let reading = std::thread::spawn(move || {
        let mut delays = Vec::with_capacity(COUNT);
        while delays.len() < COUNT {
            let Some(Ok(message)) = reader.poll(Duration::from_secs(10)) else {
                panic!("after {} records", delays.len())
            };
            let sent: u128 = std::str::from_utf8(message.key().unwrap()).unwrap().parse().unwrap();
            delays.push(epoch.elapsed().as_micros() - sent);
        }
        delays
    });
    let acknowledged = Acknowledged::default();
    let mut config = producer(child.port);
    config.set("linger.ms", "0");
    let sender: BaseProducer<Acknowledged> =
        BaseProducer::from_config_and_context(&config, acknowledged.clone()).unwrap();
    let value = payload(1);
    let mut acks = Vec::with_capacity(COUNT);
    for index in 0..COUNT {
        let sent = epoch.elapsed().as_micros();
        let key = sent.to_string();
        sender.send(BaseRecord::to("latency").key(&key).payload(&value)).map_err(|(error, _)| error).unwrap();
        while acknowledged.0.load(Ordering::Acquire) <= index {
            sender.poll(Duration::from_millis(1));
        }
        acks.push(epoch.elapsed().as_micros() - sent);
        std::thread::sleep(
            Duration::from_millis(5)
                .saturating_sub(Duration::from_micros(u64::try_from(*acks.last().unwrap()).unwrap())),
        );
    }
    sender.flush(Duration::from_secs(10)).unwrap();
    for (what, mut delays) in [("acknowledged", acks), ("read", reading.join().unwrap())] {
        delays.sort_unstable();
        println!(
            "{what} after: p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
            delays[COUNT / 2] as f64 / 1000.0,
            delays[COUNT * 99 / 100] as f64 / 1000.0,
            delays[COUNT - 1] as f64 / 1000.0
        );
    }
    child.stop();
    0
}
