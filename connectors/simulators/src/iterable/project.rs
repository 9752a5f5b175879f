//! The project: everything that it remembers, who may be named in a request, and the work that takes effect later.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::engine::{Answer, Effects, Prescriptions};

use super::catalogs::{Catalogs, ItemChange};
use super::endpoints::Endpoint;
use super::events::{Event, Events};
use super::subscriptions::Subscription;
use super::types::Types;
use super::users::{Ident, Users, is_email, is_user_id};
use super::{Identity, Options, answer};

/// The number of the project; it stands in messages.
pub(super) const PROJECT: u32 = 1;
/// Elements of a bulk request. Not documented; integrations keep to it.
pub(super) const BULK_MAX: usize = 1_000;
/// Elements that wait to take effect.
const WAITING_MAX: usize = 1_000_000;
const LISTS_MAX: usize = 1_000;

/// A request as the project sees it: who asks has been settled, and the body has the right shape.
pub(super) struct Call<'a> {
    pub request: u64,
    pub endpoint: Endpoint,
    pub options: &'a Options,
    /// What stands for the placeholders of the path, decoded.
    pub names: &'a [String],
    pub query: &'a [(String, String)],
    pub body: Value,
    pub now_us: i64,
}

#[derive(Debug)]
pub(super) struct List {
    pub name: String,
    pub created_us: i64,
}

#[derive(Debug)]
pub(super) struct Project {
    pub users: Users,
    pub types: Types,
    pub lists: BTreeMap<i64, List>,
    pub events: Events,
    pub catalogs: Catalogs,
    pub forgotten: BTreeSet<Ident>,
    waiting: BTreeMap<(i64, u64), Waiting>,
    waiting_elements: usize,
    submitted: u64,
}

/// A request whose effect comes later.
#[derive(Debug)]
struct Waiting {
    /// The number of the request and what takes effect, where an observer is told of it.
    told: Option<(u64, Effects)>,
    work: Work,
}

#[derive(Debug)]
pub(super) enum Work {
    Users(Vec<Change>),
    Events(Vec<Event>),
    DeleteUser(Ident),
    Subscription(Subscription),
    Catalog(ItemChange),
}

/// What a request does to one person.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub ident: Ident,
    pub fields: Map<String, Value>,
    pub merge: bool,
    /// A list that the person is put on.
    pub list: Option<i64>,
}

/// Why a person in a request is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The whole request is refused.
    Params(String),
    InvalidEmail(String),
    InvalidUserId(String),
    Forgotten(Ident),
    /// Somebody else has this identifier.
    Conflict(Ident),
    NotFound(Ident),
    InvalidData(Ident),
}

// === impl Project ===

impl Project {
    pub fn new(options: &Options, now_us: i64) -> Self {
        let mut project = Self {
            users: Users::default(),
            types: Types::new(options.user_fields_max),
            lists: BTreeMap::new(),
            events: Events::new(options.memory.events_max),
            catalogs: Catalogs::default(),
            forgotten: BTreeSet::new(),
            waiting: BTreeMap::new(),
            waiting_elements: 0,
            submitted: 0,
        };
        for (id, name) in &options.lists {
            project.add_list(id, name, now_us);
        }
        project
    }

    pub fn add_list(&mut self, id: &str, name: &str, now_us: i64) -> bool {
        let Ok(id) = id.parse::<i64>() else { return false };
        if self.lists.len() >= LISTS_MAX && !self.lists.contains_key(&id) {
            return false;
        }
        self.lists.insert(id, List { name: name.to_owned(), created_us: now_us });
        true
    }

    pub fn handle(&mut self, call: &Call<'_>, prescriptions: &mut Prescriptions) -> Answer {
        use Endpoint as E;
        let answer = match call.endpoint {
            E::UpdateUser => self.update_user(call),
            E::BulkUpdateUsers => self.bulk_update(call, prescriptions),
            E::UpdateEmail => self.update_email(call),
            E::MergeUsers => self.merge(call),
            E::GetByEmail | E::GetByEmailQuery => Ok(self.get_user(call, "email")),
            E::GetByUserId | E::GetByUserIdQuery => Ok(self.get_user(call, "userId")),
            E::DeleteByEmail => self.delete_user(call, "email"),
            E::DeleteByUserId => self.delete_user(call, "userId"),
            E::Forget => self.forget(call),
            E::Unforget => self.unforget(call),
            E::GetFields => Ok(answer::json(json!({"fields": self.types.user_fields()}))),
            E::UpdateSubscriptions => self.update_subscriptions(call),
            E::BulkUpdateSubscriptions => self.bulk_update_subscriptions(call),
            E::SubscribeByEmail => self.subscription(call, "email", true),
            E::UnsubscribeByEmail => self.subscription(call, "email", false),
            E::SubscribeByUserId => self.subscription(call, "userId", true),
            E::UnsubscribeByUserId => self.subscription(call, "userId", false),
            E::Track => self.track(call),
            E::TrackBulk => self.track_bulk(call),
            E::EventsByEmail => Ok(self.events_of(call, "email")),
            E::EventsByUserId => Ok(self.events_of(call, "userId")),
            E::TrackPurchase => self.track_purchase(call),
            E::UpdateCart => self.update_cart(call),
            E::GetLists => Ok(self.get_lists()),
            E::CreateList => self.create_list(call),
            E::DeleteList => self.delete_list(call),
            E::ListUsers => self.list_users(call),
            E::ListSize => self.list_size(call),
            E::Subscribe => self.subscribe(call),
            E::Unsubscribe => self.unsubscribe(call),
            E::GetChannels => Ok(answer::json(json!({"channels": [
                {"id": 1, "name": "Marketing Channel", "channelType": "Marketing", "messageMedium": "Email"}]}))),
            E::GetMessageTypes => Ok(answer::json(json!({"messageTypes": [
                {"id": 1, "name": "Marketing Message", "channelId": 1, "subscriptionPolicy": "OptOut", "createdAt": 0, "updatedAt": 0}]}))),
            E::GetCatalogs => Ok(self.get_catalogs()),
            E::CreateCatalog => self.create_catalog(call),
            E::DeleteCatalog => self.delete_catalog(call),
            E::GetItems => self.get_items(call),
            E::BulkUpsertItems => self.bulk_upsert_items(call),
            E::BulkDeleteItems => self.bulk_delete_items(call),
            E::GetItem => self.get_item(call),
            E::PutItem => self.put_item(call, "value"),
            E::PatchItem => self.put_item(call, "update"),
            E::DeleteItem => self.delete_item(call),
        };
        answer.unwrap_or_else(|answer| answer)
    }

    // --- who ---

    /// The person that the fields `email` and `userId` of an object name, by the project's identity type.
    pub fn named(&self, options: &Options, object: &Value) -> Result<Ident, Refusal> {
        self.named_by(options, object, "email", "userId")
    }

    pub fn named_by(&self, options: &Options, object: &Value, email: &str, user_id: &str) -> Result<Ident, Refusal> {
        let text = |name: &str| object.get(name).and_then(Value::as_str);
        let ident = match (text(email), text(user_id)) {
            (Some(_), Some(_)) => {
                return Err(Refusal::Params(format!("Provide an {email} or a {user_id}, but not both")));
            }
            (None, None) => return Err(Refusal::Params(format!("{email} or {user_id} is required"))),
            (Some(_), None) if options.identity == Identity::UserId => {
                return Err(Refusal::Params(format!("{user_id} is required in a userID-based project")));
            }
            (Some(email), None) if is_email(email) => Ident::Email(email.to_lowercase()),
            (Some(email), None) => return Err(Refusal::InvalidEmail(email.to_lowercase())),
            (None, Some(user_id)) if is_user_id(user_id) => Ident::UserId(user_id.to_owned()),
            (None, Some(user_id)) => return Err(Refusal::InvalidUserId(user_id.to_owned())),
        };
        if self.forgotten.contains(&ident) {
            return Err(Refusal::Forgotten(ident));
        }
        Ok(ident)
    }

    /// The person of an update, who is made where there is none: the rules about `preferUserId` and about identifiers in `dataFields`.
    pub fn admitted(&self, options: &Options, user: &Value) -> Result<Ident, Refusal> {
        let ident = self.named(options, user)?;
        let existing = self.users.find(&ident);
        let prefers = user.get("preferUserId").and_then(Value::as_bool).unwrap_or(false);
        if existing.is_none() && options.identity == Identity::Email && matches!(ident, Ident::UserId(_)) && !prefers {
            return Err(Refusal::NotFound(ident));
        }
        for new in self.identity_updates(options, &ident, user)? {
            if self.forgotten.contains(&new) {
                return Err(Refusal::Forgotten(new));
            }
            if self.users.find(&new).is_some_and(|owner| Some(owner) != existing) {
                return Err(Refusal::Conflict(new));
            }
        }
        Ok(ident)
    }

    /// Identifiers in `dataFields`: `email` and `userId` there change who the person is.
    fn identity_updates(&self, options: &Options, ident: &Ident, user: &Value) -> Result<Vec<Ident>, Refusal> {
        let mut updates = Vec::new();
        for (name, primary) in [("email", Identity::Email), ("userId", Identity::UserId)] {
            let Some(value) = user.get("dataFields").and_then(|fields| fields.get(name)) else { continue };
            let Some(text) = value.as_str() else { return Err(Refusal::InvalidData(ident.clone())) };
            let new = if name == "email" {
                if !is_email(text) {
                    return Err(Refusal::InvalidEmail(text.to_lowercase()));
                }
                Ident::Email(text.to_lowercase())
            } else {
                if !is_user_id(text) {
                    return Err(Refusal::InvalidUserId(text.to_owned()));
                }
                Ident::UserId(text.to_owned())
            };
            // What identifies people in the project does not change by the way.
            let same_kind = std::mem::discriminant(&new) == std::mem::discriminant(ident);
            if options.identity == primary && same_kind && new != *ident {
                return Err(Refusal::InvalidData(ident.clone()));
            }
            updates.push(new);
        }
        Ok(updates)
    }

    // --- what takes effect later ---

    /// Does the work after a time, or at once where there is none.
    ///
    /// # Errors
    /// Too much waits already.
    pub fn submit(&mut self, call: &Call<'_>, bulk: bool, work: Work, effects: Effects) -> Result<bool, Answer> {
        let delay = if bulk { call.options.bulk_delay } else { call.options.single_delay };
        if delay.is_zero() {
            self.apply(work, call.now_us);
            return Ok(false);
        }
        let elements = work.elements();
        if self.waiting_elements + elements > WAITING_MAX {
            return Err(answer::full("waiting elements"));
        }
        self.waiting_elements += elements;
        self.submitted += 1;
        let due_us = call.now_us.saturating_add(i64::try_from(delay.as_micros()).unwrap_or(i64::MAX));
        let carries = matches!(call.endpoint, Endpoint::UpdateUser | Endpoint::BulkUpdateUsers | Endpoint::Track);
        let told = carries.then_some((call.request, effects));
        self.waiting.insert((due_us, self.submitted), Waiting { told, work });
        Ok(true)
    }

    /// Does what is due, and returns the numbers of the requests with what took effect.
    pub fn advance(&mut self, now_us: i64) -> Vec<(u64, Effects)> {
        let mut settled = Vec::new();
        while let Some(entry) = self.waiting.first_entry() {
            let due_us = entry.key().0;
            if due_us > now_us {
                break;
            }
            let Waiting { told, work } = entry.remove();
            self.waiting_elements -= work.elements();
            self.apply(work, due_us);
            settled.extend(told);
        }
        settled
    }

    fn apply(&mut self, work: Work, now_us: i64) {
        match work {
            Work::Users(changes) => changes.into_iter().for_each(|change| self.apply_change(change, now_us)),
            Work::Events(events) => events.into_iter().for_each(|event| self.events.put(event)),
            Work::DeleteUser(ident) => {
                if let Some(id) = self.users.find(&ident) {
                    self.users.remove(id);
                }
            }
            Work::Subscription(change) => self.apply_subscription(&change, now_us),
            Work::Catalog(change) => self.catalogs.apply(change, now_us),
        }
    }

    fn apply_change(&mut self, change: Change, now_us: i64) {
        // Forgotten while it waited.
        if self.forgotten.contains(&change.ident) {
            return;
        }
        let id = self.users.find_or_create(&change.ident, now_us);
        let mut fields = change.fields;
        for (name, ident) in [("email", Ident::Email as fn(String) -> Ident), ("userId", Ident::UserId)] {
            if let Some(Value::String(text)) = fields.shift_remove(name) {
                let text = if name == "email" { text.to_lowercase() } else { text };
                // Somebody else took the identifier while it waited: the person keeps the old one.
                self.users.identify(id, &ident(text));
            }
        }
        if let Some(user) = self.users.get_mut(id) {
            user.set(fields, change.merge, now_us);
            user.lists.extend(change.list);
        }
    }
}

// === impl Work ===

impl Work {
    fn elements(&self) -> usize {
        match self {
            Self::Users(changes) => changes.len(),
            Self::Events(events) => events.len(),
            Self::DeleteUser(_) | Self::Subscription(_) => 1,
            Self::Catalog(change) => change.items.len(),
        }
    }
}

// === impl Refusal ===

impl Refusal {
    /// The answer to a request about one person.
    pub fn to_answer(&self) -> Answer {
        let error = |status, code, message: String| answer::error(status, code, message, Value::Null);
        match self {
            Self::Params(text) => answer::bad_params(text),
            Self::InvalidEmail(email) => error(400, "InvalidEmailAddressError", format!("Invalid email: {email}")),
            Self::InvalidUserId(id) => error(400, "InvalidUserIdError", format!("Invalid userId: {id}")),
            Self::Forgotten(who) => error(409, "ForgottenUserError", format!("User {} is forgotten", who.text())),
            Self::Conflict(Ident::Email(email)) => {
                error(409, "EmailAlreadyExists", format!("Email {email} already exists"))
            }
            Self::Conflict(Ident::UserId(id)) => {
                error(409, "UserIdAlreadyExists", format!("userId {id} already exists"))
            }
            Self::NotFound(Ident::Email(email)) => {
                error(400, "UnknownEmailError", format!("User with email {email} does not exist"))
            }
            Self::NotFound(Ident::UserId(id)) => {
                error(400, "UnknownUserIdError", format!("User with userId {id} does not exist"))
            }
            Self::InvalidData(who) => answer::bad_params(format!("dataFields of {} are not valid", who.text())),
        }
    }
}
