//! From the tokens of a window to segments, and to where the next window begins. Follows the loop over `seek` of
//! OpenAI's `whisper/transcribe.py`.

use super::vocabulary::Vocabulary;

/// Hundredths of a second that a step of timestamps spans: two frames of the spectrogram.
const STEP: u64 = 2;

/// A stretch of a window's tokens.
#[derive(Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Where it begins in the recording, in hundredths of a second.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
    /// Its tokens, timestamps among them.
    pub tokens: Vec<u32>,
}

/// Takes a window of `length` hundredths of a second that begins at `seek` apart. Gives its stretches, and where the next
/// window begins.
pub fn split(tokens: &[u32], vocabulary: &Vocabulary, seek: u64, length: u64) -> (Vec<Stretch>, u64) {
    let begin = vocabulary.timestamps.unwrap_or(u32::MAX);
    let is_time = |token: &u32| *token >= begin;
    let time = |token: u32| u64::from(token.saturating_sub(begin)) * STEP;
    let at =
        |token: Option<&u32>| seek + token.filter(|token| is_time(token)).map_or(0, |token| time(*token));
    let after = seek + length;
    let single_ending = matches!(tokens, [.., a, b] if !is_time(a) && is_time(b));
    // Where one segment closes and the next opens.
    let mut cuts: Vec<usize> =
        (1..tokens.len()).filter(|cut| is_time(&tokens[cut - 1]) && is_time(&tokens[*cut])).collect();
    if cuts.is_empty() {
        let last = tokens.iter().rev().find(|token| is_time(token)).filter(|token| **token != begin);
        let end = last.map_or(after, |token| seek + time(*token));
        return (vec![Stretch { start: seek, end, tokens: tokens.to_vec() }], after);
    }
    if single_ending {
        cuts.push(tokens.len());
    }
    let mut stretches = Vec::with_capacity(cuts.len());
    let mut from = 0;
    for cut in cuts {
        let tokens = &tokens[from..cut];
        stretches.push(Stretch {
            start: at(tokens.first()),
            end: at(tokens.last()),
            tokens: tokens.to_vec(),
        });
        from = cut;
    }
    // Nobody spoke after a single time at the end; else what was not finished is heard again.
    let next = if single_ending { after } else { at(tokens.get(from - 1)) };
    // A model that closes a segment where its window began must not be heard for ever.
    (stretches, if next > seek { next.min(after) } else { after })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::transcribe::vocabulary::tests::tiny;

    const ZERO: u32 = 19;

    fn times(tokens: &[u32]) -> (Vec<(u64, u64)>, u64) {
        let (stretches, next) = split(tokens, &tiny(), 1000, 3000);
        (stretches.into_iter().map(|s| (s.start, s.end)).collect(), next)
    }

    #[test]
    fn pairs_of_times_are_segments_and_the_last_pair_is_where_to_go_on() {
        let at = |steps: u32| ZERO + steps;
        assert_eq!(
            times(&[at(0), 0, 1, at(50), at(60), 2, at(90), at(90), 0]),
            (vec![(1000, 1100), (1120, 1180)], 1180)
        );
        // A single time at the end: nobody spoke after it.
        assert_eq!(times(&[at(0), 0, at(50), at(60), 2, at(90)]), (vec![(1000, 1100), (1120, 1180)], 4000));
        assert_eq!(times(&[at(0), 0, at(50)]), (vec![(1000, 1100)], 4000));
    }

    #[test]
    fn without_times_a_window_is_one_segment() {
        assert_eq!(times(&[0, 1, 2]), (vec![(1000, 4000)], 4000));
        assert_eq!(times(&[]), (vec![(1000, 4000)], 4000));
        assert_eq!(times(&[ZERO, 0]), (vec![(1000, 4000)], 4000));
    }

    #[test]
    fn a_window_is_always_left() {
        assert_eq!(times(&[ZERO, ZERO, 0]).1, 4000);
        assert_eq!(times(&[u32::MAX, u32::MAX]).1, 4000);
    }
}
