//! Sentences to ids.

use std::collections::{BTreeMap, BTreeSet};

use pajamas_stage::{Error, Result};

use crate::apart::{is_mark, nfd};
use crate::lexicon::{Lexicon, folded};
use crate::numbers;
use crate::voice::{Letters, Voice};

/// The most words of an error that names them.
const MOST_NAMED: usize = 8;

/// Reads texts as a voice does.
pub struct Reader<'v> {
    voice: &'v Voice,
    /// Whether numbers become words.
    numbers: bool,
    /// Whether words that are not known are left out.
    skip: bool,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Read {
    /// The ids of each sentence; none is empty.
    pub sentences: Vec<Vec<i64>>,
    /// What the voice does not know: some of it, for people.
    pub left_out: String,
}

/// A part of a sentence that is given to a voice as phonemes.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// In lower case.
    Word(String),
    /// Digits, with commas and a point between them.
    Number(String),
    Mark(char),
    Space,
}

/// How words are said, by the words in lower case.
type Said<'v> = BTreeMap<String, Vec<&'v [i64]>>;

impl<'v> Reader<'v> {
    pub fn new(voice: &'v Voice, numbers: bool, skip: bool) -> Self {
        let digits = ('0'..='9').all(|digit| voice.alphabet.of_char(digit).is_some());
        let numbers = numbers && voice.english && (voice.letters == Letters::Phonemes || !digits);
        Self { voice, numbers, skip }
    }

    /// The ids of sentences.
    ///
    /// Errors: `word-unknown` with the words that the lexicon lacks, `unsupported` for a script that the voice does not read.
    pub fn read(&self, sentences: &[&str]) -> Result<Read> {
        match (self.voice.letters, &self.voice.lexicon) {
            (Letters::Phonemes, Some(lexicon)) => self.with(lexicon, sentences),
            (letters, _) => {
                let mut read = Read::default();
                for sentence in sentences {
                    let text = if self.numbers { in_words(sentence) } else { (*sentence).to_owned() };
                    let ids = match letters {
                        Letters::Apart => self.apart(&text, &mut read),
                        Letters::Lower { romanian, latin } => {
                            self.lower(&text, romanian, latin, &mut read)?
                        }
                        _ => self.characters(text.chars(), &mut read),
                    };
                    read.push(ids);
                }
                Ok(read)
            }
        }
    }

    /// Characters taken apart; a capital letter that the voice does not know is read as a small one.
    fn apart(&self, text: &str, read: &mut Read) -> Vec<i64> {
        let alphabet = &self.voice.alphabet;
        let known = |c: char| alphabet.of_char(c).is_some();
        let small = |c: char| {
            let fold = !known(c) && c.to_lowercase().all(known);
            let (folded, same) = if fold { (Some(c.to_lowercase()), None) } else { (None, Some(c)) };
            folded.into_iter().flatten().chain(same)
        };
        self.characters(nfd(text).chars().flat_map(small), read)
    }

    /// As `VitsTokenizer` of transformers reads it: in lower case, without what the voice does not know.
    fn lower(&self, text: &str, romanian: bool, latin: bool, read: &mut Read) -> Result<Vec<i64>> {
        let alphabet = &self.voice.alphabet;
        let mut small = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            // A symbol that the voice knows stays as it is.
            let symbol = alphabet.long().find(|symbol| rest.starts_with(symbol));
            match symbol {
                Some(symbol) => small.push_str(symbol),
                None if alphabet.of_char(c).is_some() => small.push(c),
                None => small.extend(c.to_lowercase()),
            }
            rest = &rest[symbol.map_or(c.len_utf8(), str::len)..];
        }
        if romanian {
            small = small.replace('ț', "ţ");
        }
        if latin && let Some(c) = small.chars().find(|c| !c.is_ascii() && c.is_alphabetic()) {
            let what = format!("the voice reads Latin letters, and the text has {c:?}");
            return Err(Error::new("unsupported", what).with_help("romanize the text, as uroman does"));
        }
        let known: String = small
            .chars()
            .filter(|c| {
                let known = alphabet.of_char(*c).is_some();
                if !known && c.is_alphanumeric() {
                    read.miss(*c);
                }
                known
            })
            .collect();
        Ok(alphabet.sentence(known.trim().chars().filter_map(|c| alphabet.of_char(c))))
    }

    fn characters(&self, text: impl Iterator<Item = char>, read: &mut Read) -> Vec<i64> {
        let alphabet = &self.voice.alphabet;
        let mut symbols = Vec::new();
        for c in text {
            match alphabet.of_char(c) {
                Some(ids) => symbols.push(ids),
                None if c.is_whitespace() => symbols.extend(alphabet.of_char(' ')),
                None => read.miss(c),
            }
        }
        alphabet.sentence(symbols)
    }

    /// Words by a lexicon.
    fn with(&self, lexicon: &Lexicon, sentences: &[&str]) -> Result<Read> {
        let parts: Vec<Vec<Part>> = sentences.iter().map(|sentence| parts(sentence)).collect();
        let mut wanted = BTreeSet::new();
        for part in parts.iter().flatten() {
            match part {
                Part::Word(word) => {
                    wanted.insert(word.clone());
                    wanted.extend(word.split(['-', '\'']).filter(|half| !half.is_empty()).map(str::to_owned));
                }
                Part::Number(number) => {
                    wanted.insert(number.clone());
                    wanted.extend(number.chars().map(String::from));
                    wanted.extend(numbers::words(number).into_iter().map(str::to_owned));
                }
                Part::Mark(_) | Part::Space => {}
            }
        }
        let mut said = lexicon.find(&wanted, &self.voice.alphabet)?;
        let letters = |word: &String| word.chars().map(String::from).collect::<Vec<_>>();
        let spelled = wanted.iter().filter(|word| !said.contains_key(*word)).flat_map(letters).collect();
        let more = lexicon.find(&spelled, &self.voice.alphabet)?;
        said.extend(more);
        let mut read = Read::default();
        let mut unknown: Vec<String> = Vec::new();
        for parts in &parts {
            read.push(self.say(parts, &said, &mut unknown));
        }
        unknown.dedup();
        let named =
            unknown.iter().take(MOST_NAMED).map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
        let more = if unknown.len() > MOST_NAMED { ", …" } else { "" };
        if unknown.is_empty() || self.skip {
            read.left_out = named + more;
            return Ok(read);
        }
        Err(Error::new("word-unknown", format!("the voice's lexicon does not say how to speak {named}{more}")).with_help(
            "add the words to the lexicon.txt beside the model, write them as they sound, or set `unknown` of the stage \
             voice-text to skip",
        ))
    }

    fn say(&self, parts: &[Part], said: &Said<'v>, unknown: &mut Vec<String>) -> Vec<i64> {
        let alphabet = &self.voice.alphabet;
        let space = alphabet.of_char(' ');
        let mut symbols: Vec<&[i64]> = Vec::new();
        for part in parts {
            match part {
                Part::Space => symbols.extend(space),
                Part::Mark(mark) => symbols.extend(alphabet.of_char(*mark)),
                Part::Word(word) => match word_of(word, said, space) {
                    Some(word) => symbols.extend(word),
                    None => unknown.push(word.chars().take(80).collect()),
                },
                Part::Number(number) => match self.number_of(number, said, space) {
                    Some(number) => symbols.extend(number),
                    None => unknown.push(number.chars().take(80).collect()),
                },
            }
        }
        // Nothing but marks is nothing to say.
        if parts.iter().all(|part| matches!(part, Part::Mark(_) | Part::Space)) {
            symbols.clear();
        }
        alphabet.sentence(symbols)
    }

    fn number_of(&self, number: &str, said: &Said<'v>, space: Option<&'v [i64]>) -> Option<Vec<&'v [i64]>> {
        if let Some(known) = said.get(number) {
            return Some(known.clone());
        }
        let words: Vec<String> = match self.numbers {
            true => numbers::words(number).into_iter().map(str::to_owned).collect(),
            false => number.chars().filter(char::is_ascii_digit).map(String::from).collect(),
        };
        joined(words.iter().map(String::as_str), said, space)
    }
}

/// How a word is said: as the lexicon says, or its halves at hyphens, or without its apostrophes, or its letters.
fn word_of<'v>(word: &str, said: &Said<'v>, space: Option<&'v [i64]>) -> Option<Vec<&'v [i64]>> {
    if let Some(known) = said.get(word) {
        return Some(known.clone());
    }
    if word.contains('-') {
        let halves = word.split('-').filter(|half| !half.is_empty());
        let halves: Option<Vec<_>> = halves.map(|half| word_of(half, said, space)).collect();
        return halves.map(|halves| with_spaces(halves, space));
    }
    let letters = word.chars().filter(|c| *c != '\'' && !is_mark(*c));
    let letters: Vec<String> = letters.map(String::from).collect();
    joined(letters.iter().map(String::as_str), said, space)
}

fn joined<'v, 'w>(
    words: impl Iterator<Item = &'w str>,
    said: &Said<'v>,
    space: Option<&'v [i64]>,
) -> Option<Vec<&'v [i64]>> {
    let words: Option<Vec<_>> = words.map(|word| said.get(word).cloned()).collect();
    words.filter(|words| !words.is_empty()).map(|words| with_spaces(words, space))
}

fn with_spaces<'v>(words: Vec<Vec<&'v [i64]>>, space: Option<&'v [i64]>) -> Vec<&'v [i64]> {
    let mut all = Vec::new();
    for (at, word) in words.into_iter().enumerate() {
        all.extend(space.filter(|_| at > 0));
        all.extend(word);
    }
    all
}

impl Read {
    fn push(&mut self, ids: Vec<i64>) {
        if !ids.is_empty() {
            self.sentences.push(ids);
        }
    }

    /// Remembers a character that the voice does not know.
    fn miss(&mut self, c: char) {
        if self.left_out.chars().count() < 40 && !self.left_out.contains(c) {
            self.left_out.push(c);
        }
    }
}

/// The words, numbers and marks of a sentence, without spaces around it.
fn parts(sentence: &str) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut rest = sentence.trim();
    while let Some(c) = rest.chars().next() {
        let length = if c.is_ascii_digit() {
            let length = number(rest);
            parts.push(Part::Number(rest[..length].to_owned()));
            length
        } else if c.is_alphabetic() {
            let length = word(rest);
            parts.push(Part::Word(folded(&rest[..length].replace('’', "'"))));
            length
        } else {
            match c.is_whitespace() {
                true if parts.last() != Some(&Part::Space) => parts.push(Part::Space),
                true => {}
                false => parts.push(Part::Mark(plain(c))),
            }
            c.len_utf8()
        };
        rest = &rest[length..];
    }
    parts
}

/// Marks that few voices know, as those that most do.
const fn plain(mark: char) -> char {
    match mark {
        '“' | '”' | '„' | '«' | '»' => '"',
        '‘' | '’' => '\'',
        '—' | '–' => ',',
        '…' => '.',
        other => other,
    }
}

/// How far a word reaches: letters, with apostrophes and hyphens between them.
fn word(text: &str) -> usize {
    let mut end = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let letter = c.is_alphabetic() || is_mark(c);
        let within =
            matches!(c, '\'' | '’' | '-') && chars.peek().is_some_and(|(_, next)| next.is_alphabetic());
        if !letter && !within {
            break;
        }
        end = at + c.len_utf8();
    }
    end
}

/// How far a number reaches: digits, with commas before three of them, and one point between them.
fn number(text: &str) -> usize {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut end = digits(text);
    if end <= 3 {
        while text[end..].starts_with(',') && digits(&text[end + 1..]) == 3 {
            end += 4;
        }
    }
    if text[end..].starts_with('.') && digits(&text[end + 1..]) > 0 {
        end += 1 + digits(&text[end + 1..]);
    }
    end
}

/// A text with its numbers as words.
fn in_words(text: &str) -> String {
    let mut said = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(at);
        let (digits, after) = from.split_at(number(from));
        said.push_str(before);
        said.push_str(&numbers::words(digits).join(" "));
        if after.starts_with(char::is_alphanumeric) {
            said.push(' ');
        }
        rest = after;
    }
    said + rest
}
