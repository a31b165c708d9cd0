//! The decoding itself.

use std::io::Cursor;

use image::error::{ImageError, LimitErrorKind};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use pajamas_stage::{Error, Image, Result};

/// How large a picture may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Width times height.
    pub max_pixels: u64,
    /// Bytes of the file.
    pub max_bytes: u64,
}

const FORMATS: [(ImageFormat, &str); 7] = [
    (ImageFormat::Png, "PNG"),
    (ImageFormat::Jpeg, "JPEG"),
    (ImageFormat::WebP, "WebP"),
    (ImageFormat::Gif, "GIF"),
    (ImageFormat::Bmp, "BMP"),
    (ImageFormat::Tiff, "TIFF"),
    (ImageFormat::Pnm, "PNM"),
];

/// Decodes a picture into upright RGB.
///
/// Errors: `image-unsupported` (no known format), `image-too-large` (over the limits, found before any pixel is
/// decoded), `image-invalid` (damaged or truncated).
pub fn decode(bytes: &[u8], limits: Limits) -> Result<Image> {
    if bytes.len() as u64 > limits.max_bytes {
        return Err(Error::new(
            "image-too-large",
            format!("a file of {} bytes: at most {} are allowed", bytes.len(), limits.max_bytes),
        )
        .with_help("send a smaller picture, or raise `max_bytes` of the stage image-decode"));
    }
    let (format, name) = format_of(bytes)?;
    let mut decoder = ImageReader::with_format(Cursor::new(bytes), format)
        .into_decoder()
        .map_err(|error| refusal(name, &error))?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > limits.max_pixels {
        return Err(Error::new(
            "image-too-large",
            format!(
                "a {name} of {width} x {height} pixels: at most {} pixels are allowed",
                limits.max_pixels
            ),
        )
        .with_help("send a smaller picture, or raise `max_pixels` of the stage image-decode"));
    }
    if pixels == 0 {
        return Err(Error::new(
            "image-invalid",
            format!("a {name} of {width} x {height} pixels has nothing in it"),
        ));
    }
    // Damaged EXIF data is no reason to refuse the picture.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| refusal(name, &error))?;
    picture.apply_orientation(orientation);
    let rgb = picture.into_rgb8();
    Image::new(rgb.width(), rgb.height(), 3, rgb.into_raw())
}

fn format_of(bytes: &[u8]) -> Result<(ImageFormat, &'static str)> {
    let guessed = image::guess_format(bytes).ok();
    FORMATS.into_iter().find(|(format, _)| Some(*format) == guessed).ok_or_else(|| {
        let what = match guessed {
            Some(other) => format!("a picture in the format {other:?}"),
            None if bytes.is_empty() => "an empty file".into(),
            None => {
                let start: Vec<_> = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
                format!("a file of no known picture format (it begins with {})", start.join(" "))
            }
        };
        Error::new("image-unsupported", format!("{what} cannot be decoded"))
            .with_help(format!("convert it to one of {}", FORMATS.map(|(_, name)| name).join(", ")))
    })
}

fn refusal(name: &str, error: &ImageError) -> Error {
    match error {
        ImageError::Limits(limit) if !matches!(limit.kind(), LimitErrorKind::Unsupported { .. }) => {
            Error::new("image-too-large", format!("the {name} is too large: {error}"))
                .with_help("send a smaller picture")
        }
        ImageError::Unsupported(_) => {
            Error::new("image-unsupported", format!("this kind of {name} cannot be decoded: {error}"))
                .with_help("convert it to 8-bit PNG or JPEG")
        }
        _ => Error::new("image-invalid", format!("the {name} is damaged or truncated: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::codecs::jpeg::JpegEncoder;
    use image::{ExtendedColorType, ImageEncoder, RgbImage};

    const LIMITS: Limits = Limits { max_pixels: 1000, max_bytes: 10_000 };

    /// Red, green, blue above white, grey, black.
    fn picture() -> DynamicImage {
        let pixels = vec![255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255, 128, 128, 128, 0, 0, 0];
        DynamicImage::from(RgbImage::from_raw(3, 2, pixels).unwrap())
    }

    fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn code(bytes: &[u8]) -> String {
        decode(bytes, LIMITS).unwrap_err().code
    }

    #[test]
    fn lossless_formats_give_the_pixels_back() {
        for (format, name) in FORMATS.into_iter().filter(|(_, name)| !matches!(*name, "JPEG" | "GIF")) {
            let image = decode(&encoded(&picture(), format), LIMITS).unwrap();
            assert_eq!((image.width, image.height, image.channels), (3, 2, 3), "{name}");
            assert_eq!(image.pixels, picture().into_rgb8().into_raw(), "{name}");
        }
        let gif = decode(&encoded(&picture(), ImageFormat::Gif), LIMITS).unwrap();
        assert_eq!(gif.pixels[..9], picture().into_rgb8().into_raw()[..9]);
    }

    #[test]
    fn grey_alpha_and_16_bit_become_rgb8() {
        let rgb = picture().into_rgb8();
        for (picture, want) in [
            (DynamicImage::from(picture().into_luma8()), None),
            (DynamicImage::from(picture().into_rgba8()), Some(&rgb)),
            (DynamicImage::from(picture().into_rgb16()), Some(&rgb)),
            (DynamicImage::from(picture().into_luma_alpha16()), None),
        ] {
            let image = decode(&encoded(&picture, ImageFormat::Png), LIMITS).unwrap();
            assert_eq!(image.channels, 3);
            match want {
                Some(want) => assert_eq!(&image.pixels, want.as_raw()),
                None => assert!(image.pixels.chunks(3).all(|p| p[0] == p[1] && p[1] == p[2])),
            }
        }
    }

    /// A JPEG, dark on the left, with an orientation in its EXIF data.
    fn turned(orientation: u8) -> Vec<u8> {
        let pixels: Vec<u8> =
            (0..8).flat_map(|_| (0..16).flat_map(|x| [if x < 8 { 0u8 } else { 255 }; 3])).collect();
        let mut bytes = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 95);
        let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        encoder.set_exif_metadata(exif).unwrap();
        encoder.write_image(&pixels, 16, 8, ExtendedColorType::Rgb8).unwrap();
        bytes
    }

    #[test]
    fn pictures_are_turned_upright() {
        // (orientation, size, is the first pixel dark, is the last of the first row dark)
        for (orientation, size, first, end) in [
            (1, (16, 8), true, false),
            (2, (16, 8), false, true),
            (3, (16, 8), false, true),
            (6, (8, 16), true, true),
            (8, (8, 16), false, false),
            (99, (16, 8), true, false),
        ] {
            let image = decode(&turned(orientation), LIMITS).unwrap();
            let dark = |x: u32| image.pixels[x as usize * 3] < 128;
            let seen = ((image.width, image.height), dark(0), dark(image.width - 1));
            assert_eq!(seen, (size, first, end), "orientation {orientation}");
        }
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_is_decoded() {
        let large = encoded(&DynamicImage::new_rgb8(40, 40), ImageFormat::Png);
        let error = decode(&large, LIMITS).unwrap_err();
        assert_eq!(error.code, "image-too-large");
        assert!(error.message.contains("40 x 40"), "{}", error.message);
        assert_eq!(code(&vec![0; 10_001]), "image-too-large");
    }

    #[test]
    fn what_is_no_picture_or_a_broken_one_is_refused() {
        let whole = encoded(&picture(), ImageFormat::Png);
        assert_eq!(code(&whole[..whole.len() - 20]), "image-invalid");
        assert_eq!(code(&whole[..20]), "image-invalid");
        for nothing in [&b""[..], b"hello, world", b"\0\0\x01\0\x01\0\x10\x10"] {
            assert_eq!(code(nothing), "image-unsupported");
        }
    }
}
