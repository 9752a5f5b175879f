//! Where an event is at a destination, and why: from what was found there to one sentence. Pure.

use serde::Serialize;
use std::time::Duration;

use tailwater_core::ledger::End;
use tailwater_core::{Code, Timestamp, code};

use super::gather::{At, Passed, Pause};
use crate::config::model::Destination;

/// Where an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Delivered,
    Skipped,
    DeadLettered,
    /// Waits for the destination's key, or behind a merge.
    Held,
    /// Waits behind the pause of a route.
    Paused,
    InFlight,
    NotSubscribed,
    Unknown,
}

/// Where an event is at a destination, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub status: Status,
    /// When it was delivered, or since when it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The whole answer, for a person.
    pub text: String,
}

/// Something that happened to an event at a destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    pub text: String,
}

/// What a verdict needs to know beside the event's own facts.
pub struct Scene<'a> {
    pub destination: &'a Destination,
    /// Whether a route takes events of the source.
    pub subscribed: bool,
    pub pause: Option<&'a Pause>,
    /// Whether the person waits for a merge here.
    pub merging: bool,
    /// Why the row's own value of the destination's key is not used.
    pub refusal: Option<&'a str>,
}

impl Status {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Skipped => "skipped",
            Self::DeadLettered => "dead-lettered",
            Self::Held => "held",
            Self::Paused => "behind a pause",
            Self::InFlight => "in flight",
            Self::NotSubscribed => "not subscribed",
            Self::Unknown => "unknown",
        }
    }
}

/// What happened to the event at the destination, in order.
pub fn steps(at: &At) -> Vec<Step> {
    let mut steps = Vec::new();
    let held_for = |reason: &str| at.held.is_none() && is_noted(at, End::Held, reason);
    if held_for(code::NO_KEY.as_str()) || held_for(code::IDENTIFIER_REFUSED.as_str()) {
        steps.push(Step { at: None, text: "was held until the person had the destination's key".to_owned() });
    }
    if held_for(code::ROUTE_PAUSED.as_str()) {
        steps.push(Step { at: None, text: "waited while a route was paused".to_owned() });
    }
    for Passed { at, replay, operations, .. } in &at.outbound {
        let replay = if *replay > 0 { format!(" (replay {replay})") } else { String::new() };
        steps.push(Step { at: None, text: format!("routed to {at}{replay}: {}", operations.join("; ")) });
    }
    for attempt in &at.attempts {
        let target = attempt.target.as_ref().map_or(String::new(), |target| format!(" {target}"));
        let mut text = format!("attempt {} of {}{target}: {}", attempt.attempt, attempt.kind, attempt.outcome);
        if let Some(ticket) = &attempt.ticket {
            text.push_str(&format!(", job {ticket}"));
        }
        if let Some(code) = &attempt.code {
            text.push_str(&format!(", {code}"));
        }
        if let Some(message) = attempt.message.as_ref().filter(|message| !message.is_empty()) {
            text.push_str(&format!(": {message}"));
        }
        steps.push(Step { at: Some(attempt.at.clone()), text });
    }
    for letter in &at.letters {
        let settled = letter.settled.map_or_else(String::new, |action| format!(", {} since", action.as_str()));
        let text = format!("dead letter {}{settled}: {}: {}", letter.at, letter.code, letter.message);
        steps.push(Step { at: None, text });
    }
    steps
}

/// Where the event is at the destination. The ledger's latest round has the last word; what it does not end must be on its way.
pub fn verdict(scene: &Scene<'_>, at: &At) -> Verdict {
    let last =
        at.ends.last_key_value().and_then(|(round, ends)| ends.last().map(|(end, reason)| (*round, *end, reason)));
    match last {
        // A replay that is on its way again is not in the ledger's last word yet.
        Some((_, End::Delivered, reason)) => delivered(reason, at),
        Some((_, End::Skipped, reason)) => skipped(reason, scene, at),
        Some((_, End::DeadLettered, reason)) => dead_lettered(reason, at),
        Some((_, End::Resolved | End::Held | End::Routed | End::Parked, _)) | None => {
            on_its_way(scene, at, last.is_some())
        }
    }
}

/// Whether the ledger has an end for a reason, in any round.
fn is_noted(at: &At, end: End, reason: &str) -> bool {
    at.ends.values().flatten().any(|(noted, why)| *noted == end && why == reason)
}

fn delivered(reason: &str, at: &At) -> Verdict {
    let attempt = at.attempts.iter().rfind(|attempt| attempt.outcome == "delivered");
    let mut text = match attempt {
        Some(attempt) if attempt.attempt > 1 => format!("delivered at {}, by attempt {}", attempt.at, attempt.attempt),
        Some(attempt) => format!("delivered at {}", attempt.at),
        None => "delivered; the history no longer says when".to_owned(),
    };
    // Something was left out: of several operations, the attempt that says so need not be the last one.
    if !reason.is_empty() {
        let said = at.attempts.iter().rfind(|attempt| attempt.code.as_deref() == Some(reason));
        let message = said.and_then(|attempt| attempt.message.as_deref()).filter(|message| !message.is_empty());
        text.push_str(&format!("; {reason}: {}", message.unwrap_or_else(|| meaning(reason))));
    }
    Verdict {
        status: Status::Delivered,
        at: attempt.map(|attempt| attempt.at.clone()),
        code: (!reason.is_empty()).then(|| reason.to_owned()),
        text,
    }
}

fn skipped(reason: &str, scene: &Scene<'_>, at: &At) -> Verdict {
    let attempt =
        at.attempts.iter().rfind(|attempt| attempt.outcome == "skipped" && attempt.code.as_deref() == Some(reason));
    let when = attempt.map_or_else(String::new, |attempt| format!(" at {}", attempt.at));
    Verdict {
        status: Status::Skipped,
        at: attempt.map(|attempt| attempt.at.clone()),
        code: Some(reason.to_owned()),
        text: match scene.refusal.filter(|_| reason == code::IDENTIFIER_REFUSED.as_str()) {
            Some(refusal) => format!("skipped{when}: {reason}, {refusal}"),
            None => format!("skipped{when}: {reason}, {}", meaning(reason)),
        },
    }
}

fn dead_lettered(reason: &str, at: &At) -> Verdict {
    let letter = at.letters.iter().rfind(|letter| letter.code == reason).or_else(|| at.letters.last());
    let text = match letter {
        Some(letter) => {
            format!("dead-lettered: {reason}: {}; `tailwater dlq show {}`", letter.message, letter.at)
        }
        None => format!("dead-lettered: {reason}, {}; its dead letter is no longer in Kafka", meaning(reason)),
    };
    Verdict { status: Status::DeadLettered, at: None, code: Some(reason.to_owned()), text }
}

fn meaning(reason: &str) -> &'static str {
    Code::find(reason).map_or("a reason of a later version", Code::summary)
}

fn on_its_way(scene: &Scene<'_>, at: &At, noted: bool) -> Verdict {
    let Scene { destination, subscribed, pause, merging, refusal } = scene;
    let waits = |status, since: Option<Timestamp>, code: Option<Code>, text: String| Verdict {
        status,
        at: since.map(|since| since.to_string()),
        code: code.map(|code| code.as_str().to_owned()),
        text,
    };
    if let Some(since) = at.held {
        return if *merging {
            waits(
                Status::Held,
                Some(since),
                None,
                format!("held since {since} behind a merge of two profiles; it goes on by itself"),
            )
        } else if is_noted(at, End::Held, code::ROUTE_PAUSED.as_str()) {
            behind_a_pause(since, *pause)
        } else {
            let until = since.saturating_add(Duration::from_secs(destination.hold_for.as_secs()));
            let paused = pause.map_or_else(String::new, |pause| format!("; {}", paused_text(pause)));
            let lack = if refusal.is_some() { code::IDENTIFIER_REFUSED } else { code::NO_KEY };
            let kind = &destination.identifier;
            let why = match refusal {
                Some(refusal) => format!("{refusal}; no other {kind} is known"),
                None => format!("the person has no {kind}"),
            };
            let text = format!(
                "held since {since}: {why} (`identifier` of destination {}); it goes on by itself when an event brings one, and ends as a dead letter after {until}{paused}",
                destination.name
            );
            waits(Status::Held, Some(since), Some(lack), text)
        };
    }
    if let Some(since) = at.parked {
        return waits(
            Status::Held,
            Some(since),
            None,
            format!(
                "waits in send since {since} behind other records of the person, or behind a merge of two profiles; it goes on by itself"
            ),
        );
    }
    if let Some((_, behind)) = at.unrouted {
        return match pause {
            Some(pause) => Verdict {
                status: Status::Paused,
                at: Some(pause.since.clone()),
                code: Some(pause.code.clone()),
                text: format!("waits: {}", paused_text(pause)),
            },
            None => waits(
                Status::InFlight,
                None,
                None,
                format!("not routed yet: route has {behind} records before it in the partition"),
            ),
        };
    }
    if let Some(passed) = at.outbound.last() {
        return being_sent(passed, at);
    }
    if !subscribed && !noted {
        let text = format!("no route of {} takes events of this source", destination.name);
        return waits(Status::NotSubscribed, None, None, text);
    }
    let text = "nothing is known of it after resolve; `tailwater audit` tells whether it is lost".to_owned();
    waits(Status::Unknown, None, None, text)
}

/// It waits in state because its route, or that of an earlier event of the person, was paused.
fn behind_a_pause(since: Timestamp, pause: Option<&Pause>) -> Verdict {
    let why = match pause {
        Some(pause) => paused_text(pause),
        None => "the pause is over, and what waits goes on in order by itself".to_owned(),
    };
    Verdict {
        status: if pause.is_some() { Status::Paused } else { Status::Held },
        at: Some(since.to_string()),
        code: Some(pause.map_or_else(|| code::ROUTE_PAUSED.as_str().to_owned(), |pause| pause.code.clone())),
        text: format!("waits since {since}: {why}"),
    }
}

fn paused_text(pause: &Pause) -> String {
    format!("route {} is paused since {}: {}: {}", pause.route, pause.since, pause.code, pause.message)
}

/// It has left route and send has not ended it yet.
fn being_sent(passed: &Passed, at: &At) -> Verdict {
    let (when, code, text) = match at.attempts.last() {
        Some(attempt) if attempt.outcome == "retry" => {
            let (code, message) =
                (attempt.code.clone().unwrap_or_default(), attempt.message.as_deref().unwrap_or_default());
            (
                Some(attempt.at.clone()),
                Some(code.clone()),
                format!("attempt {} at {} failed, it is tried again: {code}: {message}", attempt.attempt, attempt.at),
            )
        }
        Some(attempt) if attempt.outcome == "accepted" => {
            let job = attempt.ticket.as_deref().unwrap_or("(unnamed)");
            (
                Some(attempt.at.clone()),
                None,
                format!("accepted at {} by the vendor, whose job {job} has not ended yet", attempt.at),
            )
        }
        Some(_) | None => {
            let text = match passed.behind {
                Some(0) | None => "routed, its delivery has not ended yet".to_owned(),
                Some(behind) => format!(
                    "routed, waits for its turn: send has not ended {behind} records before it in the partition, at most"
                ),
            };
            (None, None, text)
        }
    };
    Verdict { status: Status::InFlight, at: when, code, text }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::config::model::{DestinationStart, OnMissingKey, Retry};
    use crate::operator::dlq::{Queue, Reference};
    use crate::operator::shown::Place;
    use crate::operator::trace::gather::Attempt;
    use crate::operator::trace::gather::DeadLetter;

    fn destination() -> Destination {
        Destination {
            name: "klaviyo".into(),
            account: "main".into(),
            options: tailwater_connectors::registry::find("klaviyo")
                .unwrap()
                .options(&serde_json::json!({ "create": true }))
                .unwrap(),
            identifier: "email".into(),
            identifiers: BTreeMap::new(),
            on_missing_key: OnMissingKey::Hold,
            hold_for: Duration::from_secs(86_400),
            start: DestinationStart::Now,
            skip_unchanged: false,
            retry: Retry { attempts_max: 3, backoff_min: Duration::ZERO, backoff_max: Duration::ZERO },
            routes: Vec::new(),
        }
    }

    fn told_with(at: &At, subscribed: bool, pause: Option<&Pause>, merging: bool) -> Verdict {
        verdict(&Scene { destination: &destination(), subscribed, pause, merging, refusal: None }, at)
    }

    fn told(at: &At) -> Verdict {
        told_with(at, true, None, false)
    }

    fn ends(rounds: &[(u32, &[(End, &str)])]) -> BTreeMap<u32, BTreeSet<(End, String)>> {
        rounds
            .iter()
            .map(|(round, ends)| (*round, ends.iter().map(|(end, why)| (*end, (*why).to_owned())).collect()))
            .collect()
    }

    fn attempt(outcome: &str, code: Option<&str>) -> Attempt {
        Attempt {
            at: "2026-03-01T00:00:00.000Z".into(),
            destination: "klaviyo".into(),
            event: String::new(),
            kind: "add_to_list".into(),
            attempt: 2,
            outcome: outcome.into(),
            code: code.map(str::to_owned),
            message: Some("slow down".into()),
            ticket: Some("job-1".into()),
            target: Some("WINBCK".into()),
        }
    }

    fn outbound() -> Vec<Passed> {
        let at = Place { topic: "t.outbound.klaviyo".into(), partition: 1, offset: 9 };
        vec![Passed {
            at,
            replay: 0,
            operations: vec!["upsert_profile by route ltv".into()],
            behind: Some(4),
            only: None,
        }]
    }

    #[test]
    fn an_end_in_the_ledger_is_the_answer() {
        let delivered = At {
            ends: ends(&[(0, &[(End::Held, "no_key"), (End::Delivered, "")])]),
            attempts: vec![attempt("delivered", None)],
            ..At::default()
        };
        let verdict = told(&delivered);
        assert_eq!(
            (verdict.status, verdict.text.as_str()),
            (Status::Delivered, "delivered at 2026-03-01T00:00:00.000Z, by attempt 2")
        );
        assert!(steps(&delivered)[0].text.contains("was held"));
        // Issue 10: a delivery that left something out must say so.
        let mut remark = attempt("delivered", Some("delivered_in_part"));
        remark.message = Some("without external_id".into());
        let in_part = told(&At {
            ends: ends(&[(0, &[(End::Delivered, "delivered_in_part")])]),
            attempts: vec![remark],
            ..At::default()
        });
        assert!(in_part.text.ends_with("; delivered_in_part: without external_id"), "{}", in_part.text);
        let skipped = told(&At { ends: ends(&[(0, &[(End::Skipped, "filtered")])]), ..At::default() });
        assert_eq!(skipped.text, "skipped: filtered, the route's condition does not hold for the event");
    }

    #[test]
    fn a_dead_letter_is_told_with_its_message_and_how_to_see_it() {
        let letter = DeadLetter {
            at: Reference { queue: Queue::Destination("klaviyo".into()), partition: 0, offset: 7 },
            code: "vendor_rejected".into(),
            message: "the phone number is not valid".into(),
            settled: None,
        };
        let dead = At {
            ends: ends(&[(0, &[(End::DeadLettered, "vendor_rejected")])]),
            letters: vec![letter],
            ..At::default()
        };
        let verdict = told(&dead);
        assert_eq!((verdict.status, verdict.code.as_deref()), (Status::DeadLettered, Some("vendor_rejected")));
        assert!(
            verdict.text.contains("phone number") && verdict.text.contains("dlq show destination.klaviyo/0/7"),
            "{}",
            verdict.text
        );
    }

    #[test]
    fn a_later_round_outweighs_an_earlier_one() {
        let mut at = At {
            ends: ends(&[(0, &[(End::DeadLettered, "no_key")]), (1, &[(End::Routed, "")])]),
            outbound: outbound(),
            ..At::default()
        };
        assert_eq!(told(&at).status, Status::InFlight);
        at.ends.entry(1).or_default().insert((End::Delivered, String::new()));
        assert_eq!(told(&at).status, Status::Delivered);
    }

    #[test]
    fn a_held_event_says_what_it_waits_for_and_until_when() {
        let held = At {
            held: Some(Timestamp::from_millis(0)),
            ends: ends(&[(0, &[(End::Held, "no_key")])]),
            unrouted: None,
            ..At::default()
        };
        let verdict = told(&held);
        assert_eq!((verdict.status, verdict.code.as_deref()), (Status::Held, Some("no_key")));
        for words in
            ["held since 1970-01-01T00:00:00.000Z", "the person has no email", "after 1970-01-02T00:00:00.000Z"]
        {
            assert!(verdict.text.contains(words), "{words} in {}", verdict.text);
        }
        assert!(told_with(&held, true, None, true).text.contains("behind a merge"));
    }

    // Issue 10, D.
    #[test]
    fn a_refused_key_is_named_with_its_reason_instead_of_a_person_without_one() {
        let refusal = "the email in column `email` was refused (owned_by_another): it belongs to another profile";
        let scene =
            |destination| Scene { destination, subscribed: true, pause: None, merging: false, refusal: Some(refusal) };
        let destination = destination();
        let held = At {
            held: Some(Timestamp::from_millis(0)),
            ends: ends(&[(0, &[(End::Held, "identifier_refused")])]),
            ..At::default()
        };
        let skipped = At { ends: ends(&[(0, &[(End::Skipped, "identifier_refused")])]), ..At::default() };
        for at in [held, skipped] {
            let verdict = verdict(&scene(&destination), &at);
            assert_eq!(verdict.code.as_deref(), Some("identifier_refused"));
            assert!(verdict.text.contains(refusal) && !verdict.text.contains("has no email"), "{}", verdict.text);
        }
    }

    #[test]
    fn an_event_behind_a_paused_route_is_told_with_the_pause() {
        let at = At {
            held: Some(Timestamp::from_millis(0)),
            ends: ends(&[(0, &[(End::Held, "route_paused")])]),
            ..At::default()
        };
        let pause = Pause {
            route: "ltv".into(),
            code: "missing_column".into(),
            message: "ltv_score".into(),
            since: "2026-03-01T00:00:00.000Z".into(),
        };
        let paused = told_with(&at, true, Some(&pause), false);
        assert_eq!((paused.status, paused.code.as_deref()), (Status::Paused, Some("missing_column")));
        let resumed = told(&at);
        assert_eq!((resumed.status, resumed.code.as_deref()), (Status::Held, Some("route_paused")));
        assert!(!resumed.text.contains("has no email"), "{}", resumed.text);
    }

    #[test]
    fn what_waits_before_route_is_told_with_the_pause_or_the_distance() {
        let at = At { unrouted: Some((0, 12)), ..At::default() };
        assert!(told(&at).text.contains("12 records before it"));
        let pause = Pause {
            route: "ltv".into(),
            code: "missing_column".into(),
            message: "ltv_score".into(),
            since: "2026-03-01T00:00:00.000Z".into(),
        };
        let verdict = told_with(&at, true, Some(&pause), false);
        assert_eq!((verdict.status, verdict.code.as_deref()), (Status::Paused, Some("missing_column")));
        assert!(verdict.text.contains("route ltv is paused since 2026-03-01"), "{}", verdict.text);
    }

    #[test]
    fn what_send_is_at_is_told_by_its_last_attempt() {
        let at =
            |attempts| At { ends: ends(&[(0, &[(End::Routed, "")])]), outbound: outbound(), attempts, ..At::default() };
        assert!(told(&at(vec![])).text.contains("waits for its turn"));
        let retry = told(&at(vec![attempt("retry", Some("rate_limited"))]));
        assert_eq!(retry.code.as_deref(), Some("rate_limited"));
        assert!(retry.text.contains("tried again: rate_limited: slow down"));
        assert!(told(&at(vec![attempt("accepted", None)])).text.contains("job job-1"));
    }

    #[test]
    fn what_no_route_takes_is_told_apart_from_what_is_lost() {
        assert_eq!(told_with(&At::default(), false, None, false).status, Status::NotSubscribed);
        assert_eq!(told(&At::default()).status, Status::Unknown);
    }
}
