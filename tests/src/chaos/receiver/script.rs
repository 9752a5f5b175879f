//! What requests with certain people are answered, one step after the other.
//!
//! A request with several people has one answer. The first person in it whose next step is not `Ok` decides, and only that person's script
//! goes on, because the others have not been answered as theirs says. When nobody's step stands against it, the request passes and
//! everybody's `Ok` is used up. A refusal is shared: it points at everyone in the request who is to be refused.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tailwater_simulators::klaviyo::{Disconnect, Ruling};

use super::body::Carried;

/// The longest silence: longer than any client waits.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The answers to the requests that contain a person; afterwards these pass again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    pub person: u32,
    pub steps: Vec<Step>,
}

/// One answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Ok,
    /// Nothing takes effect.
    Status(u16),
    /// The same with the seconds in `Retry-After`; the status is 429 in any case, because the vendor knows no other with it.
    RetryAfter {
        status: u16,
        seconds: u64,
    },
    /// Nothing takes effect, and no answer comes until the client gives up or 60 s are over.
    TimeOut,
    /// Nothing takes effect, and the connection breaks.
    DisconnectAfterReading,
    /// The request takes effect, and the connection breaks.
    DisconnectAfterProcessing,
    /// The person is refused for good, with a 400 that points at it.
    Reject(u16),
}

/// The steps that are left.
#[derive(Debug, Default)]
pub(super) struct Scripts(HashMap<u32, VecDeque<Step>>);

/// What scripts say of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scene {
    pub ruling: Ruling,
    /// Which of the carried items are refused for good.
    pub refused: Vec<usize>,
}

// === impl Scripts ===

impl Scripts {
    pub fn new(scripts: Vec<Script>) -> Self {
        let mut all: HashMap<u32, VecDeque<Step>> = HashMap::new();
        for script in scripts {
            all.entry(script.person).or_default().extend(script.steps);
        }
        all.retain(|_, steps| !steps.is_empty());
        Self(all)
    }

    pub fn left(&self) -> usize {
        self.0.values().map(VecDeque::len).sum()
    }

    /// The answer to a request with these items.
    pub fn play(&mut self, carried: &[Carried]) -> Scene {
        if self.0.is_empty() {
            return Scene::pass();
        }
        let mut people: Vec<(u32, Step)> = Vec::new();
        for person in carried.iter().map(|carried| carried.item.person) {
            let step = self.0.get(&person).and_then(VecDeque::front);
            if let Some(step) = step.filter(|_| people.iter().all(|(known, _)| *known != person)) {
                people.push((person, *step));
            }
        }
        let Some((person, step)) = people.iter().copied().find(|(_, step)| *step != Step::Ok) else {
            for (person, _) in people {
                self.advance(person);
            }
            return Scene::pass();
        };
        if !matches!(step, Step::Reject(_)) {
            self.advance(person);
        }
        let ruling = match step {
            Step::Ok => Ruling::Normal,
            Step::Status(status) => Ruling::Status(status),
            Step::RetryAfter { seconds, .. } => Ruling::Throttled { seconds },
            Step::TimeOut => Ruling::Silence(SILENCE_MAX),
            Step::DisconnectAfterReading => Ruling::Disconnect(Disconnect::AfterReading),
            Step::DisconnectAfterProcessing => Ruling::Disconnect(Disconnect::AfterProcessing),
            Step::Reject(_) => return self.refuse(&people, carried),
        };
        Scene { ruling, refused: Vec::new() }
    }

    fn refuse(&mut self, people: &[(u32, Step)], carried: &[Carried]) -> Scene {
        let guilty: Vec<u32> =
            people.iter().filter(|(_, step)| matches!(step, Step::Reject(_))).map(|(person, _)| *person).collect();
        for person in &guilty {
            self.advance(*person);
        }
        let refused: Vec<usize> = carried
            .iter()
            .enumerate()
            .filter(|(_, carried)| guilty.contains(&carried.item.person))
            .map(|(index, _)| index)
            .collect();
        let mut places: Vec<usize> =
            refused.iter().filter_map(|index| carried.get(*index)).map(|carried| carried.place).collect();
        places.dedup();
        Scene { ruling: Ruling::Refused(places), refused }
    }

    fn advance(&mut self, person: u32) {
        let Some(steps) = self.0.get_mut(&person) else { return };
        steps.pop_front();
        if steps.is_empty() {
            self.0.remove(&person);
        }
    }
}

impl Scene {
    fn pass() -> Self {
        Self { ruling: Ruling::Normal, refused: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Item, Kind};
    use super::*;

    fn carried(people: &[u32]) -> Vec<Carried> {
        let item = |person| Item { kind: Kind::Activity, person, seq: 0 };
        people
            .iter()
            .enumerate()
            .map(|(place, person)| Carried { place, item: item(*person), key: None, stray: None })
            .collect()
    }

    fn scripts(scripts: &[(u32, &[Step])]) -> Scripts {
        Scripts::new(scripts.iter().map(|(person, steps)| Script { person: *person, steps: steps.to_vec() }).collect())
    }

    #[test]
    fn steps_are_played_in_order_and_once() {
        let mut scripts = scripts(&[(7, &[Step::Status(500), Step::Ok, Step::TimeOut])]);
        let rulings: Vec<Ruling> = (0..4).map(|_| scripts.play(&carried(&[7])).ruling).collect();
        assert_eq!(rulings, [Ruling::Status(500), Ruling::Normal, Ruling::Silence(SILENCE_MAX), Ruling::Normal]);
    }

    #[test]
    fn only_the_one_who_decides_goes_on() {
        let mut scripts = scripts(&[(1, &[Step::Ok]), (2, &[Step::Status(500)]), (3, &[Step::Status(503)])]);
        assert_eq!(scripts.play(&carried(&[1, 2, 3])).ruling, Ruling::Status(500));
        assert_eq!(scripts.play(&carried(&[1, 2, 3])).ruling, Ruling::Status(503));
        assert_eq!(scripts.left(), 1, "the Ok was not answered yet");
        assert_eq!(scripts.play(&carried(&[1, 2, 3])).ruling, Ruling::Normal);
        assert_eq!(scripts.left(), 0);
    }

    #[test]
    fn a_refusal_points_at_all_who_are_to_be_refused_and_at_nobody_else() {
        let mut scripts = scripts(&[(2, &[Step::Reject(400)]), (4, &[Step::Reject(400)]), (3, &[Step::Status(500)])]);
        let scene = scripts.play(&carried(&[1, 2, 3, 4]));
        assert_eq!(scene, Scene { ruling: Ruling::Refused(vec![1, 3]), refused: vec![1, 3] });
        assert_eq!(scripts.play(&carried(&[1, 3])).ruling, Ruling::Status(500));
    }

    #[test]
    fn others_are_not_touched() {
        let mut scripts = scripts(&[(7, &[Step::Status(500)])]);
        assert_eq!(scripts.play(&carried(&[1, 2])).ruling, Ruling::Normal);
        assert_eq!(scripts.left(), 1);
    }
}
