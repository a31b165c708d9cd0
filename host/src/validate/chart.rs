//! Charts as SVG: text that any browser draws.

use std::fmt::Write as _;

use super::measures::TensorBits;

/// Size of the drawing of points, and what surrounds the field.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 56.0;
/// What a divergence of nothing is drawn as: its logarithm has no place.
const LEAST: f64 = 1e-6;
/// Side of a cell, and room for the names of rows.
const CELL: f64 = 22.0;
const NAMES: f64 = 190.0;
/// The most columns: the chart of a deeper model leaves out what nobody could tell apart.
const MOST_COLUMNS: usize = 160;

/// Forms by their size and divergence, which has a logarithmic axis.
pub fn size_and_divergence(points: &[(String, f64, f64)]) -> String {
    let mut svg = begin(WIDTH, HEIGHT, "Size and divergence");
    let most = points.iter().map(|p| p.1).fold(0.0, f64::max).max(1e-3) * 1.1;
    let logs = || points.iter().map(|p| p.2.max(LEAST).log10());
    let (low, high) = (logs().fold(f64::MAX, f64::min).floor(), logs().fold(f64::MIN, f64::max).ceil());
    let (low, high) = if points.is_empty() { (-3.0, 0.0) } else { (low, high.max(low + 1.0)) };
    let x = |size: f64| LEFT + size / most * (WIDTH - LEFT - RIGHT);
    let y = |log: f64| HEIGHT - BOTTOM - (log - low) / (high - low) * (HEIGHT - TOP - BOTTOM);
    for decade in low as i32..=high as i32 {
        let at = y(f64::from(decade));
        line(&mut svg, (LEFT, at), (WIDTH - RIGHT, at));
        text(&mut svg, (LEFT - 8.0, at + 4.0), "end", &format!("{}", 10f64.powi(decade)));
    }
    for step in 0..=5 {
        let size = most * f64::from(step) / 5.0;
        line(&mut svg, (x(size), HEIGHT - BOTTOM), (x(size), HEIGHT - BOTTOM + 5.0));
        text(&mut svg, (x(size), HEIGHT - BOTTOM + 20.0), "middle", &short(size));
    }
    text(&mut svg, (WIDTH / 2.0, HEIGHT - 12.0), "middle", "size in MB");
    text(&mut svg, (LEFT - 60.0, TOP - 14.0), "start", "mean divergence in nats");
    for (label, size, divergence) in points {
        let (cx, cy) = (x(*size), y(divergence.max(LEAST).log10()));
        // A name that would leave the field stands on the other side.
        let (anchor, aside) = if cx > WIDTH - 140.0 { ("end", -9.0) } else { ("start", 9.0) };
        let _ = writeln!(svg, r##"<circle cx="{cx:.1}" cy="{cy:.1}" r="5" fill="#2563eb"/>"##);
        text(&mut svg, (cx + aside, cy + 4.0), anchor, label);
    }
    svg + "</svg>\n"
}

/// A cell for each tensor: the kinds below each other, the layers side by side, darker for more bits.
pub fn bits(title: &str, tensors: &[TensorBits]) -> String {
    let (mut rows, mut columns) = (Vec::<String>::new(), Vec::<Option<u64>>::new());
    let places: Vec<(usize, usize, &TensorBits)> = tensors
        .iter()
        .map(|tensor| {
            let (layer, kind) = place(&tensor.name);
            (index(&mut rows, kind), index(&mut columns, layer), tensor)
        })
        .collect();
    // Layers in their order; what belongs to none comes first.
    let mut order: Vec<usize> = (0..columns.len()).collect();
    order.sort_by_key(|at| columns[*at]);
    order.truncate(MOST_COLUMNS);
    let width = (NAMES + CELL * order.len() as f64 + RIGHT).max(420.0);
    let height = TOP + CELL * rows.len() as f64 + BOTTOM;
    let mut svg = begin(width, height, title);
    for (at, kind) in rows.iter().enumerate() {
        text(&mut svg, (NAMES - 8.0, TOP + CELL * at as f64 + 15.0), "end", kind);
    }
    for (row, column, tensor) in places {
        let Some(at) = order.iter().position(|o| *o == column) else { continue };
        let (x, y) = (NAMES + CELL * at as f64, TOP + CELL * row as f64);
        let _ = writeln!(
            svg,
            r##"<rect x="{x}" y="{y}" width="{s}" height="{s}" rx="2" fill="{fill}"><title>{name}: {stored}, {bits:.2} bits</title></rect>"##,
            s = CELL - 2.0,
            fill = shade(tensor.bits),
            name = escaped(&tensor.name),
            stored = escaped(&tensor.stored),
            bits = tensor.bits,
        );
    }
    for (at, bits) in [2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 16.0, 32.0].into_iter().enumerate() {
        let (x, y) = (NAMES + at as f64 * 28.0, height - BOTTOM + 16.0);
        let fill = shade(bits);
        let _ = writeln!(svg, r##"<rect x="{x}" y="{y}" width="20" height="12" rx="2" fill="{fill}"/>"##);
        text(&mut svg, (x + 10.0, y + 26.0), "middle", &short(bits));
    }
    text(&mut svg, (NAMES - 8.0, height - BOTTOM + 27.0), "end", "bits a weight");
    svg + "</svg>\n"
}

/// The layer of a tensor, and its name without it.
fn place(name: &str) -> (Option<u64>, String) {
    let parts: Vec<&str> = name.split('.').collect();
    let layer = parts.iter().position(|part| part.parse::<u64>().is_ok());
    let kind = match layer {
        Some(at) => parts[at + 1..].join("."),
        None => name.to_owned(),
    };
    (layer.and_then(|at| parts[at].parse().ok()), kind.trim_end_matches(".weight").to_owned())
}

fn index<T: PartialEq>(list: &mut Vec<T>, item: T) -> usize {
    match list.iter().position(|known| *known == item) {
        Some(at) => at,
        None => {
            list.push(item);
            list.len() - 1
        }
    }
}

/// From pale for one bit to dark for 32.
fn shade(bits: f64) -> String {
    let share = (bits.clamp(1.0, 32.0).log2() / 5.0).clamp(0.0, 1.0);
    let mix = |from: f64, to: f64| (from + (to - from) * share).round() as u8;
    format!("#{:02x}{:02x}{:02x}", mix(219.0, 23.0), mix(234.0, 37.0), mix(254.0, 84.0))
}

fn begin(width: f64, height: f64, title: &str) -> String {
    let title = escaped(title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<title>{title}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{x}\" y=\"20\" text-anchor=\"middle\" font-size=\"14\" fill=\"#111827\">{title}</text>\n",
        x = width / 2.0
    )
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        svg,
        r##"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="#d1d5db"/>"##,
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, words: &str) {
    let words = escaped(words);
    let _ = writeln!(
        svg,
        r##"<text x="{:.1}" y="{:.1}" text-anchor="{anchor}" fill="#374151">{words}</text>"##,
        at.0, at.1
    );
}

/// A number with no more digits than it needs.
fn short(value: f64) -> String {
    let digits = if value.abs() >= 100.0 || value.fract() == 0.0 { 0 } else { 2 };
    format!("{value:.digits$}")
}

/// Names come from files that anybody may have made.
fn escaped(text: &str) -> String {
    let escape = |c: char| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        c if c.is_control() => String::new(),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, bits: f64) -> TensorBits {
        TensorBits { name: name.into(), stored: "q4_K".into(), elements: 1, bits }
    }

    #[test]
    fn every_form_has_its_point_inside_the_field() {
        let points =
            [("Q8_0".to_owned(), 8.0, 0.0), ("Q2_K".to_owned(), 3.0, 0.5), ("<b>".to_owned(), 4.0, 12.0)];
        let svg = size_and_divergence(&points);
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains("&lt;b&gt;") && !svg.contains("<b>"));
        for part in svg.split("<circle ").skip(1) {
            let number = |key: &str| {
                let from = part.find(key).unwrap() + key.len();
                part[from..].split('"').next().unwrap().parse::<f64>().unwrap()
            };
            let (x, y) = (number("cx=\""), number("cy=\""));
            assert!((LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=HEIGHT - BOTTOM).contains(&y), "{part}");
        }
        assert!(size_and_divergence(&[]).ends_with("</svg>\n"));
    }

    #[test]
    fn every_tensor_has_its_cell() {
        let tensors = [
            tensor("token_embd.weight", 6.5),
            tensor("blk.1.attn_q.weight", 4.5),
            tensor("blk.0.attn_q.weight", 4.5),
            tensor("model.layers.0.mlp.down_proj.weight", 4.5),
        ];
        let svg = bits("Q4_K_M", &tensors);
        assert_eq!(svg.matches("<title>").count(), 1 + 4);
        assert_eq!(place("blk.12.attn_q.weight"), (Some(12), "attn_q".into()));
        // Layer 0 lies left of layer 1, whatever the order of the file.
        let x = |name: &str| {
            let line = svg.lines().find(|l| l.contains(name)).unwrap();
            line.split("x=\"").nth(1).unwrap().split('"').next().unwrap().parse::<f64>().unwrap()
        };
        assert!(x("blk.0.attn_q") < x("blk.1.attn_q"), "{svg}");
        assert!(shade(2.0) != shade(8.0));
    }
}
