//! What Iterable answers: one code for a single request, and for a bulk request the identifiers of those whose update failed.
//!
//! A bulk request is a success (200) even where every one of its updates failed. Failures are named by identifier and never by
//! position, addresses in lower case. A request therefore holds every identifier at most once ([`super::grouping`]), so that a name means
//! one delivery. What the answer counts as failed and does not name leaves the others in doubt; they are sent again, which changes nothing
//! for those that were applied.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use tailwater_core::delivery::Reason;
use tailwater_core::{Code, code};

use super::person::{Field, Person};

/// `{code, msg, params}`: the answer to a single request, and to every request that is refused. Anything may be missing: a proxy's page
/// has none of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Plain {
    #[serde(deserialize_with = "or_default")]
    pub code: String,
    #[serde(deserialize_with = "or_default")]
    pub msg: String,
    #[serde(deserialize_with = "or_default")]
    pub params: Value,
}

/// The answer to a bulk request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Bulk {
    pub success_count: Option<u64>,
    pub fail_count: Option<u64>,
    #[serde(deserialize_with = "or_default")]
    pub filtered_out_fields: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub disallowed_event_names: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    invalid_emails: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    invalid_user_ids: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    failed_updates: Failed,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Failed {
    #[serde(deserialize_with = "or_default")]
    invalid_emails: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    invalid_user_ids: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    invalid_data_emails: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    invalid_data_user_ids: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    conflict_emails: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    conflict_user_ids: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    forgotten_emails: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    forgotten_user_ids: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    not_found_emails: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    not_found_user_ids: Vec<String>,
}

/// Why the update of one person failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Failure {
    InvalidIdentifier,
    InvalidData,
    Conflict,
    Forgotten,
    NotFound,
    EventDisallowed,
}

/// What an answer is read against: one delivery of the request.
#[derive(Debug, Clone, Default)]
pub(super) struct Member {
    pub person: Person,
    /// An identifier that the fields hold beside the one that names the person: a conflict may be about it.
    pub beside: Option<(Field, String)>,
    pub event: Option<String>,
}

/// The answer, delivery by delivery.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Attributed {
    /// By position in the request.
    pub failed: BTreeMap<usize, Failure>,
    /// Failed updates that could not be attributed to a delivery.
    pub unnamed: u64,
}

/// The vendor writes `null` or another type now and then; none of that may hide the rest.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + serde::de::DeserializeOwned,
{
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

// === impl Plain ===

impl Plain {
    /// Reads an answer; a body that is none of the vendor's has no code, and its beginning as the message.
    pub fn read(body: &[u8]) -> Self {
        /// What is kept of a body that is not the vendor's: enough to recognize a proxy's page.
        const EXCERPT_CHARS_MAX: usize = 200;
        match serde_json::from_slice::<Self>(body) {
            Ok(plain) if !(plain.code.is_empty() && plain.msg.is_empty()) => plain,
            Ok(_) | Err(_) => {
                let excerpt: String = String::from_utf8_lossy(body).chars().take(EXCERPT_CHARS_MAX).collect();
                let msg = if excerpt.trim().is_empty() { "an empty answer" } else { excerpt.trim() };
                Self { msg: msg.to_owned(), ..Self::default() }
            }
        }
    }

    /// The vendor's words in one sentence: ``the vendor says `BadParams`: …``.
    pub fn describe(&self) -> String {
        let code = if self.code.is_empty() { String::new() } else { format!(" `{}`", self.code) };
        let msg = self.msg.trim().trim_end_matches('.');
        let details = self.details();
        let text = match (msg.is_empty(), details.is_empty()) {
            (true, true) => "no explanation".to_owned(),
            (false, true) => msg.to_owned(),
            (true, false) => details,
            (false, false) => format!("{msg} ({details})"),
        };
        format!("the vendor says{code}: {text}")
    }

    /// What `params` says about places: `{"obj.events[1].createdAt": "Number value expected"}`.
    fn details(&self) -> String {
        const DETAILS_MAX: usize = 3;
        let Some(params) = self.params.as_object() else { return String::new() };
        let texts = params.iter().filter_map(|(place, text)| text.as_str().map(|text| format!("{place}: {text}")));
        texts.take(DETAILS_MAX).collect::<Vec<_>>().join("; ")
    }

    /// The positions that `params` names below `obj.<list>`, with the vendor's words about each.
    pub fn positions(&self, list: &str) -> BTreeMap<usize, String> {
        let prefix = format!("{list}[");
        let Some(params) = self.params.as_object() else { return BTreeMap::new() };
        let mut found = BTreeMap::new();
        for (place, text) in params {
            let below = place.strip_prefix("obj.").unwrap_or(place).strip_prefix(&prefix);
            let Some(index) = below.and_then(|rest| rest.split(']').next()?.parse().ok()) else { continue };
            let text = text.as_str().map_or_else(|| text.to_string(), str::to_owned);
            found.entry(index).or_insert_with(|| format!("the vendor says `{}`: {place}: {text}", self.code));
        }
        found
    }

    /// Fields that the vendor did not store.
    pub fn filtered_out_fields(&self) -> Vec<String> {
        let fields = self.params.get("filteredOutFields").and_then(Value::as_array).into_iter().flatten();
        fields.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// What a refusal means that is about the person. Most have a code; some are told by the text alone.
    pub fn failure(&self) -> Option<Failure> {
        match self.code.as_str() {
            "ForgottenUserError" => Some(Failure::Forgotten),
            "InvalidEmailAddressError" | "InvalidUserIdError" => Some(Failure::InvalidIdentifier),
            "EmailAlreadyExists" | "UserIdAlreadyExists" | "ExternalKeyConflict" => Some(Failure::Conflict),
            "UnknownEmailError" | "UnknownUserIdError" | "NotFound" | "error.users.noUserWithIdExists" => {
                Some(Failure::NotFound)
            }
            _ if self.msg.contains("is disallowed from tracking") || self.code == "Disallowed Event Name" => {
                Some(Failure::EventDisallowed)
            }
            _ if self.msg.to_lowercase().contains("user does not exist") => Some(Failure::NotFound),
            _ => None,
        }
    }

    pub fn is_success(&self) -> bool {
        self.code == "Success"
    }
}

// === impl Bulk ===

impl Bulk {
    /// Reads an answer; `None` where it does not say how many updates there were.
    pub fn read(body: &[u8]) -> Option<Self> {
        let bulk: Self = serde_json::from_slice(body).ok()?;
        (bulk.success_count.is_some() || bulk.fail_count.is_some()).then_some(bulk)
    }

    /// The lists of identifiers, the more specific ones first.
    fn lists(&self) -> [(Failure, Field, &[String]); 12] {
        let failed = &self.failed_updates;
        [
            (Failure::Forgotten, Field::Email, &failed.forgotten_emails),
            (Failure::Forgotten, Field::UserId, &failed.forgotten_user_ids),
            (Failure::Conflict, Field::Email, &failed.conflict_emails),
            (Failure::Conflict, Field::UserId, &failed.conflict_user_ids),
            (Failure::NotFound, Field::Email, &failed.not_found_emails),
            (Failure::NotFound, Field::UserId, &failed.not_found_user_ids),
            (Failure::InvalidData, Field::Email, &failed.invalid_data_emails),
            (Failure::InvalidData, Field::UserId, &failed.invalid_data_user_ids),
            (Failure::InvalidIdentifier, Field::Email, &failed.invalid_emails),
            (Failure::InvalidIdentifier, Field::UserId, &failed.invalid_user_ids),
            (Failure::InvalidIdentifier, Field::Email, &self.invalid_emails),
            (Failure::InvalidIdentifier, Field::UserId, &self.invalid_user_ids),
        ]
    }

    /// Whose updates failed.
    pub fn attribute(&self, members: &[Member]) -> Attributed {
        let mut by_name: BTreeMap<(Field, String), usize> = BTreeMap::new();
        let mut by_field: BTreeMap<(Field, String), usize> = BTreeMap::new();
        for (position, member) in members.iter().enumerate() {
            if let Some(name) = member.person.key() {
                by_name.entry(name).or_insert(position);
            }
            if let Some((field, value)) = &member.beside {
                by_field.entry((*field, field.normal(value))).or_insert(position);
            }
        }
        let mut failed = BTreeMap::new();
        for (failure, field, values) in self.lists() {
            for value in values {
                let name = (field, field.normal(value));
                if let Some(&position) = by_name.get(&name).or_else(|| by_field.get(&name)) {
                    failed.entry(position).or_insert(failure);
                }
            }
        }
        for name in &self.disallowed_event_names {
            for (position, _) in members.iter().enumerate().filter(|(_, member)| member.event.as_deref() == Some(name))
            {
                failed.insert(position, Failure::EventDisallowed);
            }
        }
        let unnamed = self.fail_count.unwrap_or(0).saturating_sub(failed.len() as u64);
        Attributed { failed, unnamed }
    }
}

// === impl Failure ===

impl Failure {
    pub const fn code(self) -> Code {
        match self {
            Self::InvalidIdentifier | Self::InvalidData => code::VENDOR_REJECTED,
            Self::Conflict => code::DUPLICATE_PROFILE,
            Self::Forgotten => code::FORGOTTEN_USER,
            Self::NotFound => code::UNKNOWN_USER,
            Self::EventDisallowed => code::EVENT_DISALLOWED,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::InvalidIdentifier => {
                "the vendor takes the person's identifier for malformed; correct it in the source"
            }
            Self::InvalidData => {
                "the vendor refuses the person's `dataFields`; check their types against the project's fields"
            }
            Self::Conflict => {
                "the vendor knows the identifiers as different people; merge them there, or let the transform send one identifier only"
            }
            Self::Forgotten => {
                "the person was forgotten at the vendor (a GDPR request), which takes no data about them any more"
            }
            Self::NotFound => "the vendor does not know the person",
            Self::EventDisallowed => {
                "the project does not take events of this name; allow it in Iterable's settings, or let the transform use another name"
            }
        }
    }

    pub fn reason(self) -> Reason {
        Reason::new(self.code(), self.words())
    }

    /// The same with the vendor's own words.
    pub fn reason_of(self, answer: &Plain, status: u16) -> Reason {
        Reason::new(self.code(), format!("{}; {}", self.words(), answer.describe())).with_status(status)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn member(email: &str) -> Member {
        Member { person: Person { email: Some(email.to_owned()), user_id: None }, ..Member::default() }
    }

    fn bulk(answer: &Value) -> Bulk {
        Bulk::read(answer.to_string().as_bytes()).unwrap()
    }

    // I2: 200 with failed updates.
    #[test]
    fn a_success_with_failures_is_split_by_identifier_without_regard_to_case() {
        let answer = bulk(&json!({"successCount": 1, "failCount": 5, "invalidEmails": ["bad"], "failedUpdates": {
            "invalidEmails": ["bad"], "invalidDataEmails": ["data@example.com"], "conflictEmails": ["conflict@example.com"],
            "forgottenEmails": ["Gone@Example.com"], "notFoundEmails": ["new@example.com"]}}));
        let members: Vec<_> = [
            "bad",
            "Data@example.com",
            "Conflict@Example.com",
            "gone@example.com",
            "NEW@example.com",
            "good@example.com",
        ]
        .map(member)
        .into();
        let attributed = answer.attribute(&members);
        let expected = [
            (0, Failure::InvalidIdentifier),
            (1, Failure::InvalidData),
            (2, Failure::Conflict),
            (3, Failure::Forgotten),
            (4, Failure::NotFound),
        ];
        assert_eq!(attributed, Attributed { failed: expected.into(), unnamed: 0 });
    }

    #[test]
    fn user_ids_are_compared_letter_for_letter() {
        let answer = bulk(&json!({"successCount": 1, "failCount": 1, "failedUpdates": {"invalidUserIds": ["u1"]}}));
        let people = ["U1", "u1"]
            .map(|id| Member { person: Person { email: None, user_id: Some(id.to_owned()) }, ..Member::default() });
        assert_eq!(answer.attribute(&people).failed, [(1, Failure::InvalidIdentifier)].into());
    }

    #[test]
    fn a_conflict_about_the_identifier_among_the_fields_is_attributed() {
        let answer = bulk(&json!({"successCount": 0, "failCount": 1, "failedUpdates": {"conflictUserIds": ["u1"]}}));
        let person = Member { beside: Some((Field::UserId, "u1".to_owned())), ..member("a@example.com") };
        assert_eq!(answer.attribute(&[person]).failed, [(0, Failure::Conflict)].into());
    }

    #[test]
    fn failures_that_name_nobody_are_counted() {
        let answer = bulk(
            &json!({"successCount": 0, "failCount": 3, "failedUpdates": {"invalidEmails": ["stranger@example.com"]}}),
        );
        assert_eq!(answer.attribute(&[member("a@example.com")]), Attributed { failed: BTreeMap::new(), unnamed: 3 });
    }

    #[test]
    fn disallowed_events_are_found_by_their_name() {
        let answer = bulk(&json!({"successCount": 1, "failCount": 1, "disallowedEventNames": ["spam"]}));
        let event = |name: &str| Member { event: Some(name.to_owned()), ..member("a@example.com") };
        assert_eq!(answer.attribute(&[event("order"), event("spam")]).failed, [(1, Failure::EventDisallowed)].into());
    }

    #[test]
    fn an_answer_without_counts_is_not_a_bulk_answer() {
        for body in ["", "null", "[]", "{}", "<html>", r#"{"code":"Success"}"#] {
            assert_eq!(Bulk::read(body.as_bytes()), None, "{body}");
        }
        let odd =
            Bulk::read(br#"{"successCount":1,"failCount":0,"failedUpdates":[],"filteredOutFields":null}"#).unwrap();
        assert_eq!(odd.attribute(&[member("a@example.com")]), Attributed::default());
    }

    #[test]
    fn the_place_of_a_malformed_value_names_its_delivery() {
        let body = json!({"code": "BadJsonBody", "msg": "Invalid JSON body", "params":
            {"obj.events[1].createdAt": "Number value expected", "obj.users[0].x": "no", "obj.events[x]": "no"}});
        let plain = Plain::read(body.to_string().as_bytes());
        assert_eq!(plain.positions("events").into_keys().collect::<Vec<_>>(), [1]);
        assert!(plain.positions("events")[&1].contains("createdAt: Number value expected"));
    }

    #[test]
    fn refusals_are_told_in_the_vendors_words() {
        let words = |body: &str| Plain::read(body.as_bytes()).describe();
        assert_eq!(
            words(r#"{"msg":"Invalid email: 000","code":"InvalidEmailAddressError","params":null}"#),
            "the vendor says `InvalidEmailAddressError`: Invalid email: 000"
        );
        assert_eq!(words("<html>Bad gateway</html>"), "the vendor says: <html>Bad gateway</html>");
        assert_eq!(words(""), "the vendor says: an empty answer");
        let cases = [
            (r#"{"code":"BadParams","msg":"Cannot change user. User does not exist"}"#, Some(Failure::NotFound)),
            (r#"{"code":"Success","msg":"Event x is disallowed from tracking"}"#, Some(Failure::EventDisallowed)),
            (r#"{"code":"ForgottenUserError"}"#, Some(Failure::Forgotten)),
            (r#"{"code":"EmailAlreadyExists"}"#, Some(Failure::Conflict)),
            (r#"{"code":"BadParams","msg":"no"}"#, None),
        ];
        for (body, failure) in cases {
            assert_eq!(Plain::read(body.as_bytes()).failure(), failure, "{body}");
        }
    }
}
