//! What a model is called: `general.*`, guessed from its folder's name as llama.cpp's converter does
//! (gguf-py/gguf/metadata.py).

use pajamas_llama_cpp::gguf::Writer;
use pajamas_plugin_api::Result;
use regex::Regex;
use serde_json::{Map, Value};

use crate::error;
use crate::source::Source;

/// What a name says about a model.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub full: Option<String>,
    pub organization: Option<String>,
    pub basename: Option<String>,
    pub finetune: Option<String>,
    pub version: Option<String>,
    pub size_label: Option<String>,
}

/// How many parameters a model has: what its label is made of.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Size {
    pub total: u64,
    pub shared: u64,
    pub expert: u64,
    pub experts: u64,
}

/// Writes `general.type`, recommended sampling and names.
pub(crate) fn write(source: &Source, size: Size, writer: &mut Writer) -> Result<()> {
    writer.set("general.type", "model");
    sampling(source, writer);
    let mut name = Name::default();
    let path = source.config.given().get("_name_or_path").and_then(Value::as_str);
    if let Some(path) = path.filter(|p| p.matches('/').count() <= 1) {
        name.fill(parts(path, size.total)?);
    }
    name.fill(parts(&source.name(), size.total)?);
    let full = name.full.unwrap_or_else(|| source.name());
    let label = name.size_label.unwrap_or_else(|| label(size));
    for (key, value) in [
        ("name", Some(full)),
        ("version", name.version),
        ("organization", name.organization),
        ("finetune", name.finetune),
        ("basename", name.basename),
        ("size_label", Some(label)),
    ] {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            writer.set(&format!("general.{key}"), value);
        }
    }
    Ok(())
}

impl Name {
    /// Takes what is not known yet from another name; the full name as a title.
    fn fill(&mut self, other: Name) {
        let or = |own: &mut Option<String>, other: Option<String>| {
            if own.is_none() {
                *own = other;
            }
        };
        or(&mut self.full, other.full.as_deref().map(title));
        or(&mut self.organization, other.organization.as_deref().map(title));
        or(&mut self.basename, other.basename);
        or(&mut self.finetune, other.finetune);
        or(&mut self.version, other.version);
        or(&mut self.size_label, other.size_label);
    }
}

/// Settings for sampling that the model's authors recommend. A damaged file counts as none, as for the converter.
fn sampling(source: &Source, writer: &mut Writer) {
    let given = source.json("generation_config.json", error::codes::CONFIG_INVALID).ok().flatten();
    let given: Map<String, Value> = given.unwrap_or_default();
    let penalty = given.get("penalty_repeat").or_else(|| given.get("repetition_penalty"));
    let entries = [
        ("sequence", given.get("sequence")),
        ("top_k", given.get("top_k")),
        ("top_p", given.get("top_p")),
        ("min_p", given.get("min_p")),
        ("xtc_probability", given.get("xtc_probability")),
        ("xtc_threshold", given.get("xtc_threshold")),
        ("temp", given.get("temperature")),
        ("penalty_last_n", given.get("penalty_last_n")),
        ("penalty_repeat", penalty),
        ("mirostat", given.get("mirostat")),
        ("mirostat_tau", given.get("mirostat_tau")),
        ("mirostat_eta", given.get("mirostat_eta")),
    ];
    for (name, value) in entries {
        let key = format!("general.sampling.{name}");
        match (name, value) {
            (_, None) => {}
            ("sequence", Some(value)) => {
                if let Some(text) = value.as_str().filter(|t| !t.is_empty()) {
                    writer.set(&key, text);
                }
            }
            ("top_k" | "penalty_last_n" | "mirostat", Some(value)) => {
                if let Some(count) = value.as_i64().and_then(|n| i32::try_from(n).ok()) {
                    writer.set(&key, count);
                }
            }
            (_, Some(value)) => {
                if let Some(number) = value.as_f64() {
                    writer.set(&key, number as f32);
                }
            }
        }
    }
}

/// A name as a title, but for acronyms and versions (`id_to_title`).
fn title(name: &str) -> String {
    let words = name.trim().replace('-', " ");
    let words = words.split_whitespace().map(|word| {
        let lower = word.chars().any(char::is_lowercase) && !word.chars().any(char::is_uppercase);
        let digits = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let version = word.strip_prefix('v').is_some_and(|v| {
            digits(v)
                && !v.ends_with('.')
                && !v.contains("..")
                && v.chars().all(|c| c.is_ascii_digit() || c == '.')
        });
        if !lower || version || digits(word) {
            return word.to_owned();
        }
        let mut before = false;
        word.chars()
            .flat_map(|c| {
                let first = !before;
                before = c.is_alphabetic();
                if first { c.to_uppercase().collect::<Vec<_>>() } else { vec![c] }
            })
            .collect()
    });
    words.collect::<Vec<_>>().join(" ")
}

/// What a part of a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Basename,
    SizeLabel,
    Finetune,
    Version,
    Type,
}

/// Takes a model's name apart (`get_model_id_components`).
pub(crate) fn parts(id: &str, total: u64) -> Result<Name> {
    if id.contains(' ') {
        return Ok(Name { full: Some(id.to_owned()), ..Name::default() });
    }
    let (organization, full) = match id.split_once('/') {
        Some((organization, full)) => (Some(organization).filter(|o| !o.starts_with('.')), full),
        None => (None, id),
    };
    let mut words: Vec<String> = full.split('-').filter(|w| !w.is_empty()).map(str::to_owned).collect();
    let mut kinds: Vec<Vec<Part>> = vec![Vec::new(); words.len()];
    let whole = |pattern: &str| {
        Regex::new(&format!("(?i)^(?:{pattern})$")).map_err(|e| error::config(format!("a pattern: {e}")))
    };
    let version = whole(r"(v|iter)?[0-9]+([.][0-9]+)*")?;
    let quantized = whole(r"i?q[0-9](_\w)*|b?fp?(16|32)")?;
    let size = whole(r"(([A]|[0-9]+[x])?[0-9]+([._][0-9]+)?[KMBT][0-9]?|small|mini|medium|large|x?xl)")?;
    let tuned = whole(r"chat|instruct|vision|lora")?;
    for (i, (word, kind)) in words.iter_mut().zip(&mut kinds).enumerate() {
        if version.is_match(word) {
            kind.push(Part::Version);
        } else if quantized.is_match(word) {
            kind.push(Part::Type);
            *word = word.to_uppercase();
        } else if i > 0 && size.is_match(word) {
            kind.push(size_word(word, total));
        } else if i > 0 && tuned.is_match(word) {
            kind.push(Part::Finetune);
        }
    }
    let is = |kind: &[Part], part| kind.contains(&part);
    // Words for sizes give way to numbers.
    let numbered = words
        .iter()
        .zip(&kinds)
        .any(|(w, k)| is(k, Part::SizeLabel) && w.contains(|c: char| c.is_ascii_digit()));
    if numbered {
        for (word, kind) in words.iter().zip(&mut kinds) {
            if word.chars().all(char::is_alphabetic) {
                kind.retain(|k| *k != Part::SizeLabel);
            }
        }
    }
    let mut at_start = true;
    for (word, kind) in words.iter().zip(&mut kinds) {
        let begins = kind.is_empty() && word.starts_with(char::is_alphabetic);
        if at_start && (begins || is(kind, Part::Version)) {
            kind.push(Part::Basename);
        } else {
            at_start = false;
            if kind.is_empty() {
                kind.push(Part::Finetune);
            }
        }
    }
    for kind in kinds.iter_mut().rev() {
        if !is(kind, Part::Basename) || kind.len() < 2 {
            break;
        }
        kind.retain(|k| *k != Part::Basename);
    }
    let joined = |wanted: &dyn Fn(&[Part]) -> bool| {
        let mut chosen: Vec<&str> = Vec::new();
        chosen.extend(words.iter().zip(&kinds).filter(|(_, k)| wanted(k)).map(|(w, _)| w.as_str()));
        Some(chosen).filter(|c| !c.is_empty())
    };
    let size_label = joined(&|k| is(k, Part::SizeLabel)).map(|mut sizes| {
        let mut seen = Vec::new();
        sizes.retain(|s| {
            !seen.contains(s) && {
                seen.push(*s);
                true
            }
        });
        sizes.join("-")
    });
    let finetune = joined(&|k| is(k, Part::Finetune)).map(|w| w.join("-"));
    let version = joined(&|k| is(k, Part::Version) && !is(k, Part::Basename)).map(|w| w.join("-"));
    let basename = joined(&|k| is(k, Part::Basename)).map(|w| w.join("-"));
    let telling = size_label.is_some() || finetune.is_some() || version.is_some();
    Ok(Name {
        full: Some(full.to_owned()),
        organization: organization.map(str::to_owned),
        basename: basename.filter(|_| telling),
        finetune,
        version,
        size_label,
    })
}

/// Brings a size into one form; one that is far from the model's own is a length of context.
fn size_word(word: &mut String, total: u64) -> Part {
    let mut part: Vec<char> = word.replace('_', ".").chars().collect();
    // bloom-7b1
    if let [.., unit, digit] = part[..]
        && digit.is_ascii_digit()
    {
        part.truncate(part.len() - 2);
        part.extend(['.', digit, unit]);
    }
    if let [.., before, unit] = &mut part[..]
        && before.is_ascii_digit()
        && "kmbt".contains(*unit)
    {
        *unit = unit.to_ascii_uppercase();
    }
    let mut kind = Part::SizeLabel;
    if total != 0
        && let Some((unit, number)) = part.split_last()
    {
        let number: String = number.iter().collect();
        let power = " KMBT".find(*unit).map_or(-1, |p| p as i32);
        if let Ok(number) = number.parse::<f64>() {
            let label = number * 1000f64.powi(power);
            if (label - total as f64).abs() > (7 * total / 8) as f64 {
                kind = Part::Finetune;
                if let Some(unit) = part.last_mut() {
                    *unit = unit.to_ascii_lowercase();
                }
            }
        }
    }
    *word = part.into_iter().collect();
    kind
}

/// A model's size in two digits or more, for example `1.1B` or `8x7B` (gguf-py/gguf/utility.py, `size_label`).
pub(crate) fn label(size: Size) -> String {
    match size.experts {
        0 => rounded(size.total),
        experts => format!("{experts}x{}", rounded(size.shared + size.expert)),
    }
}

fn rounded(count: u64) -> String {
    let (scaled, unit) = match count as f64 {
        n if n > 1e12 => (n * 1e-12, 'T'),
        n if n > 1e9 => (n * 1e-9, 'B'),
        n if n > 1e6 => (n * 1e-6, 'M'),
        n => (n * 1e-3, 'K'),
    };
    let whole = format!("{}", scaled.round_ties_even());
    let digits = 2usize.saturating_sub(whole.trim_start_matches('0').len());
    format!("{scaled:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let name = |id: &str, total| {
            let n = parts(id, total).unwrap();
            [n.basename, n.size_label, n.finetune, n.version, n.organization].map(Option::unwrap_or_default)
        };
        assert_eq!(name("TinyStories-656K", 656_000), ["TinyStories", "656K", "", "", ""]);
        assert_eq!(
            name("meta-llama/Llama-3.2-1B-Instruct", 1_235_000_000),
            ["Llama-3.2", "1B", "Instruct", "", "meta-llama"]
        );
        assert_eq!(
            name("Mistral-7B-Instruct-v0.3", 7_248_000_000),
            ["Mistral", "7B", "Instruct", "v0.3", ""]
        );
        assert_eq!(name("bloom-7b1", 7_100_000_000), ["bloom", "7.1B", "", "", ""]);
        assert_eq!(name("Phi-3-mini-4k-instruct", 3_800_000_000), ["Phi-3", "mini", "4k-instruct", "", ""]);
        assert_eq!(name("hf", 1), ["", "", "", "", ""]);
        assert_eq!(title("tinyLlama-v1.1-chat 7b"), "tinyLlama v1.1 Chat 7b");
    }

    #[test]
    fn sizes_have_two_digits() {
        let size = |total| label(Size { total, ..Size::default() });
        assert_eq!(size(1_100_000_000), "1.1B");
        assert_eq!(size(13_015_864_320), "13B");
        assert_eq!(size(656_000), "656K");
        assert_eq!(size(7), "0.01K");
        assert_eq!(
            label(Size { total: 0, shared: 1_000_000_000, expert: 6_000_000_000, experts: 8 }),
            "8x7.0B"
        );
    }
}
