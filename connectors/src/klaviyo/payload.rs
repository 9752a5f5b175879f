//! The body of an operation: the profile as `profile-import` takes it, and before it the lists that the person joins.
//!
//! The vendor takes lists beside a profile in no single request, so they are taken out again when a request is made. The body is written
//! here only, in one form, so that no tree of it has to be built for that: `{"relationships":{"lists":["A","B"]},"type":"profile",…}`.

use std::borrow::Cow;

const BEGIN: &str = r#"{"relationships":{"lists":["#;
const END: &str = r"]},";

/// The body of a profile with lists, which are sorted, without repeats, and hold nothing that JSON escapes. `profile` is an object that is
/// not empty.
pub(super) fn write(profile: String, lists: &[String]) -> String {
    let Some(members) = profile.strip_prefix('{').filter(|_| !lists.is_empty()) else { return profile };
    let lists: Vec<_> = lists.iter().map(|list| format!("\"{list}\"")).collect();
    format!("{BEGIN}{}{END}{members}", lists.join(","))
}

/// The lists as they stand in the body; equal texts are equal sets.
pub(super) fn lists_text(body: &str) -> &str {
    split(body).map_or("", |(lists, _)| lists)
}

/// The ids of the lists, sorted.
pub(super) fn lists(body: &str) -> Vec<String> {
    ids(lists_text(body))
}

/// The ids in a text of [`lists_text`].
pub(super) fn ids(lists: &str) -> Vec<String> {
    lists.split(',').map(|id| id.trim_matches('"').to_owned()).filter(|id| !id.is_empty()).collect()
}

pub(super) fn has_lists(body: &str) -> bool {
    body.starts_with(BEGIN)
}

/// The profile without the lists.
pub(super) fn profile(body: &str) -> Cow<'_, str> {
    match split(body) {
        Some((_, members)) => Cow::Owned(format!("{{{members}")),
        None => Cow::Borrowed(body),
    }
}

/// The lists, and the members of the profile after them.
fn split(body: &str) -> Option<(&str, &str)> {
    body.strip_prefix(BEGIN)?.split_once(END)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read_again(
            lists in prop::collection::btree_set("[A-Za-z0-9_-]{1,8}", 0..4), name in "\\PC{0,12}",
        ) {
            let wanted: Vec<String> = lists.into_iter().collect();
            let plain = serde_json::json!({"type": "profile", "attributes": {"title": name, "x": "]},"}}).to_string();
            let body = write(plain.clone(), &wanted);
            prop_assert_eq!(super::lists(&body), wanted.clone());
            prop_assert_eq!(has_lists(&body), !wanted.is_empty());
            prop_assert_eq!(profile(&body), plain.as_str());
            let read: Value = serde_json::from_str(&body).unwrap();
            prop_assert_eq!(read["relationships"]["lists"].as_array().map_or(0, Vec::len), wanted.len());
        }
    }
}
