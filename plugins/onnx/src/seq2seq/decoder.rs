//! Running a decoder token by token over its cache of keys and values.

use pajamas_plugin_api::{Cancel, DType, Dim, PluginError, Result, TensorView, as_bytes};

use super::engine::{Engine, Feed};
use crate::error::{MODEL_UNSUPPORTED, internal};
use crate::ports::Port;

/// What an input of a decoder's graph wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// The tokens, i64, [rows, tokens].
    Ids,
    /// What the encoder left.
    Hidden,
    /// One of the cache's tensors.
    Past(usize),
    /// Whether there is a past, of a graph with two branches.
    Branch,
    /// How many tokens came before.
    Position,
    /// Which of the encoder's positions count: all.
    Mask,
}

/// One of the graphs of a decoder.
#[derive(Debug)]
struct Side {
    slots: Vec<Slot>,
    /// The output with the logits, [rows, tokens, vocabulary].
    logits: usize,
    /// Outputs that become tensors of the cache: output, place in the cache.
    present: Vec<(usize, usize)>,
}

/// One tensor of the cache.
#[derive(Debug)]
struct Place {
    /// `0.decoder.key` and its like.
    name: String,
    /// Whether it grows with every token. What was made of the encoder's output does not.
    grows: bool,
}

/// A decoder: a graph for the first run and one for all later ones, which may be the same.
pub(super) struct Decoder<E> {
    engines: Vec<E>,
    places: Vec<Place>,
    first: Side,
    later: Side,
}

impl<E: Engine> Decoder<E> {
    /// A decoder of one graph with two branches, or of two graphs.
    ///
    /// # Errors
    /// `model-unsupported` for a graph with other inputs and outputs than Optimum gives decoders of this kind.
    pub(super) fn new(engines: Vec<E>) -> Result<Self> {
        let (Some(first), Some(later)) = (engines.first(), engines.last()) else {
            return Err(internal("onnx", "a decoder without a graph"));
        };
        let pasts = later.ports().inputs.iter().filter_map(|port| port.name.strip_prefix(PAST));
        let places: Vec<Place> =
            pasts.map(|name| Place { name: name.to_owned(), grows: !name.contains(".encoder.") }).collect();
        if places.is_empty() {
            return Err(unsupported(format_args!(
                "it has no input `{PAST}…`: it was exported without a cache"
            )));
        }
        let side = |engine: &E, every: bool| Side::of(engine, &places, every);
        let (first, later) = (side(first, true)?, side(later, false)?);
        Ok(Self { places, first, later, engines })
    }

    /// How many tokens there are, where the graph says.
    pub(super) fn vocabulary(&self) -> Option<usize> {
        let logits = self.engines.first()?.ports().outputs.get(self.first.logits)?;
        match logits.shape.as_ref()?.last()? {
            Dim::Fixed(n) => usize::try_from(*n).ok(),
            Dim::Dynamic(_) => None,
        }
    }

    /// All graphs.
    pub(super) fn engines(&self) -> &[E] {
        &self.engines
    }
}

/// What Optimum calls the cache's tensors as inputs and as outputs.
const PAST: &str = "past_key_values.";
const PRESENT: &str = "present.";

impl Side {
    /// `every`: whether it must give all of the cache, or only what grows.
    fn of<E: Engine>(engine: &E, places: &[Place], every: bool) -> Result<Self> {
        let ports = engine.ports();
        let slot = |port: &Port| {
            Ok(match port.name.as_str() {
                "input_ids" => Slot::Ids,
                "encoder_hidden_states" => Slot::Hidden,
                "use_cache_branch" => Slot::Branch,
                "cache_position" => Slot::Position,
                "encoder_attention_mask" => Slot::Mask,
                name => {
                    let place = name.strip_prefix(PAST).and_then(|n| places.iter().position(|p| p.name == n));
                    Slot::Past(place.ok_or_else(|| unsupported(format_args!("it has an input `{name}`")))?)
                }
            })
        };
        let slots = ports.inputs.iter().map(slot).collect::<Result<Vec<_>>>()?;
        let output = |name: &str| ports.outputs.iter().position(|port| port.name == name);
        let logits =
            output("logits").ok_or_else(|| unsupported(format_args!("it has no output `logits`")))?;
        let present = places.iter().enumerate().filter(|(_, place)| every || place.grows);
        let present = present.map(|(at, place)| {
            let name = format!("{PRESENT}{}", place.name);
            let output =
                output(&name).ok_or_else(|| unsupported(format_args!("it has no output `{name}`")))?;
            Ok((output, at))
        });
        let present = present.collect::<Result<_>>()?;
        Ok(Self { slots, logits, present })
    }
}

/// Several sequences being decoded side by side after one prompt: the rows of a batch.
pub(super) struct Decoding<'d, E: Engine> {
    decoder: &'d Decoder<E>,
    /// One row for each sequence.
    hidden: Hidden<'d, E::Kept>,
    cache: Vec<Option<E::Kept>>,
    rows: usize,
    /// Tokens that the cache holds.
    length: usize,
}

enum Hidden<'d, T> {
    Of(&'d T),
    Repeated(T),
}

impl<T> Hidden<'_, T> {
    fn get(&self) -> &T {
        match self {
            Self::Of(kept) => kept,
            Self::Repeated(kept) => kept,
        }
    }
}

/// Logits of the positions of the first run.
pub(super) struct Prompted<T> {
    logits: T,
    positions: usize,
    vocabulary: usize,
}

impl<T: Send> Prompted<T> {
    /// The logits of one position.
    pub(super) fn at<E: Engine<Kept = T>>(&self, engine: &E, position: usize) -> Result<Vec<f32>> {
        let from = position.min(self.positions - 1) * self.vocabulary;
        engine.floats(&self.logits, from..from + self.vocabulary)
    }

    /// Those of the last.
    pub(super) fn last<E: Engine<Kept = T>>(&self, engine: &E) -> Result<Vec<f32>> {
        self.at(engine, self.positions - 1)
    }

    /// How many tokens there are.
    pub(super) fn vocabulary(&self) -> usize {
        self.vocabulary
    }
}

impl<'d, E: Engine> Decoding<'d, E> {
    /// Runs the decoder over the prompt, which is not empty.
    pub(super) fn begin(
        decoder: &'d Decoder<E>,
        hidden: &'d E::Kept,
        prompt: &[u32],
        cancel: &Cancel,
    ) -> Result<(Self, Prompted<E::Kept>)> {
        let mut decoding = Self {
            decoder,
            hidden: Hidden::Of(hidden),
            cache: decoder.places.iter().map(|_| None).collect(),
            rows: 1,
            length: 0,
        };
        let logits = decoding.run(true, prompt, cancel)?;
        let shape = decoding.engine().shape(&logits)?;
        let [1, positions, vocabulary] = *shape.as_slice() else {
            return Err(unsupported(format_args!("its logits have the shape {shape:?}")));
        };
        if positions != prompt.len() as u64 || vocabulary == 0 {
            return Err(unsupported(format_args!("its logits have the shape {shape:?}")));
        }
        let prompted = Prompted { logits, positions: positions as usize, vocabulary: vocabulary as usize };
        Ok((decoding, prompted))
    }

    /// The engine that later runs use.
    pub(super) fn engine(&self) -> &'d E {
        // A decoder has at least one graph.
        &self.decoder.engines[self.decoder.engines.len() - 1]
    }

    /// Goes on with these sequences, in this order; one may come several times.
    pub(super) fn arrange(&mut self, rows: &[usize]) -> Result<()> {
        if rows.len() == self.rows && rows.iter().enumerate().all(|(at, row)| at == *row) {
            return Ok(());
        }
        let engine = self.engine();
        for (place, kept) in self.decoder.places.iter().zip(&mut self.cache) {
            // What was made of the encoder's output is the same in all rows.
            if let Some(tensor) = kept.as_ref().filter(|_| place.grows || rows.len() != self.rows) {
                *kept = Some(engine.rows(tensor, rows)?);
            }
        }
        if rows.len() != self.rows && self.decoder.later.slots.contains(&Slot::Hidden) {
            self.hidden = Hidden::Repeated(engine.rows(self.hidden.get(), rows)?);
        }
        self.rows = rows.len();
        Ok(())
    }

    /// Adds one token to each sequence; gives the logits for the next ones, sequence after sequence.
    pub(super) fn step(&mut self, tokens: &[u32], vocabulary: usize, cancel: &Cancel) -> Result<Vec<f32>> {
        let logits = self.run(false, tokens, cancel)?;
        self.engine().floats(&logits, 0..self.rows * vocabulary)
    }

    fn run(&mut self, first: bool, tokens: &[u32], cancel: &Cancel) -> Result<E::Kept> {
        let Decoder { engines, places, .. } = self.decoder;
        let side = if first { &self.decoder.first } else { &self.decoder.later };
        let engine = if first { &engines[0] } else { self.engine() };
        let ids: Vec<i64> = tokens.iter().map(|id| i64::from(*id)).collect();
        let rows = self.rows as u64;
        let ids_shape = [rows, ids.len() as u64 / rows];
        let (branch, position) = ([u8::from(!first)], [self.length as i64]);
        let nothing = Nothing::of(engine, &side.slots, first);
        let mask = Mask::of(engine, &side.slots, self.hidden.get(), rows)?;
        // What grows is given away and comes back longer.
        let mut growing: Vec<Option<E::Kept>> = places
            .iter()
            .zip(&mut self.cache)
            .map(|(place, kept)| if place.grows { kept.take() } else { None })
            .collect();
        let mut feeds = Vec::with_capacity(side.slots.len());
        for (at, slot) in side.slots.iter().enumerate() {
            feeds.push(match slot {
                Slot::Ids => Feed::Host(TensorView::new(DType::I64, &ids_shape, as_bytes(&ids))?),
                Slot::Hidden => Feed::Kept(self.hidden.get()),
                Slot::Branch => Feed::Host(TensorView::new(DType::Bool, &[1], &branch)?),
                Slot::Position => Feed::Host(TensorView::new(DType::I64, &[1], as_bytes(&position))?),
                Slot::Mask => Feed::Host(TensorView::new(DType::I64, &mask.shape, as_bytes(&mask.ones))?),
                Slot::Past(place) => match (growing[*place].take(), &self.cache[*place]) {
                    (Some(kept), _) => Feed::Given(kept),
                    (None, Some(kept)) => Feed::Kept(kept),
                    (None, None) => Feed::Host(nothing.view(at)?),
                },
            });
        }
        let outputs: Vec<usize> =
            std::iter::once(side.logits).chain(side.present.iter().map(|(output, _)| *output)).collect();
        let mut left = engine.run(feeds, &outputs, cancel)?.into_iter();
        let logits = left.next().ok_or_else(|| internal(engine.name(), "a run without an output"))?;
        for ((_, place), kept) in side.present.iter().zip(left) {
            self.cache[*place] = Some(kept);
        }
        self.length += tokens.len() / self.rows;
        Ok(logits)
    }
}

/// The past of a first run, for a graph with two branches, which does not look at it.
struct Nothing {
    tensors: Vec<(DType, Vec<u64>, Vec<u64>)>,
}

impl Nothing {
    fn of<E: Engine>(engine: &E, slots: &[Slot], first: bool) -> Self {
        let tensor = |(port, slot): (&Port, &Slot)| {
            if !first || !matches!(slot, Slot::Past(_)) {
                return (DType::U8, vec![0], Vec::new());
            }
            // Names of dimensions stand for 1, as Optimum has it.
            let one = |dim: &Dim| if let Dim::Fixed(n) = dim { *n } else { 1 };
            let shape: Vec<u64> = port.shape.iter().flatten().map(one).collect();
            let bytes = pajamas_plugin_api::byte_len(port.dtype, &shape).unwrap_or(0);
            (port.dtype, shape, vec![0; bytes.div_ceil(8)])
        };
        Self { tensors: engine.ports().inputs.iter().zip(slots).map(tensor).collect() }
    }

    fn view(&self, input: usize) -> Result<TensorView<'_>> {
        let (dtype, shape, words) = &self.tensors[input];
        let length = pajamas_plugin_api::byte_len(*dtype, shape)?;
        TensorView::new(*dtype, shape, as_bytes(words).get(..length).unwrap_or_default())
    }
}

/// A mask that hides nothing.
struct Mask {
    shape: [u64; 2],
    ones: Vec<i64>,
}

impl Mask {
    fn of<E: Engine>(engine: &E, slots: &[Slot], hidden: &E::Kept, rows: u64) -> Result<Self> {
        if !slots.contains(&Slot::Mask) {
            return Ok(Self { shape: [0, 0], ones: Vec::new() });
        }
        let positions = engine.shape(hidden)?.get(1).copied().unwrap_or(0);
        Ok(Self { shape: [rows, positions], ones: vec![1; (rows * positions) as usize] })
    }
}

fn unsupported(what: std::fmt::Arguments<'_>) -> PluginError {
    PluginError::new(MODEL_UNSUPPORTED, format!("the decoder cannot be run token by token: {what}")).help(
        "export the model with Optimum's task `automatic-speech-recognition-with-past`, which makes decoder_model.onnx and \
         decoder_with_past_model.onnx",
    )
}
