//! Reads what the status is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tailwater_core::envelope::Role;
use tailwater_core::{EventId, Timestamp, code};

use super::{Lag, Line, State, Status, admin};
use crate::config::model::{Config, Destination, Source, SourceInput};
use crate::kafka::Consumer;
use crate::kafka::consumer::Partition;
use crate::kafka::read::{Range, Reader};
use crate::kafka::topics::{self, Names};
use crate::operator::Error;
use crate::operator::dlq::{Dlq, Filter};
use crate::runtime::clock::now;
use crate::stages::shared::held;

/// Records that are counted one by one; beyond that a lag is estimated from its offsets.
const COUNTED_MAX: u64 = 50_000;

/// Offsets at the end of each partition of `deliveries` that are looked at for how the vendor answers.
const HISTORY_OFFSETS_MAX: i64 = 500;

/// How the status is made.
#[derive(Debug, Clone)]
pub struct Options {
    /// The processes to ask besides Kafka. Empty for the one that `admin.listen` names, if it answers.
    pub admin: Vec<SocketAddr>,
    /// How long the rates are measured.
    pub sample: Duration,
}

/// Takes the status.
///
/// # Errors
/// No broker answers, or a topic cannot be read.
pub fn gather(config: &Config, options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Status, Error> {
    let mut gather = Gather {
        config,
        names: Names::new(&config.kafka.prefix),
        reader: Reader::reach(&config.kafka)?,
        dlq: Dlq::connect(config)?,
        pages: Vec::new(),
    };
    let (processes, unreachable) = gather.ask(options, progress);
    progress("measuring");
    let resolve: Vec<String> =
        config.sources.values().flat_map(|source| topics::input_topics(&gather.names, source)).collect();
    let resolve = gather.group("resolve", None, &resolve)?;
    let mut parts = Vec::new();
    for destination in config.destinations.values() {
        let route = gather.group("route", Some(&destination.name), &[gather.names.resolved()])?;
        let send = gather.group("send", Some(&destination.name), &[gather.names.outbound(&destination.name)])?;
        parts.push((destination, route, send));
    }
    std::thread::sleep(options.sample);
    let mut status = Status {
        at: now().to_string(),
        workspace: config.workspace.clone(),
        fine: true,
        sources: Vec::new(),
        routes: Vec::new(),
        destinations: Vec::new(),
        processes,
        unreachable,
    };
    let moved = resolve.moved()?;
    for source in config.sources.values() {
        progress(&format!("looking at source {}", source.name));
        status.sources.push(gather.source(source, &resolve, &moved)?);
    }
    progress("reading the history of deliveries");
    let vendors = gather.vendors()?;
    for (destination, route, send) in &parts {
        progress(&format!("looking at destination {}", destination.name));
        status.routes.extend(gather.routes(destination, route)?);
        status.destinations.push(gather.destination(destination, send, vendors.get(&destination.name))?);
    }
    status.fine = status.attention() == 0;
    Ok(status)
}

struct Gather<'a> {
    config: &'a Config,
    names: Names,
    reader: Reader,
    dlq: Dlq<'a>,
    /// What the processes say.
    pages: Vec<Value>,
}

/// A group, and where it stood when the measurement began.
struct Group {
    consumer: Consumer,
    partitions: Vec<Partition>,
    before: BTreeMap<Partition, i64>,
    started: Instant,
    members: usize,
}

/// Where a group stands, and how many records a second it has done, by topic.
struct Moved {
    committed: BTreeMap<Partition, i64>,
    rates: BTreeMap<String, f64>,
}

impl Moved {
    fn rate(&self, topic: &str) -> f64 {
        self.rates.get(topic).copied().unwrap_or(0.0)
    }
}

impl Group {
    fn committed(&self) -> Result<BTreeMap<Partition, i64>, Error> {
        let committed = self.consumer.committed(&self.partitions)?;
        Ok(committed.into_iter().filter_map(|(partition, offset)| offset.map(|offset| (partition, offset))).collect())
    }

    fn moved(&self) -> Result<Moved, Error> {
        let committed = self.committed()?;
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        let mut rates = BTreeMap::new();
        for (partition, offset) in &committed {
            let done = self.before.get(partition).map_or(0, |before| (offset - before).max(0));
            let done = f64::from(u32::try_from(done).unwrap_or(u32::MAX));
            *rates.entry(partition.0.to_string()).or_insert(0.0) += done / seconds;
        }
        Ok(Moved { committed, rates })
    }
}

impl Gather<'_> {
    /// Asks the processes; those that answered, and those that should have.
    fn ask(&mut self, options: &Options, progress: &mut dyn FnMut(&str)) -> (Vec<String>, Vec<String>) {
        let (mut answered, mut silent) = (Vec::new(), Vec::new());
        let wanted = if options.admin.is_empty() { vec![self.config.admin.listen] } else { options.admin.clone() };
        for address in wanted {
            progress(&format!("asking {address}"));
            let ours = |page: &Value| page["process"]["prefix"] == self.config.kafka.prefix.as_str();
            match admin::page(address).filter(ours) {
                Some(page) => {
                    answered.push(address.to_string());
                    self.pages.push(page);
                }
                None if options.admin.is_empty() => {}
                None => silent.push(address.to_string()),
            }
        }
        (answered, silent)
    }

    fn group(&self, stage: &str, part: Option<&str>, topics: &[String]) -> Result<Group, Error> {
        let name = self.names.group(stage, part);
        let consumer = Consumer::create(&self.config.kafka, &name)?;
        let mut partitions = Vec::new();
        for topic in topics {
            let topic: Arc<str> = Arc::from(topic.as_str());
            for partition in 0..self.reader.partitions(&topic)?.unwrap_or(0) {
                partitions.push((Arc::clone(&topic), partition));
            }
        }
        let members = consumer.members()?;
        let mut group = Group { consumer, partitions, before: BTreeMap::new(), started: Instant::now(), members };
        group.before = group.committed()?;
        group.started = Instant::now();
        Ok(group)
    }

    /// What a group has not worked off of a topic.
    fn behind(&self, topic: &str, moved: &Moved) -> Result<Vec<Range>, Error> {
        if self.reader.partitions(topic)?.is_none() {
            return Ok(Vec::new());
        }
        let mut ranges = self.reader.whole(topic)?;
        for range in &mut ranges {
            let partition: Partition = (Arc::from(topic), range.partition);
            if let Some(offset) = moved.committed.get(&partition) {
                range.start = range.start.max(*offset);
            }
        }
        Ok(ranges)
    }

    /// Counts the events in ranges by their source; all together where they are too many.
    fn count(&self, ranges: &[Range], destination: Option<&str>) -> Result<(Lag, BTreeMap<String, u64>), Error> {
        let offsets: u64 = ranges.iter().map(|range| u64::try_from(range.end - range.start).unwrap_or(0)).sum();
        let mut by_source: BTreeMap<String, u64> = BTreeMap::new();
        if offsets > COUNTED_MAX {
            return Ok((Lag { records: offsets, estimated: true }, by_source));
        }
        let mut records = 0;
        self.reader.read::<Error>(ranges, |record| {
            if let Ok(envelope) = record.envelope() {
                let elsewhere = destination.is_some()
                    && envelope.only_destination.is_some()
                    && envelope.only_destination != destination;
                if envelope.role != Role::Event || elsewhere {
                    return Ok(true);
                }
                *by_source.entry(envelope.source.to_owned()).or_default() += 1;
            }
            records += 1;
            Ok(true)
        })?;
        Ok((Lag { records, estimated: false }, by_source))
    }

    fn source(&self, source: &Source, resolve: &Group, moved: &Moved) -> Result<Line, Error> {
        let [topic, replay] = topics::input_topics(&self.names, source);
        let ranges = self.behind(&topic, moved)?;
        let mut all = ranges.clone();
        all.extend(self.behind(&replay, moved)?);
        let (lag, _) = self.count(&all, None)?;
        let mut members = resolve.members;
        let mut line_version = None;
        let mut note = Value::Null;
        if matches!(source.input, SourceInput::Delta(_)) {
            let group = Consumer::create(&self.config.kafka, &self.names.group("source", Some(&source.name)))?;
            members = members.min(group.members()?);
            for (key, value) in self.state(&self.names.state_source(&source.name))? {
                match key.as_slice() {
                    b"cursor" => line_version = value["version"].as_u64(),
                    b"trouble" => note = value,
                    _ => {}
                }
            }
        }
        let mut line = Line::new(&source.name, members, lag, moved.rate(&topic) + moved.rate(&replay));
        line.version = line_version;
        line.dead_letters = self.dead_letters(&Filter { source: Some(source.name.clone()), ..Filter::default() })?;
        if ranges.is_empty() {
            let message = format!("topic {topic} does not exist yet");
            line.worsen(State::Waiting, &json!({"code": code::TOPIC_MISSING.as_str(), "message": message}));
        }
        if !note.is_null() {
            line.worsen(State::Failing, &note);
        }
        for page in &self.pages {
            self.take(&mut line, &page["source"][&source.name]);
        }
        Ok(line)
    }

    fn routes(&self, destination: &Destination, group: &Group) -> Result<Vec<Line>, Error> {
        let moved = group.moved()?;
        let topic = self.names.resolved();
        let (lag, by_source) = self.count(&self.behind(&topic, &moved)?, Some(&destination.name))?;
        // A record may be there twice where the broker has no transactions; it is one event.
        let mut waiting: BTreeMap<String, BTreeSet<Option<EventId>>> = BTreeMap::new();
        let mut pauses = Vec::new();
        self.each_state(&self.names.state_route(&destination.name), |entry| match entry {
            held::Entry::Held { held, .. } => {
                let envelope = held.record.envelope().unwrap_or_default();
                waiting.entry(envelope.source.to_owned()).or_default().insert(envelope.event_id);
            }
            held::Entry::Pause(note) => pauses.push(note),
            held::Entry::Other => {}
        })?;
        let mut lines = Vec::new();
        for route in &destination.routes {
            let mine = if lag.estimated {
                lag
            } else {
                Lag { records: by_source.get(&route.from).copied().unwrap_or(0), estimated: false }
            };
            let mut line =
                Line::new(&format!("{}/{}", destination.name, route.name), group.members, mine, moved.rate(&topic));
            line.awaiting_key = Some(waiting.get(&route.from).map_or(0, |events| events.len() as u64));
            for note in &pauses {
                let named = note["route"].as_str().unwrap_or_default();
                if named.is_empty() || named == route.name {
                    line.worsen(State::Paused, note);
                }
            }
            lines.push(line);
        }
        Ok(lines)
    }

    fn destination(&self, destination: &Destination, group: &Group, vendor: Option<&Vendor>) -> Result<Line, Error> {
        let moved = group.moved()?;
        let topic = self.names.outbound(&destination.name);
        let (lag, _) = self.count(&self.behind(&topic, &moved)?, None)?;
        let mut line = Line::new(&destination.name, group.members, lag, moved.rate(&topic));
        line.dead_letters =
            self.dead_letters(&Filter { destination: Some(destination.name.clone()), ..Filter::default() })?;
        let mut parked = 0;
        self.each_state(&self.names.state_send(&destination.name), |entry| match entry {
            held::Entry::Held { .. } => parked += 1,
            held::Entry::Pause(note) => {
                let mut note = note;
                if let Some(route) = note["route"].as_str().filter(|route| !route.is_empty()) {
                    note["message"] = json!(format!("route {route}: {}", note["message"].as_str().unwrap_or_default()));
                }
                line.worsen(State::Paused, &note);
            }
            held::Entry::Other => {}
        })?;
        line.parked = Some(parked);
        for page in &self.pages {
            let load = &page["destination"][format!("{}.load", destination.name)];
            for (count, name) in [(&mut line.queue, "queue"), (&mut line.in_flight, "in_flight")] {
                if let Some(number) = load[name].as_u64() {
                    *count = Some(count.unwrap_or(0) + number);
                }
            }
        }
        // The offsets do not show what is parked, nor what was read and is not sent.
        let open = parked + line.queue.unwrap_or(0);
        if line.state == State::Idle && open > 0 {
            line.state = State::Running;
        }
        if let Some(vendor) = vendor
            && lag.records + open > 0
            && let Some((state, note)) = vendor.trouble()
        {
            line.worsen(state, &note);
            line.remark(&note);
        }
        for page in &self.pages {
            for part in ["vendor", "send"] {
                self.take(&mut line, &page["destination"][format!("{}.{part}", destination.name)]);
            }
            line.remark(&page["destination"][format!("{}.vendor", destination.name)]);
        }
        Ok(line)
    }

    /// Takes over what a process says about a part.
    fn take(&self, line: &mut Line, note: &Value) {
        let state = match note["state"].as_str() {
            Some("paused") => State::Paused,
            Some("failing") => State::Failing,
            Some("waiting") => State::Waiting,
            Some("throttled") => State::Throttled,
            _ => return,
        };
        if state == State::Throttled && line.state == State::Stalled {
            // That is why it stands still.
            line.state = State::Running;
        }
        line.worsen(state, note);
    }

    fn dead_letters(&self, filter: &Filter) -> Result<Option<u64>, Error> {
        match self.dlq.list(filter, 0, false, &mut |_| {}) {
            Ok(list) => Ok(Some(list.left_out)),
            Err(Error::NoTopic { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The entries of a state topic of one partition that are JSON.
    fn state(&self, topic: &str) -> Result<BTreeMap<Vec<u8>, Value>, Error> {
        let mut entries = BTreeMap::new();
        if self.reader.partitions(topic)?.is_none() {
            return Ok(entries);
        }
        self.reader.read::<Error>(&self.reader.whole(topic)?, |record| {
            let Some(key) = record.key() else { return Ok(true) };
            match record.value().and_then(|value| serde_json::from_slice(value).ok()) {
                Some(value) => entries.insert(key.to_vec(), value),
                None => entries.remove(key),
            };
            Ok(true)
        })?;
        Ok(entries)
    }

    /// The entries of a topic of held records, as they stand now.
    fn each_state(&self, topic: &str, mut each: impl FnMut(held::Entry)) -> Result<(), Error> {
        if self.reader.partitions(topic)?.is_none() {
            return Ok(());
        }
        let name: Arc<str> = Arc::from(topic);
        let mut latest: BTreeMap<(i32, Vec<u8>), Vec<u8>> = BTreeMap::new();
        self.reader.read::<Error>(&self.reader.whole(topic)?, |record| {
            let Some(key) = record.key() else { return Ok(true) };
            match record.value() {
                Some(value) => latest.insert((record.partition, key.to_vec()), value.to_vec()),
                None => latest.remove(&(record.partition, key.to_vec())),
            };
            Ok(true)
        })?;
        for ((partition, key), value) in latest {
            each(held::read_entry(&name, partition, &key, &value));
        }
        Ok(())
    }

    /// How the vendor has answered last, by destination.
    fn vendors(&self) -> Result<BTreeMap<String, Vendor>, Error> {
        let mut vendors: BTreeMap<String, Vendor> = BTreeMap::new();
        let topic = self.names.deliveries();
        if self.reader.partitions(&topic)?.is_none() {
            return Ok(vendors);
        }
        let mut ranges = self.reader.whole(&topic)?;
        for range in &mut ranges {
            range.start = range.start.max(range.end - HISTORY_OFFSETS_MAX);
        }
        self.reader.read::<Error>(&ranges, |record| {
            if let Some(entry) = record.value().and_then(|value| serde_json::from_slice::<Value>(value).ok())
                && let (Some(name), Some(at)) =
                    (entry["destination"].as_str(), entry["at"].as_str().and_then(Timestamp::parse))
            {
                vendors.entry(name.to_owned()).or_default().learn(at, &entry);
            }
            Ok(true)
        })?;
        Ok(vendors)
    }
}

/// The last attempts at a destination. Partitions are read one after the other, so they do not come in the order of their time.
#[derive(Debug, Default)]
struct Vendor {
    answered: Option<Timestamp>,
    /// The attempts that have to be made again, by time.
    refused: BTreeMap<Timestamp, Value>,
    /// When each delivery was refused first.
    first: BTreeMap<String, Timestamp>,
}

impl Vendor {
    fn learn(&mut self, at: Timestamp, entry: &Value) {
        if entry["outcome"] == "retry" {
            let delivery = entry["delivery"].as_str().unwrap_or_default();
            let first = self.first.entry(delivery.to_owned()).or_insert(at);
            *first = at.min(*first);
            let note = json!({"code": entry["code"], "message": entry["message"], "delivery": delivery});
            self.refused.insert(at, note);
        } else {
            self.answered = self.answered.max(Some(at));
        }
    }

    /// What is wrong, if nothing has got through since.
    fn trouble(&self) -> Option<(State, Value)> {
        let since = self.refused.keys().find(|at| self.answered.is_none_or(|answered| **at > answered))?;
        let (_, last) = self.refused.last_key_value()?;
        let mut note = last.clone();
        note["since"] = json!(since.to_string());
        // A delivery that was refused before others got through has a fault of its own.
        let own = |delivery: &str| {
            let first = self.first.get(delivery);
            first.zip(self.answered).is_some_and(|(first, answered)| *first < answered)
        };
        let open: BTreeSet<&str> =
            self.refused.range(since..).filter_map(|(_, note)| note["delivery"].as_str()).collect();
        if !open.is_empty() && open.iter().all(|delivery| own(delivery)) {
            let message = last["message"].as_str().unwrap_or_default();
            note["message"] =
                json!(format!("{} refused again and again while others get through: {message}", open.len()));
            return Some((State::Running, note));
        }
        let state = match last["code"].as_str() {
            Some(code) if code == code::RATE_LIMITED.as_str() => State::Throttled,
            Some(code) if [code::UNAUTHORIZED.as_str(), code::FORBIDDEN.as_str()].contains(&code) => State::Paused,
            Some(_) | None => State::Failing,
        };
        Some((state, note))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vendor_is_in_trouble_since_the_first_refusal_after_its_last_answer() {
        let mut vendor = Vendor::default();
        assert!(vendor.trouble().is_none());
        let at = Timestamp::from_millis;
        let refused = |code: &str| json!({"outcome": "retry", "code": code, "message": "m", "delivery": code});
        vendor.learn(at(9_000), &refused("vendor_unavailable"));
        vendor.learn(at(1_000), &refused("rate_limited"));
        vendor.learn(at(5_000), &json!({"outcome": "delivered"}));
        vendor.learn(at(7_000), &refused("rate_limited"));
        let (state, note) = vendor.trouble().unwrap();
        assert_eq!(state, State::Failing);
        assert_eq!(note["since"], at(7_000).to_string());
        vendor.learn(at(10_000), &json!({"outcome": "skipped"}));
        assert!(vendor.trouble().is_none());
        vendor.learn(at(11_000), &refused("unauthorized"));
        assert_eq!(vendor.trouble().unwrap().0, State::Paused);
    }

    // Issue 10, D: "klaviyo is failing" was shown while one poison row alone failed.
    #[test]
    fn a_delivery_that_fails_while_others_get_through_is_not_the_vendor() {
        let mut vendor = Vendor::default();
        let at = Timestamp::from_millis;
        let refused = |delivery: &str| json!({"outcome": "retry", "code": "vendor_unavailable", "message": "503", "delivery": delivery});
        vendor.learn(at(1_000), &refused("poison"));
        vendor.learn(at(2_000), &json!({"outcome": "delivered", "delivery": "other"}));
        vendor.learn(at(3_000), &refused("poison"));
        let (state, note) = vendor.trouble().unwrap();
        assert_eq!(state, State::Running);
        assert!(note["message"].as_str().unwrap().contains("while others get through: 503"), "{note}");
        vendor.learn(at(4_000), &refused("third"));
        assert_eq!(vendor.trouble().unwrap().0, State::Failing);
    }
}
