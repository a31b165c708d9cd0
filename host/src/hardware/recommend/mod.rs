//! What to load a model with on a machine: backend, device, layers, threads, batches, context, cache. Pure: it looks at nothing but what
//! is known of both, so that every machine's answer is a test.
//!
//! Of all ways that fit into memory the best is taken, by this order: a usable context; all layers on a GPU; keys and values in 16 bits;
//! usual batches; a longer context; more layers on the GPU; more requests at the same time; a context yet longer. What is given up for what
//! comes before it is bounded such that more memory never leads to a shorter context.

mod facts;
mod needs;
mod profiles;
mod render;
mod search;
mod speed;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Hardware;
use crate::config;

pub use facts::{ModelFacts, TextFacts};
pub use needs::Need;
pub use profiles::Profiles;
pub use speed::{Bandwidth, Bound};

use needs::{Layers, Way};

/// Prompt tokens handed over at once, and computed together, where memory does not ask for fewer.
const BATCH: [u32; 2] = [2048, 512];
/// The same where it does.
const SMALL_BATCH: [u32; 2] = [512, 128];

/// All that a recommendation is made of.
#[derive(Debug, Clone, Copy)]
pub struct Question<'q> {
    /// The machine.
    pub machine: &'q Hardware,
    /// The model.
    pub model: &'q ModelFacts,
    /// What is known of machines beyond what they say.
    pub profiles: &'q Profiles,
    /// What models may hold.
    pub memory: &'q config::Memory,
    /// Where it could run.
    pub places: &'q [Place],
    /// Bytes by device that its backend said it needs beyond what is computed here.
    pub more: &'q BTreeMap<String, u64>,
}

/// A backend's device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The backend, as the configuration names it.
    pub backend: String,
    /// The device, for example `cuda:0`.
    pub device: String,
    /// Which of the machine's GPUs that is, by its place in the list.
    pub gpu: Option<usize>,
}

impl Place {
    /// Where models of a format could run on a machine, were every plugin there.
    pub fn assumed(machine: &Hardware, profiles: &Profiles, format: &str) -> Vec<Self> {
        let backend = if format == "onnx" { "onnxruntime" } else { format };
        let place = |device: String, gpu| Self { backend: backend.to_owned(), device, gpu };
        let mut places = Vec::new();
        // What ONNX Runtime has of GPUs is its library's affair.
        if format != "onnx" {
            let gpus = &machine.gpus.devices;
            places.extend((0..gpus.len()).map(|index| place(format!("cuda:{index}"), Some(index))));
            let own = profiles.processor(&machine.cpu).and_then(|processor| processor.gpu.clone());
            places.extend(own.filter(|_| machine.system.os == "macos").map(|device| place(device, None)));
            let others = machine.devices.with_memory();
            let others = others.filter(|device| gpus.iter().all(|gpu| gpu.name != device.name));
            places.extend(others.map(|device| place(device.id.clone(), None)));
        }
        places.push(place("cpu".to_owned(), None));
        places
    }
}

/// What to load a model with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recommendation {
    /// The model's id for the configuration.
    pub id: String,
    /// Where it lies.
    pub path: String,
    /// What it is for, where that is known.
    pub task: Option<config::Task>,
    /// The backend.
    pub backend: String,
    /// The device.
    pub device: String,
    /// What of it only a model for text has.
    pub text: Option<TextSettings>,
    /// Threads for computing.
    pub threads: u32,
    /// What it needs on each device, and what there is.
    pub memory: Vec<Room>,
    /// Tokens per second that it cannot exceed, where the machine's memory is known.
    pub bound: Option<Bound>,
    /// Why it is so.
    pub reasons: Vec<String>,
}

/// What to load a model for text with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TextSettings {
    /// Layers on the GPU; `None` for all of them, or where there is none.
    pub gpu_layers: Option<u32>,
    /// Tokens of one request, prompt and answer together.
    pub context_length: u32,
    /// Requests computed at the same time.
    pub slots: u32,
    /// The type of keys and values; `None` for models that keep none.
    pub kv_type: Option<&'static str>,
    /// The most prompt tokens handed over at once; `None` for models that read a text at once.
    pub batch_size: Option<u32>,
    /// Tokens computed together.
    pub micro_batch_size: Option<u32>,
}

/// What is needed of a device, and what there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Room {
    /// The device and what is needed, in bytes.
    #[serde(flatten)]
    pub need: Need,
    /// Bytes that models may hold there now.
    pub room: u64,
}

/// How much is missing for a model to fit anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shortage {
    /// Where the least is missing.
    pub device: String,
    /// Bytes that it needs there and on the processor, at the very least.
    pub needs: u64,
    /// Bytes that there are.
    pub room: u64,
    /// Bytes that are missing.
    pub missing: u64,
    /// The most precise form that would fit, with its bytes.
    pub smaller: Option<(String, u64)>,
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It fits like this.
    Fits(Box<Recommendation>),
    /// It fits nowhere.
    Nowhere(Shortage),
}

/// What to load a model with on a machine.
pub fn recommend(question: &Question<'_>) -> Answer {
    let found = match search::best(question) {
        Ok(found) => found,
        Err(shortage) => return Answer::Nowhere(shortage),
    };
    let Question { machine, model, profiles, .. } = question;
    let place = &question.places[found.place];
    let processor = profiles.processor(&machine.cpu);
    let fast = processor.and_then(|processor| processor.fast_cores).unwrap_or(u32::MAX);
    let threads = machine.recommended_threads().min(fast);
    let way = &found.way;
    let text = model.text.as_ref().map(|text| {
        let [batch, micro] = if way.micro == SMALL_BATCH[1] { SMALL_BATCH } else { BATCH };
        let partial = match way.layers {
            Layers::Some(layers) => Some(layers),
            Layers::All | Layers::None => None,
        };
        TextSettings {
            gpu_layers: partial,
            context_length: way.context,
            slots: way.slots,
            kv_type: (!text.encoder).then(|| way.kv.name()),
            batch_size: (!text.encoder).then_some(batch),
            micro_batch_size: (!text.encoder).then_some(micro),
        }
    });
    Answer::Fits(Box::new(Recommendation {
        id: model.id.clone(),
        path: model.path.clone(),
        task: model.task,
        backend: place.backend.clone(),
        device: place.device.clone(),
        text,
        threads,
        bound: speed::bound(question, place, way),
        reasons: render::reasons(question, &found, threads),
        memory: found.memory,
    }))
}

impl Recommendation {
    /// The backend's options, as the configuration has them.
    pub fn options(&self) -> Map<String, Value> {
        let mut options = Map::new();
        let mut set = |name: &str, value: Value| drop(options.insert(name.to_owned(), value));
        set("threads", json!(self.threads));
        if let Some(text) = &self.text {
            set("context_length", json!(text.context_length));
            set("parallel", json!(text.slots));
            for (name, number) in [
                ("batch_size", text.batch_size),
                ("micro_batch_size", text.micro_batch_size),
                ("gpu_layers", text.gpu_layers),
            ] {
                if let Some(number) = number {
                    set(name, json!(number));
                }
            }
            if let Some(kind) = text.kv_type {
                set("kv_type_k", json!(kind));
                set("kv_type_v", json!(kind));
            }
        }
        options
    }
}

impl Way {
    /// The one of a model that is no model for text.
    const WHOLE: Self =
        Self { layers: Layers::None, context: 0, slots: 1, kv: needs::KvType::F16, micro: BATCH[1] };
}
