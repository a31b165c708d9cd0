//! `pajamas detect`, `segment` and `localize`: find objects in pictures.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value as Json, json};

use super::vision::{Seen, each_picture};
use super::{Global, draw, output, pictures};
use crate::config::{Options, Task};
use crate::error::{Error, Result};
use crate::pipeline::encode;
use crate::value::{Detection, Value};

#[derive(Debug, Args)]
pub struct Detect {
    #[command(flatten)]
    objects: Objects,
}

#[derive(Debug, Args)]
pub struct Segment {
    #[command(flatten)]
    objects: Objects,
    /// With --json: the outlines of the masks, too
    #[arg(long)]
    polygons: bool,
}

#[derive(Debug, Args)]
pub struct Localize {
    #[command(flatten)]
    objects: Objects,
}

/// Which objects to look for, and where.
#[derive(Debug, Args)]
struct Objects {
    /// The pictures: files, folders and patterns as `*.jpg`; `-` reads one from standard input
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
        self.objects.find(global, Task::Detect, Options::new(), Found::of_boxes)
    }
}

impl Segment {
    pub fn run(self, global: &Global) -> Result<()> {
        let mut options = Options::new();
        if self.polygons {
            options.insert("polygons".into(), json!(true));
        }
        self.objects.find(global, Task::Segment, options, Found::of_masks)
    }
}

impl Localize {
    pub fn run(self, global: &Global) -> Result<()> {
        self.objects.find(global, Task::Detect, Options::new(), Found::main)
    }
}

/// What was found in a picture.
struct Found {
    detections: Vec<Detection>,
    masks: Vec<Json>,
    /// The object that is printed for the picture, without the picture's own fields.
    json: Json,
}

impl Objects {
    fn find(
        self,
        global: &Global,
        task: Task,
        mut options: Options,
        found: fn(&mut Seen) -> Result<Found>,
    ) -> Result<()> {
        let mut set = |key: &str, value: Option<Json>| {
            if let Some(value) = value {
                options.insert(key.into(), value);
            }
        };
        set("confidence", self.confidence.map(|v| json!(v)));
        set("iou", self.iou.map(|v| json!(v)));
        set("max_detections", self.max_detections.map(|v| json!(v)));
        let (draw_to, as_json) = (self.draw, global.json);
        let images = pictures::find(&self.images)?;
        if let Some(path) = draw_to.as_ref().filter(|p| images.len() > 1 && p.extension().is_some()) {
            return Err(Error::new(
                "invalid-input",
                format!("--draw {}: several pictures need a folder", path.display()),
            ));
        }
        each_picture(global, task, self.model, images, options, |mut seen| {
            let mut found = found(&mut seen)?;
            if let Some(path) = &draw_to {
                draw_on(&mut seen, &found, path)?;
            }
            if !as_json {
                return print_table(&seen, &found.detections);
            }
            let Seen { name, width, height, .. } = &seen;
            let mut object = json!({ "image": name, "width": width, "height": height });
            if let (Some(object), Some(more)) = (object.as_object_mut(), found.json.as_object_mut()) {
                object.append(more);
            }
            output::json_line(&object)
        })
    }
}

impl Found {
    fn of_boxes(seen: &mut Seen) -> Result<Self> {
        let detections = detections(seen)?;
        let json = json!({ "detections": encode::detections(&detections) });
        Ok(Self { detections, masks: Vec::new(), json })
    }

    fn of_masks(seen: &mut Seen) -> Result<Self> {
        let detections = detections(seen)?;
        let Some(Value::Text(masks)) = seen.values.take("masks") else {
            return Err(Error::new("pipeline-incomplete", "the pipeline left no `masks`")
                .help("a segmentation pipeline ends with the stage mask-decode"));
        };
        let objects = encode::segments(&detections, &masks)?;
        let masks = objects.as_array().into_iter().flatten().map(|object| object["mask"].clone()).collect();
        Ok(Self { detections, masks, json: json!({ "detections": objects }) })
    }

    fn main(seen: &mut Seen) -> Result<Self> {
        let mut detections = detections(seen)?;
        let main = encode::main_object(&detections, (seen.width, seen.height));
        let detections = main.map(|at| vec![detections.swap_remove(at)]).unwrap_or_default();
        let json = json!({ "object": encode::detections(&detections).get(0) });
        Ok(Self { detections, masks: Vec::new(), json })
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

fn draw_on(seen: &mut Seen, found: &Found, path: &Path) -> Result<()> {
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
    draw::boxes(image, &found.detections, &found.masks, &file)
}
