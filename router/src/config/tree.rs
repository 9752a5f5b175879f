//! The YAML text as a tree that remembers where each key and each value stood.
//!
//! Built from the parser's events and not from a ready-made document, because three things must not happen: a document
//! nested deep enough must not exhaust the stack, an alias must not multiply itself without end, and a key that stands twice
//! must be reported with both of its places instead of ending the whole check.

use std::collections::HashMap;

use saphyr::Scalar;
use saphyr_parser::{Event, Parser, ScanError, Span};
use tailwater_core::code;

use super::problem::{Path, Place, Problem, Step};
use super::text::Text;

/// Bytes of a configuration file. Ten thousand routes fit; a file that was named by mistake does not fill the memory.
pub const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Levels of nesting. The deepest documented key lies at seven.
const DEPTH_MAX: usize = 64;

/// Nodes that aliases may add: enough for shared blocks, too few for a "billion laughs".
const ALIAS_NODES_MAX: usize = 20_000;

/// Nodes that are kept for aliases: an anchor around an anchor keeps its nodes twice. Some thirty megabytes.
const ANCHOR_NODES_MAX: usize = 200_000;

#[derive(Debug, Clone)]
pub struct Node {
    pub place: Place,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub enum Value {
    Null,
    Bool(bool),
    /// The number as it was written, so that nothing is lost where a text is wanted.
    Number(String),
    Text(Text),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub key: String,
    pub key_place: Place,
    pub node: Node,
}

/// Reads a document. Problems that leave the rest readable (a key that stands twice) are added to `problems`.
///
/// # Errors
/// The text is no YAML, or not a single document.
pub fn parse(text: &str, problems: &mut Vec<Problem>) -> Result<Node, Problem> {
    let mut builder =
        Builder { open: Vec::new(), anchors: HashMap::new(), anchor_nodes: 0, alias_nodes: 0, root: None, problems };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| syntax(&error))?;
        builder.event(event, span)?;
    }
    Ok(builder.root.unwrap_or(Node { place: Place { line: 1, column: 1 }, value: Value::Null }))
}

struct Builder<'a> {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    anchor_nodes: usize,
    alias_nodes: usize,
    root: Option<Node>,
    problems: &'a mut Vec<Problem>,
}

/// A list or a map that has not ended yet.
struct Open {
    anchor: usize,
    place: Place,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, places: HashMap<String, Place>, key: Option<(String, Place)> },
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let place = Place { line: span.start.line(), column: span.start.col() + 1 };
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let text_copy = text.to_string();
                let Some(scalar) = Scalar::parse_from_cow_and_metadata(text, style, tag.as_ref()) else {
                    return Err(fault(place, "the tag does not fit its value").hint("leave the tag (`!!…`) out"));
                };
                let value = match scalar {
                    Scalar::Null => Value::Null,
                    Scalar::Boolean(flag) => Value::Bool(flag),
                    // The text is kept: hexadecimal and exponents are rare, and `1e3` must stay what it was where a text is wanted.
                    Scalar::Integer(_) | Scalar::FloatingPoint(_) => Value::Number(text_copy),
                    Scalar::String(_) => Value::Text(Text::literal(text_copy)),
                };
                self.put(Node { place, value }, anchor)
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(fault(place, "an alias refers to an anchor that is not complete yet"));
                };
                let (nodes, levels) = size(node);
                self.alias_nodes = self.alias_nodes.saturating_add(nodes);
                if self.alias_nodes > ALIAS_NODES_MAX {
                    return Err(fault(place, format!("aliases add more than {ALIAS_NODES_MAX} values")));
                }
                // Each alias to an alias would go deeper by what it names.
                if self.open.len() + levels > DEPTH_MAX {
                    return Err(too_deep(place));
                }
                let node = node.clone();
                self.put(node, 0)
            }
            Event::SequenceStart(anchor, _) => self.start(anchor, place, Content::List(Vec::new())),
            Event::MappingStart(anchor, _) => {
                self.start(anchor, place, Content::Map { entries: Vec::new(), places: HashMap::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let value = match open.content {
                    Content::List(items) => Value::List(items),
                    Content::Map { entries, places: _, key: _ } => Value::Map(entries),
                };
                self.put(Node { place: open.place, value }, open.anchor)
            }
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(fault(place, "the file holds more than one document")
                    .hint("keep one document: remove what follows `---`"))
            }
            Event::DocumentStart(_) | Event::DocumentEnd | Event::StreamStart | Event::StreamEnd | Event::Nothing => {
                Ok(())
            }
        }
    }

    fn start(&mut self, anchor: usize, place: Place, content: Content) -> Result<(), Problem> {
        if self.open.len() >= DEPTH_MAX {
            return Err(too_deep(place));
        }
        self.open.push(Open { anchor, place, content });
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Problem> {
        if anchor != 0 {
            self.anchor_nodes = self.anchor_nodes.saturating_add(size(&node).0);
            if self.anchor_nodes > ANCHOR_NODES_MAX {
                let message = format!("anchors stand around more than {ANCHOR_NODES_MAX} values");
                return Err(fault(node.place, message).hint("put an anchor (`&name`) only where an alias refers to it"));
            }
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { entries, places, key }) => match key.take() {
                None => *key = Some((key_text(&node)?, node.place)),
                Some((name, key_place)) => match places.get(&name) {
                    Some(first) => self.problems.push(
                        fault(key_place, format!("the key `{name}` stands twice"))
                            .hint(format!("it stands in line {} already; keep one of them", first.line)),
                    ),
                    None => {
                        places.insert(name.clone(), key_place);
                        entries.push(Entry { key: name, key_place, node });
                    }
                },
            },
        }
        Ok(())
    }
}

impl Node {
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => &[],
        }
    }

    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries().iter().map(|entry| entry.key.as_str())
    }

    /// The value at a path.
    pub fn find(&self, path: &Path) -> Option<&Node> {
        path.steps().iter().try_fold(self, |node, step| node.step(step).map(|(child, _)| child))
    }

    /// Where a path stands in the text: at the value if it exists, else at the key of the innermost part that does.
    pub fn locate(&self, path: &Path) -> Place {
        let mut node = self;
        let mut place = self.place;
        for step in path.steps() {
            let Some((child, key_place)) = node.step(step) else { return place };
            node = child;
            place = key_place;
        }
        node.place
    }

    fn step(&self, step: &Step) -> Option<(&Node, Place)> {
        match (step, &self.value) {
            (Step::Key(key), Value::Map(entries)) => {
                entries.iter().find(|entry| entry.key == *key).map(|entry| (&entry.node, entry.key_place))
            }
            (Step::Index(index), Value::List(items)) => items.get(*index).map(|item| (item, item.place)),
            _ => None,
        }
    }
}

/// How many nodes there are, and how many levels of lists and maps.
fn size(node: &Node) -> (usize, usize) {
    let inner = |(nodes, levels): (usize, usize), child: &Node| {
        let (more, deeper) = size(child);
        (nodes + more, levels.max(deeper + 1))
    };
    match &node.value {
        Value::List(items) => items.iter().fold((1, 1), inner),
        Value::Map(entries) => entries.iter().map(|entry| &entry.node).fold((1, 1), inner),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => (1, 0),
    }
}

fn too_deep(place: Place) -> Problem {
    fault(place, format!("the file is nested deeper than {DEPTH_MAX} levels"))
}

fn key_text(node: &Node) -> Result<String, Problem> {
    match &node.value {
        Value::Text(text) => Ok(text.written().to_owned()),
        Value::Number(text) => Ok(text.clone()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Null => Ok("null".to_owned()),
        Value::List(_) | Value::Map(_) => Err(fault(node.place, "a key must be a word, not a list or a map")
            .hint("a value that begins with `${` or `{` needs quotes")),
    }
}

fn fault(place: Place, message: impl Into<String>) -> Problem {
    Problem::error(code::CONFIG_SYNTAX, &Path::default(), message).at(place)
}

fn syntax(error: &ScanError) -> Problem {
    let place = Place { line: error.marker().line(), column: error.marker().col() + 1 };
    fault(place, format!("the file is no valid YAML: {}", error.info()))
        .hint("check indentation and quotes near this line; inside {…} a reference needs quotes: \"${env:NAME}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> (Result<Node, Problem>, Vec<Problem>) {
        let mut problems = Vec::new();
        let node = parse(text, &mut problems);
        (node, problems)
    }

    #[test]
    fn values_remember_where_they_stood() {
        let node = tree("kafka:\n  partitions: 16\nlist:\n  - { a: b }\n").0.unwrap();
        assert_eq!(node.locate(&Path::of(["kafka", "partitions"])), Place { line: 2, column: 15 });
        assert_eq!(node.locate(&Path::of(["kafka", "missing"])), Place { line: 1, column: 1 });
        assert_eq!(node.locate(&Path::of(["list"]).index(0).key("a")), Place { line: 4, column: 10 });
    }

    #[test]
    fn a_key_that_stands_twice_is_reported_and_the_rest_is_read() {
        let (node, problems) = tree("a: 1\nb: 2\na: 3\n");
        assert_eq!(node.unwrap().keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(problems[0].place, Some(Place { line: 3, column: 1 }));
        assert!(problems[0].hint.as_ref().unwrap().contains("line 1"));
    }

    #[test]
    fn nesting_and_aliases_are_bounded() {
        assert!(tree(&"- ".repeat(100_000)).0.is_err());
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..8 {
            let before = format!("*a{}", level - 1);
            laughs.push_str(&format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(", ")));
        }
        let problem = tree(&laughs).0.unwrap_err();
        assert!(problem.message.contains("aliases"), "{problem}");
        let mut deeper = format!("- &a0 {}{}\n", "[".repeat(50), "]".repeat(50));
        for level in 1..20 {
            deeper.push_str(&format!("- &a{level} {}*a{}{}\n", "[".repeat(50), level - 1, "]".repeat(50)));
        }
        assert!(tree(&deeper).0.unwrap_err().message.contains("deeper"));
        let around: String = (0..60).map(|level| format!("&a{level} [")).collect();
        let problem = tree(&format!("{around}{}", "x, ".repeat(50_000))).0.unwrap_err();
        assert!(problem.message.contains("YAML"), "not closed, so nothing was kept: {problem}");
        let closed = format!("{around}{}{}", "x, ".repeat(50_000), "]".repeat(60));
        assert!(tree(&closed).0.unwrap_err().message.contains("anchors"));
    }

    #[test]
    fn a_second_document_is_refused() {
        assert!(tree("a: 1\n---\nb: 2\n").0.unwrap_err().message.contains("more than one document"));
    }

    #[test]
    fn what_is_no_yaml_has_a_place() {
        let problem = tree("a: [1, 2\nb: }").0.unwrap_err();
        assert_eq!(problem.code, code::CONFIG_SYNTAX);
        assert!(problem.place.is_some());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[a-z\\[\\]{}:&*!,\\-\\n $\"'|>#?]{0,200}") {
            drop(tree(&text));
        }
    }
}
