//! How long a model would take for a request, from what was observed of it.

use serde::{Deserialize, Serialize};

use super::ask::Ask;
use super::snapshot::{Average, Model, Observed};
use crate::config::Task;
use crate::models::State;

/// Microseconds that a request is predicted to take, part by part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prediction {
    /// Waiting for a place in the model.
    pub queue: u64,
    /// Loading the model, or waking it.
    pub load: u64,
    /// From then to the first token; of what has no tokens, all of it.
    pub first_token: u64,
    /// The tokens after the first.
    pub decode: u64,
    /// All of it.
    pub total: u64,
    /// What nearly all such requests take at most, counting only what was observed: this is what a policy is held
    /// against.
    pub certain: u64,
    /// Whether a part of it was never observed, and is guessed.
    pub guessed: bool,
}

// What is guessed of a model that nothing was observed of: the same for all, so that they are tried.
/// Loading, when its size is not known either.
const LOAD: u64 = 2_000_000;
/// Loading: what comes beside reading, and bytes that are read in a microsecond.
const LOAD_BEGIN: u64 = 200_000;
const LOAD_BYTES: u64 = 1 << 10;
/// Waking from sleep.
const WAKE: u64 = 50_000;
/// The first token: beside the prompt, and for each of its tokens.
const FIRST_TOKEN: u64 = 20_000;
const PROMPT_TOKEN: u64 = 1_000;
/// Each further token.
const TOKEN: u64 = 30_000;
/// Tokens of an answer.
const ANSWER: u64 = 128;
/// A request without tokens.
const SERVICE: u64 = 500_000;

/// Adds the parts up.
#[derive(Default)]
struct Sum {
    certain: u64,
    guessed: bool,
}

impl Sum {
    /// A part of an observed time as often as `scale` says, or else of a guess, which is not certain.
    fn part(
        &mut self,
        observed: Option<Average>,
        scale: impl Fn(u64) -> u64,
        guess: impl FnOnce() -> u64,
    ) -> u64 {
        match observed {
            Some(average) => {
                self.certain = self.certain.saturating_add(scale(average.high()));
                scale(average.mean)
            }
            None => {
                self.guessed = true;
                scale(guess())
            }
        }
    }
}

/// How many would wait for a model, with one more request.
pub fn waiting(model: &Model) -> u32 {
    model.inside.saturating_add(1).saturating_sub(model.slots.max(1))
}

/// Predicts what `model` takes for `ask`.
pub fn predict(ask: &Ask, model: &Model) -> Prediction {
    let seen = &model.observed;
    let mut sum = Sum::default();
    let text = matches!(ask.task, Task::Generate | Task::Chat);
    let once = |us: u64| us;
    let slots = u64::from(model.slots.max(1));
    let before = u64::from(waiting(model));
    // Places become free one after the other: those before this one share them.
    let queue = match before {
        0 => 0,
        _ => sum.part(seen.service, |us| us.saturating_mul(before) / slots, || SERVICE),
    };
    let load = match model.state {
        State::Ready | State::Busy => 0,
        State::Sleeping => sum.part(seen.wake, once, || WAKE),
        _ => {
            let guess = || model.memory.map_or(LOAD, |bytes| LOAD_BEGIN + bytes / LOAD_BYTES);
            sum.part(seen.load, once, guess)
        }
    };
    let (first_token, decode) = if text {
        let first = of_size(seen, ask.tokens);
        let first = sum.part(first, once, || FIRST_TOKEN + u64::from(ask.tokens) * PROMPT_TOKEN);
        let usual = seen.answer.map_or(ANSWER, |answer| answer.mean);
        let tokens = ask.answer.map_or(usual, |most| usual.min(most.into()));
        let rest = tokens.saturating_sub(1);
        (first, sum.part(seen.between_tokens, |us| us.saturating_mul(rest), || TOKEN))
    } else {
        (sum.part(seen.service, once, || SERVICE), 0)
    };
    let total = queue.saturating_add(load).saturating_add(first_token).saturating_add(decode);
    Prediction { queue, load, first_token, decode, total, certain: sum.certain, guessed: sum.guessed }
}

/// The time to the first token of a prompt of so many tokens: observed at this size, or else the nearest larger one,
/// or the largest of all in proportion.
fn of_size(seen: &Observed, tokens: u32) -> Option<Average> {
    if let Some((_, average)) = seen.first_token.range(tokens..).next() {
        return Some(*average);
    }
    let (most, average) = seen.first_token.iter().next_back()?;
    let scale = |us: u64| us.saturating_mul(tokens.into()) / u64::from((*most).max(1));
    Some(Average { mean: scale(average.mean), spread: scale(average.spread), count: average.count })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn average(mean: u64, spread: u64) -> Average {
        Average { mean, spread, count: 9 }
    }

    fn observed() -> Model {
        Model {
            state: State::Busy,
            slots: 2,
            observed: Observed {
                load: Some(average(3_000_000, 0)),
                wake: Some(average(15_000, 0)),
                service: Some(average(1_000_000, 0)),
                first_token: BTreeMap::from([(64, average(10_000, 1_000)), (256, average(40_000, 0))]),
                between_tokens: Some(average(20_000, 5_000)),
                answer: Some(average(101, 0)),
            },
            ..Model::default()
        }
    }

    fn ask(tokens: u32, answer: Option<u32>) -> Ask {
        Ask { tokens, answer, ..Ask::new(Task::Chat, None) }
    }

    #[test]
    fn each_part_is_counted_where_it_is_due() {
        let mut model = observed();
        model.inside = 1;
        let free = predict(&ask(50, None), &model);
        assert_eq!((free.queue, free.load, free.first_token, free.decode), (0, 0, 10_000, 2_000_000));
        assert_eq!(free.total, 2_010_000);
        assert_eq!(free.certain, 12_000 + 100 * 30_000);
        assert!(!free.guessed);
        // Two run and two wait: three requests' time, shared by two places, until there is one for this.
        model.inside = 4;
        assert_eq!(predict(&ask(50, None), &model).queue, 1_500_000);
        model.inside = 0;
        model.state = State::Unloaded;
        assert_eq!(predict(&ask(50, Some(1)), &model).total, 3_010_000);
        model.state = State::Sleeping;
        assert_eq!(predict(&ask(50, Some(1)), &model).total, 25_000, "to wake it is not to load it");
    }

    #[test]
    fn a_prompt_of_another_size_is_taken_from_the_next_or_in_proportion() {
        let model = observed();
        let first = |tokens| predict(&ask(tokens, Some(1)), &model).first_token;
        assert_eq!((first(1), first(65), first(256), first(512)), (10_000, 40_000, 40_000, 80_000));
    }

    #[test]
    fn what_was_never_observed_is_guessed_and_no_guess_is_certain() {
        let model = Model { memory: Some(1 << 30), ..Model::default() };
        let prediction = predict(&ask(100, Some(11)), &model);
        assert_eq!(prediction.load, LOAD_BEGIN + (1 << 20));
        assert_eq!(
            (prediction.first_token, prediction.decode),
            (FIRST_TOKEN + 100 * PROMPT_TOKEN, 10 * TOKEN)
        );
        assert_eq!((prediction.certain, prediction.guessed), (0, true));
    }
}
