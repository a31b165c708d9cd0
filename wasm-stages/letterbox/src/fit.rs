//! Where the picture goes, and putting it there.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use pajamas_stage::{Error, Image, Result};

/// The longest side of the rectangle.
pub const MAX_SIDE: u32 = 16_384;

/// Where a picture goes in the rectangle. All in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    source: (u32, u32),
    inner: (u32, u32),
    outer: (u32, u32),
    offset: (u32, u32),
}

impl Placement {
    /// As Ultralytics places it: the scaled sides are rounded, and of an odd margin the smaller part is left and on top.
    pub fn new(source: (u32, u32), outer: (u32, u32), scale_up: bool) -> Self {
        let factor =
            f64::min(f64::from(outer.0) / f64::from(source.0), f64::from(outer.1) / f64::from(source.1));
        let factor = if scale_up { factor } else { factor.min(1.0) };
        // Rounding half to even is what Python's `round` does; sides that would vanish keep one pixel.
        let side =
            |source: u32, outer: u32| ((f64::from(source) * factor).round_ties_even() as u32).clamp(1, outer);
        let inner = (side(source.0, outer.0), side(source.1, outer.1));
        Self { source, inner, outer, offset: ((outer.0 - inner.0) / 2, (outer.1 - inner.1) / 2) }
    }

    /// scale_x, scale_y, pad_x, pad_y, original width, original height.
    pub fn transform(&self) -> [f32; 6] {
        let scale = |inner: u32, source: u32| (f64::from(inner) / f64::from(source)) as f32;
        [
            scale(self.inner.0, self.source.0),
            scale(self.inner.1, self.source.1),
            self.offset.0 as f32,
            self.offset.1 as f32,
            self.source.0 as f32,
            self.source.1 as f32,
        ]
    }
}

/// Puts an RGB picture where `placement` says, on grey of the level `fill`.
pub fn letterbox(image: &Image, placement: &Placement, fill: u8, antialias: bool) -> Result<Image> {
    let scaled;
    let inner: &[u8] = if placement.inner == placement.source {
        &image.pixels
    } else {
        scaled = resize(image, placement.inner, antialias)?;
        &scaled
    };
    let row = placement.inner.0 as usize * 3;
    let stride = placement.outer.0 as usize * 3;
    let left = placement.offset.0 as usize * 3;
    let mut pixels = vec![fill; stride * placement.outer.1 as usize];
    let rows = pixels.chunks_exact_mut(stride).skip(placement.offset.1 as usize);
    for (to, from) in rows.zip(inner.chunks_exact(row)) {
        to[left..left + row].copy_from_slice(from);
    }
    Image::new(placement.outer.0, placement.outer.1, 3, pixels)
}

fn resize(image: &Image, (width, height): (u32, u32), antialias: bool) -> Result<Vec<u8>> {
    let internal =
        |error: &dyn std::fmt::Display| Error::new("internal", format!("resizing failed: {error}"));
    let source = TypedImageRef::<U8x3>::from_buffer(image.width, image.height, &image.pixels)
        .map_err(|error| internal(&error))?;
    let mut pixels = vec![0; width as usize * height as usize * 3];
    let mut target =
        TypedImage::<U8x3>::from_buffer(width, height, &mut pixels).map_err(|error| internal(&error))?;
    let algorithm = match antialias {
        true => ResizeAlg::Convolution(FilterType::Bilinear),
        false => ResizeAlg::Interpolation(FilterType::Bilinear),
    };
    let options = ResizeOptions::new().resize_alg(algorithm);
    Resizer::new().resize_typed(&source, &mut target, &options).map_err(|error| internal(&error))?;
    Ok(pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placement_is_that_of_ultralytics() {
        // (source, outer, inner, offset): bus.jpg, zidane.jpg, an odd margin, a sliver.
        for (source, outer, inner, offset) in [
            ((810, 1080), (640, 640), (480, 640), (80, 0)),
            ((1280, 720), (640, 640), (640, 360), (0, 140)),
            ((100, 99), (640, 640), (640, 634), (0, 3)),
            ((3, 5), (8, 8), (5, 8), (1, 0)),
            ((10_000, 1), (640, 640), (640, 1), (0, 319)),
        ] {
            let placement = Placement::new(source, outer, true);
            assert_eq!((placement.inner, placement.offset), (inner, offset), "{source:?} in {outer:?}");
        }
    }

    #[test]
    fn a_small_picture_is_enlarged_only_when_asked() {
        assert_eq!(Placement::new((10, 20), (40, 40), true).inner, (20, 40));
        let kept = Placement::new((10, 20), (40, 40), false);
        assert_eq!((kept.inner, kept.offset), ((10, 20), (15, 10)));
    }

    #[test]
    fn halving_averages_and_enlarging_interpolates() {
        // Checked against Pillow: Image.resize((2, 1), BILINEAR) of 0, 80, 160, 240.
        let ramp: Vec<u8> = [0u8, 80, 160, 240].iter().flat_map(|&v| [v; 3]).collect();
        let image = Image::new(4, 1, 3, ramp).unwrap();
        let halved = resize(&image, (2, 1), true).unwrap();
        assert_eq!(halved, [[57; 3], [183; 3]].concat());
        let nearest_two = resize(&image, (2, 1), false).unwrap();
        assert_eq!(nearest_two, [[40; 3], [200; 3]].concat());
    }
}
