//! Quantizes a Hugging Face folder, and lets llama.cpp's own quantizer do the same from a file of plain numbers: how
//! long each takes, and whether they come to the same.
//!
//!     cargo run --release -p pajamas-quant --example quantize -- models/chat/hf Q4_K_M 4 /tmp

use std::error::Error;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pajamas_llama_cpp::{FileQuantization, quantize_file};
use pajamas_plugin_api::Cancel;
use pajamas_quant::quantize::{FileType, Folder, Options, Quantization};
use pajamas_quant::source::Source;
use pajamas_quant::{Conversion, OutType};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, precision, threads, scratch] = &arguments[..] else {
        return Err("usage: quantize FOLDER PRECISION THREADS SCRATCH".into());
    };
    let (file_type, threads): (FileType, usize) = (precision.parse()?, threads.parse()?);
    let place = |name: &str| -> PathBuf { Path::new(scratch).join(name) };
    let (plain, ours, theirs) = (place("plain.gguf"), place("ours.gguf"), place("theirs.gguf"));
    let timed = |what: &str, run: &mut dyn FnMut() -> Result<(), Box<dyn Error>>| {
        let start = Instant::now();
        run()?;
        println!("{what:<36} {:>8.2} s", start.elapsed().as_secs_f64());
        Ok::<_, Box<dyn Error>>(())
    };
    let silent = &mut |_: &str, _, _| Ok(());

    let source = Source::open(Path::new(folder))?;
    // The folder is in the page cache by then, for both alike.
    for out_type in [OutType::F32, OutType::F16, OutType::Bf16] {
        timed(&format!("folder to {}, 1 thread", out_type.name()), &mut || {
            let path = if out_type == OutType::F32 { &plain } else { &ours };
            Conversion::plan(&source, out_type, None)?.write(path, &Cancel::new(), silent)?;
            Ok(())
        })?;
    }
    timed(&format!("copying {} bytes", fs::metadata(&plain)?.len()), &mut || {
        fs::copy(&plain, &ours)?;
        Ok(File::open(&ours)?.sync_all()?)
    })?;
    timed(&format!("folder to {precision}, {threads} threads"), &mut || {
        let conversion = Conversion::plan(&source, OutType::F32, None)?;
        let folder = Folder::new(&conversion);
        let quantization = Quantization::plan(&folder, file_type, &Options::default())?;
        quantization.write(&ours, threads, &Cancel::new(), silent)?;
        Ok(())
    })?;
    timed("the same by llama.cpp, from the file", &mut || {
        let wanted = FileQuantization {
            file_type: file_type.number(),
            threads: u32::try_from(threads)?,
            ..FileQuantization::default()
        };
        Ok(quantize_file(&plain, &theirs, &wanted)?)
    })?;
    println!(
        "{} bytes, {}",
        fs::metadata(&ours)?.len(),
        if same(&ours, &theirs)? { "equal" } else { "DIFFERENT" }
    );
    [plain, ours, theirs].iter().try_for_each(fs::remove_file)?;
    Ok(())
}

fn same(a: &Path, b: &Path) -> std::io::Result<bool> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let n = a.read(&mut left)?;
        if n == 0 {
            return Ok(b.read(&mut right)? == 0);
        }
        b.read_exact(&mut right[..n])?;
        if left[..n] != right[..n] {
            return Ok(false);
        }
    }
}
