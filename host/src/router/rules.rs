//! The rules of a configuration, made ready to be asked often.

use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::ask::Ask;
use super::decision::Decision;
use super::fingerprint;
use super::intent::{Classifier, Intent, Sense};
use super::name::Name;
use super::similar::{Comparison, Similar};
use super::steps::{Condition, Step, Steps};
use super::words::Words;
use crate::config::{self, Config, Id, OneOrMany, Pattern, Routing, Task, When, suggest};
use crate::error::{Error, Result};

/// Models to choose among: steps, the best first, each of models that are equally good.
pub(super) type Plan = Vec<Vec<Name>>;

/// What a name stands for that models are asked for by, if it leads somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    /// A model, under its own name.
    Model,
    /// Something else, which stands for these.
    Plan(Plan),
}

/// The rules, ladders, aliases, defaults and policies of a configuration.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    rules: Vec<Compiled>,
    /// Of each rule its id.
    ids: Arc<[Name]>,
    names: BTreeMap<String, Named>,
    defaults: BTreeMap<Task, String>,
    /// The policies where no rule applies.
    pub(super) policies: Routing,
    words: Words,
    /// Who says what prompts want, where a rule asks for that.
    sense: Option<Sense>,
    fingerprint: String,
}

#[derive(Debug, Clone)]
pub(super) struct Compiled {
    when: When,
    /// What a record calls the conditions that look at words.
    keywords: Option<String>,
    regex: Option<String>,
    /// How sure the classifier must be, in thousandths.
    least: u16,
    /// The examples that a request must be near to.
    similar: Option<Comparison>,
    pub(super) priority: Option<i32>,
    pub(super) plan: Plan,
    pub(super) policies: Routing,
}

/// Asks for no model in particular: clients of OpenAI's API have to ask for one.
pub(super) const ANY: &str = "auto";

impl Rules {
    /// Those of a checked configuration, with the classifier that the host has with it.
    ///
    /// # Errors
    /// `config-invalid-value` when the keywords are more than this machine can look for.
    pub fn new(config: &Config) -> Result<Self> {
        let steps = &config.routing.intent.steps;
        let asks = config.routes.iter().any(|rule| rule.when.intent.is_some());
        let sense = match asks {
            true if steps.is_empty() => Some(Sense::Weights(Classifier::built_in()?)),
            true => Some(Sense::stages(steps)),
            false => None,
        };
        Self::compiled(config, sense)
    }

    /// As [`new`](Self::new), with another classifier.
    ///
    /// # Errors
    /// As for [`new`](Self::new); `config-unknown-reference` when a rule asks for what it does not know.
    pub fn with_classifier(config: &Config, classifier: Classifier) -> Result<Self> {
        let known: Vec<&str> = classifier.labels().iter().map(String::as_str).collect();
        for rule in &config.routes {
            let mut asked = rule.when.intent.iter().flat_map(|labels| labels.iter());
            if let Some(label) = asked.find(|label| !known.contains(&label.as_str())) {
                let message = format!("the rule `{}`: the classifier knows no intent `{label}`", rule.id);
                let help = suggest::help(label, "intents", known.iter().copied());
                return Err(Error::new("config-unknown-reference", message).help(help));
            }
        }
        Self::compiled(config, Some(Sense::Weights(classifier)))
    }

    fn compiled(config: &Config, sense: Option<Sense>) -> Result<Self> {
        let plan = |steps: config::Steps<'_>| -> Plan {
            steps.into_iter().map(|step| step.into_iter().map(|id| Name::from(&**id)).collect()).collect()
        };
        let mut names: BTreeMap<String, Named> = BTreeMap::new();
        for name in config.names() {
            let named = match config.model(name) {
                Some(_) => Named::Model,
                // Of a checked configuration every name leads somewhere.
                None => Named::Plan(config.steps(name).map(plan).unwrap_or_default()),
            };
            names.insert(name.to_owned(), named);
        }
        let rules: Vec<Compiled> = config
            .routes
            .iter()
            .map(|rule| Compiled {
                keywords: rule.when.keywords.as_ref().map(|words| format!("keywords {}", words.join(", "))),
                regex: rule.when.regex.as_ref().map(|regex| format!("regex {regex}")),
                least: rule.when.min_confidence.unwrap_or(config.routing.intent.min_confidence).get(),
                similar: rule
                    .when
                    .similar
                    .as_ref()
                    .map(|similar| Comparison::new(similar, &config.routing.similar)),
                priority: rule.priority.map(|priority| priority.0),
                when: rule.when.clone(),
                plan: config.steps_of(&rule.targets).map(plan).unwrap_or_default(),
                policies: rule.policies(&config.routing),
            })
            .collect();
        let keywords = rules.iter().map(|rule| {
            rule.when.keywords.iter().flat_map(|words| words.iter()).map(String::as_str).collect()
        });
        let words = Words::new(keywords).map_err(|error| {
            Error::new("config-invalid-value", format!("the keywords of the rules: {error}"))
        })?;
        let weights = sense.as_ref().map(Sense::by);
        let written =
            json!([config.routing, config.aliases, config.ladders, config.routes, config.defaults, weights]);
        let fingerprint = fingerprint(written.to_string().as_bytes());
        let defaults =
            Task::ALL.into_iter().filter_map(|task| Some((task, config.defaults.of(task)?.to_string())));
        Ok(Self {
            defaults: defaults.collect(),
            policies: config.routing.clone(),
            rules,
            ids: config.routes.iter().map(|rule| Name::from(&*rule.id)).collect(),
            names,
            words,
            sense,
            fingerprint,
        })
    }

    /// What tells these rules from others.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Whether callers may ask for this name: a model, a ladder, an alias, one that a rule knows, or `auto`.
    pub fn know(&self, name: &str) -> bool {
        let of_a_rule = |rule: &Compiled| {
            rule.when.model.as_ref().is_some_and(|names| names.iter().any(|id| **id == *name))
        };
        name == ANY || self.names.contains_key(name) || self.rules.iter().any(of_a_rule)
    }

    /// The headers that rules look at, in lower case.
    pub fn headers(&self) -> impl Iterator<Item = String> {
        self.rules.iter().flat_map(|rule| rule.when.header.keys()).map(|name| name.to_ascii_lowercase())
    }

    /// Whether the policies of some request look where its session or its beginning went before.
    pub fn affinity(&self) -> bool {
        self.policies.affinity.is_some() || self.rules.iter().any(|rule| rule.policies.affinity.is_some())
    }

    /// Whether some policy looks at temperatures.
    pub fn heat(&self) -> bool {
        self.policies.max_temperature.is_some()
            || self.rules.iter().any(|rule| rule.policies.max_temperature.is_some())
    }

    /// Whether a model is one of several that are compared, so that its size has to be known before it is loaded.
    pub fn compare(&self, model: &str) -> bool {
        let several = |plan: &Plan| {
            plan.iter().map(Vec::len).sum::<usize>() > 1 && plan.iter().flatten().any(|id| **id == *model)
        };
        let headroom = |policies: &Routing| policies.vram_headroom.is_some();
        headroom(&self.policies)
            || self.rules.iter().any(|rule| several(&rule.plan) || headroom(&rule.policies))
            || self.names.values().any(|named| matches!(named, Named::Plan(plan) if several(plan)))
    }

    pub(super) fn named(&self, name: &str) -> Option<&Named> {
        self.names.get(name)
    }

    pub(super) fn default_of(&self, task: Task) -> Option<&str> {
        self.defaults.get(&task).map(String::as_str)
    }

    /// What a text wants; `None` where no rule asks for that, and where stages say it.
    pub fn intent(&self, text: &str) -> Option<Intent> {
        match &self.sense {
            Some(Sense::Weights(classifier)) => Some(classifier.classify(text)),
            Some(Sense::Stages { .. }) | None => None,
        }
    }

    /// What tells the stages that say what prompts want from others, where stages do.
    pub fn sensed_by_stages(&self) -> Option<&str> {
        self.sense.as_ref().filter(|sense| matches!(sense, Sense::Stages { .. })).map(Sense::by)
    }

    /// Whether a rule that may apply asks what the text wants, and nobody has found out.
    pub fn wants_intent(&self, ask: &Ask) -> bool {
        let Some(sense) = &self.sense else { return false };
        let known = ask.intent.as_ref().is_some_and(|intent| intent.by == sense.by());
        let asked = Cell::new(false);
        if !known {
            let intent = || {
                asked.set(true);
                None
            };
            self.walk(ask, &intent, &|comparison| ask.similar.get(&comparison.name).cloned());
        }
        asked.get()
    }

    /// What the text has to be compared with next: of the first rule that may apply, asks for that, and nobody has found out.
    pub fn wants_similar(&self, ask: &Ask) -> Option<&Comparison> {
        self.rules.iter().find(|rule| rule.similar.is_some())?;
        ask.text.as_deref().filter(|text| !text.trim().is_empty())?;
        let (wanted, intent) = (Cell::new(None), OnceCell::new());
        self.walk(ask, &|| intent.get_or_init(|| self.intent_of(ask)).clone(), &|comparison| {
            let known = ask.similar.get(&comparison.name).cloned();
            if known.is_none() {
                wanted.set(wanted.get().or(Some(comparison)));
            }
            known
        });
        wanted.get()
    }

    /// What the ask wants: as these weights said before, or say now, or else as others said.
    fn intent_of(&self, ask: &Ask) -> Option<Intent> {
        let by = self.sense.as_ref().map(Sense::by);
        let said = ask.intent.as_ref();
        let ours = said.filter(|intent| Some(intent.by.as_str()) == by).cloned();
        ours.or_else(|| self.intent(ask.text.as_deref()?)).or_else(|| said.cloned())
    }

    /// The first rule that applies, all that were looked at, and what the text wants, if one of them asked for that.
    pub(super) fn first(&self, ask: &Ask) -> (Option<&Compiled>, Steps, Option<Intent>) {
        let intent = OnceCell::new();
        let similar = |comparison: &Comparison| ask.similar.get(&comparison.name).cloned();
        let (rule, steps) = self.walk(ask, &|| intent.get_or_init(|| self.intent_of(ask)).clone(), &similar);
        (rule, steps, intent.into_inner().flatten())
    }

    /// The first rule that applies, and all that were looked at. `intent` says what the text wants, `similar` how near it is
    /// to examples: that costs most, and is looked at last.
    fn walk<'r>(
        &'r self,
        ask: &Ask,
        intent: &dyn Fn() -> Option<Intent>,
        similar: &dyn Fn(&'r Comparison) -> Option<Similar>,
    ) -> (Option<&'r Compiled>, Steps) {
        let found = OnceCell::new();
        let mut steps = Steps::new(&self.ids);
        for (index, rule) in self.rules.iter().enumerate() {
            let mut failed = rule.failed(
                ask,
                || {
                    let found =
                        found.get_or_init(|| ask.text.as_deref().map(|text| self.words.found_in(text)));
                    found.as_ref().map(|found| found[index])
                },
                intent,
            );
            let comparison = rule.similar.as_ref().filter(|_| failed.is_none());
            let near = comparison.and_then(similar);
            if comparison.is_some_and(|one| !near.as_ref().is_some_and(|near| one.holds(near))) {
                failed = Some(Condition::Similar);
            }
            steps.push(failed, near);
            if failed.is_none() {
                return (Some(rule), steps);
            }
        }
        (None, steps)
    }

    /// Whether a rule may have been passed over only because the ask no longer has its words, or was never compared with the
    /// rule's examples.
    pub fn unsure(&self, ask: &Ask, steps: &Steps) -> bool {
        let wordless = ask.text.is_none();
        let missing = |name: &Option<String>| name.as_ref().is_some_and(|name| !ask.words.contains_key(name));
        let may_apply = |(rule, step): (&Compiled, Step<'_>)| match step.failed {
            Some(Condition::Keywords) => wordless && missing(&rule.keywords),
            Some(Condition::Regex) => wordless && missing(&rule.regex),
            Some(Condition::Intent) => wordless && self.wants_intent(ask),
            Some(Condition::Similar) => step.similar.is_none(),
            _ => false,
        };
        self.rules.iter().zip(steps.iter()).any(may_apply)
    }

    /// The ask without its words, but with what the rules that this decision looked at found in them: it stays the same.
    #[must_use]
    pub fn without_words(&self, mut ask: Ask, decision: &Decision) -> Ask {
        if decision.intent.is_some() {
            ask.intent.clone_from(&decision.intent);
        }
        let Some(text) = ask.text.take() else { return ask };
        let found = self.words.found_in(&text);
        for (index, rule) in self.rules.iter().enumerate().take(decision.steps.len()) {
            if let Some(keywords) = &rule.keywords {
                ask.words.insert(keywords.clone(), found[index]);
            }
            if let (Some(name), Some(regex)) = (&rule.regex, &rule.when.regex) {
                ask.words.insert(name.clone(), regex.is_in(&text));
            }
        }
        ask
    }
}

impl Compiled {
    /// The first condition that the ask does not meet; what costs most is looked at last. `keywords` says whether one of
    /// the rule's is in the text, if there is one; `intent` what the text wants.
    fn failed(
        &self,
        ask: &Ask,
        keywords: impl FnOnce() -> Option<bool>,
        intent: &dyn Fn() -> Option<Intent>,
    ) -> Option<Condition> {
        let When {
            model,
            task,
            regex,
            min_tokens,
            max_tokens,
            has,
            language,
            key,
            metadata,
            hours,
            header,
            ..
        } = &self.when;
        let named = ask.model.as_deref().filter(|name| *name != ANY);
        let is_one = |ids: &OneOrMany<Id>, word: Option<&str>| {
            word.is_some_and(|word| ids.iter().any(|id| **id == *word))
        };
        let all_in = |wanted: &BTreeMap<String, OneOrMany<String>>,
                      given: &dyn Fn(&str) -> Option<String>| {
            wanted.iter().all(|(name, values)| given(name).is_some_and(|value| values.contains(&value)))
        };
        let checks: [(Condition, &dyn Fn() -> bool); 10] = [
            (Condition::Model, &|| match model {
                Some(names) => is_one(names, ask.model.as_deref()),
                None => named.is_none(),
            }),
            (Condition::Task, &|| task.as_ref().is_none_or(|tasks| tasks.contains(&ask.task))),
            (Condition::MinTokens, &|| min_tokens.is_none_or(|least| ask.tokens >= least)),
            (Condition::MaxTokens, &|| max_tokens.is_none_or(|most| ask.tokens <= most)),
            (Condition::Has, &|| has.as_ref().is_none_or(|all| all.iter().all(|one| ask.has.contains(one)))),
            (Condition::Hours, &|| hours.is_none_or(|hours| hours.holds(ask.minute))),
            (Condition::Key, &|| key.as_ref().is_none_or(|names| is_one(names, ask.key.as_deref()))),
            (Condition::Language, &|| {
                let speaks = |wanted: &String| {
                    ask.language.as_ref().is_some_and(|language| language.eq_ignore_ascii_case(wanted))
                };
                language.as_ref().is_none_or(|languages| languages.iter().any(speaks))
            }),
            (Condition::Metadata, &|| all_in(metadata, &|name| ask.metadata.get(name).cloned())),
            (Condition::Header, &|| {
                all_in(header, &|name| ask.headers.get(&name.to_ascii_lowercase()).cloned())
            }),
        ];
        if let Some((failed, _)) = checks.iter().find(|(_, holds)| !holds()) {
            return Some(*failed);
        }
        let recorded = |name: &Option<String>| name.as_ref().and_then(|name| ask.words.get(name)).copied();
        if self.keywords.is_some() && keywords().or_else(|| recorded(&self.keywords)) != Some(true) {
            return Some(Condition::Keywords);
        }
        let matches = |regex: &Pattern| ask.text.as_deref().map(|text| regex.is_in(text));
        let found = |regex: &Pattern| matches(regex).or_else(|| recorded(&self.regex)) == Some(true);
        if regex.as_ref().is_some_and(|regex| !found(regex)) {
            return Some(Condition::Regex);
        }
        let is_one = |wanted: &OneOrMany<String>| {
            intent().is_some_and(|intent| intent.share >= self.least && wanted.contains(&intent.label))
        };
        self.when.intent.as_ref().is_some_and(|wanted| !is_one(wanted)).then_some(Condition::Intent)
    }
}
