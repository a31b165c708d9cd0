//! Runs that make artifacts are stopped, and kept apart.

#![allow(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not what they call")]
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use pajamas_journeys::fixtures::repository;
use pajamas_journeys::product::{Finished, interrupt, pajamas, piped};
use serde_json::{Value, json};

/// The chat model grown until its conversion takes seconds: its tokenizer, and made-up weights.
fn large(parent: &Path) -> PathBuf {
    let (chat, folder) = (repository().join("models/chat/hf"), parent.join("large"));
    fs::create_dir(&folder).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(chat.join(name), folder.join(name)).unwrap();
    }
    let mut config: Value = serde_json::from_slice(&fs::read(chat.join("config.json")).unwrap()).unwrap();
    let (hidden, inner, layers, vocabulary) = (1024, 2048, 4, config["vocab_size"].as_u64().unwrap());
    let sizes = json!({
        "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": 8,
        "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": true
    });
    config.as_object_mut().unwrap().extend(sizes.as_object().unwrap().clone());
    fs::write(folder.join("config.json"), config.to_string()).unwrap();

    let mut tensors = vec![
        ("model.embed_tokens".to_owned(), vec![vocabulary, hidden]),
        ("model.norm".to_owned(), vec![hidden]),
    ];
    for layer in 0..layers {
        let mut add =
            |name: &str, shape: Vec<u64>| tensors.push((format!("model.layers.{layer}.{name}"), shape));
        ["q", "k", "v", "o"].iter().for_each(|p| add(&format!("self_attn.{p}_proj"), vec![hidden, hidden]));
        ["gate", "up"].iter().for_each(|p| add(&format!("mlp.{p}_proj"), vec![inner, hidden]));
        add("mlp.down_proj", vec![hidden, inner]);
        ["input", "post_attention"].iter().for_each(|p| add(&format!("{p}_layernorm"), vec![hidden]));
    }
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += shape.iter().product::<u64>() * 2;
        let entry = json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, end] });
        header.insert(format!("{name}.weight"), entry);
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    let mut state = 1u32;
    file.extend((0..end / 2).flat_map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Numbers below one, of both signs.
        [(state >> 24) as u8, 0x3c | ((state >> 16) as u8 & 0x83)]
    }));
    fs::write(folder.join("model.safetensors"), file).unwrap();
    folder
}

/// A conversion that has begun to write.
fn begun(source: &Path, output: &Path) -> (Child, BufReader<impl Read>) {
    let mut command = pajamas().unwrap();
    command.args(["convert", "-p", "Q3_K_M", "--threads", "1", "-o"]).args([output, source]);
    let mut child = piped(command.stdin(Stdio::null())).spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains('%') {
        line.clear();
        assert!(errors.read_line(&mut line).unwrap() > 0, "it ended before it began");
    }
    (child, errors)
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_conversion_ends_and_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let (source, output) = (large(parent.path()), parent.path().join("out"));
    let (child, mut errors) = begun(&source, &output);
    interrupt(&child).unwrap();
    let finished = Finished::wait(child).unwrap();
    let mut rest = String::new();
    errors.read_to_string(&mut rest).unwrap();
    assert_eq!(finished.status.code(), Some(130), "{rest}");
    assert!(rest.contains("error[cancelled]"), "{rest}");
    assert!(!output.exists());
}

#[test]
fn a_folder_has_one_writer_at_a_time() {
    let parent = tempfile::tempdir().unwrap();
    let (source, output) = (large(parent.path()), parent.path().join("out"));
    let (child, _errors) = begun(&source, &output);
    // It holds still while the other tries.
    signal(&child, "-STOP");
    let second = |precision: &str| {
        let mut command = pajamas().unwrap();
        command.args(["convert", "-p", precision, "-o"]).args([&output, &source]);
        Finished::wait(piped(command.stdin(Stdio::null())).spawn().unwrap()).unwrap()
    };
    let refused = second("Q8_0");
    assert_eq!(refused.refusal().unwrap(), ("output-busy".into(), 5), "{}", refused.stderr);
    signal(&child, "-KILL");
    signal(&child, "-CONT");
    Finished::wait(child).unwrap();
    // Whoever was killed holds nothing, and what it left half-written is in nobody's way.
    let finished = second("F16");
    assert!(finished.status.success(), "{}", finished.stderr);
    assert_eq!(second("Q3_K_M").status.code(), Some(0));
    let left: Vec<_> =
        fs::read_dir(output.join("gguf/Q3_K_M")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}
