//! Generation on a tiny model with random weights: what holds for any model.

mod support;

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pajamas_llama_cpp::gguf::TensorType;
use pajamas_plugin_api::{
    Cancel, FinishReason, GenerateRequest, Prompt, Session, TokenEvent, TokenSink, codes,
};
use serde_json::json;
use support::{Collected, TINY, describe, greedy, load, run, tiny, vocabulary, write};

const PROMPT: [u32; 5] = [1, 300, 301, 302, 303];

fn sampled(seed: u64) -> GenerateRequest {
    let mut request = greedy(&PROMPT, 40);
    request.sampling.temperature = 1.5;
    request.sampling.seed = Some(seed);
    request
}

#[test]
fn limits_end_with_length_and_count() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({ "context_length": 20 }));
    let (got, summary) = run(&*session, &greedy(&PROMPT, 7));
    assert_eq!((got.ids.len(), summary.finish_reason), (7, FinishReason::Length));
    assert_eq!((summary.usage.prompt_tokens, summary.usage.completion_tokens), (5, 7));
    // Without a limit, the context is one.
    let mut request = greedy(&PROMPT, 0);
    request.max_tokens = None;
    let (got, summary) = run(&*session, &request);
    assert_eq!((got.ids.len(), summary.finish_reason), (15, FinishReason::Length));
}

#[test]
fn what_does_not_fit_is_refused_with_counts() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({ "context_length": 20 }));
    let refuse = |request: &GenerateRequest| {
        session.generate(request, &mut Collected::default(), &Cancel::new()).unwrap_err()
    };
    let error = refuse(&greedy(&PROMPT, 16));
    assert_eq!(error.code, codes::CONTEXT_LENGTH_EXCEEDED);
    for count in ["5 prompt", "16", "20"] {
        assert!(error.message.contains(count), "{error}");
    }
    let mut request = greedy(&[300; 20], 1);
    request.max_tokens = None;
    assert_eq!(refuse(&request).code, codes::CONTEXT_LENGTH_EXCEEDED);
    assert_eq!(refuse(&greedy(&[], 4)).code, codes::INVALID_INPUT);
    assert_eq!(refuse(&greedy(&[400], 4)).code, codes::INVALID_INPUT);
    assert_eq!(refuse(&greedy(&PROMPT, 0)).code, codes::INVALID_INPUT);
    let mut request = greedy(&PROMPT, 4);
    request.options.insert("grammar".into(), json!("x"));
    assert_eq!(refuse(&request).code, codes::INVALID_OPTION);
    for spoil in [
        (|r: &mut GenerateRequest| r.sampling.temperature = f32::NAN) as fn(&mut GenerateRequest),
        |r| r.sampling.top_p = 1.5,
        |r| r.sampling.repeat_penalty = 0.0,
        |r| r.sampling.penalty_last_n = -2,
        |r| r.sampling.logit_bias = vec![(4000, 1.0)],
    ] {
        let mut request = greedy(&PROMPT, 4);
        spoil(&mut request);
        assert_eq!(refuse(&request).code, codes::INVALID_INPUT);
    }
}

#[test]
fn stop_strings_may_span_tokens_and_are_not_shown() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({}));
    let (whole, _) = run(&*session, &greedy(&PROMPT, 30));
    // From the middle of one token's text to the middle of the next.
    let boundary: usize = whole.texts[..10].iter().map(String::len).sum();
    let start = whole.text[..boundary].char_indices().rev().nth(1).unwrap().0;
    let end = boundary + whole.text[boundary..].char_indices().nth(2).unwrap().0;
    let stop = whole.text[start..end].to_owned();
    let mut request = greedy(&PROMPT, 30);
    request.stop = vec!["never this".into(), stop.clone()];
    let (got, summary) = run(&*session, &request);
    assert_eq!(got.text, whole.text[..whole.text.find(&stop).unwrap()]);
    assert_eq!(summary.finish_reason, FinishReason::Stop);
    assert_eq!(summary.stop_string, Some(stop));
}

#[test]
fn seeds_repeat_and_differ() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({}));
    let first = run(&*session, &sampled(1)).0.ids;
    assert_ne!(first, run(&*session, &sampled(2)).0.ids);
    assert_eq!(first, run(&*session, &sampled(1)).0.ids);
}

#[test]
fn a_reused_prompt_changes_nothing_but_the_work() {
    let (_folder, path) = tiny();
    let options = json!({ "batch_size": 32, "micro_batch_size": 16, "prompt_cache": "exact" });
    let long: Vec<u32> = (0..75).map(|i| 260 + i).collect();
    let mut longer = long.clone();
    longer.extend([270, 280, 290]);
    let fresh = |prompt: &[u32]| run(&*load(&path, options.clone()), &greedy(prompt, 30)).0.ids;
    let session = load(&path, options.clone());
    let (first, summary) = run(&*session, &greedy(&long, 30));
    assert_eq!(summary.usage.cached_tokens, 0);
    let (second, summary) = run(&*session, &greedy(&longer, 30));
    assert_eq!(summary.usage.cached_tokens, 64);
    let (third, summary) = run(&*session, &greedy(&long, 30));
    assert_eq!(summary.usage.cached_tokens, 64);
    assert_eq!(first.ids, third.ids);
    assert_eq!(first.ids, fresh(&long));
    assert_eq!(second.ids, fresh(&longer));
    let off = load(&path, json!({ "micro_batch_size": 16, "prompt_cache": "off" }));
    run(&*off, &greedy(&long, 3));
    assert_eq!(run(&*off, &greedy(&long, 3)).1.usage.cached_tokens, 0);
    let prefix = load(&path, json!({ "prompt_cache": "prefix" }));
    run(&*prefix, &greedy(&long, 3));
    assert_eq!(run(&*prefix, &greedy(&longer, 3)).1.usage.cached_tokens, 75);
}

#[test]
fn parallel_requests_equal_serial_ones() {
    let (_folder, path) = tiny();
    let serial = load(&path, json!({}));
    let prompts: Vec<Vec<u32>> = (0..6).map(|i| vec![1, 300 + i, 310 + 2 * i, 320]).collect();
    let expected: Vec<Vec<u32>> = prompts.iter().map(|p| run(&*serial, &greedy(p, 40)).0.ids).collect();
    // Fewer slots than requests: some of them wait.
    let parallel = load(&path, json!({ "parallel": 4, "context_length": 64 }));
    let got: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            prompts.iter().map(|p| scope.spawn(|| run(&*parallel, &greedy(p, 40)).0.ids)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(got, expected);
}

#[test]
fn a_broken_sink_ends_the_request() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({}));
    let mut sink = Collected { stop_after: Some(3), ..Collected::default() };
    let summary = session.generate(&greedy(&PROMPT, 400), &mut sink, &Cancel::new()).unwrap();
    assert_eq!((sink.ids.len(), summary.finish_reason), (3, FinishReason::Cancelled));
    assert_eq!(summary.usage.completion_tokens, 3);
}

#[test]
fn cancel_ends_the_request() {
    struct CancelAt(usize, Cancel);
    impl TokenSink for CancelAt {
        fn token(&mut self, _: TokenEvent<'_>) -> ControlFlow<()> {
            self.0 -= 1;
            if self.0 == 0 {
                self.1.cancel();
            }
            assert!(self.0 < 100, "called after the cancel");
            ControlFlow::Continue(())
        }
    }
    let (_folder, path) = tiny();
    let session = load(&path, json!({}));
    let cancel = Cancel::new();
    let mut sink = CancelAt(4, cancel.clone());
    let summary = session.generate(&greedy(&PROMPT, 400), &mut sink, &cancel).unwrap();
    assert_eq!((summary.finish_reason, summary.usage.completion_tokens), (FinishReason::Cancelled, 4));
    // Cancelled before it began: nothing is computed.
    let (mut sink, summary) = (Collected::default(), Cancel::new());
    summary.cancel();
    let summary = session.generate(&greedy(&PROMPT, 4), &mut sink, &summary).unwrap();
    assert_eq!((sink.ids.len(), summary.finish_reason), (0, FinishReason::Cancelled));
}

#[test]
fn a_panicking_caller_frees_its_slot() {
    struct Panics;
    impl TokenSink for Panics {
        fn token(&mut self, _: TokenEvent<'_>) -> ControlFlow<()> {
            panic!("on purpose")
        }
    }
    let (_folder, path) = tiny();
    let session = load(&path, json!({}));
    let request = greedy(&PROMPT, 400);
    let attempt = AssertUnwindSafe(|| session.generate(&request, &mut Panics, &Cancel::new()));
    assert!(catch_unwind(attempt).is_err());
    assert_eq!(run(&*session, &greedy(&PROMPT, 5)).0.ids.len(), 5);
}

#[test]
fn logprobs_are_those_of_the_model() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({}));
    let (plain, _) = run(&*session, &greedy(&PROMPT, 6));
    assert!(plain.logprobs.iter().all(|p| p.is_nan()) && plain.extras.iter().all(String::is_empty));
    let mut request = greedy(&PROMPT, 6);
    request.logprobs = Some(3);
    let (got, _) = run(&*session, &request);
    assert_eq!(got.ids, plain.ids);
    for ((id, logprob), extras) in got.ids.iter().zip(&got.logprobs).zip(&got.extras) {
        let extras: serde_json::Value = serde_json::from_str(extras).unwrap();
        let top = extras["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        // Greedy takes the most likely one.
        assert_eq!(top[0]["id"], *id);
        assert!((top[0]["logprob"].as_f64().unwrap() as f32 - logprob).abs() < 1e-5 && *logprob <= 0.0);
    }
}

#[test]
fn sampling_parameters_have_their_effect() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({}));
    let plain = run(&*session, &greedy(&PROMPT, 12)).0.ids;
    let mut request = greedy(&PROMPT, 12);
    request.sampling.logit_bias = vec![(plain[0], f32::NEG_INFINITY)];
    assert!(!run(&*session, &request).0.ids.contains(&plain[0]));
    let mut request = greedy(&PROMPT, 12);
    request.sampling.logit_bias = vec![(333, 1e4)];
    assert_eq!(run(&*session, &request).0.ids, [333; 12]);
    // A penalty larger than any logit: no token twice.
    request.sampling.presence_penalty = 1e6;
    let ids = run(&*session, &request).0.ids;
    assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 12);
    // One candidate is the greedy one, however hot.
    for narrow in [
        (|r: &mut GenerateRequest| r.sampling.top_k = 1) as fn(&mut GenerateRequest),
        |r| r.sampling.top_p = 1e-6,
        |r| r.sampling.min_p = 1.0,
    ] {
        let mut request = sampled(3);
        request.max_tokens = Some(12);
        narrow(&mut request);
        assert_eq!(run(&*session, &request).0.ids, plain);
    }
}

#[test]
fn end_tokens_end_unless_ignored() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({}));
    let mut request = greedy(&PROMPT, 12);
    request.sampling.logit_bias = vec![(2, 1e4)];
    assert_eq!(run(&*session, &request).0.ids, [2; 12]);
    request.ignore_eos = false;
    let (got, summary) = run(&*session, &request);
    assert_eq!((got.ids.len(), summary.finish_reason), (0, FinishReason::Stop));
    assert_eq!(summary.usage.completion_tokens, 0);
}

#[test]
fn characters_arrive_whole() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({}));
    // The byte tokens of a llama (F0 9F A6 99), forced one after the other by asking for one token at a time.
    let bytes = [0xF0u32, 0x9F, 0xA6, 0x99].map(|b| 3 + b);
    assert_eq!(session.detokenize(&bytes).unwrap(), "🦙");
    let mut request = greedy(&PROMPT, 4);
    request.sampling.logit_bias = vec![(bytes[0], 1e4)];
    let (got, _) = run(&*session, &request);
    // Four beginnings of a character and no end: held back, then shown as what they are.
    assert_eq!(got.texts.last().unwrap().chars().last(), Some('\u{fffd}'));
    assert!(got.texts.iter().all(|t| !t.contains(|c: char| c != '\u{fffd}')));
}

#[test]
fn cache_types_and_attention_change_little() {
    let (_folder, path) = tiny();
    let prompt = [1, 300, 310, 320];
    let expected =
        run(&*load(&path, json!({ "kv_type_k": "f32", "kv_type_v": "f32" })), &greedy(&prompt, 8)).0;
    for options in [
        json!({ "kv_type_k": "f16", "flash_attention": "on" }),
        json!({ "flash_attention": "off" }),
        json!({ "mmap": false }),
        json!({ "threads": 2, "threads_batch": 1 }),
    ] {
        let got = run(&*load(&path, options.clone()), &greedy(&prompt, 8)).0;
        assert_eq!(got.ids, expected.ids, "{options}");
    }
    // Heads of 16 are no whole block of q8_0: the reason is told.
    let error = support::try_load(&path, json!({ "kv_type_k": "q8_0" })).err().unwrap();
    assert_eq!(error.code, codes::INVALID_OPTION);
    assert!(error.message.contains("q8_0"), "{error}");
}

#[test]
fn text_prompts_get_their_special_tokens() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({}));
    let ids = |prompt: &Prompt| session.tokenize(prompt).unwrap().iter().map(|t| t.id).collect::<Vec<_>>();
    assert_eq!(ids(&Prompt::text("w300é"))[..1], [1]);
    let parsed = Prompt::Text { text: "</s>".into(), add_special: false, parse_special: true };
    assert_eq!(ids(&parsed), [2]);
    let (_, summary) =
        run(&*session, &GenerateRequest { max_tokens: Some(2), ..GenerateRequest::new(Prompt::text("a")) });
    assert_eq!(summary.usage.prompt_tokens as usize, ids(&Prompt::text("a")).len());
}

#[test]
fn the_signature_says_what_the_file_says() {
    let (_folder, path) = tiny();
    let session: Box<dyn Session> = load(&path, json!({ "context_length": 128 }));
    let signature = session.signature();
    assert_eq!(signature.capabilities, ["tokenize", "embed", "generate", "constrain"]);
    let text = signature.text.unwrap();
    assert_eq!((text.architecture.as_str(), text.vocab_size, text.embedding_size), ("llama", 400, 64));
    assert_eq!((text.context_length, text.context_train), (128, 512));
    assert_eq!((text.bos_token.as_deref(), text.eos_token.as_deref()), (Some("<s>"), Some("</s>")));
    assert!(text.chat_template.unwrap().contains("messages"));
    assert!(text.parameters > 50_000);
    assert_eq!(signature.metadata["llama.block_count"], "2");
}

#[test]
fn gaps_are_marked_as_the_model_was_trained() {
    let (folder, plain) = tiny();
    let path = folder.path().join("infill.gguf");
    let mut writer = describe(TINY, vocabulary(TINY.vocab), TensorType::F32);
    writer.set("tokenizer.ggml.fim_pre_token_id", 390u32);
    writer.set("tokenizer.ggml.fim_suf_token_id", 391u32);
    writer.set("tokenizer.ggml.fim_mid_token_id", 392u32);
    write(&path, &writer, |t, out| out.write_all(&vec![0; t.bytes as usize]));
    let gap = Prompt::Infill { prefix: "a".into(), suffix: "</s>".into() };
    let session = load(&path, json!({}));
    assert!(session.signature().capabilities.iter().any(|c| c == "infill"));
    let ids: Vec<u32> = session.tokenize(&gap).unwrap().iter().map(|t| t.id).collect();
    assert_eq!((ids[0], ids[1], *ids.last().unwrap()), (1, 390, 392));
    assert!(ids.contains(&391) && !ids.contains(&2), "the name of a token in a text is text: {ids:?}");
    let error = load(&plain, json!({})).tokenize(&gap).unwrap_err();
    assert_eq!(error.code, codes::UNSUPPORTED);
}
