//! Text to tokens and back.

use std::ffi::{CStr, c_char};

use crate::device::text;
use crate::{Error, Model, Result, Token, sys};

/// Tokens by which vocabularies of one family differ: padding for the sake of speed.
const MOST_PADDING: u32 = 128;

unsafe extern "C" {
    // llama.cpp's functions without exceptions: defined in `shim.cpp`. `i32::MIN` is a result that cannot be given.
    fn pajamas_tokenize(
        vocab: *const sys::llama_vocab,
        text: *const c_char,
        text_len: i32,
        tokens: *mut Token,
        capacity: i32,
        add_special: bool,
        parse_special: bool,
    ) -> i32;
    fn pajamas_token_to_piece(
        vocab: *const sys::llama_vocab,
        token: Token,
        buffer: *mut c_char,
        size: i32,
        special: bool,
    ) -> i32;
    fn pajamas_detokenize(
        vocab: *const sys::llama_vocab,
        tokens: *const Token,
        count: i32,
        buffer: *mut c_char,
        size: i32,
        special: bool,
    ) -> i32;
}

impl Model {
    /// Number of tokens in the vocabulary.
    pub fn vocab_size(&self) -> Token {
        // SAFETY: the vocabulary lives as long as the model.
        unsafe { sys::llama_vocab_n_tokens(self.vocab) }
    }

    /// A token id from outside as one of this vocabulary.
    ///
    /// # Errors
    /// [`Error::UnknownToken`]
    pub fn token(&self, id: u32) -> Result<Token> {
        Token::try_from(id)
            .ok()
            .filter(|token| *token < self.vocab_size())
            .ok_or(Error::UnknownToken { token: i64::from(id), size: self.vocab_size() })
    }

    /// The tokens of a text. `add_special` puts BOS and EOS around it where the model wants them; `parse_special`
    /// turns names of special tokens in the text into those tokens.
    ///
    /// # Errors
    /// [`Error::NoVocabulary`]; [`Error::Text`] for a text longer than 2 GiB, or with characters that the vocabulary
    /// has no token for.
    pub fn tokenize(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<Token>> {
        self.check_vocabulary()?;
        let len = i32::try_from(text.len()).map_err(|_| Error::Text)?;
        let add_special = add_special && self.has_the_special_tokens_it_adds();
        let mut tokens: Vec<Token> = Vec::with_capacity(text.len() / 2 + 8);
        loop {
            let capacity = i32::try_from(tokens.capacity()).unwrap_or(i32::MAX);
            // SAFETY: the text has `len` bytes, the vector room for `capacity` tokens.
            let n = unsafe {
                pajamas_tokenize(
                    self.vocab,
                    text.as_ptr().cast(),
                    len,
                    tokens.as_mut_ptr(),
                    capacity,
                    add_special,
                    parse_special,
                )
            };
            match usize::try_from(n) {
                Ok(n) => {
                    // SAFETY: llama.cpp wrote that many.
                    unsafe { tokens.set_len(n) };
                    return Ok(tokens);
                }
                Err(_) if n == i32::MIN => return Err(Error::Text),
                Err(_) => tokens.reserve(n.unsigned_abs() as usize),
            }
        }
    }

    /// The bytes of one token: possibly part of a character. Control tokens have none unless `special`.
    ///
    /// # Errors
    /// [`Error::UnknownToken`], [`Error::NoVocabulary`], [`Error::Text`].
    pub fn piece(&self, token: Token, special: bool) -> Result<Vec<u8>> {
        self.check(token)?;
        self.check_vocabulary()?;
        fill(32, |buffer, size| {
            // SAFETY: a token of the vocabulary, a buffer of `size` bytes.
            unsafe { pajamas_token_to_piece(self.vocab, token, buffer, size, special) }
        })
    }

    /// The bytes of several tokens, as the tokenizer puts them together. Control tokens have none unless `special`.
    ///
    /// # Errors
    /// [`Error::UnknownToken`], [`Error::NoVocabulary`], [`Error::Text`].
    pub fn detokenize(&self, tokens: &[Token], special: bool) -> Result<Vec<u8>> {
        tokens.iter().try_for_each(|t| self.check(*t))?;
        self.check_vocabulary()?;
        let len = i32::try_from(tokens.len()).map_err(|_| Error::Text)?;
        fill(tokens.len() * 6 + 16, |buffer, size| {
            // SAFETY: `len` tokens of the vocabulary, a buffer of `size` bytes.
            unsafe { pajamas_detokenize(self.vocab, tokens.as_ptr(), len, buffer, size, special) }
        })
    }

    /// Whether the token ends a generation (end of sequence, of turn, …).
    pub fn is_end(&self, token: Token) -> bool {
        // SAFETY: checked against the vocabulary first.
        self.check(token).is_ok() && unsafe { sys::llama_vocab_is_eog(self.vocab, token) }
    }

    /// The beginning-of-sequence token.
    pub fn bos(&self) -> Option<Token> {
        // SAFETY: the vocabulary lives as long as the model.
        Some(unsafe { sys::llama_vocab_bos(self.vocab) }).filter(|t| self.check(*t).is_ok())
    }

    /// The end-of-sequence token.
    pub fn eos(&self) -> Option<Token> {
        // SAFETY: the vocabulary lives as long as the model.
        Some(unsafe { sys::llama_vocab_eos(self.vocab) }).filter(|t| self.check(*t).is_ok())
    }

    /// The token between two texts.
    pub fn separator(&self) -> Option<Token> {
        // SAFETY: the vocabulary lives as long as the model.
        Some(unsafe { sys::llama_vocab_sep(self.vocab) }).filter(|t| self.check(*t).is_ok())
    }

    /// Whether a text of its own begins with BOS.
    pub fn adds_bos(&self) -> bool {
        // SAFETY: the vocabulary lives as long as the model.
        unsafe { sys::llama_vocab_get_add_bos(self.vocab) }
    }

    /// Whether a text of its own ends with EOS.
    pub fn adds_eos(&self) -> bool {
        // SAFETY: the vocabulary lives as long as the model.
        unsafe { sys::llama_vocab_get_add_eos(self.vocab) }
    }

    /// Whether two texts are told apart by the separator.
    pub fn adds_separator(&self) -> bool {
        // SAFETY: the vocabulary lives as long as the model.
        unsafe { sys::llama_vocab_get_add_sep(self.vocab) }
    }

    /// The tokens that mark what is before, after and in a gap to fill; `None` unless the model has all three.
    pub fn infill_marks(&self) -> Option<[Token; 3]> {
        // SAFETY: the vocabulary lives as long as the model.
        let marks = unsafe {
            [
                sys::llama_vocab_fim_pre(self.vocab),
                sys::llama_vocab_fim_suf(self.vocab),
                sys::llama_vocab_fim_mid(self.vocab),
            ]
        };
        marks.iter().all(|t| self.check(*t).is_ok()).then_some(marks)
    }

    /// The name of a token in the vocabulary, for example `<|im_end|>`.
    pub fn token_name(&self, token: Token) -> Option<String> {
        self.check(token).and_then(|()| self.check_vocabulary()).ok()?;
        // SAFETY: a token of the vocabulary; the string lives as long as it.
        Some(unsafe { text(sys::llama_vocab_get_text(self.vocab, token)) })
    }

    /// Compares two vocabularies: whether tokens of one model mean the same to another. Their ends may differ by some
    /// padding.
    ///
    /// # Errors
    /// In words, where they differ.
    pub fn compare_vocabulary(&self, other: &Self) -> Result<(), String> {
        // SAFETY: vocabularies live as long as their models.
        let kinds = unsafe { (sys::llama_vocab_type(self.vocab), sys::llama_vocab_type(other.vocab)) };
        if kinds.0 != kinds.1 {
            return Err("their tokenizers are of different kinds".into());
        }
        let (size, other_size) = (self.vocab_size(), other.vocab_size());
        if size.abs_diff(other_size) > MOST_PADDING {
            return Err(format!("their vocabularies have {size} and {other_size} tokens"));
        }
        if (self.bos(), self.eos()) != (other.bos(), other.eos()) {
            return Err("their tokens for the beginning and the end differ".into());
        }
        if kinds.0 == sys::LLAMA_VOCAB_TYPE_NONE {
            return Ok(());
        }
        let differs = (0..size.min(other_size)).find(|token| {
            // SAFETY: tokens of both vocabularies, which have texts; these live as long as the models.
            unsafe {
                CStr::from_ptr(sys::llama_vocab_get_text(self.vocab, *token))
                    != CStr::from_ptr(sys::llama_vocab_get_text(other.vocab, *token))
            }
        });
        differs.map_or(Ok(()), |token| Err(format!("token {token} is not the same text in both")))
    }

    fn check(&self, token: Token) -> Result<()> {
        if (0..self.vocab_size()).contains(&token) {
            Ok(())
        } else {
            Err(Error::UnknownToken { token: i64::from(token), size: self.vocab_size() })
        }
    }

    /// llama.cpp asserts that there is one: models may have ids without texts.
    fn check_vocabulary(&self) -> Result<()> {
        // SAFETY: the vocabulary lives as long as the model.
        match unsafe { sys::llama_vocab_type(self.vocab) } {
            sys::LLAMA_VOCAB_TYPE_NONE => Err(Error::NoVocabulary),
            _ => Ok(()),
        }
    }

    /// llama.cpp asserts that the special tokens exist which the file wants added.
    fn has_the_special_tokens_it_adds(&self) -> bool {
        // SAFETY: the vocabulary lives as long as the model.
        let (adds_bos, adds_eos, adds_sep) = unsafe {
            let word_piece = sys::llama_vocab_type(self.vocab) == sys::LLAMA_VOCAB_TYPE_WPM;
            (
                sys::llama_vocab_get_add_bos(self.vocab) || word_piece,
                sys::llama_vocab_get_add_eos(self.vocab),
                sys::llama_vocab_get_add_sep(self.vocab) || word_piece,
            )
        };
        // SAFETY: as above.
        let sep = unsafe { sys::llama_vocab_sep(self.vocab) };
        (!adds_bos || self.bos().is_some())
            && (!adds_eos || self.eos().is_some())
            && (!adds_sep || self.check(sep).is_ok())
    }
}

/// Fills a buffer through llama.cpp's convention: a negative result asks for that many bytes.
fn fill(guess: usize, mut call: impl FnMut(*mut c_char, i32) -> i32) -> Result<Vec<u8>> {
    let mut buffer = vec![0u8; guess];
    loop {
        let size = i32::try_from(buffer.len()).unwrap_or(i32::MAX);
        let n = call(buffer.as_mut_ptr().cast(), size);
        match usize::try_from(n) {
            Ok(n) => {
                buffer.truncate(n);
                return Ok(buffer);
            }
            Err(_) if n == i32::MIN => return Err(Error::Text),
            Err(_) => buffer.resize(n.unsigned_abs() as usize, 0),
        }
    }
}
