//! Prompts made of two texts, joined as models are trained on them and llama.cpp's server joins them.

use pajamas_llama_cpp::{Model, Token};
use pajamas_plugin_api::{PluginError, Result, capability};

use crate::error::plugin_error;

/// A gap to fill: the prefix, the suffix, and then the model goes on with what is between.
///
/// # Errors
/// `unsupported` for a model without the marks; those of tokenizing.
pub(crate) fn infill(model: &Model, prefix: &str, suffix: &str) -> Result<Vec<Token>> {
    let [before, after, middle] =
        model.infill_marks().ok_or_else(|| PluginError::unsupported("this model", capability::INFILL))?;
    let mut tokens: Vec<Token> = model.bos().filter(|_| model.adds_bos()).into_iter().collect();
    tokens.push(before);
    tokens.extend(plain(model, prefix)?);
    tokens.push(after);
    tokens.extend(plain(model, suffix)?);
    tokens.push(middle);
    Ok(tokens)
}

/// What is looked for and what may answer it: through the model's own template where it has one, otherwise with the
/// tokens that its vocabulary puts between and around texts.
///
/// # Errors
/// Those of tokenizing.
pub(crate) fn pair(model: &Model, query: &str, document: &str) -> Result<Vec<Token>> {
    if let Some(template) = model.template("rerank") {
        // In one pass, so that a text which names the other's place is left alone.
        let text: String = template
            .split("{query}")
            .map(|part| part.replace("{document}", document))
            .collect::<Vec<_>>()
            .join(query);
        return model.tokenize(&text, false, true).map_err(plugin_error);
    }
    let end = model.eos().or_else(|| model.separator()).filter(|_| model.adds_eos());
    let between = model.separator().filter(|_| model.adds_separator());
    let mut tokens: Vec<Token> = model.bos().filter(|_| model.adds_bos()).into_iter().collect();
    tokens.extend(plain(model, query)?);
    tokens.extend(end);
    tokens.extend(between);
    tokens.extend(plain(model, document)?);
    tokens.extend(end);
    Ok(tokens)
}

/// A text in which the names of special tokens are only text.
fn plain(model: &Model, text: &str) -> Result<Vec<Token>> {
    model.tokenize(text, false, false).map_err(plugin_error)
}
