//! What an expression reads, found before the first row: its columns, its variables, and whatever in it does not exist.

use std::collections::BTreeSet;
use std::sync::Arc;

use cel::Context;
use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue};

use super::{Fields, env, wrong};
use crate::config::forms::nearest;
use crate::config::problem::Problem;

/// The variables of an expression.
const VARIABLES: &[&str] = &["row", "event", "profile"];
const EVENT_FIELDS: &[&str] = &["source", "type", "time", "change"];

/// Goes over an expression once and notes what it reads and the first thing in it that does not exist.
#[derive(Default)]
pub(super) struct Scan {
    pub row: Fields,
    pub profile: Fields,
    pub event: bool,
    pub problem: Option<Problem>,
    /// Fields inside of columns: `row.profile.score` is `["profile", "score"]`.
    pub paths: BTreeSet<Vec<String>>,
    /// Macros that go over a list.
    pub macros: usize,
    /// Macros around one another where most are, and around the place that is being looked at.
    deepest: usize,
    depth: usize,
    /// Calls that may put a text into another one more than once.
    growing: usize,
}

impl Scan {
    /// How often the expression multiplies what it reads.
    pub fn growth(&self) -> usize {
        self.deepest + self.growing
    }

    /// `local` are the variables of the macros around the expression (`items.exists(item, …)`).
    pub fn expression<'e>(&mut self, expression: &'e IdedExpr, local: &mut Vec<&'e str>) {
        match &expression.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => self.whole(name, local),
            Expr::Select(select) => match global(&select.operand, local) {
                Some(variable) => self.field(variable, &select.field, select.test),
                None => {
                    self.path(expression, local);
                    self.expression(&select.operand, local);
                }
            },
            Expr::Call(call) => {
                self.path(expression, local);
                self.call(call, local);
            }
            Expr::List(list) => list.elements.iter().for_each(|item| self.expression(item, local)),
            Expr::Map(map) => map.entries.iter().for_each(|entry| self.entry(&entry.expr, local)),
            Expr::Struct(literal) => {
                self.complain(
                    wrong(format!("there is no type `{}`", literal.type_name))
                        .hint("messages cannot be made in a condition"),
                );
            }
            Expr::Comprehension(comprehension) => {
                self.expression(&comprehension.iter_range, local);
                self.expression(&comprehension.accu_init, local);
                self.macros += 1;
                self.depth += 1;
                self.deepest = self.deepest.max(self.depth);
                let before = local.len();
                local.push(&comprehension.accu_var);
                local.push(&comprehension.iter_var);
                local.extend(comprehension.iter_var2.as_deref());
                self.expression(&comprehension.loop_cond, local);
                self.expression(&comprehension.loop_step, local);
                self.expression(&comprehension.result, local);
                local.truncate(before);
                self.depth -= 1;
            }
        }
    }

    fn entry<'e>(&mut self, entry: &'e EntryExpr, local: &mut Vec<&'e str>) {
        match entry {
            EntryExpr::MapEntry(entry) => {
                self.expression(&entry.key, local);
                self.expression(&entry.value, local);
            }
            EntryExpr::StructField(field) => {
                self.complain(
                    wrong(format!("the map's key `{}` needs quotes", field.field)).hint("write {\"key\": value}"),
                );
            }
        }
    }

    fn call<'e>(&mut self, call: &'e CallExpr, local: &mut Vec<&'e str>) {
        if call.func_name == "_[_]"
            && let [operand, index] = call.args.as_slice()
            && let (Some(variable), Expr::Literal(LiteralValue::String(field))) = (global(operand, local), &index.expr)
        {
            self.field(variable, field.inner(), false);
            return;
        }
        if call.func_name.starts_with(|letter: char| letter.is_ascii_alphabetic()) && !is_function(&call.func_name) {
            self.complain(wrong(format!("there is no function `{}`", call.func_name)).hint(
                "known are size, contains, startsWith, endsWith, matches, has, exists, all, filter, map, int, double, string, lowerAscii, …",
            ));
        }
        if grows(call) {
            self.growing += 1;
        }
        if let Some(target) = &call.target {
            self.expression(target, local);
        }
        call.args.iter().for_each(|argument| self.expression(argument, local));
    }

    /// A variable that is used as it is.
    fn whole(&mut self, name: &str, local: &[&str]) {
        if local.contains(&name) || name.starts_with('@') {
            return;
        }
        match name {
            "row" => self.row.all = true,
            "profile" => self.profile.all = true,
            "event" => self.event = true,
            // The names of types are values too: `type(row.x) == string`.
            "int" | "uint" | "double" | "bool" | "string" | "bytes" | "list" | "map" | "null_type" | "type" => {}
            unknown => {
                let hint = match nearest(unknown, VARIABLES.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => {
                        format!("columns are fields of `row`: row.{unknown}; besides there are `event` and `profile`")
                    }
                };
                self.complain(wrong(format!("there is no variable `{unknown}`")).hint(hint));
            }
        }
    }

    /// A field of one of the variables.
    fn field(&mut self, variable: &str, field: &str, test: bool) {
        let fields = match variable {
            "row" => &mut self.row,
            "profile" => &mut self.profile,
            "event" => {
                self.event = true;
                if !EVENT_FIELDS.contains(&field) {
                    let hint = format!("its fields are {}", EVENT_FIELDS.join(", "));
                    self.complain(wrong(format!("`event` has no field `{field}`")).hint(hint));
                }
                return;
            }
            other => return self.whole(other, &[]),
        };
        let set = if test { &mut fields.tested } else { &mut fields.read };
        set.insert(field.to_owned());
    }

    fn path(&mut self, expression: &IdedExpr, local: &[&str]) {
        if let Some(path) = row_path(expression, local)
            && path.len() > 1
        {
            self.paths.insert(path);
        }
    }

    fn complain(&mut self, problem: Problem) {
        self.problem.get_or_insert(problem);
    }
}

/// Whether a call may make a text longer than it was, so that a chain of them multiplies it.
fn grows(call: &CallExpr) -> bool {
    let literal = |argument: &IdedExpr| match &argument.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner().len()),
        _ => None,
    };
    match (call.func_name.as_str(), call.args.as_slice()) {
        ("join", [separator, ..]) => literal(separator) != Some(0),
        ("replace", [from, to, ..]) => match (literal(from), literal(to)) {
            (Some(from), Some(to)) => to > from,
            (Some(_) | None, _) => true,
        },
        _ => false,
    }
}

/// The variable that an expression is, unless a macro's variable hides it.
fn global<'e>(expression: &'e IdedExpr, local: &[&str]) -> Option<&'e str> {
    match &expression.expr {
        Expr::Ident(name) if !local.contains(&name.as_str()) && !name.starts_with('@') => Some(name),
        _ => None,
    }
}

/// The steps from `row` to a field, if that is what an expression is.
fn row_path(expression: &IdedExpr, local: &[&str]) -> Option<Vec<String>> {
    let (operand, field) = match &expression.expr {
        Expr::Select(select) if !select.test => (&*select.operand, select.field.as_str()),
        Expr::Call(call) if call.func_name == "_[_]" => match call.args.as_slice() {
            [operand, index] => match &index.expr {
                Expr::Literal(LiteralValue::String(field)) => (operand, field.inner()),
                _ => return None,
            },
            _ => return None,
        },
        _ => return None,
    };
    let mut path = match global(operand, local) {
        Some("row") => Vec::new(),
        Some(_) => return None,
        None => row_path(operand, local)?,
    };
    path.push(field.to_owned());
    Some(path)
}

/// Whether the environment declares a function: it refuses a second one of that name.
fn is_function(name: &str) -> bool {
    Context::with_env(Arc::clone(env())).add_function(name, |number: i64| number).is_err()
}
