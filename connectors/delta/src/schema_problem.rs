//! What is wrong with a schema that the kernel cannot read, in words that name the columns.

use serde_json::Value;

/// Types without fields that are read.
const KNOWN: &[&str] = &[
    "string",
    "long",
    "integer",
    "short",
    "byte",
    "float",
    "double",
    "boolean",
    "binary",
    "date",
    "timestamp",
    "timestamp_ntz",
    "variant",
    "void",
    "null",
    "interval year to month",
    "interval day to second",
];

/// The first problem of a schema as the log has it (`schemaString`).
pub(crate) fn schema_problem(schema: &str) -> Option<String> {
    let schema: Value = serde_json::from_str(schema).ok()?;
    problem(&schema, "")
}

fn problem(data_type: &Value, path: &str) -> Option<String> {
    if let Some(name) = data_type.as_str() {
        let known = KNOWN.contains(&name) || name.starts_with("decimal") || name.starts_with("interval");
        return (!known).then(|| {
            format!("column `{path}` has the type {name}, which cannot be read; write it as another type (a string, say) or drop it")
        });
    }
    match data_type.get("type").and_then(Value::as_str)? {
        "struct" => fields(data_type, path),
        "array" => problem(data_type.get("elementType")?, path),
        "map" => problem(data_type.get("keyType")?, path).or_else(|| problem(data_type.get("valueType")?, path)),
        "udt" => problem(data_type.get("sqlType")?, path),
        _ => None,
    }
}

fn fields(data_type: &Value, path: &str) -> Option<String> {
    let fields = data_type.get("fields")?.as_array()?;
    let names: Vec<&str> = fields.iter().filter_map(|field| field.get("name")?.as_str()).collect();
    let full = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let twins = names.iter().enumerate().find_map(|(place, name)| {
        let lower = name.to_lowercase();
        let other = names.iter().take(place).find(|other| other.to_lowercase() == lower)?;
        Some((full(other), full(name)))
    });
    if let Some((one, other)) = twins {
        return Some(if one == other {
            format!(
                "it has the column `{one}` twice; write the table with one of them renamed or dropped (overwriteSchema)"
            )
        } else {
            format!(
                "the columns `{one}` and `{other}` differ only in case, and names in Delta have no case, so which of them is read could \
                 not be known; write the table with one of them renamed or dropped (overwriteSchema)"
            )
        });
    }
    fields.iter().find_map(|field| problem(field.get("type")?, &full(field.get("name")?.as_str()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(fields: &str) -> Option<String> {
        schema_problem(&format!(r#"{{"type":"struct","fields":[{fields}]}}"#))
    }

    // Issue 10, A4.
    #[test]
    fn columns_that_differ_only_in_case_are_named() {
        let score = r#"{"name":"score","type":"double"},{"name":"SCORE","type":"double"}"#;
        let text = found(score).unwrap();
        assert!(text.contains("`score` and `SCORE`") && text.contains("renamed or dropped"), "{text}");
        let nested =
            format!(r#"{{"name":"p","type":{{"type":"array","elementType":{{"type":"struct","fields":[{score}]}}}}}}"#);
        assert!(found(&nested).unwrap().contains("`p.score` and `p.SCORE`"));
        assert!(found(r#"{"name":"é","type":"long"},{"name":"É","type":"long"}"#).is_some());
    }

    #[test]
    fn a_type_that_cannot_be_read_is_named_with_its_column() {
        assert!(
            found(r#"{"name":"at","type":"geometry(OGC:CRS84)"}"#)
                .unwrap()
                .contains("`at` has the type geometry(OGC:CRS84)")
        );
        assert_eq!(found(r#"{"name":"a","type":"decimal(10,2)"},{"name":"b","type":"timestamp_ntz"}"#), None);
        assert_eq!(schema_problem("no JSON"), None);
    }
}
