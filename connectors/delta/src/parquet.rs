//! Reads one parquet file under a physical schema.
//!
//! The kernel's own reader is not used for rows, for two reasons. It decodes Spark's default timestamps (INT96) to nanoseconds,
//! which silently turns the year 9999, so often meant as "for ever", into 1816; here they are decoded to microseconds, which is
//! all that Delta has. And it rejects null maps whose values have to be converted. What the kernel knows of a table (names, ids,
//! types) comes in as the schema.

use std::sync::Arc;

use delta_kernel::KernelError;
use delta_kernel::arrow::array::RecordBatch;
use delta_kernel::arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Schema, SchemaRef as ArrowSchemaRef, TimeUnit,
};
use delta_kernel::object_store::DynObjectStore;
use delta_kernel::object_store::path::Path;
use delta_kernel::parquet::arrow::ProjectionMask;
use delta_kernel::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader};
#[expect(deprecated, reason = "its replacement is an implementation of our own of the very same")]
use delta_kernel::parquet::arrow::async_reader::ParquetObjectReader;
use delta_kernel::parquet::arrow::async_reader::{ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use delta_kernel::parquet::basic::Type as PhysicalType;
use delta_kernel::parquet::errors::ParquetError;
use delta_kernel::schema::SchemaRef;
use delta_kernel_default_engine::executor::TaskExecutor as _;
use delta_kernel_default_engine::executor::tokio::TokioBackgroundExecutor;
use url::Url;

use crate::adapt::{Misfit, adapt, find};
use crate::paths::store_path;

/// Rows that are decoded at once.
const BATCH_ROWS: usize = 4_096;

#[expect(deprecated, reason = "its replacement is an implementation of our own of the very same")]
type Stream = ParquetRecordBatchStream<ParquetObjectReader>;

/// The batches of a file. One row group is held in memory, compressed, at a time.
pub(crate) struct FileReader {
    executor: Arc<TokioBackgroundExecutor>,
    target: SchemaRef,
    stream: Option<Stream>,
    group: Option<ParquetRecordBatchReader>,
}

/// Why a file could not be read.
pub(crate) enum ReadError {
    Kernel(KernelError),
    Misfit(Misfit),
}

impl From<KernelError> for ReadError {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}

impl From<ParquetError> for ReadError {
    fn from(error: ParquetError) -> Self {
        Self::Kernel(KernelError::Parquet(error))
    }
}

// === impl FileReader ===

impl FileReader {
    /// Reads the footer. `size` is the file's in bytes.
    pub fn open(
        executor: &Arc<TokioBackgroundExecutor>,
        store: &Arc<DynObjectStore>,
        location: &Url,
        size: u64,
        target: &SchemaRef,
    ) -> Result<Self, ReadError> {
        let path = store_path(location)?;
        let stream = executor.block_on(open(store.clone(), path, size, target.clone()))?;
        Ok(Self { executor: executor.clone(), target: target.clone(), stream: Some(stream), group: None })
    }

    /// The next batch, with one column for each field of the target schema.
    pub fn next(&mut self) -> Result<Option<RecordBatch>, ReadError> {
        loop {
            if let Some(group) = &mut self.group {
                match group.next() {
                    Some(Ok(batch)) => return adapt(&batch, &self.target).map(Some).map_err(ReadError::Misfit),
                    Some(Err(error)) => return Err(ReadError::Kernel(KernelError::Arrow(error))),
                    None => self.group = None,
                }
            }
            let Some(mut stream) = self.stream.take() else { return Ok(None) };
            let (group, stream) = self.executor.block_on(async move { (stream.next_row_group().await, stream) });
            match group {
                Ok(Some(group)) => {
                    self.group = Some(group);
                    self.stream = Some(stream);
                }
                Ok(None) => return Ok(None),
                Err(error) => return Err(ReadError::Kernel(KernelError::Parquet(error))),
            }
        }
    }
}

async fn open(store: Arc<DynObjectStore>, path: Path, size: u64, target: SchemaRef) -> Result<Stream, ReadError> {
    #[expect(deprecated, reason = "its replacement is an implementation of our own of the very same")]
    let mut input = ParquetObjectReader::new(store, path).with_file_size(size);
    // What a writer says about its arrow types (dictionaries, large lists) would only multiply the types to handle.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let mut metadata = ArrowReaderMetadata::load_async(&mut input, options.clone()).await?;
    let columns = metadata.metadata().file_metadata().schema_descr().columns();
    if columns.iter().any(|column| column.physical_type() == PhysicalType::INT96) {
        let schema = in_micros(metadata.schema());
        metadata = ArrowReaderMetadata::try_new(metadata.metadata().clone(), options.with_schema(schema))?;
    }
    let mut wanted = Vec::with_capacity(target.num_fields());
    for field in target.fields() {
        let found = find(metadata.schema().fields(), field)
            .map_err(|what| ReadError::Misfit(Misfit { column: field.name().clone(), what }))?;
        wanted.extend(found);
    }
    let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(input, metadata);
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
    Ok(builder.with_projection(mask).with_batch_size(BATCH_ROWS).build()?)
}

/// The schema with microseconds instead of the nanoseconds that INT96 is taken for.
fn in_micros(schema: &Schema) -> ArrowSchemaRef {
    let fields: Fields = schema.fields().iter().map(field_in_micros).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn field_in_micros(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::List(item) => DataType::List(field_in_micros(item)),
        DataType::Map(entries, sorted) => DataType::Map(field_in_micros(entries), *sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field_in_micros).collect()),
        _ => return field.clone(),
    };
    Arc::new(Field::clone(field).with_data_type(data_type))
}
