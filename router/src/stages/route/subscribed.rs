//! Which routes want an event, and what else a plan asks of the configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use tailwater_core::delivery::Reason;
use tailwater_core::envelope::Envelope;
use tailwater_core::ledger::End;
use tailwater_core::{ChangeKind, Code, code};

use super::existence::{self, Age};
use super::failed::{Failed, condition_failed};
use super::routes::{Route, Routes, SourceSchema};
use crate::config::EventFields;
use crate::config::model::{OnDelete, OnMissingKey};
use crate::kafka::Record;
use crate::stages::Error;
use crate::state::schemas::Schemas;

/// What a plan asks of the configuration of its destination.
pub trait Subscriptions {
    /// The destination's name.
    fn destination(&self) -> &str;

    /// The identifier type that the destination needs of every profile.
    fn key(&self) -> &str;

    fn on_missing_key(&self) -> OnMissingKey;

    /// How long a record may wait for the key.
    fn hold_for(&self) -> Duration;

    /// Whether the event is from before the destination existed.
    fn age(&self, record: &Record, envelope: &Envelope<'_>) -> Age;

    /// Which routes want the event.
    ///
    /// # Errors
    /// A schema had to be read, and no broker answers.
    fn subscribed(&self, record: &Record, envelope: &Envelope<'_>) -> Result<Subscribed, Error>;
}

/// What the routes of a destination say to an event.
#[derive(Debug)]
pub enum Subscribed {
    /// No route takes events of this source.
    None,
    Ends(End, Code),
    /// The event names something that does not exist.
    Fails(Reason),
    Routes(Wanted),
}

/// The routes that an event is for.
#[derive(Debug, Default)]
pub struct Wanted {
    /// The places of the routes whose condition holds, and of those whose condition could not be evaluated.
    pub routes: Vec<usize>,
    /// Why the condition of a route could not be evaluated. It is judged like a failure of the route's transform.
    pub failed: Vec<(usize, Failed)>,
    /// The event is from before the destination existed.
    pub backfill: bool,
}

/// The compiled routes with the schemas that their conditions need.
pub struct Compiled<'a> {
    pub routes: &'a Routes,
    pub schemas: &'a Schemas,
    /// By partition, the offset from which on the destination exists.
    pub begins: &'a BTreeMap<i32, i64>,
}

impl Subscriptions for Compiled<'_> {
    fn destination(&self) -> &str {
        &self.routes.handle.config.name
    }

    fn key(&self) -> &str {
        &self.routes.handle.config.identifier
    }

    fn on_missing_key(&self) -> OnMissingKey {
        self.routes.handle.config.on_missing_key
    }

    fn hold_for(&self) -> Duration {
        self.routes.handle.config.hold_for
    }

    fn age(&self, record: &Record, envelope: &Envelope<'_>) -> Age {
        let Some(source) = self.routes.sources.get(envelope.source) else { return Age::Live };
        // A person asked for a replay; a record that a merge handed over was judged in its former partition.
        if envelope.replay.is_some() || envelope.only_destination.is_some() {
            return Age::Live;
        }
        let is_history = self.begins.get(&record.partition).is_some_and(|begin| record.offset < *begin);
        existence::age(self.routes.handle.config.start, &source.kind, envelope.time, is_history)
    }

    fn subscribed(&self, record: &Record, envelope: &Envelope<'_>) -> Result<Subscribed, Error> {
        let mut routes = self.routes.of(envelope.source).peekable();
        if routes.peek().is_none() {
            return Ok(Subscribed::None);
        }
        let skips_deletes =
            self.routes.sources.get(envelope.source).is_none_or(|source| source.on_delete == OnDelete::Skip);
        if envelope.change == ChangeKind::Delete && skips_deletes {
            return Ok(Subscribed::Ends(End::Skipped, code::DELETE_SKIPPED));
        }
        let age = self.age(record, envelope);
        if age == Age::BeforeStart {
            return Ok(Subscribed::Ends(End::Skipped, code::BEFORE_START));
        }
        let known = if self.routes.of(envelope.source).any(|(_, route)| route.when.is_some()) {
            match self.routes.schema(envelope.source, envelope.schema, self.schemas)? {
                Ok(known) => known,
                Err(reason) => return Ok(Subscribed::Fails(reason)),
            }
        } else {
            None
        };
        let mut wanted = Wanted { backfill: age == Age::Backfill, ..Wanted::default() };
        for (place, route) in routes {
            match self.condition(record, envelope, route, known.as_deref())? {
                Ok(false) => continue,
                Ok(true) => {}
                Err(failed) => wanted.failed.push((place, failed)),
            }
            wanted.routes.push(place);
        }
        let is_filtered = wanted.routes.is_empty();
        Ok(if is_filtered { Subscribed::Ends(End::Skipped, code::FILTERED) } else { Subscribed::Routes(wanted) })
    }
}

impl Compiled<'_> {
    /// Whether the route's condition holds for the event, or why that cannot be said.
    fn condition(
        &self,
        record: &Record,
        envelope: &Envelope<'_>,
        route: &Route,
        known: Option<&SourceSchema>,
    ) -> Result<Result<bool, Failed>, Error> {
        let Some(when) = &route.when else { return Ok(Ok(true)) };
        let identifiers: Vec<(&str, &str)> =
            envelope.identifiers.iter().map(|identifier| (identifier.kind, identifier.value)).collect();
        let fields = EventFields {
            source: envelope.source,
            event_type: envelope.event_type,
            time: envelope.time,
            change: envelope.change,
            identifiers: &identifiers,
            schema: known.map(|known| &known.schema),
            aliases: Some(self.routes.aliases(envelope.source)),
            reassigned: known.map_or(&[][..], |known| &known.reassigned),
        };
        match when.matches(record.value().unwrap_or_default(), &fields) {
            Ok(holds) => Ok(Ok(holds)),
            Err(error) => {
                let failed = condition_failed(&error, &route.name, envelope, self.schemas)?;
                Ok(Err(failed))
            }
        }
    }
}
