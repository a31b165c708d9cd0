//! The extension `pajamas.transcribe/1` on both engines, over an encoder and decoders whose numbers can be computed by hand.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests, which may unwrap")]

mod support;

use std::ops::ControlFlow;
use std::path::Path;

use pajamas_plugin_api::{Backend, Cancel, EventSink, Extension, NamedTensor, Result, Session, codes};
use serde_json::{Value, json};
use support::onnx::{self, Graph, int_attribute, node, tensor, value};
use support::{Outputs, Tensor, engines, load, model_file};

/// Tokens 0 to 3 are words, 4 ends, 5 to 7 are timestamps.
const TOKENS: usize = 8;
const END: u32 = 4;

/// What a token adds to the memory of a text.
fn weight(token: usize) -> f32 {
    [0.513, -0.247, 0.131, -0.491, 0.0, 0.259, 0.367, -0.119][token]
}

/// How likely a token is after another one; no two are equally likely.
fn follows(last: usize, next: usize) -> f32 {
    ((last * 5 + next * 3 + last * next) % 7) as f32 / 2.0 + ((last * 3 + next * 7) % 11) as f32 * 0.0137
}

/// How a text's memory bears on a token.
fn bears(next: usize) -> f32 {
    ((next * 3) % 5) as f32 / 2.0 - 1.0
}

/// What the graphs compute: the logits after a text.
fn logits(heard: f32, text: &[u32]) -> Vec<f32> {
    let memory: f32 = heard + text.iter().map(|token| weight(*token as usize)).sum::<f32>();
    let last = *text.last().unwrap() as usize;
    (0..TOKENS).map(|next| follows(last, next) + memory * bears(next)).collect()
}

fn logprobs(heard: f32, text: &[u32]) -> Vec<f32> {
    let logits = logits(heard, text);
    let total = logits.iter().map(|logit| logit.exp()).sum::<f32>().ln();
    logits.into_iter().map(|logit| logit - total).collect()
}

fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// The nodes that both decoders share: from `ids` and the whole `key` to the logits.
fn deciding(graph: Graph) -> Graph {
    let pairs = (0..TOKENS * TOKENS).map(|at| follows(at / TOKENS, at % TOKENS));
    let axis = |n: i64| n.to_le_bytes();
    graph
        .initializer(tensor("follows", onnx::FLOAT, &[TOKENS as i64; 2], &floats(pairs)))
        .initializer(tensor("bears", onnx::FLOAT, &[TOKENS as i64], &floats((0..TOKENS).map(bears))))
        .initializer(tensor("weights", onnx::FLOAT, &[TOKENS as i64, 1], &floats((0..TOKENS).map(weight))))
        .initializer(tensor("one", onnx::INT64, &[1], &axis(1)))
        .initializer(tensor("two", onnx::INT64, &[1], &axis(2)))
        .node(node("Gather", &["weights", "input_ids"], &["weighed"]))
        .node(node("Unsqueeze", &["weighed", "one"], &["fresh"]))
}

fn decided(graph: Graph, heard: &str) -> Graph {
    graph
        .node(node("ReduceSum", &["present.0.decoder.key", "two"], &["summed"]))
        .node(node("Add", &["summed", heard], &["remembered"]))
        .node(node("Squeeze", &["remembered", "one"], &["memory"]))
        .node(node("Mul", &["memory", "bears"], &["borne"]))
        .node(node("Gather", &["follows", "input_ids"], &["following"]))
        .node(node("Add", &["following", "borne"], &["logits"]))
        .output(value("logits", onnx::FLOAT, Some(&format!("batch,tokens,{TOKENS}"))))
        .output(value("present.0.decoder.key", onnx::FLOAT, Some("batch,1,length,1")))
}

fn first() -> Vec<u8> {
    let axes: Vec<u8> = [1i64, 2].iter().flat_map(|n| n.to_le_bytes()).collect();
    let graph = deciding(Graph::new("first"))
        .input(value("input_ids", onnx::INT64, Some("batch,tokens")))
        .input(value("encoder_hidden_states", onnx::FLOAT, Some("batch,2,3")))
        .initializer(tensor("all", onnx::INT64, &[2], &axes))
        .node(node("ReduceSum", &["encoder_hidden_states", "all"], &["heard"]))
        .node(node("Unsqueeze", &["heard", "one"], &["present.0.encoder.key"]))
        .node(node("Identity", &["fresh"], &["present.0.decoder.key"]))
        .output(value("present.0.encoder.key", onnx::FLOAT, Some("batch,1,1,1")));
    decided(graph, "present.0.encoder.key").model(&[])
}

fn later() -> Vec<u8> {
    let join = node("Concat", &["past_key_values.0.decoder.key", "fresh"], &["present.0.decoder.key"]);
    let graph = deciding(Graph::new("later"))
        .input(value("input_ids", onnx::INT64, Some("batch,1")))
        .input(value("past_key_values.0.decoder.key", onnx::FLOAT, Some("batch,1,past,1")))
        .input(value("past_key_values.0.encoder.key", onnx::FLOAT, Some("batch,1,1,1")))
        .node(join.message(5, int_attribute("axis", 2)));
    decided(graph, "past_key_values.0.encoder.key").model(&[])
}

fn encoder() -> Vec<u8> {
    Graph::new("encoder")
        .input(value("input_features", onnx::FLOAT, Some("batch,2,3")))
        .node(node("Identity", &["input_features"], &["last_hidden_state"]))
        .output(value("last_hidden_state", onnx::FLOAT, Some("batch,2,3")))
        .model(&[])
}

/// A folder as Optimum lays one out.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: Vec<u8>| std::fs::write(dir.path().join(name), bytes).unwrap();
    put("encoder_model.onnx", encoder());
    put("decoder_model.onnx", first());
    put("decoder_with_past_model.onnx", later());
    dir
}

fn open(engine: &dyn Backend, folder: &Path) -> Result<Box<dyn Session>> {
    load(engine, &folder.join("encoder_model.onnx"))
}

/// Takes the tokens that are told, and stops after some.
struct Told<'t> {
    tokens: Vec<u32>,
    stop_after: usize,
    cancel: Option<&'t Cancel>,
}

impl EventSink for Told<'_> {
    fn event(&mut self, name: &str, payload: &[u8]) -> ControlFlow<()> {
        assert_eq!(name, "token");
        let token: Value = serde_json::from_slice(payload).unwrap();
        self.tokens.push(token["id"].as_u64().unwrap() as u32);
        if self.tokens.len() < self.stop_after {
            return ControlFlow::Continue(());
        }
        match self.cancel {
            Some(cancel) => {
                cancel.cancel();
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(()),
        }
    }
}

fn ask_told(
    listener: &dyn Extension,
    call: &Value,
    mel: Option<&Tensor>,
    told: &mut Told<'_>,
) -> Result<Value> {
    let tensors: Vec<_> = mel.iter().map(|mel| NamedTensor { name: "mel", tensor: mel.view() }).collect();
    let cancel = told.cancel.cloned().unwrap_or_default();
    let answer =
        listener.call(call.to_string().as_bytes(), &tensors, told, &mut Outputs::default(), &cancel)?;
    Ok(serde_json::from_slice(&answer).unwrap())
}

fn ask(listener: &dyn Extension, call: &Value, mel: Option<&Tensor>) -> Result<Value> {
    let mut told = Told { tokens: Vec::new(), stop_after: usize::MAX, cancel: None };
    ask_told(listener, call, mel, &mut told)
}

/// A window that the encoder sums up to a number.
fn window(heard: f32) -> Tensor {
    Tensor::f32(&[1, 2, 3], &[heard, 0.0, 0.5, -0.5, 0.25, -0.25])
}

fn tokens(answer: &Value) -> Vec<u32> {
    serde_json::from_value(answer["tokens"].clone()).unwrap()
}

/// An engine's name, with a session and a listener of it.
type Listening = (String, Box<dyn Session>, Box<dyn Extension>);

/// Every engine that runs here.
fn listeners() -> Vec<Listening> {
    let dir = folder();
    let each = engines().into_iter().map(|engine| {
        let session = open(&*engine, dir.path()).unwrap();
        let listener = session.extension("pajamas.transcribe/1").unwrap();
        (engine.describe().id, session, listener)
    });
    each.collect()
}

#[test]
fn the_likeliest_tokens_are_those_of_a_loop_by_hand() {
    for (engine, _session, listener) in listeners() {
        for heard in [-1.53f32, 0.017, 0.77, 2.03] {
            let prompt = [2u32, 7, 1];
            let mut text = prompt.to_vec();
            let (mut sum, mut ended) = (0.0, false);
            while text.len() < prompt.len() + 12 && !ended {
                let likely = logprobs(heard, &text);
                let best = (0..TOKENS).max_by(|a, b| likely[*a].total_cmp(&likely[*b])).unwrap();
                sum += likely[best];
                ended = best == END as usize;
                if !ended {
                    text.push(best as u32);
                }
            }
            let call = json!({ "prompt": prompt, "end": END, "max_tokens": 12, "no_speech": { "token": 3, "after": 2 } });
            let mut told = Told { tokens: Vec::new(), stop_after: usize::MAX, cancel: None };
            let answer = ask_told(&*listener, &call, Some(&window(heard)), &mut told).unwrap();
            assert_eq!(tokens(&answer), text[prompt.len()..], "{engine} {heard}");
            assert_eq!(told.tokens, text[prompt.len()..], "{engine} {heard}");
            assert_eq!(answer["finish"], if ended { "end" } else { "length" });
            let off = |key: &str, want: f32| (answer[key].as_f64().unwrap() as f32 - want).abs();
            assert!(off("sum_logprob", sum) < 1e-3, "{engine} {heard}: {answer}, {sum}");
            assert!(off("no_speech", logprobs(heard, &prompt)[3].exp()) < 1e-4, "{engine} {heard}: {answer}");
            // What was encoded stays: another call needs no window.
            assert_eq!(ask(&*listener, &call, None).unwrap(), answer);
        }
    }
}

/// The likeliest text of at most `most` tokens, by its log-probability over its length, of all there are.
fn best_of_all(
    heard: f32,
    text: &mut Vec<u32>,
    sum: f32,
    most: usize,
    best: &mut (f32, Vec<u32>),
    from: usize,
) {
    let written = text.len() - from;
    let mut consider = |sum: f32, text: &[u32]| {
        let rank = sum / text.len().max(1) as f32;
        if rank > best.0 {
            *best = (rank, text.to_vec());
        }
    };
    if written == most {
        return consider(sum, &text[from..]);
    }
    let likely = logprobs(heard, text);
    consider(sum + likely[END as usize], &text[from..]);
    for token in (0..TOKENS as u32).filter(|token| *token != END) {
        text.push(token);
        best_of_all(heard, text, sum + likely[token as usize], most, best, from);
        text.pop();
    }
}

#[test]
fn enough_beams_find_the_best_of_all_texts() {
    for (engine, _session, listener) in listeners() {
        for heard in [-1.0f32, 0.25, 1.5] {
            let mut best = (f32::NEG_INFINITY, Vec::new());
            best_of_all(heard, &mut vec![1, 6], 0.0, 2, &mut best, 2);
            let call =
                json!({ "prompt": [1, 6], "end": END, "max_tokens": 2, "beam_size": 64, "patience": 10 });
            let answer = ask(&*listener, &call, Some(&window(heard))).unwrap();
            assert_eq!(tokens(&answer), best.1, "{engine} {heard}: {answer}");
        }
    }
}

#[test]
fn beams_keep_the_memory_that_belongs_to_them() {
    for (engine, _session, listener) in listeners() {
        for heard in [-1.0f32, 0.25, 1.5] {
            let call =
                json!({ "prompt": [1, 6], "end": END, "max_tokens": 9, "beam_size": 3, "suppress": [END] });
            let answer = ask(&*listener, &call, Some(&window(heard))).unwrap();
            let written = tokens(&answer);
            // The log-probabilities of a beam are those of its own text, wherever it was moved.
            let mut text = vec![1, 6];
            for (token, said) in written.iter().zip(answer["logprobs"].as_array().unwrap()) {
                let mut logits = logits(heard, &text);
                logits[END as usize] = f32::NEG_INFINITY;
                let total = logits.iter().map(|logit| logit.exp()).sum::<f32>().ln();
                let want = logits[*token as usize] - total;
                assert!((said.as_f64().unwrap() as f32 - want).abs() < 1e-3, "{engine} {heard}: {answer}");
                text.push(*token);
            }
            assert_eq!(written.len(), 9);
        }
    }
}

#[test]
fn drawn_texts_are_repeatable_by_their_seed() {
    for (engine, _session, listener) in listeners() {
        let draw = |seed: u64| {
            let call = json!({ "prompt": [0], "end": END, "max_tokens": 20, "temperature": 1.0, "best_of": 4, "seed": seed });
            ask(&*listener, &call, Some(&window(0.5))).unwrap()
        };
        assert_eq!(draw(1), draw(1), "{engine}");
        assert!((2..9).any(|seed| tokens(&draw(seed)) != tokens(&draw(1))), "{engine}");
    }
}

#[test]
fn a_decoder_that_never_ends_ends_at_the_most_tokens() {
    for (engine, _session, listener) in listeners() {
        for more in [json!({}), json!({ "beam_size": 4 }), json!({ "temperature": 0.8, "best_of": 3 })] {
            let mut call = json!({ "prompt": [0], "end": END, "max_tokens": 300, "suppress": [END] });
            call.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let answer = ask(&*listener, &call, Some(&window(0.0))).unwrap();
            assert_eq!((tokens(&answer).len(), &answer["finish"]), (300, &json!("length")), "{engine}");
        }
    }
}

#[test]
fn it_stops_between_two_tokens() {
    for (engine, _session, listener) in listeners() {
        let call = json!({ "prompt": [0], "end": END, "max_tokens": 300, "suppress": [END] });
        let flag = Cancel::new();
        for cancel in [Some(&flag), None] {
            let mut told = Told { tokens: Vec::new(), stop_after: 3, cancel };
            let error = ask_told(&*listener, &call, Some(&window(0.0)), &mut told).unwrap_err();
            assert_eq!((error.code.as_str(), told.tokens.len()), (codes::CANCELLED, 3), "{engine}");
        }
        // And can be asked again.
        ask(&*listener, &call, Some(&window(0.0))).unwrap();
    }
}

#[test]
fn tokens_can_be_chosen_among() {
    for (engine, _session, listener) in listeners() {
        let call = json!({ "prompt": [3], "choose": [0, 2, 5] });
        let answer = ask(&*listener, &call, Some(&window(1.0))).unwrap();
        let shares: Vec<f32> = serde_json::from_value(answer["probabilities"].clone()).unwrap();
        let logits = logits(1.0, &[3]);
        let total: f32 = [0, 2, 5].iter().map(|at| logits[*at].exp()).sum();
        for (share, at) in shares.iter().zip([0, 2, 5]) {
            assert!((share - logits[at].exp() / total).abs() < 1e-4, "{engine}: {answer}");
        }
    }
}

#[test]
fn what_is_asked_wrongly_is_refused() {
    for (engine, _session, listener) in listeners() {
        let good = json!({ "prompt": [0], "end": END, "max_tokens": 3 });
        let wrong = |key: &str, value: Value| {
            let mut call = good.clone();
            call[key] = value;
            call
        };
        for call in [
            wrong("prompt", json!([])),
            wrong("prompt", json!([99])),
            wrong("prompt", json!("hello")),
            wrong("end", json!(99)),
            wrong("max_tokens", json!(0)),
            wrong("max_tokens", json!(1e9)),
            wrong("temperature", json!(-1)),
            wrong("beam_size", json!(100_000)),
            wrong("best_of", json!(0)),
            json!({ "prompt": [0] }),
            json!([]),
        ] {
            let error = ask(&*listener, &call, Some(&window(0.0))).unwrap_err();
            assert_eq!(error.code, codes::INVALID_INPUT, "{engine}: {call}: {error}");
        }
        for mel in [Tensor::f32(&[1, 2, 2], &[0.0; 4]), Tensor::i64(&[1, 2, 3], &[0; 6])] {
            let error = ask(&*listener, &good, Some(&mel)).unwrap_err();
            assert_eq!(error.code, codes::INVALID_INPUT, "{engine}: {error}");
        }
        // A window that could not be encoded leaves none.
        assert_eq!(ask(&*listener, &good, None).unwrap_err().code, codes::INVALID_INPUT);
        let everything: Vec<usize> = (0..TOKENS).collect();
        let error = ask(&*listener, &wrong("suppress", json!(everything)), Some(&window(0.0))).unwrap_err();
        assert_eq!(error.code, "inference-failed", "{engine}: {error}");
        let error = ask(&*listener, &good, Some(&window(f32::NAN))).unwrap_err();
        assert_eq!(error.code, "inference-failed", "{engine}: {error}");
    }
}

#[test]
fn an_encoder_alone_does_not_transcribe_and_one_that_does_still_encodes() {
    for engine in engines() {
        let (_dir, path) = model_file(&encoder());
        assert!(load(&*engine, &path).unwrap().extension("pajamas.transcribe/1").is_none());
        let dir = folder();
        let session = open(&*engine, dir.path()).unwrap();
        assert!(session.extension("pajamas.transcribe/2").is_none());
        let mel = window(3.0);
        let outputs = support::infer(&*session, &[("input_features", &mel)]).unwrap();
        assert_eq!(outputs.get("last_hidden_state"), mel);
    }
}

#[test]
fn decoders_of_another_kind_are_refused() {
    for engine in engines() {
        let dir = folder();
        std::fs::write(dir.path().join("decoder_with_past_model.onnx"), first()).unwrap();
        let error = open(&*engine, dir.path()).err().unwrap();
        assert_eq!(error.code, "model-unsupported", "{error}");
        let dir = folder();
        let bytes = later();
        std::fs::write(dir.path().join("decoder_with_past_model.onnx"), &bytes[..bytes.len() / 2]).unwrap();
        let error = open(&*engine, dir.path()).err().unwrap();
        assert_eq!(error.code, "model-invalid", "{error}");
    }
}
