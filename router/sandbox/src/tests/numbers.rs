//! Numbers arrive as they are, or their row fails (issue 10, A6).

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::RowErrorKind;

fn outcome(schema: Option<Arc<RowSchema>>, mode: NonFinite, body: &str, row: &str) -> RowResult {
    let pool = pool();
    let transform = load(&pool, &each(body));
    let mut batch = batch([row]);
    batch.schema = schema;
    batch.non_finite = mode;
    transform.run(&batch).results.remove(0)
}

#[test]
fn numbers_of_a_table_that_are_not_finite_follow_the_destinations_choice() {
    let columns = typed(&[
        ("score", "double"),
        ("name", "string"),
        ("s", "struct<low:float,label:string>"),
        ("list", "array<double>"),
        ("by", "map<string,double>"),
    ]);
    let row = r#"{"score":"NaN","name":"NaN","s":{"low":"-Infinity","label":"Infinity"},"list":[1.5,"Infinity"],"by":{"a":"NaN","b":2}}"#;
    let body = "row => ({score: row.score, name: row.name, s: row.s, list: row.list, by: row.by, is: [typeof row.score, typeof row.s.low, typeof row.name]})";
    let is = r#""is":["number","number","string"]"#;
    let run = |mode| outcome(strict_rows(&columns), mode, body, row);
    let RowResult::Outputs(outputs) = run(NonFinite::Omit) else { panic!("no outputs") };
    assert_eq!(outputs[0].json, format!(r#"{{"name":"NaN","s":{{"label":"Infinity"}},"by":{{"b":2}},{is}}}"#));
    assert_eq!(outputs[0].non_finite, ["score", "s.low", "list", "by.a"]);
    let RowResult::Outputs(outputs) = run(NonFinite::Clear) else { panic!("no outputs") };
    let cleared = format!(
        r#"{{"score":null,"name":"NaN","s":{{"low":null,"label":"Infinity"}},"list":[1.5,null],"by":{{"a":null,"b":2}},{is}}}"#
    );
    assert_eq!(outputs[0].json, cleared);
    assert_eq!(outputs[0].non_finite, ["score", "s.low", "list[1]", "by.a"]);
    assert_eq!(failed(&run(NonFinite::Reject)).kind, RowErrorKind::NonFinite);
    let passed_on = outcome(strict_rows(&columns), NonFinite::Omit, "row => row", r#"{"score":"NaN","name":"x"}"#);
    assert_eq!(json(&passed_on), r#"{"name":"x"}"#);
    let event =
        outcome(strict_rows(&columns), NonFinite::Omit, "row => ({x: Number.isNaN(row._event.data.score)})", row);
    assert_eq!(json(&event), r#"{"x":true}"#);
}

#[test]
fn a_text_is_no_number_where_the_type_is_not_known() {
    let row = r#"{"score":"NaN"}"#;
    assert_eq!(json(&outcome(None, NonFinite::Omit, "row => ({x: row.score})", row)), r#"{"x":"NaN"}"#);
}

#[test]
fn a_decimal_is_exact_or_not_read() {
    let columns = typed(&[
        ("balance", "decimal(38,10)"),
        ("whole", "decimal(20,0)"),
        ("score", "double"),
        ("s", "struct<amounts:array<decimal(20,4)>>"),
    ]);
    let run = |body, row| outcome(strict_rows(&columns), NonFinite::Omit, body, row);
    let row = r#"{"balance":12345678901234567.8900000000,"whole":12345678901234567890,"score":0.10000000000000001,"s":{"amounts":[1.5000,1234567890123456.7891]}}"#;
    for (body, column) in [
        ("row => ({x: row.balance})", "balance"),
        ("row => ({x: row.whole})", "whole"),
        ("row => ({x: row.s.amounts[1]})", "s.amounts.1"),
        ("row => ({...row, balance: 0, whole: 0})", "balance"),
        ("row => ({x: row._event.data.balance})", "balance"),
    ] {
        let result = run(body, row);
        assert_eq!(failed(&result).kind, RowErrorKind::UnsafeDecimal { column: column.into() }, "{body}");
        assert_eq!(failed(&result).code().as_str(), "unsafe_decimal");
        assert!(failed(&result).message.contains("decimals: string"), "{result:?}");
    }
    assert_eq!(json(&run("row => ({x: row.score, y: row.s.amounts[0]})", row)), r#"{"x":0.1,"y":1.5}"#);
    let exact = r#"{"balance":0.1000000000,"whole":9007199254740991}"#;
    assert_eq!(json(&run("row => ({x: row.balance, y: row.whole})", exact)), r#"{"x":0.1,"y":9007199254740991}"#);
}

#[test]
fn a_number_without_a_type_is_exact_or_a_double() {
    for (number, expected) in [
        ("0.1", Some("0.1")),
        ("0.10000000000000001", Some("0.1")),
        ("12345678901234567.5", None),
        ("0.1234567890123456789", None),
        ("1e300", Some("1e+300")),
    ] {
        let result = outcome(None, NonFinite::Omit, "row => ({x: row.a})", &format!("{{\"a\":{number}}}"));
        match expected {
            Some(expected) => assert_eq!(json(&result), format!("{{\"x\":{expected}}}"), "{number}"),
            None => assert_eq!(failed(&result).kind, RowErrorKind::UnsafeDecimal { column: "a".into() }, "{number}"),
        }
    }
}

#[test]
fn longs_as_strings_are_chosen_by_type_and_not_by_value() {
    let mut columns = typed(&[
        ("id", "bigint"),
        ("score", "double"),
        ("amount", "decimal(10,2)"),
        ("n", "int"),
        ("s", "struct<id:bigint,score:double,n:int,list:array<bigint>>"),
        ("by", "map<string,long>"),
    ]);
    for column in &mut columns.columns {
        column.longs_as_strings = true;
    }
    let row = r#"{"id":5,"score":3.0,"amount":7.00,"n":4,"s":{"id":12345678901234567890,"score":2.0,"n":1,"list":[1,null,9007199254740993]},"by":{"a":1}}"#;
    let result = outcome(strict_rows(&columns), NonFinite::Omit, "row => ({...row, raw: row._event.data.s})", row);
    let s = r#"{"id":"12345678901234567890","score":2,"n":1,"list":["1",null,"9007199254740993"]}"#;
    let expected = format!(r#"{{"id":"5","score":3,"amount":7,"n":4,"s":{s},"by":{{"a":"1"}},"raw":{s}}}"#);
    assert_eq!(json(&result), expected);
}

#[test]
fn decimals_as_strings_have_all_their_digits() {
    let mut columns = typed(&[
        ("d", "decimal(38,4)"),
        ("score", "double"),
        ("n", "bigint"),
        ("s", "struct<d:decimal(10,2),x:double>"),
    ]);
    for column in &mut columns.columns {
        column.decimals_as_strings = true;
    }
    let row = r#"{"d":12345678901234567.8900,"score":0.5,"n":7,"s":{"d":1.50,"x":2.0}}"#;
    let result = outcome(strict_rows(&columns), NonFinite::Omit, "row => ({...row, raw: row._event.data.d})", row);
    let expected =
        r#"{"d":"12345678901234567.8900","score":0.5,"n":7,"s":{"d":"1.50","x":2},"raw":"12345678901234567.8900"}"#;
    assert_eq!(json(&result), expected);
}

/// A number as digits and the power of ten of the first: equal for equal values, however they are written.
fn value_of(text: &str) -> (bool, String, i64) {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let zeros = digits.len() - digits.trim_start_matches('0').len();
    let significant = digits.trim_matches('0').to_owned();
    if significant.is_empty() {
        return (false, significant, 0);
    }
    let first = i64::try_from(whole.len()).unwrap() - i64::try_from(zeros).unwrap() + exponent.parse::<i64>().unwrap();
    (negative, significant, first)
}

fn number() -> impl Strategy<Value = (String, String)> {
    let decimal = (1_u8..=38, any::<i128>(), any::<bool>()).prop_flat_map(|(precision, unscaled, small)| {
        (0..=precision).prop_map(move |scale| {
            let bound = 10_i128.checked_pow(u32::from(precision)).unwrap_or(i128::MAX);
            let unscaled = if small { unscaled % bound.min(1_000_000) } else { unscaled % bound };
            let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = usize::from(scale) + 1);
            let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
            let sign = if unscaled < 0 { "-" } else { "" };
            let point = if scale == 0 { "" } else { "." };
            (format!("decimal({precision},{scale})"), format!("{sign}{whole}{point}{fraction}"))
        })
    });
    let double = any::<f64>().prop_filter("JSON has no other", |value| value.is_finite());
    let double = double.prop_map(|value| ("double".to_owned(), format!("{value:?}")));
    let long =
        prop_oneof![any::<i64>(), -1_000_000_i64..1_000_000].prop_map(|value| ("bigint".to_owned(), value.to_string()));
    prop_oneof![decimal, double, long]
}

#[test]
fn what_passes_through_unchanged_has_the_same_value_or_fails_with_a_code() {
    let pool = pool();
    let transform = load(&pool, &each("row => ({x: row.x, y: row.s.y, z: row.s.z[0]})"));
    proptest!(|((data_type, number) in number(), wrapped in any::<bool>(), as_strings in any::<bool>(), decimals in any::<bool>(), is_known in any::<bool>())| {
        let struct_type = format!("struct<y:{data_type},z:array<{data_type}>>");
        let mut columns = typed(&[("x", data_type.as_str()), ("s", &struct_type)]);
        for column in &mut columns.columns {
            column.longs_as_strings = as_strings;
            column.decimals_as_strings = decimals;
        }
        let row = format!("{{\"x\":{number},\"s\":{{\"y\":{number},\"z\":[{number}]}}}}");
        let row = if wrapped { row.replace(':', " : ") } else { row };
        let mut batch = batch([row.as_str()]);
        batch.schema = if is_known { strict_rows(&columns) } else { None };
        match &transform.run(&batch).results[0] {
            RowResult::Outputs(outputs) => {
                let output: serde_json::Map<String, Value> = serde_json::from_str(&outputs[0].json).unwrap();
                prop_assert_eq!(output.len(), 3);
                for value in output.values() {
                    let text = match value {
                        Value::String(text) => text.clone(),
                        value => value.to_string(),
                    };
                    let as_string = (as_strings && data_type == "bigint") || (decimals && data_type.starts_with("decimal"));
                    prop_assert_eq!(value.is_string(), as_string && is_known);
                    // A number of 17 digits without a type is read as the double that it most likely is.
                    if !is_known && value_of(&number).1.len() <= 17 && number.contains('.') {
                        prop_assert_eq!(text.parse::<f64>().unwrap(), number.parse::<f64>().unwrap());
                    } else {
                        prop_assert_eq!(value_of(&text), value_of(&number), "{} {}", &data_type, &number);
                    }
                }
            }
            RowResult::Failed(error) => {
                prop_assert!(matches!(error.code().as_str(), "unsafe_integer" | "unsafe_decimal"), "{:?}", error);
                prop_assert!(data_type != "double" || !is_known);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    });
}
