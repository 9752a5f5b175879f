//! Which columns of the rows before and after a rewrite are compared. A rewrite may have renamed some: an alias says so, or the
//! column id, or there is only one candidate of the type. It is a guess good enough to tell whether a row changed, and for
//! nothing else: rows keep their own names.

use crate::layout::{Layout, notation};
use crate::options::Options;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// Places before and after.
    pub pairs: Vec<(usize, usize)>,
    /// Columns that are new.
    pub added: Vec<String>,
    /// Columns that are gone, without a counterpart.
    pub vanished: Vec<String>,
}

struct Named<'a> {
    name: &'a str,
    data_type: String,
    id: Option<i64>,
}

impl Comparison {
    pub fn of(old: &Layout, new: &Layout, options: &Options) -> Self {
        Self::matched(&named(old), &named(new), options)
    }

    fn matched(old: &[Named<'_>], new: &[Named<'_>], options: &Options) -> Self {
        let mut pairs: Vec<(usize, usize)> = Vec::with_capacity(new.len());
        let mut match_by = |same: &dyn Fn(&Named<'_>, &Named<'_>) -> bool, sole: bool| {
            let free_old: Vec<usize> =
                (0..old.len()).filter(|place| pairs.iter().all(|pair| pair.0 != *place)).collect();
            let free_new: Vec<usize> =
                (0..new.len()).filter(|place| pairs.iter().all(|pair| pair.1 != *place)).collect();
            for &place in &free_new {
                let mut candidates = free_old.iter().copied().filter(|&other| same(&old[other], &new[place]));
                let Some(candidate) = candidates.next() else { continue };
                let rivals = candidates.count()
                    + free_new.iter().filter(|&&other| same(&old[candidate], &new[other])).count()
                    - 1;
                let taken = pairs.iter().any(|pair| pair.0 == candidate);
                if !taken && (!sole || rivals == 0) {
                    pairs.push((candidate, place));
                }
            }
        };
        // Two columns that swapped names are compared with what they were.
        match_by(&|old, new| old.id.is_some() && old.id == new.id, false);
        match_by(&|old, new| old.name == new.name, false);
        match_by(&|old, new| options.aliases_of(new.name).iter().any(|alias| alias == old.name), false);
        match_by(&|old, new| old.data_type == new.data_type, true);
        pairs.sort_by_key(|pair| pair.1);
        let left =
            |count: usize, used: &dyn Fn(usize) -> bool| (0..count).filter(|&place| !used(place)).collect::<Vec<_>>();
        let vanished = left(old.len(), &|place| pairs.iter().any(|pair| pair.0 == place));
        let added = left(new.len(), &|place| pairs.iter().any(|pair| pair.1 == place));
        Self {
            added: added.into_iter().map(|place| new[place].name.to_owned()).collect(),
            vanished: vanished.into_iter().map(|place| old[place].name.to_owned()).collect(),
            pairs,
        }
    }
}

fn named(layout: &Layout) -> Vec<Named<'_>> {
    let columns = layout.columns.iter();
    columns.map(|column| Named { name: &column.name, data_type: notation(&column.data_type), id: column.id }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns<'a>(list: &[(&'a str, &str)]) -> Vec<Named<'a>> {
        list.iter().map(|(name, data_type)| Named { name, data_type: (*data_type).to_owned(), id: None }).collect()
    }

    fn matched(old: &[(&str, &str)], new: &[(&str, &str)], options: &Options) -> Comparison {
        Comparison::matched(&columns(old), &columns(new), options)
    }

    #[test]
    fn the_sole_candidate_of_the_type_is_taken_for_a_rename() {
        let found = matched(
            &[("id", "string"), ("ltv_predicted", "double")],
            &[("id", "string"), ("interval", "struct<low:double>"), ("ltv_score", "double")],
            &Options::new("t"),
        );
        assert_eq!(found.pairs, [(0, 0), (1, 2)]);
        assert_eq!(found.added, ["interval"]);
        assert!(found.vanished.is_empty());
    }

    #[test]
    fn two_candidates_of_one_type_are_none() {
        let found = matched(&[("ltv", "double")], &[("score", "double"), ("rank", "double")], &Options::new("t"));
        assert!(found.pairs.is_empty());
        assert_eq!(found.vanished, ["ltv"]);
        let found = matched(&[("a", "double"), ("b", "double")], &[("score", "double")], &Options::new("t"));
        assert_eq!(found.vanished, ["a", "b"]);
    }

    #[test]
    fn an_alias_decides_where_the_type_does_not() {
        let mut options = Options::new("t");
        options.aliases.insert("score".into(), vec!["ltv".into()]);
        let found = matched(&[("ltv", "double")], &[("rank", "double"), ("score", "double")], &options);
        assert_eq!(found.pairs, [(0, 1)]);
        assert_eq!(found.added, ["rank"]);
    }

    #[test]
    fn a_column_that_keeps_its_name_and_changes_its_type_is_compared() {
        let found = matched(&[("n", "int")], &[("n", "bigint")], &Options::new("t"));
        assert_eq!(found.pairs, [(0, 0)]);
    }

    #[test]
    fn columns_that_swapped_names_are_compared_by_their_ids() {
        let mapped = |list: &[(&'static str, i64)]| -> Vec<Named<'static>> {
            list.iter().map(|(name, id)| Named { name, data_type: "double".to_owned(), id: Some(*id) }).collect()
        };
        let found =
            Comparison::matched(&mapped(&[("a", 1), ("b", 2)]), &mapped(&[("a", 2), ("b", 1)]), &Options::new("t"));
        assert_eq!(found.pairs, [(1, 0), (0, 1)]);
    }
}
