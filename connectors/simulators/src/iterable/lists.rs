//! Lists and who is on them.

use serde_json::{Value, json};

use crate::engine::{Answer, Body, Effects};

use super::project::{Call, List, Project, Refusal};
use super::updates::{Failures, USER_REASONS, elements, flag, settled};
use super::users::User;
use super::{Identity, answer};

impl Project {
    fn known_list(&self, id: Option<i64>) -> Result<i64, Answer> {
        id.filter(|id| self.lists.contains_key(id))
            .ok_or_else(|| answer::error(400, "BadParams", "error.lists.invalidListId", Value::Null))
    }

    /// The list that a path or a query names.
    fn asked_list(&self, call: &Call<'_>) -> Result<i64, Answer> {
        let text =
            call.names.first().or_else(|| call.query.iter().find(|(name, _)| name == "listId").map(|(_, value)| value));
        self.known_list(text.and_then(|text| text.parse().ok()))
    }

    fn members(&self, id: i64) -> impl Iterator<Item = &User> {
        self.users.iter().map(|(_, user)| user).filter(move |user| user.lists.contains(&id))
    }

    pub(super) fn get_lists(&self) -> Answer {
        let lists: Vec<Value> = self
            .lists
            .iter()
            .map(|(id, list)| {
                json!({"id": id, "name": list.name, "createdAt": list.created_us / 1_000, "listType": "Standard"})
            })
            .collect();
        answer::json(json!({ "lists": lists }))
    }

    pub(super) fn create_list(&mut self, call: &Call<'_>) -> Result<Answer, Answer> {
        let name = call.body.get("name").and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() {
            return Err(answer::bad_params("name must not be empty"));
        }
        let id = self.lists.keys().next_back().map_or(1_000, |last| last.saturating_add(1));
        if !self.add_list(&id.to_string(), name, call.now_us) {
            return Err(answer::full("lists"));
        }
        Ok(answer::json(json!({ "listId": id })))
    }

    pub(super) fn delete_list(&mut self, call: &Call<'_>) -> Result<Answer, Answer> {
        let id = self.asked_list(call)?;
        self.lists.remove(&id);
        let members: Vec<u64> =
            self.users.iter().filter(|(_, user)| user.lists.contains(&id)).map(|(id, _)| id).collect();
        for member in members {
            if let Some(user) = self.users.get_mut(member) {
                user.lists.remove(&id);
            }
        }
        Ok(answer::success(&format!("List {id} in Project 1 was successfully deleted."), Value::Null))
    }

    /// One person a line: the email, or the user id where that is preferred or where there is no email.
    pub(super) fn list_users(&self, call: &Call<'_>) -> Result<Answer, Answer> {
        let id = self.asked_list(call)?;
        let prefers = call.query.iter().any(|(name, value)| name == "preferUserId" && value == "true");
        let text: String = self
            .members(id)
            .filter_map(|user| {
                let (first, second) = if prefers { (&user.user_id, &user.email) } else { (&user.email, &user.user_id) };
                first.as_ref().or(second.as_ref())
            })
            .map(|name| format!("{name}\n"))
            .collect();
        Ok(Answer::new(200, vec![("content-type".to_owned(), "text/plain".to_owned())], Body::Text(text)))
    }

    pub(super) fn list_size(&self, call: &Call<'_>) -> Result<Answer, Answer> {
        let id = self.asked_list(call)?;
        let text = self.members(id).count().to_string();
        Ok(Answer::new(200, vec![("content-type".to_owned(), "text/plain".to_owned())], Body::Text(text)))
    }

    pub(super) fn subscribe(&mut self, call: &Call<'_>) -> Result<Answer, Answer> {
        let list = self.known_list(call.body.get("listId").and_then(Value::as_i64))?;
        let subscribers = elements(call, "subscribers")?;
        // Respected in userID-based and hybrid projects only.
        let existing_only =
            call.options.identity != Identity::Email && flag(&call.body, "updateExistingUsersOnly").unwrap_or(false);
        self.bulk(call, subscribers, call.options.creates_fields, Some(list), |project, user| {
            let ident = project.admitted(call.options, user)?;
            if existing_only && project.users.find(&ident).is_none() {
                return Err(Refusal::NotFound(ident));
            }
            Ok(ident)
        })
    }

    pub(super) fn unsubscribe(&mut self, call: &Call<'_>) -> Result<Answer, Answer> {
        let list = self.known_list(call.body.get("listId").and_then(Value::as_i64))?;
        let subscribers = elements(call, "subscribers")?;
        let everywhere = flag(&call.body, "channelUnsubscribe").unwrap_or(false);
        let mut failures = Failures::default();
        for (place, subscriber) in subscribers.iter().enumerate() {
            let named = self.named(call.options, subscriber);
            let found = named.and_then(|ident| self.users.find(&ident).ok_or(Refusal::NotFound(ident)));
            match found {
                Ok(id) => {
                    if let Some(user) = self.users.get_mut(id) {
                        user.lists.remove(&list);
                        if everywhere {
                            user.fields.insert("unsubscribedChannelIds".to_owned(), json!([1]));
                        }
                    }
                }
                Err(refusal) => failures.add(place, refusal, true)?,
            }
        }
        let effects: Effects = failures.effects();
        let body = failures.to_json(subscribers.len(), USER_REASONS);
        Ok(settled(answer::json(Value::Object(body)), false, effects))
    }

    pub(super) fn list_summary(id: i64, list: &List, members: usize) -> Value {
        json!({"id": id.to_string(), "name": list.name, "count": members})
    }

    pub(super) fn show_list(&self, id: &str) -> Option<Value> {
        let id: i64 = id.parse().ok()?;
        let list = self.lists.get(&id)?;
        let members: Vec<Value> =
            self.members(id).map(|user| json!({"email": user.email, "userId": user.user_id})).collect();
        let mut shown = Self::list_summary(id, list, members.len());
        shown["members"] = Value::Array(members);
        Some(shown)
    }

    pub(super) fn show_lists(&self) -> Vec<Value> {
        self.lists.iter().map(|(id, list)| Self::list_summary(*id, list, self.members(*id).count())).collect()
    }
}
