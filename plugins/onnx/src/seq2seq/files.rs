//! The files of an encoder and its decoders, as Optimum lays them out.

use std::path::{Path, PathBuf};

/// What an encoder's file is called, up to what says its precision: `encoder_model.onnx`, `encoder_model_fp16.onnx`.
const ENCODER: &str = "encoder_model";

/// The decoders that belong to the encoder at `path`: one file with two branches, or one for the first run and one for
/// those that have a past. Empty when the file is no encoder, or has no decoders beside it that can keep a cache.
pub(crate) fn decoders(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some(precision) = name.strip_prefix(ENCODER) else { return Vec::new() };
    let beside = |kind: &str| Some(path.with_file_name(format!("{kind}{precision}"))).filter(|p| p.is_file());
    if let Some(merged) = beside("decoder_model_merged") {
        return vec![merged];
    }
    match (beside("decoder_model"), beside("decoder_with_past_model")) {
        (Some(first), Some(later)) => vec![first, later],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoders_are_found_beside_their_encoder() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let put = |name: &str| std::fs::write(file(name), "x").unwrap();
        put("encoder_model_fp16.onnx");
        put("decoder_model_fp16.onnx");
        assert!(decoders(&file("encoder_model_fp16.onnx")).is_empty());
        put("decoder_with_past_model_fp16.onnx");
        assert_eq!(
            decoders(&file("encoder_model_fp16.onnx")),
            [file("decoder_model_fp16.onnx"), file("decoder_with_past_model_fp16.onnx")]
        );
        put("decoder_model_merged_fp16.onnx");
        assert_eq!(decoders(&file("encoder_model_fp16.onnx")), [file("decoder_model_merged_fp16.onnx")]);
        assert!(decoders(&file("encoder_model.onnx")).is_empty() && decoders(&file("model.onnx")).is_empty());
    }
}
