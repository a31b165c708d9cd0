//! The engine with real components: those that ship, and two that do what no stage may.

mod audio;
mod built_in;
mod cache;
mod containment;
mod loading;
mod text;

use std::path::{Path, PathBuf};

use pajamas_plugin_api::Cancel;
use serde_json::{Value as Json, json};

use super::*;
use crate::value::{Value, Values};
use crate::{Error, Result};

/// Components built from `wasm-stages/`; another folder of them can be tested instead.
fn built() -> PathBuf {
    std::env::var_os("PAJAMAS_TEST_STAGES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../wasm-stages/built"), PathBuf::from)
}

/// Compiled stages are shared by the tests of a process, and kept below the target folder for those of others: compiling them is
/// most of what these tests do.
fn engine() -> StageEngine {
    static ENGINE: std::sync::OnceLock<StageEngine> = std::sync::OnceLock::new();
    let make = || {
        // target/release/deps/TEST
        let test = std::env::current_exe().unwrap();
        let cache = test.ancestors().nth(2).map(|release| release.join("test-stages"));
        StageEngine::new(EngineConfig { cache, ..EngineConfig::default() }).unwrap()
    };
    ENGINE.get_or_init(make).clone()
}

fn load(engine: &StageEngine, name: &str) -> Result<Stage> {
    engine.load_file(&built().join(format!("{name}.wasm")))
}

/// The stage `test-misbehaving` in one of its modes.
fn misbehaving(mode: &str) -> Processor {
    static STAGE: std::sync::OnceLock<Stage> = std::sync::OnceLock::new();
    let stage = STAGE.get_or_init(|| load(&engine(), "test-misbehaving").unwrap());
    stage.create(&json!({ "mode": mode }), &[], &Limits::default()).unwrap()
}

fn run(processor: &Processor, inputs: &[(&str, Value)], limits: &Limits) -> Result<Values> {
    processor.run(inputs.iter().map(|(name, value)| (*name, value)), limits, &Cancel::new())
}

fn processor(name: &str, options: &Json) -> Result<Processor> {
    load(&engine(), name)?.create(options, &[], &Limits::default())
}

/// The code of a refusal.
fn code<T: std::fmt::Debug>(refused: Result<T, Error>) -> String {
    refused.unwrap_err().code().to_owned()
}
