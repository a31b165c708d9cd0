//! Writes the random models of the parity tests, and the chat model, into a folder, for llama.cpp's own converter:
//!
//!     cargo run --release -p pajamas-quant --example random_models -- FOLDER
//!
//! or one of half a billion parameters, which `cargo xtask bench` measures with:
//!
//!     cargo run --release -p pajamas-quant --example random_models -- FOLDER half-billion

#[path = "../tests/support/mod.rs"]
mod support;

use std::error::Error;
use std::path::Path;

use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = match &arguments[..] {
        [folder] => folder,
        [folder, size] if size == "half-billion" => {
            let mut model = support::families::half_billion();
            support::mlx::plain_bos(&mut model);
            println!("{}", model.write(Path::new(folder)).display());
            return Ok(());
        }
        _ => return Err("usage: random_models FOLDER [half-billion]".into()),
    };
    for model in support::families::all() {
        let written = model.write(Path::new(folder));
        std::fs::write(written.join("peer.json"), support::pretty(&json!({"pre": model.pre})))?;
        println!("{}", written.display());
    }
    // The repository's own chat model beside them.
    let chat = Path::new(folder).join("hf");
    std::fs::create_dir_all(&chat)?;
    for file in std::fs::read_dir(support::repository().join("models/chat/hf"))? {
        let file = file?;
        std::fs::copy(file.path(), chat.join(file.file_name()))?;
    }
    std::fs::write(chat.join("peer.json"), support::pretty(&json!({"pre": "gpt-2"})))?;
    Ok(())
}
