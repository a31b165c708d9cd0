//! Greedy suppression.

use pajamas_stage::Detection;

/// When a box gives way.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The largest intersection over union that two kept boxes may have.
    pub iou: f32,
    /// Whether boxes of different classes suppress each other.
    pub class_agnostic: bool,
    /// How many boxes are kept.
    pub max_detections: usize,
}

/// The places of the best of boxes that overlap, best first, ties in the order of the input.
pub fn suppress(boxes: &[Detection], rules: Rules) -> Vec<usize> {
    let mut order: Vec<usize> = (0..boxes.len()).filter(|at| !boxes[*at].score.is_nan()).collect();
    order.sort_by(|a, b| boxes[*b].score.total_cmp(&boxes[*a].score));
    let mut kept: Vec<usize> = Vec::new();
    for at in order {
        if kept.len() == rules.max_detections {
            break;
        }
        let candidate = &boxes[at];
        let rival = |k: &Detection| rules.class_agnostic || k.class_id == candidate.class_id;
        if !kept.iter().map(|k| &boxes[*k]).any(|k| rival(k) && iou(k, candidate) > rules.iou) {
            kept.push(at);
        }
    }
    kept
}

/// Intersection over union of two boxes; 0 where they do not touch or have no area.
pub fn iou(a: &Detection, b: &Detection) -> f32 {
    let width = (a.x2.min(b.x2) - a.x1.max(b.x1)).max(0.0);
    let height = (a.y2.min(b.y2) - a.y1.max(b.y1)).max(0.0);
    let common = width * height;
    let area = |d: &Detection| (d.x2 - d.x1).max(0.0) * (d.y2 - d.y1).max(0.0);
    let union = area(a) + area(b) - common;
    if union > 0.0 { common / union } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(x1: f32, score: f32, class_id: u32) -> Detection {
        Detection { x1, y1: 0.0, x2: x1 + 10.0, y2: 10.0, score, class_id, label: None }
    }

    fn kept(boxes: Vec<Detection>, class_agnostic: bool, max_detections: usize) -> Vec<f32> {
        let rules = Rules { iou: 0.5, class_agnostic, max_detections };
        suppress(&boxes, rules).into_iter().map(|at| boxes[at].score).collect()
    }

    #[test]
    fn the_overlap_is_intersection_over_union() {
        assert_eq!(iou(&at(0.0, 1.0, 0), &at(0.0, 1.0, 0)), 1.0);
        assert_eq!(iou(&at(0.0, 1.0, 0), &at(5.0, 1.0, 0)), 50.0 / 150.0);
        assert_eq!(iou(&at(0.0, 1.0, 0), &at(10.0, 1.0, 0)), 0.0);
        let nothing = Detection { x2: 0.0, ..at(0.0, 1.0, 0) };
        assert_eq!(iou(&nothing, &nothing), 0.0);
    }

    #[test]
    fn the_best_of_each_class_stays() {
        let boxes = vec![at(1.0, 0.5, 0), at(0.0, 0.9, 0), at(0.5, 0.7, 1), at(30.0, 0.6, 0)];
        assert_eq!(kept(boxes.clone(), false, 10), [0.9, 0.7, 0.6]);
        assert_eq!(kept(boxes, true, 10), [0.9, 0.6]);
    }

    #[test]
    fn a_box_that_was_suppressed_suppresses_nothing() {
        // The second gives way to the first; the third overlaps only the second.
        let boxes = vec![at(0.0, 0.9, 0), at(3.0, 0.8, 0), at(6.0, 0.7, 0)];
        assert_eq!(kept(boxes, false, 10), [0.9, 0.7]);
    }

    #[test]
    fn no_more_than_asked_and_never_a_nan() {
        let boxes = vec![at(0.0, 0.1, 0), at(20.0, f32::NAN, 0), at(40.0, 0.3, 0), at(60.0, 0.2, 0)];
        assert_eq!(kept(boxes, false, 2), [0.3, 0.2]);
    }
}
