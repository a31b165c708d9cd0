//! `pajamas tokenize`: text to tokens.

use clap::Args;
use pajamas_plugin_api::Prompt;
use serde_json::json;

use super::generate::standard_input;
use super::session::Session;
use super::{Global, output};
use crate::error::Result;

#[derive(Debug, Args)]
pub struct Tokenize {
    /// The texts, each on its own; `-` or nothing reads one from standard input
    texts: Vec<String>,
    /// The model: an id of the configuration or a path
    #[arg(short, long)]
    model: Option<String>,
    /// Leave out the tokens that the model wants around a text (BOS, EOS)
    #[arg(long)]
    no_special: bool,
    /// Recognise special tokens such as `<|im_end|>` in the text
    #[arg(long)]
    special: bool,
}

impl Tokenize {
    pub fn run(self, global: &Global) -> Result<()> {
        let texts = if self.texts.is_empty() { vec!["-".to_owned()] } else { self.texts };
        let session = Session::start(global)?;
        for text in texts {
            let text = if text == "-" { standard_input()? } else { text };
            let prompt = Prompt::Text { text, add_special: !self.no_special, parse_special: self.special };
            let tokens = session.host.tokenize(self.model.as_deref(), &prompt, &session.cancel)?;
            if session.json {
                let ids: Vec<u32> = tokens.iter().map(|t| t.id).collect();
                let pieces: Vec<&str> = tokens.iter().map(|t| t.text.as_str()).collect();
                output::json_line(&json!({ "tokens": ids, "pieces": pieces }))?;
            } else {
                for token in tokens {
                    output::line(&format!("{:>7}  {:?}", token.id, token.text))?;
                }
            }
        }
        Ok(())
    }
}
