//! Names that stand for one column, and names that look alike.

use std::collections::BTreeMap;

/// The other names of a column under `aliases` (new name to old ones): a row answers to all of them with the one that it has. Of a path, each
/// leading part can have other names: with `person: [contact]`, `contact.email` is `person.email` too.
pub fn other_names(path: &str, aliases: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut names = Vec::new();
    if aliases.is_empty() {
        return names;
    }
    let ends = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
    for end in ends.collect::<Vec<_>>().into_iter().rev() {
        let (head, tail) = path.split_at(end);
        for (new, old) in aliases.iter().filter(|(new, old)| *new == head || old.iter().any(|old| old == head)) {
            for name in std::iter::once(new).chain(old).filter(|name| *name != head) {
                names.push(format!("{name}{tail}"));
            }
        }
    }
    names
}

/// The names that a misspelled one may have meant, nearest first.
pub fn near_names<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Vec<&'n str> {
    let plain = |name: &str| name.to_lowercase().replace(['-', '_', ' '], "");
    let wanted = plain(name);
    let mut near: Vec<(usize, &str)> = known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= (wanted.len().min(candidate.len()) / 3).clamp(1, 4))
        .collect();
    near.sort_by_key(|(distance, _)| *distance);
    near.into_iter().map(|(_, candidate)| candidate).take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_the_names_of_each_of_its_parts() {
        let aliases = BTreeMap::from([
            ("email_address".to_owned(), vec!["email".to_owned(), "mail".to_owned()]),
            ("person".to_owned(), vec!["contact".to_owned()]),
            ("contact.e_mail".to_owned(), vec!["contact.email".to_owned()]),
        ]);
        assert_eq!(other_names("email", &aliases), ["email_address", "mail"]);
        assert_eq!(other_names("email_address", &aliases), ["email", "mail"]);
        assert_eq!(other_names("contact.email", &aliases), ["contact.e_mail", "person.email"]);
        assert!(other_names("id", &aliases).is_empty());
        assert!(other_names("contactless.email", &aliases).is_empty());
    }

    #[test]
    fn near_names_are_those_that_a_slip_of_the_hand_makes() {
        assert_eq!(near_names("emial", ["order_id", "customer_id", "email"]), ["email"]);
        assert_eq!(near_names("customerId", ["order_id", "customer_id"]), ["customer_id"]);
        assert_eq!(near_names("e-mail", ["email", "phone"]), ["email"]);
        assert!(near_names("phone", ["order_id", "email"]).is_empty());
    }
}
