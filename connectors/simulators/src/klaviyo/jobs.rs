//! Bulk import jobs: queued, then processing, then complete, as time passes. Until a job is complete nobody in it has changed; when it
//! is, everybody in it has been imported and stands on every list that it names.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use crate::engine::clock::{SECOND_US, stamp_seconds};

use super::change::Change;

/// Profiles that may wait in unfinished jobs at once.
pub(super) const WAITING_PROFILES_MAX: usize = 1_000_000;

/// The recorded life of a job.
const EXPIRES_AFTER_US: i64 = 7 * 86_400 * SECOND_US;

/// How long a bulk job takes. A third of `base` passes before it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobDuration {
    pub base: Duration,
    pub per_profile: Duration,
}

impl Default for JobDuration {
    fn default() -> Self {
        Self { base: Duration::from_millis(500), per_profile: Duration::from_micros(100) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Queued,
    Processing,
    Complete,
    Cancelled,
}

#[derive(Debug)]
pub(super) struct Job {
    pub id: String,
    /// The number of the request that made it.
    pub request: u64,
    pub lists: Vec<String>,
    /// The profiles as they were sent, with what they ask for; emptied when the job is done.
    pub profiles: Vec<(Value, Change)>,
    pub total: usize,
    pub errors: Vec<Value>,
    pub imported: Vec<String>,
    /// Prescribed: the job ends without having done anything.
    pub cancel: bool,
    created_us: i64,
    started_us: i64,
    done_us: i64,
    done: bool,
}

/// What a new job is to do.
#[derive(Debug, Default)]
pub(super) struct Order {
    pub request: u64,
    pub profiles: Vec<(Value, Change)>,
    pub lists: Vec<String>,
    pub cancel: bool,
    pub duration: JobDuration,
}

#[derive(Debug)]
pub(super) struct Jobs {
    /// Jobs that are kept; the oldest finished ones make room.
    jobs_max: usize,
    jobs: BTreeMap<String, Job>,
    waiting: BTreeSet<(i64, String)>,
    waiting_profiles: usize,
    counter: u64,
}

// === impl Jobs ===

impl Jobs {
    pub fn new(jobs_max: usize) -> Self {
        Self { jobs_max, jobs: BTreeMap::new(), waiting: BTreeSet::new(), waiting_profiles: 0, counter: 0 }
    }

    pub fn waiting_profiles(&self) -> usize {
        self.waiting_profiles
    }

    /// Queues a job whose profiles have passed the checks; gives back its id.
    pub fn submit(&mut self, order: Order, now_us: i64) -> String {
        let Order { request, profiles, lists, cancel, duration } = order;
        self.counter += 1;
        let id = format!("{:012}.{}", self.counter, uuid::Uuid::new_v4().simple());
        let base_us = micros(duration.base);
        let done_us =
            now_us + base_us + micros(duration.per_profile).saturating_mul(i64::try_from(profiles.len()).unwrap_or(0));
        self.waiting_profiles += profiles.len();
        self.waiting.insert((done_us, id.clone()));
        let job = Job {
            id: id.clone(),
            request,
            lists,
            total: profiles.len(),
            profiles,
            errors: Vec::new(),
            imported: Vec::new(),
            cancel,
            created_us: now_us,
            started_us: now_us + base_us / 3,
            done_us,
            done: false,
        };
        self.jobs.insert(id.clone(), job);
        if self.jobs.len() > self.jobs_max {
            let oldest = self.jobs.values().find(|job| job.done).map(|job| job.id.clone());
            oldest.map(|id| self.jobs.remove(&id));
        }
        id
    }

    /// Takes out the work of the next job that is due.
    pub fn next_due(&mut self, now_us: i64) -> Option<(String, Vec<(Value, Change)>)> {
        if self.waiting.first()?.0 > now_us {
            return None;
        }
        let (_, id) = self.waiting.pop_first()?;
        let job = self.jobs.get_mut(&id)?;
        job.done = true;
        self.waiting_profiles -= job.profiles.len();
        Some((id, std::mem::take(&mut job.profiles)))
    }

    pub fn get(&self, id: &str) -> Option<&Job> {
        self.jobs.get(id)
    }

    pub fn get_mut(&mut self, id: &str) -> Option<&mut Job> {
        self.jobs.get_mut(id)
    }

    /// Jobs after `cursor`, oldest first.
    pub fn after<'a>(&'a self, cursor: &str) -> impl Iterator<Item = &'a Job> {
        let from = (std::ops::Bound::Excluded(cursor.to_owned()), std::ops::Bound::Unbounded);
        self.jobs.range(from).map(|(_, job)| job)
    }
}

// === impl Job ===

impl Job {
    pub fn status(&self, now_us: i64) -> Status {
        if self.done {
            if self.cancel { Status::Cancelled } else { Status::Complete }
        } else if now_us < self.started_us {
            Status::Queued
        } else {
            Status::Processing
        }
    }

    /// The resource as the vendor shows it.
    pub fn to_json(&self, base: &str, now_us: i64) -> Value {
        let status = self.status(now_us);
        let completed = match status {
            Status::Queued | Status::Cancelled => 0,
            Status::Processing => self.progress(now_us),
            Status::Complete => self.imported.len(),
        };
        let at = |us: i64, shown: bool| if shown { Value::String(stamp_seconds(us)) } else { Value::Null };
        let own = format!("{base}/api/profile-bulk-import-jobs/{}", self.id);
        let lists: Vec<Value> = self.lists.iter().map(|id| json!({"type": "list", "id": id})).collect();
        json!({
            "type": "profile-bulk-import-job",
            "id": self.id,
            "attributes": {
                "status": status.as_str(),
                "created_at": stamp_seconds(self.created_us),
                "total_count": self.total,
                "completed_count": completed,
                "failed_count": self.errors.len(),
                "completed_at": at(self.done_us, status == Status::Complete),
                "expires_at": stamp_seconds(self.created_us + EXPIRES_AFTER_US),
                "started_at": at(self.started_us, matches!(status, Status::Processing | Status::Complete)),
            },
            "relationships": {
                "lists": {
                    "data": lists,
                    "links": {"self": format!("{own}/relationships/lists/"), "related": format!("{own}/lists/")},
                },
                "profiles": {"links": {"self": format!("{own}/relationships/profiles/"), "related": format!("{own}/profiles/")}},
                "import-errors": {"links": {"related": format!("{own}/import-errors/")}},
            },
            "links": {"self": format!("{own}/")},
        })
    }

    /// The share of the job that would be done by now; the changes themselves are made when it is complete.
    fn progress(&self, now_us: i64) -> usize {
        let length = i128::from((self.done_us - self.started_us).max(1));
        let passed = i128::from((now_us - self.started_us).max(0)).min(length);
        usize::try_from(i128::try_from(self.total).unwrap_or(0) * passed / length).unwrap_or(0)
    }
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Processing => "processing",
            Self::Complete => "complete",
            Self::Cancelled => "cancelled",
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_goes_from_queued_over_processing_to_complete() {
        let mut jobs = Jobs::new(10);
        let duration = JobDuration { base: Duration::from_secs(3), per_profile: Duration::from_secs(1) };
        let profiles = vec![(Value::Null, Change::default())];
        let id = jobs.submit(Order { profiles, duration, ..Order::default() }, 0);
        assert_eq!(jobs.get(&id).unwrap().status(0), Status::Queued);
        assert_eq!(jobs.get(&id).unwrap().status(SECOND_US), Status::Processing);
        assert!(jobs.next_due(4 * SECOND_US - 1).is_none());
        assert_eq!(jobs.next_due(4 * SECOND_US).map(|(id, work)| (id, work.len())), Some((id.clone(), 1)));
        assert_eq!(jobs.get(&id).unwrap().status(4 * SECOND_US), Status::Complete);
        assert_eq!(jobs.waiting_profiles(), 0);
    }

    #[test]
    fn the_oldest_finished_job_makes_room() {
        let mut jobs = Jobs::new(1);
        let duration = JobDuration { base: Duration::ZERO, per_profile: Duration::ZERO };
        let order = |profiles| Order { profiles, duration, ..Order::default() };
        let first = jobs.submit(order(Vec::new()), 0);
        let second = jobs.submit(order(Vec::new()), 0);
        assert!(jobs.get(&first).is_some(), "an unfinished job stays");
        assert!(jobs.next_due(0).is_some());
        jobs.submit(order(Vec::new()), 0);
        assert!(jobs.get(&first).is_none());
        assert!(jobs.get(&second).is_some());
    }
}
