//! Loading stages: what a component is checked for, and compiling it once.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pajamas_plugin_api::Cancel;
use sha2::{Digest, Sha256};
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::bindings::{self, StagePre};
use super::cache::{Cache, hex};
use super::description::Description;
use super::guest::{Guest, LogSink, TABLE_ELEMENTS};
use super::slots::Slots;
use super::ticker::Ticker;
use super::{GrantedFile, Level, Limits, Processor, fault};
use crate::{Error, Result};

/// Instances at a time.
const INSTANCES: u32 = 64;
/// Memory that stays with the pool after an instance has gone: wiping it is cheaper than mapping it anew. A picture of a
/// few megapixels takes that much.
const KEPT: usize = 32 << 20;
/// How many instances' memory stays, at most: with [`KEPT`], 256 MiB.
const WARM: u32 = 8;

/// How an engine is set up.
#[derive(Debug, Clone, Default)]
pub struct EngineConfig {
    /// Where compiled stages are kept. `None` compiles each time.
    pub cache: Option<PathBuf>,
    /// Where the stages' log lines go, and what the engine itself has to say.
    pub log: LogSink,
}

/// Compiles and runs stages. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct StageEngine(Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) engine: Engine,
    pub(super) ticker: Ticker,
    pub(super) log: LogSink,
    pub(super) slots: Arc<Slots>,
    cache: Cache,
}

/// A compiled stage. Cheap to clone.
#[derive(Clone)]
pub struct Stage {
    pub(super) engine: Arc<Inner>,
    pub(super) pre: StagePre<Guest>,
    pub(super) name: Arc<str>,
    pub(super) description: Arc<Description>,
    sha256: Arc<str>,
    cached: bool,
}

fn settings(pooled: bool) -> Config {
    let mut settings = Config::new();
    settings
        .epoch_interruption(true)
        // The results of relaxed SIMD depend on the processor. So do the bits of a NaN; to make them alike takes as long as the
        // arithmetic itself, and no stage looks at them.
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_backtrace_max_frames(None);
    if pooled {
        let mut pool = PoolingAllocationConfig::default();
        pool.total_component_instances(INSTANCES)
            .total_core_instances(4 * INSTANCES)
            .total_tables(4 * INSTANCES)
            .total_memories(INSTANCES)
            .max_memory_size(1 << 32)
            .table_elements(TABLE_ELEMENTS)
            .linear_memory_keep_resident(KEPT)
            .max_unused_warm_slots(WARM);
        settings.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    settings
}

impl StageEngine {
    /// Sets an engine up. A cache folder that cannot be trusted is reported to the log and not used.
    pub fn new(config: EngineConfig) -> Result<Self> {
        // Without room in the address space for a pool, memory is mapped for each instance.
        let engine = Engine::new(&settings(true))
            .or_else(|_| Engine::new(&settings(false)))
            .map_err(|e| Error::new("internal", format!("the WASM engine cannot be set up: {e:#}")))?;
        let (cache, refused) = Cache::open(config.cache.as_deref(), &engine);
        if let Some(why) = refused {
            config.log.write("engine", Level::Warn, &format!("compiled stages are not kept: {why}"));
        }
        let slots = Slots::new(INSTANCES as usize);
        Ok(Self(Arc::new(Inner { ticker: Ticker::new(&engine), log: config.log, slots, cache, engine })))
    }

    /// Loads a component from a file; the file's name without `.wasm` is the stage's name in messages.
    ///
    /// Errors: `file-not-found`, and those of [`StageEngine::load`].
    pub fn load_file(&self, path: &Path) -> Result<Stage> {
        let bytes = std::fs::read(path).map_err(|error| Error::io(path, &error))?;
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
        self.load(&name, &bytes).map_err(|error| error.within(path.display()))
    }

    /// Loads a component: checks what it imports, compiles it (or finds it compiled), and asks it what it is.
    ///
    /// Errors: `stage-invalid` (no component, or not of the stage's world), `stage-import-refused`, and what
    /// asking may end in: `stage-trapped`, `stage-deadline`, `stage-memory`, `stage-output-too-large`.
    pub fn load(&self, name: &str, bytes: &[u8]) -> Result<Stage> {
        component_or_refusal(name, bytes)?;
        self.load_known(name, &hex(&Sha256::digest(bytes)), || Ok(bytes.into()))
    }

    /// As [`load`](Self::load), of a component with this SHA-256, whose bytes are wanted only where it is not found
    /// compiled.
    pub(super) fn load_known<'b>(
        &self,
        name: &str,
        sha256: &str,
        bytes: impl FnOnce() -> std::io::Result<Cow<'b, [u8]>>,
    ) -> Result<Stage> {
        let inner = &self.0;
        let invalid = |error: wasmtime::Error| {
            Error::new("stage-invalid", format!("stage {name}: {}", error.root_cause()))
                .help("build it against wasm-stages/wit/1.0 (the crate pajamas-stage does)")
        };
        let compiled = inner.cache.compile(&inner.engine, sha256, bytes).map_err(invalid)?;
        for (import, _) in compiled.component.component_type().imports(&inner.engine) {
            let granted = ["pajamas:stage/logging@1.", "pajamas:stage/values@1."];
            if !granted.iter().any(|granted| import.starts_with(granted)) {
                return Err(Error::new(
                    "stage-import-refused",
                    format!(
                        "stage {name}: it imports `{import}`, and a stage is granted nothing but logging"
                    ),
                )
                .help("build it for wasm32-unknown-unknown, without WASI"));
            }
        }
        let mut linker = Linker::new(&inner.engine);
        bindings::Stage::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest).map_err(invalid)?;
        let pre = linker.instantiate_pre(&compiled.component).and_then(StagePre::new).map_err(invalid)?;
        let name: Arc<str> = name.into();
        let description = Arc::new(describe(inner, &pre, &name)?);
        Ok(Stage {
            engine: inner.clone(),
            pre,
            name,
            description,
            sha256: sha256.into(),
            cached: compiled.cached,
        })
    }
}

impl Stage {
    /// The name under which it was loaded.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it says about itself.
    pub fn describe(&self) -> &Description {
        &self.description
    }

    /// SHA-256 of the component, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Whether it was found compiled on disk.
    pub fn cached(&self) -> bool {
        self.cached
    }

    /// Makes a processor from options (a JSON object; `null` stands for none) and granted files.
    ///
    /// Errors: what the stage itself refuses (`invalid-option` for an unknown option), and `stage-trapped`,
    /// `stage-deadline`, `stage-memory`, `stage-output-too-large`.
    pub fn create(
        &self,
        options: &serde_json::Value,
        files: &[GrantedFile],
        limits: &Limits,
    ) -> Result<Processor> {
        Processor::new(self.clone(), options, files, limits)
    }
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage")
            .field("name", &self.name)
            .field("sha256", &self.sha256)
            .finish_non_exhaustive()
    }
}

/// A component begins with a version of its own; say what the file is when it is something else.
fn component_or_refusal(name: &str, bytes: &[u8]) -> Result<()> {
    let what = match bytes {
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => return Ok(()),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => "a core WASM module, not a component",
        [0, b'a', b's', b'm', ..] => "WASM of an unknown version",
        [] => "an empty file",
        _ => "no WASM at all",
    };
    let error = Error::new("stage-invalid", format!("stage {name}: the file is {what}"));
    Err(error.help("a stage is a component: `wasm-tools component new` makes one of a core module"))
}

fn describe(inner: &Inner, pre: &StagePre<Guest>, name: &Arc<str>) -> Result<Description> {
    let limits = Limits { output: 1 << 20, ..Limits::default() };
    let _slot = inner.slots.take(&Cancel::new())?;
    let mut store = Guest::store(&inner.engine, name.clone(), inner.log.clone(), &limits);
    Guest::begin(&mut store, &limits, &Cancel::new());
    let _watch = inner.ticker.watch()?;
    let described = pre
        .instantiate(&mut store)
        .and_then(|stage| stage.pajamas_stage_processing().call_describe(&mut store));
    match described {
        Ok(description) => Description::new(name, description),
        Err(error) => Err(fault::of_call(name, "describe", &limits, &store, &error)),
    }
}
