//! What a file is, by what it begins with: an extension is only a hope.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};

/// Enough for every signature below.
const HEAD: usize = 64;

/// The formats known by their first bytes.
pub(super) const FORMATS: [&str; 2] = ["gguf", "onnx"];

/// The format of a model file, one of [`FORMATS`].
///
/// # Errors
/// `model-invalid` for everything else, with what it looks like; `file-not-found`, `io`.
pub(super) fn format_of(path: &Path) -> Result<&'static str> {
    let mut head = Vec::with_capacity(HEAD);
    File::open(path)
        .and_then(|file| file.take(HEAD as u64).read_to_end(&mut head))
        .map_err(|e| Error::io(path, &e))?;
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    recognise(&head, &extension).map_err(|(found, help)| {
        let expected = match extension.as_str() {
            "gguf" => "a GGUF model",
            "onnx" => "an ONNX model",
            _ => "a model (GGUF or ONNX)",
        };
        Error::new("model-invalid", format!("{}: not {expected} but {found}", path.display())).help(help)
    })
}

fn recognise(head: &[u8], extension: &str) -> Result<&'static str, (&'static str, &'static str)> {
    const AGAIN: &str = "download the file again, and compare its size";
    const CONVERT: &str = "convert it to GGUF or ONNX first";
    if head.starts_with(b"GGUF") {
        return Ok("gguf");
    }
    if is_onnx(head) {
        return Ok("onnx");
    }
    let text =
        || std::str::from_utf8(head).is_ok_and(|t| t.chars().all(|c| !c.is_control() || c.is_whitespace()));
    Err(match head {
        [] => ("an empty file", AGAIN),
        _ if head.iter().all(|byte| *byte == 0) => ("a file of zeros", AGAIN),
        _ if head.starts_with(b"version https://git-lfs") => {
            ("a Git LFS pointer", "fetch the content: `git lfs pull`")
        }
        _ if head.starts_with(b"<") => {
            ("a web page", "the download failed: open the address in a browser to see why")
        }
        [b'l', b'm', b'g', b'g', ..] | [b't' | b'f' | b'a', b'j' | b'm', b'g', b'g', ..] => {
            ("a GGML file from before GGUF", CONVERT)
        }
        [b'P', b'K', 3, 4, ..] => ("a zip archive, perhaps of PyTorch weights", CONVERT),
        [0x80, 2..=5, ..] => ("a Python pickle, perhaps of PyTorch weights", CONVERT),
        [_, _, _, _, _, 0, 0, 0, b'{', ..] => ("a safetensors file", CONVERT),
        [0x89, b'H', b'D', b'F', ..] => ("an HDF5 file, perhaps of Keras weights", CONVERT),
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => ("a TensorFlow Lite model", CONVERT),
        [_, _, _, _, b'O', b'R', b'T', b'M', ..] => {
            ("an ONNX Runtime (ORT) file", "use the ONNX file it was made from")
        }
        [0x7f, b'E', b'L', b'F', ..] => ("a program or library", "name the model's file"),
        // The right kind of name, an unknown beginning: most likely the file is damaged.
        _ if extension == "gguf" || extension == "onnx" => ("a file with another beginning", AGAIN),
        _ if text() => ("text", "name the model's file"),
        _ => ("something else", "name a .gguf or .onnx file, or an artifact's folder"),
    })
}

/// A `ModelProto` begins with its `ir_version` (field 1, a small number), and goes on with another of its fields.
fn is_onnx(head: &[u8]) -> bool {
    const NEXT_FIELDS: [u8; 9] = [0x12, 0x1a, 0x22, 0x28, 0x32, 0x3a, 0x42, 0x72, 0xa2];
    matches!(head, [0x08, 1..=0x3f, next, ..] if NEXT_FIELDS.contains(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str, content: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let error = format_of(&path).expect_err("the file should have been refused");
        assert_eq!(error.code(), "model-invalid");
        assert!(!error.how_to_fix().is_empty());
        error.message().replace(&format!("{}/", folder.path().display()), "")
    }

    #[test]
    fn models_are_known_by_their_first_bytes() {
        assert_eq!(recognise(b"GGUF\x03\0\0\0", "bin"), Ok("gguf"));
        assert_eq!(recognise(b"\x08\x08\x12\x07pytorch", "bin"), Ok("onnx"));
        assert_eq!(recognise(b"\x08\x0a:\x9f\x01", ""), Ok("onnx"));
    }

    #[test]
    fn what_is_not_a_model_is_told_what_it_is() {
        assert_eq!(refusal("a.gguf", b""), "a.gguf: not a GGUF model but an empty file");
        assert_eq!(refusal("a.onnx", b"\x08"), "a.onnx: not an ONNX model but a file with another beginning");
        assert_eq!(
            refusal("a.gguf", b"FUGG\x03\0\0\0"),
            "a.gguf: not a GGUF model but a file with another beginning"
        );
        assert_eq!(
            refusal("a.gguf", b"version https://git-lfs.github.com/spec/v1\n"),
            "a.gguf: not a GGUF model but a Git LFS pointer"
        );
        assert_eq!(refusal("a.onnx", b"<!DOCTYPE html>"), "a.onnx: not an ONNX model but a web page");
        assert_eq!(
            refusal("model.pt", b"PK\x03\x04"),
            "model.pt: not a model (GGUF or ONNX) but a zip archive, perhaps of PyTorch weights"
        );
        assert_eq!(
            refusal("m.safetensors", b"\x10\x01\0\0\0\0\0\0{\"a\""),
            "m.safetensors: not a model (GGUF or ONNX) but a safetensors file"
        );
        assert_eq!(refusal("notes.txt", b"hello"), "notes.txt: not a model (GGUF or ONNX) but text");
        assert_eq!(
            refusal("model.bin", &[0; 100]),
            "model.bin: not a model (GGUF or ONNX) but a file of zeros"
        );
    }
}
