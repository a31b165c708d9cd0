//! Converts a Hugging Face folder to a GGUF file, and says what the model is.
//!
//!     cargo run --release -p pajamas-quant --example convert -- models/chat/hf /tmp/chat.gguf f16 [PRE]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use pajamas_plugin_api::Cancel;
use pajamas_quant::architecture::Facts;
use pajamas_quant::source::Source;
use pajamas_quant::{Conversion, OutType};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, file, out_type, rest @ ..] = &arguments[..] else {
        return Err("usage: convert FOLDER FILE.gguf f32|f16|bf16|q8_0 [PRE]".into());
    };
    let start = Instant::now();
    let source = Source::open(Path::new(folder))?;
    println!("{}", serde_json::to_string_pretty(&Facts::of(&source)?)?);
    let out_type: OutType = out_type.parse()?;
    let conversion = Conversion::plan(&source, out_type, rest.first().map(String::as_str))?;
    conversion.notes().iter().for_each(|note| println!("note: {note}"));
    let bytes = conversion.write(Path::new(file), &Cancel::new(), &mut |_, _, _| Ok(()))?;
    println!("{file}: {bytes} bytes in {:.2?}", start.elapsed());
    Ok(())
}
