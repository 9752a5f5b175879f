# The churn story: a model's scores reach Iterable, and people at risk are on the retention list for as long as they are.
# Sourced by demo.sh.
# shellcheck shell=bash disable=SC2154

play() {
  local people=1000 linked=960 unlinked=40 moved=30 equal=4 mistyped=4
  local list=4207 on_list_first=90 on_list_last=85
  vendor_is iterable Iterable
  flow=churn_scores
  # Iterable asks for a minute before what depends on an update; nobody wants to watch that.
  export ITERABLE_SETTLE=3s

  chapter "1. A lake of Delta tables, and a configuration for it"
  lay_out
  shown ls -F . lake lake/churn_scores
  note "lake/churn_scores holds 1,000 people that a churn model has scored; lake/users is empty. Both were written by Spark."
  shown tailwater validate

  chapter "2. Kafka, an Iterable that keeps the vendor's limits, and Tailwater"
  note "Iterable wants 60 s between an update and what depends on it (\`settle\`); here it is $ITERABLE_SETTLE."
  start_everything --list "$list=Retention"

  chapter "3. Scores first, email addresses later"
  note "A score names a user's id, and this Iterable project identifies people by email: every row waits for one."
  await "$people rows are held" counted churn_scores held "$people"
  shown lake/commit.sh users-v1
  await "$linked delivered, $unlinked held" counted churn_scores delivered "$linked" held "$unlinked"
  note "The first person, as the vendor received them:"
  first_request POST /api/users '$_[0]{users} ? $_[0]{users}[0] : $_[0]'
  await "the retention list has $on_list_first members, all of them above 0.7" list_has "$list" "$on_list_first"
  held_against "$list" retention_list_v1

  chapter "4. The next day's scores"
  note "The model's second run moves $moved people: 14 of them fall below 0.7, 9 rise above it."
  shown lake/commit.sh churn_scores-v2
  await "$((linked + moved)) delivered" counted churn_scores delivered "$((linked + moved))" held "$unlinked"
  await "the retention list has $on_list_last members: 14 left it, 9 joined" list_has "$list" "$on_list_last"
  held_against "$list" retention_list_v2

  chapter "5. Another version of the model"
  note "The third run overwrites the table: the score is a text, support_tickets a double, and churn_reason is new."
  mark_log
  shown lake/commit.sh churn_scores-v3
  await "the route pauses, before anything is sent" logged transform_threw
  show_log transform_threw
  counted churn_scores dead_lettered 0 || stop_story "something was dead-lettered although the route paused"
  note "Nothing was dead-lettered. The corrected transform is put in place, and Tailwater reloads it:"
  shown cp transforms/after-the-third-run/churn.js transforms/churn.js
  await "$((linked + moved + linked - equal - mistyped)) delivered, $equal unchanged, $mistyped dead-lettered" \
    counted churn_scores delivered "$((linked + moved + linked - equal - mistyped))" skipped "$equal" dead_lettered "$mistyped"
  note "The list is what it was: memberships that say what the last one said are not sent again."
  held_against "$list" retention_list_v2
  note "Iterable fixed the type of support_tickets when it was first written. Four people have half a ticket now: they alone are refused."
  shown tailwater dlq list
  note "The transform sends whole tickets from here on, and runs again on the rows of these four:"
  mark_log
  shown cp transforms/whole-tickets/churn.js transforms/churn.js
  await "the transform is reloaded" logged reloaded
  shown tailwater dlq replay --all --code field_type_mismatch --transform
  await "all $linked people have the third run's scores" \
    counted churn_scores delivered "$((linked + moved + linked - equal))" skipped "$equal" dead_lettered 0 held "$((2 * unlinked))"

  chapter "6. What became of everything"
  shown tailwater audit
  counted churn_scores unaccounted 0 dead_lettered 0 || stop_story "the audit does not add up"
}

retention_list_v1() { emails_of retention_list.v1.ndjson 1; }
retention_list_v2() { emails_of retention_list.v2.ndjson 1; }
