//! Where and when something was measured, without a word about whose machine it is.

use std::fs;
use std::process::Command;

use serde::Serialize;

/// What a figure depends on.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    pub cores: usize,
    pub processor: String,
    pub memory_gib: f64,
    /// The commit that was measured; `+` when the checkout had changes.
    pub commit: String,
    /// In UTC, to the minute.
    pub date: String,
}

// === impl Machine ===

impl Machine {
    pub fn here() -> Self {
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib =
            memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
        let changed = !git(&["status", "--porcelain", "--untracked-files=no"]).is_empty();
        Self {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            processor: model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned()),
            memory_gib: kib.map_or(0.0, |kib: f64| (kib / 1024.0 / 1024.0 * 10.0).round() / 10.0),
            commit: format!("{}{}", git(&["rev-parse", "--short=12", "HEAD"]), if changed { "+" } else { "" }),
            date: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M").to_string(),
        }
    }
}

/// The load average of the last minute: how much else went on.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(f64::NAN)
}

fn git(arguments: &[&str]) -> String {
    let output = Command::new("git").args(arguments).current_dir(tailwater_tests::root()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
