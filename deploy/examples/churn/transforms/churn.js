// What Iterable is told about a person whenever the model scores them anew. An array makes several operations, delivered in order.

// The retention list's id: the number in the address of its page in Iterable.
const RETENTION_LIST = 4207;
const AT_RISK = 0.7;

// Iterable fixes a field's type when it is first written, for the whole project and for good. So another type is stopped here, before
// anything is sent: the route pauses, and goes on where it stopped once the transform says what to do.
function score(row) {
  const value = row.churn_risk_score;
  if (value !== null && typeof value !== 'number') {
    throw new TypeError(`churn_risk_score is a ${typeof value}, expected a number`);
  }
  return value;
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
        support_tickets: row.support_tickets,
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
