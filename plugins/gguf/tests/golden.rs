//! Against results that others computed: greedy tokens of a trained model, and tokenizers.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]

mod support;

use std::path::Path;

use pajamas_plugin_api::{Prompt, capability};
use serde_json::{Value, json};
use support::{assets, greedy, load, run};

#[test]
fn greedy_tokens_equal_the_float64_reference() {
    let Some(assets) = assets() else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("stories.gguf");
    support::hf::convert(&assets.join("llm/TinyStories-656K"), &model);
    let golden: Value =
        serde_json::from_slice(&std::fs::read(assets.join("llm/golden_numpy.json")).unwrap()).unwrap();
    let session = load(&model, json!({}));
    let ids = |case: &Value, key: &str| -> Vec<u32> {
        case[key].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as u32).collect()
    };
    let cases = golden["TinyStories-656K"]["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let expected = ids(case, "greedy_ids");
        let (got, summary) = run(&*session, &greedy(&ids(case, "prompt_ids"), expected.len() as u32));
        assert_eq!(got.ids, expected, "prompt {}", case["prompt"]);
        assert_eq!(got.text.trim_start(), case["text"].as_str().unwrap().trim_start());
        assert_eq!(summary.usage.completion_tokens as usize, expected.len());
    }
}

#[test]
fn the_vocabularies_of_llama_cpp_tokenize_as_it_says() {
    let Some(assets) = assets() else { return };
    let folder = assets.join("tokenizers/ggml-vocab");
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "gguf") {
            check_vocabulary(&path);
            seen += 1;
        }
    }
    assert!(seen >= 4, "only {seen} vocabularies in {}", folder.display());
}

fn check_vocabulary(path: &Path) {
    let beside = |extension: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(extension);
        std::fs::read_to_string(name).unwrap()
    };
    let session = load(path, json!({}));
    assert_eq!(session.signature().capabilities, [capability::TOKENIZE]);
    let (inputs, outputs) = (beside(".inp"), beside(".out"));
    let inputs: Vec<&str> = inputs.split("\n__ggml_vocab_test__\n").collect();
    let outputs: Vec<&str> = outputs.lines().collect();
    for (input, output) in inputs.iter().zip(&outputs) {
        let prompt = Prompt::Text { text: (*input).into(), add_special: false, parse_special: false };
        let got: Vec<u32> = session.tokenize(&prompt).unwrap().iter().map(|t| t.id).collect();
        let expected: Vec<u32> = output.split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert_eq!(got, expected, "{}: {input:?}", path.display());
    }
    assert!(outputs.len() >= 40, "{}: {} cases", path.display(), outputs.len());
}
