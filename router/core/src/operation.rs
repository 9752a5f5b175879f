//! One thing to do at a destination, made by a connector from a transform's output.
//!
//! An outbound record carries all operations of one (event, destination) as JSON: `{"operations":[…]}`. They are delivered
//! in their order. The vocabulary of kinds is closed: every vendor maps its own calls to it, and code that depends on the kind matches
//! all of them, so that a new kind cannot be forgotten anywhere.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What an operation does; also part of the idempotency key, so the names are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationKind {
    /// Create or update a person.
    UpsertProfile,
    /// Record that something happened. Never superseded.
    TrackEvent,
    DeleteProfile,
    /// Join two people at the vendor.
    MergeProfiles,
    /// Give a person another email or id at the vendor.
    ChangeIdentifier,
    /// Add a person to a list, a segment or an audience: the operation's target.
    AddToList,
    RemoveFromList,
    Subscribe,
    Unsubscribe,
    /// Let a person receive nothing at all.
    Suppress,
    Unsuppress,
    /// Create or update an object (an account, a company), named by the operation's target.
    UpsertObject,
    DeleteObject,
    /// Connect a person with an object, named by the operation's target.
    Relate,
    Unrelate,
    /// Create or update an item of a catalog, named by the operation's target.
    UpsertCatalogItem,
    DeleteCatalogItem,
    /// Send an HTTP request that the configuration describes.
    Request,
    /// Write a record to a Kafka topic.
    Record,
}

/// What an operation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// It needs a person, besides an object or a list that the target names.
    Profile,
    /// It needs an object or a catalog item and no person.
    Object,
    /// It needs neither.
    None,
}

/// The state of which an operation is one version. Operations that undo one another are versions of the same state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Profile,
    Object,
    CatalogItem,
    /// Whether a person is on the list that the target names.
    Membership,
    Subscription,
    Suppression,
    /// Whether a person is connected with the object that the target names.
    Relationship,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Operation {
    pub kind: OperationKind,
    /// The route that made it: the name its configuration gives, by default the source's.
    pub route: String,
    /// The ordinal of the output within its event, or the author's own `_key`.
    pub place: String,
    /// What it is about besides the person: the vendor's id of a list, a segment, an object or a catalog item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The connector's own payload, mostly the vendor's JSON, checked and cleaned, ready to be put into a request.
    pub body: Box<RawValue>,
    /// Paths of numbers that are not finite and were left out of the body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub non_finite: Vec<String>,
}

/// The value of an outbound record. It can be written from operations that stay where they are: `Outbound<&Operation>`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outbound<O = Operation> {
    pub operations: Vec<O>,
}

// === impl OperationKind ===

impl OperationKind {
    pub const ALL: [Self; 19] = [
        Self::UpsertProfile,
        Self::TrackEvent,
        Self::DeleteProfile,
        Self::MergeProfiles,
        Self::ChangeIdentifier,
        Self::AddToList,
        Self::RemoveFromList,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Suppress,
        Self::Unsuppress,
        Self::UpsertObject,
        Self::DeleteObject,
        Self::Relate,
        Self::Unrelate,
        Self::UpsertCatalogItem,
        Self::DeleteCatalogItem,
        Self::Request,
        Self::Record,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UpsertProfile => "upsert_profile",
            Self::TrackEvent => "track_event",
            Self::DeleteProfile => "delete_profile",
            Self::MergeProfiles => "merge_profiles",
            Self::ChangeIdentifier => "change_identifier",
            Self::AddToList => "add_to_list",
            Self::RemoveFromList => "remove_from_list",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Suppress => "suppress",
            Self::Unsuppress => "unsuppress",
            Self::UpsertObject => "upsert_object",
            Self::DeleteObject => "delete_object",
            Self::Relate => "relate",
            Self::Unrelate => "unrelate",
            Self::UpsertCatalogItem => "upsert_catalog_item",
            Self::DeleteCatalogItem => "delete_catalog_item",
            Self::Request => "request",
            Self::Record => "record",
        }
    }

    /// The kind of that name, if there is one.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The state of which it is a version; `None` for a fact, which nothing makes pointless. A merge and a change of an identifier are
    /// facts: the vendor has to see each of them, in their order, to know whom the next one means.
    pub const fn state(self) -> Option<State> {
        match self {
            Self::UpsertProfile | Self::DeleteProfile => Some(State::Profile),
            Self::AddToList | Self::RemoveFromList => Some(State::Membership),
            Self::Subscribe | Self::Unsubscribe => Some(State::Subscription),
            Self::Suppress | Self::Unsuppress => Some(State::Suppression),
            Self::UpsertObject | Self::DeleteObject => Some(State::Object),
            Self::Relate | Self::Unrelate => Some(State::Relationship),
            Self::UpsertCatalogItem | Self::DeleteCatalogItem => Some(State::CatalogItem),
            Self::TrackEvent | Self::MergeProfiles | Self::ChangeIdentifier | Self::Request | Self::Record => None,
        }
    }

    /// Whether a later version makes an earlier one pointless.
    pub const fn is_state(self) -> bool {
        self.state().is_some()
    }

    /// Whether it takes something away that the vendor does not give back. Such an operation runs only where its route allows it.
    pub const fn is_destructive(self) -> bool {
        match self {
            Self::DeleteProfile
            | Self::MergeProfiles
            | Self::ChangeIdentifier
            | Self::Unsubscribe
            | Self::Suppress
            | Self::DeleteObject
            | Self::Unrelate
            | Self::DeleteCatalogItem => true,
            Self::UpsertProfile
            | Self::TrackEvent
            | Self::AddToList
            | Self::RemoveFromList
            | Self::Subscribe
            | Self::Unsuppress
            | Self::UpsertObject
            | Self::Relate
            | Self::UpsertCatalogItem
            | Self::Request
            | Self::Record => false,
        }
    }

    /// What it is about.
    pub const fn subject(self) -> Subject {
        match self {
            Self::UpsertProfile
            | Self::TrackEvent
            | Self::DeleteProfile
            | Self::MergeProfiles
            | Self::ChangeIdentifier
            | Self::AddToList
            | Self::RemoveFromList
            | Self::Subscribe
            | Self::Unsubscribe
            | Self::Suppress
            | Self::Unsuppress
            | Self::Relate
            | Self::Unrelate => Subject::Profile,
            Self::UpsertObject | Self::DeleteObject | Self::UpsertCatalogItem | Self::DeleteCatalogItem => {
                Subject::Object
            }
            Self::Request | Self::Record => Subject::None,
        }
    }
}

impl std::fmt::Display for OperationKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl State ===

impl State {
    /// Part of the key of what is remembered, so the names are frozen.
    pub const fn as_str(self) -> &'static str {
        match self {
            // The name of the only kind that there once was.
            Self::Profile => "upsert_profile",
            Self::Object => "object",
            Self::CatalogItem => "catalog_item",
            Self::Membership => "membership",
            Self::Subscription => "subscription",
            Self::Suppression => "suppression",
            Self::Relationship => "relationship",
        }
    }

    /// Whether it is on or off as a whole, whichever row speaks of it. Other states are made of parts, and each row and each output
    /// brings its own.
    pub const fn is_switch(self) -> bool {
        match self {
            Self::Membership | Self::Subscription | Self::Suppression | Self::Relationship => true,
            Self::Profile | Self::Object | Self::CatalogItem => false,
        }
    }
}

// === impl Operation ===

impl Operation {
    /// Kind and target, for people: `add_to_list WINBCK`.
    pub fn describe(&self) -> String {
        match &self.target {
            Some(target) => format!("{} {target}", self.kind),
            None => self.kind.as_str().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_name_that_records_carry() {
        for kind in OperationKind::ALL {
            let written = serde_json::to_string(&kind).unwrap();
            assert_eq!(written, format!("\"{kind}\""));
            assert_eq!(serde_json::from_str::<OperationKind>(&written).unwrap(), kind);
            assert_eq!(OperationKind::find(kind.as_str()), Some(kind));
        }
        assert_eq!(OperationKind::find("upsert"), None);
    }

    #[test]
    fn operations_that_undo_one_another_are_one_state() {
        use OperationKind as Kind;
        let pairs = [
            (Kind::AddToList, Kind::RemoveFromList),
            (Kind::Subscribe, Kind::Unsubscribe),
            (Kind::Suppress, Kind::Unsuppress),
            (Kind::UpsertObject, Kind::DeleteObject),
            (Kind::Relate, Kind::Unrelate),
            (Kind::UpsertCatalogItem, Kind::DeleteCatalogItem),
            (Kind::UpsertProfile, Kind::DeleteProfile),
        ];
        for (one, other) in pairs {
            assert!(one.is_state());
            assert_eq!(one.state(), other.state(), "{one} and {other}");
        }
        assert!(!Kind::TrackEvent.is_state());
    }

    #[test]
    fn a_record_of_an_operation_without_a_target_stays_as_it_was() {
        let text = r#"{"kind":"upsert_profile","route":"ltv","place":"0","body":{}}"#;
        let operation: Operation = serde_json::from_str(text).unwrap();
        assert_eq!(operation.target, None);
        assert_eq!(serde_json::to_string(&operation).unwrap(), text);
        let text = r#"{"kind":"add_to_list","route":"ltv","place":"0","target":"WINBCK","body":{}}"#;
        let operation: Operation = serde_json::from_str(text).unwrap();
        assert_eq!(operation.describe(), "add_to_list WINBCK");
        assert_eq!(serde_json::to_string(&operation).unwrap(), text);
    }
}
