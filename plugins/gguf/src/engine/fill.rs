//! What goes into the next batch.
//!
//! Tokens are in the order of their slots, whoever comes first in rank: with a cache for each sequence, llama.cpp
//! computes together only neighbours that come in this order, and every other sequence alone.

use std::cmp::Reverse;

use pajamas_llama_cpp::Batch;

use super::Stop;
use super::slot::Slot;
use super::work::Work;

/// The longest run of idle slots that is filled. A pass over the weights costs about as much as four more tokens in one
/// (measured with 24 layers in Q8_0 on two cores).
const LONGEST_GAP: usize = 3;

/// How many tokens each slot gets: those that write one each; then prompts, the first in rank first. With others that
/// write, prompts get no more than a chunk, so that nobody waits long for the next token.
pub(super) fn shares(slots: &[Slot], capacity: usize, prompt_chunk: usize) -> Vec<usize> {
    let mut order: Vec<_> = slots
        .iter()
        .enumerate()
        .filter_map(|(index, slot)| match &slot.work {
            Some(work @ Work::Generate(generation)) => Some((index, work.rank(), generation)),
            _ => None,
        })
        .collect();
    order.sort_by_key(|(_, rank, generation)| (generation.reads(), Reverse(*rank)));
    let mut shares = vec![0; slots.len()];
    let (mut used, mut writing) = (0, 0);
    for (index, _, generation) in order {
        let room = match generation.reads() && writing > 0 {
            true => capacity.min(writing + prompt_chunk) - used,
            false => capacity - used,
        };
        shares[index] = generation.wanted().min(room);
        used += shares[index];
        writing += if generation.reads() { 0 } else { shares[index] };
    }
    shares
}

/// The slots without a share between two that have one, where filling the gap is cheaper than the second pass over the
/// weights that it would cause.
pub(super) fn gaps(shares: &[usize]) -> Vec<usize> {
    let mut gaps = Vec::new();
    let mut last = None;
    for (index, share) in shares.iter().enumerate() {
        if *share == 0 {
            continue;
        }
        if let Some(last) = last
            && index - last <= LONGEST_GAP + 1
        {
            gaps.extend(last + 1..index);
        }
        last = Some(index);
    }
    gaps
}

/// Fills the batch and returns the flags of the requests in it.
pub(super) fn fill(batch: &mut Batch, slots: &mut [Slot], shares: &[usize], padding: &[usize]) -> Vec<Stop> {
    batch.clear();
    let mut stops = Vec::with_capacity(slots.len());
    for (index, (slot, share)) in slots.iter_mut().zip(shares).enumerate() {
        let (position, sequence) = (slot.position(), slot.sequence);
        if padding.contains(&index) {
            batch.add(0, position, sequence, false);
        }
        let Some(Work::Generate(generation)) = &mut slot.work else { continue };
        let (first, mut outputs, mut count) = (batch.len(), 0, 0);
        for token in generation.next_tokens().take(*share) {
            let output = generation.needs_logits_after(count + 1);
            batch.add(token, position + count as u32, sequence, output);
            outputs += usize::from(output);
            count += 1;
        }
        generation.batched(count, first + count - outputs..first + count);
        if count > 0 {
            stops.push(generation.ticket.stop.clone());
        }
    }
    stops
}

#[cfg(test)]
mod tests {
    use super::gaps;

    #[test]
    fn short_gaps_between_busy_slots_are_filled() {
        assert_eq!(gaps(&[0, 1, 0, 1, 0]), [2]);
        assert_eq!(gaps(&[1, 0, 0, 0, 7, 0]), [1, 2, 3]);
        assert_eq!(gaps(&[1, 0, 0, 0, 0, 1, 1]), [0; 0]);
        assert_eq!(gaps(&[0, 0, 1]), [0; 0]);
        assert_eq!(gaps(&[]), [0; 0]);
    }
}
