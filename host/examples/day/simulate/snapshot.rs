//! What the router is shown: as the host shows it.

use std::collections::BTreeMap;

use pajamas::config::Task;
use pajamas::router::{Device, Fault, Model, Snapshot};

use super::Day;
use crate::machine::{CONTEXT, DEVICE, MODELS};

impl Day<'_> {
    /// All that a decision may look at at this moment.
    pub(super) fn snapshot(&self, excluded: &BTreeMap<&str, Fault>) -> Snapshot {
        let models = MODELS.iter().map(|model| {
            let (observed, slots) = self.observed.of(model.id, DEVICE);
            let known = Model {
                task: Some(if model.id.starts_with("embed") { Task::Embed } else { Task::Chat }),
                state: self.keeper.state(model.id),
                source: model.source.to_owned(),
                format: "gguf".to_owned(),
                precision: Some(model.precision.to_owned()),
                context: Some(CONTEXT),
                device: DEVICE.into(),
                memory: Some(model.memory()),
                inside: self.queues.get(model.id).map_or(0, |queue| queue.inside()),
                slots,
                unusable: excluded.get(model.id).cloned(),
                observed,
                ..Model::default()
            };
            (model.id.to_owned(), known)
        });
        let [held, idle] = self.keeper.held();
        let device = Device { budget: self.outcome.memory, held, idle, ..Device::default() };
        Snapshot {
            time: self.now / 1000,
            models: models.collect(),
            devices: [(DEVICE.to_owned(), device)].into(),
            affinity: BTreeMap::new(),
        }
    }
}
