//! Which experts a text reached, and which pieces of it bring more of those that it hardly did.
//!
//! The router of a model with experts sends most tokens to some of them. What few tokens reached is known badly, and is
//! rounded badly then. Pieces that reach such experts are computed again, cut at other places so that the tokens stand
//! in other surroundings; text that was left out so far follows. What they bring is added to the experts that are short of
//! it and to nothing else: the importance of everything else stays that of the text as it is.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::imatrix::{Expert, FEW_HITS, Matrix, Shortage};

/// Where pieces are cut anew, in quarters of a piece after the old places: those farthest from them first.
const CUTS: [usize; 3] = [2, 1, 3];

/// How often one piece of text reached the experts that are short of text.
pub(super) type Reached = BTreeMap<Expert, u64>;

/// How well the experts are known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Experts of all layers.
    pub experts: u64,
    /// Those that fewer than [`FEW_HITS`] tokens reached.
    pub few: u64,
    /// The fewest tokens that reached one.
    pub least: u64,
    /// Those that none reached, as `layer 3, expert 17`.
    pub never: Vec<String>,
}

impl Coverage {
    /// Of a matrix; `None` of a model without experts.
    pub fn of(matrix: &Matrix) -> Option<Self> {
        let counts = matrix.expert_counts();
        let all = || counts.values().flatten().copied();
        Some(Self {
            experts: all().count() as u64,
            few: all().filter(|n| *n < FEW_HITS).count() as u64,
            least: all().min()?,
            never: matrix.experts_below(1).into_iter().map(name).collect(),
        })
    }
}

/// An expert, for people.
pub(super) fn name((layer, expert): Expert) -> String {
    format!("layer {layer}, expert {expert}")
}

/// What each piece of text reached, as long as it matters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Ledger {
    /// Piece by piece: layer, expert, tokens.
    pieces: Vec<Vec<(u32, u32, u64)>>,
}

impl Ledger {
    /// Enters a piece, by the counts before and after it. Experts that enough tokens reached by now are no longer of
    /// interest: what is kept stays small however long the text is.
    pub fn enter(&mut self, before: &BTreeMap<u32, Vec<u64>>, after: &BTreeMap<u32, Vec<u64>>) {
        let mut piece = Vec::new();
        let mut done = BTreeSet::new();
        for (layer, counts) in after {
            let before = before.get(layer);
            for (expert, count) in (0..).zip(counts) {
                let was = before.and_then(|b| b.get(expert as usize)).copied().unwrap_or(0);
                match *count {
                    n if n < FEW_HITS && n > was => piece.push((*layer, expert, n - was)),
                    n if n >= FEW_HITS && was < FEW_HITS => _ = done.insert((*layer, expert)),
                    _ => {}
                }
            }
        }
        if !done.is_empty() {
            let open = |(layer, expert, _): &(u32, u32, u64)| !done.contains(&(*layer, *expert));
            self.pieces.iter_mut().for_each(|piece| piece.retain(open));
        }
        self.pieces.push(piece);
    }

    fn reached(&self, piece: usize) -> Reached {
        let piece = self.pieces.get(piece).into_iter().flatten();
        piece.map(|(layer, expert, tokens)| ((*layer, *expert), *tokens)).collect()
    }

    /// Where more pieces may be cut out of `tokens` tokens, of which so many pieces were computed: each place, with what
    /// the pieces around it reached.
    pub fn windows(&self, size: usize, tokens: usize) -> Vec<Window> {
        let computed = self.pieces.len();
        let mut windows = Vec::new();
        for cut in CUTS {
            for piece in 0..computed.saturating_sub(1) {
                // A piece cut a quarter later has three quarters of one and one of the next.
                let mut expected = Reached::new();
                for (at, quarters) in [(piece, 4 - cut), (piece + 1, cut)] {
                    for (expert, tokens) in self.reached(at) {
                        *expected.entry(expert).or_insert(0) += tokens * quarters as u64;
                    }
                }
                windows.push(Window { start: piece * size + size * cut / 4, expected: Some(expected) });
            }
        }
        let fresh = (computed..tokens / size.max(1)).map(|at| Window { start: at * size, expected: None });
        windows.extend(fresh);
        windows
    }
}

/// A piece of text that may be computed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Window {
    /// Its first token.
    pub start: usize,
    /// What it should reach, in quarters of tokens; not known of text that was not computed yet.
    expected: Option<Reached>,
}

/// Takes the window that brings most to the experts that are short; `None` when none brings anything.
pub(super) fn take_best(windows: &mut Vec<Window>, short: &Shortage) -> Option<Window> {
    let gain = |window: &Window| match &window.expected {
        Some(expected) => {
            expected.iter().filter(|(expert, _)| short.contains(*expert)).map(|(_, n)| *n).sum::<u64>()
        }
        // Text that nobody saw yet may bring what no other does: it comes when the rest brings little.
        None => 1,
    };
    let gains = windows.iter().map(gain).enumerate();
    // The first of several that are as good.
    let (best, gain) = gains.max_by(|(i, a), (j, b)| a.cmp(b).then(j.cmp(i)))?;
    (gain > 0).then(|| windows.remove(best))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[u64]) -> BTreeMap<u32, Vec<u64>> {
        [(2, of.to_vec())].into()
    }

    #[test]
    fn pieces_that_reach_the_short_ones_come_first() {
        let mut ledger = Ledger::default();
        let steps = [counts(&[0, 0, 0]), counts(&[60, 3, 0]), counts(&[130, 3, 0]), counts(&[200, 8, 0])];
        steps.windows(2).for_each(|pair| ledger.enter(&pair[0], &pair[1]));
        // The first expert has enough by now, and is forgotten.
        assert_eq!(ledger.pieces, [vec![(2, 1, 3)], vec![], vec![(2, 1, 5)]]);
        let short: Shortage = [(2, 1), (2, 2)].into();
        let mut windows = ledger.windows(512, 5 * 512 + 3);
        assert_eq!(windows.len(), 6 + 2);
        let starts: Vec<usize> =
            std::iter::from_fn(|| take_best(&mut windows, &short)).map(|w| w.start).collect();
        // Three quarters of the third piece, half of it, then of the first; unseen text at last.
        assert_eq!(starts[..3], [512 + 384, 512 + 256, 128]);
        assert_eq!(starts.len(), 8);
        assert!(starts.contains(&(3 * 512)) && starts.contains(&(4 * 512)));
        let mut useless = ledger.windows(512, 3 * 512);
        assert_eq!(take_best(&mut useless, &[(9, 9)].into()), None);
    }

    #[test]
    fn coverage_names_who_was_never_reached() {
        let entry = crate::imatrix::Entry { sums: vec![0.0; 3], counts: vec![64, 63, 0] };
        let matrix =
            Matrix { entries: [("blk.2.ffn_up_exps.weight".to_owned(), entry)].into(), ..Matrix::default() };
        let coverage = Coverage::of(&matrix).unwrap();
        assert_eq!((coverage.experts, coverage.few, coverage.least), (3, 2, 0));
        assert_eq!(coverage.never, ["layer 2, expert 2"]);
        assert_eq!(Coverage::of(&Matrix::default()), None);
    }
}
