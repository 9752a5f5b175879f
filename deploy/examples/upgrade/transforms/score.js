// What Customer.io is told about a person whenever the model scores them anew: attributes, and an event when the score crosses the line.
// The outputs are Segment's calls; Customer.io's own items (`{type: 'person', identifiers, action}`) are taken as well.

const LIKELY = 0.65;

// The row before its change (`before_image: true`), under whichever name the score had then.
function likelyBefore(row) {
  const before = row._event.before;
  return (before?.upgrade_likelihood_score ?? before?.upgrade_score) > LIKELY;
}

async function send(payload, headers) {
  return payload.events.map(row => {
    const score = row.upgrade_score;
    const outputs = [{
      type: 'identify',
      userId: row.user_id,
      traits: {
        upgrade_score: score,
        plan: row.plan,
        seats_used: row.usage?.seats_used,
        projects: row.usage?.projects,
        api_calls_30d: row.usage?.api_calls_30d,
      },
    }];
    // Once for each crossing, and not for each row above the line: the event starts a campaign.
    if (score > LIKELY && !likelyBefore(row)) {
      outputs.push({ type: 'track', userId: row.user_id, event: 'upgrade_likely', properties: { score, plan: row.plan } });
    }
    return outputs;
  });
}
