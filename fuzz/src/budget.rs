//! How long a target runs and with which seed: from the environment, so that the same tests serve every `cargo test` and a long night.

use std::sync::LazyLock;
use std::time::Duration;

/// What a target gets in a plain `cargo test`.
const SECONDS: f64 = 3.0;

/// `TAILWATER_FUZZ_SECONDS`, for each target.
pub(crate) fn duration() -> Duration {
    let seconds = match std::env::var("TAILWATER_FUZZ_SECONDS") {
        Ok(text) => match text.parse() {
            Ok(seconds) if Duration::try_from_secs_f64(seconds).is_ok() => seconds,
            Ok(_) | Err(_) => panic!("TAILWATER_FUZZ_SECONDS is {text:?}; expected a number of seconds"),
        },
        Err(_) => SECONDS,
    };
    Duration::from_secs_f64(seconds)
}

/// `TAILWATER_FUZZ_SEED`, else another one in each process: a suite that tries the same inputs every time finds nothing new.
pub(crate) fn seed() -> u64 {
    static SEED: LazyLock<u64> = LazyLock::new(|| match std::env::var("TAILWATER_FUZZ_SEED") {
        Ok(text) => {
            text.parse().unwrap_or_else(|_| panic!("TAILWATER_FUZZ_SEED is {text:?}; expected a number below 2^64"))
        }
        Err(_) => rand::random(),
    });
    *SEED
}
