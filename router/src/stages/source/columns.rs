//! The columns that a source's configuration names: which ones a table must have, and which of them are of a type that spoils what they hold.

use tailwater_core::schema::Schema;
use tailwater_delta::Required;

use crate::config::model::{Source, SourceKind};

/// The columns without which the source's rows lose their person, their place or their time.
pub fn required(source: &Source) -> Vec<Required> {
    let id = match &source.kind {
        SourceKind::Events { id } => id.as_deref(),
        SourceKind::State => None,
    };
    let required = |key, column: &str| Required { key, column: column.to_owned() };
    let identifiers = source.identifiers.iter().map(|(column, _)| required("identifiers", column));
    // The key of facts is their id unless it is named.
    let key = source.primary_key.as_deref().filter(|key| Some(*key) != id);
    let others = [("primary_key", key), ("id", id), ("event_time", source.event_time.as_deref())];
    let others = others.into_iter().filter_map(|(key, column)| column.map(|column| required(key, column)));
    identifiers.chain(others).collect()
}

/// Identifiers whose column holds fractions, with what to do about it. A table says `12345.0` where all others say `12345`.
pub fn fractional_identifiers(source: &Source, schema: &Schema) -> Vec<String> {
    let mut warnings = Vec::new();
    for (path, kind) in &source.identifiers {
        let Some(column) = schema.resolve(path, &source.aliases) else { continue };
        let Some(data_type) = schema.type_at(&column) else { continue };
        if is_fractional(&data_type) {
            let quoted = quoted(&column);
            warnings.push(format!(
                "column {column}, an identifier of type {kind}, is a {data_type}: other systems write 12345 where this table writes \
                 12345.0, and numbers beyond 2^53 are not exact; write it as text: CAST(CAST({quoted} AS BIGINT) AS STRING)"
            ));
        }
    }
    warnings
}

fn is_fractional(data_type: &str) -> bool {
    let scale = || data_type.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?.1.trim().parse::<u32>().ok();
    matches!(data_type, "float" | "double") || scale().is_some_and(|scale| scale > 0)
}

/// The path as SQL has it.
fn quoted(path: &str) -> String {
    let plain = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|letter: char| letter.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let quote = |name: &str| if plain(name) { name.to_owned() } else { format!("`{}`", name.replace('`', "``")) };
    path.split('.').map(quote).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tailwater_core::schema::Column;

    use super::*;
    use crate::config::model::{EventTimeRules, KafkaSource, OnDelete, SourceInput};

    fn source() -> Source {
        Source {
            name: "scores".into(),
            input: SourceInput::Kafka(KafkaSource::of("t")),
            kind: SourceKind::Events { id: Some("order_id".into()) },
            primary_key: Some("order_id".into()),
            identifiers: vec![
                ("customer_id".into(), "customer_id".into()),
                ("contact.shop id".into(), "shop_id".into()),
                ("email".into(), "email".into()),
            ],
            event_time: Some("at".into()),
            event_time_rules: EventTimeRules::default(),
            event_type: "scores".into(),
            on_delete: OnDelete::Skip,
            aliases: BTreeMap::from([("customer_no".into(), vec!["customer_id".into()])]),
            before_image: false,
            dedupe: None,
        }
    }

    #[test]
    fn every_column_that_the_source_names_is_required_once() {
        let required = required(&source());
        let names: Vec<_> = required.iter().map(|column| (column.key, column.column.as_str())).collect();
        assert_eq!(
            names,
            [
                ("identifiers", "customer_id"),
                ("identifiers", "contact.shop id"),
                ("identifiers", "email"),
                ("id", "order_id"),
                ("event_time", "at"),
            ]
        );
    }

    // Issue 10, A7: numbers with a fraction as identifiers, and no word about it.
    #[test]
    fn an_identifier_with_a_fraction_gets_the_cast_to_paste() {
        let schema = |id: &str, shop: &str| Schema {
            columns: vec![
                Column::new("customer_no", id),
                Column::new("contact", format!("struct<shop id:{shop}>")),
                Column::new("email", "string"),
            ],
        };
        let warnings = fractional_identifiers(&source(), &schema("double", "decimal(20,2)"));
        assert_eq!(warnings.len(), 2);
        assert!(warnings[0].contains("CAST(CAST(customer_no AS BIGINT) AS STRING)"), "{}", warnings[0]);
        assert!(warnings[1].contains("CAST(CAST(contact.`shop id` AS BIGINT) AS STRING)"), "{}", warnings[1]);
        assert!(fractional_identifiers(&source(), &schema("bigint", "decimal(20,0)")).is_empty());
    }
}
