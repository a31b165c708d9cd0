//! Integer convolutions: every kind of kernel, zero point, padding and batch gives the same numbers on both engines,
//! and the ones that the definition of the operator demands.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests, which may unwrap")]

mod support;

use pajamas_plugin_api::DType;
use support::onnx::{self, Graph, Message, int_attribute, node, tensor, value};
use support::{Tensor, engines, infer, load, model_file};

const SIDE: i64 = 5;
const CHANNELS: i64 = 4;
const X_ZERO: i32 = 100;

/// A `ConvInteger` with square kernel.
#[derive(Debug, Clone, Copy)]
struct Conv {
    out: i64,
    kernel: i64,
    pad: i64,
    stride: i64,
    group: i64,
    /// The zero point of unsigned weights; signed weights have none.
    w_zero: Option<u8>,
}

impl Conv {
    fn weights(&self) -> Vec<u8> {
        (0..self.out * CHANNELS / self.group * self.kernel * self.kernel)
            .map(|i| (i * 37 % 251) as u8)
            .collect()
    }

    fn model(&self) -> Vec<u8> {
        let ints = |name: &str, values: &[i64]| {
            values.iter().fold(Message::default().bytes(1, name).number(20, 7), |m, v| m.number(8, *v))
        };
        let kind = if self.w_zero.is_some() { onnx::UINT8 } else { onnx::INT8 };
        let dims = [self.out, CHANNELS / self.group, self.kernel, self.kernel];
        let conv = node("ConvInteger", &["x", "w", "x_zero", "w_zero"], &["y"])
            .message(5, ints("kernel_shape", &[self.kernel; 2]))
            .message(5, ints("pads", &[self.pad; 4]))
            .message(5, ints("strides", &[self.stride; 2]))
            .message(5, int_attribute("group", self.group));
        Graph::new("conv")
            .initializer(tensor("w", kind, &dims, &self.weights()))
            .initializer(tensor("x_zero", onnx::UINT8, &[], &[X_ZERO as u8]))
            .initializer(tensor("w_zero", kind, &[], &[self.w_zero.unwrap_or(0)]))
            .input(value("x", onnx::UINT8, Some("n,4,5,5")))
            .node(conv)
            .output(value("y", onnx::INT32, Some("n,out,height,width")))
            .model(&[])
    }

    /// The sum as the operator defines it: what lies outside the image counts as the zero point.
    fn expected(&self, x: &[u8], batch: i64) -> Vec<i32> {
        let weights = self.weights();
        let side = (SIDE + 2 * self.pad - self.kernel) / self.stride + 1;
        let per_group = CHANNELS / self.group;
        let mut y = Vec::new();
        for n in 0..batch {
            for (o, row, col) in
                (0..self.out).flat_map(|o| (0..side * side).map(move |i| (o, i / side, i % side)))
            {
                let mut sum = 0;
                for i in 0..per_group * self.kernel * self.kernel {
                    let (c, ky, kx) =
                        (i / (self.kernel * self.kernel), i / self.kernel % self.kernel, i % self.kernel);
                    let (h, w) = (row * self.stride + ky - self.pad, col * self.stride + kx - self.pad);
                    if (0..SIDE).contains(&h) && (0..SIDE).contains(&w) {
                        let channel = o / (self.out / self.group) * per_group + c;
                        let pixel = x[(((n * CHANNELS + channel) * SIDE + h) * SIDE + w) as usize];
                        let weight = weights[(o * per_group * self.kernel * self.kernel + i) as usize];
                        let weight = match self.w_zero {
                            Some(zero) => i32::from(weight) - i32::from(zero),
                            None => i32::from(weight.cast_signed()),
                        };
                        sum += (i32::from(pixel) - X_ZERO) * weight;
                    }
                }
                y.push(sum);
            }
        }
        y
    }
}

#[test]
fn integer_convolutions_are_exact() {
    let engines = engines();
    for w_zero in [None, Some(120)] {
        for (out, kernel, group) in [(6, 1, 1), (6, 3, 1), (6, 3, 2), (4, 3, 4), (8, 3, 4), (4, 1, 4)] {
            for (pad, stride) in [(0, 1), (1, 1), (1, 2)] {
                let conv = Conv { out, kernel, pad, stride, group, w_zero };
                let (_dir, path) = model_file(&conv.model());
                for engine in &engines {
                    let session = load(&**engine, &path).unwrap();
                    for batch in [1, 3] {
                        let pixels: Vec<u8> =
                            (0..batch * CHANNELS * SIDE * SIDE).map(|i| (i * 53 % 256) as u8).collect();
                        let x = Tensor::new(DType::U8, &[batch as u64, 4, 5, 5], pixels.clone());
                        let y = infer(&*session, &[("x", &x)]).unwrap().get("y");
                        let y: Vec<i32> =
                            y.bytes.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b)).collect();
                        let id = engine.describe().id;
                        assert_eq!(y, conv.expected(&pixels, batch), "{id}, batch {batch}, {conv:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn weights_that_are_computed_are_refused_rather_than_wrong() {
    let model = Graph::new("computed")
        .input(value("x", onnx::UINT8, Some("n,4,5,5")))
        .input(value("w", onnx::UINT8, Some("6,4,3,3")))
        .node(node("ConvInteger", &["x", "w"], &["y"]))
        .output(value("y", onnx::INT32, Some("n,6,3,3")))
        .model(&[]);
    let (_dir, path) = model_file(&model);
    let rten = support::engine("rten").unwrap();
    let error = load(&*rten, &path).err().unwrap();
    assert_eq!(error.code, "model-unsupported");
    assert!(error.message.contains("the weights of the one that gives `y` are computed"), "{error}");
    assert!(error.help.contains("onnxruntime"), "{error}");
    if let Some(engine) = support::engine("onnxruntime") {
        load(&*engine, &path).unwrap();
    }
}
