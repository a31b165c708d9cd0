//! A decision, with all that led to it.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::intent::Intent;
use super::name::Name;
use super::predict::Prediction;
use super::steps::Steps;
use crate::config::{Cost, Task};
use crate::error::Error;
use crate::models::State;

/// The model for a request, and why this one and not the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The model's id; missing when the request is refused.
    pub chosen: Option<String>,
    /// What led to its models.
    pub by: By,
    /// The rule that applied.
    pub rule: Option<String>,
    /// The ladder or alias that was asked for, or that the default names.
    pub name: Option<String>,
    /// What is less than the first of the models would have been.
    pub degraded: Option<Degraded>,
    /// The policies that the chosen one does not keep, since none does.
    pub breaks: Vec<Reason>,
    /// How long the chosen one is predicted to take.
    pub predicted: Option<Prediction>,
    /// The priority that the rule gives to requests that say none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// What the prompt wants, where a rule that was looked at asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Intent>,
    /// The rules that were looked at, in order.
    pub steps: Steps,
    /// The models among which was chosen, in order.
    pub candidates: Vec<Considered>,
    /// Why the request is refused.
    pub refused: Option<Fault>,
}

/// What led to the models among which was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The request named it.
    Asked,
    /// A rule.
    Rule,
    /// The default of the task.
    Default,
    /// Nothing else does the task.
    Only,
}

impl By {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Rule => "rule",
            Self::Default => "default",
            Self::Only => "only",
        }
    }
}

/// A model that was considered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Considered {
    /// Its id.
    pub model: Name,
    /// Its step: 0 for the best, each later one is a degradation.
    pub step: u32,
    /// Why it cannot take the request.
    pub rejected: Option<Reason>,
    /// The policies that it does not keep.
    pub breaks: Vec<Reason>,
    /// How long it is predicted to take.
    pub predicted: Prediction,
    /// Of one step the lowest is taken: microseconds, with what others lose when it is loaded in their place.
    pub score: u64,
}

/// Why a model is not taken, with the numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "kebab-case")]
pub enum Reason {
    /// It was made for another task.
    Task {
        /// This one.
        made_for: Task,
    },
    /// It cannot be used now.
    Unusable {
        /// As the error says.
        fault: Fault,
    },
    /// It panicked again and again.
    Quarantined,
    /// It is larger than the device.
    TooLarge {
        /// The device.
        device: Name,
        /// Bytes that it needs.
        needs: u64,
        /// Bytes that models may hold there.
        budget: u64,
    },
    /// The request is longer than its context.
    TooLong {
        /// Tokens of the request, as estimated.
        tokens: u32,
        /// Tokens that it takes.
        context: u32,
    },
    /// The client would not wait so long.
    Late {
        /// Microseconds that it takes, as observed.
        predicted: u64,
        /// Microseconds that it may take.
        deadline: u64,
    },
    /// Requests that run keep the memory that it needs.
    NoRoom {
        /// The device.
        device: Name,
        /// Bytes that it needs.
        needs: u64,
        /// Bytes that are free, or would be made free.
        free: u64,
    },
    /// It is not in memory.
    NotWarm {
        /// Where it is.
        state: State,
    },
    /// It is predicted to take too long.
    Latency {
        /// Microseconds that it takes, as observed; twice the spread is counted in.
        predicted: u64,
        /// Microseconds that it may take.
        budget: u64,
    },
    /// It leaves too little memory free.
    Headroom {
        /// The device.
        device: Name,
        /// Bytes that it would leave.
        leaves: u64,
        /// Bytes that must stay.
        headroom: u64,
    },
    /// So many wait for it that the next step takes who comes.
    Crowded {
        /// Requests that would wait for it, with this one.
        waiting: u32,
        /// How many may.
        most: u32,
    },
    /// It costs too much.
    Dear {
        /// What a million tokens cost, in millionths.
        cost: u64,
        /// What they may.
        most: u64,
    },
    /// Its device is too hot.
    Hot {
        /// The device.
        device: Name,
        /// Its temperature in degrees Celsius.
        temperature: u32,
        /// The highest that it may have.
        most: u32,
    },
    /// Its device is not too hot by its temperature, and yet slowed down by heat.
    Throttled {
        /// The device.
        device: Name,
    },
}

impl Reason {
    /// The policy that is not kept, or what is in the way, in one word.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Task { .. } => "task",
            Self::Unusable { .. } => "unusable",
            Self::Quarantined => "quarantined",
            Self::TooLarge { .. } => "too-large",
            Self::TooLong { .. } => "too-long",
            Self::Late { .. } => "late",
            Self::NoRoom { .. } => "no-room",
            Self::NotWarm { .. } => "warm_only",
            Self::Latency { .. } => "latency_budget",
            Self::Headroom { .. } => "vram_headroom",
            Self::Crowded { .. } => "spill",
            Self::Dear { .. } => "max_cost",
            Self::Hot { .. } | Self::Throttled { .. } => "max_temperature",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: &u64| bytes.div_ceil(1 << 20);
        let seconds = |us: &u64| *us as f64 / 1e6;
        match self {
            Self::Task { made_for } => write!(f, "it was made for {made_for}"),
            Self::Unusable { fault } => write!(f, "{} [{}]", fault.message, fault.code),
            Self::Quarantined => f.write_str("it panicked again and again"),
            Self::TooLarge { device, needs, budget } => {
                write!(
                    f,
                    "it needs {} MiB on {device}, where models may hold {} MiB",
                    mib(needs),
                    mib(budget)
                )
            }
            Self::TooLong { tokens, context } => {
                write!(f, "the request has about {tokens} tokens, and it takes {context}")
            }
            Self::Late { predicted, deadline } => write!(
                f,
                "it is predicted to take {:.1} s, and the request may take {:.1} s",
                seconds(predicted),
                seconds(deadline)
            ),
            Self::NoRoom { device, needs, free } => write!(
                f,
                "it needs {} MiB on {device}, where running requests leave {} MiB",
                mib(needs),
                mib(free)
            ),
            Self::NotWarm { state } => write!(f, "it is {}, and warm_only is set", state.name()),
            Self::Latency { predicted, budget } => write!(
                f,
                "it is predicted to take {:.1} s of a latency_budget of {:.1} s",
                seconds(predicted),
                seconds(budget)
            ),
            Self::Headroom { device, leaves, headroom } => write!(
                f,
                "it leaves {} MiB free on {device} of a vram_headroom of {} MiB",
                mib(leaves),
                mib(headroom)
            ),
            Self::Crowded { waiting, most } => {
                write!(f, "{waiting} would wait for it, of a spill of {most}")
            }
            Self::Dear { cost, most } => {
                let (cost, most) = (Cost::millionths(*cost), Cost::millionths(*most));
                write!(f, "a million tokens cost {cost} of a max_cost of {most}")
            }
            Self::Hot { device, temperature, most } => {
                write!(f, "{device} has {temperature} °C of a max_temperature of {most} °C")
            }
            Self::Throttled { device } => {
                write!(f, "{device} is slowed down by heat, and max_temperature is set")
            }
        }
    }
}

/// What is less than it would have been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degraded {
    /// The first of the models.
    pub from: Name,
    /// What is another than with that one.
    pub what: Vec<Cow<'static, str>>,
    /// Why it was not the first.
    pub because: Option<Reason>,
}

/// An error, as a record keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Its code.
    pub code: String,
    /// What happened, and where.
    pub message: String,
    /// How to fix it.
    pub help: String,
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        let [code, message, help] = [error.code(), error.message(), error.how_to_fix()].map(str::to_owned);
        Self { code, message, help }
    }
}

impl From<Fault> for Error {
    fn from(Fault { code, message, help }: Fault) -> Self {
        Self::new(code, message).help(help)
    }
}

impl Considered {
    /// Why it cannot take the request, and what it does not keep, in words.
    pub fn reasons(&self) -> Vec<String> {
        self.rejected.iter().chain(&self.breaks).map(ToString::to_string).collect()
    }
}

impl Decision {
    /// The chosen model.
    ///
    /// # Errors
    /// Why the request is refused: `model-not-found`, `model-not-chosen`, `task-mismatch`, `no-candidate`,
    /// `route-policy`.
    pub fn model(&self) -> Result<&str, Error> {
        match (&self.chosen, &self.refused) {
            (Some(model), _) => Ok(model),
            (None, Some(fault)) => Err(fault.clone().into()),
            (None, None) => Err(Error::new("internal", "a decision without a model and without a reason")),
        }
    }

    /// The decision as it is told: with the reasons of each candidate also in words.
    pub fn told(&self) -> Value {
        let mut told = json!(self);
        for (place, candidate) in self.candidates.iter().enumerate() {
            told["candidates"][place]["words"] = candidate.reasons().into();
        }
        told
    }

    /// Why this model, in a few words.
    pub fn reason(&self, task: Task) -> String {
        let mut words = match (self.by, &self.rule, &self.name) {
            (By::Rule, Some(rule), _) => format!("the rule `{rule}`"),
            (By::Default, _, Some(name)) => format!("the default for {task} (defaults.{task}), `{name}`"),
            (By::Default, ..) => format!("the default for {task} (defaults.{task})"),
            (By::Only, ..) => format!("the only model for {task}"),
            (_, _, Some(name)) => format!("`{name}` was asked for"),
            _ => "asked for".to_owned(),
        };
        if let Some(Degraded { from, because, .. }) = &self.degraded {
            words += &format!("; in place of `{from}`");
            if let Some(because) = because {
                words += &format!(": {because}");
            }
        }
        for reason in &self.breaks {
            words += &format!("; although {reason}");
        }
        words
    }
}
