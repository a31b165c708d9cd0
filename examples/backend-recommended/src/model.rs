//! The model file.

use std::collections::HashMap;
use std::path::Path;

use pajamas_plugin_api::{Cancel, Memory, PluginError, ProgressSink, Result, codes};

/// Rules between two looks at the cancel flag and two reports of progress.
const STRIDE: usize = 1024;

/// A table of what follows what. A word's index is its token id.
#[derive(Debug)]
pub struct Bigrams {
    words: Vec<String>,
    ids: HashMap<String, u32>,
    next: Vec<Option<u32>>,
}

impl Bigrams {
    /// Reads a model.
    ///
    /// # Errors
    /// `model-not-found`; `model-invalid` with the line; `cancelled`.
    pub fn read(
        path: &Path,
        max_rules: usize,
        progress: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| PluginError::model_unreadable(path, &e))?;
        let invalid = |line: usize, why: &str| {
            PluginError::new(codes::MODEL_INVALID, format!("{}:{line}: {why}", path.display()))
                .help("a model is UTF-8 text with one rule a line, `WORD NEXT`")
        };
        let text = String::from_utf8(bytes).map_err(|_| invalid(1, "the file is not UTF-8 text"))?;
        let rules = text.lines().count();
        if rules == 0 {
            return Err(invalid(1, "the file is empty"));
        }
        if rules > max_rules {
            return Err(invalid(max_rules + 1, "the table is longer than the plugin's settings allow")
                .help("raise `max_rules` in [plugins.settings.recommended]"));
        }
        let mut model = Self { words: Vec::new(), ids: HashMap::new(), next: Vec::new() };
        for (index, line) in text.lines().enumerate() {
            if index % STRIDE == 0 {
                cancel.check()?;
                if progress.progress(index as f32 / rules as f32, "reading rules").is_break() {
                    return Err(PluginError::cancelled());
                }
            }
            let mut words = line.split_whitespace();
            let (Some(word), Some(next), None) = (words.next(), words.next(), words.next()) else {
                return Err(invalid(index + 1, "a rule is two words"));
            };
            let (word, next) = (model.learn(word), model.learn(next));
            model.next[word as usize] = Some(next);
        }
        Ok(model)
    }

    fn learn(&mut self, word: &str) -> u32 {
        if let Some(id) = self.ids.get(word) {
            return *id;
        }
        let id = self.words.len() as u32;
        self.words.push(word.to_owned());
        self.ids.insert(word.to_owned(), id);
        self.next.push(None);
        id
    }

    /// All words, in the order of their ids.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// A word's id.
    pub fn id(&self, word: &str, ignore_case: bool) -> Option<u32> {
        let same = || self.words.iter().position(|w| w.eq_ignore_ascii_case(word)).map(|id| id as u32);
        self.ids.get(word).copied().or_else(|| if ignore_case { same() } else { None })
    }

    /// What follows a word.
    pub fn next(&self, id: u32) -> Option<u32> {
        self.next.get(id as usize).copied().flatten()
    }

    /// Bytes held: each word twice, and the tables over them.
    pub fn memory(&self) -> Memory {
        let text: usize = self.words.iter().map(|w| 2 * w.len()).sum();
        let entry = 2 * size_of::<String>() + size_of::<u32>() + size_of::<Option<u32>>();
        let weights = (text + self.words.len() * entry) as u64;
        Memory { device: "cpu".into(), weights, ..Memory::default() }
    }
}
