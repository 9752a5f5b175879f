// A page view. Until somebody signs up in this browser nobody is known by it, and the row waits; then it is that person's.
const send = ({ events }) => events.map(row => ({ type: 'page', userId: row.user_id, name: row.page, timestamp: row.occurred_at }));
