//! Decides what the failures of a route mean: single bad rows, or a change that makes many rows fail alike.
//!
//! Nothing is dead-lettered until a window is judged, because the first failing row of a broken transform looks exactly like one bad
//! row, and a hundred thousand dead letters cannot be called back. A window opens with the first failure and is judged after
//! [`ROWS`] rows or [`TIME`]. If most of its rows fail with one signature, the route pauses with one alert; otherwise the failed
//! rows are dead-lettered one by one. A `missing_column` needs no window: a column that is gone is gone for every row.
//!
//! A single failure is judged sooner when enough rows after it have succeeded: then the fault is the row's own, and what waits behind the row
//! need not wait for the window.
//!
//! A source that trickles would never fill a window; so windows in which every row failed alike are counted on into the next
//! one.
//!
//! Pure: rows and time come from the caller, and the same failures in the same order always give the same verdict.

use std::fmt;
use std::time::Duration;

use crate::Timestamp;
use crate::code::{Code, MISSING_COLUMN};

/// Rows after which a window is judged.
pub const ROWS: u64 = 100;

/// The time after which a window is judged, however few rows it has: bad rows must not wait for ever on a quiet source.
pub const TIME: Duration = Duration::from_secs(10);

/// Rows that have to fail alike before it is called many. A handful of bad rows that happen to arrive together is what dead-letter topics
/// are for; ten of one kind are a pattern, and ten dead letters are easily replayed if it was one after all.
pub const FAILURES_ALIKE_MIN: u64 = 10;

/// The share of a window's rows, in percent, that has to fail alike. At half, more goes wrong than right: waiting for a person costs
/// less than going on. Below it the good rows are worth more than the pause.
pub const FAILURES_ALIKE_PERCENT: u64 = 50;

/// Rows that have to succeed after a single failure for it to be judged before the window is over, and the time that it takes at least. Of
/// a route that fails for every other row, ten good ones in a row are one in a thousand.
pub const GOOD_AFTER_MIN: u64 = FAILURES_ALIKE_MIN;
pub const TIME_MIN: Duration = Duration::from_secs(1);

/// Signatures that one window tells apart. Messages that are all different (a value quoted without quotation marks) are counted under
/// their code alone beyond this.
pub const SIGNATURES_MAX: usize = 64;

/// Bytes of a message's shape.
const SHAPE_BYTES_MAX: usize = 160;

/// What makes two failures alike: the code, the column that it is about, and the message without its numbers and quoted values.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signature {
    pub code: Code,
    pub column: Option<String>,
    pub shape: String,
}

/// What a window's failures mean.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is too early to tell; the failed rows stay where they are.
    Wait,
    /// Nothing common: each failed row ends as a dead letter with its own reason.
    DeadLetter,
    /// Many rows fail alike: the route stops, and what failed is run again first after the cure.
    Pause(Pattern),
}

/// What many rows have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    pub signature: Signature,
    /// Rows that failed with it.
    pub failed: u64,
    /// Rows that ran, good ones included.
    pub rows: u64,
}

/// The rows of one route since its first failure.
#[derive(Debug, Clone, Default)]
pub struct Window {
    opened: Option<Timestamp>,
    rows: u64,
    failed: u64,
    /// Rows that succeeded after the last failure.
    good_after: u64,
    /// By signature, in the order of their first appearance.
    alike: Vec<(Signature, u64)>,
    /// Rows of earlier windows in which every single row failed with this signature.
    streak: Option<(Signature, u64)>,
}

// === impl Signature ===

impl Signature {
    /// `column` is the column that the failure is about, where it is known.
    pub fn new(code: Code, column: Option<&str>, message: &str) -> Self {
        Self { code, column: column.map(str::to_owned), shape: shape(message) }
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(column) = &self.column {
            write!(f, " (column {column})")?;
        }
        if self.shape.is_empty() { Ok(()) } else { write!(f, ": {}", self.shape) }
    }
}

/// The message with every number as `#` and every quoted text as `"…"`, cut to a fixed length.
fn shape(message: &str) -> String {
    let mut shape = String::with_capacity(message.len().min(SHAPE_BYTES_MAX));
    let mut letters = message.chars().peekable();
    while let Some(letter) = letters.next() {
        if shape.len() + 8 > SHAPE_BYTES_MAX {
            shape.push('…');
            break;
        }
        match letter {
            '"' | '`' | '\'' => {
                // An apostrophe within a word opens no quotation.
                let within_word = letter == '\'' && shape.ends_with(char::is_alphanumeric);
                let closes = letters.clone().take_while(|other| *other != '\n').any(|other| other == letter);
                if within_word || !closes {
                    shape.push(letter);
                } else {
                    shape.push_str("\"…\"");
                    letters.by_ref().find(|other| *other == letter);
                }
            }
            '0'..='9' => {
                shape.push('#');
                while letters.next_if(|other| other.is_ascii_digit() || matches!(other, '.' | ',' | '_')).is_some() {}
            }
            other => shape.push(other),
        }
    }
    shape
}

// === impl Window ===

impl Window {
    /// Notes rows that succeeded. They count only while the window is open.
    pub fn succeeded(&mut self, rows: u64) {
        if rows > 0 {
            self.streak = None;
        }
        if self.opened.is_some() {
            self.rows = self.rows.saturating_add(rows);
            self.good_after = self.good_after.saturating_add(rows);
        }
    }

    /// Notes rows that had succeeded before the first failure. They count only while the window is open.
    pub fn preceded_by(&mut self, rows: u64) {
        let good_after = self.good_after;
        self.succeeded(rows);
        self.good_after = good_after;
    }

    /// Notes a row that failed; the first one opens the window.
    pub fn failed(&mut self, signature: Signature, now: Timestamp) {
        self.opened.get_or_insert(now);
        self.rows = self.rows.saturating_add(1);
        self.failed = self.failed.saturating_add(1);
        self.good_after = 0;
        if let Some((_, count)) = self.alike.iter_mut().find(|(other, _)| *other == signature) {
            *count = count.saturating_add(1);
        } else if self.alike.len() < SIGNATURES_MAX {
            self.alike.push((signature, 1));
        } else {
            let bare = Signature { code: signature.code, column: None, shape: String::new() };
            match self.alike.iter_mut().find(|(other, _)| *other == bare) {
                Some((_, count)) => *count = count.saturating_add(1),
                // One bare signature per code at most, so the list stays bounded by the codes there are.
                None => self.alike.push((bare, 1)),
            }
        }
    }

    /// Judges the window. After `DeadLetter` or `Pause` the caller acts on it and then calls [`Window::close`].
    pub fn judge(&self, now: Timestamp) -> Verdict {
        let Some(opened) = self.opened else { return Verdict::Wait };
        if let Some((signature, failed)) = self.alike.iter().find(|(signature, _)| signature.code == MISSING_COLUMN) {
            return Verdict::Pause(Pattern { signature: signature.clone(), failed: *failed, rows: self.rows });
        }
        if self.is_single() && now.since(opened) >= TIME_MIN {
            return Verdict::DeadLetter;
        }
        if self.rows < ROWS && now.since(opened) < TIME {
            return Verdict::Wait;
        }
        let carried = self.carried();
        let rows = self.rows.saturating_add(carried.map_or(0, |(_, count)| *count));
        for (signature, count) in &self.alike {
            let earlier = carried.map_or(0, |(streak, count)| if streak == signature { *count } else { 0 });
            let failed = count.saturating_add(earlier);
            let many = failed >= FAILURES_ALIKE_MIN;
            let most = failed.saturating_mul(100) >= rows.saturating_mul(FAILURES_ALIKE_PERCENT);
            if many && most {
                return Verdict::Pause(Pattern { signature: signature.clone(), failed, rows });
            }
        }
        Verdict::DeadLetter
    }

    /// When the window is judged at the latest; `None` while nothing has failed.
    pub fn ends_at(&self) -> Option<Timestamp> {
        let time = if self.is_single() { TIME_MIN } else { TIME };
        self.opened.map(|opened| opened.saturating_add(time))
    }

    /// Whether one row failed, of a route that works.
    const fn is_single(&self) -> bool {
        self.failed == 1 && self.good_after >= GOOD_AFTER_MIN && self.streak.is_none()
    }

    /// Whether a failure waits for its verdict.
    pub const fn is_open(&self) -> bool {
        self.opened.is_some()
    }

    /// Begins anew after the failed rows were dead-lettered.
    pub fn close(&mut self) {
        let streak = match self.alike.as_slice() {
            [(signature, count)] if *count == self.rows => {
                let earlier = self.carried().map_or(0, |(streak, count)| if streak == signature { *count } else { 0 });
                Some((signature.clone(), count.saturating_add(earlier)))
            }
            _ => None,
        };
        *self = Self { streak, ..Self::default() };
    }

    /// Forgets everything: the route goes on after a pause, or with another transform.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    fn carried(&self) -> Option<&(Signature, u64)> {
        self.streak.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::{TRANSFORM_THREW, TRANSFORM_TIMEOUT};

    const START: Timestamp = Timestamp::from_millis(0);
    const END: Timestamp = Timestamp::from_millis(10_000);

    fn threw(message: &str) -> Signature {
        Signature::new(TRANSFORM_THREW, None, message)
    }

    #[test]
    fn nothing_is_judged_before_a_hundred_rows_or_ten_seconds() {
        let mut window = Window::default();
        for _ in 0..99 {
            window.failed(threw("boom"), START);
        }
        assert_eq!(window.judge(Timestamp::from_millis(9_999)), Verdict::Wait);
        window.succeeded(1);
        assert!(matches!(window.judge(START), Verdict::Pause(_)));
    }

    #[test]
    fn a_missing_column_pauses_at_its_first_row() {
        let mut window = Window::default();
        window.succeeded(500);
        window.failed(Signature::new(MISSING_COLUMN, Some("ltv_predicted"), "gone"), START);
        let Verdict::Pause(pattern) = window.judge(START) else { panic!("no pause") };
        assert_eq!((pattern.failed, pattern.rows), (1, 1));
        assert_eq!(pattern.signature.column.as_deref(), Some("ltv_predicted"));
    }

    #[test]
    fn single_bad_rows_are_dead_lettered() {
        let mut window = Window::default();
        window.failed(threw("boom"), START);
        window.succeeded(99);
        assert_eq!(window.judge(START), Verdict::DeadLetter);
    }

    // Issue 10: one bad row held up the person's next record for ten seconds.
    #[test]
    fn a_single_failure_is_judged_early_when_the_rows_after_it_succeed() {
        let early = Timestamp::from_millis(1_000);
        let mut window = Window::default();
        window.failed(threw("boom"), START);
        window.preceded_by(50);
        window.succeeded(9);
        assert_eq!(window.judge(early), Verdict::Wait, "too few after it");
        window.succeeded(1);
        assert_eq!(window.ends_at(), Some(early));
        assert_eq!(window.judge(Timestamp::from_millis(999)), Verdict::Wait, "too early");
        assert_eq!(window.judge(early), Verdict::DeadLetter);
        window.failed(threw("boom"), START);
        window.succeeded(20);
        assert_eq!(window.judge(early), Verdict::Wait, "no single one");
        assert_eq!(window.ends_at(), Some(END));
    }

    #[test]
    fn the_bounds_of_many_and_most() {
        for (failures, rows, pauses) in
            [(49, 100, false), (50, 100, true), (9, 10, false), (10, 10, true), (10, 20, true), (10, 21, false)]
        {
            let mut window = Window::default();
            for _ in 0..failures {
                window.failed(threw("boom"), START);
            }
            window.succeeded(rows - failures);
            assert_eq!(matches!(window.judge(END), Verdict::Pause(_)), pauses, "{failures} of {rows}");
        }
    }

    #[test]
    fn rows_that_fail_in_different_ways_are_no_pattern() {
        let mut window = Window::default();
        for number in 0..60 {
            window.failed(threw(["boom", "bang", "crash"][number % 3]), START);
            window.failed(Signature::new(TRANSFORM_TIMEOUT, None, "slow"), START);
        }
        // Half of the rows are time-outs: that is a pattern; a third is none.
        assert!(matches!(window.judge(END), Verdict::Pause(pattern) if pattern.signature.code == TRANSFORM_TIMEOUT));
        let mut window = Window::default();
        for number in 0..99 {
            window.failed(threw(["boom", "bang", "crash"][number % 3]), START);
        }
        assert_eq!(window.judge(END), Verdict::DeadLetter);
    }

    #[test]
    fn messages_that_differ_in_their_values_are_alike() {
        assert_eq!(
            threw("row 17: cannot read 'a@example.com' of null"),
            threw("row 9,018.5: cannot read 'b@example.org' of null")
        );
        assert_ne!(threw("cannot read x"), threw("cannot read y"));
        assert_eq!(threw("can't parse \"12\" as it isn't a date").shape, "can't parse \"…\" as it isn't a date");
        assert_eq!(threw("an 'open end").shape, "an 'open end");
    }

    #[test]
    fn a_trickle_that_always_fails_alike_pauses_in_the_end() {
        let mut window = Window::default();
        let mut now = START;
        let mut dead_lettered = 0;
        loop {
            for _ in 0..3 {
                window.failed(threw("boom"), now);
            }
            now = now.saturating_add(TIME);
            match window.judge(now) {
                Verdict::DeadLetter => dead_lettered += 3,
                Verdict::Pause(pattern) => {
                    assert_eq!((dead_lettered, pattern.failed), (9, 12));
                    break;
                }
                Verdict::Wait => panic!("the window has ended"),
            }
            window.close();
        }
    }

    #[test]
    fn a_success_between_two_windows_ends_a_streak() {
        let mut window = Window::default();
        for _ in 0..20 {
            window.failed(threw("boom"), START);
            assert_eq!(window.judge(END), Verdict::DeadLetter);
            window.close();
            window.succeeded(1);
        }
    }

    #[test]
    fn any_number_of_different_messages_is_bounded_and_counts_by_code() {
        let mut window = Window::default();
        for number in 0..5_000_u32 {
            let word: String = (0..4).map(|place| char::from(b'a' + ((number >> (4 * place)) & 15) as u8)).collect();
            window.failed(threw(&format!("no such customer {word}")), START);
        }
        assert!(window.alike.len() <= SIGNATURES_MAX + 1);
        assert!(matches!(window.judge(START), Verdict::Pause(pattern) if pattern.signature.code == TRANSFORM_THREW));
    }

    #[test]
    fn a_shape_is_bounded_whatever_the_message() {
        assert!(shape(&"é\"x\"".repeat(10_000)).len() <= SHAPE_BYTES_MAX);
        assert!(shape(&"1".repeat(10_000)).len() <= SHAPE_BYTES_MAX);
        assert_eq!(shape(""), "");
    }
}
