//! What the vendor's rejections mean: single bad deliveries, or a fault that makes a route's deliveries fail alike.
//!
//! A list that was deleted or a property that the vendor no longer takes rejects every delivery. Two hundred dead letters cannot
//! be called back, so rejections are judged like the errors of a transform ([`tailwater_core::judge`]): nothing is dead-lettered
//! until a window is judged, and many rejections alike pause the route with one alert. A rejected delivery keeps its turn
//! meanwhile, so nothing of its person overtakes it. The destination's other routes go on.
//!
//! The fix is often made at the vendor, where nobody tells Tailwater. So a paused route tries one delivery from time to time and
//! goes on when it is taken; a reload lets it go on at once.

use std::collections::BTreeMap;
use std::time::Duration;

use tailwater_core::delivery::{Delivery, Reason};
use tailwater_core::judge::{self, Pattern, Signature, Verdict, Window};
use tailwater_core::{DeliveryKey, ProfileId, Timestamp};

use super::Session;
use super::calls::InFlight;
use super::outside::Outside;
use crate::stages::Error;
use crate::telemetry::events::{Paused, Resumed};

/// The first wait before a paused route tries one delivery, and the longest one.
const TRIAL_WAIT_MIN: Duration = Duration::from_secs(10);
const TRIAL_WAIT_MAX: Duration = Duration::from_secs(300);

/// The routes of a destination, by name, as far as anything was delivered or rejected.
#[derive(Default)]
pub(super) struct Rejections {
    routes: BTreeMap<String, Route>,
}

#[derive(Default)]
struct Route {
    window: Window,
    good: Good,
    /// Rejected, and not judged yet. The window bounds them.
    suspects: Vec<(InFlight, Reason)>,
    paused: Option<RoutePause>,
}

/// Deliveries that succeeded lately. Good rows count for a window only after its first failure, but a call may report its
/// failures last: so the ones before count too.
#[derive(Default)]
struct Good {
    since: Timestamp,
    now: u64,
    before: u64,
}

struct RoutePause {
    signature: Signature,
    wait: Duration,
    /// When one delivery is tried.
    next: Timestamp,
    trial: Option<DeliveryKey>,
}

// === impl Rejections ===

impl Rejections {
    fn route(&mut self, name: &str) -> &mut Route {
        self.routes.entry(name.to_owned()).or_default()
    }

    /// Whether any route is paused.
    pub fn is_paused(&self) -> bool {
        self.routes.values().any(|route| route.paused.is_some())
    }

    /// When a delivery may be made that must wait because its route is paused; `None` if it may be made now.
    pub fn waits(&mut self, delivery: &Delivery, now: Timestamp) -> Option<Timestamp> {
        let pause = self.routes.get_mut(&delivery.operation.route)?.paused.as_mut()?;
        if pause.trial.is_none() && pause.next <= now {
            pause.trial = Some(delivery.key);
        }
        (pause.trial != Some(delivery.key)).then(|| pause.next.max(now.saturating_add(TRIAL_WAIT_MIN)))
    }

    /// A delivery came back without a word of the vendor about it.
    pub fn came_back(&mut self, delivery: &Delivery, now: Timestamp) {
        let route = self.routes.get_mut(&delivery.operation.route);
        if let Some(pause) = route.and_then(|route| route.paused.as_mut())
            && pause.trial == Some(delivery.key)
        {
            pause.trial = None;
            pause.next = now.saturating_add(pause.wait);
        }
    }

    /// Forgets the rejected deliveries of people who are somebody else's now.
    pub fn forget(&mut self, gone: impl Fn(&ProfileId) -> bool) {
        for route in self.routes.values_mut() {
            route.suspects.retain(|(item, _)| !gone(&item.profile));
            if route.suspects.is_empty() {
                route.window.close();
            }
            if let Some(pause) = &mut route.paused {
                // The trial may have been one of theirs.
                pause.trial = None;
            }
        }
    }
}

impl Good {
    fn count(&mut self, now: Timestamp) -> u64 {
        if now.since(self.since) >= judge::TIME {
            let idle = now.since(self.since) >= judge::TIME * 2;
            self.before = if idle { 0 } else { self.now };
            self.now = 0;
            self.since = now;
        }
        self.before + self.now
    }

    fn one_more(&mut self, now: Timestamp) {
        self.count(now);
        self.now = self.now.saturating_add(1);
    }
}

impl<O: Outside> Session<O> {
    /// The vendor has applied a delivery.
    pub(super) fn taken(&mut self, delivery: &Delivery) {
        let now = self.outside.steady();
        let name = &delivery.operation.route;
        // The name is copied once, not for each delivery.
        if !self.rejections.routes.contains_key(name) {
            self.rejections.routes.insert(name.clone(), Route::default());
        }
        let Some(route) = self.rejections.routes.get_mut(name) else { return };
        route.good.one_more(now);
        route.window.succeeded(1);
        if route.paused.as_ref().is_some_and(|pause| pause.trial == Some(delivery.key)) {
            self.let_go_on(name);
        }
    }

    /// The vendor rejects a delivery: it waits for the verdict.
    pub(super) fn rejected(&mut self, mut item: InFlight, reason: Reason) -> Result<(), Error> {
        let now = self.outside.steady();
        let name = item.delivery.operation.route.clone();
        let signature = Signature::new(reason.code, None, &reason.message);
        let route = self.rejections.route(&name);
        if let Some(pause) = &mut route.paused {
            let trial = pause.trial == Some(item.delivery.key);
            if pause.signature.code == signature.code {
                if trial {
                    pause.trial = None;
                    pause.wait = (pause.wait * 2).min(TRIAL_WAIT_MAX);
                    pause.next = now.saturating_add(pause.wait);
                }
                let due = pause.next;
                item.open.failures = 0;
                self.give_back(item, due);
                return Ok(());
            }
            if trial {
                // What paused the route is over; this is another fault.
                self.let_go_on(&name);
            }
        }
        let route = self.rejections.route(&name);
        if !route.window.is_open() {
            let good = route.good.count(now);
            route.window.failed(signature, now);
            route.window.preceded_by(good);
        } else {
            route.window.failed(signature, now);
        }
        route.suspects.push((item, reason));
        self.judge(&name, now)
    }

    /// Judges the windows whose time is over.
    pub(super) fn judge_rejections(&mut self) -> Result<(), Error> {
        let now = self.outside.steady();
        let open = |route: &Route| route.window.ends_at().is_some_and(|at| at <= now);
        let due: Vec<String> =
            self.rejections.routes.iter().filter(|(_, route)| open(route)).map(|(name, _)| name.clone()).collect();
        due.into_iter().try_for_each(|name| self.judge(&name, now))
    }

    fn judge(&mut self, name: &str, now: Timestamp) -> Result<(), Error> {
        let route = self.rejections.route(name);
        match route.window.judge(now) {
            Verdict::Wait => Ok(()),
            Verdict::DeadLetter => {
                route.window.close();
                let suspects = std::mem::take(&mut route.suspects);
                suspects.into_iter().try_for_each(|(item, reason)| self.dead(item, reason))
            }
            Verdict::Pause(pattern) => {
                self.pause_route(name, pattern, now);
                Ok(())
            }
        }
    }

    fn pause_route(&mut self, name: &str, pattern: Pattern, now: Timestamp) {
        let next = now.saturating_add(TRIAL_WAIT_MIN);
        let route = self.rejections.route(name);
        route.window.reset();
        let suspects = std::mem::take(&mut route.suspects);
        let Pattern { signature, failed, rows } = pattern;
        let example = suspects.iter().map(|(_, reason)| reason).find(|reason| reason.code == signature.code);
        let message = format!(
            "the vendor rejected {failed} of {rows} deliveries of the route {name} in the same way: {}. Nothing was dead-lettered: \
             what was rejected waits, and runs again first. Fix it at the vendor, or in the transform and reload. One delivery is \
             tried from time to time, and the route goes on when it is taken",
            example.map_or_else(|| signature.shape.clone(), |reason| reason.message.clone())
        );
        self.setup.telemetry.emit(&Paused {
            destination: &self.setup.name,
            stage: "send",
            route: name,
            code: signature.code,
            message: &message,
        });
        self.notes.paused(name, signature.code, &message, self.outside.now());
        self.rejections.route(name).paused = Some(RoutePause { signature, wait: TRIAL_WAIT_MIN, next, trial: None });
        for (mut item, _) in suspects {
            item.open.failures = 0;
            self.give_back(item, next);
        }
    }

    /// A paused route goes on.
    fn let_go_on(&mut self, name: &str) {
        let route = self.rejections.route(name);
        route.window.reset();
        if route.paused.take().is_some() {
            self.notes.resumed(name);
            self.gate.expedite();
            if !self.rejections.is_paused() && self.paused.is_none() {
                self.setup.telemetry.emit(&Resumed { destination: &self.setup.name, stage: "send" });
            } else {
                tracing::info!(destination = %self.setup.name, route = name, "the route goes on");
            }
        }
    }

    /// What was reloaded may have cured whatever paused a route.
    pub(super) fn retry_routes(&mut self) {
        let paused: Vec<String> = self
            .rejections
            .routes
            .iter()
            .filter(|(_, route)| route.paused.is_some())
            .map(|(name, _)| name.clone())
            .collect();
        for name in paused {
            self.let_go_on(&name);
        }
    }
}
