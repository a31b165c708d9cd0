//! What the stage does with small files; the peer's answers are in `tests/parity.rs`.

use super::*;
use pajamas_stage::{Label, Segment, Tensor, TensorData, testing};
use serde_json::Value as Json;

const WORDPIECE: &[u8] = include_bytes!("../tests/wordpiece.json");

fn files(content: &[u8]) -> Files {
    [("tokenizer.json", content)].into_iter().collect()
}

fn stage(options: Json) -> Result<Tokenize> {
    testing::create(&options, files(WORDPIECE))
}

fn elements(values: &mut Values, name: &str) -> (Vec<u64>, Vec<i64>) {
    match values.tensor(name).unwrap() {
        Tensor { shape, data: TensorData::I64(data) } => (shape, data),
        other => panic!("{other:?}"),
    }
}

#[test]
fn options_agree_with_their_schema() {
    testing::check_options::<Tokenize>(files(WORDPIECE));
    for wrong in [
        json!({"max_length": 2}),
        json!({"pad_to": 0}),
        json!({"pad_to": 4_000_000_000u32}),
        json!({"pad_token": "[NONE]"}),
        json!({"template": "without a place"}),
        json!({"dtype": "f32"}),
    ] {
        assert_eq!(stage(wrong.clone()).unwrap_err().code, "invalid-option", "{wrong}");
    }
    assert_eq!(stage(json!({"file": "other.json"})).unwrap_err().code, "file-not-granted");
}

#[test]
fn one_text_leaves_its_tokens_and_rows_that_are_filled_up() {
    let stage = stage(json!({"pad_to": 8})).unwrap();
    let mut values = stage.run(Values::new().with("text", "a red".to_owned())).unwrap();
    let tokens: Vec<i64> = values.tokens("tokens").unwrap().into_iter().map(i64::from).collect();
    assert_eq!((tokens.len(), tokens[0], tokens[3]), (4, 2, 3));
    let (shape, ids) = elements(&mut values, "input_ids");
    assert_eq!((shape, &ids[..4], &ids[4..]), (vec![1, 8], &tokens[..], &[0; 4][..]));
    assert_eq!(elements(&mut values, "attention_mask").1, [1, 1, 1, 1, 0, 0, 0, 0]);
}

#[test]
fn several_texts_become_rows_of_one_length() {
    let segment = |text: &str| Segment { start: 0.0, end: 0.0, text: text.into() };
    let stage = stage(json!({})).unwrap();
    let texts = vec![segment("a red circle"), segment("")];
    let mut values = stage.run(Values::new().with("segments", texts)).unwrap();
    assert_eq!(values.tokens_opt("tokens"), Ok(None));
    let (shape, ids) = elements(&mut values, "input_ids");
    assert_eq!((shape, &ids[5..]), (vec![2, 5], &[2, 3, 0, 0, 0][..]));
    let none = stage.run(Values::new().with("segments", Vec::<Segment>::new())).unwrap();
    assert_eq!(elements(&mut none.clone(), "input_ids"), (vec![0, 0], vec![]));
}

#[test]
fn names_of_classes_are_put_into_the_template() {
    let label = |name: Option<&str>| Label { class_id: 12, score: 0.0, label: name.map(str::to_owned) };
    let templated = stage(json!({"template": "a {} circle"})).unwrap();
    let named = vec![label(Some("red")), label(None)];
    let mut values = templated.run(Values::new().with("labels", named)).unwrap();
    let segment = |text: &str| Segment { start: 0.0, end: 0.0, text: text.into() };
    let plain = vec![segment("a red circle"), segment("a 12 circle")];
    let mut wanted = stage(json!({})).unwrap().run(Values::new().with("segments", plain)).unwrap();
    assert_eq!(elements(&mut values, "input_ids"), elements(&mut wanted, "input_ids"));
}

#[test]
fn what_users_write_is_no_special_token_when_so_wished() {
    let ids = |options| {
        let text = Values::new().with("text", "a [SEP] b".to_owned());
        stage(options).unwrap().run(text).unwrap().tokens("tokens").unwrap()
    };
    let ends = |ids: Vec<u32>| ids.into_iter().filter(|id| *id == 3).count();
    assert_eq!(ends(ids(json!({}))), 2);
    assert_eq!(ends(ids(json!({"parse_special": false}))), 1);
    assert_eq!(ends(ids(json!({"parse_special": false, "add_special_tokens": false}))), 0);
}

#[test]
fn inputs_that_contradict_each_other_are_refused() {
    let stage = stage(json!({"max_length": 3})).unwrap();
    let text = || Values::new().with("text", "a".to_owned());
    for wrong in [
        Values::new(),
        text().with("labels", Vec::<Label>::new()),
        Values::new().with("segments", Vec::<Segment>::new()).with("pair", "a".to_owned()),
    ] {
        assert_eq!(stage.run(wrong).unwrap_err().code, "invalid-input");
    }
    let tight = stage.run(text().with("pair", "b".to_owned())).unwrap_err();
    assert_eq!(tight.code, "invalid-option", "a pair has three special tokens");
    let many = vec![Segment { start: 0.0, end: 0.0, text: String::new() }; MAX_TEXTS + 1];
    assert_eq!(stage.run(Values::new().with("segments", many)).unwrap_err().code, "invalid-input");
}

#[test]
fn a_file_that_is_broken_anywhere_is_refused_or_works() {
    let code = |content: &[u8]| {
        testing::create::<Tokenize>(&json!({}), files(content)).err().map(|error| error.code)
    };
    for broken in [
        &b""[..],
        b"{}",
        b"[1]",
        b"\xff\xfe",
        br#"{"version":"1.0","model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}}"#,
    ] {
        assert_eq!(code(broken).as_deref(), Some("tokenizer-invalid"), "{}", broken.escape_ascii());
    }
    for cut in (0..WORDPIECE.len()).step_by(37) {
        assert_eq!(code(&WORDPIECE[..cut]).as_deref(), Some("tokenizer-invalid"), "cut at {cut}");
    }
    for at in (0..WORDPIECE.len()).step_by(11) {
        let mut changed = WORDPIECE.to_vec();
        changed[at] = b'0';
        if let Ok(stage) = testing::create::<Tokenize>(&json!({}), files(&changed)) {
            let _ = stage.run(Values::new().with("text", "a red circle, naïve".to_owned()));
        }
    }
}
