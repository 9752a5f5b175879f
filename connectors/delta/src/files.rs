//! The rows of data files, in the order of the files and of the rows in them: which file, under which schema, which of its rows.

use std::sync::Arc;

use delta_kernel::KernelError;
use delta_kernel::actions::deletion_vector::DeletionVectorDescriptor;
use delta_kernel::arrow::array::{Array as _, RecordBatch, StringArray};
use delta_kernel::expressions::Scalar;
use delta_kernel::scan::state::DvInfo;

use crate::encode;
use crate::error::Error;
use crate::layout::{CHANGE_TYPE, Layout, Source};
use crate::log::PartitionValues;
use crate::parquet::{FileReader, ReadError};
use crate::progress::Progress;
use crate::table::Table;

/// What a row was before it is paired with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Delete,
    BeforeUpdate,
    Insert,
    AfterUpdate,
}

/// The rows that a commit took away or changed, as they were; or those that it brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Before,
    After,
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Rows that are all of one kind.
    Rows(Kind),
    /// A change file: each row says what it is.
    Changes,
}

/// Which rows of a file belong to it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Selection {
    All,
    /// All but the deleted ones.
    Except(DvInfo),
    /// The rows that the first deletes and the second does not.
    Between(Option<DeletionVectorDescriptor>, Option<DeletionVectorDescriptor>),
}

pub(crate) struct DataFile {
    pub path: String,
    pub size: u64,
    pub partition_values: PartitionValues,
    pub selection: Selection,
    pub content: Content,
}

/// Rows of one file.
pub(crate) struct Batch {
    pub records: RecordBatch,
    /// The JSON of the columns that are not in the file, by place in the layout.
    pub constants: Arc<Vec<Vec<u8>>>,
    /// The rows of the side that is being read, ascending.
    pub rows: Vec<(usize, Kind)>,
}

/// Reads one side of a version.
pub(crate) struct Scan {
    table: Arc<Table>,
    progress: Arc<Progress>,
    version: u64,
    layout: Arc<Layout>,
    files: Arc<Vec<DataFile>>,
    side: Side,
    next_file: usize,
    open: Option<OpenFile>,
}

struct OpenFile {
    path: String,
    reader: FileReader,
    constants: Arc<Vec<Vec<u8>>>,
    rows: RowSet,
    content: Content,
    /// Rows of the file before the next batch.
    position: u64,
}

/// Row numbers of a file, ascending; what is asked is ascending too.
enum RowSet {
    All,
    Except(std::iter::Peekable<std::vec::IntoIter<u64>>),
    Only(std::iter::Peekable<std::vec::IntoIter<u64>>),
}

// === impl Scan ===

impl Scan {
    pub fn new(
        table: Arc<Table>,
        progress: Arc<Progress>,
        version: u64,
        layout: Arc<Layout>,
        files: Arc<Vec<DataFile>>,
        side: Side,
    ) -> Self {
        Self { table, progress, version, layout, files, side, next_file: 0, open: None }
    }

    /// The next batch that has rows.
    pub fn next(&mut self) -> Result<Option<Batch>, Error> {
        loop {
            if self.progress.is_stopped() {
                return Err(Error::Stopped { table: self.table.name.clone() });
            }
            let mut file = match self.open.take() {
                Some(file) => file,
                None => {
                    let files = self.files.clone();
                    let Some(file) = files.get(self.next_file) else { return Ok(None) };
                    self.next_file += 1;
                    self.progress.opened(&file.path);
                    self.open_file(file)?
                }
            };
            let Some(records) = file.reader.next().map_err(|error| self.unreadable(&file.path, error))? else {
                self.progress.closed();
                continue;
            };
            self.progress.read(records.num_rows());
            let rows = self.select(&mut file, &records)?;
            let batch = Batch { records, constants: file.constants.clone(), rows };
            self.open = Some(file);
            if !batch.rows.is_empty() {
                return Ok(Some(batch));
            }
        }
    }

    fn open_file(&self, file: &DataFile) -> Result<OpenFile, Error> {
        let schema = match file.content {
            Content::Rows(_) => self.layout.physical.clone(),
            Content::Changes => self.layout.physical_changes.clone().ok_or_else(|| Error::Unsupported {
                table: self.table.name.clone(),
                version: self.version,
                feature: format!(
                    "it has the column {CHANGE_TYPE}, in which change files say what a row is, and {} is one; rename the column",
                    file.path
                ),
            })?,
        };
        let failed = |error: KernelError| self.unreadable(&file.path, ReadError::Kernel(error));
        let location = self.table.file_url(self.version, &file.path)?;
        let rows = self.row_set(&file.selection)?;
        // Writers may leave out the size of what they remove.
        let size = match file.size {
            0 => self.table.engine.storage_handler().head(&location).map_err(failed)?.size,
            size => size,
        };
        let reader = FileReader::open(&self.table.executor, &self.table.store, &location, size, &schema)
            .map_err(|error| self.unreadable(&file.path, error))?;
        let constants = Arc::new(self.constants(file)?);
        Ok(OpenFile { path: file.path.clone(), reader, constants, rows, content: file.content, position: 0 })
    }

    fn unreadable(&self, file: &str, error: ReadError) -> Error {
        match error {
            ReadError::Kernel(error) => match self.table.error(Some(self.version), "read a data file", &error) {
                Error::Read { table, version, doing, detail, transient } => {
                    Error::Read { table, version, doing, detail: format!("{file}: {detail}"), transient }
                }
                other => other,
            },
            ReadError::Misfit(misfit) => Error::Unsupported {
                table: self.table.name.clone(),
                version: self.version,
                feature: format!("column {} in file {file}: {}", self.layout.logical_name(&misfit.column), misfit.what),
            },
        }
    }

    fn constants(&self, file: &DataFile) -> Result<Vec<Vec<u8>>, Error> {
        let failed = |detail: String| Error::Read {
            table: self.table.name.clone(),
            version: Some(self.version),
            doing: "read a partition value",
            detail,
            transient: false,
        };
        let mut constants = Vec::with_capacity(self.layout.columns.len());
        for column in &self.layout.columns {
            let Source::Partition { physical_name, data_type } = &column.source else {
                constants.push(Vec::new());
                continue;
            };
            let text = partition_value(&file.partition_values, physical_name).unwrap_or_default();
            // An empty text is null for every type, strings too: so Delta's protocol has it.
            let Ok(value) = data_type.parse_scalar(text) else {
                return Err(failed(format!(
                    "{}: {text:?} is no value of column {} ({data_type})",
                    file.path, column.name
                )));
            };
            debug_assert!(!text.is_empty() || matches!(value, Scalar::Null(_)));
            constants.push(
                encode::scalar(&value)
                    .map_err(|what| failed(format!("{}: column {}: {what}", file.path, column.name)))?,
            );
        }
        Ok(constants)
    }

    fn row_set(&self, selection: &Selection) -> Result<RowSet, Error> {
        let rows = |vector: &DvInfo| {
            let rows = vector
                .get_row_indexes(self.table.engine.as_ref(), &self.table.root)
                .map_err(|error| self.table.error(Some(self.version), "read a deletion vector", &error))?;
            Ok::<_, Error>(rows.unwrap_or_default())
        };
        let described = |vector: &Option<DeletionVectorDescriptor>| match vector {
            Some(vector) => rows(&DvInfo::from(vector.clone())),
            None => Ok(Vec::new()),
        };
        Ok(match selection {
            Selection::All => RowSet::All,
            Selection::Except(vector) => RowSet::Except(rows(vector)?.into_iter().peekable()),
            Selection::Between(first, second) => {
                let mut without = described(second)?.into_iter().peekable();
                let mut only = described(first)?;
                only.retain(|row| {
                    while without.next_if(|other| other < row).is_some() {}
                    without.peek() != Some(row)
                });
                RowSet::Only(only.into_iter().peekable())
            }
        })
    }

    /// The rows of the batch that belong to the file and to the side.
    fn select(&self, file: &mut OpenFile, records: &RecordBatch) -> Result<Vec<(usize, Kind)>, Error> {
        let mut rows = Vec::with_capacity(records.num_rows());
        let start = file.position;
        file.position += records.num_rows() as u64;
        match file.content {
            Content::Rows(kind) => {
                rows.extend(
                    (0..records.num_rows())
                        .filter(|&row| file.rows.contains(start + row as u64))
                        .map(|row| (row, kind)),
                );
            }
            Content::Changes => {
                let unknown = |what: &str| Error::Read {
                    table: self.table.name.clone(),
                    version: Some(self.version),
                    doing: "read a change file",
                    detail: format!("the kind of a change is {what}"),
                    transient: false,
                };
                let kinds = records.columns().last().and_then(|column| column.as_any().downcast_ref::<StringArray>());
                let kinds = kinds.ok_or_else(|| unknown("no string"))?;
                for row in 0..records.num_rows() {
                    if kinds.is_null(row) {
                        return Err(unknown("null"));
                    }
                    let kind = match kinds.value(row) {
                        "insert" => Kind::Insert,
                        "delete" => Kind::Delete,
                        "update_preimage" => Kind::BeforeUpdate,
                        "update_postimage" => Kind::AfterUpdate,
                        other => return Err(unknown(other)),
                    };
                    if kind.side() == self.side {
                        rows.push((row, kind));
                    }
                }
            }
        }
        Ok(rows)
    }
}

/// The value of a partition column, by its name in whichever case. Spark leaves out values that are null.
fn partition_value<'v>(values: &'v PartitionValues, column: &str) -> Option<&'v str> {
    let found = values.get(column).or_else(|| {
        let lower = column.to_lowercase();
        values.iter().find(|(name, _)| name.to_lowercase() == lower).map(|(_, value)| value)
    });
    found.and_then(Option::as_deref)
}

impl Kind {
    pub fn side(self) -> Side {
        match self {
            Self::Delete | Self::BeforeUpdate => Side::Before,
            Self::Insert | Self::AfterUpdate => Side::After,
        }
    }
}

impl RowSet {
    fn contains(&mut self, row: u64) -> bool {
        match self {
            Self::All => true,
            Self::Except(rows) => {
                while rows.next_if(|&other| other < row).is_some() {}
                rows.peek() != Some(&row)
            }
            Self::Only(rows) => {
                while rows.next_if(|&other| other < row).is_some() {}
                rows.peek() == Some(&row)
            }
        }
    }
}
