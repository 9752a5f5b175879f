// Orders and abandoned carts as Klaviyo's e-commerce events: `Placed Order`, and `Ordered Product` for each of its items.

// A decimal is a number in a row, and products of such numbers are not exact: cents are.
const times = (price, quantity) => Math.round(price * 100) * quantity / 100;

const items = row => row.items.map(item => ({
  ProductID: item.product_id,
  SKU: item.sku,
  ProductName: item.name,
  Quantity: item.quantity,
  ItemPrice: item.price,
  RowTotal: times(item.price, item.quantity),
  Categories: item.categories,
}));

// `_key` names an output: a row that comes again with its items in another order is recognized.
function event(row, key, metric, value, properties) {
  return {
    _key: key,
    data: {
      type: 'event',
      attributes: {
        metric,
        profile: { data: { type: 'profile', attributes: { email: row.email } } },
        time: row.occurred_at,
        value,
        value_currency: row.currency,
        unique_id: `${row.event_id}:${key}`,
        properties,
      },
    },
  };
}

async function send(payload, headers) {
  return payload.events.map(row => {
    const all = items(row);
    const cart = { ItemNames: all.map(item => item.ProductName), Items: all };
    switch (row.event) {
      case 'order.purchased':
        return [
          event(row, 'order', 'Placed Order', row.total, { OrderId: row.order_id, ...cart }),
          ...all.map(item => event(row, item.ProductID, 'Ordered Product', item.RowTotal, { OrderId: row.order_id, ...item })),
        ];
      case 'cart.abandon':
        return event(row, 'cart', 'Abandoned Cart', row.total, cart);
      default:
        return null;
    }
  });
}
