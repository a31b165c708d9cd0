//! Pixels to the elements of a tensor.

use half::f16;
use pajamas_stage::{Error, Image, Result, Tensor, TensorData};

use crate::lanes;
use crate::options::{Dtype, Layout, Options, Order};

/// How pixels become elements: `pixel * gain + bias` for each channel, in an order, a layout and a type.
#[derive(Debug, Clone)]
pub struct Packing {
    gain: [f32; 3],
    bias: [f32; 3],
    order: Order,
    layout: Layout,
    dtype: Dtype,
}

impl Packing {
    /// Reads the options that are about elements.
    pub fn new(options: &Options) -> Result<Self> {
        let &Options { order, layout, dtype, scale, .. } = options;
        let channels = if order == Order::Grey { 1 } else { 3 };
        let mean = per_channel("mean", &options.mean, channels)?;
        let std = per_channel("std", &options.std, channels)?;
        if std.contains(&0.0) {
            return Err(Error::invalid_option("`std` contains 0, by which nothing can be divided"));
        }
        let plain = scale.is_none() && mean == [0.0; 3] && std == [1.0; 3];
        if dtype == Dtype::U8 && !plain {
            return Err(Error::invalid_option("with `dtype = u8` the pixels stay as they are")
                .with_help("leave `scale`, `mean` and `std` out, or ask for `dtype = f32`"));
        }
        // (pixel * scale - mean) / std, folded in f64 into one multiplication and one addition.
        let scale = scale.unwrap_or(1.0 / 255.0);
        Ok(Self {
            gain: std::array::from_fn(|c| (scale / std[c]) as f32),
            bias: std::array::from_fn(|c| (-mean[c] / std[c]) as f32),
            order,
            layout,
            dtype,
        })
    }

    /// The tensor of an RGB picture.
    pub fn pack(&self, image: &Image) -> Result<Tensor> {
        let reordered;
        let (pixels, channels) = match self.order {
            Order::Rgb => (&image.pixels, 3),
            Order::Bgr => {
                reordered = image.pixels.chunks_exact(3).flat_map(|p| [p[2], p[1], p[0]]).collect();
                (&reordered, 3)
            }
            Order::Grey => {
                reordered = image.pixels.chunks_exact(3).map(luma).collect();
                (&reordered, 1)
            }
        };
        let (height, width) = (u64::from(image.height), u64::from(image.width));
        let shape = match self.layout {
            Layout::Nchw => vec![1, channels as u64, height, width],
            Layout::Nhwc => vec![1, height, width, channels as u64],
        };
        let data = match self.dtype {
            Dtype::U8 => TensorData::U8(self.bytes(pixels, channels)),
            Dtype::F32 => TensorData::F32(self.floats(pixels, channels)),
            Dtype::F16 => TensorData::F16(
                self.floats(pixels, channels).into_iter().map(|x| f16::from_f32(x).to_bits()).collect(),
            ),
        };
        Tensor::new(shape, data)
    }

    fn bytes(&self, pixels: &[u8], channels: usize) -> Vec<u8> {
        match self.layout {
            Layout::Nchw => {
                (0..channels).flat_map(|c| pixels.iter().skip(c).step_by(channels).copied()).collect()
            }
            Layout::Nhwc => pixels.to_vec(),
        }
    }

    fn floats(&self, pixels: &[u8], channels: usize) -> Vec<f32> {
        let mut out = vec![0.0; pixels.len()];
        match (self.layout, channels) {
            (Layout::Nchw, 3) => lanes::planes(pixels, self.gain, self.bias, &mut out),
            (_, channels) => lanes::interleaved(pixels, channels, self.gain, self.bias, &mut out),
        }
        out
    }
}

fn per_channel(name: &str, given: &[f64], channels: usize) -> Result<[f64; 3]> {
    match *given {
        _ if !given.iter().all(|x| x.is_finite()) => {
            Err(Error::invalid_option(format!("`{name}` contains a number that is not finite")))
        }
        [all] => Ok([all; 3]),
        [a, b, c] if channels == 3 => Ok([a, b, c]),
        _ => Err(Error::invalid_option(format!(
            "`{name}` has {} numbers: 1 or {channels} are possible",
            given.len()
        ))),
    }
}

/// ITU-R 601, in the fixed point that Pillow uses.
fn luma(pixel: &[u8]) -> u8 {
    let weigh = |value: u8, weight: u32| u32::from(value) * weight;
    ((weigh(pixel[0], 19_595) + weigh(pixel[1], 38_470) + weigh(pixel[2], 7_471) + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(options: Options) -> (Vec<u64>, TensorData) {
        let image = Image::new(2, 1, 3, vec![10, 20, 30, 40, 50, 60]).unwrap();
        let tensor = Packing::new(&options).unwrap().pack(&image).unwrap();
        (tensor.shape, tensor.data)
    }

    #[test]
    fn layouts_and_orders() {
        let u8s = |order, layout| pack(Options { order, layout, dtype: Dtype::U8, ..Options::default() });
        assert_eq!(
            u8s(Order::Rgb, Layout::Nchw),
            (vec![1, 3, 1, 2], TensorData::U8(vec![10, 40, 20, 50, 30, 60]))
        );
        assert_eq!(
            u8s(Order::Bgr, Layout::Nhwc),
            (vec![1, 1, 2, 3], TensorData::U8(vec![30, 20, 10, 60, 50, 40]))
        );
        // Pillow: Image.convert("L") of (10, 20, 30) and (40, 50, 60) is 18 and 48.
        assert_eq!(u8s(Order::Grey, Layout::Nchw), (vec![1, 1, 1, 2], TensorData::U8(vec![18, 48])));
    }

    #[test]
    fn each_channel_has_its_mean_and_std() {
        let options = Options {
            scale: Some(1.0),
            mean: vec![10.0, 0.0, 30.0],
            std: vec![1.0, 2.0, 5.0],
            ..Options::default()
        };
        assert_eq!(pack(options).1, TensorData::F32(vec![0.0, 30.0, 10.0, 25.0, 0.0, 6.0]));
    }

    #[test]
    fn half_precision_is_rounded_from_f32() {
        let options =
            Options { scale: Some(0.1), dtype: Dtype::F16, layout: Layout::Nhwc, ..Options::default() };
        let want = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0].map(|x| f16::from_f32(x).to_bits());
        assert_eq!(pack(options).1, TensorData::F16(want.to_vec()));
    }
}
