//! The keys of the identity state, frozen.
//!
//! ```text
//! 'n'                        the counters of the workspace
//! 'i' ‖ 16 bytes             an identifier: H(workspace, type, match key) → the profile that owns it
//! 'p' ‖ 16 bytes             a profile by its id: its identifiers, or the profile that absorbed it
//! 's' ‖ 16 bytes             a profile's activity: its event count and when each type was last seen
//! ```
//!
//! An identifier is keyed by a hash, so that keys are short and of one length and no address stands in a key: 128 bits make a
//! collision a matter of 10^-19 at ten billion identifiers. Activity stands apart from the profile because it changes with
//! every event, while a profile with a thousand identifiers changes rarely.

use std::fmt;

use sha2::{Digest as _, Sha256};
use tailwater_core::ProfileId;

const COUNTERS: u8 = b'n';
const IDENTIFIER: u8 = b'i';
const PROFILE: u8 = b'p';
const ACTIVITY: u8 = b's';

/// A key of the identity state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    tag: u8,
    body: Body,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Body([u8; 16]);

impl Key {
    /// The counters of the workspace.
    pub const COUNTERS: Self = Self { tag: COUNTERS, body: Body([0; 16]) };

    /// Who owns an identifier. `match_key` is the normalised value.
    pub fn identifier(workspace: &str, kind: &str, match_key: &str) -> Self {
        let mut sha = Sha256::new();
        sha.update(b"tw.identifier");
        for part in [workspace, kind, match_key] {
            sha.update((part.len() as u64).to_be_bytes());
            sha.update(part.as_bytes());
        }
        let digest = sha.finalize();
        let mut body = [0; 16];
        body.copy_from_slice(&digest[..16]);
        Self { tag: IDENTIFIER, body: Body(body) }
    }

    /// A profile's record.
    pub fn profile(id: ProfileId) -> Self {
        Self { tag: PROFILE, body: Body(*id.as_bytes()) }
    }

    /// A profile's activity.
    pub fn activity(id: ProfileId) -> Self {
        Self { tag: ACTIVITY, body: Body(*id.as_bytes()) }
    }

    /// The profile whose record this key holds, if it is such a key.
    pub fn as_profile(&self) -> Option<ProfileId> {
        (self.tag == PROFILE).then(|| ProfileId::from_bytes(self.body.0))
    }

    /// The key as the store keeps it.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(17);
        bytes.push(self.tag);
        if self.tag != COUNTERS {
            bytes.extend_from_slice(&self.body.0);
        }
        bytes
    }

    /// Reads what `to_bytes` wrote.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (&COUNTERS, []) => Some(Self::COUNTERS),
            (&tag @ (IDENTIFIER | PROFILE | ACTIVITY), body) => Some(Self { tag, body: Body(body.try_into().ok()?) }),
            _ => None,
        }
    }
}

/// The tag and the body in hexadecimal: `p:7a113a7e…`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:032x}", char::from(self.tag), u128::from_be_bytes(self.body.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Changelogs hold these bytes: a change here strands every profile of every workspace.
    #[test]
    fn keys_are_frozen() {
        let id = ProfileId::of("acme", "email", "ada@example.com", 0);
        let keys =
            [Key::COUNTERS, Key::identifier("acme", "email", "ada@example.com"), Key::profile(id), Key::activity(id)];
        let golden = include_str!("golden/keys.txt");
        let got: Vec<String> = keys
            .iter()
            .map(|key| key.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
            .collect();
        assert_eq!(got.join("\n"), golden.trim_end());
    }

    #[test]
    fn bytes_read_back_and_foreign_bytes_do_not() {
        let key = Key::identifier("acme", "email", "ada@example.com");
        assert_eq!(Key::from_bytes(&key.to_bytes()), Some(key));
        assert_eq!(Key::from_bytes(&Key::COUNTERS.to_bytes()), Some(Key::COUNTERS));
        assert_eq!(Key::from_bytes(b""), None);
        assert_eq!(Key::from_bytes(b"i123"), None);
        assert_eq!(Key::from_bytes(b"z0123456789abcdef"), None);
    }

    #[test]
    fn parts_of_an_identifier_cannot_run_into_one_another() {
        assert_ne!(Key::identifier("a", "bc", "d"), Key::identifier("a", "b", "cd"));
    }
}
