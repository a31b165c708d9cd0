//! How a model wants its picture.

use pajamas_plugin_api::{DType, Signature, TensorSpec};
use serde_json::{Value as Json, json};

use super::{Beside, size};

/// Mean and standard deviation of ImageNet's training pictures: what classifiers without a word of their own were
/// trained with (torchvision's reference transforms).
const IMAGENET: ([f64; 3], [f64; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// Side of the resized picture over side of the crop, in the same transforms: 256 to 224.
const RESIZE_TO_CROP: f64 = 256.0 / 224.0;

/// How Pillow numbers the filter that is not our default.
const PILLOW_BICUBIC: u64 = 3;

/// How a model wants its picture.
pub struct Picture<'s> {
    pub spec: &'s TensorSpec,
    pub width: u64,
    pub height: u64,
    pub layout: &'static str,
}

impl<'s> Picture<'s> {
    /// The input that is one RGB picture: the only input, or the one that transformers calls `pixel_values`.
    pub fn of(signature: &'s Signature, beside: &Beside) -> Option<Self> {
        let spec = match signature.inputs.as_slice() {
            [spec] => spec,
            several => several.iter().find(|spec| spec.name == "pixel_values")?,
        };
        let one = |dim| size(dim).is_none_or(|n| n == 1);
        let three = |dim| size(dim).map_or(spec.name == "pixel_values", |n| n == 3);
        let known = || said_size(signature).or_else(|| beside_size(beside));
        match spec.shape.as_slice() {
            [batch, channels, height, width] if one(batch) && three(channels) => {
                let (height, width) = size(height).zip(size(width)).or_else(known)?;
                Some(Self { spec, width, height, layout: "nchw" })
            }
            [batch, height, width, channels] if one(batch) && size(channels) == Some(3) => {
                let (height, width) = size(height).zip(size(width)).or_else(known)?;
                Some(Self { spec, width, height, layout: "nhwc" })
            }
            _ => None,
        }
    }

    /// The element type, as image-normalize names it.
    pub fn dtype(&self) -> &'static str {
        match self.spec.dtype {
            DType::F16 => "f16",
            DType::U8 => "u8",
            _ => "f32",
        }
    }

    /// The options of image-normalize for a model that looks at the whole picture: as `preprocessor_config.json` says, else
    /// the model's metadata, else as torchvision does it.
    pub fn normalize(&self, signature: &Signature, beside: &Beside) -> Json {
        let said =
            |key: &str| signature.metadata.get(key).and_then(|text| serde_json::from_str::<Json>(text).ok());
        let asked = &beside.preprocessor;
        let channels = |key: &str, own: &str, usual: [f64; 3]| {
            let asked = Some(&asked[key]).filter(|value| value.is_array()).cloned();
            asked.or_else(|| said(own)).unwrap_or_else(|| json!(usual))
        };
        let mut options = json!({
            "layout": self.layout,
            "dtype": self.dtype(),
            "mean": channels("image_mean", "mean", IMAGENET.0),
            "std": channels("image_std", "std", IMAGENET.1),
        });
        if asked["do_normalize"] == false {
            options["mean"] = json!([0.0]);
            options["std"] = json!([1.0]);
        }
        if asked["resample"] == PILLOW_BICUBIC {
            options["filter"] = json!("bicubic");
        }
        let (width, height) = (self.width, self.height);
        let crops = asked["do_center_crop"] == true || asked["size"]["shortest_edge"].is_u64();
        let exact = match asked.is_object() {
            true => !crops,
            false => signature.metadata.get("resize").is_some_and(|resize| resize == "exact"),
        };
        if exact {
            options["resize"] = json!("exact");
            options["width"] = json!(width);
            options["height"] = json!(height);
        } else {
            let shorter = asked["size"]["shortest_edge"].as_u64().or_else(|| asked["size"].as_u64());
            let usual = || (width.max(height) as f64 * RESIZE_TO_CROP).round() as u64;
            options["resize"] = json!("shorter-side");
            options["size"] = json!(shorter.unwrap_or_else(usual));
            options["crop"] = json!([width, height]);
        }
        options
    }
}

/// Ultralytics writes `imgsz` = `[height, width]` into the metadata of models with dynamic shapes.
fn said_size(signature: &Signature) -> Option<(u64, u64)> {
    let text = signature.metadata.get("imgsz")?;
    let sides: Vec<u64> = serde_json::from_str(text).ok()?;
    Some((*sides.first()?, *sides.last()?))
}

/// transformers writes the size into `preprocessor_config.json`, as one number or as several, and into `config.json`.
fn beside_size(beside: &Beside) -> Option<(u64, u64)> {
    let of = |size: &Json| {
        let sides = size["height"].as_u64().zip(size["width"].as_u64());
        sides.or_else(|| size.as_u64().or_else(|| size["shortest_edge"].as_u64()).map(|side| (side, side)))
    };
    let Beside { preprocessor, config, .. } = beside;
    let vision = &config["vision_config"]["image_size"];
    [&preprocessor["crop_size"], &preprocessor["size"], &config["image_size"], vision]
        .into_iter()
        .find_map(of)
}
