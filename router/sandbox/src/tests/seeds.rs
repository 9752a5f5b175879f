//! The transforms that the project began with, word for word, and what has to come out (issue 3).

use super::*;
use crate::RowErrorKind;

#[test]
fn klaviyo_profile() {
    let source = "async function send(payload, headers) {
  return payload.events.map(row => ({data: {type: 'profile', attributes: {email: row.email, properties: {rfm_segment: row.rfm_segment, lifetime_value: parseFloat(row.lifetime_value),
    days_since_purchase: row.days_since_purchase}}}}))
}";
    let pool = pool();
    let transform = load(&pool, source);
    let mut batch = batch([
        r#"{"email":"ada@example.com","rfm_segment":"champions","lifetime_value":"2840.50","days_since_purchase":12}"#,
    ]);
    batch.schema = schema(&["email", "rfm_segment", "lifetime_value", "days_since_purchase"]);
    assert_eq!(
        jsons(&transform.run(&batch)),
        [
            r#"{"data":{"type":"profile","attributes":{"email":"ada@example.com","properties":{"rfm_segment":"champions","lifetime_value":2840.5,"days_since_purchase":12}}}}"#
        ]
    );
}

#[test]
fn customerio_identify() {
    let source = "async function send(payload, headers) {
  return payload.events.map(row => ({type: 'identify', userId: row.user_id, traits: {email: row.email, churn_risk_score: row.churn_risk_score, account_tier: row.account_tier, last_active_date: row.last_active_date}}))
}";
    let rows = [
        r#"{"user_id":"u-7","email":"ada@example.com","churn_risk_score":0.83,"account_tier":"pro","last_active_date":"2026-03-15"}"#,
    ];
    assert_eq!(
        json(&run(source, rows)[0]),
        r#"{"type":"identify","userId":"u-7","traits":{"email":"ada@example.com","churn_risk_score":0.83,"account_tier":"pro","last_active_date":"2026-03-15"}}"#
    );
}

#[test]
fn iterable_user() {
    let source = "async function send(payload, headers) {
  return payload.events.map(row => ({email: row.email, userId: row.user_id, dataFields: {churn_risk_score: row.churn_risk_score, account_tier: row.account_tier, last_active_date: new Date(row.last_active_date).toISOString()}}))
}";
    let rows = [
        r#"{"user_id":"u-7","email":"ada@example.com","churn_risk_score":0.83,"account_tier":"pro","last_active_date":"2026-03-15"}"#,
    ];
    assert_eq!(
        json(&run(source, rows)[0]),
        r#"{"email":"ada@example.com","userId":"u-7","dataFields":{"churn_risk_score":0.83,"account_tier":"pro","last_active_date":"2026-03-15T00:00:00.000Z"}}"#
    );
}

#[test]
fn a_column_that_is_gone_fails_well() {
    let source = "async function send(payload, headers) {
  return payload.events.map(row => ({
    email: row.email,
    score: row.churn_risk_score,
  }))
}";
    let pool = pool();
    let transform = load(&pool, source);
    let mut batch = batch([r#"{"email":"ada@example.com","upgrade_score":0.4}"#]);
    batch.schema = schema(&["email", "upgrade_score"]);
    let report = transform.run(&batch);
    let error = failed(&report.results[0]);
    assert_eq!(error.kind, RowErrorKind::MissingColumn { column: "churn_risk_score".into() });
    assert_eq!(error.code().as_str(), "missing_column");
    assert_eq!((error.file.as_str(), error.line, error.column), ("transforms/t.js", Some(4), Some(16)));
    assert_eq!(error.message, "the schema has no column 'churn_risk_score'");
}
