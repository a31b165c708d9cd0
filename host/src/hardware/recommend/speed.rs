//! How fast a model can be at most: each token that is written reads all weights that it passes through.

use serde::Serialize;

use super::needs::{Layers, Way, cache, embeddings, share};
use super::{Place, Question};

/// Tokens per second that a model cannot exceed for one request, whatever computes: bandwidth over bytes for a token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bound {
    /// At the begin of a text.
    pub at_begin: f64,
    /// At the end of a full context, whose keys and values are read as well.
    pub at_end: f64,
    /// Bytes that are read for a token at the begin.
    pub bytes: u64,
    /// The memories that they are read from, the device's first.
    pub memories: Vec<Bandwidth>,
}

/// How fast a memory is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bandwidth {
    /// Whose it is.
    pub device: String,
    /// GB/s.
    pub bandwidth: u32,
    /// Who says so.
    pub source: String,
    /// Whether it is only what such machines come with.
    pub class: bool,
}

/// The bound of a model that is loaded in this way; `None` where a memory that it reads is not known.
pub(super) fn bound(question: &Question<'_>, place: &Place, way: &Way) -> Option<Bound> {
    let text = question.model.text.as_ref().filter(|text| !text.encoder)?;
    // Of embeddings that are no output only a row is read.
    let looked_up = if text.tied { 0 } else { u64::from(text.vocabulary) * u64::from(text.hidden_size) };
    let bytes = share(question.model.bytes, text.active.saturating_sub(looked_up), text.parameters);
    let there = match way.layers {
        Layers::Some(some) => {
            let of_layers = bytes.saturating_sub(embeddings(question.model, text));
            share(of_layers, u64::from(some), u64::from(text.layers))
        }
        Layers::All | Layers::None => bytes,
    };
    let one = cache(text, &Way { slots: 1, ..*way });
    let one_there = match way.layers {
        Layers::Some(some) => share(one, u64::from(some), u64::from(text.layers)),
        Layers::All | Layers::None => one,
    };
    let memories = memories(question, place, there < bytes)?;
    let seconds = |there: u64, here: u64| {
        let time = |bytes: u64, memory: Option<&Bandwidth>| {
            memory.map_or(0.0, |m| bytes as f64 / 1e9 / f64::from(m.bandwidth))
        };
        time(there, memories.first()) + time(here, memories.last())
    };
    let here = bytes - there;
    let per_second = |seconds: f64| (10.0 / seconds.max(1e-6)).round() / 10.0;
    Some(Bound {
        at_begin: per_second(seconds(there, here)),
        at_end: per_second(seconds(there + one_there, here + one - one_there)),
        bytes,
        memories,
    })
}

/// The memory of a place, and that of the processor when it is read too and is another one.
fn memories(question: &Question<'_>, place: &Place, both: bool) -> Option<Vec<Bandwidth>> {
    let Question { machine, profiles, .. } = question;
    let of_processor = || {
        let known = profiles.processor(&machine.cpu)?;
        Some(Bandwidth {
            device: "cpu".to_owned(),
            bandwidth: known.bandwidth,
            source: known.source.clone(),
            class: known.class,
        })
    };
    let Some(gpu) = place.gpu else {
        let own = profiles.processor(&machine.cpu).and_then(|known| known.gpu.as_ref());
        // How fast the memory of another GPU is nobody tells.
        let known = place.device == "cpu" || own == Some(&place.device);
        let memory = of_processor().filter(|_| known)?;
        return Some(vec![Bandwidth { device: place.device.clone(), ..memory }]);
    };
    let known = profiles.gpu(machine.gpus.devices.get(gpu)?)?;
    let (bandwidth, source) = (known.bandwidth, known.source.clone());
    let mut memories = vec![Bandwidth { device: place.device.clone(), bandwidth, source, class: false }];
    if both && !known.unified {
        memories.push(of_processor()?);
    }
    Some(memories)
}
