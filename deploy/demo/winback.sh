# The winback story: a model's scores reach Klaviyo, and champions who stopped buying join a list. Sourced by demo.sh.
# shellcheck shell=bash disable=SC2154

play() {
  local customers=5000 linked=4900 unlinked=100 changed=12
  local list=WINBCK on_list_first=289 on_list_last=290 somebody
  vendor_is klaviyo Klaviyo
  flow=ltv_scores

  chapter "1. A lake of Delta tables, and a configuration for it"
  lay_out
  shown ls -F . lake lake/ltv_scores
  note "lake/ltv_scores holds 5,000 customers that an LTV model has scored; lake/orders is empty. Both were written by Spark."
  shown tailwater validate

  chapter "2. Kafka, a Klaviyo that keeps the vendor's limits, and Tailwater"
  start_everything --list "$list=Winback"

  chapter "3. Scores first, orders later"
  note "A score names a customer's id, and Klaviyo needs an email: every row waits for one."
  await "$customers rows are held" counted ltv_scores held "$customers"
  shown lake/commit.sh orders-v1
  note "5,200 orders link all customers but $unlinked to an email. Their rows go on, the others stay held."
  await "$linked delivered, $unlinked held" counted ltv_scores delivered "$linked" held "$unlinked"
  note "The first profile, as the vendor received it:"
  first_request POST /api/profile 'my $many = $_[0]{data}{attributes}{profiles}; $many ? $many->{data}[0] : $_[0]{data}'
  await "the winback list has $on_list_first members, all of them at-risk champions" list_has "$list" "$on_list_first"
  held_against "$list" winback_list_v1
  somebody=$(list_members "$list" | sed -n 1p)
  note "What happened to one of them:"
  shown tailwater trace "$somebody"

  chapter "4. The data science team strikes"
  note "The model's next run overwrites the table: ltv_predicted is called ltv_score now, and confidence_interval is new."
  mark_log
  shown lake/commit.sh ltv_scores-v2
  await "the route pauses" logged missing_column
  show_log missing_column
  counted ltv_scores dead_lettered 0 || stop_story "something was dead-lettered although the route paused"
  note "Nothing was dead-lettered. The corrected transform is put in place, and Tailwater reloads it:"
  shown cp transforms/after-the-rename/ltv.js transforms/ltv.js
  await "$((linked + changed)) delivered, $unlinked held: of 5,000 rewritten rows, $changed really differed" \
    counted ltv_scores delivered "$((linked + changed))" held "$unlinked"
  await "the winback list has $on_list_last members" list_has "$list" "$on_list_last"
  held_against "$list" winback_list_v2

  chapter "5. What became of everything"
  shown tailwater audit
  counted ltv_scores unaccounted 0 held "$unlinked" || stop_story "the audit does not add up"
}

# Who Spark says belongs on the list, up to a version of the table.
winback_list() { emails_of winback_list.ndjson '$_->{since_version} <= '"$1"; }
winback_list_v1() { winback_list 1; }
winback_list_v2() { winback_list 2; }
