//! One step of a table's reader, on a thread of its own. To open a table and to pair a rewrite of millions of rows takes minutes; meanwhile
//! the lease is looked after, the process shows that it lives, and what is read is reported.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tailwater_delta::{Cursor, Options, Progress, Reader, Step};

use crate::kafka;
use crate::kafka::lease::{Change, Lease};
use crate::runtime::supervisor::beside;
use crate::stages::IDLE_WAIT;

/// How long a step may go without reading a row or a file before it no longer counts as alive. The kernel reads a log without telling
/// how far it is, and a large one takes minutes.
const SILENCE_MAX: Duration = Duration::from_secs(30 * 60);

/// How often a long step is reported, and after how long first.
const REPORT_EVERY: Duration = Duration::from_secs(30);

/// What a step needs from whoever waits for it.
pub struct Watch<'a> {
    pub lease: &'a mut Lease,
    pub alive: &'a dyn Fn(),
    pub stopping: &'a dyn Fn() -> bool,
    /// Told how long the step has taken, now and then.
    pub report: &'a dyn Fn(Duration),
}

/// How a step ended.
pub enum Ended {
    Step(Box<Reader>, Step),
    Failed(tailwater_delta::Error),
    /// The lease is gone, or the process stops.
    Stopped,
}

/// Takes the next step of the reader, or opens one first.
///
/// # Errors
/// The lease cannot be looked after.
pub fn step(
    open: Option<Reader>,
    options: Options,
    cursor: Option<Cursor>,
    watch: &mut Watch<'_>,
) -> Result<Ended, kafka::Error> {
    let progress = options.progress.clone();
    let table = options.table.clone();
    let work = move || {
        let mut reader = match open {
            Some(reader) => reader,
            None => Reader::open(options, cursor)?,
        };
        let step = reader.next()?;
        Ok((reader, step))
    };
    // It ends with the step, or at once when it was stopped.
    let (result, watched) = beside("table", work, |over| wait(over, &progress, watch));
    if watched? == Change::Lost {
        return Ok(Ended::Stopped);
    }
    let result = result.unwrap_or_else(|what| {
        Err(tailwater_delta::Error::Read {
            table,
            version: None,
            doing: "read the changes",
            detail: format!("the thread that reads it: {what}"),
            transient: false,
        })
    });
    Ok(match result {
        Ok((reader, step)) => Ended::Step(Box::new(reader), step),
        Err(tailwater_delta::Error::Stopped { .. }) => Ended::Stopped,
        Err(error) => Ended::Failed(error),
    })
}

/// Waits for the end of the step. Tells it to stop when nobody needs it any more.
fn wait(outcome: &Receiver<()>, progress: &Progress, watch: &mut Watch<'_>) -> Result<Change, kafka::Error> {
    let began = Instant::now();
    let (mut read, mut since, mut reported) = ((0, 0), began, began);
    let mut lease = Change::None;
    while let Err(RecvTimeoutError::Timeout) = outcome.recv_timeout(IDLE_WAIT) {
        let now = Instant::now();
        let counted = (progress.files(), progress.rows());
        if counted != read {
            (read, since) = (counted, now);
        }
        if now.duration_since(since) < SILENCE_MAX {
            (watch.alive)();
        }
        if (watch.stopping)() || lease == Change::Lost {
            progress.stop();
            continue;
        }
        if now.duration_since(reported) >= REPORT_EVERY {
            reported = now;
            (watch.report)(now.duration_since(began));
        }
        match watch.lease.poll(Duration::ZERO) {
            Ok(Change::Lost) => lease = Change::Lost,
            Ok(Change::None | Change::Gained) => {}
            Err(error) => {
                progress.stop();
                return Err(error);
            }
        }
    }
    Ok(lease)
}
