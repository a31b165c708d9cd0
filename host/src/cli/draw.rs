//! Masks, boxes and names on a picture, written as PNG.

use std::convert::Infallible;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use embedded_graphics::mono_font::{MonoTextStyle, ascii::FONT_9X15_BOLD};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::{
    Dimensions, DrawTarget, Drawable, OriginDimensions, Pixel, Point, Primitive, RgbColor, Size,
};
use embedded_graphics::primitives::{PrimitiveStyle, PrimitiveStyleBuilder, Rectangle, StrokeAlignment};
use embedded_graphics::text::{Baseline, Text};

use serde_json::Value as Json;

use crate::error::{Error, Result};
use crate::pipeline::encode;
use crate::value::{Detection, Image};

/// Colours that are told apart on most pictures, by class.
const COLOURS: [Rgb888; 8] = [
    Rgb888::new(230, 25, 75),
    Rgb888::new(0, 130, 200),
    Rgb888::new(60, 150, 60),
    Rgb888::new(145, 30, 180),
    Rgb888::new(220, 100, 0),
    Rgb888::new(0, 128, 128),
    Rgb888::new(170, 110, 40),
    Rgb888::new(70, 70, 200),
];

/// Draws the boxes, and beneath them the masks that belong to them, and writes the picture to `path`.
pub fn boxes(image: Image, detections: &[Detection], masks: &[Json], path: &Path) -> Result<()> {
    let mut canvas = Canvas(rgb(image)?);
    for (detection, mask) in detections.iter().zip(masks).rev() {
        canvas.tint(detection.class_id, mask["counts"].as_str().unwrap_or_default());
    }
    // The best on top.
    for detection in detections.iter().rev() {
        canvas.draw(detection);
    }
    write_png(&canvas.0, path)
}

struct Canvas(Image);

/// The lengths of the runs of a mask as COCO writes them: five bits in a character, the sixth says that more follow; from the
/// fourth on the difference to the one before the last.
fn runs(counts: &str) -> Vec<i64> {
    let mut runs: Vec<i64> = Vec::new();
    let (mut value, mut shift) = (0i64, 0u32);
    for byte in counts.bytes() {
        let bits = i64::from(byte.wrapping_sub(48));
        value |= (bits & 0x1f) << shift.min(58);
        shift += 5;
        if bits & 0x20 == 0 {
            if bits & 0x10 != 0 && shift < 64 {
                value |= -1 << shift;
            }
            let before = if runs.len() > 2 { runs[runs.len() - 2] } else { 0 };
            runs.push(value.saturating_add(before));
            (value, shift) = (0, 0);
        }
    }
    runs
}

impl Canvas {
    /// Mixes the pixels of a mask, whose runs go down the columns, with the colour of its class.
    fn tint(&mut self, class_id: u32, counts: &str) {
        let colour = COLOURS[class_id as usize % COLOURS.len()];
        let (width, height) = (self.0.width as usize, self.0.height as usize);
        let mut at = 0usize;
        for (number, run) in runs(counts).into_iter().enumerate() {
            let end = at.saturating_add(usize::try_from(run).unwrap_or(0)).min(width * height);
            for pixel in (at..end).filter(|_| number % 2 == 1) {
                let (x, y) = (pixel / height, pixel % height);
                let channels = &mut self.0.pixels[(y * width + x) * 3..][..3];
                for (channel, tint) in channels.iter_mut().zip([colour.r(), colour.g(), colour.b()]) {
                    *channel = u8::midpoint(*channel, tint);
                }
            }
            at = end;
        }
    }

    fn draw(&mut self, detection: &Detection) {
        let colour = COLOURS[detection.class_id as usize % COLOURS.len()];
        let stroke = (self.0.width.max(self.0.height) / 320).clamp(2, 6);
        let corner = |x: f32, y: f32| {
            let clamp = |v: f32, limit: u32| v.round().clamp(0.0, limit.saturating_sub(1) as f32) as i32;
            Point::new(clamp(x, self.0.width), clamp(y, self.0.height))
        };
        let [x1, y1, x2, y2] = detection.bbox;
        let area = Rectangle::with_corners(corner(x1, y1), corner(x2, y2));
        let style = PrimitiveStyleBuilder::new()
            .stroke_color(colour)
            .stroke_width(stroke)
            .stroke_alignment(StrokeAlignment::Inside)
            .build();
        let _ = area.into_styled(style).draw(self);

        let name = encode::label(detection.label.as_deref(), detection.class_id);
        let caption = format!(" {name} {:.0} % ", detection.score * 100.0);
        let font = MonoTextStyle::new(&FONT_9X15_BOLD, Rgb888::WHITE);
        let at = self.caption_corner(&area, &caption, font);
        let text = Text::with_baseline(&caption, at, font, Baseline::Top);
        let _ = text.bounding_box().into_styled(PrimitiveStyle::with_fill(colour)).draw(self);
        let _ = text.draw(self);
    }

    /// Above the box, or inside it where there is no room above; never over the right edge.
    fn caption_corner(&self, area: &Rectangle, caption: &str, font: MonoTextStyle<'_, Rgb888>) -> Point {
        let size = Text::with_baseline(caption, Point::zero(), font, Baseline::Top).bounding_box().size;
        let above = area.top_left.y - size.height as i32;
        let y = if above < 0 { area.top_left.y } else { above };
        let rightmost = self.0.width as i32 - size.width as i32;
        Point::new(area.top_left.x.min(rightmost).max(0), y)
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.0.width, self.0.height)
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(point, colour) in pixels {
            let (Ok(x), Ok(y)) = (u32::try_from(point.x), u32::try_from(point.y)) else { continue };
            if x < self.0.width && y < self.0.height {
                let at = (y as usize * self.0.width as usize + x as usize) * 3;
                self.0.pixels[at..at + 3].copy_from_slice(&[colour.r(), colour.g(), colour.b()]);
            }
        }
        Ok(())
    }
}

fn rgb(image: Image) -> Result<Image> {
    let pixels = match image.channels {
        3 => image.pixels,
        1 => image.pixels.iter().flat_map(|v| [*v; 3]).collect(),
        4 => image.pixels.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
        n => return Err(Error::new("internal", format!("a picture of {n} channels cannot be drawn on"))),
    };
    Ok(Image { channels: 3, pixels, ..image })
}

fn write_png(image: &Image, path: &Path) -> Result<()> {
    let failed = |e: png::EncodingError| Error::new("io", format!("{}: {e}", path.display()));
    let file = File::create(path).map_err(|e| Error::io(path, &e))?;
    let mut encoder = png::Encoder::new(BufWriter::new(file), image.width, image.height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&image.pixels).map_err(failed)?;
    writer.finish().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_of_any_size_and_place_stay_inside_the_picture() {
        let image = Image { width: 40, height: 30, channels: 1, pixels: vec![0; 1200] };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.png");
        let found = |bbox| Detection { bbox, score: 0.9, class_id: 1, label: Some("a long name".into()) };
        let all = [
            found([-50.0, -50.0, 5000.0, 5000.0]),
            found([10.0, 10.0, 10.0, 10.0]),
            found([39.0, 29.0, 1.0, 1.0]),
        ];
        // The first mask is a column of 30 behind 30 others; the second lies about how long it is.
        let masks =
            [serde_json::json!({ "counts": "n0n0dS1" }), serde_json::json!({ "counts": "0ooooooooo0" })];
        boxes(image, &all, &masks, &path).unwrap();
        let mut reader =
            png::Decoder::new(std::io::BufReader::new(File::open(&path).unwrap())).read_info().unwrap();
        let mut pixels = vec![0; 40 * 30 * 3];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!((reader.info().width, reader.info().height), (40, 30));
        assert_eq!(
            &pixels[(29 * 40 + 39) * 3..][..3],
            [0, 130, 200],
            "the box's corner has its class's colour"
        );
    }

    #[test]
    fn runs_are_read_as_pycocotools_writes_them() {
        assert_eq!(runs("T3`03Pn12"), [100, 16, 3, 2000, 5]);
        assert_eq!(runs("`[T212oQW1"), [70_000, 1, 2, 40_000]);
        assert_eq!(runs("b04400000>"), [18, 4, 4, 4, 4, 4, 4, 4, 18]);
        assert!(runs("").is_empty());
    }
}
