//! Operations → requests. Pure: what is here is what `--dry-run` shows and what `deliver` sends.
//!
//! Bodies are put together as text, because an operation's body is checked JSON already: a thousand users are copied once and never
//! parsed.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;
use tailwater_core::delivery::Delivery;
use tailwater_core::operation::{Operation, OperationKind};

use super::endpoint;
use super::mapping::CART;
use super::person::{Field, Person};
use crate::http::{Endpoint, Method, Request, encoded};

/// The largest body of a bulk request, in bytes. The vendor takes 4 MB without saying whether that is 4,000,000 or 4,194,304 bytes; a
/// margin below the smaller one costs nothing.
pub(super) const BULK_BYTES_MAX: usize = 3_900_000;

/// Users, events, subscribers or catalog items in one request. For catalogs the vendor documents it, for the others it is what
/// integrations keep to.
pub(super) const BULK_ITEMS_MAX: usize = 1_000;

/// What a delivery asks of the vendor, which decides its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Call {
    /// An update of a user: single or in bulk.
    User,
    /// An event: single or in bulk.
    Event,
    Purchase,
    Cart,
    AddToList,
    RemoveFromList,
    /// An update of a user's address where the project identifies people by user id.
    UserAddress,
    UpdateEmail,
    Merge,
    Delete,
    Forget,
    Unforget,
    Subscriptions,
    Subscribe,
    Unsubscribe,
    /// Catalog items that are replaced.
    CatalogReplace,
    /// Catalog items of which some fields change.
    CatalogChange,
    CatalogDelete,
}

/// What of a body tells the call and belongs into a path.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Peek<'a> {
    event_name: Option<serde::de::IgnoredAny>,
    new_email: Option<serde::de::IgnoredAny>,
    value: Option<serde::de::IgnoredAny>,
    id: Option<serde::de::IgnoredAny>,
    subscription_group: Option<String>,
    subscription_group_id: Option<i64>,
    #[serde(borrow)]
    catalog_name: Option<std::borrow::Cow<'a, str>>,
    item_id: Option<String>,
}

fn peek(body: &str) -> Peek<'_> {
    serde_json::from_str(body).unwrap_or_default()
}

// === impl Call ===

impl Call {
    pub fn of(operation: &Operation) -> Option<Self> {
        let peek = || peek(operation.body.get());
        Some(match operation.kind {
            OperationKind::UpsertProfile if operation.target.as_deref() == Some(CART) => Self::Cart,
            OperationKind::UpsertProfile => Self::User,
            OperationKind::TrackEvent if peek().event_name.is_some() => Self::Event,
            OperationKind::TrackEvent => Self::Purchase,
            OperationKind::AddToList => Self::AddToList,
            OperationKind::RemoveFromList => Self::RemoveFromList,
            OperationKind::ChangeIdentifier if peek().new_email.is_some() => Self::UpdateEmail,
            OperationKind::ChangeIdentifier => Self::UserAddress,
            OperationKind::MergeProfiles => Self::Merge,
            OperationKind::DeleteProfile => Self::Delete,
            OperationKind::Suppress => Self::Forget,
            OperationKind::Unsuppress => Self::Unforget,
            OperationKind::Subscribe => Self::Subscribe,
            OperationKind::Unsubscribe if peek().subscription_group.is_some() => Self::Unsubscribe,
            OperationKind::Unsubscribe => Self::Subscriptions,
            OperationKind::UpsertCatalogItem if peek().value.is_some() => Self::CatalogReplace,
            OperationKind::UpsertCatalogItem => Self::CatalogChange,
            OperationKind::DeleteCatalogItem => Self::CatalogDelete,
            OperationKind::UpsertObject
            | OperationKind::DeleteObject
            | OperationKind::Relate
            | OperationKind::Unrelate
            | OperationKind::Request
            | OperationKind::Record => return None,
        })
    }

    /// Whether the call writes the person's profile, so that it must not be mixed with bulk updates.
    pub const fn writes_user(self) -> bool {
        match self {
            Self::User
            | Self::UserAddress
            | Self::Purchase
            | Self::Cart
            | Self::UpdateEmail
            | Self::Merge
            | Self::Delete
            | Self::Forget
            | Self::Unforget
            | Self::Subscriptions
            | Self::Subscribe
            | Self::Unsubscribe => true,
            Self::Event
            | Self::AddToList
            | Self::RemoveFromList
            | Self::CatalogReplace
            | Self::CatalogChange
            | Self::CatalogDelete => false,
        }
    }

    /// Whether the call sends fields of a profile.
    pub const fn has_user_fields(self) -> bool {
        matches!(self, Self::User | Self::UserAddress | Self::Purchase | Self::Cart)
    }

    /// Whether the call must come after the person's update is effective: joining a list starts journeys, which read the profile.
    pub const fn needs_effect(self) -> bool {
        matches!(self, Self::AddToList | Self::RemoveFromList | Self::Merge | Self::UpdateEmail | Self::UserAddress)
    }

    /// Whether the call creates the person where the vendor does not know them.
    pub const fn creates(self) -> bool {
        matches!(self, Self::User | Self::Event | Self::Purchase | Self::Cart | Self::AddToList | Self::UserAddress)
    }
}

// === requests ===

/// The request of one delivery that goes by itself.
pub(super) fn single(call: Call, delivery: &Delivery, create_new_fields: bool) -> Option<Request> {
    let body = delivery.operation.body.get();
    let own = |endpoint: &'static Endpoint| Some(post(endpoint, body.to_owned()));
    match call {
        Call::User | Call::UserAddress => Some(post(
            &endpoint::USER_UPDATE,
            with_member(body, "createNewFields", if create_new_fields { "true" } else { "false" }),
        )),
        Call::Event => Some(post(&endpoint::TRACK, with_id(body, delivery))),
        Call::Purchase => Some(post(&endpoint::PURCHASE, with_id(body, delivery))),
        Call::Cart => own(&endpoint::CART),
        Call::UpdateEmail => own(&endpoint::UPDATE_EMAIL),
        Call::Merge => own(&endpoint::MERGE),
        Call::Delete => {
            let person = Person::of(body);
            let (field, value) = person.named()?;
            let path = match field {
                Field::Email => format!("/api/users/{}", encoded(value)),
                Field::UserId => format!("/api/users/byUserId/{}", encoded(value)),
            };
            Some(Request::new(&endpoint::DELETE_USER, Method::Delete, path))
        }
        Call::Forget => own(&endpoint::FORGET),
        Call::Unforget => own(&endpoint::UNFORGET),
        Call::Subscriptions => own(&endpoint::SUBSCRIPTIONS),
        Call::Subscribe | Call::Unsubscribe => subscription(call, body),
        Call::AddToList | Call::RemoveFromList | Call::CatalogReplace | Call::CatalogChange | Call::CatalogDelete => {
            None
        }
    }
}

/// Create the person of an event, with nothing but the identifier.
pub(super) fn create(delivery: &Delivery, create_new_fields: bool) -> Option<Request> {
    let person = Person::of(delivery.operation.body.get());
    let (field, value) = person.named()?;
    let mut body = serde_json::json!({"dataFields": {}, "createNewFields": create_new_fields});
    body[field.as_str()] = Value::from(value);
    if field == Field::UserId {
        // Respected where the project identifies people by email, and ignored elsewhere.
        body["preferUserId"] = Value::Bool(true);
    }
    Some(post(&endpoint::USER_UPDATE, body.to_string()))
}

/// `PATCH` begins a subscription, `DELETE` ends it; neither has a body.
fn subscription(call: Call, body: &str) -> Option<Request> {
    let peek = peek(body);
    let person = Person::of(body);
    let (field, value) = person.named()?;
    let by = match field {
        Field::Email => "user",
        Field::UserId => "byUserId",
    };
    let group = peek.subscription_group?;
    let path =
        format!("/api/subscriptions/{}/{}/{by}/{}", encoded(&group), peek.subscription_group_id?, encoded(value));
    let method = if call == Call::Subscribe { Method::Patch } else { Method::Delete };
    Some(Request::new(&endpoint::SUBSCRIPTION, method, path))
}

/// Update many users.
pub(super) fn bulk_update<'a>(bodies: impl Iterator<Item = &'a str>, create_new_fields: bool) -> Request {
    let mut body = format!(r#"{{"createNewFields":{create_new_fields},"users":["#);
    join(&mut body, bodies);
    body.push_str("]}");
    post(&endpoint::BULK_UPDATE, body)
}

/// Record many events. The id of each is the delivery's key unless the author gave one: the vendor overwrites an event that has the
/// same id.
pub(super) fn track_bulk<'a>(deliveries: impl Iterator<Item = &'a Delivery>) -> Request {
    let mut body = String::from(r#"{"events":["#);
    join(&mut body, deliveries.map(|delivery| with_id(delivery.operation.body.get(), delivery)));
    body.push_str("]}");
    post(&endpoint::TRACK_BULK, body)
}

/// Put people on a list, or take them off it.
pub(super) fn membership<'a>(
    call: Call,
    list: &str,
    people: impl Iterator<Item = &'a str>,
    existing_only: Option<bool>,
) -> Request {
    let mut body = format!(r#"{{"listId":{list},"#);
    if let Some(only) = existing_only.filter(|_| call == Call::AddToList) {
        let _infallible = write!(body, r#""updateExistingUsersOnly":{only},"#);
    }
    body.push_str(r#""subscribers":["#);
    join(&mut body, people);
    body.push_str("]}");
    post(if call == Call::AddToList { &endpoint::LIST_SUBSCRIBE } else { &endpoint::LIST_UNSUBSCRIBE }, body)
}

/// Write or delete items of one catalog.
pub(super) fn catalog<'a>(call: Call, catalog: &str, bodies: impl Iterator<Item = &'a str>) -> Request {
    #[derive(Deserialize)]
    struct Item<'a> {
        #[serde(rename = "itemId")]
        id: String,
        #[serde(borrow)]
        value: Option<&'a serde_json::value::RawValue>,
        #[serde(borrow)]
        update: Option<&'a serde_json::value::RawValue>,
    }
    let items = bodies.filter_map(|body| serde_json::from_str::<Item<'_>>(body).ok());
    let path = format!("/api/catalogs/{}/items", encoded(catalog));
    let mut body = String::new();
    if call == Call::CatalogDelete {
        body.push_str(r#"{"itemIds":["#);
        join(&mut body, items.map(|item| quoted(&item.id)));
        body.push_str("]}");
        return Request::new(&endpoint::CATALOG_DELETE, Method::Delete, path).with_body(body);
    }
    let _infallible = write!(body, r#"{{"replaceUploadedFieldsOnly":{},"documents":{{"#, call == Call::CatalogChange);
    let documents = items.map(|item| {
        let document = item.value.or(item.update).map_or("{}", serde_json::value::RawValue::get);
        format!("{}:{document}", quoted(&item.id))
    });
    join(&mut body, documents);
    body.push_str("}}");
    Request::post(&endpoint::CATALOG_ITEMS, path, body)
}

/// Ask whether a person exists. An unknown one is answered with an empty object.
pub(super) fn look_up(field: Field, value: &str) -> Request {
    let path = match field {
        Field::Email => format!("/api/users/getByEmail?email={}", encoded(value)),
        Field::UserId => format!("/api/users/byUserId?userId={}", encoded(value)),
    };
    Request::get(&endpoint::GET_USER, path)
}

/// Ask for the types of the profiles' fields, which changes nothing.
pub(super) fn fields() -> Request {
    Request::get(&endpoint::GET_FIELDS, "/api/users/getFields")
}

/// A merge of nobody, which the vendor refuses after it has checked the key.
pub(super) fn empty_merge() -> Request {
    post(&endpoint::MERGE, "{}".to_owned())
}

/// The catalog and the item of a body.
pub(super) fn catalog_item(body: &str) -> Option<(String, String)> {
    let peek = peek(body);
    Some((peek.catalog_name?.into_owned(), peek.item_id?))
}

/// The body of a delivery of the batch.
pub(super) fn body(batch: &[Delivery], index: usize) -> &str {
    batch.get(index).map_or("", |delivery| delivery.operation.body.get())
}

fn with_id(body: &str, delivery: &Delivery) -> String {
    if peek(body).id.is_some() {
        return body.to_owned();
    }
    with_member(body, "id", &quoted(&delivery.key.to_string()))
}

/// The object with one more member, put before the others.
fn with_member(object: &str, name: &str, value: &str) -> String {
    let rest = object.trim_start().strip_prefix('{').unwrap_or_default();
    let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
    format!(r#"{{"{name}":{value}{comma}{rest}"#)
}

/// A POST to an endpoint whose path has no placeholder.
fn post(endpoint: &'static Endpoint, body: String) -> Request {
    let path = endpoint.label.split_once(' ').map_or("", |(_, path)| path);
    Request::post(endpoint, path, body)
}

fn join(text: &mut String, items: impl Iterator<Item = impl AsRef<str>>) {
    for (index, item) in items.enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(item.as_ref());
    }
}

/// A JSON string.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_put_before_the_others() {
        assert_eq!(with_member(r#"{"a":1}"#, "id", "2"), r#"{"id":2,"a":1}"#);
        assert_eq!(with_member("{}", "id", "2"), r#"{"id":2}"#);
    }

    #[test]
    fn a_persons_identifier_is_encoded_in_addresses() {
        assert_eq!(
            look_up(Field::Email, "a+b/c@example.com").path,
            "/api/users/getByEmail?email=a%2Bb%2Fc%40example.com"
        );
    }
}
