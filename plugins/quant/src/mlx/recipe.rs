//! What a precision and its options ask for, and how each tensor is written then.

use std::str::FromStr;

use pajamas_plugin_api::{PluginError, Result, codes};
use serde::Deserialize;
use serde_json::{Value, json};

use super::affine::{Affine, BITS, GROUPS};
use super::layout::{Role, Slot};
use super::numbers::Float;
use super::sizes::Sizes;

/// Precisions by name.
pub const PRECISIONS: [&str; 8] = ["2bit", "3bit", "4bit", "5bit", "6bit", "8bit", "bf16", "f16"];
/// Weights with a common scale, unless asked otherwise.
const GROUP: u32 = 64;
/// The least bits of embeddings and output, unless asked otherwise: errors in them reach every token.
const ENDS: u32 = 6;
/// What routers are quantized to, as mlx_lm's classes ask for.
const ROUTER: Affine = Affine { bits: 8, group: 64 };
/// The largest file, as mlx_lm has it.
const FILE_BYTES: u64 = 5 << 30;
/// The most threads.
const MAX_THREADS: usize = 64;

/// What to make of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Bits of most matrices; `None` when nothing is quantized.
    pub bits: Option<u32>,
    /// Weights with a common scale.
    pub group: u32,
    /// Bits of the embeddings.
    pub embeddings_bits: u32,
    /// Bits of the output.
    pub output_bits: u32,
    /// The type that numbers are rounded to first; `None` for what `config.json` says.
    pub dtype: Option<Float>,
    /// Threads that convert.
    pub threads: usize,
    /// Bytes of tensors that a file may have.
    pub file_bytes: u64,
    /// Whether weights that are no finite numbers are converted too.
    pub allow_non_finite: bool,
}

/// Options as JSON has them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    group_size: Option<u32>,
    embeddings_bits: Option<u32>,
    output_bits: Option<u32>,
    pure: bool,
    dtype: Option<String>,
    threads: Option<usize>,
    max_file_bytes: Option<u64>,
    allow_nan: bool,
}

/// The JSON Schema of the options.
pub(super) fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "group_size": {"enum": GROUPS, "default": GROUP, "description": "Weights with a common scale."},
            "embeddings_bits": {"enum": BITS, "description": "Bits of the embeddings; otherwise at least 6."},
            "output_bits": {"enum": BITS, "description": "Bits of the output; otherwise at least 6."},
            "pure": {
                "type": "boolean", "default": false,
                "description": "The precision for embeddings and output too, as mlx_lm.convert does it."
            },
            "dtype": {
                "enum": ["float32", "float16", "bfloat16"],
                "description": "What numbers are rounded to first; otherwise what config.json says."
            },
            "threads": {
                "type": "integer", "minimum": 1, "maximum": MAX_THREADS,
                "description": "Threads; otherwise those of the processor."
            },
            "max_file_bytes": {
                "type": "integer", "minimum": 1, "default": FILE_BYTES,
                "description": "Bytes of tensors in a file."
            },
            "allow_nan": {
                "type": "boolean", "default": false,
                "description": "Converts weights that are no finite numbers instead of refusing them."
            }
        }
    })
}

impl FromStr for Recipe {
    type Err = PluginError;

    fn from_str(precision: &str) -> Result<Self> {
        Self::new(precision, &Value::Null)
    }
}

impl Recipe {
    /// The recipe of a precision with options after the quantizer's schema; null stands for none.
    ///
    /// # Errors
    /// `invalid-option`.
    pub fn new(precision: &str, options: &Value) -> Result<Self> {
        let options: Options = match options {
            Value::Null => Options::default(),
            given => Options::deserialize(given).map_err(|e| invalid(format!("the options of mlx: {e}")))?,
        };
        let number = precision.strip_suffix("bit").and_then(|n| n.parse().ok()).filter(|n| BITS.contains(n));
        let (bits, dense) = match precision {
            "bf16" => (None, Some(Float::Bf16)),
            "f16" => (None, Some(Float::F16)),
            _ => match number {
                Some(bits) => (Some(bits), None),
                None => {
                    let what = format!("`{}` is no precision of mlx", precision.escape_debug());
                    return Err(invalid(what).help(format!("precisions are: {}", PRECISIONS.join(", "))));
                }
            },
        };
        let asked = [options.group_size, options.embeddings_bits, options.output_bits];
        if bits.is_none() && (asked.iter().any(Option::is_some) || options.dtype.is_some()) {
            return Err(invalid(format!("`{precision}` quantizes nothing: it takes no options about that")));
        }
        if options.pure && (options.embeddings_bits.is_some() || options.output_bits.is_some()) {
            return Err(invalid("`pure` and bits for embeddings or output contradict each other"));
        }
        let group = options.group_size.unwrap_or(GROUP);
        if !GROUPS.contains(&group) {
            return Err(invalid(format!("`group_size` is {group}")).help("groups have 32, 64 or 128 weights"));
        }
        let body = bits.unwrap_or(ENDS);
        let ends = |asked: Option<u32>| match asked {
            Some(bits) if !BITS.contains(&bits) => {
                Err(invalid(format!("a tensor cannot have {bits} bits")).help("bits are 2, 3, 4, 5, 6 or 8"))
            }
            Some(bits) => Ok(bits),
            None => Ok(if options.pure { body } else { body.max(ENDS) }),
        };
        let dtype = match options.dtype.as_deref() {
            None => dense,
            Some(name) => Some(Float::from_name(name).ok_or_else(|| {
                invalid(format!("`dtype` is `{}`", name.escape_debug()))
                    .help("types are float32, float16 and bfloat16")
            })?),
        };
        let threads = options.threads.unwrap_or_else(processors);
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(invalid(format!("`threads` is {threads}, not 1 to {MAX_THREADS}")));
        }
        let file_bytes = options.max_file_bytes.unwrap_or(FILE_BYTES);
        if file_bytes == 0 {
            return Err(invalid("`max_file_bytes` is 0"));
        }
        Ok(Self {
            bits,
            group,
            embeddings_bits: ends(options.embeddings_bits)?,
            output_bits: ends(options.output_bits)?,
            dtype,
            threads,
            file_bytes,
            allow_non_finite: options.allow_nan,
        })
    }

    /// How most matrices are quantized, if they are.
    pub(super) fn body(&self) -> Option<Affine> {
        self.bits.map(|bits| Affine { bits, group: self.group })
    }

    /// How a tensor is quantized; `None` when it is not. mlx_lm asks whether the model's group divides a row before it
    /// asks for more.
    pub(super) fn affine(&self, slot: &Slot<'_>, sizes: &Sizes) -> Option<Affine> {
        let body = self.body()?;
        let width = slot.shape.last().copied().filter(|width| width.is_multiple_of(u64::from(body.group)))?;
        match slot.role {
            Role::Embeddings if sizes.tied => {
                Some(Affine { bits: self.embeddings_bits.max(self.output_bits), ..body })
            }
            Role::Embeddings => Some(Affine { bits: self.embeddings_bits, ..body }),
            Role::Output => Some(Affine { bits: self.output_bits, ..body }),
            Role::Matrix => Some(body),
            Role::Router if width.is_multiple_of(u64::from(ROUTER.group)) => Some(ROUTER),
            Role::Router => Some(Affine { bits: ROUTER.bits, ..body }),
            Role::Vector | Role::Packed(_) => None,
        }
    }

    /// The type that floating-point numbers are rounded to, `asked` being what `config.json` asks for.
    pub(super) fn rounded(&self, from: Float, asked: Option<Float>) -> Float {
        self.dtype.or(asked).unwrap_or(from)
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(MAX_THREADS))
}

fn invalid(what: impl Into<String>) -> PluginError {
    PluginError::new(codes::INVALID_OPTION, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(precision: &str, options: Value) -> Result<Recipe> {
        Recipe::new(precision, &options)
    }

    #[test]
    fn ends_have_six_bits_or_more() {
        for (precision, body, ends) in [("2bit", 2, 6), ("4bit", 4, 6), ("6bit", 6, 6), ("8bit", 8, 8)] {
            let mixed = of(precision, Value::Null).unwrap();
            assert_eq!((mixed.bits, mixed.embeddings_bits, mixed.output_bits), (Some(body), ends, ends));
            let pure = of(precision, json!({"pure": true})).unwrap();
            assert_eq!((pure.embeddings_bits, pure.output_bits), (body, body));
        }
        let asked = of("4bit", json!({"embeddings_bits": 3, "output_bits": 8, "group_size": 32})).unwrap();
        assert_eq!((asked.embeddings_bits, asked.output_bits, asked.group), (3, 8, 32));
        assert!(PRECISIONS.iter().all(|p| p.parse::<Recipe>().is_ok()));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (precision, options) in [
            ("7bit", Value::Null),
            ("Q4_K_M", Value::Null),
            ("4bit", json!({"group_size": 16})),
            ("4bit", json!({"embeddings_bits": 7})),
            ("4bit", json!({"pure": true, "output_bits": 8})),
            ("4bit", json!({"threads": 0})),
            ("4bit", json!({"max_file_bytes": 0})),
            ("4bit", json!({"dtype": "int8"})),
            ("4bit", json!({"groups": 64})),
            ("4bit", json!([1])),
            ("bf16", json!({"group_size": 64})),
        ] {
            assert_eq!(of(precision, options.clone()).unwrap_err().code, "invalid-option", "{options}");
        }
    }
}
