//! `tailwater status`: what works, what does not, how far each stage is behind and when it will be through.
//!
//! It is made from Kafka: group offsets, the ends of the topics, the notes of pauses in the state topics, and the history of deliveries.
//! So it tells the same whichever machine it runs on, and also when no process runs. What only a process knows (a vendor that is down
//! and when it is tried again, a table that cannot be read) comes from the admin endpoints that answer.

mod admin;
mod gather;
mod text;

use serde::Serialize;

pub use self::gather::{Options, gather};

/// How a part of the flow does, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Stopped until a person acts.
    Paused,
    /// Tries again and again without success.
    Failing,
    /// No process works for it.
    Stopped,
    /// Waits for something that is not there: the topic of a producer.
    Waiting,
    /// Is behind, and did not move while it was looked at.
    Stalled,
    /// The vendor slows it down.
    Throttled,
    Running,
    /// Has nothing to do.
    Idle,
}

/// One line: a source, a route or a destination.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub name: String,
    pub state: State,
    /// Why it is paused, failing or throttled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<String>,
    /// Records that are not worked off.
    pub lag: u64,
    /// The lag was too large to count: it may be a little too high, because the ends of transactions are counted as well.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lag_is_estimated: bool,
    /// Records in a second, while it was looked at.
    pub rate: f64,
    /// When it is through at this rate; `None` where nothing moves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
    /// Routes: records that wait for the destination's key, or behind a merge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub awaiting_key: Option<u64>,
    /// Destinations: records that were read and are not sent, of the processes that were asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<u64>,
    /// Destinations: deliveries that the vendor has not answered, of the processes that were asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u64>,
    /// Destinations: records that wait in state behind others of their person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parked: Option<u64>,
    /// Sources and destinations: open dead letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<u64>,
    /// Sources that read a table: the last version that was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    pub at: String,
    pub workspace: String,
    /// Whether anything needs a person.
    pub fine: bool,
    pub sources: Vec<Line>,
    /// Named `<destination>/<route>`.
    pub routes: Vec<Line>,
    pub destinations: Vec<Line>,
    /// The admin endpoints that answered.
    pub processes: Vec<String>,
    /// Those that were asked for and did not.
    pub unreachable: Vec<String>,
}

impl State {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Failing => "failing",
            Self::Stopped => "stopped",
            Self::Waiting => "waiting",
            Self::Stalled => "stalled",
            Self::Throttled => "throttled",
            Self::Running => "running",
            Self::Idle => "idle",
        }
    }

    /// Whether a person should look.
    pub const fn needs_attention(self) -> bool {
        match self {
            Self::Paused | Self::Failing | Self::Stopped | Self::Waiting | Self::Stalled => true,
            Self::Throttled | Self::Running | Self::Idle => false,
        }
    }

    /// What is known from outside: how many processes work for it, what is left, and how fast that goes.
    fn of(members: usize, lag: u64, rate: f64) -> Self {
        match (members, lag, rate > 0.0) {
            (0, _, _) => Self::Stopped,
            (_, _, true) => Self::Running,
            (_, 0, false) => Self::Idle,
            (_, _, false) => Self::Stalled,
        }
    }
}

impl Line {
    fn new(name: &str, members: usize, lag: Lag, rate: f64) -> Self {
        let seconds_left = (rate > 0.0 && lag.records > 0).then(|| seconds(lag.records, rate));
        Self {
            name: name.to_owned(),
            state: State::of(members, lag.records, rate),
            code: None,
            message: None,
            since: None,
            next_attempt: None,
            lag: lag.records,
            lag_is_estimated: lag.estimated,
            rate: (rate * 10.0).round() / 10.0,
            seconds_left,
            awaiting_key: None,
            queue: None,
            in_flight: None,
            parked: None,
            dead_letters: None,
            version: None,
        }
    }

    /// Takes over what a note says, if that is worse than what is known.
    fn worsen(&mut self, state: State, note: &serde_json::Value) {
        if state >= self.state {
            return;
        }
        let text = |name: &str| note[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        self.state = state;
        (self.code, self.message) = (text("code"), text("message"));
        (self.since, self.next_attempt) = (text("since"), text("next_attempt"));
        if state != State::Throttled {
            self.seconds_left = None;
        }
    }
}

impl Line {
    /// Takes over a note that does not change the state, if there is none yet.
    fn remark(&mut self, note: &serde_json::Value) {
        let text = |name: &str| note[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        if note["message"].is_null() || (self.code.is_some() && self.code != text("code")) {
            return;
        }
        if self.message.is_none() {
            (self.code, self.message, self.since) = (text("code"), text("message"), text("since"));
        }
        self.next_attempt = self.next_attempt.take().or_else(|| text("next_attempt"));
    }
}

/// What is left to do.
#[derive(Debug, Clone, Copy, Default)]
struct Lag {
    records: u64,
    estimated: bool,
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate for people"
)]
fn seconds(records: u64, rate: f64) -> u64 {
    (records as f64 / rate).ceil() as u64
}

impl Status {
    fn lines(&self) -> impl Iterator<Item = &Line> {
        self.sources.iter().chain(&self.routes).chain(&self.destinations)
    }

    /// Dead letters that nobody has settled.
    pub fn dead_letters(&self) -> u64 {
        self.lines().filter_map(|line| line.dead_letters).sum()
    }

    /// How many lines need a person.
    pub fn attention(&self) -> usize {
        self.lines().filter(|line| line.state.needs_attention()).count() + self.unreachable.len()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lag(records: u64) -> Lag {
        Lag { records, estimated: false }
    }

    #[test]
    fn the_state_follows_from_members_lag_and_rate() {
        assert_eq!(State::of(0, 0, 0.0), State::Stopped);
        assert_eq!(State::of(1, 0, 0.0), State::Idle);
        assert_eq!(State::of(1, 5, 0.0), State::Stalled);
        assert_eq!(State::of(1, 5, 2.0), State::Running);
        assert_eq!(Line::new("x", 1, lag(5), 2.0).seconds_left, Some(3));
    }

    #[test]
    fn the_worst_that_is_known_is_shown_with_its_reason() {
        let mut line = Line::new("k", 1, lag(5), 0.0);
        let note = json!({"code": "vendor_unavailable", "message": "503", "since": "then", "next_attempt": "soon"});
        line.worsen(State::Throttled, &note);
        assert_eq!(line.state, State::Stalled, "stalled is worse than throttled");
        line.worsen(State::Failing, &note);
        assert_eq!((line.state, line.code.as_deref()), (State::Failing, Some("vendor_unavailable")));
        line.worsen(State::Paused, &json!({"code": "missing_column", "message": "gone"}));
        assert_eq!((line.code.as_deref(), line.next_attempt.as_deref()), (Some("missing_column"), None));
        line.worsen(State::Failing, &note);
        assert_eq!(line.code.as_deref(), Some("missing_column"));
    }
}
