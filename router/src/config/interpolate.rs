//! References in the configuration's texts: `${env:NAME}`, `${env:NAME:-default}` and `${file:/run/secrets/x}`.
//!
//! `$${` is a literal `${`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path as FilePath, PathBuf};

use tailwater_core::code;

use super::problem::{Path, Problem, Severity};
use super::text::{References, Text};
use super::tree::{Node, Value};

/// Bytes of a file that a reference names: a certificate chain fits, a file that was named by mistake does not.
const REFERENCED_BYTES_MAX: u64 = 1024 * 1024;

/// Where references are looked up.
pub struct Resolver<'a> {
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    /// Relative file references start here.
    pub folder: &'a FilePath,
    /// How bad it is when a reference cannot be resolved.
    pub unresolved: Severity,
}

/// What the references of a tree led to.
#[derive(Default)]
pub struct Resolution {
    pub problems: Vec<Problem>,
    /// The files that were read.
    pub files: Vec<PathBuf>,
    /// What came from the environment and from files, by value, each with a reference that stands for it.
    pub values: BTreeMap<String, String>,
}

impl Resolver<'_> {
    /// Resolves every text of the tree in place.
    pub fn resolve(&self, node: &mut Node, path: &Path, resolution: &mut Resolution) {
        match &mut node.value {
            Value::Text(text) => {
                if let Err(problems) = self.text(text, path, resolution) {
                    resolution.problems.extend(problems.into_iter().map(|problem| problem.at(node.place)));
                }
            }
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.resolve(item, &path.index(index), resolution);
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    self.resolve(&mut entry.node, &path.key(&entry.key), resolution);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn text(&self, text: &mut Text, path: &Path, resolution: &mut Resolution) -> Result<(), Vec<Problem>> {
        if !text.written.contains("${") {
            return Ok(());
        }
        let mut resolved = String::with_capacity(text.written.len());
        let mut problems = Vec::new();
        let mut rest = text.written.as_str();
        while let Some((before, after)) = rest.split_once("${") {
            if let Some(before) = before.strip_suffix('$') {
                resolved.push_str(before);
                resolved.push_str("${");
                rest = after;
                continue;
            }
            resolved.push_str(before);
            let reference = match after.split_once('}') {
                Some((inner, behind)) => {
                    rest = behind;
                    self.reference(inner, path, &mut text.references, resolution)
                }
                None => {
                    rest = "";
                    Err(malformed(path, after).hint("close it with `}`, or write `$${` for a literal `${`"))
                }
            };
            text.references.any = true;
            match reference {
                Ok(value) => resolved.push_str(&value),
                Err(problem) => {
                    text.references.unresolved = true;
                    problems.push(problem);
                }
            }
        }
        resolved.push_str(rest);
        text.resolved = resolved;
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    fn reference(
        &self,
        inner: &str,
        path: &Path,
        references: &mut References,
        resolution: &mut Resolution,
    ) -> Result<String, Problem> {
        match inner.split_once(':') {
            Some(("env", rest)) => {
                let (name, default) = match rest.split_once(":-") {
                    Some((name, default)) => (name, Some(default)),
                    None => (rest, None),
                };
                if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                    return Err(malformed(path, inner).hint(
                        "the name of an environment variable has letters, digits and underscores: ${env:CRM_API_KEY}",
                    ));
                }
                references.with_default |= default.is_some_and(|default| !default.is_empty());
                // An empty variable counts as absent, as in a shell's `:-`: an empty secret is never meant.
                match ((self.environment)(name).filter(|value| !value.is_empty()), default) {
                    (Some(value), _) => {
                        resolution.values.entry(value.clone()).or_insert_with(|| format!("${{env:{name}}}"));
                        Ok(value)
                    }
                    (None, Some(default)) => Ok(default.to_owned()),
                    (None, None) => Err(self.unresolved(path, format!("the environment variable {name} is not set or empty"))
                        .hint(format!("set it before starting (export {name}=…), or give a default that is no secret: ${{env:{name}:-…}}"))),
                }
            }
            Some(("file", name)) if !name.is_empty() => {
                let file = self.folder.join(name);
                match read(&file) {
                    Ok(value) => {
                        resolution.values.entry(value.clone()).or_insert_with(|| format!("${{file:{name}}}"));
                        resolution.files.push(file);
                        Ok(value)
                    }
                    Err(error) => Err(self
                        .unresolved(path, format!("the file {} could not be read: {error}", file.display()))
                        .hint("mount the secret there, or correct the path (relative paths start at the configuration file)")),
                }
            }
            _ => Err(malformed(path, inner)
                .hint("references are ${env:NAME}, ${env:NAME:-default} and ${file:/path}; `$${` is a literal `${`")),
        }
    }

    fn unresolved(&self, path: &Path, message: String) -> Problem {
        Problem { severity: self.unresolved, ..Problem::error(code::CONFIG_SECRET_UNRESOLVED, path, message) }
    }
}

/// Only what looks like a reference's scheme is quoted: the rest may be a secret.
fn malformed(path: &Path, inner: &str) -> Problem {
    let scheme = inner.split_once(':').map_or("", |(scheme, _)| scheme);
    let is_word = scheme.len() <= 12 && scheme.bytes().all(|byte| byte.is_ascii_lowercase());
    let shown = if is_word { scheme } else { "" };
    Problem::error(code::CONFIG_INVALID_VALUE, path, format!("`${{{shown}…` is no reference that can be read"))
}

/// The text of a file without the line ends that editors and `echo` leave.
fn read(file: &FilePath) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(file)?.take(REFERENCED_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > REFERENCED_BYTES_MAX {
        return Err(std::io::Error::other(format!("it is larger than {REFERENCED_BYTES_MAX} bytes")));
    }
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    if text.is_empty() {
        return Err(std::io::Error::other("it is empty"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(written: &str) -> (Text, Vec<Problem>) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "s3cret\n").unwrap();
        let environment = |name: &str| match name {
            "HOST" => Some("broker".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let resolver = Resolver { environment: &environment, folder: folder.path(), unresolved: Severity::Error };
        let mut text = Text::literal(written.to_owned());
        let problems = resolver.text(&mut text, &Path::default(), &mut Resolution::default()).err().unwrap_or_default();
        (text, problems)
    }

    #[test]
    fn references_are_replaced_wherever_they_stand() {
        for (written, expected) in [
            ("plain", "plain"),
            ("${env:HOST}:9092", "broker:9092"),
            ("${env:NONE:-127.0.0.1:9092}", "127.0.0.1:9092"),
            ("${env:NONE:-}", ""),
            ("${env:EMPTY:-x}", "x"),
            ("${env:HOST}-${env:HOST}", "broker-broker"),
            ("${file:secret}", "s3cret"),
            ("$${env:HOST}", "${env:HOST}"),
            ("a$b", "a$b"),
        ] {
            let (text, problems) = resolve(written);
            assert_eq!((text.resolved(), problems.len()), (expected, 0), "{written}");
        }
    }

    #[test]
    fn what_cannot_be_resolved_is_named() {
        for (written, code, part) in [
            ("${env:NONE}", code::CONFIG_SECRET_UNRESOLVED, "NONE"),
            ("${env:EMPTY}", code::CONFIG_SECRET_UNRESOLVED, "EMPTY"),
            ("${file:absent}", code::CONFIG_SECRET_UNRESOLVED, "absent"),
            ("${vault:x}", code::CONFIG_INVALID_VALUE, "vault"),
            ("${env:NO-NAME}", code::CONFIG_INVALID_VALUE, "env"),
            ("${env:HOST", code::CONFIG_INVALID_VALUE, "env"),
            ("${}", code::CONFIG_INVALID_VALUE, "reference"),
        ] {
            let (_, problems) = resolve(written);
            assert_eq!(problems.len(), 1, "{written}");
            assert_eq!(problems[0].code, code, "{written}");
            assert!(problems[0].message.contains(part), "{}", problems[0]);
        }
    }

    #[test]
    fn two_references_can_both_be_wrong() {
        assert_eq!(resolve("${env:A}:${env:B}").1.len(), 2);
    }

    #[test]
    fn a_text_does_not_show_itself() {
        let (text, _) = resolve("pk_${file:secret}");
        assert!(!format!("{text:?}").contains("s3cret") && !format!("{text:?}").contains("pk_"));
    }
}
