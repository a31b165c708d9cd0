//! The stages of one host: its engine and its catalog, with what was loaded already.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use etcetera::BaseStrategy;

use super::{Catalog, EngineConfig, Level, LogSink, Stage, StageEngine};
use crate::config;
use crate::error::Result;

/// Stages by name, each compiled or read from the cache once.
#[derive(Debug)]
pub struct Stages {
    engine: StageEngine,
    catalog: Catalog,
    loaded: Mutex<BTreeMap<String, Stage>>,
}

impl Stages {
    /// Sets the engine up after the configuration. Loads nothing yet.
    pub fn new(config: &config::Stages) -> Result<Self> {
        let cache = config.cache_dir.as_ref().map(|path| path.to_path_buf()).or_else(user_cache);
        let engine = StageEngine::new(EngineConfig { cache, log: log() })?;
        let catalog = Catalog::new(config.search.iter().map(|path| path.to_path_buf()).collect());
        Ok(Self { engine, catalog, loaded: Mutex::default() })
    }

    /// Where stages are searched, and what was found.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The names of all stages that are found.
    pub fn names(&self) -> Vec<String> {
        self.catalog.list().into_iter().map(|(name, _)| name).collect()
    }

    /// A stage by its name, or by its path when that ends in `.wasm`.
    ///
    /// # Errors
    /// `stage-not-found`, `stage-invalid`, `stage-import-refused`.
    pub fn get(&self, name: &str) -> Result<Stage> {
        if let Some(stage) = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(stage.clone());
        }
        // Two that load the same stage at once do it twice, and neither waits for a third.
        let stage = self.catalog.load(&self.engine, name)?;
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), stage.clone());
        Ok(stage)
    }
}

fn user_cache() -> Option<PathBuf> {
    etcetera::choose_base_strategy().ok().map(|base| base.cache_dir().join("pajamas/stages"))
}

fn log() -> LogSink {
    LogSink::new(|line| {
        let (stage, message) = (line.stage, line.message);
        match line.level {
            Level::Error => tracing::error!(stage, "{message}"),
            Level::Warn => tracing::warn!(stage, "{message}"),
            Level::Info => tracing::info!(stage, "{message}"),
            Level::Debug => tracing::debug!(stage, "{message}"),
        }
    })
}
