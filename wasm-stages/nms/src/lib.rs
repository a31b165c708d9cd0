//! Non-maximum suppression: of boxes that overlap, the best is kept.

mod suppress;

use pajamas_stage::{Description, Error, Files, Kind, Port, Result, Stage, Values, export_stage};
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
        .output(Port::new("detections", Kind::Detections, "the boxes that are kept, best first"))
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
        let kept = suppress(inputs.detections("detections")?, self.rules);
        Ok(Values::new().with("detections", kept))
    }
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
}
