//! `pajamas.toml` to types: strict, layered, and every value knows where it came from.
//!
//! Layers, the later over the earlier: what is built in, the file, the environment (`PAJAMAS_SERVER__LISTEN`), flags.
//! [`Config::load`] reads them and reports every problem at once; [`Config::explain`] says who set what.
//!
//! A new key is a new field of the section's type, with a `serde` default and a doc comment: reading, the "did you
//! mean", the explanation and the JSON Schema follow from it.

mod changes;
mod check;
mod check_routes;
mod de;
mod entries;
mod explain;
mod isolation;
mod keys;
mod layers;
mod origin;
mod pattern;
mod priority;
mod problem;
mod quantity;
mod remote;
mod routes;
mod schema;
mod sections;
mod similar;
pub mod suggest;
mod task;
mod telemetry;
pub(crate) mod text;
mod tree;
mod ways;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use changes::{Changes, Entries};
pub use check_routes::Known;
pub use entries::{Model, Pipeline, StageStep, Step, StepLimits, Wiring};
pub use explain::{Explanation, Setting};
pub use isolation::{Isolation, Patience};
pub use keys::{Key, Scope, Sha256};
pub use layers::{LoadOptions, Override, Stamp};
pub use origin::{Origin, Place};
pub use pattern::{Hours, Names, OneOrMany, Pattern};
pub use priority::Priority;
pub use problem::{Problem, Problems};
pub use quantity::{ByteSize, Period, Share};
pub use remote::{BaseUrl, Cost, Remote};
pub use routes::{
    Affinity, Astray, Feature, INTENTS, Intents, Ladder, Otherwise, Record, Routing, Rule, Steps, When,
};
pub use sections::{
    Defaults, DeviceMemory, Jobs, Limits, Memory, Options, Plugins, Server, Stages, WhileLoading,
};
pub use similar::{Nearness, Similar};
pub use task::Task;
pub use telemetry::{Collector, Telemetry};
pub use text::{Address, BackendChoice, DeviceChoice, GrantedFile, Id, LocalPath};

use tree::{Content, Node};

/// The version of the file's layout that this host reads.
pub const SCHEMA: u32 = 1;

/// The configuration of a host.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "pajamas.toml")]
pub struct Config {
    /// The version of the file's layout: 1.
    pub schema: u32,
    /// The HTTP server.
    pub server: Server,
    /// Native plugins.
    pub plugins: Plugins,
    /// WASM stages.
    pub stages: Stages,
    /// How much memory models may take.
    pub memory: Memory,
    /// Artifacts that are made over HTTP.
    pub jobs: Jobs,
    /// Traces of requests.
    pub telemetry: Telemetry,
    /// The model of each task for whoever names none.
    pub defaults: Defaults,
    /// How a model is chosen where several may take a request.
    pub routing: Routing,
    /// Other names for models and ladders.
    pub aliases: BTreeMap<Id, Id>,
    /// The models, by id.
    pub models: Vec<Model>,
    /// Models in the order in which they are tried, by id.
    pub ladders: Vec<Ladder>,
    /// Which requests go where: the first rule that applies decides.
    pub routes: Vec<Rule>,
    /// The pipelines, by id.
    pub pipelines: Vec<Pipeline>,
    /// The file it was read from.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// What that file was like when it was read.
    #[serde(skip)]
    pub stamp: Option<Stamp>,
    #[serde(skip)]
    written: Node,
    /// Where it was read from, to do it again.
    #[serde(skip)]
    options: Arc<LoadOptions>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            server: Server::default(),
            plugins: Plugins::default(),
            stages: Stages::default(),
            memory: Memory::default(),
            jobs: Jobs::default(),
            telemetry: Telemetry::default(),
            defaults: Defaults::default(),
            routing: Routing::default(),
            aliases: BTreeMap::new(),
            models: Vec::new(),
            ladders: Vec::new(),
            routes: Vec::new(),
            pipelines: Vec::new(),
            file: None,
            stamp: None,
            written: Node::default(),
            options: Arc::default(),
        }
    }
}

impl Config {
    /// Reads the file and lays the environment and the flags over it.
    ///
    /// # Errors
    /// Everything that is wrong, at once: syntax, unknown keys, values of the wrong type or out of range, missing
    /// keys, two entries of one id, references that lead nowhere, files that do not exist, an address to listen on
    /// that others can reach.
    pub fn load(options: &LoadOptions) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let mut report = |problem| {
            let mut problems = Problems::default();
            problems.push(problem);
            problems
        };
        let file = options.find_file().map_err(&mut report)?;
        // Looked at before it is read: what is written to it from now on is seen as a change.
        let stamp = file.as_deref().and_then(Stamp::of);
        let mut tree = match &file {
            Some(path) => Node::parse(&layers::read_file(path).map_err(&mut report)?, &mut problems),
            None => Node::default(),
        };
        refuse_other_schema(&tree).map_err(&mut report)?;
        options.lay_over(&mut tree, &mut problems);
        let mut config: Self = de::read(&mut tree, &options.folders(), &mut problems);
        check::check(&config, &tree, &mut problems);
        config.file = file;
        config.stamp = stamp;
        config.written = tree;
        config.options = Arc::new(options.clone());
        problems.none_or(config)
    }

    /// Reads the same file again and lays the same environment and flags over it.
    ///
    /// # Errors
    /// As for [`load`](Self::load); `config-file-missing` when the file is gone, rather than to go on without one.
    pub fn again(&self) -> Result<Self, Problems> {
        let mut options = LoadOptions::clone(&self.options);
        if let Some(file) = &self.file {
            if !file.is_file() {
                let message = format!("{}: the file is gone", file.display());
                let mut problems = Problems::default();
                problems.push(
                    Problem::new("config-file-missing", &Origin::Default, message)
                        .help("put it back; until then the configuration stays as it is"),
                );
                return problems.none_or(Self::default());
            }
            options.file = Some(file.clone());
        }
        Self::load(&options)
    }

    /// The model of this id.
    pub fn model(&self, id: &str) -> Option<&Model> {
        self.models.iter().find(|model| *model.id == *id)
    }

    /// How long models stay in memory after their last request, by id; the others stay until others need the room.
    pub fn ttls(&self) -> BTreeMap<String, Duration> {
        let ttl = |model: &Model| {
            let ttl = model.ttl.or(self.memory.ttl)?;
            Some((model.id.to_string(), ttl.duration()))
        };
        self.models.iter().filter_map(ttl).collect()
    }

    /// The pipeline of this id.
    pub fn pipeline(&self, id: &str) -> Option<&Pipeline> {
        self.pipelines.iter().find(|pipeline| *pipeline.id == *id)
    }

    /// Every value in force with its source.
    pub fn explain(&self) -> Explanation {
        Explanation::of(self)
    }

    /// Reports the steps that name a stage which is not among `known`: for whoever knows the stages, which this
    /// module does not.
    ///
    /// # Errors
    /// `config-unknown-reference` for each such step.
    pub fn check_stages(&self, known: &[&str]) -> Result<(), Problems> {
        let mut problems = Problems::default();
        check::check_stages(self, &self.written, known, &mut problems);
        problems.none_or(())
    }

    /// Reports the rules and ladders that do not suit their models: for whoever looked at those, which this module does
    /// not.
    ///
    /// # Errors
    /// `config-conflict` for a model that does not do the rule's task; `config-too-large` where none can ever fit.
    pub fn check_known(&self, known: &dyn Fn(&str) -> Known) -> Result<(), Problems> {
        let mut problems = Problems::default();
        check::check_known(self, &self.written, known, &mut problems);
        problems.none_or(())
    }

    /// Where the value of `list`'s entry `id` was written, for messages about it: `origin_of("models", "chat",
    /// "options")`.
    pub fn origin_of(&self, list: &str, id: &str, key: &str) -> Origin {
        let entries = match self.written.get(list).map(|node| &node.content) {
            Some(Content::List(entries)) => entries.as_slice(),
            _ => &[],
        };
        entries
            .iter()
            .find(|entry| entry.id() == Some(id))
            .map_or(Origin::Default, |entry| entry.origin_of(&[key.into()]))
    }
}

/// A file of another layout would be a hail of unknown keys: say the one thing that matters instead.
fn refuse_other_schema(tree: &Node) -> Result<(), Problem> {
    match tree.get("schema") {
        Some(Node { content: Content::Integer(found), origin, .. }) if *found != i64::from(SCHEMA) => {
            let message = format!("this file has layout {found}, this pajamas reads layout {SCHEMA}");
            Err(Problem::new("config-version", origin, message)
                .help(format!("write `schema = {SCHEMA}`, or use the pajamas that the file was written for")))
        }
        _ => Ok(()),
    }
}
