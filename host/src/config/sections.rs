//! The sections of the file that stand once: server, plugins, stages, memory, jobs, defaults.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::isolation::{Isolation, Patience};
use super::keys::Key;
use super::quantity::{ByteSize, Period};
use super::task::Task;
use super::text::{Address, Id, LocalPath};

/// Options that pajamas hands on without knowing them: to a plugin, a backend or a stage, which check them against
/// their own schema.
pub type Options = serde_json::Map<String, serde_json::Value>;

/// The HTTP server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Where to listen. An address that other machines reach needs `keys`.
    pub listen: Address,
    /// Who may ask. Without keys everybody on this machine may, and web pages of other origins may not.
    pub keys: Vec<Key>,
    /// The longest a request may take, waiting included.
    pub request_timeout: Period,
    /// The largest request body that is read.
    pub max_body: ByteSize,
    /// The longest a client may take to send a request, and to take each part of the answer.
    pub client_timeout: Period,
    /// Connections at the same time; more wait to be accepted.
    pub max_connections: u32,
    /// Requests that may run and wait for one model at the same time; more are refused with status 429.
    pub max_queue: u32,
    /// How long requests under way may still take when the server is told to stop.
    pub drain_timeout: Period,
    /// What becomes of a request whose model is not in memory.
    pub while_loading: WhileLoading,
    /// Take over the configuration file whenever it was changed.
    pub watch: bool,
}

/// What becomes of a request whose model is not in memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhileLoading {
    /// It waits until the model is loaded.
    #[default]
    Wait,
    /// It is refused with status 503, and the model is loaded for those that come later.
    Refuse,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 8797))),
            request_timeout: Period::seconds(120),
            keys: Vec::new(),
            max_body: ByteSize::mib(32),
            client_timeout: Period::seconds(30),
            max_connections: 4096,
            max_queue: 64,
            drain_timeout: Period::seconds(30),
            while_loading: WhileLoading::Wait,
            watch: true,
        }
    }
}

/// Native plugins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Plugins {
    /// Folders that are searched for plugins before the usual ones, the first first.
    pub search: Vec<LocalPath>,
    /// Refuse a plugin that has no `plugin.toml` with its SHA-256 beside it. One that has is always checked.
    pub require_hash: bool,
    /// Settings by the plugin's name, handed to it when it is opened.
    pub settings: BTreeMap<String, Options>,
    /// By the plugin's name: whether each of its models runs in a process of its own.
    pub isolation: BTreeMap<String, Isolation>,
    /// How long such a process may take for what.
    pub worker: Patience,
}

impl Default for Plugins {
    fn default() -> Self {
        Self {
            search: Vec::new(),
            require_hash: true,
            settings: BTreeMap::new(),
            isolation: BTreeMap::new(),
            worker: Patience::default(),
        }
    }
}

/// WASM stages.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Stages {
    /// Folders that are searched for components before the usual ones, the first first.
    pub search: Vec<LocalPath>,
    /// Where compiled components are kept; the user's cache folder when not set.
    pub cache_dir: Option<LocalPath>,
    /// What one run of a stage may use, unless its step says otherwise.
    pub limits: Limits,
}

/// What one run of a stage may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The most memory the instance may hold.
    pub memory: ByteSize,
    /// The longest it may run; as long again for every 16 MiB that it takes.
    pub deadline: Period,
    /// The most bytes it may return.
    pub output: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: ByteSize::mib(512), deadline: Period::seconds(10), output: ByteSize::mib(256) }
    }
}

/// How much memory models may take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Memory {
    /// The most that models may hold on one device; all of it, less the reserve, when not set.
    pub limit: Option<ByteSize>,
    /// What stays free on every device for everything else.
    pub reserve: ByteSize,
    /// Other numbers for single devices, by device id.
    pub devices: BTreeMap<String, DeviceMemory>,
    /// How long a model stays in memory after its last request; until others need the room when not set.
    pub ttl: Option<Period>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { limit: None, reserve: ByteSize::mib(512), devices: BTreeMap::new(), ttl: None }
    }
}

/// How much memory models may take on one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceMemory {
    /// In place of `memory.limit`.
    pub limit: Option<ByteSize>,
    /// In place of `memory.reserve`.
    pub reserve: Option<ByteSize>,
}

impl Memory {
    /// The bytes that models may hold on `device`, which has `total` bytes.
    pub fn budget(&self, device: &str, total: u64) -> u64 {
        let own = self.devices.get(device).copied().unwrap_or_default();
        let reserve = own.reserve.unwrap_or(self.reserve).get();
        let limit = own.limit.or(self.limit).map_or(u64::MAX, ByteSize::get);
        total.saturating_sub(reserve).min(limit)
    }
}

/// Artifacts that are made over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Jobs {
    /// The only folder that jobs read models from and write artifacts into; jobs are refused when not set.
    pub folder: Option<LocalPath>,
    /// Jobs that may run and wait at the same time, of which one runs; more are refused with status 429.
    pub max_queue: u32,
    /// Jobs that ended, the latest, of which it can be asked what became.
    pub history: u32,
}

impl Default for Jobs {
    fn default() -> Self {
        Self { folder: None, max_queue: 16, history: 100 }
    }
}

/// The model of each task for whoever names none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the fields are the tasks, which say what they are")]
pub struct Defaults {
    pub generate: Option<Id>,
    pub chat: Option<Id>,
    pub embed: Option<Id>,
    pub detect: Option<Id>,
    pub classify: Option<Id>,
    pub transcribe: Option<Id>,
    pub segment: Option<Id>,
    pub speak: Option<Id>,
}

impl Defaults {
    /// The default model of `task`.
    pub fn of(&self, task: Task) -> Option<&Id> {
        match task {
            Task::Generate => self.generate.as_ref(),
            Task::Chat => self.chat.as_ref(),
            Task::Embed => self.embed.as_ref(),
            Task::Detect => self.detect.as_ref(),
            Task::Classify => self.classify.as_ref(),
            Task::Transcribe => self.transcribe.as_ref(),
            Task::Segment => self.segment.as_ref(),
            Task::Speak => self.speak.as_ref(),
            Task::Rerank => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_what_is_left_of_a_device_and_at_most_the_limit() {
        let gib = |n: u64| ByteSize::mib(n * 1024);
        let cuda = DeviceMemory { limit: None, reserve: Some(gib(4)) };
        let memory = Memory {
            limit: Some(gib(16)),
            reserve: gib(1),
            devices: BTreeMap::from([("cuda:0".to_owned(), cuda)]),
            ttl: None,
        };
        assert_eq!(memory.budget("cpu", gib(8).get()), gib(7).get());
        assert_eq!(memory.budget("cpu", gib(64).get()), gib(16).get());
        assert_eq!(memory.budget("cuda:0", gib(8).get()), gib(4).get());
        assert_eq!(memory.budget("cpu", 0), 0);
    }
}
