//! Small models on both engines: types, shapes, names, options, refusals.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests, which may unwrap")]

mod support;

use std::ops::ControlFlow;

use pajamas_plugin_api::{Cancel, DType, Dim, InferRequest, NamedTensor, codes};
use serde_json::json;
use support::onnx::{self, Graph, Message, int_attribute, node, tensor, value};
use support::{Outputs, Tensor, engine, engines, infer, infer_only, load, load_with, model_file, request};

/// y = x + [1, 2, 3] for any number of rows.
fn add_rows() -> Vec<u8> {
    let bias: Vec<u8> = [1f32, 2.0, 3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    Graph::new("add")
        .initializer(tensor("bias", onnx::FLOAT, &[3], &bias))
        .input(value("x", onnx::FLOAT, Some("batch,3")))
        .node(node("Add", &["x", "bias"], &["y"]))
        .output(value("y", onnx::FLOAT, Some("batch,3")))
        .model(&[("names", "{0: 'a'}"), ("task", "detect")])
}

#[test]
fn every_type_passes_unchanged() {
    let types = [
        (onnx::FLOAT, DType::F32, [0.5f32.to_le_bytes(), (-2.0f32).to_le_bytes()].concat()),
        (onnx::FLOAT16, DType::F16, vec![0x00, 0x38, 0x00, 0xc0]),
        (onnx::INT8, DType::I8, vec![0x80, 0x7f]),
        (onnx::UINT8, DType::U8, vec![0, 255]),
        (onnx::INT32, DType::I32, [i32::MIN.to_le_bytes(), i32::MAX.to_le_bytes()].concat()),
        (onnx::INT64, DType::I64, [(-5i64).to_le_bytes(), (1i64 << 30).to_le_bytes()].concat()),
        (onnx::BOOL, DType::Bool, vec![1, 0]),
        (onnx::DOUBLE, DType::F64, [0.1f64.to_le_bytes(), 1e300f64.to_le_bytes()].concat()),
    ];
    for engine in engines() {
        let id = engine.describe().id;
        for (number, dtype, bytes) in &types {
            let (_dir, path) = model_file(&onnx::identity(*number, "2"));
            let session = match load(&*engine, &path) {
                Err(error) if id == "rten" && *dtype == DType::F64 => {
                    assert_eq!(error.code, "dtype-unsupported");
                    assert!(error.message.contains("input `x` holds double; rten serves f32"), "{error}");
                    continue;
                }
                session => session.unwrap(),
            };
            let signature = session.signature();
            assert_eq!((signature.inputs[0].dtype, signature.outputs[0].dtype), (*dtype, *dtype), "{id}");
            let x = Tensor::new(*dtype, &[2], bytes.clone());
            assert_eq!(infer(&*session, &[("x", &x)]).unwrap().get("y"), x, "{id} {dtype}");
        }
    }
}

#[test]
fn the_signature_is_the_models_own() {
    for engine in engines() {
        let (_dir, path) = model_file(&add_rows());
        let signature = load(&*engine, &path).unwrap().signature();
        assert_eq!(signature.capabilities, ["infer"]);
        assert_eq!(signature.inputs.len(), 1, "initializers are no inputs");
        assert_eq!(signature.inputs[0].name, "x");
        assert_eq!(signature.inputs[0].shape, [Dim::Dynamic("batch".into()), Dim::Fixed(3)]);
        assert_eq!(signature.outputs[0].shape, [Dim::Dynamic("batch".into()), Dim::Fixed(3)]);
        assert_eq!(signature.metadata["names"], "{0: 'a'}");
        assert_eq!(signature.metadata["task"], "detect");
    }
}

#[test]
fn a_dynamic_batch_takes_any_number_of_rows() {
    for engine in engines() {
        let (_dir, path) = model_file(&add_rows());
        let session = load(&*engine, &path).unwrap();
        for rows in [1u64, 4, 0] {
            let x = Tensor::f32(&[rows, 3], &vec![1.0; rows as usize * 3]);
            let outputs = infer(&*session, &[("x", &x)]).unwrap();
            let expected: Vec<f32> = [2.0, 3.0, 4.0].repeat(rows as usize);
            assert_eq!(outputs.get("y"), Tensor::f32(&[rows, 3], &expected));
            assert!(outputs.copied.is_empty(), "a promised shape is written in place");
        }
    }
}

#[test]
fn outputs_of_unknown_shape_are_copied_once() {
    let Some(engine) = engine("onnxruntime") else { return };
    let model = Graph::new("nonzero")
        .input(value("x", onnx::FLOAT, Some("n")))
        .node(node("NonZero", &["x"], &["where"]))
        .node(node("Neg", &["x"], &["y"]))
        .output(value("where", onnx::INT64, Some("1,found")))
        .output(value("y", onnx::FLOAT, Some("n")))
        .model(&[]);
    let (_dir, path) = model_file(&model);
    let session = load(&*engine, &path).unwrap();
    let outputs = infer(&*session, &[("x", &Tensor::f32(&[4], &[0.0, 1.0, 0.0, 2.0]))]).unwrap();
    assert_eq!(outputs.get("where"), Tensor::i64(&[1, 2], &[1, 3]));
    assert_eq!(outputs.get("y").to_f32(), [0.0, -1.0, 0.0, -2.0]);
    assert_eq!(outputs.copied, ["where"]);
}

#[test]
fn a_model_that_lies_about_its_shape_still_runs() {
    // Declared as one row of three, but the rows are as many as come in.
    let model = Graph::new("liar")
        .input(value("x", onnx::FLOAT, None))
        .node(node("Neg", &["x"], &["y"]))
        .output(value("y", onnx::FLOAT, Some("1,3")))
        .model(&[]);
    for engine in engines() {
        let (_dir, path) = model_file(&model);
        let session = load(&*engine, &path).unwrap();
        assert_eq!(session.signature().inputs[0].shape, [Dim::Dynamic("...".into())]);
        for _ in 0..2 {
            let x = Tensor::f32(&[2, 3], &[1.0; 6]);
            let y = infer(&*session, &[("x", &x)]).unwrap().get("y");
            assert_eq!(y, Tensor::f32(&[2, 3], &[-1.0; 6]), "{}", engine.describe().id);
        }
    }
}

#[test]
fn casts_and_products_agree_between_engines() {
    let weights: Vec<u8> = (0..6).flat_map(|v| (v as f32).to_le_bytes()).collect();
    let model = Graph::new("cast")
        .initializer(tensor("w", onnx::FLOAT, &[3, 2], &weights))
        .input(value("ids", onnx::INT64, Some("batch,3")))
        .node(node("Cast", &["ids"], &["x"]).message(5, int_attribute("to", 1)))
        .node(node("MatMul", &["x", "w"], &["y"]))
        .node(node("Cast", &["y"], &["long"]).message(5, int_attribute("to", 7)))
        .node(node("Greater", &["y", "x0"], &["positive"]))
        .initializer(tensor("x0", onnx::FLOAT, &[], &0f32.to_le_bytes()))
        .output(value("y", onnx::FLOAT, Some("batch,2")))
        .output(value("long", onnx::INT64, Some("batch,2")))
        .output(value("positive", onnx::BOOL, Some("batch,2")))
        .model(&[]);
    for engine in engines() {
        let (_dir, path) = model_file(&model);
        let session = load(&*engine, &path).unwrap();
        let ids = Tensor::i64(&[1, 3], &[1, -2, 3]);
        let outputs = infer(&*session, &[("ids", &ids)]).unwrap();
        assert_eq!(outputs.get("y"), Tensor::f32(&[1, 2], &[8.0, 10.0]));
        assert_eq!(outputs.get("long"), Tensor::i64(&[1, 2], &[8, 10]));
        assert_eq!(outputs.get("positive"), Tensor::new(DType::Bool, &[1, 2], [1, 1]));
        // Only what was asked for.
        let outputs = infer_only(&*session, &[("ids", &ids)], &["positive"]).unwrap();
        assert_eq!(outputs.names(), ["positive"]);
        let error = infer_only(&*session, &[("ids", &ids)], &["scores"]).err().unwrap();
        assert_eq!(error.code, codes::INVALID_INPUT);
        assert!(error.help.contains("`long` (i64 [batch, 2])"), "{error}");
    }
}

#[test]
fn inputs_that_do_not_fit_are_refused_by_name() {
    for engine in engines() {
        let (_dir, path) = model_file(&add_rows());
        let session = load(&*engine, &path).unwrap();
        let refused = |inputs: &[(&str, &Tensor)], text: &str| {
            let error = infer(&*session, inputs).err().unwrap();
            assert_eq!(error.code, codes::INVALID_INPUT);
            assert!(error.message.contains(text), "{error}");
        };
        let good = Tensor::f32(&[1, 3], &[0.0; 3]);
        refused(&[], "input `x` (f32 [batch, 3]) is missing");
        refused(&[("z", &good)], "no input `z`");
        refused(&[("x", &good), ("x", &good)], "given twice");
        refused(&[("x", &Tensor::i64(&[1, 3], &[0; 3]))], "its type must be f32; given was i64 [1, 3]");
        refused(&[("x", &Tensor::f32(&[3], &[0.0; 3]))], "must have 2 dimensions");
        refused(&[("x", &Tensor::f32(&[1, 4], &[0.0; 4]))], "dimension 1 must be 3");
        infer(&*session, &[("x", &good)]).unwrap();
    }
}

#[test]
fn inputs_need_not_be_aligned() {
    for engine in engines() {
        let (_dir, path) = model_file(&add_rows());
        let session = load(&*engine, &path).unwrap();
        let words = vec![0u64; 3];
        let bytes = &pajamas_plugin_api::as_bytes(&words)[1..13];
        let tensor = pajamas_plugin_api::TensorView::new(DType::F32, &[1, 3], bytes).unwrap();
        let mut outputs = Outputs::default();
        let inputs = [NamedTensor { name: "x", tensor }];
        session.infer(&InferRequest::default(), &inputs, &mut outputs, &Cancel::new()).unwrap();
        assert_eq!(outputs.get("y").to_f32(), [1.0, 2.0, 3.0]);
    }
}

#[test]
fn an_output_that_no_engine_can_give_is_left_out() {
    let model = Graph::new("text")
        .input(value("x", onnx::FLOAT, Some("1")))
        .node(node("Cast", &["x"], &["words"]).message(5, int_attribute("to", 8)))
        .node(node("Neg", &["x"], &["y"]))
        .output(value("words", onnx::STRING, Some("1")))
        .output(value("y", onnx::FLOAT, Some("1")))
        .model(&[]);
    let Some(engine) = engine("onnxruntime") else { return };
    let (_dir, path) = model_file(&model);
    let session = load(&*engine, &path).unwrap();
    assert_eq!(session.signature().outputs.len(), 1);
    let x = Tensor::f32(&[1], &[2.0]);
    assert_eq!(infer(&*session, &[("x", &x)]).unwrap().get("y").to_f32(), [-2.0]);
    assert_eq!(infer_only(&*session, &[("x", &x)], &["words"]).err().unwrap().code, "dtype-unsupported");
}

#[test]
fn an_old_softmax_takes_all_dimensions_from_its_axis_on() {
    let softmax = node("Softmax", &["x"], &["y"]);
    for (softmax, rows) in [(softmax.clone(), 2), (softmax.message(5, int_attribute("axis", 0)), 1)] {
        let model = Graph::new("old")
            .input(value("x", onnx::FLOAT, Some("2,2,3")))
            .node(softmax)
            .output(value("y", onnx::FLOAT, Some("2,2,3")))
            .model_of_opset(11, &[]);
        let (_dir, path) = model_file(&model);
        for engine in engines() {
            let session = load(&*engine, &path).unwrap();
            let y =
                infer(&*session, &[("x", &Tensor::f32(&[2, 2, 3], &[1.0; 12]))]).unwrap().get("y").to_f32();
            let share = rows as f32 / 12.0;
            assert!(y.iter().all(|v| (v - share).abs() < 1e-6), "{}: {y:?}", engine.describe().id);
        }
    }
}

#[test]
fn an_operator_that_nobody_knows_is_said() {
    let model = Graph::new("odd")
        .input(value("x", onnx::FLOAT, Some("1")))
        .node(node("Frobnicate", &["x"], &["y"]))
        .output(value("y", onnx::FLOAT, Some("1")))
        .model(&[]);
    for engine in engines() {
        let (_dir, path) = model_file(&model);
        let error = load(&*engine, &path).err().unwrap();
        assert_eq!(error.code, "model-unsupported", "{error}");
        assert!(error.message.contains("Frobnicate"), "{error}");
    }
}

#[test]
fn options_are_strict_and_work() {
    for engine in engines() {
        let id = engine.describe().id;
        let (_dir, path) = model_file(&add_rows());
        let x = Tensor::f32(&[1, 3], &[0.0; 3]);
        for options in [
            json!({ "threads": 1 }),
            json!({ "threads": 2, "optimization": 0 }),
            json!({ "optimization": 2 }),
        ] {
            let session = load_with(&*engine, &path, options).unwrap();
            assert_eq!(infer(&*session, &[("x", &x)]).unwrap().get("y").to_f32(), [1.0, 2.0, 3.0]);
        }
        for options in [json!({ "thread": 1 }), json!({ "threads": 0 }), json!({ "optimization": "max" })] {
            let error = load_with(&*engine, &path, options.clone()).err().unwrap();
            assert_eq!(error.code, codes::INVALID_OPTION, "{id}");
            assert!(error.help.contains("threads"), "{error}");
            assert_eq!(engine.estimate(&request(&path, options)).unwrap_err(), error);
        }
        let mut elsewhere = request(&path, json!({}));
        elsewhere.device = "vulkan:0".into();
        assert_eq!(engine.estimate(&elsewhere).unwrap_err().code, "device-unavailable");
    }
    let Some(engine) = engine("onnxruntime") else { return };
    let (_dir, path) = model_file(&add_rows());
    let options =
        json!({ "inter_op_threads": 2, "cpu_arena": false, "memory_pattern": false, "spinning": false });
    let session = load_with(&*engine, &path, options).unwrap();
    infer(&*session, &[("x", &Tensor::f32(&[1, 3], &[0.0; 3]))]).unwrap();
    let error = load_with(&*engine, &path, json!({ "execution_providers": ["npu"] })).err().unwrap();
    assert_eq!(error.code, codes::INVALID_OPTION);
    assert!(error.help.contains("cuda, tensorrt"), "{error}");
}

#[test]
fn runs_side_by_side_answer_each_for_itself_and_their_memory_is_counted() {
    for engine in engines() {
        let (_dir, path) = model_file(&add_rows());
        let options = |parallel: u32| json!({ "threads": 1, "parallel": parallel });
        let scratch = |parallel| engine.estimate(&request(&path, options(parallel))).unwrap()[0].scratch;
        assert!(scratch(1) > 0);
        assert_eq!(scratch(3), 3 * scratch(1), "{}", engine.describe().id);
        let session = load_with(&*engine, &path, options(3)).unwrap();
        let run = |n: f32| {
            for _ in 0..50 {
                let x = Tensor::f32(&[1, 3], &[n; 3]);
                let y = infer(&*session, &[("x", &x)]).unwrap().get("y").to_f32();
                assert_eq!(y, [n + 1.0, n + 2.0, n + 3.0]);
            }
        };
        std::thread::scope(|scope| (0..5_u8).for_each(|n| drop(scope.spawn(move || run(n.into())))));
    }
}

#[test]
fn an_accelerator_that_is_not_there_is_an_error_and_no_fallback() {
    let Some(engine) = engine("onnxruntime") else { return };
    let probe = engine.probe();
    if probe.reason.contains("cuda") {
        eprintln!("skipped: this ONNX Runtime has CUDA: {}", probe.reason);
        return;
    }
    let (_dir, path) = model_file(&add_rows());
    let error = load_with(&*engine, &path, json!({ "execution_providers": ["cuda"] })).err().unwrap();
    assert_eq!(error.code, "device-unavailable", "{error}");
    assert!(error.message.contains("CUDA"), "{error}");
    let mut gpu = request(&path, json!({}));
    gpu.device = "cuda:0".into();
    let mut progress = |_: f32, _: &str| ControlFlow::Continue(());
    assert_eq!(engine.load(&gpu, &mut progress, &Cancel::new()).err().unwrap().code, "device-unavailable");
}

#[test]
fn a_set_flag_or_a_broken_progress_ends_a_load_and_a_run() {
    for engine in engines() {
        let (_dir, path) = model_file(&add_rows());
        let request = request(&path, json!({}));
        let cancelled = Cancel::new();
        cancelled.cancel();
        let mut go_on = |_: f32, _: &str| ControlFlow::Continue(());
        assert_eq!(engine.load(&request, &mut go_on, &cancelled).err().unwrap().code, codes::CANCELLED);
        let mut stop = |_: f32, _: &str| ControlFlow::Break(());
        assert_eq!(engine.load(&request, &mut stop, &Cancel::new()).err().unwrap().code, codes::CANCELLED);

        let session = load(&*engine, &path).unwrap();
        let x = Tensor::f32(&[1, 3], &[0.0; 3]);
        let inputs = [NamedTensor { name: "x", tensor: x.view() }];
        let result = session.infer(&InferRequest::default(), &inputs, &mut Outputs::default(), &cancelled);
        assert_eq!(result.unwrap_err().code, codes::CANCELLED);
        infer(&*session, &[("x", &x)]).unwrap();
    }
}

#[test]
fn a_run_under_way_is_stopped() {
    // A loop that runs far longer than any test would wait: only the flag ends it.
    let body = Graph::new("body")
        .input(value("i", onnx::INT64, Some("")))
        .input(value("go", onnx::BOOL, Some("")))
        .input(value("a", onnx::FLOAT, Some("1")))
        .node(node("Identity", &["go"], &["go_on"]))
        .node(node("Add", &["a", "a"], &["b"]))
        .output(value("go_on", onnx::BOOL, Some("")))
        .output(value("b", onnx::FLOAT, Some("1")));
    let attribute = Message::default().bytes(1, "body").message(6, body.into_message()).number(20, 5);
    let model = Graph::new("endless")
        .initializer(tensor("times", onnx::INT64, &[], &i64::MAX.to_le_bytes()))
        .initializer(tensor("yes", onnx::BOOL, &[], &[1]))
        .input(value("x", onnx::FLOAT, Some("1")))
        .node(node("Loop", &["times", "yes", "x"], &["y"]).message(5, attribute))
        .output(value("y", onnx::FLOAT, Some("1")))
        .model(&[]);
    let Some(engine) = engine("onnxruntime") else { return };
    let (_dir, path) = model_file(&model);
    let session = load(&*engine, &path).unwrap();
    let x = Tensor::f32(&[1], &[1.0]);
    let flag = Cancel::new();
    let run = || {
        let inputs = [NamedTensor { name: "x", tensor: x.view() }];
        session.infer(&InferRequest::default(), &inputs, &mut Outputs::default(), &flag).unwrap_err().code
    };
    std::thread::scope(|scope| {
        // One runs, the other waits for its turn; both hear the flag.
        let (one, two) = (scope.spawn(run), scope.spawn(run));
        flag.cancel();
        assert_eq!(one.join().unwrap(), codes::CANCELLED);
        assert_eq!(two.join().unwrap(), codes::CANCELLED);
    });
}

#[test]
fn one_session_serves_many_callers() {
    for engine in engines() {
        let (_dir, path) = model_file(&add_rows());
        let session = load(&*engine, &path).unwrap();
        std::thread::scope(|scope| {
            for caller in 0..8u8 {
                let session = &session;
                scope.spawn(move || {
                    for _ in 0..20 {
                        let x = Tensor::f32(&[1, 3], &[f32::from(caller); 3]);
                        let y = infer(&**session, &[("x", &x)]).unwrap().get("y").to_f32();
                        assert_eq!(y, [1.0, 2.0, 3.0].map(|b| b + f32::from(caller)));
                    }
                });
            }
        });
    }
}

#[test]
fn a_model_may_have_any_name() {
    for engine in engines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights with spaces.bin");
        std::fs::write(&path, add_rows()).unwrap();
        let session = load(&*engine, &path).unwrap();
        infer(&*session, &[("x", &Tensor::f32(&[1, 3], &[0.0; 3]))]).unwrap();
    }
}
