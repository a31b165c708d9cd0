//! Writes the random models of the parity tests, and the chat model, into a folder, for llama.cpp's own converter:
//!
//!     cargo run --release -p pajamas-quant --example random_models -- FOLDER

#[path = "../tests/support/mod.rs"]
mod support;

use std::error::Error;
use std::path::Path;

use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: random_models FOLDER")?;
    for model in support::families::all() {
        let written = model.write(Path::new(&folder));
        std::fs::write(written.join("peer.json"), support::pretty(&json!({"pre": model.pre})))?;
        println!("{}", written.display());
    }
    // The repository's own chat model beside them.
    let chat = Path::new(&folder).join("hf");
    std::fs::create_dir_all(&chat)?;
    for file in std::fs::read_dir(support::repository().join("models/chat/hf"))? {
        let file = file?;
        std::fs::copy(file.path(), chat.join(file.file_name()))?;
    }
    std::fs::write(chat.join("peer.json"), support::pretty(&json!({"pre": "gpt-2"})))?;
    Ok(())
}
