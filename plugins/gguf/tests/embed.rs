//! Embeddings on a tiny model with random weights.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

mod support;

use std::path::Path;

use pajamas_plugin_api::{Cancel, EmbedRequest, Prompt, Session, codes};
use serde_json::json;
use support::{Rows, greedy, load, run, tiny};

fn embed(session: &dyn Session, inputs: &[&[u32]], pooling: Option<&str>, normalize: bool) -> Rows {
    let request = EmbedRequest {
        inputs: inputs.iter().map(|i| Prompt::Tokens(i.to_vec())).collect(),
        pooling: pooling.map(str::to_owned),
        normalize,
    };
    let mut rows = Rows::default();
    let usage = session.embed(&request, &mut rows, &Cancel::new()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(usage.prompt_tokens as usize, inputs.iter().map(|i| i.len()).sum::<usize>());
    let size = session.signature().text.unwrap().embedding_size;
    assert_eq!(rows.shape, [inputs.len() as u64, u64::from(size)]);
    rows
}

fn close(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4)
}

#[test]
fn poolings_are_what_they_are_called() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({}));
    let text: &[u32] = &[1, 300, 301, 302];
    let last = |n: usize| embed(&*session, &[&text[..n]], Some("last"), false).row(0);
    // A causal model: the embedding of a token is the last one of the text up to it.
    let tokens: Vec<Vec<f32>> = (1..=4).map(last).collect();
    let mean: Vec<f32> = (0..64).map(|i| tokens.iter().map(|t| t[i]).sum::<f32>() / 4.0).collect();
    assert!(close(&embed(&*session, &[text], Some("mean"), false).row(0), &mean));
    assert!(close(&embed(&*session, &[text], None, false).row(0), &mean), "mean is the default");
    assert!(close(&embed(&*session, &[text], Some("cls"), false).row(0), &tokens[0]));
    assert!(!close(&mean, &tokens[3]));
}

#[test]
fn several_texts_are_embedded_apart() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({}));
    let (a, b): (&[u32], &[u32]) = (&[1, 300, 301], &[1, 310]);
    let both = embed(&*session, &[a, b], None, true);
    assert!(close(&both.row(0), &embed(&*session, &[a], None, true).row(0)));
    assert!(close(&both.row(1), &embed(&*session, &[b], None, true).row(0)));
    let length: f32 = both.row(0).iter().map(|x| x * x).sum();
    assert!((length - 1.0).abs() < 1e-4, "{length}");
}

#[test]
fn long_texts_are_computed_in_parts() {
    let (_folder, path) = tiny();
    let text: Vec<u32> = (0..200).map(|i| 200 + i).collect();
    // Flash attention sums long and short batches in different ways: compare without.
    let with = |micro_batch: u32| {
        let options = json!({ "micro_batch_size": micro_batch, "flash_attention": "off" });
        embed(&*load(&path, options), &[&text], None, false).row(0)
    };
    let (whole, parts) = (with(512), with(32));
    let most = whole.iter().zip(&parts).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(most < 1e-4, "differs by {most}");
}

#[test]
fn generating_and_embedding_do_not_disturb_each_other() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({ "parallel": 2 }));
    let prompt = [1, 300, 310];
    let text: &[u32] = &[1, 320, 330];
    let expected =
        (run(&*session, &greedy(&prompt, 60)).0.ids, embed(&*session, &[text], None, false).row(0));
    std::thread::scope(|scope| {
        let generation = scope.spawn(|| run(&*session, &greedy(&prompt, 60)).0.ids);
        for _ in 0..5 {
            assert!(close(&embed(&*session, &[text], None, false).row(0), &expected.1));
        }
        assert_eq!(generation.join().unwrap(), expected.0);
    });
}

#[test]
fn encoders_embed_and_do_not_generate() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bert.gguf");
    support::bert::write_bert(&path);
    let session = load(&path, json!({}));
    assert_eq!(session.signature().capabilities, ["tokenize", "embed"]);
    let (a, b): (&[u32], &[u32]) = (&[2, 10, 11, 3], &[2, 10, 12, 3]);
    let cls = embed(&*session, &[a, b], Some("cls"), false);
    // Every token sees those after it.
    assert!(!close(&cls.row(0), &cls.row(1)));
    // The model's own pooling is the default.
    let own = embed(&*session, &[a], None, false).row(0);
    assert!(close(&own, &cls.row(0)));
    assert!(!close(&own, &embed(&*session, &[a], Some("mean"), false).row(0)));
    // As long as the context, and no longer.
    embed(&*session, &[&[10; 24]], None, true);
    let long = EmbedRequest { inputs: vec![Prompt::Tokens(vec![10; 25])], pooling: None, normalize: false };
    let error = session.embed(&long, &mut Rows::default(), &Cancel::new()).unwrap_err();
    assert_eq!(error.code, codes::CONTEXT_LENGTH_EXCEEDED);
    let request = greedy(&[2, 10], 1);
    let error = session.generate(&request, &mut support::Collected::default(), &Cancel::new()).unwrap_err();
    assert_eq!(error.code, codes::UNSUPPORTED);
}

#[test]
fn many_texts_share_a_batch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bert.gguf");
    support::bert::write_bert(&path);
    let session = load(&path, json!({}));
    let texts: Vec<Vec<u32>> =
        (0..30).map(|i| (0..1 + i % 7).map(|j| 5 + (i * 5 + j) % 30).collect()).collect();
    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let batches = || pajamas_plugin_api::EngineStats::of(&*session).unwrap().unwrap().batches;
    let together = embed(&*session, &texts, Some("mean"), false);
    assert!(batches() < 10, "{} batches for 30 texts", batches());
    for (i, text) in texts.iter().enumerate() {
        assert!(close(&together.row(i), &embed(&*session, &[text], Some("mean"), false).row(0)), "text {i}");
    }
}

#[test]
fn pairs_are_scored_by_the_head() {
    let folder = tempfile::tempdir().unwrap();
    let (ranker, encoder) = (folder.path().join("ranker.gguf"), folder.path().join("bert.gguf"));
    support::bert::write_ranker(&ranker);
    support::bert::write_bert(&encoder);
    let session = load(&ranker, json!({}));
    assert_eq!(session.signature().capabilities, ["tokenize", "rerank"]);
    let pair = |document: &str| Prompt::Pair { query: "f g".into(), document: document.into() };
    let pairs = vec![pair("h i"), pair("j"), pair("h i")];
    let request = EmbedRequest { inputs: pairs.clone(), pooling: Some("rank".into()), normalize: true };
    let mut scores = Rows::default();
    session.embed(&request, &mut scores, &Cancel::new()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(scores.shape, [3]);
    let scores = scores.values();
    assert!(scores[0] == scores[2] && scores[0] != scores[1], "{scores:?}");
    // The head adds up the embedding of the first token.
    let plain = load(&encoder, json!({}));
    for (pair, score) in pairs.iter().zip(&scores) {
        let ids: Vec<u32> = session.tokenize(pair).unwrap().iter().map(|t| t.id).collect();
        assert!(ids[0] == 2 && ids[1..].contains(&3), "{ids:?}: begins with CLS and has SEP between");
        let row = embed(&*plain, &[&ids], Some("cls"), false).row(0);
        assert!((row.iter().sum::<f32>() - score).abs() < 1e-3, "{score}");
    }
    // Neither does the other's work.
    let refuse = |session: &dyn Session, inputs: Vec<Prompt>, pooling: &str| {
        let request = EmbedRequest { inputs, pooling: Some(pooling.into()), normalize: false };
        session.embed(&request, &mut Rows::default(), &Cancel::new()).unwrap_err().code
    };
    assert_eq!(refuse(&*session, vec![pair("h")], "mean"), codes::UNSUPPORTED);
    assert_eq!(refuse(&*plain, vec![pair("h")], "rank"), codes::UNSUPPORTED);
    assert_eq!(refuse(&*plain, vec![pair("h")], "mean"), codes::UNSUPPORTED);
}

/// The journeys ask a ranking model over HTTP; it is kept, for they do not write models.
#[test]
fn the_journeys_ranker_is_this_one() {
    let folder = tempfile::tempdir().unwrap();
    let written = folder.path().join("ranker.gguf");
    support::bert::write_ranker(&written);
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/ranker.gguf");
    if !kept.exists() {
        std::fs::copy(&written, &kept).unwrap();
        panic!("{} was missing; it is written now: commit it", kept.display());
    }
    assert!(std::fs::read(&written).unwrap() == std::fs::read(&kept).unwrap(), "delete {}", kept.display());
}

#[test]
fn wrong_requests_are_refused() {
    let (_folder, path) = tiny();
    let session = load(&path, json!({ "context_length": 16 }));
    let refuse = |inputs: Vec<Prompt>, pooling: Option<&str>| {
        let request = EmbedRequest { inputs, pooling: pooling.map(str::to_owned), normalize: false };
        session.embed(&request, &mut Rows::default(), &Cancel::new()).unwrap_err()
    };
    let error = refuse(vec![Prompt::Tokens(vec![300; 17])], None);
    assert_eq!(error.code, codes::CONTEXT_LENGTH_EXCEEDED);
    assert!(error.message.contains("17") && error.message.contains("16"), "{error}");
    assert_eq!(refuse(vec![Prompt::Tokens(vec![])], None).code, codes::INVALID_INPUT);
    assert_eq!(refuse(vec![Prompt::Tokens(vec![300])], Some("max")).code, codes::INVALID_INPUT);
    let cancel = Cancel::new();
    cancel.cancel();
    let request = EmbedRequest { inputs: vec![Prompt::Tokens(vec![300])], pooling: None, normalize: false };
    let error = session.embed(&request, &mut Rows::default(), &cancel).unwrap_err();
    assert_eq!(error.code, codes::CANCELLED);
}
