//! Which type each tensor of a file gets: llama.cpp's mixtures, function by function (llama-quant.cpp, MIT licence).

use pajamas_llama_cpp::gguf::TensorType;
use pajamas_plugin_api::{PluginError, Result, codes};
use regex::Regex;

use super::category::{self, Category};
use super::precision::FileType::{self, *};

/// What of a model's build the mixtures look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Build {
    pub family: String,
    /// Layers, those that predict ahead included.
    pub layers: i64,
    /// Heads of queries in the first layer.
    pub heads: u64,
    /// Heads of keys and values in the first layer.
    pub key_value_heads: u64,
    pub experts: u64,
}

impl Build {
    /// Heads of queries to each of keys (`llama_hparams::n_gqa`).
    pub(super) fn ratio(&self) -> u64 {
        self.heads.checked_div(self.key_value_heads).unwrap_or(0)
    }

    /// Whether llama.cpp calls it `LLM_TYPE_70B` (src/models/*.cpp).
    fn is_70b(&self) -> bool {
        match self.family.as_str() {
            "llama" => self.experts != 8 && self.layers == 80 && self.heads != self.key_value_heads,
            "qwen2" | "deci" | "olmo" => self.layers == 80,
            "jais2" => self.layers == 68,
            _ => false,
        }
    }
}

/// What a person asks for beyond a precision.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// The type of the embeddings.
    pub embeddings: Option<TensorType>,
    /// The type of the output.
    pub output: Option<TensorType>,
    /// Types of the tensors that a pattern is found in; the first pattern decides.
    pub overrides: Vec<(Regex, TensorType)>,
    /// Every tensor in the precision's own type.
    pub pure: bool,
}

/// Chooses types, tensor by tensor in the file's order (`quantize_state_impl`).
pub(super) struct Chooser<'a> {
    build: &'a Build,
    file_type: FileType,
    wishes: &'a Wishes,
    has_importance: bool,
    /// Whether the embeddings serve as output.
    tied: bool,
    values: i64,
    seen_values: i64,
    seen_down: i64,
    seen_gate: i64,
    seen_up: i64,
    /// Tensors whose rows the type's blocks do not divide, and what they became.
    pub fallbacks: Vec<(String, TensorType, TensorType)>,
}

impl<'a> Chooser<'a> {
    /// For the tensors of these names (`init_quantize_state_counters`).
    pub fn new<'n>(
        build: &'a Build,
        file_type: FileType,
        wishes: &'a Wishes,
        has_importance: bool,
        names: impl Iterator<Item = &'n str> + Clone,
    ) -> Self {
        Self {
            build,
            file_type,
            wishes,
            has_importance,
            tied: names.clone().all(|name| Category::of(name) != Category::Output),
            values: names.filter(|name| Category::of(name).has_values()).count() as i64,
            seen_values: 0,
            seen_down: 0,
            seen_gate: 0,
            seen_up: 0,
            fallbacks: Vec::new(),
        }
    }

    /// The type of the next tensor, now of the type `is` (`llama_tensor_get_type`). Dimensions are innermost first.
    ///
    /// # Errors
    /// `invalid-option` for a type that rows of this length cannot have, where llama.cpp has no fallback either.
    pub fn choose(&mut self, name: &str, is: TensorType, dimensions: &[u64]) -> Result<TensorType> {
        if !category::may_change(&self.build.family, name, dimensions) {
            return Ok(is);
        }
        let category = Category::of(name);
        let overridden =
            self.wishes.overrides.iter().find(|(pattern, _)| pattern.is_match(name)).map(|(_, t)| *t);
        match category {
            // The large table beside the embeddings can be named on its own.
            Category::Embeddings if name == category::PER_LAYER_EMBEDDINGS && overridden.is_some() => {}
            Category::Embeddings => {
                if let Some(wanted) = self.wishes.embeddings {
                    return self.exact(name, wanted, dimensions);
                }
            }
            Category::Output => {
                if let Some(wanted) = self.wishes.output {
                    return self.exact(name, wanted, dimensions);
                }
            }
            _ => {}
        }
        let default = self.file_type.tensor_type();
        if !default.is_quantized() {
            return Ok(default);
        }
        let chosen = match overridden {
            Some(wanted) => wanted,
            None if self.wishes.pure => default,
            None => self.mixed(name, dimensions, category)?,
        };
        self.fit(name, chosen, dimensions)
    }

    /// A type that was asked for by name: llama.cpp asserts that rows can have it, which is refused here.
    fn exact(&self, name: &str, wanted: TensorType, dimensions: &[u64]) -> Result<TensorType> {
        match wanted.tensor_bytes(dimensions) {
            Some(_) => Ok(wanted),
            None => Err(not_divided(name, wanted, dimensions)),
        }
    }

    /// `tensor_type_fallback`.
    fn fit(&mut self, name: &str, wanted: TensorType, dimensions: &[u64]) -> Result<TensorType> {
        let columns = dimensions.first().copied().unwrap_or(1);
        let divides = |t: TensorType| columns.is_multiple_of(t.block_len());
        if divides(wanted) {
            return Ok(wanted);
        }
        let smaller = match wanted {
            TensorType::IQ1_S
            | TensorType::IQ1_M
            | TensorType::IQ2_XXS
            | TensorType::IQ2_XS
            | TensorType::IQ2_S
            | TensorType::IQ3_XXS
            | TensorType::IQ3_S
            | TensorType::IQ4_XS => TensorType::IQ4_NL,
            TensorType::Q2_0
            | TensorType::Q2_K
            | TensorType::Q3_K
            | TensorType::TQ1_0
            | TensorType::TQ2_0 => TensorType::Q4_0,
            TensorType::Q4_K => TensorType::Q5_0,
            TensorType::Q5_K => TensorType::Q5_1,
            TensorType::Q6_K => TensorType::Q8_0,
            other if other.block_len() <= 32 => other,
            other => return Err(not_divided(name, other, dimensions)),
        };
        let fits = if divides(smaller) { smaller } else { TensorType::F16 };
        self.fallbacks.push((name.to_owned(), wanted, fits));
        Ok(fits)
    }

    /// The mixture's choice (`llama_tensor_get_type_impl`).
    fn mixed(&mut self, name: &str, dimensions: &[u64], category: Category) -> Result<TensorType> {
        let mut chosen = self.file_type.tensor_type();
        let family = self.build.family.as_str();
        if family == "glm5-next"
            && ["attn_q_a", "attn_q_b", "nextn.eh_proj"].iter().any(|part| name.contains(part))
        {
            return Ok(TensorType::Q8_0);
        }
        let columns = dimensions.first().copied().unwrap_or(1);
        let low = matches!(self.file_type, IQ2_XXS | IQ2_XS | IQ1_S | IQ2_S | IQ2_M | IQ1_M);
        if category == Category::Output || (self.tied && category == Category::Embeddings) {
            chosen = match self.wishes.output {
                Some(wanted) => wanted,
                None if self.file_type == MXFP4_MOE => TensorType::Q8_0,
                None if family == "falcon" || !columns.is_multiple_of(chosen.block_len()) => TensorType::Q8_0,
                None if low || self.file_type == IQ3_XXS => TensorType::Q5_K,
                None if chosen != TensorType::Q8_0 => TensorType::Q6_K,
                None => chosen,
            };
        } else if self.file_type == MXFP4_MOE {
            let expert =
                family != "bailingmoe3" || matches!(category, Category::Up | Category::Gate | Category::Down);
            let matrices = dimensions.get(2).copied().unwrap_or(1);
            chosen = if matrices > 1 && expert { TensorType::MXFP4 } else { TensorType::Q8_0 };
        } else if category == Category::Embeddings {
            chosen = match self.file_type {
                IQ2_XXS | IQ2_XS | IQ1_S | IQ1_M => TensorType::Q2_K,
                IQ2_S | IQ2_M | IQ3_XXS => TensorType::IQ3_S,
                TQ1_0 | TQ2_0 => TensorType::Q4_K,
                _ => chosen,
            };
        } else if low {
            chosen = self.low(category).unwrap_or(chosen);
        } else if category.has_values() {
            chosen = self.of_values(chosen);
            self.seen_values += 1;
        } else if matches!(category, Category::Key | Category::Query) {
            chosen = match self.file_type {
                _ if category == Category::Key && self.build.experts == 8 => TensorType::Q8_0,
                IQ3_XS => TensorType::IQ3_XXS,
                IQ3_XXS => TensorType::IQ2_S,
                _ => chosen,
            };
        } else if category == Category::Down {
            let layer = self.layer(name, self.seen_down)?;
            chosen = self.down(layer).unwrap_or(chosen);
            self.seen_down += 1;
        } else if category == Category::AttentionOutput {
            chosen = self.attention_output().unwrap_or(chosen);
        } else if matches!(category, Category::Gate | Category::Up) {
            let seen = if category == Category::Gate { self.seen_gate } else { self.seen_up };
            let layer = self.layer(name, seen)?;
            match category {
                Category::Gate => self.seen_gate += 1,
                _ => self.seen_up += 1,
            }
            let inner = layer >= self.build.layers / 8 && layer < 7 * self.build.layers / 8;
            if self.file_type == IQ3_XS && inner {
                chosen = TensorType::IQ3_XXS;
            }
        }
        Ok(chosen)
    }

    /// Of the lowest precisions, which need to know what is important.
    fn low(&mut self, category: Category) -> Option<TensorType> {
        let experts = self.build.experts;
        let second = matches!(self.file_type, IQ2_S | IQ2_M);
        let raised = if second { TensorType::IQ3_S } else { TensorType::Q2_K };
        match category {
            _ if category.has_values() => {
                self.seen_values += 1;
                Some(if self.build.ratio() >= 4 || experts >= 4 { TensorType::Q4_K } else { raised })
            }
            Category::Key if experts == 8 => Some(TensorType::Q4_K),
            Category::Down => {
                let early = self.seen_down < self.build.layers / 8;
                self.seen_down += 1;
                early.then_some(raised)
            }
            Category::AttentionOutput => match self.file_type {
                _ if experts == 8 => Some(TensorType::Q5_K),
                IQ1_S | IQ1_M => Some(TensorType::IQ2_XXS),
                _ => second.then_some(TensorType::IQ3_S),
            },
            _ => None,
        }
    }

    fn of_values(&self, mut chosen: TensorType) -> TensorType {
        let shared = self.build.ratio() >= 4;
        chosen = match self.file_type {
            Q2_K if shared => TensorType::Q4_K,
            Q2_K => TensorType::Q3_K,
            Q2_K_S if shared => TensorType::Q4_K,
            IQ3_XXS if shared => TensorType::Q4_K,
            IQ3_XXS if !self.has_importance => TensorType::IQ3_S,
            IQ3_XXS => TensorType::IQ3_XXS,
            IQ3_XS | IQ3_S if shared => TensorType::Q4_K,
            IQ3_M => TensorType::Q4_K,
            Q3_K_M if self.seen_values < 2 => TensorType::Q5_K,
            Q3_K_M => TensorType::Q4_K,
            Q3_K_L => TensorType::Q5_K,
            IQ4_NL | IQ4_XS if shared => TensorType::Q5_K,
            Q4_K_M | Q5_K_M if use_more_bits(self.seen_values, self.values) => TensorType::Q6_K,
            Q4_K_S if self.seen_values < 4 => TensorType::Q5_K,
            _ => chosen,
        };
        if self.build.is_70b() && matches!(chosen, TensorType::Q3_K | TensorType::Q4_K) {
            chosen = TensorType::Q5_K;
        }
        if self.build.experts == 8 { TensorType::Q8_0 } else { chosen }
    }

    fn down(&self, layer: i64) -> Option<TensorType> {
        let layers = self.build.layers;
        let falcon = self.build.family == "falcon";
        let early = layer < layers / 8;
        let more = use_more_bits(layer, layers);
        match self.file_type {
            Q2_K => Some(TensorType::Q3_K),
            Q2_K_S => early.then_some(TensorType::Q4_K),
            IQ3_XXS if !self.has_importance => Some(if early { TensorType::Q4_K } else { TensorType::Q3_K }),
            Q3_K_M if layer < layers / 16 => Some(TensorType::Q5_K),
            Q3_K_M => Some(if !falcon || more { TensorType::Q4_K } else { TensorType::Q3_K }),
            IQ3_M if early || (self.build.experts == 8 && more) => Some(TensorType::Q4_K),
            Q3_K_L => Some(if falcon { TensorType::Q4_K } else { TensorType::Q5_K }),
            Q4_K_M if falcon => Some(match (layer < layers / 16, more) {
                (true, _) => TensorType::Q6_K,
                (false, true) => TensorType::Q5_K,
                (false, false) => TensorType::Q4_K,
            }),
            Q4_K_M => more.then_some(TensorType::Q6_K),
            IQ4_NL | IQ4_XS if early && !self.has_importance => Some(TensorType::Q5_K),
            Q5_K_M if more => Some(TensorType::Q6_K),
            Q4_K_S if !falcon && early => Some(TensorType::Q5_K),
            // With importance the first layers' go astray in the plainest types; without it, things stay as they were.
            Q4_0 if self.has_importance && early => Some(TensorType::Q4_1),
            Q5_0 if self.has_importance && early => Some(TensorType::Q5_1),
            _ => None,
        }
    }

    fn attention_output(&self) -> Option<TensorType> {
        match self.file_type {
            Q3_K_L if self.build.family == "falcon" => Some(TensorType::Q4_K),
            _ if self.build.family == "falcon" => None,
            Q2_K | IQ3_XS | IQ3_XXS | Q3_K_S | Q3_K_M | IQ4_NL | Q4_K_S | Q4_K_M | IQ3_S | IQ3_M | IQ4_XS
                if self.build.experts == 8 =>
            {
                Some(TensorType::Q5_K)
            }
            _ if self.build.experts == 8 => None,
            Q2_K => Some(TensorType::Q3_K),
            IQ3_XXS => Some(TensorType::IQ3_S),
            Q3_K_M | IQ3_M => Some(TensorType::Q4_K),
            Q3_K_L => Some(TensorType::Q5_K),
            _ => None,
        }
    }

    /// The layer that counts for a tensor: in models with experts that of its name, else how many came before.
    fn layer(&self, name: &str, seen: i64) -> Result<i64> {
        if self.build.experts <= 1 {
            return Ok(seen);
        }
        let number =
            name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).map(|(number, _)| number);
        let layer =
            number.and_then(|n| n.parse().ok()).filter(|layer| (0..self.build.layers).contains(layer));
        layer.ok_or_else(|| {
            let what = format!("tensor `{name}` names none of the model's {} layers", self.build.layers);
            PluginError::new(crate::error::codes::TENSOR_UNEXPECTED, what)
        })
    }
}

/// The first and last eighth of the layers, and every third between.
fn use_more_bits(layer: i64, layers: i64) -> bool {
    layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2
}

fn not_divided(name: &str, wanted: TensorType, dimensions: &[u64]) -> PluginError {
    let columns = dimensions.first().copied().unwrap_or(1);
    let what = format!(
        "tensor `{name}` has rows of {columns} elements, which blocks of {wanted} ({}) do not divide",
        wanted.block_len()
    );
    PluginError::new(codes::INVALID_OPTION, what)
        .help("choose a type of smaller blocks for it, such as q8_0 or f16")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(layers: i64, experts: u64) -> Build {
        Build { family: "llama".into(), layers, heads: 32, key_value_heads: 8, experts }
    }

    fn choose(
        build: &Build,
        file_type: FileType,
        wishes: &Wishes,
        tensors: &[(&str, &[u64])],
    ) -> Vec<TensorType> {
        let names = tensors.iter().map(|t| t.0);
        let mut chooser = Chooser::new(build, file_type, wishes, false, names);
        tensors.iter().map(|(name, d)| chooser.choose(name, TensorType::F32, d).unwrap()).collect()
    }

    /// What llama.cpp prints for a model of this build; the whole of the mixtures is compared with llama.cpp itself in
    /// tests/quantized.rs.
    #[test]
    fn a_mixture_gives_some_tensors_more() {
        let names: Vec<String> = (0..32).map(|i| format!("blk.{i}.ffn_down.weight")).collect();
        let tensors: Vec<(&str, &[u64])> = names.iter().map(|n| (n.as_str(), &[1024, 256][..])).collect();
        let chosen = choose(&build(32, 0), Q4_K_M, &Wishes::default(), &tensors);
        assert_eq!(chosen.iter().filter(|t| **t == TensorType::Q6_K).count(), 4 + 4 + 8);
        let pure = Wishes { pure: true, ..Wishes::default() };
        assert!(choose(&build(32, 0), Q4_K_M, &pure, &tensors).iter().all(|t| *t == TensorType::Q4_K));
    }

    #[test]
    fn what_a_person_asks_for_comes_first() {
        let wishes = Wishes {
            embeddings: Some(TensorType::Q8_0),
            output: Some(TensorType::F16),
            overrides: vec![(Regex::new("attn_k").unwrap(), TensorType::Q2_K)],
            pure: false,
        };
        let tensors: [(&str, &[u64]); 5] = [
            ("output.weight", &[256, 512]),
            ("token_embd.weight", &[256, 512]),
            ("blk.0.attn_k.weight", &[256, 64]),
            ("blk.0.attn_q.weight", &[256, 256]),
            ("blk.0.attn_k.bias", &[64]),
        ];
        let names: Vec<&str> =
            choose(&build(2, 0), Q4_K_M, &wishes, &tensors).iter().map(|t| t.name()).collect();
        assert_eq!(names, ["f16", "q8_0", "q2_K", "q4_K", "f32"]);
    }

    #[test]
    fn rows_that_do_not_divide_get_smaller_blocks_or_none() {
        let tensors: [(&str, &[u64]); 2] =
            [("blk.0.attn_q.weight", &[96, 8]), ("blk.0.attn_k.weight", &[40, 8])];
        let chosen = choose(&build(2, 0), Q4_K_M, &Wishes::default(), &tensors);
        assert_eq!(chosen, [TensorType::Q5_0, TensorType::F16]);
        let wishes = Wishes { embeddings: Some(TensorType::Q4_K), ..Wishes::default() };
        let build = build(2, 0);
        let mut chooser = Chooser::new(&build, Q4_K_M, &wishes, false, ["token_embd.weight"].into_iter());
        let error = chooser.choose("token_embd.weight", TensorType::F32, &[96, 8]).unwrap_err();
        assert_eq!(error.code, "invalid-option");
    }
}
