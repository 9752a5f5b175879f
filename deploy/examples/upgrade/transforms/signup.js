// Somebody signs up, or pays: the row that links a browser, an email address and a user id.
const EVENTS = { trial: 'trial_started', team: 'subscription_started' };

const send = ({ events }) => events.map(row => [
  { type: 'identify', userId: row.user_id, traits: { email: row.email, lifecycle: row.plan === 'trial' ? 'trial' : 'paid' } },
  { type: 'track', userId: row.user_id, event: EVENTS[row.plan] ?? 'plan_changed', properties: { plan: row.plan }, timestamp: row.occurred_at },
]);
