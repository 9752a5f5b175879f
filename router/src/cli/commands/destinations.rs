//! `tailwater destinations`: the kinds of destination that there are, and what each can do. Needs no configuration and no network.

use serde_json::{Value, json};
use tailwater_connectors::{Kind, OperationSpec, registry};

use crate::cli::args::{DestinationsArgs, DestinationsCommand};
use crate::cli::{Error, Exit, output};
use crate::config::{Key, keys_of};

/// # Errors
/// Standard output is closed.
pub fn execute(args: &DestinationsArgs) -> Result<Exit, Error> {
    match &args.command {
        None if args.json => registry::KINDS.iter().try_for_each(|kind| output::json(&facts(*kind)))?,
        None => output::text(&list(registry::KINDS))?,
        Some(DestinationsCommand::Show(show)) => {
            // The parser of arguments lets only known kinds through.
            if let Some(kind) = registry::find(&show.kind) {
                if show.json { output::json(&facts(kind))? } else { output::text(&in_full(kind))? }
            }
        }
    }
    Ok(Exit::Success)
}

/// A kind for programs.
fn facts(kind: Kind) -> Value {
    let spec = kind.spec();
    let operations: Vec<Value> = spec.operations.iter().map(operation).collect();
    let (account, options) = keys_of(spec.kind);
    json!({
        "kind": spec.kind,
        "identifier_fields": spec.identifier_fields,
        "limits": {
            "batch_deliveries_max": spec.limits.batch_deliveries_max,
            "batch_age_max_ms": spec.limits.batch_age_max.as_millis(),
            "calls_max": spec.limits.calls_max,
        },
        "operations": operations,
        "account": account,
        "options": options,
    })
}

fn operation(operation: &OperationSpec) -> Value {
    json!({
        "kind": operation.kind,
        "idempotent": operation.idempotent.as_str(),
        "destructive": operation.kind.is_destructive(),
        "batch_max": operation.batch_max,
        "note": operation.note,
    })
}

/// All kinds, a line for each operation.
fn list(kinds: &[Kind]) -> String {
    let mut rows = Vec::new();
    for kind in kinds {
        let spec = kind.spec();
        for (index, one) in spec.operations.iter().enumerate() {
            let name = if index == 0 { spec.kind } else { "" };
            rows.push([
                name.to_owned(),
                one.kind.to_string(),
                one.batch_max.to_string(),
                one.idempotent.as_str().to_owned(),
                (if one.kind.is_destructive() { "yes" } else { "-" }).to_owned(),
            ]);
        }
    }
    let heads = ["KIND", "OPERATION", "BATCH", "IDEMPOTENT", "NEEDS ALLOW"].map(str::to_owned);
    let mut text = table(&heads, &rows);
    text.push_str("\n`tailwater destinations show KIND` prints one in full.\n");
    text
}

fn in_full(kind: Kind) -> String {
    let spec = kind.spec();
    let limits = spec.limits;
    let mut text = format!(
        "{}\n\nIdentifies people by: {}\nA call carries up to {} deliveries, waits at most {} ms for more, and up to {} calls run at a time.\n\nOperations:\n",
        spec.kind,
        if spec.identifier_fields.is_empty() { "-".to_owned() } else { spec.identifier_fields.join(", ") },
        limits.batch_deliveries_max,
        limits.batch_age_max.as_millis(),
        limits.calls_max,
    );
    for one in spec.operations {
        let allow = if one.kind.is_destructive() { "; destructive: needs `allow` in the route" } else { "" };
        text.push_str(&format!(
            "  {}: up to {} in a request; idempotent: {}{allow}\n",
            one.kind,
            one.batch_max,
            one.idempotent.as_str()
        ));
        if !one.note.is_empty() {
            text.push_str(&format!("      {}\n", one.note));
        }
    }
    let (account, own) = keys_of(spec.kind);
    text.push_str("\nKeys of an account (accounts.<name>):\n");
    account.iter().for_each(|key| text.push_str(&described(key)));
    text.push_str("\nKeys of a destination (destinations.<name>), beside those that all kinds share:\n");
    own.iter().for_each(|key| text.push_str(&described(key)));
    text
}

fn described(key: &Key) -> String {
    let default = match key.default.as_str() {
        "" => String::new(),
        "required" => ", required".to_owned(),
        default => format!(", default {default}"),
    };
    let mut text = format!("  {} ({}{default})\n", key.name, key.value);
    for paragraph in key.description.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        text.push_str(&format!("      {paragraph}\n"));
    }
    text
}

/// Columns as wide as they must be.
fn table<const N: usize>(heads: &[String; N], rows: &[[String; N]]) -> String {
    let all = || std::iter::once(heads).chain(rows);
    let width = |column: usize| all().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in all() {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_listed_with_each_of_its_operations() {
        let text = list(registry::KINDS);
        for kind in registry::KINDS {
            let spec = kind.spec();
            assert!(text.lines().any(|line| line.starts_with(spec.kind)), "{text}");
            for operation in spec.operations {
                assert!(text.contains(operation.kind.as_str()), "{text}");
            }
        }
    }

    #[test]
    fn a_kind_in_full_names_its_keys_with_their_defaults_and_no_value_of_a_secret() {
        for kind in registry::KINDS {
            let (text, facts) = (in_full(*kind), facts(*kind));
            for key in facts["account"].as_array().unwrap().iter().chain(facts["options"].as_array().unwrap()) {
                assert!(text.contains(&format!("  {} (", key["name"].as_str().unwrap())), "{text}");
            }
        }
        let text = in_full(registry::find("klaviyo").unwrap());
        for line in ["  api_key (secret, by reference, required)", "  nulls (omit or clear, default omit)"] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
