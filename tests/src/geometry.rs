//! How well boxes agree: intersection over union, and average precision as COCO defines it.

/// A box of a class, found or drawn by hand.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The name of its class.
    pub label: String,
    /// How sure the finder is.
    pub score: f64,
    /// Left, top, right, bottom in pixels.
    pub bbox: [f64; 4],
}

/// The shared area of two boxes over the area of both together.
pub fn iou(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    let area = |b: &[f64; 4]| (b[2] - b[0]).max(0.0) * (b[3] - b[1]).max(0.0);
    let shared = area(&[a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let both = area(a) + area(b) - shared;
    if both > 0.0 { shared / both } else { 0.0 }
}

/// The area under the curve of precision over recall, interpolated at 101 recalls. `found` and `truths` hold one list
/// for each picture; a find is right when no better one took the box that it overlaps by `threshold` at least.
pub fn average_precision(class: &str, found: &[Vec<Found>], truths: &[Vec<Found>], threshold: f64) -> f64 {
    let of_class = |f: &&Found| f.label == class;
    let wanted = truths.iter().flatten().filter(of_class).count();
    let mut ranked: Vec<(f64, bool)> = Vec::new();
    for (found, truths) in found.iter().zip(truths) {
        let mut free: Vec<&Found> = truths.iter().filter(of_class).collect();
        let mut mine: Vec<&Found> = found.iter().filter(of_class).collect();
        mine.sort_by(|a, b| b.score.total_cmp(&a.score));
        for find in mine {
            let overlaps = free.iter().enumerate().map(|(i, truth)| (i, iou(&find.bbox, &truth.bbox)));
            let best =
                overlaps.max_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, overlap)| *overlap >= threshold);
            if let Some((taken, _)) = best {
                free.remove(taken);
            }
            ranked.push((find.score, best.is_some()));
        }
    }
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut right = 0usize;
    let curve: Vec<(f64, f64)> = ranked
        .iter()
        .enumerate()
        .map(|(i, (_, hit))| {
            right += usize::from(*hit);
            (right as f64 / wanted.max(1) as f64, right as f64 / (i + 1) as f64)
        })
        .collect();
    let at = |recall: f64| curve.iter().filter(|(r, _)| *r >= recall).map(|(_, p)| *p).fold(0.0, f64::max);
    (0..=100).map(|i| at(f64::from(i) / 100.0)).sum::<f64>() / 101.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(x: f64, score: f64) -> Found {
        Found { label: "star".into(), score, bbox: [x, 0.0, x + 10.0, 10.0] }
    }

    #[test]
    fn overlap_is_a_share() {
        assert_eq!(iou(&[0.0, 0.0, 2.0, 2.0], &[1.0, 0.0, 3.0, 2.0]), 1.0 / 3.0);
        assert_eq!(iou(&[0.0, 0.0, 1.0, 1.0], &[5.0, 5.0, 6.0, 6.0]), 0.0);
        assert_eq!(iou(&[0.0; 4], &[0.0; 4]), 0.0);
    }

    #[test]
    fn precision_counts_each_box_once() {
        let truths = vec![vec![at(0.0, 1.0), at(50.0, 1.0)]];
        let perfect = vec![vec![at(0.0, 0.9), at(50.0, 0.8)]];
        assert_eq!(average_precision("star", &perfect, &truths, 0.5), 1.0);
        let twice = vec![vec![at(0.0, 0.9), at(1.0, 0.8)]];
        let half = average_precision("star", &twice, &truths, 0.5);
        assert!((half - 51.0 / 101.0).abs() < 1e-12, "recall stops at a half: {half}");
        assert_eq!(average_precision("star", &[vec![]], &truths, 0.5), 0.0);
    }
}
