//! A mask is a sum of prototypes: where it is above zero, there is the object. That is half of its probability, whose
//! logarithm the sum is (YOLACT, arXiv:1904.02689; Ultralytics' `process_mask_native`).

use pajamas_stage::{Error, Result, Tensor};

/// The most pixels on a side of a picture.
const MAX_SIDE: f32 = 65_535.0;

/// Pictures of which a model mixes its masks.
#[derive(Debug)]
pub struct Prototypes {
    count: usize,
    height: usize,
    width: usize,
    elements: Vec<f32>,
}

/// Where the picture's pixels are among the cells of the prototypes.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    /// Pixels per row of the picture.
    pub width: u32,
    /// Its rows.
    pub height: u32,
    /// Cells per pixel, along a row and down a column.
    scale: [f32; 2],
    /// The cell of the picture's corner.
    offset: [f32; 2],
}

/// Which pixels of a picture belong to an object: all of them lie in a part of the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    /// Pixels per row of the picture.
    pub width: u32,
    /// Its rows.
    pub height: u32,
    /// Left, top, width and height of the part.
    pub part: [u32; 4],
    /// The part, column after column.
    pub inside: Vec<bool>,
}

impl Mask {
    /// Whether a pixel of the part, counted from its corner, belongs to the object. Outside none does.
    pub fn at(&self, x: i64, y: i64) -> bool {
        let [_, _, width, height] = self.part.map(i64::from);
        (0..width).contains(&x) && (0..height).contains(&y) && self.inside[(x * height + y) as usize]
    }
}

impl Frame {
    /// From what letterbox did to the picture: scale_x, scale_y, pad_x, pad_y, width, height.
    pub fn new(prototypes: &Prototypes, transform: Option<&[f32]>, stride: f32) -> Result<Self> {
        let (width, height) = (prototypes.width as f32 * stride, prototypes.height as f32 * stride);
        let [sx, sy, px, py, width, height] = match transform {
            None => [1.0, 1.0, 0.0, 0.0, width, height],
            Some(&[sx, sy, px, py, width, height]) => [sx, sy, px, py, width, height],
            Some(other) => {
                return Err(Error::invalid_input(format!("`transform` has {} elements, not 6", other.len())));
            }
        };
        let side = 1.0..=MAX_SIDE;
        let placed = sx > 0.0 && sy > 0.0 && [sx, sy, px, py].iter().all(|x| x.is_finite());
        let sized = side.contains(&width) && side.contains(&height);
        if !placed || !sized {
            return Err(Error::invalid_input(
                "`transform` must hold scale_x, scale_y, pad_x, pad_y, width and height of a picture",
            ));
        }
        Ok(Self {
            width: width as u32,
            height: height as u32,
            scale: [sx / stride, sy / stride],
            offset: [px / stride, py / stride],
        })
    }

    /// The two cells between whose centres the centre of a pixel lies, and how near it is to the second.
    fn between(&self, axis: usize, pixel: u32, cells: usize) -> (usize, usize, f32) {
        let at = (pixel as f32 + 0.5) * self.scale[axis] + self.offset[axis] - 0.5;
        let at = at.clamp(0.0, (cells - 1) as f32);
        let first = at.floor();
        (first as usize, (first as usize + 1).min(cells - 1), at - first)
    }
}

impl Prototypes {
    /// Reads the model's output.
    pub fn new(tensor: Tensor) -> Result<Self> {
        let &[1, count, height, width] = tensor.shape.as_slice() else {
            return Err(Error::invalid_input(format!(
                "prototypes of the shape {:?}: [1, M, height, width] is needed",
                tensor.shape
            )));
        };
        if count == 0 || height == 0 || width == 0 {
            return Err(Error::invalid_input("there is nothing in the prototypes"));
        }
        let (count, height, width) = (count as usize, height as usize, width as usize);
        Ok(Self { count, height, width, elements: tensor.into_f32()? })
    }

    /// How many there are.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The pixels inside the box, in pixels of the picture, that belong to the object with these coefficients.
    pub fn mask(&self, coefficients: &[f32], [x1, y1, x2, y2]: [f32; 4], frame: &Frame) -> Mask {
        // A pixel belongs to the box when its number does: as Ultralytics crops.
        let range = |low: f32, high: f32, limit: u32| {
            let end = |v: f32| (v.ceil().max(0.0) as u32).min(limit);
            end(low)..end(high).max(end(low))
        };
        let (columns, rows) = (range(x1, x2, frame.width), range(y1, y2, frame.height));
        let part = [columns.start, rows.start, columns.len() as u32, rows.len() as u32];
        let mut inside = Vec::with_capacity(columns.len() * rows.len());
        if !columns.is_empty() && !rows.is_empty() {
            let across: Vec<_> = columns.map(|x| frame.between(0, x, self.width)).collect();
            let down: Vec<_> = rows.map(|y| frame.between(1, y, self.height)).collect();
            let (left, top) = (across[0].0, down[0].0);
            let (right, bottom) = (across[across.len() - 1].1, down[down.len() - 1].1);
            let height = bottom - top + 1;
            let mixed = self.mixed(coefficients, left..right + 1, top..bottom + 1);
            let mut column = vec![0.0; height];
            for (first, second, near) in across {
                let of = |x: usize| &mixed[(x - left) * height..][..height];
                for ((value, a), b) in column.iter_mut().zip(of(first)).zip(of(second)) {
                    *value = a + (b - a) * near;
                }
                inside.extend(down.iter().map(|(first, second, near)| {
                    let (a, b) = (column[first - top], column[second - top]);
                    a + (b - a) * near > 0.0
                }));
            }
        }
        Mask { width: frame.width, height: frame.height, part, inside }
    }

    /// The sum of the prototypes in a part of them, column after column.
    fn mixed(
        &self,
        coefficients: &[f32],
        columns: std::ops::Range<usize>,
        rows: std::ops::Range<usize>,
    ) -> Vec<f32> {
        let height = rows.len();
        let mut sum = vec![0.0f32; columns.len()];
        let mut mixed = vec![0.0f32; columns.len() * height];
        for (y, row) in rows.enumerate() {
            sum.fill(0.0);
            for (plane, coefficient) in self.elements.chunks_exact(self.height * self.width).zip(coefficients)
            {
                let cells = &plane[row * self.width..][columns.clone()];
                for (sum, cell) in sum.iter_mut().zip(cells) {
                    *sum += cell * coefficient;
                }
            }
            for (x, sum) in sum.iter().enumerate() {
                mixed[x * height + y] = *sum;
            }
        }
        mixed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(elements: Vec<f32>, coefficients: &[f32], bbox: [f32; 4]) -> Mask {
        let tensor = Tensor::f32(vec![1, 2, 2, 2], elements).unwrap();
        let prototypes = Prototypes::new(tensor).unwrap();
        let frame = Frame::new(&prototypes, None, 2.0).unwrap();
        prototypes.mask(coefficients, bbox, &frame)
    }

    #[test]
    fn what_is_above_zero_between_the_cells_is_inside() {
        // The first prototype rises to the right, from -1 to 1; the second is everywhere 1.
        let elements = vec![-1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
        let rising = mask(elements.clone(), &[1.0, 0.0], [0.0, 0.0, 4.0, 4.0]);
        assert_eq!((rising.width, rising.height, rising.part), (4, 4, [0, 0, 4, 4]));
        let columns: Vec<bool> = rising.inside.chunks(4).map(|column| column[0]).collect();
        assert_eq!(columns, [false, false, true, true]);
        let higher = mask(elements, &[1.0, 0.75], [0.0, 1.0, 3.0, 2.5]);
        assert_eq!(higher.part, [0, 1, 3, 2]);
        assert_eq!(higher.inside, [false, false, true, true, true, true]);
        assert!(higher.at(1, 0) && !higher.at(0, 0) && !higher.at(3, 0) && !higher.at(-1, 0));
    }

    #[test]
    fn boxes_that_are_none_have_empty_masks() {
        for bbox in [
            [5.0, 0.0, 9.0, 4.0],
            [3.0, 0.0, 1.0, 4.0],
            [f32::NAN, 0.0, f32::NAN, 4.0],
            [-9.0, 0.0, -1.0, 4.0],
        ] {
            let empty = mask(vec![1.0; 8], &[1.0, 1.0], bbox);
            assert!(empty.inside.is_empty(), "{bbox:?}: {empty:?}");
        }
        let nothing = mask(vec![f32::NAN; 8], &[1.0, 1.0], [0.0, 0.0, 4.0, 4.0]);
        assert!(nothing.inside.iter().all(|inside| !inside));
    }
}
