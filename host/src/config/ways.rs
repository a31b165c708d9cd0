//! An entry that names several formats, precisions, backends or devices is several models: each way to run it is one, and
//! its name stands for a ladder of them, which the router climbs as it does any other.

use super::entries::Model;
use super::pattern::OneOrMany;
use super::routes::Ladder;
use super::text::Id;
use super::{Config, Names};

/// The most ways to run one entry: each is looked at when a request asks for it.
pub(super) const MOST_WAYS: usize = 64;

impl Config {
    /// Makes of each entry that names several ways to run a model for each, and a ladder of that name: a step for each
    /// precision, in the order in which they are named, of all its formats, backends and devices. Done again it does
    /// nothing.
    #[must_use]
    pub fn with_ways(mut self) -> Self {
        let mut further = Vec::new();
        for model in &mut self.models {
            let steps = model.ways();
            let names =
                |step: &Vec<Model>| Names::from(step.iter().map(|way| way.id.clone()).collect::<Vec<_>>());
            let ladder = Ladder {
                id: model.id.clone(),
                description: model.description.clone(),
                steps: steps.iter().map(names).collect(),
            };
            let mut ways = steps.into_iter().flatten();
            if let Some(first) = ways.next() {
                // In its place: what follows stays where the file has it.
                *model = first;
                further.extend(ways);
                self.ladders.push(ladder);
            }
        }
        self.models.extend(further);
        self
    }
}

impl Model {
    /// The name that callers know it by: of a way to run an entry, that entry's.
    pub fn name(&self) -> &Id {
        self.way_of.as_ref().unwrap_or(&self.id)
    }

    /// In how many ways it can be run.
    pub(super) fn how_many_ways(&self) -> usize {
        let of_texts = |list: &Option<OneOrMany<String>>| list.as_ref().map_or(1, |list| list.len());
        of_texts(&self.format) * of_texts(&self.precision) * self.backend.len() * self.device.len()
    }

    /// The ways to run it, a step for each precision; nothing when there is only one way. Each has what is special about it
    /// in its id, `chat:q8_0:cuda:0`, and only the first is to be in memory from the start.
    pub(super) fn ways(&self) -> Vec<Vec<Self>> {
        if self.how_many_ways() < 2 {
            return Vec::new();
        }
        let texts = |list: &Option<OneOrMany<String>>| match list {
            Some(list) => list.iter().cloned().map(Some).collect(),
            None => vec![None],
        };
        let mut steps: Vec<Vec<Self>> = Vec::new();
        for precision in texts(&self.precision) {
            let mut step = Vec::new();
            for format in texts(&self.format) {
                for backend in self.backend.iter() {
                    for device in self.device.iter() {
                        let several = [
                            (self.format.as_ref().is_some_and(|all| all.len() > 1), format.clone()),
                            (self.precision.as_ref().is_some_and(|all| all.len() > 1), precision.clone()),
                            (self.backend.len() > 1, Some(backend.to_string().replace('/', "."))),
                            (self.device.len() > 1, Some(device.to_string())),
                        ];
                        let special = several.into_iter().filter(|(several, _)| *several);
                        let special: Vec<String> = special.filter_map(|(_, value)| value).collect();
                        // What is no name is told apart by the check; the entry's own is.
                        let id = format!("{}:{}", self.id, special.join(":"));
                        let first = steps.is_empty() && step.is_empty();
                        step.push(Self {
                            id: id.parse().unwrap_or_else(|_| self.id.clone()),
                            format: format.clone().map(OneOrMany::from),
                            precision: precision.clone().map(OneOrMany::from),
                            backend: backend.clone().into(),
                            device: device.clone().into(),
                            preload: self.preload && first,
                            way_of: Some(self.id.clone()),
                            ..self.clone()
                        });
                    }
                }
            }
            steps.push(step);
        }
        steps
    }
}
