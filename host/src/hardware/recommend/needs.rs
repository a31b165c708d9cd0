//! How much memory a model needs on a device, computed from how it is built. A backend that is there is asked as well, and its word counts
//! where it is more.

use serde::Serialize;

use super::facts::{ModelFacts, TextFacts};

/// What a backend takes beside weights and cache, whatever the model: descriptions of graphs, tables, buffers of outputs.
const FIXED: u64 = 64 << 20;
/// What a model that is no model for text takes to compute, where nothing better is known.
const WORK: u64 = 256 << 20;
/// Bytes of activations for each element that passes from layer to layer and each token computed together: the ten or so floats that a
/// layer's widest products leave.
const ACTIVATIONS: u64 = 40;
/// Bytes of the mask of attention for each token computed together and each of the context: as floats, and halved.
const MASK: u64 = 6;
/// Heap of a vocabulary for each of its words.
const WORD: u64 = 400;
/// Caches are cut into pieces of so many tokens.
const PIECE: u64 = 256;

/// How keys and values are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KvType {
    F16,
    Q8,
}

impl KvType {
    /// As llama.cpp names it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Q8 => "q8_0",
        }
    }

    /// Bytes of so many numbers: two for each, or blocks of 32 in 34 bytes.
    const fn bytes(self, numbers: u64) -> u64 {
        match self {
            Self::F16 => numbers.saturating_mul(2),
            Self::Q8 => numbers.saturating_mul(34).div_ceil(32),
        }
    }
}

/// Which layers lie on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layers {
    /// The device is the processor.
    None,
    /// Some, but not all.
    Some(u32),
    /// All of them, and the output.
    All,
}

/// A way to load a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) layers: Layers,
    pub(super) context: u32,
    pub(super) slots: u32,
    pub(super) kv: KvType,
    pub(super) micro: u32,
}

/// Bytes that a model needs on a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Need {
    /// The device.
    pub device: String,
    /// Its weights.
    pub weights: u64,
    /// Keys and values of all requests.
    pub cache: u64,
    /// What it computes in, and what its backend said it needs beyond all this.
    pub scratch: u64,
}

impl Need {
    /// All of it.
    pub const fn total(&self) -> u64 {
        self.weights.saturating_add(self.cache).saturating_add(self.scratch)
    }
}

/// What a model needs on a device, and then on the processor when that is another one.
pub(super) fn needs(model: &ModelFacts, way: &Way) -> [Bytes; 2] {
    let Some(text) = &model.text else {
        return [Bytes { weights: model.bytes, cache: 0, scratch: WORK }, Bytes::default()];
    };
    let all = u64::from(text.layers);
    let words = u64::from(text.vocabulary) * WORD;
    let micro = if text.encoder { way.context } else { way.micro };
    let row = u64::from(text.hidden_size) * ACTIVATIONS + u64::from(way.context) * MASK;
    let work = u64::from(micro).saturating_mul(row) + FIXED;
    let cache = cache(text, way);
    let embeddings = embeddings(model, text);
    match way.layers {
        Layers::None => [Bytes { weights: model.bytes, cache, scratch: work + words }, Bytes::default()],
        // Rows of the embeddings are looked up in main memory; an output that is the same lies on the GPU as well.
        Layers::All => [
            Bytes { weights: model.bytes, cache, scratch: work },
            Bytes { weights: embeddings, cache: 0, scratch: FIXED + words },
        ],
        Layers::Some(some) => {
            let some = u64::from(some).min(all);
            let part = |bytes: u64| (u128::from(bytes) * u128::from(some)).div_ceil(u128::from(all)) as u64;
            let there = Bytes { weights: part(model.bytes - embeddings), cache: part(cache), scratch: work };
            let here = Bytes {
                weights: model.bytes - there.weights,
                cache: cache - there.cache,
                scratch: work + words,
            };
            [there, here]
        }
    }
}

/// Bytes on one device.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bytes {
    pub(super) weights: u64,
    pub(super) cache: u64,
    pub(super) scratch: u64,
}

impl Bytes {
    pub(super) const fn total(self) -> u64 {
        self.weights.saturating_add(self.cache).saturating_add(self.scratch)
    }

    pub(super) fn on(self, device: &str) -> Need {
        let Self { weights, cache, scratch } = self;
        Need { device: device.to_owned(), weights, cache, scratch }
    }
}

/// Bytes of embeddings and output.
pub(super) fn embeddings(model: &ModelFacts, text: &TextFacts) -> u64 {
    share(model.bytes, text.embeddings, text.parameters)
}

/// The part of some bytes that so many of all parameters take; all of them at most.
pub(super) fn share(bytes: u64, some: u64, all: u64) -> u64 {
    let part = u128::from(bytes) * u128::from(some.min(all)) / u128::from(all.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// Bytes of keys and values of all requests.
pub(super) fn cache(text: &TextFacts, way: &Way) -> u64 {
    if text.encoder {
        return 0;
    }
    let context = u64::from(way.context).next_multiple_of(PIECE);
    let windowed = u64::from(text.windowed_layers.min(text.layers));
    // A window's cache has room for what is computed together beside what is looked back on.
    let seen = text
        .window
        .map_or(context, |window| (u64::from(window) + u64::from(way.micro)).next_multiple_of(PIECE));
    let tokens = (u64::from(text.layers) - windowed) * context + windowed * seen.min(context);
    let numbers = 2 * u64::from(text.key_value_heads) * u64::from(text.head_size);
    way.kv.bytes(tokens.saturating_mul(numbers)).saturating_mul(u64::from(way.slots))
}
