//! Whether a version has the columns that the configuration names. A version without one is not begun: its rows would lose what links them
//! to people, and nobody would see it.

use tailwater_core::schema::{Schema, SchemaRecord, explain_missing, near_names, reassigned};

use crate::options::{Options, Required};

/// A column that the configuration names and a version does not have, or has under another meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    pub required: Required,
    /// What to use instead, best first.
    pub candidates: Vec<String>,
    pub why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// An earlier version had it.
    Vanished,
    /// A later version has it, and this one has the candidates in its stead.
    NotYet,
    /// No version is known to have it.
    Unknown,
    /// The name belongs to the column that had this name before.
    Reassigned { formerly: String },
}

/// The required columns that rows of `schema` would lack. `before` is the schema of the rows so far, `latest` that of the table's latest
/// version.
pub(crate) fn missing(
    schema: &Schema,
    before: Option<&Schema>,
    latest: &dyn Fn() -> Option<Schema>,
    options: &Options,
) -> Vec<Missing> {
    let mut history = vec![record(schema)];
    history.extend(before.map(record));
    history.extend(options.history.iter().cloned());
    let mut missing = Vec::new();
    let renamed = reassigned(&history);
    for required in &options.required {
        let Some(found) = schema.resolve(&required.column, &options.aliases) else {
            missing.extend(absent(required, schema, &history, latest, options));
            continue;
        };
        // The column, or a struct that it lies in.
        let formerly = renamed.iter().find_map(|name| {
            let below = found.strip_prefix(name.column.as_str()).is_some_and(|rest| rest.starts_with('.'));
            let other = (found == name.column || below) && !name.is_acknowledged(&options.aliases);
            name.formerly.clone().filter(|_| other)
        });
        if let Some(formerly) = formerly {
            missing.push(Missing {
                required: required.clone(),
                candidates: explain_missing(&found, &history).candidates,
                why: Why::Reassigned { formerly },
            });
        }
    }
    missing
}

fn absent(
    required: &Required,
    schema: &Schema,
    history: &[SchemaRecord],
    latest: &dyn Fn() -> Option<Schema>,
    options: &Options,
) -> Option<Missing> {
    let found = |candidates, why| Some(Missing { required: required.clone(), candidates, why });
    let explained = explain_missing(&required.column, history);
    if explained.known {
        return found(explained.candidates, Why::Vanished);
    }
    // An old version may come before the column. If what it has instead was renamed later, the name has to be known; if nothing of it is
    // gone since, the column was simply added later.
    if let Some(latest) = latest().filter(|latest| latest.resolve(&required.column, &options.aliases).is_some()) {
        let earlier = explain_missing(&required.column, &[record(schema), record(&latest)]).candidates;
        return if earlier.is_empty() { None } else { found(earlier, Why::NotYet) };
    }
    let near = near_names(&required.column, explained.beside.iter().map(String::as_str));
    found(near.into_iter().map(str::to_owned).collect(), Why::Unknown)
}

fn record(schema: &Schema) -> SchemaRecord {
    SchemaRecord {
        source: String::new(),
        columns: schema.columns.clone(),
        predecessor: None,
        version: None,
        difference: tailwater_core::schema::Difference::default(),
    }
}

// === impl Missing ===

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Required { key, column } = &self.required;
        let all = |separator: &str| self.candidates.join(separator);
        match (&self.why, self.candidates.as_slice()) {
            (Why::Reassigned { formerly }, candidates) => {
                write!(f, "{column} ({key}) is another column now, the former {formerly}")?;
                if let [now, ..] = candidates {
                    write!(f, "; what it was is {now} now: name {now} under {key}")?;
                }
                write!(f, ", or say `aliases: {{{column}: [{formerly}]}}` if {column} is meant as it is now")
            }
            (_, []) => write!(f, "{column} ({key})"),
            (Why::Vanished, [one]) => write!(
                f,
                "{column} ({key}): {one} took its place, say `aliases: {{{one}: [{column}]}}`, or name {one} under {key}"
            ),
            (Why::Vanished, [first, ..]) => write!(
                f,
                "{column} ({key}): one of {} may have taken its place, say which under aliases (`{first}: [{column}]`)",
                all(", ")
            ),
            (Why::NotYet, [first, ..]) => write!(
                f,
                "{column} ({key}): this old version has {} in its stead, say `aliases: {{{column}: [{first}]}}`, or start later",
                all(" or ")
            ),
            (Why::Unknown, _) => write!(f, "{column} ({key}): did you mean {}?", all(" or ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use tailwater_core::schema::Column;

    use super::*;

    fn schema(columns: &[(&str, &str, Option<i64>)]) -> Schema {
        Schema {
            columns: columns
                .iter()
                .map(|(name, data_type, id)| Column { id: *id, ..Column::new(*name, *data_type) })
                .collect(),
        }
    }

    fn options(required: &[&str], aliases: &[(&str, &str)]) -> Options {
        let mut options = Options::new("t");
        options.required =
            required.iter().map(|column| Required { key: "identifiers", column: (*column).to_owned() }).collect();
        options.aliases = aliases.iter().map(|(new, old)| ((*new).to_owned(), vec![(*old).to_owned()])).collect();
        options
    }

    fn text(schema: &Schema, before: Option<&Schema>, latest: Option<&Schema>, options: &Options) -> String {
        let missing = missing(schema, before, &|| latest.cloned(), options);
        missing.iter().map(Missing::to_string).collect::<Vec<_>>().join("; ")
    }

    const OLD: &[(&str, &str, Option<i64>)] =
        &[("order_id", "string", None), ("customer_id", "string", None), ("email", "string", None)];
    const NEW: &[(&str, &str, Option<i64>)] =
        &[("order_id", "string", None), ("customer_id", "string", None), ("email_address", "string", None)];

    #[test]
    fn a_renamed_column_is_named_with_what_took_its_place() {
        let (old, new) = (schema(OLD), schema(NEW));
        assert_eq!(
            text(&new, Some(&old), Some(&new), &options(&["customer_id", "email"], &[])),
            "email (identifiers): email_address took its place, say `aliases: {email_address: [email]}`, or name email_address under \
             identifiers"
        );
        assert_eq!(text(&new, Some(&old), Some(&new), &options(&["email"], &[("email_address", "email")])), "");
        // The configuration has the new name already, and old rows are read.
        assert_eq!(text(&old, None, Some(&new), &options(&["email_address"], &[("email_address", "email")])), "");
    }

    #[test]
    fn a_misspelled_column_is_answered_with_the_near_ones() {
        let old = schema(OLD);
        assert_eq!(text(&old, None, Some(&old), &options(&["emial"], &[])), "emial (identifiers): did you mean email?");
        assert_eq!(text(&old, None, Some(&old), &options(&["phone"], &[])), "phone (identifiers)");
        let nested = schema(&[("contact", "struct<email:string,phone:string>", None)]);
        assert_eq!(text(&nested, None, None, &options(&["contact.email"], &[])), "");
        assert_eq!(
            text(&nested, None, None, &options(&["contact.emial"], &[])),
            "contact.emial (identifiers): did you mean contact.email?"
        );
    }

    #[test]
    fn a_column_that_was_added_later_is_not_missing_from_the_versions_before_it() {
        let (before, later) = (schema(&OLD[..2]), schema(OLD));
        assert_eq!(text(&before, None, Some(&later), &options(&["email"], &[])), "");
        // It was there under another name.
        let found = text(&schema(OLD), None, Some(&schema(NEW)), &options(&["email_address"], &[]));
        assert!(found.contains("say `aliases: {email_address: [email]}`"), "{found}");
        // It was there, and is not in this version.
        let found = text(&before, Some(&later), Some(&later), &options(&["email"], &[]));
        assert_eq!(found, "email (identifiers)");
    }

    #[test]
    fn a_column_that_has_the_name_of_another_one_is_not_it() {
        let old = schema(&[("id", "string", Some(1)), ("email", "string", Some(2)), ("backup", "string", Some(3))]);
        let new = schema(&[("id", "string", Some(1)), ("backup", "string", Some(2)), ("email", "string", Some(3))]);
        let found = text(&new, Some(&old), Some(&new), &options(&["email"], &[]));
        assert!(found.contains("the former backup") && found.contains("name backup under identifiers"), "{found}");
        assert_eq!(text(&new, Some(&old), Some(&new), &options(&["email"], &[("email", "backup")])), "");
    }
}
