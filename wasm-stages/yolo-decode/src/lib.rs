//! Reads the boxes out of the output of a YOLOv8 or YOLO11 detector.

mod head;

use pajamas_stage::{Description, Error, Files, Kind, Port, Result, Stage, Tensor, Values, export_stage};
use serde::Deserialize;
use serde_json::json;

pub use head::{Head, Layout, Settings, Transform};

/// The stage `yolo-decode`.
#[derive(Debug)]
pub struct YoloDecode {
    settings: Settings,
}

/// The stage's options.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    confidence: f32,
    classes: Option<u32>,
    layout: Layout,
    clip: bool,
    max_candidates: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { confidence: 0.25, classes: None, layout: Layout::Auto, clip: true, max_candidates: 30_000 }
    }
}

impl Stage for YoloDecode {
    type Options = Options;

    fn describe() -> Description {
        let defaults = Options::default();
        Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Reads the boxes out of the output of a YOLOv8 or YOLO11 detector (box as centre and size, then one score \
             for each class; no objectness), best first and not yet suppressed.",
        )
        .input(Port::new("tensor", Kind::Tensor, "the model's output: [1, 4 + C, N] or [1, N, 4 + C]"))
        .input(Port::optional("transform", Kind::Tensor, "from letterbox; without it boxes stay in the model's pixels"))
        .output(Port::new("detections", Kind::Detections, "boxes in pixels of the upright picture, best first"))
        .output(Port::optional(
            "coefficients",
            Kind::Tensor,
            "what follows the scores of each box, [boxes, M], when there is any: for mask-decode",
        ))
        .options(json!({
            "confidence": {
                "type": "number", "minimum": 0, "maximum": 1, "default": defaults.confidence,
                "description": "the lowest score that a box may have",
            },
            "classes": {
                "type": "integer", "minimum": 1,
                "description": "how many scores follow the box; all of them when not given. Needed for heads with more \
                                behind the scores, as the mask coefficients of segmentation models",
            },
            "layout": {
                "enum": ["auto", "features-first", "boxes-first"], "default": "auto",
                "description": "features-first: [1, 4 + C, N]; boxes-first: [1, N, 4 + C]; auto: the shorter side is the features",
            },
            "clip": {
                "type": "boolean", "default": defaults.clip,
                "description": "whether boxes are cut off at the picture's borders",
            },
            "max_candidates": {
                "type": "integer", "minimum": 1, "default": defaults.max_candidates,
                "description": "how many of the best boxes are kept",
            },
        }))
    }

    fn create(options: Options, _files: Files) -> Result<Self> {
        let Options { confidence, classes, layout, clip, max_candidates } = options;
        if !(0.0..=1.0).contains(&confidence) {
            return Err(Error::invalid_option(format!("`confidence` is {confidence}: 0 to 1 is possible")));
        }
        if classes == Some(0) || max_candidates == 0 {
            return Err(Error::invalid_option("`classes` and `max_candidates` are at least 1"));
        }
        let classes = classes.map(|n| n as usize);
        Ok(Self { settings: Settings { confidence, classes, layout, clip, max_candidates } })
    }

    fn run(&self, mut inputs: Values) -> Result<Values> {
        let Tensor { shape, data } = inputs.tensor("tensor")?;
        let head = Head::new(&shape, &self.settings)?;
        let transform = match inputs.tensor_opt("transform")? {
            Some(tensor) => Some(Transform::new(&tensor.into_f32()?)?),
            None => None,
        };
        let elements = Tensor { shape, data }.into_f32()?;
        let found = head.detections(&elements, transform, &self.settings);
        let coefficients = (head.coefficients() > 0)
            .then(|| {
                let rows = found.iter().flat_map(|(at, _)| head.coefficients_of(&elements, *at));
                Tensor::f32(vec![found.len() as u64, head.coefficients() as u64], rows.collect())
            })
            .transpose()?;
        let detections: Vec<_> = found.into_iter().map(|(_, detection)| detection).collect();
        let values = Values::new().with("detections", detections);
        Ok(match coefficients {
            Some(coefficients) => values.with("coefficients", coefficients),
            None => values,
        })
    }
}

export_stage!(YoloDecode);

#[cfg(test)]
mod tests {
    use super::*;
    use pajamas_stage::testing;

    #[test]
    fn options_agree_with_their_schema() {
        testing::check_options::<YoloDecode>(Files::default());
        for wrong in [json!({"confidence": 1.5}), json!({"classes": 0}), json!({"layout": "sideways"})] {
            assert!(testing::create::<YoloDecode>(&wrong, Files::default()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_tensor_of_halves_is_read_too() {
        let stage: YoloDecode = testing::create(&json!({"layout": "boxes-first"}), Files::default()).unwrap();
        // One box: centre 8, 8, size 4 x 4, scores 0.5 and 0.25, in f16.
        let halves = vec![0x4800, 0x4800, 0x4400, 0x4400, 0x3800, 0x3400];
        let tensor = Tensor::new(vec![1, 1, 6], pajamas_stage::TensorData::F16(halves)).unwrap();
        let found =
            stage.run(Values::new().with("tensor", tensor)).unwrap().detections("detections").unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].x1, found[0].y2, found[0].score, found[0].class_id), (6.0, 10.0, 0.5, 0));
    }
}
