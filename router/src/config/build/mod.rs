//! From the well-formed sections to the validated types: everything that a schema cannot say.
//!
//! Each section is built for itself. One that is broken is left out, and its name stays known, so that a reference to it is
//! no second problem. No check in here needs the network.

mod destination;
mod identity;
mod kafka;
mod source;
mod spark_type;

use std::collections::BTreeSet;
use std::path::{Path as FilePath, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use tailwater_connectors::Kind;
use tailwater_connectors::config::Period;
use tailwater_core::{Code, code};

use super::LoadOptions;
use super::forms::nearest;
use super::model::{Admin, Config, Sandbox};
use super::problem::{Path, Problem};
use super::raw::{RawAdmin, RawSandbox};
use super::schema::Schema;
use super::tree::{Node, Value};

/// What the sections are built from, and what was found on the way.
pub(super) struct Builder<'a> {
    pub schema: &'a Schema,
    pub tree: &'a Node,
    /// The tree as JSON, without what is malformed.
    pub json: &'a Json,
    /// The folder of the configuration file: where relative paths start.
    pub folder: &'a FilePath,
    pub options: &'a LoadOptions<'a>,
    pub unresolved: BTreeSet<Path>,
    pub problems: Vec<Problem>,
    pub files: Vec<PathBuf>,
}

impl Builder<'_> {
    /// All sections; `None` when a problem stands in the way, which has been reported then.
    pub fn build(&mut self) -> Option<Config> {
        let workspace = self.text("workspace");
        let state_dir = self.text("state_dir").unwrap_or_else(|| "./state".to_owned());
        let kafka = self.kafka();
        let admin = self.admin();
        let sandbox = self.sandbox();
        let identity = self.identity();
        let sources = self.sources(kafka.as_ref().map_or("tailwater.", |kafka| &kafka.prefix));
        let accounts = self.accounts();
        let destinations = self.destinations(&sources, &accounts);
        self.unused_accounts();
        Some(Config {
            workspace: workspace?,
            kafka: kafka?,
            identity: identity?,
            sources,
            accounts,
            destinations,
            state_dir: self.folder.join(state_dir),
            admin: admin?,
            sandbox: sandbox?,
            files: std::mem::take(&mut self.files),
        })
    }

    fn admin(&mut self) -> Option<Admin> {
        let path = Path::of(["admin"]);
        let raw: RawAdmin = self.section_or_default(&path)?;
        match raw.listen.0.parse() {
            Ok(listen) => Some(Admin { listen }),
            Err(_) => {
                let path = path.key("listen");
                self.error(
                    code::CONFIG_INVALID_VALUE,
                    &path,
                    "expected an IP address and a port, such as 127.0.0.1:9644",
                );
                None
            }
        }
    }

    fn sandbox(&mut self) -> Option<Sandbox> {
        let path = Path::of(["sandbox"]);
        let raw: RawSandbox = self.section_or_default(&path)?;
        self.within(&path.key("batch_timeout"), raw.batch_timeout, Period::millis(10), Period::seconds(60));
        self.within(&path.key("row_timeout"), raw.row_timeout, Period::millis(1), Period::seconds(60));
        if raw.row_timeout > raw.batch_timeout {
            let message = format!(
                "{} is longer than batch_timeout ({}), so it could never be reached",
                raw.row_timeout, raw.batch_timeout
            );
            self.error(code::CONFIG_INVALID_VALUE, &path.key("row_timeout"), message);
        }
        let heap = raw.heap.0;
        if !(8 << 20..=4 << 30).contains(&heap) {
            self.error(
                code::CONFIG_INVALID_VALUE,
                &path.key("heap"),
                format!("{} is not between 8MB and 4GB", raw.heap),
            );
        }
        Some(Sandbox {
            threads: raw.threads,
            heap_bytes_max: usize::try_from(heap).unwrap_or(usize::MAX),
            batch_timeout: raw.batch_timeout.0,
            row_timeout: raw.row_timeout.0,
        })
    }

    // === what all sections need ===

    /// A section in its raw type. What does not fit has been reported by the walk; should it not have been, it is here.
    fn section<T: DeserializeOwned>(&mut self, json: &Json, path: &Path) -> Option<T> {
        self.read(T::deserialize(json), path)
    }

    fn read<T>(&mut self, read: Result<T, serde_json::Error>, path: &Path) -> Option<T> {
        match read {
            Ok(raw) => Some(raw),
            Err(error) => {
                let prefix = path.to_string();
                if !self.problems.iter().any(|problem| problem.is_error() && problem.path.starts_with(&prefix)) {
                    // The error's text may quote a value; its kind is enough, and cannot hold a secret.
                    let message = format!("the section could not be read ({:?} error)", error.classify());
                    self.error(code::CONFIG_WRONG_TYPE, path, message);
                }
                None
            }
        }
    }

    fn section_or_default<T: DeserializeOwned + Default>(&mut self, path: &Path) -> Option<T> {
        match self.json.get(path.to_string()) {
            Some(json) => self.section(json, path),
            None => Some(T::default()),
        }
    }

    fn text(&self, key: &str) -> Option<String> {
        self.json.get(key).and_then(Json::as_str).map(str::to_owned)
    }

    /// The entries of a map of sections, each without its tag, which says as what it is read.
    fn entries(&self, section: &str) -> Vec<(String, Json)> {
        let entries = self.json.get(section).and_then(Json::as_object);
        let untagged = |(name, json): (&String, &Json)| {
            let mut json = json.clone();
            if let Some(object) = json.as_object_mut() {
                object.shift_remove("type");
            }
            (name.clone(), json)
        };
        entries.into_iter().flatten().map(untagged).collect()
    }

    /// The names that a section defines, whether or not what they stand for is right.
    fn names(&self, section: &str) -> Vec<String> {
        self.tree.get(section).map(|node| node.keys().map(str::to_owned).collect()).unwrap_or_default()
    }

    /// The kind of an account, even if the account is malformed otherwise.
    fn kind_of(&self, account: &str) -> Option<Kind> {
        let name = self.tag("accounts", account)?;
        self.options.kinds.iter().copied().find(|kind| kind.spec().kind == name)
    }

    /// Adds what a connector says about a section of its own.
    fn report_all(&mut self, section: &Path, problems: Vec<tailwater_connectors::Problem>) {
        for problem in problems {
            let path = problem.path.iter().fold(section.clone(), |path, key| path.key(key));
            self.report(Problem::of_connector(section, problem), &path);
        }
    }

    fn error(&mut self, code: Code, path: &Path, message: impl Into<String>) {
        self.report(Problem::error(code, path, message), path);
    }

    /// Adds a problem with its place, unless it speaks of a placeholder. What a reference resolved to is not quoted.
    fn report(&mut self, problem: Problem, path: &Path) {
        if self.unresolved.contains(path) {
            return;
        }
        let mut problem = problem.at(self.tree.locate(path));
        if let Some(Value::Text(text)) = self.tree.find(path).map(|node| &node.value)
            && text.references().any
        {
            if problem.code == code::CONFIG_EXPRESSION {
                // A parser quotes any token that it stumbles over, in quotes of its own: no search could find every piece of a secret.
                problem.message =
                    format!("`{}` is no valid expression once its references are replaced", text.written());
                problem.hint = Some("what a reference stands for is never shown; try the expression with a harmless value written out to see what is wrong".to_owned());
            } else {
                problem.message = text.mask(&problem.message);
                problem.hint = problem.hint.map(|hint| text.mask(&hint));
            }
        }
        self.problems.push(problem);
    }

    /// Whether a name is among those that a section defines.
    fn known(&mut self, path: &Path, name: &str, what: &str, names: &[String]) -> bool {
        if names.iter().any(|known| known == name) {
            return true;
        }
        let hint = match nearest(name, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None if names.is_empty() => "none is defined yet".to_owned(),
            None => format!("defined are: {}", names.join(", ")),
        };
        self.report(
            Problem::error(code::CONFIG_UNKNOWN_REFERENCE, path, format!("there is no {what} `{name}`")).hint(hint),
            path,
        );
        false
    }

    fn within(&mut self, path: &Path, period: Period, least: Period, most: Period) {
        if period < least || period > most {
            self.error(code::CONFIG_INVALID_VALUE, path, format!("{period} is not between {least} and {most}"));
        }
    }

    /// The columns or paths that a source or destination names, each with what it maps to, must name known types.
    fn known_types<'m>(&mut self, path: &Path, map: impl IntoIterator<Item = (&'m String, &'m String)>) {
        let types = self.identifier_types();
        for (key, kind) in map {
            self.known(&path.key(key), kind, "identifier type", &types);
        }
    }

    fn identifier_types(&self) -> Vec<String> {
        let types = self.tree.find(&Path::of(["identity", "types"]));
        types.map(|node| node.keys().map(str::to_owned).collect()).unwrap_or_default()
    }

    /// The tag of an entry, even if the entry is malformed otherwise.
    fn tag(&self, section: &str, name: &str) -> Option<&str> {
        match &self.tree.get(section)?.get(name)?.get("type")?.value {
            Value::Text(text) => Some(text.resolved()),
            _ => None,
        }
    }
}
