//! Turns prototypes and coefficients of a YOLO segmentation model into masks.

mod outline;
mod prototypes;
mod rle;

use pajamas_stage::{Description, Error, Files, Kind, Port, Result, Stage, Tensor, Values, export_stage};
use serde::Deserialize;
use serde_json::{Value as Json, json};

pub use outline::outlines;
pub use prototypes::{Frame, Mask, Prototypes};
pub use rle::{compressed, counts};

/// The stage `mask-decode`.
#[derive(Debug)]
pub struct MaskDecode {
    stride: f32,
    polygons: bool,
    tolerance: f32,
}

/// The stage's options.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    stride: f32,
    polygons: bool,
    polygon_tolerance: f32,
}

impl Default for Options {
    fn default() -> Self {
        Self { stride: 4.0, polygons: false, polygon_tolerance: 1.0 }
    }
}

impl Stage for MaskDecode {
    type Options = Options;

    fn describe() -> Description {
        let defaults = Options::default();
        Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Turns the prototypes of a YOLO segmentation model, and the coefficients of each box, into one mask for each box, \
             in pixels of the upright picture.",
        )
        .input(Port::new("detections", Kind::Detections, "the boxes that are kept, from nms"))
        .input(Port::new("coefficients", Kind::Tensor, "[boxes, M], from nms"))
        .input(Port::new("prototypes", Kind::Tensor, "the model's second output: [1, M, height, width]"))
        .input(Port::optional("transform", Kind::Tensor, "from letterbox; without it masks are in the model's pixels"))
        .output(Port::new(
            "masks",
            Kind::Text,
            "a JSON list with an object for each box: `rle` is the mask as COCO writes it, {\"size\": [height, width], \
             \"counts\": \"…\"}; `polygons`, where asked for, its outlines, [[x, y, x, y, …], …], without holes",
        ))
        .options(json!({
            "stride": {
                "type": "number", "exclusiveMinimum": 0, "default": defaults.stride,
                "description": "how many of the model's pixels one cell of a prototype covers on a side",
            },
            "polygons": {
                "type": "boolean", "default": defaults.polygons,
                "description": "whether outlines are made, too",
            },
            "polygon_tolerance": {
                "type": "number", "minimum": 0, "default": defaults.polygon_tolerance,
                "description": "how far, in pixels, an outline may be from the mask's border; with 0 it is the border itself",
            },
        }))
    }

    fn create(options: Options, _files: Files) -> Result<Self> {
        let Options { stride, polygons, polygon_tolerance: tolerance } = options;
        if !(stride > 0.0 && stride.is_finite() && tolerance >= 0.0 && tolerance.is_finite()) {
            return Err(Error::invalid_option(
                "`stride` must be above 0, and `polygon_tolerance` not below it",
            ));
        }
        Ok(Self { stride, polygons, tolerance })
    }

    fn run(&self, mut inputs: Values) -> Result<Values> {
        let detections = inputs.detections("detections")?;
        let coefficients = inputs.tensor("coefficients")?;
        let prototypes = Prototypes::new(inputs.tensor("prototypes")?)?;
        let transform = inputs.tensor_opt("transform")?.map(Tensor::into_f32).transpose()?;
        let frame = Frame::new(&prototypes, transform.as_deref(), self.stride)?;
        let wanted = [detections.len() as u64, prototypes.count() as u64];
        if coefficients.shape != wanted {
            return Err(Error::invalid_input(format!(
                "`coefficients` is {:?}, and {} boxes with {} prototypes need {wanted:?}",
                coefficients.shape,
                detections.len(),
                prototypes.count()
            )));
        }
        let coefficients = coefficients.into_f32()?;
        let rows = coefficients.chunks_exact(prototypes.count());
        let masks: Json = detections
            .iter()
            .zip(rows)
            .map(|(found, row)| {
                let mask = prototypes.mask(row, [found.x1, found.y1, found.x2, found.y2], &frame);
                let size = [mask.height, mask.width];
                let rle = json!({ "size": size, "counts": compressed(&counts(&mask)) });
                match self.polygons {
                    true => json!({ "rle": rle, "polygons": outlines(&mask, self.tolerance) }),
                    false => json!({ "rle": rle }),
                }
            })
            .collect();
        Ok(Values::new().with("masks", masks.to_string()))
    }
}

export_stage!(MaskDecode);

#[cfg(test)]
mod tests {
    use super::*;
    use pajamas_stage::{Detection, testing};

    #[test]
    fn options_agree_with_their_schema() {
        testing::check_options::<MaskDecode>(Files::default());
        for wrong in [json!({"stride": 0}), json!({"polygon_tolerance": -1})] {
            assert!(testing::create::<MaskDecode>(&wrong, Files::default()).is_err(), "{wrong}");
        }
    }

    fn run(coefficients: Vec<u64>, prototypes: Vec<u64>, transform: Vec<f32>) -> Result<Json> {
        let stage: MaskDecode = testing::create(&json!({"polygons": true}), Files::default())?;
        let found = Detection { x1: 2.0, y1: 2.0, x2: 6.0, y2: 6.0, score: 1.0, class_id: 0, label: None };
        let ones = |shape: Vec<u64>| {
            let elements = shape.iter().product::<u64>() as usize;
            Tensor::f32(shape, vec![1.0; elements])
        };
        let inputs = Values::new()
            .with("detections", vec![found])
            .with("coefficients", ones(coefficients)?)
            .with("prototypes", ones(prototypes)?)
            .with("transform", Tensor::f32(vec![transform.len() as u64], transform)?);
        let masks = stage.run(inputs)?.text("masks")?;
        Ok(serde_json::from_str(&masks).unwrap())
    }

    #[test]
    fn a_mask_that_fills_its_box() {
        let masks = run(vec![1, 2], vec![1, 2, 2, 2], vec![1.0, 1.0, 0.0, 0.0, 8.0, 8.0]).unwrap();
        let polygon = json!([[6.0, 2.0, 6.0, 6.0, 2.0, 6.0, 2.0, 2.0]]);
        // 18 zeros, then four columns of four with four between them, 18 zeros.
        let counts = compressed(&[18, 4, 4, 4, 4, 4, 4, 4, 18]);
        assert_eq!(masks, json!([{"rle": {"size": [8, 8], "counts": counts}, "polygons": polygon}]));
    }

    #[test]
    fn shapes_that_do_not_belong_together_are_refused() {
        let identity = || vec![1.0, 1.0, 0.0, 0.0, 8.0, 8.0];
        for (coefficients, prototypes, transform) in [
            (vec![1, 3], vec![1, 2, 2, 2], identity()),
            (vec![2, 2], vec![1, 2, 2, 2], identity()),
            (vec![1, 2], vec![2, 2, 2, 2], identity()),
            (vec![1, 2], vec![1, 2, 0, 2], identity()),
            (vec![1, 2], vec![2, 2, 2], identity()),
            (vec![1, 2], vec![1, 2, 2, 2], vec![0.0, 1.0, 0.0, 0.0, 8.0, 8.0]),
            (vec![1, 2], vec![1, 2, 2, 2], vec![1.0, 1.0, 0.0, 0.0, 8e9, 8.0]),
            (vec![1, 2], vec![1, 2, 2, 2], vec![1.0, 1.0]),
        ] {
            let refused = run(coefficients, prototypes, transform).unwrap_err();
            assert_eq!(refused.code, "invalid-input");
        }
    }
}
