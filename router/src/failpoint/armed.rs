//! What the environment has named, and what happens there.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::runtime::{Handle, RuntimeFlavor};
use tracing::{error, warn};

use super::{PLACES, Unusable, clock};
use crate::config::Period;

const VARIABLE: &str = "TAILWATER_FAILPOINTS";
const LOG_VARIABLE: &str = "TAILWATER_FAILPOINTS_LOG";

/// How the name of a planted bug begins.
const BUG: &str = "bug.";

/// What was named, for the life of the process. Empty until [`prepare`] was called.
static ARMED: OnceLock<Armed> = OnceLock::new();

struct Armed {
    points: Vec<Point>,
    log: Option<PathBuf>,
}

#[derive(Debug)]
struct Point {
    name: &'static str,
    action: Action,
    /// The time at which it acts, counted from one.
    turn: u64,
    reached: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Crash,
    Stall(Duration),
    Bug,
}

/// Reads the environment, once, at the start of `tailwater run`.
///
/// # Errors
/// A name or an action that does not exist, or a clock file that cannot be read.
pub fn prepare() -> Result<(), Unusable> {
    let points = parse(&std::env::var(VARIABLE).unwrap_or_default())?;
    let log = std::env::var_os(LOG_VARIABLE).map(PathBuf::from);
    clock::prepare()?;
    warn!("failpoints are compiled into this binary; it is for crash tests and for nothing else");
    for point in &points {
        match point.action {
            Action::Bug => warn!("A BUG IS PLANTED: {}; this process breaks what Tailwater promises", point.name),
            Action::Crash | Action::Stall(_) => {
                warn!(failpoint = point.name, action = ?point.action, turn = point.turn, "a failpoint is armed");
            }
        }
    }
    ARMED.set(Armed { points, log }).map_err(|_| Unusable("failpoints were prepared twice".into()))
}

/// A failpoint: acts if it was named. It waits for nothing: what is safe at this place in production is safe here.
pub fn hit(name: &'static str) {
    let Some(armed) = ARMED.get() else { return };
    for point in armed.points.iter().filter(|point| point.name == name && point.action != Action::Bug) {
        if point.is_its_turn() {
            armed.act(point);
        }
    }
}

/// Whether this failpoint was named and has not acted yet.
pub fn is_armed(name: &'static str) -> bool {
    ARMED.get().is_some_and(|armed| {
        armed.points.iter().any(|point| point.name == name && point.reached.load(Ordering::Relaxed) < point.turn)
    })
}

/// Whether this bug is in.
pub fn bug(name: &'static str) -> bool {
    let Some(armed) = ARMED.get() else { return false };
    let Some(point) = armed.points.iter().find(|point| point.name == name && point.action == Action::Bug) else {
        return false;
    };
    if point.is_its_turn() {
        armed.note(point);
    }
    true
}

// === impl Armed ===

impl Armed {
    fn act(&self, point: &Point) {
        self.note(point);
        match point.action {
            Action::Crash => {
                // As `kill -9` would: nothing is flushed, closed or told to anybody.
                if let Err(error) = signal_hook::low_level::raise(signal_hook::consts::SIGKILL) {
                    error!(failpoint = point.name, "the process could not kill itself: {error}");
                }
            }
            Action::Stall(wait) => stall(wait),
            Action::Bug => {}
        }
    }

    /// Proves that the point acted: what was handed to the system is there even when the process is not any more.
    fn note(&self, point: &Point) {
        warn!(failpoint = point.name, action = point.action.name(), "a failpoint acts");
        let Some(path) = &self.log else { return };
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let line = format!("{} {} {} {time}\n", point.name, point.action.name(), std::process::id());
        // One write of a whole line: processes that share the file do not tear each other's lines.
        let written = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        if let Err(error) = written {
            error!(failpoint = point.name, "{LOG_VARIABLE} could not be written: {error}");
        }
    }
}

/// Stands still, without the other tasks of a worker of the runtime.
fn stall(wait: Duration) {
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(|| std::thread::sleep(wait));
        }
        Ok(_) | Err(_) => std::thread::sleep(wait),
    }
}

// === impl Point ===

impl Point {
    /// Counts a visit; true exactly once.
    fn is_its_turn(&self) -> bool {
        self.reached.fetch_add(1, Ordering::Relaxed) + 1 == self.turn
    }
}

impl Action {
    const fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Stall(_) => "stall",
            Self::Bug => "bug",
        }
    }
}

fn parse(text: &str) -> Result<Vec<Point>, Unusable> {
    text.split(';').map(str::trim).filter(|entry| !entry.is_empty()).map(parse_point).collect()
}

fn parse_point(entry: &str) -> Result<Point, Unusable> {
    let unusable = |what: String| Unusable(format!("{VARIABLE}: `{entry}` {what}"));
    let (name, action) = entry.split_once('=').ok_or_else(|| unusable("is no `name=action`".into()))?;
    let Some(place) = PLACES.iter().find(|place| place.name == name.trim()) else {
        let names: Vec<&str> = PLACES.iter().map(|place| place.name).collect();
        return Err(unusable(format!("names no failpoint; there are {}", names.join(", "))));
    };
    let (turn, action) = match action.trim().split_once(':') {
        Some((turn, action)) if turn.bytes().all(|byte| byte.is_ascii_digit()) => {
            let turn = turn.parse().ok().filter(|turn| *turn > 0);
            (turn.ok_or_else(|| unusable("counts from 1".into()))?, action)
        }
        Some(_) | None => (1, action.trim()),
    };
    let is_bug = place.name.starts_with(BUG);
    let action = match (action, action.strip_prefix("stall:").and_then(Period::parse)) {
        ("crash", _) if !is_bug => Action::Crash,
        (_, Some(Period(wait))) if !is_bug => Action::Stall(wait),
        ("bug", _) if is_bug && turn == 1 => Action::Bug,
        _ if is_bug => return Err(unusable("expected `bug`".into())),
        _ => return Err(unusable("expected `crash`, `3:crash`, `stall:8s` or `3:stall:8s`".into())),
    };
    Ok(Point { name: place.name, action, turn, reached: AtomicU64::new(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_read_with_their_turn() {
        let points = parse(" send.produced=crash; send.asked=3:stall:250ms ;bug.dedupe_off=bug;").unwrap();
        let read: Vec<_> = points.iter().map(|point| (point.name, point.action, point.turn)).collect();
        assert_eq!(
            read,
            [
                ("send.produced", Action::Crash, 1),
                ("send.asked", Action::Stall(Duration::from_millis(250)), 3),
                ("bug.dedupe_off", Action::Bug, 1),
            ]
        );
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn what_cannot_act_is_refused_with_what_could() {
        let refused = |text: &str| parse(text).unwrap_err().to_string();
        let unknown = refused("send.prodcued=crash");
        assert!(PLACES.iter().all(|place| unknown.contains(place.name)), "{unknown}");
        for (text, told) in [
            ("send.produced", "name=action"),
            ("send.produced=explode", "`crash`"),
            ("send.produced=0:crash", "counts from 1"),
            ("send.produced=stall", "`stall:8s`"),
            ("send.produced=bug", "`crash`"),
            ("bug.dedupe_off=crash", "`bug`"),
        ] {
            assert!(refused(text).contains(told), "{text}: {}", refused(text));
        }
    }

    #[test]
    fn a_point_acts_once_in_its_turn_and_leaves_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let armed = Armed { points: parse("send.asked=3:stall:1ms").unwrap(), log: Some(log.clone()) };
        for _ in 0..5 {
            if armed.points[0].is_its_turn() {
                armed.act(&armed.points[0]);
            }
        }
        let text = std::fs::read_to_string(log).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(words[..3], ["send.asked", "stall", &std::process::id().to_string()]);
        assert_eq!((words.len(), text.lines().count()), (4, 1));
    }
}
