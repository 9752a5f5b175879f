//! Subscriptions: what a request names is overwritten, not merged.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::engine::Answer;

use super::answer;
use super::project::{Call, Project, Refusal};
use super::updates::elements;

impl Project {
    pub(super) fn update_subscriptions(&mut self, call: &Call<'_>) -> Result<Answer, Answer> {
        match self.set_subscriptions(call, &call.body)? {
            Ok(()) => Ok(answer::success("", Value::Null)),
            Err(refusal) => Err(refusal.to_answer()),
        }
    }

    pub(super) fn bulk_update_subscriptions(&mut self, call: &Call<'_>) -> Result<Answer, Answer> {
        let requests = elements(call, "updateSubscriptionsRequests")?;
        let (mut emails, mut user_ids) = (Vec::new(), Vec::new());
        for request in requests {
            if let Err(refusal) = self.set_subscriptions(call, request)? {
                if let Refusal::Params(_) = refusal {
                    return Err(refusal.to_answer());
                }
                match (request.get("email"), request.get("userId")) {
                    (Some(Value::String(email)), _) => emails.push(email.to_lowercase()),
                    (_, user_id) => user_ids.extend(user_id.and_then(Value::as_str).map(str::to_owned)),
                }
            }
        }
        let failed = emails.len() + user_ids.len();
        Ok(answer::json(json!({
            "successCount": requests.len() - failed,
            "failCount": failed,
            "invalidEmails": emails,
            "invalidUserIds": user_ids,
            "validEmailFailures": [],
            "validUserIdFailures": [],
        })))
    }

    /// The outer error is of the whole request.
    fn set_subscriptions(&mut self, call: &Call<'_>, request: &Value) -> Result<Result<(), Refusal>, Answer> {
        let given = |name: &str| request.get(name).and_then(Value::as_array);
        if given("subscribedMessageTypeIds").is_some() && !call.options.opt_in_message_types {
            let message = "subscribedMessageTypeIds needs the opt-in message types feature, which is not enabled";
            return Err(answer::bad_params(message));
        }
        let lists: Option<BTreeSet<i64>> =
            given("emailListIds").map(|lists| lists.iter().filter_map(Value::as_i64).collect());
        if let Some(unknown) = lists.iter().flatten().find(|list| !self.lists.contains_key(list)) {
            return Err(answer::bad_params(format!("error.lists.invalidListId: {unknown}")));
        }
        let found =
            self.named(call.options, request).and_then(|ident| self.users.find(&ident).ok_or(Refusal::NotFound(ident)));
        let id = match found {
            Ok(id) => id,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Some(user) = self.users.get_mut(id) {
            user.updated_us = call.now_us;
            if let Some(lists) = lists {
                user.lists = lists;
            }
            for name in ["unsubscribedChannelIds", "unsubscribedMessageTypeIds", "subscribedMessageTypeIds"] {
                if let Some(ids) = given(name) {
                    user.fields.insert(name.to_owned(), json!(ids));
                }
            }
        }
        Ok(Ok(()))
    }
}
