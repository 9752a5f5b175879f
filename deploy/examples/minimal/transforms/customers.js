// One output per row: what Klaviyo is told about it. null skips a row, an array makes several outputs.
async function send(payload, headers) {
  return payload.events.map(row => ({
    data: {
      type: 'profile',
      attributes: {
        email: row.email,
        properties: { customer_id: row.customer_id }
      }
    }
  }));
}
