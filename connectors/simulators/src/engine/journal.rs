//! Everything that was received, in order: for tests, for the control plane and, if asked for, on disk as JSON lines.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

/// Bytes of bodies kept in memory.
const BODY_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Bytes written to the file; afterwards requests are counted only.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// A request and how it was answered.
#[derive(Debug, Clone, Serialize)]
pub struct Received {
    /// Counts from 1; without gaps.
    pub number: u64,
    /// When it was read completely: `2026-09-04T13:39:37.131026+00:00`.
    pub time: String,
    pub method: String,
    pub path: String,
    /// Decoded, in the order of the address.
    pub query: Vec<(String, String)>,
    /// The headers that the vendor looks at, credentials excepted.
    pub headers: Vec<(String, String)>,
    /// JSON if it is JSON, otherwise text.
    pub body: Value,
    pub body_bytes: usize,
    /// The status of the answer; 0 where the connection was broken instead.
    pub status: u16,
    /// A prescription decided about the answer.
    pub prescribed: bool,
    /// What the vendor accepted and dropped without saying so, where the simulator knows it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
    #[serde(skip)]
    pub(super) endpoint: &'static str,
}

/// Counts since the start or the last reset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    pub requests: u64,
    /// endpoint → status → requests; status 0 is a broken connection.
    pub by_endpoint: BTreeMap<String, BTreeMap<u16, u64>>,
    /// 429s that the limits gave, prescribed ones not among them.
    pub throttled: u64,
    /// Requests to paths that are not simulated.
    pub unknown: u64,
    pub prescribed: u64,
    /// Requests that are no longer in memory.
    pub dropped: u64,
    /// Requests that could not be written to the file, or no longer fitted into it.
    pub unwritten: u64,
    pub profiles: u64,
    pub events: u64,
    pub events_repeated: u64,
    pub objects: u64,
    /// Items that were accepted and dropped without a word.
    pub dropped_silently: u64,
}

#[derive(Debug)]
pub(super) struct Journal {
    /// Requests kept in memory; older ones are dropped and counted.
    requests_max: usize,
    received: VecDeque<Received>,
    body_bytes: usize,
    stats: Stats,
    number: u64,
    file: Option<(File, u64)>,
}

pub(super) const UNKNOWN: &str = "unknown";

// === impl Journal ===

impl Journal {
    pub fn new(requests_max: usize) -> Self {
        Self { requests_max, received: VecDeque::new(), body_bytes: 0, stats: Stats::default(), number: 0, file: None }
    }

    /// The number of the request that comes next.
    pub fn next(&self) -> u64 {
        self.number + 1
    }

    /// Whether anything is kept of a body: reading one that nobody looks at again is the dearest part of a request.
    pub fn keeps_bodies(&self) -> bool {
        self.requests_max > 0 || self.file.is_some()
    }

    /// Appends to the file from now on.
    pub fn persist(&mut self, path: &Path) -> std::io::Result<()> {
        let file = File::options().create(true).append(true).open(path)?;
        let length = file.metadata()?.len();
        self.file = Some((file, length));
        Ok(())
    }

    /// Keeps a request; gives it its number.
    pub fn add(&mut self, mut received: Received) {
        self.number += 1;
        received.number = self.number;
        self.stats.requests += 1;
        *self.stats.by_endpoint.entry(received.endpoint.to_owned()).or_default().entry(received.status).or_default() +=
            1;
        if received.endpoint == UNKNOWN {
            self.stats.unknown += 1;
        }
        if received.prescribed {
            self.stats.prescribed += 1;
        } else if received.status == 429 {
            self.stats.throttled += 1;
        }
        self.stats.dropped_silently += received.dropped.len() as u64;
        self.write(&received);
        self.body_bytes += received.body_bytes;
        self.received.push_back(received);
        while self.received.len() > self.requests_max || self.body_bytes > BODY_BYTES_MAX {
            let Some(oldest) = self.received.pop_front() else { break };
            self.body_bytes -= oldest.body_bytes;
            self.stats.dropped += 1;
        }
    }

    fn write(&mut self, received: &Received) {
        let Some((file, length)) = &mut self.file else { return };
        let result = match serde_json::to_vec(received) {
            Ok(line) if *length + line.len() as u64 >= FILE_BYTES_MAX => {
                Err(std::io::Error::other("the file has reached its size limit"))
            }
            Ok(mut line) => {
                line.push(b'\n');
                *length += line.len() as u64;
                file.write_all(&line)
            }
            Err(error) => Err(error.into()),
        };
        if let Err(error) = result {
            if self.stats.unwritten == 0 {
                tracing::error!(%error, "a request could not be written to the file; further ones are counted in the statistics");
            }
            self.stats.unwritten += 1;
        }
    }

    pub fn received(&self) -> impl Iterator<Item = &Received> {
        self.received.iter()
    }

    pub fn stats(&self) -> Stats {
        self.stats.clone()
    }

    /// Forgets what was received; the file stays as it is, and numbers go on.
    pub fn clear(&mut self) {
        self.received.clear();
        self.body_bytes = 0;
        self.stats = Stats::default();
    }
}
