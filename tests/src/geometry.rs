//! How well boxes agree: intersection over union, and average precision as COCO defines it.

use serde_json::Value;

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

/// The pixels of a mask as COCO writes it, column after column, from `{"size": [height, width], "counts": "…"}`.
///
/// # Errors
/// What is wrong with it: its runs must fill the picture exactly.
pub fn uncompressed(mask: &Value) -> Result<Vec<bool>, String> {
    let size = |at: usize| mask["size"][at].as_u64().ok_or_else(|| format!("no size: {mask}"));
    let pixels = size(0)? * size(1)?;
    let (mut runs, mut value, mut shift) = (Vec::<i64>::new(), 0i64, 0);
    for byte in mask["counts"].as_str().unwrap_or_default().bytes() {
        let bits = i64::from(byte) - 48;
        value |= (bits & 31) << shift;
        shift += 5;
        if bits & 32 == 0 {
            value |= if bits & 16 == 0 { 0 } else { -1 << shift };
            runs.push(value + if runs.len() > 2 { runs[runs.len() - 2] } else { 0 });
            (value, shift) = (0, 0);
        }
    }
    let mut inside = Vec::new();
    for (number, run) in runs.iter().enumerate() {
        let run = usize::try_from(*run).map_err(|_| format!("a run of {run}"))?;
        inside.resize(inside.len() + run, number % 2 == 1);
    }
    match inside.len() as u64 == pixels {
        true => Ok(inside),
        false => Err(format!("{} pixels of {pixels}", inside.len())),
    }
}

/// The pixels that two masks share over those that any of them has; 1 when none has any.
pub fn overlap(a: &[bool], b: &[bool]) -> f64 {
    let count = |of: fn(bool, bool) -> bool| a.iter().zip(b).filter(|(a, b)| of(**a, **b)).count();
    match count(|a, b| a || b) {
        0 => 1.0,
        either => count(|a, b| a && b) as f64 / either as f64,
    }
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
