//! The vendor's filter expressions, as far as the simulated endpoints take them: `equals(email,"a@b.c")`,
//! `any(email,["a@b.c","d@e.f"])`, several of them joined by a comma or by `and(…)`.

/// Values that one `any` may name. The vendor's cap is not documented; this is the largest page, the stricter guess.
const ANY_VALUES_MAX: usize = 100;

/// Conditions of one expression, all of which must hold.
const CONDITIONS_MAX: usize = 10;

/// A field and the values of which it must have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    pub field: String,
    pub values: Vec<String>,
}

/// Parses an expression. The error says what the vendor would not accept.
pub(super) fn parse(text: &str, fields: &[&str]) -> Result<Vec<Condition>, String> {
    let mut parser = Parser { rest: text.trim() };
    let mut conditions = Vec::new();
    parser.conditions(&mut conditions)?;
    if !parser.rest.is_empty() {
        return Err(format!("Invalid filter: unexpected `{}`.", parser.rest));
    }
    for condition in &conditions {
        if !fields.contains(&condition.field.as_str()) {
            return Err(format!("Invalid filter: field `{}` is not filterable here.", condition.field));
        }
    }
    Ok(conditions)
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn conditions(&mut self, out: &mut Vec<Condition>) -> Result<(), String> {
        loop {
            if self.take("and(") {
                self.conditions(out)?;
                self.expect(")")?;
            } else {
                out.push(self.condition()?);
            }
            if out.len() > CONDITIONS_MAX {
                return Err(format!("Invalid filter: more than {CONDITIONS_MAX} conditions."));
            }
            if !self.take(",") {
                return Ok(());
            }
        }
    }

    fn condition(&mut self) -> Result<Condition, String> {
        let any = if self.take("any(") {
            true
        } else if self.take("equals(") {
            false
        } else {
            return Err(format!("Invalid filter: no supported operator at `{}`.", self.rest));
        };
        let Some((field, rest)) = self.rest.split_once(',') else {
            return Err("Invalid filter: a comma is missing after the field.".to_owned());
        };
        let field = field.trim().to_owned();
        self.rest = rest;
        let mut values = Vec::new();
        if any {
            self.expect("[")?;
            loop {
                values.push(self.string()?);
                if values.len() > ANY_VALUES_MAX {
                    return Err(format!("Invalid filter: more than {ANY_VALUES_MAX} values."));
                }
                if !self.take(",") {
                    break;
                }
            }
            self.expect("]")?;
        } else {
            values.push(self.string()?);
        }
        self.expect(")")?;
        Ok(Condition { field, values })
    }

    fn string(&mut self) -> Result<String, String> {
        self.rest = self.rest.trim_start();
        let mut characters = self.rest.chars();
        let Some(quote @ ('"' | '\'')) = characters.next() else {
            return Err(format!("Invalid filter: a quoted value is expected at `{}`.", self.rest));
        };
        let mut value = String::new();
        while let Some(character) = characters.next() {
            match character {
                '\\' => value.extend(characters.next()),
                _ if character == quote => {
                    self.rest = characters.as_str();
                    return Ok(value);
                }
                _ => value.push(character),
            }
        }
        Err("Invalid filter: a quote is not closed.".to_owned())
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.trim_start().strip_prefix(token) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.take(token) {
            Ok(())
        } else {
            Err(format!("Invalid filter: `{token}` is expected at `{}`.", self.rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &[&str] = &["email", "id"];

    fn condition(field: &str, values: &[&str]) -> Condition {
        Condition { field: field.into(), values: values.iter().map(|value| (*value).to_owned()).collect() }
    }

    #[test]
    fn equals_and_any_are_read() {
        assert_eq!(parse(r#"equals(email,"a+b@c.d")"#, FIELDS), Ok(vec![condition("email", &["a+b@c.d"])]));
        assert_eq!(parse(r#"any(email, ["a", "b,)\"c"])"#, FIELDS), Ok(vec![condition("email", &["a", "b,)\"c"])]));
    }

    #[test]
    fn several_conditions_are_joined() {
        let both = vec![condition("email", &["a"]), condition("id", &["1"])];
        assert_eq!(parse(r#"equals(email,"a"),equals(id,"1")"#, FIELDS), Ok(both.clone()));
        assert_eq!(parse(r#"and(equals(email,"a"),equals(id,"1"))"#, FIELDS), Ok(both));
    }

    #[test]
    fn what_the_vendor_does_not_know_is_refused() {
        for text in [
            "",
            "equals(email,a)",
            r#"equals(email,"a""#,
            r#"equals(name,"a")"#,
            r#"contains(email,"a")"#,
            r#"equals(email,"a")x"#,
        ] {
            assert!(parse(text, FIELDS).is_err(), "{text}");
        }
    }

    #[test]
    fn more_values_than_a_page_holds_are_refused() {
        let values = vec!["\"x\""; ANY_VALUES_MAX + 1].join(",");
        assert!(parse(&format!("any(email,[{values}])"), FIELDS).is_err());
    }
}
