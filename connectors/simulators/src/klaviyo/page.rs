//! Collections come in pages: `page[size]`, `page[cursor]`, and a link to the next one.

use serde_json::{Value, json};

use crate::engine::Answer;

use super::account::Call;
use super::answer::{self, Problem};

/// One page of a collection; the cursor is the last key of the page before.
pub(super) struct Page<'a> {
    call: &'a Call<'a>,
    size: usize,
    pub cursor: String,
}

impl<'a> Page<'a> {
    pub fn of(call: &'a Call<'a>, default: usize, max: usize) -> Result<Self, Answer> {
        let size = match parameter(call.query, "page[size]") {
            None => default,
            Some(text) => match text.parse::<usize>() {
                Ok(size) if (1..=max).contains(&size) => size,
                _ => {
                    let detail = format!("The page size must be between 1 and {max}.");
                    return Err(Problem::parameter(detail, "page[size]").into());
                }
            },
        };
        let cursor = parameter(call.query, "page[cursor]").unwrap_or_default().to_owned();
        Ok(Self { call, size, cursor })
    }

    /// `items` begin after the cursor and have their keys.
    pub fn answer(&self, items: impl Iterator<Item = (String, Value)>) -> Answer {
        let mut items: Vec<(String, Value)> = items.take(self.size + 1).collect();
        let more = items.len() > self.size;
        items.truncate(self.size);
        let next = items.last().filter(|_| more).map(|(key, _)| key.clone());
        self.render(items.into_iter().map(|(_, value)| value).collect(), next.as_deref())
    }

    /// A page of a slice; the cursor is a number.
    pub fn numbered<T>(&self, items: &[T], show: impl Fn(&T) -> Value) -> Answer {
        let start = self.cursor.parse::<usize>().unwrap_or(0).min(items.len());
        let end = (start + self.size).min(items.len());
        let next = (end < items.len()).then(|| end.to_string());
        self.render(items[start..end].iter().map(show).collect(), next.as_deref())
    }

    fn render(&self, data: Vec<Value>, next: Option<&str>) -> Answer {
        let address = |cursor: Option<&str>| {
            let kept = self.call.query.iter().filter(|(name, _)| cursor.is_none() || name != "page[cursor]");
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(kept);
            if let Some(cursor) = cursor {
                query.append_pair("page[cursor]", cursor);
            }
            let query = query.finish();
            let separator = if query.is_empty() { "" } else { "?" };
            format!("{}{}{separator}{query}", self.call.base, self.call.path)
        };
        let next = next.map(|cursor| address(Some(cursor)));
        answer::json(200, json!({"data": data, "links": {"self": address(None), "next": next, "prev": null}}))
    }
}

/// A parameter of the query.
pub(super) fn parameter<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}
