//! `tailwater validate`: everything that is wrong with a configuration, without a network.

use crate::cli::args::ValidateArgs;
use crate::cli::load::{Purpose, checked};
use crate::cli::{Error, Exit, Global, output};
use crate::config::{Broker, Checked, Config, Problem};

/// Prints the problems and how many there are. Exit code 1 if the configuration cannot be used.
///
/// # Errors
/// The sandbox that parses transforms does not start, or standard output is closed.
pub fn execute(args: &ValidateArgs, global: &Global) -> Result<Exit, Error> {
    let file = args.file.as_deref().unwrap_or(&global.config);
    let Checked { config, problems } =
        checked(file, Purpose::Validate(if args.embedded { Broker::Embedded } else { Broker::Given }))?;
    let valid = config.is_some() && (!args.strict || problems.is_empty());
    if args.json {
        output::json(&serde_json::json!({ "valid": valid, "problems": problems }))?;
    } else {
        for problem in &problems {
            output::line(&problem.to_string())?;
        }
        output::line(&summary(&file.display().to_string(), config.as_ref(), &problems))?;
    }
    Ok(if valid { Exit::Success } else { Exit::Problem })
}

/// The last line: what there is, or how much is wrong.
fn summary(file: &str, config: Option<&Config>, problems: &[Problem]) -> String {
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    let warnings = problems.len() - errors;
    let mut counts = Vec::new();
    if errors > 0 {
        counts.push(count(errors, "error"));
    }
    if warnings > 0 {
        counts.push(count(warnings, "warning"));
    }
    match config {
        Some(config) => {
            let routes = config.destinations.values().map(|destination| destination.routes.len()).sum();
            let mut parts = vec![
                count(config.sources.len(), "source"),
                count(config.destinations.len(), "destination"),
                count(routes, "route"),
            ];
            parts.extend(counts);
            format!("{file} is valid: {}", parts.join(", "))
        }
        None => format!("{file} cannot be used: {}", counts.join(", ")),
    }
}

fn count(number: usize, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}
