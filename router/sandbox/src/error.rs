//! What can go wrong: for the pool, when a transform is loaded, and for a row.

use std::fmt;

use tailwater_core::Code;
use tailwater_core::code;

/// The pool could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "v8 is not initialized; call tailwater_sandbox::initialize() on the main thread before any other thread exists"
    )]
    NotInitialized,
    #[error("sandbox.{option} is {value}; expected {expected}")]
    InvalidOption { option: &'static str, value: String, expected: &'static str },
    #[error("could not start a thread of the sandbox")]
    Thread(#[source] std::io::Error),
}

impl Error {
    pub fn code(&self) -> Code {
        match self {
            Self::NotInitialized | Self::Thread(_) => code::TASK_FAILED,
            Self::InvalidOption { .. } => code::CONFIG_INVALID_VALUE,
        }
    }
}

/// Why a transform was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadErrorKind {
    /// It does not parse.
    Syntax,
    /// It imports something, which a transform cannot.
    Import,
    /// It has neither a function `send` or `transform` nor a default export that is a function.
    NoFunction,
    /// Its top level threw an error.
    Threw,
    /// Its top level awaits something that never comes.
    Pending,
    /// Its top level exceeded the time limit.
    Timeout,
    /// Its top level exceeded the memory limit.
    OutOfMemory,
    /// Its source is too long.
    TooLarge,
    /// The pool is shut down.
    Closed,
}

/// A transform was refused when it was loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct LoadError {
    pub kind: LoadErrorKind,
    /// The transform's name, as the configuration has it.
    pub name: String,
    pub message: String,
    /// Where, counted from 1, if known.
    pub line: Option<u32>,
    pub column: Option<u32>,
    /// That line of the source, shortened.
    pub excerpt: Option<String>,
}

impl LoadError {
    pub fn code(&self) -> Code {
        match self.kind {
            LoadErrorKind::Syntax | LoadErrorKind::Import | LoadErrorKind::NoFunction | LoadErrorKind::TooLarge => {
                code::TRANSFORM_SYNTAX
            }
            LoadErrorKind::Threw => code::TRANSFORM_THREW,
            LoadErrorKind::Pending => code::TRANSFORM_PENDING,
            LoadErrorKind::Timeout => code::TRANSFORM_TIMEOUT,
            LoadErrorKind::OutOfMemory => code::TRANSFORM_OUT_OF_MEMORY,
            LoadErrorKind::Closed => code::TASK_FAILED,
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not load transform {}", self.name)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
            if let Some(column) = self.column {
                write!(f, ":{column}")?;
            }
        }
        write!(f, ": {}", self.message)?;
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n  | {excerpt}")?;
        }
        Ok(())
    }
}

/// What became of a row that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowErrorKind {
    /// It read a column that the schema does not have.
    MissingColumn {
        column: String,
    },
    /// It read an integer beyond 2^53; `column` is the path.
    UnsafeInteger {
        column: String,
    },
    /// It read a number with more digits than a double has; `column` is the path.
    UnsafeDecimal {
        column: String,
    },
    /// It threw an error, or left a rejected promise behind.
    Threw,
    Timeout,
    OutOfMemory,
    /// Its promise never settles.
    Pending,
    /// It returned something of the wrong shape.
    Shape,
    OutputTooLarge,
    /// It returned a number that is not finite, and the destination says `non_finite: reject`.
    NonFinite,
    /// The row itself is not a JSON object; the transform was not run for it.
    Input,
}

/// Why a row failed, and where in the transform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct RowError {
    pub kind: RowErrorKind,
    pub message: String,
    /// The transform's name.
    pub file: String,
    /// Counted from 1, if known.
    pub line: Option<u32>,
    pub column: Option<u32>,
    /// The author's frames, innermost first, at most [`FRAMES_MAX`](Self::FRAMES_MAX): `send (transforms/ltv.js:3:14)`.
    pub stack: Vec<String>,
}

impl RowError {
    /// Frames that are kept: enough to see who called whom, small enough for a record's header.
    pub const FRAMES_MAX: usize = 10;

    pub(crate) fn new(kind: RowErrorKind, file: &str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), file: file.to_owned(), line: None, column: None, stack: Vec::new() }
    }

    pub fn code(&self) -> Code {
        match self.kind {
            RowErrorKind::MissingColumn { .. } => code::MISSING_COLUMN,
            RowErrorKind::UnsafeInteger { .. } => code::UNSAFE_INTEGER,
            RowErrorKind::UnsafeDecimal { .. } => code::UNSAFE_DECIMAL,
            RowErrorKind::Threw => code::TRANSFORM_THREW,
            RowErrorKind::Timeout => code::TRANSFORM_TIMEOUT,
            RowErrorKind::OutOfMemory => code::TRANSFORM_OUT_OF_MEMORY,
            RowErrorKind::Pending => code::TRANSFORM_PENDING,
            RowErrorKind::Shape => code::TRANSFORM_SHAPE,
            RowErrorKind::OutputTooLarge => code::TRANSFORM_OUTPUT_TOO_LARGE,
            RowErrorKind::NonFinite => code::NON_FINITE_NUMBER,
            RowErrorKind::Input => code::DECODE_FAILED,
        }
    }
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match (self.line, self.column) {
            (Some(line), Some(column)) => write!(f, " ({}:{line}:{column})", self.file),
            (Some(line), None) => write!(f, " ({}:{line})", self.file),
            (None, _) => write!(f, " ({})", self.file),
        }
    }
}
