//! A recommendation for people: a table, the reasons, and what to paste.

use std::fmt;

use serde_json::{Map, Value};

use super::needs::{KvType, Layers};
use super::search::{AMPLE, Found, SLOTS, USABLE};
use super::{BATCH, Question, Recommendation, Shortage};
use crate::hardware::render::bytes;

/// Width of the left column.
const LABEL: usize = 12;

/// Why a way was taken.
pub(super) fn reasons(question: &Question<'_>, found: &Found, threads: u32) -> Vec<String> {
    let Question { machine, model, profiles, .. } = question;
    let (way, place) = (&found.way, &question.places[found.place]);
    let mut reasons = Vec::new();
    let gpu = place.gpu.and_then(|index| machine.gpus.devices.get(index));
    let told = machine.devices.with_memory().find(|device| device.id == place.device);
    let name = gpu.map(|gpu| &gpu.name).or(told.map(|device| &device.name));
    let named = name.map_or_else(|| place.device.clone(), |name| format!("{} ({name})", place.device));
    let layers = model.text.as_ref().map_or(0, |text| text.layers);
    reasons.push(match way.layers {
        Layers::All => format!("device: all of it fits on {named}"),
        Layers::Some(some) => {
            format!("gpu_layers: {some} of {layers} layers fit on {named}; the processor computes the others")
        }
        Layers::None => {
            match (&machine.gpus.why_none, question.places.iter().any(|other| other.device != "cpu")) {
                (_, true) => "device: not one layer fits on a GPU beside what it computes in".to_owned(),
                (Some(why), false) if machine.system.os != "macos" => format!("device: no GPU: {why}"),
                _ => "device: no backend here has a GPU".to_owned(),
            }
        }
    });
    if name.is_none() && place.device != "cpu" {
        let (share, source) = profiles.shared(machine.memory.total);
        reasons.push(format!("memory: a GPU that shares it may use {} of it ({source})", bytes(share)));
    }
    if let Some(text) = &model.text {
        reasons.push(match way.context {
            context if context == text.context => {
                format!("context_length: all {context} tokens that it was trained with")
            }
            context if context == USABLE && way_is_short(found) => {
                format!(
                    "context_length: {context} of {} tokens, since something else is given up for it",
                    text.context
                )
            }
            context if context == AMPLE && way.slots < SLOTS => {
                format!(
                    "context_length: {context} of {} tokens; memory beyond goes to requests at the same time",
                    text.context
                )
            }
            context => {
                format!("context_length: {context} of {} tokens; twice as many do not fit", text.context)
            }
        });
        if way.kv == KvType::Q8 {
            reasons.push(format!(
                "kv_type: in f16 a context of {} tokens would not fit",
                USABLE.min(text.context)
            ));
        }
        if way.micro != BATCH[1] && !text.encoder {
            reasons.push(
                "batch_size: smaller than usual, since what is computed at once needs memory".to_owned(),
            );
        }
        if way.slots < SLOTS {
            reasons.push(format!(
                "parallel: keys and values of more than {} at the same time do not fit",
                way.slots
            ));
        }
    }
    let cpu = &machine.cpu;
    let fast = cpu.kinds.as_ref().map(|kinds| kinds.performance.count);
    reasons.push(if threads < machine.recommended_threads() || fast == Some(threads) {
        let cores = cpu.physical_cores;
        format!("threads: {threads} fast cores of {cores}; the others would be waited for")
    } else if threads < cpu.usable_cores {
        format!("threads: the control group grants the time of {threads}")
    } else {
        format!("threads: one for each of the {threads} cores that this process may use")
    });
    reasons
}

/// Whether something was given up to have a usable context.
fn way_is_short(found: &Found) -> bool {
    matches!(found.way.layers, Layers::Some(_)) || found.way.kv == KvType::Q8 || found.way.micro != BATCH[1]
}

fn row(f: &mut fmt::Formatter<'_>, label: &str, text: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{label:LABEL$}{text}")
}

impl fmt::Display for Recommendation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        row(f, "Model", &self.path)?;
        row(f, "Backend", format_args!("{} on {}", self.backend, self.device))?;
        if let Some(text) = &self.text {
            if let Some(layers) = text.gpu_layers {
                row(f, "GPU layers", layers)?;
            }
            let requests = match text.slots {
                1 => "one request at a time".to_owned(),
                slots => format!("for each of {slots} requests at the same time"),
            };
            row(f, "Context", format_args!("{} tokens, {requests}", text.context_length))?;
            if let Some(kind) = text.kv_type {
                row(f, "Cache", format_args!("keys and values in {kind}"))?;
            }
            if let (Some(batch), Some(micro)) = (text.batch_size, text.micro_batch_size) {
                row(f, "Batches", format_args!("{batch} tokens, {micro} computed together"))?;
            }
        }
        row(f, "Threads", self.threads)?;
        for (index, room) in self.memory.iter().enumerate() {
            let need = &room.need;
            let parts = [(need.weights, "weights"), (need.cache, "cache"), (need.scratch, "to compute in")];
            let parts: Vec<String> = parts
                .into_iter()
                .filter(|(size, _)| *size > 0)
                .map(|(size, what)| format!("{} {what}", bytes(size)))
                .collect();
            let label = if index == 0 { "Memory" } else { "" };
            let (total, room) = (bytes(need.total()), bytes(room.room));
            row(f, label, format_args!("{}: {total} of {room}: {}", need.device, parts.join(", ")))?;
        }
        if let Some(bound) = &self.bound {
            let read = bytes(bound.bytes);
            row(
                f,
                "Bound",
                format_args!(
                    "at most {:.1} tokens/s, {:.1} at the end of the context: each token reads {read}",
                    bound.at_begin, bound.at_end
                ),
            )?;
            for memory in &bound.memories {
                let guess = if memory.class { "if it has what such machines come with: " } else { "" };
                let (device, speed, source) = (&memory.device, memory.bandwidth, &memory.source);
                row(f, "", format_args!("{device} reads {speed} GB/s; {guess}{source}"))?;
            }
        }
        for (index, reason) in self.reasons.iter().enumerate() {
            row(f, if index == 0 { "Why" } else { "" }, reason)?;
        }
        write!(f, "\n{}", self.entry())
    }
}

impl Recommendation {
    /// The model's entry for `pajamas.toml`.
    pub fn entry(&self) -> String {
        let text = |text: &str| Value::from(text).to_string();
        let mut lines = vec![
            "[[models]]".to_owned(),
            format!("id = {}", text(&self.id)),
            format!("path = {}", text(&self.path)),
        ];
        lines.extend(self.task.map(|task| format!("task = {}", text(task.name()))));
        lines.push(format!("backend = {}", text(&self.backend)));
        lines.push(format!("device = {}", text(&self.device)));
        lines.push(format!("options = {}", table(&self.options())));
        lines.join("\n") + "\n"
    }
}

/// Texts and numbers, which JSON and TOML write alike.
fn table(options: &Map<String, Value>) -> String {
    let entries: Vec<String> = options.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    format!("{{ {} }}", entries.join(", "))
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [needs, room, missing] = [self.needs, self.room, self.missing].map(bytes);
        let device = &self.device;
        write!(
            f,
            "at the very least it needs {needs}, and models may hold {room} on {device}: {missing} are missing"
        )
    }
}

impl Shortage {
    /// What would fit.
    pub fn help(&self) -> String {
        match &self.smaller {
            Some((precision, size)) => format!(
                "in {precision} it would fit, with about {} of weights: `pajamas convert` makes that",
                bytes(*size)
            ),
            None => "no precision of it would fit: take a smaller model, or free or add memory".to_owned(),
        }
    }
}
