//! Who gets which slot, and whether there is room at all.

use std::cmp::Reverse;

use pajamas_llama_cpp::{Context, Token};

use super::slot::Slot;
use super::work::Work;
use crate::options::PromptCache;

/// Sharing another slot's beginning must save at least so many tokens to be worth the copy.
const LEAST_SHARED: usize = 16;
/// Tokens left free for each running request before another joins: who is let in should stay a while.
const HEADROOM: usize = 16;

/// Whether the cache has room for a waiting request beside those that run. What finished requests left does not count:
/// it is given up where it is in the way. Somebody must run.
pub(super) fn fits(work: &Work, slots: &[Slot], context: &Context) -> bool {
    let Work::Generate(generation) = work else { return true };
    if !context.is_unified() || slots.iter().all(|s| s.work.is_none()) {
        return true;
    }
    let mut wanted = generation.tokens().len() + HEADROOM;
    for slot in slots {
        wanted += match &slot.work {
            Some(Work::Generate(running)) => running.tokens().len().max(slot.len()) + HEADROOM,
            Some(Work::Embed(_)) => HEADROOM,
            None => 0,
        };
    }
    wanted <= context.cache_length() as usize
}

/// Chooses a free slot for a request and prepares its cache: the slot that saves most, in place or by sharing the
/// beginning of another, and of these the one that loses least; among equals one beside a busy slot, because neighbours
/// are computed together. Returns its index and how many tokens are in its cache.
pub(super) fn place(
    tokens: &[Token],
    slots: &mut [Slot],
    context: &mut Context,
    mode: PromptCache,
) -> Option<(usize, usize)> {
    let micro_batch = context.micro_batch_size() as usize;
    let usable: Vec<usize> = slots
        .iter()
        .map(|slot| match &slot.work {
            // Its cache is emptied after each text.
            Some(Work::Embed(_)) => 0,
            _ => slot.reusable(tokens, mode, micro_batch),
        })
        .collect();
    let (source, most) = usable.iter().copied().enumerate().max_by_key(|(_, n)| *n)?;
    let busy = |index: usize| slots.get(index).is_some_and(|slot| slot.work.is_some());
    let beside = |index: usize| busy(index + 1) || index.checked_sub(1).is_some_and(busy);
    let worth = |in_place: usize| if in_place + LEAST_SHARED > most { in_place } else { most };
    let (index, in_place) =
        usable.iter().copied().enumerate().filter(|(index, _)| slots[*index].work.is_none()).max_by_key(
            |(index, n)| {
                let slot = &slots[*index];
                (worth(*n), Reverse(slot.len() - n), *n, beside(*index), Reverse(slot.used))
            },
        )?;
    if worth(in_place) == in_place || source == index {
        return Some((index, slots[index].rewind(context, in_place)));
    }
    let head = slots[source].head(most);
    let got = slots[index].share(context, &head, most);
    Some((index, got))
}
