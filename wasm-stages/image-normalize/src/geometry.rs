//! Resizing and cropping.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use pajamas_stage::{Error, Image, Result};

use crate::options::{Crop, Filter, MAX_SIDE, Options, Resize};

/// What happens to a picture's size.
#[derive(Debug, Clone, Copy)]
pub struct Geometry {
    target: Target,
    filter: FilterType,
    crop: Option<(u32, u32)>,
}

#[derive(Debug, Clone, Copy)]
enum Target {
    AsIs,
    Exact(u32, u32),
    ShorterSide(u32),
}

impl Geometry {
    /// Reads the options that are about size.
    pub fn new(options: &Options) -> Result<Self> {
        let target = match (options.resize, options.size, options.width, options.height) {
            (Resize::None, None, None, None) => Target::AsIs,
            (Resize::None, ..) => {
                return Err(Error::invalid_option(
                    "`size`, `width` and `height` mean nothing with `resize = none`",
                )
                .with_help("set `resize` to `exact` or `shorter-side`, or use `crop`"));
            }
            (Resize::ShorterSide, Some(size), None, None) => Target::ShorterSide(side(size)?),
            (Resize::ShorterSide, ..) => {
                return Err(Error::invalid_option(
                    "`resize = shorter-side` needs `size`, and neither width nor height",
                ));
            }
            (Resize::Exact, size, width, height) => match (width.or(size), height.or(size)) {
                (Some(width), Some(height)) => Target::Exact(side(width)?, side(height)?),
                _ => {
                    return Err(Error::invalid_option(
                        "`resize = exact` needs `size`, or `width` and `height`",
                    ));
                }
            },
        };
        let crop = match options.crop {
            None => None,
            Some(Crop::Square(size)) => Some((side(size)?, size)),
            Some(Crop::Sides([width, height])) => Some((side(width)?, side(height)?)),
        };
        let filter = match options.filter {
            Filter::Bilinear => FilterType::Bilinear,
            Filter::Bicubic => FilterType::CatmullRom,
        };
        Ok(Self { target, filter, crop })
    }

    /// Resizes and crops an RGB picture.
    pub fn apply(&self, image: Image) -> Result<Image> {
        let (width, height) = self.resized((image.width, image.height))?;
        let image = if (width, height) == (image.width, image.height) {
            image
        } else {
            self.resize(&image, width, height)?
        };
        match self.crop {
            Some((width, height)) if (width, height) != (image.width, image.height) => {
                crop(&image, width, height)
            }
            _ => Ok(image),
        }
    }

    /// The size after resizing. As in torchvision, the longer side is cut down to whole pixels.
    fn resized(&self, (width, height): (u32, u32)) -> Result<(u32, u32)> {
        match self.target {
            Target::AsIs => Ok((width, height)),
            Target::Exact(width, height) => Ok((width, height)),
            Target::ShorterSide(size) => {
                let longer = |long: u32, short: u32| {
                    let long = u64::from(size) * u64::from(long) / u64::from(short);
                    u32::try_from(long).ok().filter(|long| *long <= MAX_SIDE).ok_or_else(|| {
                        Error::invalid_input(format!(
                            "a picture of {width} x {height} would be {long} pixels long with a shorter side of {size}: \
                             at most {MAX_SIDE} are possible"
                        ))
                    })
                };
                if width <= height {
                    Ok((size, longer(height, width)?))
                } else {
                    Ok((longer(width, height)?, size))
                }
            }
        }
    }

    fn resize(&self, image: &Image, width: u32, height: u32) -> Result<Image> {
        let internal =
            |error: &dyn std::fmt::Display| Error::new("internal", format!("resizing failed: {error}"));
        let source = TypedImageRef::<U8x3>::from_buffer(image.width, image.height, &image.pixels)
            .map_err(|error| internal(&error))?;
        let mut pixels = vec![0; width as usize * height as usize * 3];
        let mut target =
            TypedImage::<U8x3>::from_buffer(width, height, &mut pixels).map_err(|error| internal(&error))?;
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(self.filter));
        Resizer::new().resize_typed(&source, &mut target, &options).map_err(|error| internal(&error))?;
        Image::new(width, height, 3, pixels)
    }
}

fn side(pixels: u32) -> Result<u32> {
    if (1..=MAX_SIDE).contains(&pixels) {
        return Ok(pixels);
    }
    Err(Error::invalid_option(format!("a side of {pixels} pixels: 1 to {MAX_SIDE} are possible")))
}

/// Cuts the centre out; of an odd margin torchvision rounds the half to even.
fn crop(image: &Image, width: u32, height: u32) -> Result<Image> {
    if width > image.width || height > image.height {
        return Err(Error::invalid_input(format!(
            "a crop of {width} x {height} does not fit into a picture of {} x {}",
            image.width, image.height
        ))
        .with_help("resize the picture first: `resize = shorter-side` with a `size` of at least the crop"));
    }
    let margin = |whole: u32, part: u32| (f64::from(whole - part) / 2.0).round_ties_even() as usize;
    let (left, top) = (margin(image.width, width), margin(image.height, height));
    let (stride, row) = (image.width as usize * 3, width as usize * 3);
    let mut pixels = Vec::with_capacity(row * height as usize);
    for line in image.pixels.chunks_exact(stride).skip(top).take(height as usize) {
        pixels.extend_from_slice(&line[left * 3..left * 3 + row]);
    }
    Image::new(width, height, 3, pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(options: Options) -> Geometry {
        Geometry::new(&options).unwrap()
    }

    #[test]
    fn the_shorter_side_decides_and_the_longer_is_cut_down() {
        let it = geometry(Options { resize: Resize::ShorterSide, size: Some(256), ..Options::default() });
        assert_eq!(it.resized((500, 333)).unwrap(), (384, 256));
        assert_eq!(it.resized((333, 500)).unwrap(), (256, 384));
        assert_eq!(it.resized((1_000_000, 1)).unwrap_err().code, "invalid-input");
    }

    #[test]
    fn crops_around_the_centre() {
        let image = Image::new(5, 3, 3, (0..45).collect()).unwrap();
        let cut = crop(&image, 2, 1).unwrap();
        // (5 - 2) / 2 = 1.5 rounds to 2, the even neighbour; one line of margin above.
        assert_eq!(cut.pixels, [21, 22, 23, 24, 25, 26]);
        assert_eq!(crop(&image, 6, 1).unwrap_err().code, "invalid-input");
    }

    #[test]
    fn resizing_is_that_of_pillow() {
        // Pillow's Image.resize((3, 1)) of one row 0, 50, 100, 150, 200, 250, 30.
        let row: Vec<u8> = [0u8, 50, 100, 150, 200, 250, 30].iter().flat_map(|&v| [v; 3]).collect();
        let image = Image::new(7, 1, 3, row).unwrap();
        for (filter, want) in [(Filter::Bilinear, BILINEAR), (Filter::Bicubic, BICUBIC)] {
            let it = geometry(Options {
                resize: Resize::Exact,
                width: Some(3),
                height: Some(1),
                filter,
                ..Options::default()
            });
            let got: Vec<u8> = it.apply(image.clone()).unwrap().pixels.chunks(3).map(|p| p[0]).collect();
            assert_eq!(got, want, "{filter:?}");
        }
    }

    const BILINEAR: [u8; 3] = [43, 150, 161];
    const BICUBIC: [u8; 3] = [36, 158, 161];
}
