//! The hysteresis of Silero's `get_speech_timestamps_from_probs` (silero-vad 6.2.3), step by step, so that both find the
//! same samples.

/// The rules, in samples.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Samples of a frame.
    pub frame: i64,
    /// Speech begins at this probability.
    pub threshold: f64,
    /// Speech may end below this probability.
    pub neg_threshold: f64,
    /// Shorter stretches are dropped.
    pub min_speech: f64,
    /// How long it must be silent for a stretch to end.
    pub min_silence: f64,
    /// What is added at both ends.
    pub pad: f64,
    /// Longer stretches are cut.
    pub max_speech: f64,
    /// How long a silence must be to be a place for such a cut.
    pub min_silence_at_max_speech: f64,
    /// Whether such a cut is made in the longest silence rather than in the last.
    pub cut_at_longest_silence: bool,
}

/// A stretch of speech.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Its first sample.
    pub start: i64,
    /// The sample after its last.
    pub end: i64,
}

/// What is known while the frames go by. Where the reference keeps 0 for "none", so does this: it shows.
#[derive(Debug, Default)]
struct State {
    speaking: bool,
    /// Where the stretch under way began.
    start: Option<i64>,
    /// Where the silence began that may end it.
    quiet_since: i64,
    /// Where the last silence began that is long enough for a cut, and where speech went on.
    cut_end: i64,
    cut_next: i64,
    /// Silences of the stretch under way that are long enough for a cut: where they began, and their lengths.
    silences: Vec<(i64, i64)>,
}

impl State {
    /// The stretch is over.
    fn forget_cuts(&mut self) {
        (self.cut_end, self.cut_next, self.quiet_since) = (0, 0, 0);
        self.silences.clear();
    }
}

/// The stretches of speech in a sound of `samples` samples, padded, in order.
pub fn stretches(probabilities: &[f32], samples: i64, rules: &Rules) -> Vec<Stretch> {
    let mut found = Vec::new();
    let mut state = State::default();
    for (n, probability) in probabilities.iter().enumerate() {
        step(&mut state, f64::from(*probability), rules.frame * n as i64, rules, &mut found);
    }
    if let Some(start) = state.start.filter(|start| (samples - start) as f64 > rules.min_speech) {
        found.push(Stretch { start, end: samples });
    }
    pad(&mut found, samples, rules.pad);
    found
}

fn step(state: &mut State, probability: f64, now: i64, rules: &Rules, found: &mut Vec<Stretch>) {
    if probability >= rules.threshold && state.quiet_since != 0 {
        let silence = now - state.quiet_since;
        if silence as f64 > rules.min_silence_at_max_speech {
            state.silences.push((state.quiet_since, silence));
        }
        state.quiet_since = 0;
        if state.cut_next < state.cut_end {
            state.cut_next = now;
        }
    }
    if probability >= rules.threshold && !state.speaking {
        state.speaking = true;
        state.start = Some(now);
        return;
    }
    if let Some(start) = state.start.filter(|start| state.speaking && (now - start) as f64 > rules.max_speech)
        && cut(state, start, now, rules, found)
    {
        return;
    }
    if probability < rules.neg_threshold && state.speaking {
        if state.quiet_since == 0 {
            state.quiet_since = now;
        }
        let silence = (now - state.quiet_since) as f64;
        if !rules.cut_at_longest_silence && silence > rules.min_silence_at_max_speech {
            state.cut_end = state.quiet_since;
        }
        if silence >= rules.min_silence {
            let end = state.quiet_since;
            if let Some(start) = state.start.take().filter(|start| (end - start) as f64 > rules.min_speech) {
                found.push(Stretch { start, end });
            }
            state.forget_cuts();
            state.speaking = false;
        }
    }
}

/// Cuts a stretch that became too long. True when the frame has nothing more to say.
fn cut(state: &mut State, start: i64, now: i64, rules: &Rules, found: &mut Vec<Stretch>) -> bool {
    state.start = None;
    // Of silences of the same length the first, as Python's max has it.
    let longest = state.silences.iter().rev().max_by_key(|(_, length)| *length).copied();
    match longest.filter(|_| rules.cut_at_longest_silence) {
        Some((end, silence)) => {
            found.push(Stretch { start, end });
            let next = end + silence;
            if next < end + now {
                state.start = Some(next);
            } else {
                state.speaking = false;
            }
        }
        None if state.cut_end != 0 => {
            found.push(Stretch { start, end: state.cut_end });
            if state.cut_next < state.cut_end {
                state.speaking = false;
            } else {
                state.start = Some(state.cut_next);
            }
        }
        None => {
            found.push(Stretch { start, end: now });
            state.forget_cuts();
            state.speaking = false;
            return true;
        }
    }
    state.forget_cuts();
    false
}

/// Widens the stretches, at most to the middle of the silence between two.
fn pad(found: &mut [Stretch], samples: i64, pad: f64) {
    let earlier = |at: i64| (at as f64 - pad).max(0.0) as i64;
    let later = |at: i64| (at as f64 + pad).min(samples as f64) as i64;
    if let Some(first) = found.first_mut() {
        first.start = earlier(first.start);
    }
    for n in 1..found.len() {
        let silence = found[n].start - found[n - 1].end;
        if (silence as f64) < 2.0 * pad {
            let half = silence.div_euclid(2);
            found[n - 1].end += half;
            found[n].start = (found[n].start - half).max(0);
        } else {
            found[n - 1].end = later(found[n - 1].end);
            found[n].start = earlier(found[n].start);
        }
    }
    if let Some(last) = found.last_mut() {
        last.end = later(last.end);
    }
}
