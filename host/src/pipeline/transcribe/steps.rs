//! The stages around a model that transcribes, where the configuration has no pipeline for it.

use pajamas_plugin_api::{Dim, Signature};
use serde_json::{Value as Json, json};

use crate::config::{GrantedFile, StageStep, Step, Wiring};

/// The mel bands that Whisper's front end makes.
const BANDS: [u64; 2] = [80, 128];

/// The usual steps: decode, bring to 16 kHz and one channel, and the spectrogram with as many bands as the model takes.
pub fn default_steps(signature: &Signature) -> Vec<Step> {
    let bands = signature.inputs.first().and_then(|input| match input.shape.get(1) {
        Some(Dim::Fixed(bands)) if BANDS.contains(bands) => Some(*bands),
        _ => None,
    });
    vec![
        stage("audio-decode", json!({ "mono": true })),
        stage("resample", json!({})),
        stage("log-mel", json!({ "mels": bands.unwrap_or(BANDS[0]) })),
        Step::Model(Wiring::default()),
    ]
}

/// The one step that turns a user's words into tokens: it is granted the model's `tokenizer.json`. Words that look like
/// special tokens stay words: a prompt must not steer the model.
pub fn tokenize() -> Vec<Step> {
    let mut step = StageStep::new("tokenize", json!({ "add_special_tokens": false, "parse_special": false }));
    step.files.insert("tokenizer.json".into(), GrantedFile::Artifact("tokenizer.json".into()));
    vec![Step::Stage(step)]
}

fn stage(name: &str, options: Json) -> Step {
    Step::Stage(StageStep::new(name, options))
}

#[cfg(test)]
mod tests {
    use pajamas_plugin_api::{DType, TensorSpec};

    use super::*;

    #[test]
    fn the_spectrogram_has_as_many_bands_as_the_model_takes() {
        for (dim, bands) in [(Dim::Fixed(128), 128), (Dim::Fixed(80), 80), (Dim::Dynamic("mels".into()), 80)]
        {
            let shape = vec![Dim::Dynamic("batch".into()), dim, Dim::Fixed(3000)];
            let input = TensorSpec { name: "input_features".into(), dtype: DType::F32, shape };
            let steps = default_steps(&Signature { inputs: vec![input], ..Signature::default() });
            let Step::Stage(mel) = &steps[2] else { panic!("a stage") };
            assert_eq!((mel.stage.as_str(), &mel.options["mels"]), ("log-mel", &json!(bands)));
        }
    }
}
