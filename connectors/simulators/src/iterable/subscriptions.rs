//! Subscriptions: what a request names is overwritten, not merged.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::engine::{Answer, Effects};

use super::answer;
use super::project::{Call, Project, Refusal, Work};
use super::updates::{elements, settled};
use super::users::Ident;

/// A subscription of one person that begins or ends.
#[derive(Debug)]
pub(super) struct Subscription {
    who: Ident,
    group: Group,
    id: i64,
    begins: bool,
}

#[derive(Debug, Clone, Copy)]
enum Group {
    EmailList,
    MessageType,
    MessageChannel,
}

impl Project {
    /// `PATCH` and `DELETE /api/subscriptions/{group}/{id}/…`: accepted, and effective later.
    pub(super) fn subscription(&mut self, call: &Call<'_>, by: &str, begins: bool) -> Result<Answer, Answer> {
        if !call.options.subscriptions_api {
            return Err(answer::not_found("the project does not have this API"));
        }
        let [group, id, name] = call.names else { return Err(answer::bad_params("the path is not complete")) };
        let group = match group.to_lowercase().as_str() {
            "emaillist" => Group::EmailList,
            "messagetype" => Group::MessageType,
            "messagechannel" => Group::MessageChannel,
            _ => return Err(answer::bad_params(format!("unknown subscription group {group}"))),
        };
        let id: i64 = id.parse().map_err(|_| answer::bad_params(format!("subscription group id {id} is no number")))?;
        if matches!(group, Group::EmailList) && !self.lists.contains_key(&id) {
            return Err(answer::bad_params("error.lists.invalidListId"));
        }
        let who = self.named(call.options, &json!({ by: name })).map_err(|refusal| refusal.to_answer())?;
        if self.users.find(&who).is_none() {
            return Err(Refusal::NotFound(who).to_answer());
        }
        let work = Work::Subscription(Subscription { who, group, id, begins });
        let later = self.submit(call, true, work, Effects::All)?;
        let verb = if begins { "subscribe" } else { "unsubscribe" };
        Ok(settled(answer::accepted(&format!("Accepted a request to {verb}")), later, Effects::All))
    }

    pub(super) fn apply_subscription(&mut self, change: &Subscription, now_us: i64) {
        let Some(user) = self.users.find(&change.who).and_then(|id| self.users.get_mut(id)) else { return };
        user.updated_us = now_us;
        let field = match change.group {
            Group::EmailList => {
                if change.begins {
                    user.lists.insert(change.id);
                } else {
                    user.lists.remove(&change.id);
                }
                return;
            }
            Group::MessageType => "unsubscribedMessageTypeIds",
            Group::MessageChannel => "unsubscribedChannelIds",
        };
        let ids = user.fields.get(field).and_then(Value::as_array);
        let mut ids: BTreeSet<i64> = ids.into_iter().flatten().filter_map(Value::as_i64).collect();
        if change.begins {
            ids.remove(&change.id);
        } else {
            ids.insert(change.id);
        }
        user.fields.insert(field.to_owned(), json!(ids));
    }

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
