//! The head's layout, and the boxes in it.

use pajamas_stage::{Detection, Error, Result};
use serde::Deserialize;

/// Which dimension holds the features of a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// The shorter one: detectors have thousands of boxes and fewer features.
    Auto,
    /// `[1, 4 + C, N]`, as Ultralytics exports.
    FeaturesFirst,
    /// `[1, N, 4 + C]`, transposed.
    BoxesFirst,
}

/// How a head is read.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The lowest score that a box may have.
    pub confidence: f32,
    /// Number of scores; `None` means all that follow the box.
    pub classes: Option<usize>,
    /// Which dimension holds the features.
    pub layout: Layout,
    /// Whether boxes are cut off at the picture's borders.
    pub clip: bool,
    /// How many of the best boxes are kept.
    pub max_candidates: usize,
}

/// From the model's pixels back to the picture's.
#[derive(Debug, Clone, Copy)]
pub struct Transform {
    scale: [f32; 2],
    pad: [f32; 2],
    size: [f32; 2],
}

impl Transform {
    /// Reads the tensor `transform` that letterbox leaves.
    pub fn new(elements: &[f32]) -> Result<Self> {
        match *elements {
            [sx, sy, px, py, width, height]
                if sx > 0.0 && sy > 0.0 && elements.iter().all(|x| x.is_finite()) =>
            {
                Ok(Self { scale: [sx, sy], pad: [px, py], size: [width, height] })
            }
            _ => Err(Error::invalid_input(
                "`transform` must hold scale_x, scale_y, pad_x, pad_y, width and height, with scales above 0",
            )),
        }
    }

    fn back(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        [(x - self.pad[0]) / self.scale[0], (y - self.pad[1]) / self.scale[1]]
    }

    fn clip(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        [x.clamp(0.0, self.size[0].max(0.0)), y.clamp(0.0, self.size[1].max(0.0))]
    }
}

/// The layout of one output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    features: usize,
    boxes: usize,
    classes: usize,
    features_first: bool,
}

impl Head {
    /// Reads the layout off the output's shape.
    pub fn new(shape: &[u64], settings: &Settings) -> Result<Self> {
        let &[1, first, second] = shape else {
            return Err(Error::invalid_input(format!(
                "an output of shape {shape:?} is not that of a YOLOv8 head: [1, 4 + C, N] or [1, N, 4 + C]"
            ))
            .with_help("run the model with a batch of 1, and choose its detection output"));
        };
        let features_first = match settings.layout {
            Layout::Auto => first <= second,
            Layout::FeaturesFirst => true,
            Layout::BoxesFirst => false,
        };
        let (features, boxes) = if features_first { (first, second) } else { (second, first) };
        // The tensor is in memory, so its sides fit into usize.
        let (features, boxes) = (features as usize, boxes as usize);
        let classes = settings.classes.unwrap_or(features.saturating_sub(4));
        if classes == 0 || features < classes + 4 {
            return Err(Error::invalid_input(format!(
                "an output of shape {shape:?} has {features} features for each box: a box and {} scores do not fit",
                classes.max(1)
            ))
            .with_help("set `layout` and `classes` of the stage yolo-decode"));
        }
        Ok(Self { features, boxes, classes, features_first })
    }

    /// The boxes with at least the asked confidence, best first, each with its place in the output.
    pub fn detections(
        &self,
        elements: &[f32],
        transform: Option<Transform>,
        settings: &Settings,
    ) -> Vec<(usize, Detection)> {
        let mut candidates = if self.features_first {
            self.best_by_rows(elements, settings.confidence)
        } else {
            self.best_by_boxes(elements, settings.confidence)
        };
        candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
        candidates.truncate(settings.max_candidates);
        candidates
            .into_iter()
            .filter_map(|candidate| {
                let at = candidate.at;
                Some((at, self.detection(elements, candidate, transform, settings.clip)?))
            })
            .collect()
    }

    /// How many features follow the scores: the mask coefficients of a segmentation model.
    pub const fn coefficients(&self) -> usize {
        self.features - 4 - self.classes
    }

    /// What follows the scores of the box at this place.
    pub fn coefficients_of<'h>(&'h self, elements: &'h [f32], at: usize) -> impl Iterator<Item = f32> + 'h {
        (4 + self.classes..self.features).map(move |feature| self.feature(elements, at, feature))
    }

    fn feature(&self, elements: &[f32], at: usize, feature: usize) -> f32 {
        match self.features_first {
            true => elements[feature * self.boxes + at],
            false => elements[at * self.features + feature],
        }
    }

    /// `[4 + C, N]`: every class is a row, so the maxima of all boxes grow row by row, in lanes.
    fn best_by_rows(&self, elements: &[f32], confidence: f32) -> Vec<Candidate> {
        let mut best = vec![f32::NEG_INFINITY; self.boxes];
        let mut class_ids = vec![0u32; self.boxes];
        let scores = elements.chunks_exact(self.boxes.max(1)).skip(4).take(self.classes);
        for (class_id, row) in scores.enumerate() {
            raise(&mut best, &mut class_ids, row, class_id as u32);
        }
        let found = best.into_iter().zip(class_ids).enumerate();
        found
            .filter(|(_, (score, _))| *score >= confidence)
            .map(|(at, (score, class_id))| Candidate { at, score, class_id })
            .collect()
    }

    /// `[N, 4 + C]`: the scores of a box lie together.
    fn best_by_boxes(&self, elements: &[f32], confidence: f32) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for (at, features) in elements.chunks_exact(self.features).enumerate() {
            let scores = &features[4..4 + self.classes];
            // Most boxes hold nothing: look for the maximum in lanes first, and for its class only where it counts.
            let score = maximum(scores);
            if score >= confidence
                && let Some(class_id) = scores.iter().position(|s| *s == score)
            {
                candidates.push(Candidate { at, score, class_id: class_id as u32 });
            }
        }
        candidates
    }

    fn detection(
        &self,
        elements: &[f32],
        Candidate { at, score, class_id }: Candidate,
        transform: Option<Transform>,
        clip: bool,
    ) -> Option<Detection> {
        let [x, y, width, height] = std::array::from_fn(|feature| self.feature(elements, at, feature));
        let mut corners = [[x - width / 2.0, y - height / 2.0], [x + width / 2.0, y + height / 2.0]];
        if let Some(transform) = transform {
            corners = corners.map(|corner| transform.back(corner));
            if clip {
                corners = corners.map(|corner| transform.clip(corner));
            }
        }
        let [[x1, y1], [x2, y2]] = corners;
        // A model that overflows leaves boxes that are no boxes.
        let usable = [x1, y1, x2, y2].iter().all(|x| x.is_finite()) && x2 > x1 && y2 > y1;
        usable.then_some(Detection { x1, y1, x2, y2, score, class_id, label: None })
    }
}

struct Candidate {
    at: usize,
    score: f32,
    class_id: u32,
}

/// Raises the maxima of all boxes by the scores of one class.
fn raise(best: &mut [f32], class_ids: &mut [u32], row: &[f32], class_id: u32) {
    const LANES: usize = 8;
    let (best, best_rest) = best.as_chunks_mut::<LANES>();
    let (ids, ids_rest) = class_ids.as_chunks_mut::<LANES>();
    let (row, row_rest) = row.as_chunks::<LANES>();
    for ((best, ids), row) in best.iter_mut().zip(ids).zip(row) {
        for i in 0..LANES {
            let higher = row[i] > best[i];
            best[i] = if higher { row[i] } else { best[i] };
            ids[i] = if higher { class_id } else { ids[i] };
        }
    }
    for ((best, id), score) in best_rest.iter_mut().zip(ids_rest).zip(row_rest) {
        if score > best {
            (*best, *id) = (*score, class_id);
        }
    }
}

/// The largest score; NaN never wins.
fn maximum(scores: &[f32]) -> f32 {
    const LANES: usize = 8;
    let (chunks, rest) = scores.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings { confidence: 0.25, classes: None, layout: Layout::Auto, clip: true, max_candidates: 100 }
    }

    /// `[4 + C, N]` of these boxes.
    fn features_first(boxes: &[Vec<f32>]) -> Vec<f32> {
        (0..boxes[0].len()).flat_map(|feature| boxes.iter().map(move |b| b[feature])).collect()
    }

    fn twelve_boxes() -> Vec<Vec<f32>> {
        let mut boxes: Vec<Vec<f32>> =
            (0..12).map(|i| vec![20.0 + i as f32, 30.0, 10.0, 20.0, 0.0, 0.1, 0.2, f32::NAN, 0.0]).collect();
        boxes[3][5] = 0.9;
        boxes[11][6] = 0.3;
        boxes[7][2] = f32::INFINITY;
        boxes[7][8] = 1.0;
        boxes
    }

    #[test]
    fn both_layouts_give_the_same_boxes() {
        let boxes = twelve_boxes();
        let rows = features_first(&boxes);
        let flat = boxes.concat();
        let first = Head::new(&[1, 9, 12], &settings()).unwrap();
        let last = Head::new(&[1, 12, 9], &settings()).unwrap();
        let found = first.detections(&rows, None, &settings());
        assert_eq!(found, last.detections(&flat, None, &settings()));
        let seen: Vec<_> =
            found.iter().map(|(at, d)| (*at, d.class_id, d.score, [d.x1, d.y1, d.x2, d.y2])).collect();
        assert_eq!(seen, [(3, 1, 0.9, [18.0, 20.0, 28.0, 40.0]), (11, 2, 0.3, [26.0, 20.0, 36.0, 40.0])]);
    }

    #[test]
    fn mask_coefficients_behind_the_scores_are_not_scores() {
        let mut boxes = twelve_boxes();
        boxes.iter_mut().for_each(|b| b[8] = 5.0);
        let settings = Settings { classes: Some(4), ..settings() };
        let head = Head::new(&[1, 9, 12], &settings).unwrap();
        let found = head.detections(&features_first(&boxes), None, &settings);
        assert_eq!(found.iter().map(|(_, d)| d.class_id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(head.coefficients(), 1);
        let rows = features_first(&boxes);
        assert_eq!(head.coefficients_of(&rows, 3).collect::<Vec<_>>(), [5.0]);
    }

    #[test]
    fn boxes_return_to_the_picture_and_are_clipped_there() {
        let transform = Transform::new(&[0.5, 0.25, 80.0, 10.0, 100.0, 60.0]).unwrap();
        let elements = features_first(&[vec![90.0, 20.0, 40.0, 10.0, 0.8], vec![0.0, 0.0, 1.0, 1.0, 0.1]]);
        let at = Settings { layout: Layout::FeaturesFirst, ..settings() };
        let head = Head::new(&[1, 5, 2], &at).unwrap();
        let boxes = |clip| {
            let found = head.detections(&elements, Some(transform), &Settings { clip, ..at.clone() });
            found.iter().map(|(_, d)| [d.x1, d.y1, d.x2, d.y2]).collect::<Vec<_>>()
        };
        assert_eq!(boxes(false), [[-20.0, 20.0, 60.0, 60.0]]);
        assert_eq!(boxes(true), [[0.0, 20.0, 60.0, 60.0]]);
        assert!(Transform::new(&[0.0, 1.0, 0.0, 0.0, 1.0, 1.0]).is_err());
    }

    #[test]
    fn shapes_that_are_no_head_are_refused() {
        for shape in [&[1, 84][..], &[2, 84, 8400], &[1, 4, 8400]] {
            assert_eq!(Head::new(shape, &settings()).unwrap_err().code, "invalid-input", "{shape:?}");
        }
        let too_many = Settings { classes: Some(81), ..settings() };
        assert!(Head::new(&[1, 84, 8400], &too_many).is_err());
        assert_eq!(Head::new(&[1, 84, 8400], &settings()).unwrap().classes, 80);
    }

    #[test]
    fn only_the_best_candidates_are_kept() {
        let settings = Settings { max_candidates: 1, ..settings() };
        let head = Head::new(&[1, 9, 12], &settings).unwrap();
        // The best of all has an infinite box, which is no box.
        assert!(head.detections(&features_first(&twelve_boxes()), None, &settings).is_empty());
    }
}
