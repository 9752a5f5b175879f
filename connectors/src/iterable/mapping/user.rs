//! Users: `{email | userId, dataFields, mergeNestedObjects?, preferUserId?}`.

use serde_json::{Map, Value};
use tailwater_core::operation::OperationKind;

use super::take::{below, coerce, convert_dates, invalid, object, refuse_rest};
use super::{Checker, Made};
use crate::destination::ClassifyError;
use crate::iterable::person::{Field, Identity, Person};
use crate::iterable::schema::{REFUSED_FIELDS, USER};
use crate::output::{Nulls, omit_nulls};

impl Checker<'_> {
    pub(super) fn user_operation(&mut self, root: Map<String, Value>) -> Result<Made, ClassifyError> {
        let body = self.user(root, "")?;
        Ok(Made { kind: OperationKind::UpsertProfile, target: None, body })
    }

    /// A user, as it is in a bulk request; `createNewFields` is left to the request.
    pub(super) fn user(&mut self, mut from: Map<String, Value>, at: &str) -> Result<Map<String, Value>, ClassifyError> {
        let mut person = self.take_person(&mut from, at)?;
        let fields = from.remove("dataFields").unwrap_or_default();
        let mut fields = self.fields(fields, &below(at, "dataFields"), &mut person)?;
        let mut out = Map::new();
        self.put_name(&person, at, &mut out)?;
        let named = self.field_of(&person, at)?;
        // The other identifier is a field of the profile; the vendor takes it there.
        if let Some(other) = person.get(named.other()) {
            fields.insert(named.other().as_str().to_owned(), Value::from(other));
        }
        out.insert("dataFields".to_owned(), Value::Object(fields));
        // A project that identifies people by email creates somebody by a user id only where this is said.
        let by_user_id = self.rules.identity == Identity::Email && named == Field::UserId;
        if by_user_id {
            out.insert("preferUserId".to_owned(), Value::Bool(self.rules.create));
        }
        let mut merge = self.rules.merge_nested_objects;
        for (name, shape) in USER {
            let Some(value) = from.remove(*name).filter(|value| !value.is_null()) else { continue };
            let value = coerce(value, *shape, &below(at, name))?;
            match *name {
                "mergeNestedObjects" => merge = value == Value::Bool(true),
                "preferUserId" if by_user_id => drop(out.insert((*name).to_owned(), value)),
                "createNewFields" => self.same_create_new_fields(&value, &below(at, name))?,
                _ => {}
            }
        }
        out.insert("mergeNestedObjects".to_owned(), Value::Bool(merge));
        let known = USER.iter().map(|(name, _)| *name).chain(["email", "userId", "dataFields"]);
        refuse_rest(&from, at, known, "; fields of your own go under dataFields")?;
        Ok(out)
    }

    /// A user within a purchase or a cart, where `createNewFields` is the user's own.
    pub(super) fn inner_user(&mut self, value: Value) -> Result<Map<String, Value>, ClassifyError> {
        let user = object(value, "user", "an object with `email` or `userId`")?;
        let mut out = self.user(user, "user")?;
        out.insert("createNewFields".to_owned(), Value::Bool(self.rules.create_new_fields));
        Ok(out)
    }

    /// `createNewFields` belongs to a whole bulk request, so the destination says it and an output may only agree.
    pub(super) fn same_create_new_fields(&self, value: &Value, at: &str) -> Result<(), ClassifyError> {
        if *value == Value::Bool(self.rules.create_new_fields) {
            return Ok(());
        }
        Err(invalid(
            at,
            &format!(
                "differs from the destination's `create_new_fields: {}`; leave it out, and change the destination if that is wrong",
                self.rules.create_new_fields
            ),
        ))
    }

    /// The fields of a profile. Identifiers among them are checked as those beside them.
    fn fields(&self, value: Value, at: &str, person: &mut Person) -> Result<Map<String, Value>, ClassifyError> {
        // A null here would be read as "all of them"; nobody means that.
        if value.is_null() {
            return Ok(Map::new());
        }
        let mut fields = object(value, at, "an object")?;
        for (name, reason) in REFUSED_FIELDS {
            if fields.contains_key(*name) {
                return Err(invalid(&below(at, name), &format!("is refused: {reason}")));
            }
        }
        for field in Field::ALL {
            let Some(value) = fields.remove(field.as_str()) else { continue };
            let at = below(at, field.as_str());
            if let Some(own) = self.own(field, value, &at)? {
                match person.get(field) {
                    Some(beside) if field.normal(beside) != field.normal(&own) => {
                        return Err(invalid(&at, "differs from the same identifier beside `dataFields`; give it once"));
                    }
                    Some(_) => {}
                    None => person.put(field, own),
                }
            }
        }
        if self.rules.nulls == Nulls::Omit {
            omit_nulls(&mut fields);
        }
        if self.rules.convert_dates {
            fields.values_mut().for_each(convert_dates);
        }
        Ok(fields)
    }
}
