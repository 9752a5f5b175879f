//! What Klaviyo takes: the names and types of a profile and an event at the revision in use.
//!
//! A test holds these lists against the vendor's own specification. Fields that identify a person in a way that cannot be held
//! against the profile, that subscribe somebody, or that the vendor alone writes are left out on purpose and refused with
//! the reason.

/// How a value is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A string; a number is written as one.
    Text,
    /// A string or a number.
    TextOrNumber,
    /// A date-time string.
    Time,
    Number,
    Boolean,
}

/// Attributes of a profile besides its identifiers, `location` and `properties`.
pub(super) const PROFILE: &[(&str, Shape)] = &[
    ("first_name", Shape::Text),
    ("last_name", Shape::Text),
    ("organization", Shape::Text),
    ("locale", Shape::Text),
    ("title", Shape::Text),
    ("image", Shape::Text),
];

pub(super) const LOCATION: &[(&str, Shape)] = &[
    ("address1", Shape::Text),
    ("address2", Shape::Text),
    ("city", Shape::Text),
    ("country", Shape::Text),
    ("latitude", Shape::TextOrNumber),
    ("longitude", Shape::TextOrNumber),
    ("region", Shape::Text),
    ("zip", Shape::Text),
    ("timezone", Shape::Text),
    ("ip", Shape::Text),
];

/// Attributes of an event besides `properties`, `metric` and `profile`.
pub(super) const EVENT: &[(&str, Shape)] = &[
    ("time", Shape::Time),
    ("value", Shape::Number),
    ("value_currency", Shape::Text),
    ("unique_id", Shape::Text),
    ("backfill", Shape::Boolean),
];

/// Attributes that are refused whatever they hold, with the reason.
pub(super) const REFUSED: &[(&str, &str)] = &[
    ("subscriptions", SUBSCRIBES),
    ("consent", SUBSCRIBES),
    ("_kx", UNVERIFIABLE),
    ("anonymous_id", UNVERIFIABLE),
    ("id", "a profile is named by its identifiers; the vendor's own id cannot be held against the profile"),
];

/// Custom properties that the vendor reads as something else, with the reason.
pub(super) const REFUSED_PROPERTIES: &[(&str, &str)] = &[
    ("$email", IN_DISGUISE),
    ("$phone_number", IN_DISGUISE),
    ("$id", IN_DISGUISE),
    ("$anonymous", UNVERIFIABLE),
    ("$exchange_id", UNVERIFIABLE),
    ("$consent", SUBSCRIBES),
    ("$consent_method", SUBSCRIBES),
    ("$consent_form_id", SUBSCRIBES),
    ("$consent_form_version", SUBSCRIBES),
    ("$consent_timestamp", SUBSCRIBES),
];

const SUBSCRIBES: &str = "it would change what a person has agreed to, and a sync subscribes nobody";
const UNVERIFIABLE: &str = "it identifies a person by a browser, which cannot be held against the profile";
const IN_DISGUISE: &str = "it identifies a person; put it under attributes, where it is held against the profile";

/// The longest external id, in characters (observed, undocumented).
pub(super) const EXTERNAL_ID_CHARS_MAX: usize = 255;

/// A metric's name has fewer characters than this.
pub(super) const METRIC_CHARS_END: usize = 128;

/// Properties of an event.
pub(super) const EVENT_PROPERTIES_MAX: usize = 400;

/// Lists that one operation may add a person to. The vendor names no limit; every distinct set of lists is a job of its own, so a
/// transform that returns very many is rather a mistake.
pub(super) const LISTS_MAX: usize = 50;

/// A list id has six characters today; it becomes part of a path.
pub(super) const LIST_ID_BYTES_MAX: usize = 64;
