//! All that a decision may look at beside the request: models and devices at one moment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::decision::Fault;
use super::name::Name;
use crate::config::{Affinity, Task};
use crate::models::State;

/// Models and devices at one moment. Times are microseconds and memory is bytes, as whole numbers: what is written is
/// read again without a difference.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Snapshot {
    /// When: milliseconds since 1970.
    pub time: u64,
    /// The configured models, by id.
    pub models: BTreeMap<String, Model>,
    /// The devices that models can be loaded to, by id.
    pub devices: BTreeMap<String, Device>,
    /// The model that has this request's session, or what it begins with, in its cache, where the policies ask for it.
    pub affinity: BTreeMap<Affinity, String>,
}

/// A configured model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Model {
    /// What it was made for; `None` when that is known only after loading.
    pub task: Option<Task>,
    /// Where it is in its life.
    pub state: State,
    /// Which file or artifact it is made of: equal for the precisions of one artifact.
    pub source: String,
    /// The format of its file.
    pub format: String,
    /// Its precision, where somebody said.
    pub precision: Option<String>,
    /// The longest text it takes, in tokens, where somebody said.
    pub context: Option<u32>,
    /// The device it runs on, or would run on.
    pub device: Name,
    /// What it holds on its device, or would hold as its backend estimates.
    pub memory: Option<u64>,
    /// What it holds less on its device while it sleeps, and needs again.
    #[serde(skip_serializing_if = "is_nothing")]
    pub gave_back: u64,
    /// The same of other devices that it holds something on beside its own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub elsewhere: BTreeMap<Name, Share>,
    /// Requests that run in it and wait for it.
    pub inside: u32,
    /// Requests that can run in it at the same time.
    pub slots: u32,
    /// Whether it runs on another server.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub remote: bool,
    /// What a million tokens cost, in millionths.
    #[serde(skip_serializing_if = "is_nothing")]
    pub cost: u64,
    /// Why no request can go to it now.
    pub unusable: Option<Fault>,
    /// What was observed of it on this device.
    pub observed: Observed,
}

/// What a model holds, or would hold, on a device beside its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Share {
    /// All of it.
    pub memory: u64,
    /// What it holds less while it sleeps, and needs again.
    #[serde(skip_serializing_if = "is_nothing")]
    pub gave_back: u64,
}

/// What is nothing is not written down.
fn is_nothing(number: &u64) -> bool {
    *number == 0
}

/// What was observed of a model on a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observed {
    /// Loading it.
    pub load: Option<Average>,
    /// Waking it from its sleep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wake: Option<Average>,
    /// A request, without waiting and loading.
    pub service: Option<Average>,
    /// From the begin of the prompt to the first token, by the most tokens of a prompt that are counted with it.
    pub first_token: BTreeMap<u32, Average>,
    /// From one token to the next.
    pub between_tokens: Option<Average>,
    /// Tokens of an answer.
    pub answer: Option<Average>,
}

/// A moving average. Of times in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Average {
    /// The average.
    pub mean: u64,
    /// How far from it an observation is, on average.
    pub spread: u64,
    /// How many observations.
    pub count: u32,
}

/// A device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// What models may hold, as far as others leave it.
    pub budget: u64,
    /// What they hold.
    pub held: u64,
    /// What of that would give way to another model.
    pub idle: u64,
    /// Its temperature in degrees Celsius, where it is known.
    pub temperature: Option<u32>,
    /// Whether heat makes it slower than it could be, where that is known.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub throttled: bool,
}

impl Average {
    /// How much the latest observation counts: the last ten or so matter.
    const WEIGHT: f64 = 0.2;

    /// The average with one more observation.
    #[must_use]
    pub fn with(self, observed: u64) -> Self {
        if self.count == 0 {
            return Self { mean: observed, spread: 0, count: 1 };
        }
        let (mean, new) = (self.mean as f64, observed as f64);
        let spread = self.spread as f64 + Self::WEIGHT * ((new - mean).abs() - self.spread as f64);
        let mean = mean + Self::WEIGHT * (new - mean);
        Self { mean: mean.round() as u64, spread: spread.round() as u64, count: self.count.saturating_add(1) }
    }

    /// What nearly all observations are below: the average and twice its spread.
    pub fn high(self) -> u64 {
        self.mean.saturating_add(self.spread.saturating_mul(2))
    }
}
