//! The stage's options, as the configuration spells them.

use serde::Deserialize;
use serde_json::{Value as Json, json};

/// The longest side that a picture may be resized or cropped to.
pub const MAX_SIDE: u32 = 16_384;

/// How the picture is resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resize {
    /// Not at all.
    None,
    /// To exactly width x height, whatever its proportions.
    Exact,
    /// So that its shorter side is `size`, keeping its proportions.
    ShorterSide,
}

/// The filter of the resizing. Both are antialiased, as in Pillow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// A triangle: what most classifiers were trained with.
    Bilinear,
    /// Cubic, a = -0.5.
    Bicubic,
}

/// The order of the channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red: models that were trained with OpenCV or Caffe.
    Bgr,
    /// One channel, the luma of ITU-R 601.
    Grey,
}

/// The layout of the tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Planes.
    Nchw,
    /// Interleaved.
    Nhwc,
}

/// The element type of the tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// The bytes as they are: neither scaled nor shifted.
    U8,
}

/// The width and height of the crop.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
pub enum Crop {
    /// A square.
    Square(u32),
    /// Width and height.
    Sides([u32; 2]),
}

/// The stage's options.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "`schema` describes them")]
pub struct Options {
    pub resize: Resize,
    pub size: Option<u32>,
    pub width: Option<u32>,
    pub height: Option<u32>,
    pub filter: Filter,
    pub crop: Option<Crop>,
    pub scale: Option<f64>,
    pub mean: Vec<f64>,
    pub std: Vec<f64>,
    pub order: Order,
    pub layout: Layout,
    pub dtype: Dtype,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            resize: Resize::None,
            size: None,
            width: None,
            height: None,
            filter: Filter::Bilinear,
            crop: None,
            scale: None,
            mean: vec![0.0],
            std: vec![1.0],
            order: Order::Rgb,
            layout: Layout::Nchw,
            dtype: Dtype::F32,
        }
    }
}

/// The properties of the options' JSON Schema.
pub fn schema() -> Json {
    let side = json!({ "type": "integer", "minimum": 1, "maximum": MAX_SIDE });
    let side = |description: &str| {
        let mut schema = side.clone();
        schema["description"] = description.into();
        schema
    };
    let per_channel = |default: f64, description: &str| {
        json!({
            "type": "array", "items": { "type": "number" }, "minItems": 1, "maxItems": 3,
            "default": [default], "description": description,
        })
    };
    json!({
        "resize": {
            "enum": ["none", "exact", "shorter-side"], "default": "none",
            "description": "exact: to width x height; shorter-side: so that the shorter side is `size`, keeping proportions",
        },
        "size": side("width and height (exact), or the shorter side (shorter-side), in pixels"),
        "width": side("width for `exact`, where it is not `size`"),
        "height": side("height for `exact`, where it is not `size`"),
        "filter": {
            "enum": ["bilinear", "bicubic"], "default": "bilinear",
            "description": "the filter of the resizing, antialiased as in Pillow",
        },
        "crop": {
            "oneOf": [
                { "type": "integer", "minimum": 1, "maximum": MAX_SIDE },
                { "type": "array", "items": { "type": "integer", "minimum": 1 }, "minItems": 2, "maxItems": 2 },
            ],
            "description": "what is cut out around the centre after resizing: a side, or [width, height]",
        },
        "scale": {
            "type": "number",
            "description": "what a pixel of 0..=255 is multiplied with; 1/255 when not given",
        },
        "mean": per_channel(0.0, "subtracted after scaling; one number, or one for each channel in the output's order"),
        "std": per_channel(1.0, "divided by after subtracting; one number, or one for each channel in the output's order"),
        "order": {
            "enum": ["rgb", "bgr", "grey"], "default": "rgb",
            "description": "the order of the channels in the tensor",
        },
        "layout": {
            "enum": ["nchw", "nhwc"], "default": "nchw",
            "description": "nchw: one plane after the other; nhwc: channels interleaved",
        },
        "dtype": {
            "enum": ["f32", "f16", "u8"], "default": "f32",
            "description": "the element type; u8 keeps the pixels as they are and takes no scale, mean or std",
        },
    })
}
