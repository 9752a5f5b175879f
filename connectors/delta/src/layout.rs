//! A version's schema, three ways: as its readers see it (names and types in Spark's notation), as its files hold it (physical
//! names, partition columns left out), and how to find the key in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use delta_kernel::SnapshotRef;
use delta_kernel::schema::{DataType, PrimitiveType, SchemaRef, StructField, StructType};
use tailwater_core::path;
use tailwater_core::schema::{Column, Schema, other_names, push_step};

use crate::error::Error;
use crate::options::Options;
use crate::table::Table;

/// The column of change files that says what a row is.
pub(crate) const CHANGE_TYPE: &str = "_change_type";

pub(crate) struct Layout {
    pub columns: Vec<LayoutColumn>,
    /// What to read from a data file.
    pub physical: SchemaRef,
    /// What to read from a change file: the same, then [`CHANGE_TYPE`]. None if the table has a column of this name.
    pub physical_changes: Option<SchemaRef>,
    pub key: Key,
}

pub(crate) struct LayoutColumn {
    pub name: String,
    /// The name as JSON and a colon.
    pub prefix: Vec<u8>,
    pub data_type: DataType,
    pub nullable: bool,
    /// The column mapping id.
    pub id: Option<i64>,
    pub source: Source,
}

/// Where a column's values are.
pub(crate) enum Source {
    /// In the file, at this place of the physical schema.
    File(usize),
    /// In the action that names the file.
    Partition { physical_name: String, data_type: PrimitiveType },
    /// Nowhere: a column of type `void`.
    Nowhere,
}

/// Where the key of a row is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// None was asked for.
    None,
    /// The column's place, then the places of nested fields.
    At(Vec<usize>),
    /// This schema does not have it.
    Missing,
}

// === impl Layout ===

impl Layout {
    pub fn of(table: &Table, snapshot: &SnapshotRef, options: &Options) -> Result<Self, Error> {
        let version = snapshot.version();
        let failed = |error| table.error(Some(version), "prepare a scan", &error);
        let unsupported = |feature: String| Error::Unsupported { table: table.name.clone(), version, feature };
        let logical = snapshot.schema();
        if logical.num_fields() == 0 {
            return Err(unsupported("the table has no columns; add some with ALTER TABLE ADD COLUMN".to_owned()));
        }
        // Building a scan reads nothing; it checks that the table's features can be read.
        let scan = snapshot.clone().scan_builder().build().map_err(failed)?;
        let physical = scan.physical_schema().clone();
        let change_type = StructField::nullable(CHANGE_TYPE, DataType::STRING);
        // A table that got its change feed later may have a column of this name.
        let taken = physical.fields().any(|field| field.name().eq_ignore_ascii_case(CHANGE_TYPE));
        let physical_changes = match taken {
            true => None,
            false => {
                Some(Arc::new(StructType::try_new(physical.fields().cloned().chain([change_type])).map_err(failed)?))
            }
        };
        let configuration = snapshot.table_configuration();
        let mode = configuration.column_mapping_mode();
        let partitions = configuration.metadata().partition_columns();

        let mut columns = Vec::with_capacity(logical.num_fields());
        for field in logical.fields() {
            if let Some(found) = unreadable(field.data_type()) {
                return Err(unsupported(format!(
                    "column {} has type {}, of which {found} cannot be read",
                    field.name(),
                    notation(field.data_type())
                )));
            }
            let physical_name = field.physical_name(mode);
            let partition = partitions.iter().any(|name| name.to_lowercase() == field.name().to_lowercase());
            let source = if partition {
                match field.data_type() {
                    DataType::Primitive(data_type) => {
                        Source::Partition { physical_name: physical_name.to_owned(), data_type: data_type.clone() }
                    }
                    other => {
                        return Err(unsupported(format!(
                            "partition column {} has type {}",
                            field.name(),
                            notation(other)
                        )));
                    }
                }
            } else if let Some(place) = physical.index_of(physical_name) {
                Source::File(place)
            } else if *field.data_type() == DataType::Primitive(PrimitiveType::Void) {
                Source::Nowhere
            } else {
                return Err(unsupported(format!("column {} is not among what the files hold", field.name())));
            };
            columns.push(LayoutColumn {
                name: field.name().clone(),
                prefix: prefix(field.name()),
                data_type: field.data_type().clone(),
                nullable: field.is_nullable(),
                id: field.column_mapping_id(),
                source,
            });
        }
        let mut layout = Self { columns, physical, physical_changes, key: Key::None };
        if let Some(key) = &options.key {
            layout.key = layout
                .find(key)
                .or_else(|| other_names(key, &options.aliases).iter().find_map(|other| layout.find(other)))
                .map_or(Key::Missing, Key::At);
        }
        Ok(layout)
    }

    /// The columns as a reader of the rows sees them.
    pub fn schema(&self) -> Schema {
        let columns = self.columns.iter().map(|column| Column {
            nullable: column.nullable,
            id: column.id,
            field_ids: field_ids(&column.data_type),
            ..Column::new(column.name.clone(), notation(&column.data_type))
        });
        Schema { columns: columns.collect() }
    }

    /// The name that readers know a physical column by.
    pub fn logical_name<'a>(&'a self, physical: &'a str) -> &'a str {
        let place = self.physical.index_of(physical);
        let column = self.columns.iter().find(|column| matches!(column.source, Source::File(at) if Some(at) == place));
        column.map_or(physical, |column| &column.name)
    }

    /// A column's place by name, or a nested field's by its path, whose parts may stand between backticks. A column whose name has the dot
    /// in it comes first.
    fn find(&self, name: &str) -> Option<Vec<usize>> {
        if let Some(place) = self.columns.iter().position(|column| column.name == name) {
            return Some(vec![place]);
        }
        let mut steps = path::steps(name).into_iter();
        let first = steps.next()?;
        let place = self.columns.iter().position(|column| column.name == first)?;
        let mut found = vec![place];
        let mut data_type = &self.columns[place].data_type;
        for step in steps {
            let DataType::Struct(fields) = plain(data_type) else { return None };
            let (place, field) = fields.field_with_index(&*step)?;
            found.push(place);
            data_type = field.data_type();
        }
        Some(found)
    }
}

/// The column mapping ids of the fields inside a column, by path.
fn field_ids(data_type: &DataType) -> BTreeMap<String, i64> {
    fn walk(data_type: &DataType, path: &str, ids: &mut BTreeMap<String, i64>) {
        match plain(data_type) {
            DataType::Struct(fields) => {
                for field in fields.fields() {
                    let mut path = path.to_owned();
                    push_step(&mut path, field.name());
                    walk(field.data_type(), &path, ids);
                    if let Some(id) = field.column_mapping_id() {
                        ids.insert(path, id);
                    }
                }
            }
            DataType::Array(array) => walk(array.element_type(), path, ids),
            // A map's keys are texts in JSON.
            DataType::Map(map) => walk(map.value_type(), path, ids),
            DataType::Primitive(_) | DataType::Variant(_) | DataType::UserDefined(_) => {}
        }
    }
    let mut ids = BTreeMap::new();
    walk(data_type, "", &mut ids);
    ids
}

/// The type without Spark's annotation (a user-defined type such as an ML vector).
pub(crate) fn plain(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::UserDefined(defined) => plain(defined.sql_type()),
        other => other,
    }
}

/// A name as a JSON string, and a colon.
pub(crate) fn prefix(name: &str) -> Vec<u8> {
    // A string has no way to fail to be written to memory.
    let mut prefix = serde_json::to_vec(name).unwrap_or_default();
    prefix.push(b':');
    prefix
}

/// The part of a type that has no JSON here.
fn unreadable(data_type: &DataType) -> Option<String> {
    match plain(data_type) {
        DataType::Primitive(PrimitiveType::IntervalYearMonth | PrimitiveType::IntervalDayTime) => {
            Some(notation(data_type))
        }
        DataType::Primitive(_) | DataType::Variant(_) => None,
        DataType::Array(array) => unreadable(array.element_type()),
        DataType::Struct(fields) => fields.fields().find_map(|field| unreadable(field.data_type())),
        DataType::Map(map) => match plain(map.key_type()) {
            DataType::Primitive(_) => unreadable(map.key_type()).or_else(|| unreadable(map.value_type())),
            _ => Some(format!("a map with keys of type {}", notation(map.key_type()))),
        },
        DataType::UserDefined(_) => Some(notation(data_type)),
    }
}

// === Spark's notation ===

/// The type as Spark's `simpleString` has it; names that would be read as notation stand in backticks.
pub(crate) fn notation(data_type: &DataType) -> String {
    let mut out = String::new();
    write_notation(&mut out, data_type);
    out
}

fn write_notation(out: &mut String, data_type: &DataType) {
    match plain(data_type) {
        DataType::Primitive(primitive) => match primitive {
            PrimitiveType::String => out.push_str("string"),
            PrimitiveType::Long => out.push_str("bigint"),
            PrimitiveType::Integer => out.push_str("int"),
            PrimitiveType::Short => out.push_str("smallint"),
            PrimitiveType::Byte => out.push_str("tinyint"),
            PrimitiveType::Float => out.push_str("float"),
            PrimitiveType::Double => out.push_str("double"),
            PrimitiveType::Boolean => out.push_str("boolean"),
            PrimitiveType::Binary => out.push_str("binary"),
            PrimitiveType::Date => out.push_str("date"),
            PrimitiveType::Timestamp => out.push_str("timestamp"),
            PrimitiveType::TimestampNtz => out.push_str("timestamp_ntz"),
            PrimitiveType::Void => out.push_str("void"),
            PrimitiveType::IntervalYearMonth => out.push_str("interval year to month"),
            PrimitiveType::IntervalDayTime => out.push_str("interval day to second"),
            PrimitiveType::Decimal(decimal) => {
                out.push_str(&format!("decimal({},{})", decimal.precision(), decimal.scale()));
            }
        },
        DataType::Array(array) => {
            out.push_str("array<");
            write_notation(out, array.element_type());
            out.push('>');
        }
        DataType::Map(map) => {
            out.push_str("map<");
            write_notation(out, map.key_type());
            out.push(',');
            write_notation(out, map.value_type());
            out.push('>');
        }
        DataType::Struct(fields) => {
            out.push_str("struct<");
            for (index, field) in fields.fields().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_name(out, field.name());
                out.push(':');
                write_notation(out, field.data_type());
            }
            out.push('>');
        }
        DataType::Variant(_) => out.push_str("variant"),
        // `plain` has taken it off.
        DataType::UserDefined(_) => out.push_str("udt"),
    }
}

fn write_name(out: &mut String, name: &str) {
    if name.contains([':', ',', '<', '>', '`']) || name.is_empty() {
        out.push_str(&format!("`{}`", name.replace('`', "``")));
    } else {
        out.push_str(name);
    }
}

#[cfg(test)]
mod tests {
    use delta_kernel::schema::{ArrayType, MapType};

    use super::*;

    #[test]
    fn types_are_written_as_spark_writes_them() {
        let interval = StructType::try_new([
            StructField::nullable("low", DataType::DOUBLE),
            StructField::nullable("a:b", DataType::decimal(10, 2).unwrap()),
        ])
        .unwrap();
        let map = MapType::new(DataType::STRING, ArrayType::new(DataType::LONG, true), true);
        assert_eq!(notation(&interval.into()), "struct<low:double,`a:b`:decimal(10,2)>");
        assert_eq!(notation(&map.into()), "map<string,array<bigint>>");
    }

    #[test]
    fn a_map_whose_keys_have_no_text_is_named() {
        let map = MapType::new(ArrayType::new(DataType::LONG, true), DataType::LONG, true);
        assert_eq!(unreadable(&map.into()).unwrap(), "a map with keys of type array<bigint>");
    }
}
