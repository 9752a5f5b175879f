//! What the product asks of a broker, one by one.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use tailwater_tests::runtime;
use tailwater_tests::topics::{New, Topics};

use crate::Options;
use crate::child::{Child, producer};

const TIMEOUT: Duration = Duration::from_secs(20);

type Outcome = Result<String, String>;

pub fn run(options: &Options) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let child = Child::start(&options.program, folder.path(), None);
    let topics = Topics::at(&format!("127.0.0.1:{}", child.port));
    let mut missing = 0;
    let mut check = |what: &str, outcome: Outcome| match outcome {
        Ok(text) => println!("  yes  {what}{}{text}", if text.is_empty() { "" } else { ": " }),
        Err(text) => {
            missing += 1;
            println!("  NO   {what}: {text}");
        }
    };
    check("keys, nulls and headers come back byte for byte", contents(&topics));
    check("the settings of a topic are told", settings(&child, &topics));
    check("a record above the limit is refused", too_large(&child, &topics));
    check("a topic that nobody made does not appear by itself", appears(&child, &topics));
    check("offsets are committed and come back", offsets(&child, &topics));
    check("an offset of a time", times(&child, &topics));
    check("two members share a topic, and one takes over (cooperative-sticky)", members(&child, &topics));
    check("records can be removed up to an offset", removal(&topics));
    check("a deleted topic is gone, and can be made anew, empty", deletion(&topics));
    check("a compacted topic keeps the last value of each key", compaction(&topics));
    check("a compacted topic forgets a deleted key", tombstones(&topics));
    check("records are removed after their retention", retention(&topics));
    check("transactions", transactions(&child, &topics));
    child.stop();
    missing
}

fn that(holds: bool, text: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(String::new()) } else { Err(text()) }
}

fn told(result: Result<Outcome, rdkafka::error::KafkaError>) -> Outcome {
    result.unwrap_or_else(|error| Err(error.to_string()))
}

fn admin(child: &Child) -> AdminClient<DefaultClientContext> {
    child.client().create().unwrap()
}

fn one(topic: &str, offset: Offset) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, offset).unwrap();
    list
}

fn contents(topics: &Topics) -> Outcome {
    topics.create("contents", 1, &[]);
    let bytes: &[u8] = &[0, 255, 128, 10];
    topics.produce(
        "contents",
        [
            New { key: Some(bytes), value: Some(bytes), headers: &[("tw", bytes), ("b", b"")], ..New::default() },
            New { key: Some(b"k"), value: None, ..New::default() },
            New { value: Some(b""), ..New::default() },
        ],
    );
    let seen = topics.read("contents");
    let right = seen.len() == 3
        && seen[0].key.as_deref() == Some(bytes)
        && seen[0].value.as_deref() == Some(bytes)
        && seen[0].headers == [("tw".to_owned(), Some(bytes.to_vec())), ("b".to_owned(), Some(Vec::new()))]
        && seen[1].value.is_none()
        && seen[2].key.is_none()
        && seen[2].value.as_deref() == Some(b"");
    that(right, || format!("{:?}", seen.iter().map(|record| (record, &record.headers)).collect::<Vec<_>>()))
}

fn settings(child: &Child, topics: &Topics) -> Outcome {
    topics.create("settings", 1, &[("cleanup.policy", "compact,delete"), ("retention.ms", "86400000")]);
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let described =
        runtime().block_on(admin(child).describe_configs(&[ResourceSpecifier::Topic("settings")], &options));
    told(described.map(|found| {
        let entries = found.into_iter().flatten().flat_map(|resource| resource.entries);
        let of: std::collections::BTreeMap<String, Option<String>> =
            entries.map(|entry| (entry.name, entry.value)).collect();
        let get = |name: &str| of.get(name).cloned().flatten();
        let text = format!(
            "cleanup.policy {:?}, retention.ms {:?}, max.message.bytes {:?}",
            get("cleanup.policy"),
            get("retention.ms"),
            get("max.message.bytes")
        );
        if get("cleanup.policy").is_some() && get("max.message.bytes").is_some() { Ok(text) } else { Err(text) }
    }))
}

fn too_large(child: &Child, topics: &Topics) -> Outcome {
    topics.create("large", 1, &[]);
    let sender: BaseProducer = producer(child.port).set("message.max.bytes", "100000000").create().unwrap();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let noise: Vec<u8> = (0..20 << 20)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        })
        .collect();
    sender.send(BaseRecord::<[u8], [u8]>::to("large").payload(&noise)).map_err(|(error, _)| error.to_string())?;
    sender.flush(TIMEOUT).map_err(|error| error.to_string())?;
    let count = topics.count("large");
    that(count == 0, || format!("{count} records of 20 MB were taken"))
}

fn appears(child: &Child, topics: &Topics) -> Outcome {
    let sender: BaseProducer = producer(child.port).set("message.timeout.ms", "3000").create().unwrap();
    sender.send(BaseRecord::<[u8], [u8]>::to("nobodys").payload(b"x")).map_err(|(error, _)| error.to_string())?;
    sender.flush(TIMEOUT).map_err(|error| error.to_string())?;
    let names = topics.names("nobodys");
    that(names.is_empty(), || format!("it has {} partitions", topics.watermarks("nobodys").len()))
}

fn offsets(child: &Child, topics: &Topics) -> Outcome {
    topics.create("offsets", 1, &[]);
    topics.produce("offsets", (0..10).map(|_| New { value: Some(b"x"), ..New::default() }));
    let reader: BaseConsumer = child.client().set("group.id", "offsets").create().unwrap();
    let asked = || reader.committed_offsets(one("offsets", Offset::Invalid), TIMEOUT);
    let before = asked().map_err(|error| error.to_string())?;
    let list = one("offsets", Offset::Offset(7));
    list.find_partition("offsets", 0).unwrap().set_metadata("kept");
    reader.commit(&list, CommitMode::Sync).map_err(|error| error.to_string())?;
    let after = asked().map_err(|error| error.to_string())?;
    let (before, after) = (before.find_partition("offsets", 0).unwrap(), after.find_partition("offsets", 0).unwrap());
    that(before.offset() == Offset::Invalid && after.offset() == Offset::Offset(7), || {
        format!("{:?}, then {:?}", before.offset(), after.offset())
    })
    .map(|_| format!("the text beside them: {:?}", after.metadata()))
}

fn times(child: &Child, topics: &Topics) -> Outcome {
    topics.create("times", 1, &[]);
    let sender: BaseProducer = producer(child.port).create().unwrap();
    let base = 1_700_000_000_000_i64;
    for step in 0..10 {
        sender
            .send(BaseRecord::<[u8], [u8]>::to("times").payload(b"x").timestamp(base + step * 1000))
            .map_err(|(error, _)| error.to_string())?;
    }
    sender.flush(TIMEOUT).map_err(|error| error.to_string())?;
    let reader: BaseConsumer = child.client().create().unwrap();
    let found = reader.offsets_for_times(one("times", Offset::Offset(base + 4500)), TIMEOUT);
    told(found.map(|list| {
        let offset = list.find_partition("times", 0).unwrap().offset();
        that(offset == Offset::Offset(5), || format!("{offset:?} instead of 5"))
    }))
}

fn members(child: &Child, topics: &Topics) -> Outcome {
    topics.create("members", 8, &[]);
    let member = || -> BaseConsumer {
        child
            .client()
            .set("group.id", "members")
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "500")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap()
    };
    let owned = |consumer: &BaseConsumer| consumer.assignment().map_or(0, |list| list.count());
    let until = |members: &[&BaseConsumer], wanted: &[usize]| {
        let began = Instant::now();
        loop {
            for member in members {
                member.poll(Duration::from_millis(20));
            }
            let have: Vec<usize> = members.iter().map(|member| owned(member)).collect();
            if have == wanted {
                return Ok(began.elapsed());
            }
            if began.elapsed() > Duration::from_secs(30) {
                return Err(format!("{have:?} instead of {wanted:?}"));
            }
        }
    };
    let first = member();
    first.subscribe(&["members"]).map_err(|error| error.to_string())?;
    let alone = until(&[&first], &[8])?;
    let second = member();
    second.subscribe(&["members"]).map_err(|error| error.to_string())?;
    let shared = until(&[&first, &second], &[4, 4])?;
    drop(first);
    let left = until(&[&second], &[8])?;
    Ok(format!(
        "alone after {} ms, shared after {} ms, taken over after {} ms",
        alone.as_millis(),
        shared.as_millis(),
        left.as_millis()
    ))
}

fn removal(topics: &Topics) -> Outcome {
    topics.create("removal", 1, &[]);
    topics.produce("removal", (0..10).map(|_| New { value: Some(b"x"), ..New::default() }));
    topics.empty("removal");
    let marks = topics.watermarks("removal");
    that(marks == [(0, (10, 10))], || format!("{marks:?}"))
}

fn deletion(topics: &Topics) -> Outcome {
    topics.create("deletion", 1, &[]);
    topics.produce("deletion", [New { value: Some(b"x"), ..New::default() }]);
    topics.delete("deletion");
    let began = Instant::now();
    while !topics.names("deletion").is_empty() {
        if began.elapsed() > TIMEOUT {
            return Err("it is still there".to_owned());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    topics.create("deletion", 1, &[]);
    let marks = topics.watermarks("deletion");
    that(marks == [(0, (0, 0))], || format!("{marks:?}"))
}

/// Asks again, for as long as a broker's maintenance may take to come around.
fn in_time(what: impl Fn() -> Outcome) -> Outcome {
    let began = Instant::now();
    loop {
        match what() {
            Ok(_) => return Ok(format!("within {} s", began.elapsed().as_secs())),
            Err(text) if began.elapsed() > Duration::from_secs(90) => return Err(text),
            Err(_) => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}

fn compaction(topics: &Topics) -> Outcome {
    topics.create("compacted", 1, &[("cleanup.policy", "compact"), ("segment.ms", "500")]);
    for round in 0..5 {
        let rows: Vec<(String, String)> = (0..20).map(|key| (format!("k{key}"), round.to_string())).collect();
        let record = |(key, value): &(String, String)| (key.clone(), value.clone());
        for (key, value) in rows.iter().map(record) {
            topics.produce(
                "compacted",
                [New { key: Some(key.as_bytes()), value: Some(value.as_bytes()), ..New::default() }],
            );
        }
        std::thread::sleep(Duration::from_millis(600));
    }
    in_time(|| {
        // A log's active segment is never compacted: something has to come after what is looked at.
        topics.produce("compacted", [New { key: Some(b"last"), value: Some(b"x"), ..New::default() }]);
        let seen = topics.read("compacted");
        let of = |key: String| -> Vec<String> {
            let values = seen.iter().filter(|record| record.key.as_deref() == Some(key.as_bytes()));
            values
                .map(|record| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned())
                .collect()
        };
        let whole = (0..20).all(|key| of(format!("k{key}")) == ["4"]);
        let ordered = seen.is_sorted_by_key(|record| record.offset);
        that(whole && ordered, || format!("{} records are left; k0 has {:?}", seen.len(), of("k0".to_owned())))
    })
}

fn tombstones(topics: &Topics) -> Outcome {
    topics.create(
        "tombstones",
        1,
        &[("cleanup.policy", "compact"), ("segment.ms", "500"), ("delete.retention.ms", "100")],
    );
    topics.produce("tombstones", [New { key: Some(b"k"), value: Some(b"x"), ..New::default() }]);
    topics.produce("tombstones", [New { key: Some(b"k"), value: None, ..New::default() }]);
    in_time(|| {
        std::thread::sleep(Duration::from_millis(600));
        topics.produce("tombstones", [New { key: Some(b"last"), value: Some(b"x"), ..New::default() }]);
        let left = topics.read("tombstones").iter().filter(|record| record.key.as_deref() == Some(b"k")).count();
        that(left == 0, || format!("{left} records of the key are left"))
    })
}

fn retention(topics: &Topics) -> Outcome {
    topics.create("retention", 1, &[("cleanup.policy", "delete"), ("retention.ms", "1000"), ("segment.ms", "500")]);
    topics.produce("retention", (0..10).map(|_| New { value: Some(b"x"), ..New::default() }));
    in_time(|| {
        let marks = topics.watermarks("retention");
        let seen = topics.count("retention");
        that(seen == 0 && marks == [(0, (10, 10))], || format!("{seen} records are left, the bounds are {marks:?}"))
    })
}

fn transactions(child: &Child, topics: &Topics) -> Outcome {
    topics.create("transactions", 1, &[]);
    let sender: BaseProducer = producer(child.port).set("transactional.id", "trial").create().unwrap();
    sender.init_transactions(TIMEOUT).map_err(|error| error.to_string())?;
    sender.begin_transaction().map_err(|error| error.to_string())?;
    sender.send(BaseRecord::<[u8], [u8]>::to("transactions").payload(b"x")).map_err(|(error, _)| error.to_string())?;
    sender.flush(TIMEOUT).map_err(|error| error.to_string())?;
    sender.abort_transaction(TIMEOUT).map_err(|error| error.to_string())?;
    let seen = topics.count("transactions");
    that(seen == 0, || format!("{seen} records of an aborted transaction are seen"))
}
