//! What rules, ladders, aliases and policies must be like to make sense together.

use std::collections::BTreeMap;

use super::check::Check;
use super::entries::Step;
use super::pattern::Names;
use super::routes::{Astray, INTENTS, Intents, Otherwise, Routing, Rule, Steps, When};
use super::similar;
use super::suggest;
use super::task::Task;
use super::tree::Segment;

/// Headers that carry keys: no rule reads them, and no decision keeps them.
const SECRET: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "x-api-key"];

/// What helps where only models in memory are taken and none is loaded.
const LOAD_ONE: &str = "write `preload = true` at one of its models, or `otherwise = \"best\"`";

/// Whether nothing but a model in memory will do.
fn strict(policies: &Routing) -> bool {
    policies.warm_only && policies.otherwise == Otherwise::Refuse
}

/// Reports everything about routing that does not fit together.
pub(super) fn check(check: &mut Check<'_>) {
    let config = check.config;
    check.unique("ladders", config.ladders.iter().map(|ladder| &ladder.id));
    check.unique("routes", config.routes.iter().map(|rule| &rule.id));
    check.names();
    for (alias, target) in &config.aliases {
        let at = ["aliases".into(), (&**alias).into()];
        if config.aliases.contains_key(target) {
            let message = format!("the alias `{alias}` stands for `{target}`, which is an alias itself");
            check.report("config-conflict", &at, message, "name the model or the ladder");
        } else if config.model(target).is_none() && config.ladder(target).is_none() {
            let message = format!("the alias `{alias}`: there is no model or ladder `{target}`");
            check.unknown(&at, "models", target, &message);
        }
    }
    for (index, ladder) in config.ladders.iter().enumerate() {
        let at = ["ladders".into(), index.into(), "steps".into()];
        if ladder.steps.is_empty() {
            let message = format!("the ladder `{}` has no steps", ladder.id);
            check.report("config-missing-key", &at, message, "name its models, the best first");
        }
        for (n, step) in ladder.steps.iter().enumerate() {
            let whose = format!("the ladder `{}`", ladder.id);
            check.targets(&[&at[..], &[n.into()]].concat(), &whose, step);
        }
        if let Err(Astray::Circle(way)) = config.steps(&ladder.id)
            && way.first() == Some(&&*ladder.id)
        {
            let message = format!("the ladder `{}` leads back to itself: {}", ladder.id, way.join(" > "));
            check.report("config-circle", &at, message, "end each ladder with a model");
        }
        check.one_kind(&at, &format!("the ladder `{}`", ladder.id), config.steps(&ladder.id), None);
    }
    for (index, rule) in config.routes.iter().enumerate() {
        check.rule(index, rule);
    }
    let routing = &config.routing;
    check.policies(
        &["routing".into()],
        "`routing`",
        &routing.latency_budget.map(|p| p.duration()),
        routing.vram_headroom,
    );
    check.intent(&routing.intent);
    if routing.similar.wait.duration().is_zero() {
        let message = "`routing.similar`: no model answers in no time".to_owned();
        let at = ["routing".into(), "similar".into(), "wait".into()];
        check.report("config-invalid-value", &at, message, "write for example \"5s\"");
    }
    check.without_rules();
}

impl Check<'_> {
    /// Who says what prompts want: weights, or stages.
    fn intent(&mut self, intent: &Intents) {
        let at = |rest: &[Segment]| [&["routing".into(), "intent".into()], rest].concat();
        if let Some(weights) = &intent.model {
            self.exists(&at(&["model".into()]), "`routing.intent`", weights);
        }
        if intent.model.is_some() && !intent.steps.is_empty() {
            let message = "`routing.intent` has both `model` and `steps`".to_owned();
            self.report("config-conflict", &at(&["steps".into()]), message, "keep the one that is meant");
        }
        for (n, step) in intent.steps.iter().enumerate() {
            let Step::Stage(stage) = step else {
                let message = "`routing.intent`: one of its steps runs a model".to_owned();
                let help = "a request is routed before any model has it: leave stages";
                self.report("config-conflict", &at(&["steps".into(), n.into()]), message, help);
                continue;
            };
            self.files(&at(&["steps".into(), n.into(), "files".into()]), "`routing.intent`", stage);
        }
    }

    /// A caller's word must have one meaning.
    fn names(&mut self) {
        let config = self.config;
        let mut seen: BTreeMap<&str, (&str, [Segment; 2])> = BTreeMap::new();
        let models =
            config.models.iter().enumerate().map(|(i, m)| (&*m.id, "models", ["models".into(), i.into()]));
        let ladders =
            config.ladders.iter().enumerate().map(|(i, l)| (&*l.id, "ladders", ["ladders".into(), i.into()]));
        let aliases = config.aliases.keys().map(|a| (&**a, "aliases", ["aliases".into(), (&**a).into()]));
        for (name, list, at) in models.chain(ladders).chain(aliases) {
            match seen.get(name) {
                // Two of one list are told apart from this already.
                Some((first, _)) if *first == list => {}
                Some((first, other)) => {
                    let (first, place) = ((*first).to_owned(), self.tree.deepest(other).origin.clone());
                    let message = format!("`{name}` is a name in `{first}` and in `{list}`");
                    let help = format!("give one of them another name; the first is at {place}");
                    self.report("config-duplicate-id", &at, message, help);
                }
                None => drop(seen.insert(name, (list, at))),
            }
        }
    }

    /// Each name of a target leads somewhere; several stand for models.
    fn targets(&mut self, at: &[Segment], whose: &str, names: &Names) {
        for (n, name) in names.iter().enumerate() {
            let at = match names.len() {
                1 => at.to_vec(),
                _ => [at, &[n.into()]].concat(),
            };
            let target = self.config.unaliased(name);
            let is_ladder = self.config.ladder(target).is_some();
            if is_ladder && names.len() > 1 {
                let message =
                    format!("{whose}: `{name}` is a ladder, and several that are equally good are models");
                self.report("config-conflict", &at, message, "name its models, or make it a step of its own");
            } else if !is_ladder && self.config.model(target).is_none() {
                self.unknown(&at, "models", name, &format!("{whose}: there is no model or ladder `{name}`"));
            }
        }
    }

    /// The models of one choice must do the same, and, where a rule says which, the tasks of the rule.
    fn one_kind(
        &mut self,
        at: &[Segment],
        whose: &str,
        steps: Result<Steps<'_>, Astray<'_>>,
        tasks: Option<&[Task]>,
    ) {
        let Ok(steps) = steps else { return };
        let models: Vec<_> = steps
            .into_iter()
            .flatten()
            .filter_map(|id| self.config.model(id))
            .filter_map(|m| Some((&m.id, m.task?)))
            .collect();
        for wanted in tasks.unwrap_or_default() {
            if let Some((id, own)) = models.iter().find(|(_, own)| !own.covers(*wanted)) {
                let message = format!("{whose}: the model `{id}` is for the task `{own}`, not for {wanted}");
                self.report("config-conflict", at, message, format!("name models whose task is `{wanted}`"));
                return;
            }
        }
        if let Some((first, task)) = models.first()
            && let Some((id, other)) =
                models.iter().find(|(_, other)| !task.covers(*other) && !other.covers(*task))
        {
            let message = format!("{whose}: `{first}` is for the task `{task}`, `{id}` for `{other}`");
            self.report("config-conflict", at, message, "name models of one task");
        }
    }

    fn rule(&mut self, index: usize, rule: &Rule) {
        let at = |key: &str| vec![Segment::from("routes"), index.into(), key.into()];
        let whose = format!("the rule `{}`", rule.id);
        let when = &rule.when;
        self.targets(&at("use"), &whose, &rule.targets);
        let tasks = when.task.as_ref().map(|tasks| tasks.as_slice());
        self.one_kind(&at("use"), &whose, self.config.steps_of(&rule.targets), tasks);
        self.conditions(&at("when"), &whose, when);
        self.policies(
            &at("use")[..2],
            &whose,
            &rule.latency_budget.map(|p| p.duration()),
            rule.vram_headroom,
        );
        self.may_ever_be_warm(&at("warm_only"), &whose, rule);
        let earlier =
            self.config.routes[..index].iter().find(|earlier| applies_whenever(&earlier.when, when));
        if let Some(earlier) = earlier {
            let message =
                format!("{whose} is never reached: `{}` applies before it to all that it does", earlier.id);
            self.report("config-conflict", &at("id"), message, "move it before that one");
        }
    }

    fn conditions(&mut self, at: &[Segment], whose: &str, when: &When) {
        let below = |key: &str| [at, &[key.into()]].concat();
        if let (Some(least), Some(most)) = (when.min_tokens, when.max_tokens)
            && least > most
        {
            let message = format!(
                "{whose} is for requests of at least {least} and at most {most} tokens: there are none"
            );
            self.report("config-conflict", &below("max_tokens"), message, "exchange the two");
        }
        for (n, key) in when.key.iter().flat_map(|keys| keys.iter()).enumerate() {
            if !self.config.server.keys.iter().any(|known| known.name == *key) {
                let several = when.key.as_ref().is_some_and(|keys| keys.len() > 1);
                let place = if several { [&below("key")[..], &[n.into()]].concat() } else { below("key") };
                self.unknown(&place, "keys", key, &format!("{whose}: the server has no key `{key}`"));
            }
        }
        for name in when.header.keys() {
            let place = [&below("header")[..], &[name.as_str().into()]].concat();
            if SECRET.iter().any(|secret| name.eq_ignore_ascii_case(secret)) {
                let message = format!("{whose}: the header `{name}` holds what is secret");
                self.report("config-invalid-value", &place, message, "tell callers apart with `key`");
            } else if name.is_empty()
                || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            {
                let message = format!("{whose}: `{name}` is no name of a header");
                self.report("config-invalid-value", &place, message, "write it like `x-team`");
            }
        }
        if when.min_confidence.is_some() && when.intent.is_none() {
            let message = format!("{whose}: `min_confidence` is how sure the classifier must be of `intent`");
            self.report(
                "config-conflict",
                &below("min_confidence"),
                message,
                "name an `intent`, or take it out",
            );
        }
        // What weights of the operator's own know is seen when they are read.
        let Intents { model, steps, .. } = &self.config.routing.intent;
        let built_in = model.is_none() && steps.is_empty();
        let several = when.intent.as_ref().is_some_and(|labels| labels.len() > 1);
        for (n, label) in when.intent.iter().flat_map(|labels| labels.iter()).enumerate() {
            if built_in && !INTENTS.contains(&label.as_str()) {
                let place =
                    if several { [&below("intent")[..], &[n.into()]].concat() } else { below("intent") };
                let message = format!("{whose}: the classifier knows no intent `{label}`");
                let help = suggest::help(label, "intents", INTENTS);
                self.report("config-unknown-reference", &place, message, help);
            }
        }
        if let Some(examples) = &when.similar {
            similar::check(self, &below("similar"), whose, examples);
        }
        for (key, words) in [("keywords", &when.keywords), ("language", &when.language)] {
            if words.iter().flat_map(|words| words.iter()).any(|word| word.trim().is_empty()) {
                let message = format!("{whose}: one of its `{key}` is empty");
                self.report("config-invalid-value", &below(key), message, "take it out");
            }
        }
    }

    fn policies(
        &mut self,
        at: &[Segment],
        whose: &str,
        budget: &Option<std::time::Duration>,
        headroom: Option<super::ByteSize>,
    ) {
        let below = |key: &str| [at, &[key.into()]].concat();
        if budget.is_some_and(|budget| budget.is_zero()) {
            let message = format!("{whose}: no answer takes no time");
            self.report(
                "config-invalid-value",
                &below("latency_budget"),
                message,
                "write for example \"2s\"",
            );
        }
        let limit = self.config.memory.limit;
        if let (Some(headroom), Some(limit)) = (headroom, limit)
            && headroom >= limit
        {
            let message =
                format!("{whose}: `vram_headroom` is {headroom}, and models may hold {limit} in all");
            self.report(
                "config-conflict",
                &below("vram_headroom"),
                message,
                "lower it, or raise `memory.limit`",
            );
        }
    }

    /// What no rule sends goes where names and defaults lead, under the policies of all.
    fn without_rules(&mut self) {
        let config = self.config;
        let routing = &config.routing;
        if !strict(routing) {
            return;
        }
        let loading = config
            .routes
            .iter()
            .filter(|rule| !strict(&rule.policies(routing)))
            .filter_map(|rule| config.steps_of(&rule.targets).ok());
        let loaded: Vec<_> = loading.flatten().flatten().collect();
        let never_warm = |steps: Result<Steps<'_>, Astray<'_>>| {
            let models: Vec<_> =
                steps.into_iter().flatten().flatten().filter_map(|id| config.model(id)).collect();
            !models.is_empty() && models.iter().all(|model| !model.preload && !loaded.contains(&&model.id))
        };
        for (index, ladder) in config.ladders.iter().enumerate() {
            if never_warm(config.steps(&ladder.id)) {
                let message = format!(
                    "the ladder `{}`: `routing` takes only models in memory and refuses otherwise, and nothing loads one of them",
                    ladder.id
                );
                self.report(
                    "config-conflict",
                    &["ladders".into(), index.into(), "steps".into()],
                    message,
                    LOAD_ONE,
                );
            }
        }
        for task in Task::ALL {
            let Some(name) = config.defaults.of(task).filter(|name| config.ladder(name).is_none()) else {
                continue;
            };
            if never_warm(config.steps(name)) {
                let message = format!(
                    "`defaults.{task}`: `routing` takes only models in memory and refuses otherwise, and nothing loads `{name}`"
                );
                self.report("config-conflict", &["defaults".into(), task.name().into()], message, LOAD_ONE);
            }
        }
    }

    /// A rule that refuses whatever is not in memory must have a model that gets there without it.
    fn may_ever_be_warm(&mut self, at: &[Segment], whose: &str, rule: &Rule) {
        let policies = rule.policies(&self.config.routing);
        let Ok(steps) = self.config.steps_of(&rule.targets) else { return };
        let mut models = steps.into_iter().flatten().filter_map(|id| self.config.model(id));
        if strict(&policies) && !models.any(|model| model.preload) {
            let message =
                format!("{whose} takes only models in memory and refuses otherwise, and nothing loads one");
            self.report("config-conflict", at, message, LOAD_ONE);
        }
    }
}

/// Whether a rule without conditions, but for the model, comes before another for the same.
fn applies_whenever(earlier: &When, later: &When) -> bool {
    let plain = When { model: None, ..earlier.clone() } == When::default();
    let same = match (&earlier.model, &later.model) {
        (None, None) => true,
        (Some(earlier), Some(later)) => later.iter().all(|name| earlier.contains(name)),
        _ => false,
    };
    plain && same
}

/// What is known of a model that was looked at, beyond what the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// What it was made for.
    pub task: Option<Task>,
    /// Why it can never be in the memory of this machine.
    pub too_large: Option<String>,
    /// Bytes that it leaves of what models may hold on its device, when it is alone there.
    pub leaves: Option<u64>,
}

/// Reports the rules and ladders that do not suit models which are `known`.
pub(super) fn check_known(check: &mut Check<'_>, known: &dyn Fn(&str) -> Known) {
    let config = check.config;
    let ladders = config.ladders.iter().enumerate().map(|(index, ladder)| {
        let at = vec!["ladders".into(), index.into(), "steps".into()];
        (at, format!("the ladder `{}`", ladder.id), config.steps(&ladder.id), [].as_slice())
    });
    let rules = config.routes.iter().enumerate().map(|(index, rule)| {
        let at = vec!["routes".into(), index.into(), "use".into()];
        let tasks = rule.when.task.as_ref().map_or([].as_slice(), |tasks| tasks);
        (at, format!("the rule `{}`", rule.id), config.steps_of(&rule.targets), tasks)
    });
    for (index, rule) in config.routes.iter().enumerate() {
        headroom(check, index, rule, known);
    }
    similar::check_known(check, known);
    for (at, whose, steps, tasks) in ladders.chain(rules) {
        let models: Vec<(&str, Known)> =
            steps.into_iter().flatten().flatten().map(|id| (&**id, known(id))).collect();
        let other = |own: Task| tasks.iter().find(|task| !own.covers(**task));
        let misfit = models.iter().find_map(|(id, known)| Some((id, known.task?, other(known.task?)?)));
        if let Some((id, own, wanted)) = misfit {
            let message = format!("{whose}: the model `{id}` is for the task `{own}`, not for {wanted}");
            check.report("config-conflict", &at, message, format!("name models whose task is `{wanted}`"));
        }
        let reasons: Vec<&str> = models.iter().filter_map(|(_, known)| known.too_large.as_deref()).collect();
        if !models.is_empty() && reasons.len() == models.len() {
            let message =
                format!("{whose}: no model of it can ever be in memory here: {}", reasons.join("; "));
            let help = "add a smaller precision or model, a shorter context, or raise `memory.limit`";
            check.report("config-too-large", &at, message, help);
        }
    }
}

/// A rule that refuses whoever leaves too little free needs a model that could leave so much.
fn headroom(check: &mut Check<'_>, index: usize, rule: &Rule, known: &dyn Fn(&str) -> Known) {
    let policies = rule.policies(&check.config.routing);
    let (Some(headroom), Otherwise::Refuse) = (policies.vram_headroom, policies.otherwise) else { return };
    let Ok(steps) = check.config.steps_of(&rule.targets) else { return };
    let leaves: Vec<Option<u64>> = steps.into_iter().flatten().map(|id| known(id).leaves).collect();
    // Of a model that is too large nothing is left, which is said already.
    let never = |leaves: &Option<u64>| leaves.is_some_and(|leaves| leaves < headroom.get());
    if let Some(most) = leaves.iter().flatten().max().filter(|_| leaves.iter().all(never)) {
        let message = format!(
            "the rule `{}`: `vram_headroom` is {headroom}, and its models leave {} MiB at most, alone on their device",
            rule.id,
            most >> 20
        );
        let at = ["routes".into(), index.into(), "vram_headroom".into()];
        check.report("config-conflict", &at, message, "lower it, or write `otherwise = \"best\"`");
    }
}
