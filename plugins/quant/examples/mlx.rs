//! Converts a Hugging Face folder to a folder for mlx_lm; or writes the random models of the parity tests for it.
//!
//!     cargo run --release -p pajamas-quant --example mlx -- models/chat/hf /tmp/chat-mlx 4bit ['{"pure": true}']
//!     cargo run --release -p pajamas-quant --example mlx -- --models FOLDER

#[path = "../tests/support/mod.rs"]
mod support;

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use pajamas_plugin_api::Cancel;
use pajamas_quant::mlx::{MlxConversion, Recipe};
use pajamas_quant::source::Source;
use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (folder, out, precision, options) = match words[..] {
        ["--models", folder] => {
            support::mlx::models().iter().for_each(|m| println!("{}", m.write(Path::new(folder)).display()));
            return Ok(());
        }
        [folder, out, precision] => (folder, out, precision, Value::Null),
        [folder, out, precision, options] => (folder, out, precision, serde_json::from_str(options)?),
        _ => return Err("usage: mlx FOLDER OUT PRECISION [OPTIONS as JSON], or mlx --models FOLDER".into()),
    };
    let start = Instant::now();
    let source = Source::open(Path::new(folder))?;
    let conversion = MlxConversion::plan(&source, &Recipe::new(precision, &options)?)?;
    conversion.notes().iter().for_each(|note| println!("note: {note}"));
    conversion.write(Path::new(out), &Cancel::new(), &mut |_, _, _| ControlFlow::Continue(()))?;
    println!("{out}: {} in {:.2?}", conversion.metadata(), start.elapsed());
    Ok(())
}
