//! Answers that must follow a grammar: which tokens may come next.
//!
//! A grammar is compiled on the caller's thread, against a trie of the vocabulary that is built once for each model.
//! What it may cost, then and for each token, is bounded: a grammar that explodes ends in an error.

mod gbnf;
mod guide;

use std::sync::{Arc, OnceLock};

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use pajamas_llama_cpp::Model;
use pajamas_plugin_api::{Constraint, Grammar, PluginError, Result, codes};
use serde_json::{Value, json};

pub(crate) use guide::{Guide, Next, Taken};

/// The longest grammar, in bytes of its text.
const LONGEST: usize = 1 << 20;
/// The most texts that may switch a grammar on.
const MOST_TRIGGERS: usize = 64;

/// Parts of a schema, beside each other, that are tried to find an error's place.
const MOST_TRIES: usize = 64;

/// Makes guides for one vocabulary.
#[derive(Default)]
pub(crate) struct Constraints {
    factory: OnceLock<Option<ParserFactory>>,
}

impl Constraints {
    /// Compiles a constraint. Takes as long as the grammar is large, and the first time as the vocabulary is.
    ///
    /// # Errors
    /// `invalid-input` naming the place in the schema or the grammar; `unsupported` for other forms of grammars, and for
    /// a vocabulary that has no texts.
    pub fn compile(&self, model: &Model, constraint: &Constraint) -> Result<Guide> {
        let factory = self.factory.get_or_init(|| factory(model)).as_ref().ok_or_else(|| {
            PluginError::new(codes::UNSUPPORTED, "the vocabulary of this model has no texts to constrain")
        })?;
        let grammar = match &constraint.grammar {
            Grammar::JsonSchema(schema) => json_schema(schema, constraint.lenient)?,
            Grammar::Gbnf(text) => {
                check_length("the grammar", text.len())?;
                TopLevelGrammar::from_lark(gbnf::to_lark(text)?)
            }
            _ => return Err(PluginError::unsupported("this backend", "grammars of this form")),
        };
        if constraint.after.len() > MOST_TRIGGERS || constraint.after.iter().any(String::is_empty) {
            return Err(PluginError::invalid_input(format!(
                "`after` of a constraint has {} texts: at most {MOST_TRIGGERS}, and none of them empty",
                constraint.after.len()
            )));
        }
        let matcher = Matcher::new(factory.create_parser(grammar));
        if let Some(error) = matcher.get_error() {
            let place = match &constraint.grammar {
                Grammar::JsonSchema(schema) => format!("the schema, at {}", place(factory, schema, &error)),
                _ => "the grammar".to_owned(),
            };
            return Err(PluginError::invalid_input(format!("{place}: it cannot be compiled: {error}"))
                .help("simplify the schema or the grammar; keywords that cannot be enforced are refused"));
        }
        Ok(Guide::new(matcher, factory.tok_env().clone(), constraint))
    }
}

fn json_schema(schema: &Value, lenient: bool) -> Result<TopLevelGrammar> {
    check_length("the schema", schema.to_string().len())?;
    let mut schema = match schema {
        Value::Bool(true) => json!({}),
        Value::Object(_) => schema.clone(),
        other => {
            return Err(PluginError::invalid_input(format!(
                "a JSON Schema is an object or true, not {other}"
            )));
        }
    };
    // The engine's own settings are not the caller's to make.
    schema["x-guidance"] = json!({ "whitespace_flexible": false, "item_separator": ",", "key_separator": ":", "lenient": lenient });
    Ok(TopLevelGrammar::from_json_schema(schema))
}

/// Where in a schema an error comes from: the innermost part that fails alike by itself. llguidance does not say.
fn place(factory: &ParserFactory, schema: &Value, error: &str) -> String {
    let fails = |part: &Value| {
        let grammar = json_schema(part, false).ok();
        let message = grammar.and_then(|g| Matcher::new(factory.create_parser(g)).get_error());
        message.as_deref() == Some(error)
    };
    let (mut pointer, mut part) = ("#".to_owned(), schema);
    while let Some((step, inner)) = parts(part).into_iter().take(MOST_TRIES).find(|(_, inner)| fails(inner)) {
        pointer += &step;
        part = inner;
    }
    pointer
}

/// The schemas directly within a schema, by the rest of their pointers.
fn parts(schema: &Value) -> Vec<(String, &Value)> {
    let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
    let mut found = Vec::new();
    for (key, value) in schema.as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(named)) => {
                found.extend(named.iter().map(|(name, part)| (format!("/{key}/{}", escaped(name)), part)));
            }
            ("anyOf" | "oneOf" | "allOf" | "prefixItems", Value::Array(list)) => {
                found.extend(list.iter().enumerate().map(|(i, part)| (format!("/{key}/{i}"), part)));
            }
            ("items" | "additionalProperties", Value::Object(_)) => found.push((format!("/{key}"), value)),
            _ => {}
        }
    }
    found
}

fn check_length(what: &str, bytes: usize) -> Result<()> {
    if bytes > LONGEST {
        return Err(PluginError::invalid_input(format!("{what} has {bytes} bytes, more than {LONGEST}")));
    }
    Ok(())
}

/// `None` when there is no vocabulary.
fn factory(model: &Model) -> Option<ParserFactory> {
    let size = model.vocab_size();
    // Tokens without a text (control tokens) are never part of a grammar.
    let mut words = (0..size).map(|t| model.piece(t, false)).collect::<Result<Vec<_>, _>>().ok()?;
    let mut ends: Vec<u32> = (0..size).filter(|t| model.is_end(*t)).map(|t| t as u32).collect();
    for end in &ends {
        words[*end as usize].clear();
    }
    if ends.is_empty() {
        // The grammar's end needs a token, which the model then does not have.
        ends.push(words.len() as u32);
        words.push(Vec::new());
    }
    let info = TokRxInfo::new(words.len() as u32, ends[0]);
    let trie = TokTrie::from(&info, &words).with_eos_tokens(&ends);
    let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let mut factory = ParserFactory::new_simple(&env).ok()?;
    factory.quiet();
    *factory.limits_mut() = ParserLimits {
        // About 20 ms to build, 15 ms for a token, and 60 MB of automaton.
        initial_lexer_fuel: 1_000_000,
        step_lexer_fuel: 200_000,
        step_max_items: 50_000,
        max_lexer_states: 50_000,
        max_grammar_size: 200_000,
        precompute_large_lexemes: false,
        verbose_errors: false,
        ..ParserLimits::default()
    };
    Some(factory)
}
