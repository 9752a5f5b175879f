//! The paths by which a configuration names a value in a row: a column, or a field inside of structs.
//!
//! ```text
//! customer_id                    a column
//! contact.email                  the field email of the column contact; a column that is named `contact.email` wins
//! `contact.home`.`first name`    the field "first name" of the column "contact.home"
//! ```
//!
//! A part between backticks is a name as it stands, as in Spark; a backtick within it is doubled. So every field can be named, whatever
//! characters its name has. A part without backticks may not begin with one.

use std::borrow::Cow;

/// The first step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split<'p> {
    /// A name that wins over the step where there is a column or field of that name: the path as a whole, dots included.
    pub whole: Option<&'p str>,
    pub head: Cow<'p, str>,
    /// The path inside of it.
    pub tail: Option<&'p str>,
}

/// Takes the first step of a path. One that is malformed is a name as it stands.
pub fn split(path: &str) -> Split<'_> {
    if let Some((head, rest)) = quoted(path)
        && (rest.is_empty() || rest.len() > 1 && rest.starts_with('.'))
    {
        return Split { whole: None, head, tail: rest.get(1..) };
    }
    match path.split_once('.') {
        Some((head, tail)) => Split { whole: Some(path), head: Cow::Borrowed(head), tail: Some(tail) },
        None => Split { whole: None, head: Cow::Borrowed(path), tail: None },
    }
}

/// All steps of a path, names with dots taken for steps where they are not quoted.
pub fn steps(path: &str) -> Vec<Cow<'_, str>> {
    let mut steps = Vec::with_capacity(2);
    let mut rest = Some(path);
    while let Some(path) = rest {
        let Split { head, tail, .. } = split(path);
        steps.push(head);
        rest = tail;
    }
    steps
}

/// The path that names exactly these steps. Nothing but an empty list has no path.
pub fn join<S: AsRef<str>>(names: &[S]) -> String {
    match names {
        [one] if is_plain(one.as_ref()) => one.as_ref().to_owned(),
        several => {
            let quoted = |name: &S| format!("`{}`", name.as_ref().replace('`', "``"));
            several.iter().map(quoted).collect::<Vec<_>>().join(".")
        }
    }
}

/// What is wrong with a path; `None` where nothing is.
pub fn problem(path: &str) -> Option<&'static str> {
    let mut rest = path;
    loop {
        rest = if rest.starts_with('`') {
            let Some((_, after)) = quoted(rest) else { return Some("a backtick is not closed") };
            if !after.is_empty() && !after.starts_with('.') {
                return Some("a dot has to follow the closing backtick");
            }
            after
        } else {
            let (part, after) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
            if part.trim().is_empty() {
                return Some("a part of it is empty");
            }
            after
        };
        match rest.strip_prefix('.') {
            Some(next) => rest = next,
            None => return None,
        }
    }
}

fn is_plain(name: &str) -> bool {
    !name.trim().is_empty() && !name.contains('.') && !name.starts_with('`')
}

/// A name between backticks at the beginning of a text, and what follows it.
pub fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let inner = text.strip_prefix('`')?;
    let mut from = 0;
    loop {
        let at = from + inner.get(from..)?.find('`')?;
        if inner.get(at + 1..)?.starts_with('`') {
            from = at + 2;
            continue;
        }
        let (name, rest) = (inner.get(..at)?, inner.get(at + 1..)?);
        let name = if name.contains('`') { Cow::Owned(name.replace("``", "`")) } else { Cow::Borrowed(name) };
        return Some((name, rest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_are_split_at_their_dots_and_quoted_parts_are_not() {
        for (path, expected) in [
            ("id", &["id"][..]),
            ("contact.email", &["contact", "email"]),
            ("`contact.home`.`first name`", &["contact.home", "first name"]),
            ("`a``b`.c", &["a`b", "c"]),
            ("contact.`e.mail`", &["contact", "e.mail"]),
            ("``", &[""]),
            ("we`ird", &["we`ird"]),
            ("`open", &["`open"]),
            ("`a`b", &["`a`b"]),
            ("`a`.", &["`a`", ""]),
        ] {
            assert_eq!(steps(path), expected, "{path}");
        }
        assert_eq!(split("a.b").whole, Some("a.b"));
        assert_eq!(split("`a`.b").whole, None);
    }

    #[test]
    fn what_is_wrong_with_a_path_is_told() {
        for path in ["id", "a.b c", "`a.b`.`c d`", "``", "a b", "`a`.b", "we`ird"] {
            assert_eq!(problem(path), None, "{path}");
        }
        for path in ["", ".", "a.", ".a", "a..b", " ", "`a", "`a`b", "`a`.", "a.`b"] {
            assert!(problem(path).is_some(), "{path}");
        }
    }

    proptest::proptest! {
        /// Issue 10: a field with a space under a column with a dot could not be named.
        #[test]
        fn any_list_of_names_has_a_path_that_leads_back_to_it(names in proptest::collection::vec("\\PC{0,6}|[a.` ]{0,5}", 1..5)) {
            let path = join(&names);
            proptest::prop_assert_eq!(problem(&path), None);
            proptest::prop_assert_eq!(steps(&path), names.clone());
            // No other name can take its place on the way.
            let mut rest = Some(path.as_str());
            while let Some(path) = rest {
                let step = split(path);
                proptest::prop_assert_eq!(step.whole, None);
                rest = step.tail;
            }
        }

        #[test]
        fn no_text_panics(text in "[a.` ]{0,12}|\\PC{0,12}") {
            let steps = steps(&text);
            proptest::prop_assert!(!steps.is_empty());
            problem(&text);
        }
    }
}
