//! What changes who a person is at the vendor: another address, a merge, a deletion. All of these are destructive, and a route must allow
//! them.

use serde_json::{Map, Value};
use tailwater_core::operation::OperationKind;

use super::take::{invalid, object, refuse_rest, wrong_type};
use super::{Checker, Made};
use crate::destination::ClassifyError;
use crate::iterable::person::{Field, Identity, Person};

impl Checker<'_> {
    /// `{currentEmail | currentUserId, newEmail}`. Where the project identifies people by user id, the vendor wants an update instead.
    pub(super) fn change_email(&mut self, mut root: Map<String, Value>) -> Result<Made, ClassifyError> {
        let new = self.named(&mut root, "newEmail", Field::Email)?;
        let new = new.ok_or_else(|| invalid("newEmail", "is empty; give the address that the person gets"))?;
        let current = Person {
            email: self.named(&mut root, "currentEmail", Field::Email)?,
            user_id: self.named(&mut root, "currentUserId", Field::UserId)?,
        };
        refuse_rest(&root, "", ["newEmail", "currentEmail", "currentUserId"], "")?;
        let mut body = Map::new();
        match (self.rules.identity, current.email, current.user_id) {
            (Identity::Email, Some(email), _) => {
                if Field::Email.normal(&email) == Field::Email.normal(&new) {
                    return Err(invalid("newEmail", "is the same address as `currentEmail`"));
                }
                body.insert("currentEmail".to_owned(), Value::from(email));
                body.insert("newEmail".to_owned(), Value::from(new));
            }
            (Identity::Email, None, Some(user_id)) => {
                body.insert("currentUserId".to_owned(), Value::from(user_id));
                body.insert("newEmail".to_owned(), Value::from(new));
            }
            (Identity::UserId | Identity::Hybrid, _, Some(user_id)) => {
                body.insert("userId".to_owned(), Value::from(user_id));
                body.insert("dataFields".to_owned(), serde_json::json!({"email": new}));
                body.insert("mergeNestedObjects".to_owned(), Value::Bool(self.rules.merge_nested_objects));
            }
            (Identity::UserId | Identity::Hybrid, _, None) => {
                let message = format!(
                    "has no `currentUserId`, which this project needs, since it {}",
                    self.rules.identity.describe()
                );
                return Err(invalid("the output", &message));
            }
            (Identity::Email, None, None) => {
                return Err(invalid("the output", "has neither `currentEmail` nor `currentUserId`"));
            }
        }
        Ok(Made { kind: OperationKind::ChangeIdentifier, target: None, body })
    }

    /// `{source…, destination…, arrayMerge?}`. Both people must be this profile: what Tailwater has not merged is not merged at the vendor.
    pub(super) fn merge(&mut self, mut root: Map<String, Value>) -> Result<Made, ClassifyError> {
        let mut body = Map::new();
        let mut named = Vec::new();
        for (side, email, user_id) in
            [("source", "sourceEmail", "sourceUserId"), ("destination", "destinationEmail", "destinationUserId")]
        {
            let person = Person {
                email: self.named(&mut root, email, Field::Email)?,
                user_id: self.named(&mut root, user_id, Field::UserId)?,
            };
            let field = self.rules.identity.field(&person).ok_or_else(|| {
                invalid("the output", &format!("names no {side}; the project {}", self.rules.identity.describe()))
            })?;
            let value = person.get(field).unwrap_or_default();
            let name = if field == Field::Email { email } else { user_id };
            named.push((field, field.normal(value)));
            body.insert(name.to_owned(), Value::from(value));
        }
        if named.first() == named.last() {
            return Err(invalid("the output", "names the same person as source and as destination"));
        }
        if let Some(merges) = root.remove("arrayMerge").filter(|merges| !merges.is_null()) {
            let Value::Array(items) = merges else { return Err(wrong_type("arrayMerge", "an array", &merges)) };
            for (index, item) in items.iter().enumerate() {
                let at = format!("arrayMerge[{index}]");
                let item = object(item.clone(), &at, "an object with `field`")?;
                let is_text = |name: &str| item.get(name).is_some_and(Value::is_string);
                if !is_text("field")
                    || item.keys().any(|name| !matches!(name.as_str(), "field" | "dedupeBy") || !is_text(name))
                {
                    return Err(invalid(
                        &at,
                        "is not understood; expected `{field: '…', dedupeBy: '…'}`, `dedupeBy` for arrays of objects only",
                    ));
                }
            }
            body.insert("arrayMerge".to_owned(), Value::Array(items));
        }
        let known = ["sourceEmail", "sourceUserId", "destinationEmail", "destinationUserId", "arrayMerge"];
        refuse_rest(&root, "", known, "")?;
        Ok(Made { kind: OperationKind::MergeProfiles, target: None, body })
    }

    /// `{_operation, email | userId}`: deletes a person, forgets one (deletes and takes no more data), or takes data again.
    pub(super) fn removal(&mut self, kind: OperationKind, mut root: Map<String, Value>) -> Result<Made, ClassifyError> {
        let person = self.take_person(&mut root, "")?;
        refuse_rest(&root, "", ["email", "userId"], "")?;
        let field = self.field_of(&person, "")?;
        if self.rules.identity == Identity::Email && field == Field::UserId {
            // The vendor deletes everybody who shares the user id, and forgets by address only.
            return Err(invalid(
                "the output",
                "has no `email`, by which a project that identifies people by email removes them",
            ));
        }
        let mut body = Map::new();
        self.put_name(&person, "", &mut body)?;
        Ok(Made { kind, target: None, body })
    }

    fn named(&self, root: &mut Map<String, Value>, name: &str, field: Field) -> Result<Option<String>, ClassifyError> {
        self.own(field, root.remove(name).unwrap_or_default(), name)
    }
}
