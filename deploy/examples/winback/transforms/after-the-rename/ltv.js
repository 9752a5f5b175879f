// What Klaviyo is told about a customer whenever the model scores them anew. One output per row; null would skip the row.

// The winback list's id, from the address of its page in Klaviyo.
const WINBACK_LIST = 'WINBCK';
const AT_RISK_AFTER_DAYS = 90;

// The model's second run renamed `ltv_predicted` to `ltv_score`. Rows of the first run that still wait for their customer's email
// have the old name, so both are read: `optional` reads a column that a row's schema may not have.
function lifetimeValue(row) {
  return row.optional('ltv_score') ?? row.optional('ltv_predicted');
}

async function send(payload, headers) {
  return payload.events.map(row => {
    const summary = row.feature_summary;
    const profile = {
      type: 'profile',
      attributes: {
        email: row.email,
        external_id: row.customer_id,
        properties: {
          rfm_segment: row.rfm_segment,
          lifetime_value: lifetimeValue(row),
          last_purchase_date: row.last_purchase_date,
          orders_count: summary?.orders,
          average_order_value: summary?.avg_order_value,
          days_since_purchase: summary?.days_since_purchase,
        },
      },
    };
    // A champion who has not bought for a while is worth winning back. A profile is only ever added to a list, never taken off.
    if (row.rfm_segment === 'champions' && summary?.days_since_purchase > AT_RISK_AFTER_DAYS) {
      profile.relationships = { lists: { data: [{ type: 'list', id: WINBACK_LIST }] } };
    }
    return { data: profile };
  });
}
