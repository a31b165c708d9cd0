//! Special tokens, merges and the chat template (gguf-py/gguf/vocab.py, `SpecialVocab`).

use pajamas_llama_cpp::gguf::Writer;
use pajamas_plugin_api::Result;
use serde_json::{Map, Value};

use super::files::{self, content};
use crate::error::{self, codes};
use crate::source::Source;

/// What a vocabulary has beside its tokens.
#[derive(Debug, Default)]
pub(super) struct Special {
    merges: Vec<String>,
    /// Kind and id, in the order they were found.
    ids: Vec<(String, u32)>,
    /// Whether a kind is added to every text, in the order it was found.
    add: Vec<(String, bool)>,
    template: Option<Value>,
    lowercase: Option<bool>,
    strip_accents: Option<bool>,
    /// Kinds that are looked for.
    kinds: Vec<String>,
    bound: Option<usize>,
}

impl Special {
    /// Reads them; ids at or beyond `bound` are left out.
    pub fn of(source: &Source, merges: bool, bound: Option<usize>) -> Result<Self> {
        let kinds = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"].map(str::to_owned).to_vec();
        let mut special = Self { kinds, bound, ..Self::default() };
        let described = files::described(source)?;
        let mut config = source.json("tokenizer_config.json", codes::TOKENIZER_INVALID)?;
        if let Some(described) = &described {
            if merges {
                special.merges = joined(described)?;
            }
            if let Some(normalizer) = described.get("normalizer") {
                special.normalizer(normalizer);
            }
            special.processors(described, &mut config);
        }
        if let Some(config) = &config {
            special.template = template(source, config)?;
            let added = described.as_ref().and_then(|d| d.get("added_tokens")).and_then(Value::as_array);
            special.named(config, added.map_or(&[][..], Vec::as_slice))?;
        }
        special.by_id(source)?;
        if merges && special.merges.is_empty() {
            special.merges = merges_file(source)?;
        }
        Ok(special)
    }

    /// Writes them.
    pub fn write(self, writer: &mut Writer) {
        let key = |rest: &str| format!("tokenizer.ggml.{rest}");
        if !self.merges.is_empty() {
            writer.set(&key("merges"), self.merges);
        }
        for (kind, id) in self.ids {
            let name = match kind.as_str() {
                "unk" => "unknown",
                "sep" => "seperator",
                "pad" => "padding",
                "bos" | "eos" | "mask" | "eot" | "eom" => &kind,
                _ => continue,
            };
            writer.set(&key(&format!("{name}_token_id")), id);
        }
        for (kind, add) in self.add {
            if ["bos", "eos", "sep"].contains(&kind.as_str()) {
                writer.set(&key(&format!("add_{kind}_token")), add);
            }
        }
        write_template(self.template, writer);
        if let Some(lowercase) = self.lowercase {
            writer.set(&key("normalizer.lowercase"), lowercase);
        }
        if let Some(strip) = self.strip_accents {
            writer.set(&key("normalizer.strip_accents"), strip);
        }
    }

    fn normalizer(&mut self, normalizer: &Value) {
        let flag = |key: &str| normalizer.get(key).and_then(Value::as_bool);
        match normalizer.get("type").and_then(Value::as_str) {
            Some("Lowercase") => self.lowercase = Some(true),
            Some("StripAccents") => self.strip_accents = Some(true),
            Some("BertNormalizer") => {
                if normalizer.get("lowercase").is_some() {
                    self.lowercase = flag("lowercase");
                }
                if normalizer.get("strip_accents").is_some() {
                    self.strip_accents = flag("strip_accents");
                }
            }
            Some("Sequence") => {
                let parts = normalizer.get("normalizers").and_then(Value::as_array);
                parts.into_iter().flatten().for_each(|part| self.normalizer(part));
            }
            _ => {}
        }
    }

    /// What the post-processor adds to a text, and names of tokens that follow from it.
    fn processors(&mut self, described: &Map<String, Value>, config: &mut Option<Map<String, Value>>) {
        let named = |config: &Option<Map<String, Value>>, key: &str| {
            config.as_ref().and_then(|c| c.get(key)).filter(|v| !v.is_null() && *v != "").cloned()
        };
        let mut names = Names {
            bos: named(config, "bos_token"),
            cls: named(config, "cls_token"),
            eos: named(config, "eos_token"),
            sep: named(config, "sep_token"),
        };
        if let (Some(config), None, Some(cls)) = (config.as_mut(), &names.bos, &names.cls) {
            config.insert("bos_token".into(), cls.clone());
            names.bos = Some(cls.clone());
        }
        if let (Some(config), None, Some(sep)) = (config.as_mut(), &names.eos, &names.sep) {
            config.insert("eos_token".into(), sep.clone());
            names.eos = Some(sep.clone());
        }
        let Some(processor) = described.get("post_processor").filter(|p| !p.is_null()) else { return };
        let all = match processor.get("processors").and_then(Value::as_array) {
            Some(all) => all.iter().collect(),
            None => vec![processor],
        };
        for processor in all {
            match processor.get("type").and_then(Value::as_str) {
                Some("ByteLevel") => {
                    for kind in ["bos", "eos"] {
                        if !self.add.iter().any(|(k, _)| k == kind) {
                            self.add.push((kind.to_owned(), false));
                        }
                    }
                }
                Some("RobertaProcessing") => {
                    ["bos", "eos", "sep"].iter().for_each(|kind| self.set_add(kind, true));
                    let first = |key: &str| processor.get(key).and_then(|v| v.get(0)).cloned();
                    if let (Some(config), None) = (config.as_mut(), &names.cls) {
                        names.cls = first("cls").or_else(|| names.bos.clone());
                        config.extend(names.cls.clone().map(|t| ("cls_token".to_owned(), t)));
                    }
                    if let (Some(config), None) = (config.as_mut(), &names.sep) {
                        names.sep = first("sep").or_else(|| names.eos.clone());
                        config.extend(names.sep.clone().map(|t| ("sep_token".to_owned(), t)));
                    }
                }
                Some("TemplateProcessing") => self.template_processing(processor, config, &mut names),
                _ => {}
            }
        }
    }

    fn template_processing(
        &mut self,
        processor: &Value,
        config: &mut Option<Map<String, Value>>,
        names: &mut Names,
    ) {
        let list = |key: &str| processor.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let special = |part: &Value| part.get("SpecialToken").and_then(|t| t.get("id")).cloned();
        let (single, pair) = (list("single"), list("pair"));
        let (mut first, mut last) = (None, None);
        if single.len() > 1 {
            first = single.first().and_then(special);
            last = single.last().and_then(special);
        }
        if let Some(token) = &first {
            match config {
                None => names.bos = Some(token.clone()),
                Some(config) if Some(token) != names.bos.as_ref() && Some(token) != names.cls.as_ref() => {
                    if names.bos.is_none() {
                        config.insert("bos_token".into(), token.clone());
                        names.bos = Some(token.clone());
                    }
                    if names.cls.is_none() {
                        config.insert("cls_token".into(), token.clone());
                        names.cls = Some(token.clone());
                    }
                }
                Some(_) => {}
            }
            let known = Some(token) == names.bos.as_ref() || Some(token) == names.cls.as_ref();
            self.set_add("bos", known);
        }
        if let Some(token) = &last {
            match config {
                None => names.eos = Some(token.clone()),
                Some(config) if Some(token) != names.eos.as_ref() => {
                    for kind in ["eot", "eom"] {
                        if !self.kinds.iter().any(|k| k == kind) {
                            self.kinds.push(kind.to_owned());
                            config.insert(format!("{kind}_token"), names.eos.clone().unwrap_or(Value::Null));
                            break;
                        }
                    }
                    config.insert("eos_token".into(), token.clone());
                    names.eos = Some(token.clone());
                }
                Some(_) => {}
            }
            self.set_add("eos", Some(token) == names.eos.as_ref());
        }
        self.separator(&pair, (first, last), config, names);
    }

    /// What stands between two texts: `A sep B` or `A sep eos B`.
    fn separator(
        &mut self,
        pair: &[Value],
        (first, last): (Option<Value>, Option<Value>),
        config: &mut Option<Map<String, Value>>,
        names: &Names,
    ) {
        let special = |part: &Value| part.get("SpecialToken").and_then(|t| t.get("id")).cloned();
        let sequence = |part: &Value| {
            part.get("Sequence").and_then(|s| s.get("id")).and_then(Value::as_str).map(str::to_owned)
        };
        let mut inner = pair;
        if first.is_some() && inner.first().and_then(special) == first {
            inner = inner.get(1..).unwrap_or(&[]);
        }
        if last.is_some() && pair.last().and_then(special) == last {
            inner = inner.split_last().map_or(&[], |(_, rest)| rest);
        }
        let ends = (inner.first().and_then(sequence), inner.last().and_then(sequence));
        if (ends.0.as_deref(), ends.1.as_deref()) != (Some("A"), Some("B")) || inner.len() < 3 {
            return;
        }
        let between = &inner[1..inner.len() - 1];
        let separates =
            |token: &Value| Some(token) == names.sep.as_ref() || Some(token) == names.eos.as_ref();
        let mut add = special(&between[0]).is_some_and(|t| separates(&t) && last.is_none());
        if between.len() == 2 && special(&between[1]).is_some_and(|t| separates(&t)) {
            add = true;
        }
        self.set_add("sep", add);
        if let (true, None, Some(config), Some(eos)) = (add, &names.sep, config, &names.eos) {
            config.insert("sep_token".into(), eos.clone());
        }
    }

    fn set_add(&mut self, kind: &str, add: bool) {
        match self.add.iter_mut().find(|(k, _)| k == kind) {
            Some((_, old)) => *old = add,
            None => self.add.push((kind.to_owned(), add)),
        }
    }

    /// Tokens that the tokenizer's configuration names, with their ids among the added ones.
    fn named(&mut self, config: &Map<String, Value>, added: &[Value]) -> Result<()> {
        for kind in self.kinds.clone() {
            if let Some(add) = config.get(&format!("add_{kind}_token")).and_then(Value::as_bool)
                && !self.add.iter().any(|(k, _)| *k == kind)
            {
                self.add.push((kind.clone(), add));
            }
            let Some(text) = config.get(&format!("{kind}_token")).and_then(content) else { continue };
            let token = added.iter().find(|t| t.get("content").and_then(Value::as_str) == Some(text));
            self.set_id(&kind, token.and_then(|t| t.get("id")))?;
        }
        Ok(())
    }

    /// Ids that `config.json` names.
    fn by_id(&mut self, source: &Source) -> Result<()> {
        let given = source.config.given();
        for kind in self.kinds.clone() {
            let key = format!("{kind}_token_id");
            let inner = || given.get("text_config").and_then(|t| t.get(&key));
            let id = given.get(&key).filter(|v| !v.is_null()).or_else(inner);
            self.set_id(&kind, id)?;
        }
        Ok(())
    }

    /// The first id that a kind is given counts; one that is no number counts as none.
    fn set_id(&mut self, kind: &str, id: Option<&Value>) -> Result<()> {
        let Some(id) = id.and_then(Value::as_i64) else { return Ok(()) };
        let Ok(id) = u32::try_from(id) else {
            return Err(error::tokenizer(format!("names the token `{kind}` by the id {id}")));
        };
        let inside = self.bound.is_none_or(|bound| (id as usize) < bound);
        if inside && !self.ids.iter().any(|(k, _)| k == kind) {
            self.ids.push((kind.to_owned(), id));
        }
        Ok(())
    }
}

struct Names {
    bos: Option<Value>,
    cls: Option<Value>,
    eos: Option<Value>,
    sep: Option<Value>,
}

/// Merges with their halves joined by a space; a space inside of a half is encoded.
fn joined(described: &Map<String, Value>) -> Result<Vec<String>> {
    let merges = described.get("model").and_then(|m| m.get("merges")).and_then(Value::as_array);
    let half = |value: &Value| value.as_str().map(|text| text.replace(' ', "\u{120}"));
    let merge = |merge: &Value| match merge {
        Value::String(text) => Some(text.clone()),
        Value::Array(halves) if halves.len() == 2 => {
            Some(format!("{} {}", half(&halves[0])?, half(&halves[1])?))
        }
        _ => None,
    };
    let wrong = || error::tokenizer("has a merge that is no pair of texts");
    merges.into_iter().flatten().map(|m| merge(m).ok_or_else(wrong)).collect()
}

/// Merges of `merges.txt`.
fn merges_file(source: &Source) -> Result<Vec<String>> {
    let Some(text) = source.text("merges.txt")? else { return Ok(Vec::new()) };
    let skip = usize::from(text.starts_with('#'));
    let pairs = text.lines().skip(skip).map(|line| line.split_whitespace().collect::<Vec<_>>());
    Ok(pairs.filter(|p| p.len() == 2).map(|p| p.join(" ")).collect())
}

/// The chat template, from the tokenizer's configuration or from a file of its own.
fn template(source: &Source, config: &Map<String, Value>) -> Result<Option<Value>> {
    if let Some(template) = config.get("chat_template") {
        return Ok(Some(template.clone()).filter(|t| t.is_string() || t.is_array()));
    }
    if let Some(text) = source.text("chat_template.jinja")? {
        return Ok(Some(Value::String(text)));
    }
    let json = source.json("chat_template.json", codes::TOKENIZER_INVALID)?;
    Ok(json.and_then(|mut t| t.remove("chat_template")).filter(|t| t.is_string() || t.is_array()))
}

fn write_template(template: Option<Value>, writer: &mut Writer) {
    const KEY: &str = "tokenizer.chat_template";
    let mut default = None;
    match template {
        Some(Value::String(text)) => default = Some(text),
        Some(Value::Array(choices)) => {
            let mut names: Vec<String> = Vec::new();
            for choice in &choices {
                let text = |key: &str| choice.get(key).and_then(Value::as_str);
                let (Some(name), Some(text)) = (text("name"), text("template")) else { continue };
                let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
                let name: String = name.chars().map(plain).collect();
                if name == "default" {
                    default = Some(text.to_owned());
                } else if !name.is_empty() {
                    writer.set(&format!("{KEY}.{name}"), text);
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
            }
            if !names.is_empty() {
                writer.set("tokenizer.chat_templates", names);
            }
        }
        _ => {}
    }
    if let Some(text) = default.filter(|t| !t.is_empty()) {
        writer.set(KEY, text);
    }
}
