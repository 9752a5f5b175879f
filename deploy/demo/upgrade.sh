# The upgrade story: a B2B product's scores, visits and signups reach Customer.io as one person each. Sourced by demo.sh.
# shellcheck shell=bash disable=SC2154

play() {
  local people=600 visits=930 of_trials=720 of_users=750 changed=22 likely_first=64 likely_last=76
  vendor_is customerio Customer.io
  flow=upgrade_scores

  chapter "1. A lake of Delta tables, and a configuration for it"
  lay_out
  shown ls -F . lake lake/upgrade_scores
  note "lake/upgrade_scores holds 600 people that a model has scored, lake/visits 930 page views of browsers; lake/signups is empty."
  shown tailwater validate

  chapter "2. Kafka, a Customer.io, and Tailwater"
  start_everything

  chapter "3. Scores go out, visits wait for somebody"
  note "A score names a user id, which is what Customer.io needs. A visit names a browser only: it waits until somebody signs up in it."
  await "$people scores delivered" counted upgrade_scores delivered "$people"
  await "$visits visits held" counted visits held "$visits"
  await "$likely_first people are likely to upgrade: an event each" events_named upgrade_likely "$likely_first"
  note "The first person, as the vendor received them:"
  first_request POST /api/v2 '$_[0]{batch} ? $_[0]{batch}[0] : $_[0]'

  chapter "4. Anonymous, trial, paid: one person"
  shown lake/commit.sh signups-v1
  note "240 people sign up. Each row links a browser, an address and a user id, and the browser's visits are that person's."
  await "$of_trials visits delivered, $((visits - of_trials)) held" counted visits delivered "$of_trials" held "$((visits - of_trials))"
  shown lake/commit.sh signups-v2
  note "30 of them pay, in another browser, with their address in capitals: they are still the same people."
  await "$of_users visits delivered, $((visits - of_users)) held" counted visits delivered "$of_users" held "$((visits - of_users))"
  await "Customer.io has $people people" people_are "$people"
  no_merges || stop_story "people were merged at the vendor, which nobody asked for"
  printf ' ✓ nobody was merged at the vendor: no route allows it\n'

  chapter "5. The data science team strikes"
  note "The model's next run overwrites the table: upgrade_score is called upgrade_likelihood_score now."
  mark_log
  shown lake/commit.sh upgrade_scores-v2
  await "the route pauses" logged missing_column
  show_log missing_column
  counted upgrade_scores dead_lettered 0 || stop_story "something was dead-lettered although the route paused"
  note "Nothing was dead-lettered. The other fix that the message names: the source says which name the column had."
  shown perl -pi -e 's/# (aliases:)/$1/' tailwater.yaml
  await "$((people + changed)) delivered: of 600 rewritten rows, $changed really differed" counted upgrade_scores delivered "$((people + changed))"
  await "$likely_last people were likely to upgrade" events_named upgrade_likely "$likely_last"

  chapter "6. What became of everything"
  shown tailwater audit
  counted upgrade_scores unaccounted 0 dead_lettered 0 || stop_story "the audit does not add up"
}

# events_named NAME NUMBER: does Customer.io have so many events of this name?
events_named() {
  local count
  count=$(curl -fsS "$vendor/_simulator/events?limit=100000" | perl -MJSON::PP -0777 -ne '
    BEGIN { $name = shift @ARGV } print scalar grep { ($_->{name} // "") eq $name } @{decode_json($_)->{events}}' "$1")
  [ "$count" -eq "$2" ]
}

people_are() {
  [ "$(curl -fsS "$vendor/_simulator/stats" | perl -MJSON::PP -0777 -ne 'print decode_json($_)->{profiles}')" -eq "$1" ]
}

no_merges() {
  curl -fsS "$vendor/_simulator/requests?contains=%22merge%22&limit=1" | perl -MJSON::PP -0777 -ne 'exit(@{decode_json($_)->{requests}} > 0)'
}
