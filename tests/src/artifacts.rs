//! Models to make artifacts of, and what became of them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::fixtures::{Result, repository};

/// Every file below a folder, sorted, with `/`.
pub fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        match entry.path().is_dir() {
            true => found.extend(files(&entry.path()).iter().map(|below| format!("{name}/{below}"))),
            false => found.push(name),
        }
    }
    found.sort();
    found
}

/// The chat model grown until its conversion takes seconds, in a folder `large`: its tokenizer, and made-up weights.
///
/// # Errors
/// When it cannot be written.
pub fn large(parent: &Path) -> Result<PathBuf> {
    let (chat, folder) = (repository().join("models/chat/hf"), parent.join("large"));
    fs::create_dir(&folder)?;
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(chat.join(name), folder.join(name))?;
    }
    let mut config: Value = serde_json::from_slice(&fs::read(chat.join("config.json"))?)?;
    let (hidden, inner, layers, vocabulary) =
        (1024, 2048, 4, config["vocab_size"].as_u64().ok_or("no vocab_size")?);
    let sizes = json!({
        "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": 8,
        "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": true
    });
    for (key, value) in sizes.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    fs::write(folder.join("config.json"), config.to_string())?;

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
    fs::write(folder.join("model.safetensors"), file)?;
    Ok(folder)
}
