//! The parts of a run, one room each; `make bench ONLY=<part>` runs one of them.

mod criterion;
mod delta;
mod footprint;
mod latency;
mod pipeline;
mod send;
mod state;

use tailwater_tests::kafka::Broker;

use crate::report::Report;

/// What all parts share.
#[derive(Default)]
pub struct Run {
    broker: Option<Broker>,
}

/// A part: its name, what it measures, and how.
pub struct Part {
    pub name: &'static str,
    pub about: &'static str,
    pub measure: fn(&mut Run, &mut Report),
}

pub static PARTS: &[Part] = &[
    Part { name: "core", about: "the winback transform beside a bare V8 loop", measure: criterion::core },
    Part { name: "identity", about: "the identity decision, without Kafka", measure: criterion::identity },
    Part { name: "delta", about: "a table's rows beside a bare kernel read", measure: delta::measure },
    Part { name: "state", about: "the state store beside its disk and its topic", measure: state::measure },
    Part { name: "resolve", about: "the resolve stage beside a plain pipe", measure: pipeline::resolve },
    Part { name: "route", about: "the route stage beside a plain pipe", measure: pipeline::route },
    Part { name: "send", about: "the send stage beside a bare loop of requests", measure: send::measure },
    Part { name: "latency", about: "row to vendor, at 10, 50 and 90 % of the highest rate", measure: latency::rows },
    Part { name: "commit", about: "a table's commit to the vendor", measure: latency::commits },
    Part { name: "footprint", about: "memory and start", measure: footprint::measure },
];

/// How often ours and its limit take turns.
pub const ROUNDS: usize = 3;

// === impl Run ===

impl Run {
    /// The address of the run's Kafka, which starts when it is first asked for and ends with the run.
    pub fn brokers(&mut self) -> String {
        self.broker.get_or_insert_with(Broker::started).brokers()
    }
}
