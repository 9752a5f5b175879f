//! A story for people: the person, their events in the order in which they came in, and one line per destination.

use std::fmt::{self, Write as _};

use super::story::{Event, Mention, Story};
use super::verdict::Status;

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let person = &self.person;
        writeln!(f, "profile {} (partition {}, {} events)", person.profile, person.partition, person.events)?;
        for identifier in &person.identifiers {
            let state = if identifier.in_use { "in use" } else { "known" };
            writeln!(f, "  {:<16} {}  ({state}, since {})", identifier.kind, identifier.value, identifier.since)?;
        }
        for absorbed in &person.absorbed {
            writeln!(f, "  {:<16} {absorbed}", "absorbed")?;
        }
        if self.events_left_out > 0 {
            writeln!(f, "\n({} older events are left out)", self.events_left_out)?;
        }
        for event in &self.events {
            writeln!(f)?;
            event.fmt(f)?;
        }
        for mention in &self.mentions {
            write!(f, "\n{mention}")?;
        }
        writeln!(f)?;
        if self.events.is_empty() {
            writeln!(
                f,
                "no events: Kafka has removed them, or they ended before a profile was found (`tailwater dlq list`)"
            )?;
        }
        for (name, summary) in &self.destinations {
            let Some(newest) = &summary.newest else {
                writeln!(f, "{name}: no route takes events of these sources")?;
                continue;
            };
            if self.one_event {
                writeln!(f, "{name}: {}", newest.text)?;
                continue;
            }
            let mut counts = String::new();
            for (status, count) in summary.counts.iter().filter(|(status, _)| **status != Status::NotSubscribed) {
                let comma = if counts.is_empty() { "" } else { ", " };
                write!(counts, "{comma}{count} {}", status.as_str())?;
            }
            let source = summary.newest_source.as_deref().unwrap_or_default();
            writeln!(f, "{name}: {counts}. The newest ({source}): {}", newest.text)?;
        }
        Ok(())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.id.as_deref().unwrap_or("without id");
        let name = if self.event_type == self.source { String::new() } else { format!(" {}", self.event_type) };
        let change = if self.change == "none" { String::new() } else { format!(" {}", self.change) };
        let backfill = if self.backfill { ", of a backfill" } else { "" };
        writeln!(f, "{}  {}{name}{change}, event {id}{backfill}", self.came_in, self.source)?;
        writeln!(f, "  came in     {}, source position {}", self.ingest, self.position)?;
        for refused in &self.refused {
            writeln!(f, "  identity    {refused}")?;
        }
        for at in &self.resolved {
            writeln!(f, "  resolved    {at}")?;
        }
        for (destination, outcome) in &self.destinations {
            for step in &outcome.steps {
                match &step.at {
                    Some(at) => writeln!(f, "  {destination:<11} {at} {}", step.text)?,
                    None => writeln!(f, "  {destination:<11} {}", step.text)?,
                }
            }
            writeln!(f, "  {destination:<11} => {}", outcome.verdict.text)?;
        }
        Ok(())
    }
}

impl fmt::Display for Mention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "dead letter {} mentions the person: {}: {}", self.record, self.code, self.message)
    }
}
