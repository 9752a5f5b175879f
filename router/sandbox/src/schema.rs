//! The schema as a row's reader sees it: which columns there are, what their values hold, and which names are other names of the same
//! column.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use tailwater_core::schema::Schema;

use crate::numbers::{Exactness, Look, Path, Step};
use crate::types::Kind;

/// Built once per schema and shared by the batches that have it: contexts recognise it by a number and keep what they made of it.
#[derive(Debug)]
pub struct RowSchema {
    /// Unique in the process; 0 is no schema.
    id: u64,
    columns: HashMap<String, Column>,
    look: Look,
    /// Whether a column holds floating point numbers.
    floats: bool,
    /// What the driver builds the rows' prototype from.
    text: String,
}

#[derive(Debug)]
struct Column {
    kind: Kind,
    longs_as_strings: bool,
    decimals_as_strings: bool,
}

#[derive(Serialize)]
struct Spec<'a> {
    strict: bool,
    columns: Vec<&'a str>,
    aliases: Vec<Vec<&'a str>>,
    /// Names that belong to another column than before.
    reassigned: Vec<Vec<&'a str>>,
    /// The columns whose values have to be looked into.
    kinds: Vec<ColumnSpec<'a>>,
}

#[derive(Serialize)]
struct ColumnSpec<'a> {
    name: &'a str,
    kind: Shown<'a>,
    longs: bool,
}

/// A type as the driver reads it: `"long"`, `"float"`, `{"struct": [["name", …]]}`, `{"array": …}`, `{"map": …}`; null for
/// everything that it leaves alone.
struct Shown<'a>(&'a Kind);

/// How a number stands in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// As a text, with all its digits.
    Text,
    /// As it is; its type has no other numbers than JavaScript.
    Double,
    /// As a number that must be exact. A 64-bit integer, or no type is known.
    Exact,
    /// As a number that must be exact, and is a decimal.
    ExactDecimal,
}

impl RowSchema {
    /// `aliases` maps a column's new name to its old ones; a row answers to all of them with the one that it has. With `strict`, reading any
    /// other name is an error; without, it is `undefined`.
    pub fn new(schema: &Schema, aliases: &BTreeMap<String, Vec<String>>, strict: bool) -> Self {
        Self::with_reassigned(schema, aliases, strict, &[])
    }

    /// As [`new`](Self::new); `reassigned` are names, and paths of fields, that belong to another column than before. Reading one is an error, as
    /// if it was missing.
    pub fn with_reassigned(
        schema: &Schema,
        aliases: &BTreeMap<String, Vec<String>>,
        strict: bool,
        reassigned: &[String],
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let columns: HashMap<String, Column> = schema
            .columns
            .iter()
            .map(|column| {
                let kind = Kind::parse(&column.data_type);
                let (longs_as_strings, decimals_as_strings) = (column.longs_as_strings, column.decimals_as_strings);
                (column.name.clone(), Column { kind, longs_as_strings, decimals_as_strings })
            })
            .collect();
        let holds = |wanted: &dyn Fn(&Kind) -> bool| columns.values().any(|column| column.kind.holds(&wanted));
        let spec = Spec {
            reassigned: reassigned
                .iter()
                .filter_map(|text| {
                    columns.iter().find_map(|(name, column)| {
                        let mut path = vec![name.as_str()];
                        column.kind.path_of(text, name, &mut path).then_some(path)
                    })
                })
                .collect(),
            strict,
            columns: schema.columns.iter().map(|column| column.name.as_str()).collect(),
            aliases: aliases
                .iter()
                .map(|(new, old)| std::iter::once(new.as_str()).chain(old.iter().map(String::as_str)).collect())
                .collect(),
            kinds: schema
                .columns
                .iter()
                .filter_map(|column| {
                    let Column { kind, longs_as_strings, .. } = columns.get(&column.name)?;
                    let longs = *longs_as_strings;
                    let matters = kind.holds(&|kind| {
                        matches!(kind, Kind::Struct(_) | Kind::Float)
                            || (longs && matches!(kind, Kind::Long | Kind::Any))
                    });
                    matters.then_some(ColumnSpec { name: &column.name, kind: Shown(kind), longs })
                })
                .collect(),
        };
        let look = if columns
            .values()
            .any(|column| column.decimals_as_strings && column.kind.holds(&|kind| *kind == Kind::Decimal))
        {
            Look::All
        } else if holds(&|kind| *kind == Kind::Decimal) {
            Look::Decimals
        } else {
            Look::Usual
        };
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            // Strings and booleans have no way to fail; were there one, every row would fail loudly on the empty text.
            text: serde_json::to_string(&spec).unwrap_or_default(),
            floats: holds(&|kind| *kind == Kind::Float),
            look,
            columns,
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn has_column(&self, name: &str) -> bool {
        self.columns.contains_key(name)
    }

    /// Which numbers a row's text has to be searched for.
    pub(crate) fn look(&self) -> Look {
        self.look
    }

    /// Whether a text in a row may stand for a number that is not finite.
    pub(crate) fn has_floats(&self) -> bool {
        self.floats
    }

    /// How the number at a path of a row stands there.
    pub(crate) fn wanted(&self, path: &Path, exactness: Exactness) -> Wanted {
        let Some((Step::Key(name), rest)) = path.split_first() else { return Wanted::Exact };
        let Some(column) = self.columns.get(name) else { return Wanted::Exact };
        match column.kind.at(rest) {
            Kind::Long if column.longs_as_strings => Wanted::Text,
            Kind::Any if column.longs_as_strings && exactness == Exactness::Integer => Wanted::Text,
            Kind::Decimal if column.decimals_as_strings => Wanted::Text,
            Kind::Decimal => Wanted::ExactDecimal,
            Kind::Float => Wanted::Double,
            _ => Wanted::Exact,
        }
    }
}

impl Serialize for Shown<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let of = |name: &'static str, serializer: S, inner: &Kind| {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry(name, &Shown(inner))?;
            map.end()
        };
        match self.0 {
            Kind::Long => serializer.serialize_str("long"),
            Kind::Float => serializer.serialize_str("float"),
            Kind::Any => serializer.serialize_str("any"),
            Kind::Plain | Kind::Decimal => serializer.serialize_unit(),
            Kind::Struct(fields) => {
                let fields: Vec<(&str, Shown<'_>)> =
                    fields.iter().map(|(name, kind)| (name.as_str(), Shown(kind))).collect();
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("struct", &fields)?;
                map.end()
            }
            Kind::Array(items) => of("array", serializer, items),
            Kind::Map(values) => of("map", serializer, values),
        }
    }
}
