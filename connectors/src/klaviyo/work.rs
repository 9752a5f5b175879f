//! A batch while it is delivered to Klaviyo, and what is noted of a delivery between its attempts.

use std::collections::BTreeSet;
use std::ops::Deref;

use super::Klaviyo;
use crate::http;

/// The shared work on a batch, and the destination whose it is.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    pub klaviyo: &'a Klaviyo,
    pub shared: http::Work<'a, Steps>,
}

/// The steps of a delivery that have succeeded: a person with lists takes several requests, and each can fail by itself. A step that has
/// succeeded is not repeated: an upsert whose list call was throttled goes on with the list call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Steps {
    /// The upsert has succeeded.
    pub upserted: Option<Upserted>,
    /// Lists that the person has joined since.
    pub joined: BTreeSet<String>,
    /// Failed questions about the job that the delivery runs in: how many requests the endpoint had answered at the first one, and how
    /// many questions have failed since it answered others.
    pub questions: Option<(u64, u32)>,
}

/// What the answer to an upsert says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Upserted {
    /// The vendor's id of the person; missing only if the answer cannot be read.
    pub profile: Option<String>,
    /// What the upsert went out without.
    pub remark: Option<String>,
}

impl<'a> Deref for Work<'a> {
    type Target = http::Work<'a, Steps>;

    fn deref(&self) -> &Self::Target {
        &self.shared
    }
}
