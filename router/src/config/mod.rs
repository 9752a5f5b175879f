//! The configuration: from a YAML file to types that have passed every check which needs no network.
//!
//! ```text
//! text ──tree──▶ nodes with places ──interpolate──▶ references resolved ──walk (schema)──▶ well-formed sections ──build──▶ Config
//! ```
//!
//! All problems are found in one pass over everything and reported together, each with its path, its line, a code and a
//! hint: a person who repairs a file wants the whole list. So no step stops at the first problem, and a section that is broken
//! hides no other. The raw types (`raw`) give the JSON Schema, which the walk follows and editors use, and the
//! reference page; nothing about a key is said in two places.
//!
//! A secret's value never leaves `SecretString`: no problem, no `Debug` and no page shows one.

mod build;
mod forms;
mod interpolate;
mod mask;
pub mod model;
pub mod names;
mod page;
mod problem;
mod raw;
pub mod schema;
mod secrets;
mod text;
mod tree;
mod walk;
pub mod when;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path as FilePath;

use tailwater_connectors::Kind;
pub use tailwater_connectors::config::Period;
use tailwater_connectors::registry::KINDS;
use tailwater_core::{Code, code};

use self::build::Builder;
use self::interpolate::{Resolution, Resolver};
use self::mask::Mask;
pub use self::model::*;
pub use self::page::{Key, keys_of, page};
pub use self::problem::{Path, Place, Problem, Severity};
use self::walk::Walk;
pub use self::when::{EventFields, When, WhenError};

/// Checks a transform's source text; called with its name and source.
pub type CheckTransform<'a> = dyn Fn(&str, &str) -> Result<(), TransformProblem> + 'a;

/// Why a transform cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransformProblem {
    pub code: Code,
    /// One line for people, with the place in the transform.
    pub message: String,
}

/// How a configuration is loaded.
pub struct LoadOptions<'a> {
    /// References that cannot be resolved are warnings and not errors: a configuration is validated where its secrets are not.
    pub tolerate_unresolved: bool,
    /// Where `${env:…}` is looked up.
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// Whose broker it is.
    pub broker: Broker,
    /// The kinds of destination that there are.
    pub kinds: &'a [Kind],
    /// Whether a transform parses. Only V8 can tell, so whoever has it passes it in.
    pub check_transform: Option<&'a CheckTransform<'a>>,
}

/// Whose broker a configuration is loaded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Broker {
    /// One that runs somewhere: `kafka.brokers` must say where.
    #[default]
    Given,
    /// The one that `tailwater run --embedded` starts: everything that it cannot promise is refused.
    Embedded,
    /// Either: without `kafka.brokers` it is looked for where the embedded one listens.
    Either,
}

/// What came of a check.
#[derive(Debug)]
pub struct Checked {
    /// Present if no problem is an error. Where unresolved references were tolerated it holds placeholders and is good for being looked
    /// at, not for being run.
    pub config: Option<Config>,
    /// Errors and warnings in the order of the file.
    pub problems: Vec<Problem>,
}

// === impl LoadOptions ===

impl Default for LoadOptions<'_> {
    /// The process's environment, nothing tolerated, transforms not parsed.
    fn default() -> Self {
        Self {
            tolerate_unresolved: false,
            environment: &|name| std::env::var(name).ok(),
            broker: Broker::default(),
            kinds: KINDS,
            check_transform: None,
        }
    }
}

// === impl Config ===

impl Config {
    /// Loads a configuration to run it. Warnings are left to [`check`].
    ///
    /// # Errors
    /// All problems, warnings included, if at least one of them is an error.
    pub fn load(file: &FilePath, options: &LoadOptions<'_>) -> Result<Self, Vec<Problem>> {
        let Checked { config, problems } = check(file, options);
        config.ok_or(problems)
    }
}

/// Checks a configuration and reports everything that is wrong with it, or odd about it.
pub fn check(file: &FilePath, options: &LoadOptions<'_>) -> Checked {
    let mut checked = match read(file) {
        Ok(text) => check_text(&text, file, options),
        Err(problem) => Checked { config: None, problems: vec![problem] },
    };
    for problem in &mut checked.problems {
        problem.file = file.display().to_string();
    }
    checked.problems.sort_by(|a, b| (a.place, a.severity, &a.path).cmp(&(b.place, b.severity, &b.path)));
    checked
}

fn check_text(text: &str, file: &FilePath, options: &LoadOptions<'_>) -> Checked {
    let folder = file.parent().unwrap_or(FilePath::new(""));
    let mut problems = Vec::new();
    let mut tree = match tree::parse(text, &mut problems) {
        Ok(tree) => tree,
        Err(problem) => {
            problems.push(problem);
            return Checked { config: None, problems };
        }
    };

    let unresolved = if options.tolerate_unresolved { Severity::Warning } else { Severity::Error };
    let resolver = Resolver { environment: options.environment, folder, unresolved };
    let mut resolution = Resolution::default();
    resolver.resolve(&mut tree, &Path::default(), &mut resolution);
    problems.append(&mut resolution.problems);

    let own;
    let schema = if std::ptr::eq(options.kinds, KINDS) {
        schema::schema()
    } else {
        own = schema::Schema::of(options.kinds);
        &own
    };
    let mut walk = Walk::new(schema);
    let json = walk.tree(&tree).unwrap_or_default();
    problems.append(&mut walk.problems);

    let mut files = vec![file.to_path_buf()];
    files.append(&mut resolution.files);
    let mut builder =
        Builder { schema, tree: &tree, json: &json, folder, options, unresolved: walk.unresolved, problems, files };
    let config = builder.build();
    let mut problems = builder.problems;

    let config = if problems.iter().any(Problem::is_error) {
        None
    } else if config.is_none() && problems.is_empty() {
        // Every way to `None` reports why; should one not, the file must still not pass for right.
        problems.push(Problem::error(
            code::CONFIG_WRONG_TYPE,
            &Path::default(),
            "the configuration could not be built",
        ));
        None
    } else {
        config
    };
    if !problems.is_empty() {
        mask(&mut problems, &resolution.values);
    }
    Checked { config, problems }
}

/// Takes what came from outside out of what is shown.
fn mask(problems: &mut [Problem], values: &BTreeMap<String, String>) {
    match Mask::new(values) {
        Ok(mask) => problems.iter_mut().for_each(|problem| mask.iter().for_each(|mask| mask.apply(problem))),
        // Nothing is shown then that could not be looked through.
        Err(error) => problems.iter_mut().for_each(|problem| {
            problem.message =
                format!("not shown, because it could not be searched for what references stand for ({error})");
            problem.hint = None;
        }),
    }
}

fn read(file: &FilePath) -> Result<String, Problem> {
    let unreadable = |reason: String| {
        Problem::error(
            code::CONFIG_UNREADABLE,
            &Path::default(),
            format!("the configuration file could not be read: {reason}"),
        )
    };
    let mut text = String::new();
    let open = std::fs::File::open(file).map_err(|error| {
        unreadable(error.to_string())
            .hint("name it with --config FILE or TAILWATER_CONFIG, or make one with `tailwater init`")
    })?;
    let length =
        open.take(tree::FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| unreadable(error.to_string()))?;
    if length as u64 > tree::FILE_BYTES_MAX {
        return Err(unreadable(format!("it is larger than {} bytes", tree::FILE_BYTES_MAX)));
    }
    Ok(text)
}
