//! What a new configuration changes about the one in force, and what of it has to wait for a restart.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::problem::{Problem, Problems};
use super::{Config, Model};

/// What stays as it is while the host runs.
const FIXED: [&[&str]; 6] = [
    &["server", "listen"],
    &["server", "max_connections"],
    &["plugins"],
    &["stages", "search"],
    &["stages", "cache_dir"],
    &["telemetry"],
];

/// The difference of two configurations: names only, never values.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Models, by id.
    pub models: Entries,
    /// Pipelines, by id.
    pub pipelines: Entries,
    /// Ladders, by id.
    pub ladders: Entries,
    /// Rules, by id. Their order counts among the settings, as `routes`.
    pub routes: Entries,
    /// Keys of the server, by name.
    pub keys: Entries,
    /// All other settings that are in force now, for example `server.max_queue`.
    pub settings: Vec<String>,
    /// Settings that were changed and are not in force before a restart.
    pub needs_restart: Vec<String>,
    /// Changed models that have to be loaded anew: the rest of what was changed about a model is not in its session.
    #[serde(skip)]
    pub to_load_anew: Vec<String>,
}

/// Entries of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Entries {
    /// They are new.
    pub added: Vec<String>,
    /// They are gone.
    pub removed: Vec<String>,
    /// They are others now.
    pub changed: Vec<String>,
}

impl Entries {
    fn of<T: PartialEq>(old: &[T], new: &[T], id: impl Fn(&T) -> &str) -> Self {
        let mut old: BTreeMap<&str, &T> = old.iter().map(|entry| (id(entry), entry)).collect();
        let mut entries = Self::default();
        for entry in new {
            let id = id(entry);
            match old.remove(id) {
                None => entries.added.push(id.to_owned()),
                Some(before) if before != entry => entries.changed.push(id.to_owned()),
                Some(_) => {}
            }
        }
        entries.removed = old.into_keys().map(str::to_owned).collect();
        entries
    }

    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }

    /// All that are new, gone or others.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        [&self.added, &self.removed, &self.changed].into_iter().flatten().map(String::as_str)
    }

    /// Whether it is here, added or changed or removed.
    pub fn names(&self, id: &str) -> bool {
        self.all().any(|known| known == id)
    }
}

impl Changes {
    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        let lists = [&self.models, &self.pipelines, &self.ladders, &self.routes, &self.keys];
        lists.iter().all(|entries| entries.is_empty())
            && self.settings.is_empty()
            && self.needs_restart.is_empty()
    }
}

impl fmt::Display for Changes {
    /// For the log: `models: chat added, old removed; server.max_queue; needs a restart: server.listen`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let lists = [
            ("models", &self.models),
            ("pipelines", &self.pipelines),
            ("ladders", &self.ladders),
            ("routes", &self.routes),
            ("keys", &self.keys),
        ];
        for (list, entries) in lists {
            let states =
                [(&entries.added, "added"), (&entries.removed, "removed"), (&entries.changed, "changed")];
            let each =
                states.iter().flat_map(|(ids, state)| ids.iter().map(move |id| format!("{id} {state}")));
            let each: Vec<String> = each.collect();
            if !each.is_empty() {
                parts.push(format!("{list}: {}", each.join(", ")));
            }
        }
        parts.extend(self.settings.iter().cloned());
        if !self.needs_restart.is_empty() {
            parts.push(format!("needs a restart: {}", self.needs_restart.join(", ")));
        }
        f.write_str(if parts.is_empty() { "nothing changed" } else { "" })?;
        f.write_str(&parts.join("; "))
    }
}

impl Config {
    /// Makes this the successor of `old`: what cannot change while a host runs stays as it was. Says what is different.
    ///
    /// # Errors
    /// `listen-not-loopback` when the address that stays would be open to others, now that there are no keys.
    pub fn succeed(&mut self, old: &Self) -> Result<Changes, Problems> {
        let (before, after) = (settings(old), settings(self));
        let differs = |key: &&String| before.get(*key) != after.get(*key);
        let mut different: Vec<&String> = before.keys().chain(after.keys()).filter(differs).collect();
        different.sort();
        different.dedup();
        let fixed = |key: &str| {
            let path: Vec<&str> = key.split('.').collect();
            FIXED.iter().any(|fixed| path.starts_with(fixed))
        };
        let (needs_restart, settings) = different.into_iter().cloned().partition(|key| fixed(key));

        self.server.listen = old.server.listen;
        self.server.max_connections = old.server.max_connections;
        self.plugins = old.plugins.clone();
        self.telemetry = old.telemetry.clone();
        self.stages.search.clone_from(&old.stages.search);
        self.stages.cache_dir.clone_from(&old.stages.cache_dir);
        for path in FIXED {
            self.written.graft(&old.written, path);
        }
        let listen = self.server.listen;
        if !listen.0.ip().is_loopback() && self.server.keys.is_empty() {
            let origin = self.written.origin_of(&["server".into(), "listen".into()]);
            let message =
                format!("`server.listen` stays {listen} until a restart, and the server would have no keys");
            let mut problems = Problems::default();
            problems.push(
                Problem::new("listen-not-loopback", &origin, message)
                    .help("keep a key in `server.keys`, or restart the server"),
            );
            return problems.none_or(Changes::default());
        }

        let models = Entries::of(&old.models, &self.models, |model| &model.id);
        let anew = |id: &&String| match (old.model(id), self.model(id)) {
            (Some(before), Some(after)) => !before.has_the_session_of(after),
            _ => false,
        };
        Ok(Changes {
            to_load_anew: models.changed.iter().filter(anew).cloned().collect(),
            models,
            pipelines: Entries::of(&old.pipelines, &self.pipelines, |pipeline| &pipeline.id),
            ladders: Entries::of(&old.ladders, &self.ladders, |ladder| &ladder.id),
            routes: Entries::of(&old.routes, &self.routes, |rule| &rule.id),
            keys: Entries::of(&old.server.keys, &self.server.keys, |key| &key.name),
            settings,
            needs_restart,
        })
    }
}

impl Model {
    /// Whether what is loaded for one serves the other, too.
    fn has_the_session_of(&self, other: &Self) -> bool {
        let session = |m: &Self| {
            let place = (m.location().map(ToOwned::to_owned), m.format.clone(), m.precision.clone());
            (place, m.remote.clone(), m.backend.clone(), m.device.clone(), m.isolation, m.options.clone())
        };
        session(self) == session(other)
    }
}

/// Every setting that is no entry of a list, by its key.
fn settings(config: &Config) -> BTreeMap<String, Value> {
    // The types have no map with keys that are not text, and nothing else can fail.
    let mut whole = serde_json::to_value(config).unwrap_or_default();
    for list in ["models", "pipelines", "ladders"] {
        whole[list].take();
    }
    // The first rule that applies decides: their order is a setting.
    whole["routes"] = config.routes.iter().map(|rule| Value::from(&*rule.id)).collect();
    whole["server"]["keys"].take();
    let mut leaves = BTreeMap::new();
    collect(String::new(), whole, &mut leaves);
    leaves
}

fn collect(key: String, value: Value, leaves: &mut BTreeMap<String, Value>) {
    match value {
        Value::Null => {}
        Value::Object(map) => {
            for (name, value) in map {
                collect(if key.is_empty() { name } else { format!("{key}.{name}") }, value, leaves);
            }
        }
        value => drop(leaves.insert(key, value)),
    }
}
