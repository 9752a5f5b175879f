//! Sources.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value as Json;
use tailwater_core::code;
use tailwater_core::path::{self, Split};
use tailwater_core::schema::{Column, Schema};
use tailwater_core::time::TimeUnit;

use super::{Builder, spark_type};
use crate::config::forms::nearest;
use crate::config::model::{
    DeltaSource, EventTimeRules, KafkaSource, OnDecodeFailures, OnDelete, OnInvalid, Source, SourceInput, SourceKind,
    Start, TextColumns,
};
use crate::config::names::{Names, input_topic};
use crate::config::problem::{Path, Problem};
use crate::config::raw::{
    RawAddedColumns, RawCoalesce, RawDeltaSource, RawEventTime, RawKafkaSource, RawKind, RawOnDecodeFailures,
    RawOnDelete, RawOnInvalid, RawOnInvalidTime, RawStart, RawTextColumns, RawTimeUnit,
};
use tailwater_connectors::config::Period;

/// Schemes under which tables can be read.
const SCHEMES: &[&str] = &["s3", "s3a", "abfs", "abfss", "az", "gs", "file"];

/// Columns that a declared schema may have, the bound of Delta's own statistics many times over.
const COLUMNS_MAX: usize = 5_000;

/// How long the ids of delivered facts are remembered: as long as most brokers keep the records that might be sent again.
const DEDUPE: Duration = Duration::from_secs(7 * 86_400);

/// The columns whose numbers of one type are to be texts.
struct Texts {
    key: &'static str,
    /// The type, by its canonical name.
    kind: &'static str,
    columns: TextColumns,
}

fn text_columns(raw: Option<RawTextColumns>) -> TextColumns {
    match raw {
        None => TextColumns::Columns(Vec::new()),
        Some(RawTextColumns::All(_)) => TextColumns::All,
        Some(RawTextColumns::Columns(columns)) => TextColumns::Columns(columns.into_keys().collect()),
    }
}

impl Builder<'_> {
    pub(super) fn sources(&mut self, prefix: &str) -> BTreeMap<String, Source> {
        let mut sources = BTreeMap::new();
        for (name, json) in self.entries("sources") {
            let path = Path::of(["sources"]).key(&name);
            let source = match self.tag("sources", &name) {
                Some("delta") => self.section(&json, &path).and_then(|raw| self.delta_source(&name, &path, raw)),
                Some("kafka") => {
                    self.section(&json, &path).and_then(|raw| self.kafka_source(&name, &path, raw, prefix))
                }
                Some(_) | None => None,
            };
            if let Some(source) = source {
                sources.insert(name, source);
            }
        }
        self.one_source_per_topic(&sources, prefix);
        sources
    }

    /// A topic belongs to one source: of two that name it, only one would be read. Topics that the stages write are no source's.
    fn one_source_per_topic(&mut self, sources: &BTreeMap<String, Source>, prefix: &str) {
        let names = Names::new(prefix);
        let mut taken: BTreeMap<String, (&str, &'static str)> = BTreeMap::new();
        // Tables first: their topics cannot be chosen, so a clash is the other source's to solve.
        let tables_first = |source: &&Source| matches!(source.input, SourceInput::Kafka(_));
        let mut ordered: Vec<&Source> = sources.values().collect();
        ordered.sort_by_key(tables_first);
        for source in ordered {
            let topic = input_topic(&names, source);
            let key = match source.input {
                SourceInput::Delta(_) => "table",
                SourceInput::Kafka(_) => "topic",
            };
            let path = Path::of(["sources"]).key(&source.name).key(key);
            if matches!(source.input, SourceInput::Kafka(_)) && names.is_internal(&topic) {
                let message = format!("the topic `{topic}` is one that Tailwater writes for its own stages");
                let problem = Problem::error(code::CONFIG_INVALID_VALUE, &path, message);
                self.report(problem.hint("read the topic of a producer, or another workspace's `deliveries`"), &path);
                continue;
            }
            let Some((other, other_key)) = taken.insert(topic.clone(), (&source.name, key)) else { continue };
            let message = format!(
                "the topic `{topic}` is already read by source `{other}` (sources.{other}.{other_key}); one topic has one source"
            );
            let hint = if other_key == "table" {
                format!("a table's rows go to `{topic}`: give this source another topic or another name")
            } else {
                format!(
                    "to deliver its rows in two ways, give a destination two routes `from: {other}`, each with its own `name`"
                )
            };
            self.report(Problem::error(code::CONFIG_INVALID_VALUE, &path, message).hint(hint), &path);
        }
    }

    fn delta_source(&mut self, name: &str, path: &Path, raw: RawDeltaSource) -> Option<Source> {
        let kind = self.kind(path, raw.kind, raw.primary_key.as_deref(), raw.id.clone(), true)?;
        let columns = Columns {
            primary_key: raw.primary_key.as_deref(),
            id: raw.id.as_deref(),
            event_time: raw.event_time.as_ref().map(event_time_path),
            identifiers: &raw.identifiers,
            aliases: &raw.aliases,
        };
        self.columns(path, &columns, None);
        let dedupe = self.dedupe(path, &kind, raw.dedupe);
        self.within(&path.key("poll_interval"), raw.poll_interval, Period::millis(100), Period::days(1));
        self.within(&path.key("commit_settle"), raw.commit_settle, Period::millis(100), Period::days(1));
        let table = self.table(path, &raw.table);
        let (coalesce, added_columns_differ) = match raw.coalesce {
            RawCoalesce::Enabled(enabled) => (enabled, true),
            RawCoalesce::Rules(rules) => (true, rules.added_columns == RawAddedColumns::Differ),
        };
        Some(Source {
            name: name.to_owned(),
            input: SourceInput::Delta(DeltaSource {
                table,
                poll_interval: raw.poll_interval.0,
                commit_settle: raw.commit_settle.0,
                start: match raw.start {
                    RawStart::Snapshot => Start::Snapshot,
                    RawStart::Latest => Start::Latest,
                    RawStart::Version(version) => Start::Version(version),
                },
                coalesce,
                added_columns_differ,
                longs: text_columns(raw.longs),
                decimals: text_columns(raw.decimals),
                storage_options: raw.storage.into_iter().map(|(key, value)| (key, value.into_inner())).collect(),
            }),
            primary_key: raw.primary_key.or_else(|| raw.id.clone()),
            kind,
            identifiers: raw.identifiers.into_iter().collect(),
            event_time: raw.event_time.as_ref().map(|raw| event_time_path(raw).to_owned()),
            event_time_rules: raw.event_time.as_ref().map(event_time_rules).unwrap_or_default(),
            event_type: raw.event_type.unwrap_or_else(|| name.to_owned()),
            on_delete: on_delete(raw.on_delete),
            aliases: raw.aliases,
            before_image: raw.before_image,
            dedupe,
        })
    }

    fn kafka_source(&mut self, name: &str, path: &Path, raw: RawKafkaSource, prefix: &str) -> Option<Source> {
        let kind = self.kind(path, raw.kind, raw.primary_key.as_deref(), raw.id.clone(), false)?;
        let dedupe = self.dedupe(path, &kind, raw.dedupe);
        let schema = self.declared_schema(path, &raw);
        if raw.schema.is_none() && raw.on_invalid.is_some() {
            let path = path.key("on_invalid");
            let message = "`on_invalid` needs `schema`: without it no value is known to be invalid";
            self.error(code::CONFIG_INVALID_VALUE, &path, message);
        }
        let columns = Columns {
            primary_key: raw.primary_key.as_deref(),
            id: raw.id.as_deref(),
            event_time: raw.event_time.as_ref().map(event_time_path),
            identifiers: &raw.identifiers,
            aliases: &raw.aliases,
        };
        self.columns(path, &columns, schema.as_ref());
        Some(Source {
            name: name.to_owned(),
            input: SourceInput::Kafka(KafkaSource {
                topic: raw.topic.unwrap_or_else(|| format!("{prefix}ingest.{name}")),
                schema,
                on_invalid: match raw.on_invalid {
                    Some(RawOnInvalid::Omit) => OnInvalid::Omit,
                    Some(RawOnInvalid::DeadLetter) | None => OnInvalid::DeadLetter,
                },
                on_decode_failures: match raw.on_decode_failures {
                    RawOnDecodeFailures::Alert => OnDecodeFailures::Alert,
                    RawOnDecodeFailures::Pause => OnDecodeFailures::Pause,
                },
            }),
            primary_key: raw.primary_key.or_else(|| raw.id.clone()),
            kind,
            identifiers: raw.identifiers.into_iter().collect(),
            event_time: raw.event_time.as_ref().map(|raw| event_time_path(raw).to_owned()),
            event_time_rules: raw.event_time.as_ref().map(event_time_rules).unwrap_or_default(),
            event_type: raw.event_type.unwrap_or_else(|| name.to_owned()),
            on_delete: on_delete(raw.on_delete),
            aliases: raw.aliases,
            before_image: raw.before_image,
            dedupe,
        })
    }

    /// A state needs a key, because the latest row *of a key* counts; a fact from a table needs an id, because nothing else tells two equal
    /// rows apart.
    fn kind(
        &mut self,
        path: &Path,
        kind: RawKind,
        key: Option<&str>,
        id: Option<String>,
        id_needed: bool,
    ) -> Option<SourceKind> {
        match kind {
            RawKind::State if key.is_none() => {
                let problem = Problem::error(code::CONFIG_MISSING_KEY, &path.key("primary_key"), "the key is missing");
                self.report(problem.hint("add `primary_key: <column>`: rows that are overwritten (`kind: state`) need the column that says which row it is"), path);
                None
            }
            RawKind::State => {
                if id.is_some() {
                    let problem = Problem::warning(
                        code::CONFIG_INVALID_VALUE,
                        &path.key("id"),
                        "`id` has no meaning for `kind: state`",
                    );
                    self.report(problem.hint("remove it; `primary_key` says which row it is"), &path.key("id"));
                }
                Some(SourceKind::State)
            }
            RawKind::Events if id.is_none() && id_needed => {
                let problem = Problem::error(code::CONFIG_MISSING_KEY, &path.key("id"), "the key is missing");
                self.report(problem.hint("add `id: <column>`: facts (`kind: events`) are known by their id, so that a repeat is recognised"), path);
                None
            }
            RawKind::Events => Some(SourceKind::Events { id }),
        }
    }

    /// How long facts are remembered: only those that have an id of their own can come again.
    fn dedupe(&mut self, path: &Path, kind: &SourceKind, configured: Option<Period>) -> Option<Duration> {
        let path = path.key("dedupe");
        let has_id = matches!(kind, SourceKind::Events { id: Some(_) });
        if configured.is_some() && !has_id {
            let problem = Problem::warning(
                code::CONFIG_INVALID_VALUE,
                &path,
                "`dedupe` has a meaning only for `kind: events` with an `id`",
            );
            self.report(problem.hint("remove it, or name the `id` of the facts"), &path);
        }
        let window = configured.map_or(DEDUPE, |period| period.0);
        if window.is_zero() || !has_id {
            return None;
        }
        self.within(&path, Period(window), Period::seconds(60), Period::days(90));
        Some(window)
    }

    fn table(&mut self, path: &Path, table: &str) -> String {
        let path = path.key("table");
        match table.split_once("://") {
            Some((scheme, rest)) => {
                if !SCHEMES.contains(&scheme) {
                    let problem = Problem::error(
                        code::CONFIG_INVALID_VALUE,
                        &path,
                        format!("tables cannot be read from `{scheme}://`"),
                    );
                    self.report(
                        problem.hint(format!("known are a folder and {}", SCHEMES.join("://, ") + "://")),
                        &path,
                    );
                } else if url::Url::parse(table).is_err() || rest.trim_matches('/').is_empty() {
                    self.error(
                        code::CONFIG_INVALID_VALUE,
                        &path,
                        "the URL does not lead to a table: expected scheme://bucket/path",
                    );
                }
                table.to_owned()
            }
            // A path that is no UTF-8 cannot come from here: the file is UTF-8, and so is the folder it is joined to, or it is shown lossily.
            None => self.folder.join(table).to_string_lossy().into_owned(),
        }
    }

    /// `schema` or `strict: false`, never neither: whether a missing column is an error must be somebody's decision.
    fn declared_schema(&mut self, path: &Path, raw: &RawKafkaSource) -> Option<Schema> {
        match (&raw.schema, raw.strict) {
            (Some(_), Some(false)) => {
                let path = path.key("strict");
                let problem = Problem::error(
                    code::CONFIG_INVALID_VALUE,
                    &path,
                    "`schema` and `strict: false` contradict each other",
                );
                self.report(problem.hint("keep one of them"), &path);
                None
            }
            (Some(columns), _) => {
                let texts = [("longs", "long", raw.longs.clone()), ("decimals", "decimal", raw.decimals.clone())];
                self.schema(
                    path,
                    columns,
                    texts.map(|(key, kind, raw)| Texts { key, kind, columns: text_columns(raw) }),
                )
            }
            (None, Some(false)) => {
                for (key, given) in [("longs", raw.longs.is_some()), ("decimals", raw.decimals.is_some())] {
                    if given {
                        self.error(
                            code::CONFIG_INVALID_VALUE,
                            &path.key(key),
                            format!("`{key}` needs `schema`: without it no column's type is known"),
                        );
                    }
                }
                None
            }
            (None, Some(true) | None) => {
                let problem = Problem::error(code::CONFIG_MISSING_KEY, &path.key("schema"), "the key is missing");
                self.report(
                    problem.hint("add `schema: { column: type, … }`, so that a column that is missing is an error; or say `strict: false`"),
                    path,
                );
                None
            }
        }
    }

    fn schema(&mut self, path: &Path, declared: &BTreeMap<String, String>, texts: [Texts; 2]) -> Option<Schema> {
        let path_of_schema = path.key("schema");
        if declared.is_empty() || declared.len() > COLUMNS_MAX {
            self.error(code::CONFIG_INVALID_VALUE, &path_of_schema, format!("a schema has 1 to {COLUMNS_MAX} columns"));
            return None;
        }
        let mut columns = Vec::with_capacity(declared.len());
        let mut right = true;
        for (name, text) in declared {
            let Some(data_type) = spark_type::canonical(text) else {
                let path = path_of_schema.key(name);
                let problem = Problem::error(code::CONFIG_INVALID_VALUE, &path, format!("`{text}` is no type"));
                self.report(problem.hint(format!("types are {}", spark_type::KNOWN)), &path);
                right = false;
                continue;
            };
            let [longs_as_strings, decimals_as_strings] =
                texts.each_ref().map(|texts| texts.columns.contain(name) && spark_type::holds(&data_type, texts.kind));
            columns.push(Column { longs_as_strings, decimals_as_strings, ..Column::new(name.as_str(), data_type) });
        }
        for Texts { key, kind, columns: chosen } in &texts {
            let TextColumns::Columns(names) = chosen else { continue };
            for name in names {
                let path = path.key(*key).key(name);
                self.declared(&path, name, declared.keys());
                let found = columns.iter().find(|column| column.name == *name);
                if let Some(column) = found.filter(|column| !spark_type::holds(&column.data_type, kind)) {
                    let problem = format!("`{name}` is a column of type {}, which holds no {kind}", column.data_type);
                    self.error(code::CONFIG_INVALID_VALUE, &path, problem);
                }
            }
        }
        right.then_some(Schema { columns })
    }

    /// The columns that a source speaks of must be paths, lead to known types, and be declared where a schema is.
    fn columns(&mut self, path: &Path, columns: &Columns<'_>, schema: Option<&Schema>) {
        self.known_types(&path.key("identifiers"), columns.identifiers);
        let single = [("primary_key", columns.primary_key), ("id", columns.id), ("event_time", columns.event_time)];
        let mut named: Vec<(Path, &str)> =
            single.iter().filter_map(|(key, column)| column.map(|column| (path.key(*key), column))).collect();
        named.extend(columns.identifiers.keys().map(|column| (path.key("identifiers").key(column), column.as_str())));
        for (path, column) in named {
            if let Some(wrong) = path::problem(column) {
                let message = format!("`{column}` is no column or path: {wrong}; expected `column` or `struct.field`");
                let problem = Problem::error(code::CONFIG_INVALID_VALUE, &path, message);
                self.report(
                    problem
                        .hint("a name with dots or spaces stands between backticks: \"`contact.home`.`first name`\""),
                    &path,
                );
            } else if let Some(schema) = schema {
                let Split { whole, head, .. } = path::split(column);
                if !schema.columns.iter().any(|column| Some(column.name.as_str()) == whole) {
                    self.declared(&path, &head, schema.columns.iter().map(|column| &column.name));
                }
            }
        }
        for (column, older) in columns.aliases {
            if older.iter().any(|older| older == column || older.is_empty()) {
                self.error(
                    code::CONFIG_INVALID_VALUE,
                    &path.key("aliases").key(column),
                    "an alias must be another, older name of the column",
                );
            }
        }
    }

    fn declared<'c>(&mut self, path: &Path, column: &str, mut declared: impl Iterator<Item = &'c String> + Clone) {
        if declared.clone().any(|name| name == column) {
            return;
        }
        let problem = Problem::error(
            code::CONFIG_UNKNOWN_REFERENCE,
            path,
            format!("the declared schema has no column `{column}`"),
        );
        let hint = match nearest(column, declared.by_ref().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "add it to `schema`".to_owned(),
        };
        self.report(problem.hint(hint), path);
    }

    /// What the source says about deletes, for the destinations that have to be able to do it.
    pub(super) fn raw_on_delete(&self, source: &str) -> RawOnDelete {
        let json =
            self.json.get("sources").and_then(|sources| sources.get(source)).and_then(|source| source.get("on_delete"));
        match json.and_then(Json::as_str) {
            Some("unset") => RawOnDelete::Unset,
            Some("erase") => RawOnDelete::Erase,
            Some(_) | None => RawOnDelete::Skip,
        }
    }
}

/// What a source says about its columns, whatever its type.
struct Columns<'a> {
    primary_key: Option<&'a str>,
    id: Option<&'a str>,
    event_time: Option<&'a str>,
    identifiers: &'a BTreeMap<String, String>,
    aliases: &'a BTreeMap<String, Vec<String>>,
}

fn event_time_path(raw: &RawEventTime) -> &str {
    match raw {
        RawEventTime::Path(path) => path,
        RawEventTime::Rules(rules) => &rules.path,
    }
}

fn event_time_rules(raw: &RawEventTime) -> EventTimeRules {
    let RawEventTime::Rules(rules) = raw else { return EventTimeRules::default() };
    EventTimeRules {
        unit: rules.unit.map(|unit| match unit {
            RawTimeUnit::Seconds => TimeUnit::Seconds,
            RawTimeUnit::Milliseconds => TimeUnit::Milliseconds,
            RawTimeUnit::Microseconds => TimeUnit::Microseconds,
            RawTimeUnit::Nanoseconds => TimeUnit::Nanoseconds,
        }),
        dead_letter: rules.on_invalid == RawOnInvalidTime::DeadLetter,
    }
}

fn on_delete(raw: RawOnDelete) -> OnDelete {
    match raw {
        RawOnDelete::Skip => OnDelete::Skip,
        RawOnDelete::Unset => OnDelete::Unset,
        RawOnDelete::Erase => OnDelete::Erase,
    }
}
