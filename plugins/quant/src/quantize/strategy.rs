//! What decides on the types of tensors: llama.cpp's mixtures alone, or how the model is built.
//!
//! A mixture gives some tensors more bits than the precision's own type has. The strategy `architecture` spends the same
//! bytes, and never one more, where the model's build says that they matter: what the mixture gives to some layers of a part
//! only is taken back, and given to one part of the model after the other, in an order that depends on its family. What it
//! gives to every layer stays: where bits are few, that is what keeps the model together.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use pajamas_llama_cpp::gguf::TensorType;
use pajamas_plugin_api::{PluginError, Result, codes};
use regex::Regex;

use super::category::Category;
use super::choose::Build;
use super::importance::Importance;
use super::original::Tensor;
use crate::architecture::advice;
use crate::imatrix::{FEW_HITS, layer_of};

/// Heads of queries to one of keys and values, from which on a mixture's own rules call it much, too.
const MANY_QUERIES: u64 = 4;

/// What decides on types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// llama.cpp's mixtures.
    #[default]
    Preset,
    /// The same bytes where the model's build says that they matter.
    Architecture,
    /// Bytes where they were measured to matter. Planned, it is the preset, until the types were found.
    Solve,
}

impl Strategy {
    /// Every strategy, with its name.
    pub const ALL: [(&'static str, Self); 3] =
        [("preset", Self::Preset), ("architecture", Self::Architecture), ("solve", Self::Solve)];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Preset => "preset",
            Self::Architecture => "architecture",
            Self::Solve => "solve",
        }
    }

    /// By its name.
    ///
    /// # Errors
    /// `invalid-option`.
    pub fn named(name: &str) -> Result<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, strategy)| *strategy).ok_or_else(|| {
            let what = format!("there is no strategy `{}`", name.escape_debug());
            PluginError::new(codes::INVALID_OPTION, what)
                .help("strategies are preset, architecture and solve")
        })
    }
}

/// A model, as far as the strategy looks at it.
pub(super) struct Model<'a> {
    pub build: &'a Build,
    pub tensors: &'a [Tensor],
    /// Layer by layer, whether it looks no further than a window.
    pub windowed: &'a [bool],
    pub importance: Option<&'a Importance>,
    /// Patterns of tensors whose type a person chose.
    pub overrides: &'a [(Regex, TensorType)],
}

impl Model<'_> {
    /// Whether a tensor's type is not ours to change: it stays as it is, or a person chose it.
    fn is_fixed(&self, at: usize, chosen: TensorType) -> bool {
        let tensor = &self.tensors[at];
        chosen == tensor.tensor_type
            || self.overrides.iter().any(|(pattern, _)| pattern.is_match(&tensor.name))
    }
}

/// The parts that are raised together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Values,
    Keys,
    Query,
    AttentionOutput,
    SharedExpert,
    Expert,
    Down,
    Rest,
    /// Embeddings and output: what the mixture gives them has proved itself.
    Ends,
}

/// Parts that are raised by one step each, in an order, and why.
struct Turn {
    reason: String,
    tensors: Vec<usize>,
}

/// Spends what the types `preset` take beyond those of `base`. Returns the types, and what was done with its reasons.
pub(super) fn spend(
    model: &Model<'_>,
    preset: &[TensorType],
    base: &[TensorType],
) -> (Vec<TensorType>, Vec<String>) {
    let bytes =
        |at: usize, of: TensorType| of.tensor_bytes(&model.tensors[at].dimensions).unwrap_or(u64::MAX / 4);
    let sum = |types: &[TensorType]| types.iter().enumerate().map(|(at, t)| bytes(at, *t)).sum::<u64>();
    // A mixture may also take bits away: that stays.
    let lower = |at: usize| if bytes(at, preset[at]) < bytes(at, base[at]) { preset[at] } else { base[at] };
    let mut types: Vec<TensorType> = (0..base.len()).map(lower).collect();
    for (at, to) in everywhere(model, preset, base, &bytes) {
        types[at] = to;
    }
    let mut left = sum(preset).saturating_sub(sum(&types));
    let mut reasons = Vec::new();
    if left == 0 {
        reasons.push("architecture: the precision has no mixture whose bits could be spent otherwise".into());
        return (types, reasons);
    }
    for turn in turns(model) {
        let mut raised = BTreeSet::new();
        let mut count = 0;
        for at in turn.tensors {
            if model.is_fixed(at, types[at]) {
                continue;
            }
            let columns = model.tensors[at].columns();
            let Some(to) = next(types[at]).filter(|to| columns.is_multiple_of(to.block_len())) else {
                continue;
            };
            let cost = bytes(at, to).saturating_sub(bytes(at, types[at]));
            if cost <= left {
                left -= cost;
                types[at] = to;
                count += 1;
                raised.insert(to.name());
            }
        }
        if count > 0 {
            let names: Vec<&str> = raised.into_iter().collect();
            reasons.push(format!(
                "architecture: {count} tensors up to {}: {}",
                names.join(", "),
                turn.reason
            ));
        }
    }
    (types, reasons)
}

/// What a mixture gives to a part in every layer: the least of it.
fn everywhere(
    model: &Model<'_>,
    preset: &[TensorType],
    base: &[TensorType],
    bytes: &dyn Fn(usize, TensorType) -> u64,
) -> Vec<(usize, TensorType)> {
    let mut parts: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, tensor) in model.tensors.iter().enumerate() {
        if let Some((_, part)) = tensor.name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            parts.entry(part).or_default().push(at);
        }
    }
    let raised = |at: &usize| bytes(*at, preset[*at]) > bytes(*at, base[*at]);
    let whole = parts.into_values().filter(|part| part.iter().all(raised));
    let least = |part: Vec<usize>| {
        let least =
            part.iter().map(|at| preset[*at]).min_by_key(|of| of.block_bytes() * 256 / of.block_len());
        let keep = move |at| Some((at, least.filter(|of| bytes(at, *of) <= bytes(at, preset[at]))?));
        part.into_iter().filter_map(keep)
    };
    whole.flat_map(least).collect()
}

/// What is raised, and in which order.
fn turns(model: &Model<'_>) -> Vec<Turn> {
    let build = model.build;
    let layers = build.layers.max(1);
    let part = |at: usize| part(&model.tensors[at].name);
    let layer = |at: usize| layer_of(&model.tensors[at].name).map_or(0, i64::from);
    let of = |parts: &[Part]| -> Vec<usize> {
        // The ends of a model before its middle, and what leaves it before what enters: nothing mends it any more.
        let mut found: Vec<usize> =
            (0..model.tensors.len()).filter(|at| parts.contains(&part(*at))).collect();
        found.sort_by_key(|at| (layer(*at).min(layers - 1 - layer(*at)), Reverse(layer(*at))));
        found
    };
    let attention = [Part::Values, Part::Keys, Part::AttentionOutput, Part::Query];
    let mut turns = Vec::new();
    let mut turn = |reason: String, tensors: Vec<usize>| turns.push(Turn { reason, tensors });

    let shared = of(&[Part::SharedExpert]);
    for _ in 0..2 {
        turn(advice::SHARED_EXPERTS.into(), shared.clone());
    }
    let ratio = build.ratio();
    let few_heads = ratio > 1;
    for _ in 0..if few_heads { 2 } else { 0 } {
        turn(advice::shared_heads(ratio), of(&[Part::Values]));
        if ratio >= MANY_QUERIES {
            turn(advice::shared_heads(ratio), of(&[Part::Keys]));
        }
    }
    let full = |at: &usize| !model.windowed.get(layer(*at) as usize).copied().unwrap_or(false);
    if model.windowed.contains(&true) && model.windowed.contains(&false) {
        let mut far = of(&attention);
        far.extend(of(&[Part::Down]));
        far.retain(full);
        turn(advice::FULL_ATTENTION.into(), far);
    }
    if build.experts > 0 {
        turn(advice::ATTENTION_OF_EXPERTS.into(), of(&attention));
        turn(advice::SHORT_EXPERTS.into(), least_known(model, &of(&[Part::Expert])));
    }
    if !few_heads {
        turn(advice::VALUES.into(), of(&[Part::Values]));
    }
    let down = of(&[Part::Down]);
    turn(advice::DOWN.into(), down);
    if few_heads && ratio < MANY_QUERIES {
        turn(advice::shared_heads(ratio), of(&[Part::Keys]));
    }
    turn(advice::ATTENTION_OUTPUT.into(), of(&[Part::AttentionOutput]));
    turn(advice::DOWN_OF_EXPERTS.into(), {
        let mut experts = of(&[Part::Expert]);
        experts.retain(|at| model.tensors[*at].name.contains("ffn_down"));
        experts
    });
    turn(advice::REST.into(), of(&[Part::Query, Part::Rest]));
    turns
}

/// Experts' tensors of layers in which some are badly known, the worst first; none without measured use.
fn least_known(model: &Model<'_>, experts: &[usize]) -> Vec<usize> {
    let short = |at: &usize| {
        let layer = layer_of(&model.tensors[*at].name)?;
        let hits = model.importance?.expert_hits(layer);
        let few = hits.iter().filter(|hits| **hits < FEW_HITS).count();
        (few > 0).then_some((few, *at))
    };
    let mut layers: Vec<(usize, usize)> = experts.iter().filter_map(short).collect();
    layers.sort_by_key(|(few, at)| (Reverse(*few), *at));
    layers.into_iter().map(|(_, at)| at).collect()
}

fn part(name: &str) -> Part {
    match Category::of(name) {
        _ if name.contains("_shexp") => Part::SharedExpert,
        _ if name.contains("_exps.") => Part::Expert,
        category if category.has_values() => Part::Values,
        Category::Key => Part::Keys,
        Category::Query => Part::Query,
        Category::AttentionOutput => Part::AttentionOutput,
        Category::Down => Part::Down,
        Category::Embeddings | Category::Output => Part::Ends,
        _ => Part::Rest,
    }
}

/// The next type with more bits; `None` at the end, and of plain numbers.
fn next(of: TensorType) -> Option<TensorType> {
    Some(match of {
        TensorType::IQ1_S | TensorType::IQ1_M => TensorType::IQ2_XS,
        TensorType::IQ2_XXS | TensorType::IQ2_XS | TensorType::IQ2_S => TensorType::IQ3_XXS,
        TensorType::IQ3_XXS => TensorType::IQ4_XS,
        TensorType::Q2_K => TensorType::Q3_K,
        TensorType::IQ3_S | TensorType::Q3_K => TensorType::Q4_K,
        TensorType::IQ4_XS | TensorType::Q4_K => TensorType::Q5_K,
        TensorType::Q5_K => TensorType::Q6_K,
        TensorType::IQ4_NL | TensorType::Q4_0 => TensorType::Q5_0,
        TensorType::Q4_1 => TensorType::Q5_1,
        TensorType::Q5_0 | TensorType::Q5_1 | TensorType::Q6_K => TensorType::Q8_0,
        _ => return None,
    })
}

/// Types that hold noise where nothing is known of what matters: tensors with experts that nothing reached are kept at
/// one that needs no importance. Returns what was changed, for people.
pub(super) fn keep_unknown_experts(
    tensors: &[Tensor],
    importance: &Importance,
    needs: impl Fn(&Tensor, TensorType) -> bool,
    types: &mut [TensorType],
) -> Vec<String> {
    let mut notes = Vec::new();
    for (tensor, chosen) in tensors.iter().zip(types) {
        let unknown = importance.never_reached(&tensor.name);
        if unknown.is_empty() || !needs(tensor, *chosen) {
            continue;
        }
        let safe = [TensorType::Q4_K, TensorType::Q5_0];
        let columns = tensor.columns();
        let safe =
            safe.into_iter().find(|t| columns.is_multiple_of(t.block_len())).unwrap_or(TensorType::F16);
        let experts: Vec<String> = unknown.iter().map(u32::to_string).collect();
        notes.push(format!(
            "`{}` stays at {safe} instead of {chosen}: no token of the calibration reached its experts {}",
            tensor.name,
            experts.join(", ")
        ));
        *chosen = safe;
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::choose::{Chooser, Wishes};
    use crate::quantize::precision::FileType;

    fn tensors(layers: usize, experts: u64) -> Vec<Tensor> {
        let tensor = |name: String, dimensions: &[u64]| Tensor {
            name,
            tensor_type: TensorType::F32,
            dimensions: dimensions.to_vec(),
        };
        let mut all = vec![
            tensor("token_embd.weight".into(), &[512, 1024]),
            tensor("output.weight".into(), &[512, 1024]),
        ];
        for layer in 0..layers {
            for (name, columns, rows) in
                [("attn_q", 512, 512), ("attn_k", 512, 128), ("attn_v", 512, 128), ("attn_output", 512, 512)]
            {
                all.push(tensor(format!("blk.{layer}.{name}.weight"), &[columns, rows]));
            }
            for (name, columns, rows) in
                [("ffn_gate", 512, 1024), ("ffn_up", 512, 1024), ("ffn_down", 1024, 512)]
            {
                match experts {
                    0 => all.push(tensor(format!("blk.{layer}.{name}.weight"), &[columns, rows])),
                    n => {
                        all.push(tensor(format!("blk.{layer}.{name}_exps.weight"), &[columns, rows, n]));
                        all.push(tensor(format!("blk.{layer}.{name}_shexp.weight"), &[columns, rows]));
                    }
                }
            }
        }
        all
    }

    struct Planned {
        tensors: Vec<Tensor>,
        preset: Vec<TensorType>,
        types: Vec<TensorType>,
        reasons: Vec<String>,
    }

    impl Planned {
        fn of(
            file_type: FileType,
            layers: usize,
            experts: u64,
            key_value_heads: u64,
            windowed: &[bool],
        ) -> Self {
            let tensors = tensors(layers, experts);
            let build =
                Build { family: "llama".into(), layers: layers as i64, heads: 8, key_value_heads, experts };
            let choose = |pure: bool| -> Vec<TensorType> {
                let wishes = Wishes { pure, ..Wishes::default() };
                let names = tensors.iter().map(|t| t.name.as_str());
                let mut chooser = Chooser::new(&build, file_type, &wishes, true, names);
                tensors
                    .iter()
                    .map(|t| chooser.choose(&t.name, t.tensor_type, &t.dimensions).unwrap())
                    .collect()
            };
            let (preset, mut base) = (choose(false), choose(true));
            base[..2].copy_from_slice(&preset[..2]);
            let model =
                Model { build: &build, tensors: &tensors, windowed, importance: None, overrides: &[] };
            let (types, reasons) = spend(&model, &preset, &base);
            Self { tensors, preset, types, reasons }
        }

        fn bytes(&self, types: &[TensorType]) -> u64 {
            self.tensors.iter().zip(types).map(|(t, to)| to.tensor_bytes(&t.dimensions).unwrap()).sum()
        }

        fn bits(&self, name: &str) -> f64 {
            let at = self.tensors.iter().position(|t| t.name == name).unwrap();
            let tensor = &self.tensors[at];
            self.types[at].tensor_bytes(&tensor.dimensions).unwrap() as f64 * 8.0 / tensor.elements() as f64
        }
    }

    #[test]
    fn no_strategy_takes_more_bytes_than_the_preset() {
        for file_type in FileType::all() {
            for (experts, windowed) in
                [(0, vec![]), (0, vec![true, false, true, false]), (8, vec![]), (16, vec![])]
            {
                for key_value_heads in [1, 2, 4, 8] {
                    let planned = Planned::of(file_type, 16, experts, key_value_heads, &windowed);
                    assert!(
                        planned.bytes(&planned.types) <= planned.bytes(&planned.preset),
                        "{}",
                        file_type.name()
                    );
                    // Embeddings and output are as the mixture has them.
                    assert_eq!(planned.types[..2], planned.preset[..2]);
                }
            }
        }
    }

    #[test]
    fn each_family_has_its_own_parts_raised() {
        // Keys and values that serve four heads each.
        let shared = Planned::of(FileType::Q4_K_M, 16, 0, 2, &[]);
        assert_ne!(shared.types, shared.preset);
        for layer in 0..16 {
            assert!(shared.bits(&format!("blk.{layer}.attn_v.weight")) > 6.5, "{:?}", shared.reasons);
            assert!(shared.bits(&format!("blk.{layer}.attn_k.weight")) > 6.5);
        }
        assert!(shared.reasons[0].contains("4 heads of queries"), "{:?}", shared.reasons);
        // Layers that see everything, above those with a window.
        let windowed: Vec<bool> = (0..16).map(|layer| layer % 2 == 0).collect();
        let alternating = Planned::of(FileType::Q4_K_M, 16, 0, 8, &windowed);
        let down = |layer: usize| alternating.bits(&format!("blk.{layer}.ffn_down.weight"));
        assert!((1..16).step_by(2).all(|full| down(full) >= 5.5), "{:?}", alternating.reasons);
        assert!((0..16).step_by(2).map(down).sum::<f64>() < (1..16).step_by(2).map(down).sum::<f64>());
        // Experts that every token passes through, above those that few do.
        let experts = Planned::of(FileType::Q4_K_M, 16, 16, 8, &[]);
        let shared = experts.bits("blk.7.ffn_down_shexp.weight");
        assert!(shared > experts.bits("blk.7.ffn_down_exps.weight") && shared > 6.5, "{:?}", experts.reasons);
        assert!(experts.bits("blk.7.attn_q.weight") > 5.0);
    }

    #[test]
    fn what_every_layer_is_given_stays() {
        // Few bits: the mixture raises every `ffn_down` and every attention's output.
        let few = Planned::of(FileType::Q3_K_M, 16, 0, 4, &[]);
        for (tensor, (preset, chosen)) in few.tensors.iter().zip(few.preset.iter().zip(&few.types)) {
            if tensor.name.contains("ffn_down") || tensor.name.contains("attn_output") {
                let bits = |of: &TensorType| of.block_bytes() * 256 / of.block_len();
                assert!(bits(chosen) >= bits(preset).min(bits(&TensorType::Q4_K)), "{}", tensor.name);
            }
        }
        // More of them: it raises those of some layers, which are spent otherwise.
        let more = Planned::of(FileType::Q4_K_M, 16, 0, 4, &[]);
        assert!(more.bits("blk.15.ffn_down.weight") < 6.5 && more.types != more.preset);
    }

    #[test]
    fn without_a_mixture_there_is_nothing_to_spend() {
        let planned = Planned::of(FileType::Q8_0, 4, 0, 2, &[]);
        assert_eq!(planned.types, planned.preset);
        assert!(planned.reasons[0].contains("no mixture"), "{:?}", planned.reasons);
        assert_eq!(Strategy::named("architecture").unwrap().name(), "architecture");
        assert_eq!(Strategy::named("guess").unwrap_err().code, "invalid-option");
    }
}
