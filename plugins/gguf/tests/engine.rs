//! Many requests at once: whatever joins, leaves, waits, shares or is thrown out, answers are those given alone.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

mod support;

use std::ops::ControlFlow;
use std::sync::mpsc::{Sender, channel};
use std::thread::{Scope, ScopedJoinHandle};

use pajamas_plugin_api::{Cancel, GenerateRequest, Session, TokenEvent, TokenSink};
use serde_json::{Value, json};
use support::{Collected, exact, greedy, load, run, stats, tiny, together, until};

/// Requests of all lengths: prompts of 1 to 150 tokens, answers of 1 to 100.
fn mixed() -> Vec<GenerateRequest> {
    let prompt = |i: u32, len: u32| (0..len).map(|j| 260 + (i * 37 + j * (7 + i)) % 140).collect::<Vec<_>>();
    [(3, 100), (150, 5), (40, 40), (1, 70), (90, 1), (20, 20), (130, 60), (7, 90), (64, 33), (2, 2)]
        .into_iter()
        .enumerate()
        .map(|(i, (len, answer))| greedy(&prompt(i as u32, len), answer))
        .collect()
}

/// A context that takes the tiny model longer to fill than any test waits.
const LONG: u32 = 1 << 15;

/// An answer that goes on until it is cancelled, so that its slot is taken for sure.
struct Endless<'scope> {
    cancel: Cancel,
    thread: ScopedJoinHandle<'scope, Vec<u32>>,
}

impl<'scope> Endless<'scope> {
    /// Returns once the first token came.
    fn start<'env>(scope: &'scope Scope<'scope, 'env>, session: &'env dyn Session, prompt: &[u32]) -> Self {
        struct Tells(Sender<()>, Vec<u32>);
        impl TokenSink for Tells {
            fn token(&mut self, event: TokenEvent<'_>) -> ControlFlow<()> {
                self.1.push(event.id);
                let _ = self.0.send(());
                ControlFlow::Continue(())
            }
        }
        let (cancel, (sender, first)) = (Cancel::new(), channel());
        let (flag, mut request) = (cancel.clone(), greedy(prompt, 1));
        request.max_tokens = None;
        let thread = scope.spawn(move || {
            let mut sink = Tells(sender, Vec::new());
            session.generate(&request, &mut sink, &flag).unwrap();
            sink.1
        });
        first.recv().unwrap();
        Self { cancel, thread }
    }

    fn end(self) -> Vec<u32> {
        self.cancel.cancel();
        self.thread.join().unwrap()
    }
}

#[test]
fn answers_together_are_those_given_alone() {
    let (_folder, path) = tiny();
    let requests = mixed();
    let alone = exact(&path, json!({ "parallel": 1, "prompt_cache": "off" }));
    let expected: Vec<_> = requests.iter().map(|r| run(&*alone, r).0.ids).collect();
    for options in [
        json!({ "context_length": 256 }),
        json!({ "context_length": 256, "prompt_chunk": 16, "parallel": 3 }),
        json!({ "context_length": 256, "batch_size": 24, "micro_batch_size": 8 }),
        json!({ "context_length": 256, "cache_tokens": 768 }),
        json!({ "context_length": 256, "prompt_cache": "exact" }),
    ] {
        let session = exact(&path, options.clone());
        // Twice: the second time much is in the cache.
        assert_eq!(together(&*session, &requests), expected, "{options}");
        assert_eq!(together(&*session, &requests), expected, "{options}");
        let stats = until(&*session, |s| s.busy == 0);
        assert_eq!((stats.waiting, stats.cancelled), (0, 0));
        assert_eq!(stats.generated_tokens as usize, 2 * expected.iter().map(Vec::len).sum::<usize>());
        assert_eq!(stats.prompt_tokens, 2 * (3 + 150 + 40 + 1 + 90 + 20 + 130 + 7 + 64 + 2));
        assert!(stats.cache_tokens_used > 0 && stats.cache_tokens_used <= stats.cache_tokens_total);
    }
}

#[test]
fn who_does_not_fit_waits_and_is_not_wrong() {
    let (_folder, path) = tiny();
    let request =
        |i: u32| greedy(&(0..30 + i).map(|j| 270 + (i * 31 + j * 3) % 120).collect::<Vec<_>>(), 150);
    let requests: Vec<_> = (0..6).map(request).collect();
    let alone = exact(&path, json!({ "parallel": 1, "prompt_cache": "off" }));
    let expected: Vec<_> = requests.iter().map(|r| run(&*alone, r).0.ids).collect();
    // Room for one whole request and a part of another.
    let session = exact(&path, json!({ "context_length": 256, "cache_tokens": 256, "parallel": 4 }));
    for (got, expected) in together(&*session, &requests).iter().zip(&expected) {
        assert_eq!(got, expected);
    }
    let stats = stats(&*session);
    assert!(stats.preempted > 0, "{stats:?}");
    assert_eq!(stats.cache_tokens_total, 256);
    assert_eq!(
        stats.prompt_tokens,
        (0..6).map(|i| 30 + i).sum::<u64>(),
        "counted once, however often computed"
    );
}

#[test]
fn a_common_beginning_is_computed_once() {
    let (_folder, path) = tiny();
    let system: Vec<u32> = (0..80).map(|i| 260 + i * 13 % 140).collect();
    let ask = |tail: &[u32]| [&system[..], tail].concat();
    let alone = exact(&path, json!({ "parallel": 1, "prompt_cache": "off" }));
    let expected = run(&*alone, &greedy(&ask(&[300, 301, 302]), 40)).0.ids;
    let shared = |options: Value| {
        let session = exact(&path, options);
        std::thread::scope(|scope| {
            // Its slot is busy: the other one must take the beginning from it.
            let endless = Endless::start(scope, &*session, &ask(&[310]));
            let (got, summary) = run(&*session, &greedy(&ask(&[300, 301, 302]), 40));
            assert_eq!(got.ids, expected);
            endless.end();
            summary.usage.cached_tokens
        })
    };
    assert_eq!(shared(json!({ "parallel": 2 })), 80);
    assert_eq!(shared(json!({ "parallel": 2, "cache_tokens": 768 })), 80);
    assert_eq!(shared(json!({ "parallel": 2, "prompt_cache": "exact", "micro_batch_size": 32 })), 64);
    assert_eq!(shared(json!({ "parallel": 2, "prompt_cache": "off" })), 0);
}

#[test]
fn a_sharer_outlives_the_one_it_shared_with() {
    let (_folder, path) = tiny();
    let system: Vec<u32> = (0..80).map(|i| 260 + i * 13 % 140).collect();
    let second = [&system[..], &[300, 301]].concat();
    let alone = exact(&path, json!({ "parallel": 1, "prompt_cache": "off" }));
    let expected = run(&*alone, &greedy(&second, 100)).0.ids;
    for cache in [512, 1024] {
        let session = exact(&path, json!({ "parallel": 2, "cache_tokens": cache }));
        std::thread::scope(|scope| {
            let endless = Endless::start(scope, &*session, &[&system[..], &[310]].concat());
            let sharer = Endless::start(scope, &*session, &second);
            endless.end();
            // Takes the freed slot, and what was in it.
            let other: Vec<u32> = (0..90).map(|i| 399 - i).collect();
            run(&*session, &greedy(&other, 5));
            let got = sharer.end();
            let len = got.len().min(100);
            assert_eq!(got[..len], expected[..len]);
        });
        assert_eq!(run(&*session, &greedy(&second, 100)).0.ids, expected);
    }
}

/// Tells of the first token.
struct First(Option<(usize, Sender<usize>)>);

impl TokenSink for First {
    fn token(&mut self, _: TokenEvent<'_>) -> ControlFlow<()> {
        if let Some((arrival, sender)) = self.0.take() {
            sender.send(arrival).unwrap();
        }
        ControlFlow::Continue(())
    }
}

#[test]
fn waiting_requests_go_by_priority_then_by_arrival() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({ "parallel": 1, "context_length": LONG }));
    let session = &*session;
    let (sender, order) = channel();
    std::thread::scope(|scope| {
        let endless = Endless::start(scope, session, &[1, 300]);
        for (arrival, priority) in [0, 5, 0, -3, 5].into_iter().enumerate() {
            let mut request = greedy(&[1, 310], 500);
            request.priority = priority;
            let mut sink = First(Some((arrival, sender.clone())));
            scope.spawn(move || session.generate(&request, &mut sink, &Cancel::new()).unwrap());
            until(session, |s| s.waiting as usize == arrival + 1);
        }
        endless.end();
    });
    drop(sender);
    assert_eq!(order.iter().collect::<Vec<usize>>(), [1, 4, 0, 2, 3]);
}

#[test]
fn a_cancelled_request_frees_its_slot() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({ "parallel": 1, "context_length": LONG }));
    let session = &*session;
    std::thread::scope(|scope| {
        let endless = Endless::start(scope, session, &[1, 300]);
        assert_eq!(stats(session).slots, 1);
        // One that is cancelled while it waits was never computed.
        let cancel = Cancel::new();
        let flag = cancel.clone();
        let waiting = scope.spawn(move || {
            session.generate(&greedy(&[1, 320], 9), &mut Collected::default(), &flag).unwrap()
        });
        until(session, |s| s.waiting == 1);
        cancel.cancel();
        let summary = waiting.join().unwrap();
        assert_eq!((summary.usage.completion_tokens, summary.usage.prompt_tokens), (0, 2));
        assert!(endless.end().len() < LONG as usize - 10);
        assert_eq!(run(session, &greedy(&[1, 310], 5)).0.ids.len(), 5);
    });
    let stats = until(session, |s| s.busy == 0);
    assert_eq!((stats.waiting, stats.cancelled), (0, 2));
}

#[test]
fn a_cache_too_small_for_one_request_is_refused() {
    let (_folder, path) = tiny();
    let error =
        support::try_load(&path, json!({ "context_length": 256, "cache_tokens": 255 })).err().unwrap();
    assert_eq!(error.code, pajamas_plugin_api::codes::INVALID_OPTION);
    assert!(error.message.contains("255") && error.message.contains("256"), "{error}");
}
