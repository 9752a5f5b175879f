//! Each kind of problem, with its path, code, line and hint; and that all of them come at once.

use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tailwater_connectors::klaviyo;
use tailwater_core::time::TimeUnit;
use tailwater_core::{Code, code};

use super::model::EventTimeRules;
use super::*;

/// A right configuration on which the cases below make one change each.
pub(super) const RIGHT: &str = r#"version: 1
workspace: winback
kafka:
  brokers: ${env:KAFKA_BROKERS:-127.0.0.1:9092}
  partitions: 16
  options: { security.protocol: SASL_SSL, sasl.password: "${env:KAFKA_PASSWORD}" }
identity:
  types:
    customer_id: { priority: 1, max: 1 }
    email: { priority: 2, max: 5, normalise: email }
  blocklist: [ "test@example.com", "/^noreply@/" ]
sources:
  ltv_scores:
    type: delta
    table: ./lake/ltv_scores
    kind: state
    primary_key: customer_id
    identifiers: { customer_id: customer_id }
    start: { version: 12 }
    longs: { order_no: string }
    storage: { aws_region: eu-west-1 }
  app_events:
    type: kafka
    topic: app.events
    kind: events
    schema: { upgrade_score: double, user: "struct<email:string>" }
    identifiers: { user.email: email }
accounts:
  main:
    type: klaviyo
    api_key: ${env:KLAVIYO_API_KEY}
    base_url: http://127.0.0.1:8711
destinations:
  klaviyo:
    account: main
    create: true
    identifier: email
    identifiers: { email: email, external_id: customer_id }
    routes:
      - from: ltv_scores
        when: row.rfm_segment != null
        transform: transforms/ltv.js
"#;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("transforms")).unwrap();
        std::fs::write(folder.path().join("transforms/ltv.js"), "function send(payload) { return []; }").unwrap();
        Self(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("tailwater.yaml")
    }

    fn check(&self, text: &str) -> Checked {
        self.check_with(text, &LoadOptions { environment: &environment, ..LoadOptions::default() })
    }

    fn check_with(&self, text: &str, options: &LoadOptions<'_>) -> Checked {
        std::fs::write(self.file(), text).unwrap();
        check(&self.file(), options)
    }
}

fn environment(name: &str) -> Option<String> {
    match name {
        "KLAVIYO_API_KEY" => Some("pk_the_secret".to_owned()),
        "KAFKA_PASSWORD" => Some("hunter2".to_owned()),
        "LANES" => Some("8".to_owned()),
        "CREATE" => Some("false".to_owned()),
        _ => None,
    }
}

fn right() -> Config {
    let checked = Folder::new().check(RIGHT);
    assert!(checked.problems.is_empty(), "{}", listed(&checked.problems));
    checked.config.unwrap()
}

fn own(destination: &Destination) -> &klaviyo::config::Options {
    destination.options.downcast().unwrap()
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// The line on which a text stands first, counted from 1.
fn line_of(text: &str, part: &str) -> usize {
    text.lines().position(|line| line.contains(part)).map_or(0, |index| index + 1)
}

#[test]
fn a_right_configuration_becomes_validated_types() {
    let config = right();
    assert_eq!(config.kafka.brokers, "127.0.0.1:9092");
    assert_eq!((config.kafka.partitions, config.kafka.prefix.as_str()), (16, "tailwater."));
    assert_eq!(config.kafka.retention, Duration::from_secs(7 * 86_400));
    assert_eq!(config.kafka.options["sasl.password"].expose_secret(), "hunter2");
    assert_eq!(config.identity.rules.type_names().collect::<Vec<_>>(), ["customer_id", "email"]);

    let ltv = &config.sources["ltv_scores"];
    assert_eq!(
        (&ltv.kind, ltv.primary_key.as_deref(), ltv.event_type.as_str()),
        (&SourceKind::State, Some("customer_id"), "ltv_scores")
    );
    let SourceInput::Delta(delta) = &ltv.input else { panic!("{ltv:?}") };
    assert!(FilePath::new(&delta.table).is_absolute() && delta.table.ends_with("lake/ltv_scores"), "{}", delta.table);
    assert_eq!((delta.start, delta.coalesce, delta.added_columns_differ), (Start::Version(12), true, true));
    assert_eq!(delta.longs, TextColumns::Columns(vec!["order_no".to_owned()]));

    let SourceInput::Kafka(kafka) = &config.sources["app_events"].input else { panic!() };
    assert_eq!(kafka.topic, "app.events");
    assert_eq!(kafka.schema.as_ref().unwrap().columns.len(), 2);

    let destination = &config.destinations["klaviyo"];
    assert_eq!((own(destination).create, destination.on_missing_key), (true, OnMissingKey::Hold));
    assert_eq!(destination.hold_for, Duration::from_secs(30 * 86_400));
    assert_eq!(destination.routes[0].name, "ltv_scores");
    assert!(destination.routes[0].transform.source.contains("function send"));
    let account = config.accounts["main"].downcast::<klaviyo::config::Account>().unwrap();
    assert_eq!(account.api_key.expose(), "pk_the_secret");
    assert!(config.files.iter().any(|file| file.ends_with("transforms/ltv.js")));
}

#[test]
fn the_example_of_the_winback_story_is_right() {
    let file = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/winback/tailwater.yaml");
    let options = LoadOptions { environment: &environment, ..LoadOptions::default() };
    let checked = check(&file, &options);
    assert!(checked.problems.is_empty(), "{}", listed(&checked.problems));
}

/// One change to the right configuration, and the one problem that it must lead to.
struct Case {
    from: &'static str,
    to: &'static str,
    path: &'static str,
    code: Code,
    message: &'static str,
    hint: &'static str,
    /// A text on the line that must be named.
    line: &'static str,
}

macro_rules! case {
    ($from:literal => $to:literal, $path:literal, $code:ident, $message:literal, $hint:literal, $line:literal) => {
        Case { from: $from, to: $to, path: $path, code: code::$code, message: $message, hint: $hint, line: $line }
    };
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    // What the schema finds.
    case!("    create: true\n" => "", "destinations.klaviyo.create", CONFIG_MISSING_KEY, "the key is missing", "`create: true` or `create: false`", "    account: main"),
    case!("    create: true\n" => "    create:\n", "destinations.klaviyo.create", CONFIG_MISSING_KEY, "the key is empty", "`create: true`", "    create:"),
    case!("    create: true" => "    create: yes", "destinations.klaviyo.create", CONFIG_WRONG_TYPE, "expected true or false, got the text `yes`", "", "    create: yes"),
    case!("    create: true" => "    create: true\n    creates: true", "destinations.klaviyo.creates", CONFIG_UNKNOWN_KEY, "no such key", "did you mean `create`?", "    creates:"),
    case!("    create: true" => "    create: true\n    null: clear", "destinations.klaviyo.null", CONFIG_UNKNOWN_KEY, "of type `klaviyo` has no such key", "did you mean `nulls`?", "    null:"),
    case!("    create: true" => "    create: true\n    rate_limits: 5", "destinations.klaviyo.rate_limits", CONFIG_UNKNOWN_KEY, "no such key", "known keys here: account, identifier", "rate_limits"),
    case!("  partitions: 16" => "  partition: 16", "kafka.partition", CONFIG_UNKNOWN_KEY, "no such key", "`partitions`", "partition: 16"),
    case!("  partitions: 16" => "  partitions: \"16\"", "kafka.partitions", CONFIG_WRONG_TYPE, "expected a whole number, got the text `16`", "without quotes", "partitions"),
    case!("  partitions: 16" => "  partitions: 0", "kafka.partitions", CONFIG_INVALID_VALUE, "between 1 and 1024", "", "partitions"),
    case!("  partitions: 16" => "  partitions: 1.5", "kafka.partitions", CONFIG_WRONG_TYPE, "expected a whole number", "", "partitions"),
    case!("  partitions: 16" => "  partitions: [16]", "kafka.partitions", CONFIG_WRONG_TYPE, "got a list", "", "partitions"),
    case!("  partitions: 16" => "  latency: fast", "kafka.latency", CONFIG_INVALID_VALUE, "`fast` is not one of low, balanced, throughput", "", "latency"),
    case!("  partitions: 16" => "  latency: balancd", "kafka.latency", CONFIG_INVALID_VALUE, "not one of", "`balanced`", "latency"),
    case!("  partitions: 16" => "  prefix: \"a/b\"", "kafka.prefix", CONFIG_INVALID_VALUE, "as Kafka allows", "", "prefix"),
    case!("  partitions: 16" => "  retention: 7 days", "kafka.retention", CONFIG_INVALID_VALUE, "expected a period", "", "retention"),
    case!("  partitions: 16" => "  retention: 7", "kafka.retention", CONFIG_WRONG_TYPE, "expected a period", "", "retention"),
    case!("version: 1" => "version: 2", "version", CONFIG_INVALID_VALUE, "it must be 1", "", "version"),
    case!("workspace: winback" => "workspace: Winback", "workspace", CONFIG_INVALID_VALUE, "expected a name", "", "workspace"),
    case!("workspace: winback" => "workspace: 12", "workspace", CONFIG_WRONG_TYPE, "got the number `12`", "quotes", "workspace"),
    case!("  klaviyo:\n" => "  Klaviyo:\n", "destinations.Klaviyo", CONFIG_INVALID_VALUE, "no allowed name", "lower-case", "  Klaviyo:"),
    case!("type: delta" => "type: delat", "sources.ltv_scores.type", CONFIG_INVALID_VALUE, "`delat` is not one of delta, kafka", "`delta`", "type: delat"),
    case!("    type: delta\n" => "", "sources.ltv_scores.type", CONFIG_MISSING_KEY, "the key is missing", "`type: delta | kafka`", "table:"),
    case!("start: { version: 12 }" => "start: now", "sources.ltv_scores.start", CONFIG_INVALID_VALUE, "not one of snapshot, latest", "", "start"),
    case!("start: { version: 12 }" => "start: { version: x }", "sources.ltv_scores.start.version", CONFIG_WRONG_TYPE, "expected a whole number", "", "start"),
    case!("start: { version: 12 }" => "start: { versoin: 12 }", "sources.ltv_scores.start.versoin", CONFIG_UNKNOWN_KEY, "no such key", "`version`", "start"),
    case!("longs: { order_no: string }" => "longs: 5", "sources.ltv_scores.longs", CONFIG_WRONG_TYPE, "expected `string` or a map", "", "longs"),
    case!("    schema: { upgrade_score" => "    longs: { upgrade_score: string }\n    schema: { upgrade_score", "sources.app_events.longs.upgrade_score", CONFIG_INVALID_VALUE, "holds no long", "", "longs: { upgrade_score"),
    case!("    schema: { upgrade_score" => "    decimals: { user: string }\n    schema: { upgrade_score", "sources.app_events.decimals.user", CONFIG_INVALID_VALUE, "holds no decimal", "", "decimals"),
    case!("normalise: email" => "normalise: { phone: { region: usa } }", "identity.types.email.normalise.phone.region", CONFIG_INVALID_VALUE, "country code", "", "region"),
    case!("    routes:\n      - from: ltv_scores\n        when: row.rfm_segment != null\n        transform: transforms/ltv.js\n" => "    routes: []\n", "destinations.klaviyo.routes", CONFIG_INVALID_VALUE, "at least one", "", "routes"),
    case!("    identifiers: { customer_id: customer_id }" => "    identifiers: {}", "sources.ltv_scores.identifiers", CONFIG_INVALID_VALUE, "at least one", "", "identifiers: {}"),
    // Secrets.
    case!("api_key: ${env:KLAVIYO_API_KEY}" => "api_key: pk_inline", "accounts.main.api_key", CONFIG_SECRET_INLINE, "must not stand in the file", "${env:NAME}", "api_key"),
    case!("api_key: ${env:KLAVIYO_API_KEY}" => "api_key: ${env:NONE:-pk_inline}", "accounts.main.api_key", CONFIG_SECRET_INLINE, "must not stand", "without a default", "api_key"),
    case!("api_key: ${env:KLAVIYO_API_KEY}" => "api_key: ${env:NOT_SET}", "accounts.main.api_key", CONFIG_SECRET_UNRESOLVED, "NOT_SET is not set", "export NOT_SET", "api_key"),
    case!("api_key: ${env:KLAVIYO_API_KEY}" => "api_key: ${file:/nowhere/x}", "accounts.main.api_key", CONFIG_SECRET_UNRESOLVED, "/nowhere/x", "mount", "api_key"),
    case!("api_key: ${env:KLAVIYO_API_KEY}" => "api_key: ${vault:x}", "accounts.main.api_key", CONFIG_INVALID_VALUE, "no reference", "${env:NAME}", "api_key"),
    case!("\"${env:KAFKA_PASSWORD}\"" => "hunter2", "kafka.options[\"sasl.password\"]", CONFIG_SECRET_INLINE, "must not stand", "${env:NAME}", "sasl.password"),
    case!("aws_region: eu-west-1" => "aws_secret_access_key: abc", "sources.ltv_scores.storage.aws_secret_access_key", CONFIG_SECRET_INLINE, "must not", "", "storage"),
    // What needs more than one key.
    case!("security.protocol: SASL_SSL" => "security.protokoll: SASL_SSL", "kafka.options[\"security.protokoll\"]", CONFIG_UNKNOWN_KEY, "no such option", "CONFIGURATION.md", "security.protokoll"),
    case!("security.protocol: SASL_SSL" => "security.protocol: fancy", "kafka.options[\"security.protocol\"]", CONFIG_INVALID_VALUE, "does not take the value", "", "security.protocol"),
    case!("security.protocol: SASL_SSL" => "enable.auto.commit: true", "kafka.options[\"enable.auto.commit\"]", CONFIG_INVALID_VALUE, "not free to choose", "settled", "enable.auto.commit"),
    case!("  partitions: 16" => "  ledger_retention: 1d", "kafka.ledger_retention", CONFIG_INVALID_VALUE, "shorter than retention", "", "ledger_retention"),
    case!("127.0.0.1:9092}" => "kafka://127.0.0.1:9092}", "kafka.brokers", CONFIG_INVALID_VALUE, "no scheme", "security.protocol", "brokers"),
    case!("  partitions: 16" => "  session_timeout: 1s", "kafka.session_timeout", CONFIG_INVALID_VALUE, "not between 6s and 30m", "", "session_timeout"),
    case!("workspace: winback" => "workspace: winback\nadmin: { listen: localhost }", "admin.listen", CONFIG_INVALID_VALUE, "IP address and a port", "", "admin"),
    case!("workspace: winback" => "workspace: winback\nsandbox: { row_timeout: 2s }", "sandbox.row_timeout", CONFIG_INVALID_VALUE, "longer than batch_timeout", "", "sandbox"),
    case!("workspace: winback" => "workspace: winback\nsandbox: { heap: 1MB }", "sandbox.heap", CONFIG_INVALID_VALUE, "between 8MB and 4GB", "", "sandbox"),
    case!("priority: 2" => "priority: 1", "identity.types.email.priority", CONFIG_INVALID_VALUE, "customer_id already", "", "email: {"),
    case!("/^noreply@/" => "/(/", "identity.blocklist[1]", CONFIG_EXPRESSION, "does not compile", "between slashes", "blocklist"),
    case!("{ customer_id: customer_id }" => "{ customer_id: customer }", "sources.ltv_scores.identifiers.customer_id", CONFIG_UNKNOWN_REFERENCE, "no identifier type `customer`", "", "identifiers: { customer_id: customer }"),
    case!("    primary_key: customer_id\n" => "", "sources.ltv_scores.primary_key", CONFIG_MISSING_KEY, "the key is missing", "kind: state", "type: delta"),
    case!("kind: state" => "kind: events", "sources.ltv_scores.id", CONFIG_MISSING_KEY, "the key is missing", "add `id: <column>`", "type: delta"),
    case!("table: ./lake/ltv_scores" => "table: ftp://x/y", "sources.ltv_scores.table", CONFIG_INVALID_VALUE, "ftp://", "s3://", "table"),
    case!("table: ./lake/ltv_scores" => "table: ./lake/ltv_scores\n    poll_interval: 1ms", "sources.ltv_scores.poll_interval", CONFIG_INVALID_VALUE, "not between 100ms and 1d", "", "poll_interval"),
    case!("table: ./lake/ltv_scores" => "table: ./lake/ltv_scores\n    on_delete: unset", "sources.ltv_scores.on_delete", CONFIG_INVALID_VALUE, "not supported", "on_delete: skip", "on_delete"),
    case!("upgrade_score: double" => "upgrade_score: text", "sources.app_events.schema.upgrade_score", CONFIG_INVALID_VALUE, "`text` is no type", "string, long", "schema:"),
    case!("    schema: { upgrade_score: double, user: \"struct<email:string>\" }\n" => "", "sources.app_events.schema", CONFIG_MISSING_KEY, "the key is missing", "strict: false", "type: kafka"),
    case!("    topic: app.events" => "    strict: false", "sources.app_events.strict", CONFIG_INVALID_VALUE, "contradict", "keep one", "strict"),
    case!("{ user.email: email }" => "{ usr.email: email }", "sources.app_events.identifiers[\"usr.email\"]", CONFIG_UNKNOWN_REFERENCE, "no column `usr`", "`user`", "usr.email"),
    case!("{ user.email: email }" => "{ user.: email }", "sources.app_events.identifiers[\"user.\"]", CONFIG_INVALID_VALUE, "no column or path", "", "user."),
    case!("base_url: http://127.0.0.1:8711" => "base_url: klaviyo", "accounts.main.base_url", CONFIG_INVALID_VALUE, "expected an URL", "", "base_url"),
    case!("base_url: http://127.0.0.1:8711" => "rate_share: 2", "accounts.main.rate_share", CONFIG_INVALID_VALUE, "more than the vendor's", "loopback", "rate_share"),
    case!("base_url: http://127.0.0.1:8711" => "rate_share: 10001", "accounts.main.rate_share", CONFIG_INVALID_VALUE, "between 0.01 and 10000", "", "rate_share"),
    case!("account: main" => "account: mian", "destinations.klaviyo.account", CONFIG_UNKNOWN_REFERENCE, "no account `mian`", "`main`", "account: mian"),
    case!("    identifier: email" => "    identifier: emial", "destinations.klaviyo.identifier", CONFIG_UNKNOWN_REFERENCE, "no identifier type `emial`", "`email`", "identifier: emial"),
    case!("{ email: email, external_id" => "{ external_id", "destinations.klaviyo.identifier", CONFIG_INVALID_VALUE, "fed by `email`", "identifiers:", "    identifier: email"),
    case!("external_id: customer_id }" => "extern_id: customer_id }", "destinations.klaviyo.identifiers.extern_id", CONFIG_UNKNOWN_KEY, "no such field", "`external_id`", "extern_id"),
    case!("    identifier: email" => "    identifier: email\n    retry: { backoff_min: 2m }", "destinations.klaviyo.retry.backoff_min", CONFIG_INVALID_VALUE, "longer than backoff_max", "", "retry"),
    case!("from: ltv_scores" => "from: ltv_score", "destinations.klaviyo.routes[0].from", CONFIG_UNKNOWN_REFERENCE, "no source `ltv_score`", "`ltv_scores`", "from: ltv_score"),
    case!("transform: transforms/ltv.js\n" => "transform: transforms/ltv.js\n      - { from: ltv_scores, transform: transforms/ltv.js }\n", "destinations.klaviyo.routes[1]", CONFIG_INVALID_VALUE, "called `ltv_scores`", "`name` of its own", "- { from"),
    case!("transform: transforms/ltv.js\n" => "transform: transforms/ltv.js\n        allow: [upsert_profile]\n", "destinations.klaviyo.routes[0].allow[0]", CONFIG_INVALID_VALUE, "upsert_profile", "", "allow"),
    case!("transforms/ltv.js" => "transforms/none.js", "destinations.klaviyo.routes[0].transform", CONFIG_TRANSFORM_UNREADABLE, "none.js", "folder of the configuration", "none.js"),
    case!("row.rfm_segment != null" => "row.rfm_segment = null", "destinations.klaviyo.routes[0].when", CONFIG_EXPRESSION, "no valid CEL", "for example", "when:"),
    case!("row.rfm_segment != null" => "rfm_segment != null", "destinations.klaviyo.routes[0].when", CONFIG_EXPRESSION, "no variable `rfm_segment`", "row.rfm_segment", "when:"),
    case!("row.rfm_segment != null" => "profile.emial != null", "destinations.klaviyo.routes[0].when", CONFIG_UNKNOWN_REFERENCE, "no identifier type `emial`", "`email`", "when:"),
    // The file as a whole.
    case!("version: 1\n" => "version: 1\nversion: 1\n", "", CONFIG_SYNTAX, "stands twice", "line 1", "nowhere"),
    case!("version: 1\n" => "version: [1\n", "", CONFIG_SYNTAX, "no valid YAML", "quotes", "nowhere"),
    case!("version: 1\n" => "---\na: 1\n---\nversion: 1\n", "", CONFIG_SYNTAX, "more than one document", "one document", "nowhere"),
];

#[test]
fn each_problem_has_its_path_code_place_and_hint() {
    let folder = Folder::new();
    let failures: Vec<String> = CASES.iter().filter_map(|case| case.failure(&folder)).collect();
    assert!(failures.is_empty(), "{} of {} cases:\n\n{}", failures.len(), CASES.len(), failures.join("\n\n"));
}

impl Case {
    /// What is not as the case says.
    fn failure(&self, folder: &Folder) -> Option<String> {
        assert!(RIGHT.contains(self.from), "the case changes nothing: {}", self.from);
        let text = RIGHT.replacen(self.from, self.to, 1);
        let problems = folder.check(&text).problems;
        let [problem] = problems.as_slice() else {
            return Some(format!("{:?}: expected one problem, got\n{}", self.to, listed(&problems)));
        };
        let hint = problem.hint.as_deref().unwrap_or_default();
        let right = problem.is_error()
            && problem.path == self.path
            && problem.code == self.code
            && problem.message.contains(self.message)
            && hint.contains(self.hint)
            && (self.line == "nowhere" || problem.place.is_some_and(|place| place.line == line_of(&text, self.line)));
        (!right).then(|| {
            format!(
                "{:?}:\n{problem}\nexpected {} {} on line {}: …{}… / …{}…",
                self.to,
                self.path,
                self.code,
                line_of(&text, self.line),
                self.message,
                self.hint
            )
        })
    }
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_file() {
    let mut text = RIGHT.to_owned();
    for (from, to) in [
        ("  partitions: 16", "  partitions: none"),
        ("priority: 2", "priority: 1"),
        ("kind: state", "kind: sate"),
        ("    create: true\n", ""),
        ("from: ltv_scores", "from: ltv"),
        ("transforms/ltv.js", "none.js"),
        ("api_key: ${env:KLAVIYO_API_KEY}", "api_key: x\n    apikey: y"),
    ] {
        text = text.replacen(from, to, 1);
    }
    let problems = Folder::new().check(&text).problems;
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "kafka.partitions",
            "identity.types.email.priority",
            "sources.ltv_scores.kind",
            "accounts.main.api_key",
            "accounts.main.apikey",
            "destinations.klaviyo.create",
            "destinations.klaviyo.routes[0].from",
            "destinations.klaviyo.routes[0].transform",
        ],
        "{}",
        listed(&problems)
    );
}

/// Issue 10, A8.
#[test]
fn an_event_time_is_a_path_or_a_section_with_its_unit() {
    let with = |event_time: &str| {
        let text =
            RIGHT.replace("    topic: app.events\n", &format!("    topic: app.events\n    event_time: {event_time}\n"));
        Folder::new().check(&text.replace("{ upgrade_score: double,", "{ upgrade_score: double, at: bigint,"))
    };
    for (event_time, unit, dead_letter) in [
        ("at", None, false),
        ("{ path: at }", None, false),
        ("{ path: at, unit: us }", Some(TimeUnit::Microseconds), false),
        ("{ path: at, on_invalid: dead_letter }", None, true),
    ] {
        let checked = with(event_time);
        assert!(checked.problems.is_empty(), "{event_time}: {}", listed(&checked.problems));
        let source = &checked.config.unwrap().sources["app_events"];
        assert_eq!(source.event_time.as_deref(), Some("at"), "{event_time}");
        assert_eq!(source.event_time_rules, EventTimeRules { unit, dead_letter }, "{event_time}");
    }
    for (event_time, code) in [
        ("{ path: at, unit: minutes }", code::CONFIG_INVALID_VALUE),
        ("{ unit: ms }", code::CONFIG_MISSING_KEY),
        ("{ path: att }", code::CONFIG_UNKNOWN_REFERENCE),
    ] {
        let problems = with(event_time).problems;
        assert!(problems.iter().any(|problem| problem.code == code), "{event_time}: {}", listed(&problems));
    }
}

#[test]
fn a_broken_section_is_no_unknown_reference() {
    let text = RIGHT.replace("    table: ./lake/ltv_scores\n", "").replace("    type: klaviyo\n", "");
    let problems = Folder::new().check(&text).problems;
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["sources.ltv_scores.table", "accounts.main.type"], "{}", listed(&problems));
}

#[test]
fn an_empty_file_names_everything_that_is_required() {
    let problems = Folder::new().check("").problems;
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["identity", "kafka", "sources", "version", "workspace"], "{}", listed(&problems));
}

#[test]
fn a_file_that_is_not_there_is_told_with_a_way_out() {
    let problems = Config::load(FilePath::new("/nowhere/tailwater.yaml"), &LoadOptions::default()).unwrap_err();
    assert_eq!((problems.len(), problems[0].code), (1, code::CONFIG_UNREADABLE));
    assert!(problems[0].hint.as_ref().unwrap().contains("tailwater init"));
}

#[test]
fn references_take_the_type_that_is_wanted() {
    let text =
        RIGHT.replace("partitions: 16", "partitions: ${env:LANES}").replace("create: true", "create: ${env:CREATE}");
    let checked = Folder::new().check(&text);
    let config = checked.config.unwrap_or_else(|| panic!("{}", listed(&checked.problems)));
    assert_eq!((config.kafka.partitions, own(&config.destinations["klaviyo"]).create), (8, false));
}

#[test]
fn unresolved_secrets_are_warnings_where_they_are_tolerated() {
    let options = LoadOptions { tolerate_unresolved: true, environment: &|_| None, ..LoadOptions::default() };
    let text = RIGHT.replace("partitions: 16", "partitions: ${env:LANES}").replace("SASL_SSL", "\"${env:PROTOCOL}\"");
    let checked = Folder::new().check_with(&text, &options);
    assert!(checked.config.is_some(), "{}", listed(&checked.problems));
    assert_eq!(checked.problems.len(), 4, "{}", listed(&checked.problems));
    assert!(
        checked.problems.iter().all(|problem| problem.code == code::CONFIG_SECRET_UNRESOLVED && !problem.is_error())
    );
}

#[test]
fn warnings_do_not_stand_in_the_way() {
    let text = RIGHT
        .replace("    identifier: email\n", "    identifier: email\n    on_missing_key: skip\n    hold_for: 1d\n")
        .replace("http://127.0.0.1:8711", "http://simulator:8711")
        .replace("accounts:\n", "accounts:\n  spare: { type: klaviyo, api_key: \"${env:KLAVIYO_API_KEY}\" }\n");
    let checked = Folder::new().check(&text);
    let paths: Vec<&str> = checked.problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(
        paths,
        ["accounts.spare", "accounts.main.base_url", "destinations.klaviyo.hold_for"],
        "{}",
        listed(&checked.problems)
    );
    assert!(checked.config.is_some());
}

#[test]
fn the_embedded_broker_is_one_address_of_this_machine_with_one_copy() {
    let embedded = LoadOptions { environment: &environment, broker: Broker::Embedded, ..LoadOptions::default() };
    let secured = "  options: { security.protocol: SASL_SSL, sasl.password: \"${env:KAFKA_PASSWORD}\" }\n";
    let check = |from: &str, to: &str| {
        let plain = RIGHT.replace(secured, "");
        assert!(plain != RIGHT && plain.contains(from), "{from}");
        Folder::new().check_with(&plain.replace(from, to), &embedded)
    };
    let brokers = "  brokers: ${env:KAFKA_BROKERS:-127.0.0.1:9092}\n";
    let absent = check(brokers, "").config.unwrap();
    assert_eq!((absent.kafka.brokers.as_str(), absent.kafka.embedded), ("127.0.0.1:9092", true));
    let named = check(brokers, "  brokers: localhost:19092\n").config.unwrap();
    assert_eq!(named.kafka.brokers, "127.0.0.1:19092");
    for (to, path) in [
        ("  brokers: kafka-1:9092\n", "kafka.brokers"),
        ("  brokers: 0.0.0.0:9092\n", "kafka.brokers"),
        ("  brokers: 127.0.0.1:9092,127.0.0.1:9093\n", "kafka.brokers"),
        ("  replication_factor: 3\n", "kafka.replication_factor"),
        ("  options: { security.protocol: SSL }\n", "kafka.options[\"security.protocol\"]"),
    ] {
        let problems = check(brokers, to).problems;
        assert_eq!(
            problems.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(),
            [path],
            "{}",
            listed(&problems)
        );
        assert_eq!(problems[0].code, code::CONFIG_INVALID_VALUE);
        assert!(problems[0].hint.as_deref().is_some_and(|hint| hint.contains("without --embedded")));
    }
    let given = Folder::new().check(&RIGHT.replace(brokers, "")).problems;
    assert!(given[0].path == "kafka.brokers" && given[0].code == code::CONFIG_MISSING_KEY, "{}", listed(&given));
}

#[test]
fn a_transform_is_checked_once_by_whoever_can() {
    let asked = std::cell::Cell::new(0);
    let check = |name: &str, source: &str| {
        asked.set(asked.get() + 1);
        assert!(name == "transforms/ltv.js" && source.contains("send"));
        Err(TransformProblem { code: code::TRANSFORM_SYNTAX, message: "unexpected token in line 1".to_owned() })
    };
    let options = LoadOptions { environment: &environment, check_transform: Some(&check), ..LoadOptions::default() };
    let text = RIGHT.to_owned() + "      - { name: again, from: ltv_scores, transform: transforms/ltv.js }\n";
    let problems = Folder::new().check_with(&text, &options).problems;
    assert_eq!((asked.get(), problems.len()), (1, 1), "{}", listed(&problems));
    assert_eq!(problems[0].code, code::TRANSFORM_SYNTAX);
}

#[test]
fn no_secret_is_ever_shown() {
    let shown = format!("{:?}", right());
    assert!(!shown.contains("pk_the_secret") && !shown.contains("hunter2"), "{shown}");
    // Neither in problems, whatever is wrong with a secret.
    for (from, to) in [
        ("api_key: ${env:KLAVIYO_API_KEY}", "api_key: pk_the_secret"),
        ("api_key: ${env:KLAVIYO_API_KEY}", "api_key: ${env:NONE:-pk_the_secret}"),
        ("api_key: ${env:KLAVIYO_API_KEY}", "api_key: [pk_the_secret]"),
        ("api_key: ${env:KLAVIYO_API_KEY}", "api_key: ${pk_the_secret"),
        ("partitions: 16", "partitions: ${env:KLAVIYO_API_KEY}"),
        ("security.protocol: SASL_SSL", "security.protocol: \"${env:KLAVIYO_API_KEY}\""),
        ("127.0.0.1:8711", "user:pk_the_secret@127.0.0.1:8711"),
        ("account: main", "account: ${env:KLAVIYO_API_KEY}"),
        ("table: ./lake/ltv_scores", "table: \"x${env:KLAVIYO_API_KEY}://y\""),
        (
            "    routes:\n",
            "    routes:\n      - { from: x, name: \"${env:KLAVIYO_API_KEY}\" }\n      - { from: x, name: \"${env:KLAVIYO_API_KEY}\" }\n",
        ),
        ("row.rfm_segment != null", "row.rfm_segment ${env:KLAVIYO_API_KEY}"),
        ("row.rfm_segment != null", "row.a == ${env:KLAVIYO_API_KEY}"),
        ("/^noreply@/", "/(?<${env:KLAVIYO_API_KEY}>.)(?<${env:KLAVIYO_API_KEY}>.)/"),
    ] {
        let text = RIGHT.replacen(from, to, 1);
        assert_ne!(text, RIGHT, "{from}");
        let problems = Folder::new().check(&text).problems;
        assert!(!problems.is_empty(), "{to}");
        let shown = format!("{} {:?} {}", listed(&problems), problems, serde_json::to_string(&problems).unwrap());
        assert!(!shown.contains("pk_the_secret"), "{to}: {shown}");
    }
}

#[test]
fn all_patterns_of_the_schema_compile() {
    fn visit(value: &serde_json::Value) {
        if let Some(pattern) = value.get("pattern").and_then(serde_json::Value::as_str) {
            regex::Regex::new(pattern).unwrap();
        }
        match value {
            serde_json::Value::Object(object) => object.values().for_each(visit),
            serde_json::Value::Array(items) => items.iter().for_each(visit),
            _ => {}
        }
    }
    visit(&schema::schema().root);
}

/// `UPDATE_GOLDEN=1 cargo test -p tailwater --lib config` writes the files anew.
#[test]
fn the_schema_and_the_reference_in_docs_are_current() {
    let folder = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference");
    for (name, current) in [("configuration.schema.json", schema::text()), ("configuration.md", page())] {
        let file = folder.join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&file, &current).unwrap();
        }
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            written == current,
            "docs/reference/{name} is stale: run `UPDATE_GOLDEN=1 cargo test -p tailwater --lib config`"
        );
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever stands where a value is expected, there is an answer and no panic.
    #[test]
    fn no_value_panics(line in 0usize..40, value in "[a-z0-9${}\\[\\]:\"'.,/ -]{0,24}") {
        let mut lines: Vec<String> = RIGHT.lines().map(str::to_owned).collect();
        let line = line.min(lines.len() - 1);
        if let Some((key, _)) = lines[line].clone().split_once(':') {
            lines[line] = format!("{key}: {value}");
        }
        let checked = Folder::new().check(&lines.join("\n"));
        proptest::prop_assert!(checked.config.is_some() != checked.problems.iter().any(Problem::is_error));
    }
}

/// Issue 10: of two sources with one topic only one was read, and the audit showed the other one's numbers for it.
#[test]
fn one_topic_has_one_source() {
    let source = |name: &str, topic: &str| {
        format!(
            "  {name}: {{ type: kafka, {topic}kind: state, primary_key: id, strict: false, identifiers: {{ customer_id: customer_id }} }}\n"
        )
    };
    let with = |sources: &str| RIGHT.replace("sources:\n", &format!("sources:\n{sources}"));
    for (sources, path, parts) in [
        (
            source("second", "topic: app.events, "),
            "sources.second.topic",
            ["sources.app_events.topic", "from: app_events"],
        ),
        // A table's rows go to a topic that cannot be chosen.
        (
            source("aaa", "topic: tailwater.ingest.ltv_scores, "),
            "sources.aaa.topic",
            ["sources.ltv_scores.table", "another topic"],
        ),
        (
            source("one", "") + &source("two", "topic: tailwater.ingest.one, "),
            "sources.two.topic",
            ["sources.one.topic", "from: one"],
        ),
        (source("own", "topic: tailwater.resolved, "), "sources.own.topic", ["tailwater.resolved", "producer"]),
        (source("own", "topic: tailwater.dlq.source.own, "), "sources.own.topic", ["dlq.source.own", "producer"]),
        (source("own", "topic: tailwater.replay.ltv_scores, "), "sources.own.topic", ["replay.ltv_scores", "producer"]),
    ] {
        let checked = Folder::new().check(&with(&sources));
        let [problem] = checked.problems.as_slice() else { panic!("{sources}: {}", listed(&checked.problems)) };
        assert_eq!((problem.path.as_str(), problem.code), (path, code::CONFIG_INVALID_VALUE), "{problem}");
        for part in parts {
            assert!(problem.to_string().contains(part), "{problem}");
        }
        assert!(checked.config.is_none());
    }
    for topic in ["tailwater.deliveries", "other.resolved", "tailwater.ingest.other"] {
        let checked = Folder::new().check(&with(&source("more", &format!("topic: {topic}, "))));
        assert!(checked.problems.is_empty(), "{}", listed(&checked.problems));
    }
}

/// Issue 10: a field with a space under a column with a dot could not be named, and a declared column with a dot was unknown.
#[test]
fn any_field_of_any_column_can_be_an_identifier() {
    let declared = "schema: { upgrade_score: double, user: \"struct<email:string>\" }";
    let with = |identifiers: &str| {
        let columns =
            "schema: { upgrade_score: double, \"user.x\": \"struct<mail:string>\", user: \"struct<email:string>\" }";
        RIGHT.replace(declared, columns).replace("identifiers: { user.email: email }", identifiers)
    };
    for identifiers in
        ["{ \"`user.x`.`e mail`\": email }", "{ \"`user.x`\": email }", "{ user.x: email }", "{ user.email: email }"]
    {
        let checked = Folder::new().check(&with(&format!("identifiers: {identifiers}")));
        assert!(checked.problems.is_empty(), "{identifiers}: {}", listed(&checked.problems));
    }
    for (identifiers, part) in [
        ("{ \"`user.x`.\": email }", "a part of it is empty"),
        ("{ \"`user.x\": email }", "backtick is not closed"),
        ("{ \"`user.y`.mail\": email }", "no column `user.y`"),
        ("{ user..email: email }", "backticks"),
    ] {
        let checked = Folder::new().check(&with(&format!("identifiers: {identifiers}")));
        assert!(listed(&checked.problems).contains(part), "{identifiers}: {}", listed(&checked.problems));
    }
}

#[test]
fn what_becomes_of_invalid_values_needs_declared_types() {
    let topic = "    topic: app.events\n";
    let with = |more: &str| RIGHT.replace(topic, &format!("{topic}    {more}\n"));
    let config = Folder::new().check(&with("on_invalid: omit\n    on_decode_failures: pause")).config.unwrap();
    let source = &config.sources["app_events"];
    assert_eq!(
        (source.on_invalid(), source.on_decode_failures()),
        (model::OnInvalid::Omit, model::OnDecodeFailures::Pause)
    );
    let loose = with("on_invalid: dead_letter")
        .replace("schema: { upgrade_score: double, user: \"struct<email:string>\" }", "strict: false");
    let checked = Folder::new().check(&loose);
    assert_eq!(checked.problems[0].path, "sources.app_events.on_invalid", "{}", listed(&checked.problems));
}

// Issue 12: what a destination cannot do is refused by `validate`, and not only when a transform returns it.
#[test]
fn a_route_allows_only_what_its_destination_can_do() {
    let text = RIGHT.replace(
        "transform: transforms/ltv.js\n",
        "transform: transforms/ltv.js\n        allow: [delete_catalog_item]\n",
    );
    let checked = Folder::new().check(&text);
    let [problem] = checked.problems.as_slice() else { panic!("{}", listed(&checked.problems)) };
    assert_eq!(problem.path, "destinations.klaviyo.routes[0].allow[0]");
    assert!(problem.message.contains("of type `klaviyo` cannot `delete_catalog_item`"), "{problem}");
    assert!(checked.config.is_none());
}

// Issue 12: destructive operations run only where a route says so.
#[test]
fn a_route_can_allow_every_operation_that_is_destructive_and_no_other() {
    use tailwater_core::operation::OperationKind;

    use super::raw::RawDestructive;
    for kind in OperationKind::ALL {
        let raw: Result<RawDestructive, _> = serde_json::from_value(serde_json::json!(kind.as_str()));
        assert_eq!(raw.ok().map(RawDestructive::kind), kind.is_destructive().then_some(kind));
    }
}

// Issue 11: a former name still works, with a warning that says what to write.
#[test]
fn a_former_name_of_a_key_still_works_and_warns() {
    let text = RIGHT
        .replace("    identifier: email", "    key: email")
        .replace("    primary_key: customer_id", "    key: customer_id")
        .replace("  partitions: 16", "  lanes: 8");
    let checked = Folder::new().check(&text);
    let told: Vec<&str> = checked.problems.iter().map(|warning| warning.message.as_str()).collect();
    let config = checked.config.expect("former names are no errors");
    assert_eq!((config.kafka.partitions, config.destinations["klaviyo"].identifier.as_str()), (8, "email"));
    for new in ["`identifier`", "`primary_key`", "`partitions`"] {
        assert!(told.iter().any(|message| message.contains(new) && message.contains("still works")), "{new}: {told:?}");
    }
}
