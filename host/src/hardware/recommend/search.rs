//! All ways to load a model, and the best that fits.

use std::cmp::Reverse;

use super::needs::{Bytes, KvType, Layers, Way, needs};
use super::{BATCH, ModelFacts, Place, Question, Room, SMALL_BATCH, Shortage};

/// A context that conversations can be had in, where the model has so much.
pub(super) const USABLE: u32 = 8192;
/// The longest context that is worth more than requests at the same time.
pub(super) const AMPLE: u32 = 32_768;
/// Requests at the same time that are worth more than a context yet longer.
pub(super) const SLOTS: u32 = 4;
/// The shortest context.
const SHORTEST: u32 = 512;
/// The longest: no model was trained with more, and the host's options go no further.
const LONGEST: u32 = 1 << 24;

/// What makes one way better than another, the most important first.
type Key = (u32, bool, bool, bool, u32, u32, u32, u32, u64, Reverse<usize>);

/// The best way that fits.
#[derive(Debug)]
pub(super) struct Found {
    key: Key,
    /// Which of the places.
    pub(super) place: usize,
    pub(super) way: Way,
    pub(super) memory: Vec<Room>,
}

/// The memory of a place.
struct Space {
    device: String,
    /// Bytes on the device.
    there: u64,
    /// Bytes on the processor.
    here: u64,
    /// Whether both are the same memory.
    shared: bool,
    /// How fast the device's memory is, in GB/s.
    speed: u64,
    gpu: bool,
}

/// The best way to load a model, of all that fit.
pub(super) fn best(question: &Question<'_>) -> Result<Found, Shortage> {
    let spaces: Vec<Option<Space>> = question.places.iter().map(|place| space(question, place)).collect();
    fitting(question, &spaces).ok_or_else(|| shortage(question, &spaces))
}

/// The best way that fits into these spaces.
fn fitting(question: &Question<'_>, spaces: &[Option<Space>]) -> Option<Found> {
    let any_gpu = spaces.iter().flatten().any(|space| space.gpu);
    let mut best: Option<Found> = None;
    for (place, space) in
        spaces.iter().enumerate().filter_map(|(place, space)| Some((place, space.as_ref()?)))
    {
        for way in ways(question.model, space.gpu) {
            // A model that is on no GPU although there is one is as good as one that is there in part.
            let whole = way.layers == Layers::All || !any_gpu;
            let Some(key) = key(question.model, &way, whole, space, place) else { continue };
            if best.as_ref().is_some_and(|best| best.key >= key) {
                continue;
            }
            let needed = needs(question.model, &way);
            if space.lacks(question, needed) == 0 {
                best = Some(Found { key, place, way, memory: space.rooms(question, needed) });
            }
        }
    }
    best
}

/// How good a way is; `None` for one that gives up more than it should for what it gains. Of a way that is worse in any of the
/// first places the context goes no further than usable, and of one with fewer requests no further than ample: who has more
/// memory gets these places, and not a shorter context.
fn key(model: &ModelFacts, way: &Way, whole: bool, space: &Space, place: usize) -> Option<Key> {
    let tail = (space.speed, Reverse(place));
    let Some(text) = &model.text else {
        return Some((0, space.gpu, true, true, 0, 0, 0, 0, tail.0, tail.1));
    };
    let (f16, usual) = (way.kv == KvType::F16, way.micro == BATCH[1]);
    let usable = USABLE.min(text.context);
    let most = match (whole && f16 && usual, way.slots == SLOTS) {
        (false, _) => usable,
        (true, false) => AMPLE,
        (true, true) => u32::MAX,
    };
    let layers = match way.layers {
        Layers::None => 0,
        Layers::Some(some) => some,
        Layers::All => text.layers,
    };
    (way.context <= most).then(|| {
        let ample = way.context.min(AMPLE);
        (way.context.min(usable), whole, f16, usual, ample, layers, way.slots, way.context, tail.0, tail.1)
    })
}

/// The ways to load a model on a device.
fn ways(model: &ModelFacts, gpu: bool) -> Vec<Way> {
    let Some(text) = &model.text else {
        let layers = if gpu { Layers::All } else { Layers::None };
        return vec![Way { layers, ..Way::WHOLE }];
    };
    let layers: Vec<Layers> = match gpu {
        true => (1..text.layers).map(Layers::Some).chain([Layers::All]).collect(),
        false => vec![Layers::None],
    };
    let mut ways = Vec::new();
    let kinds: &[KvType] = if text.encoder { &[KvType::F16] } else { &[KvType::F16, KvType::Q8] };
    let batches: &[u32] = if text.encoder { &BATCH[1..] } else { &[BATCH[1], SMALL_BATCH[1]] };
    for context in contexts(text.context) {
        for (slots, layers) in (1..=SLOTS).flat_map(|slots| layers.iter().map(move |layers| (slots, *layers)))
        {
            for (kv, micro) in kinds.iter().flat_map(|kv| batches.iter().map(|micro| (*kv, *micro))) {
                ways.push(Way { layers, context, slots, kv, micro });
            }
        }
    }
    ways
}

/// Powers of two up to what the model was trained with, and that.
fn contexts(trained: u32) -> Vec<u32> {
    let trained = trained.min(LONGEST);
    let powers = std::iter::successors(Some(SHORTEST), |context| context.checked_mul(2));
    powers.take_while(|context| *context < trained).chain([trained]).collect()
}

/// The memory of a place; `None` where it is not known.
fn space(question: &Question<'_>, place: &Place) -> Option<Space> {
    let Question { machine, profiles, memory, .. } = question;
    let main = &machine.memory;
    let free = if main.available > 0 { main.available } else { main.total };
    let here = memory.budget("cpu", free);
    let processor = profiles.processor(&machine.cpu);
    let speed = |bandwidth: Option<u32>| u64::from(bandwidth.unwrap_or(0));
    let (there, shared, speed) = match place.gpu.map(|index| machine.gpus.devices.get(index)) {
        Some(gpu) => {
            let gpu = gpu.filter(|gpu| gpu.memory_total > 0)?;
            let known = profiles.gpu(gpu);
            let shared = known.is_some_and(|known| known.unified);
            let there = memory.budget(&place.device, gpu.memory_free);
            (there, shared, speed(known.map(|known| known.bandwidth)))
        }
        None if place.device == "cpu" => (here, true, speed(processor.map(|known| known.bandwidth))),
        None => match processor.filter(|known| known.gpu.as_ref() == Some(&place.device)) {
            Some(processor) => {
                let there = memory.budget(&place.device, profiles.shared(main.total).0);
                (there, true, speed(Some(processor.bandwidth)))
            }
            None => {
                let device = machine.devices.with_memory().find(|device| device.id == place.device)?;
                let free = if device.memory_free > 0 { device.memory_free } else { device.memory_total };
                (memory.budget(&place.device, free), false, 0)
            }
        },
    };
    Some(Space { device: place.device.clone(), there, here, shared, speed, gpu: place.device != "cpu" })
}

impl Space {
    /// The devices whose memory it is.
    fn named(&self) -> String {
        if self.shared { self.device.clone() } else { format!("{} and cpu", self.device) }
    }

    /// Bytes that are missing.
    fn lacks(&self, question: &Question<'_>, needed: [Bytes; 2]) -> u64 {
        let [there, here] = self.totals(question, needed);
        let on_device = there.saturating_sub(self.there);
        match self.shared {
            true => on_device.max(there.saturating_add(here).saturating_sub(self.here)),
            false => on_device.saturating_add(here.saturating_sub(self.here)),
        }
    }

    /// Bytes that are needed on the device and on the processor, with what the backend said beyond.
    fn totals(&self, question: &Question<'_>, [there, here]: [Bytes; 2]) -> [u64; 2] {
        let more = |device: &str| question.more.get(device).copied().unwrap_or(0);
        let on_cpu = if self.gpu { more("cpu") } else { 0 };
        [there.total().saturating_add(more(&self.device)), here.total().saturating_add(on_cpu)]
    }

    fn rooms(&self, question: &Question<'_>, [there, here]: [Bytes; 2]) -> Vec<Room> {
        let room = |bytes: Bytes, device: &str, room: u64| {
            let mut need = bytes.on(device);
            need.scratch = need.scratch.saturating_add(question.more.get(device).copied().unwrap_or(0));
            Room { need, room }
        };
        let mut rooms = vec![room(there, &self.device, self.there)];
        if self.gpu && here.total() > 0 {
            rooms.push(room(here, "cpu", self.here));
        }
        rooms
    }
}

/// Where the least is missing, of the ways that need least; and what would fit.
fn shortage(question: &Question<'_>, spaces: &[Option<Space>]) -> Shortage {
    let lack = spaces
        .iter()
        .flatten()
        .flat_map(|space| ways(question.model, space.gpu).into_iter().map(move |way| (space, way)))
        .map(|(space, way)| {
            let needed = needs(question.model, &way);
            let [there, here] = space.totals(question, needed);
            let room = if space.shared {
                space.there.min(space.here)
            } else {
                space.there.saturating_add(space.here)
            };
            (space.lacks(question, needed), space.named(), there.saturating_add(here), room)
        })
        .min();
    let (missing, device, needs, room) =
        lack.unwrap_or((question.model.bytes, "cpu".to_owned(), question.model.bytes, 0));
    Shortage { device, needs, room, missing, smaller: smaller(question, spaces) }
}

/// The most precise form of the model that would fit.
fn smaller(question: &Question<'_>, spaces: &[Option<Space>]) -> Option<(String, u64)> {
    let mut sizes: Vec<_> =
        question.model.sizes.iter().filter(|(_, bytes)| **bytes < question.model.bytes).collect();
    sizes.sort_by_key(|(_, bytes)| Reverse(**bytes));
    sizes.into_iter().find_map(|(name, bytes)| {
        let model = ModelFacts { bytes: *bytes, ..question.model.clone() };
        fitting(&Question { model: &model, ..*question }, spaces).is_some().then(|| (name.clone(), *bytes))
    })
}
