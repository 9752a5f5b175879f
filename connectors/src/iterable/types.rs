//! The types of a project's fields. The vendor fixes a field's type when it is first written, for the whole project (for events, for
//! each event name), and refuses a whole bulk request for one value of another type. The refusal names the field and one of the wrong
//! values, but no position.
//!
//! So the deliveries that hold such a value are located by the field and by the kind of the value; the others are sent again without
//! them. What was learned is remembered: deliveries that hold a value of a kind that the field does not take go in a request of their own
//! from then on, and cannot fail their neighbors again. Whether they are refused is still the vendor's decision.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::person::Field;

/// Fields that are remembered; a project has about a thousand.
const FIELDS_MAX: usize = 10_000;

/// The category of the fields of a profile; of an event, it is the event's name.
const USER: &str = "user";

/// One field that a refusal names.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mismatch {
    /// The path below `dataFields`.
    pub field: String,
    pub expected: String,
    incoming: Vec<String>,
    offending: Value,
    category: String,
}

/// What a value is to the vendor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Boolean,
    Long,
    Double,
    Text,
    Date,
    Object,
}

/// The types that are known, and since when a field has come with another one.
#[derive(Debug, Default)]
pub(super) struct Types(Mutex<State>);

/// By the event's name (empty for users), then by the field's path.
#[derive(Debug, Default)]
struct State {
    fields: HashMap<String, HashMap<String, Known>>,
    count: usize,
    /// The fields that the project has reported of its profiles, once it has.
    reported: Option<HashSet<String>>,
}

#[derive(Debug, Clone, Default)]
struct Known {
    expected: String,
    /// Where a value of a wrong kind was first seen, in the words of the source.
    since: BTreeMap<Kind, String>,
}

/// The fields of one delivery, as they are compared with a refusal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    /// The event's name; `None` for a user.
    pub event: Option<&'a str>,
    /// `dataFields`.
    pub fields: &'a Value,
}

// === impl Mismatch ===

impl Mismatch {
    /// Reads the fields that a refusal names; empty where it names none.
    pub fn read(params: &Value) -> Vec<Self> {
        let Some(errors) = params.get("validationErrors").and_then(Value::as_object) else { return Vec::new() };
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let read = |(name, error): (&String, &Value)| {
            let incoming = error.get("incomingTypes").and_then(Value::as_array).into_iter().flatten();
            Self {
                // Some projects put their name before the field's.
                field: name.rsplit(":::").next().unwrap_or(name).to_owned(),
                expected: text(error.get("expectedType")),
                incoming: incoming.filter_map(Value::as_str).map(str::to_lowercase).collect(),
                offending: error.get("offendingValue").cloned().unwrap_or_default(),
                category: text(error.get("category")),
            }
        };
        errors.iter().map(read).collect()
    }

    /// The values of a delivery that the refusal can mean.
    fn values<'a>(&self, fields: &Fields<'a>) -> Vec<&'a Value> {
        // Fields of one name are of different types in events of different names.
        let other_event = fields.event.is_some_and(|event| !self.category.is_empty() && self.category != event)
            && fields.event != Some(self.category.as_str());
        let named_event = !matches!(self.category.as_str(), "" | USER | "event" | "customEvent" | "custom_event");
        if other_event && named_event {
            return Vec::new();
        }
        values_at(fields.fields, &self.field)
    }

    fn is_offending(&self, value: &Value) -> bool {
        let numbers = value.as_f64().zip(self.offending.as_f64());
        *value == self.offending
            || numbers.is_some_and(|(one, other)| one.total_cmp(&other).is_eq())
            || (!value.is_null() && !self.offending.is_null() && plain(value) == plain(&self.offending))
    }
}

/// The positions whose values a refusal means, each with the field. Every value of the same kind at the same field is meant, as the
/// vendor decides by kind and shows one example. Empty where nothing fits: then the request has to be halved.
pub(super) fn locate<'m>(mismatches: &'m [Mismatch], members: &[Fields<'_>]) -> BTreeMap<usize, (&'m Mismatch, Kind)> {
    let mut found = BTreeMap::new();
    for mismatch in mismatches {
        let of_member: Vec<Vec<&Value>> = members.iter().map(|member| mismatch.values(member)).collect();
        let offending = of_member.iter().flatten().filter(|value| mismatch.is_offending(value));
        let mut kinds: Vec<Kind> = offending.filter_map(|value| Kind::of(value)).collect();
        if kinds.is_empty() {
            kinds = mismatch.incoming.iter().filter_map(|name| Kind::named(name)).collect();
        }
        kinds.retain(|kind| !kind.fits(&mismatch.expected));
        for (position, values) in of_member.iter().enumerate() {
            if let Some(kind) = values.iter().filter_map(|value| Kind::of(value)).find(|kind| kinds.contains(kind)) {
                found.entry(position).or_insert((mismatch, kind));
            }
        }
    }
    found
}

// === impl Kind ===

impl Kind {
    /// `None` for null, which fits every field. An array is of the kind of its elements.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Null => None,
            Value::Bool(_) => Some(Self::Boolean),
            Value::Number(number) if number.is_f64() => Some(Self::Double),
            Value::Number(_) => Some(Self::Long),
            Value::String(text) if is_date(text) => Some(Self::Date),
            Value::String(_) => Some(Self::Text),
            Value::Array(items) => items.iter().find_map(Self::of),
            Value::Object(_) => Some(Self::Object),
        }
    }

    /// The kind that the vendor calls by this name.
    fn named(name: &str) -> Option<Self> {
        match name {
            "boolean" => Some(Self::Boolean),
            "long" | "integer" | "int" => Some(Self::Long),
            "double" | "float" | "number" => Some(Self::Double),
            "string" | "keyword" | "text" => Some(Self::Text),
            "date" => Some(Self::Date),
            "object" | "nested" => Some(Self::Object),
            _ => None,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Long => "long",
            Self::Double => "double",
            Self::Text => "string",
            Self::Date => "date",
            Self::Object => "object",
        }
    }

    /// Whether a field of the type may hold it. A field of doubles holds whole numbers.
    fn fits(self, expected: &str) -> bool {
        let expected = Self::named(&expected.to_lowercase());
        expected == Some(self) || (expected == Some(Self::Double) && self == Self::Long)
    }
}

// === impl Types ===

impl Types {
    /// Remembers what a refusal tells, and answers since when the field has come with that kind of value.
    pub fn learn(&self, event: Option<&str>, mismatch: &Mismatch, kind: Kind, place: Option<String>) -> Option<String> {
        let mut state = self.lock();
        let Some(known) = state.entry(event, &mismatch.field) else { return place };
        known.expected.clone_from(&mismatch.expected);
        match place {
            Some(place) => Some(known.since.entry(kind).or_insert(place).clone()),
            None => known.since.get(&kind).cloned(),
        }
    }

    /// Remembers the types that the project reports of its profiles' fields.
    pub fn report<'a>(&self, fields: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let mut state = self.lock();
        let mut reported = HashSet::new();
        for (field, expected) in fields.into_iter().take(FIELDS_MAX) {
            if let Some(known) = state.entry(None, field) {
                expected.clone_into(&mut known.expected);
            }
            reported.insert(field.to_owned());
        }
        state.reported = Some(reported);
    }

    /// The fields of a profile that the project does not have; `None` as long as it was not asked.
    pub fn missing(&self, fields: &Value) -> Option<Vec<String>> {
        let state = self.lock();
        let reported = state.reported.as_ref()?;
        let names =
            fields.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()).map(|(name, _)| name);
        // An object is there where one of its own fields is.
        let is_there = |name: &String| {
            Field::find(name).is_some()
                || reported.contains(name)
                || reported.iter().any(|own| own.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('.')))
        };
        Some(names.filter(|name| !is_there(name)).cloned().collect())
    }

    /// Whether anything is known.
    pub fn is_used(&self) -> bool {
        self.lock().count > 0
    }

    /// Whether a delivery holds a value that a field does not take, as far as is known.
    pub fn doubts(&self, fields: &Fields<'_>) -> bool {
        let state = self.lock();
        let Some(known) = state.fields.get(fields.event.unwrap_or_default()) else { return false };
        !known.is_empty() && doubtful(fields.fields, "", known)
    }

    /// The values behind the lock are whole at every point where a panic could happen, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// `None` once there are too many.
    fn entry(&mut self, event: Option<&str>, field: &str) -> Option<&mut Known> {
        let event = event.unwrap_or_default();
        let is_known = self.fields.get(event).is_some_and(|fields| fields.contains_key(field));
        if !is_known {
            if self.count >= FIELDS_MAX {
                return None;
            }
            self.count += 1;
        }
        Some(self.fields.entry(event.to_owned()).or_default().entry(field.to_owned()).or_default())
    }
}

/// Whether a value below `path` is of a kind that its field does not take.
fn doubtful(value: &Value, path: &str, known: &HashMap<String, Known>) -> bool {
    let here = known.get(path).is_some_and(|known| {
        Kind::named(&known.expected).is_some() && Kind::of(value).is_some_and(|kind| !kind.fits(&known.expected))
    });
    here || match value {
        Value::Object(object) => object.iter().any(|(name, value)| {
            if path.is_empty() {
                doubtful(value, name, known)
            } else {
                doubtful(value, &format!("{path}.{name}"), known)
            }
        }),
        Value::Array(items) => items.iter().any(|item| item.is_object() && doubtful(item, path, known)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// The values at a path whose steps are divided by periods; an array on the way means each of its elements. A name may itself have
/// periods.
pub(super) fn values_at<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    match value {
        Value::Array(items) => items.iter().flat_map(|item| values_at(item, path)).collect(),
        Value::Object(object) => {
            if let Some(found) = object.get(path) {
                return vec![found];
            }
            let steps = path.match_indices('.').filter_map(|(end, _)| Some((path.get(..end)?, path.get(end + 1..)?)));
            steps.filter_map(|(step, rest)| object.get(step).map(|inner| values_at(inner, rest))).flatten().collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// A value as text without quotes: the vendor shows numbers as text now and then.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The vendor's format of a date, or a plain ISO one.
fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits =
        |range: std::ops::Range<usize>| bytes.get(range).is_some_and(|part| part.iter().all(u8::is_ascii_digit));
    let is_day =
        digits(0..4) && bytes.get(4) == Some(&b'-') && digits(5..7) && bytes.get(7) == Some(&b'-') && digits(8..10);
    is_day && (bytes.len() == 10 || (bytes.len() >= 20 && tailwater_core::Timestamp::parse(text).is_some()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mismatch(field: &str, expected: &str, incoming: &[&str], offending: Value) -> Vec<Mismatch> {
        Mismatch::read(
            &json!({"validationErrors": {field: {"incomingTypes": incoming, "expectedType": expected, "category": "user",
            "offendingValue": offending, "_type": "UnexpectedType"}}}),
        )
    }

    fn located(mismatches: &[Mismatch], fields: &[Value]) -> Vec<usize> {
        let members: Vec<_> = fields.iter().map(|fields| Fields { event: None, fields }).collect();
        locate(mismatches, &members).into_keys().collect()
    }

    // I1: one value of the wrong type fails a whole bulk request.
    #[test]
    fn the_row_with_the_wrong_type_is_located_by_field_and_value() {
        let rows = [
            json!({"ltv": 1.5}),
            json!({"ltv": "high"}),
            json!({"ltv": 2}),
            json!({"x": "high"}),
            json!({"ltv": "low"}),
        ];
        for field in ["ltv", "my_project_etl:::ltv"] {
            let told = mismatch(field, "double", &["string", "keyword"], json!("high"));
            assert_eq!(located(&told, &rows), [1, 4], "every text at the field");
        }
        assert_eq!(located(&mismatch("ltv", "string", &["double"], json!("1.5")), &rows), [0], "shown as text");
    }

    #[test]
    fn a_nested_field_is_located() {
        let rows = [
            json!({"a": {"b": [{"c": 1}, {"c": "x"}]}}),
            json!({"a": {"b": [{"c": 1}]}}),
            json!({"a.b.c": "y"}),
            json!(null),
        ];
        assert_eq!(located(&mismatch("a.b.c", "long", &["string"], json!("x")), &rows), [0, 2]);
    }

    #[test]
    fn a_value_that_nobody_has_is_located_by_the_incoming_types_or_not_at_all() {
        let rows = [json!({"ltv": 1.5}), json!({"ltv": "high"})];
        assert_eq!(located(&mismatch("ltv", "double", &["string", "keyword"], json!("gone")), &rows), [1]);
        assert!(located(&mismatch("ltv", "double", &["strange"], json!("gone")), &rows).is_empty());
        assert!(located(&mismatch("other", "double", &["string"], json!("high")), &rows).is_empty());
    }

    #[test]
    fn an_event_is_meant_by_its_name() {
        let told = Mismatch::read(
            &json!({"validationErrors": {"total": {"incomingTypes": ["string"], "expectedType": "double",
            "category": "order", "offendingValue": "x"}}}),
        );
        let fields = json!({"total": "x"});
        let event = |name| Fields { event: Some(name), fields: &fields };
        assert_eq!(locate(&told, &[event("order"), event("visit")]).into_keys().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn what_was_learned_tells_doubtful_rows_apart() {
        let types = Types::default();
        let (good, bad) = (json!({"ltv": 2}), json!({"ltv": "high"}));
        let fields = |fields| Fields { event: None, fields };
        assert!(!types.doubts(&fields(&bad)));
        let told = mismatch("ltv", "double", &["string"], json!("high"));
        assert_eq!(types.learn(None, &told[0], Kind::Text, Some("version 12".into())).as_deref(), Some("version 12"));
        assert_eq!(types.learn(None, &told[0], Kind::Text, Some("version 13".into())).as_deref(), Some("version 12"));
        assert!(types.doubts(&fields(&bad)) && !types.doubts(&fields(&good)));
        assert!(
            !types.doubts(&Fields { event: Some("order"), fields: &bad }),
            "an event's field of that name is another one"
        );
        types.report([("ltv", "string")]);
        assert!(!types.doubts(&fields(&bad)) && types.doubts(&fields(&good)));
    }

    #[test]
    fn fields_that_the_project_does_not_have_are_known_once_it_was_asked() {
        let types = Types::default();
        let fields =
            json!({"ltv": 1, "prefs": {"color": "red"}, "tier": "gold", "gone": null, "email": "a@example.com"});
        assert_eq!(types.missing(&fields), None);
        types.report([("ltv", "long"), ("prefs.color", "string"), ("tiers", "string")]);
        assert_eq!(types.missing(&fields), Some(vec!["tier".to_owned()]));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let types = Types::default();
        let names: Vec<String> = (0..FIELDS_MAX * 2).map(|number| number.to_string()).collect();
        types.report(names.iter().map(|name| (name.as_str(), "long")));
        assert_eq!(types.lock().count, FIELDS_MAX);
    }

    #[test]
    fn refusals_of_another_shape_name_no_field() {
        for params in [json!(null), json!({}), json!({"validationErrors": []}), json!("x")] {
            assert!(Mismatch::read(&params).is_empty(), "{params}");
        }
        assert_eq!(Mismatch::read(&json!({"validationErrors": {"a": null}})).len(), 1);
    }
}
