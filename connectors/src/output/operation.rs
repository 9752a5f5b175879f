//! `_operation`: the name of an operation beside a vendor's own fields, where their shape does not say what is meant.

use serde_json::{Map, Value};
use tailwater_core::code;
use tailwater_core::operation::OperationKind;

use super::nearest;
use crate::destination::{ClassifyError, Spec};

/// The member that names the operation.
pub const OPERATION: &str = "_operation";

/// Takes the named operation out of an output; `None` where it names none and its shape has to tell.
///
/// # Errors
/// The value is no name of an operation, or of one that the destination cannot perform.
pub fn take_operation(output: &mut Map<String, Value>, spec: &Spec) -> Result<Option<OperationKind>, ClassifyError> {
    let name = match output.remove(OPERATION) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(name)) => name,
        Some(other) => {
            let message = format!("{OPERATION}: is {other}; expected one of {}", spec.operation_names());
            return Err(ClassifyError { code: code::OUTPUT_INVALID, message });
        }
    };
    let Some(kind) = OperationKind::find(&name) else {
        let hint = nearest(&name, spec.operations.iter().map(|operation| operation.kind.as_str()))
            .map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        let message =
            format!("{OPERATION}: `{name}` is no operation; {} can {}{hint}", spec.kind, spec.operation_names());
        return Err(ClassifyError { code: code::UNSUPPORTED_OPERATION, message });
    };
    spec.supported(kind)?;
    Ok(Some(kind))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::destination::{Idempotent, Limits, OperationSpec};

    static SPEC: Spec = Spec {
        kind: "acme",
        identifier_fields: &["email"],
        limits: Limits { batch_deliveries_max: 1, batch_age_max: std::time::Duration::ZERO, calls_max: 1 },
        operations: &[OperationSpec {
            kind: OperationKind::AddToList,
            idempotent: Idempotent::Yes,
            batch_max: 1,
            note: "",
        }],
    };

    fn take(output: &Value) -> Result<Option<OperationKind>, ClassifyError> {
        let mut output = output.as_object().unwrap().clone();
        let kind = take_operation(&mut output, &SPEC);
        assert!(!output.contains_key(OPERATION));
        kind
    }

    #[test]
    fn an_operation_is_taken_by_its_name_or_refused_with_the_list() {
        assert_eq!(take(&json!({"listId": 7})), Ok(None));
        assert_eq!(take(&json!({"_operation": "add_to_list"})), Ok(Some(OperationKind::AddToList)));
        let unsupported = take(&json!({"_operation": "delete_profile"})).unwrap_err();
        assert_eq!(unsupported.code, code::UNSUPPORTED_OPERATION);
        assert_eq!(unsupported.message, "acme cannot `delete_profile`; it can `add_to_list`");
        let misspelled = take(&json!({"_operation": "add_to_lists"})).unwrap_err();
        assert_eq!(misspelled.code, code::UNSUPPORTED_OPERATION);
        assert!(misspelled.message.ends_with("did you mean `add_to_list`?"), "{misspelled}");
        assert_eq!(take(&json!({"_operation": 7})).unwrap_err().code, code::OUTPUT_INVALID);
    }
}
