//! Masks as COCO writes them: lengths of runs down the columns, in its own base of 32 (cocoapi, `maskApi.c`).

use crate::prototypes::Mask;

/// The lengths of the runs of a mask in the order of its columns: outside and inside in turn, outside first.
pub fn counts(mask: &Mask) -> Vec<u32> {
    let [left, top, _, rows] = mask.part;
    let mut counts = Vec::new();
    // Where the last run inside ended, among all pixels of the picture.
    let mut end = 0u32;
    for (column, x) in mask.inside.chunks_exact(rows.max(1) as usize).zip(left..) {
        let first = x * mask.height + top;
        let mut start = 0;
        for run in column.chunk_by(|a, b| a == b) {
            let at = first + start;
            start += run.len() as u32;
            if !run[0] {
                continue;
            }
            match counts.last_mut() {
                Some(last) if at == end => *last += run.len() as u32,
                _ => counts.extend([at - end, run.len() as u32]),
            }
            end = at + run.len() as u32;
        }
    }
    let rest = mask.width * mask.height - end;
    if rest > 0 {
        counts.push(rest);
    }
    counts
}

/// The text for lengths of runs: from the fourth on as differences to the one before the last, five bits in a character.
pub fn compressed(counts: &[u32]) -> String {
    let mut text = String::new();
    for (i, count) in counts.iter().enumerate() {
        let mut rest = i64::from(*count);
        if i > 2 {
            rest -= i64::from(counts[i - 2]);
        }
        loop {
            let bits = (rest & 0x1f) as u8;
            rest >>= 5;
            let more = if bits & 0x10 == 0 { rest != 0 } else { rest != -1 };
            text.push(char::from(bits + 48 + if more { 32 } else { 0 }));
            if !more {
                break;
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_go_down_the_columns_and_over_their_ends() {
        let full = |part, inside: &[u8]| Mask {
            width: 3,
            height: 2,
            part,
            inside: inside.iter().map(|v| *v == 1).collect(),
        };
        assert_eq!(counts(&full([1, 0, 1, 2], &[1, 1])), [2, 2, 2]);
        assert_eq!(counts(&full([0, 0, 3, 2], &[0, 1, 1, 1, 1, 0])), [1, 4, 1], "one run over two ends");
        assert_eq!(counts(&full([0, 0, 3, 2], &[1; 6])), [0, 6]);
        assert_eq!(counts(&full([0, 1, 3, 1], &[1, 0, 1])), [1, 1, 3, 1]);
        assert_eq!(counts(&full([0, 0, 0, 0], &[])), [6]);
    }

    #[test]
    fn the_text_is_that_of_pycocotools() {
        // What `pycocotools.mask.frPyObjects` makes of the same counts.
        for (counts, text) in [
            (&[2, 2, 2][..], "222"),
            (&[0, 6], "06"),
            (&[100, 16, 3, 2000, 5], "T3`03Pn12"),
            (&[18, 4, 4, 4, 4, 4, 4, 4, 18], "b04400000>"),
            (&[70_000, 1, 2, 40_000], "`[T212oQW1"),
        ] {
            assert_eq!(compressed(counts), text);
        }
    }
}
