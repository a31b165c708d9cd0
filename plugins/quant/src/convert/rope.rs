//! How positions are encoded: what the metadata says of it, and tensors of factors.

use pajamas_llama_cpp::gguf::Writer;
use pajamas_plugin_api::Result;
use serde_json::{Map, Value};

use crate::architecture::Architecture;
use crate::error;
use crate::source::Config;

/// What a configuration says about rotations, old keys and new ones brought together (conversion/base.py,
/// `TextModel.__init__`).
#[derive(Debug, Default)]
pub(super) struct Rope {
    /// For all layers, or for those that see everything.
    pub global: Map<String, Value>,
    /// The base of layers that see a window.
    pub local_base: Option<f64>,
}

impl Rope {
    pub fn of(config: &Config) -> Result<Self> {
        let given = config.first(&["rope_parameters", "rope_scaling"]).and_then(Value::as_object);
        let given = given.cloned().unwrap_or_default();
        let inner = |key: &str| given.get(key).and_then(Value::as_object).cloned();
        let base = |of: &Map<String, Value>| of.get("rope_theta").and_then(Value::as_f64);
        let local = inner("sliding_attention");
        if let Some(global) = inner("full_attention") {
            return Ok(Self { local_base: local.as_ref().and_then(base), global });
        }
        if let Some(local) = local {
            return Ok(Self { local_base: base(&local), global: given });
        }
        let mut global = given;
        let mut fill = |key: &str, value: Option<Value>| {
            if let (false, Some(value)) = (global.contains_key(key), value) {
                global.insert(key.to_owned(), value);
            }
        };
        fill("rope_theta", config.get("rope_theta").cloned());
        fill("partial_rotary_factor", config.get("partial_rotary_factor").cloned());
        fill("original_max_position_embeddings", config.get("original_max_position_embeddings").cloned());
        let named = global.get("type").cloned();
        if let (false, Some(named)) = (global.contains_key("rope_type"), named) {
            global.insert("rope_type".into(), named);
        }
        Ok(Self { global, local_base: config.number(&["rope_local_base_freq"])? })
    }

    /// A number.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.global.get(key).filter(|v| !v.is_null()) {
            None => Ok(None),
            Some(value) => {
                let number = value.as_f64();
                number.map(Some).ok_or_else(|| error::config(format!("rope: `{key}` is {value}, no number")))
            }
        }
    }

    /// A number that must be there.
    pub fn required(&self, key: &str) -> Result<f64> {
        self.number(key)?.ok_or_else(|| error::config(format!("rope: `{key}` is missing")))
    }

    /// What kind of scaling there is.
    pub fn scaling(&self) -> Option<&str> {
        self.global.get("rope_type").and_then(Value::as_str)
    }

    /// Elements of a head that are rotated.
    fn dimensions(config: &Config) -> Result<u32> {
        match config.count(&["head_dim"])? {
            Some(size) => Ok(size),
            None => Ok(config.required(&["hidden_size"])? / config.required(&["num_attention_heads"])?),
        }
    }

    /// What models of most families write of it (conversion/base.py, `set_gguf_parameters`).
    pub fn write(&self, writer: &mut Writer, family: &str) -> Result<()> {
        let key = |rest: &str| format!("{family}.rope.{rest}");
        let factor = self.number("factor")?;
        match (self.scaling(), factor) {
            (Some("linear"), Some(factor)) => {
                writer.set(&key("scaling.type"), "linear").set(&key("scaling.factor"), factor as f32);
            }
            (Some("yarn"), Some(factor)) => {
                let original = self.required("original_max_position_embeddings")? as u32;
                writer.set(&key("scaling.type"), "yarn").set(&key("scaling.factor"), factor as f32);
                writer.set(&key("scaling.original_context_length"), original);
                let attention = match self.number("attention_factor")? {
                    None => self.number("attn_factor")?,
                    factor => factor,
                };
                for (name, value) in [
                    ("yarn_ext_factor", self.number("extrapolation_factor")?),
                    ("yarn_attn_factor", attention),
                    ("yarn_beta_fast", self.number("beta_fast")?),
                    ("yarn_beta_slow", self.number("beta_slow")?),
                ] {
                    if let Some(value) = value {
                        writer.set(&key(&format!("scaling.{name}")), value as f32);
                    }
                }
            }
            (Some("su" | "longrope"), _) => _ = writer.set(&key("scaling.type"), "longrope"),
            _ => {}
        }
        if let Some(base) = self.number("rope_theta")? {
            writer.set(&key("freq_base"), base as f32);
        }
        if let Some(base) = self.local_base {
            writer.set(&key("freq_base_swa"), base as f32);
        }
        Ok(())
    }
}

/// Elements of a head that are rotated, for families that say so.
pub(super) fn dimensions(config: &Config) -> Result<u32> {
    Rope::dimensions(config)
}

/// Tensors of factors for each frequency.
pub(super) fn tensors(architecture: Architecture, config: &Config) -> Result<Vec<(String, Vec<f32>)>> {
    let rope = Rope::of(config)?;
    match architecture {
        Architecture::Llama | Architecture::Mistral | Architecture::Mixtral
            if rope.scaling().is_some_and(|s| s.eq_ignore_ascii_case("llama3")) =>
        {
            Ok(vec![("rope_freqs.weight".to_owned(), llama3(&rope, Rope::dimensions(config)?)?)])
        }
        Architecture::Phi3 => phi3(&rope, config),
        _ => Ok(Vec::new()),
    }
}

/// Factors of Llama 3's scaling (conversion/llama.py, `generate_extra_tensors`). In 32 bits and in the reference's order
/// of operations: its last bit counts. torch's own power is off by one in the last place for some bases, of which
/// Llama 3's is none; there ours is the nearer.
fn llama3(rope: &Rope, dimensions: u32) -> Result<Vec<f32>> {
    let or = |key: &str, default: f64| rope.number(key).map(|v| v.unwrap_or(default) as f32);
    let base = or("rope_theta", 10000.0)?;
    let (factor, low, high) = (or("factor", 8.0)?, or("low_freq_factor", 1.0)?, or("high_freq_factor", 4.0)?);
    let context = or("original_max_position_embeddings", 8192.0)?;
    let (longest, shortest) = (context / low, context / high);
    let factor_of = |index: u32| {
        let frequency = 1.0 / base.powf(index as f32 / dimensions as f32);
        // torch divides a number by a tensor as the number times the tensor's reciprocal.
        let length = (1.0 / frequency) * std::f32::consts::TAU;
        if length < shortest {
            1.0
        } else if length > longest {
            factor
        } else {
            let smooth = ((1.0 / length) * context - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    Ok((0..dimensions).step_by(2).map(factor_of).collect())
}

/// Long and short factors of Phi-3's long variants.
fn phi3(rope: &Rope, config: &Config) -> Result<Vec<(String, Vec<f32>)>> {
    let list = |key: &str| -> Option<Vec<f32>> {
        let list = rope.global.get(key)?.as_array()?;
        list.iter().map(|v| v.as_f64().map(|v| v as f32)).collect()
    };
    let Some(long) = list("long_factor").filter(|l| !l.is_empty()) else { return Ok(Vec::new()) };
    let short = list("short_factor").unwrap_or_default();
    let wanted = phi3_dimensions(rope, config)? as usize / 2;
    if long.len() != wanted || short.len() != wanted {
        return Err(error::config(format!(
            "rope: {} long and {} short factors, where heads rotate {wanted} pairs",
            long.len(),
            short.len()
        )));
    }
    Ok(vec![("rope_factors_long.weight".to_owned(), long), ("rope_factors_short.weight".to_owned(), short)])
}

/// Elements of a head that Phi-3 rotates.
pub(super) fn phi3_dimensions(rope: &Rope, config: &Config) -> Result<u32> {
    let hidden = f64::from(config.required(&["hidden_size"])?);
    let rotated = rope.number("partial_rotary_factor")?.unwrap_or(1.0) * hidden;
    Ok(rotated as u32 / config.required(&["num_attention_heads"])?)
}

/// The factor that attention is scaled by in Phi-3's long variants.
pub(super) fn phi3_attention_factor(rope: &Rope, config: &Config) -> Result<Option<f64>> {
    if rope.global.get("long_factor").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        return Ok(None);
    }
    let context = f64::from(config.required(&["max_position_embeddings"])?);
    let original = rope.required("original_max_position_embeddings")?;
    let scale = context / original;
    let factor = match rope.scaling() {
        _ if scale <= 1.0 => 1.0,
        Some("su" | "longrope") => (1.0 + scale.ln() / original.ln()).sqrt(),
        Some("yarn") => 0.1 * scale.ln() + 1.0,
        other => {
            let named = other.unwrap_or("none");
            return Err(error::config(format!("rope: a scaling of the kind `{named}` is not known")));
        }
    };
    Ok(Some(factor))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Llama 3.2's own settings, and what torch 2.9 computes of them.
    #[test]
    fn factors_of_llama_3_are_the_references_to_the_bit() {
        let global = json!({
            "rope_theta": 500_000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192
        });
        let rope = Rope { global: global.as_object().unwrap().clone(), local_base: None };
        let bits: Vec<u32> = llama3(&rope, 64).unwrap().iter().map(|f| f.to_bits()).collect();
        let wanted = [
            0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000,
            0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000, 0x3fd35ec2,
            0x4052b46f, 0x411aaaee, 0x42000000, 0x42000000, 0x42000000, 0x42000000, 0x42000000, 0x42000000,
            0x42000000, 0x42000000, 0x42000000, 0x42000000, 0x42000000, 0x42000000, 0x42000000, 0x42000000,
        ];
        assert_eq!(bits, wanted);
    }
}
