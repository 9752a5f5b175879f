//! Looks into a row's JSON without building a tree of it: a column or a dotted path as the bytes that stand there.

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;
use tailwater_core::path::{self, Split};

/// What stands at several paths of a row, all found in one pass: rows are a kilobyte and more, and reading them is what costs.
#[derive(Debug)]
pub struct Values<'a, 'p> {
    found: SmallVec<[Found<'a, 'p>; 8]>,
}

#[derive(Debug)]
struct Found<'a, 'p> {
    path: Split<'p>,
    /// The value of the column that is named like the whole path.
    whole: Option<&'a RawValue>,
    /// The value of the column that the path leads into.
    at_head: Option<&'a RawValue>,
}

// === impl Values ===

impl<'a, 'p> Values<'a, 'p> {
    /// Reads a row, and checks that it is one JSON object, and text throughout.
    ///
    /// # Errors
    /// What is wrong, with line and column.
    pub fn read(json: &'a [u8], paths: impl IntoIterator<Item = &'p str>) -> Result<Self, serde_json::Error> {
        let found = paths.into_iter().map(|path| Found { path: path::split(path), whole: None, at_head: None });
        let mut values = Self { found: found.collect() };
        // Values that nobody asks for are passed over unread here, and would fail in V8 only, as if the transform were to blame.
        let text = std::str::from_utf8(json).map_err(serde_json::Error::custom)?;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        All(&mut values.found).deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(values)
    }

    /// The value at the path of this place, in the order in which the paths were given; as [`scalar`] has it.
    ///
    /// # Errors
    /// None that [`Self::read`] has not found already.
    pub fn scalar(&self, place: usize) -> Result<Option<String>, serde_json::Error> {
        self.json(place)?.map_or(Ok(None), text_of)
    }

    /// The JSON text at the path of this place; as [`find`] has it.
    ///
    /// # Errors
    /// None that [`Self::read`] has not found already.
    pub fn json(&self, place: usize) -> Result<Option<&'a str>, serde_json::Error> {
        let Some(found) = self.found.get(place) else { return Ok(None) };
        match (found.whole, found.at_head, found.path.tail) {
            // A column whose own name holds the dots wins over a path.
            (Some(whole), _, _) => Ok(Some(whole.get())),
            (None, Some(found), None) => Ok(Some(found.get())),
            (None, Some(outer), Some(tail)) if outer.get().starts_with('{') => find(outer.get().as_bytes(), tail),
            (None, Some(_) | None, _) => Ok(None),
        }
    }
}

/// The JSON text at a path (`customer_id`, `contact.email`). `None` when it is absent; `null` is given as it stands.
///
/// # Errors
/// The text is no JSON object.
pub fn find<'a>(json: &'a [u8], path: &str) -> Result<Option<&'a str>, serde_json::Error> {
    let Split { whole, head, tail } = path::split(path);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    // A column whose own name holds the dots wins over a path.
    if let Some(name) = whole
        && let Some(found) = (Field { name }).deserialize(&mut serde_json::Deserializer::from_slice(json))?
    {
        return Ok(Some(found.get()));
    }
    match (Field { name: &head }.deserialize(&mut deserializer)?, tail) {
        (Some(found), None) => Ok(Some(found.get())),
        (Some(found), Some(tail)) if found.get().starts_with('{') => find(found.get().as_bytes(), tail),
        (Some(_) | None, _) => Ok(None),
    }
}

/// The value at a path as the text of an identifier, a time or a key: strings as they are, numbers and booleans as they are
/// written. Null, absent values, objects and arrays have none.
///
/// # Errors
/// The text is no JSON object.
pub fn scalar(json: &[u8], path: &str) -> Result<Option<String>, serde_json::Error> {
    find(json, path)?.map_or(Ok(None), text_of)
}

/// The text of a JSON value, as [`scalar`] has it.
///
/// # Errors
/// A string that is no text: half of a surrogate pair.
pub fn text_of(text: &str) -> Result<Option<String>, serde_json::Error> {
    match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str(text).map(Some),
        Some(b'{' | b'[' | b'n') | None => Ok(None),
        Some(_) => Ok(Some(text.to_owned())),
    }
}

/// The text of a JSON string in which half of a surrogate pair, which JSON allows and no text can hold, is U+FFFD. For values whose
/// fault must not spoil the row; never for a key or an id, of which two could become the same.
///
/// # Errors
/// It is no JSON string.
pub fn lossy(json: &str) -> Result<String, serde_json::Error> {
    serde_json::Deserializer::from_str(json).deserialize_bytes(Lossy)
}

/// A JSON string as bytes, which is how serde gives one with half of a surrogate pair.
struct Lossy;

impl Visitor<'_> for Lossy {
    type Value = String;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a text")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<String, E> {
        Ok(String::from_utf8_lossy(bytes).into_owned())
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

/// Looks for all paths at once.
struct All<'f, 'a, 'p>(&'f mut [Found<'a, 'p>]);

impl<'de> DeserializeSeed<'de> for All<'_, 'de, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for All<'_, 'de, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(wanted) = map.next_key_seed(Wanted(self.0))? {
            if wanted.is_empty() {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value: &'de RawValue = map.next_value()?;
            for (place, whole) in wanted {
                if let Some(found) = self.0.get_mut(place) {
                    *(if whole { &mut found.whole } else { &mut found.at_head }) = Some(value);
                }
            }
        }
        Ok(())
    }
}

/// Says which paths a key serves: the place of each, and whether it is the whole of the path.
struct Wanted<'f, 'a, 'p>(&'f [Found<'a, 'p>]);

impl<'de> DeserializeSeed<'de> for Wanted<'_, '_, '_> {
    type Value = SmallVec<[(usize, bool); 4]>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Wanted<'_, '_, '_> {
    type Value = SmallVec<[(usize, bool); 4]>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Self::Value, E> {
        let mut wanted = SmallVec::new();
        for (place, found) in self.0.iter().enumerate() {
            if found.path.whole == Some(key) {
                wanted.push((place, true));
            } else if key == found.path.head {
                wanted.push((place, false));
            }
        }
        Ok(wanted)
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

    /// Issue 10, A7.
    #[test]
    fn half_a_surrogate_pair_spoils_its_own_value_only() {
        let row = br#"{"id": "u3\udc00", "email": "petra@example.com", "both": "\ud83d\ude00"}"#;
        let values = Values::read(row, ["id", "email", "both"]).unwrap();
        let text = |place| lossy(values.json(place).unwrap().unwrap()).unwrap();
        assert!(text(0).starts_with("u3\u{fffd}"));
        assert_eq!((text(1).as_str(), text(2).as_str()), ("petra@example.com", "\u{1f600}"));
        assert!(values.scalar(0).is_err(), "two keys could become the same");
    }

    /// Issue 10: a field with a space under a column with a dot could not be named.
    #[test]
    fn a_quoted_path_names_any_field() {
        let row =
            br#"{"contact.home":{"first name":"Ada","a.b":{"c`d":1}},"contact":{"home":{"first name":"no"}},"":2}"#;
        for (path, expected) in [
            ("`contact.home`.`first name`", Some("Ada")),
            ("`contact.home`.first name", Some("Ada")),
            ("`contact.home`.`a.b`.`c``d`", Some("1")),
            ("`contact.home`.a.b.`c``d`", None),
            ("contact.home.first name", Some("no")),
            ("`contact`.`home`.`first name`", Some("no")),
            ("``", Some("2")),
        ] {
            assert_eq!(scalar(row, path).unwrap().as_deref(), expected, "{path}");
            assert_eq!(Values::read(row, [path]).unwrap().scalar(0).unwrap().as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn an_exact_integer_keeps_its_digits() {
        assert_eq!(scalar(br#"{"id": 9007199254740993}"#, "id").unwrap().as_deref(), Some("9007199254740993"));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["", "[]", "7", "{\"a\":1", "{\"a\":1} x", "{\"a\":}"] {
            assert!(Values::read(text.as_bytes(), ["a"]).is_err(), "{text}");
        }
        assert!(Values::read(ROW, []).is_ok());
    }

    #[test]
    fn one_pass_finds_what_single_looks_find() {
        let paths =
            ["id", "contact.email", "a.b", "escaped", "gone", "contact", "contact.phone", "absent", "id", "id.x"];
        let rows: [&[u8]; 4] = [
            ROW,
            br#"{"id": 1, "id": 2, "contact": {"email": 1}, "contact": {"email": 2}}"#,
            br#"{"a": {"b": 1}, "a.b": null, "contact": "text", "id": true}"#,
            b"{}",
        ];
        for row in rows {
            let values = Values::read(row, paths).unwrap();
            for (place, path) in paths.into_iter().enumerate() {
                assert_eq!(values.scalar(place).unwrap(), scalar(row, path).unwrap(), "{path}");
            }
            assert_eq!(values.scalar(paths.len()).unwrap(), None);
        }
        assert!(Values::read(b"{\"a\":1,\"b\":\"\xff\"}", []).is_err(), "a value that is no text, wherever it stands");
    }
}
