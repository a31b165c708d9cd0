//! How words are said: a line for each, with the word and its phonemes.

use std::collections::{BTreeMap, BTreeSet};

use crate::alphabet::Alphabet;
use crate::apart::nfd;
use crate::voice::invalid;
use pajamas_stage::Result;

/// A lexicon, as text: it is searched for the words of a text when there is one.
#[derive(Debug)]
pub struct Lexicon(pub String);

impl Lexicon {
    /// How these [folded] words are said: the ids of each one's phonemes. Words that it lacks are not there. Of
    /// several lines with a word the first counts.
    ///
    /// Errors: `voice-invalid` for a phoneme that the voice does not know.
    pub fn find<'a>(
        &self,
        words: &BTreeSet<String>,
        alphabet: &'a Alphabet,
    ) -> Result<BTreeMap<String, Vec<&'a [i64]>>> {
        let mut found = BTreeMap::new();
        for (number, line) in self.0.lines().enumerate() {
            let Some((word, phonemes)) = line.trim_end().split_once(['\t', ' ']) else { continue };
            // Most lines are none of the text's: they are not to cost anything.
            let known = match word.bytes().any(|b| b.is_ascii_uppercase() || !b.is_ascii()) {
                true => words.get(&folded(word)),
                false => words.get(word),
            };
            let Some(word) = known.filter(|word| !found.contains_key(*word)) else { continue };
            let said = symbols(phonemes, alphabet).map_err(|phoneme| {
                let what = format!("line {} of `lexicon.txt` says {word:?} with {phoneme:?}", number + 1);
                invalid(format!("{what}, which is none of the voice's phonemes"))
            })?;
            if !said.is_empty() {
                found.insert(word.clone(), said);
            }
        }
        Ok(found)
    }
}

/// A word as it is compared: in lower case, its characters taken apart.
pub fn folded(word: &str) -> String {
    nfd(&word.to_lowercase())
}

/// Phonemes that are parted by spaces, or each character, taken apart, where they are not.
fn symbols<'a>(phonemes: &str, alphabet: &'a Alphabet) -> Result<Vec<&'a [i64]>, String> {
    let mut symbols = Vec::new();
    for phoneme in phonemes.split_whitespace() {
        if let Some(ids) = alphabet.ids(phoneme) {
            symbols.push(ids);
            continue;
        }
        for c in nfd(phoneme).chars() {
            symbols.push(alphabet.of_char(c).ok_or_else(|| c.to_string())?);
        }
    }
    Ok(symbols)
}
