//! All that a simulator remembers, behind one lock: every request sees the account as the one before it has left it.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::answer::Answer;
use super::clock::{Clock, stamp};
use super::journal::{Journal, Received, Stats, UNKNOWN};
use super::observe::{Arriving, Carrier, Effects, Leaving, Ruling};
use super::prescribe::{Disconnect, Effect, Prescription, Prescriptions, Seen};
use super::vendor::{Request, Vendor};

/// What the server has to do with a request.
#[derive(Debug)]
pub(super) enum Reply {
    Answer {
        answer: Answer,
        delay_ms: u64,
        leaving: Option<Leaving>,
    },
    HangUp {
        leaving: Option<Leaving>,
    },
    /// No answer, and after this time the end of the connection.
    Silence {
        time: Duration,
        leaving: Option<Leaving>,
    },
}

/// What was decided about a request.
enum Fate {
    Answer(Answer, u64),
    HangUp,
    Silence(Duration),
}

struct Decided {
    fate: Fate,
    /// What took effect; `None` while that is open.
    effects: Option<Effects>,
    prescribed: bool,
    /// What was accepted and dropped without a word.
    dropped: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Shared<V> {
    clock: Clock,
    state: Mutex<State<V>>,
}

#[derive(Debug)]
struct State<V> {
    vendor: V,
    prescriptions: Prescriptions,
    journal: Journal,
}

// === impl Shared ===

impl<V: Vendor> Shared<V> {
    pub fn new(options: V::Options) -> std::io::Result<Self> {
        let clock = Clock::new();
        let setup = V::setup(&options);
        let mut journal = Journal::new(setup.requests_max);
        if let Some(path) = &setup.persist {
            journal.persist(Path::new(path))?;
        }
        let vendor = V::new(options, clock.now_us());
        let state = State { vendor, prescriptions: Prescriptions::default(), journal };
        Ok(Self { clock, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State<V>> {
        // A panic while the lock was held leaves a state that tests may still want to look at.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock with all jobs done that are due.
    fn current(&self) -> (MutexGuard<'_, State<V>>, i64) {
        let now_us = self.clock.now_us();
        let mut guard = self.lock();
        let state = &mut *guard;
        let settled = state.vendor.advance(&mut state.prescriptions, now_us);
        if let Some(observer) = state.vendor.observer() {
            for (request, effects) in settled {
                observer.settled(request, effects);
            }
        }
        (guard, now_us)
    }

    /// Whether the connection is to be broken before the body is read. The request is recorded then.
    pub fn hangs_up_early(&self, method: &str, path: &str, query: &[(String, String)]) -> bool {
        let (mut state, now_us) = self.current();
        let seen = Seen { method, path, query, body: None, now_us };
        if state.prescriptions.take(&seen).is_none() {
            return false;
        }
        let endpoint = V::endpoint(method, path).unwrap_or(UNKNOWN);
        state.journal.add(Received {
            number: 0,
            time: stamp(now_us),
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_vec(),
            headers: Vec::new(),
            body: Value::Null,
            body_bytes: 0,
            status: 0,
            prescribed: true,
            dropped: Vec::new(),
            endpoint,
        });
        true
    }

    /// Answers a request and records it.
    pub fn reply(&self, mut request: Request) -> Reply {
        let (mut guard, now_us) = self.current();
        let state = &mut *guard;
        let number = state.journal.next();
        request.number = number;
        let carrier = V::carrier(&request.method, &request.path);
        let observer = state.vendor.observer().cloned().zip(carrier);
        let ruling = observer.as_ref().map_or(Ruling::Normal, |(observer, carrier)| {
            observer.arrived(Arriving { request: number, carrier: *carrier, body: &request.body })
        });
        let Decided { fate, effects, prescribed, dropped } = state.decide(ruling, carrier, &request, now_us);
        let leaving = observer.map(|(observer, _)| {
            if let Some(effects) = effects {
                observer.settled(number, effects);
            }
            Leaving::new(Arc::clone(&observer), number)
        });
        let (reply, status) = match fate {
            Fate::Answer(answer, delay_ms) => {
                let status = answer.status;
                (Reply::Answer { answer, delay_ms, leaving }, status)
            }
            Fate::HangUp => (Reply::HangUp { leaving }, 0),
            Fate::Silence(time) => (Reply::Silence { time, leaving }, 0),
        };
        let endpoint = V::endpoint(&request.method, &request.path).unwrap_or(UNKNOWN);
        let shown = |name: &&str| Some(((*name).to_owned(), request.header(name)?.to_owned()));
        let headers = V::HEADERS.iter().filter_map(shown).collect();
        state.journal.add(Received {
            number: 0,
            time: stamp(now_us),
            body: if state.journal.keeps_bodies() { body_value(&request.body) } else { Value::Null },
            body_bytes: request.body.len(),
            method: request.method,
            path: request.path,
            query: request.query,
            headers,
            status,
            prescribed,
            dropped,
            endpoint,
        });
        reply
    }

    // --- what the control plane and tests ask ---

    pub fn received(&self, wanted: impl Fn(&Received) -> bool, limit: usize) -> Vec<Received> {
        self.lock().journal.received().filter(|received| wanted(received)).take(limit).cloned().collect()
    }

    pub fn stats(&self) -> Stats {
        let (state, _) = self.current();
        let counts = state.vendor.counts();
        Stats {
            profiles: counts.profiles,
            events: counts.events,
            events_repeated: counts.events_repeated,
            objects: counts.objects,
            ..state.journal.stats()
        }
    }

    pub fn profiles(&self, after: &str, limit: usize) -> Vec<Value> {
        self.current().0.vendor.profiles(after, limit)
    }

    pub fn profile(&self, field: &str, value: &str) -> Option<Value> {
        self.current().0.vendor.profile(field, value)
    }

    pub fn list(&self, id: &str) -> Option<Value> {
        self.current().0.vendor.list(id)
    }

    pub fn lists(&self) -> Vec<Value> {
        self.current().0.vendor.lists()
    }

    pub fn events(&self, skip: usize, limit: usize) -> Vec<Value> {
        self.current().0.vendor.events(skip, limit)
    }

    pub fn objects(&self, skip: usize, limit: usize) -> Vec<Value> {
        self.current().0.vendor.objects(skip, limit)
    }

    pub fn add_list(&self, id: &str, name: &str) -> bool {
        self.lock().vendor.add_list(id, name, self.clock.now_us())
    }

    pub fn prescribe(&self, prescription: Prescription) -> Result<(), String> {
        if let Some(problem) = prescription.problem() {
            return Err(problem);
        }
        if self.lock().prescriptions.add(prescription, self.clock.now_us()) {
            Ok(())
        } else {
            Err(format!("at most {} prescriptions may be open", super::prescribe::PRESCRIPTIONS_MAX))
        }
    }

    pub fn prescriptions(&self) -> Vec<Prescription> {
        self.lock().prescriptions.list()
    }

    pub fn clear_prescriptions(&self) {
        self.lock().prescriptions.clear();
    }

    /// Changes settings of the running simulator.
    pub fn change(&self, change: impl FnOnce(&mut V::Options)) {
        change(self.lock().vendor.options_mut());
    }

    pub fn settings(&self, settings: Value) -> Result<(), String> {
        self.lock().vendor.settings(settings)
    }

    /// Back to the state at the start: nobody, nothing, no prescriptions or counts; the lists of the options.
    pub fn reset(&self) {
        let now_us = self.clock.now_us();
        let mut state = self.lock();
        state.vendor = V::new(state.vendor.options().clone(), now_us);
        state.prescriptions.clear();
        state.journal.clear();
    }
}

// === impl State ===

impl<V: Vendor> State<V> {
    fn decide(&mut self, ruling: Ruling, carrier: Option<Carrier>, request: &Request, now_us: i64) -> Decided {
        let (fate, disconnect) = match ruling {
            Ruling::Normal => return self.decide_unruled(request, now_us),
            Ruling::Status(status) => (Fate::Answer(V::ruled(status), 0), None),
            Ruling::Throttled { seconds } => (Fate::Answer(self.vendor.throttled(seconds), 0), None),
            Ruling::Refused(places) => {
                let answer = carrier.map_or_else(|| Answer::empty(400), |carrier| V::refuse(carrier, &places));
                (Fate::Answer(answer, 0), None)
            }
            Ruling::Silence(time) => (Fate::Silence(time), None),
            Ruling::Disconnect(disconnect) => (Fate::HangUp, Some(disconnect)),
        };
        if disconnect == Some(Disconnect::AfterProcessing) {
            let answer = self.answer(request, now_us);
            return Decided { fate, effects: answer.effects(), prescribed: true, dropped: answer.dropped };
        }
        Decided { fate, effects: Some(Effects::Nothing), prescribed: true, dropped: Vec::new() }
    }

    fn decide_unruled(&mut self, request: &Request, now_us: i64) -> Decided {
        let seen = Seen {
            method: &request.method,
            path: &request.path,
            query: &request.query,
            body: Some(&request.body),
            now_us,
        };
        let effect = self.prescriptions.take(&seen);
        let prescribed = effect.is_some();
        let without_effect = |fate| Decided { fate, effects: Some(Effects::Nothing), prescribed, dropped: Vec::new() };
        let delay_ms = match effect {
            Some(Effect::Answer(answer)) => {
                return without_effect(Fate::Answer(answer.to_answer(V::MEDIA_TYPE), answer.delay_ms));
            }
            Some(Effect::Disconnect(Disconnect::BeforeReading | Disconnect::AfterReading)) => {
                return without_effect(Fate::HangUp);
            }
            Some(Effect::Disconnect(Disconnect::AfterProcessing)) => None,
            Some(Effect::DelayMs(delay_ms)) => Some(delay_ms),
            // The first two belong to jobs and are never taken by a request.
            Some(Effect::ImportError(_) | Effect::CancelJob) | None => Some(0),
        };
        let mut answer = self.answer(request, now_us);
        let (effects, dropped) = (answer.effects(), std::mem::take(&mut answer.dropped));
        let fate = delay_ms.map_or(Fate::HangUp, |delay_ms| Fate::Answer(answer, delay_ms));
        Decided { fate, effects, prescribed, dropped }
    }

    fn answer(&mut self, request: &Request, now_us: i64) -> Answer {
        self.vendor.answer(request, &mut self.prescriptions, now_us)
    }
}

fn body_value(body: &[u8]) -> Value {
    if body.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(body).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()))
}
