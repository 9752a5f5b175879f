//! What Customer.io takes, and how it words a violation.
//!
//! The limits are checked before anything is sent: the Pipelines API answers 200 to what it drops unless strict mode is on, and the
//! Track API refuses a whole request for some of them. Sources: the descriptions of both published specifications.

use serde_json::{Map, Value};
use tailwater_core::code;

use super::mapping::take::invalid;
use crate::destination::ClassifyError;

/// The largest item of a batch, or body of a single request, in bytes. The vendor says "32kb" without saying whether that is 32,000 or
/// 32,768 bytes; the smaller one is safe. It holds for an item with the id of its event.
pub(super) const ITEM_BYTES_MAX: usize = 32_000;

/// The largest batch, in bytes. The vendor says "smaller than 500kb"; a margin below 500,000 costs nothing.
pub(super) const BATCH_BYTES_MAX: usize = 490_000;

/// Items of one batch. The vendor documents no number; other clients stop at 1,000.
pub(super) const BATCH_ITEMS_MAX: usize = 1_000;

/// People of one request that changes a manual segment.
pub(super) const SEGMENT_IDS_MAX: usize = 1_000;

/// A person's or an object's identifier.
pub(super) const ID_BYTES_MAX: usize = 150;

const ATTRIBUTES_MAX: usize = 300;
const ATTRIBUTE_NAME_BYTES_MAX: usize = 150;
const ATTRIBUTE_VALUE_BYTES_MAX: usize = 1_000;

/// The name of an event, a page or a screen.
pub(super) const EVENT_NAME_BYTES_MAX: usize = 100;

/// Relationships that one output may name. Each becomes an operation of its own; more is rather a mistake of the transform.
pub(super) const RELATIONSHIPS_MAX: usize = 50;

/// Checks attributes of a person, an object or a relationship.
///
/// # Errors
/// The first violation, in the vendor's words and with its path.
pub(super) fn check_attributes(attributes: &Map<String, Value>, at: &str) -> Result<(), ClassifyError> {
    if attributes.len() > ATTRIBUTES_MAX {
        let message = format!(
            "the vendor says: cannot identify more than {ATTRIBUTES_MAX} attributes in one request; these are {}",
            attributes.len()
        );
        return Err(invalid(at, &message));
    }
    for (name, value) in attributes {
        if name.len() > ATTRIBUTE_NAME_BYTES_MAX {
            let start: String = name.chars().take(40).collect();
            let message = format!(
                "the vendor says: attribute name cannot be longer than {ATTRIBUTE_NAME_BYTES_MAX} bytes; this one has {}",
                name.len()
            );
            return Err(invalid(&format!("{at}.{start}…"), &message));
        }
        let bytes = value_bytes(value);
        if bytes > ATTRIBUTE_VALUE_BYTES_MAX {
            let message = format!(
                "the vendor says: attribute value cannot be longer than {ATTRIBUTE_VALUE_BYTES_MAX} bytes; this one has {bytes}"
            );
            return Err(invalid(&format!("{at}.{name}"), &message));
        }
    }
    Ok(())
}

/// A text counts as it is, anything else as its JSON.
fn value_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Null | Value::Bool(_) => 0,
        other => other.to_string().len(),
    }
}

/// Checks the length of an identifier.
///
/// # Errors
/// It is too long.
pub(super) fn check_id(value: &str, at: &str) -> Result<(), ClassifyError> {
    if value.len() > ID_BYTES_MAX {
        let message =
            format!("the vendor says: id cannot be longer than {ID_BYTES_MAX} bytes; this one has {}", value.len());
        return Err(invalid(at, &message));
    }
    Ok(())
}

/// An item with this many bytes is too large.
pub(super) fn too_large(bytes: usize) -> ClassifyError {
    let message = format!(
        "the output: the vendor says: request is limited to 32KB; this one has {bytes} bytes of {ITEM_BYTES_MAX}; send fewer or shorter values"
    );
    ClassifyError { code: code::PAYLOAD_TOO_LARGE, message }
}
