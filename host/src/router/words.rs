//! The keywords of all rules, looked for in one pass over the text.

use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError};

/// The keywords of several conditions.
#[derive(Debug, Clone, Default)]
pub struct Words {
    /// `None` when there are no keywords.
    finder: Option<AhoCorasick>,
    /// Of each keyword the conditions that it belongs to.
    owners: Vec<Vec<usize>>,
    conditions: usize,
}

impl Words {
    /// The keywords of conditions, which are told apart by their places in the list.
    ///
    /// # Errors
    /// When there are too many for a machine of 32 bits.
    pub fn new<'w>(conditions: impl IntoIterator<Item = Vec<&'w str>>) -> Result<Self, BuildError> {
        let (mut all, mut count) = (BTreeMap::<String, Vec<usize>>::new(), 0);
        for (owner, keywords) in conditions.into_iter().enumerate() {
            count = owner + 1;
            for word in keywords {
                all.entry(word.trim().to_lowercase()).or_default().push(owner);
            }
        }
        let (all, owners): (Vec<String>, Vec<Vec<usize>>) = all.into_iter().unzip();
        // Of the two automata the one whose time does not depend on what was looked for before.
        let find = || AhoCorasick::builder().kind(Some(AhoCorasickKind::DFA)).build(&all);
        let finder = (!all.is_empty()).then(find).transpose()?;
        Ok(Self { finder, owners, conditions: count })
    }

    /// Of each condition whether one of its keywords is in the text: whatever the case, and as a word of its own where
    /// words are set apart.
    pub fn found_in(&self, text: &str) -> Vec<bool> {
        let mut found = vec![false; self.conditions];
        let Some(finder) = &self.finder else { return found };
        let text = text.to_lowercase();
        for hit in finder.find_overlapping_iter(&text) {
            let owners = &self.owners[hit.pattern().as_usize()];
            if owners.iter().any(|owner| !found[*owner]) && stands_alone(&text, hit.start(), hit.end()) {
                owners.iter().for_each(|owner| found[*owner] = true);
            }
        }
        found
    }
}

/// Whether what is between two places of the text is not a part of a longer word.
fn stands_alone(text: &str, begin: usize, end: usize) -> bool {
    let joined = |left: Option<char>, right: Option<char>| {
        left.zip(right).is_some_and(|(left, right)| is_of_a_word(left) && is_of_a_word(right))
    };
    let inside = &text[begin..end];
    !joined(text[..begin].chars().next_back(), inside.chars().next())
        && !joined(inside.chars().next_back(), text[end..].chars().next())
}

/// Whether a character belongs to words that are set apart by spaces: Thai, Lao, Chinese and Japanese have none.
fn is_of_a_word(c: char) -> bool {
    let unspaced =
        ('\u{e00}'..='\u{eff}').contains(&c) || ('\u{2e80}'..='\u{abff}').contains(&c) || c >= '\u{20000}';
    c.is_alphanumeric() && !unspaced
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(keywords: &[&str], text: &str) -> bool {
        Words::new([keywords.to_vec()]).unwrap().found_in(text)[0]
    }

    #[test]
    fn a_keyword_is_a_word_of_its_own_whatever_its_case() {
        assert!(found(&["SQL"], "Write some sql, please"));
        assert!(!found(&["art"], "start a party"));
        assert!(found(&["art"], "start art"), "a part of a word first, the word later");
        assert!(found(&["c++"], "is C++17 hard?"), "what is no letter ends a word");
        assert!(found(&["ÜBER"], "über alles") && !found(&["na"], "naïve"));
        assert!(found(&["翻译"], "请翻译这句话"));
    }

    #[test]
    fn keywords_of_several_conditions_may_overlap() {
        let words = Words::new([vec!["new york"], vec![], vec!["york", "paris"]]).unwrap();
        assert_eq!(words.found_in("In New York"), [true, false, true]);
        let shared = Words::new([vec!["york"], vec!["York", "rome"], vec!["paris"]]).unwrap();
        assert_eq!(shared.found_in("In New York"), [true, true, false]);
        assert_eq!(words.found_in(""), [false; 3]);
        assert_eq!(Words::new([]).unwrap().found_in("x"), [] as [bool; 0]);
    }
}
