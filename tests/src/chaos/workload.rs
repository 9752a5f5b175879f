//! What the chaos run writes: rows of a thousand people with several devices each, merges among them, and what each row means for the
//! checkers.
//!
//! Everything is drawn from one seed, so that a run can be repeated. Nothing here speaks to Kafka: [`super::feed`] writes the rows.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::check::{ComponentEvent, Produced, Source};

/// The checkers know a person's identifiers by small numbers.
const DEVICES_MAX: u32 = ComponentEvent::NODES_MAX - 1;

/// A row for a topic, or for a table.
#[derive(Debug, Clone)]
pub struct Row {
    pub source: Source,
    pub person: u32,
    pub seq: u32,
    /// All rows of a person lie in one partition.
    pub key: String,
    pub value: String,
    /// How often it is written, one right behind the other, as by a producer that did not get its acknowledgement.
    pub copies: u32,
}

/// Draws rows.
#[derive(Debug)]
pub struct Workload {
    random: StdRng,
    people: Vec<Person>,
    produced: Vec<Produced>,
    copies: u64,
}

#[derive(Debug, Default)]
struct Person {
    activities: u32,
    scores: u32,
    /// An email has been seen with the customer's id: from then on the vendor can be told.
    has_email: bool,
    devices: u32,
    /// Devices that nobody knows the owner of, with the rows that name them alone.
    unlinked: Vec<Device>,
    /// Rows that wait for an email.
    waiting: Vec<(Source, u32)>,
}

#[derive(Debug)]
struct Device {
    number: u32,
    waiting: Vec<u32>,
}

/// Whom a row names.
struct Named {
    customer: bool,
    device: Option<u32>,
    email: bool,
}

// === impl Workload ===

impl Workload {
    pub fn new(seed: u64, people: u32) -> Self {
        let people = (0..people).map(|_| Person::default()).collect();
        Self { random: StdRng::seed_from_u64(seed), people, produced: Vec::new(), copies: 0 }
    }

    /// The next row of anybody.
    pub fn draw(&mut self) -> Row {
        let count = u32::try_from(self.people.len()).unwrap_or(u32::MAX);
        let number = self.random.random_range(0..count);
        if self.random.random_bool(0.25) { self.score(number) } else { self.activity(number) }
    }

    /// The rows that end the run: most of what waits is linked, so that little is left held.
    pub fn closing(&mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        for number in 0..u32::try_from(self.people.len()).unwrap_or(u32::MAX) {
            if !self.person(number).has_email {
                rows.push(self.row(number, &Named { customer: true, device: None, email: true }));
            }
            let unlinked: Vec<u32> = self.person(number).unlinked.iter().map(|device| device.number).collect();
            for device in unlinked {
                if self.random.random_bool(0.9) {
                    rows.push(self.row(number, &Named { customer: true, device: Some(device), email: false }));
                }
            }
            rows.push(self.score(number));
        }
        rows
    }

    /// Everything that was drawn, in order.
    pub fn produced(&self) -> &[Produced] {
        &self.produced
    }

    /// Records that were written beyond the first copy.
    pub const fn copies(&self) -> u64 {
        self.copies
    }

    /// The rows that must still be held if no further row is written: those of devices without a customer, and of customers
    /// without an email.
    pub fn held(&self) -> HashSet<(Source, u32, u32)> {
        let mut held = HashSet::new();
        for (number, person) in (0_u32..).zip(&self.people) {
            held.extend(person.waiting.iter().map(|(source, seq)| (*source, number, *seq)));
            for device in &person.unlinked {
                held.extend(device.waiting.iter().map(|seq| (Source::Activity, number, *seq)));
            }
        }
        held
    }

    fn person(&mut self, number: u32) -> &mut Person {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        &mut self.people[index]
    }

    fn activity(&mut self, number: u32) -> Row {
        let draw: f64 = self.random.random();
        let choice: f64 = self.random.random();
        let person = self.person(number);
        let pick = |count: usize| super::place(choice, count);
        let open = person.unlinked.len();
        let named = if !person.has_email && draw < 0.3 {
            Named { customer: true, device: None, email: true }
        } else if draw < 0.36 && person.devices < DEVICES_MAX {
            // A device that nobody has seen before.
            person.devices += 1;
            let device = person.devices;
            person.unlinked.push(Device { number: device, waiting: Vec::new() });
            Named { customer: false, device: Some(device), email: false }
        } else if draw < 0.56 && open > 0 {
            Named { customer: false, device: Some(person.unlinked[pick(open)].number), email: false }
        } else if draw < 0.64 && open > 0 {
            // Signing in: the device's profile and the customer's become one.
            Named { customer: true, device: Some(person.unlinked[pick(open)].number), email: false }
        } else if draw < 0.80 && person.devices > 0 {
            Named {
                customer: false,
                device: Some(1 + u32::try_from(pick(person.devices as usize)).unwrap_or(0)),
                email: false,
            }
        } else {
            Named { customer: true, device: None, email: draw > 0.95 }
        };
        self.row(number, &named)
    }

    fn row(&mut self, number: u32, named: &Named) -> Row {
        let tracks = self.random.random_bool(0.2);
        let copies = if self.random.random_bool(0.02) { 2 } else { 1 };
        let person = self.person(number);
        person.activities += 1;
        let seq = person.activities;
        let mut nodes: Vec<u32> = named.device.into_iter().collect();
        if named.customer {
            nodes.push(ComponentEvent::CUSTOMER);
            if let Some(device) = named.device
                && let Some(at) = person.unlinked.iter().position(|open| open.number == device)
            {
                let device = person.unlinked.swap_remove(at);
                person.waiting.extend(device.waiting.into_iter().map(|seq| (Source::Activity, seq)));
            }
            if named.email {
                person.has_email = true;
                person.waiting.clear();
            }
        }
        let unlinked = named
            .device
            .filter(|_| !named.customer)
            .and_then(|device| person.unlinked.iter_mut().find(|open| open.number == device));
        if let Some(device) = unlinked {
            device.waiting.push(seq);
        } else if !person.has_email {
            person.waiting.push((Source::Activity, seq));
        } else {
            // Whoever has an email waits for nothing: what a device has brought along goes on too.
            person.waiting.clear();
        }
        self.produced.push(Produced {
            person: number,
            seq,
            source: Source::Activity,
            component_event: ComponentEvent::of(&nodes),
            repeated: copies > 1,
            tracks,
        });
        self.copies += u64::from(copies - 1);
        let text = |value: Option<String>| value.map_or("null".to_owned(), |value| format!("\"{value}\""));
        Row {
            source: Source::Activity,
            person: number,
            seq,
            key: format!("p{number}"),
            value: format!(
                "{{\"id\":\"a-{number}-{seq}\",\"customer_id\":{},\"device_id\":{},\"email\":{},\"person\":{number},\"seq\":{seq},\"track\":{tracks}}}",
                text(named.customer.then(|| format!("c{number}"))),
                text(named.device.map(|device| format!("d{number}-{device}"))),
                text(named.email.then(|| format!("p{number}@example.com"))),
            ),
            copies,
        }
    }

    fn score(&mut self, number: u32) -> Row {
        let person = self.person(number);
        person.scores += 1;
        let seq = person.scores;
        if !person.has_email {
            person.waiting.push((Source::Score, seq));
        }
        self.produced.push(Produced {
            person: number,
            seq,
            source: Source::Score,
            component_event: ComponentEvent::of(&[ComponentEvent::CUSTOMER]),
            repeated: false,
            tracks: false,
        });
        Row {
            source: Source::Score,
            person: number,
            seq,
            key: format!("p{number}"),
            value: format!("{{\"customer_id\":\"c{number}\",\"person\":{number},\"seq\":{seq}}}"),
            copies: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_draws_the_same_rows() {
        let draw = |seed| {
            let mut workload = Workload::new(seed, 50);
            (0..500).map(|_| workload.draw().value).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn few_rows_are_left_waiting_after_the_closing_ones_and_each_is_a_device_that_nobody_signed_in_on() {
        let mut workload = Workload::new(1, 100);
        for _ in 0..10_000 {
            workload.draw();
        }
        assert!(workload.held().len() > 100, "merges have something to hand over");
        workload.closing();
        let held = workload.held();
        assert!(!held.is_empty() && held.len() < 500, "{}", held.len());
        for row in workload.produced() {
            if held.contains(&(row.source, row.person, row.seq)) {
                assert!(row.source == Source::Activity && !row.component_event.names(ComponentEvent::CUSTOMER));
            }
        }
    }
}
