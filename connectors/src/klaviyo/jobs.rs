//! Bulk jobs after they were taken: tickets, their state, and which of their people failed.
//!
//! A ticket is `{"job":"<the vendor's id>","profiles":<how many were sent>}`. It is all that another process needs to go on asking
//! after this one is gone; the members come with it from the send stage's state. The number tells whether the members are
//! still those of the job: only then does the position in a pointer mean anything.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tailwater_core::code;
use tailwater_core::delivery::{Delivery, Outcome, Reason, Scope, Ticket};
use url::Url;

use super::deliver::{Single, conflict, join_lists};
use super::errors::{VendorError, pointer_index};
use super::requests::{self, BULK_POINTER, Field, Identified};
use super::work::Work;
use super::{Klaviyo, endpoint};
use crate::http::{Endpoint, Halt, Session};
use crate::outcomes::Outcomes;

/// Pages of errors that are read of one job: a page has 100, and a job no more errors than it has people.
const ERROR_PAGES_MAX: usize = 120;

/// Failed questions about one job, with others answered in between, after which its people are sent again: at five seconds apart, the job
/// is long over by then.
const QUESTIONS_MAX: u32 = 60;

/// What a ticket's text holds. Part of the send stage's state: readers take what earlier versions wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JobTicket {
    job: String,
    profiles: usize,
    /// What the vendor took the job without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remark: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Job {
    data: JobData,
}

#[derive(Debug, Deserialize)]
struct JobData {
    attributes: JobAttributes,
}

#[derive(Debug, Deserialize)]
struct JobAttributes {
    status: String,
    #[serde(default)]
    completed_count: Option<u64>,
    #[serde(default)]
    failed_count: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ErrorPage {
    data: Vec<ErrorItem>,
    #[serde(default)]
    pub links: Links,
}

#[derive(Debug, Deserialize)]
struct ErrorItem {
    attributes: ErrorAttributes,
}

#[derive(Debug, Deserialize)]
struct ErrorAttributes {
    #[serde(flatten)]
    error: VendorError,
    #[serde(default)]
    original_payload: Value,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Links {
    #[serde(default)]
    pub next: Option<String>,
}

// === impl JobTicket ===

impl JobTicket {
    pub fn new(job: String, profiles: usize, remark: Option<String>) -> Self {
        Self { job, profiles, remark }
    }
}

impl From<JobTicket> for Ticket {
    fn from(ticket: JobTicket) -> Self {
        // A struct of a text and a number always serializes.
        Self(serde_json::to_string(&ticket).unwrap_or_default())
    }
}

impl Klaviyo {
    pub(super) async fn confirm_job(
        &self,
        ticket: &Ticket,
        members: &[Delivery],
        session: &Session<'_>,
        outcomes: &Outcomes<'_>,
    ) {
        let work = self.work(members, session, outcomes);
        let running = || outcomes.set_rest(&Outcome::Accepted(ticket.clone()));
        let again = |code, message: String| work.resend(&work.all_open(), code, message);
        let Ok(known) = serde_json::from_str::<JobTicket>(&ticket.0) else {
            let message = "the ticket of the job cannot be read, so its people are sent again".to_owned();
            return again(code::VENDOR_UNAVAILABLE, message);
        };
        let answer = match session.send(&requests::job(&known.job), &[subject_of(&known.job)]).await {
            Ok(answer) => answer,
            Err(halt) => return unknown_yet(work, &known, &endpoint::JOB, &halt, ticket),
        };
        if answer.status() == 404 {
            let message = format!("the vendor no longer knows the job {}, so its people are sent again", known.job);
            return again(code::VENDOR_UNAVAILABLE, message);
        }
        if !answer.is_success() {
            let words = answer.words();
            let message = format!("the job {} cannot be asked for, so its people are sent again: {words}", known.job);
            return again(code::VENDOR_UNAVAILABLE, message);
        }
        let Some(job) = answer.read::<Job>() else {
            tracing::warn!(job = %known.job, "the vendor's answer about a job cannot be read; it is asked for again");
            return running();
        };
        let job = job.data.attributes;
        match job.status.as_str() {
            "complete" => settle(work, &known, job.failed_count.unwrap_or(0), ticket).await,
            "cancelled" => again(
                code::JOB_CANCELLED,
                format!("the vendor cancelled the job {}; its people are sent again", known.job),
            ),
            "queued" | "processing" => {
                tracing::trace!(job = %known.job, status = %job.status, completed = job.completed_count, "the job runs");
                running();
            }
            other => {
                tracing::warn!(job = %known.job, status = other, "the vendor reports a state that is not known; the job is taken as running");
                running();
            }
        }
    }
}

/// The job is complete: everyone is delivered who is not among its errors.
async fn settle(work: Work<'_>, known: &JobTicket, failed: u64, ticket: &Ticket) {
    let deliver_rest = |except: &BTreeSet<usize>| {
        for index in work.all_open().into_iter().filter(|index| !except.contains(index)) {
            work.delivered(index, known.remark.as_deref());
        }
    };
    if failed == 0 {
        return deliver_rest(&BTreeSet::new());
    }
    let errors = match import_errors(known, work.session).await {
        Ok(errors) => errors,
        Err(halt) => return unknown_yet(work, known, &endpoint::JOB_ERRORS, &halt, ticket),
    };
    let found = attribute(&errors, known, work.batch);
    let mut duplicates = BTreeMap::new();
    for (&index, error) in &found.members {
        if error.is_duplicate_profile() {
            duplicates.insert(index, *error);
        } else {
            work.set(index, &failed_item(error));
        }
    }
    let told = found.members.len() + found.elsewhere.len();
    let all_told = told as u64 >= failed && found.strangers == 0;
    if all_told {
        deliver_rest(&duplicates.keys().copied().collect());
    }
    // People whom the vendor knows as different ones under their identifiers.
    let mut joining = Vec::new();
    for (index, error) in duplicates {
        if let Single::Done(upserted) = conflict(work, index, std::slice::from_ref(error)).await {
            joining.push((index, upserted));
        }
    }
    join_lists(work, joining).await;
    if !all_told {
        // Somebody failed and cannot be told from the others; saying "delivered" could be a lie, while saying it all again is harmless.
        let message = format!(
            "the job {} failed for {failed} of its {} people and names {} of them; the others are sent again",
            known.job, known.profiles, told
        );
        tracing::warn!("{message}");
        work.resend(&work.all_open(), code::JOB_ITEM_FAILED, message);
    }
}

/// The state of the job could not be learned: it may well run on, so its people are not sent again for that. Only wrong
/// credentials are told, because a person has to act; and a question that fails again and again while others are answered is given up.
fn unknown_yet(work: Work<'_>, known: &JobTicket, endpoint: &'static Endpoint, halt: &Halt, ticket: &Ticket) {
    if halt.scope == Scope::Credentials {
        return work.outcomes.set_rest(&halt.outcome());
    }
    if let Some(first) = work.batch.first().filter(|_| halt.failed) {
        let answers = work.answers(endpoint);
        let questions = work.attempts.update(first.key, |attempt| {
            let (since, count) = attempt.own.questions.unwrap_or((answers, 0));
            let count = if answers > since { count + 1 } else { count };
            attempt.own.questions = Some((since, count));
            count
        });
        if questions >= QUESTIONS_MAX {
            work.attempts.update(first.key, |attempt| attempt.own.questions = None);
            let message = format!(
                "the vendor fails to tell about the job {}, while it answers others, so its people are sent again: {}",
                known.job, halt.reason.message
            );
            return work.resend(&work.all_open(), code::VENDOR_UNAVAILABLE, message);
        }
    }
    work.outcomes.set_rest(&Outcome::Accepted(ticket.clone()));
}

/// A job as the subject of a question.
fn subject_of(job: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    job.hash(&mut hasher);
    hasher.finish()
}

fn failed_item(error: &VendorError) -> Outcome {
    /// Codes with which the vendor says that the item was good and the moment was not.
    const MOMENTARY: [&str; 5] = ["throttled", "timeout", "internal_error", "service_unavailable", "server_error"];
    let reason = Reason::new(code::JOB_ITEM_FAILED, error.describe());
    if MOMENTARY.contains(&error.code.as_str()) {
        Outcome::Retry { after: None, scope: Scope::Delivery, reason }
    } else {
        Outcome::Rejected(reason)
    }
}

/// All errors of a job.
async fn import_errors(known: &JobTicket, session: &Session<'_>) -> Result<Vec<ErrorAttributes>, Halt> {
    let mut all = Vec::new();
    let mut cursor: Option<String> = None;
    for _ in 0..ERROR_PAGES_MAX {
        let answer =
            session.send(&requests::import_errors(&known.job, cursor.as_deref()), &[subject_of(&known.job)]).await?;
        if !answer.is_success() {
            tracing::warn!(job = %known.job, status = answer.status(), "the errors of a job cannot be read: {}", answer.words());
            return Ok(all);
        }
        let Some(page) = answer.read::<ErrorPage>() else {
            tracing::warn!(job = %known.job, "a page of a job's errors is not of the shape that the vendor documents");
            return Ok(all);
        };
        all.extend(page.data.into_iter().map(|item| item.attributes));
        let next = page.links.next.as_deref().and_then(cursor_of);
        if next.is_none() || next == cursor {
            return Ok(all);
        }
        cursor = next;
    }
    tracing::warn!(job = %known.job, pages = ERROR_PAGES_MAX, "a job has more errors than people; the rest is not read");
    Ok(all)
}

/// The cursor in the address of the next page. The address itself is not followed: credentials go to the configured host only.
pub(super) fn cursor_of(next: &str) -> Option<String> {
    let url = Url::parse(next).or_else(|_| Url::parse("https://next.invalid").and_then(|base| base.join(next))).ok()?;
    url.query_pairs().find(|(name, _)| name == "page[cursor]").map(|(_, cursor)| cursor.into_owned())
}

struct Attributed<'a> {
    /// Member → its first error.
    members: BTreeMap<usize, &'a VendorError>,
    /// People who are in the job and not among the members: another process owns their partitions.
    elsewhere: BTreeSet<Vec<(Field, String)>>,
    /// Errors that name nobody who can be found.
    strangers: usize,
}

/// Finds the member that each error speaks of: by the identifiers in the payload that the vendor repeats, else by the position
/// in its pointer.
fn attribute<'a>(errors: &'a [ErrorAttributes], known: &JobTicket, members: &[Delivery]) -> Attributed<'a> {
    let mut by_identifier: HashMap<(Field, String), BTreeSet<usize>> = HashMap::new();
    for (index, member) in members.iter().enumerate() {
        for identifier in Identified::of(&member.operation).normal() {
            by_identifier.entry(identifier).or_default().insert(index);
        }
    }
    let all_are_here = members.len() == known.profiles;
    let mut found = Attributed { members: BTreeMap::new(), elsewhere: BTreeSet::new(), strangers: 0 };
    for error in errors {
        let payload = payload_identifiers(&error.original_payload);
        let named: BTreeSet<usize> =
            payload.iter().filter_map(|identifier| by_identifier.get(identifier)).flatten().copied().collect();
        // Two people at once would be a guess.
        let by_payload = named.first().copied().filter(|_| named.len() == 1);
        let by_position = || {
            let index = pointer_index(&error.error.source.pointer, BULK_POINTER)?;
            (all_are_here && index < members.len()).then_some(index)
        };
        if let Some(index) = by_payload.or_else(by_position) {
            found.members.entry(index).or_insert(&error.error);
        } else if !all_are_here && !payload.is_empty() && named.is_empty() {
            found.elsewhere.insert(payload);
        } else {
            found.strangers += 1;
        }
    }
    found
}

/// The identifiers in a payload, which may be a profile, a profile in `data`, or its attributes.
fn payload_identifiers(payload: &Value) -> Vec<(Field, String)> {
    let attributes = payload.pointer("/data/attributes").or_else(|| payload.pointer("/attributes")).unwrap_or(payload);
    Field::ALL
        .into_iter()
        .filter_map(|field| {
            let value = attributes.get(field.as_str())?;
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (!value.is_null()).then(|| (field, field.normal(&text)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_a_text_that_later_versions_still_read() {
        let ticket = Ticket::from(JobTicket::new("01J".to_owned(), 3, None));
        assert_eq!(ticket.0, r#"{"job":"01J","profiles":3}"#);
        assert_eq!(serde_json::from_str::<JobTicket>(&ticket.0).unwrap(), JobTicket::new("01J".to_owned(), 3, None));
    }

    #[test]
    fn the_next_page_is_asked_of_the_configured_host_only() {
        let next = "https://elsewhere.example/api/x?page%5Bcursor%5D=bmV4dA%3D%3D&page%5Bsize%5D=100";
        assert_eq!(cursor_of(next).as_deref(), Some("bmV4dA=="));
        assert_eq!(cursor_of("/api/x?page[cursor]=abc").as_deref(), Some("abc"));
        assert_eq!(cursor_of("https://a.klaviyo.com/api/x"), None);
    }
}
