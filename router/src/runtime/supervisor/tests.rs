//! What the end of a task means, and the order in which everything ends. Signals are tested in a child process, because they reach
//! every supervisor of a process.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;

use super::*;

const FAST: Policy = Policy {
    on_error: OnError::Restart(Restart {
        after: After::Any,
        min: Duration::from_millis(1),
        max: Duration::from_millis(2),
        recovered: Duration::from_secs(300),
        fences: None,
    }),
    drain: None,
    may_finish: false,
    phase: Phase::Work,
    transactional: false,
};

struct Process {
    // Kept, so that the runtime lives as long as the supervisor.
    _runtime: tokio::runtime::Runtime,
    supervisor: Supervisor,
    telemetry: Telemetry,
}

fn process() -> Process {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let telemetry = Telemetry::new().unwrap();
    let supervisor = Supervisor::new(runtime.handle().clone(), telemetry.clone(), GRACE);
    Process { _runtime: runtime, supervisor, telemetry }
}

fn broken(message: &str) -> TaskError {
    TaskError::fatal(code::KAFKA_FATAL, message.to_owned())
}

fn wait(stop: &Shutdown) {
    while !stop.wait(Duration::from_secs(60)) {}
}

#[test]
fn a_request_stops_threads_and_tasks_and_is_the_reason() {
    let Process { supervisor, telemetry, _runtime } = process();
    supervisor.thread("route", TaskKind::Stage, |stop| {
        wait(stop);
        Ok(())
    });
    supervisor.task("reload", TaskKind::Watcher, |stop| async move {
        stop.requested().await;
        Ok(())
    });
    supervisor.shutdown().request("the test is over");
    let reason = supervisor.run(|| {});
    assert_eq!(reason, ExitReason { cause: Cause::Requested("the test is over".into()), undrained: vec![] });
    assert_eq!(reason.exit_code(), 0);
    assert_eq!(telemetry.health().missing(), ["the process is shutting down"]);
    assert_eq!(telemetry.status_page()["task"]["route"]["state"], "ended");
}

#[test]
fn an_error_of_a_stage_ends_the_process_after_the_others_have_drained() {
    let Process { supervisor, _runtime, .. } = process();
    let (drained, seen) = mpsc::sync_channel(8);
    supervisor.thread("send", TaskKind::Stage, move |stop| {
        wait(stop);
        drained.send("send").unwrap();
        Ok(())
    });
    supervisor.thread("route", TaskKind::Stage, |_| Err(broken("fenced")));
    let reason = supervisor.run(|| {});
    assert_eq!(reason.cause, Cause::Failed { task: "route".into(), error: broken("fenced") });
    assert_eq!(reason.exit_code(), 1);
    assert_eq!(reason.to_string(), "route failed with kafka_fatal: fenced");
    assert_eq!(seen.try_recv(), Ok("send"));
}

#[test]
fn a_panic_ends_the_process_whatever_the_policy() {
    for kind in [TaskKind::Stage, TaskKind::Watcher, TaskKind::Server, TaskKind::Once, TaskKind::Foundation] {
        let Process { supervisor, _runtime, .. } = process();
        supervisor.thread("bad", kind, |_| panic!("index {} out of bounds", 7));
        assert_eq!(
            supervisor.run(|| {}).cause,
            Cause::Panicked { task: "bad".into(), message: "index 7 out of bounds".into() },
            "{kind:?} as a thread"
        );
        let Process { supervisor, _runtime, .. } = process();
        supervisor.task("bad", kind, |_| async { panic!("boom") });
        assert_eq!(
            supervisor.run(|| {}).cause,
            Cause::Panicked { task: "bad".into(), message: "boom".into() },
            "{kind:?} as a task"
        );
    }
}

#[test]
fn a_task_that_fails_is_started_again() {
    let Process { supervisor, telemetry, _runtime } = process();
    let (thread_runs, task_runs) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let shutdown = supervisor.shutdown();
    let (counted, stop) = (Arc::clone(&thread_runs), shutdown.clone());
    let counted_tasks = Arc::clone(&task_runs);
    supervisor.spawner.thread_with("source.ltv", TaskKind::Watcher, FAST, move |own| {
        if counted.fetch_add(1, Ordering::SeqCst) < 3 {
            return Err(broken("not yet"));
        }
        wait(own);
        Ok(())
    });
    supervisor.spawner.task_with("source.orders", TaskKind::Watcher, FAST, move |own| {
        let run = counted_tasks.fetch_add(1, Ordering::SeqCst);
        let stop = stop.clone();
        async move {
            if run < 3 {
                return Err(broken("not yet"));
            }
            stop.request("both recovered, or the first one is about to");
            own.requested().await;
            Ok(())
        }
    });
    assert_eq!(supervisor.run(|| {}).exit_code(), 0);
    assert_eq!(task_runs.load(Ordering::SeqCst), 4);
    assert!(thread_runs.load(Ordering::SeqCst) >= 1);
    let text = telemetry.metrics().render().unwrap();
    assert!(text.contains(r#"tailwater_task_restarts_total{task="source.orders"} 3"#), "{text}");
}

#[test]
fn pauses_double_up_to_the_longest_and_start_over_after_a_recovery() {
    let telemetry = Telemetry::new().unwrap();
    let policy = TaskKind::Watcher.policy();
    let mut keeper =
        Keeper { name: "ltv".into(), policy, stop: Shutdown::new(), telemetry, failures: 0, fenced: vec![] };
    let mut pause = |took| match keeper.next(Ok(Err(broken("away"))), took) {
        Next::Again(wait) => wait.as_secs(),
        Next::End(_) => panic!("not started again"),
    };
    let pauses: Vec<u64> = (0..8).map(|_| pause(Duration::ZERO)).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    for _ in 0..100 {
        assert_eq!(pause(Duration::ZERO), 60);
    }
    assert_eq!(pause(Duration::from_secs(300)), 1);
}

#[test]
fn an_error_while_stopping_is_no_reason_to_start_again() {
    let telemetry = Telemetry::new().unwrap();
    let stop = Shutdown::new();
    stop.request("test");
    let mut keeper =
        Keeper { name: "ltv".into(), policy: TaskKind::Watcher.policy(), stop, telemetry, failures: 0, fenced: vec![] };
    assert!(matches!(keeper.next(Ok(Err(broken("cut off"))), Duration::ZERO), Next::End(End::Finished)));
}

fn stage() -> Keeper {
    let telemetry = Telemetry::new().unwrap();
    let policy = TaskKind::Stage.policy();
    Keeper { name: "route.k".into(), policy, stop: Shutdown::new(), telemetry, failures: 0, fenced: vec![] }
}

#[test]
fn a_stage_starts_again_after_what_passes_by_itself_and_after_nothing_else() {
    let mut keeper = stage();
    let away = TaskError { recoverable: true, ..broken("the broker is away") };
    let Next::Again(wait) = keeper.next(Ok(Err(away)), Duration::ZERO) else { panic!("not started again") };
    assert_eq!(wait, Duration::from_millis(200));
    let text = keeper.telemetry.metrics().render().unwrap();
    assert!(text.contains(r#"result="aborted",stage="route.k"} 1"#), "{text}");
    assert!(matches!(keeper.next(Ok(Err(broken("no permission"))), Duration::ZERO), Next::End(End::Failed(_))));
}

#[test]
fn a_stage_whose_id_is_taken_again_and_again_ends_the_process() {
    let mut keeper = stage();
    let fenced = || TaskError { recoverable: true, ..TaskError::fatal(code::KAFKA_FENCED, "another epoch".to_owned()) };
    for _ in 0..5 {
        assert!(matches!(keeper.next(Ok(Err(fenced())), Duration::ZERO), Next::Again(_)));
    }
    assert!(matches!(keeper.next(Ok(Err(fenced())), Duration::ZERO), Next::End(End::Failed(_))));
}

#[test]
fn the_foundation_ends_after_the_servers_and_after_what_comes_last() {
    let Process { supervisor, _runtime, .. } = process();
    let (order, seen) = mpsc::sync_channel(8);
    for (name, kind) in [("broker", TaskKind::Foundation), ("admin", TaskKind::Server), ("send", TaskKind::Stage)] {
        let sender = order.clone();
        supervisor.thread(name, kind, move |stop| {
            wait(stop);
            sender.send(name).unwrap();
            Ok(())
        });
    }
    supervisor.shutdown().request("test");
    assert_eq!(supervisor.run(|| order.send("clean up").unwrap()).exit_code(), 0);
    assert_eq!(seen.try_iter().collect::<Vec<_>>(), ["send", "admin", "clean up", "broker"]);
}

#[test]
fn work_beside_a_thread_is_waited_for_and_its_panic_is_told() {
    let (result, waited) = beside("work", || 7, |over| over.recv().is_err());
    assert_eq!((result, waited), (Ok(7), true));
    let (result, ()) = beside("work", || panic!("index out of bounds"), |over| assert!(over.recv().is_err()));
    let result: Result<(), String> = result;
    assert_eq!(result.unwrap_err(), "it has panicked: index out of bounds");
}

#[test]
fn a_stage_that_ends_by_itself_is_a_failure() {
    let Process { supervisor, _runtime, .. } = process();
    supervisor.thread("resolve", TaskKind::Stage, |_| Ok(()));
    let Cause::Failed { task, error } = supervisor.run(|| {}).cause else { panic!("no failure") };
    assert_eq!((task.as_str(), error.message.as_str()), ("resolve", "it ended although nobody asked it to"));
}

#[test]
fn the_process_is_finished_when_everything_that_may_end_has_ended() {
    let Process { supervisor, _runtime, .. } = process();
    supervisor.task("server", TaskKind::Server, |stop| async move {
        stop.requested().await;
        Ok(())
    });
    supervisor.thread("first", TaskKind::Once, |_| Ok(()));
    supervisor.thread("second", TaskKind::Once, |_| Ok(()));
    let reason = supervisor.run(|| {});
    assert_eq!((reason.cause.clone(), reason.exit_code()), (Cause::Finished, 0));
}

#[test]
fn an_error_while_draining_is_not_lost() {
    let Process { supervisor, _runtime, .. } = process();
    supervisor.thread("send", TaskKind::Stage, |stop| {
        wait(stop);
        Err(broken("the last commit failed"))
    });
    supervisor.shutdown().request("test");
    let reason = supervisor.run(|| {});
    assert_eq!(reason.cause, Cause::Failed { task: "send".into(), error: broken("the last commit failed") });
    assert_eq!(reason.exit_code(), 1);
}

#[test]
fn servers_stop_after_everything_else_has_drained() {
    let Process { supervisor, _runtime, .. } = process();
    let (order, seen) = mpsc::sync_channel(8);
    let sender = order.clone();
    supervisor.task("admin", TaskKind::Server, move |stop| {
        let sender = sender.clone();
        async move {
            stop.requested().await;
            sender.send("admin").unwrap();
            Ok(())
        }
    });
    let shutdown = supervisor.shutdown();
    supervisor.thread("send", TaskKind::Stage, move |stop| {
        wait(stop);
        order.send("send").unwrap();
        Ok(())
    });
    shutdown.request("test");
    assert_eq!(supervisor.run(|| {}).exit_code(), 0);
    assert_eq!(seen.iter().collect::<Vec<_>>(), ["send", "admin"]);
}

#[test]
fn what_does_not_end_in_time_is_named_and_aborted() {
    let Process { supervisor, _runtime, .. } = process();
    let (aborted, gone) = mpsc::sync_channel::<()>(1);
    // A server has the shortest time, two seconds; nothing here waits for longer.
    supervisor.task("stuck", TaskKind::Server, move |_| {
        let alive = aborted.clone();
        async move {
            let _alive = alive;
            std::future::pending().await
        }
    });
    supervisor.shutdown().request("test");
    let reason = supervisor.run(|| {});
    assert_eq!(reason.undrained, ["stuck"]);
    assert_eq!(reason.exit_code(), 3);
    assert_eq!(reason.to_string(), "test; did not end in time: stuck");
    // Its sender goes when the future does.
    assert_eq!(gone.recv(), Err(mpsc::RecvError));
}

#[test]
fn an_error_is_told_with_its_causes_once() {
    #[derive(Debug, thiserror::Error)]
    #[error("could not read the table")]
    struct Outer(#[source] std::io::Error);
    let error = TaskError::new(code::DELTA_READ_FAILED, &Outer(std::io::Error::other("the disk is gone")));
    assert_eq!(error.to_string(), "could not read the table: the disk is gone");
}

// === signals, in a child process ===

const CHILD: &str = "TAILWATER_TEST_SIGNALS";

/// Runs in a child process only: sends itself as many signals as the variable says.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the exit code is what the parent looks at, and nothing is left to drain"
)]
fn child() {
    let Ok(signals) = std::env::var(CHILD) else { return };
    let Process { supervisor, _runtime, .. } = process();
    let shutdown = supervisor.shutdown();
    // Before the thread that raises: a signal that nobody listens to yet would end this process by itself.
    let _listener = signals::Listener::start(shutdown.clone()).unwrap();
    supervisor.thread("drains", TaskKind::Stage, move |stop| {
        signal_hook::low_level::raise(signal_hook::consts::SIGTERM).unwrap();
        wait(stop);
        if signals == "two" {
            signal_hook::low_level::raise(signal_hook::consts::SIGTERM).unwrap();
            // Never ends by itself: only the second signal ends the process.
            loop {
                std::thread::park();
            }
        }
        Ok(())
    });
    let reason = supervisor.run(|| {});
    assert_eq!(shutdown.reason().as_deref(), Some("SIGTERM was received"));
    std::process::exit(i32::from(reason.exit_code()) + 40);
}

fn child_with(signals: &str) -> Option<i32> {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "runtime::supervisor::tests::child", "--nocapture"])
        .env(CHILD, signals)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .code()
}

#[test]
fn the_first_signal_drains() {
    assert_eq!(child_with("one"), Some(40));
}

#[test]
fn the_second_signal_ends_at_once() {
    assert_eq!(child_with("two"), Some(128 + signal_hook::consts::SIGTERM));
}
