//! One version of a table (or its snapshot) as rows: which files hold them, which rows belong together, and in which order they
//! come.
//!
//! First the rows that the commit took away or changed, as they were, then those that it brought; each in the order of the
//! commit's actions and of the rows in the file. So a delete always comes before an insert of its key, and a row's ordinal
//! depends on the commit alone. Nothing of a version is kept in memory but its list of files, the digests of [`Pairs`] and, if
//! asked for, the rows before an update.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tailwater_core::position::ChangeKind;
use tailwater_core::schema::Schema;
use tracing::warn;

use crate::compare::Comparison;
use crate::encode::RowEncoder;
use crate::error::Error;
use crate::files::{Batch, Content, DataFile, Kind, Scan, Selection, Side};
use crate::layout::{Key, Layout, Source};
use crate::log::{Actions, Add, PartitionValues, Remove};
use crate::options::{Options, ROWS_BYTES_MAX};
use crate::pairs::{Compare, Digest, KEYS_MAX, Pairs, TooManyKeys, Verdict, digest, key};
use crate::progress::Progress;
use crate::step::{CoalesceOff, CoalesceReport, Row};
use crate::table::{State, Table};

/// Bytes of the rows before updates that are kept until the rows after them come; beyond it, updates come without.
const BEFORE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The files of one side and the schema they are read with.
#[derive(Clone)]
pub(crate) struct Part {
    pub layout: Arc<Layout>,
    pub schema: Arc<Schema>,
    /// The version whose schema it is.
    pub schema_version: u64,
    pub files: Arc<Vec<DataFile>>,
}

/// What a version consists of.
pub(crate) struct Plan {
    pub version: u64,
    pub timestamp: Option<i64>,
    /// The version's own content, not its changes.
    pub snapshot: bool,
    pub before: Part,
    pub after: Part,
    /// The rows come from change files, which say what is an update.
    pub recorded: bool,
}

/// A version that is being read.
pub(crate) struct VersionReader {
    table: Arc<Table>,
    progress: Arc<Progress>,
    plan: Plan,
    pairs: Option<Pairs>,
    report: Option<CoalesceReport>,
    before_image: bool,
    rows_max: usize,
    side: Side,
    scan: Scan,
    /// The batch at hand and how many of its rows are done.
    batch: Option<(Batch, usize)>,
    /// The place of the next row.
    ordinal: u64,
    /// Rows before this place were given out earlier.
    from: u64,
    images: HashMap<Digest, Vec<u8>>,
    image_bytes: usize,
    images_left_out: u64,
}

/// Rows under one schema.
pub(crate) struct Chunk {
    pub rows: Vec<Row>,
    pub schema: Arc<Schema>,
    pub schema_version: u64,
    /// The place of the next row.
    pub next: u64,
    /// It was the version's last.
    pub last: bool,
}

// === impl Plan ===

impl Plan {
    /// Reads what a commit did out of its actions. `previous` is asked for the table before it only when files of another
    /// schema were removed.
    pub fn of_commit(
        table: &Table,
        state: &State,
        actions: Actions,
        version: u64,
        timestamp: Option<i64>,
        previous: impl FnOnce() -> Result<Arc<State>, Error>,
    ) -> Result<Self, Error> {
        let part = |state: &State, files: Vec<DataFile>| Part {
            layout: state.layout.clone(),
            schema: state.schema.clone(),
            schema_version: state.version,
            files: Arc::new(files),
        };
        let plan = |before: Part, after: Part, recorded: bool| Self {
            version,
            timestamp,
            snapshot: false,
            before,
            after,
            recorded,
        };
        if !actions.cdc.is_empty() {
            let files = actions.cdc.into_iter().map(|file| DataFile {
                path: file.path,
                size: file.size,
                partition_values: file.partition_values,
                selection: Selection::All,
                content: Content::Changes,
            });
            // Writers put the rows before a change into these files under the schema after it.
            let both = part(state, files.collect());
            return Ok(plan(both.clone(), both, true));
        }
        if actions.is_merge_without_effect() {
            return Ok(plan(part(state, Vec::new()), part(state, Vec::new()), false));
        }
        let metadata = actions.metadata.is_some();
        let (before, after) = changed_files(table, version, &state.layout, actions)?;
        // What is removed was written under the schema before.
        let before =
            if metadata && !before.is_empty() { part(previous()?.as_ref(), before) } else { part(state, before) };
        Ok(plan(before, part(state, after), false))
    }
}

/// The files whose rows a commit took away, and those whose rows it brought.
fn changed_files(
    table: &Table,
    version: u64,
    layout: &Layout,
    actions: Actions,
) -> Result<(Vec<DataFile>, Vec<DataFile>), Error> {
    let partitioned = layout.columns.iter().any(|column| matches!(column.source, Source::Partition { .. }));
    let known = |values: Option<PartitionValues>| match values {
        Some(values) => Ok(values),
        None if !partitioned => Ok(PartitionValues::new()),
        None => Err(Error::Unsupported {
            table: table.name.clone(),
            version,
            feature:
                "it removes files without their partition values (remove actions without extended file metadata), so \
                      what was deleted cannot be known"
                    .to_owned(),
        }),
    };
    // Files are found by where they lie: a remove may spell the path in another way than the add.
    let mut added: HashMap<String, Add> = HashMap::new();
    let mut order = Vec::with_capacity(actions.adds.len());
    for add in actions.adds.into_iter().filter(|add| add.data_change) {
        let file = table.canonical(&add.path);
        order.push(file.clone());
        added.insert(file, add);
    }
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut stayed: HashMap<String, DataFile> = HashMap::new();
    let mut removed = HashSet::new();
    for Remove { path, partition_values, size, deletion_vector, .. } in
        actions.removes.into_iter().filter(|remove| remove.data_change)
    {
        let file = table.canonical(&path);
        // A file that is removed twice in one commit is gone once.
        if !removed.insert((file.clone(), format!("{deletion_vector:?}"))) {
            continue;
        }
        let Some(add) = added.get(&file) else {
            before.push(DataFile {
                size: size.unwrap_or_default(),
                partition_values: known(partition_values)?,
                selection: deletion_vector.map_or(Selection::All, |vector| Selection::Except(vector.into())),
                content: Content::Rows(Kind::Delete),
                path,
            });
            continue;
        };
        // The same file under another deletion vector: the rows between the two vectors changed, and only they.
        let side = |content: Kind, first, second| DataFile {
            path: add.path.clone(),
            size: add.size,
            partition_values: add.partition_values.clone(),
            selection: Selection::Between(first, second),
            content: Content::Rows(content),
        };
        before.push(side(Kind::Delete, add.deletion_vector.clone(), deletion_vector.clone()));
        stayed.insert(file, side(Kind::Insert, deletion_vector, add.deletion_vector.clone()));
    }
    // A selection between nothing and something has no rows: the file need not be opened.
    before.retain(|file| !matches!(file.selection, Selection::Between(None, _)));
    for file in order {
        let file = match (stayed.remove(&file), added.remove(&file)) {
            (Some(file), _) => file,
            (None, Some(add)) => DataFile {
                selection: add.deletion_vector.map_or(Selection::All, |vector| Selection::Except(vector.into())),
                size: add.size,
                partition_values: add.partition_values,
                content: Content::Rows(Kind::Insert),
                path: add.path,
            },
            // A path that is added twice in one commit counts once.
            (None, None) => continue,
        };
        if !matches!(file.selection, Selection::Between(None, _)) {
            after.push(file);
        }
    }
    Ok((before, after))
}

// === impl VersionReader ===

impl VersionReader {
    /// Prepares a version; rows before the place `from` are passed over.
    pub fn open(table: Arc<Table>, plan: Plan, options: &Options, from: u64) -> Result<Self, Error> {
        Self::open_at(table, plan, options, 0, from)
    }

    /// The same, with `first` as the place of the first row.
    pub fn open_at(table: Arc<Table>, plan: Plan, options: &Options, first: u64, from: u64) -> Result<Self, Error> {
        let (pairs, report) = pair(&table, &plan, options)?;
        let scan = scan(&table, &options.progress, &plan, Side::Before);
        Ok(Self {
            table,
            progress: options.progress.clone(),
            plan,
            pairs,
            report,
            before_image: options.before_image,
            rows_max: options.rows_max.max(1),
            side: Side::Before,
            scan,
            batch: None,
            ordinal: first,
            from,
            images: HashMap::new(),
            image_bytes: 0,
            images_left_out: 0,
        })
    }

    pub fn is_snapshot(&self) -> bool {
        self.plan.snapshot
    }

    pub fn version(&self) -> u64 {
        self.plan.version
    }

    /// The place of the next row.
    pub fn place(&self) -> u64 {
        self.ordinal
    }

    /// What became of the version's deletes and inserts; once.
    pub fn take_report(&mut self) -> Option<CoalesceReport> {
        self.report.take()
    }

    /// The next rows; none when the version is done. Rows of both sides never come together, as their schemas may differ.
    pub fn next(&mut self) -> Result<Option<Chunk>, Error> {
        let mut rows = Vec::new();
        let mut bytes = 0;
        loop {
            if rows.len() >= self.rows_max || bytes >= ROWS_BYTES_MAX {
                return Ok(Some(self.chunk(rows, false)));
            }
            let (batch, done) = match self.batch.take() {
                Some(batch) => batch,
                None => match self.scan.next()? {
                    Some(batch) => (batch, 0),
                    None if self.side == Side::Before => {
                        let chunk = (!rows.is_empty()).then(|| self.chunk(rows, false));
                        self.turn();
                        if chunk.is_some() {
                            return Ok(chunk);
                        }
                        rows = Vec::new();
                        continue;
                    }
                    None if rows.is_empty() => return Ok(None),
                    None => return Ok(Some(self.chunk(rows, true))),
                },
            };
            let part = self.part().clone();
            let done = {
                let encoder = RowEncoder::new(&part.layout, &batch.records, &batch.constants)
                    .map_err(|what| self.malformed(what))?;
                self.encode(&encoder, &part.layout, &batch, done, &mut rows, &mut bytes)?
            };
            if done < batch.rows.len() {
                self.batch = Some((batch, done));
            }
        }
    }

    /// Writes rows of the batch from `start` on until the chunk is full; returns how many are done.
    fn encode(
        &mut self,
        encoder: &RowEncoder<'_>,
        layout: &Layout,
        batch: &Batch,
        start: usize,
        rows: &mut Vec<Row>,
        bytes: &mut usize,
    ) -> Result<usize, Error> {
        for (place, &(row, kind)) in batch.rows.iter().enumerate().skip(start) {
            if rows.len() >= self.rows_max || *bytes >= ROWS_BYTES_MAX {
                return Ok(place);
            }
            let ordinal = self.ordinal;
            self.ordinal += 1;
            let given = ordinal < self.from;
            let key = key(encoder, layout, row).map_err(|what| self.malformed(what))?;
            let digest = key.as_deref().filter(|_| self.pairs.is_some()).map(digest);
            let verdict = self.pairs.as_ref().map_or(Verdict::Apart, |pairs| pairs.verdict(digest));
            let change = match (kind, verdict) {
                (_, Verdict::Nothing) => continue,
                (Kind::Delete | Kind::BeforeUpdate, Verdict::Update) => {
                    if let (true, Some(digest)) = (self.before_image, digest) {
                        self.keep_image(encoder, row, digest)?;
                    }
                    continue;
                }
                (Kind::Insert | Kind::AfterUpdate, Verdict::Update) => ChangeKind::Update,
                // Without pairs nobody knows which row it was: the row after the update says it all.
                (Kind::BeforeUpdate, Verdict::Apart) if self.pairs.is_none() => continue,
                (Kind::AfterUpdate, Verdict::Apart) if self.pairs.is_none() => ChangeKind::Update,
                (Kind::Delete | Kind::BeforeUpdate, Verdict::Apart) => ChangeKind::Delete,
                (Kind::Insert | Kind::AfterUpdate, Verdict::Apart) => ChangeKind::Insert,
            };
            let before = digest.and_then(|digest| self.images.remove(&digest));
            if given {
                continue;
            }
            let mut data = Vec::with_capacity(256);
            encoder.write_row(row, &mut data).map_err(|what| self.malformed(what))?;
            *bytes += data.len() + before.as_ref().map_or(0, Vec::len);
            rows.push(Row { key, data, before, change, ordinal, timestamp: self.plan.timestamp });
        }
        Ok(batch.rows.len())
    }

    fn keep_image(&mut self, encoder: &RowEncoder<'_>, row: usize, key: Digest) -> Result<(), Error> {
        if self.image_bytes >= BEFORE_BYTES_MAX {
            self.images_left_out += 1;
            return Ok(());
        }
        let mut image = Vec::with_capacity(256);
        encoder.write_row(row, &mut image).map_err(|what| self.malformed(what))?;
        self.image_bytes += image.len();
        self.images.insert(key, image);
        Ok(())
    }

    fn part(&self) -> &Part {
        match self.side {
            Side::Before => &self.plan.before,
            Side::After => &self.plan.after,
        }
    }

    fn turn(&mut self) {
        if self.images_left_out > 0 {
            warn!(
                table = %self.table.name,
                version = self.plan.version,
                updates = self.images_left_out,
                "updates come without the row before them: those of one version exceed {BEFORE_BYTES_MAX} bytes"
            );
        }
        self.side = Side::After;
        self.scan = scan(&self.table, &self.progress, &self.plan, Side::After);
    }

    fn chunk(&self, rows: Vec<Row>, last: bool) -> Chunk {
        let part = self.part();
        Chunk { rows, schema: part.schema.clone(), schema_version: part.schema_version, next: self.ordinal, last }
    }

    fn malformed(&self, what: String) -> Error {
        malformed(&self.table, self.plan.version, what)
    }
}

fn malformed(table: &Table, version: u64, what: String) -> Error {
    Error::Read {
        table: table.name.clone(),
        version: Some(version),
        doing: "write a row as JSON",
        detail: what,
        transient: false,
    }
}

fn scan(table: &Arc<Table>, progress: &Arc<Progress>, plan: &Plan, side: Side) -> Scan {
    let part = match side {
        Side::Before => &plan.before,
        Side::After => &plan.after,
    };
    Scan::new(table.clone(), progress.clone(), plan.version, part.layout.clone(), part.files.clone(), side)
}

// === pairing ===

/// Finds out which rows belong together, where there can be any.
fn pair(table: &Arc<Table>, plan: &Plan, options: &Options) -> Result<(Option<Pairs>, Option<CoalesceReport>), Error> {
    let (before, after) = (&plan.before, &plan.after);
    let possible =
        !plan.snapshot && !before.files.is_empty() && !after.files.is_empty() && after.layout.key != Key::None;
    if !possible || (!plan.recorded && !options.coalesce) {
        return Ok((None, None));
    }
    let comparison = Comparison::of(&before.layout, &after.layout, options);
    let mut report =
        CoalesceReport { version: plan.version, added_columns: comparison.added.clone(), ..CoalesceReport::default() };
    report.files_removed = before.files.len();
    report.files_added = after.files.len();
    if !plan.recorded {
        if before.layout.key == Key::Missing {
            report.off = Some(CoalesceOff::NoKey { column: options.key.clone().unwrap_or_default() });
        } else if !comparison.vanished.is_empty() {
            report.off = Some(CoalesceOff::ColumnsVanished(comparison.vanished));
        }
        if report.off.is_some() {
            return Ok((None, Some(report)));
        }
    }
    // A new column that counts makes every row another one: nothing to compare.
    let columns = (comparison.added.is_empty() || !options.added_columns_differ).then_some(&comparison.pairs[..]);
    let progress = &options.progress;
    let mut scans = (scan(table, progress, plan, Side::Before), scan(table, progress, plan, Side::After));
    let read = Pairs::read(
        (&mut scans.0, &before.layout),
        (&mut scans.1, &after.layout),
        &Compare { coalesce: options.coalesce, columns },
        &|what| malformed(table, plan.version, what),
    )?;
    let pairs = match read {
        Ok(pairs) => pairs,
        Err(TooManyKeys) => {
            warn!(table = %table.name, version = plan.version, "a version has more than {KEYS_MAX} keys, its rows are not paired");
            report.off = Some(CoalesceOff::TooManyKeys { max: KEYS_MAX });
            return Ok((None, Some(report)));
        }
    };
    let counts = pairs.counts;
    let combined = counts.changed + counts.unchanged;
    report.deleted = counts.deletes;
    report.inserted = counts.inserts;
    report.changed = counts.changed;
    report.unchanged = counts.unchanged;
    report.added = counts.inserts.saturating_sub(combined);
    report.removed = counts.deletes.saturating_sub(combined);
    let name =
        |layout: &Layout, place: usize| layout.columns.get(place).map(|column| column.name.clone()).unwrap_or_default();
    report.compared =
        comparison.pairs.iter().map(|&(old, new)| (name(&before.layout, old), name(&after.layout, new))).collect();
    let worth_telling = options.coalesce && combined > 0;
    Ok((Some(pairs), worth_telling.then_some(report)))
}
