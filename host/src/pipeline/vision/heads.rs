//! What is done with what a model gives for a picture.

use pajamas_plugin_api::{Dim, Signature, TensorSpec};
use serde_json::json;

use super::picture::Picture;
use super::{Beside, embedders, size, stage};
use crate::config::{StageStep, Step, Wiring};
use crate::error::Result;

/// The output of a YOLOv8 or YOLO11 detector: four numbers of a box and one score for each class in one of the last two
/// dimensions, many boxes in the other. Mask coefficients come after the scores when there are prototypes.
pub struct Head<'s> {
    boxes: &'s TensorSpec,
    alone: bool,
    prototypes: Option<&'s TensorSpec>,
    /// How many classes it knows, where that can be told.
    pub classes: Option<u64>,
}

impl<'s> Head<'s> {
    pub fn of(signature: &'s Signature) -> Option<Self> {
        let boxes = signature.outputs.first()?;
        let [_, rows, columns] = boxes.shape.as_slice() else { return None };
        let named = signature.metadata.get("names").map(|names| names.matches(':').count() as u64);
        let prototypes = signature.outputs[1..].iter().find(|output| output.shape.len() == 4);
        let coefficients = prototypes.map_or(Some(0), |output| size(&output.shape[1]));
        let counted = match (rows, columns) {
            (Dim::Fixed(a), Dim::Fixed(b)) if *a.min(b) > 4 && a.max(b) > &(4 * a.min(b)) => {
                let features = *a.min(b);
                coefficients.and_then(|coefficients| features.checked_sub(4 + coefficients))
            }
            (Dim::Dynamic(_), _) | (_, Dim::Dynamic(_)) if named.is_some() => None,
            _ => return None,
        };
        let classes = named.filter(|n| *n > 0).or(counted).filter(|n| *n > 0);
        Some(Self { boxes, alone: signature.outputs.len() == 1, prototypes, classes })
    }
}

/// How many classes a classifier's first output has, if it is one; `None` inside where it is not fixed.
#[expect(clippy::option_option, reason = "whether there is such an output, and whether its size is known")]
pub fn classes(signature: &Signature) -> Option<Option<u64>> {
    let output = signature.outputs.first()?;
    match output.shape.as_slice() {
        [_, classes] | [_, classes, _, _] => Some(size(classes)),
        _ => None,
    }
}

/// From the decoded picture to boxes.
pub fn detector(picture: &Picture<'_>, head: &Head<'_>) -> Vec<Step> {
    let mut letterbox =
        StageStep::new("letterbox", json!({ "width": picture.width, "height": picture.height }));
    // The upright picture stays `image`, for whoever draws on it.
    letterbox.wiring.outputs.insert("image".into(), "fitted".into());
    let mut normalize =
        StageStep::new("image-normalize", json!({ "layout": picture.layout, "dtype": picture.dtype() }));
    normalize.wiring.inputs.insert("image".into(), "fitted".into());
    let mut decode = StageStep::new("yolo-decode", json!({}));
    if let Some(classes) = head.classes {
        decode.options.insert("classes".into(), classes.into());
    }
    if !head.alone {
        decode.wiring.inputs.insert("tensor".into(), head.boxes.name.clone());
    }
    vec![
        Step::Stage(letterbox),
        Step::Stage(normalize),
        Step::Model(Wiring::default()),
        Step::Stage(decode),
        stage("nms", json!({})),
    ]
}

/// From boxes and prototypes to masks, when the model gives prototypes.
pub fn masks(picture: &Picture<'_>, head: &Head<'_>) -> Option<Step> {
    let prototypes = head.prototypes?;
    let mut step = StageStep::new("mask-decode", json!({}));
    if let Some(cells) = prototypes.shape.last().and_then(size).filter(|cells| *cells > 0) {
        step.options.insert("stride".into(), json!(picture.width as f64 / cells as f64));
    }
    step.wiring.inputs.insert("prototypes".into(), prototypes.name.clone());
    Some(Step::Stage(step))
}

/// From the decoded picture to the likeliest classes.
pub fn classifier(picture: &Picture<'_>, signature: &Signature, beside: &Beside) -> Vec<Step> {
    let mut topk = StageStep::new("softmax-topk", json!({}));
    if let Some(output) = signature.outputs.first().filter(|_| signature.outputs.len() > 1) {
        topk.wiring.inputs.insert("tensor".into(), output.name.clone());
    }
    vec![
        stage("image-normalize", picture.normalize(signature, beside)),
        Step::Model(Wiring::default()),
        Step::Stage(topk),
    ]
}

/// From the decoded picture, and names of classes as texts, to the likeliest of them: for a model as CLIP that says how well
/// pictures and texts belong together. `None` for any other.
pub fn zero_shot(picture: &Picture<'_>, signature: &Signature, beside: &Beside) -> Result<Option<Vec<Step>>> {
    const SCORES: &str = "logits_per_image";
    let input = |name: &str| signature.inputs.iter().any(|spec| spec.name == name);
    if !input("input_ids") || signature.outputs.iter().all(|output| output.name != SCORES) {
        return Ok(None);
    }
    let mut normalize = StageStep::new("image-normalize", picture.normalize(signature, beside));
    normalize.wiring.outputs.insert("tensor".into(), picture.spec.name.clone());
    let mut tokenize = embedders::tokenize(signature, beside)?;
    // What CLIP's own pictures came with.
    tokenize.options.insert("template".into(), json!("a photo of a {}"));
    let mut topk = StageStep::new("softmax-topk", json!({}));
    let mut model = Wiring::default();
    model.outputs.insert(SCORES.into(), SCORES.into());
    topk.wiring.inputs.insert("tensor".into(), SCORES.into());
    let steps = [
        Step::Stage(normalize),
        Step::Stage(tokenize),
        Step::Model(model),
        Step::Stage(topk),
        // The request has the names.
        stage("labels", json!({ "names": [] })),
    ];
    Ok(Some(steps.into()))
}
