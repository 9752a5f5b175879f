//! Looks into a row's JSON without building a tree of it: a column or a dotted path as the bytes that stand there.

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The JSON text at a path (`customer_id`, `contact.email`). `None` when it is absent; `null` is given as it stands.
///
/// # Errors
/// The text is no JSON object.
pub fn find<'a>(json: &'a [u8], path: &str) -> Result<Option<&'a str>, serde_json::Error> {
    let (head, tail) = path.split_once('.').map_or((path, None), |(head, tail)| (head, Some(tail)));
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    // A column whose own name holds the dots wins over a path.
    let mut whole = serde_json::Deserializer::from_slice(json);
    if tail.is_some()
        && let Some(found) = (Field { name: path }).deserialize(&mut whole)?
    {
        return Ok(Some(found.get()));
    }
    match (Field { name: head }.deserialize(&mut deserializer)?, tail) {
        (Some(found), None) => Ok(Some(found.get())),
        (Some(found), Some(tail)) if found.get().starts_with('{') => find(found.get().as_bytes(), tail),
        (Some(_) | None, _) => Ok(None),
    }
}

/// Checks that the bytes are one JSON object, and text throughout: values that nobody asks for are passed over unread here, and would
/// fail in V8 only, as if the transform were to blame.
///
/// # Errors
/// What is wrong, with line and column, or with the byte.
pub fn check(json: &[u8]) -> Result<(), serde_json::Error> {
    let text = std::str::from_utf8(json).map_err(serde_json::Error::custom)?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Field { name: "" }.deserialize(&mut deserializer)?;
    deserializer.end()
}

/// The value at a path as the text of an identifier, a time or a key: strings as they are, numbers and booleans as they are
/// written. Null, absent values, objects and arrays have none.
///
/// # Errors
/// The text is no JSON object.
pub fn scalar(json: &[u8], path: &str) -> Result<Option<String>, serde_json::Error> {
    let Some(text) = find(json, path)? else { return Ok(None) };
    match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str(text).map(Some),
        Some(b'{' | b'[' | b'n') | None => Ok(None),
        Some(_) => Ok(Some(text.to_owned())),
    }
}

struct Field<'p> {
    name: &'p str,
}

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(matches) = map.next_key_seed(Key(self.name))? {
            if matches {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Compares a key without copying it.
struct Key<'p>(&'p str);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &[u8] = br#"{"id": 7, "contact": {"email": "a@b.c"}, "a.b": "dotted", "a": {"b": 1}, "gone": null, "esc\u0061ped": "\u00e9"}"#;

    #[test]
    fn values_are_found_by_column_path_and_escaped_name() {
        assert_eq!(scalar(ROW, "id").unwrap().as_deref(), Some("7"));
        assert_eq!(scalar(ROW, "contact.email").unwrap().as_deref(), Some("a@b.c"));
        assert_eq!(scalar(ROW, "a.b").unwrap().as_deref(), Some("dotted"));
        assert_eq!(scalar(ROW, "escaped").unwrap().as_deref(), Some("é"));
        assert_eq!(scalar(ROW, "gone").unwrap(), None);
        assert_eq!(find(ROW, "gone").unwrap(), Some("null"));
        assert_eq!(scalar(ROW, "contact").unwrap(), None);
        assert_eq!(scalar(ROW, "contact.phone").unwrap(), None);
    }

    #[test]
    fn an_exact_integer_keeps_its_digits() {
        assert_eq!(scalar(br#"{"id": 9007199254740993}"#, "id").unwrap().as_deref(), Some("9007199254740993"));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["", "[]", "7", "{\"a\":1", "{\"a\":1} x", "{\"a\":}"] {
            assert!(check(text.as_bytes()).is_err(), "{text}");
        }
        assert!(check(b"{\"a\":1,\"b\":\"\xff\"}").is_err(), "a value that is no text, wherever it stands");
        assert!(check(ROW).is_ok());
    }
}
