//! What Iterable takes: the names and types of a user, an event, a purchase and a catalog item.
//!
//! A test checks these lists against the vendor's own specification. Fields that would change what a person has agreed to, or that
//! the vendor alone writes, are left out on purpose and refused with the reason.

/// How a value is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A string; a number is written as one.
    Text,
    Number,
    /// A whole number; a string of digits is read as one.
    Integer,
    Boolean,
    /// Seconds since 1970; a date-time string or a number in another unit is converted.
    Time,
    /// An array of strings.
    Texts,
    /// An array of whole numbers.
    Integers,
}

/// A user beside its identifiers and `dataFields`.
pub(super) const USER: &[(&str, Shape)] =
    &[("preferUserId", Shape::Boolean), ("mergeNestedObjects", Shape::Boolean), ("createNewFields", Shape::Boolean)];

/// An event beside its identifiers and `dataFields`.
pub(super) const EVENT: &[(&str, Shape)] = &[
    ("eventName", Shape::Text),
    ("id", Shape::Text),
    ("createdAt", Shape::Time),
    ("campaignId", Shape::Integer),
    ("templateId", Shape::Integer),
    ("createNewFields", Shape::Boolean),
];

/// A purchase beside `user`, `items` and `dataFields`.
pub(super) const PURCHASE: &[(&str, Shape)] = &[
    ("total", Shape::Number),
    ("id", Shape::Text),
    ("createdAt", Shape::Time),
    ("campaignId", Shape::Integer),
    ("templateId", Shape::Integer),
];

/// An item of a purchase or a cart beside `dataFields`.
pub(super) const ITEM: &[(&str, Shape)] = &[
    ("id", Shape::Text),
    ("name", Shape::Text),
    ("price", Shape::Number),
    ("quantity", Shape::Integer),
    ("sku", Shape::Text),
    ("description", Shape::Text),
    ("categories", Shape::Texts),
    ("imageUrl", Shape::Text),
    ("url", Shape::Text),
];

/// What every item must have.
pub(super) const ITEM_REQUIRED: &[&str] = &["id", "name", "price", "quantity"];

/// The fields of `POST /api/users/updateSubscriptions` beside the identifiers.
pub(super) const SUBSCRIPTIONS: &[(&str, Shape)] = &[
    ("emailListIds", Shape::Integers),
    ("unsubscribedChannelIds", Shape::Integers),
    ("unsubscribedMessageTypeIds", Shape::Integers),
    ("subscribedMessageTypeIds", Shape::Integers),
    ("validateChannelAlignment", Shape::Boolean),
    ("campaignId", Shape::Integer),
    ("templateId", Shape::Integer),
];

/// Those of them that say what a person is subscribed to.
pub(super) const SUBSCRIPTION_LISTS: &[&str] =
    &["emailListIds", "unsubscribedChannelIds", "unsubscribedMessageTypeIds", "subscribedMessageTypeIds"];

/// Fields of a user's `dataFields` that are refused whatever they hold, with the reason.
pub(super) const REFUSED_FIELDS: &[(&str, &str)] = &[
    ("emailListIds", MEMBERSHIP),
    ("unsubscribedChannelIds", SUBSCRIBES),
    ("unsubscribedMessageTypeIds", SUBSCRIBES),
    ("subscribedMessageTypeIds", SUBSCRIBES),
    ("itblInternal", "the vendor alone writes it"),
];

const MEMBERSHIP: &str = "it overwrites the lists that a person is on; return `{_operation: 'add_to_list', listId, email}` as an output of its own";
const SUBSCRIBES: &str = "it changes what a person has agreed to; return it beside the person's identifier, outside of `dataFields`, with `_operation: 'unsubscribe'`";

/// The groups of `PATCH` and `DELETE /api/subscriptions/{subscriptionGroup}/…`.
pub(super) const SUBSCRIPTION_GROUPS: &[&str] = &["emailList", "messageType", "messageChannel"];

/// The longest id of an event or a purchase, in bytes.
pub(super) const EVENT_ID_BYTES_MAX: usize = 512;

/// The longest name of a catalog and id of an item, in characters.
pub(super) const CATALOG_NAME_CHARS_MAX: usize = 255;

/// The largest catalog item, in bytes; the vendor takes 30 KB without saying whether that is 30,000 or 30,720 bytes.
pub(super) const CATALOG_ITEM_BYTES_MAX: usize = 30_000;

/// The largest operation, in bytes. The vendor takes 4 MB; an outbound record of that size would not fit into Kafka.
pub(super) const BODY_BYTES_MAX: usize = 900_000;
