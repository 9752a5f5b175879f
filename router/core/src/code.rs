//! The codes of everything that can go wrong, so that a person can look one up: each has a page `docs/errors/<code>.md`
//! (a test holds the list against the pages). Codes are frozen once released: alerts and dead letters refer to them.

use std::fmt;

/// A code, such as `missing_column`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(&'static str);

impl Code {
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// The code of that name, if there is one.
    pub fn find(name: &str) -> Option<Self> {
        ALL.iter().find(|(code, _)| code.0 == name).map(|(code, _)| *code)
    }

    /// What the code means, in one sentence.
    pub fn summary(self) -> &'static str {
        ALL.iter().find(|(code, _)| *code == self).map_or("", |(_, summary)| summary)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

macro_rules! codes {
    ($($name:ident = $text:literal, $summary:literal;)*) => {
        $(#[doc = $summary] pub const $name: Code = Code($text);)*

        /// Every code with its meaning.
        pub const ALL: &[(Code, &str)] = &[$(($name, $summary)),*];
    };
}

codes! {
    // Configuration
    CONFIG_UNREADABLE = "config_unreadable", "the configuration file could not be read";
    CONFIG_SYNTAX = "config_syntax", "the configuration is no valid YAML";
    CONFIG_UNKNOWN_KEY = "config_unknown_key", "the configuration has a key that does not exist";
    CONFIG_MISSING_KEY = "config_missing_key", "the configuration lacks a key that is required";
    CONFIG_WRONG_TYPE = "config_wrong_type", "a value in the configuration has the wrong type";
    CONFIG_INVALID_VALUE = "config_invalid_value", "a value in the configuration is not allowed there";
    CONFIG_UNKNOWN_REFERENCE = "config_unknown_reference", "the configuration refers to something that it does not define";
    CONFIG_SECRET_UNRESOLVED = "config_secret_unresolved", "a secret's reference could not be resolved";
    CONFIG_SECRET_INLINE = "config_secret_inline", "a secret stands in the configuration itself instead of a reference to it";
    CONFIG_EXPRESSION = "config_expression", "an expression in the configuration does not parse";
    CONFIG_TRANSFORM_UNREADABLE = "config_transform_unreadable", "a transform's file could not be read";

    // Kafka
    KAFKA_UNREACHABLE = "kafka_unreachable", "no broker answers";
    KAFKA_AUTHORIZATION = "kafka_authorization", "the broker refuses an operation";
    KAFKA_ABORTED = "kafka_aborted", "a batch could not be committed; it is read again";
    KAFKA_FENCED = "kafka_fenced", "a producer's transactional id was taken over, or its transaction timed out; the stage starts again";
    KAFKA_FATAL = "kafka_fatal", "the Kafka client reports a fatal error; the process ends";
    KAFKA_RECORD_TOO_LARGE = "kafka_record_too_large", "a record exceeds the broker's size limit";
    KAFKA_OFFSET_LOST = "kafka_offset_lost", "committed offsets lie outside of what the topic still holds";
    BROKER_MISSING = "broker_missing", "the program of the embedded broker was not found";
    BROKER_FAILED = "broker_failed", "the embedded broker does not start, or has ended by itself";
    PARTITION_STALLED = "partition_stalled", "a partition has records and its stage does not move";
    TOPIC_MISSING = "topic_missing", "a topic does not exist";
    TOPIC_MISMATCH = "topic_mismatch", "a topic exists with other settings than required";

    // Delta
    DELTA_NOT_A_TABLE = "delta_not_a_table", "there is no Delta table at the path";
    DELTA_CDF_DISABLED = "delta_cdf_disabled", "the table's change data feed is not enabled";
    DELTA_VERSION_GONE = "delta_version_gone", "a version that has to be read is no longer in the table's log";
    DELTA_VERSION_UNKNOWN = "delta_version_unknown", "the version to start at does not exist yet";
    DELTA_REPLACED = "delta_replaced", "another table took the place of the one that was being read";
    DELTA_FILE_GONE = "delta_file_gone", "a data file of the table has been removed";
    DELTA_UNSUPPORTED = "delta_unsupported", "the table uses a feature that cannot be read";
    DELTA_KEY_INVALID = "delta_key_invalid", "the key column is missing or null in a row";
    DELTA_COLUMN_MISSING = "delta_column_missing", "a version of the table lacks a column that the source names";
    DELTA_COMMIT_INCOMPLETE = "delta_commit_incomplete", "a commit of the table is not written to its end";
    DELTA_READ_FAILED = "delta_read_failed", "the table could not be read";

    // Our own records
    ENVELOPE_UNREADABLE = "envelope_unreadable", "the metadata header of a record could not be read";
    LEDGER_UNREADABLE = "ledger_unreadable", "a record of the ledger could not be read";

    // Ingest and resolve
    DECODE_FAILED = "decode_failed", "a record could not be decoded";
    INVALID_VALUE = "invalid_value", "a value is none of its column's declared type";
    NO_IDENTIFIERS = "no_identifiers", "an event has no usable identifier";
    EVENT_ID_MISSING = "event_id_missing", "an event of a source of facts has no id";
    EVENT_TIME_INVALID = "event_time_invalid", "an event's time is missing or could not be read";
    SOURCE_REPEAT = "source_repeat", "the source repeated a row that was already applied";
    DESTINATION_UNKNOWN = "destination_unknown", "a record is meant for a destination that the configuration does not have";
    SCHEMA_UNKNOWN = "schema_unknown", "a row refers to a schema that the topic schemas does not hold";
    TOMBSTONE = "tombstone", "a record without a value carries nothing to deliver";
    PRE_IMAGE = "pre_image", "the record is the row before an update; the row after it follows";
    IDENTIFIER_REFUSED = "identifier_refused", "an identifier was not used because a limit or a rule forbids it";
    IDENTIFIER_SHARED = "identifier_shared", "many people bring the same identifier";

    // Transforms and route
    TRANSFORM_SYNTAX = "transform_syntax", "a transform does not parse or exports no function";
    TRANSFORM_THREW = "transform_threw", "a transform threw an error";
    TRANSFORM_TIMEOUT = "transform_timeout", "a transform exceeded its time limit";
    SANDBOX_EXHAUSTED = "sandbox_exhausted", "too many threads of the sandbox are stuck in built-in functions; the process ends";
    TRANSFORM_OUT_OF_MEMORY = "transform_out_of_memory", "a transform exceeded its memory limit";
    TRANSFORM_PENDING = "transform_pending", "a transform's promise never settles";
    TRANSFORM_SHAPE = "transform_shape", "a transform returned something of the wrong shape";
    TRANSFORM_OUTPUT_TOO_LARGE = "transform_output_too_large", "a transform returned too much";
    MISSING_COLUMN = "missing_column", "a transform read a column that the schema does not have";
    UNSAFE_INTEGER = "unsafe_integer", "a transform read an integer that JavaScript cannot represent exactly";
    UNSAFE_DECIMAL = "unsafe_decimal", "a transform read a number with more digits than JavaScript can hold";
    NON_FINITE_NUMBER = "non_finite_number", "a transform returned a number that is not finite";
    WHEN_FAILED = "when_failed", "a route's condition could not be evaluated";
    FILTERED = "filtered", "the route's condition does not hold for the event";
    ROUTE_PAUSED = "route_paused", "a record waits because a route of the destination is paused";
    FENCE_LOST = "fence_lost", "a merge's fence can no longer arrive and is asked for again";
    BEFORE_START = "before_start", "the event is from before the destination existed, or from before its `start`";
    TRANSFORM_SKIPPED = "transform_skipped", "the transform returned null for the event";
    DELETE_SKIPPED = "delete_skipped", "the event is a delete and the source says on_delete: skip";
    NO_KEY = "no_key", "the profile lacks the destination's key";
    HOLD_EXPIRED = "hold_expired", "the profile still lacks the destination's key after the time limit";
    FOREIGN_IDENTIFIER = "foreign_identifier", "a transform's output names an identifier of somebody else";
    WRONG_VENDOR = "wrong_vendor", "a transform's output is a body for another vendor";
    OPERATION_NOT_ALLOWED = "operation_not_allowed", "the route does not allow a destructive operation";
    UNSUPPORTED_OPERATION = "unsupported_operation", "the destination cannot perform the operation";
    OUTPUT_INVALID = "output_invalid", "a transform's output does not fit the vendor's schema";

    // Delivery
    UNAUTHORIZED = "unauthorized", "the vendor refuses the credentials";
    FORBIDDEN = "forbidden", "the credentials lack a permission";
    RATE_LIMITED = "rate_limited", "the vendor asks to slow down";
    VENDOR_UNAVAILABLE = "vendor_unavailable", "the vendor fails or does not answer";
    VENDOR_REJECTED = "vendor_rejected", "the vendor rejects the request";
    DELIVERED_IN_PART = "delivered_in_part", "the vendor took the delivery without a part of it";
    DUPLICATE_PROFILE = "duplicate_profile", "the vendor knows the identifiers as different people";
    PAYLOAD_TOO_LARGE = "payload_too_large", "a single operation exceeds the vendor's size limit";
    FORGOTTEN_USER = "forgotten_user", "the person was forgotten at the vendor, which takes no data about them";
    UNKNOWN_USER = "unknown_user", "the vendor does not know the person that the operation is about";
    EVENT_DISALLOWED = "event_disallowed", "the vendor's project does not take events of this name";
    FIELD_TYPE_MISMATCH = "field_type_mismatch", "a field has another type at the vendor";
    FIELDS_FILTERED = "fields_filtered", "the vendor did not store fields that its project does not have";
    NOT_EFFECTIVE = "not_effective", "an operation waits until an earlier one is effective at the vendor";
    JOB_CANCELLED = "job_cancelled", "the vendor cancelled a bulk job";
    JOB_ITEM_FAILED = "job_item_failed", "the vendor's bulk job failed for this item";
    RETRIES_EXHAUSTED = "retries_exhausted", "a delivery failed too often";
    WOULD_CREATE = "would_create", "the vendor does not know the person and create is false";
    DUPLICATE = "duplicate", "the same delivery was made before";
    KEY_REPEATED = "key_repeated", "another row of the same version has the same key";
    SUPERSEDED = "superseded", "a later state was delivered before";
    UNCHANGED = "unchanged", "the same content was delivered before";
    REPLAYED = "replayed", "an operator replayed the dead letter as a new record";
    DISCARDED = "discarded", "an operator discarded the dead letter";
    NOT_SENT = "not_sent", "the request's turn had not come, so that others could go on";
    NOT_OWNED = "not_owned", "the partition moved to another process before the request was sent";

    // Process
    STATE_UNREADABLE = "state_unreadable", "the local state could not be read or written";
    STATE_DAMAGED = "state_damaged", "an entry of a stage's state cannot be read";
    STATE_LOST = "state_lost", "a state topic has lost what it held";
    INIT_REFUSED = "init_refused", "the files of a new project could not be laid out";
    LOG_FILTER_INVALID = "log_filter_invalid", "the log filter cannot be read";
    ADMIN_LISTEN_FAILED = "admin_listen_failed", "the admin server could not listen on its address";
    SHUTDOWN_TIMEOUT = "shutdown_timeout", "a part of the process did not drain in time";
    TASK_FAILED = "task_failed", "a part of the process stopped unexpectedly";
    UNACCOUNTED = "unaccounted", "the audit found records without an end";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_stands_twice() {
        let mut names: Vec<_> = ALL.iter().map(|(code, _)| code.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn a_code_is_found_by_its_name() {
        assert_eq!(Code::find("missing_column"), Some(MISSING_COLUMN));
        assert_eq!(Code::find("nonsense"), None);
    }

    /// The pages that a person finds by a code.
    fn pages() -> std::collections::BTreeMap<String, String> {
        std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors"))
            .expect("docs/errors can be read")
            .map(|entry| entry.expect("the entry can be read").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
            .map(|path| {
                let name = path.file_stem().unwrap().to_string_lossy().into_owned();
                (name, std::fs::read_to_string(&path).expect("the page can be read"))
            })
            .collect()
    }

    #[test]
    fn every_code_has_its_page_and_every_page_its_code() {
        let mut pages = pages();
        let index = pages.remove("README").expect("docs/errors/README.md lists the codes");
        for (code, summary) in ALL {
            let page = pages.remove(code.as_str()).unwrap_or_else(|| panic!("docs/errors/{code}.md is missing"));
            assert!(page.starts_with(&format!("# `{code}`\n")), "docs/errors/{code}.md has another title");
            // The first sentence of a page is the summary, whatever its line breaks.
            let words: String = page.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
            assert!(words.contains(&summary.to_lowercase()), "docs/errors/{code}.md does not say: {summary}");
            for heading in ["## How it shows", "## Why it happens", "## What to do", "## What happens meanwhile"] {
                assert!(page.contains(&format!("\n{heading}\n")), "docs/errors/{code}.md lacks `{heading}`");
            }
            assert!(
                index.contains(&format!("| [`{code}`]({code}.md) | {summary} |")),
                "docs/errors/README.md does not list {code}"
            );
        }
        assert!(pages.is_empty(), "docs/errors has pages of no code: {:?}", pages.keys());
    }
}
