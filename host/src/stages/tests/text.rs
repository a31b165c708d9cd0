//! The stages for text, as components.

use super::*;
use crate::value::{Label, Segment, TensorData};

/// A tokenizer of the shared assets, or a small one of the repository.
fn file(name: &str) -> Option<GrantedFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let path = match name {
        "wordpiece" => root.join("wasm-stages/tokenize/tests/wordpiece.json"),
        "whisper-tiny" => root.join("../shared/assets/whisper/whisper-tiny/tokenizer.json"),
        other => root.join("../shared/assets/tokenizers").join(other).join("tokenizer.json"),
    };
    match std::fs::read(&path) {
        Ok(content) => Some(GrantedFile { name: "tokenizer.json".into(), content: content.into() }),
        Err(error) => {
            eprintln!("skipped: {}: {error}", path.display());
            None
        }
    }
}

fn made(stage: &str, options: &Json, file: GrantedFile) -> Result<Processor> {
    load(&engine(), stage)?.create(options, &[file], &Limits::default())
}

fn tokens(values: &Values) -> Vec<u32> {
    match values.get("tokens") {
        Some(Value::Tokens(tokens)) => tokens.clone(),
        other => panic!("`tokens` is {other:?}"),
    }
}

#[test]
fn a_text_becomes_tokens_and_a_text_again() {
    // What `tokenizers` makes of it.
    let said = "A red circle, naïve café";
    for (name, want, back) in [
        (
            "clip",
            &[49406, 320, 736, 7117, 267, 1097, 35689, 563, 15304, 49407][..],
            "a red circle , naïve café ",
        ),
        ("roberta-base", &[], said),
        ("phi-3", &[], said),
    ] {
        let Some(file) = file(name) else { continue };
        let options = if want.is_empty() { json!({ "add_special_tokens": false }) } else { json!({}) };
        let text = [("text", Value::Text(said.into()))];
        let made_of = run(&made("tokenize", &options, file.clone()).unwrap(), &text, &Limits::default());
        let ids = tokens(&made_of.unwrap());
        assert!(want.is_empty() || ids == want, "{name}: {ids:?}");
        let detokenize = made("detokenize", &Json::Null, file).unwrap();
        let left = run(&detokenize, &[("tokens", Value::Tokens(ids))], &Limits::default()).unwrap();
        // CLIP's own marks for the ends of words are spaces.
        let Some(Value::Text(text)) = left.get("text") else { panic!("{left:?}") };
        assert_eq!(text.replace("</w>", " "), back, "{name}");
    }
}

#[test]
fn whispers_times_become_segments() {
    let Some(file) = file("whisper-tiny") else { return };
    let detokenize = made("detokenize", &Json::Null, file).unwrap();
    // <|0.00|> Hello<|1.00|>, with the marks of the beginning and the end around it.
    let heard = vec![50258, 50259, 50359, 50364, 2425, 50414, 50257];
    let left = run(&detokenize, &[("tokens", Value::Tokens(heard))], &Limits::default()).unwrap();
    assert_eq!(left.get("text"), Some(&Value::Text(" Hello".into())));
    let segment = Segment { start: 0.0, end: 1.0, text: " Hello".into() };
    assert_eq!(left.get("segments"), Some(&Value::Segments(vec![segment])));
}

#[test]
fn names_of_classes_become_rows_and_rows_become_one_vector() {
    let tokenize = made("tokenize", &Json::Null, file("wordpiece").unwrap()).unwrap();
    let label = |name: &str| Label { class_id: 0, score: 0.0, label: Some(name.into()) };
    let labels = Value::Labels(vec![label("a red circle"), label("stars")]);
    let left = run(&tokenize, &[("labels", labels)], &Limits::default()).unwrap();
    let Some(Value::Tensor(mask)) = left.get("attention_mask") else { panic!("{left:?}") };
    let &[texts, longest] = mask.shape() else { panic!("{mask:?}") };
    assert_eq!(texts, 2);
    let vectors = (0..2 * longest).map(|n| n as f32).collect();
    let vectors = crate::value::Tensor::new(vec![2, longest, 1], TensorData::F32(vectors)).unwrap();
    let inputs = [("tensor", Value::Tensor(vectors)), ("attention_mask", Value::Tensor(mask.clone()))];
    let pooled = run(&processor("pool", &json!({ "mode": "cls" })).unwrap(), &inputs, &Limits::default());
    let Some(Value::Tensor(pooled)) = pooled.unwrap().take("tensor") else { panic!("no tensor") };
    assert_eq!(pooled.as_f32(), Some(&[0.0, longest as f32][..]));
}

#[test]
fn a_broken_tokenizer_has_a_code_and_no_trap() {
    let whole = file("wordpiece").unwrap();
    for content in [&b""[..], b"{}", b"\xff", &whole.content[..whole.content.len() / 2]] {
        for stage in ["tokenize", "detokenize"] {
            let broken = GrantedFile { name: "tokenizer.json".into(), content: content.into() };
            let refused = code(made(stage, &Json::Null, broken).map(|_| ()));
            assert_eq!(refused, "tokenizer-invalid", "{stage}: {}", content.escape_ascii());
        }
    }
}
