//! What an output is, told by its fields. Where the vendor's own fields leave it open (a membership that could be added or removed), or
//! where the vendor has no body for it (a deletion), the author says it in `_operation`.

use serde_json::{Map, Value};
use tailwater_core::operation::OperationKind;

use super::take::invalid;
use crate::destination::ClassifyError;
use crate::iterable::SPEC;
use crate::iterable::person::Field;
use crate::iterable::schema::{SUBSCRIPTION_LISTS, USER};
use crate::output::{nearest, take_operation};

/// What an output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    User,
    Event,
    Purchase,
    Cart,
    /// Added or removed.
    Membership(OperationKind),
    ChangeEmail,
    Merge,
    /// Deleted, forgotten or no longer forgotten.
    Removal(OperationKind),
    /// All subscriptions of a person, overwritten.
    Subscriptions,
    /// One subscription, begun or ended.
    Subscription(OperationKind),
    CatalogItem(OperationKind),
}

/// Tells the shape of an output, and takes `_operation` out of it.
pub(super) fn take(root: &mut Map<String, Value>) -> Result<Shape, ClassifyError> {
    let said = take_operation(root, &SPEC)?;
    let shape = by_fields(root, said)?;
    let kind = shape.kind();
    match said {
        Some(said) if said != kind => Err(invalid(
            "_operation",
            &format!(
                "is `{}`, while the other fields are those of `{}`; remove one of the two",
                said.as_str(),
                kind.as_str()
            ),
        )),
        Some(_) | None => Ok(shape),
    }
}

fn by_fields(root: &Map<String, Value>, said: Option<OperationKind>) -> Result<Shape, ClassifyError> {
    let has = |name: &str| root.contains_key(name);
    for (bulk, single) in
        [("users", "user"), ("events", "event"), ("updateSubscriptionsRequests", "person"), ("documents", "item")]
    {
        if has(bulk) {
            let message = format!(
                "is the body of a bulk request; return one output for each {single}, and Tailwater makes the bulk request"
            );
            return Err(invalid(bulk, &message));
        }
    }
    if has("eventName") {
        return Ok(Shape::Event);
    }
    if has("items") {
        return Ok(if has("total") || said == Some(OperationKind::TrackEvent) { Shape::Purchase } else { Shape::Cart });
    }
    if has("listId") {
        return membership(root, said);
    }
    if has("newEmail") {
        return Ok(Shape::ChangeEmail);
    }
    if ["sourceEmail", "sourceUserId", "destinationEmail", "destinationUserId"].iter().any(|name| has(name)) {
        return Ok(Shape::Merge);
    }
    if has("catalogName") {
        return Ok(Shape::CatalogItem(said.unwrap_or(OperationKind::UpsertCatalogItem)));
    }
    if has("subscriptionGroup") || has("subscriptionGroupId") {
        return match said {
            Some(kind @ (OperationKind::Subscribe | OperationKind::Unsubscribe)) => Ok(Shape::Subscription(kind)),
            Some(_) | None => Err(invalid(
                "the output",
                "names a subscription; add `_operation: 'subscribe'` or `_operation: 'unsubscribe'`",
            )),
        };
    }
    if SUBSCRIPTION_LISTS.iter().any(|name| has(name)) {
        return match said {
            Some(OperationKind::Subscribe) => Err(invalid(
                "_operation",
                "is `subscribe`, but these fields overwrite all of a person's subscriptions and can end some; say `unsubscribe`, which the \
                 route must allow, or name one subscription by `subscriptionGroup` and `subscriptionGroupId`",
            )),
            Some(_) | None => Ok(Shape::Subscriptions),
        };
    }
    match said {
        Some(kind @ (OperationKind::DeleteProfile | OperationKind::Suppress | OperationKind::Unsuppress)) => {
            Ok(Shape::Removal(kind))
        }
        Some(OperationKind::UpsertProfile) => Ok(Shape::User),
        Some(kind) => Err(invalid("_operation", &format!("is `{}`, which needs {}", kind.as_str(), needs(kind)))),
        None if has("dataFields") || (!root.is_empty() && root.keys().all(|name| is_of_user(name))) => Ok(Shape::User),
        None => unknown(root),
    }
}

fn membership(root: &Map<String, Value>, said: Option<OperationKind>) -> Result<Shape, ClassifyError> {
    match said {
        Some(kind @ (OperationKind::AddToList | OperationKind::RemoveFromList)) => Ok(Shape::Membership(kind)),
        // A field that only the request which adds somebody has.
        None if root.contains_key("updateExistingUsersOnly") => Ok(Shape::Membership(OperationKind::AddToList)),
        Some(_) | None => Err(invalid(
            "the output",
            "names a list; add `_operation: 'add_to_list'` or `_operation: 'remove_from_list'`, since the vendor's fields are the same for both",
        )),
    }
}

/// An output without a field that tells what it is.
fn unknown(root: &Map<String, Value>) -> Result<Shape, ClassifyError> {
    let known = ["email", "userId", "dataFields", "eventName", "items", "listId", "newEmail", "catalogName"];
    let strange = root.keys().find(|name| !known.contains(&name.as_str()));
    let hint =
        strange.and_then(|name| nearest(name, known).map(|near| format!("; did you mean `{near}` by `{name}`?")));
    let message = format!(
        "is none of Iterable's; expected `{{email, dataFields: {{…}}}}` for a user or `{{email, eventName: '…', dataFields: {{…}}}}` for an event{}",
        hint.unwrap_or_default()
    );
    Err(invalid("the output", &message))
}

fn is_of_user(name: &str) -> bool {
    Field::find(name).is_some() || USER.iter().any(|(known, _)| *known == name)
}

const fn needs(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::TrackEvent => "`eventName`, or `items` and `total`",
        OperationKind::AddToList | OperationKind::RemoveFromList => "`listId`",
        OperationKind::ChangeIdentifier => "`newEmail` and `currentEmail` or `currentUserId`",
        OperationKind::MergeProfiles => {
            "`sourceEmail` or `sourceUserId`, and `destinationEmail` or `destinationUserId`"
        }
        OperationKind::Subscribe => "`subscriptionGroup` and `subscriptionGroupId`",
        OperationKind::Unsubscribe => {
            "`subscriptionGroup` and `subscriptionGroupId`, or fields such as `unsubscribedChannelIds`"
        }
        OperationKind::UpsertCatalogItem | OperationKind::DeleteCatalogItem => "`catalogName` and `itemId`",
        OperationKind::UpsertProfile
        | OperationKind::DeleteProfile
        | OperationKind::Suppress
        | OperationKind::Unsuppress
        | OperationKind::UpsertObject
        | OperationKind::DeleteObject
        | OperationKind::Relate
        | OperationKind::Unrelate
        | OperationKind::Request
        | OperationKind::Record => "`email` or `userId`",
    }
}

// === impl Shape ===

impl Shape {
    const fn kind(self) -> OperationKind {
        match self {
            Self::User | Self::Cart => OperationKind::UpsertProfile,
            Self::Event | Self::Purchase => OperationKind::TrackEvent,
            Self::ChangeEmail => OperationKind::ChangeIdentifier,
            Self::Merge => OperationKind::MergeProfiles,
            Self::Subscriptions => OperationKind::Unsubscribe,
            Self::Membership(kind) | Self::Removal(kind) | Self::Subscription(kind) | Self::CatalogItem(kind) => kind,
        }
    }
}
