//! A transform's output → operations. Pure, and the only place that decides whether an output may be sent.
//!
//! Two shapes are taken, whichever API the account uses: an item of the Track API (`{type: 'person', identifiers, action, …}`), and a
//! call as Segment's libraries make it (`{type: 'identify', userId, traits}`). Both become items of the Track API; see `payload`. The
//! Track API has no item for a manual segment, so the author says `_operation: 'add_to_list'` beside `segment_id`.
//!
//! ```text
//! output ─ shape ─▶ item     ─┐
//!                   call     ─┼▶ build ─▶ Draft ─▶ Operation
//!                   member   ─┘   (person, attributes, time, limits)
//! ```
//!
//! Three things are never let through, whatever the vendor would say: an identifier that is not this profile's, a change of what a
//! person has agreed to that the author does not name, and a null where an identifier belongs.

mod attributes;
mod build;
mod call;
mod item;
mod member;
mod person;
pub(super) mod take;
mod time;

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tailwater_core::operation::{Operation, OperationKind};
use tailwater_core::{Timestamp, code};

pub(super) use person::Field;

use super::config::{Api, Milliseconds};
use super::limits::{ITEM_BYTES_MAX, too_large};
use super::payload::Payload;
use super::{SPEC, pipelines};
use crate::destination::{ClassifyError, ClassifyInput};
use crate::output::{NonFinite, Nulls, nearest, omit_nulls, put_null, take_operation};
use take::{invalid, object, wrong_type};

/// What a request adds to an item: the id of an event.
const EVENT_ID_BYTES: usize = r#","id":"01ARZ3NDEKTSV4RRFFQ69G5FAV""#.len();

const EXAMPLE: &str = "`{type: 'person', identifiers: {id: row.user_id}, action: 'identify', attributes: {…}}` or `{type: 'identify', userId: row.user_id, traits: {…}}`";

/// What the configuration says about outputs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    pub api: Api,
    /// The field that holds the destination's `identifier`.
    pub key: Field,
    /// The vendor's field → the identifier type.
    pub identifiers: &'a BTreeMap<String, String>,
    pub create: bool,
    pub implicit_create: bool,
    pub nulls: Nulls,
    pub non_finite: NonFinite,
    pub milliseconds: Milliseconds,
    pub state_timestamps: bool,
}

/// An output while it is read.
struct Author<'a> {
    rules: Rules<'a>,
    input: &'a ClassifyInput<'a>,
    /// What was left out or converted since the last draft.
    remarks: Vec<String>,
}

/// An operation before its body is written.
struct Draft {
    kind: OperationKind,
    target: Option<String>,
    item: Value,
    time: Option<Timestamp>,
    event_id: Option<String>,
    anonymous_id: Option<String>,
    context: Option<Map<String, Value>>,
    integrations: Option<Map<String, Value>>,
    by: Option<String>,
    remarks: Vec<String>,
}

/// What an output is, by its `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Person,
    Object,
    Call,
    Member,
}

/// Turns one output into its operations, in the order in which they are delivered.
///
/// # Errors
/// The output does not fit, or names somebody else; the message says where, what was expected and what to do.
pub(super) fn classify(rules: Rules<'_>, input: &ClassifyInput<'_>) -> Result<Vec<Operation>, ClassifyError> {
    let mut root: Value = serde_json::from_str(input.output.get())
        .map_err(|error| invalid("", &format!("cannot be read ({error}); return plain data of moderate depth")))?;
    refuse_non_finite(rules.non_finite, input.non_finite)?;
    settle_nulls(rules, input, &mut root)?;
    let mut root = object(root, "", EXAMPLE)?;
    let said = take_operation(&mut root, &SPEC)?;
    let shape = shape(&root, said)?;
    let mut author = Author { rules, input, remarks: Vec::new() };
    let drafts = match shape {
        Shape::Person => author.person_item(root, said)?,
        Shape::Object => author.object_item(root)?,
        Shape::Call => author.call(root, said)?,
        Shape::Member => author.member(root, said)?,
    };
    if let Some(said) = said
        && !drafts.iter().any(|draft| draft.kind == said)
    {
        let made = drafts.first().map_or("nothing", |draft| draft.kind.as_str());
        return Err(invalid("_operation", &format!("is `{said}`, but the output is a `{made}`")));
    }
    drafts.into_iter().map(|draft| draft.into_operation(rules, input)).collect()
}

fn shape(root: &Map<String, Value>, said: Option<OperationKind>) -> Result<Shape, ClassifyError> {
    const TYPES: [&str; 8] = ["person", "object", "identify", "track", "page", "screen", "group", "alias"];
    match said {
        Some(OperationKind::AddToList | OperationKind::RemoveFromList) => return Ok(Shape::Member),
        _ if root.contains_key("segment_id") => return Ok(Shape::Member),
        _ => {}
    }
    match root.get("type") {
        Some(Value::String(kind)) => match kind.as_str() {
            "person" => Ok(Shape::Person),
            "object" => Ok(Shape::Object),
            "identify" | "track" | "page" | "screen" | "group" | "alias" => Ok(Shape::Call),
            "delivery" => {
                Err(invalid("type", "is `delivery`: metrics of messages are reported by the device that shows them"))
            }
            other => {
                let hint = nearest(other, TYPES).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                Err(invalid("type", &format!("is `{other}`; expected one of {}{hint}", TYPES.join(", "))))
            }
        },
        Some(other) => Err(wrong_type("type", "a text such as 'person' or 'identify'", other)),
        None => Err(invalid("", &format!("has no `type`; expected {EXAMPLE}"))),
    }
}

/// `non_finite: reject`.
fn refuse_non_finite(rule: NonFinite, paths: &[String]) -> Result<(), ClassifyError> {
    match (rule, paths.first()) {
        (NonFinite::Reject, Some(first)) => {
            let message = format!(
                "{first}: the number is not finite (NaN or infinite), and the destination says `non_finite: reject`; guard it in the transform"
            );
            Err(ClassifyError { code: code::NON_FINITE_NUMBER, message })
        }
        (NonFinite::Reject | NonFinite::Omit | NonFinite::Clear, _) => Ok(()),
    }
}

/// Leaves nulls out of what is set at the vendor, unless they clear; then puts one where a number that is not finite was taken out and
/// `non_finite: clear` says so.
fn settle_nulls(rules: Rules<'_>, input: &ClassifyInput<'_>, root: &mut Value) -> Result<(), ClassifyError> {
    const PLACES: [&str; 2] = ["attributes", "traits"];
    if rules.nulls == Nulls::Omit {
        for place in PLACES {
            if let Some(Value::Object(members)) = root.get_mut(place) {
                omit_nulls(members);
            }
        }
    }
    let text = |name: &str| root.get(name).and_then(Value::as_str).unwrap_or_default();
    // Of an event, nothing was there before that could be cleared.
    let sets = text("action") == "identify" || matches!(text("type"), "identify" | "group");
    if rules.non_finite != NonFinite::Clear || !sets {
        return Ok(());
    }
    for path in input.non_finite {
        let below = PLACES.iter().any(|place| path.strip_prefix(place).is_some_and(|rest| rest.starts_with('.')));
        if !(below && put_null(root, path)) {
            let message =
                format!("{path}: the number is not finite, and `non_finite: clear` can clear attributes only");
            return Err(ClassifyError { code: code::NON_FINITE_NUMBER, message });
        }
    }
    Ok(())
}

// === impl Draft ===

impl Draft {
    fn into_operation(self, rules: Rules<'_>, input: &ClassifyInput<'_>) -> Result<Operation, ClassifyError> {
        SPEC.supported(self.kind)?;
        let unwritable = |error: serde_json::Error| invalid("", &format!("cannot be written as JSON ({error})"));
        let payload = Payload {
            item: serde_json::value::to_raw_value(&self.item).map_err(unwritable)?,
            time: self.time,
            event_id: self.event_id,
            anonymous_id: self.anonymous_id,
            context: self.context,
            integrations: self.integrations,
            by: self.by,
            remarks: self.remarks,
        };
        let bytes = match rules.api {
            Api::Track => payload.item.get().len() + EVENT_ID_BYTES,
            Api::Pipelines => {
                let call = pipelines::call(&payload, "00000000000000000000000000");
                call.map_err(|reason| invalid("", &reason))?.body.len()
            }
        };
        if bytes > ITEM_BYTES_MAX {
            return Err(too_large(bytes));
        }
        let body: Box<RawValue> = serde_json::value::to_raw_value(&payload).map_err(unwritable)?;
        Ok(Operation {
            kind: self.kind,
            route: input.route.to_owned(),
            place: input.ordinal.to_string(),
            target: self.target,
            body,
            non_finite: input.non_finite.to_vec(),
        })
    }
}
