//! `pajamas detect`: find objects in pictures.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::vision::{Seen, each_picture};
use super::{Global, draw, output};
use crate::config::{Options, Task};
use crate::error::{Error, Result};
use crate::pipeline::encode;
use crate::value::{Detection, Value};

#[derive(Debug, Args)]
pub struct Detect {
    /// The pictures; `-` reads one from standard input
    #[arg(required = true)]
    images: Vec<String>,
    /// The model: an id of the configuration or a path
    #[arg(short, long)]
    model: Option<String>,
    /// Leave out boxes of a lower score
    #[arg(long, value_name = "0..1")]
    confidence: Option<f32>,
    /// Of boxes that overlap more than this, keep the best
    #[arg(long, value_name = "0..1")]
    iou: Option<f32>,
    /// The most boxes per picture
    #[arg(long, value_name = "N")]
    max_detections: Option<u32>,
    /// Write the picture with its boxes: a .png file, or a folder for many pictures
    #[arg(long, value_name = "PATH")]
    draw: Option<PathBuf>,
}

impl Detect {
    pub fn run(self, global: &Global) -> Result<()> {
        let mut options = Options::new();
        let mut set = |key: &str, value: Option<serde_json::Value>| {
            if let Some(value) = value {
                options.insert(key.into(), value);
            }
        };
        set("confidence", self.confidence.map(|v| json!(v)));
        set("iou", self.iou.map(|v| json!(v)));
        set("max_detections", self.max_detections.map(|v| json!(v)));
        let (draw_to, many, as_json) = (self.draw, self.images.len() > 1, global.json);
        if let Some(path) = draw_to.as_ref().filter(|p| many && p.extension().is_some()) {
            return Err(Error::new(
                "invalid-input",
                format!("--draw {}: several pictures need a folder", path.display()),
            ));
        }
        each_picture(global, Task::Detect, self.model, self.images, options, |mut seen| {
            let detections = detections(&mut seen)?;
            if let Some(path) = &draw_to {
                draw_boxes(&mut seen, &detections, path)?;
            }
            if as_json { print_json(&seen, &detections) } else { print_table(&seen, &detections) }
        })
    }
}

fn detections(seen: &mut Seen) -> Result<Vec<Detection>> {
    match seen.values.take("detections") {
        Some(Value::Detections(detections)) => Ok(detections),
        _ => Err(Error::new("pipeline-incomplete", "the pipeline left no `detections`").help(
            "a detection pipeline ends with stages that give `detections`, such as yolo-decode and nms",
        )),
    }
}

fn print_json(seen: &Seen, detections: &[Detection]) -> Result<()> {
    output::json_line(&json!({
        "image": seen.name,
        "width": seen.width,
        "height": seen.height,
        "detections": encode::detections(detections),
    }))
}

fn print_table(seen: &Seen, detections: &[Detection]) -> Result<()> {
    let count = match detections.len() {
        0 => "nothing found".to_owned(),
        1 => "1 object".to_owned(),
        n => format!("{n} objects"),
    };
    output::line(&format!("{}: {} x {}, {count}", seen.name, seen.width, seen.height))?;
    for d in detections {
        let [x1, y1, x2, y2] = d.bbox;
        let label = encode::label(d.label.as_deref(), d.class_id);
        output::line(&format!(
            "  {label:<16} {:>5.1} %   {x1:>6.0} {y1:>6.0} {x2:>6.0} {y2:>6.0}",
            d.score * 100.0
        ))?;
    }
    Ok(())
}

fn draw_boxes(seen: &mut Seen, detections: &[Detection], path: &Path) -> Result<()> {
    let Some(Value::Image(image)) = seen.values.take("image") else {
        return Err(Error::new("pipeline-incomplete", "the pipeline left no `image` to draw on"));
    };
    let file = if path.extension().is_some() {
        path.to_path_buf()
    } else {
        let stem =
            Path::new(&seen.name).file_stem().unwrap_or("image".as_ref()).to_string_lossy().into_owned();
        path.join(format!("{stem}-boxes.png"))
    };
    if let Some(folder) = file.parent().filter(|f| !f.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, &e))?;
    }
    draw::boxes(image, detections, &file)
}
