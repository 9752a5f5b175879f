//! A transform's output → operations. Pure, and the only place that decides whether an output may be sent.
//!
//! The output is the vendor's own JSON. Its shape tells what it is ([`shape`]): a user, an event, a purchase, a cart, a list
//! membership, and so on. It is checked against what the vendor takes, converted where that is safe (a string of digits where a number
//! belongs, an ISO date where the vendor has a format of its own), and cleaned (nulls, blanks). Two things are never let through,
//! whatever the vendor would say: an identifier that is not this profile's, and anything that changes what a person is subscribed to
//! without being an operation of its own.
//!
//! The project decides how a person is named. A request carries one identifier; where an output has both, the other one is written as
//! the field of the profile that it is (`dataFields.userId`, `dataFields.email`).

mod catalog;
mod commerce;
mod event;
mod identity;
mod membership;
mod shape;
mod subscriptions;
mod take;
mod user;

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tailwater_core::code;
use tailwater_core::operation::{Operation, OperationKind};

use super::person::{Field, Identity, Person};
use super::schema::BODY_BYTES_MAX;
use crate::destination::{ClassifyError, ClassifyInput};
use crate::output::{NonFinite, Nulls, omit_nulls, put_null};
use shape::Shape;
use take::{below, convert_dates, invalid, object, wrong_type};

/// What the configuration says about outputs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    /// The vendor's field → the identifier type.
    pub identifiers: &'a BTreeMap<String, String>,
    pub identity: Identity,
    pub create: bool,
    pub create_new_fields: bool,
    pub merge_nested_objects: bool,
    pub nulls: Nulls,
    pub non_finite: NonFinite,
    pub convert_dates: bool,
}

/// The `target` of a person's shopping cart: a state of its own beside the profile.
pub(super) const CART: &str = "shopping_cart";

/// One operation before it is written.
struct Made {
    kind: OperationKind,
    target: Option<String>,
    body: Map<String, Value>,
}

/// Turns one output into its operations, in the order in which they are delivered.
///
/// # Errors
/// The output does not fit, or names somebody else; the message says where, what was expected and what to do.
pub(super) fn classify(rules: Rules<'_>, input: &ClassifyInput<'_>) -> Result<Vec<Operation>, ClassifyError> {
    let root: Value = serde_json::from_str(input.output.get()).map_err(|error| {
        invalid("the output", &format!("cannot be read ({error}); return plain data of moderate depth"))
    })?;
    refuse_non_finite(rules.non_finite, input.non_finite)?;
    let mut root = object(root, "the output", "`{email, dataFields: {…}}`")?;
    let shape = shape::take(&mut root)?;
    let mut checker = Checker { rules, input };
    let made = match shape {
        Shape::User => vec![checker.user_operation(root)?],
        Shape::Event => vec![checker.event(root)?],
        Shape::Purchase => vec![checker.purchase(root)?],
        Shape::Cart => vec![checker.cart(root)?],
        Shape::Membership(kind) => checker.membership(kind, root)?,
        Shape::ChangeEmail => vec![checker.change_email(root)?],
        Shape::Merge => vec![checker.merge(root)?],
        Shape::Removal(kind) => vec![checker.removal(kind, root)?],
        Shape::Subscriptions => vec![checker.subscriptions(root)?],
        Shape::Subscription(kind) => vec![checker.subscription(kind, root)?],
        Shape::CatalogItem(kind) => vec![checker.catalog_item(kind, root)?],
    };
    let last = made.len().saturating_sub(1);
    made.into_iter()
        .enumerate()
        .map(|(index, mut made)| {
            // Fields of the profile are in the first operation of an output.
            let non_finite = if index == 0 { input.non_finite } else { &[] };
            clear_non_finite(rules.non_finite, non_finite, &mut made, last)?;
            write(made, input, non_finite)
        })
        .collect()
}

fn write(made: Made, input: &ClassifyInput<'_>, non_finite: &[String]) -> Result<Operation, ClassifyError> {
    let unwritable = |error: serde_json::Error| invalid("the output", &format!("cannot be written as JSON ({error})"));
    let text = serde_json::to_string(&made.body).map_err(unwritable)?;
    if text.len() > BODY_BYTES_MAX {
        let message =
            format!("the output: {} bytes, the limit is {BODY_BYTES_MAX}; send fewer or shorter fields", text.len());
        return Err(ClassifyError { code: code::PAYLOAD_TOO_LARGE, message });
    }
    Ok(Operation {
        kind: made.kind,
        route: input.route.to_owned(),
        place: input.ordinal.to_string(),
        target: made.target,
        body: RawValue::from_string(text).map_err(unwritable)?,
        non_finite: non_finite.to_vec(),
    })
}

struct Checker<'a> {
    rules: Rules<'a>,
    input: &'a ClassifyInput<'a>,
}

impl Checker<'_> {
    /// Takes the identifiers out of an object. Null and blank count as absent.
    fn take_person(&self, from: &mut Map<String, Value>, at: &str) -> Result<Person, ClassifyError> {
        let mut person = Person::default();
        for field in Field::ALL {
            let Some(value) = from.remove(field.as_str()) else { continue };
            if let Some(own) = self.own(field, value, &below(at, field.as_str()))? {
                person.put(field, own);
            }
        }
        Ok(person)
    }

    /// An identifier must be one of the profile's, of the type that the configuration gives the field. The profile's own spelling is
    /// sent.
    fn own(&self, field: Field, value: Value, at: &str) -> Result<Option<String>, ClassifyError> {
        let text = match value {
            Value::Null => return Ok(None),
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            other => return Err(wrong_type(at, "a text", &other)),
        };
        if text.trim().is_empty() {
            return Ok(None);
        }
        let foreign = |message: String| ClassifyError { code: code::FOREIGN_IDENTIFIER, message };
        let Some(kind) = self.rules.identifiers.get(field.as_str()) else {
            return Err(foreign(format!(
                "{at}: the destination does not say which identifier type `{field}` holds, so it cannot be checked against the profile; \
                 add `identifiers: {{{field}: <type>}}` to the destination or leave the field out",
                field = field.as_str()
            )));
        };
        let wanted = field.normal(&text);
        let own = self.input.identifiers.iter().filter(|(own, _)| own == kind).map(|(_, value)| *value);
        let Some(own) = own.into_iter().find(|own| field.normal(own) == wanted) else {
            return Err(foreign(format!(
                "{at}: the value is no identifier of the type `{kind}` of this profile; use the row's own column, which shows the \
                 profile's value, and never a copy from elsewhere"
            )));
        };
        let own = own.trim();
        if field == Field::UserId && !own.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return Err(invalid(
                at,
                "holds characters that the vendor does not take in a user id; it takes printable ASCII",
            ));
        }
        Ok(Some(own.to_owned()))
    }

    /// The field that the project names the person by.
    fn field_of(&self, person: &Person, at: &str) -> Result<Field, ClassifyError> {
        self.rules.identity.field(person).ok_or_else(|| {
            let wanted = match self.rules.identity {
                Identity::Email | Identity::Hybrid => "`email` or `userId`",
                Identity::UserId => "`userId`",
            };
            let place = if at.is_empty() { "the output" } else { at };
            let message =
                format!("names nobody; the project {}, so give {wanted} with a value", self.rules.identity.describe());
            invalid(place, &message)
        })
    }

    /// Puts the identifier into an object that may hold only one.
    fn put_name(&self, person: &Person, at: &str, out: &mut Map<String, Value>) -> Result<(), ClassifyError> {
        let field = self.field_of(person, at)?;
        out.insert(field.as_str().to_owned(), Value::from(person.get(field).unwrap_or_default()));
        Ok(())
    }

    /// `dataFields` of an event, a purchase or an item: free data, in which a null clears nothing.
    fn facts(&self, value: Value, at: &str) -> Result<Map<String, Value>, ClassifyError> {
        let mut fields = object(value, at, "an object")?;
        omit_nulls(&mut fields);
        if self.rules.convert_dates {
            fields.values_mut().for_each(convert_dates);
        }
        Ok(fields)
    }
}

/// `non_finite: reject`.
fn refuse_non_finite(rule: NonFinite, paths: &[String]) -> Result<(), ClassifyError> {
    match (rule, paths.first()) {
        (NonFinite::Reject, Some(first)) => {
            let message = format!(
                "{first}: the number is not finite (NaN or infinite), and the destination says `non_finite: reject`; guard it in the \
                 transform"
            );
            Err(ClassifyError { code: code::NON_FINITE_NUMBER, message })
        }
        (NonFinite::Reject | NonFinite::Omit | NonFinite::Clear, _) => Ok(()),
    }
}

/// `non_finite: clear`: a null where the sandbox took the number out. It comes after nulls were left out, since it is meant. Only the
/// fields of a profile can be cleared; of an event nothing was there before.
fn clear_non_finite(rule: NonFinite, paths: &[String], made: &mut Made, last: usize) -> Result<(), ClassifyError> {
    if rule != NonFinite::Clear || (made.kind != OperationKind::UpsertProfile && last == 0) {
        return Ok(());
    }
    for path in paths {
        let path_of_user = path.strip_prefix("subscribers[0].").unwrap_or(path);
        let (holder, rest) =
            match (path_of_user.strip_prefix("user.dataFields."), path_of_user.strip_prefix("dataFields.")) {
                (Some(rest), _) => (made.body.get_mut("user").and_then(|user| user.get_mut("dataFields")), rest),
                (None, Some(rest)) => (made.body.get_mut("dataFields"), rest),
                (None, None) => (None, ""),
            };
        if !holder.is_some_and(|fields| put_null(fields, rest)) {
            let message = format!(
                "{path}: the number is not finite, and `non_finite: clear` can clear fields in `dataFields` of a user only"
            );
            return Err(ClassifyError { code: code::NON_FINITE_NUMBER, message });
        }
    }
    Ok(())
}
