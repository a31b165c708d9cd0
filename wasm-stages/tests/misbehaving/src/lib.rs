//! A stage that does what a stage must not do, for the tests of the engine: what, is an option.

// Natively there is nothing that could use it.
#![cfg(target_arch = "wasm32")]

use pajamas_stage::{
    Description, Error, Files, Kind, Port, Result, Stage, Tensor, TensorData, Value, Values, export_stage,
    logging,
};
use serde::Deserialize;
use serde_json::json;

struct Misbehaving {
    mode: Mode,
    count: std::cell::Cell<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    /// Leaves its input as it is, and how often it ran.
    Behave,
    Panic,
    Loop,
    LoopInCreate,
    /// Asks for memory in steps until it is refused.
    EatMemory,
    /// Asks for four gigabytes at once.
    FourGigabytes,
    /// Leaves a hundred megabytes.
    TooMuch,
    /// Leaves more small values than anybody needs.
    TooMany,
    /// Leaves a tensor whose shape lies.
    LyingShape,
    /// Leaves an image whose size lies.
    LyingImage,
    Recurse,
    /// Writes more log than anybody reads.
    Chatter,
    Refuse,
    /// Leaves what it did not announce.
    Unannounced,
    /// Leaves nothing.
    Nothing,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    mode: Mode,
}

impl Default for Options {
    fn default() -> Self {
        Self { mode: Mode::Behave }
    }
}

impl Stage for Misbehaving {
    type Options = Options;

    fn describe() -> Description {
        Description::new("misbehaving", "1.0.0", "Does what a stage must not do.")
            .input(Port::optional("text", Kind::Text, "anything"))
            .output(Port::new("text", Kind::Text, "the same"))
            .output(Port::optional("tensor", Kind::Tensor, "too much of it"))
            .output(Port::optional("image", Kind::Image, "a lie"))
            .options(json!({ "mode": { "type": "string", "description": "what to do" } }))
    }

    fn create(options: Options, _files: Files) -> Result<Self> {
        if options.mode == Mode::LoopInCreate {
            spin();
        }
        Ok(Self { mode: options.mode, count: 0.into() })
    }

    fn run(&self, mut inputs: Values) -> Result<Values> {
        self.count.set(self.count.get() + 1);
        let text = inputs.text_opt("text")?.unwrap_or_default();
        let kept = Values::new().with("text", format!("{text}{}", self.count.get()));
        let lie = Tensor { shape: vec![3], data: TensorData::F32(vec![0.0]) };
        match self.mode {
            Mode::Behave | Mode::LoopInCreate => Ok(kept),
            Mode::Panic => panic!("misbehaving panics on purpose"),
            Mode::Loop => spin(),
            Mode::EatMemory => eat(),
            Mode::FourGigabytes => four_gigabytes(),
            Mode::TooMuch => Ok(kept.with("tensor", Tensor::f32(vec![25_000_000], vec![1.0; 25_000_000])?)),
            Mode::TooMany => {
                let many = (0..3_000_000).map(|i| pajamas_stage::NamedValue {
                    name: i.to_string(),
                    value: Value::Text(String::new()),
                });
                Ok(Values::from(many.collect::<Vec<_>>()))
            }
            Mode::LyingShape => Ok(kept.with("tensor", lie)),
            Mode::LyingImage => {
                let image = pajamas_stage::Image { width: 9, height: 9, channels: 3, pixels: vec![0; 3] };
                Ok(kept.with("image", image))
            }
            Mode::Recurse => Ok(kept.with("text", recurse(&text, 0).to_string())),
            Mode::Chatter => {
                (0..100_000).for_each(|i| logging::info(&format!("{i} {}", "blah ".repeat(1000))));
                Ok(kept)
            }
            Mode::Refuse => Err(Error::new("will-not", "it does not want to").with_help("ask nicely")),
            Mode::Unannounced => Ok(kept.with("surprise", "!".to_owned())),
            Mode::Nothing => Ok(Values::new()),
        }
    }
}

/// Loops so that no optimiser can see that nothing comes of it.
fn spin() -> ! {
    let mut n = 0u64;
    loop {
        n = std::hint::black_box(n.wrapping_add(1));
    }
}

fn eat() -> ! {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    loop {
        eaten.push(std::hint::black_box(vec![1; 16 << 20]));
    }
}

fn four_gigabytes() -> ! {
    let before = std::arch::wasm32::memory_grow::<0>(65_000);
    panic!("memory.grow returned {before}")
}

#[expect(unconditional_recursion, reason = "the engine has to end it")]
fn recurse(text: &str, depth: u64) -> u64 {
    let deeper = std::hint::black_box(format!("{text}{depth}"));
    1 + recurse(&deeper[..deeper.len().min(3)], depth + 1) + deeper.len() as u64
}

export_stage!(Misbehaving);
