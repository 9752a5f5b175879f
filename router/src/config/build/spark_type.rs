//! Types of columns in Spark's notation: `double`, `decimal(10,2)`, `array<struct<name:string,score:double>>`.
//!
//! A declared type is brought into the form that Delta tables use (`bigint` is `long`), so that a rename is recognised by its
//! type whichever way it was written.

/// Levels of nesting of a declared type.
const DEPTH_MAX: usize = 16;

/// Simple types, each with the name that Delta gives it.
const SIMPLE: &[(&str, &str)] = &[
    ("string", "string"),
    ("long", "long"),
    ("bigint", "long"),
    ("integer", "integer"),
    ("int", "integer"),
    ("short", "short"),
    ("smallint", "short"),
    ("byte", "byte"),
    ("tinyint", "byte"),
    ("float", "float"),
    ("real", "float"),
    ("double", "double"),
    ("boolean", "boolean"),
    ("bool", "boolean"),
    ("binary", "binary"),
    ("date", "date"),
    ("timestamp", "timestamp"),
    ("timestamp_ntz", "timestamp_ntz"),
];

/// The simple types, for hints.
pub(super) const KNOWN: &str = "string, long, integer, short, byte, float, double, decimal(p,s), boolean, date, timestamp, binary, \
                                array<…>, map<…,…>, struct<name:…>";

/// A type in its canonical form; `None` when it is none.
pub(super) fn canonical(text: &str) -> Option<String> {
    let plain: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
    let (name, rest) = read(&plain, 0)?;
    rest.is_empty().then_some(name)
}

/// Whether a value of the canonical type is, or may hold, one of a simple type.
pub(super) fn holds(canonical: &str, simple: &str) -> bool {
    // A field's name stands before a colon.
    canonical.split(['<', ',', ':', '>', '(', ')']).any(|word| word == simple)
}

/// Reads one type and returns what follows it.
fn read(text: &str, depth: usize) -> Option<(String, &str)> {
    if depth > DEPTH_MAX {
        return None;
    }
    let end = text.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let word = word.to_ascii_lowercase();
    match word.as_str() {
        "array" => {
            let (item, rest) = read(rest.strip_prefix('<')?, depth + 1)?;
            Some((format!("array<{item}>"), rest.strip_prefix('>')?))
        }
        "map" => {
            let (key, rest) = read(rest.strip_prefix('<')?, depth + 1)?;
            let (value, rest) = read(rest.strip_prefix(',')?, depth + 1)?;
            Some((format!("map<{key},{value}>"), rest.strip_prefix('>')?))
        }
        "struct" => fields(rest.strip_prefix('<')?, depth),
        "decimal" | "numeric" => decimal(rest),
        simple => SIMPLE.iter().find(|(name, _)| *name == simple).map(|(_, canonical)| ((*canonical).to_owned(), rest)),
    }
}

fn fields(mut rest: &str, depth: usize) -> Option<(String, &str)> {
    let mut fields = Vec::new();
    loop {
        let (name, after) = rest.split_once(':')?;
        if name.is_empty() || name.contains(['<', '>', ',']) {
            return None;
        }
        let (kind, after) = read(after, depth + 1)?;
        fields.push(format!("{name}:{kind}"));
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Some((format!("struct<{}>", fields.join(",")), after.strip_prefix('>')?)),
        }
    }
}

/// `decimal` is `decimal(10,0)`; at most 38 digits.
fn decimal(rest: &str) -> Option<(String, &str)> {
    let Some(inner) = rest.strip_prefix('(') else { return Some(("decimal(10,0)".to_owned(), rest)) };
    let (numbers, rest) = inner.split_once(')')?;
    let (precision, scale) = numbers.split_once(',').unwrap_or((numbers, "0"));
    let (precision, scale) = (precision.parse::<u8>().ok()?, scale.parse::<u8>().ok()?);
    (1..=38).contains(&precision).then_some(())?;
    (scale <= precision).then(|| (format!("decimal({precision},{scale})"), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_brought_into_one_form() {
        for (text, expected) in [
            ("double", Some("double")),
            ("BIGINT", Some("long")),
            ("decimal(10, 2)", Some("decimal(10,2)")),
            ("decimal", Some("decimal(10,0)")),
            ("array<int>", Some("array<integer>")),
            ("struct<low: double, tags: array<string>>", Some("struct<low:double,tags:array<string>>")),
            ("map<string,struct<a:bigint>>", Some("map<string,struct<a:long>>")),
            ("text", None),
            ("array<int", None),
            ("array<int>>", None),
            ("decimal(39,2)", None),
            ("decimal(3,4)", None),
            ("struct<>", None),
            ("", None),
        ] {
            assert_eq!(canonical(text).as_deref(), expected, "{text}");
        }
        assert_eq!(canonical(&"array<".repeat(10_000)), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_the_form_is_stable(text in "[a-z<>(),:0-9 ]{0,60}|(array<|struct<a:|map<int,){0,20}int>{0,20}") {
            if let Some(form) = canonical(&text) {
                proptest::prop_assert_eq!(canonical(&form), Some(form.clone()));
            }
        }
    }
}
