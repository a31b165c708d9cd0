//! What the stage does with small files; the peer's answers are in `tests/parity.rs`.

use super::*;
use pajamas_stage::{Segment, testing};
use serde_json::Value as Json;

/// Words, a special token, and Whisper's tokens of time.
fn file(times: &str) -> String {
    let added = |id: u32, content: &str, special: bool| {
        json!({ "id": id, "content": content, "special": special }).to_string()
    };
    let tokens = [added(4, "<|end|>", true), added(5, "<|notimestamps|>", true)].join(",");
    format!(
        r#"{{"version":"1.0","added_tokens":[{tokens}{times}],"decoder":null,"model":{{"type":"WordLevel",
            "vocab":{{"red":0,"blue":1,"\u00e9t\u00e9":2,"star":3}},"unk_token":"red"}}}}"#
    )
}

fn stage(file: &str, options: Json) -> Result<Detokenize> {
    testing::create(&options, [("tokenizer.json", file.as_bytes())].into_iter().collect())
}

fn text(options: Json, tokens: &[u32]) -> String {
    let values = stage(&file(""), options).unwrap().run(Values::new().with("tokens", tokens.to_vec()));
    values.unwrap().text("text").unwrap()
}

#[test]
fn options_agree_with_their_schema() {
    testing::check_options::<Detokenize>([("tokenizer.json", file("").as_bytes())].into_iter().collect());
}

#[test]
fn special_and_unknown_tokens_are_left_out() {
    assert_eq!(text(json!({}), &[0, 2, 4, 3, 99]), "red été star");
    assert_eq!(text(json!({"skip_special_tokens": false}), &[0, 4]), "red <|end|>");
    assert_eq!(text(json!({}), &[]), "");
}

#[test]
fn tokens_of_time_become_segments_whether_the_file_lists_them_or_not() {
    let listed =
        r#",{"id":6,"content":"<|0.00|>","special":false},{"id":7,"content":"<|0.02|>","special":false}"#;
    for file in [file(listed), file("")] {
        let tokens = vec![6u32, 0, 1, 7, 7, 3, 4];
        let run = |options| {
            stage(&file, options).unwrap().run(Values::new().with("tokens", tokens.clone())).unwrap()
        };
        let mut values = run(json!({}));
        assert_eq!(values.text("text").unwrap(), "red blue star");
        let of = |start, end, text: &str| Segment { start, end, text: text.into() };
        assert_eq!(values.segments("segments").unwrap(), [of(0.0, 0.02, "red blue"), of(0.02, 0.02, "star")]);
    }
    let kept = stage(&file(listed), json!({"timestamps": true})).unwrap();
    let mut values = kept.run(Values::new().with("tokens", vec![6u32, 0, 7])).unwrap();
    assert_eq!(values.text("text").unwrap(), "<|0.00|> red <|0.02|>");
    assert_eq!(text(json!({}), &[6 + 1501, 0]), "red", "after the last time nothing is known");
}

#[test]
fn a_unigram_models_tokens_are_counted() {
    let file = r#"{"decoder":null,"model":{"type":"Unigram","vocab":[["a",-1.0],["b",-2]],"unk_id":0}}"#;
    let stage = stage(file, json!({})).unwrap();
    let mut values = stage.run(Values::new().with("tokens", vec![1u32, 0, 2])).unwrap();
    assert_eq!(values.text("text").unwrap(), "b a");
}

#[test]
fn a_file_that_is_broken_anywhere_is_refused_or_works() {
    let whole = file("").into_bytes();
    let code = |content: &[u8]| {
        let files = [("tokenizer.json", content)].into_iter().collect();
        testing::create::<Detokenize>(&json!({}), files).err().map(|error| error.code)
    };
    for cut in 0..whole.len() {
        assert_eq!(code(&whole[..cut]).as_deref(), Some("tokenizer-invalid"), "cut at {cut}");
    }
    for broken in [
        &br#"{"model":{"vocab":7}}"#[..],
        br#"{"model":{"vocab":{"a":-1}}}"#,
        br#"{"model":{"vocab":{"a":4294967296}}}"#,
    ] {
        assert_eq!(code(broken).as_deref(), Some("tokenizer-invalid"), "{}", broken.escape_ascii());
    }
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] = b'9';
        if let Ok(stage) = stage(&String::from_utf8_lossy(&changed), json!({})) {
            let _ = stage.run(Values::new().with("tokens", (0..12).collect::<Vec<u32>>()));
        }
    }
}
