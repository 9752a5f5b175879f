// Orders and abandoned carts at Iterable: a purchase is `trackPurchase`, which empties the person's cart; an abandoned cart is
// `updateCart`, and a custom event that starts a journey. The connector tells them apart by their fields: a purchase has a `total`.

const items = row => row.items.map(item => ({
  id: item.product_id,
  sku: item.sku,
  name: item.name,
  price: item.price,
  quantity: item.quantity,
  categories: item.categories,
}));

async function send(payload, headers) {
  return payload.events.map(row => {
    const user = { email: row.email };
    switch (row.event) {
      case 'order.purchased':
        // The order's id: Iterable overwrites a purchase that comes again under the same one.
        return { _key: 'purchase', id: row.order_id, user, items: items(row), total: row.total, createdAt: row.occurred_at, dataFields: { currency: row.currency } };
      case 'cart.abandon':
        return [
          { _key: 'cart', user, items: items(row) },
          {
            _key: 'event',
            email: row.email,
            eventName: 'cart.abandon',
            createdAt: row.occurred_at,
            // Iterable takes the type of a field from its first value, for good: 48.00 would make it a whole number, and 9.95 would be
            // refused from then on. Cents are always whole.
            dataFields: { total_cents: Math.round(row.total * 100), currency: row.currency, products: row.items.map(item => item.name) },
          },
        ];
      default:
        return null;
    }
  });
}
