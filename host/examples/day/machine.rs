//! The machine of the day and its ten models: how large they are and how fast. What is assumed is assumed here.

use crate::chance::Chance;

/// The only device.
pub const DEVICE: &str = "cuda:0";
/// Bytes that models may hold there: about three of ten.
pub const MEMORY: u64 = 18 * GIB;
pub const GIB: u64 = 1 << 30;
/// Tokens that each slot has room for.
pub const CONTEXT: u32 = 8192;

/// Bytes of weights that the device reads in a microsecond. Each token of an answer reads all weights once, which is what
/// was measured of CPUs (docs/src/benchmarks.md), too; the number is that of a GPU of 2022 with 24 GiB, less what is
/// never reached.
const READS: f64 = 600_000.0;
/// Operations in a microsecond, of which each token of a prompt takes two for each parameter.
const COMPUTES: f64 = 40_000_000.0;
/// Microseconds of a request that are neither.
const BESIDE: f64 = 15_000.0;
/// Bytes that are read from the disk in a microsecond, and what a load takes beside that.
const LOADS: f64 = 1_500.0;
const LOAD_BESIDE: f64 = 500_000.0;
/// Freeing.
pub const FREES: u64 = 200_000;
/// A load that nobody wants any more ends so long after: backends promise to look every second.
pub const STOPS: u64 = 500_000;
/// How much slower each of those in one batch becomes by one more. Models that work at the same time share the device in
/// equal parts.
pub const BATCH: f64 = 0.25;

/// A model.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    /// Its id.
    pub id: &'static str,
    /// Billions of parameters.
    parameters: f64,
    /// Billions of bytes of its weights.
    weights: f64,
    /// What it holds beside them, in MiB.
    beside: u64,
    /// Requests that it works on at the same time.
    pub slots: u32,
    /// What it is made of: equal for the precisions of one.
    pub source: &'static str,
    /// Its precision.
    pub precision: &'static str,
}

const fn model(
    id: &'static str,
    (parameters, weights, beside): (f64, f64, u64),
    slots: u32,
    (source, precision): (&'static str, &'static str),
) -> Model {
    Model { id, parameters, weights, beside, slots, source, precision }
}

/// All of them. The sizes are those of open models of these kinds in GGUF, with 8,192 tokens for each slot.
pub const MODELS: [Model; 10] = [
    model("chat-8b-q8", (8.0, 8.5, 1280), 4, ("chat-8b", "q8_0")),
    model("chat-8b-q4", (8.0, 4.9, 1280), 4, ("chat-8b", "q4_k_m")),
    model("chat-3b-q8", (3.2, 3.4, 768), 4, ("chat-3b", "q8_0")),
    model("chat-1b-q8", (1.2, 1.3, 384), 4, ("chat-1b", "q8_0")),
    model("code-7b-q8", (7.6, 8.1, 1024), 4, ("code-7b", "q8_0")),
    model("code-7b-q4", (7.6, 4.7, 1024), 4, ("code-7b", "q4_k_m")),
    model("maths-7b-q4", (7.6, 4.7, 1024), 4, ("maths-7b", "q4_k_m")),
    model("translate-7b-q4", (7.2, 4.4, 1024), 4, ("translate-7b", "q4_k_m")),
    model("legal-8b-q4", (8.0, 4.9, 1280), 4, ("legal-8b", "q4_k_m")),
    model("embed-300m", (0.33, 0.6, 128), 8, ("embed-300m", "f16")),
];

/// The model of this id.
pub fn find(id: &str) -> Option<&'static Model> {
    MODELS.iter().find(|model| model.id == id)
}

impl Model {
    /// Bytes that it holds.
    pub fn memory(&self) -> u64 {
        (self.weights * 1e9) as u64 + (self.beside << 20)
    }

    /// Microseconds that loading takes when nothing else is loaded, a tenth more or less.
    pub fn load(&self, seed: u64, time: u64) -> u64 {
        let mut chance = Chance::of([seed, self.number(), time]);
        ((LOAD_BESIDE + self.weights * 1e9 / LOADS) * about(&mut chance, 100)) as u64
    }

    /// Microseconds of work until the first token of a prompt of so many, and for the tokens after that: of a request that
    /// is alone, a fifth more or less.
    pub fn work(&self, seed: u64, request: u64, prompt: u32, answer: u32) -> [f64; 2] {
        let mut chance = Chance::of([seed, self.number(), request]);
        let first = BESIDE + f64::from(prompt) * 2e9 * self.parameters / COMPUTES;
        let rest = f64::from(answer.saturating_sub(1)) * self.weights * 1e9 / READS;
        [first, rest].map(|work| work * about(&mut chance, 200))
    }

    fn number(&self) -> u64 {
        self.id.bytes().fold(0, |number, byte| number * 31 + u64::from(byte))
    }
}

/// One, up to so many thousandths more or less.
fn about(chance: &mut Chance, thousandths: u64) -> f64 {
    (1000 - thousandths + chance.below(2 * thousandths + 1)) as f64 / 1000.0
}
