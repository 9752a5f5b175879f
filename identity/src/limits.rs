//! Whether a change keeps every limit. A limit is a statement about a whole profile, so it is asked of the profile as it
//! would be after the change: the union of the profiles that would meet, and the identifiers that would be new.
//!
//! Only what changes is asked. A profile that exceeds a limit because the rules became stricter keeps what it has; it takes
//! nothing more of that type.

use std::time::Duration;

use tailwater_core::Timestamp;

use crate::profile::{Kind, PROFILE_BYTES_MAX, Profile, Value};
use crate::rules::{Limit, Rules};

/// Whether `profiles` may become one that also takes the values `new`.
pub(crate) fn permit(rules: &Rules, profiles: &[&Profile], new: &[Value]) -> bool {
    if profiles.len() <= 1 && new.is_empty() {
        return true;
    }
    let globals = rules.globals();
    let merges =
        profiles.iter().map(|profile| profile.absorbed.len()).sum::<usize>() + profiles.len().saturating_sub(1);
    if profiles.len() > 1 && merges > globals.max_merges {
        return false;
    }
    let count = profiles.iter().map(|profile| profile.values.len()).sum::<usize>() + new.len();
    let bytes =
        profiles.iter().map(|profile| profile.bytes()).sum::<usize>() + new.iter().map(Value::bytes).sum::<usize>();
    if count > globals.max_identifiers || bytes > PROFILE_BYTES_MAX {
        return false;
    }
    rules.types().iter().enumerate().all(|(rank, kind)| {
        let of_kind = |value: &&Value| value.kind == Kind::Declared(rank);
        let added = new.iter().filter(of_kind).count();
        let holders = profiles.iter().filter(|profile| profile.values.iter().any(|value| of_kind(&value))).count();
        if added == 0 && holders <= 1 {
            return true;
        }
        let times =
            profiles.iter().flat_map(|profile| &profile.values).chain(new).filter(of_kind).map(|value| value.added);
        holds(kind.limit, times)
    })
}

/// Whether values that were added at these times keep the limit.
fn holds(limit: Limit, times: impl Iterator<Item = Timestamp>) -> bool {
    let max = limit.max as usize;
    let Some(window) = limit.window else {
        return times.count() <= max;
    };
    let mut times: Vec<Timestamp> = times.collect();
    times.sort_unstable();
    // More than `max` within one window means that some value and its `max`-th successor lie closer together than that.
    times.windows(max + 1).all(|run| span(run) >= window)
}

fn span(run: &[Timestamp]) -> Duration {
    match run {
        [first, .., last] => last.since(*first),
        [] | [_] => Duration::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(max: u32, window_ms: u64, times: &[i64]) -> bool {
        let limit = Limit { max, window: Some(Duration::from_millis(window_ms)) };
        holds(limit, times.iter().copied().map(Timestamp::from_millis))
    }

    #[test]
    fn a_window_slides_over_the_times_in_any_order() {
        assert!(kept(2, 10, &[0, 5, 10, 15]));
        assert!(!kept(2, 10, &[0, 5, 9]));
        assert!(!kept(2, 10, &[9, 0, 5]));
        assert!(kept(1, 10, &[0, 10, 20]));
        assert!(!kept(1, 10, &[0, 9]));
        assert!(kept(1, 10, &[]));
    }

    #[test]
    fn times_at_the_ends_of_the_range_do_not_overflow() {
        assert!(kept(1, 10, &[i64::MIN, i64::MAX]));
    }
}
