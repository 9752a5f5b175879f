//! One chaos run from beginning to end, and its report.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use tailwater_core::EventId;
use tailwater_simulators::klaviyo::DEFAULT_API_KEY;

use super::brokers::Brokers;
use super::check::{self, Verdict};
use super::failpoints::Failpoints;
use super::feed::Feed;
use super::fleet::{Ended, Fleet, Role, write};
use super::history::{self, History};
use super::nemesis::{Nemesis, Targets};
use super::proxy::Proxy;
use super::receiver::{self, Arrival, Receiver, Script, Step};
use super::workload::Workload;
use crate::audit::Counts;
use crate::process;
use crate::topics::{Seen, Topics};

/// Rows that may be on their way before the feed waits.
const BACKLOG_MAX: usize = 20_000;

/// How long the end of a run may bring no progress before it counts as stuck.
const PROGRESS_MAX: Duration = Duration::from_secs(90);

/// How long faults go on beyond the planned time until every failpoint has been hit.
const OVERTIME_MAX: Duration = Duration::from_secs(420);

/// Rows a second in that time, at most: enough to reach a failpoint, and little to wait for afterwards.
const OVERTIME_RATE_MAX: f64 = 100.0;

/// How long a process with a broker of its own may need until that answers.
const LIFE_MAX: Duration = Duration::from_secs(180);

/// People with a script of answers of their own. A job carries many people and is answered as the first of them wants, so every script
/// slows down everybody.
const SCRIPTED: u32 = 20;

const DESTINATION: &str = "klaviyo";

/// The table of scores, in the run's folder.
const TABLE: &str = "tables/scores";

/// What kind of run.
#[derive(Debug, Clone)]
pub struct Options {
    pub seed: u64,
    pub time: Duration,
    /// Rows a second, at most.
    pub rate: f64,
    pub people: u32,
    /// A defect that is planted in every process: the run must find it.
    pub bug: Option<String>,
    /// Whether faults are injected at all.
    pub faults: bool,
    /// One process with a broker of its own (`run --embedded`) instead of a fleet.
    pub embedded: bool,
    /// Where logs and state lie; kept when the run fails.
    pub folder: PathBuf,
}

/// What a run found.
#[derive(Debug)]
pub struct Report {
    pub verdict: Verdict,
    pub history: History,
    pub missing_failpoints: Vec<&'static str>,
    pub fired: std::collections::BTreeMap<String, u32>,
    /// Processes that panicked.
    pub panics: Vec<Ended>,
    /// Processes that ended by themselves with an error, by the code in their last line.
    pub ends: std::collections::BTreeMap<String, u32>,
    /// What the audit counted: by source.
    pub counts: Vec<(&'static str, Counts)>,
    /// The audit's own words.
    pub audit: String,
    /// Rows that were not sent because something newer had been.
    pub superseded: usize,
    /// The run did not come to rest, and why that is believed.
    pub stuck: Option<String>,
    pub text: String,
}

impl Report {
    /// Whether everything is as promised. A planted defect makes failpoints unimportant.
    pub fn is_clean(&self) -> bool {
        let verdict = &self.verdict;
        verdict.lost.is_empty()
            && verdict.duplicated.is_empty()
            && verdict.reordered.is_empty()
            && verdict.unseen.is_empty()
            && verdict.strays.is_empty()
            && self.history.delivered_twice.is_empty()
            && self.panics.is_empty()
            && self.stuck.is_none()
    }
}

/// Runs.
pub fn run(options: &Options) -> Report {
    let began = Instant::now();
    let began_by_clock = SystemTime::now();
    let receiver = Receiver::start(receiver::Options::default());
    let mut draws = StdRng::seed_from_u64(options.seed ^ 0x5ced);
    if options.faults {
        receiver.set_scripts(scripts(&mut draws, options.people));
    }
    let proxy = Proxy::start(receiver.address());
    write_transforms(&options.folder, 0);
    let prefix = "chaos.".to_owned();
    let mut failpoints = Failpoints::new(&options.folder.join("failpoints.log"), options.embedded);
    let environment = vec![
        ("KLAVIYO_API_KEY".to_owned(), DEFAULT_API_KEY.to_owned()),
        ("RUST_BACKTRACE".to_owned(), "1".to_owned()),
        ("TAILWATER_FAILPOINTS_LOG".to_owned(), failpoints.log().display().to_string()),
    ];
    let embedded = [Role::Whole];
    // A table is read by one process at a time: the other one waits for its lease.
    let several = [Role::Source, Role::Resolve, Role::Route, Role::Send].repeat(2);
    let roles = if options.embedded { embedded.as_slice() } else { several.as_slice() };
    let brokers = if options.embedded { Brokers::embedded() } else { Brokers::started() };
    let configuration = configuration(&brokers.address(), &prefix, &proxy.url());
    let mut fleet = Fleet::new(&options.folder, &configuration, environment.clone());
    for role in roles {
        fleet.add(*role, false);
    }
    let mut feed = Feed::connect(&brokers.address(), &prefix, &options.folder.join(TABLE));
    let mut ended: Vec<Ended> = Vec::new();
    let mut look_after = |fleet: &mut Fleet, failpoints: &mut Failpoints, arm: bool| {
        let found = fleet.look_after(|member| {
            let mut acts = Vec::new();
            if let Some(bug) = &options.bug {
                acts.push(format!("bug.{bug}=bug"));
            }
            if arm && options.faults {
                acts.push(failpoints.arm(member.role, draws.random()));
            }
            acts.join(";")
        });
        for one in &found {
            assert!(one.status.code() != Some(3), "the configuration is not accepted:\n{}", one.tail);
            if !one.is_crash() {
                eprintln!(
                    "{:8.1} s  {} ended by itself: {}\n{}",
                    began.elapsed().as_secs_f64(),
                    one.name,
                    one.status,
                    one.tail
                );
            }
        }
        ended.extend(found);
    };

    // The topics are made by the first process that comes up.
    let topics = Topics::at(&brokers.address());
    let deadline = Instant::now() + Duration::from_secs(90);
    while !brokers.answers() || !has_begun(&topics, &prefix) {
        assert!(Instant::now() < deadline, "nothing has begun; see {}", options.folder.display());
        look_after(&mut fleet, &mut failpoints, false);
        std::thread::sleep(Duration::from_millis(100));
    }

    let mut workload = Workload::new(options.seed, options.people);
    let faults_began = Instant::now();
    let mut nemesis = Nemesis::new(options.seed ^ 0xfa17, began);
    let mut generation = 0_u32;
    let folder = options.folder.clone();
    let mut touch = move || {
        generation += 1;
        write_transforms(&folder, generation);
    };
    let mut reloaded = Duration::ZERO;
    let (mut drawn, mut told) = (0_f64, Instant::now());
    let mut peak: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
    loop {
        let elapsed = faults_began.elapsed();
        let overtime = elapsed.saturating_sub(options.time);
        let unreached = options.faults && options.bug.is_none() && !failpoints.missing().is_empty();
        if elapsed >= options.time && !(unreached && overtime < OVERTIME_MAX) {
            break;
        }
        let overtime_rate = options.rate.min(OVERTIME_RATE_MAX);
        let rate = if overtime.is_zero() { options.rate } else { overtime_rate };
        let until = elapsed.min(options.time).as_secs_f64() * options.rate + overtime.as_secs_f64() * overtime_rate;
        let until = until.max(drawn);
        let open = workload.produced().len().saturating_sub(receiver.count() + workload.held().len());
        if open < BACKLOG_MAX && feed.open() < 50_000 {
            // After a long fault what was missed is not made up for at once.
            drawn = drawn.max(until - rate);
            while drawn < until {
                feed.write(&workload.draw());
                drawn += 1.0;
            }
        } else {
            drawn = until;
        }
        feed.tick();
        look_after(&mut fleet, &mut failpoints, true);
        // What is left to be reached may need a reload, which the nemesis draws seldom.
        if overtime > reloaded {
            reloaded = overtime + Duration::from_secs(10);
            touch();
        }
        if options.faults {
            nemesis.step(&mut Targets {
                fleet: &mut fleet,
                brokers: &brokers,
                proxy: &proxy,
                receiver: &receiver,
                touch_transform: &mut touch,
            });
        }
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            for (name, bytes) in fleet.memory() {
                let most = peak.entry(name).or_insert(0);
                *most = (*most).max(bytes);
            }
            eprintln!(
                "{:8.1} s  {} rows written, {} arrivals, {} rows wait for an email, {} processes started",
                began.elapsed().as_secs_f64(),
                workload.produced().len(),
                receiver.count(),
                workload.held().len(),
                fleet.starts()
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }

    nemesis.heal(&mut Targets {
        fleet: &mut fleet,
        brokers: &brokers,
        proxy: &proxy,
        receiver: &receiver,
        touch_transform: &mut touch,
    });
    let faults = faults_began.elapsed();
    if options.embedded {
        let deadline = Instant::now() + LIFE_MAX;
        let mut gone = false;
        while !gone || !brokers.answers() {
            assert!(Instant::now() < deadline, "no broker after the last kill; see {}", options.folder.display());
            look_after(&mut fleet, &mut failpoints, false);
            gone |= !brokers.answers();
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    receiver.set_scripts(Vec::new());
    for row in workload.closing() {
        feed.write(&row);
    }
    feed.finish(Duration::from_secs(120));
    let held = workload.held();

    let mut stuck = None;
    let mut progress = (0_u64, 0_usize, Instant::now());
    let mut counts;
    let mut last_audit;
    let mut audited = 0;
    let mut next_audit = Instant::now() + Duration::from_secs(3);
    loop {
        look_after(&mut fleet, &mut failpoints, false);
        std::thread::sleep(Duration::from_millis(100));
        if Instant::now() < next_audit {
            continue;
        }
        let audit = audit(&options.folder, &configuration, &environment);
        next_audit = Instant::now() + Duration::from_secs(3);
        last_audit = audit["flows"].to_string();
        counts = ["activity", "scores", "tiers"].map(|source| (source, Counts::find(&audit, source, DESTINATION)));
        let open: u64 = counts.iter().map(|(_, counts)| counts.in_flight + counts.unaccounted).sum();
        let held_now: u64 = counts.iter().map(|(_, counts)| counts.held).sum();
        let total: u64 = counts.iter().map(|(_, counts)| counts.total).sum();
        let written = workload.produced().len() as u64 + workload.copies();
        let seen = receiver.count();
        eprintln!(
            "{:8.1} s  {open} on their way, {held_now} held of {total}, {seen} arrivals",
            began.elapsed().as_secs_f64()
        );
        if open == 0 && total == written && held_now == expected_held(&workload, &held) {
            audited += 1;
            // Twice, so that what was on its way while the audit looked is not taken for rest.
            if audited == 2 {
                break;
            }
        } else {
            audited = 0;
        }
        if (open, seen) != (progress.0, progress.1) {
            progress = (open, seen, Instant::now());
        } else if progress.2.elapsed() > PROGRESS_MAX {
            stuck = Some(format!(
                "{open} rows have no end, {held_now} of {total} rows are held ({} expected, {written} written): {audit}",
                held.len()
            ));
            break;
        }
    }
    let drained = began.elapsed();
    for (_, bytes) in fleet.memory() {
        peak.entry("at rest".to_owned()).and_modify(|most| *most = (*most).max(bytes)).or_insert(bytes);
    }
    let starts = fleet.starts();
    let told_by_processes = fleet.told(failpoints.log(), (began, began_by_clock));
    let unaccounted: u64 = counts.iter().map(|(_, counts)| counts.unaccounted + counts.in_flight).sum();
    let arrivals = receiver.arrivals();
    let settings = check::Settings { start: Some(began), ..check::Settings::default() };
    let mut disturbances = nemesis.disturbances.clone();
    disturbances.extend(proxy.disturbances());
    disturbances.extend(told_by_processes);
    let mut verdict = check::check_with(
        settings,
        workload.produced(),
        &arrivals,
        &receiver.rejected(),
        &held,
        unaccounted,
        &disturbances,
    );
    // What came to no rest may have no broker either, and is to be told.
    let history = if stuck.is_some() && !brokers.answers() {
        History::default()
    } else {
        history::read(&topics, &format!("{prefix}deliveries"))
    };
    let superseded = excuse_superseded(&mut verdict, &history, &arrivals);
    trace(&verdict, &options.folder, &environment);
    // Not before: an embedded broker ends with its process.
    let state = fleet.state(0);
    drop(fleet);
    if options.embedded {
        Brokers::wait_for_end(&state);
    }
    let mut ends = std::collections::BTreeMap::new();
    for one in ended.iter().filter(|one| !one.is_crash() && !one.panicked) {
        *ends.entry(format!("{}: {}", one.name, one.status)).or_insert(0) += 1;
    }
    let mut report = Report {
        verdict,
        history,
        missing_failpoints: if options.faults { failpoints.missing() } else { Vec::new() },
        fired: failpoints.fired(),
        panics: ended.into_iter().filter(|one| one.panicked).collect(),
        ends,
        counts: counts.to_vec(),
        audit: last_audit,
        superseded,
        stuck,
        text: String::new(),
    };
    report.text = text(&report, options, &workload, &nemesis, starts, (faults, drained), &peak);
    report
}

/// Whether the topics are there and the table has been seen empty: a first look at several commits would find a person's key more than once
/// in one version.
fn has_begun(topics: &Topics, prefix: &str) -> bool {
    let (ingest, state) = (format!("{prefix}ingest.scores"), format!("{prefix}state.source.tiers"));
    let names = topics.names(prefix);
    let cursor = |record: &Seen| record.key.as_deref() == Some(b"cursor".as_slice());
    names.contains(&ingest) && names.contains(&state) && topics.read(&state).iter().any(cursor)
}

/// What a device did before anyone knew whose it was goes on after the merge, and may then be older than what its owner was told meanwhile:
/// such a state is not sent. It is excused only if something newer of that person did arrive.
fn excuse_superseded(verdict: &mut Verdict, history: &History, arrivals: &[Arrival]) -> usize {
    let mut newest: HashMap<u32, u32> = HashMap::new();
    for arrival in
        arrivals.iter().filter(|arrival| arrival.took_effect && arrival.item.kind == receiver::Kind::Activity)
    {
        let seq = newest.entry(arrival.item.person).or_insert(0);
        *seq = (*seq).max(arrival.item.seq);
    }
    let before = verdict.lost.len();
    verdict.lost.retain(|finding| {
        let Some(item) = finding.item.filter(|item| item.kind == receiver::Kind::Activity) else { return true };
        let event = EventId::of_fact("chaos", "activity", &format!("a-{}-{}", item.person, item.seq));
        let newer = newest.get(&item.person).is_some_and(|seq| *seq > item.seq);
        !(newer && history.superseded.contains(&event.to_string()))
    });
    before - verdict.lost.len()
}

fn expected_held(workload: &Workload, held: &std::collections::HashSet<(check::Source, u32, u32)>) -> u64 {
    let copies = workload
        .produced()
        .iter()
        .filter(|row| row.repeated && held.contains(&(row.source, row.person, row.seq)))
        .count();
    (held.len() + copies) as u64
}

/// What the program itself can tell about the people of some findings, while the broker is there.
fn trace(verdict: &Verdict, folder: &Path, environment: &[(String, String)]) {
    let findings = [&verdict.lost, &verdict.reordered, &verdict.unseen, &verdict.duplicated];
    for findings in findings {
        for person in findings.iter().filter_map(|finding| finding.item).map(|item| item.person).take(2) {
            let ended = process::run(
                folder,
                environment,
                &["trace", &format!("p{person}@example.com"), "--config", "audit.yaml"],
            );
            write(&folder.join(format!("trace-{person}.txt")), &format!("{}\n{}", ended.stdout, ended.stderr));
        }
    }
}

fn scripts(random: &mut StdRng, people: u32) -> Vec<Script> {
    let all = [
        vec![Step::Status(500), Step::Status(500), Step::Ok],
        vec![Step::Ok, Step::RetryAfter { status: 429, seconds: 1 }],
        vec![Step::DisconnectAfterReading, Step::Ok, Step::DisconnectAfterProcessing],
        vec![Step::Ok, Step::Reject(400), Step::Ok, Step::Status(503)],
    ];
    (0..SCRIPTED.min(people / 4))
        .map(|index| Script {
            person: random.random_range(0..people),
            // One time-out is enough: it costs everybody half a minute.
            steps: if index == 0 { vec![Step::Ok, Step::TimeOut] } else { all[index as usize % all.len()].clone() },
        })
        .collect()
}

fn audit(folder: &Path, configuration: &str, environment: &[(String, String)]) -> Value {
    let file = folder.join("audit.yaml");
    write(&file, &format!("{configuration}state_dir: ./state-audit\n"));
    let ended = process::run(folder, environment, &["audit", "--config", "audit.yaml", "--json"]);
    // A broker that has just come back may not answer yet.
    serde_json::from_str(&ended.stdout).unwrap_or(Value::Null)
}

fn write_transforms(folder: &Path, generation: u32) {
    fs::create_dir_all(folder.join("transforms")).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    write(&folder.join("transforms/activity.js"), &format!("// {generation}\n{ACTIVITY}"));
    write(&folder.join("transforms/scores.js"), &format!("// {generation}\n{SCORES}"));
}

const ACTIVITY: &str = "async function send(payload, headers) {
  return payload.events.map(row => {
    const profile = { data: { type: 'profile', attributes: {
      email: row.email, properties: { person: row.person, activity_seq: row.seq } } } };
    if (!row.track) return profile;
    return [profile, { data: { type: 'event', attributes: {
      metric: 'Chaos', unique_id: row.id,
      profile: { data: { type: 'profile', attributes: { email: row.email } } },
      properties: { person: row.person, seq: row.seq } } } }];
  });
}
";

const SCORES: &str = "async function send(payload, headers) {
  return payload.events.map(row => ({ data: { type: 'profile', attributes: {
    email: row.email, properties: { person: row.person, score_seq: row.seq } } } }));
}
";

fn configuration(brokers: &str, prefix: &str, vendor: &str) -> String {
    format!(
        "version: 1
workspace: chaos
kafka:
  brokers: \"{brokers}\"
  prefix: \"{prefix}\"
  lanes: 8
  replication_factor: 1
  latency: balanced
  session_timeout: 6s
identity:
  max_merges: 1000
  types:
    customer_id: {{ priority: 1, max: 1, normalise: trim }}
    email: {{ priority: 2, max: 5, normalise: email }}
    device_id: {{ priority: 3, max: 1000, normalise: trim }}
sources:
  activity:
    type: kafka
    kind: events
    id: id
    identifiers: {{ customer_id: customer_id, device_id: device_id, email: email }}
    schema: {{ id: string, customer_id: string, device_id: string, email: string, person: int, seq: int, track: boolean }}
  scores:
    type: kafka
    kind: state
    primary_key: customer_id
    identifiers: {{ customer_id: customer_id }}
    schema: {{ customer_id: string, person: int, seq: int }}
  tiers:
    type: delta
    table: ./{TABLE}
    kind: state
    primary_key: customer_id
    identifiers: {{ customer_id: customer_id }}
    poll_interval: 200ms
accounts:
  main: {{ type: klaviyo, api_key: \"${{env:KLAVIYO_API_KEY}}\", base_url: \"{vendor}\", rate_share: 100 }}
destinations:
  klaviyo:
    account: main
    create: true
    identifier: email
    identifiers: {{ email: email, external_id: customer_id }}
    on_missing_key: hold
    retry: {{ attempts: 100, backoff_min: 200ms, backoff_max: 2s }}
    routes:
      - {{ from: activity, transform: transforms/activity.js }}
      - {{ from: scores, transform: transforms/scores.js }}
      - {{ from: tiers, transform: transforms/scores.js }}
"
    )
}

fn text(
    report: &Report,
    options: &Options,
    workload: &Workload,
    nemesis: &Nemesis,
    starts: u32,
    (faults, drained): (Duration, Duration),
    peak: &std::collections::BTreeMap<String, u64>,
) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        // Writing into a string has no way to fail.
        writeln!(text, "{words}").ok();
    };
    line(format!(
        "{} rows of {} people ({} written twice), {:.0} s of faults, at rest after {:.0} s",
        workload.produced().len(),
        options.people,
        workload.copies(),
        faults.as_secs_f64(),
        drained.as_secs_f64()
    ));
    line(format!("{starts} processes were started; faults: {:?}", nemesis.done));
    line(format!("failpoints that acted: {:?}", report.fired));
    for (source, counts) in &report.counts {
        line(format!("audit of {source}: {counts:?}"));
    }
    line(format!("audit: {}", report.audit));
    line(format!("history: {:?}", report.history.outcomes));
    let memory: Vec<String> = peak.iter().map(|(name, bytes)| format!("{name} {} MB", bytes / 1_000_000)).collect();
    line(format!("resident memory, the highest seen: {}", memory.join(", ")));
    if !report.ends.is_empty() {
        line(format!("processes that ended by themselves: {:?}", report.ends));
    }
    line(format!("{} rows were superseded by newer ones of the same person", report.superseded));
    line(report.verdict.to_string());
    for twice in &report.history.delivered_twice {
        line(format!("delivered twice by the history: {twice}"));
    }
    for panic in &report.panics {
        line(format!("PANIC in {}:\n{}", panic.name, panic.tail));
    }
    if let Some(stuck) = &report.stuck {
        line(format!("STUCK: {stuck}"));
    }
    if !report.missing_failpoints.is_empty() {
        line(format!("failpoints that nothing reached: {}", report.missing_failpoints.join(", ")));
    }
    text
}
