//! Watches how far the stages of this process are behind, and tells of a partition that has records and does not move.
//!
//! A consumer that was told "no leader" and was not told again waits without an error; so does any stage with a fault of ours. What a
//! stage knows of itself cannot show that, so the groups are looked at from outside. A destination that is paused or whose vendor takes
//! nothing has told so itself, and is left out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tracing::{debug, info, warn};

use super::Role;
use crate::kafka::Error;
use crate::kafka::progress::{Progress, Standing};
use crate::kafka::topics;
use crate::runtime::Context;
use crate::runtime::supervisor::{Shutdown, Spawner, TaskError, TaskKind};

/// How often the groups are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);

/// How long an answer may take: less than a task of this kind may take to end.
const ANSWER_MAX: Duration = Duration::from_millis(1_500);

/// How long a partition may stand still with records to read.
const STILL_MAX: Duration = Duration::from_secs(60);

pub fn spawn(shared: &Arc<Context>, spawner: &Spawner, roles: &[Role]) {
    let shared = Arc::clone(shared);
    let roles = roles.to_vec();
    spawner.thread("lag", TaskKind::Watcher, move |stop| {
        let mut groups = groups(&shared, &roles).map_err(|error| TaskError::new(error.code(), &error))?;
        while !stop.wait(LOOK_INTERVAL) {
            for group in &mut groups {
                if stop.is_requested() {
                    break;
                }
                if let Err(error) = group.look(&shared, stop) {
                    // The watch on the brokers tells of it.
                    debug!("the lag of {} is not known: {error}", group.stage);
                }
            }
        }
        Ok(())
    });
}

/// The groups that the stages of these roles belong to.
fn groups(shared: &Context, roles: &[Role]) -> Result<Vec<Group>, Error> {
    let (kafka, names) = (&shared.config.kafka, &shared.names);
    let mut groups = Vec::new();
    let mut add = |stage: &'static str, component: &str, topics: &[String]| {
        let group = names.group(stage, (!component.is_empty()).then_some(component));
        let progress = Progress::connect(kafka, &group, topics)?;
        groups.push(Group { stage, component: component.to_owned(), progress, still: Still::default() });
        Ok::<(), Error>(())
    };
    for role in roles {
        match role {
            Role::Source => {}
            Role::Resolve => {
                let topics: Vec<String> =
                    shared.config.sources.values().flat_map(|source| topics::input_topics(names, source)).collect();
                add("resolve", "", &topics)?;
            }
            Role::Route => {
                for name in shared.config.destinations.keys() {
                    add("route", name, &[names.resolved()])?;
                }
            }
            Role::Send => {
                for name in shared.config.destinations.keys() {
                    add("send", name, &[names.outbound(name)])?;
                }
            }
        }
    }
    Ok(groups)
}

struct Group {
    stage: &'static str,
    component: String,
    progress: Progress,
    still: Still,
}

impl Group {
    fn look(&mut self, shared: &Context, stop: &Shutdown) -> Result<(), Error> {
        let standings = self.progress.look(ANSWER_MAX, &|| stop.is_requested())?;
        let lag: i64 = standings.iter().map(|standing| standing.end - standing.next).sum();
        shared.telemetry.metrics().lag.with_label_values(&[self.stage, &self.component]).set(lag);
        let excused = self.is_excused(shared);
        for standing in &standings {
            match self.still.see(standing, excused, Instant::now()) {
                Seen::Moves => {}
                Seen::MovesAgain => info!(
                    stage = self.stage,
                    component = %self.component,
                    "{}[{}] moves again", standing.topic, standing.partition
                ),
                Seen::Still(since) => {
                    if self.progress.has_record(standing, ANSWER_MAX) {
                        self.still.told(standing);
                        warn!(
                            code = "partition_stalled",
                            stage = self.stage,
                            component = %self.component,
                            "{}[{}] has records from offset {} on, and the stage has not moved for {} s; if it stays so, restart the process \
                             that owns the partition, and look at the brokers' logs for its leader",
                            standing.topic,
                            standing.partition,
                            standing.next,
                            since.as_secs()
                        );
                    } else {
                        self.still.forget(standing);
                    }
                }
            }
        }
        let stalled = i64::try_from(self.still.stalled()).unwrap_or(i64::MAX);
        shared.telemetry.metrics().partitions_stalled.with_label_values(&[self.stage, &self.component]).set(stalled);
        Ok(())
    }

    /// Whether it is known why nothing moves.
    fn is_excused(&self, shared: &Context) -> bool {
        if self.component.is_empty() {
            return false;
        }
        let page = shared.telemetry.status_page();
        let state = |part: &str| page["destination"][format!("{}.{part}", self.component)]["state"].clone();
        let vendor = ["failing", "throttled"].map(Value::from).contains(&state("vendor"));
        // What send has read and not finished is tried again, each at its time.
        let open = shared.telemetry.metrics().deliveries_open.with_label_values(&[&self.component]).get() > 0;
        state(self.stage) == "paused" || (self.stage == "send" && (vendor || open))
    }
}

/// Since when each partition has not moved.
#[derive(Debug, Default)]
struct Still(BTreeMap<(String, i32), Since>);

#[derive(Debug)]
struct Since {
    next: i64,
    at: Instant,
    told: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Moves,
    MovesAgain,
    /// There may be records to read, and nothing has moved for so long.
    Still(Duration),
}

impl Still {
    fn see(&mut self, standing: &Standing, excused: bool, now: Instant) -> Seen {
        let key = (standing.topic.clone(), standing.partition);
        let since = self.0.entry(key).or_insert(Since { next: standing.next, at: now, told: false });
        if since.next != standing.next || standing.end <= standing.next || excused {
            let told = since.told;
            *since = Since { next: standing.next, at: now, told: false };
            return if told { Seen::MovesAgain } else { Seen::Moves };
        }
        let still = now.saturating_duration_since(since.at);
        if still >= STILL_MAX && !since.told { Seen::Still(still) } else { Seen::Moves }
    }

    fn told(&mut self, standing: &Standing) {
        if let Some(since) = self.0.get_mut(&(standing.topic.clone(), standing.partition)) {
            since.told = true;
        }
    }

    /// There was nothing to read after all.
    fn forget(&mut self, standing: &Standing) {
        self.0.remove(&(standing.topic.clone(), standing.partition));
    }

    fn stalled(&self) -> usize {
        self.0.values().filter(|since| since.told).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(next: i64, end: i64) -> Standing {
        Standing { topic: "t.resolved".into(), partition: 3, next, end }
    }

    #[test]
    fn a_partition_with_records_that_does_not_move_for_a_minute_is_told_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut still = Still::default();
        assert_eq!(still.see(&standing(5, 9), false, at(0)), Seen::Moves);
        assert_eq!(still.see(&standing(5, 9), false, at(59)), Seen::Moves);
        assert_eq!(still.see(&standing(5, 12), false, at(61)), Seen::Still(Duration::from_secs(61)));
        still.told(&standing(5, 12));
        assert_eq!(still.stalled(), 1);
        assert_eq!(still.see(&standing(5, 12), false, at(90)), Seen::Moves, "it is told once");
        assert_eq!(still.see(&standing(6, 12), false, at(95)), Seen::MovesAgain);
        assert_eq!(still.stalled(), 0);
    }

    #[test]
    fn what_has_nothing_to_read_or_is_held_up_for_a_known_reason_is_no_stall() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut still = Still::default();
        for seconds in [0, 100] {
            assert_eq!(still.see(&standing(9, 9), false, at(seconds)), Seen::Moves);
        }
        for seconds in [200, 300] {
            assert_eq!(still.see(&standing(9, 12), true, at(seconds)), Seen::Moves);
        }
        assert_eq!(
            still.see(&standing(9, 12), false, at(350)),
            Seen::Moves,
            "the minute begins when the reason is gone"
        );
        assert!(matches!(still.see(&standing(9, 12), false, at(361)), Seen::Still(_)));
    }
}
