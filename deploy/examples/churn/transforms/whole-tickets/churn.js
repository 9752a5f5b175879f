// What Iterable is told about a person whenever the model scores them anew. An array makes several operations, delivered in order.

// The retention list's id: the number in the address of its page in Iterable.
const RETENTION_LIST = 4207;
const AT_RISK = 0.7;

// The model's third run writes the score as text. Rows of earlier runs that still wait for their person's email have a number, so both
// are read; Iterable gets a number, as before. A text that is no number is still stopped.
function score(row) {
  const value = row.churn_risk_score;
  if (value === null) return null;
  const number = Number(value);
  if (!Number.isFinite(number)) throw new TypeError(`churn_risk_score is ${JSON.stringify(value)}, expected a number`);
  return number;
}

// The row before its change (`before_image: true`): someone who was at risk and no longer is leaves the list.
const wasAtRisk = row => Number(row._event.before?.churn_risk_score) > AT_RISK;

async function send(payload, headers) {
  return payload.events.map(row => {
    const update = {
      // The project identifies people by email; the user's id becomes a field of the profile.
      email: row.email,
      userId: row.user_id,
      dataFields: {
        churn_risk_score: score(row),
        account_tier: row.account_tier,
        churn_factors: row.feature_importance,
        model_encodings: row.encodings,
        // Iterable has whole tickets since the first run, and a field keeps its type.
        support_tickets: Math.round(row.support_tickets),
        // New in the third run.
        churn_reason: row.optional('churn_reason'),
        scored_at: row.scored_at,
      },
    };
    const list = { listId: RETENTION_LIST, email: row.email };
    // A membership waits until the update before it is effective: whoever joins starts a journey that reads these fields.
    if (score(row) > AT_RISK) return [update, { _operation: 'add_to_list', ...list }];
    if (wasAtRisk(row)) return [update, { _operation: 'remove_from_list', ...list }];
    return update;
  });
}
