//! What a file holds as what the schema of its version says: columns and fields in the schema's order, missing ones null, narrow
//! types widened. A file that holds something else is an error: a value is never guessed.

use std::sync::Arc;

use delta_kernel::arrow::array::{
    Array as _, ArrayRef, ListArray, MapArray, NullArray, RecordBatch, RecordBatchOptions, StructArray,
};
use delta_kernel::arrow::compute::{CastOptions, cast_with_options};
use delta_kernel::arrow::datatypes::{DataType as ArrowType, Field, Fields, Schema, TimeUnit};
use delta_kernel::schema::{ColumnMetadataKey, DataType, MetadataValue, PrimitiveType, StructField, StructType};

use crate::layout::{notation, plain};

/// The key under which arrow carries a parquet column's id.
const FIELD_ID: &str = "PARQUET:field_id";

/// A column of a file that is not what the schema says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    /// The physical name.
    pub column: String,
    pub what: String,
}

/// The place of a schema's field among a file's: by id where columns are mapped by id, else by name. Names have no case, as in Spark.
///
/// # Errors
/// Several of the file's columns have the name, in different cases: Spark refuses that too.
pub(crate) fn find(fields: &Fields, field: &StructField) -> Result<Option<usize>, String> {
    if let Some(MetadataValue::Number(id)) = field.get_config_value(&ColumnMetadataKey::ParquetFieldId) {
        let id = id.to_string();
        if let Some(place) = fields.iter().position(|found| found.metadata().get(FIELD_ID) == Some(&id)) {
            return Ok(Some(place));
        }
        // A file that has ids does not have the column; one without any was written before the mapping.
        if fields.iter().any(|found| found.metadata().contains_key(FIELD_ID)) {
            return Ok(None);
        }
    }
    // Nearly always the first comparison decides; the second one makes sure of it.
    let same = |name: &str| name == field.name() || name.to_lowercase() == field.name().to_lowercase();
    let mut places = fields.iter().enumerate().filter(|(_, found)| same(found.name()));
    match (places.next(), places.next()) {
        (Some((place, _)), None) => Ok(Some(place)),
        (Some((_, one)), Some((_, other))) => {
            Err(format!("the file has {} and {}, which differ only in case", one.name(), other.name()))
        }
        (None, _) => Ok(None),
    }
}

/// The batch with one column for each field of the schema.
pub(crate) fn adapt(batch: &RecordBatch, target: &StructType) -> Result<RecordBatch, Misfit> {
    let found = batch.schema_ref().fields();
    let mut fields = Vec::with_capacity(target.num_fields());
    let mut columns = Vec::with_capacity(target.num_fields());
    for field in target.fields() {
        let column = match find(found, field).map_err(|what| Misfit { column: field.name().clone(), what })? {
            Some(place) => array(field.data_type(), batch.column(place))
                .map_err(|what| Misfit { column: field.name().clone(), what })?,
            None => Arc::new(NullArray::new(batch.num_rows())),
        };
        fields.push(Field::new(field.name(), column.data_type().clone(), true));
        columns.push(column);
    }
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &rows)
        .map_err(|error| Misfit { column: String::new(), what: error.to_string() })
}

fn array(data_type: &DataType, found: &ArrayRef) -> Result<ArrayRef, String> {
    let other = || format!("the file holds {}, the schema says {}", found.data_type(), notation(data_type));
    let arrow = |error: delta_kernel::arrow::error::ArrowError| error.to_string();
    Ok(match plain(data_type) {
        DataType::Primitive(primitive) => primitive_array(primitive, found, other)?,
        DataType::Struct(target) => {
            let found: &StructArray = found.as_any().downcast_ref().ok_or_else(other)?;
            Arc::new(struct_array(target, found)?)
        }
        DataType::Array(target) => {
            let found: &ListArray = found.as_any().downcast_ref().ok_or_else(other)?;
            let items = array(target.element_type(), found.values())?;
            let field = Arc::new(Field::new("element", items.data_type().clone(), true));
            Arc::new(ListArray::try_new(field, found.offsets().clone(), items, found.nulls().cloned()).map_err(arrow)?)
        }
        DataType::Map(target) => {
            let found: &MapArray = found.as_any().downcast_ref().ok_or_else(other)?;
            let keys = array(target.key_type(), found.keys())?;
            let values = array(target.value_type(), found.values())?;
            let fields = Fields::from(vec![
                Field::new("key", keys.data_type().clone(), false),
                Field::new("value", values.data_type().clone(), true),
            ]);
            let entries = StructArray::try_new(fields.clone(), vec![keys, values], None).map_err(arrow)?;
            let field = Arc::new(Field::new("entries", ArrowType::Struct(fields), false));
            Arc::new(
                MapArray::try_new(field, found.offsets().clone(), entries, found.nulls().cloned(), false)
                    .map_err(arrow)?,
            )
        }
        DataType::Variant(_) => {
            let found: &StructArray = found.as_any().downcast_ref().ok_or_else(other)?;
            if found.column_by_name("typed_value").is_some() {
                return Err("the file holds a shredded variant (table feature variantShredding)".to_owned());
            }
            Arc::new(found.clone())
        }
        DataType::UserDefined(_) => return Err(other()),
    })
}

fn struct_array(target: &StructType, found: &StructArray) -> Result<StructArray, String> {
    let mut fields = Vec::with_capacity(target.num_fields());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(target.num_fields());
    for field in target.fields() {
        let column = match find(found.fields(), field)? {
            Some(place) => array(field.data_type(), found.column(place))
                .map_err(|what| format!("field {}: {what}", field.name()))?,
            None => Arc::new(NullArray::new(found.len())),
        };
        fields.push(Field::new(field.name(), column.data_type().clone(), true));
        columns.push(column);
    }
    if fields.is_empty() {
        return Ok(StructArray::new_empty_fields(found.len(), found.nulls().cloned()));
    }
    StructArray::try_new(Fields::from(fields), columns, found.nulls().cloned()).map_err(|error| error.to_string())
}

fn primitive_array(
    primitive: &PrimitiveType,
    found: &ArrayRef,
    other: impl Fn() -> String,
) -> Result<ArrayRef, String> {
    use ArrowType as A;
    let micros = |zone: Option<&str>| A::Timestamp(TimeUnit::Microsecond, zone.map(Arc::from));
    let target = match primitive {
        PrimitiveType::String => A::Utf8,
        PrimitiveType::Binary => A::Binary,
        PrimitiveType::Boolean => A::Boolean,
        PrimitiveType::Byte => A::Int8,
        PrimitiveType::Short => A::Int16,
        PrimitiveType::Integer => A::Int32,
        PrimitiveType::Long => A::Int64,
        PrimitiveType::Float => A::Float32,
        PrimitiveType::Double => A::Float64,
        PrimitiveType::Date => A::Date32,
        PrimitiveType::Timestamp => micros(Some("UTC")),
        PrimitiveType::TimestampNtz => micros(None),
        PrimitiveType::Decimal(decimal) => {
            A::Decimal128(decimal.precision(), i8::try_from(decimal.scale()).map_err(|_| other())?)
        }
        PrimitiveType::Void => return Ok(Arc::new(NullArray::new(found.len()))),
        PrimitiveType::IntervalYearMonth | PrimitiveType::IntervalDayTime => return Err(other()),
    };
    if *found.data_type() == target {
        return Ok(found.clone());
    }
    // What Delta's type widening allows, and the representations that writers choose for the same values.
    let fits = match (found.data_type(), &target) {
        (A::Int8, A::Int16 | A::Int32 | A::Int64 | A::Float64 | A::Decimal128(..))
        | (A::Int16, A::Int32 | A::Int64 | A::Float64 | A::Decimal128(..))
        | (A::Int32, A::Int64 | A::Float64 | A::Decimal128(..))
        | (A::Int64, A::Decimal128(..))
        | (A::Float32, A::Float64)
        | (A::Timestamp(..), A::Timestamp(..))
        | (A::Date32, A::Timestamp(_, None))
        | (A::Binary, A::Utf8) => true,
        (A::Decimal128(precision, scale), A::Decimal128(wider, finer)) => {
            finer >= scale && i16::from(*wider) - i16::from(*finer) >= i16::from(*precision) - i16::from(*scale)
        }
        _ => false,
    };
    if !fits {
        return Err(other());
    }
    // Unsafe in arrow's word means to fail instead of writing null.
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(found, &target, &options).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use delta_kernel::arrow::array::{Int32Array, Int64Array, StringArray};

    use super::*;

    fn batch(name: &str, column: ArrayRef) -> RecordBatch {
        RecordBatch::try_from_iter([(name, column)]).unwrap()
    }

    #[test]
    fn narrow_integers_are_widened_and_missing_columns_are_null() {
        let target = StructType::try_new([
            StructField::nullable("new", DataType::STRING),
            StructField::nullable("n", DataType::LONG),
        ])
        .unwrap();
        let adapted = adapt(&batch("n", Arc::new(Int32Array::from(vec![1, -2]))), &target).unwrap();
        assert_eq!(adapted.column(0).data_type(), &ArrowType::Null);
        assert_eq!(adapted.column(1).as_any().downcast_ref::<Int64Array>().unwrap().values(), &[1, -2]);
    }

    #[test]
    fn another_type_under_the_name_is_a_misfit_and_no_null() {
        let target = StructType::try_new([StructField::nullable("n", DataType::DOUBLE)]).unwrap();
        let misfit = adapt(&batch("n", Arc::new(StringArray::from(vec!["1.5"]))), &target).unwrap_err();
        assert_eq!(misfit, Misfit { column: "n".into(), what: "the file holds Utf8, the schema says double".into() });
    }

    #[test]
    fn a_long_is_not_narrowed() {
        let target = StructType::try_new([StructField::nullable("n", DataType::INTEGER)]).unwrap();
        assert!(adapt(&batch("n", Arc::new(Int64Array::from(vec![1]))), &target).is_err());
    }

    // Issue 10, A4: a file that spells a column in another case was read as null.
    #[test]
    fn names_have_no_case_and_two_that_differ_in_it_are_refused() {
        use delta_kernel::arrow::array::Float64Array;
        let inner = StructType::try_new([StructField::nullable("Low", DataType::DOUBLE)]).unwrap();
        let target = StructType::try_new([
            StructField::nullable("Total_Spend", DataType::DOUBLE),
            StructField::nullable("Range", inner),
        ])
        .unwrap();
        let value = || Arc::new(Float64Array::from(vec![20.5])) as ArrayRef;
        let range = |names: &[&str]| {
            let fields: Fields = names.iter().map(|name| Field::new(*name, ArrowType::Float64, true)).collect();
            Arc::new(StructArray::new(fields, names.iter().map(|_| value()).collect(), None)) as ArrayRef
        };
        let file = RecordBatch::try_from_iter([("total_spend", value()), ("RANGE", range(&["low"]))]).unwrap();
        let adapted = adapt(&file, &target).unwrap();
        assert_eq!(adapted.column(0).as_any().downcast_ref::<Float64Array>().unwrap().value(0), 20.5);
        let found = adapted.column(1).as_any().downcast_ref::<StructArray>().unwrap();
        assert_eq!(found.column(0).as_any().downcast_ref::<Float64Array>().unwrap().value(0), 20.5);

        let twice = RecordBatch::try_from_iter([("total_spend", value()), ("Total_Spend", value())]).unwrap();
        let misfit = adapt(&twice, &target).unwrap_err();
        assert_eq!(misfit.column, "Total_Spend");
        assert!(misfit.what.contains("total_spend and Total_Spend"), "{}", misfit.what);
        let nested = RecordBatch::try_from_iter([("Range", range(&["low", "LOW"]))]).unwrap();
        assert!(adapt(&nested, &target).unwrap_err().what.contains("low and LOW"));
    }
}
