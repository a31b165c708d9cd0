//! A session that sleeps gives back all but its weights, and wakes as it was.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

mod support;

use pajamas_llama_cpp::gguf::TensorType;
use pajamas_plugin_api::{Cancel, EmbedRequest, Memory, Prompt, Sampling, Session, Sleep};
use serde_json::json;
use support::{Collected, Rows, TINY, greedy, load, run, stats, tiny, until, write_seeded};

fn prompt() -> Vec<u32> {
    (0..40).map(|i| 300 + i).collect()
}

fn sleep_of(session: &dyn Session) -> Sleep {
    Sleep::of(session).unwrap()
}

fn total(memory: &[Memory]) -> u64 {
    memory.iter().map(Memory::total).sum()
}

#[test]
fn it_wakes_with_the_same_answers_and_an_empty_cache() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({ "prompt_cache": "prefix" }));
    let mut drawn = greedy(&prompt(), 16);
    drawn.sampling = Sampling { seed: Some(7), temperature: 1.0, ..Sampling::default() };
    let say = || [&greedy(&prompt(), 16), &drawn].map(|request| run(&*session, request).0.ids);
    let embed = || {
        let inputs = vec![Prompt::Tokens(prompt())];
        let mut rows = Rows::default();
        let request = EmbedRequest { inputs, pooling: None, normalize: true };
        session.embed(&request, &mut rows, &Cancel::new()).unwrap();
        rows.values()
    };
    let (awake, signature, vector) = (session.usage(), session.signature(), embed());
    let first = say();
    // The cache is there, and counts.
    let (_, again) = run(&*session, &greedy(&prompt(), 16));
    assert!(again.usage.cached_tokens > 0, "{again:?}");
    let before = stats(&*session);

    let sleep = sleep_of(&*session);
    assert!(sleep.sleep().unwrap() && sleep.sleep().unwrap());
    let asleep = session.usage();
    assert!(asleep.iter().all(|m| m.kv == 0) && asleep[0].weights == awake[0].weights, "{asleep:?}");
    assert!(total(&asleep) < total(&awake) && asleep == sleep.estimate().unwrap());
    let numbers = stats(&*session);
    assert_eq!((numbers.cache_tokens_total, numbers.cache_tokens_used), (0, 0));
    // What was counted stays: three answers, the last of which the engine may count a moment after it was given.
    assert_eq!(numbers.generated_tokens, 3 * 16);
    // What needs no context works asleep, and wakes nobody.
    assert_eq!(session.signature(), signature);
    assert!(!session.tokenize(&Prompt::text("a")).unwrap().is_empty());
    assert_eq!(session.usage(), asleep);

    sleep.wake().unwrap();
    sleep.wake().unwrap();
    assert_eq!((session.usage(), stats(&*session).cache_tokens_total), (awake, before.cache_tokens_total));
    let (_, fresh) = run(&*session, &greedy(&prompt(), 16));
    assert_eq!(fresh.usage.cached_tokens, 0);
    assert_eq!((say(), embed()), (first, vector));
}

#[test]
fn a_request_that_comes_all_the_same_wakes_it() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({}));
    let awake = session.usage();
    let first = run(&*session, &greedy(&prompt(), 8)).0.ids;
    assert!(sleep_of(&*session).sleep().unwrap());
    assert_eq!(run(&*session, &greedy(&prompt(), 8)).0.ids, first);
    assert_eq!(session.usage(), awake);
}

#[test]
fn it_does_not_sleep_while_it_works() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({}));
    let sleep = sleep_of(&*session);
    std::thread::scope(|scope| {
        let cancel = Cancel::new();
        let stop = cancel.clone();
        let session = &*session;
        let long = scope
            .spawn(move || session.generate(&greedy(&prompt(), 470), &mut Collected::default(), &cancel));
        until(session, |stats| stats.generated_tokens > 0);
        let refused = !sleep.sleep().unwrap();
        // It may have ended by itself on a fast machine: then it may well sleep.
        let worked = stats(session).busy > 0;
        stop.cancel();
        let _ = long.join().unwrap().unwrap();
        assert!(refused || !worked);
        assert!(sleep.sleep().unwrap(), "nothing is in work any more");
    });
}

#[test]
fn a_draft_model_sleeps_and_wakes_with_it() {
    let (folder, path) = tiny();
    let draft = folder.path().join("draft.gguf");
    write_seeded(&draft, TINY, TensorType::F32, 3);
    let session = load(&path, json!({ "draft": { "path": draft, "max": 4, "min_probability": 0.0 } }));
    let first = run(&*session, &greedy(&prompt(), 16)).0.ids;
    let (awake, drafted) = (session.usage(), stats(&*session).drafted);
    assert!(drafted > 0);
    let sleep = sleep_of(&*session);
    assert!(sleep.sleep().unwrap());
    assert!(session.usage()[0].kv == 0 && session.usage()[0].weights == awake[0].weights);
    sleep.wake().unwrap();
    assert_eq!(session.usage(), awake);
    assert_eq!(run(&*session, &greedy(&prompt(), 16)).0.ids, first);
    assert!(stats(&*session).drafted > drafted, "it drafts again");
}

#[test]
fn a_session_is_dropped_asleep_and_its_bed_outlives_it() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({}));
    let sleep = sleep_of(&*session);
    assert!(sleep.sleep().unwrap());
    drop(session);
    assert_eq!(sleep.wake().unwrap_err().code, "session-poisoned");
    // A vocabulary alone has nothing to give back.
    assert!(Sleep::of(&*load(&path, json!({ "vocab_only": true }))).is_none());
}
