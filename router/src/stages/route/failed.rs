//! Why a row cannot go on, in words: where it failed, what took the place of a column that is missing, and the fix.

use tailwater_core::SchemaId;
use tailwater_core::delivery::Reason;
use tailwater_core::envelope::Envelope;
use tailwater_core::judge::Signature;
use tailwater_core::schema::{Reassigned, SchemaRecord, explain_missing};
use tailwater_sandbox::{RowError, RowErrorKind};

use crate::config::WhenError;
use crate::stages::Error;
use crate::state::schemas::Schemas;

/// Why a row cannot go on.
#[derive(Debug, Clone)]
pub struct Failed {
    pub reason: Reason,
    pub signature: Signature,
    pub stack: Option<String>,
}

/// Adds to a missing column what took its place.
pub fn explain(error: RowError, schema: Option<SchemaId>, source: &str, schemas: &Schemas) -> Result<Failed, Error> {
    let code = error.code();
    let stack = (!error.stack.is_empty()).then(|| error.stack.join("\n"));
    let at = match error.line {
        Some(line) => format!("{}:{line}", error.file),
        None => error.file.clone(),
    };
    let column = match &error.kind {
        RowErrorKind::MissingColumn { column }
        | RowErrorKind::UnsafeInteger { column }
        | RowErrorKind::UnsafeDecimal { column } => Some(column.as_str()),
        RowErrorKind::Threw
        | RowErrorKind::Timeout
        | RowErrorKind::OutOfMemory
        | RowErrorKind::Pending
        | RowErrorKind::Shape
        | RowErrorKind::OutputTooLarge
        | RowErrorKind::NonFinite
        | RowErrorKind::Input => None,
    };
    let message = match (&error.kind, schema) {
        (RowErrorKind::MissingColumn { column }, Some(id)) => {
            missing_column(&at, column, source, &schemas.history(id)?, Reads::Transform)
        }
        _ => format!("{at}: {}", error.message),
    };
    Ok(Failed { signature: Signature::new(code, column, &error.message), reason: Reason::new(code, message), stack })
}

/// A condition that could not be evaluated, with what took the place of a missing column.
///
/// # Errors
/// A schema could not be looked up.
pub fn condition_failed(
    error: &WhenError,
    route: &str,
    envelope: &Envelope<'_>,
    schemas: &Schemas,
) -> Result<Failed, Error> {
    let at = format!("the condition of route {route}");
    let (column, message) = match (error, envelope.schema) {
        (WhenError::MissingColumn { column }, Some(id)) => {
            let history = schemas.history(id)?;
            (Some(column.as_str()), missing_column(&at, column, envelope.source, &history, Reads::Condition))
        }
        (WhenError::MissingColumn { column }, None) => (Some(column.as_str()), format!("{at}: {error}")),
        (WhenError::Failed { .. } | WhenError::NoObject, _) => (None, format!("{at}: {error}")),
    };
    let code = error.code();
    Ok(Failed {
        signature: Signature::new(code, column, &error.to_string()),
        reason: Reason::new(code, message),
        stack: None,
    })
}

/// What reads a column, in the words of the configuration.
#[derive(Debug, Clone, Copy)]
enum Reads {
    Transform,
    Condition,
}

impl Reads {
    const fn place(self) -> &'static str {
        match self {
            Self::Transform => "the transform",
            Self::Condition => "`when`",
        }
    }

    /// How to read a column that rows may lack.
    fn optional(self, column: &str) -> String {
        match self {
            Self::Transform => format!("use row.optional('{column}')"),
            Self::Condition => format!("guard it with has(row.{column})"),
        }
    }
}

/// The message for a missing column: since when it is missing, what took its place, and the fix.
fn missing_column(at: &str, column: &str, source: &str, history: &[SchemaRecord], reads: Reads) -> String {
    let missing = explain_missing(column, history);
    if let Some(reassigned) = &missing.reassigned {
        return reassigned_column(at, source, &missing.candidates, reassigned, reads);
    }
    let mut message = match missing.vanished_in {
        Some(version) => {
            format!("{at} reads column `{column}`, which source {source} no longer has since version {version}")
        }
        None if missing.known => format!("{at} reads column `{column}`, which source {source} no longer has"),
        None => format!("{at} reads column `{column}`, which source {source} does not have"),
    };
    let place = reads.place();
    let fix = match missing.candidates.as_slice() {
        [] => {
            let columns = missing.beside.join(", ");
            let optional = reads.optional(column);
            format!("; it has {columns}. Read another one, or {optional}")
        }
        [one] => format!(
            "; `{one}` took its place. Read `{one}` in {place}, or say `aliases: {{{one}: [{column}]}}` at the source"
        ),
        several => format!(
            "; one of {} may have taken its place. Read the right one in {place}, or name it under the source's `aliases`",
            several.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        ),
    };
    message.push_str(&fix);
    message
}

/// The message for a name that belongs to another column than when the transform was written.
fn reassigned_column(at: &str, source: &str, candidates: &[String], reassigned: &Reassigned, reads: Reads) -> String {
    let column = &reassigned.column;
    let since = reassigned.since.map_or_else(String::new, |version| format!(" since version {version}"));
    let what = match &reassigned.formerly {
        Some(formerly) => format!("it is the former `{formerly}`, renamed"),
        None => "a new column has the name".to_owned(),
    };
    let now = match candidates {
        [one] => format!("; what `{column}` was is `{one}` now. Read `{one}` in {}", reads.place()),
        _ => format!("; what `{column}` was is gone. Change {}", reads.place()),
    };
    let known = match &reassigned.formerly {
        Some(formerly) => format!("say `aliases: {{{column}: [{formerly}]}}` at the source"),
        None => reads.optional(column),
    };
    format!(
        "{at} reads column `{column}`, which is another column of source {source}{since}: {what}{now}; if `{column}` is meant as it is \
         now, {known}"
    )
}

#[cfg(test)]
mod tests {
    use tailwater_core::schema::{Column, Difference};

    use super::*;

    fn record(columns: &[(&str, &str)], version: u64) -> SchemaRecord {
        SchemaRecord {
            source: "ltv".into(),
            columns: columns.iter().map(|(name, data_type)| Column::new(*name, *data_type)).collect(),
            predecessor: None,
            version: Some(version),
            difference: Difference::default(),
        }
    }

    #[test]
    fn a_renamed_column_is_named_with_its_version_and_the_cure() {
        let history = [
            record(&[("id", "string"), ("ltv_score", "double"), ("confidence_interval", "struct<low:double>")], 4),
            record(&[("id", "string"), ("ltv_predicted", "double")], 0),
        ];
        assert_eq!(
            missing_column("transforms/ltv.js:7", "ltv_predicted", "ltv", &history, Reads::Transform),
            "transforms/ltv.js:7 reads column `ltv_predicted`, which source ltv no longer has since version 4; `ltv_score` took its \
             place. Read `ltv_score` in the transform, or say `aliases: {ltv_score: [ltv_predicted]}` at the source"
        );
    }

    #[test]
    fn a_condition_that_reads_a_renamed_column_is_answered_like_a_transform() {
        // Issue 10, C1.
        let history = [record(&[("level", "string")], 2), record(&[("tier", "string")], 1)];
        assert_eq!(
            missing_column("the condition of route gold", "tier", "scores", &history, Reads::Condition),
            "the condition of route gold reads column `tier`, which source scores no longer has since version 2; `level` took its \
             place. Read `level` in `when`, or say `aliases: {level: [tier]}` at the source"
        );
        let gone = missing_column("the condition of route gold", "rank", "scores", &history, Reads::Condition);
        assert!(gone.ends_with("it has level. Read another one, or guard it with has(row.rank)"), "{gone}");
    }

    // Issue 10, A3.
    #[test]
    fn a_name_that_belongs_to_another_column_is_explained_with_both_ways_out() {
        let version = |churn, upgrade, version| {
            let mut record = record(&[("churn", "double"), ("upgrade", "double")], version);
            record.columns[0].id = Some(churn);
            record.columns[1].id = Some(upgrade);
            record
        };
        assert_eq!(
            missing_column("t.js:3", "churn", "ltv", &[version(2, 1, 5), version(1, 2, 0)], Reads::Transform),
            "t.js:3 reads column `churn`, which is another column of source ltv since version 5: it is the former `upgrade`, renamed; \
             what `churn` was is `upgrade` now. Read `upgrade` in the transform; if `churn` is meant as it is now, say \
             `aliases: {churn: [upgrade]}` at the source"
        );
    }

    #[test]
    fn a_column_that_never_existed_is_answered_with_those_that_do() {
        let history = [record(&[("upgrade_score", "double")], 1)];
        let message = missing_column("t.js", "churn_risk_score", "upgrades", &history, Reads::Transform);
        assert!(message.contains("does not have") && message.contains("upgrade_score"), "{message}");
    }
}
