//! The stages around a model that speaks, where the configuration has no pipeline for it.

use std::collections::BTreeMap;

use pajamas_plugin_api::{Signature, TensorSpec};
use serde_json::json;

use super::SOUND;
use super::params::{Format, Speaking};
use crate::config::{GrantedFile, StageStep, Step, Wiring};
use crate::error::{Error, Result};

/// The files of a voice, by the names that the stage `voice-text` knows them by.
pub type Files = BTreeMap<String, GrantedFile>;

/// What the inputs of voices are called in the exports that there are, and the values that they take: piper's, those of
/// transformers by Optimum, and sherpa's.
const INPUTS: [(&str, &str); 20] = [
    ("input", "ids"),
    ("input_ids", "ids"),
    ("x", "ids"),
    ("text", "ids"),
    ("tokens", "ids"),
    ("input_lengths", "ids_length"),
    ("x_length", "ids_length"),
    ("x_lengths", "ids_length"),
    ("text_lengths", "ids_length"),
    ("attention_mask", "mask"),
    ("scales", "scales"),
    ("noise_scale", "noise_scale"),
    ("length_scale", "length_scale"),
    ("noise_w", "noise_w"),
    ("noise_scale_w", "noise_w"),
    ("noise_scale_dur", "noise_w"),
    ("sid", "speaker"),
    ("speaker_id", "speaker"),
    ("speaker", "speaker"),
    ("spk_id", "speaker"),
];
/// What their sound is called.
const OUTPUTS: [&str; 5] = ["output", "waveform", "y", "audio", "wav"];

/// The usual steps: text to ids by the voice's own files, and the model.
///
/// # Errors
/// `pipeline-unknown` where there are no such files, or the model takes something else.
pub fn default_steps(signature: &Signature, files: Files) -> Result<Vec<Step>> {
    let mut wiring = Wiring::default();
    for input in &signature.inputs {
        let known = INPUTS.iter().find(|(name, _)| *name == input.name);
        let (_, value) = known
            .ok_or_else(|| unknown(signature, &format!("its input `{}` is none of a voice's", input.name)))?;
        wiring.inputs.insert(input.name.clone(), (*value).to_owned());
    }
    if !wiring.inputs.values().any(|value| value == "ids") {
        return Err(unknown(signature, "an input `input` or `input_ids` was looked for"));
    }
    let named = OUTPUTS.iter().find(|name| signature.outputs.iter().any(|output| output.name == **name));
    let sound = named.copied().or(signature.outputs.first().map(|output| output.name.as_str()));
    let sound = sound.ok_or_else(|| unknown(signature, "an output with sound was looked for"))?;
    wiring.outputs.insert(sound.to_owned(), SOUND.to_owned());
    if !["voice.json", "vocab.json"].iter().any(|name| files.contains_key(*name)) {
        return Err(unknown(
            signature,
            "beside it lies neither a file of its name with .json behind it, as piper has it, nor vocab.json, as MMS has it",
        ));
    }
    let mut read = StageStep::new("voice-text", json!({}));
    read.files = files;
    Ok(vec![Step::Stage(read), Step::Model(wiring)])
}

/// The stages that write sound as it was asked for. What leaves piece by piece leaves as bare samples.
pub fn encode(params: &Speaking) -> Vec<Step> {
    let resample = params.rate().map(|rate| StageStep::new("resample", json!({ "rate": rate })));
    let format = if params.format == Format::Flac { Format::Flac } else { Format::Pcm };
    let write = StageStep::new("pcm-encode", json!({ "format": format.name() }));
    resample.into_iter().chain([write]).map(Step::Stage).collect()
}

fn unknown(signature: &Signature, why: &str) -> Error {
    let names =
        |specs: &[TensorSpec]| specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>().join(", ");
    let (takes, gives) = (names(&signature.inputs), names(&signature.outputs));
    let takes = if takes.is_empty() { "no tensors".to_owned() } else { takes };
    let message =
        format!("how to speak with this model cannot be told: it takes {takes}; gives {gives}; {why}");
    Error::new("pipeline-unknown", message).help(
        "put the voice's own files beside the model: VOICE.onnx.json of a piper voice; vocab.json, config.json and \
         tokenizer_config.json of an MMS voice. Or write a [[pipelines]] entry with its steps and name it in the model's \
         `pipeline`:\n\
         [[pipelines]]\nid = \"mine\"\ntask = \"speak\"\nsteps = [{ stage = \"voice-text\", files = { \"voice.json\" = \
         \"artifact:voice.json\" } }, { model = true, inputs = { input = \"ids\", input_lengths = \"ids_length\", scales = \
         \"scales\" }, outputs = { output = \"sound\" } }]",
    )
}

#[cfg(test)]
mod tests {
    use pajamas_plugin_api::{DType, Dim};

    use super::*;

    fn signature(inputs: &[&str], outputs: &[&str]) -> Signature {
        let spec = |name: &&str| TensorSpec {
            name: (*name).to_owned(),
            dtype: DType::I64,
            shape: vec![Dim::Fixed(1), Dim::Dynamic("n".into())],
        };
        let (inputs, outputs) = (inputs.iter().map(spec).collect(), outputs.iter().map(spec).collect());
        Signature { inputs, outputs, ..Signature::default() }
    }

    fn files(name: &str) -> Files {
        Files::from([(name.to_owned(), GrantedFile::Artifact(name.to_owned()))])
    }

    #[test]
    fn known_exports_get_their_wiring() {
        for (inputs, outputs, file) in [
            (&["input", "input_lengths", "scales", "sid"][..], &["output"][..], "voice.json"),
            (&["input_ids", "attention_mask"], &["spectrogram", "waveform"], "vocab.json"),
            (&["x", "x_length", "noise_scale", "length_scale", "noise_scale_w"], &["y"], "vocab.json"),
        ] {
            let steps = default_steps(&signature(inputs, outputs), files(file)).unwrap();
            let Step::Model(wiring) = &steps[1] else { panic!("{steps:?}") };
            assert_eq!((wiring.inputs.len(), wiring.input(inputs[0])), (inputs.len(), "ids"));
            assert_eq!(wiring.output(outputs[outputs.len() - 1]), "sound");
        }
    }

    #[test]
    fn what_is_no_voice_says_what_to_write() {
        let piper = &["input", "input_lengths", "scales"][..];
        for (inputs, file, words) in [
            (&["images"][..], "voice.json", "`images` is none of a voice's"),
            (&["scales"], "voice.json", "`input` or `input_ids`"),
            (&[], "voice.json", "no tensors"),
            (piper, "lexicon.txt", "beside it lies neither"),
        ] {
            let error = default_steps(&signature(inputs, &["output"]), files(file)).unwrap_err();
            assert_eq!(error.code(), "pipeline-unknown");
            assert!(error.message().contains(words) && error.how_to_fix().contains("voice-text"), "{error}");
        }
        assert!(default_steps(&signature(piper, &[]), files("voice.json")).is_err());
    }

    #[test]
    fn bare_samples_are_resampled_and_files_are_not() {
        let stages = |format, sample_rate| {
            let steps = encode(&Speaking { format, sample_rate, ..Speaking::default() });
            steps.iter().filter_map(|step| step.stage().map(str::to_owned)).collect::<Vec<_>>()
        };
        assert_eq!(stages(Format::Wav, None), ["pcm-encode"]);
        assert_eq!(stages(Format::Pcm, None), ["resample", "pcm-encode"]);
        assert_eq!(stages(Format::Flac, Some(8000)), ["resample", "pcm-encode"]);
    }
}
