//! The shape of a body as a table: which fields a vendor's specification knows, their types, and which must be there. What the table
//! does not know is refused. The tables are checked against the specifications in tests.

use serde_json::Value;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    Text,
    Integer,
    Number,
    Bool,
    /// An object whose fields the specification lists.
    Object(&'static [Field]),
    /// An object with fields of the client's choice.
    Open,
    List(&'static Shape),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub name: &'static str,
    pub shape: Shape,
    pub required: bool,
}

/// What does not fit, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Misfit {
    /// Such as `.users[3].email`.
    pub path: String,
    pub why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    Missing,
    Unknown,
    /// The type that is expected: `String`, `Number`, …
    Expected(&'static str),
}

pub(crate) const fn required(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, required: true }
}

pub(crate) const fn optional(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, required: false }
}

// === impl Shape ===

impl Shape {
    /// Everything that does not fit.
    pub fn misfits(&self, value: &Value) -> Vec<Misfit> {
        let mut misfits = Vec::new();
        self.check(value, "", &mut misfits);
        misfits
    }

    fn check(&self, value: &Value, path: &str, misfits: &mut Vec<Misfit>) {
        let fits = match self {
            Self::Text => value.is_string(),
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Number => value.is_number(),
            Self::Bool => value.is_boolean(),
            Self::Open | Self::Object(_) => value.is_object(),
            Self::List(_) => value.is_array(),
        };
        if !fits {
            misfits.push(Misfit { path: path.to_owned(), why: Why::Expected(self.name()) });
            return;
        }
        match (self, value) {
            (Self::Object(fields), Value::Object(object)) => {
                for field in *fields {
                    let path = format!("{path}.{}", field.name);
                    match object.get(field.name) {
                        // Null stands for an absent optional field.
                        None | Some(Value::Null) if field.required => {
                            misfits.push(Misfit { path, why: Why::Missing });
                        }
                        None | Some(Value::Null) => {}
                        Some(value) => field.shape.check(value, &path, misfits),
                    }
                }
                let unknown = object.keys().filter(|name| fields.iter().all(|field| field.name != name.as_str()));
                misfits.extend(unknown.map(|name| Misfit { path: format!("{path}.{name}"), why: Why::Unknown }));
            }
            (Self::List(element), Value::Array(elements)) => {
                for (index, value) in elements.iter().enumerate() {
                    element.check(value, &format!("{path}[{index}]"), misfits);
                }
            }
            _ => {}
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Text => "String",
            Self::Integer | Self::Number => "Number",
            Self::Bool => "Boolean",
            Self::Open | Self::Object(_) => "Object",
            Self::List(_) => "Array",
        }
    }
}

#[cfg(test)]
pub(crate) mod against {
    //! A table against a vendor's specification.

    use std::path::PathBuf;

    use super::*;

    /// The specification, or `None` with a visible word where it is absent. It is the vendor's text, so it lies outside of the project:
    /// beside the checkout, or where `TAILWATER_SPECS` says.
    pub fn specification(file: &str) -> Option<Value> {
        let folder = std::env::var_os("TAILWATER_SPECS")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/specs"), PathBuf::from);
        let path = folder.join(file);
        let Ok(text) = std::fs::read(&path) else {
            use std::io::Write as _;
            // Past the capture of the test runner: a check that did not run must be seen.
            let skip = format!("SKIPPED: the simulator is not checked against {}, which is absent\n", path.display());
            std::io::stderr().write_all(skip.as_bytes()).unwrap();
            return None;
        };
        Some(serde_json::from_slice(&text).unwrap())
    }

    pub fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
        match schema.get("$ref").and_then(Value::as_str) {
            Some(reference) => resolved(root, root.pointer(reference.trim_start_matches('#')).unwrap()),
            None => schema,
        }
    }

    /// Where a table and a schema of the specification differ.
    pub fn differences(root: &Value, schema: &Value, shape: &Shape, path: &str, found: &mut Vec<String>) {
        let schema = resolved(root, schema);
        let kind = schema["type"].as_str().unwrap_or("object");
        let fits = match shape {
            Shape::Text => kind == "string",
            Shape::Integer => kind == "integer",
            Shape::Number => kind == "number",
            Shape::Bool => kind == "boolean",
            Shape::Open | Shape::Object(_) => kind == "object",
            Shape::List(_) => kind == "array",
        };
        if !fits {
            found.push(format!("{path}: is {kind} there and {} here", shape.name()));
            return;
        }
        match shape {
            Shape::Object(fields) => {
                let none = serde_json::Map::new();
                let properties = schema["properties"].as_object().unwrap_or(&none);
                for name in properties.keys().filter(|name| fields.iter().all(|field| field.name != name.as_str())) {
                    found.push(format!("{path}.{name}: only there"));
                }
                let required: Vec<&str> =
                    schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                for field in *fields {
                    let path = format!("{path}.{}", field.name);
                    if required.contains(&field.name) && !field.required {
                        found.push(format!("{path}: required there only"));
                    }
                    match properties.get(field.name) {
                        None => found.push(format!("{path}: only here")),
                        Some(schema) => differences(root, schema, &field.shape, &path, found),
                    }
                }
            }
            Shape::List(element) => differences(root, &schema["items"], element, &format!("{path}[]"), found),
            Shape::Text | Shape::Integer | Shape::Number | Shape::Bool | Shape::Open => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SHAPE: Shape = Shape::Object(&[
        required(
            "users",
            Shape::List(&Shape::Object(&[optional("email", Shape::Text), optional("data", Shape::Open)])),
        ),
        optional("count", Shape::Integer),
    ]);

    #[test]
    fn what_fits_passes_and_null_stands_for_an_absent_optional_field() {
        assert_eq!(SHAPE.misfits(&json!({"users": [{"email": null, "data": {"x": 1}}], "count": 3})), []);
    }

    #[test]
    fn every_misfit_is_named_by_its_path() {
        let body = json!({"users": [{"email": 7}, {"mail": "a"}], "count": 1.5, "more": 1});
        let found: Vec<_> = SHAPE.misfits(&body).into_iter().map(|misfit| (misfit.path, misfit.why)).collect();
        let expected = [
            (".users[0].email", Why::Expected("String")),
            (".users[1].mail", Why::Unknown),
            (".count", Why::Expected("Number")),
            (".more", Why::Unknown),
        ];
        assert_eq!(found, expected.map(|(path, why)| (path.to_owned(), why)));
        assert_eq!(SHAPE.misfits(&json!({}))[0].why, Why::Missing);
    }
}
