//! What a session holds, per device: the same arithmetic before loading (on a simulated context) and after.

use pajamas_llama_cpp::{BufferMemory, DeviceKind};
use pajamas_plugin_api::{Memory, SlotsInfo};

use crate::files::ModelFiles;
use crate::part::Part;

/// What a session holds, awake and asleep.
pub(crate) struct Held {
    pub awake: Vec<Memory>,
    pub asleep: Vec<Memory>,
    /// What of it belongs to each request, where that can be given back.
    pub slots: Option<SlotsInfo>,
}

impl Held {
    /// What it holds awake with so many slots.
    pub fn with(&self, slots: u32) -> Vec<Memory> {
        let mut memory = self.awake.clone();
        if let Some(SlotsInfo { slots: all, each }) = &self.slots {
            for less in each {
                let device = memory.iter_mut().filter(|m| m.device == less.device);
                device.for_each(|m| m.kv -= less.kv * u64::from(all.saturating_sub(slots)));
            }
        }
        memory
    }
}

/// The parts of the cache that belong to each of so many requests.
pub(crate) fn slots(memory: &[Memory], slots: u32) -> SlotsInfo {
    let part = |device: &Memory| {
        let kv = device.kv / u64::from(slots.max(1));
        (kv > 0).then(|| Memory { device: device.device.clone(), kv, ..Memory::default() })
    };
    SlotsInfo { slots, each: memory.iter().filter_map(part).collect() }
}

/// Heap that llama.cpp takes for one token of a vocabulary, and for one merge rule: strings, scores and hash tables.
const TOKEN_BYTES: u64 = 200;
const MERGE_BYTES: u64 = 180;
/// Copies of the compute graph's description that a context keeps, whatever the model.
const GRAPH_BYTES: u64 = 1 << 20;

/// Adds up buffers, the processor's memory first. Weights on the processor may be the mapped file rather than a copy.
pub(crate) fn memory(buffers: &[BufferMemory], part: &Part) -> Vec<Memory> {
    let (files, mapped) = (&part.files, part.mapped());
    let mut devices = vec![Memory { device: "cpu".into(), ..Memory::default() }];
    let offloaded = buffers.iter().any(|b| is_gpu(b) && b.weights > 0);
    for buffer in buffers {
        let id =
            if is_gpu(buffer) { buffer.device.map_or_else(String::new, |d| d.id()) } else { "cpu".into() };
        let index = devices.iter().position(|m| m.device == id).unwrap_or_else(|| {
            devices.push(Memory { device: id, ..Memory::default() });
            devices.len() - 1
        });
        let device = &mut devices[index];
        device.weights += match is_plain(buffer) && buffer.weights > 0 && mapped && !offloaded {
            // The file is mapped in one piece, with the originals of weights that were copied for speed.
            true => files.data_bytes(),
            false => buffer.weights,
        };
        device.kv += buffer.cache;
        device.scratch += buffer.compute;
    }
    // Results are copied out: a row of logits and one of an embedding for each output.
    let row = (files.vocab_size() + files.main().family_u64("embedding_length").unwrap_or(0)) * 4;
    devices[0].scratch += vocabulary(files) + GRAPH_BYTES + u64::from(part.context.outputs) * row;
    // Adapters lie with the weights they change; where those are on a GPU, this is the one it has most of.
    if let Some(device) = devices.iter_mut().max_by_key(|d| d.weights) {
        device.weights += part.adapter_bytes();
    }
    devices
}

/// What is left of that without contexts: caches and buffers are theirs.
pub(crate) fn asleep<'p>(memory: &[Memory], parts: impl IntoIterator<Item = &'p Part>) -> Vec<Memory> {
    let bare = |device: &Memory| Memory { kv: 0, scratch: 0, ..device.clone() };
    let mut asleep: Vec<Memory> = memory.iter().map(bare).collect();
    let words = parts.into_iter().flat_map(|part| vocabulary_memory(&part.files)).collect();
    add(&mut asleep, words);
    asleep
}

/// Adds what another part of the same load holds.
pub(crate) fn add(memory: &mut Vec<Memory>, other: Vec<Memory>) {
    for other in other {
        match memory.iter_mut().find(|m| m.device == other.device) {
            Some(device) => {
                device.weights += other.weights;
                device.kv += other.kv;
                device.scratch += other.scratch;
            }
            None => memory.push(other),
        }
    }
}

/// What a vocabulary alone holds.
pub(crate) fn vocabulary_memory(files: &ModelFiles) -> Vec<Memory> {
    vec![Memory { device: "cpu".into(), scratch: vocabulary(files), ..Memory::default() }]
}

fn vocabulary(files: &ModelFiles) -> u64 {
    files.vocab_size() * TOKEN_BYTES + files.list_len("tokenizer.ggml.merges") * MERGE_BYTES
}

fn is_gpu(buffer: &BufferMemory) -> bool {
    // A buffer in the processor's memory that a GPU can reach counts where it is.
    buffer.device.is_some_and(|d| d.kind() == DeviceKind::Gpu) && !buffer.buffer.ends_with("_Host")
}

/// Whether the buffer holds weights as the file does, rather than rearranged for the processor.
fn is_plain(buffer: &BufferMemory) -> bool {
    matches!(buffer.buffer.as_str(), "CPU" | "CPU_Mapped")
}
