//! Why a table cannot be read, told so that a person can act on it, and the only place where the kernel's own errors are read.
//! They can hold pages of debug output and request URLs: what is passed on is one short line with the secrets masked.

use delta_kernel::parquet::errors::ParquetError;
use delta_kernel::{KernelError, object_store};
use secrecy::{ExposeSecret as _, SecretString};
use tailwater_core::code::{self, Code};

use crate::required::Missing;

/// How much of a library's message is passed on.
const DETAIL_BYTES_MAX: usize = 300;

/// Secrets shorter than this are not searched for in messages: they would mask half of the text.
const SECRET_BYTES_MIN: usize = 6;

/// What to do when a source cannot go on where it stopped.
const BEGIN_ANEW: &str = "To begin with a snapshot, give the source another name (under `sources` and in `from` of its routes), leave out \
                          `start`, and run `tailwater topics apply`";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("could not use the table's location {table}: {detail}")]
    Location { table: String, detail: String },

    #[error("there is no delta table at {table}: {detail}; give the folder or URL that holds _delta_log")]
    NotATable { table: String, detail: String },

    #[error(
        "the change data feed of table {table} is not enabled at version {version}; enable it with {statement} ; {}",
        first_version_text(*.first_version)
    )]
    CdfDisabled {
        table: String,
        version: u64,
        /// The statement to paste.
        statement: String,
        /// The first version from which on changes can be read, if the feed was enabled later.
        first_version: Option<u64>,
    },

    #[error(
        "version {version} of table {table} is no longer in its log{}; changes since then are lost to this source. {BEGIN_ANEW}. Keep the \
         log longer (delta.logRetentionDuration)",
        earliest_text(*.earliest)
    )]
    VersionGone { table: String, version: u64, earliest: Option<u64> },

    #[error(
        "table {table} has no version {version} to start at yet, its latest one is {latest}; start at an existing version, or at latest"
    )]
    VersionUnknown { table: String, version: u64, latest: u64 },

    #[error(
        "file {file} of version {version} of table {table} has been removed (VACUUM); its rows are lost to this source. {BEGIN_ANEW}. \
         Keep files longer (delta.deletedFileRetentionDuration)"
    )]
    FileGone { table: String, version: u64, file: String },

    #[error(
        "table {table} is no longer the one that was read up to version {version}: its id was {expected} and is {found} now, its \
         latest version is {latest}; restore the table, or begin with the new one. {BEGIN_ANEW}"
    )]
    Replaced { table: String, version: u64, expected: String, found: String, latest: u64 },

    #[error("version {version} of table {table} cannot be read: {feature}")]
    Unsupported { table: String, version: u64, feature: String },

    #[error(
        "version {version} of table {table} has no column {column} to be its key; it has {columns}; correct key, or give the \
         column's older name under aliases"
    )]
    Key { table: String, version: u64, column: String, columns: String },

    #[error(
        "version {version} of table {table} lacks columns that the source names: {}; it has {columns}. The source is paused before \
         this version and goes on there when its configuration is corrected",
        missing.iter().map(Missing::to_string).collect::<Vec<_>>().join("; ")
    )]
    Columns { table: String, version: u64, missing: Vec<Missing>, columns: String },

    #[error(
        "version {version} of table {table} is not complete: its commit has {bytes} bytes and may still grow; it is read when it has been \
         written"
    )]
    Incomplete { table: String, version: u64, bytes: u64 },

    #[error(
        "the commit of version {version} of table {table} had {read} bytes when it was read and has {bytes} now: {why}, so the rest of it \
         cannot be read exactly, and no later version is read. Restore the commit as it was read, or begin with a snapshot. {BEGIN_ANEW}"
    )]
    Grown { table: String, version: u64, read: u64, bytes: u64, why: &'static str },

    #[error("the reader of table {table} was stopped")]
    Stopped { table: String },

    #[error(
        "the cursor of table {table} has format {format}, this version reads format {expected}; use the version that wrote it"
    )]
    CursorFormat { table: String, format: u32, expected: u32 },

    #[error("could not {doing} of table {table}{}: {detail}", version_text(*.version))]
    Read {
        table: String,
        version: Option<u64>,
        doing: &'static str,
        detail: String,
        /// The store or the network had a bad moment; the same call may work later.
        transient: bool,
    },
}

// === impl Error ===

impl Error {
    pub fn code(&self) -> Code {
        match self {
            Self::NotATable { .. } | Self::Location { .. } => code::DELTA_NOT_A_TABLE,
            Self::CdfDisabled { .. } => code::DELTA_CDF_DISABLED,
            Self::VersionGone { .. } => code::DELTA_VERSION_GONE,
            Self::VersionUnknown { .. } => code::DELTA_VERSION_UNKNOWN,
            Self::FileGone { .. } => code::DELTA_FILE_GONE,
            Self::Replaced { .. } => code::DELTA_REPLACED,
            Self::Unsupported { .. } => code::DELTA_UNSUPPORTED,
            Self::Key { .. } => code::DELTA_KEY_INVALID,
            Self::Columns { .. } => code::DELTA_COLUMN_MISSING,
            Self::Incomplete { .. } | Self::Grown { .. } => code::DELTA_COMMIT_INCOMPLETE,
            Self::CursorFormat { .. } => code::STATE_UNREADABLE,
            Self::Read { .. } | Self::Stopped { .. } => code::DELTA_READ_FAILED,
        }
    }

    /// Whether the same call may work later without anybody doing anything. A reader stays usable after any error and
    /// repeats what it was at.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Read { transient: true, .. } | Self::Incomplete { .. } | Self::Stopped { .. })
    }

    /// Whether the source waits for its configuration to be corrected.
    pub fn is_pause(&self) -> bool {
        matches!(self, Self::Columns { .. } | Self::Key { .. })
    }
}

fn first_version_text(first: Option<u64>) -> String {
    match first {
        Some(version) => format!(
            "it is enabled from version {version} on: begin with a snapshot, or start at version {version} (what changed before it \
             was not recorded)"
        ),
        None => "changes made before that are not recorded".to_owned(),
    }
}

fn earliest_text(earliest: Option<u64>) -> String {
    earliest.map_or_else(String::new, |version| format!(", the earliest one that can be read is {version}"))
}

fn version_text(version: Option<u64>) -> String {
    version.map_or_else(String::new, |version| format!(" at version {version}"))
}

// === the kernel's errors ===

/// What a kernel error means for the reader.
pub(crate) enum Meaning {
    FileMissing(String),
    Unsupported(String),
    VersionMissing { version: u64, earliest: Option<u64> },
    NoTable,
    Transient(String),
    Other(String),
}

pub(crate) fn meaning(error: &KernelError, secrets: &[SecretString]) -> Meaning {
    let detail = |text: &str| short(text, secrets);
    match error {
        KernelError::Backtraced { source, .. } => meaning(source, secrets),
        KernelError::FileNotFound(path) => Meaning::FileMissing(detail(path)),
        KernelError::ObjectStore(object_store::Error::NotFound { path, .. }) => Meaning::FileMissing(detail(path)),
        KernelError::Unsupported(text) | KernelError::InvalidProtocol(text) => Meaning::Unsupported(detail(text)),
        KernelError::Schema(text) if text.contains("Unsupported") => Meaning::Unsupported(detail(text)),
        KernelError::StartVersionNotFound { requested, earliest } => {
            Meaning::VersionMissing { version: *requested, earliest: Some(*earliest) }
        }
        KernelError::MissingVersion(version) => Meaning::VersionMissing { version: *version, earliest: None },
        KernelError::EmptyLog
        | KernelError::MissingMetadata
        | KernelError::MissingProtocol
        | KernelError::MissingMetadataAndProtocol
        | KernelError::InvalidTableLocation(_) => Meaning::NoTable,
        KernelError::ObjectStore(inner) => Meaning::Transient(detail(&inner.to_string())),
        // The store's errors come through the parquet reader as causes of its own.
        KernelError::Parquet(ParquetError::External(inner)) if stored(inner.as_ref()).is_some() => {
            match stored(inner.as_ref()) {
                Some(object_store::Error::NotFound { path, .. }) => Meaning::FileMissing(detail(path)),
                Some(other) => Meaning::Transient(detail(&other.to_string())),
                None => Meaning::Other(detail(&inner.to_string())),
            }
        }
        KernelError::IOError(inner) => Meaning::Transient(detail(&inner.to_string())),
        KernelError::Reqwest(inner) => Meaning::Transient(detail(&inner.to_string())),
        other => Meaning::Other(detail(&other.to_string())),
    }
}

/// The object store's error among the causes.
fn stored<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a object_store::Error> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
}

/// The beginning of the first line, with known secrets and the query of any URL masked.
pub(crate) fn short(text: &str, secrets: &[SecretString]) -> String {
    let mut line = text.lines().next().unwrap_or_default().to_owned();
    for secret in secrets {
        let secret = secret.expose_secret();
        if secret.len() >= SECRET_BYTES_MIN {
            line = line.replace(secret, "***");
        }
    }
    if let Some((head, rest)) = line.split_once("://")
        && let Some((path, query)) = rest.split_once('?')
    {
        let end = query.find(|c: char| c.is_whitespace() || c == '"' || c == ')');
        let tail = end.and_then(|end| query.get(end..)).unwrap_or_default();
        line = format!("{head}://{path}?***{tail}");
    }
    if line.len() > DETAIL_BYTES_MAX {
        let end = (0..=DETAIL_BYTES_MAX).rev().find(|&at| line.is_char_boundary(at)).unwrap_or(0);
        line.truncate(end);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_shows_neither_secrets_nor_pages() {
        let secrets = [SecretString::from("topsecretkey")];
        let text = format!("denied for topsecretkey at https://h/p?sig=abc end {}\nsecond line", "x".repeat(1000));
        let line = short(&text, &secrets);
        assert!(line.starts_with("denied for *** at https://h/p?*** end xxx"), "{line}");
        assert!(line.len() < 320 && !line.contains("second"));
    }

    #[test]
    fn a_disabled_feed_names_the_statement_and_the_first_version_that_works() {
        let error = Error::CdfDisabled {
            table: "/t".into(),
            version: 0,
            statement: "ALTER TABLE delta.`/t` SET TBLPROPERTIES (delta.enableChangeDataFeed = true)".into(),
            first_version: Some(3),
        };
        let text = error.to_string();
        assert!(
            text.contains("ALTER TABLE delta.`/t` SET TBLPROPERTIES (delta.enableChangeDataFeed = true)"),
            "{text}"
        );
        assert!(text.contains("start at version 3"), "{text}");
        assert_eq!(error.code().as_str(), "delta_cdf_disabled");
    }
}
