//! The options of the quantizer, from JSON.

use std::path::PathBuf;

use pajamas_llama_cpp::gguf::TensorType;
use pajamas_plugin_api::{PluginError, Result, codes};
use regex::Regex;
use serde_json::{Map, Value, json};

use crate::quantize::{FileType, Strategy, Wishes};
use crate::solve::{Goal, Settings};

/// What may be asked for beyond a precision.
#[derive(Debug, Clone, Default)]
pub(super) struct Options {
    /// Threads; `None` for one on each processor.
    pub threads: Option<usize>,
    pub strategy: Strategy,
    pub wishes: Wishes,
    pub imatrix: Option<PathBuf>,
    pub allow_nan: bool,
    pub allow_requantize: bool,
    /// llama.cpp's name for how the tokenizer splits text.
    pub pre: Option<String>,
    /// How types are solved for.
    pub solve: Settings,
}

/// The most threads: beyond it, a number is a mistake.
const MOST_THREADS: u64 = 1024;

const KEYS: [&str; 16] = [
    "threads",
    "strategy",
    "overrides",
    "token_embedding_type",
    "output_tensor_type",
    "pure",
    "imatrix",
    "allow_nan",
    "allow_requantize",
    "pre",
    "target_size",
    "target_kld",
    "texts",
    "domains",
    "windows",
    "sensitivity",
];

/// The most windows of text: beyond it, a number is a mistake.
const MOST_WINDOWS: u64 = 10_000;

/// JSON Schema of the options.
pub(super) fn schema() -> Value {
    let types: Vec<&str> = FileType::all().map(|t| t.tensor_type().name()).collect();
    let tensor_type = |what: &str| json!({ "type": "string", "description": what, "examples": types });
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "threads": {
                "type": "integer", "minimum": 1, "maximum": MOST_THREADS,
                "description": "Threads; one for each processor by default"
            },
            "strategy": {
                "enum": Strategy::ALL.map(|(name, _)| name), "default": "preset",
                "description": "What decides on the types of tensors: llama.cpp's mixtures, or, with the same bytes, how the model is built, or what was measured to matter"
            },
            "overrides": {
                "type": "array", "items": { "type": "string" },
                "description": "REGEX=TYPE, for example `attn_v=q8_0`: the type of tensors whose name the pattern is found in"
            },
            "token_embedding_type": tensor_type("The type of the embeddings"),
            "output_tensor_type": tensor_type("The type of the output"),
            "pure": {
                "type": "boolean", "default": false,
                "description": "Every matrix in the precision's own type, without the mixture"
            },
            "imatrix": { "type": "string", "format": "path", "description": "An importance matrix, as llama-imatrix writes it (GGUF)" },
            "allow_nan": {
                "type": "boolean", "default": false,
                "description": "Convert weights that are not finite, too; for precisions of plain numbers"
            },
            "allow_requantize": {
                "type": "boolean", "default": false,
                "description": "Quantize what is quantized already, which loses twice"
            },
            "pre": {
                "type": "string",
                "description": "llama.cpp's name for how the tokenizer splits text, where it cannot be found out"
            },
            "target_size": {
                "type": ["string", "integer"], "default": "preset",
                "description": "solve: the most bytes of the file, for example `1500000`, `1.5MB` or `2GiB`; `preset` for the size of the precision's own preset"
            },
            "target_kld": {
                "type": "number", "exclusiveMinimum": 0,
                "description": "solve: the largest KL divergence from the original, in nats, met in as few bytes as it takes"
            },
            "texts": {
                "type": "array", "items": { "type": "string", "format": "path" },
                "description": "solve: files of text to measure on; their last fifth judges what comes out"
            },
            "domains": {
                "type": "array", "items": { "type": "string" },
                "description": "solve: domains of calibration text to measure on, `general` unless a text is named; their held-out documents judge"
            },
            "windows": {
                "type": "integer", "minimum": 1, "maximum": MOST_WINDOWS,
                "description": "solve: windows of text to measure on; 8 by default"
            },
            "sensitivity": {
                "enum": ["every", "one"], "default": "one",
                "description": "solve: whether every type of every tensor is measured, or one of each and the others estimated"
            }
        }
    })
}

impl Options {
    /// Reads options.
    ///
    /// # Errors
    /// `invalid-option` with the key.
    pub fn read(options: &Value) -> Result<Self> {
        let empty = Map::new();
        let values = match options {
            Value::Null => &empty,
            Value::Object(values) => values,
            other => return Err(invalid(format!("the options are {other}, not an object"))),
        };
        if let Some(unknown) = values.keys().find(|key| !KEYS.contains(&key.as_str())) {
            let near = |a: &&str, b: &&str| {
                strsim::jaro_winkler(unknown, a).total_cmp(&strsim::jaro_winkler(unknown, b))
            };
            let nearest = KEYS.into_iter().max_by(near).unwrap_or_default();
            return Err(invalid(format!("there is no option `{}`", unknown.escape_debug()))
                .help(format!("did you mean `{nearest}`? There are {}", KEYS.join(", "))));
        }
        let read = Reader(values);
        let strategy = read.text("strategy")?.map(Strategy::named).transpose()?.unwrap_or_default();
        let threads = read.count("threads", MOST_THREADS)?;
        let solve = read.solve(strategy == Strategy::Solve, threads)?;
        Ok(Self {
            threads,
            strategy,
            solve,
            wishes: Wishes {
                embeddings: read.tensor_type("token_embedding_type")?,
                output: read.tensor_type("output_tensor_type")?,
                overrides: read.overrides()?,
                pure: read.flag("pure")?,
            },
            imatrix: read.text("imatrix")?.map(PathBuf::from),
            allow_nan: read.flag("allow_nan")?,
            allow_requantize: read.flag("allow_requantize")?,
            pre: read.text("pre")?.map(str::to_owned),
        })
    }

    /// Whether tensors get what the precision alone gives them.
    pub fn is_plain(&self) -> bool {
        let wishes = &self.wishes;
        let wishes = wishes.pure || wishes.embeddings.is_some() || wishes.output.is_some();
        !wishes
            && self.wishes.overrides.is_empty()
            && self.imatrix.is_none()
            && self.strategy == Strategy::Preset
    }

    /// Threads to use.
    pub fn threads(&self) -> usize {
        or_all(self.threads)
    }
}

/// So many threads, or one for each processor.
fn or_all(threads: Option<usize>) -> usize {
    threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

struct Reader<'a>(&'a Map<String, Value>);

impl<'a> Reader<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.get(key).map(|v| v.as_str().ok_or_else(|| wrong(key, v, "a text"))).transpose()
    }

    fn flag(&self, key: &str) -> Result<bool> {
        self.get(key).map_or(Ok(false), |v| v.as_bool().ok_or_else(|| wrong(key, v, "true or false")))
    }

    fn count(&self, key: &str, most: u64) -> Result<Option<usize>> {
        let count = |v: &Value| {
            let n = v.as_u64().filter(|n| (1..=most).contains(n));
            n.map(|n| n as usize).ok_or_else(|| wrong(key, v, &format!("a number from 1 to {most}")))
        };
        self.get(key).map(count).transpose()
    }

    fn texts(&self, key: &str) -> Result<Vec<String>> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let texts = value.as_array().map(|list| list.iter().map(|v| v.as_str().map(str::to_owned)).collect());
        texts.and_then(|texts: Option<_>| texts).ok_or_else(|| wrong(key, value, "a list of texts"))
    }

    /// What is only for the strategy `solve`.
    fn solve(&self, solving: bool, threads: Option<usize>) -> Result<Settings> {
        let only = ["target_size", "target_kld", "texts", "domains", "windows", "sensitivity"];
        if let Some(key) = only.into_iter().find(|key| !solving && self.get(key).is_some()) {
            return Err(invalid(format!("the option `{key}` is for the strategy `solve`"))
                .help("set `strategy` to `solve`, or leave it out"));
        }
        let divergence = |v: &Value| {
            let kld = v.as_f64().filter(|kld| *kld > 0.0 && kld.is_finite());
            kld.map(Goal::Divergence).ok_or_else(|| wrong("target_kld", v, "a number above 0"))
        };
        let goal = match (self.get("target_size"), self.get("target_kld")) {
            (Some(_), Some(_)) => {
                return Err(invalid("`target_size` and `target_kld` cannot both be met".to_owned())
                    .help("leave one of them out"));
            }
            (Some(size), None) => goal(size)?,
            (None, Some(kld)) => divergence(kld)?,
            (None, None) => Goal::Preset,
        };
        let every = match self.text("sensitivity")? {
            None | Some("one") => false,
            Some("every") => true,
            Some(other) => return Err(wrong("sensitivity", &other.into(), "`every` or `one`")),
        };
        Ok(Settings {
            goal,
            every,
            texts: self.texts("texts")?.into_iter().map(PathBuf::from).collect(),
            domains: self.texts("domains")?,
            windows: self.count("windows", MOST_WINDOWS)?,
            threads: or_all(threads),
        })
    }

    fn tensor_type(&self, key: &str) -> Result<Option<TensorType>> {
        self.text(key)?.map(|name| tensor_type(key, name)).transpose()
    }

    fn overrides(&self) -> Result<Vec<(Regex, TensorType)>> {
        let Some(value) = self.get("overrides") else { return Ok(Vec::new()) };
        let Some(list) = value.as_array() else { return Err(wrong("overrides", value, "a list")) };
        let one = |value: &Value| {
            let pair = value.as_str().and_then(|text| text.rsplit_once('='));
            let (pattern, name) = pair.ok_or_else(|| wrong("overrides", value, "REGEX=TYPE"))?;
            let pattern = Regex::new(pattern).map_err(|e| invalid(format!("the option `overrides`: {e}")))?;
            Ok((pattern, tensor_type("overrides", name)?))
        };
        list.iter().map(one).collect()
    }
}

/// A size in bytes, with a unit or without, or that of the preset.
fn goal(value: &Value) -> Result<Goal> {
    const UNITS: [(&str, f64); 8] = [
        ("kib", 1024.0),
        ("mib", 1_048_576.0),
        ("gib", 1_073_741_824.0),
        ("kb", 1e3),
        ("mb", 1e6),
        ("gb", 1e9),
        ("b", 1.0),
        ("", 1.0),
    ];
    let wrong = || wrong("target_size", value, "a size such as 1500000, 1.5MB or 2GiB, or `preset`");
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_lowercase(),
        _ => return Err(wrong()),
    };
    if text == "preset" {
        return Ok(Goal::Preset);
    }
    let (number, unit) = UNITS
        .into_iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))
        .ok_or_else(wrong)?;
    let bytes = number.trim().parse::<f64>().ok().map(|number| number * unit);
    let bytes = bytes.filter(|bytes| (1.0..1e18).contains(bytes)).ok_or_else(wrong)?;
    Ok(Goal::Bytes(bytes as u64))
}

fn tensor_type(key: &str, name: &str) -> Result<TensorType> {
    TensorType::from_name(name).filter(|t| t.can_be_made()).ok_or_else(|| {
        invalid(format!("the option `{key}`: `{}` is no type that tensors are made", name.escape_debug()))
            .help("types are f32, f16, bf16, q8_0, q6_K, q5_K, q4_K, q3_K, q2_K, iq4_nl, iq4_xs, q4_0, …")
    })
}

fn wrong(key: &str, value: &Value, wanted: &str) -> PluginError {
    invalid(format!("the option `{key}` is {value}, not {wanted}"))
}

fn invalid(what: String) -> PluginError {
    PluginError::new(codes::INVALID_OPTION, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_every_key_is_in_the_schema() {
        let options = json!({
            "threads": 2, "overrides": ["attn_(k|v)=Q8_0", "a=b=f16"], "token_embedding_type": "q6_K",
            "output_tensor_type": null, "pure": true, "imatrix": "x", "allow_nan": true, "pre": "gpt-2"
        });
        let read = Options::read(&options).unwrap();
        assert_eq!((read.threads(), read.wishes.overrides.len(), read.is_plain()), (2, 2, false));
        assert!(read.wishes.overrides[1].0.is_match("a=b"));
        assert!(Options::read(&Value::Null).unwrap().is_plain());
        let schema = schema();
        let keys: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
        assert_eq!(keys, KEYS);
    }

    #[test]
    fn a_size_or_a_divergence_is_solved_for() {
        let goal = |key: &str, value: Value| {
            let mut options = json!({ "strategy": "solve", "texts": ["a"], "windows": 2 });
            options[key] = value;
            Options::read(&options).unwrap().solve.goal
        };
        assert_eq!(goal("pre", "x".into()), Goal::Preset);
        assert_eq!(goal("target_size", "Preset".into()), Goal::Preset);
        for (size, bytes) in [("1500000", 1_500_000), ("1.5MB", 1_500_000), ("2 GiB", 2 << 30), ("7b", 7)] {
            assert_eq!(goal("target_size", size.into()), Goal::Bytes(bytes), "{size}");
        }
        assert_eq!(goal("target_size", 4096.into()), Goal::Bytes(4096));
        assert_eq!(goal("target_kld", 0.01.into()), Goal::Divergence(0.01));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (options, named) in [
            (json!({"treads": 1}), "`treads`"),
            (json!({"threads": 0}), "`threads` is 0"),
            (json!({"overrides": ["("]}), "REGEX=TYPE"),
            (json!({"overrides": ["(=f16"]}), "unclosed group"),
            (json!({"overrides": ["a=q8_1"]}), "`q8_1`"),
            (json!({"pure": "yes"}), "`pure`"),
            (json!({"target_kld": 0.1}), "for the strategy `solve`"),
            (json!({"strategy": "solve", "target_kld": 0}), "above 0"),
            (json!({"strategy": "solve", "target_kld": 0.1, "target_size": 9}), "cannot both"),
            (json!({"strategy": "solve", "target_size": "much"}), "`target_size`"),
            (json!({"strategy": "solve", "target_size": "-1MB"}), "`target_size`"),
            (json!({"strategy": "solve", "texts": "a"}), "a list of texts"),
            (json!({"strategy": "solve", "sensitivity": "some"}), "`every` or `one`"),
            (json!([]), "not an object"),
        ] {
            let error = Options::read(&options).unwrap_err();
            assert_eq!(error.code, "invalid-option");
            assert!(error.message.contains(named), "{error}");
        }
    }
}
