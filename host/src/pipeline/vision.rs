//! The pipeline of a vision model for which the configuration has none: read from the model's signature and
//! metadata, or an error that says what to write.

use std::collections::BTreeMap;

use pajamas_plugin_api::{DType, Dim, Signature, TensorSpec};
use serde_json::{Value as Json, json};

use crate::config::{GrantedFile, StageStep, Step, StepLimits, Task, Wiring};
use crate::error::{Error, Result};

/// Mean and standard deviation of ImageNet's training pictures: what classifiers without a word of their own were
/// trained with (torchvision's reference transforms).
const IMAGENET: ([f64; 3], [f64; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// Side of the resized picture over side of the crop, in the same transforms: 256 to 224.
const RESIZE_TO_CROP: f64 = 256.0 / 224.0;

/// How the model wants its picture.
struct Picture<'s> {
    spec: &'s TensorSpec,
    width: u64,
    height: u64,
    layout: &'static str,
}

/// The steps of `task` for a model with this signature. `labels` is the artifact's file with the names of the
/// classes, if it has one.
///
/// # Errors
/// `task-mismatch` for a text model; `pipeline-unknown` with what was found in the signature and what to write instead.
pub fn default_steps(task: Task, signature: &Signature, labels: Option<GrantedFile>) -> Result<Vec<Step>> {
    if signature.inputs.is_empty() {
        return Err(Error::new("task-mismatch", format!("the model takes no tensors, so it cannot {task}"))
            .help("choose a model that was made for pictures"));
    }
    let picture =
        Picture::of(signature).ok_or_else(|| unknown(task, signature, "an input of one RGB picture"))?;
    let mut steps = vec![stage("image-decode", json!({}))];
    match task {
        Task::Detect => {
            let classes = detector_classes(signature)
                .ok_or_else(|| unknown(task, signature, "an output [1, 4 + classes, boxes] as YOLOv8 has"))?;
            steps.extend(detector(&picture, signature, classes));
        }
        Task::Classify => {
            let ranked = |o: &TensorSpec| matches!(o.shape.len(), 2 | 4);
            if !signature.outputs.first().is_some_and(ranked) {
                return Err(unknown(task, signature, "an output [1, classes]"));
            }
            steps.extend(classifier(&picture, signature));
        }
        other => {
            return Err(Error::new(
                "pipeline-unknown",
                format!("there is no usual pipeline for {other} yet"),
            )
            .help("write a [[pipelines]] entry and name it in the model's `pipeline`"));
        }
    }
    steps.extend(names(signature, labels));
    Ok(steps)
}

/// The task that a vision model's metadata or outputs tell, if they do.
pub fn task(signature: &Signature) -> Option<Task> {
    Picture::of(signature)?;
    match signature.metadata.get("task").map(String::as_str) {
        Some("detect" | "segment") => Some(Task::Detect),
        Some("classify") => Some(Task::Classify),
        _ if detector_classes(signature).is_some() => Some(Task::Detect),
        _ => matches!(signature.outputs.first()?.shape.len(), 2 | 4).then_some(Task::Classify),
    }
}

impl<'s> Picture<'s> {
    fn of(signature: &'s Signature) -> Option<Self> {
        let [spec] = signature.inputs.as_slice() else { return None };
        let size = |dim: &Dim| match dim {
            Dim::Fixed(n) => Some(*n),
            Dim::Dynamic(_) => None,
        };
        let one = |dim: &Dim| size(dim).is_none_or(|n| n == 1);
        let image_size = || image_size(signature);
        match spec.shape.as_slice() {
            [batch, channels, height, width] if one(batch) && size(channels) == Some(3) => {
                let (height, width) = size(height).zip(size(width)).or_else(image_size)?;
                Some(Self { spec, width, height, layout: "nchw" })
            }
            [batch, height, width, channels] if one(batch) && size(channels) == Some(3) => {
                let (height, width) = size(height).zip(size(width)).or_else(image_size)?;
                Some(Self { spec, width, height, layout: "nhwc" })
            }
            _ => None,
        }
    }

    fn dtype(&self) -> &'static str {
        match self.spec.dtype {
            DType::F16 => "f16",
            DType::U8 => "u8",
            _ => "f32",
        }
    }
}

/// Ultralytics writes `imgsz` = `[height, width]` into the metadata of models with dynamic shapes.
fn image_size(signature: &Signature) -> Option<(u64, u64)> {
    let text = signature.metadata.get("imgsz")?;
    let sides: Vec<u64> = serde_json::from_str(text).ok()?;
    Some((*sides.first()?, *sides.last()?))
}

/// Number of classes when the first output is a YOLOv8 head: four numbers of a box and one score per class in one
/// of the last two dimensions, many boxes in the other. Mask coefficients of a segmentation head come after.
fn detector_classes(signature: &Signature) -> Option<Option<u64>> {
    let shape = signature.outputs.first()?.shape.as_slice();
    let [_, rows, columns] = shape else { return None };
    let named = signature.metadata.get("names").map(|names| names.matches(':').count() as u64);
    match (rows, columns) {
        (Dim::Fixed(a), Dim::Fixed(b)) if a.min(b) > &4 && a.max(b) > &(4 * a.min(b)) => Some(named),
        (Dim::Dynamic(_), _) | (_, Dim::Dynamic(_)) => named.map(Some),
        _ => None,
    }
}

fn detector(picture: &Picture<'_>, signature: &Signature, classes: Option<u64>) -> Vec<Step> {
    let mut letterbox = stage_step("letterbox", json!({ "width": picture.width, "height": picture.height }));
    // The upright picture stays `image`, for whoever draws on it.
    letterbox.wiring.outputs.insert("image".into(), "fitted".into());
    let mut normalize =
        stage_step("image-normalize", json!({ "layout": picture.layout, "dtype": picture.dtype() }));
    normalize.wiring.inputs.insert("image".into(), "fitted".into());
    let mut decode = stage_step("yolo-decode", json!({}));
    if let Some(classes) = classes.filter(|n| *n > 0) {
        decode.options.insert("classes".into(), classes.into());
    }
    if let Some(output) = signature.outputs.first().filter(|_| signature.outputs.len() > 1) {
        decode.wiring.inputs.insert("tensor".into(), output.name.clone());
    }
    vec![
        Step::Stage(letterbox),
        Step::Stage(normalize),
        Step::Model(Wiring::default()),
        Step::Stage(decode),
        stage("nms", json!({})),
    ]
}

fn classifier(picture: &Picture<'_>, signature: &Signature) -> Vec<Step> {
    let numbers =
        |key: &str| signature.metadata.get(key).and_then(|text| serde_json::from_str::<Json>(text).ok());
    let mut options = json!({
        "layout": picture.layout,
        "dtype": picture.dtype(),
        "mean": numbers("mean").unwrap_or_else(|| json!(IMAGENET.0)),
        "std": numbers("std").unwrap_or_else(|| json!(IMAGENET.1)),
    });
    let (width, height) = (picture.width, picture.height);
    if signature.metadata.get("resize").is_some_and(|r| r == "exact") {
        options["resize"] = json!("exact");
        options["width"] = json!(width);
        options["height"] = json!(height);
    } else {
        options["resize"] = json!("shorter-side");
        options["size"] = json!((width.max(height) as f64 * RESIZE_TO_CROP).round() as u64);
        options["crop"] = json!([width, height]);
    }
    let mut topk = stage_step("softmax-topk", json!({}));
    if let Some(output) = signature.outputs.first().filter(|_| signature.outputs.len() > 1) {
        topk.wiring.inputs.insert("tensor".into(), output.name.clone());
    }
    vec![stage("image-normalize", options), Step::Model(Wiring::default()), Step::Stage(topk)]
}

/// Names of the classes: the artifact's file, else the model's own metadata.
fn names(signature: &Signature, labels: Option<GrantedFile>) -> Option<Step> {
    let mut step = stage_step("labels", json!({}));
    match (labels, signature.metadata.get("names")) {
        (Some(file), _) => {
            step.files.insert("labels".into(), file);
        }
        (None, Some(names)) => {
            step.options.insert("names".into(), names.clone().into());
        }
        (None, None) => return None,
    }
    Some(Step::Stage(step))
}

fn stage(name: &str, options: Json) -> Step {
    Step::Stage(stage_step(name, options))
}

fn stage_step(name: &str, options: Json) -> StageStep {
    StageStep {
        stage: name.to_owned(),
        options: options.as_object().cloned().unwrap_or_default(),
        files: BTreeMap::new(),
        limits: StepLimits::default(),
        wiring: Wiring::default(),
    }
}

fn unknown(task: Task, signature: &Signature, wanted: &str) -> Error {
    let ports = |specs: &[TensorSpec]| {
        let one = |s: &TensorSpec| {
            let dims: Vec<String> = s
                .shape
                .iter()
                .map(|d| match d {
                    Dim::Fixed(n) => n.to_string(),
                    Dim::Dynamic(name) => name.clone(),
                })
                .collect();
            format!("{} {}[{}]", s.name, s.dtype, dims.join(", "))
        };
        specs.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    Error::new(
        "pipeline-unknown",
        format!(
            "how to {task} with this model cannot be read from its signature: it takes {}; gives {}; {wanted} was looked for",
            ports(&signature.inputs),
            ports(&signature.outputs)
        ),
    )
    .help(
        "write a [[pipelines]] entry with its steps and name it in the model's `pipeline`:\n\
         [[pipelines]]\nid = \"mine\"\ntask = \"detect\"\nsteps = [{ stage = \"image-decode\" }, { stage = \"letterbox\" }, \
         { stage = \"image-normalize\" }, { model = true }, { stage = \"yolo-decode\" }, { stage = \"nms\" }]",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, shape: &[u64]) -> TensorSpec {
        TensorSpec {
            name: name.into(),
            dtype: DType::F32,
            shape: shape.iter().map(|n| Dim::Fixed(*n)).collect(),
        }
    }

    fn signature(input: &[u64], outputs: &[&[u64]], metadata: &[(&str, &str)]) -> Signature {
        Signature {
            inputs: vec![spec("images", input)],
            outputs: outputs.iter().enumerate().map(|(i, s)| spec(&format!("output{i}"), s)).collect(),
            metadata: metadata.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            ..Signature::default()
        }
    }

    fn stages(steps: &[Step]) -> Vec<&str> {
        steps.iter().map(|s| s.stage().unwrap_or("model")).collect()
    }

    #[test]
    fn a_yolo_like_model_gets_its_pipeline() {
        let yolo =
            signature(&[1, 3, 640, 640], &[&[1, 84, 8400]], &[("names", "{0: 'person', 1: 'bicycle'}")]);
        assert_eq!(task(&yolo), Some(Task::Detect));
        let steps = default_steps(Task::Detect, &yolo, None).unwrap();
        assert_eq!(
            stages(&steps),
            ["image-decode", "letterbox", "image-normalize", "model", "yolo-decode", "nms", "labels"]
        );
        let seg = signature(&[1, 3, 320, 320], &[&[1, 116, 2100], &[1, 32, 80, 80]], &[]);
        let steps = default_steps(Task::Detect, &seg, None).unwrap();
        assert_eq!(steps[4].wiring().input("tensor"), "output0");
    }

    #[test]
    fn a_classifier_gets_imagenets_transforms_unless_it_says_otherwise() {
        let plain = signature(&[1, 3, 224, 224], &[&[1, 1000]], &[]);
        assert_eq!(task(&plain), Some(Task::Classify));
        let steps = default_steps(Task::Classify, &plain, None).unwrap();
        assert_eq!(stages(&steps), ["image-decode", "image-normalize", "model", "softmax-topk"]);
        let Step::Stage(normalize) = &steps[1] else { panic!("a stage") };
        assert_eq!(normalize.options["size"], 256);
        assert_eq!(normalize.options["mean"][0], 0.485);
        let own = signature(&[1, 64, 64, 3], &[&[1, 24]], &[("mean", "[0.5]"), ("resize", "exact")]);
        let steps = default_steps(Task::Classify, &own, None).unwrap();
        let Step::Stage(normalize) = &steps[1] else { panic!("a stage") };
        assert_eq!(
            (&normalize.options["resize"], &normalize.options["layout"]),
            (&json!("exact"), &json!("nhwc"))
        );
    }

    #[test]
    fn anything_else_is_refused_with_what_to_write() {
        let odd = signature(&[1, 7], &[&[1, 3]], &[]);
        assert_eq!(task(&odd), None);
        let error = default_steps(Task::Detect, &odd, None).unwrap_err();
        assert_eq!(error.code(), "pipeline-unknown");
        assert!(error.message().contains("images f32[1, 7]"), "{error}");
        assert!(error.how_to_fix().contains("[[pipelines]]"));
    }
}
