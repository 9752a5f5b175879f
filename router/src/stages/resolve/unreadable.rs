//! Says what a value is that is no JSON object, so that its producer can be corrected without a look at the bytes. Pure.
//!
//! A message never quotes the record: it goes into logs. What it names is the form of the data, a place in it, and a few words that no
//! person's data are (`NaN`, `None`).

/// Bytes with which files and frames of known forms begin, and what they are.
const MAGIC: &[(&[u8], &str)] = &[
    (
        b"\x1f\x8b",
        "gzip data: the value was compressed by the program itself; send it as it is and let the producer compress (`compression.type=gzip`)",
    ),
    (
        b"\x28\xb5\x2f\xfd",
        "zstd data: the value was compressed by the program itself; send it as it is and let the producer compress (`compression.type=zstd`)",
    ),
    (
        b"\x04\x22\x4d\x18",
        "lz4 data: the value was compressed by the program itself; send it as it is and let the producer compress (`compression.type=lz4`)",
    ),
    (
        b"\xff\x06\x00\x00sNaPpY",
        "snappy data: the value was compressed by the program itself; send it as it is and let the producer compress (`compression.type=snappy`)",
    ),
    (
        b"\x82SNAPPY\x00",
        "snappy data: the value was compressed by the program itself; send it as it is and let the producer compress (`compression.type=snappy`)",
    ),
    (b"\xfd7zXZ\x00", "xz data: the value was compressed; send it as it is"),
    (b"BZh", "bzip2 data: the value was compressed; send it as it is"),
    (b"PK\x03\x04", "a ZIP archive; send each object as a record of its own"),
    (b"Obj\x01", "an Avro file; send each row as a record of its own, in JSON"),
    (b"PAR1", "a Parquet file; send each row as a record of its own, in JSON"),
    (b"ORC", "an ORC file; send each row as a record of its own, in JSON"),
    (b"\xac\xed\x00\x05", "a serialized Java object; use a serializer for JSON"),
    (b"\xff\xfe\x00\x00", "UTF-32 text; JSON in Kafka is UTF-8"),
    (b"\x00\x00\xfe\xff", "UTF-32 text; JSON in Kafka is UTF-8"),
    (b"\xff\xfe", "UTF-16 text; JSON in Kafka is UTF-8"),
    (b"\xfe\xff", "UTF-16 text; JSON in Kafka is UTF-8"),
    (b"\xef\xbb\xbf", "a byte order mark before the JSON; write UTF-8 without one"),
];

/// Words that programs write where JSON has none, and what to do about them.
const WORDS: &[(&str, &str)] = &[
    ("NaN", "NaN, which JSON does not have; write null, or the text \"NaN\" in a column of type double"),
    ("nan", "nan, which JSON does not have; write null, or the text \"NaN\" in a column of type double"),
    ("-NaN", "-NaN, which JSON does not have; write null, or the text \"NaN\" in a column of type double"),
    (
        "-Infinity",
        "-Infinity, which JSON does not have; write null, or the text \"-Infinity\" in a column of type double",
    ),
    ("Infinity", "Infinity, which JSON does not have; write null, or the text \"Infinity\" in a column of type double"),
    ("-inf", "-inf, which JSON does not have; write null, or the text \"-Infinity\" in a column of type double"),
    ("inf", "inf, which JSON does not have; write null, or the text \"Infinity\" in a column of type double"),
    ("undefined", "undefined, which JSON does not have; write null"),
    ("None", "None, as Python prints its values; write it with json.dumps"),
    ("True", "True, as Python prints its values; write it with json.dumps"),
    ("False", "False, as Python prints its values; write it with json.dumps"),
    ("'", "a single quote, as Python prints its values; write it with json.dumps"),
];

/// What the value is instead of one JSON object. `error` is what the parser said.
pub fn describe(value: &[u8], error: &serde_json::Error) -> String {
    let found = by_its_beginning(value).unwrap_or_else(|| by_its_text(value, error));
    format!("expected one JSON object, found {} bytes that are none: {found}", value.len())
}

fn by_its_beginning(value: &[u8]) -> Option<String> {
    if value.trim_ascii().is_empty() {
        return Some(if value.is_empty() { "the value is empty" } else { "the value is white space" }.to_owned());
    }
    if let Some((_, what)) = MAGIC.iter().find(|(magic, _)| value.starts_with(magic)) {
        return Some((*what).to_owned());
    }
    if let Some(frame) = registry_frame(value) {
        return Some(frame);
    }
    match value {
        [b'{', 0, ..] | [0, b'{', ..] => Some("UTF-16 text; JSON in Kafka is UTF-8".to_owned()),
        _ => None,
    }
}

/// Confluent's wire format: a zero byte and the schema's id before the data.
fn registry_frame(value: &[u8]) -> Option<String> {
    let (&[0, a, b, c, d], data) = value.split_first_chunk::<5>()? else { return None };
    let id = u32::from_be_bytes([a, b, c, d]);
    if id == 0 || id > 0x00ff_ffff {
        return None;
    }
    Some(if data.trim_ascii_start().starts_with(b"{") {
        format!(
            "a Schema Registry frame precedes the JSON (schema id {id}); use a serializer for JSON without a registry"
        )
    } else {
        format!(
            "a Schema Registry frame (schema id {id}) and data that are no JSON, such as Avro or Protobuf; use a serializer for JSON"
        )
    })
}

fn by_its_text(value: &[u8], error: &serde_json::Error) -> String {
    let text = match std::str::from_utf8(value) {
        Ok(text) => text.trim_ascii_start(),
        Err(error) => {
            let at = error.valid_up_to();
            let byte = value.get(at).copied().unwrap_or_default();
            return if at == 0 {
                format!("binary data, which begin with the byte 0x{byte:02x}; use a serializer for JSON")
            } else {
                format!(
                    "the byte 0x{byte:02x} at offset {at} is no UTF-8; write UTF-8, not Latin-1 or another encoding"
                )
            };
        }
    };
    match text.as_bytes().first() {
        Some(b'{') => inside(value, text, error),
        Some(b'[') => "a JSON array; send each object as a record of its own".to_owned(),
        Some(b'<') => "XML or HTML".to_owned(),
        Some(b'"') => match serde_json::from_str::<String>(text) {
            Ok(inner) if inner.trim_ascii_start().starts_with(['{', '[']) => {
                "JSON within a JSON text: the object was encoded twice; encode it once".to_owned()
            }
            Ok(_) => "a JSON text".to_owned(),
            Err(_) => "a JSON text that is broken, or something behind it".to_owned(),
        },
        Some(_) if is_json(text) => "a single JSON value".to_owned(),
        Some(_) if text.starts_with("eyJ") => "JSON in base64; send it as it is".to_owned(),
        Some(_) => match word(text) {
            Some(what) => what.to_owned(),
            None => "text that does not begin with a brace".to_owned(),
        },
        None => "white space".to_owned(),
    }
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// What is wrong within a text that begins as an object.
fn inside(value: &[u8], text: &str, error: &serde_json::Error) -> String {
    let mut objects = serde_json::Deserializer::from_str(text).into_iter::<serde::de::IgnoredAny>();
    if let Some(Ok(_)) = objects.next() {
        let rest = text.get(objects.byte_offset()..).unwrap_or_default().trim_ascii_start();
        return if rest.starts_with('{') {
            let more = objects.take_while(Result::is_ok).count();
            format!("{} JSON objects, one after the other; send each as a record of its own", more.max(1) + 1)
        } else if rest.is_empty() {
            error.to_string()
        } else {
            let rest = rest.len();
            format!(
                "{rest} bytes of something else behind the object, at line {} column {}",
                error.line(),
                error.column()
            )
        };
    }
    if error.is_eof() {
        return format!("the JSON ends in the middle: it was cut after {} bytes", value.len());
    }
    let place = format!("at line {} column {}", error.line(), error.column());
    match last_token(text, offset_of(text, error)) {
        Some(what) => format!("{what} ({place})"),
        None => error.to_string(),
    }
}

/// Where in the text the parser stopped.
fn offset_of(text: &str, error: &serde_json::Error) -> usize {
    let line: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    (line + error.column()).min(text.len())
}

/// What stands where the parser stopped, if it is one of the known words.
fn last_token(text: &str, offset: usize) -> Option<&'static str> {
    let before = text.get(..text.floor_char_boundary(offset))?;
    let start = before.rfind([':', ',', '[', '{'])? + 1;
    let token = text.get(start..)?.trim_ascii_start();
    if token.starts_with(['}', ']']) && before.trim_ascii_end().ends_with([',', '}', ']']) {
        return Some("a comma with nothing behind it");
    }
    word(token)
}

fn word(token: &str) -> Option<&'static str> {
    let ends = |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_');
    WORDS
        .iter()
        .find(|(word, _)| token.strip_prefix(word).is_some_and(|rest| *word == "'" || ends(rest)))
        .map(|(_, what)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::shared::body;

    fn described(value: &[u8]) -> String {
        let error = body::Values::read(value, []).expect_err("it is no JSON object");
        describe(value, &error)
    }

    /// Issue 10: "expected value at line 1 column 59".
    #[test]
    fn what_is_no_object_is_called_by_its_name() {
        let cases: &[(&[u8], &str)] = &[
            (b"{\"id\":\"u1\",\"score\":NaN}", "NaN, which JSON does not have"),
            (b"{\"id\":\"u1\",\"scores\":[1, -Infinity]}", "-Infinity, which JSON does not have"),
            (b"{\"id\": nan, \"x\": 1}", "nan, which"),
            (b"{\"id\":None}", "None, as Python"),
            (b"{'id': 1}", "a single quote"),
            (b"\0\0\0\0\x2a{\"id\":1}", "a Schema Registry frame precedes the JSON (schema id 42)"),
            (b"\0\0\0\x01\x00\x02\x08u1", "a Schema Registry frame (schema id 256) and data that are no JSON"),
            (b"\"{\\\"id\\\":1}\"", "encoded twice"),
            (b"\"hello\"", "a JSON text"),
            (b"\xef\xbb\xbf{\"id\":1}", "byte order mark"),
            (b"{\"id\":1}\n{\"id\":2}", "2 JSON objects"),
            (b"{\"id\":1}{\"id\":2}{\"id\":3}", "3 JSON objects"),
            (b"{\"id\":1}{\"id\":", "2 JSON objects"),
            (b"{\"id\":1};", "1 bytes of something else"),
            (b"\x1f\x8b\x08\0\0", "gzip"),
            (b"\x28\xb5\x2f\xfd\0", "zstd"),
            (b"{\0\"\0", "UTF-16"),
            (b"\xff\xfe{\0", "UTF-16"),
            (b"", "empty"),
            (b" \n", "white space"),
            (b"{\"id\":\"u1\",\"na", "cut after 14 bytes"),
            (b"{\"id\":1,}", "a comma with nothing behind it"),
            (b"<row id=\"1\"/>", "XML"),
            (b"Obj\x01\x04", "an Avro file"),
            (b"PAR1\x15", "a Parquet file"),
            (b"[{\"id\":1}]", "a JSON array"),
            (b"17", "a single JSON value"),
            (b"null", "a single JSON value"),
            (b"eyJpZCI6MX0=", "base64"),
            (b"{\"name\":\"Zo\xeb\"}", "0xeb at offset 11 is no UTF-8"),
            (b"\x82\xa2id\x01", "binary data"),
            (b"id=1&x=2", "does not begin with a brace"),
        ];
        for (value, expected) in cases {
            let said = described(value);
            assert!(said.contains(expected), "{:?}: {said}", String::from_utf8_lossy(value));
            assert!(said.starts_with("expected one JSON object, found "), "{said}");
        }
    }

    #[test]
    fn a_word_within_a_text_is_not_blamed() {
        let said = described(b"{\"note\":\"NaN\",\"x\":01}");
        assert!(!said.contains("NaN"), "{said}");
        assert!(!described(b"{\"a\":Nancy}").contains("NaN"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic_and_no_data_is_quoted(value in "\\PC{0,20}|[{}\\[\\]:,\"' NaInfty0-9secret\\\\]{0,30}") {
            if let Err(error) = body::Values::read(value.as_bytes(), []) {
                let said = describe(value.as_bytes(), &error);
                proptest::prop_assert!(!said.contains("secret") && said.len() < 400, "{}", said);
            }
        }
    }
}
