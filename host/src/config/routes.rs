//! Which model takes which request: rules, ladders, other names for models, and the policies of a choice.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::entries::Step;
use super::pattern::{Hours, Names, OneOrMany, Pattern};
use super::priority::Priority;
use super::quantity::{ByteSize, Period, Share};
use super::remote::Cost;
use super::similar::{Nearness, Similar};
use super::task::Task;
use super::text::{Id, LocalPath};
use super::{Config, Model};

/// What a prompt may want, as far as the classifier that comes with the host knows.
pub const INTENTS: [&str; 6] = ["chat", "code", "maths", "summarising", "tool-use", "translation"];

/// How a model is chosen where several may take a request. A rule may say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Routing {
    /// The longest that an answer may be predicted to take, waiting and loading included.
    pub latency_budget: Option<Period>,
    /// What must stay free for models on the device of the one that is chosen, once it is in memory.
    pub vram_headroom: Option<ByteSize>,
    /// Take only models that are in memory.
    pub warm_only: bool,
    /// The highest temperature in degrees Celsius that a device may have to be given a request. One that heat slows down is given
    /// none, either.
    pub max_temperature: Option<u32>,
    /// The most that a million tokens of a model may cost.
    pub max_cost: Option<Cost>,
    /// How many requests may wait for a model; one that would be one more goes to the next step.
    pub spill: Option<u32>,
    /// Of models that are equally good, the one that has the beginning of the request in its cache.
    pub affinity: Option<Affinity>,
    /// What becomes of a request for which no model keeps the policies.
    pub otherwise: Otherwise,
    /// What of requests the latest decisions keep.
    pub record: Record,
    /// A file that every decision is added to when its request ends, one JSON object a line. At 64 MiB it becomes the
    /// one before, `NAME.1`.
    pub log: Option<LocalPath>,
    /// How is found out what prompts want, where a rule asks for an `intent`.
    pub intent: Intents,
    /// How requests are compared with examples, where a rule has `similar`.
    pub similar: Nearness,
}

/// How is found out what prompts want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Intents {
    /// The classifier's weights, a file that `models/intent/train.py` made; those that come with the host when not set.
    pub model: Option<LocalPath>,
    /// Stages that say it in place of the classifier: the first takes `text`, what the user said last; the last leaves
    /// `labels`, the likeliest first.
    pub steps: Vec<Step>,
    /// How sure it must be, from 0 to 1, for a rule that does not say.
    pub min_confidence: Share,
}

impl Default for Intents {
    fn default() -> Self {
        Self { model: None, steps: Vec::new(), min_confidence: Share::thousandths(600) }
    }
}

/// What goes to the model that it went to before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Affinity {
    /// Requests of one session: the header `x-session-id`, or of the body `metadata.session_id`, `prompt_cache_key` or
    /// `user`.
    Session,
    /// Requests that begin alike: with the same system prompt and the same first turn.
    Prefix,
}

/// What becomes of a request for which no model keeps the policies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Otherwise {
    /// The first that can take it does, and the route says which policies it breaks.
    #[default]
    Best,
    /// Of all that can take it the one that is predicted to answer first does, and the route says which policies it breaks.
    Fastest,
    /// It is refused, with each model's reason.
    Refuse,
}

/// What of requests the latest decisions keep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Record {
    /// Nothing: decisions are not kept.
    Off,
    /// All but the words, of which only is kept whether the rules' keywords and expressions were in them.
    #[default]
    Facts,
    /// The words as well, so that rules with other keywords can be tried on them.
    Text,
}

/// A rule: requests that are so go there. The first that applies decides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What traces and metrics call it; unique.
    pub id: Id,
    /// One line for people.
    #[serde(default)]
    pub description: Option<String>,
    /// What a request must be like; all of it. A rule without `model` is for requests that name none.
    #[serde(default)]
    pub when: When,
    /// A model, a ladder or another name for one; or several models, of which the one is taken that is predicted to answer
    /// first.
    #[serde(rename = "use")]
    pub targets: Names,
    /// The priority of its requests that say none themselves, in place of their key's: never higher than that.
    #[serde(default)]
    pub priority: Option<Priority>,
    /// In place of `routing.latency_budget`.
    #[serde(default)]
    pub latency_budget: Option<Period>,
    /// In place of `routing.vram_headroom`.
    #[serde(default)]
    pub vram_headroom: Option<ByteSize>,
    /// In place of `routing.warm_only`.
    #[serde(default)]
    pub warm_only: Option<bool>,
    /// In place of `routing.max_temperature`.
    #[serde(default)]
    pub max_temperature: Option<u32>,
    /// In place of `routing.max_cost`.
    #[serde(default)]
    pub max_cost: Option<Cost>,
    /// In place of `routing.spill`.
    #[serde(default)]
    pub spill: Option<u32>,
    /// In place of `routing.affinity`.
    #[serde(default)]
    pub affinity: Option<Affinity>,
    /// In place of `routing.otherwise`.
    #[serde(default)]
    pub otherwise: Option<Otherwise>,
}

impl Rule {
    /// The policies of what it sends where: its own before those of all.
    pub fn policies(&self, of_all: &Routing) -> Routing {
        Routing {
            latency_budget: self.latency_budget.or(of_all.latency_budget),
            vram_headroom: self.vram_headroom.or(of_all.vram_headroom),
            warm_only: self.warm_only.unwrap_or(of_all.warm_only),
            max_temperature: self.max_temperature.or(of_all.max_temperature),
            max_cost: self.max_cost.or(of_all.max_cost),
            spill: self.spill.or(of_all.spill),
            affinity: self.affinity.or(of_all.affinity),
            otherwise: self.otherwise.unwrap_or(of_all.otherwise),
            ..of_all.clone()
        }
    }
}

/// What a request must be like. What is not set is any.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct When {
    /// It names one of these models; they need not be configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Names>,
    /// It asks for one of these tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<OneOrMany<Task>>,
    /// One of these words or phrases is in what the user said last, whatever the case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keywords: Option<OneOrMany<String>>,
    /// This regular expression finds something in what the user said last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regex: Option<Pattern>,
    /// What the user said last wants one of these, as the classifier of `routing.intent` says: chat, code, maths, summarising,
    /// tool-use, translation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intent: Option<OneOrMany<String>>,
    /// How sure the classifier must be of `intent`, in place of `routing.intent.min_confidence`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_confidence: Option<Share>,
    /// What the user said last means about the same as one of a few examples, as a model that embeds texts says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub similar: Option<Similar>,
    /// It has at least so many tokens, as estimated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_tokens: Option<u32>,
    /// It has at most so many tokens, as estimated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// It comes with all of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub has: Option<OneOrMany<Feature>>,
    /// The client prefers one of these languages, for example `de`: the first of `accept-language`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<OneOrMany<String>>,
    /// It was sent with one of these keys of the server, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Names>,
    /// Its `metadata` has each of these with one of the values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, OneOrMany<String>>,
    /// It comes between these times of the day, in UTC: `"22:00-06:00"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hours: Option<Hours>,
    /// It has each of these headers with one of the values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub header: BTreeMap<String, OneOrMany<String>>,
}

/// What a request may come with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Feature {
    /// Functions that the answer may call.
    Tools,
    /// Pictures.
    Images,
    /// Sound.
    Audio,
    /// A schema or a grammar for the answer.
    Schema,
}

/// Models in the order in which they are tried: each later one is a degradation of the first, and told to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ladder {
    /// What rules and callers name it by; unique among models, ladders and aliases.
    pub id: Id,
    /// One line for people.
    #[serde(default)]
    pub description: Option<String>,
    /// The best first: a model, another ladder, or several models that are equally good.
    pub steps: Vec<Names>,
}

/// What a name stands for: steps, the best first, each of models that are equally good.
pub type Steps<'c> = Vec<Vec<&'c Id>>;

/// Why a name stands for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Astray<'c> {
    /// Nothing has this name.
    Unknown(&'c str),
    /// It leads back to itself, on this way.
    Circle(Vec<&'c str>),
}

impl Config {
    /// The ladder of this id.
    pub fn ladder(&self, id: &str) -> Option<&Ladder> {
        self.ladders.iter().find(|ladder| *ladder.id == *id)
    }

    /// What an alias stands for, or else the name itself.
    pub fn unaliased<'c>(&'c self, name: &'c str) -> &'c str {
        self.aliases.iter().find(|(alias, _)| ***alias == *name).map_or(name, |(_, target)| target)
    }

    /// All names that a caller may ask for: models, ladders, aliases.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        let models = self.models.iter().map(|model| &*model.id);
        let ladders = self.ladders.iter().map(|ladder| &*ladder.id);
        models.chain(ladders).chain(self.aliases.keys().map(|alias| &**alias))
    }

    /// The models that a name stands for.
    ///
    /// # Errors
    /// When it stands for nothing, or its ladders lead in a circle.
    pub fn steps<'c>(&'c self, name: &'c str) -> Result<Steps<'c>, Astray<'c>> {
        let mut steps = Vec::new();
        self.climb(name, &mut Vec::new(), &mut steps)?;
        Ok(steps)
    }

    /// The models of one step, which names none of several.
    ///
    /// # Errors
    /// As for [`steps`](Self::steps).
    pub fn steps_of<'c>(&'c self, names: &'c Names) -> Result<Steps<'c>, Astray<'c>> {
        let mut steps = Vec::new();
        self.climb_step(names, &mut Vec::new(), &mut steps)?;
        Ok(steps)
    }

    fn climb<'c>(
        &'c self,
        name: &'c str,
        way: &mut Vec<&'c str>,
        steps: &mut Steps<'c>,
    ) -> Result<(), Astray<'c>> {
        let name = self.unaliased(name);
        if let Some(model) = self.model(name) {
            steps.push(vec![&model.id]);
            return Ok(());
        }
        let ladder = self.ladder(name).ok_or(Astray::Unknown(name))?;
        if let Some(begin) = way.iter().position(|before| *before == name) {
            return Err(Astray::Circle(way[begin..].iter().copied().chain([name]).collect()));
        }
        way.push(name);
        for step in &ladder.steps {
            self.climb_step(step, way, steps)?;
        }
        way.pop();
        Ok(())
    }

    fn climb_step<'c>(
        &'c self,
        names: &'c Names,
        way: &mut Vec<&'c str>,
        steps: &mut Steps<'c>,
    ) -> Result<(), Astray<'c>> {
        if let [only] = names.as_slice() {
            return self.climb(only, way, steps);
        }
        let mut step = Vec::new();
        for name in names.iter() {
            let name = self.unaliased(name);
            let before = step.len();
            let of_name = |model: &&Model| *model.id == *name || **model.name() == *name;
            step.extend(self.models.iter().filter(of_name).map(|model| &model.id));
            if step.len() == before {
                return Err(Astray::Unknown(name));
            }
        }
        steps.push(step);
        Ok(())
    }
}
