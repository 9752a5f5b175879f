//! Calls about people: update, bulk update, change of the email, merge, look-up, deletion, forgetting.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::engine::{Answer, Effects, Prescriptions, Took};

use super::project::{BULK_MAX, Call, Change, PROJECT, Project, Refusal, Work};
use super::types::Category;
use super::users::{Ident, is_email};
use super::{Identity, answer};

/// Who failed in a bulk request, by reason.
#[derive(Debug, Default)]
pub(super) struct Failures {
    by_reason: BTreeMap<&'static str, Vec<String>>,
    pub places: Vec<usize>,
}

// === impl Failures ===

impl Failures {
    /// Notes a refusal.
    ///
    /// # Errors
    /// The refusal is of the whole request.
    pub fn add(&mut self, place: usize, refusal: Refusal, names_not_found: bool) -> Result<(), Answer> {
        let (reason, text) = match refusal {
            Refusal::Params(text) => return Err(answer::bad_params(text)),
            Refusal::InvalidEmail(text) => ("invalidEmails", text),
            Refusal::InvalidUserId(text) => ("invalidUserIds", text),
            Refusal::Forgotten(Ident::Email(text)) => ("forgottenEmails", text),
            Refusal::Forgotten(Ident::UserId(text)) => ("forgottenUserIds", text),
            Refusal::Conflict(Ident::Email(text)) => ("conflictEmails", text),
            Refusal::Conflict(Ident::UserId(text)) => ("conflictUserIds", text),
            Refusal::NotFound(Ident::Email(text)) if names_not_found => ("notFoundEmails", text),
            Refusal::NotFound(Ident::UserId(text)) if names_not_found => ("notFoundUserIds", text),
            Refusal::NotFound(Ident::Email(text)) => ("invalidEmails", text),
            Refusal::NotFound(Ident::UserId(text)) => ("invalidUserIds", text),
            Refusal::InvalidData(Ident::Email(text)) => ("invalidDataEmails", text),
            Refusal::InvalidData(Ident::UserId(text)) => ("invalidDataUserIds", text),
        };
        self.by_reason.entry(reason).or_default().push(text);
        self.places.push(place);
        Ok(())
    }

    /// The body of the answer; `reasons` are those that the endpoint has.
    pub fn to_json(&self, total: usize, reasons: &[&str]) -> Map<String, Value> {
        let listed = |reason: &str| json!(self.by_reason.get(reason).cloned().unwrap_or_default());
        let failed: Map<String, Value> = reasons.iter().map(|reason| ((*reason).to_owned(), listed(reason))).collect();
        let mut body = Map::new();
        body.insert("successCount".to_owned(), json!(total - self.places.len()));
        body.insert("failCount".to_owned(), json!(self.places.len()));
        body.insert("invalidEmails".to_owned(), listed("invalidEmails"));
        body.insert("invalidUserIds".to_owned(), listed("invalidUserIds"));
        body.insert("failedUpdates".to_owned(), Value::Object(failed));
        body
    }

    pub fn effects(&self) -> Effects {
        if self.places.is_empty() { Effects::All } else { Effects::AllBut(self.places.clone()) }
    }
}

pub(super) const USER_REASONS: &[&str] = &[
    "invalidEmails",
    "invalidUserIds",
    "invalidDataEmails",
    "invalidDataUserIds",
    "conflictEmails",
    "conflictUserIds",
    "forgottenEmails",
    "forgottenUserIds",
    "notFoundEmails",
    "notFoundUserIds",
];

pub(super) fn fields_of(object: &Value) -> Map<String, Value> {
    object.get("dataFields").and_then(Value::as_object).cloned().unwrap_or_default()
}

pub(super) fn flag(object: &Value, name: &str) -> Option<bool> {
    object.get(name).and_then(Value::as_bool)
}

pub(super) fn elements<'a>(call: &'a Call<'_>, name: &str) -> Result<&'a [Value], Answer> {
    let elements = call.body.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if elements.is_empty() {
        return Err(answer::bad_params(format!("{name} must not be empty")));
    }
    if elements.len() > BULK_MAX {
        let message = format!("{name}: at most {BULK_MAX} per request; {} were given", elements.len());
        return Err(answer::error(400, "BatchTooLarge", message, Value::Null));
    }
    Ok(elements)
}

/// An answer whose effect comes with the answer, or later.
pub(super) fn settled(answer: Answer, later: bool, effects: Effects) -> Answer {
    answer.took(if later { Took::Later } else { Took::Exactly(effects) })
}

impl Project {
    pub(super) fn update_user(&mut self, call: &Call<'_>) -> Result<Answer, Answer> {
        let (later, dropped) = self.upsert_user(call, &call.body, Map::new())?;
        let mut answer = settled(answer::success("", Value::Null), later, Effects::All);
        answer.dropped = dropped;
        Ok(answer)
    }

    /// Updates the one person of a request; returns whether that is effective later, and the fields that were dropped.
    pub(super) fn upsert_user(
        &mut self,
        call: &Call<'_>,
        user: &Value,
        more: Map<String, Value>,
    ) -> Result<(bool, Vec<String>), Answer> {
        let ident = self.admitted(call.options, user).map_err(|refusal| refusal.to_answer())?;
        let mut fields = fields_of(user);
        let mut trial = self.types.trial();
        let create = flag(user, "createNewFields").unwrap_or(call.options.creates_fields);
        trial.fields(&Category::User, &mut fields, create);
        let passed = trial.finish(PROJECT)?;
        self.types.keep(&passed);
        fields.extend(more);
        let merge = flag(user, "mergeNestedObjects").unwrap_or(false);
        let dropped = passed.filtered.iter().map(|field| format!("field {field}: createNewFields is off")).collect();
        let change = Change { ident, fields, merge, list: None };
        Ok((self.submit(call, false, Work::Users(vec![change]), Effects::All)?, dropped))
    }

    pub(super) fn bulk_update(&mut self, call: &Call<'_>, prescriptions: &mut Prescriptions) -> Result<Answer, Answer> {
        let users = elements(call, "users")?;
        let create = flag(&call.body, "createNewFields").unwrap_or(call.options.creates_fields);
        self.bulk(call, users, create, None, |project, user| {
            let ident = project.admitted(call.options, user)?;
            match prescriptions.import_error(user, call.now_us) {
                Some(_) => Err(Refusal::InvalidData(ident)),
                None => Ok(ident),
            }
        })
    }

    /// Updates people in bulk, and puts them on a list if one is given.
    pub(super) fn bulk(
        &mut self,
        call: &Call<'_>,
        users: &[Value],
        create: bool,
        list: Option<i64>,
        mut admit: impl FnMut(&Self, &Value) -> Result<Ident, Refusal>,
    ) -> Result<Answer, Answer> {
        let mut failures = Failures::default();
        let mut changes = Vec::with_capacity(users.len());
        let mut trial = self.types.trial();
        for (place, user) in users.iter().enumerate() {
            let mut fields = fields_of(user);
            trial.fields(&Category::User, &mut fields, create);
            match admit(self, user) {
                Ok(ident) => {
                    let merge = flag(user, "mergeNestedObjects").unwrap_or(false);
                    changes.push(Change { ident, fields, merge, list });
                }
                Err(refusal) => failures.add(place, refusal, list.is_some())?,
            }
        }
        let passed = trial.finish(PROJECT)?;
        self.types.keep(&passed);
        let later = self.submit(call, list.is_none(), Work::Users(changes), failures.effects())?;
        let mut body = failures.to_json(users.len(), USER_REASONS);
        body.insert("createdFields".to_owned(), json!(passed.created));
        body.insert("filteredOutFields".to_owned(), json!(passed.filtered));
        Ok(settled(answer::json(Value::Object(body)), later, failures.effects()))
    }

    pub(super) fn update_email(&mut self, call: &Call<'_>) -> Result<Answer, Answer> {
        if call.options.identity != Identity::Email {
            return Err(answer::bad_params("updateEmail is for email-based projects; use users/update"));
        }
        let text = |name: &str| call.body.get(name).and_then(Value::as_str);
        let new = text("newEmail").unwrap_or_default().to_lowercase();
        if !is_email(&new) {
            return Err(Refusal::InvalidEmail(new).to_answer());
        }
        // Both are allowed here: the email takes precedence.
        let current = match (text("currentEmail"), text("currentUserId")) {
            (Some(email), _) => Ident::Email(email.to_lowercase()),
            (None, Some(id)) => Ident::UserId(id.to_owned()),
            (None, None) => return Err(answer::bad_params("currentEmail or currentUserId is required")),
        };
        if let Some(forgotten) =
            [&current, &Ident::Email(new.clone())].into_iter().find(|who| self.forgotten.contains(who))
        {
            return Err(Refusal::Forgotten(forgotten.clone()).to_answer());
        }
        let Some(id) = self.users.find(&current) else {
            let message = format!("Cannot change user Some({}) to {new}. User does not exist", current.text());
            return Err(answer::bad_params(message));
        };
        let new = Ident::Email(new);
        if !self.users.identify(id, &new) {
            return Err(Refusal::Conflict(new).to_answer());
        }
        Ok(answer::success("", Value::Null))
    }

    pub(super) fn merge(&mut self, call: &Call<'_>) -> Result<Answer, Answer> {
        if !call.options.server_side {
            let message =
                "Merging known user profiles is forbidden with specific API key type. Please use a server-side key.";
            return Err(answer::error(403, "Forbidden", message, Value::Null));
        }
        let of = |email: &str, user_id: &str| {
            self.named_by(call.options, &call.body, email, user_id).map_err(|refusal| refusal.to_answer())
        };
        let source = of("sourceEmail", "sourceUserId")?;
        let destination = of("destinationEmail", "destinationUserId")?;
        let Some(from) = self.users.find(&source) else { return Err(Refusal::NotFound(source).to_answer()) };
        let Some(to) = self.users.find(&destination) else {
            // Nobody is there: the source takes the identifier.
            self.users.identify(from, &destination);
            return Ok(answer::success("", Value::Null));
        };
        if from == to {
            return Err(answer::bad_params("source and destination are the same user"));
        }
        let arrays = self.merged_arrays(call, from, to)?;
        let Some(gone) = self.users.remove(from) else { return Ok(answer::success("", Value::Null)) };
        if let Some(stays) = self.users.get_mut(to) {
            for (name, value) in gone.fields {
                stays.fields.entry(name).or_insert(value);
            }
            stays.fields.extend(arrays);
            stays.lists.extend(gone.lists);
            stays.updated_us = call.now_us;
        }
        self.events.hand_over(&source, &destination);
        Ok(answer::success("", Value::Null))
    }

    fn merged_arrays(&self, call: &Call<'_>, from: u64, to: u64) -> Result<Map<String, Value>, Answer> {
        let mut merged = Map::new();
        let field = |id: u64, name: &str| {
            let value = self.users.get(id).and_then(|user| user.fields.get(name).cloned());
            value.map(|value| if let Value::Array(values) = value { values } else { vec![value] }).unwrap_or_default()
        };
        for rule in call.body.get("arrayMerge").and_then(Value::as_array).into_iter().flatten() {
            let name = rule.get("field").and_then(Value::as_str).unwrap_or_default();
            let dedupe = rule.get("dedupeBy").and_then(Value::as_str);
            let (source, mut destination) = (field(from, name), field(to, name));
            if let Some(key) = dedupe {
                if source.iter().chain(&destination).any(|value| !value.is_object()) {
                    return Err(answer::bad_params(format!("dedupeBy: {name} is not an array of objects")));
                }
                let known: Vec<Value> = destination.iter().filter_map(|value| value.get(key).cloned()).collect();
                destination
                    .extend(source.into_iter().filter(|value| value.get(key).is_none_or(|key| !known.contains(key))));
            } else {
                destination.extend(source);
            }
            merged.insert(name.to_owned(), Value::Array(destination));
        }
        Ok(merged)
    }

    /// The person that a path or a query names.
    fn asked(call: &Call<'_>, by: &str) -> Option<Ident> {
        let text =
            call.names.first().or_else(|| call.query.iter().find(|(name, _)| name == by).map(|(_, value)| value));
        text.map(|text| if by == "email" { Ident::Email(text.to_lowercase()) } else { Ident::UserId(text.clone()) })
    }

    pub(super) fn get_user(&self, call: &Call<'_>, by: &str) -> Answer {
        let Some(ident) = Self::asked(call, by) else { return answer::bad_params(format!("{by} is required")) };
        let user = self.users.find(&ident).and_then(|id| self.users.get(id));
        // Nobody: an empty object, as recorded.
        answer::json(user.map_or_else(|| json!({}), |user| json!({"user": user.to_json()})))
    }

    pub(super) fn delete_user(&mut self, call: &Call<'_>, by: &str) -> Result<Answer, Answer> {
        if by == "email" && call.options.identity == Identity::UserId {
            return Err(answer::bad_params("a userID-based project deletes users by userId"));
        }
        let Some(ident) = Self::asked(call, by) else { return Err(answer::bad_params(format!("{by} is required"))) };
        let later = self.submit(call, true, Work::DeleteUser(ident), Effects::All)?;
        Ok(settled(answer::success("", Value::Null), later, Effects::All))
    }

    /// The person of a request to forget: by what the project identifies people with.
    fn to_forget(&self, call: &Call<'_>) -> Result<Ident, Answer> {
        let ident = match self.named(call.options, &call.body) {
            Ok(ident) | Err(Refusal::Forgotten(ident)) => ident,
            Err(refusal) => return Err(refusal.to_answer()),
        };
        if call.options.identity == Identity::Email && matches!(ident, Ident::UserId(_)) {
            return Err(answer::bad_params("an email-based project forgets users by email"));
        }
        Ok(ident)
    }

    pub(super) fn forget(&mut self, call: &Call<'_>) -> Result<Answer, Answer> {
        let ident = self.to_forget(call)?;
        let Some(id) = self.users.find(&ident) else {
            if self.forgotten.contains(&ident) {
                return Ok(answer::success("", Value::Null));
            }
            return Err(answer::bad_params(format!(
                "User {} could not be forgotten: user does not exist",
                ident.text()
            )));
        };
        if let Some(user) = self.users.remove(id) {
            self.forgotten.extend(user.email.map(Ident::Email));
            self.forgotten.extend(user.user_id.map(Ident::UserId));
        }
        Ok(answer::success("", Value::Null))
    }

    pub(super) fn unforget(&mut self, call: &Call<'_>) -> Result<Answer, Answer> {
        let ident = self.to_forget(call)?;
        if self.forgotten.remove(&ident) {
            Ok(answer::success("", Value::Null))
        } else {
            Err(answer::bad_params(format!("User {} is not forgotten", ident.text())))
        }
    }
}
