//! One choice for each of many things, so that what they cost together stays within a budget and what they lose together is
//! least: the knapsack problem in which one thing is taken out of each group.
//!
//! Solved exactly, by the best loss for every budget up to the largest (dynamic programming), as long as budgets can be told
//! apart in so many cells; beyond it costs are rounded up to a cell, and what that leaves is spent afterwards.

/// Budgets that are told apart.
const CELLS: u64 = 1 << 16;

/// What a thing can be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Choice {
    /// What it costs.
    pub bytes: u64,
    /// What it loses.
    pub loss: f64,
}

/// The best choices for every budget.
pub(super) struct Table<'a> {
    items: &'a [Vec<Choice>],
    /// What everything costs at least.
    least: u64,
    /// Bytes of a cell.
    unit: u64,
    /// The least loss for each number of cells beyond the least cost.
    best: Vec<f64>,
    /// For each thing, which choice that takes.
    taken: Vec<Vec<u8>>,
}

impl<'a> Table<'a> {
    /// For budgets up to `most` bytes. Every thing has 1 to 256 choices.
    pub fn new(items: &'a [Vec<Choice>], most: u64) -> Self {
        let least: u64 = items.iter().map(|choices| cheapest(choices)).sum();
        let dearest = |choices: &Vec<Choice>| choices.iter().map(|c| c.bytes).max().unwrap_or(0);
        let all: u64 = items.iter().map(dearest).sum();
        let range = most.min(all).saturating_sub(least);
        let beyond = items.iter().flat_map(|choices| {
            let least = cheapest(choices);
            choices.iter().map(move |choice| choice.bytes - least)
        });
        let common = beyond.fold(0, gcd).max(1);
        let unit = common * (range / common).div_ceil(CELLS).max(1);
        let cells = (range / unit) as usize + 1;
        let mut best = vec![0.0; cells];
        let mut taken = Vec::with_capacity(items.len());
        for choices in items {
            let least = cheapest(choices);
            let (mut after, mut by) = (vec![f64::INFINITY; cells], vec![0u8; cells]);
            // Where everything loses without bound, the cheapest is taken.
            let start = choices.iter().position(|c| c.bytes == least).unwrap_or(0);
            by.fill(start as u8);
            for (number, choice) in choices.iter().enumerate() {
                let weight = (choice.bytes - least).div_ceil(unit) as usize;
                for cell in weight..cells {
                    let loss = best[cell - weight] + choice.loss;
                    if loss < after[cell] {
                        (after[cell], by[cell]) = (loss, number as u8);
                    }
                }
            }
            best = after;
            taken.push(by);
        }
        Self { items, least, unit, best, taken }
    }

    /// What everything costs at least.
    pub fn least(&self) -> u64 {
        self.least
    }

    /// The choices that lose least within a budget of bytes; `None` when there are none.
    pub fn within(&self, budget: u64) -> Option<Vec<usize>> {
        let cell = (budget.checked_sub(self.least)? / self.unit) as usize;
        let mut chosen = self.back(cell.min(self.best.len().saturating_sub(1)));
        self.fill(&mut chosen, budget);
        Some(chosen)
    }

    /// The cheapest choices that lose no more than `loss`; `None` when there are none.
    pub fn losing(&self, loss: f64) -> Option<Vec<usize>> {
        let cell = self.best.iter().position(|best| *best <= loss)?;
        Some(self.back(cell))
    }

    /// What choices cost.
    pub fn bytes(&self, chosen: &[usize]) -> u64 {
        self.items.iter().zip(chosen).map(|(choices, at)| choices[*at].bytes).sum()
    }

    /// What choices lose.
    pub fn loss(&self, chosen: &[usize]) -> f64 {
        self.items.iter().zip(chosen).map(|(choices, at)| choices[*at].loss).sum()
    }

    fn back(&self, mut cell: usize) -> Vec<usize> {
        let mut chosen = vec![0; self.items.len()];
        for ((at, choices), taken) in self.items.iter().enumerate().zip(&self.taken).rev() {
            let number = usize::from(taken[cell]);
            chosen[at] = number;
            cell -= (choices[number].bytes - cheapest(choices)).div_ceil(self.unit) as usize;
        }
        chosen
    }

    /// Spends what the cells left, each time where it gains most.
    fn fill(&self, chosen: &mut [usize], budget: u64) {
        loop {
            let left = budget.saturating_sub(self.bytes(chosen));
            let mut found: Option<(f64, usize, usize)> = None;
            for (at, choices) in self.items.iter().enumerate() {
                let now = choices[chosen[at]];
                for (number, choice) in choices.iter().enumerate() {
                    let gain = now.loss - choice.loss;
                    let better = found.is_none_or(|(best, ..)| gain > best);
                    if choice.bytes <= now.bytes + left && gain > 0.0 && better {
                        found = Some((gain, at, number));
                    }
                }
            }
            match found {
                Some((_, at, number)) => chosen[at] = number,
                None => return,
            }
        }
    }
}

fn cheapest(choices: &[Choice]) -> u64 {
    choices.iter().map(|choice| choice.bytes).min().unwrap_or(0)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every way to choose.
    fn all(items: &[Vec<Choice>]) -> Vec<Vec<usize>> {
        items.iter().fold(vec![vec![]], |ways, choices| {
            let longer = |way: &Vec<usize>| {
                let way = way.clone();
                (0..choices.len()).map(move |at| [&way[..], &[at]].concat())
            };
            ways.iter().flat_map(longer).collect()
        })
    }

    fn items(step: u64) -> impl Strategy<Value = Vec<Vec<Choice>>> {
        let choice = (1..60u64, 0..1000u32)
            .prop_map(move |(bytes, loss)| Choice { bytes: bytes * step, loss: f64::from(loss) / 8.0 });
        prop::collection::vec(prop::collection::vec(choice, 1..5), 1..6)
    }

    proptest! {
        /// Losses are eighths, whose sums are exact in any order.
        #[test]
        fn nothing_within_the_budget_loses_less(items in items(32), budget in 0..400u64) {
            let budget = budget * 32 + 7;
            let table = Table::new(&items, budget);
            let fits = all(&items).into_iter().filter(|way| table.bytes(way) <= budget);
            let least = fits.map(|way| table.loss(&way)).min_by(f64::total_cmp);
            let chosen = table.within(budget);
            prop_assert!(chosen.as_ref().is_none_or(|way| table.bytes(way) <= budget));
            prop_assert_eq!(chosen.map(|way| table.loss(&way)), least);
        }

        #[test]
        fn nothing_that_loses_no_more_is_cheaper(items in items(32), loss in 0..4000u32) {
            let loss = f64::from(loss) / 8.0;
            let table = Table::new(&items, u64::MAX);
            let good = all(&items).into_iter().filter(|way| table.loss(way) <= loss);
            let least = good.map(|way| table.bytes(&way)).min();
            let chosen = table.losing(loss);
            prop_assert!(chosen.as_ref().is_none_or(|way| table.loss(way) <= loss));
            prop_assert_eq!(chosen.map(|way| table.bytes(&way)), least);
        }

        /// Costs without a common measure, and far more of them than cells.
        #[test]
        fn budgets_beyond_the_cells_are_kept_to(items in items(1_000_003), budget in 0..400_000_000u64) {
            let mut items = items;
            items.iter_mut().flatten().enumerate().for_each(|(at, choice)| choice.bytes += at as u64);
            let table = Table::new(&items, budget);
            if let Some(way) = table.within(budget) {
                prop_assert!(table.bytes(&way) <= budget);
                // Not worse than what fits even after every cost was rounded up.
                let room = budget.saturating_sub(items.len() as u64 * table.unit);
                let fits = all(&items).into_iter().filter(|way| table.bytes(way) <= room);
                let least = fits.map(|way| table.loss(&way)).min_by(f64::total_cmp);
                prop_assert!(least.is_none_or(|least| table.loss(&way) <= least));
            } else {
                prop_assert!(budget < table.least());
            }
        }
    }

    #[test]
    fn what_loses_without_bound_is_not_taken_where_something_else_is() {
        let choice = |bytes, loss| Choice { bytes, loss };
        let items = vec![vec![choice(10, f64::INFINITY), choice(20, 1.0)], vec![choice(10, f64::INFINITY)]];
        let table = Table::new(&items, 40);
        assert_eq!(table.within(20), Some(vec![0, 0]));
        assert_eq!((table.within(19), table.losing(3.0)), (None, None));
    }
}
