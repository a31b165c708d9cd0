//! Bytes to an upright RGB picture: PNG, JPEG, WebP, GIF (first frame), BMP, TIFF and PNM.

mod decode;

use pajamas_stage::{Description, Files, Kind, Port, Result, Stage, Tensor, Values, export_stage};
use serde::Deserialize;
use serde_json::json;

pub use decode::{Limits, decode};

/// The stage `image-decode`.
#[derive(Debug)]
pub struct ImageDecode {
    limits: Limits,
}

/// The stage's options.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    max_pixels: u64,
    max_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_pixels: 50_000_000, max_bytes: 64 << 20 }
    }
}

impl Stage for ImageDecode {
    type Options = Options;

    fn describe() -> Description {
        let defaults = Options::default();
        Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "Decodes a picture (PNG, JPEG, WebP, GIF, BMP, TIFF, PNM) into upright 8-bit RGB: the orientation in the \
             EXIF data is applied, alpha is dropped, of an animation the first frame is taken.",
        )
        .input(Port::new("bytes", Kind::Bytes, "the file as it is"))
        .output(Port::new("image", Kind::Image, "the upright picture, RGB"))
        .output(Port::new("size", Kind::Tensor, "width and height of the upright picture in pixels: f32 of shape [2]"))
        .options(json!({
            "max_pixels": {
                "type": "integer", "minimum": 1, "default": defaults.max_pixels,
                "description": "pictures of more pixels are refused before they are decoded",
            },
            "max_bytes": {
                "type": "integer", "minimum": 1, "default": defaults.max_bytes,
                "description": "files of more bytes are refused",
            },
        }))
    }

    fn create(options: Options, _files: Files) -> Result<Self> {
        let Options { max_pixels, max_bytes } = options;
        Ok(Self { limits: Limits { max_pixels, max_bytes } })
    }

    fn run(&self, mut inputs: Values) -> Result<Values> {
        let image = decode(&inputs.bytes("bytes")?, self.limits)?;
        let size = Tensor::f32(vec![2], vec![image.width as f32, image.height as f32])?;
        Ok(Values::new().with("image", image).with("size", size))
    }
}

export_stage!(ImageDecode);

#[cfg(test)]
mod tests {
    use super::*;
    use pajamas_stage::testing;

    #[test]
    fn options_agree_with_their_schema() {
        testing::check_options::<ImageDecode>(Files::default());
    }

    #[test]
    fn leaves_the_picture_and_its_size() {
        let stage: ImageDecode = testing::create(&json!({ "max_pixels": 2 }), Files::default()).unwrap();
        let pnm = b"P6 2 1 255\n\x01\x02\x03\x04\x05\x06".to_vec();
        let mut out = stage.run(Values::new().with("bytes", pnm)).unwrap();
        assert_eq!(out.image("image").unwrap().pixels, [1, 2, 3, 4, 5, 6]);
        assert_eq!(out.tensor("size").unwrap().into_f32().unwrap(), [2.0, 1.0]);
        let wide = stage.run(Values::new().with("bytes", b"P6 3 1 255\n123456789".to_vec()));
        assert_eq!(wide.unwrap_err().code, "image-too-large");
    }
}
