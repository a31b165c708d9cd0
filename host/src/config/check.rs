//! What the types alone cannot say: ids are unique, references lead somewhere, files exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::check_routes::{self, Known};
use super::entries::{Model, Pipeline, StageStep, Step};
use super::isolation::Isolation;
use super::origin::Origin;
use super::pattern::OneOrMany;
use super::problem::{Problem, Problems};
use super::task::Task;
use super::text::{GrantedFile, Id, LocalPath};
use super::tree::{Node, Segment};
use super::ways::MOST_WAYS;
use super::{Config, suggest};

/// Reports everything about `config`, read from `tree`, that does not fit together.
pub(super) fn check(config: &Config, tree: &Node, problems: &mut Problems) {
    let mut check = Check { config, tree, problems };
    check.server();
    check.folders("plugins", &config.plugins.search);
    check.folders("stages", &config.stages.search);
    check.jobs();
    check.unique("models", config.models.iter().map(|m| &m.id));
    check.unique("pipelines", config.pipelines.iter().map(|p| &p.id));
    for (i, model) in config.models.iter().enumerate() {
        check.model(i, model);
    }
    for (i, pipeline) in config.pipelines.iter().enumerate() {
        check.pipeline(i, pipeline);
    }
    check.defaults();
    check_routes::check(&mut check);
}

/// Reports the rules and ladders that do not suit models which are `known`.
pub(super) fn check_known(
    config: &Config,
    tree: &Node,
    known: &dyn Fn(&str) -> Known,
    problems: &mut Problems,
) {
    check_routes::check_known(&mut Check { config, tree, problems }, known);
}

/// Reports the steps that name a stage which is not among `known`.
pub(super) fn check_stages(config: &Config, tree: &Node, known: &[&str], problems: &mut Problems) {
    let mut check = Check { config, tree, problems };
    let mut lists: Vec<(Vec<Segment>, &[Step])> =
        vec![(vec!["routing".into(), "intent".into()], &config.routing.intent.steps)];
    let pipelines = config.pipelines.iter().enumerate();
    lists.extend(pipelines.map(|(i, pipeline)| (vec!["pipelines".into(), i.into()], &pipeline.steps[..])));
    for (at, steps) in lists {
        for (n, step) in steps.iter().enumerate() {
            let Some(stage) = step.stage().filter(|stage| !known.contains(stage)) else { continue };
            check.report(
                "config-unknown-reference",
                &[&at[..], &["steps".into(), n.into(), "stage".into()]].concat(),
                format!("there is no stage `{stage}`"),
                suggest::help(stage, "stages", known.iter().copied()),
            );
        }
    }
}

pub(super) struct Check<'c> {
    pub(super) config: &'c Config,
    pub(super) tree: &'c Node,
    problems: &'c mut Problems,
}

impl Check<'_> {
    pub(super) fn report(
        &mut self,
        code: &'static str,
        at: &[Segment],
        message: String,
        help: impl Into<String>,
    ) {
        let origin = self.tree.deepest(at).origin.clone();
        self.problems.push(Problem::new(code, &origin, message).help(help));
    }

    fn server(&mut self) {
        let listen = self.config.server.listen;
        self.keys();
        if !listen.0.ip().is_loopback() && self.config.server.keys.is_empty() {
            let message = format!("`server.listen`: {listen} can be reached from other machines");
            let help = "make a key with `pajamas keys new NAME` and put it into `server.keys`, or listen on 127.0.0.1";
            self.report("listen-not-loopback", &["server".into(), "listen".into()], message, help);
        }
    }

    fn keys(&mut self) {
        let at = |i: usize, key: &str| ["server".into(), "keys".into(), i.into(), key.into()];
        let mut seen = BTreeMap::new();
        for (i, key) in self.config.server.keys.iter().enumerate() {
            if seen.insert(&key.name, i).is_some() {
                let message = format!("`server.keys` has two entries with the name `{}`", key.name);
                self.report("config-duplicate-id", &at(i, "name"), message, "give one of them another name");
            }
            let limits = [
                ("max_concurrent", key.max_concurrent),
                ("requests_per_minute", key.requests_per_minute),
                ("tokens_per_minute", key.tokens_per_minute),
            ];
            for (name, _) in limits.into_iter().filter(|(_, limit)| *limit == Some(0)) {
                let message = format!("the key `{}` may use nothing: its `{name}` is 0", key.name);
                let help = "leave the limit out, or remove the key";
                self.report("config-invalid-value", &at(i, name), message, help);
            }
            if key.scopes.is_empty() {
                let message = format!("the key `{}` opens nothing", key.name);
                let help = "name some of infer, metrics, admin, or remove the key";
                self.report("config-invalid-value", &at(i, "scopes"), message, help);
            }
        }
    }

    /// A folder that is not there would be made by the first mistake in its name.
    fn jobs(&mut self) {
        let jobs = &self.config.jobs;
        let at = |key: &str| ["jobs".into(), key.into()];
        if let Some(folder) = &jobs.folder {
            self.exists(&at("folder"), "`jobs`", folder);
            if folder.is_file() {
                let message = format!("`jobs.folder`: {} is a file", folder.display());
                self.report("config-invalid-value", &at("folder"), message, "name the folder it lies in");
            }
        }
        for (key, _) in
            [("max_queue", jobs.max_queue), ("history", jobs.history)].iter().filter(|(_, n)| *n == 0)
        {
            let message = format!("`jobs.{key}` is 0");
            self.report("config-invalid-value", &at(key), message, "leave it out for what is usual");
        }
    }

    /// Folders may be made later, but what is there must be one.
    fn folders(&mut self, section: &str, folders: &[LocalPath]) {
        for (i, folder) in folders.iter().enumerate().filter(|(_, folder)| folder.is_file()) {
            let message = format!("`{section}.search`: {} is a file", folder.display());
            self.report(
                "config-invalid-value",
                &[section.into(), "search".into(), i.into()],
                message,
                "name the folder it lies in",
            );
        }
    }

    pub(super) fn unique<'i>(&mut self, list: &str, ids: impl Iterator<Item = &'i Id>) {
        let mut seen = BTreeMap::new();
        for (i, id) in ids.enumerate() {
            let at = [list.into(), i.into(), "id".into()];
            if let Some(first) = seen.insert(id, at.clone()) {
                let first = self.tree.deepest(&first).origin.clone();
                self.report(
                    "config-duplicate-id",
                    &at,
                    format!("`{list}` has two entries with the id `{id}`"),
                    format!("give one of them another id; the first is at {first}"),
                );
            }
        }
    }

    fn model(&mut self, index: usize, model: &Model) {
        let id = &model.id;
        let at = |key: &str| ["models".into(), index.into(), key.into()];
        if !self.tree.is_damaged(&at("id")[..2]) {
            match (&model.artifact, &model.path, &model.remote) {
                (Some(_), Some(_), _) => self.report("config-conflict", &at("path"), format!("model `{id}` has both `artifact` and `path`"), "keep the one that is meant"),
                (Some(_), None, Some(_)) | (None, Some(_), Some(_)) => self.report("config-conflict", &at("remote"), format!("model `{id}` is here and elsewhere: it has `remote` beside `artifact` or `path`"), "make two models of it, and a ladder of the two"),
                (None, None, None) => self.report("config-missing-key", &at("id")[..2], format!("model `{id}` has neither `artifact` nor `path`"), "write `artifact = \"FOLDER\"` for a folder with manifest.json, or `path = \"FILE.gguf\"`"),
                (None, None, Some(_)) => self.remote(&at("remote"), model),
                _ => {}
            }
        }
        let files =
            [("artifact", &model.artifact), ("path", &model.path), ("chat_template", &model.chat_template)];
        for (key, path) in files {
            if let Some(path) = path {
                self.exists(&at(key), &format!("model `{id}`"), path);
            }
        }
        self.ways(&at("id")[..2], model);
        let Some(wanted) = &model.pipeline else { return };
        match self.config.pipelines.iter().find(|p| p.id == *wanted) {
            None => self.unknown(
                &at("pipeline"),
                "pipelines",
                wanted,
                &format!("model `{id}`: there is no pipeline `{wanted}`"),
            ),
            Some(Pipeline { task, .. }) if model.task.is_some_and(|t| t != *task) => {
                let own = model.task.map_or("", Task::name);
                self.report(
                    "config-conflict",
                    &at("pipeline"),
                    format!("model `{id}` is for the task `{own}`, its pipeline `{wanted}` for `{task}`"),
                    "make the two tasks the same, or leave out the model's",
                );
            }
            Some(_) => {}
        }
    }

    /// The ways to run a model are models, with names of their own.
    fn ways(&mut self, at: &[Segment], model: &Model) {
        let id = &model.id;
        if model.how_many_ways() > MOST_WAYS {
            let message =
                format!("model `{id}` has {} ways to run, more than {MOST_WAYS}", model.how_many_ways());
            self.report(
                "config-invalid-value",
                at,
                message,
                "name fewer formats, precisions, backends or devices",
            );
            return;
        }
        let config = self.config;
        let mut seen = BTreeSet::new();
        for way in model.ways().into_iter().flatten() {
            if way.id == model.id {
                let message = format!("model `{id}`: of a format or a precision no name can be made");
                self.report(
                    "config-invalid-value",
                    at,
                    message,
                    "write it with letters, digits, `.`, `_` and `-`",
                );
            } else if !seen.insert(way.id.clone()) {
                let message = format!("model `{id}` has the way to run `{}` twice", way.id);
                self.report("config-duplicate-id", at, message, "name each only once");
            } else if config.names().any(|name| *name == *way.id) {
                let message = format!("`{}` is the name of one of the ways to run `{id}`", way.id);
                self.report("config-duplicate-id", at, message, "give the other one another name");
            }
        }
    }

    /// What only models that are here have.
    fn remote(&mut self, at: &[Segment], model: &Model) {
        let Model { id, .. } = model;
        let here = [
            ("format", model.format.is_some()),
            ("precision", model.precision.is_some()),
            ("chat_template", model.chat_template.is_some()),
            ("backend", model.backend != OneOrMany::default()),
            ("device", model.device != OneOrMany::default()),
            ("isolation", model.isolation != Isolation::None),
            ("options", !model.options.is_empty()),
            ("pipeline", model.pipeline.is_some()),
        ];
        for (key, _) in here.into_iter().filter(|(_, set)| *set) {
            let at = [&at[..2], &[key.into()]].concat();
            let message = format!("model `{id}` runs elsewhere, and `{key}` is a matter of that server");
            self.report("config-conflict", &at, message, "take it out");
        }
        if let Some(task) = model.task.filter(|task| !Task::Chat.covers(*task) || *task == Task::Rerank) {
            let at = [&at[..2], &["task".into()]].concat();
            let message = format!("model `{id}` runs elsewhere, and OpenAI's API has nothing for {task}");
            self.report("config-conflict", &at, message, "a remote model does generate, chat or embed");
        }
        let Some(remote) = &model.remote else { return };
        let nothing = [
            ("parallel", remote.parallel == 0),
            ("connect", remote.connect.duration().is_zero()),
            ("silence", remote.silence.duration().is_zero()),
            ("max_answer", remote.max_answer.get() == 0),
            ("failures", remote.failures == 0),
            ("rest", remote.rest.duration().is_zero()),
            ("max_rest", remote.max_rest < remote.rest),
        ];
        for (key, _) in nothing.into_iter().filter(|(_, wrong)| *wrong) {
            let what = if key == "max_rest" { "is shorter than `rest`" } else { "is 0" };
            let message = format!("model `{id}`: `remote.{key}` {what}");
            self.report(
                "config-invalid-value",
                &[at, &[key.into()]].concat(),
                message,
                "leave it out for what is usual",
            );
        }
    }

    fn pipeline(&mut self, index: usize, pipeline: &Pipeline) {
        let id = &pipeline.id;
        let at = |rest: &[Segment]| [&["pipelines".into(), index.into(), "steps".into()], rest].concat();
        let models: Vec<usize> = pipeline
            .steps
            .iter()
            .enumerate()
            .filter(|(_, s)| matches!(s, Step::Model(_)))
            .map(|(n, _)| n)
            .collect();
        match models[..] {
            [_] => {}
            [_, second, ..] => self.report(
                "config-conflict",
                &at(&[second.into()]),
                format!("pipeline `{id}` runs the model more than once"),
                "keep one `model = true` step",
            ),
            [] if self.tree.is_damaged(&at(&[])) => {}
            [] => self.report(
                "config-missing-key",
                &at(&[]),
                format!("pipeline `{id}` never runs the model"),
                "add a step `{ model = true }` where the model belongs",
            ),
        }
        for (n, step) in pipeline.steps.iter().enumerate() {
            if let Step::Stage(stage) = step {
                self.files(&at(&[n.into(), "files".into()]), &format!("pipeline `{id}`"), stage);
            }
        }
    }

    /// The files that a stage may read are there.
    pub(super) fn files(&mut self, at: &[Segment], whose: &str, stage: &StageStep) {
        for (name, file) in &stage.files {
            if let GrantedFile::Local(path) = file {
                self.exists(&[at, &[name.as_str().into()]].concat(), whose, path);
            }
        }
    }

    fn defaults(&mut self) {
        for task in Task::ALL {
            let Some(id) = self.config.defaults.of(task) else { continue };
            let at = ["defaults".into(), task.name().into()];
            let Ok(steps) = self.config.steps(id) else {
                if self.config.unaliased(id) == &**id && self.config.ladder(id).is_none() {
                    self.unknown(&at, "models", id, &format!("`defaults.{task}`: there is no model `{id}`"));
                }
                continue;
            };
            for model in steps.into_iter().flatten().filter_map(|id| self.config.model(id)) {
                if let Some(own) = model.task.filter(|own| !own.covers(task)) {
                    self.report(
                        "config-conflict",
                        &at,
                        format!("`defaults.{task}`: model `{}` is for the task `{own}`", model.id),
                        format!("name a model whose task is `{task}`"),
                    );
                }
            }
        }
    }

    pub(super) fn exists(&mut self, at: &[Segment], whose: &str, path: &Path) {
        if !path.exists() {
            let what = self.tree.spell(at.last().map(std::slice::from_ref).unwrap_or_default());
            self.report(
                "config-file-missing",
                at,
                format!("{whose}: `{what}` names {}, which does not exist", path.display()),
                self.beginning(at),
            );
        }
    }

    /// Where a relative path starts is the usual mistake.
    fn beginning(&self, at: &[Segment]) -> &'static str {
        match self.tree.deepest(at).origin {
            Origin::File(_) => "a relative path starts at the folder of the file that it is written in",
            _ => "a relative path starts at the current folder",
        }
    }

    pub(super) fn unknown(&mut self, at: &[Segment], list: &str, wanted: &str, message: &str) {
        // What is wanted may have been there, and been taken out for another reason.
        if self.tree.get(list).is_some_and(|node| node.incomplete) {
            return;
        }
        let ids: Vec<&str> = match list {
            "models" => self.config.names().collect(),
            "keys" => self.config.server.keys.iter().map(|key| &*key.name).collect(),
            _ => self.config.pipelines.iter().map(|p| &*p.id).collect(),
        };
        self.report("config-unknown-reference", at, message.to_owned(), suggest::help(wanted, list, ids));
    }
}
