//! The workshop itself: if these fail, nothing else means anything.

use serde_json::json;
use tailwater_tests::chaos::check::Source;
use tailwater_tests::chaos::feed::Feed;
use tailwater_tests::chaos::workload::Row;
use tailwater_tests::kafka::{self, Broker};
use tailwater_tests::lake::{self, Table};
use tailwater_tests::topics::{New, Topics};
use tailwater_tests::vendor::Vendor;
use tailwater_tests::wait::PATIENCE;

#[test]
fn a_topic_is_written_and_read_back_to_its_end() {
    let topics = Topics::at(kafka::brokers());
    let name = format!("{}rows", kafka::prefix("harness"));
    topics.create(&name, 3, &[]);
    topics.produce_json(&name, (0..100).map(|index| ("key", json!({ "index": index }))));
    topics.produce(&name, [New { key: Some(b"k"), headers: &[("h", b"v")], ..New::default() }]);
    let seen = topics.read(&name);
    assert_eq!(seen.len(), 101);
    let tombstone = seen.iter().find(|record| record.value.is_none()).unwrap();
    assert_eq!(tombstone.header("h").as_deref(), Some("v"));
    let order: Vec<u64> = seen
        .iter()
        .filter(|record| record.value.is_some())
        .map(|record| record.json()["index"].as_u64().unwrap())
        .collect();
    assert_eq!(order, (0..100).collect::<Vec<u64>>(), "one key is one partition, in order");
    topics.empty(&name);
    assert!(topics.read(&name).is_empty());
}

#[test]
fn a_broker_keeps_its_data_and_its_port_when_it_stops() {
    let broker = Broker::started();
    let topics = Topics::at(&broker.brokers());
    topics.create("kept", 1, &[]);
    topics.produce_json("kept", [("a", json!(1))]);
    broker.stop();
    broker.start();
    assert_eq!(topics.read("kept").len(), 1);
}

#[test]
fn a_feed_that_begins_anew_writes_every_row_as_often_as_it_should() {
    let topics = Topics::at(kafka::brokers());
    let prefix = kafka::prefix("feed");
    let topic = format!("{prefix}ingest.activity");
    topics.create(&topic, 1, &[]);
    let folder = tempfile::tempdir().unwrap();
    let mut feed = Feed::connect(kafka::brokers(), &prefix, folder.path());
    let mut written = Vec::new();
    for seq in 0..3_000 {
        if seq % 1_000 == 999 {
            assert!(feed.open() > 0, "some of it is not acknowledged yet");
            feed.begin_anew();
        }
        let copies = 1 + seq % 3 / 2;
        let value = format!("{{\"seq\":{seq}}}");
        written.extend(std::iter::repeat_n(value.clone(), copies as usize));
        feed.write(&Row { source: Source::Activity, person: 1, seq, key: "c1".to_owned(), value, copies });
    }
    feed.finish(PATIENCE);
    let seen = topics.read(&topic).into_iter().map(|record| String::from_utf8(record.value.unwrap()).unwrap());
    assert!(seen.eq(written), "each row, as often as it was written, in order");
}

#[test]
fn later_commits_of_a_table_are_played_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let from = lake::winback().join("lake/ltv_scores");
    let table = Table::copy(&from, folder.path(), 0);
    let log = |version: u64| table.path().join(format!("_delta_log/{version:020}.json"));
    assert!(log(0).is_file() && !log(1).is_file());
    table.commit(1);
    assert!(log(1).is_file());
}

#[test]
fn the_vendor_starts_empty() {
    let vendor = Vendor::start(tailwater_tests::scene::quick_vendor());
    assert!(vendor.emails().is_empty());
    assert!(vendor.members("LIST01").is_empty());
}
