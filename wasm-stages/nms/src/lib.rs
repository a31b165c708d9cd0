//! Non-maximum suppression: of boxes that overlap, the best is kept.

mod suppress;

use pajamas_stage::{Description, Error, Files, Kind, Port, Result, Stage, Tensor, Values, export_stage};
use serde::Deserialize;
use serde_json::json;

pub use suppress::{Rules, iou, suppress};

/// The stage `nms`.
#[derive(Debug)]
pub struct Nms {
    rules: Rules,
}

/// The stage's options.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    iou: f32,
    class_agnostic: bool,
    max_detections: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { iou: 0.7, class_agnostic: false, max_detections: 300 }
    }
}

impl Stage for Nms {
    type Options = Options;

    fn describe() -> Description {
        let defaults = Options::default();
        Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Non-maximum suppression: of boxes that overlap, the one with the highest score is kept.",
        )
        .input(Port::new("detections", Kind::Detections, "boxes in any order"))
        .input(Port::optional("coefficients", Kind::Tensor, "numbers that belong to the boxes, [boxes, M]"))
        .output(Port::new("detections", Kind::Detections, "the boxes that are kept, best first"))
        .output(Port::optional("coefficients", Kind::Tensor, "the numbers of the boxes that are kept"))
        .options(json!({
            "iou": {
                "type": "number", "minimum": 0, "maximum": 1, "default": defaults.iou,
                "description": "boxes whose intersection over union is larger count as one object",
            },
            "class_agnostic": {
                "type": "boolean", "default": defaults.class_agnostic,
                "description": "whether a box also suppresses boxes of other classes",
            },
            "max_detections": {
                "type": "integer", "minimum": 1, "default": defaults.max_detections,
                "description": "how many boxes are kept at most",
            },
        }))
    }

    fn create(options: Options, _files: Files) -> Result<Self> {
        let Options { iou, class_agnostic, max_detections } = options;
        if !(0.0..=1.0).contains(&iou) {
            return Err(Error::invalid_option(format!("`iou` is {iou}: 0 to 1 is possible")));
        }
        if max_detections == 0 {
            return Err(Error::invalid_option("`max_detections` is at least 1"));
        }
        Ok(Self { rules: Rules { iou, class_agnostic, max_detections } })
    }

    fn run(&self, mut inputs: Values) -> Result<Values> {
        let boxes = inputs.detections("detections")?;
        let coefficients = inputs.tensor_opt("coefficients")?;
        let kept = suppress(&boxes, self.rules);
        let coefficients = coefficients.map(|tensor| rows(tensor, boxes.len(), &kept)).transpose()?;
        let detections: Vec<_> = kept.into_iter().map(|at| boxes[at].clone()).collect();
        let values = Values::new().with("detections", detections);
        Ok(match coefficients {
            Some(coefficients) => values.with("coefficients", coefficients),
            None => values,
        })
    }
}

/// The rows of a tensor that has one for each box.
fn rows(tensor: Tensor, boxes: usize, kept: &[usize]) -> Result<Tensor> {
    let &[count, side] = tensor.shape.as_slice() else {
        return Err(Error::invalid_input("`coefficients` must be [boxes, M]"));
    };
    if count != boxes as u64 {
        return Err(Error::invalid_input(format!("`coefficients` has {count} rows for {boxes} boxes")));
    }
    let elements = tensor.into_f32()?;
    let side_of = side as usize;
    let rows = kept.iter().flat_map(|at| &elements[at * side_of..(at + 1) * side_of]);
    Tensor::f32(vec![kept.len() as u64, side], rows.copied().collect())
}

export_stage!(Nms);

#[cfg(test)]
mod tests {
    use super::*;
    use pajamas_stage::testing;

    #[test]
    fn options_agree_with_their_schema() {
        testing::check_options::<Nms>(Files::default());
        for wrong in [json!({"iou": -0.1}), json!({"max_detections": 0})] {
            assert!(testing::create::<Nms>(&wrong, Files::default()).is_err(), "{wrong}");
        }
    }
    #[test]
    fn numbers_that_belong_to_a_box_go_with_it() {
        let at = |x1: f32, score: f32| pajamas_stage::Detection {
            x1,
            y1: 0.0,
            x2: x1 + 10.0,
            y2: 10.0,
            score,
            class_id: 0,
            label: None,
        };
        let stage: Nms = testing::create(&json!({}), Files::default()).unwrap();
        let boxes = vec![at(0.0, 0.5), at(50.0, 0.9), at(0.5, 0.6)];
        let with = |rows: u64| {
            let numbers = (0..rows * 2).map(|n| n as f32).collect();
            let inputs = Values::new()
                .with("detections", boxes.clone())
                .with("coefficients", Tensor::f32(vec![rows, 2], numbers).unwrap());
            stage.run(inputs)
        };
        let kept = with(3).unwrap().tensor("coefficients").unwrap();
        assert_eq!((kept.shape.clone(), kept.into_f32().unwrap()), (vec![2, 2], vec![2.0, 3.0, 4.0, 5.0]));
        assert_eq!(with(2).unwrap_err().code, "invalid-input");
    }
}
