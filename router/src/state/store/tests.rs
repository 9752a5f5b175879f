use super::*;
use crate::state::Map as _;

fn keys(store: &Store, prefix: &[u8]) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    store.each_key(0, prefix, |key| keys.push(key.to_vec())).unwrap();
    keys.sort();
    keys
}

#[test]
fn an_open_batch_is_seen_over_what_was_committed_and_goes_with_an_abort() {
    let (mut store, _folder) = Store::without_broker(&[0]);
    for key in [&b"ha"[..], b"hb", b"x"] {
        store.put(0, key.to_vec(), Some(b"1".to_vec())).unwrap();
    }
    store.keep();
    store.put(0, b"ha".to_vec(), None).unwrap();
    store.put(0, b"hb".to_vec(), Some(b"2".to_vec())).unwrap();
    store.put(0, b"hc".to_vec(), Some(b"3".to_vec())).unwrap();
    assert_eq!(keys(&store, b"h"), [b"hb".to_vec(), b"hc".to_vec()]);
    assert_eq!(store.scan(0, b"h").unwrap().len(), 2);
    assert_eq!(store.get(0, b"ha").unwrap(), None);
    store.aborted();
    assert_eq!(keys(&store, b"h"), [b"ha".to_vec(), b"hb".to_vec()]);
    assert_eq!(store.get(0, b"hb").unwrap().as_deref(), Some(&b"1"[..]));
}

#[test]
fn a_cache_is_followed_only_where_it_can_have_missed_no_deletion() {
    let day = 86_400_000;
    let applied = Applied { cluster: "c".into(), offset: 50, at: 10 * day, marker: None };
    let usable = |high, now| applied.is_usable(high, now, CACHE_AGE_MAX);
    assert!(usable(80, 12 * day));
    assert!(!usable(80, 14 * day), "a deletion may have been compacted away");
    assert!(usable(50, 400 * day), "nothing was written since");
    assert!(!usable(80, 9 * day), "written under a clock that was ahead: its age is not known");
    assert!(usable(80, 10 * day - 1_000), "clocks differ by a little");
    let old: Applied = serde_json::from_str(r#"{"cluster":"c","offset":50}"#).unwrap();
    assert!(!old.is_usable(80, 10 * day, CACHE_AGE_MAX));
}

// Issue 10, A14.
#[test]
fn a_cache_is_not_trusted_beyond_the_time_that_the_topic_keeps_deletions() {
    let hour = Duration::from_secs(3_600);
    assert_eq!(cache_age_max(Some(hour * 24 * 7)), CACHE_AGE_MAX);
    assert_eq!(cache_age_max(Some(hour * 24)), hour * 12, "a topic made by hand has the broker's default");
    assert_eq!(cache_age_max(None), hour * 12, "and so may one whose settings cannot be read");
    assert_eq!(cache_age_max(Some(Duration::ZERO)), Duration::ZERO);
}

#[test]
fn a_marker_is_known_by_its_key_name_and_offset() {
    let record = |offset, key: &[u8], name: &[u8]| {
        let at = tailwater_core::Timestamp::from_millis(0);
        Record::new(Arc::from("t"), 0, offset, at, Some(key), Some(name), None, vec![])
    };
    let marker = Marker::at(7, b"abc");
    assert!(marker.is(&record(7, MARKER, b"abc")));
    for other in [record(8, MARKER, b"abc"), record(7, MARKER, b"abd"), record(7, b"k", b"abc")] {
        assert!(!marker.is(&other));
    }
}

#[test]
fn a_damaged_entry_is_an_error_and_not_an_absent_one() {
    let (mut store, _folder) = Store::without_broker(&[0]);
    store.put(0, b"k1".to_vec(), Some(b"{".to_vec())).unwrap();
    let error = store.get_json::<u32>(0, b"k1", "a number").unwrap_err();
    assert_eq!(error.code(), tailwater_core::code::STATE_DAMAGED);
    assert!(error.to_string().contains("a number in t.state[0] under the key 6b31"), "{error}");
    assert_eq!(store.get_json::<u32>(0, b"k2", "a number").unwrap(), None);
}

#[test]
fn the_caches_own_keys_are_nobodys_state() {
    let (mut store, _folder) = Store::without_broker(&[0]);
    store.partitions[&0].keyspace.insert(APPLIED, store.partitions[&0].applied_bytes(store.cache.now_ms())).unwrap();
    store.put(0, b"a".to_vec(), Some(vec![])).unwrap();
    assert_eq!(keys(&store, b""), [b"a".to_vec()]);
}

#[test]
fn a_partition_that_was_not_restored_is_an_error() {
    let (store, _folder) = Store::without_broker(&[0]);
    assert!(matches!(store.get(7, b"a"), Err(Error::NotOpen { partition: 7, .. })));
}

/// A Kafka without transactions, inside of this process.
mod without_transactions {
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;

    use super::*;
    use crate::kafka::Consumer;

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
            for topic in ["t.state", "t.out"] {
                cluster.create_topic(topic, 1, 1).unwrap();
            }
            let (store, _) = Store::without_broker(&[]);
            let kafka = Kafka { brokers: cluster.bootstrap_servers(), transactions: false, ..store.kafka };
            let folder = tempfile::tempdir().unwrap();
            let cache = Cache::open(folder.path(), crate::runtime::clock::now).unwrap();
            Self { cluster, kafka, cache, _folder: folder }
        }

        fn producer(&self) -> Producer {
            Producer::connect(&self.kafka, None, &[]).unwrap()
        }

        fn group(&self) -> Consumer {
            Consumer::create(&self.kafka, "t.group").unwrap()
        }

        /// A store with an empty disk that has followed the topic.
        fn restored(&self) -> (Store, tempfile::TempDir) {
            let folder = tempfile::tempdir().unwrap();
            let mut store =
                Store::new(&self.kafka, &Cache::open(folder.path(), crate::runtime::clock::now).unwrap(), "t.state");
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
        let mut producer = scene.producer();
        producer.send(&Outgoing::to("t.out").partition(0).value(Some(b"row"))).unwrap();
        store.put(0, b"cursor".to_vec(), Some(b"1".to_vec())).unwrap();
        std::thread::scope(|scope| {
            let group = scene.group();
            let work = scope.spawn(move || {
                store.produce(&mut producer, &group).unwrap();
                producer.acknowledged().unwrap();
            });
            std::thread::sleep(Duration::from_millis(1_500));
            assert_eq!(
                scene.end("t.state"),
                0,
                "a process that is killed now has lost its outputs and kept its cursor"
            );
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
        let mut producer = scene.producer();
        write(&mut first, b"1");
        first.produce(&mut producer, &scene.group()).unwrap();
        producer.acknowledged().unwrap();
        first.committed(&producer).unwrap();
        // Killed when the state is promised, and one key of two is written under its own name.
        write(&mut first, b"2");
        first.put(0, b"b".to_vec(), None).unwrap();
        first.promise(&mut producer, &[(0, vec![b"a".to_vec(), b"b".to_vec()])]).unwrap();
        producer.send(&Outgoing::to("t.state").partition(0).key(b"a").value(Some(b"2"))).unwrap();
        producer.acknowledged().unwrap();
        drop(first);

        let (mut second, _other) = scene.restored();
        assert_eq!(second.get(0, b"a").unwrap().as_deref(), Some(&b"2"[..]));
        assert_eq!(second.get(0, b"b").unwrap(), None);
        // Killed at once as well: the next one knows the same, with the same disk and with an empty one.
        second.restore(&[0], &|| {}).unwrap();
        assert_eq!(second.get(0, b"b").unwrap(), None);
        second.put(0, b"c".to_vec(), Some(b"3".to_vec())).unwrap();
        second.produce(&mut producer, &scene.group()).unwrap();
        producer.acknowledged().unwrap();
        second.committed(&producer).unwrap();
        let reader = Reader::connect(&scene.kafka).unwrap();
        let mut own = Vec::new();
        reader
            .read::<Error>(&reader.whole("t.state").unwrap(), |record| {
                own.push((record.key().unwrap().to_vec(), record.value().map(<[u8]>::to_vec)));
                Ok(true)
            })
            .unwrap();
        own.retain(|(key, _)| key.first() != Some(&0));
        assert!(
            own.contains(&(b"b".to_vec(), None)),
            "it is written under its own key, which compaction keeps: {own:?}"
        );
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
        let mut producer = scene.producer();
        assert!(store.produce(&mut producer, &Lost).is_err());
        producer.acknowledged().unwrap();
        assert_eq!(scene.end("t.state"), 0);
    }
}
