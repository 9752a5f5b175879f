//! Structs whose fields are known are as strict as the row (issue 10, A3).

use super::*;
use crate::RowErrorKind;

const ROW: &str = r#"{"id":"1","profile":{"level":3,"deep":{"x":1}},"items":[{"sku":"a","price":1.5},{"sku":"b"}],"by":{"k":{"n":7}},"none":null}"#;

fn columns() -> Schema {
    typed(&[
        ("id", "string"),
        ("profile", "struct<level:int,deep:struct<x:int,y:double>>"),
        ("items", "array<struct<sku:string,price:double>>"),
        ("by", "map<string,struct<n:int>>"),
        ("none", "struct<a:int>"),
    ])
}

fn strict(body: &str) -> RowResult {
    let pool = pool();
    let transform = load(&pool, &each(body));
    let mut batch = batch([ROW]);
    batch.schema = strict_rows(&columns());
    transform.run(&batch).results.remove(0)
}

#[test]
fn a_field_that_the_schema_does_not_have_is_a_missing_column() {
    for (body, path) in [
        ("row => ({x: row.profile.score})", "profile.score"),
        ("row => ({x: row.profile?.score ?? 0})", "profile.score"),
        ("({profile: {score = 1}}) => ({x: score})", "profile.score"),
        ("row => ({x: row.profile.deep.z})", "profile.deep.z"),
        ("row => ({x: row.items.map(item => item.cost)})", "items.cost"),
        ("row => ({x: row.by.k.m})", "by.k.m"),
        ("row => { try { return {x: row.items[1].cost}; } catch { return {x: 0}; } }", "items.cost"),
        ("row => ({x: row._event.data.profile.score})", "profile.score"),
        ("row => ({x: Object.values(row)[1].score})", "profile.score"),
        ("row => ({x: (struct => Object.create(struct).score)(row.profile)})", "profile.score"),
    ] {
        // Fields of a map's values are named like those of an array's items: the keys are data.
        let path = path.replace("by.k.m", "by.m");
        let result = strict(body);
        assert_eq!(failed(&result).kind, RowErrorKind::MissingColumn { column: path.clone() }, "{body}: {result:?}");
        assert_eq!(failed(&result).message, format!("the schema has no column '{path}'"));
    }
}

#[test]
fn only_the_row_that_reads_it_fails() {
    let pool = pool();
    let transform = load(&pool, &each("row => ({x: row.id === '2' ? row.profile.score : row.profile.level})"));
    let rows: Vec<String> = (1..4).map(|id| ROW.replace(r#""id":"1""#, &format!("\"id\":\"{id}\""))).collect();
    let mut batch = batch(rows.iter().map(String::as_str));
    batch.schema = strict_rows(&columns());
    let report = transform.run(&batch);
    assert_eq!(json(&report.results[0]), r#"{"x":3}"#);
    assert_eq!(failed(&report.results[1]).kind, RowErrorKind::MissingColumn { column: "profile.score".into() });
    assert_eq!(json(&report.results[2]), r#"{"x":3}"#);
}

#[test]
fn structs_stay_plain_data() {
    let body = "row => ({
      has: ['level' in row.profile, 'score' in row.profile, Object.hasOwn(row.profile, 'level')], keys: Object.keys(row.profile), spread: {...row.profile},
      text: JSON.stringify(row.profile), known: [row.items[1].price, row.profile.deep.y], is: [row.profile instanceof Object, row.profile.constructor === Object],
      named: `${row.profile}`, array: [Array.isArray(row.items), row.items.length, row.items.map(({sku}) => sku).join('')], none: row.none,
      entries: Object.entries(row.by), own: (({level, ...rest}) => rest)(row.profile), map: row.by.other?.n ?? 'none',
      optional: [row.optional('profile.level'), row.optional('profile.score') ?? 'none', row.optional('profile.deep.y'), row.optional('none.a') ?? 'none', row.optional('gone.x') ?? 'none'],
    })";
    let expected = r#"{"has":[true,false,true],"keys":["level","deep"],"spread":{"level":3,"deep":{"x":1}},"text":"{\"level\":3,\"deep\":{\"x\":1}}","known":[null,null],"is":[true,true],"named":"[object Object]","array":[true,2,"ab"],"none":null,"entries":[["k",{"n":7}]],"own":{"deep":{"x":1}},"map":"none","optional":[3,"none",null,"none","none"]}"#;
    assert_eq!(json(&strict(body)), expected);
    assert_eq!(json(&strict("row => row")), ROW);
    assert_eq!(json(&strict("row => row.profile")), r#"{"level":3,"deep":{"x":1}}"#);
    assert_eq!(
        json(&strict("row => { row.profile.score = 5; delete row.profile.deep; return row.profile; }")),
        r#"{"level":3,"score":5}"#
    );
}

#[test]
fn a_value_of_another_shape_than_its_type_is_left_as_it_is() {
    let pool = pool();
    let transform = load(&pool, &each("row => ({p: row.profile, i: row.items, t: typeof row.profile?.score})"));
    let mut batch = batch([
        r#"{"profile":"text","items":{"a":1}}"#,
        r#"{"profile":[1],"items":"x"}"#,
        r#"{"profile":5,"items":[1,null,"y",[2]]}"#,
    ]);
    batch.schema = strict_rows(&columns());
    assert_eq!(
        jsons(&transform.run(&batch)),
        [
            r#"{"p":"text","i":{"a":1},"t":"undefined"}"#,
            r#"{"p":[1],"i":"x","t":"undefined"}"#,
            r#"{"p":5,"i":[1,null,"y",[2]],"t":"undefined"}"#
        ]
    );
}

#[test]
fn an_overlaid_struct_is_strict_too() {
    let columns = typed(&[("contact", "struct<email:string>")]);
    let overlay = [("contact.email", Some("x@y"))];
    let pool = pool();
    let transform = load(&pool, &each("row => ({email: row.contact.email, phone: row.contact.phone})"));
    let mut batch = batch([]);
    batch.rows.push(Row { data: br#"{"contact":null}"#, overlay: &overlay, backdrop: &() });
    batch.schema = strict_rows(&columns);
    let report = transform.run(&batch);
    assert_eq!(failed(&report.results[0]).kind, RowErrorKind::MissingColumn { column: "contact.phone".into() });
}

// Two columns swapped their names; only the ids in the table show it.
#[test]
fn a_name_that_belongs_to_another_column_is_a_missing_column() {
    let columns = typed(&[
        ("churn", "double"),
        ("p", "struct<a:double,b:double>"),
        ("l", "array<struct<a:int>>"),
        ("c.d", "int"),
    ]);
    let names = ["churn", "p.a", "l.a", "c.d"].map(str::to_owned);
    let schema = Some(Arc::new(RowSchema::with_reassigned(&columns, &BTreeMap::new(), true, &names)));
    let pool = pool();
    let run = |body: &str| {
        let mut batch = batch([r#"{"churn":0.5,"p":{"a":1,"b":2},"l":[{"a":3}],"c.d":4}"#]);
        batch.schema.clone_from(&schema);
        load(&pool, &each(body)).run(&batch).results.remove(0)
    };
    for (body, path) in [
        ("row => ({x: row.churn})", "churn"),
        ("({churn = 1}) => ({x: churn})", "churn"),
        ("row => ({...row})", "churn"),
        ("row => ({x: row.p.a})", "p.a"),
        ("row => ({x: row.l.map(({a}) => a)})", "l.a"),
        ("row => ({x: row['c.d']})", "c.d"),
        ("row => ({x: row._event.data.churn})", "churn"),
        ("row => ({x: JSON.stringify(row.p)})", "p.a"),
        ("row => { try { row.churn; } catch {} return {}; }", "churn"),
    ] {
        let result = run(body);
        assert_eq!(failed(&result).kind, RowErrorKind::MissingColumn { column: path.into() }, "{body}: {result:?}");
    }
    let body = "row => ({b: row.p.b, has: 'churn' in row, read: [row.optional('churn'), row.optional('p.a'), row.optional('c.d')]})";
    assert_eq!(json(&run(body)), r#"{"b":2,"has":true,"read":[0.5,1,4]}"#);
    assert_eq!(json(&run("row => { row.churn = 7; return {x: row.churn}; }")), r#"{"x":7}"#);
}
