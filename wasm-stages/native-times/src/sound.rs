//! The stages that listen, on one sound file.

use audio_decode::AudioDecode;
use log_mel::LogMel;
use pajamas_stage::Values;
use pcm_encode::PcmEncode;
use resample::Resample;
use serde_json::json;
use vad_frame::VadFrame;

use super::{Failure, time, told};

/// Times each stage on what the ones before it left.
pub fn measure(file: &str) -> Result<(), Failure> {
    let mut steps = Vec::new();
    let bytes = std::fs::read(file)?;
    let decoded = || Values::new().with("bytes", bytes.clone());
    let sound =
        time::<AudioDecode>(&mut steps, "audio-decode", json!({}), decoded)?.audio("audio").map_err(told)?;
    let whole = || Values::new().with("audio", sound.clone());
    let narrow = time::<Resample>(&mut steps, "resample", json!({}), whole)?.audio("audio").map_err(told)?;
    let heard = || Values::new().with("audio", narrow.clone());
    time::<LogMel>(&mut steps, "log-mel", json!({}), heard)?;
    time::<VadFrame>(&mut steps, "vad-frame", json!({}), heard)?;
    time::<PcmEncode>(&mut steps, "pcm-encode", json!({}), heard)?;
    time::<PcmEncode>(&mut steps, "pcm-encode, FLAC", json!({ "format": "flac" }), heard)?;
    println!("{}", json!({ "steps": steps }));
    Ok(())
}
