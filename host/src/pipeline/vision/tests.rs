//! Which steps a signature leads to.

use pajamas_plugin_api::DType;
use serde_json::json;

use super::*;

fn spec(name: &str, shape: &[u64]) -> TensorSpec {
    TensorSpec { name: name.into(), dtype: DType::F32, shape: shape.iter().map(|n| Dim::Fixed(*n)).collect() }
}

fn signature(input: &[u64], outputs: &[&[u64]], metadata: &[(&str, &str)]) -> Signature {
    Signature {
        inputs: vec![spec("images", input)],
        outputs: outputs.iter().enumerate().map(|(i, s)| spec(&format!("output{i}"), s)).collect(),
        metadata: metadata.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        ..Signature::default()
    }
}

fn steps_of(task: Task, signature: &Signature) -> Result<Vec<Step>> {
    default_steps(task, signature, &Beside::default(), false)
}

/// As transformers exports: names for dimensions that are not fixed.
fn dynamic(name: &str, dtype: DType, shape: &[&str]) -> TensorSpec {
    let dim = |name: &&str| name.parse().map_or_else(|_| Dim::Dynamic((*name).to_owned()), Dim::Fixed);
    TensorSpec { name: name.into(), dtype, shape: shape.iter().map(dim).collect() }
}

fn options<'s>(steps: &'s [Step], stage: &str) -> &'s crate::config::Options {
    let step = steps.iter().find(|step| step.stage() == Some(stage)).unwrap();
    let Step::Stage(step) = step else { panic!("{stage} is a stage") };
    &step.options
}

fn stages(steps: &[Step]) -> Vec<&str> {
    steps.iter().map(|s| s.stage().unwrap_or("model")).collect()
}

#[test]
fn a_yolo_like_model_gets_its_pipeline() {
    let yolo = signature(&[1, 3, 640, 640], &[&[1, 84, 8400]], &[("names", "{0: 'person', 1: 'bicycle'}")]);
    let steps = steps_of(Task::Detect, &yolo).unwrap();
    assert_eq!(
        stages(&steps),
        ["image-decode", "letterbox", "image-normalize", "model", "yolo-decode", "nms", "labels"]
    );
    assert_eq!(steps_of(Task::Segment, &yolo).unwrap_err().code(), "pipeline-unknown");
}

#[test]
fn a_yolo_with_prototypes_gets_masks_and_counts_its_classes_without_them() {
    let seg = signature(&[1, 3, 320, 320], &[&[1, 116, 2100], &[1, 32, 80, 80]], &[]);
    let steps = steps_of(Task::Detect, &seg).unwrap();
    assert_eq!(steps[4].wiring().input("tensor"), "output0");
    assert_eq!(options(&steps, "yolo-decode")["classes"], 80);
    assert!(options(&steps, "labels")["names"].as_str().unwrap().starts_with("person\nbicycle\n"));
    let steps = steps_of(Task::Segment, &seg).unwrap();
    assert_eq!(stages(&steps)[5..], ["nms", "mask-decode", "labels"]);
    assert_eq!(steps[6].wiring().input("prototypes"), "output1");
    assert_eq!(options(&steps, "mask-decode")["stride"], 4.0);
}

#[test]
fn a_classifier_gets_imagenets_transforms_unless_it_says_otherwise() {
    let plain = signature(&[1, 3, 224, 224], &[&[1, 1000]], &[]);
    let steps = steps_of(Task::Classify, &plain).unwrap();
    assert_eq!(stages(&steps), ["image-decode", "image-normalize", "model", "softmax-topk", "labels"]);
    assert!(options(&steps, "labels")["names"].as_str().unwrap().starts_with("tench\n"));
    let Step::Stage(normalize) = &steps[1] else { panic!("a stage") };
    assert_eq!(normalize.options["size"], 256);
    assert_eq!(normalize.options["mean"][0], 0.485);
    let own = signature(&[1, 64, 64, 3], &[&[1, 24]], &[("mean", "[0.5]"), ("resize", "exact")]);
    let steps = steps_of(Task::Classify, &own).unwrap();
    let Step::Stage(normalize) = &steps[1] else { panic!("a stage") };
    assert_eq!(
        (&normalize.options["resize"], &normalize.options["layout"]),
        (&json!("exact"), &json!("nhwc"))
    );
}

#[test]
fn anything_else_is_refused_with_what_to_write() {
    let odd = signature(&[1, 7], &[&[1, 3]], &[]);
    let error = steps_of(Task::Detect, &odd).unwrap_err();
    assert_eq!(error.code(), "pipeline-unknown");
    assert!(error.message().contains("images f32[1, 7]"), "{error}");
    assert!(error.how_to_fix().contains("[[pipelines]]"));
}

#[test]
fn a_vision_transformer_is_read_from_what_lies_beside_it() {
    let vit = Signature {
        inputs: vec![dynamic("pixel_values", DType::F32, &["batch_size", "num_channels", "height", "width"])],
        outputs: vec![dynamic("logits", DType::F32, &["batch_size", "3"])],
        ..Signature::default()
    };
    assert_eq!(steps_of(Task::Classify, &vit).unwrap_err().code(), "pipeline-unknown", "no size is known");
    let beside = Beside {
        config: json!({ "image_size": 32, "id2label": { "0": "red", "1": "green", "2": "blue" } }),
        preprocessor: json!({
            "do_normalize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 2,
            "size": { "height": 48, "width": 64 },
        }),
        ..Beside::default()
    };
    let steps = default_steps(Task::Classify, &vit, &beside, false).unwrap();
    let normalize = options(&steps, "image-normalize");
    assert_eq!(
        (&normalize["resize"], &normalize["width"], &normalize["height"]),
        (&json!("exact"), &json!(64), &json!(48))
    );
    assert_eq!(normalize["mean"], json!([0.5, 0.5, 0.5]));
    assert_eq!(options(&steps, "labels")["names"]["2"], "blue");
}

#[test]
fn both_halves_of_clip_leave_vectors_of_one_space() {
    let image = Signature {
        inputs: vec![dynamic("pixel_values", DType::F32, &["n", "3", "224", "224"])],
        outputs: vec![
            dynamic("last_hidden_state", DType::F32, &["n", "50", "768"]),
            dynamic("image_embeds", DType::F32, &["n", "512"]),
        ],
        ..Signature::default()
    };
    let preprocessor = json!({
        "crop_size": { "height": 224, "width": 224 }, "do_center_crop": true, "resample": 3,
        "size": { "shortest_edge": 224 }, "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28],
    });
    let beside = Beside { preprocessor, ..Beside::default() };
    let steps = default_steps(Task::Embed, &image, &beside, false).unwrap();
    assert_eq!(stages(&steps), ["image-decode", "image-normalize", "model", "l2-normalize"]);
    let normalize = options(&steps, "image-normalize");
    assert_eq!(
        (&normalize["filter"], &normalize["size"], &normalize["crop"]),
        (&json!("bicubic"), &json!(224), &json!([224, 224]))
    );
    assert_eq!(steps[3].wiring().input("tensor"), "image_embeds");

    let text = Signature {
        inputs: vec![
            dynamic("input_ids", DType::I64, &["n", "t"]),
            dynamic("attention_mask", DType::I64, &["n", "t"]),
        ],
        outputs: vec![dynamic("text_embeds", DType::F32, &["n", "512"])],
        ..Signature::default()
    };
    assert_eq!(default_steps(Task::Embed, &text, &beside, true).unwrap_err().code(), "pipeline-unknown");
    let beside = Beside {
        tokenizer: Some(GrantedFile::Artifact("tokenizer.json".into())),
        config: json!({ "text_config": { "max_position_embeddings": 77 } }),
        ..Beside::default()
    };
    let steps = default_steps(Task::Embed, &text, &beside, true).unwrap();
    assert_eq!(stages(&steps), ["tokenize", "model", "l2-normalize"]);
    assert_eq!(options(&steps, "tokenize")["max_length"], 77);
    assert_eq!(steps[2].wiring().output("tensor"), EMBEDDING);
}

#[test]
fn texts_are_pooled_as_the_model_was_trained() {
    let bert = Signature {
        inputs: ["input_ids", "attention_mask", "token_type_ids"]
            .map(|name| dynamic(name, DType::I64, &["8", "128"]))
            .into(),
        outputs: vec![dynamic("last_hidden_state", DType::F32, &["8", "128", "384"])],
        ..Signature::default()
    };
    let beside = |pooling| Beside {
        tokenizer: Some(GrantedFile::Artifact("tokenizer.json".into())),
        pooling,
        ..Beside::default()
    };
    let steps = default_steps(Task::Embed, &bert, &beside(Json::Null), true).unwrap();
    assert_eq!(stages(&steps), ["tokenize", "model", "pool", "l2-normalize"]);
    assert_eq!(options(&steps, "pool")["mode"], "mean");
    assert_eq!((&options(&steps, "tokenize")["pad_to"], most_texts(&bert)), (&json!(128), 8));
    assert_eq!((steps[2].wiring().input("tensor"), steps[3].wiring().input("tensor")), ("tensor", EMBEDDING));
    let steps =
        default_steps(Task::Embed, &bert, &beside(json!({ "pooling_mode_cls_token": true })), true).unwrap();
    assert_eq!(options(&steps, "pool")["mode"], "cls");
}
