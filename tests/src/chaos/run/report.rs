//! What a run found, and how it is told.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use tailwater_core::EventId;

use super::Options;
use crate::audit::Counts;
use crate::chaos::check::Verdict;
use crate::chaos::fleet::{Ended, write};
use crate::chaos::history::History;
use crate::chaos::nemesis::Nemesis;
use crate::chaos::receiver::{self, Arrival};
use crate::chaos::workload::Workload;
use crate::process;

/// What a run found.
#[derive(Debug)]
pub struct Report {
    pub verdict: Verdict,
    pub history: History,
    pub missing_failpoints: Vec<&'static str>,
    pub fired: BTreeMap<String, u32>,
    /// Processes that panicked.
    pub panics: Vec<Ended>,
    /// Processes that ended by themselves with an error, by the code in their last line.
    pub ends: BTreeMap<String, u32>,
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

/// What a device did before anyone knew whose it was goes on after the merge, and may then be older than what its owner was told meanwhile:
/// such a state is not sent. It is excused only if something newer of that person did arrive.
pub(super) fn excuse_superseded(verdict: &mut Verdict, history: &History, arrivals: &[Arrival]) -> usize {
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

/// What the program itself can tell about the people of some findings, while the broker is there.
pub(super) fn trace(verdict: &Verdict, folder: &Path, environment: &[(String, String)]) {
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

pub(super) fn text(
    report: &Report,
    options: &Options,
    workload: &Workload,
    nemesis: &Nemesis,
    starts: u32,
    (faults, drained): (Duration, Duration),
    peak: &BTreeMap<String, u64>,
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
