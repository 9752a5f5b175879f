//! The types of a schema's columns, as far as they decide how a value looks in a row: which numbers are exact, which texts stand for a
//! number that is not finite, and which objects are structs with known fields.

use tailwater_core::path;

use crate::numbers::Step;

/// Levels of nesting that are followed. What lies deeper has no known type.
const DEPTH_MAX: usize = 64;

/// The type of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Not known: any JSON.
    Any,
    /// A text, a boolean, a time, a small integer: nothing to look after.
    Plain,
    /// A 64-bit integer.
    Long,
    Float,
    Decimal,
    Struct(Vec<(String, Kind)>),
    Array(Box<Kind>),
    /// The type of the map's values.
    Map(Box<Kind>),
}

// === impl Kind ===

impl Kind {
    /// Reads a type in Spark's notation. One that cannot be read is not known.
    pub(crate) fn parse(text: &str) -> Self {
        let mut notation = Notation(text);
        match notation.kind(0) {
            Some(kind) if notation.0.trim().is_empty() => kind,
            Some(_) | None => Self::Any,
        }
    }

    /// The type of what stands at a path below a value of this type.
    pub(crate) fn at(&self, path: &[Step]) -> &Self {
        let Some((step, rest)) = path.split_first() else { return self };
        match (self, step) {
            (Self::Struct(fields), Step::Key(name)) => {
                fields.iter().find(|(field, _)| field == name).map_or(&Self::Any, |(_, kind)| kind.at(rest))
            }
            (Self::Array(items), Step::Index(_)) => items.at(rest),
            (Self::Map(values), Step::Key(_) | Step::Odd(_)) => values.at(rest),
            _ => &Self::Any,
        }
    }

    /// Adds to `path` the fields that a text with dots names below a value called `name`; false if it names none. Names may have dots
    /// themselves.
    pub(crate) fn path_of<'k>(&'k self, text: &str, name: &str, path: &mut Vec<&'k str>) -> bool {
        if text == name {
            return true;
        }
        let Some(rest) = text.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')) else { return false };
        self.fields().iter().any(|(field, kind)| {
            path.push(field);
            let found = kind.path_of(rest, field, path);
            if !found {
                path.pop();
            }
            found
        })
    }

    /// The fields of the structs, wherever arrays and maps hold them.
    fn fields(&self) -> &[(String, Self)] {
        match self {
            Self::Struct(fields) => fields,
            Self::Array(inner) | Self::Map(inner) => inner.fields(),
            Self::Any | Self::Plain | Self::Long | Self::Float | Self::Decimal => &[],
        }
    }

    /// Whether a value of this type holds one for which `wanted` is true.
    pub(crate) fn holds(&self, wanted: &impl Fn(&Self) -> bool) -> bool {
        wanted(self)
            || match self {
                Self::Struct(fields) => fields.iter().any(|(_, kind)| kind.holds(wanted)),
                Self::Array(inner) | Self::Map(inner) => inner.holds(wanted),
                Self::Any | Self::Plain | Self::Long | Self::Float | Self::Decimal => false,
            }
    }
}

/// What is left of a type that is read from front to back.
struct Notation<'t>(&'t str);

impl Notation<'_> {
    fn kind(&mut self, depth: usize) -> Option<Kind> {
        if depth > DEPTH_MAX {
            return None;
        }
        if self.take("array<") {
            let items = self.kind(depth + 1)?;
            return self.take(">").then(|| Kind::Array(Box::new(items)));
        }
        if self.take("map<") {
            self.kind(depth + 1)?;
            let values = self.take(",").then(|| self.kind(depth + 1))??;
            return self.take(">").then(|| Kind::Map(Box::new(values)));
        }
        if self.take("struct<") {
            return self.fields(depth).map(Kind::Struct);
        }
        let mut parentheses = 0_usize;
        let end = self.0.find(|letter| {
            match letter {
                '(' => parentheses += 1,
                ')' => parentheses = parentheses.saturating_sub(1),
                _ => {}
            }
            parentheses == 0 && matches!(letter, ',' | '<' | '>')
        });
        let (word, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest;
        Some(match word.trim() {
            "" => return None,
            "bigint" | "long" => Kind::Long,
            "double" | "float" => Kind::Float,
            "variant" => Kind::Any,
            decimal if decimal.starts_with("decimal") => Kind::Decimal,
            _ => Kind::Plain,
        })
    }

    fn fields(&mut self, depth: usize) -> Option<Vec<(String, Kind)>> {
        let mut fields = Vec::new();
        if self.take(">") {
            return Some(fields);
        }
        loop {
            let name = self.name()?;
            fields.push((name, self.kind(depth + 1)?));
            if self.take(">") {
                return Some(fields);
            }
            self.take(",").then_some(())?;
        }
    }

    /// A field's name and the colon behind it. Names that would be read as notation stand in backticks.
    fn name(&mut self) -> Option<String> {
        self.0 = self.0.trim_start();
        let (name, rest) = if self.0.starts_with('`') {
            let (name, rest) = path::quoted(self.0)?;
            (name.into_owned(), rest.strip_prefix(':')?)
        } else {
            let (name, rest) = self.0.split_once(':')?;
            (name.to_owned(), rest)
        };
        self.0 = rest;
        Some(name)
    }

    fn take(&mut self, text: &str) -> bool {
        let Some(rest) = self.0.trim_start().strip_prefix(text) else { return false };
        self.0 = rest;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_notations_are_read() {
        assert_eq!(Kind::parse("bigint"), Kind::Long);
        assert_eq!(Kind::parse("long"), Kind::Long);
        assert_eq!(Kind::parse("int"), Kind::Plain);
        assert_eq!(
            Kind::parse("struct<low: double,`a:b``,<>`:array<decimal(10,2)>,m:map<string,struct<>>>"),
            Kind::Struct(vec![
                ("low".into(), Kind::Float),
                ("a:b`,<>".into(), Kind::Array(Box::new(Kind::Decimal))),
                ("m".into(), Kind::Map(Box::new(Kind::Struct(vec![])))),
            ])
        );
    }

    #[test]
    fn a_type_that_is_none_is_any() {
        for text in ["struct<a", "struct<a:int>x", "array<>", "map<int>", "", "variant", &"array<".repeat(100_000)] {
            assert_eq!(Kind::parse(text), Kind::Any, "{text:.40}");
        }
    }

    #[test]
    fn a_path_leads_through_arrays_and_maps() {
        let kind = Kind::parse("struct<items:array<struct<price:decimal(20,4)>>,by:map<string,bigint>>");
        let key = |name: &str| Step::Key(name.into());
        assert_eq!(kind.at(&[key("items"), Step::Index(3), key("price")]), &Kind::Decimal);
        assert_eq!(kind.at(&[key("by"), key("x")]), &Kind::Long);
        assert_eq!(kind.at(&[key("items"), key("price")]), &Kind::Any);
        assert!(kind.holds(&|kind| *kind == Kind::Long) && !kind.holds(&|kind| *kind == Kind::Float));
    }
}
