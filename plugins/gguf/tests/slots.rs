//! A session that goes on with fewer slots, and with all of them again.
#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

mod support;

use std::sync::mpsc;

use pajamas_llama_cpp::gguf::TensorType;
use pajamas_plugin_api::{Cancel, EmbedRequest, Memory, Prompt, Session, Slots};
use serde_json::json;
use support::{Collected, Rows, TINY, greedy, load, run, stats, tiny, until, write_seeded};

fn prompt(begin: u32) -> Vec<u32> {
    (0..40).map(|i| begin + i).collect()
}

fn slots_of(session: &dyn Session) -> Slots {
    Slots::of(session).unwrap()
}

fn cache(memory: &[Memory]) -> u64 {
    memory.iter().map(|m| m.kv).sum()
}

#[test]
fn fewer_slots_hold_less_and_answer_alike() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({ "parallel": 4 }));
    let slots = slots_of(&*session);
    let info = slots.describe().unwrap();
    let all = session.usage();
    assert_eq!((info.slots, cache(&info.each) * 4), (4, cache(&all)));
    let (first, tokens) =
        (run(&*session, &greedy(&prompt(300), 16)).0.ids, stats(&*session).cache_tokens_total);

    assert_eq!(slots.resize(1).unwrap(), 1);
    assert_eq!((stats(&*session).slots, stats(&*session).cache_tokens_total), (1, tokens / 4));
    assert_eq!(cache(&session.usage()), cache(&all) / 4);
    assert_eq!(run(&*session, &greedy(&prompt(300), 16)).0.ids, first);
    // As many as before, none, and too many.
    assert_eq!([1, 0, 9].map(|wanted| slots.resize(wanted).unwrap()), [1, 1, 4]);
    assert_eq!((session.usage(), stats(&*session).cache_tokens_total), (all, tokens));
    assert_eq!(run(&*session, &greedy(&prompt(300), 16)).0.ids, first);
}

#[test]
fn what_is_in_work_or_waits_is_answered_as_if_nothing_had_been() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({ "parallel": 4 }));
    let slots = slots_of(&*session);
    let begins = [300, 320, 340];
    let alone = begins.map(|begin| run(&*session, &greedy(&prompt(begin), 200)).0.ids);
    let embed = || {
        let inputs = (0..40).map(|i| Prompt::Tokens(prompt(300 + i))).collect();
        let mut rows = Rows::default();
        let request = EmbedRequest { inputs, pooling: None, normalize: true };
        session.embed(&request, &mut rows, &Cancel::new()).unwrap();
        rows.values()
    };
    let vectors = embed();
    let before = stats(&*session).generated_tokens;
    std::thread::scope(|scope| {
        let session = &*session;
        let running = begins.map(|begin| scope.spawn(move || run(session, &greedy(&prompt(begin), 200))));
        let texts = scope.spawn(embed);
        until(session, |stats| stats.generated_tokens > before + 3);
        // On a fast machine some may have ended: never fewer than are in work.
        let busy = stats(session).busy;
        let now = slots.resize(1).unwrap();
        assert!((1..=4).contains(&now) && (now >= busy.min(1)), "{now} slots for {busy}");
        assert_eq!(slots.resize(4).unwrap(), 4);
        slots.resize(2).unwrap();
        for (running, alone) in running.into_iter().zip(&alone) {
            let (collected, summary) = running.join().unwrap();
            assert_eq!((&collected.ids, summary.usage.completion_tokens), (alone, 200));
        }
        assert_eq!(texts.join().unwrap(), vectors);
    });
    assert_eq!(stats(&*session).waiting, 0);
    assert_eq!(slots.resize(2).unwrap(), 2, "nothing is in work any more");
}

#[test]
fn more_requests_than_slots_wait_for_one_and_can_be_stopped() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({ "parallel": 3 }));
    let slots = slots_of(&*session);
    assert_eq!(slots.resize(1).unwrap(), 1);
    std::thread::scope(|scope| {
        let session = &*session;
        let cancels = [(); 3].map(|()| Cancel::new());
        let (ended, ends) = mpsc::channel();
        for cancel in cancels.clone() {
            let ended = ended.clone();
            scope.spawn(move || {
                let end = session.generate(&greedy(&prompt(300), 470), &mut Collected::default(), &cancel);
                ended.send(end.is_ok()).unwrap();
            });
        }
        until(session, |stats| stats.waiting == 2 || stats.generated_tokens >= 470);
        cancels.iter().for_each(Cancel::cancel);
        assert!((0..3).all(|_| ends.recv().unwrap()));
    });
    // Who ends is told before it is counted.
    until(&*session, |stats| (stats.busy, stats.waiting) == (0, 0));
}

#[test]
fn a_draft_model_goes_along() {
    let (folder, path) = tiny();
    let draft = folder.path().join("draft.gguf");
    write_seeded(&draft, TINY, TensorType::F32, 3);
    let options = json!({ "parallel": 2, "draft": { "path": draft, "max": 4, "min_probability": 0.0 } });
    let session = load(&path, options);
    let (all, first) = (session.usage(), run(&*session, &greedy(&prompt(300), 16)).0.ids);
    let slots = slots_of(&*session);
    assert_eq!(slots.resize(1).unwrap(), 1);
    assert_eq!(cache(&session.usage()), cache(&all) / 2);
    let drafted = stats(&*session).drafted;
    assert_eq!(run(&*session, &greedy(&prompt(300), 16)).0.ids, first);
    assert!(stats(&*session).drafted > drafted, "it drafts again");
}

#[test]
fn one_that_would_not_hold_less_does_not_offer_it() {
    let (_folder, path) = tiny();
    for options in [
        json!({ "parallel": 1 }),
        json!({ "parallel": 4, "cache_tokens": 512, "context_length": 512 }),
        json!({ "vocab_only": true }),
    ] {
        assert!(Slots::of(&*load(&path, options.clone())).is_none(), "{options}");
    }
    // Asleep it holds none, and wakes with all.
    let session = load(&path, json!({ "parallel": 2 }));
    let (slots, sleep) = (slots_of(&*session), pajamas_plugin_api::Sleep::of(&*session).unwrap());
    let all = session.usage();
    assert_eq!(slots.resize(1).unwrap(), 1);
    assert!(sleep.sleep().unwrap());
    assert_eq!(slots.resize(1).unwrap(), 2);
    sleep.wake().unwrap();
    assert_eq!((session.usage(), stats(&*session).slots), (all, 2));
    drop(session);
    assert_eq!(slots.resize(1).unwrap_err().code, "session-poisoned");
}
