//! The result of an audit, for people and for programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;
use serde::ser::{SerializeStruct as _, Serializer};

use super::Place;

/// Unaccounted records whose coordinates are listed; beyond that they are counted.
pub const LOST_MAX: usize = 1000;

/// One source at one destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Flow {
    pub source: String,
    pub destination: String,
    /// The routes that lead from the one to the other.
    pub routes: Vec<String>,
    #[serde(rename = "in")]
    pub came_in: u64,
    /// By note; empty for nothing to note.
    pub delivered: BTreeMap<String, u64>,
    /// By reason.
    pub skipped: BTreeMap<String, u64>,
    /// By code.
    pub dead_lettered: BTreeMap<String, u64>,
    pub held: u64,
    /// What the held records wait for, by reason.
    pub held_reasons: BTreeMap<String, u64>,
    pub in_flight: u64,
    pub unaccounted: u64,
}

/// A record without an end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lost {
    pub source: String,
    pub destination: String,
    pub place: Place,
    /// The last stage that knew of it: `resolved`, `routed`, `held`, `parked`; nobody if empty.
    pub last_seen: Option<&'static str>,
}

/// A route, a destination or a source that is stopped, or fails again and again. What it holds back counts as in flight.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Paused {
    /// Empty where a destination or a route is paused.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub destination: String,
    /// Empty where the whole destination is paused.
    pub route: String,
    pub code: String,
    pub message: String,
    pub since: String,
}

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    pub flows: Vec<Flow>,
    /// At most [`LOST_MAX`] of the unaccounted records.
    pub lost: Vec<Lost>,
    pub paused: Vec<Paused>,
}

impl Flow {
    pub fn new(source: &str, destination: &str) -> Self {
        Self {
            source: source.to_owned(),
            destination: destination.to_owned(),
            routes: Vec::new(),
            came_in: 0,
            delivered: BTreeMap::new(),
            skipped: BTreeMap::new(),
            dead_lettered: BTreeMap::new(),
            held: 0,
            held_reasons: BTreeMap::new(),
            in_flight: 0,
            unaccounted: 0,
        }
    }
}

impl Serialize for Lost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut lost = serializer.serialize_struct("Lost", 6)?;
        lost.serialize_field("source", &self.source)?;
        lost.serialize_field("destination", &self.destination)?;
        lost.serialize_field("topic", &self.place.0)?;
        lost.serialize_field("partition", &self.place.1)?;
        lost.serialize_field("offset", &self.place.2)?;
        lost.serialize_field("last_seen", &self.last_seen)?;
        lost.end()
    }
}

impl Serialize for Audit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut audit = serializer.serialize_struct("Audit", 4)?;
        audit.serialize_field("unaccounted", &self.unaccounted())?;
        audit.serialize_field("flows", &self.flows)?;
        audit.serialize_field("lost", &self.lost)?;
        audit.serialize_field("paused", &self.paused)?;
        audit.end()
    }
}

impl Audit {
    pub fn unaccounted(&self) -> u64 {
        self.flows.iter().map(|flow| flow.unaccounted).sum()
    }

    /// Whether something is still on its way.
    pub fn is_moving(&self) -> bool {
        self.flows.iter().any(|flow| flow.in_flight > 0)
    }

    /// Takes a later look and keeps of the lost records only those that are lost in both; what was found meanwhile is on its way.
    #[must_use]
    pub fn confirmed_by(self, later: Self) -> Self {
        let before: BTreeSet<Lost> = self.lost.into_iter().collect();
        let complete = before.len() < LOST_MAX;
        let mut later = later;
        if !complete {
            return later;
        }
        let (confirmed, moving): (Vec<Lost>, Vec<Lost>) =
            later.lost.into_iter().partition(|lost| before.contains(lost));
        for lost in moving {
            if let Some(flow) =
                later.flows.iter_mut().find(|flow| flow.source == lost.source && flow.destination == lost.destination)
            {
                flow.unaccounted = flow.unaccounted.saturating_sub(1);
                flow.in_flight += 1;
            }
        }
        later.lost = confirmed;
        later
    }

    /// The table that people read.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let total = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
        let widths = (
            self.flows.iter().map(|flow| flow.source.len()).max().unwrap_or(0).max("source".len()),
            self.flows.iter().map(|flow| flow.destination.len()).max().unwrap_or(0).max("destination".len()),
        );
        let (s, d) = widths;
        let routes: Vec<String> = self.flows.iter().map(|flow| flow.routes.join(", ")).collect();
        let r = routes.iter().map(String::len).max().unwrap_or(0).max("route".len());
        // Writing to a string has no way to fail.
        writeln!(
            text,
            "{:s$}  {:d$}  {:r$}  {:>9}  {:>9}  {:>9}  {:>13}  {:>9}  {:>9}  {:>11}",
            "source",
            "destination",
            "route",
            "in",
            "delivered",
            "skipped",
            "dead-lettered",
            "held",
            "in flight",
            "unaccounted"
        )
        .ok();
        for (flow, route) in self.flows.iter().zip(&routes) {
            writeln!(
                text,
                "{:s$}  {:d$}  {route:r$}  {:>9}  {:>9}  {:>9}  {:>13}  {:>9}  {:>9}  {:>11}",
                flow.source,
                flow.destination,
                flow.came_in,
                total(&flow.delivered),
                total(&flow.skipped),
                total(&flow.dead_lettered),
                flow.held,
                flow.in_flight,
                flow.unaccounted
            )
            .ok();
        }
        for flow in &self.flows {
            let notes = [
                ("delivered", &flow.delivered),
                ("skipped", &flow.skipped),
                ("dead-lettered", &flow.dead_lettered),
                ("held", &flow.held_reasons),
            ];
            for (what, counts) in notes {
                for (reason, count) in counts.iter().filter(|(reason, _)| !reason.is_empty()) {
                    writeln!(text, "{} to {}: {count} {what} ({reason})", flow.source, flow.destination).ok();
                }
            }
        }
        for paused in &self.paused {
            let Paused { source, destination, route, code, message, since } = paused;
            let what = match (source.is_empty(), route.is_empty()) {
                (false, _) => format!("source {source} is not read"),
                (true, true) => format!("paused: {destination}"),
                (true, false) => format!("paused: {destination}, route {route},"),
            };
            writeln!(text, "{what} since {since} ({code}): {message}").ok();
        }
        for lost in &self.lost {
            writeln!(
                text,
                "unaccounted: {} for {}, last seen {}",
                place_text(&lost.place),
                lost.destination,
                lost.last_seen.unwrap_or("by nobody")
            )
            .ok();
        }
        let unlisted = self.unaccounted().saturating_sub(self.lost.len() as u64);
        if unlisted > 0 {
            writeln!(text, "unaccounted: {unlisted} more").ok();
        }
        text
    }
}

/// A place as people write it.
fn place_text(place: &Place) -> String {
    format!("{}[{}]@{}", place.0, place.1, place.2)
}
