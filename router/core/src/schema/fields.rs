//! What lies inside a column: the fields of its structs, read from the column's type, with the ids that the table gives them.
//!
//! A path names a column and then fields of structs, separated by dots. Arrays and maps add no step to a path: `items.sku` is
//! the field `sku` of the structs in the array `items`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::Column;
use crate::path;

/// How deep types are followed. Deeper ones have no fields here; no table is known to have a tenth of it.
const DEPTH_MAX: usize = 64;

/// What a value can hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inner {
    /// No fields: a number, a text, a time.
    Value,
    Struct(Vec<Field>),
    Array(Box<Inner>),
    /// What the map's values hold.
    Map(Box<Inner>),
}

/// A field of a struct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    pub data_type: String,
    /// The field's id where the table maps columns: it survives a rename.
    pub id: Option<i64>,
    pub inner: Inner,
}

/// A column or a field at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub path: Vec<String>,
    pub data_type: String,
    pub id: Option<i64>,
}

// === impl Column ===

impl Column {
    /// The column as a tree of fields. A type that cannot be read has none.
    pub fn inner(&self) -> Inner {
        let mut path = String::new();
        let mut reader = Notation { rest: &self.data_type, ids: &self.field_ids };
        match reader.read(&mut path, 0) {
            Some((inner, _)) if reader.rest.is_empty() => inner,
            Some(_) | None => Inner::Value,
        }
    }
}

impl Inner {
    /// The fields of the structs, wherever arrays and maps hold them.
    pub fn fields(&self) -> &[Field] {
        match self {
            Self::Value => &[],
            Self::Struct(fields) => fields,
            Self::Array(inner) | Self::Map(inner) => inner.fields(),
        }
    }
}

/// Adds a step to the path under which [`Column::field_ids`] has a field's id. Names that hold a dot or a backtick stand in
/// backticks, so that different fields have different paths.
pub fn push_step(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    if name.is_empty() || name.contains(['.', '`']) {
        path.push('`');
        path.push_str(&name.replace('`', "``"));
        path.push('`');
    } else {
        path.push_str(name);
    }
}

// === places ===

/// Every column and field, each parent before its fields.
pub(super) fn places(columns: &[Column]) -> Vec<Place> {
    fn walk(path: &[String], inner: &Inner, places: &mut Vec<Place>) {
        for field in inner.fields() {
            let mut path = path.to_vec();
            path.push(field.name.clone());
            places.push(Place { path: path.clone(), data_type: field.data_type.clone(), id: field.id });
            walk(&path, &field.inner, places);
        }
    }
    let mut places = Vec::with_capacity(columns.len());
    for column in columns {
        let path = vec![column.name.clone()];
        places.push(Place { path: path.clone(), data_type: column.data_type.clone(), id: column.id });
        walk(&path, &column.inner(), &mut places);
    }
    places
}

/// The path that a text means: a column of that name, or else fields of structs. Names may hold dots themselves.
pub(super) fn path_of(columns: &[Column], text: &str) -> Option<Vec<String>> {
    fn inside(inner: &Inner, text: &str, path: &mut Vec<String>) -> bool {
        inner.fields().iter().any(|field| {
            path.push(field.name.clone());
            let found = field.name == text
                || rest_behind(text, &field.name).is_some_and(|rest| inside(&field.inner, rest, path));
            if !found {
                path.pop();
            }
            found
        })
    }
    if columns.iter().any(|column| column.name == text) {
        return Some(vec![text.to_owned()]);
    }
    let plain = columns.iter().find_map(|column| {
        let rest = rest_behind(text, &column.name)?;
        let mut path = vec![column.name.clone()];
        inside(&column.inner(), rest, &mut path).then_some(path)
    });
    if plain.is_some() || !text.contains('`') {
        return plain;
    }
    // Quoted names, as the configuration has them.
    let steps: Vec<String> = crate::path::steps(text).into_iter().map(Cow::into_owned).collect();
    places(columns).into_iter().map(|place| place.path).find(|path| *path == steps)
}

fn rest_behind<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.strip_prefix(name)?.strip_prefix('.')
}

// === Spark's notation ===

/// Reads a type from front to back.
struct Notation<'t> {
    rest: &'t str,
    ids: &'t BTreeMap<String, i64>,
}

impl Notation<'_> {
    /// The type at the front, and its text.
    fn read(&mut self, path: &mut String, depth: usize) -> Option<(Inner, String)> {
        if depth > DEPTH_MAX {
            return None;
        }
        let start = self.rest;
        let inner = if self.take("array<") {
            let (items, _) = self.read(path, depth + 1)?;
            self.take(">").then(|| Inner::Array(Box::new(items)))?
        } else if self.take("map<") {
            // Keys are texts in JSON, whatever they are in the table.
            self.read(&mut String::from("`key`"), depth + 1)?;
            let values = self.take(",").then(|| self.read(path, depth + 1))??.0;
            self.take(">").then(|| Inner::Map(Box::new(values)))?
        } else if self.take("struct<") {
            Inner::Struct(self.fields(path, depth)?)
        } else {
            self.value()?;
            Inner::Value
        };
        let text = start.get(..start.len() - self.rest.len())?.trim().to_owned();
        Some((inner, text))
    }

    fn fields(&mut self, path: &mut String, depth: usize) -> Option<Vec<Field>> {
        let mut fields = Vec::new();
        if self.take(">") {
            return Some(fields);
        }
        loop {
            let name = self.name()?;
            let before = path.len();
            push_step(path, &name);
            let (inner, data_type) = self.read(path, depth + 1)?;
            let id = self.ids.get(path.as_str()).copied();
            path.truncate(before);
            fields.push(Field { name, data_type, id, inner });
            if self.take(">") {
                return Some(fields);
            }
            if !self.take(",") {
                return None;
            }
        }
    }

    /// A field's name and the colon behind it.
    fn name(&mut self) -> Option<String> {
        self.rest = self.rest.trim_start();
        let (name, rest) = if self.rest.starts_with('`') {
            let (name, rest) = path::quoted(self.rest)?;
            (name.into_owned(), rest.strip_prefix(':')?)
        } else {
            let (name, rest) = self.rest.split_once(':')?;
            (name.to_owned(), rest)
        };
        self.rest = rest;
        Some(name)
    }

    /// Passes over a type without fields. A comma inside parentheses belongs to it: `decimal(10,2)`.
    fn value(&mut self) -> Option<()> {
        let mut open = 0_usize;
        let end = self.rest.find(|letter| {
            match letter {
                '(' => open += 1,
                ')' => open = open.saturating_sub(1),
                _ => {}
            }
            open == 0 && matches!(letter, ',' | '<' | '>')
        });
        let end = end.unwrap_or(self.rest.len());
        let value = self.rest.get(..end)?;
        self.rest = self.rest.get(end..)?;
        (!value.trim().is_empty()).then_some(())
    }

    fn take(&mut self, text: &str) -> bool {
        let Some(rest) = self.rest.trim_start().strip_prefix(text) else { return false };
        self.rest = rest;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(data_type: &str, ids: &[(&str, i64)]) -> Column {
        let mut column = Column::new("c", data_type);
        column.field_ids = ids.iter().map(|(path, id)| ((*path).to_owned(), *id)).collect();
        column
    }

    fn paths(data_type: &str) -> Vec<String> {
        let places = places(&[column(data_type, &[])]);
        places.into_iter().skip(1).map(|place| format!("{}={}", place.path[1..].join("/"), place.data_type)).collect()
    }

    #[test]
    fn the_fields_of_a_type_are_found_through_arrays_and_maps() {
        assert_eq!(
            paths("struct<low:double,deep:array<struct<sku:string,at:map<string,struct<n:decimal(10,2)>>>>>"),
            [
                "low=double",
                "deep=array<struct<sku:string,at:map<string,struct<n:decimal(10,2)>>>>",
                "deep/sku=string",
                "deep/at=map<string,struct<n:decimal(10,2)>>",
                "deep/at/n=decimal(10,2)",
            ]
        );
        assert!(paths("struct<>").is_empty());
        assert!(paths("double").is_empty());
    }

    #[test]
    fn quoted_names_are_read_as_they_are() {
        assert_eq!(
            paths("struct<`a:b,<>`:int,`tick``s`:int,with space:int>"),
            ["a:b,<>=int", "tick`s=int", "with space=int"]
        );
    }

    #[test]
    fn a_type_that_is_none_has_no_fields() {
        for data_type in ["struct<a", "struct<a:int", "struct<a:int>x", "array<>", "map<int>", "", "struct<`a:int>"] {
            assert_eq!(column(data_type, &[]).inner(), Inner::Value, "{data_type}");
        }
        assert_eq!(column(&"array<".repeat(100_000), &[]).inner(), Inner::Value);
    }

    #[test]
    fn ids_are_those_of_the_path() {
        let column = column("struct<a.b:int,a:struct<b:int>>", &[("`a.b`", 3), ("a", 4), ("a.b", 5)]);
        let ids: Vec<_> = places(&[column]).into_iter().skip(1).map(|place| place.id).collect();
        assert_eq!(ids, [Some(3), Some(4), Some(5)]);
    }

    #[test]
    fn a_text_is_a_column_before_it_is_a_path() {
        let mut columns = vec![column("struct<b:int,x.y:struct<z:int>>", &[])];
        assert_eq!(path_of(&columns, "c.b").unwrap(), ["c", "b"]);
        assert_eq!(path_of(&columns, "c.x.y.z").unwrap(), ["c", "x.y", "z"]);
        assert_eq!(path_of(&columns, "c.q"), None);
        assert_eq!(path_of(&columns, "c.`x.y`.`z`").unwrap(), ["c", "x.y", "z"]);
        columns.push(Column::new("c.b", "int"));
        assert_eq!(path_of(&columns, "c.b").unwrap(), ["c.b"]);
    }
}
