//! Whatever a stage does ends in an error with a code, and the next run works.

use std::thread;
use std::time::Duration;

use super::*;

fn refusal(mode: &str, limits: &Limits) -> Error {
    let processor = misbehaving(mode);
    let error = run(&processor, &[], limits).unwrap_err();
    // The instance is gone with its run: the next is refused for the same reason, and another stage works.
    assert_eq!(run(&processor, &[], limits).unwrap_err().code(), error.code());
    assert!(run(&misbehaving("behave"), &[], &Limits::default()).is_ok());
    assert!(error.message().contains("stage test-misbehaving"), "{error}");
    error
}

fn soon() -> Limits {
    Limits { deadline: Duration::from_millis(30), ..Limits::default() }
}

#[test]
fn a_panic_is_told_with_its_message() {
    let error = refusal("panic", &Limits::default());
    assert_eq!(error.code(), "stage-trapped");
    assert!(error.message().contains("misbehaving panics on purpose"), "{error}");
}

#[test]
fn a_loop_ends_at_its_deadline() {
    assert_eq!(refusal("loop", &soon()).code(), "stage-deadline");
}

#[test]
fn a_loop_while_options_are_read_ends_too() {
    let stage = load(&engine(), "test-misbehaving").unwrap();
    assert_eq!(code(stage.create(&json!({ "mode": "loop-in-create" }), &[], &soon())), "stage-deadline");
}

#[test]
fn memory_is_capped() {
    let limits = Limits { memory: 64 << 20, ..Limits::default() };
    assert_eq!(refusal("eat-memory", &limits).code(), "stage-memory");
    let error = refusal("four-gigabytes", &Limits::default());
    assert_eq!(error.code(), "stage-memory");
    assert!(error.message().contains(&(512 << 20).to_string()), "the limit is named: {error}");
}

#[test]
fn the_stack_is_capped() {
    assert_eq!(refusal("recurse", &Limits::default()).code(), "stage-trapped");
}

#[test]
fn output_is_capped_in_bytes_and_in_number() {
    let limits = Limits { output: 50_000_000, ..Limits::default() };
    assert_eq!(refusal("too-much", &limits).code(), "stage-output-too-large");
    assert_eq!(refusal("too-many", &limits).code(), "stage-output-too-large");
    assert!(run(&misbehaving("too-much"), &[], &Limits::default()).is_ok(), "within a larger limit");
}

#[test]
fn lies_about_shapes_and_sizes_are_found() {
    for mode in ["lying-shape", "lying-image", "unannounced", "nothing"] {
        assert_eq!(refusal(mode, &Limits::default()).code(), "stage-output-invalid", "{mode}");
    }
}

#[test]
fn a_refusal_keeps_its_code_and_gets_the_stage_as_context() {
    let error = refusal("refuse", &Limits::default());
    let told = (error.code(), error.message(), error.how_to_fix());
    assert_eq!(told, ("will-not", "stage test-misbehaving: it does not want to", "ask nicely"));
}

#[test]
fn cancelling_stops_a_run() {
    let processor = misbehaving("loop");
    let cancel = Cancel::new();
    let limits = Limits { deadline: Duration::from_secs(600), ..Limits::default() };
    let refused = thread::scope(|scope| {
        let running = scope.spawn(|| processor.run([], &limits, &cancel));
        cancel.cancel();
        running.join().unwrap()
    });
    assert_eq!(code(refused), "cancelled");
}

#[test]
fn no_state_survives_a_run() {
    let processor = misbehaving("behave");
    for _ in 0..3 {
        let out = run(&processor, &[("text", Value::Text("run ".into()))], &Limits::default()).unwrap();
        assert_eq!(out.get("text"), Some(&Value::Text("run 1".into())), "every run is an instance's first");
    }
}

#[test]
fn many_threads_run_one_processor() {
    let processor = misbehaving("behave");
    thread::scope(|scope| {
        let runs: Vec<_> = (0..8)
            .map(|i| {
                let processor = &processor;
                scope.spawn(move || {
                    run(processor, &[("text", Value::Text(format!("{i}:")))], &Limits::default())
                })
            })
            .collect();
        for (i, joined) in runs.into_iter().enumerate() {
            let out = joined.join().unwrap().unwrap();
            assert_eq!(out.get("text"), Some(&Value::Text(format!("{i}:1"))));
        }
    });
}

#[test]
fn chatter_is_cut_short() {
    use std::sync::{Arc, Mutex};

    let lines: Arc<Mutex<Vec<(Level, usize)>>> = Arc::default();
    let log = {
        let lines = lines.clone();
        LogSink::new(move |line| lines.lock().unwrap().push((line.level, line.message.len())))
    };
    let engine = StageEngine::new(EngineConfig { log, ..EngineConfig::default() }).unwrap();
    let stage = load(&engine, "test-misbehaving").unwrap();
    let processor = stage.create(&json!({ "mode": "chatter" }), &[], &Limits::default()).unwrap();
    run(&processor, &[], &Limits::default()).unwrap();
    let lines = lines.lock().unwrap();
    assert_eq!(lines.len(), 65, "64 lines and one that says that more were dropped");
    assert!(lines.iter().all(|(_, bytes)| *bytes <= 1024));
    assert_eq!(lines[64].0, Level::Warn);
}

#[test]
fn inputs_are_checked_before_the_stage_runs() {
    let processor = misbehaving("loop");
    let wrong = run(&processor, &[("text", Value::Tokens(vec![1]))], &Limits::default());
    assert_eq!(code(wrong), "invalid-input");
    let letterbox = super::processor("letterbox", &Json::Null).unwrap();
    let error = run(&letterbox, &[("bytes", Value::Bytes(vec![]))], &Limits::default()).unwrap_err();
    assert_eq!(error.code(), "invalid-input");
    assert!(error.message().contains("`image` (image) is missing"), "{error}");
}
