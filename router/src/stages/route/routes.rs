//! The routes of a destination, compiled: what hot reload swaps as a whole.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tailwater_core::delivery::Reason;
use tailwater_core::operation::OperationKind;
use tailwater_core::schema::{Schema, reassigned};
use tailwater_core::{Code, SchemaId, code};
use tailwater_sandbox::{Pool, RowSchema, Transform};

use crate::config::When;
use crate::config::model::{Config, Source};
use crate::kafka;
use crate::stages::shared::destination::Handle;
use crate::state::schemas::Schemas;

/// Schemas that are kept ready. A source has one at a time, two while a change is in flight.
const SCHEMAS_MAX: usize = 256;

/// The routes of one destination in one version of the configuration.
pub struct Routes {
    /// The destination that they are for. Its connector turns outputs into operations, and is pure as far as route uses it.
    pub handle: Arc<Handle>,
    pub sources: BTreeMap<String, Source>,
    /// All identifier types, by their names.
    pub identifier_types: Vec<String>,
    pub routes: Vec<Route>,
    schemas: Mutex<BTreeMap<(String, SchemaId), Arc<SourceSchema>>>,
}

/// A schema in the two forms that route needs.
pub struct SourceSchema {
    pub schema: Schema,
    pub row: Arc<RowSchema>,
    /// Names, and paths of fields, that belong to another column than before, and of which no alias says that it is known.
    pub reassigned: Vec<String>,
}

pub struct Route {
    pub name: String,
    pub from: String,
    pub when: Option<When>,
    pub transform: Transform,
    /// Destructive operations that the transform may return.
    pub allow: Vec<OperationKind>,
}

/// A configuration whose routes cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error("destinations.{destination}.routes.{route}: {source}")]
    Transform {
        destination: String,
        route: String,
        #[source]
        source: tailwater_sandbox::LoadError,
    },
    #[error("destinations.{destination}.routes.{route}.when: {message}")]
    When { destination: String, route: String, message: String },
}

impl CompileError {
    pub fn code(&self) -> Code {
        match self {
            Self::Transform { source, .. } => source.code(),
            Self::When { .. } => code::CONFIG_EXPRESSION,
        }
    }
}

impl Route {
    /// Why an operation of a transform must not be sent.
    pub fn refusal(&self, kind: OperationKind, destination: &str) -> Option<String> {
        refusal(&self.allow, &self.name, kind, destination)
    }
}

fn refusal(allow: &[OperationKind], route: &str, kind: OperationKind, destination: &str) -> Option<String> {
    if !kind.is_destructive() || allow.contains(&kind) {
        return None;
    }
    let all: Vec<&str> = allow.iter().chain([&kind]).map(|kind| kind.as_str()).collect();
    Some(format!(
        "the operation `{kind}` is destructive and runs only where the route allows it; write `allow: [{}]` in the route `{route}` of the destination `{destination}`",
        all.join(", ")
    ))
}

impl Routes {
    /// Compiles the routes of a destination.
    ///
    /// # Errors
    /// A transform or a condition that does not compile.
    pub fn compile(config: &Config, handle: Arc<Handle>, pool: &Pool) -> Result<Self, CompileError> {
        let destination = &handle.config;
        let mut routes = Vec::with_capacity(destination.routes.len());
        for route in &destination.routes {
            let transform = pool.load(&route.transform.name, &route.transform.source).map_err(|source| {
                CompileError::Transform { destination: destination.name.clone(), route: route.name.clone(), source }
            })?;
            let when = route.when.as_deref().map(When::compile).transpose().map_err(|error| CompileError::When {
                destination: destination.name.clone(),
                route: route.name.clone(),
                message: error.to_string(),
            })?;
            let (name, from, allow) = (route.name.clone(), route.from.clone(), route.allow.clone());
            routes.push(Route { name, from, when, transform, allow });
        }
        Ok(Self {
            sources: config.sources.clone(),
            identifier_types: config.identity.rules.type_names().map(str::to_owned).collect(),
            routes,
            handle,
            schemas: Mutex::new(BTreeMap::new()),
        })
    }

    /// The places of the routes that take events of a source.
    pub fn of(&self, source: &str) -> impl Iterator<Item = (usize, &Route)> {
        self.routes.iter().enumerate().filter(move |(_, route)| route.from == source)
    }

    /// The schema of a source's rows; `None` where the source declares none. The inner error is the row's: it names a schema that is
    /// not in the topic.
    ///
    /// # Errors
    /// No broker answers.
    pub fn schema(
        &self,
        source: &str,
        id: Option<SchemaId>,
        known: &Schemas,
    ) -> Result<Result<Option<Arc<SourceSchema>>, Reason>, kafka::Error> {
        let Some(id) = id else { return Ok(Ok(None)) };
        let key = (source.to_owned(), id);
        if let Some(found) = self.schemas.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Ok(Some(Arc::clone(found))));
        }
        let Some(record) = known.get(id)? else {
            // The source announced it before the row, so only a topic that lost records can lack it.
            return Ok(Err(Reason::new(
                code::SCHEMA_UNKNOWN,
                format!(
                    "the topic schemas has no schema {id} of source {source}, to which the row refers; was the topic deleted?"
                ),
            )));
        };
        let schema = Schema { columns: record.columns.clone() };
        let aliases = self.aliases(source);
        let reassigned: Vec<String> = reassigned(&known.history(id)?)
            .into_iter()
            .filter(|name| !name.is_acknowledged(aliases))
            .map(|name| name.column)
            .collect();
        let row = Arc::new(RowSchema::with_reassigned(&schema, aliases, true, &reassigned));
        let found = Arc::new(SourceSchema { schema, row, reassigned });
        let mut cache = self.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= SCHEMAS_MAX {
            cache.clear();
        }
        cache.insert(key, Arc::clone(&found));
        Ok(Ok(Some(found)))
    }

    /// The older names under which a source's columns may still be read.
    pub fn aliases(&self, source: &str) -> &BTreeMap<String, Vec<String>> {
        static NONE: BTreeMap<String, Vec<String>> = BTreeMap::new();
        self.sources.get(source).map_or(&NONE, |source| &source.aliases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destructive_operation_runs_only_where_its_route_names_it() {
        use OperationKind::{AddToList, RemoveFromList, Suppress, Unsubscribe, UpsertProfile};
        for harmless in [UpsertProfile, AddToList, RemoveFromList] {
            assert_eq!(refusal(&[], "consent", harmless, "klaviyo"), None);
        }
        assert_eq!(refusal(&[Unsubscribe], "consent", Unsubscribe, "klaviyo"), None);
        let why = refusal(&[Unsubscribe], "consent", Suppress, "klaviyo").unwrap();
        assert!(why.contains("`allow: [unsubscribe, suppress]` in the route `consent`"), "{why}");
        for kind in OperationKind::ALL {
            assert_eq!(refusal(&[], "r", kind, "d").is_some(), kind.is_destructive(), "{kind}");
        }
    }
}
