//! Fits a picture into a rectangle without distorting it: scaled by one factor, centred, the rest filled.

mod fit;

use pajamas_stage::{
    Description, Error, Files, Image, Kind, Port, Result, Stage, Tensor, Values, export_stage,
};
use serde::Deserialize;
use serde_json::json;

pub use fit::{Placement, letterbox};

/// The stage `letterbox`.
#[derive(Debug)]
pub struct Letterbox {
    width: u32,
    height: u32,
    fill: u8,
    scale_up: bool,
    antialias: bool,
}

/// The stage's options.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    size: u32,
    width: Option<u32>,
    height: Option<u32>,
    fill: u8,
    scale_up: bool,
    antialias: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { size: 640, width: None, height: None, fill: 114, scale_up: true, antialias: true }
    }
}

impl Stage for Letterbox {
    type Options = Options;

    fn describe() -> Description {
        let defaults = Options::default();
        Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Fits a picture into a rectangle without distorting it: scaled by one factor, centred, the rest filled.",
        )
        .input(Port::new("image", Kind::Image, "any picture"))
        .output(Port::new("image", Kind::Image, "RGB, exactly width x height"))
        .output(Port::new(
            "transform",
            Kind::Tensor,
            "the way back, f32 of shape [6]: scale_x, scale_y, pad_x, pad_y, original width, original height; \
             x in the original = (x - pad_x) / scale_x",
        ))
        .options(json!({
            "size": {
                "type": "integer", "minimum": 1, "maximum": fit::MAX_SIDE, "default": defaults.size,
                "description": "width and height of the rectangle in pixels",
            },
            "width": {
                "type": "integer", "minimum": 1, "maximum": fit::MAX_SIDE,
                "description": "width of the rectangle, where it is not `size`",
            },
            "height": {
                "type": "integer", "minimum": 1, "maximum": fit::MAX_SIDE,
                "description": "height of the rectangle, where it is not `size`",
            },
            "fill": {
                "type": "integer", "minimum": 0, "maximum": 255, "default": defaults.fill,
                "description": "the grey around the picture",
            },
            "scale_up": {
                "type": "boolean", "default": defaults.scale_up,
                "description": "whether a small picture is enlarged",
            },
            "antialias": {
                "type": "boolean", "default": defaults.antialias,
                "description": "true: bilinear over the whole area that a pixel covers, as Pillow resizes; \
                                false: bilinear between four neighbours, as OpenCV's INTER_LINEAR",
            },
        }))
    }

    fn create(options: Options, _files: Files) -> Result<Self> {
        let width = options.width.unwrap_or(options.size);
        let height = options.height.unwrap_or(options.size);
        for (side, name) in [(width, "width"), (height, "height")] {
            if !(1..=fit::MAX_SIDE).contains(&side) {
                return Err(Error::invalid_option(format!(
                    "a {name} of {side} pixels: 1 to {} are possible",
                    fit::MAX_SIDE
                )));
            }
        }
        let Options { fill, scale_up, antialias, .. } = options;
        Ok(Self { width, height, fill, scale_up, antialias })
    }

    fn run(&self, mut inputs: Values) -> Result<Values> {
        let image: Image = inputs.image("image")?.into_rgb()?;
        let placement = Placement::new((image.width, image.height), (self.width, self.height), self.scale_up);
        let boxed = letterbox(&image, &placement, self.fill, self.antialias)?;
        let transform = Tensor::f32(vec![6], placement.transform().to_vec())?;
        Ok(Values::new().with("image", boxed).with("transform", transform))
    }
}

export_stage!(Letterbox);

#[cfg(test)]
mod tests {
    use super::*;
    use pajamas_stage::testing;

    #[test]
    fn options_agree_with_their_schema() {
        testing::check_options::<Letterbox>(Files::default());
        assert!(testing::create::<Letterbox>(&json!({"size": 0}), Files::default()).is_err());
        assert!(
            testing::create::<Letterbox>(&json!({"size": 640, "height": 1_000_000}), Files::default())
                .is_err()
        );
    }

    #[test]
    fn leaves_a_picture_of_the_asked_size_and_the_way_back() {
        let stage: Letterbox = testing::create(&json!({"width": 8, "height": 4}), Files::default()).unwrap();
        let image = Image::new(2, 2, 1, vec![9; 4]).unwrap();
        let mut out = stage.run(Values::new().with("image", image)).unwrap();
        let boxed = out.image("image").unwrap();
        assert_eq!((boxed.width, boxed.height, boxed.channels), (8, 4, 3));
        assert_eq!(boxed.pixels[..24], [[114; 6], [9; 6], [9; 6], [114; 6]].concat());
        assert_eq!(out.tensor("transform").unwrap().into_f32().unwrap(), [2.0, 2.0, 2.0, 0.0, 2.0, 2.0]);
    }
}
