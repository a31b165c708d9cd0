//! The best path (A. Graves and others, Connectionist Temporal Classification, 2006): the likeliest token of each frame,
//! repetitions joined, blanks dropped.

use pajamas_stage::{Error, Result};

/// A token and the frames that it was heard in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    pub token: u32,
    /// Its first frame.
    pub first: usize,
    /// The frame after its last.
    pub end: usize,
}

/// The tokens of the best path through frames of `classes` scores.
///
/// Errors: `invalid-input` for a frame whose scores are no numbers.
pub fn best_path(scores: &[f32], classes: usize, blank: u32) -> Result<Vec<Heard>> {
    let mut heard: Vec<Heard> = Vec::new();
    let mut before = blank;
    for (frame, scores) in scores.chunks_exact(classes.max(1)).enumerate() {
        let mut best = (blank, f32::NEG_INFINITY);
        for (token, score) in (0u32..).zip(scores) {
            if score.is_nan() {
                return Err(Error::invalid_input(format!("frame {frame} has scores that are not numbers")));
            }
            // Of equal scores the first counts, as numpy's argmax has it.
            if *score > best.1 {
                best = (token, *score);
            }
        }
        let token = best.0;
        match heard.last_mut() {
            Some(last) if token == before && token != blank => last.end = frame + 1,
            _ if token != blank => heard.push(Heard { token, first: frame, end: frame + 1 }),
            _ => {}
        }
        before = token;
    }
    Ok(heard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_parts_two_of_the_same() {
        let path = [1, 1, 0, 1, 2, 2];
        let scores: Vec<f32> =
            path.iter().flat_map(|t| (0..3).map(move |c| f32::from(u8::from(c == *t)))).collect();
        let heard = best_path(&scores, 3, 0).unwrap();
        let tokens: Vec<_> = heard.iter().map(|h| (h.token, h.first, h.end)).collect();
        assert_eq!(tokens, [(1, 0, 2), (1, 3, 4), (2, 4, 6)]);
        assert_eq!(best_path(&[], 3, 0), Ok(vec![]));
    }
}
