//! Which routes want an event, and what else a plan asks of the configuration.

use std::time::Duration;

use tailwater_core::delivery::Reason;
use tailwater_core::envelope::Envelope;
use tailwater_core::ledger::End;
use tailwater_core::{ChangeKind, Code, code};

use super::routes::Routes;
use crate::config::EventFields;
use crate::config::model::{OnDelete, OnMissingKey};
use crate::kafka::Record;
use crate::stages::Error;
use crate::stages::schemas::Schemas;

/// What a plan asks of the configuration of its destination.
pub trait Subscriptions {
    /// The destination's name.
    fn destination(&self) -> &str;

    /// The identifier type that the destination needs of every profile.
    fn key(&self) -> &str;

    fn on_missing_key(&self) -> OnMissingKey;

    /// How long a record may wait for the key.
    fn hold_for(&self) -> Duration;

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
    Fails(Reason),
    Routes(Vec<usize>),
}

/// The compiled routes with the schemas that their conditions need.
pub struct Compiled<'a> {
    pub routes: &'a Routes,
    pub schemas: &'a Schemas,
}

impl Subscriptions for Compiled<'_> {
    fn destination(&self) -> &str {
        &self.routes.destination.name
    }

    fn key(&self) -> &str {
        &self.routes.destination.key
    }

    fn on_missing_key(&self) -> OnMissingKey {
        self.routes.destination.on_missing_key
    }

    fn hold_for(&self) -> Duration {
        self.routes.destination.hold_for
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
        let mut wanted = Vec::new();
        for (place, route) in routes {
            let matches = match &route.when {
                None => Ok(true),
                Some(when) => {
                    let schema = match self.routes.schema(envelope.source, envelope.schema, self.schemas)? {
                        Ok(schema) => schema,
                        Err(reason) => return Ok(Subscribed::Fails(reason)),
                    };
                    let identifiers: Vec<(&str, &str)> =
                        envelope.identifiers.iter().map(|identifier| (identifier.kind, identifier.value)).collect();
                    let fields = EventFields {
                        source: envelope.source,
                        event_type: envelope.event_type,
                        time: envelope.time,
                        change: envelope.change,
                        identifiers: &identifiers,
                        schema: schema.as_ref().map(|schema| &schema.schema),
                        aliases: Some(self.routes.aliases(envelope.source)),
                    };
                    when.matches(record.value().unwrap_or_default(), &fields)
                }
            };
            match matches {
                Ok(true) => wanted.push(place),
                Ok(false) => {}
                Err(error) => {
                    let message = format!("the condition of route {} could not be evaluated: {error}", route.name);
                    return Ok(Subscribed::Fails(Reason::new(error.code(), message)));
                }
            }
        }
        Ok(if wanted.is_empty() { Subscribed::Ends(End::Skipped, code::FILTERED) } else { Subscribed::Routes(wanted) })
    }
}
