//! A draft model changes how fast answers come, and nothing of what they are.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

mod support;

use std::path::{Path, PathBuf};

use pajamas_llama_cpp::gguf::TensorType;
use pajamas_plugin_api::{
    Backend, Cancel, Constraint, FinishReason, GenerateRequest, Grammar, Memory, Session, codes,
};
use serde_json::{Value, json};
use support::{
    Collected, Shape, TINY, backend, describe, exact, greedy, request, run, stats, together, try_load, until,
    vocabulary, write, write_random, write_seeded,
};

const PROMPT: [u32; 5] = [1, 300, 301, 302, 303];
const SMALL: Shape = Shape { hidden: 32, ffn: 64, layers: 1, heads: 2, kv_heads: 1, ..TINY };

/// A model, and drafts for it: one with the same weights, and one that knows nothing of it.
struct Models {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Models {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        write_random(&path, TINY, TensorType::F32);
        write_random(&folder.path().join("same.gguf"), TINY, TensorType::F32);
        write_seeded(&folder.path().join("other.gguf"), SMALL, TensorType::F32, 7);
        Self { folder, path }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn alone(&self) -> Box<dyn Session> {
        exact(&self.path, json!({ "parallel": 1, "prompt_cache": "off" }))
    }

    fn drafted(&self, draft: &str, max: u32, options: Value) -> Box<dyn Session> {
        exact(&self.path, self.options(draft, max, options))
    }

    fn options(&self, draft: &str, max: u32, mut options: Value) -> Value {
        options["draft"] = json!({ "path": format!("{draft}.gguf"), "max": max, "min_probability": 0 });
        options
    }
}

/// All that a caller sees of an answer.
fn answer(session: &dyn Session, request: &GenerateRequest) -> (Vec<u32>, Vec<String>, Value) {
    let (got, summary) = run(session, request);
    let end = json!([summary.finish_reason, summary.stop_string, summary.usage.completion_tokens]);
    (got.ids, got.texts, end)
}

#[test]
fn a_draft_that_is_right_is_taken_and_one_that_is_not_does_no_harm() {
    let models = Models::new();
    let request = greedy(&PROMPT, 100);
    let expected = answer(&*models.alone(), &request);
    let session = models.drafted("same", 4, json!({}));
    assert_eq!(answer(&*session, &request), expected);
    let right = until(&*session, |s| s.busy == 0);
    // One token comes with the prompt; then five at a time.
    assert_eq!((right.drafted, right.accepted), (79, 79));
    assert_eq!((right.generated_tokens, right.batches), (100, 21));
    let session = models.drafted("other", 4, json!({}));
    assert_eq!(answer(&*session, &request), expected);
    let wrong = until(&*session, |s| s.busy == 0);
    assert!(wrong.drafted > 300 && wrong.accepted < 20 && wrong.batches > 80, "{wrong:?}");
    // One that is never sure never writes.
    let unsure = json!({ "draft": { "path": "other.gguf", "min_probability": 1 } });
    let session = exact(&models.path, unsure);
    assert_eq!(answer(&*session, &request), expected);
    assert_eq!(stats(&*session).drafted, 0);
}

#[test]
fn whatever_is_asked_for_is_answered_as_without() {
    let models = Models::new();
    let alone = models.alone();
    let whole = run(&*alone, &greedy(&PROMPT, 60)).0;
    let mut requests = vec![greedy(&PROMPT, 1), greedy(&PROMPT, 2), greedy(&PROMPT, 3), greedy(&[7], 40)];
    let mut changed = |change: &dyn Fn(&mut GenerateRequest)| {
        let mut request = greedy(&PROMPT, 60);
        change(&mut request);
        requests.push(request);
    };
    // Stop strings that end within a draft, and across two tokens of it.
    for at in [20, 21, 22, 23, 24] {
        let boundary: usize = whole.texts[..at].iter().map(String::len).sum();
        let start = whole.text[..boundary].char_indices().rev().nth(1).unwrap().0;
        let end = boundary + whole.text[boundary..].char_indices().nth(2).unwrap().0;
        let stop = whole.text[start..end].to_owned();
        changed(&|r| r.stop = vec![stop.clone()]);
    }
    // The end of the text, somewhere in a draft.
    for id in [10, 11, 12, 13] {
        let bias = vec![(2, 8.0 + id as f32 / 4.0)];
        changed(&|r| (r.ignore_eos, r.sampling.logit_bias) = (false, bias.clone()));
    }
    changed(&|r| r.sampling.presence_penalty = 4.0);
    for seed in 0..6 {
        changed(&|r| (r.sampling.temperature, r.sampling.seed) = (0.7, Some(seed)));
    }
    let schema = json!({
        "type": "object",
        "properties": { "name": { "type": "string", "maxLength": 8 }, "size": { "enum": ["small", "large"] } },
        "required": ["name", "size"],
        "additionalProperties": false,
    });
    let grammar = |grammar: Grammar| Constraint { grammar, after: Vec::new(), begun: false, lenient: false };
    let constraints = [
        grammar(Grammar::JsonSchema(schema)),
        grammar(Grammar::Gbnf("root ::= [a-f]+ \"-\" [0-9]{5}".into())),
    ];
    for constraint in constraints {
        changed(&|r| (r.ignore_eos, r.constraint) = (false, Some(constraint.clone())));
        changed(&|r| {
            (r.ignore_eos, r.constraint) = (false, Some(constraint.clone()));
            (r.sampling.temperature, r.sampling.seed) = (1.5, Some(3));
        });
    }
    let expected: Vec<_> = requests.iter().map(|r| answer(&*alone, r)).collect();
    for draft in ["same", "other"] {
        for max in [1, 3, 8] {
            let session = models.drafted(draft, max, json!({}));
            for (request, expected) in requests.iter().zip(&expected) {
                assert_eq!(answer(&*session, request), *expected, "{draft} {max} {request:?}");
            }
            assert!(stats(&*session).drafted > 0);
        }
    }
}

#[test]
fn logprobs_are_those_of_the_model_itself() {
    let models = Models::new();
    let mut request = greedy(&PROMPT, 30);
    request.logprobs = Some(3);
    let expected = run(&*models.alone(), &request).0;
    for draft in ["same", "other"] {
        let got = run(&*models.drafted(draft, 5, json!({})), &request).0;
        assert_eq!(got.ids, expected.ids);
        for (got, expected) in got.logprobs.iter().zip(&expected.logprobs) {
            assert!((got - expected).abs() < 1e-3, "{got} {expected}");
        }
        assert!(got.extras.iter().all(|e| e.contains("top_logprobs")));
    }
}

#[test]
fn requests_together_are_answered_as_alone() {
    let models = Models::new();
    let prompt = |i: u32, len: u32| (0..len).map(|j| 260 + (i * 37 + j * (7 + i)) % 140).collect::<Vec<_>>();
    let lengths = [(3, 100), (150, 5), (40, 40), (1, 70), (90, 1), (20, 20), (130, 60), (7, 90), (64, 33)];
    let requests: Vec<_> =
        lengths.iter().enumerate().map(|(i, (len, n))| greedy(&prompt(i as u32, *len), *n)).collect();
    let alone = models.alone();
    let expected: Vec<_> = requests.iter().map(|r| run(&*alone, r).0.ids).collect();
    for draft in ["same", "other"] {
        for options in [
            json!({ "context_length": 256 }),
            json!({ "context_length": 256, "parallel": 3, "prompt_chunk": 16 }),
            json!({ "context_length": 256, "batch_size": 24, "micro_batch_size": 8 }),
            json!({ "context_length": 256, "batch_size": 3, "micro_batch_size": 3, "parallel": 2 }),
            json!({ "context_length": 256, "prompt_cache": "exact" }),
            // Sharing the cache, and with less than all of them need.
            json!({ "context_length": 256, "cache_tokens": 768 }),
            json!({ "context_length": 256, "cache_tokens": 256 }),
        ] {
            let session = models.drafted(draft, 8, options.clone());
            // Twice: the second time much is in the cache.
            assert_eq!(together(&*session, &requests), expected, "{draft} {options}");
            assert_eq!(together(&*session, &requests), expected, "{draft} {options}");
            let stats = until(&*session, |s| s.busy == 0);
            assert!(stats.drafted > 0 && stats.accepted <= stats.drafted, "{stats:?}");
            let written = 2 * expected.iter().map(Vec::len).sum::<usize>();
            assert_eq!(stats.generated_tokens as usize, written);
        }
    }
}

#[test]
fn a_caller_that_goes_ends_its_request() {
    let models = Models::new();
    let session = models.drafted("same", 8, json!({}));
    let mut sink = Collected { stop_after: Some(3), ..Collected::default() };
    let summary = session.generate(&greedy(&PROMPT, 400), &mut sink, &Cancel::new()).unwrap();
    assert_eq!((sink.ids.len(), summary.finish_reason), (3, FinishReason::Cancelled));
    assert_eq!(summary.usage.completion_tokens, 3);
    let cancel = Cancel::new();
    cancel.cancel();
    let summary = session.generate(&greedy(&PROMPT, 9), &mut Collected::default(), &cancel).unwrap();
    assert_eq!(summary.finish_reason, FinishReason::Cancelled);
    // What they left in the cache is right.
    let request = greedy(&PROMPT, 50);
    let (got, summary) = run(&*session, &request);
    assert_eq!(got.ids, run(&*models.alone(), &request).0.ids);
    assert_eq!(summary.usage.cached_tokens, 4);
}

#[test]
fn a_model_that_cannot_draft_is_refused() {
    let models = Models::new();
    let refuse = |name: &str, code: &str, why: &str| {
        let options = json!({ "draft": { "path": name } });
        for error in [
            try_load(&models.path, options.clone()).err().unwrap(),
            backend().estimate(&request(&models.path, options)).unwrap_err(),
        ] {
            assert!(error.message.contains(name) && error.message.contains(why), "{error}");
            assert_eq!(error.code, code);
        }
    };
    refuse("missing.gguf", codes::MODEL_NOT_FOUND, "");
    std::fs::write(models.path("text.gguf"), b"no model").unwrap();
    refuse("text.gguf", codes::MODEL_INVALID, "");
    support::bert::write_bert(&models.path("bert.gguf"));
    refuse("bert.gguf", codes::INVALID_OPTION, "generate");
    write_random(&models.path("wide.gguf"), Shape { vocab: 600, ..SMALL }, TensorType::F32);
    refuse("wide.gguf", codes::INVALID_OPTION, "400 and 600 tokens");
    let changed = |name: &str, token: usize| {
        let mut words = vocabulary(SMALL.vocab);
        words[token] = "other".into();
        let zeros = |t: &pajamas_llama_cpp::gguf::TensorInfo, out: &mut dyn std::io::Write| {
            out.write_all(&vec![0; t.bytes as usize])
        };
        write(&models.path(name), &describe(SMALL, words, TensorType::F32), zeros);
    };
    changed("words.gguf", 310);
    refuse("words.gguf", codes::INVALID_OPTION, "token 310");
}

#[test]
fn padding_of_a_vocabulary_is_no_difference() {
    let models = Models::new();
    let request = greedy(&PROMPT, 40);
    let expected = run(&*models.alone(), &request).0.ids;
    for vocab in [TINY.vocab - 50, TINY.vocab + 50] {
        write_seeded(&models.path("padded.gguf"), Shape { vocab, ..SMALL }, TensorType::F32, 3);
        let session = models.drafted("padded", 4, json!({}));
        assert_eq!(run(&*session, &request).0.ids, expected);
        // A prompt that the draft cannot read.
        let unread = greedy(&[1, 399, 301], 20);
        assert_eq!(run(&*session, &unread).0.ids, run(&*models.alone(), &unread).0.ids);
    }
}

#[test]
fn the_draft_counts_as_memory() {
    let models = Models::new();
    let sum = |memory: &[Memory], what: fn(&Memory) -> u64| memory.iter().map(what).sum::<u64>();
    let estimate = |path: &Path, options: Value| backend().estimate(&request(path, options)).unwrap();
    let (main, draft) = (estimate(&models.path, json!({})), estimate(&models.path("other.gguf"), json!({})));
    let options = models.options("other", 8, json!({}));
    let both = estimate(&models.path, options.clone());
    assert_eq!(sum(&both, |m| m.weights), sum(&main, |m| m.weights) + sum(&draft, |m| m.weights));
    assert_eq!(sum(&both, |m| m.kv), sum(&main, |m| m.kv) + sum(&draft, |m| m.kv));
    assert!(sum(&both, |m| m.scratch) > sum(&main, |m| m.scratch));
    let used = try_load(&models.path, options).unwrap().usage();
    assert_eq!(sum(&used, |m| m.weights), sum(&both, |m| m.weights));
    assert_eq!(sum(&used, |m| m.kv), sum(&both, |m| m.kv));
}
