//! Any text as a configuration: what an editor, a template or a merge made of it. And a right one with its lines changed.

use std::collections::BTreeSet;
use std::path::Path as FilePath;

use proptest::prelude::*;
use tailwater_fuzz::{Target, effect, generated};

use super::tests::RIGHT;
use super::*;

/// What the environment and the referenced file hold; no problem may show it.
const SECRET: &str = "pk_s3cr3t_0123456789";

const TOKENS: &[&str] = &[
    "&a ",
    "*a",
    "<<: *a\n",
    "- ",
    "  ",
    ": ",
    "? ",
    "| \n",
    ">-\n",
    "{ ",
    " }",
    "[ ",
    " ]",
    "!!str ",
    "!!int ",
    "!x ",
    "# ",
    "\"",
    "'",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "null",
    "~",
    "true",
    "no",
    "0x1f",
    "0o17",
    ".inf",
    ".nan",
    "1e3",
    "-1",
    "30d",
    "5m",
    "0s",
    "1.5h",
    "16",
    "${env:KLAVIYO_API_KEY}",
    "${env:KLAVIYO_API_KEY:-x}",
    "${env:NONE}",
    "${env:",
    "${file:secret}",
    "${file:absent}",
    "$${",
    "}",
    "version: 1\n",
    "workspace: ",
    "kafka:\n",
    "brokers: ",
    "partitions: ",
    "options: ",
    "sasl.password: ",
    "identity:\n",
    "types:\n",
    "priority: ",
    "max: ",
    "normalise: ",
    "email",
    "phone",
    "region: ",
    "blocklist: ",
    "/^a/",
    "/(/",
    "sources:\n",
    "type: delta\n",
    "type: kafka\n",
    "table: ",
    "topic: ",
    "kind: events\n",
    "kind: state\n",
    "key: ",
    "identifier: ",
    "primary_key: ",
    "id: ",
    "identifiers: ",
    "event_time: ",
    "schema: ",
    "struct<a:array<double>>",
    "array<",
    "decimal(38,2)",
    "aliases: ",
    "coalesce: ",
    "start: ",
    "storage: ",
    "longs: ",
    "decimals: ",
    "on_delete: ",
    "accounts:\n",
    "type: klaviyo\n",
    "api_key: ",
    "base_url: http://127.0.0.1:1\n",
    "rate_share: ",
    "destinations:\n",
    "account: ",
    "create: true\n",
    "hold_for: ",
    "on_missing_key: hold\n",
    "routes:\n",
    "from: ",
    "when: row.a == 1\n",
    "transform: transforms/ltv.js\n",
    "latency: ",
    "retry:\n",
];

/// Values that fit one key and not another.
const VALUES: &[&str] = &[
    "",
    "~",
    "[]",
    "{}",
    "x",
    "0",
    "-1",
    "4294967296",
    "1e400",
    "\"\"",
    "'${env:KLAVIYO_API_KEY}'",
    "[a, b]",
    "{ a: b }",
    "&a {b: 1}",
    "*a",
    "true",
    "99999999999d",
    "/(/",
    "struct<",
    "row.(",
    "http://",
    "\u{202e}",
    "x: y",
];

/// A right configuration of which some lines are left out, repeated, moved in or given another value.
fn changed() -> impl Strategy<Value = Vec<u8>> {
    let lines: Vec<&str> = RIGHT.lines().collect();
    let change = (0..lines.len(), 0_u8..6, prop::sample::select(VALUES));
    prop::collection::vec(change, 1..5).prop_map(move |changes| {
        let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        for (at, what, value) in changes {
            let at = at % lines.len();
            let key = lines[at].split_once(':').map(|(key, _)| key.to_owned());
            match (what, key) {
                (0, _) if lines.len() > 1 => drop(lines.remove(at)),
                (1, _) => lines.insert(at, lines[at].clone()),
                (2, _) => lines[at].insert_str(0, "  "),
                (3, _) => lines[at] = lines[at].trim_start().to_owned(),
                (_, Some(key)) => lines[at] = format!("{key}: {value}"),
                (_, None) => lines[at].push_str(value),
            }
        }
        lines.join("\n").into_bytes()
    })
}

fn environment(name: &str) -> Option<String> {
    (name == "KLAVIYO_API_KEY" || name == "KAFKA_PASSWORD").then(|| SECRET.to_owned())
}

#[test]
fn config() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    std::fs::create_dir(folder.path().join("transforms")).expect("a new folder");
    std::fs::write(folder.path().join("transforms/ltv.js"), "function send(payload) { return []; }").expect("a file");
    std::fs::write(folder.path().join("secret"), SECRET).expect("a file");
    let file = folder.path().join("tailwater.yaml");
    let mut changed = generated(changed());
    let target = Target { name: "config", tokens: TOKENS, bytes_max: 8_192 };
    target.run(Some(&mut changed), |input| {
        let text = String::from_utf8_lossy(input);
        holds(&text, &file)
    });
}

fn holds(text: &str, file: &FilePath) -> u64 {
    let options = LoadOptions { environment: &environment, ..LoadOptions::default() };
    let Checked { config, problems } = check_text(text, file, &options);
    let errors = problems.iter().any(Problem::is_error);
    assert_eq!(config.is_none(), errors, "a configuration without errors, or errors: {problems:?}");
    let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
    for problem in &problems {
        assert!(
            !problem.path.is_empty() || problem.place.is_some() || lines <= 1 || is_of_the_file(problem),
            "{problem:?}"
        );
        assert!(!problem.message.is_empty() && problem.hint.as_deref() != Some(""), "{problem:?}");
        assert!(
            problem.place.is_none_or(|place| (1..=lines + 1).contains(&place.line)),
            "{problem:?} of {lines} lines"
        );
        let shown = problem.to_string();
        assert!(!shown.contains(SECRET), "a secret is shown: {shown}");
    }
    // Where a reference may stay open, fewer problems are errors, and none appear that were not there.
    let tolerant = check_text(text, file, &LoadOptions { tolerate_unresolved: true, ..options });
    assert!(config.is_none() || tolerant.config.is_some(), "{:?}", tolerant.problems);
    let codes: BTreeSet<&str> = problems.iter().map(|problem| problem.code.as_str()).collect();
    let sections: BTreeSet<&str> =
        problems.iter().map(|problem| problem.path.split(['.', '[']).next().unwrap_or_default()).take(3).collect();
    effect((codes, sections.len(), problems.len().min(8), config.is_some()))
}

/// What concerns the whole has no path, and where it is about what is missing, no place.
fn is_of_the_file(problem: &Problem) -> bool {
    [code::CONFIG_SYNTAX, code::CONFIG_UNREADABLE, code::CONFIG_MISSING_KEY, code::CONFIG_WRONG_TYPE]
        .contains(&problem.code)
}

/// The largest file that is read, in the shapes that cost most: each must come to its end in time, with the problem that it has.
#[test]
fn the_largest_files_end_in_time() {
    let size = usize::try_from(tree::FILE_BYTES_MAX).expect("it fits into memory");
    let fill = |part: &dyn Fn(usize) -> String| {
        let mut text = String::with_capacity(size);
        for number in 0.. {
            let part = part(number);
            if text.len() + part.len() > size {
                break;
            }
            text.push_str(&part);
        }
        text
    };
    let shapes = [
        ("keys", fill(&|number| format!("k{number}:\n"))),
        ("anchors", fill(&|number| format!("- &a{number} x\n"))),
        ("aliases", format!("- &a x\n{}", fill(&|_| "- *a\n".to_owned()))),
        (
            "anchors around one another",
            format!(
                "{}{}",
                (0..60).map(|number| format!("&a{number} [")).collect::<String>(),
                fill(&|_| "x,".to_owned())
            ),
        ),
        ("a long key", format!("{}: 1\n", "k".repeat(size - 8))),
        ("a long text", format!("workspace: {}\n", "$".repeat(size - 16))),
        ("references", format!("workspace: {}\n", fill(&|_| "${env:A}".to_owned()))),
    ];
    for (name, text) in shapes {
        let start = tailwater_fuzz::worked();
        let text = text.get(..size.min(text.len())).unwrap_or(&text);
        let checked = check_text(text, FilePath::new("tailwater.yaml"), &LoadOptions::default());
        assert!(checked.config.is_none() && !checked.problems.is_empty(), "{name}");
        let worked = tailwater_fuzz::worked() - start;
        assert!(worked < std::time::Duration::from_secs(20), "{name} took {worked:?}");
    }
}
