//! What the classifier sees of a prompt: hashed n-grams of its characters and words, to the number as
//! `models/intent/features.py` says, which is the description of each step here.

/// What a form of the features leaves open; kept with the weights.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Form {
    /// Characters of a text that count; of a longer one the first and the last half.
    pub(super) limit: usize,
    /// Characters of the longest n-gram.
    pub(super) longest: usize,
    /// Words at each edge that count once more.
    pub(super) edge: usize,
    /// There are two to the power of this many buckets.
    pub(super) bits: u32,
    /// How much words count beside characters.
    pub(super) words: f32,
    /// How much the words at the edges count.
    pub(super) edges: f32,
}

/// The features of a text that are not zero, by bucket, each bucket once.
pub(super) fn features(form: &Form, text: &str) -> Vec<(usize, f32)> {
    let text = cleaned(text, form.limit);
    let words = words(&text);
    let mut sum = Sum::new(form.bits);
    sum.part(1.0, |found| characters(&text, form.longest, found));
    sum.part(form.words, |found| runs(b"wpt", &words, found));
    sum.part(form.edges, |found| edges(&words, form.edge, found));
    sum.done()
}

const fn is_space(c: char) -> bool {
    matches!(c, '\t'..='\r' | ' ' | '\u{a0}')
}

/// The text in lower case, with single spaces or line feeds, and zeros for digits.
fn cleaned(text: &str, limit: usize) -> String {
    let mut lower = match beyond(text, limit) {
        None => text.to_lowercase(),
        Some((begin, end)) => format!("{begin}\n{end}").to_lowercase(),
    };
    lower = lower.trim_matches(is_space).to_owned();
    let mut cleaned = String::with_capacity(lower.len());
    let mut chars = lower.chars().peekable();
    while let Some(c) = chars.next() {
        if !is_space(c) {
            cleaned.push(if c.is_ascii_digit() { '0' } else { c });
            continue;
        }
        let mut feed = c == '\n';
        while let Some(more) = chars.next_if(|c| is_space(*c)) {
            feed |= more == '\n';
        }
        cleaned.push(if feed { '\n' } else { ' ' });
    }
    cleaned
}

/// Of a text with more characters than the limit the first and the last half of so many.
fn beyond(text: &str, limit: usize) -> Option<(&str, &str)> {
    // The place of a character; `None` where there are fewer.
    text.char_indices().nth(limit)?;
    let half = limit / 2;
    let (begin, _) = text.char_indices().nth(half)?;
    let (end, _) = text.char_indices().nth_back(half.checked_sub(1)?)?;
    Some((&text[..begin], &text[end..]))
}

/// Runs of letters and digits, and every other character by itself.
fn words(text: &str) -> Vec<&str> {
    let of_a_word =
        |c: char| (!c.is_ascii() && c != '\u{a0}') || c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while let Some(first) = rest.chars().next() {
        let end = match of_a_word(first) {
            true => rest.find(|c| !of_a_word(c)).unwrap_or(rest.len()),
            false => first.len_utf8(),
        };
        let (word, after) = rest.split_at(end);
        words.push(word);
        rest = after.trim_start_matches(is_space);
    }
    words
}

/// FNV-1a in 32 bits, before its first byte and by one byte more.
const BEGIN: u32 = 0x811c_9dc5;
fn hashed(hash: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Takes the hash of each n-gram.
type Found<'f> = dyn FnMut(u32) + 'f;

fn characters(text: &str, longest: usize, found: &mut Found<'_>) {
    let padded = format!(" {text} ");
    let begin = hashed(BEGIN, b"c");
    for (start, _) in padded.char_indices() {
        let mut hash = begin;
        let mut buffer = [0; 4];
        for c in padded[start..].chars().take(longest) {
            hash = hashed(hash, c.encode_utf8(&mut buffer).as_bytes());
            found(hash);
        }
    }
}

/// Words joined by spaces, of a kind.
fn joined(kind: u8, words: &[&str]) -> u32 {
    let begin = hashed(BEGIN, &[kind]);
    let (first, rest) = match words.split_first() {
        Some((first, rest)) => (first.as_bytes(), rest),
        None => (&[][..], &[][..]),
    };
    rest.iter().fold(hashed(begin, first), |hash, word| hashed(hashed(hash, b" "), word.as_bytes()))
}

/// Single words, pairs and so on, one kind for each.
fn runs(kinds: &[u8], words: &[&str], found: &mut Found<'_>) {
    for (length, kind) in (1..).zip(kinds) {
        words.windows(length).for_each(|run| found(joined(*kind, run)));
    }
}

fn edges(words: &[&str], edge: usize, found: &mut Found<'_>) {
    let edge = edge.min(words.len());
    runs(b"ab", &words[..edge], found);
    runs(b"yz", &words[words.len() - edge..], found);
    for (length, kind) in (1..).zip(b"fgh").take_while(|(length, _)| *length <= words.len()) {
        found(joined(*kind, &words[..length]));
    }
    for (length, kind) in (1..).zip(b"lm").take_while(|(length, _)| *length <= words.len()) {
        found(joined(*kind, &words[words.len() - length..]));
    }
}

/// Adds up parts: each counted by bucket, and scaled.
struct Sum {
    bits: u32,
    counts: Vec<u32>,
    values: Vec<f32>,
    /// The buckets that are not zero.
    filled: Vec<usize>,
}

impl Sum {
    fn new(bits: u32) -> Self {
        let buckets = 1 << bits;
        Self { bits, counts: vec![0; buckets], values: vec![0.0; buckets], filled: Vec::new() }
    }

    /// Adds a part; one that counts nothing is left out.
    fn part(&mut self, weight: f32, each: impl FnOnce(&mut Found<'_>)) {
        if weight == 0.0 {
            return;
        }
        let mask = (1_u32 << self.bits) - 1;
        let (bits, counts) = (self.bits, &mut self.counts);
        let mut of_part = Vec::new();
        let mut all = 0_u32;
        each(&mut |hash| {
            let bucket = ((hash >> bits ^ hash) & mask) as usize;
            if counts[bucket] == 0 {
                of_part.push(bucket);
            }
            counts[bucket] += 1;
            all += 1;
        });
        // The squares of the square roots of the counts add up to their number.
        let scale = weight / (all as f32).sqrt();
        for bucket in of_part {
            if self.values[bucket] == 0.0 {
                self.filled.push(bucket);
            }
            self.values[bucket] += scale * (std::mem::take(&mut self.counts[bucket]) as f32).sqrt();
        }
    }

    fn done(self) -> Vec<(usize, f32)> {
        self.filled.iter().map(|bucket| (*bucket, self.values[*bucket])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_digits_and_cases_are_made_alike() {
        assert_eq!(cleaned("  Fix\tTHIS \n\u{a0} 42\u{b}", 2048), "fix this\n00");
        assert_eq!(cleaned("ΟΔΟΣ Straße", 2048), "οδος straße");
        assert_eq!(cleaned(" \n ", 2048), "");
    }

    #[test]
    fn a_long_text_has_its_begin_and_its_end() {
        assert_eq!(cleaned("abcdéfgh", 8), "abcdéfgh");
        assert_eq!(cleaned("abcdéfghi", 8), "abcd\nfghi");
        assert_eq!(cleaned("éa", 1), "éa", "half of one character is none, and then nothing is cut");
    }

    #[test]
    fn words_are_runs_and_signs_stand_alone() {
        assert_eq!(
            words("c'est l\u{e9}ger: x_0 (ok)\n翻译。"),
            ["c", "'", "est", "l\u{e9}ger", ":", "x", "_", "0", "(", "ok", ")", "翻译。"]
        );
        assert_eq!(words(" \n"), [""; 0]);
    }
}
