//! The outlines of a mask: along the borders of its pixels, and then with fewer corners.

use crate::prototypes::Mask;

type Point = [f32; 2];

/// Steps right, down, left, up.
const STEPS: [[i64; 2]; 4] = [[1, 0], [0, 1], [-1, 0], [0, -1]];

/// The outer outlines of the parts of a mask, the longest first, as x and y in turn, in pixels of the picture: clockwise, no
/// point farther than `tolerance` from the border. What touches only at a corner is two parts; holes are left out.
pub fn outlines(mask: &Mask, tolerance: f32) -> Vec<Vec<f32>> {
    let [left, top, width, height] = mask.part.map(i64::from);
    let mut seen = vec![false; mask.inside.len()];
    let mut found: Vec<Vec<Point>> = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let is_upper_border = mask.at(x, y) && !mask.at(x, y - 1);
            if is_upper_border && !seen[(x * height + y) as usize] {
                let ring = follow(mask, [x, y], &mut seen);
                // A hole is followed the other way round.
                if area(&ring) > 0.0 {
                    found.push(ring);
                }
            }
        }
    }
    found.sort_by(|a, b| area(b).total_cmp(&area(a)));
    let moved = |[x, y]: Point| [x + left as f32, y + top as f32];
    found.into_iter().map(|ring| simplified(ring, tolerance).into_iter().flat_map(moved).collect()).collect()
}

/// The corners of the border that begins with the upper border of a pixel, the inside always on the right hand.
fn follow(mask: &Mask, start: [i64; 2], seen: &mut [bool]) -> Vec<Point> {
    let height = i64::from(mask.part[3]);
    let (mut at, mut heading) = (start, 0);
    let mut corners = Vec::new();
    loop {
        if heading == 0 {
            seen[(at[0] * height + at[1]) as usize] = true;
        }
        let [dx, dy] = STEPS[heading];
        at = [at[0] + dx, at[1] + dy];
        let turn = turn(mask, at, heading);
        if turn != heading {
            corners.push([at[0] as f32, at[1] as f32]);
            heading = turn;
        }
        if at == start && heading == 0 {
            return corners;
        }
    }
}

/// Where the border goes on from a corner of pixels.
fn turn(mask: &Mask, [x, y]: [i64; 2], heading: usize) -> usize {
    // The pixels before the corner, on the left and on the right hand.
    let (on_left, on_right) = match heading {
        0 => ([x, y - 1], [x, y]),
        1 => ([x, y], [x - 1, y]),
        2 => ([x - 1, y], [x - 1, y - 1]),
        _ => ([x - 1, y - 1], [x, y - 1]),
    };
    let inside = |[x, y]: [i64; 2]| mask.at(x, y);
    match (inside(on_left), inside(on_right)) {
        (_, false) => (heading + 1) % 4,
        (false, true) => heading,
        (true, true) => (heading + 3) % 4,
    }
}

/// Twice the area inside a ring; above zero when it goes clockwise, as it looks on a picture.
fn area(ring: &[Point]) -> f32 {
    let next = ring.iter().cycle().skip(1);
    ring.iter().zip(next).map(|(a, b)| a[0] * b[1] - b[0] * a[1]).sum()
}

/// Ramer's and Douglas and Peucker's way, on a ring that is cut at its first corner and the one farthest from it.
fn simplified(ring: Vec<Point>, tolerance: f32) -> Vec<Point> {
    if tolerance == 0.0 || ring.len() <= 4 {
        return ring;
    }
    let far = |p: &Point| (p[0] - ring[0][0]).powi(2) + (p[1] - ring[0][1]).powi(2);
    let middle = (0..ring.len()).max_by(|a, b| far(&ring[*a]).total_cmp(&far(&ring[*b]))).unwrap_or(0);
    let mut keep = vec![false; ring.len() + 1];
    let closed: Vec<Point> = ring.iter().chain(&ring[..1]).copied().collect();
    let mut open = vec![(0, middle), (middle, ring.len())];
    (keep[0], keep[middle]) = (true, true);
    // A list instead of recursion: a long border must not use the stack up.
    while let Some((from, to)) = open.pop() {
        let apart = |at: &usize| distance(closed[*at], closed[from], closed[to]);
        let farthest = (from + 1..to).max_by(|a, b| apart(a).total_cmp(&apart(b)));
        if let Some(at) = farthest.filter(|at| apart(at) > tolerance) {
            keep[at] = true;
            open.extend([(from, at), (at, to)]);
        }
    }
    let kept: Vec<Point> =
        ring.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(point, _)| *point).collect();
    // What is thinner than the tolerance would become a line.
    if kept.len() < 3 { ring } else { kept }
}

/// From a point to the stretch between two others.
fn distance(point: Point, from: Point, to: Point) -> f32 {
    let [dx, dy] = [to[0] - from[0], to[1] - from[1]];
    let [px, py] = [point[0] - from[0], point[1] - from[1]];
    let length = dx * dx + dy * dy;
    let along = if length > 0.0 { ((px * dx + py * dy) / length).clamp(0.0, 1.0) } else { 0.0 };
    (px - along * dx).hypot(py - along * dy)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From a picture in text, rows of `#` and `.`.
    fn drawn(rows: &[&str]) -> Mask {
        let (width, height) = (rows[0].len(), rows.len());
        let inside = (0..width).flat_map(|x| rows.iter().map(move |row| row.as_bytes()[x] == b'#')).collect();
        Mask { width: 20, height: 20, part: [3, 2, width as u32, height as u32], inside }
    }

    /// Whether a pixel's centre is inside an outline: how often a ray to the right crosses it.
    fn covers(outline: &[f32], x: f32, y: f32) -> bool {
        let points: Vec<Point> = outline.chunks(2).map(|p| [p[0], p[1]]).collect();
        let next = points.iter().cycle().skip(1);
        points
            .iter()
            .zip(next)
            .filter(|(a, b)| {
                (a[1] > y) != (b[1] > y) && x < a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0])
            })
            .count()
            % 2
            == 1
    }

    #[test]
    fn the_border_itself_covers_the_mask_and_nothing_else() {
        let mask = drawn(&["..##....", ".####.#.", "##..##..", "#....##.", "##..##..", ".####..#"]);
        let found = outlines(&mask, 0.0);
        // The ring, the pixel that touches it at a corner, and the one that touches nothing; not the hole.
        assert_eq!(found.len(), 3);
        let hole = |x: i64, y: i64| (2..=4).contains(&y) && (1..=4).contains(&x);
        for y in 0..6 {
            for x in 0..8 {
                let inside = found.iter().any(|o| covers(o, x as f32 + 3.5, y as f32 + 2.5));
                assert_eq!(inside, mask.at(x, y) || (hole(x, y) && inside), "{x}, {y}");
            }
        }
    }

    #[test]
    fn a_rectangle_has_four_corners_and_nothing_has_none() {
        assert_eq!(outlines(&drawn(&["##", "##"]), 0.0), [[5.0, 2.0, 5.0, 4.0, 3.0, 4.0, 3.0, 2.0]]);
        assert!(outlines(&drawn(&["..", ".."]), 1.0).is_empty());
    }

    #[test]
    fn stairs_become_a_slope_within_the_tolerance() {
        let rows: Vec<String> =
            (1..=16).map(|n| format!("{}{}", "#".repeat(n), ".".repeat(16 - n))).collect();
        let mask = drawn(&rows.iter().map(String::as_str).collect::<Vec<_>>());
        let (exact, fewer) = (outlines(&mask, 0.0), outlines(&mask, 1.0));
        assert!(exact[0].len() > 60 && fewer[0].len() <= 10, "{} and {}", exact[0].len(), fewer[0].len());
    }
}
