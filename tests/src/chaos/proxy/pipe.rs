//! One direction of a connection: bytes that were read and are not to be written before their time. Pure: the time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Fault;

/// Bytes held back in one direction: more than the largest request that the product sends (5 MB), so that a client that gives up is noticed
/// behind all that it has sent.
const HELD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The smallest portion of a trickle takes this long, so that a slow one does not keep the machine busy.
const TRICKLE_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(super) struct Pipe {
    chunks: VecDeque<Chunk>,
    held_bytes: usize,
    /// A trickle's next portion.
    next_portion: Option<Instant>,
}

#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    written: usize,
    due: Instant,
}

// === impl Pipe ===

impl Pipe {
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub fn has_room(&self) -> bool {
        self.held_bytes < HELD_BYTES_MAX
    }

    pub fn push(&mut self, bytes: &[u8], fault: Fault, now: Instant) {
        self.held_bytes += bytes.len();
        self.chunks.push_back(Chunk { bytes: bytes.to_vec(), written: 0, due: now + latency(fault) });
    }

    /// Another fault holds from now on, for what is held as well.
    pub fn change(&mut self, fault: Fault, now: Instant) {
        let due = now + latency(fault);
        for chunk in &mut self.chunks {
            chunk.due = chunk.due.min(due);
        }
        self.next_portion = None;
    }

    /// When the next bytes may be written; `None` if there are none, or if nothing passes.
    pub fn due(&self, fault: Fault) -> Option<Instant> {
        let first = self.chunks.front()?;
        match fault {
            Fault::None | Fault::Latency(_) => Some(first.due),
            Fault::Trickle { .. } => Some(first.due.max(self.next_portion.unwrap_or(first.due))),
            Fault::Reset | Fault::HalfClose | Fault::Stall | Fault::Refuse => None,
        }
    }

    /// The bytes that may be written now.
    pub fn portion(&self, fault: Fault) -> &[u8] {
        let Some(first) = self.chunks.front() else { return &[] };
        let rest = first.bytes.get(first.written..).unwrap_or_default();
        let bytes_max = match fault {
            Fault::Trickle { bytes_per_second } => portion_bytes(bytes_per_second),
            _ => rest.len(),
        };
        rest.get(..bytes_max).unwrap_or(rest)
    }

    /// So many bytes of the portion were written.
    pub fn wrote(&mut self, bytes: usize, fault: Fault, now: Instant) {
        let Some(first) = self.chunks.front_mut() else { return };
        first.written += bytes;
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
        if first.written >= first.bytes.len() {
            self.chunks.pop_front();
        }
        if let Fault::Trickle { bytes_per_second } = fault {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            self.next_portion = Some(now + Duration::from_secs(1) * bytes / bytes_per_second.max(1));
        }
    }
}

fn latency(fault: Fault) -> Duration {
    if let Fault::Latency(delay) = fault { delay } else { Duration::ZERO }
}

fn portion_bytes(bytes_per_second: u32) -> usize {
    let portions = 1_000 / TRICKLE_PAUSE.as_millis();
    usize::try_from(u128::from(bytes_per_second) / portions).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_holds_every_chunk_back_and_healing_lets_it_go() {
        let now = Instant::now();
        let fault = Fault::Latency(Duration::from_secs(5));
        let mut pipe = Pipe::default();
        pipe.push(b"ab", fault, now);
        assert_eq!(pipe.due(fault), Some(now + Duration::from_secs(5)));
        pipe.change(Fault::None, now + Duration::from_secs(1));
        assert_eq!(pipe.due(Fault::None), Some(now + Duration::from_secs(1)));
    }

    #[test]
    fn a_trickle_lets_its_bytes_a_second_through() {
        let start = Instant::now();
        let fault = Fault::Trickle { bytes_per_second: 1_000 };
        let mut pipe = Pipe::default();
        pipe.push(&[0; 3_000], fault, start);
        let mut now = start;
        while let Some(due) = pipe.due(fault) {
            now = due;
            let portion = pipe.portion(fault).len();
            pipe.wrote(portion, fault, now);
        }
        let seconds = now.duration_since(start).as_secs_f64();
        assert!((2.8..=3.0).contains(&seconds), "{seconds}");
    }

    #[test]
    fn a_pipe_is_full_at_some_point() {
        let mut pipe = Pipe::default();
        pipe.push(&vec![0; HELD_BYTES_MAX], Fault::Stall, Instant::now());
        assert!(!pipe.has_room());
        assert_eq!(pipe.due(Fault::Stall), None);
        pipe.wrote(1, Fault::None, Instant::now());
        assert!(pipe.has_room());
    }
}
