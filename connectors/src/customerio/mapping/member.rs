//! Manual segments. The Track API v2 has no item for them, so an output names the segment and the person:
//! `{_operation: 'add_to_list', segment_id: 7, identifiers: {id: row.user_id}}`.

use serde_json::{Map, Value, json};
use tailwater_core::operation::OperationKind;

use super::person::{Field, Person};
use super::take::{invalid, optional_text, refuse_rest, required_text, wrong_type};
use super::{Author, Draft};
use crate::customerio::config::Api;
use crate::destination::ClassifyError;

impl Author<'_> {
    pub(super) fn member(
        &mut self,
        mut root: Map<String, Value>,
        said: Option<OperationKind>,
    ) -> Result<Vec<Draft>, ClassifyError> {
        let Some(kind @ (OperationKind::AddToList | OperationKind::RemoveFromList)) = said else {
            let message =
                "names a segment; say `_operation: 'add_to_list'` or `_operation: 'remove_from_list'` beside it";
            return Err(invalid("segment_id", message));
        };
        if self.rules.api == Api::Pipelines {
            return Err(self.track_only("has manual segments"));
        }
        let segment = required_text(&mut root, "segment_id", "", "7")?;
        let Some(segment) = segment.parse::<i32>().ok().filter(|segment| *segment > 0) else {
            return Err(invalid("segment_id", "is no segment; it is the number on the segment's page, not its name"));
        };
        let person = match (root.remove("identifiers"), root.remove("ids")) {
            (identifiers @ Some(_), None) => self.person(identifiers, "identifiers")?,
            (None, Some(ids)) => {
                let field = optional_text(&mut root, "id_type", "")?.unwrap_or_else(|| "id".to_owned());
                self.only_id(&field, &ids)?
            }
            (Some(_), Some(_)) => return Err(invalid("ids", "stand beside `identifiers`; give one of them")),
            (None, None) => return Err(invalid("", "names nobody; expected `identifiers: {id: row.user_id}`")),
        };
        refuse_rest(&root, "", &["segment_id", "identifiers", "ids", "id_type"])?;
        let field = person.field;
        if !matches!(field, Field::Id | Field::Email | Field::CioId) {
            return Err(invalid("identifiers", "the vendor takes id, email or cio_id for a manual segment"));
        }
        if kind == OperationKind::RemoveFromList && field != Field::Id {
            let message = "the vendor requires people to have an `id` when they are removed from a manual segment; give `identifiers: {id: …}`";
            return Err(invalid("identifiers", message));
        }
        let item = json!({"id_type": field.as_str(), "id": person.value});
        Ok(vec![self.draft(kind, Some(segment.to_string()), item)])
    }

    /// The vendor's own form, with the one person whom an output is about.
    fn only_id(&self, field: &str, ids: &Value) -> Result<Person, ClassifyError> {
        let Some(known) = Field::find(field).filter(|field| field.names_somebody()) else {
            return Err(invalid("id_type", &format!("is `{field}`; expected id, email or cio_id")));
        };
        match ids.as_array().map(Vec::as_slice) {
            Some([id]) => match self.identifier(known, id, "ids[0]")? {
                Some(value) => Ok(Person { field: known, value }),
                None => Err(invalid("ids[0]", "names nobody")),
            },
            Some(ids) => {
                let message = format!("names {} people; an output is about one, and requests gather them", ids.len());
                Err(invalid("ids", &message))
            }
            None => Err(wrong_type("ids", "an array with one identifier", ids)),
        }
    }
}
