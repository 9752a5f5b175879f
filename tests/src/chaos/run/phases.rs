//! The four phases of a run.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;
use tailwater_simulators::klaviyo::DEFAULT_API_KEY;

use super::Options;
use super::report::{Report, excuse_superseded, text, trace};
use super::world::{TABLE, configuration, scripts, write_transforms};
use crate::audit::Counts;
use crate::chaos::brokers::Brokers;
use crate::chaos::check;
use crate::chaos::failpoints::Failpoints;
use crate::chaos::feed::Feed;
use crate::chaos::fleet::{Ended, Fleet, Role, write};
use crate::chaos::history::{self, History};
use crate::chaos::nemesis::{Nemesis, Targets};
use crate::chaos::proxy::Proxy;
use crate::chaos::receiver::{self, Receiver};
use crate::chaos::workload::Workload;
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

const DESTINATION: &str = "klaviyo";

const PREFIX: &str = "chaos.";

/// A run under way.
pub(super) struct Run<'o> {
    options: &'o Options,
    began: Instant,
    began_by_clock: SystemTime,
    receiver: Receiver,
    proxy: Proxy,
    brokers: Brokers,
    topics: Topics,
    configuration: String,
    environment: Vec<(String, String)>,
    fleet: Fleet,
    failpoints: Failpoints,
    feed: Feed,
    workload: Workload,
    nemesis: Nemesis,
    transforms: Transforms<'o>,
    draws: StdRng,
    ended: Vec<Ended>,
    /// The most memory that each process was seen with.
    peak: BTreeMap<String, u64>,
}

/// How a run came to rest.
pub(super) struct Rest {
    held: HashSet<(check::Source, u32, u32)>,
    counts: [(&'static str, Counts); 3],
    audit: String,
    /// It did not, and why that is believed.
    stuck: Option<String>,
}

/// The transforms, which a reload finds changed when they were touched.
struct Transforms<'o> {
    folder: &'o Path,
    generation: u32,
}

impl Transforms<'_> {
    fn touch(&mut self) {
        self.generation += 1;
        write_transforms(self.folder, self.generation);
    }
}

impl<'o> Run<'o> {
    /// The first phase: everything is started, and has begun to work.
    pub fn start(options: &'o Options) -> Self {
        let began = Instant::now();
        let receiver = Receiver::start(receiver::Options::default());
        let mut draws = StdRng::seed_from_u64(options.seed ^ 0x5ced);
        if options.faults {
            receiver.set_scripts(scripts(&mut draws, options.people));
        }
        let proxy = Proxy::start(receiver.address());
        write_transforms(&options.folder, 0);
        let failpoints = Failpoints::new(&options.folder.join("failpoints.log"), options.embedded);
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
        let configuration = configuration(&brokers.address(), PREFIX, &proxy.url());
        let mut fleet = Fleet::new(&options.folder, &configuration, environment.clone());
        for role in roles {
            fleet.add(*role, false);
        }
        let mut run = Self {
            options,
            began,
            began_by_clock: SystemTime::now(),
            receiver,
            proxy,
            topics: Topics::at(&brokers.address()),
            feed: Feed::connect(&brokers.address(), PREFIX, &options.folder.join(TABLE)),
            brokers,
            configuration,
            environment,
            fleet,
            failpoints,
            workload: Workload::new(options.seed, options.people),
            nemesis: Nemesis::new(options.seed ^ 0xfa17, began),
            transforms: Transforms { folder: &options.folder, generation: 0 },
            draws,
            ended: Vec::new(),
            peak: BTreeMap::new(),
        };
        // The topics are made by the first process that comes up.
        let deadline = Instant::now() + Duration::from_secs(90);
        while !run.brokers.answers() || !has_begun(&run.topics, PREFIX) {
            assert!(Instant::now() < deadline, "nothing has begun; see {}", options.folder.display());
            run.look_after(false);
            std::thread::sleep(Duration::from_millis(100));
        }
        run
    }

    /// Starts again what has ended, with a failpoint armed where `arm` says so.
    fn look_after(&mut self, arm: bool) {
        let options = self.options;
        let (failpoints, draws) = (&mut self.failpoints, &mut self.draws);
        let found = self.fleet.look_after(|member| {
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
                let at = self.began.elapsed().as_secs_f64();
                eprintln!("{at:8.1} s  {} ended by itself: {}\n{}", one.name, one.status, one.tail);
            }
        }
        self.ended.extend(found);
    }

    /// The second phase: rows come in, and faults happen. How long it took.
    pub fn disturb(&mut self) -> Duration {
        let options = self.options;
        let began = Instant::now();
        let mut reloaded = Duration::ZERO;
        let (mut drawn, mut told) = (0_f64, Instant::now());
        loop {
            let elapsed = began.elapsed();
            let overtime = elapsed.saturating_sub(options.time);
            let unreached = options.faults && options.bug.is_none() && !self.failpoints.missing().is_empty();
            if elapsed >= options.time && !(unreached && overtime < OVERTIME_MAX) {
                break;
            }
            drawn = self.feed_rows(elapsed, drawn);
            self.look_after(true);
            // What is left to be reached may need a reload, which the nemesis draws seldom.
            if overtime > reloaded {
                reloaded = overtime + Duration::from_secs(10);
                self.transforms.touch();
            }
            if options.faults {
                self.nemesis_acts(Nemesis::step);
            }
            if told.elapsed() > Duration::from_secs(10) {
                told = Instant::now();
                self.tell();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.nemesis_acts(Nemesis::heal);
        began.elapsed()
    }

    /// Writes the rows that are due by now; `drawn` counts those that were drawn or let go.
    fn feed_rows(&mut self, elapsed: Duration, mut drawn: f64) -> f64 {
        let options = self.options;
        let overtime = elapsed.saturating_sub(options.time);
        let overtime_rate = options.rate.min(OVERTIME_RATE_MAX);
        let rate = if overtime.is_zero() { options.rate } else { overtime_rate };
        let until = elapsed.min(options.time).as_secs_f64() * options.rate + overtime.as_secs_f64() * overtime_rate;
        let until = until.max(drawn);
        let done = self.receiver.count() + self.workload.held().len();
        let open = self.workload.produced().len().saturating_sub(done);
        if open < BACKLOG_MAX && self.feed.open() < 50_000 {
            // After a long fault what was missed is not made up for at once.
            drawn = drawn.max(until - rate);
            while drawn < until {
                self.feed.write(&self.workload.draw());
                drawn += 1.0;
            }
        } else {
            drawn = until;
        }
        self.feed.tick();
        drawn
    }

    fn nemesis_acts(&mut self, act: impl FnOnce(&mut Nemesis, &mut Targets<'_>)) {
        let transforms = &mut self.transforms;
        let mut targets = Targets {
            fleet: &mut self.fleet,
            brokers: &self.brokers,
            proxy: &self.proxy,
            receiver: &self.receiver,
            touch_transform: &mut || transforms.touch(),
        };
        act(&mut self.nemesis, &mut targets);
    }

    fn tell(&mut self) {
        for (name, bytes) in self.fleet.memory() {
            let most = self.peak.entry(name).or_insert(0);
            *most = (*most).max(bytes);
        }
        eprintln!(
            "{:8.1} s  {} rows written, {} arrivals, {} rows wait for an email, {} processes started",
            self.began.elapsed().as_secs_f64(),
            self.workload.produced().len(),
            self.receiver.count(),
            self.workload.held().len(),
            self.fleet.starts()
        );
    }

    /// The third phase: no more faults, the last rows, and everything has to come to rest.
    pub fn settle(&mut self) -> Rest {
        if self.options.embedded {
            let deadline = Instant::now() + LIFE_MAX;
            let mut gone = false;
            while !gone || !self.brokers.answers() {
                let folder = self.options.folder.display();
                assert!(Instant::now() < deadline, "no broker after the last kill; see {folder}");
                self.look_after(false);
                gone |= !self.brokers.answers();
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        self.receiver.set_scripts(Vec::new());
        for row in self.workload.closing() {
            self.feed.write(&row);
        }
        self.feed.finish(Duration::from_secs(120));
        self.rest()
    }

    /// Audits until two audits agree that nothing is on its way, or nothing moves any more.
    fn rest(&mut self) -> Rest {
        let held = self.workload.held();
        let mut progress = (0_u64, 0_usize, Instant::now());
        let mut audited = 0;
        let mut next_audit = Instant::now() + Duration::from_secs(3);
        loop {
            self.look_after(false);
            std::thread::sleep(Duration::from_millis(100));
            if Instant::now() < next_audit {
                continue;
            }
            let audit = audit(&self.options.folder, &self.configuration, &self.environment);
            next_audit = Instant::now() + Duration::from_secs(3);
            let counts =
                ["activity", "scores", "tiers"].map(|source| (source, Counts::find(&audit, source, DESTINATION)));
            let open: u64 = counts.iter().map(|(_, counts)| counts.in_flight + counts.unaccounted).sum();
            let held_now: u64 = counts.iter().map(|(_, counts)| counts.held).sum();
            let total: u64 = counts.iter().map(|(_, counts)| counts.total).sum();
            let written = self.workload.produced().len() as u64 + self.workload.copies();
            let seen = self.receiver.count();
            let at = self.began.elapsed().as_secs_f64();
            eprintln!("{at:8.1} s  {open} on their way, {held_now} held of {total}, {seen} arrivals");
            let rests = open == 0 && total == written && held_now == expected_held(&self.workload, &held);
            audited = if rests { audited + 1 } else { 0 };
            // Twice, so that what was on its way while the audit looked is not taken for rest.
            if audited == 2 {
                return Rest { held, counts, audit: audit["flows"].to_string(), stuck: None };
            }
            if (open, seen) != (progress.0, progress.1) {
                progress = (open, seen, Instant::now());
            } else if progress.2.elapsed() > PROGRESS_MAX {
                let stuck = format!(
                    "{open} rows have no end, {held_now} of {total} rows are held ({} expected, {written} written): {audit}",
                    held.len()
                );
                return Rest { held, counts, audit: audit["flows"].to_string(), stuck: Some(stuck) };
            }
        }
    }

    /// The fourth phase: what arrived is checked against what was written.
    pub fn check(mut self, faults: Duration, rest: Rest) -> Report {
        let options = self.options;
        let drained = self.began.elapsed();
        for (_, bytes) in self.fleet.memory() {
            let most = self.peak.entry("at rest".to_owned()).or_insert(bytes);
            *most = (*most).max(bytes);
        }
        let starts = self.fleet.starts();
        let unaccounted: u64 = rest.counts.iter().map(|(_, counts)| counts.unaccounted + counts.in_flight).sum();
        let arrivals = self.receiver.arrivals();
        let mut disturbances = self.nemesis.disturbances.clone();
        disturbances.extend(self.proxy.disturbances());
        disturbances.extend(self.fleet.told(self.failpoints.log(), (self.began, self.began_by_clock)));
        let mut verdict = check::check_with(
            check::Settings { start: Some(self.began), ..check::Settings::default() },
            self.workload.produced(),
            &arrivals,
            &self.receiver.rejected(),
            &rest.held,
            unaccounted,
            &disturbances,
        );
        // What came to no rest may have no broker either, and is to be told.
        let history = if rest.stuck.is_some() && !self.brokers.answers() {
            History::default()
        } else {
            history::read(&self.topics, &format!("{PREFIX}deliveries"))
        };
        let superseded = excuse_superseded(&mut verdict, &history, &arrivals);
        trace(&verdict, &options.folder, &self.environment);
        // Not before: an embedded broker ends with its process.
        let state = self.fleet.state(0);
        drop(self.fleet);
        if options.embedded {
            Brokers::wait_for_end(&state);
        }
        let mut ends = BTreeMap::new();
        for one in self.ended.iter().filter(|one| !one.is_crash() && !one.panicked) {
            *ends.entry(format!("{}: {}", one.name, one.status)).or_insert(0) += 1;
        }
        let mut report = Report {
            verdict,
            history,
            missing_failpoints: if options.faults { self.failpoints.missing() } else { Vec::new() },
            fired: self.failpoints.fired(),
            panics: self.ended.into_iter().filter(|one| one.panicked).collect(),
            ends,
            counts: rest.counts.to_vec(),
            audit: rest.audit,
            superseded,
            stuck: rest.stuck,
            text: String::new(),
        };
        report.text = text(&report, options, &self.workload, &self.nemesis, starts, (faults, drained), &self.peak);
        report
    }
}

/// Whether the topics are there and the table has been seen empty: a first look at several commits would find a person's key more than once
/// in one version.
fn has_begun(topics: &Topics, prefix: &str) -> bool {
    let (ingest, state) = (format!("{prefix}ingest.scores"), format!("{prefix}state.source.tiers"));
    let names = topics.names(prefix);
    let cursor = |record: &Seen| record.key.as_deref() == Some(b"cursor".as_slice());
    names.contains(&ingest) && names.contains(&state) && topics.read(&state).iter().any(cursor)
}

fn expected_held(workload: &Workload, held: &HashSet<(check::Source, u32, u32)>) -> u64 {
    let copies = workload
        .produced()
        .iter()
        .filter(|row| row.repeated && held.contains(&(row.source, row.person, row.seq)))
        .count();
    (held.len() + copies) as u64
}

fn audit(folder: &Path, configuration: &str, environment: &[(String, String)]) -> Value {
    let file = folder.join("audit.yaml");
    write(&file, &format!("{configuration}state_dir: ./state-audit\n"));
    let ended = process::run(folder, environment, &["audit", "--config", "audit.yaml", "--json"]);
    // A broker that has just come back may not answer yet.
    serde_json::from_str(&ended.stdout).unwrap_or(Value::Null)
}
