//! A Kafka without transactions, inside of this process: what is in its topics when a batch does not get to its end.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::*;
use crate::config::model::Kafka;
use crate::kafka::Consumer;
use crate::kafka::read::Reader;
use crate::runtime::clock;
use crate::state::{Cache, Error as StateError};

const WAIT: Duration = Duration::from_secs(10);

struct Scene {
    cluster: MockCluster<'static, DefaultProducerContext>,
    kafka: Kafka,
    cache: Cache,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        for topic in ["t.in", "t.state", "t.out"] {
            cluster.create_topic(topic, 1, 1).unwrap();
        }
        let (store, _) = Store::without_broker(&[]);
        let kafka = Kafka { brokers: cluster.bootstrap_servers(), transactions: false, ..store.kafka().clone() };
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), clock::now).unwrap();
        Self { cluster, kafka, cache, _folder: folder }
    }

    fn producer(&self) -> Producer {
        Producer::connect(&self.kafka, None, &[]).unwrap()
    }

    fn unit(&self, store: Store) -> UnitOfWork {
        UnitOfWork::new(Stage::Route, self.producer(), store, None)
    }

    fn group(&self) -> Consumer {
        Consumer::create(&self.kafka, "t.group").unwrap()
    }

    /// A store with an empty disk that has followed the topic.
    fn restored(&self) -> (Store, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::new(&self.kafka, &Cache::open(folder.path(), clock::now).unwrap(), "t.state");
        store.restore(&[0], &|| {}).unwrap();
        (store, folder)
    }

    fn end(&self, topic: &str) -> i64 {
        let consumer: BaseConsumer =
            rdkafka::ClientConfig::new().set("bootstrap.servers", &self.kafka.brokers).create().unwrap();
        consumer.fetch_watermarks(topic, 0, WAIT).unwrap().1
    }
}

// Issue 10, A13.
#[test]
fn state_is_not_written_before_every_output_is_acknowledged() {
    let scene = Scene::new();
    // The partition of the outputs has no leader: they cannot be acknowledged.
    scene.cluster.partition_leader("t.out", 0, None).unwrap();
    let mut store = Store::new(&scene.kafka, &scene.cache, "t.state");
    store.restore(&[0], &|| {}).unwrap();
    let mut unit = scene.unit(store);
    unit.send(&Outgoing::to("t.out").partition(0).value(Some(b"row"))).unwrap();
    unit.store_mut().put(0, b"cursor".to_vec(), Some(b"1".to_vec())).unwrap();
    std::thread::scope(|scope| {
        let group = scene.group();
        let work = scope.spawn(move || {
            unit.commit([("t.in", 0, 1)], &group).unwrap();
        });
        std::thread::sleep(Duration::from_millis(1_500));
        assert_eq!(scene.end("t.state"), 0, "a process that is killed now has lost its outputs and kept its cursor");
        scene.cluster.partition_leader("t.out", 0, Some(1)).unwrap();
        work.join().unwrap();
    });
    assert_eq!(scene.end("t.out"), 1);
    let (restored, _folder) = scene.restored();
    assert_eq!(restored.get(0, b"cursor").unwrap().as_deref(), Some(&b"1"[..]));
}

// Issue 10, A13.
#[test]
fn a_batch_whose_owner_was_killed_over_it_is_restored_whole_and_finished() {
    let scene = Scene::new();
    let write = |store: &mut Store, value: &[u8]| {
        for key in [b"a", b"b"] {
            store.put(0, key.to_vec(), Some(value.to_vec())).unwrap();
        }
    };
    let (mut first, _folder) = scene.restored();
    write(&mut first, b"1");
    let mut unit = scene.unit(first);
    unit.commit([("t.in", 0, 1)], &scene.group()).unwrap();
    // Killed when the state is promised, and one key of two is written under its own name.
    write(unit.store_mut(), b"2");
    unit.store_mut().put(0, b"b".to_vec(), None).unwrap();
    let mut producer = scene.producer();
    let batch = unit.store_mut().batch();
    unit.store().write_whole(&mut producer, &batch).unwrap();
    producer.send(&Outgoing::to("t.state").partition(0).key(b"a").value(Some(b"2"))).unwrap();
    producer.acknowledged().unwrap();
    drop(unit);

    let (mut second, _other) = scene.restored();
    assert_eq!(second.get(0, b"a").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(second.get(0, b"b").unwrap(), None);
    // Killed at once as well: the next one knows the same, with the same disk and with an empty one.
    second.restore(&[0], &|| {}).unwrap();
    assert_eq!(second.get(0, b"b").unwrap(), None);
    second.put(0, b"c".to_vec(), Some(b"3".to_vec())).unwrap();
    scene.unit(second).commit([("t.in", 0, 2)], &scene.group()).unwrap();
    let reader = Reader::connect(&scene.kafka).unwrap();
    let mut own = Vec::new();
    reader
        .read::<StateError>(&reader.whole("t.state").unwrap(), |record| {
            own.push((record.key().unwrap().to_vec(), record.value().map(<[u8]>::to_vec)));
            Ok(true)
        })
        .unwrap();
    own.retain(|(key, _)| key.first() != Some(&0));
    assert!(own.contains(&(b"b".to_vec(), None)), "it is written under its own key, which compaction keeps: {own:?}");
    let (third, _folder) = scene.restored();
    assert_eq!(third.get(0, b"a").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(third.get(0, b"b").unwrap(), None);
    assert_eq!(third.get(0, b"c").unwrap().as_deref(), Some(&b"3"[..]));
}

// Issue 10, A13.
#[test]
fn a_process_that_has_lost_its_partitions_writes_no_state() {
    struct Lost;
    impl Group for Lost {
        fn group_metadata(&self) -> Result<rdkafka::consumer::ConsumerGroupMetadata, crate::kafka::Error> {
            Err(crate::kafka::Error::Aborted { during: "test", detail: String::new() })
        }

        fn commit(&self, _: &rdkafka::TopicPartitionList) -> Result<(), crate::kafka::Error> {
            Ok(())
        }
    }
    let scene = Scene::new();
    let (mut store, _folder) = scene.restored();
    store.put(0, b"a".to_vec(), Some(b"1".to_vec())).unwrap();
    let mut unit = scene.unit(store);
    assert!(unit.commit([("t.in", 0, 1)], &Lost).is_err());
    unit.log.acknowledged().unwrap();
    assert_eq!(scene.end("t.state"), 0);
}
