//! Arrow batches to JSON objects, one row at a time, without anything in between.
//!
//! The types are resolved once for a batch; writing a row then is a walk over typed arrays. What comes out is Spark's
//! `to_json` with `ignoreNullFields=false` and six decimals in timestamps: every column stands in every row, long integers
//! and decimals keep all their digits, what is not finite is a string.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use delta_kernel::arrow::array::{
    Array, BinaryArray, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int8Array, Int16Array, Int32Array, Int64Array, LargeBinaryArray, LargeStringArray, ListArray, MapArray,
    RecordBatch, StringArray, StringViewArray, StructArray, TimestampMicrosecondArray,
};
use delta_kernel::arrow::buffer::NullBuffer;
use delta_kernel::arrow::datatypes::DataType as ArrowType;
use delta_kernel::expressions::Scalar;
use delta_kernel::schema::{DataType, PrimitiveType};

use crate::layout::{Layout, Source, plain, prefix};
use crate::text;
use crate::variant;

/// Writes the rows of one batch.
pub(crate) struct RowEncoder<'a> {
    layout: &'a Layout,
    columns: Vec<Node<'a>>,
}

struct Node<'a> {
    nulls: Option<&'a NullBuffer>,
    values: Values<'a>,
}

enum Values<'a> {
    Null,
    /// The same JSON in every row.
    Constant(&'a [u8]),
    Boolean(&'a BooleanArray),
    Byte(&'a Int8Array),
    Short(&'a Int16Array),
    Int(&'a Int32Array),
    Long(&'a Int64Array),
    Float(&'a Float32Array),
    Double(&'a Float64Array),
    Decimal(&'a Decimal128Array, u8),
    Date(&'a Date32Array),
    Timestamp(&'a TimestampMicrosecondArray, bool),
    Text(Text<'a>),
    Binary(Bytes<'a>),
    List(&'a [i32], Box<Node<'a>>),
    Struct(Vec<(Vec<u8>, Node<'a>)>),
    Map(&'a [i32], Box<Node<'a>>, Box<Node<'a>>),
    Variant(Bytes<'a>, Bytes<'a>),
}

enum Text<'a> {
    Small(&'a StringArray),
    Large(&'a LargeStringArray),
    View(&'a StringViewArray),
}

enum Bytes<'a> {
    Small(&'a BinaryArray),
    Large(&'a LargeBinaryArray),
    View(&'a BinaryViewArray),
}

/// A value that cannot be written; says what is wrong with it.
pub(crate) type Malformed = String;

// === impl RowEncoder ===

impl<'a> RowEncoder<'a> {
    /// `constants` holds the JSON of the columns that are not in the file, by their place in the layout.
    ///
    /// # Errors
    /// The column, and how what was read differs from what its type says.
    pub fn new(layout: &'a Layout, batch: &'a RecordBatch, constants: &'a [Vec<u8>]) -> Result<Self, Malformed> {
        let mut columns = Vec::with_capacity(layout.columns.len());
        for (place, column) in layout.columns.iter().enumerate() {
            let node = match &column.source {
                Source::File(index) => {
                    let array =
                        batch.columns().get(*index).ok_or_else(|| format!("column {} was not read", column.name))?;
                    Node::new(&column.data_type, array.as_ref())
                        .map_err(|what| format!("column {}: {what}", column.name))?
                }
                Source::Partition { .. } => {
                    let constant = constants.get(place).map_or(&b"null"[..], Vec::as_slice);
                    Node { nulls: None, values: Values::Constant(constant) }
                }
                Source::Nowhere => Node { nulls: None, values: Values::Null },
            };
            columns.push(node);
        }
        Ok(Self { layout, columns })
    }

    /// Writes the row as a JSON object.
    pub fn write_row(&self, row: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
        out.push(b'{');
        for (place, (column, node)) in self.layout.columns.iter().zip(&self.columns).enumerate() {
            if place > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&column.prefix);
            node.write(row, out).map_err(|what| format!("column {}: {what}", column.name))?;
        }
        out.push(b'}');
        Ok(())
    }

    /// Writes one column's value, to be compared with another row's.
    pub fn write_column(&self, place: usize, row: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.columns.get(place).map_or(Ok(()), |node| node.write(row, out))
    }

    /// The value at a path as text: strings as they are, everything else as its JSON. False if it is null.
    pub fn write_key(&self, path: &[usize], row: usize, out: &mut Vec<u8>) -> Result<bool, Malformed> {
        let Some((first, rest)) = path.split_first() else { return Ok(false) };
        let Some(mut node) = self.columns.get(*first) else { return Ok(false) };
        for place in rest {
            if node.is_null(row) {
                return Ok(false);
            }
            let Values::Struct(fields) = &node.values else { return Ok(false) };
            let Some((_, field)) = fields.get(*place) else { return Ok(false) };
            node = field;
        }
        node.write_text(row, out)
    }
}

// === impl Node ===

impl<'a> Node<'a> {
    fn new(data_type: &DataType, array: &'a dyn Array) -> Result<Self, Malformed> {
        // The file does not have the column.
        if *array.data_type() == ArrowType::Null {
            return Ok(Self { nulls: None, values: Values::Null });
        }
        let values = match plain(data_type) {
            DataType::Primitive(primitive) => Self::primitive(primitive, array)?,
            DataType::Array(list) => {
                let found: &ListArray = cast(array, "a list")?;
                Values::List(found.value_offsets(), Box::new(Self::new(list.element_type(), found.values().as_ref())?))
            }
            DataType::Struct(fields) => {
                let found: &StructArray = cast(array, "a struct")?;
                if found.num_columns() != fields.num_fields() {
                    return Err(format!("{} fields were read, {} expected", found.num_columns(), fields.num_fields()));
                }
                let mut nodes = Vec::with_capacity(fields.num_fields());
                for (field, column) in fields.fields().zip(found.columns()) {
                    nodes.push((prefix(field.name()), Self::new(field.data_type(), column.as_ref())?));
                }
                Values::Struct(nodes)
            }
            DataType::Map(map) => {
                let found: &MapArray = cast(array, "a map")?;
                let keys = Self::new(map.key_type(), found.keys().as_ref())?;
                let values = Self::new(map.value_type(), found.values().as_ref())?;
                Values::Map(found.value_offsets(), Box::new(keys), Box::new(values))
            }
            DataType::Variant(_) => {
                let found: &StructArray = cast(array, "a variant")?;
                let part = |name: &str| {
                    let column = found.column_by_name(name).ok_or_else(|| format!("the variant has no {name}"))?;
                    bytes(column.as_ref())
                };
                if found.num_columns() != 2 {
                    return Err("the variant is shredded".to_owned());
                }
                Values::Variant(part("metadata")?, part("value")?)
            }
            DataType::UserDefined(_) => return Err("a type defined by a user inside of another".to_owned()),
        };
        Ok(Self { nulls: array.nulls(), values })
    }

    fn primitive(primitive: &PrimitiveType, array: &'a dyn Array) -> Result<Values<'a>, Malformed> {
        Ok(match primitive {
            PrimitiveType::Boolean => Values::Boolean(cast(array, "a boolean")?),
            PrimitiveType::Byte => Values::Byte(cast(array, "a tinyint")?),
            PrimitiveType::Short => Values::Short(cast(array, "a smallint")?),
            PrimitiveType::Integer => Values::Int(cast(array, "an int")?),
            PrimitiveType::Long => Values::Long(cast(array, "a bigint")?),
            PrimitiveType::Float => Values::Float(cast(array, "a float")?),
            PrimitiveType::Double => Values::Double(cast(array, "a double")?),
            PrimitiveType::Date => Values::Date(cast(array, "a date")?),
            PrimitiveType::Timestamp => Values::Timestamp(cast(array, "a timestamp")?, true),
            PrimitiveType::TimestampNtz => Values::Timestamp(cast(array, "a timestamp_ntz")?, false),
            PrimitiveType::Decimal(decimal) => {
                let found: &Decimal128Array = cast(array, "a decimal")?;
                if i16::from(found.scale()) != i16::from(decimal.scale()) {
                    return Err(format!("a decimal of scale {} was read, {} expected", found.scale(), decimal.scale()));
                }
                Values::Decimal(found, decimal.scale())
            }
            PrimitiveType::String => Values::Text(texts(array)?),
            PrimitiveType::Binary => Values::Binary(bytes(array)?),
            PrimitiveType::Void => Values::Null,
            PrimitiveType::IntervalYearMonth | PrimitiveType::IntervalDayTime => {
                return Err("an interval has no JSON".to_owned());
            }
        })
    }

    fn is_null(&self, row: usize) -> bool {
        self.nulls.is_some_and(|nulls| nulls.is_null(row)) || matches!(self.values, Values::Null)
    }

    fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
        if self.is_null(row) {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        match &self.values {
            Values::Null => out.extend_from_slice(b"null"),
            Values::Constant(json) => out.extend_from_slice(json),
            Values::Boolean(array) => out.extend_from_slice(if array.value(row) { b"true" } else { b"false" }),
            Values::Byte(array) => integer(out, array.value(row)),
            Values::Short(array) => integer(out, array.value(row)),
            Values::Int(array) => integer(out, array.value(row)),
            Values::Long(array) => integer(out, array.value(row)),
            Values::Float(array) => text::write_float(out, array.value(row)),
            Values::Double(array) => text::write_float(out, array.value(row)),
            Values::Decimal(array, scale) => text::write_decimal(out, array.value(row), *scale),
            Values::Date(array) => text::write_date(out, array.value(row)),
            Values::Timestamp(array, utc) => text::write_timestamp(out, array.value(row), *utc),
            Values::Text(array) => string(out, array.value(row)),
            Values::Binary(array) => binary(out, array.value(row)),
            Values::List(offsets, items) => {
                out.push(b'[');
                let range = range(offsets, row);
                for item in range.clone() {
                    if item > range.start {
                        out.push(b',');
                    }
                    items.write(item, out)?;
                }
                out.push(b']');
            }
            Values::Struct(fields) => {
                out.push(b'{');
                for (index, (name, field)) in fields.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(name);
                    field.write(row, out)?;
                }
                out.push(b'}');
            }
            Values::Map(offsets, keys, values) => {
                out.push(b'{');
                let range = range(offsets, row);
                for entry in range.clone() {
                    if entry > range.start {
                        out.push(b',');
                    }
                    keys.write_name(entry, out)?;
                    out.push(b':');
                    values.write(entry, out)?;
                }
                out.push(b'}');
            }
            Values::Variant(metadata, value) => variant::write(metadata.value(row), value.value(row), out)?,
        }
        Ok(())
    }

    /// A map's key: always a JSON string.
    fn write_name(&self, row: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let start = out.len();
        self.write(row, out)?;
        if out.get(start) != Some(&b'"') {
            out.insert(start, b'"');
            out.push(b'"');
        }
        Ok(())
    }

    /// The value as bare text. False if it is null.
    fn write_text(&self, row: usize, out: &mut Vec<u8>) -> Result<bool, Malformed> {
        if self.is_null(row) {
            return Ok(false);
        }
        match &self.values {
            Values::Text(array) => out.extend_from_slice(array.value(row).as_bytes()),
            Values::Constant(json) => {
                match serde_json::from_slice::<Option<String>>(json) {
                    Ok(None) => return Ok(false),
                    Ok(Some(text)) => out.extend_from_slice(text.as_bytes()),
                    // A number or a boolean is its own text.
                    Err(_) => out.extend_from_slice(json),
                }
            }
            _ => {
                let start = out.len();
                self.write(row, out)?;
                // Dates and the like are strings without anything escaped.
                if out.get(start) == Some(&b'"') {
                    out.remove(start);
                    out.pop();
                }
            }
        }
        Ok(true)
    }
}

impl<'a> Text<'a> {
    fn value(&self, row: usize) -> &'a str {
        match self {
            Self::Small(array) => array.value(row),
            Self::Large(array) => array.value(row),
            Self::View(array) => array.value(row),
        }
    }
}

impl<'a> Bytes<'a> {
    fn value(&self, row: usize) -> &'a [u8] {
        match self {
            Self::Small(array) => array.value(row),
            Self::Large(array) => array.value(row),
            Self::View(array) => array.value(row),
        }
    }
}

// === scalars ===

/// The JSON of a partition value.
pub(crate) fn scalar(value: &Scalar) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::new();
    match value {
        Scalar::Null(_) => out.extend_from_slice(b"null"),
        Scalar::Boolean(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Scalar::Byte(value) => integer(&mut out, *value),
        Scalar::Short(value) => integer(&mut out, *value),
        Scalar::Integer(value) => integer(&mut out, *value),
        Scalar::Long(value) => integer(&mut out, *value),
        Scalar::Float(value) => text::write_float(&mut out, *value),
        Scalar::Double(value) => text::write_float(&mut out, *value),
        Scalar::Decimal(value) => text::write_decimal(&mut out, value.bits(), value.scale()),
        Scalar::Date(value) => text::write_date(&mut out, *value),
        Scalar::Timestamp(value) => text::write_timestamp(&mut out, *value, true),
        Scalar::TimestampNtz(value) => text::write_timestamp(&mut out, *value, false),
        Scalar::String(value) => string(&mut out, value),
        Scalar::Binary(value) => binary(&mut out, value),
        _ => return Err("a partition value of this type has no JSON".to_owned()),
    }
    Ok(out)
}

pub(crate) fn integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

pub(crate) fn string(out: &mut Vec<u8>, value: &str) {
    #[expect(clippy::let_underscore_must_use, reason = "neither a string nor memory can make this fail")]
    let _ = serde_json::to_writer(&mut *out, value);
}

pub(crate) fn binary(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(STANDARD.encode(value).as_bytes());
    out.push(b'"');
}

// === arrays ===

fn cast<'a, T: 'static>(array: &'a dyn Array, expected: &str) -> Result<&'a T, Malformed> {
    array.as_any().downcast_ref().ok_or_else(|| format!("{} was read where {expected} was expected", array.data_type()))
}

fn texts(array: &dyn Array) -> Result<Text<'_>, Malformed> {
    let any = array.as_any();
    if let Some(array) = any.downcast_ref() {
        return Ok(Text::Small(array));
    }
    if let Some(array) = any.downcast_ref() {
        return Ok(Text::Large(array));
    }
    cast(array, "a string").map(Text::View)
}

fn bytes(array: &dyn Array) -> Result<Bytes<'_>, Malformed> {
    let any = array.as_any();
    if let Some(array) = any.downcast_ref() {
        return Ok(Bytes::Small(array));
    }
    if let Some(array) = any.downcast_ref() {
        return Ok(Bytes::Large(array));
    }
    cast(array, "binary").map(Bytes::View)
}

/// The places of a list's items; offsets are never negative and never beyond the items, arrow has checked them.
fn range(offsets: &[i32], row: usize) -> std::ops::Range<usize> {
    let at = |index: usize| offsets.get(index).and_then(|&offset| usize::try_from(offset).ok()).unwrap_or_default();
    at(row)..at(row + 1)
}
