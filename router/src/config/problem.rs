//! What is wrong with a configuration, told so that its author can put it right: where, what, and what to do.
//!
//! A problem never quotes the value of a secret, nor what a reference resolved to: problems are printed and logged.

use std::fmt;

use serde::Serialize;
use serde::ser::SerializeStruct as _;
pub use tailwater_connectors::Severity;
use tailwater_core::Code;

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    pub code: Code,
    /// Where in the structure: `destinations.crm.routes[0].when`. Empty for the file as a whole.
    pub path: String,
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The file as it was named by the caller.
    pub file: String,
    /// Where in the text, counted from 1, where that is known.
    pub place: Option<Place>,
}

/// A position in the text of the file, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

impl Problem {
    pub fn error(code: Code, path: &Path, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            path: path.to_string(),
            message: message.into(),
            hint: None,
            file: String::new(),
            place: None,
        }
    }

    pub fn warning(code: Code, path: &Path, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, path, message) }
    }

    /// What a connector says about a section of its own; `path` is the section's.
    pub(super) fn of_connector(path: &Path, problem: tailwater_connectors::Problem) -> Self {
        let tailwater_connectors::Problem { severity, code, path: keys, message, hint } = problem;
        let path = keys.iter().fold(path.clone(), |path, key| path.key(key));
        Self { severity, hint, ..Self::error(code, &path, message) }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// One problem as a compiler would print it; editors and terminals make the position clickable.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
            if let Some(place) = self.place {
                write!(f, "{}:{}:", place.line, place.column)?;
            }
            f.write_str(" ")?;
        }
        write!(f, "{}[{}]: ", self.severity, self.code)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n    {hint}")?;
        }
        Ok(())
    }
}

/// The form of `--json`: one object per problem, with the same facts as the text.
impl Serialize for Problem {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Problem", 8)?;
        object.serialize_field("severity", &self.severity.to_string())?;
        object.serialize_field("code", self.code.as_str())?;
        object.serialize_field("path", &self.path)?;
        object.serialize_field("message", &self.message)?;
        object.serialize_field("hint", &self.hint)?;
        object.serialize_field("file", &self.file)?;
        object.serialize_field("line", &self.place.map(|place| place.line))?;
        object.serialize_field("column", &self.place.map(|place| place.column))?;
        object.end()
    }
}

/// The way from the top of the configuration to one value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl Path {
    #[must_use]
    pub fn key(&self, name: impl Into<String>) -> Self {
        self.then(Step::Key(name.into()))
    }

    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.then(Step::Index(index))
    }

    /// A path from the top: `Path::of(["kafka", "partitions"])`.
    pub fn of<const N: usize>(keys: [&str; N]) -> Self {
        Self(keys.into_iter().map(|key| Step::Key(key.to_owned())).collect())
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }

    fn then(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

/// `sources.app.identifiers["user.email"]`: a key that is no plain word is quoted, so that a path can be read back.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if is_plain(key) => {
                    if position > 0 {
                        f.write_str(".")?;
                    }
                    f.write_str(key)?;
                }
                Step::Key(key) => write!(f, "[{key:?}]")?,
            }
        }
        Ok(())
    }
}

fn is_plain(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailwater_core::code;

    #[test]
    fn a_path_quotes_keys_that_are_no_plain_words() {
        let path = Path::of(["sources", "app"]).key("identifiers").key("user.email");
        assert_eq!(path.to_string(), r#"sources.app.identifiers["user.email"]"#);
        assert_eq!(
            Path::of(["destinations"]).key("k").key("routes").index(2).key("when").to_string(),
            "destinations.k.routes[2].when"
        );
    }

    #[test]
    fn a_problem_is_printed_with_position_code_and_hint() {
        let mut problem =
            Problem::error(code::CONFIG_MISSING_KEY, &Path::of(["kafka", "brokers"]), "the key is missing")
                .hint("add it")
                .at(Place { line: 3, column: 1 });
        problem.file = "tailwater.yaml".to_owned();
        assert_eq!(
            problem.to_string(),
            "tailwater.yaml:3:1: error[config_missing_key]: kafka.brokers: the key is missing\n    add it"
        );
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!((json["line"].as_u64(), json["code"].as_str()), (Some(3), Some("config_missing_key")));
    }
}
