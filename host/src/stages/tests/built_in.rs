//! The stages that ship, as components.

use super::*;
use crate::value::{Detection, Image, Kind, Label, Tensor, TensorData};

fn f32s(shape: &[u64], data: &[f32]) -> Value {
    Value::Tensor(Tensor::new(shape.to_vec(), TensorData::F32(data.to_vec().into())).unwrap())
}

fn elements<'v>(values: &'v Values, name: &str) -> &'v [f32] {
    match values.get(name) {
        Some(Value::Tensor(tensor)) => tensor.as_f32().unwrap(),
        other => panic!("`{name}` is {other:?}"),
    }
}

fn once(stage: &str, options: Json, inputs: &[(&str, Value)]) -> Result<Values> {
    run(&processor(stage, &options)?, inputs, &Limits::default())
}

#[test]
fn each_describes_itself_and_refuses_unknown_options() {
    for built_in in BUILT_IN {
        let name = built_in.name;
        let stage = built_in.load(&engine()).unwrap();
        let description = stage.describe();
        assert_eq!(description.name, name);
        assert!(!description.inputs.is_empty() && !description.outputs.is_empty());
        assert!(description.options_schema["properties"].is_object());
        let options = json!({ "no-such-option": true });
        let error = stage.create(&options, &[], &Limits::default()).unwrap_err();
        assert_eq!(error.code(), "invalid-option", "{name}");
        assert!(error.message().contains("no-such-option") && error.message().contains(name), "{error}");
    }
}

/// A 2 x 1 bitmap: red, then white.
fn bitmap() -> Vec<u8> {
    let mut file = b"BM\x3e\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x02\0\0\0\x01\0\0\0\x01\0\x18\0".to_vec();
    file.resize(54, 0);
    file.extend([0, 0, 255, 255, 255, 255, 0, 0]);
    file
}

#[test]
fn a_picture_becomes_a_tensor() {
    let decoded = once("image-decode", Json::Null, &[("bytes", Value::Bytes(bitmap()))]).unwrap();
    let picture = Image { width: 2, height: 1, channels: 3, pixels: vec![255, 0, 0, 255, 255, 255] };
    assert_eq!(decoded.get("image"), Some(&Value::Image(picture.clone())));
    assert_eq!(elements(&decoded, "size"), [2.0, 1.0]);

    let boxed = once("letterbox", json!({ "size": 4 }), &[("image", Value::Image(picture.clone()))]).unwrap();
    assert_eq!(elements(&boxed, "transform"), [2.0, 2.0, 0.0, 1.0, 2.0, 1.0]);

    let tensor = once("image-normalize", Json::Null, &[("image", Value::Image(picture))]).unwrap();
    assert_eq!(elements(&tensor, "tensor"), [1.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
}

#[test]
fn lanes_in_wasm_agree_with_plain_arithmetic() {
    let (width, height) = (37u32, 3u32);
    let pixels: Vec<u8> = (0..width * height * 3).map(|i| (i * 89 % 256) as u8).collect();
    let image = Image { width, height, channels: 3, pixels: pixels.clone() };
    let options = json!({ "mean": [0.5, 0.25, 0.125], "std": [0.5, 0.25, 2.0] });
    let out = once("image-normalize", options, &[("image", Value::Image(image))]).unwrap();
    let planes = elements(&out, "tensor");
    let plane = (width * height) as usize;
    for (c, (mean, std)) in [(0.5, 0.5), (0.25, 0.25), (0.125, 2.0)].into_iter().enumerate() {
        for i in 0..plane {
            let want = (f64::from(pixels[i * 3 + c]) / 255.0 - mean) / std;
            assert!((f64::from(planes[c * plane + i]) - want).abs() < 1e-6, "channel {c}, pixel {i}");
        }
    }
}

#[test]
fn a_head_becomes_named_boxes() {
    // Three boxes of two classes, features first: two overlap, one is elsewhere.
    let boxes: [[f32; 6]; 3] = [
        [50.0, 50.0, 20.0, 20.0, 0.1, 0.9],
        [52.0, 50.0, 20.0, 20.0, 0.0, 0.8],
        [10.0, 10.0, 10.0, 10.0, 0.7, 0.0],
    ];
    let head: Vec<f32> = (0..6).flat_map(|f| boxes.iter().map(move |b| b[f])).collect();
    let inputs = [
        ("tensor", f32s(&[1, 6, 3], &head)),
        ("transform", f32s(&[6], &[0.5, 0.5, 0.0, 10.0, 200.0, 150.0])),
    ];
    let decoded = once("yolo-decode", json!({ "layout": "features-first" }), &inputs).unwrap();
    let kept =
        once("nms", Json::Null, &[("detections", decoded.get("detections").unwrap().clone())]).unwrap();
    let names = json!({ "names": "{0: 'cat', 1: 'dog'}" });
    let named = once("labels", names, &[("detections", kept.get("detections").unwrap().clone())]).unwrap();
    let found =
        |bbox, score, class_id, label: &str| Detection { bbox, score, class_id, label: Some(label.into()) };
    let want =
        vec![found([80.0, 60.0, 120.0, 100.0], 0.9, 1, "dog"), found([10.0, 0.0, 30.0, 10.0], 0.7, 0, "cat")];
    assert_eq!(named.get("detections"), Some(&Value::Detections(want)));
}

#[test]
fn coefficients_go_with_their_boxes_and_become_masks() {
    // Two boxes of one class and one coefficient: the left half is where it is above zero, and for the second where not.
    let boxes: [[f32; 6]; 2] = [[4.0, 4.0, 8.0, 8.0, 0.9, 1.0], [12.0, 4.0, 8.0, 8.0, 0.8, -1.0]];
    let head: Vec<f32> = (0..6).flat_map(|f| boxes.iter().map(move |b| b[f])).collect();
    let prototype: Vec<f32> = (0..8).map(|cell| if cell % 4 < 2 { 1.0 } else { -1.0 }).collect();
    let options = json!({ "layout": "features-first", "classes": 1 });
    let mut values = once("yolo-decode", options, &[("tensor", f32s(&[1, 6, 2], &head))]).unwrap();
    let pair =
        |values: &mut Values| ["detections", "coefficients"].map(|name| (name, values.take(name).unwrap()));
    let mut kept = once("nms", Json::Null, &pair(&mut values)).unwrap();
    let [detections, coefficients] = pair(&mut kept);
    assert_eq!(coefficients.1, f32s(&[2, 1], &[1.0, -1.0]));
    let inputs = [detections, coefficients, ("prototypes", f32s(&[1, 1, 2, 4], &prototype))];
    let masks = once("mask-decode", json!({ "polygons": true }), &inputs).unwrap();
    let Some(Value::Text(masks)) = masks.get("masks") else { panic!("{masks:?}") };
    let masks: Json = serde_json::from_str(masks).unwrap();
    // 8 rows: all of the first 8 columns, and of the 8 behind them.
    assert_eq!(masks[0]["rle"]["size"], json!([8, 16]));
    let corners = |mask: &Json| mask["polygons"][0].as_array().unwrap().len();
    assert_eq!((corners(&masks[0]), corners(&masks[1])), (8, 8), "{masks}");
}

#[test]
fn scores_become_named_classes() {
    let ranked =
        once("softmax-topk", json!({ "k": 1 }), &[("tensor", f32s(&[1, 3], &[0.0, 0.75, 0.25]))]).unwrap();
    let file = GrantedFile { name: "labels.txt".into(), content: b"a\nb\nc\n".as_slice().into() };
    let labels = load(&engine(), "labels").unwrap().create(&Json::Null, &[file], &Limits::default()).unwrap();
    let named =
        run(&labels, &[("labels", ranked.get("labels").unwrap().clone())], &Limits::default()).unwrap();
    let want = vec![Label { class_id: 1, score: 0.75, label: Some("b".into()) }];
    assert_eq!(named.get("labels"), Some(&Value::Labels(want)));
    assert_eq!(load(&engine(), "labels").unwrap().describe().inputs[0].kind, Kind::Detections);
}

/// Pictures of the shared assets that must be refused, and with which code.
#[test]
fn broken_pictures_and_bombs_are_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/assets/images/formats");
    if !folder.is_dir() {
        eprintln!("skipped: {} is not there", folder.display());
        return;
    }
    let decode = processor("image-decode", &Json::Null).unwrap();
    for (file, want) in [
        ("bmp_b_badwidth.bmp", &["image-too-large", "image-invalid"][..]),
        ("decompression_bomb.gif", &["image-too-large", "image-invalid"]),
        ("truncated_image.png", &["image-invalid"]),
        ("zero_width.gif", &["image-invalid"]),
        ("avif_hopper.avif", &["image-unsupported"]),
    ] {
        let bytes = std::fs::read(folder.join(file)).unwrap();
        let refused = code(run(&decode, &[("bytes", Value::Bytes(bytes))], &Limits::default()));
        assert!(want.contains(&refused.as_str()), "{file}: {refused}");
    }
}
