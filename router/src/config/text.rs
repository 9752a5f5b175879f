//! A text of the configuration. It keeps how it was written beside what it resolved to, because problems quote the former only.

use std::fmt;

/// A text of the configuration.
#[derive(Clone)]
pub struct Text {
    pub(super) written: String,
    pub(super) resolved: String,
    pub(super) references: References,
}

/// What a text is made of, for the rules about secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct References {
    /// The text refers to the environment or to a file.
    pub any: bool,
    /// A reference stated a default, so a part of the text stands in the file itself.
    pub with_default: bool,
    /// A reference could not be resolved; the text is of no use.
    pub unresolved: bool,
}

impl Text {
    pub fn literal(text: String) -> Self {
        Self { resolved: text.clone(), written: text, references: References::default() }
    }

    /// As the file has it: safe to quote, unless the text is a secret that was written out.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// With all references replaced: never to be printed.
    pub fn resolved(&self) -> &str {
        &self.resolved
    }

    pub fn references(&self) -> References {
        self.references
    }

    /// A message in which the text stands as it was written wherever it, or a quoted part of it, stood as it was resolved.
    pub fn mask(&self, message: &str) -> String {
        // The whole first: a value may hold the quotation marks that part the message.
        let message =
            if self.resolved.is_empty() { message.to_owned() } else { message.replace(&self.resolved, &self.written) };
        let spans = message.split('`').enumerate().map(|(index, span)| {
            let quoted = index % 2 == 1;
            if quoted && !span.is_empty() && self.resolved.contains(span) {
                self.written.clone()
            } else {
                span.to_owned()
            }
        });
        spans.collect::<Vec<_>>().join("`")
    }
}

/// Neither form is shown: the written one may be a secret that should not stand there.
impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Text").field("references", &self.references).finish_non_exhaustive()
    }
}
