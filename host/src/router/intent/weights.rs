//! The file of weights: safetensors with three tensors, and what is open about the features in its metadata.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::Deserialize;

use super::Weights;
use super::features::Form;
use crate::error::{Error, Result};
use crate::router::fingerprint;

/// The form of the features that [`features`](super::features) computes.
const FORM: &str = "2";
/// The most bytes of a file: 64 labels over 2^18 buckets.
pub(super) const LARGEST: usize = 17 << 20;
/// The most bytes of the description at its begin.
const LARGEST_HEADER: usize = 64 << 10;
const MOST_LABELS: usize = 64;

/// What the file says of itself, as safetensors has it.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    tensors: BTreeMap<String, Place>,
}

/// Where a tensor lies.
#[derive(Deserialize)]
struct Place {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// Reads a file of weights.
///
/// # Errors
/// `intent-model-invalid` with what is wrong.
pub(super) fn read(file: &[u8]) -> Result<Weights> {
    if file.len() > LARGEST {
        return Err(invalid(format!("it has {} bytes, and {LARGEST} are the most", file.len())));
    }
    let (header, data) = parts(file)?;
    let metadata = &header.metadata;
    match metadata.get("form").map(String::as_str) {
        Some(FORM) => {}
        other => {
            let other = other.unwrap_or("1");
            return Err(invalid(format!(
                "it was trained on features of form {other}, and these are of form {FORM}"
            )));
        }
    }
    let form = Form {
        limit: number(metadata, "limit", 2, 1 << 16)?,
        longest: number(metadata, "longest", 1, 8)?,
        edge: number(metadata, "edge", 0, 1 << 10)?,
        bits: number(metadata, "bits", 8, 18)?,
        words: number(metadata, "words", 0.0, 100.0)?,
        edges: number(metadata, "edges", 0.0, 100.0)?,
    };
    let labels: Vec<String> =
        metadata.get("labels").iter().flat_map(|labels| labels.split(',')).map(str::to_owned).collect();
    if !(2..=MOST_LABELS).contains(&labels.len()) || labels.iter().any(String::is_empty) {
        return Err(invalid(format!(
            "`labels` names {} labels, and 2 to {MOST_LABELS} are meant",
            labels.len()
        )));
    }
    let tensor = |name: &str, dtype: &str, shape: &[usize], size: usize| -> Result<&[u8]> {
        let place =
            header.tensors.get(name).ok_or_else(|| invalid(format!("the tensor `{name}` is missing")))?;
        if place.dtype != dtype || place.shape != shape {
            let (found, wanted) = (&place.shape, shape);
            return Err(invalid(format!(
                "the tensor `{name}` is {} {found:?}, and {dtype} {wanted:?} is meant",
                place.dtype
            )));
        }
        let [begin, end] = place.data_offsets;
        let bytes =
            data.get(begin..end).filter(|bytes| bytes.len() == shape.iter().product::<usize>() * size);
        bytes.ok_or_else(|| invalid(format!("the tensor `{name}` is not all there")))
    };
    let floats = |name: &str| -> Result<Vec<f32>> {
        let bytes = tensor(name, "F32", &[labels.len()], 4)?;
        let floats: Vec<f32> = bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
        match floats.iter().all(|float| float.is_finite()) {
            true => Ok(floats),
            false => Err(invalid(format!("the tensor `{name}` has a number that is none"))),
        }
    };
    let weights = tensor("weight", "I8", &[labels.len(), 1 << form.bits], 1)?;
    Ok(Weights {
        weights: weights.iter().map(|byte| byte.cast_signed()).collect(),
        scale: floats("scale")?,
        bias: floats("bias")?,
        form,
        labels,
        fingerprint: fingerprint(file),
    })
}

/// The description of a file and what comes after it.
fn parts(file: &[u8]) -> Result<(Header, &[u8])> {
    let short = || invalid("it ends within its description".to_owned());
    let (length, rest) = file.split_first_chunk::<8>().ok_or_else(short)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > LARGEST_HEADER {
        return Err(invalid("it does not begin as safetensors do".to_owned()));
    }
    let (header, data) = rest.split_at_checked(length).ok_or_else(short)?;
    let header = serde_json::from_slice(header).map_err(|error| invalid(error.to_string()))?;
    Ok((header, data))
}

fn number<T: FromStr + PartialOrd + std::fmt::Display>(
    metadata: &BTreeMap<String, String>,
    key: &str,
    least: T,
    most: T,
) -> Result<T> {
    let number = metadata.get(key).and_then(|text| text.parse().ok());
    number.filter(|number| (&least..=&most).contains(&number)).ok_or_else(|| {
        let found = metadata.get(key).map_or("missing", String::as_str);
        invalid(format!("`{key}` is {found}, and must be a number from {least} to {most}"))
    })
}

fn invalid(what: String) -> Error {
    Error::new("intent-model-invalid", format!("the intent classifier cannot be used: {what}"))
        .help("make the file with models/intent/train.py of this version of pajamas")
}

#[cfg(test)]
mod tests {
    use super::super::BUILT_IN;
    use super::*;

    /// The built-in file with its description changed.
    fn changed(from: &str, to: &str) -> Vec<u8> {
        let length = u64::from_le_bytes(*BUILT_IN.first_chunk().unwrap()) as usize;
        let header = std::str::from_utf8(&BUILT_IN[8..8 + length]).unwrap();
        assert!(header.contains(from), "{from} is not in {header}");
        let header = header.replace(from, to);
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend(&BUILT_IN[8 + length..]);
        file
    }

    fn why(file: &[u8]) -> String {
        let error = read(file).unwrap_err();
        assert_eq!(error.code(), "intent-model-invalid");
        assert!(!error.how_to_fix().is_empty());
        error.message().to_owned()
    }

    #[test]
    fn a_damaged_file_says_what_is_wrong() {
        assert!(read(BUILT_IN).is_ok());
        for (from, to, words) in [
            ("\"form\":\"2\"", "\"form\":\"9\"", "features of form 9"),
            ("\"form\":", "\"shape\":", "features of form 1"),
            ("\"form\":\"2\"", "\"form\":2", "invalid type"),
            ("\"labels\":\"chat,", "\"labels\":\"more,chat,", "`weight` is I8"),
            ("\"labels\":\"chat,", "\"labels\":\",", "`labels`"),
            ("\"words\":\"", "\"words\":\"NaN", "`words` is NaN"),
            ("\"longest\":\"", "\"longest\":\"-", "`longest` is -"),
            ("\"I8\"", "\"U8\"", "`weight` is U8"),
            ("\"bias\"", "\"base\"", "`bias` is missing"),
        ] {
            let message = why(&changed(from, to));
            assert!(message.contains(words), "{message}");
        }
        assert!(why(b"").contains("ends within"));
        assert!(why(&[0xff; 64]).contains("safetensors"));
        assert!(why(&vec![0; LARGEST + 1]).contains("bytes"));
        assert!(why(&BUILT_IN[..BUILT_IN.len() - 1]).contains("not all there"));
    }

    #[test]
    fn a_file_that_is_cut_or_changed_anywhere_does_no_harm() {
        let step = (BUILT_IN.len() / 300).max(1);
        for end in (0..BUILT_IN.len()).step_by(step).chain(0..1024) {
            assert!(read(&BUILT_IN[..end]).is_err(), "cut at {end}");
        }
        for place in 0..1024 {
            let mut file = BUILT_IN.to_vec();
            file[place] ^= 0x55;
            // What changed may not matter; what is read can be used.
            if let Ok(weights) = read(&file) {
                weights.logits("Hello");
            }
        }
    }
}
