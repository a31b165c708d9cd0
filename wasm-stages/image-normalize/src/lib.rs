//! A picture to the tensor that a model wants: resized, cropped, scaled, shifted and laid out.

mod geometry;
mod lanes;
mod options;
mod pack;

use pajamas_stage::{Description, Files, Kind, Port, Result, Stage, Values, export_stage};

pub use geometry::Geometry;
pub use options::{Dtype, Filter, Layout, Options, Order, Resize};
pub use pack::Packing;

/// The stage `image-normalize`.
#[derive(Debug)]
pub struct ImageNormalize {
    geometry: Geometry,
    packing: Packing,
}

impl Stage for ImageNormalize {
    type Options = Options;

    fn describe() -> Description {
        Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Makes the tensor that a model wants of a picture: resizes, crops around the centre, and stores \
             (pixel * scale - mean) / std in the asked order, layout and type.",
        )
        .input(Port::new("image", Kind::Image, "any picture"))
        .output(Port::new("tensor", Kind::Tensor, "shape [1, C, H, W] (nchw) or [1, H, W, C] (nhwc)"))
        .options(options::schema())
    }

    fn create(options: Options, _files: Files) -> Result<Self> {
        Ok(Self { geometry: Geometry::new(&options)?, packing: Packing::new(&options)? })
    }

    fn run(&self, mut inputs: Values) -> Result<Values> {
        let picture = self.geometry.apply(inputs.image("image")?.into_rgb()?)?;
        Ok(Values::new().with("tensor", self.packing.pack(&picture)?))
    }
}

export_stage!(ImageNormalize);

#[cfg(test)]
mod tests {
    use super::*;
    use pajamas_stage::{Image, testing};
    use serde_json::json;

    #[test]
    fn options_agree_with_their_schema() {
        testing::check_options::<ImageNormalize>(Files::default());
        for wrong in [
            json!({"resize": "exact"}),
            json!({"resize": "shorter-side", "width": 3}),
            json!({"size": 4}),
            json!({"resize": "bigger", "size": 4}),
            json!({"mean": [0.5, 0.5]}),
            json!({"std": [0.0]}),
            json!({"dtype": "u8", "scale": 0.5}),
            json!({"crop": 0}),
        ] {
            let refused = testing::create::<ImageNormalize>(&wrong, Files::default());
            assert_eq!(refused.map(|_| ()).map_err(|e| e.code), Err("invalid-option".into()), "{wrong}");
        }
    }

    #[test]
    fn the_recipe_of_imagenet_classifiers() {
        let options = json!({
            "resize": "shorter-side", "size": 8, "crop": 4,
            "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
        });
        let stage: ImageNormalize = testing::create(&options, Files::default()).unwrap();
        let pixels = [255u8, 0, 51].repeat(20 * 10);
        let image = Image::new(20, 10, 3, pixels).unwrap();
        let tensor = stage.run(Values::new().with("image", image)).unwrap().tensor("tensor").unwrap();
        assert_eq!(tensor.shape, [1, 3, 4, 4]);
        let planes = tensor.into_f32().unwrap();
        for (plane, want) in planes.chunks(16).zip([2.248_908_3_f32, -2.035_714_3, -0.915_555_6]) {
            assert!(plane.iter().all(|x| (x - want).abs() < 1e-5), "{plane:?} is not {want}");
        }
    }
}
