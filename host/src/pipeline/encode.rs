//! Results as JSON: the shapes that others script against, the same in the CLI and over HTTP.

use serde_json::{Map, Value as Json, json};

use super::transcribe::{Segment, Transcript, language_name};
use crate::error::{Error, Result};
use crate::value::{Detection, Label, Value, Values};

/// A class's name, or its number when it has none.
pub fn label(name: Option<&str>, class_id: u32) -> String {
    name.map_or_else(|| format!("class {class_id}"), str::to_owned)
}

/// Boxes in pixels of the upright picture: `[{"label","class_id","score","box":[x1,y1,x2,y2]}]`.
pub fn detections(detections: &[Detection]) -> Json {
    let one = |d: &Detection| {
        let corners: Vec<Json> = d.bbox.iter().map(|v| rounded(*v, 2)).collect();
        json!({
            "label": label(d.label.as_deref(), d.class_id),
            "class_id": d.class_id,
            "score": rounded(d.score, 4),
            "box": corners,
        })
    };
    detections.iter().map(one).collect()
}

/// Boxes as [`detections`] writes them, each with its `mask` as COCO writes it, and its `polygons` where they were asked for:
/// from `masks` as the stage mask-decode leaves them.
///
/// # Errors
/// `pipeline-incomplete` when there is not one mask for each box.
pub fn segments(detections: &[Detection], masks: &str) -> Result<Json> {
    let masks: Vec<Map<String, Json>> = serde_json::from_str(masks).unwrap_or_default();
    if masks.len() != detections.len() {
        let what = format!("the pipeline left {} masks for {} boxes", masks.len(), detections.len());
        return Err(Error::new("pipeline-incomplete", what).help("put the stage mask-decode behind nms"));
    }
    let mut objects = self::detections(detections);
    for (object, mut mask) in objects.as_array_mut().into_iter().flatten().zip(masks) {
        object["mask"] = mask.remove("rle").unwrap_or_default();
        if let Some(polygons) = mask.remove("polygons") {
            object["polygons"] = polygons;
        }
    }
    Ok(objects)
}

/// The place of the main object among boxes in a picture of this size: the largest and most central that was found with
/// confidence, which is the highest product of score, square root of the box's share of the picture, and nearness to its
/// centre, from 1 in the centre to 0.5 in a corner.
pub fn main_object(detections: &[Detection], (width, height): (u32, u32)) -> Option<usize> {
    let (width, height) = (width.max(1) as f32, height.max(1) as f32);
    let weight = |d: &Detection| {
        let [x1, y1, x2, y2] = d.bbox;
        let share = (((x2 - x1) / width) * ((y2 - y1) / height)).clamp(0.0, 1.0);
        // Half the picture's sides are 1.
        let away = [(x1 + x2) / width - 1.0, (y1 + y2) / height - 1.0];
        let apart = (away[0].hypot(away[1]) / std::f32::consts::SQRT_2).clamp(0.0, 1.0);
        d.score * share.sqrt() * (1.0 - 0.5 * apart)
    };
    // Of equals the first, which has the higher score.
    (0..detections.len()).rev().max_by(|a, b| weight(&detections[*a]).total_cmp(&weight(&detections[*b])))
}

/// Classes, the likeliest first: `[{"label","class_id","score"}]`.
pub fn labels(labels: &[Label]) -> Json {
    let one = |l: &Label| {
        json!({
            "label": label(l.label.as_deref(), l.class_id),
            "class_id": l.class_id,
            "score": rounded(l.score, 4),
        })
    };
    labels.iter().map(one).collect()
}

/// Width and height of the upright picture that a pipeline decoded (its value `size`), or zeros.
pub fn picture_size(values: &Values) -> (u32, u32) {
    match values.get("size") {
        Some(Value::Tensor(size)) => match size.as_f32() {
            Some(&[width, height]) => (width as u32, height as u32),
            _ => (0, 0),
        },
        _ => (0, 0),
    }
}

/// A transcript in the shape of OpenAI's `verbose_json`, with a `confidence` in 0..=1 for each segment.
pub fn transcript(transcript: &Transcript) -> Json {
    let segment = |s: &Segment| {
        json!({
            "id": s.id,
            "seek": s.seek,
            "start": s.start,
            "end": s.end,
            "text": s.text,
            "tokens": s.tokens,
            "temperature": rounded(s.temperature, 4),
            "avg_logprob": rounded(s.avg_logprob, 4),
            "compression_ratio": rounded(s.compression_ratio, 4),
            "no_speech_prob": rounded(s.no_speech_prob, 6),
            "confidence": rounded(s.confidence(), 4),
        })
    };
    let segments: Vec<Json> = transcript.segments.iter().map(segment).collect();
    json!({
        "task": if transcript.translated { "translate" } else { "transcribe" },
        "language": language_name(&transcript.language),
        "duration": (transcript.duration * 100.0).round() / 100.0,
        "text": transcript.text,
        "segments": segments,
        "usage": duration(transcript),
    })
}

/// What OpenAI's API counts of a recording: its seconds, the last one begun counted.
pub fn duration(transcript: &Transcript) -> Json {
    json!({ "type": "duration", "seconds": transcript.duration.ceil() as u64 })
}

/// Digits beyond these are noise that makes results differ between machines.
fn rounded(value: f32, digits: i32) -> Json {
    let scale = 10f64.powi(digits);
    json!((f64::from(value) * scale).round() / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shapes_are_stable() {
        let found = [Detection {
            bbox: [1.234, 2.0, 3.0, 4.0],
            score: 0.91239,
            class_id: 5,
            label: Some("bus".into()),
        }];
        assert_eq!(
            detections(&found).to_string(),
            r#"[{"label":"bus","class_id":5,"score":0.9124,"box":[1.23,2.0,3.0,4.0]}]"#
        );
        let masks = r#"[{"rle":{"size":[4,4],"counts":"06"},"polygons":[[1.0]]}]"#;
        let object = &segments(&found, masks).unwrap()[0];
        assert_eq!((&object["mask"]["counts"], &object["polygons"]), (&json!("06"), &json!([[1.0]])));
        assert_eq!(segments(&found, "[]").unwrap_err().code(), "pipeline-incomplete");
        let seen = [Label { class_id: 3, score: 0.5, label: None }];
        assert_eq!(labels(&seen).to_string(), r#"[{"label":"class 3","class_id":3,"score":0.5}]"#);
    }

    #[test]
    fn the_main_object_is_large_and_central() {
        let found = |bbox, score| Detection { bbox, score, class_id: 0, label: None };
        let corner = found([0.0, 0.0, 30.0, 30.0], 0.95);
        let centre = found([30.0, 30.0, 70.0, 70.0], 0.9);
        let doubtful = found([10.0, 10.0, 90.0, 90.0], 0.3);
        let at = |found: &[Detection]| main_object(found, (100, 100));
        assert_eq!(at(&[corner.clone(), centre.clone(), doubtful.clone()]), Some(1));
        assert_eq!(at(&[corner.clone(), doubtful]), Some(1));
        assert_eq!(at(&[centre.clone(), centre]), Some(0));
        assert_eq!((at(&[corner]), at(&[])), (Some(0), None));
    }
}
