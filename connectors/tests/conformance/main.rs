//! What every destination owes the send stage, whatever the vendor. Each kind is an adapter in a folder of its own; the suite in `suite`
//! runs every case over every one of them, against a server on this machine that behaves badly in all the ways that servers do.
//!
//! A new kind costs one folder and one line below. `acme` is a whole destination that exists only here: the shortest one there can be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

mod suite;

/// Declares the modules and the list of them, and the tests of the suite over each.
macro_rules! subjects {
    ($($name:ident,)*) => {
        $(mod $name;)*

        const SUBJECTS: &[fn() -> suite::Subject] = &[$($name::subject,)*];
    };
}

subjects! {
    acme,
    customerio,
    iterable,
    klaviyo,
}

macro_rules! cases {
    ($($case:ident,)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                suite::prepare();
                for subject in SUBJECTS {
                    let subject = subject();
                    eprintln!("{}", subject.kind.spec().kind);
                    suite::cases::$case(&subject).await;
                }
            }
        )*
    };
}

cases! {
    a_delivery_has_one_outcome_and_a_repeat_is_harmless,
    the_facts_about_a_kind_are_sound,
    whatever_a_transform_returns_is_an_operation_or_an_error,
    an_item_that_is_refused_harms_no_other,
    an_item_that_makes_the_vendor_fail_harms_no_other,
    every_status_has_an_outcome,
    a_wish_to_wait_is_obeyed_as_seconds_and_as_a_date,
    answers_that_make_no_sense_reject_nobody,
    an_error_page_is_told_briefly_and_without_the_credentials,
    a_call_that_is_dropped_can_be_made_again,
    nothing_is_sent_once_ownership_is_lost,
    a_server_that_hangs_or_hangs_up_is_tried_again,
    an_answer_without_end_is_given_up,
    a_redirect_is_not_followed,
    a_host_that_cannot_be_reached_is_tried_again,
    a_probe_tells_credentials_that_work_from_those_that_do_not,
}

#[test]
fn every_kind_of_the_registry_is_in_the_suite() {
    for kind in tailwater_connectors::registry::KINDS {
        let name = kind.spec().kind;
        let is_here = SUBJECTS.iter().any(|subject| subject().kind.spec().kind == name);
        // Kinds that wait for their adapter.
        assert!(is_here || ["http", "kafka"].contains(&name), "{name} has no adapter here");
    }
}
