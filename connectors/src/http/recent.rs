//! What was true lately: a set that is bounded in number and in age, for answers that save a question (the people whom a vendor knows, the
//! fields of a project). It may forget, and it never keeps anything longer than twice its age.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Two generations: when the younger one is full or old, it becomes the older one.
#[derive(Debug)]
pub struct Recent<T> {
    generations: Mutex<Generations<T>>,
    entries_max: usize,
    age_max: Duration,
}

#[derive(Debug)]
struct Generations<T> {
    young: HashSet<T>,
    old: HashSet<T>,
    since: Instant,
}

// === impl Recent ===

impl<T: Hash + Eq> Recent<T> {
    /// `entries_max` and `age_max` are those of a generation.
    pub fn new(entries_max: usize, age_max: Duration) -> Self {
        let generations = Generations { young: HashSet::new(), old: HashSet::new(), since: Instant::now() };
        Self { generations: Mutex::new(generations), entries_max: entries_max.max(1), age_max }
    }

    pub fn contains(&self, entry: &T) -> bool {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.turn(self.entries_max, self.age_max);
        generations.young.contains(entry) || generations.old.contains(entry)
    }

    pub fn insert(&self, entries: impl IntoIterator<Item = T>) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            generations.turn(self.entries_max, self.age_max);
            generations.young.insert(entry);
        }
    }

    /// The entry is no longer true.
    pub fn remove(&self, entry: &T) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.young.remove(entry);
        generations.old.remove(entry);
    }
}

impl<T> Generations<T> {
    fn turn(&mut self, entries_max: usize, age_max: Duration) {
        let age = self.since.elapsed();
        if self.young.len() >= entries_max || age >= age_max {
            self.old = std::mem::take(&mut self.young);
            // Nobody asked for so long that the younger ones are too old as well.
            if age >= age_max * 2 {
                self.old = HashSet::new();
            }
            self.since = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let recent = Recent::new(100, Duration::from_secs(600));
        recent.insert(0..300);
        {
            let generations = recent.generations.lock().unwrap();
            assert!(generations.young.len() + generations.old.len() <= 200);
        }
        assert!(recent.contains(&299) && recent.contains(&250) && !recent.contains(&50));
        recent.remove(&299);
        assert!(!recent.contains(&299));
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let recent = Recent::new(100, Duration::from_millis(1));
        recent.insert([1]);
        std::thread::sleep(Duration::from_millis(5));
        assert!(!recent.contains(&1));
    }
}
