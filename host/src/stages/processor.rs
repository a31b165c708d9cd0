//! A stage with its options and files, and running it.

use std::sync::Arc;

use pajamas_plugin_api::Cancel;
use wasmtime::Store;
use wasmtime::component::ResourceAny;

use super::bindings::exports::pajamas::stage::processing as wit;
use super::guest::Guest;
use super::slots::Slot;
use super::{Limits, Stage, convert, fault};
use crate::value::{Value, Values};
use crate::{Error, Result};

/// A file of the artifact that a stage is granted.
#[derive(Debug, Clone)]
pub struct GrantedFile {
    /// The name under which the stage finds it.
    pub name: String,
    /// Its content; shared, because every instance gets it.
    pub content: Arc<[u8]>,
}

/// A stage with its options and files. May be used by many threads at once: each run has an instance of its own.
#[derive(Debug)]
pub struct Processor {
    stage: Stage,
    options: String,
    files: Vec<GrantedFile>,
}

/// An instance in which nothing has run but `create`.
struct Instance {
    store: Store<Guest>,
    exports: super::bindings::Stage,
    resource: ResourceAny,
    /// Given back after the store.
    _slot: Slot,
}

impl Processor {
    pub(super) fn new(
        stage: Stage,
        options: &serde_json::Value,
        files: &[GrantedFile],
        limits: &Limits,
    ) -> Result<Self> {
        let options = if options.is_null() { "{}".into() } else { options.to_string() };
        let processor = Self { stage, options, files: files.to_vec() };
        // Proves the options good.
        processor.instance(limits, &Cancel::new())?;
        Ok(processor)
    }

    /// The stage.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Turns values into values. Of `inputs`, the stage sees those that its description lists.
    ///
    /// Errors: `invalid-input` (an input is missing or of another kind), `cancelled`, `stage-trapped`, `stage-deadline`,
    /// `stage-memory`, `stage-output-too-large`, `stage-output-invalid`, and the stage's own. The next run is not
    /// affected by any of them.
    pub fn run<'v>(
        &self,
        inputs: impl IntoIterator<Item = (&'v str, &'v Value)>,
        limits: &Limits,
        cancel: &Cancel,
    ) -> Result<Values> {
        cancel.check()?;
        let name = self.stage.name();
        let inputs = self.accepted(inputs)?;
        let limits = &limits.taking(inputs.iter().map(|(_, value)| value.byte_size()).sum());
        let mut instance = self.instance(limits, cancel)?;
        let Instance { store, exports, resource, .. } = &mut instance;
        Guest::begin(store, limits, cancel);
        let returned = {
            let _watch = self.stage.engine.ticker.watch()?;
            let rows: Vec<_> = inputs.iter().map(|(_, value)| convert::Rows::of(value)).collect();
            let lowered: Vec<_> = inputs
                .iter()
                .zip(&rows)
                .map(|((name, value), rows)| convert::lower(name, value, rows))
                .collect();
            exports.pajamas_stage_processing().processor().call_run(&mut *store, *resource, &lowered)
        };
        match returned {
            Ok(Ok(values)) => self.outputs(values, limits),
            Ok(Err(error)) => Err(fault::of_stage(name, error)),
            Err(error) => Err(fault::of_call(name, "run", limits, store, &error)),
        }
    }

    /// A fresh instance with the options read.
    fn instance(&self, limits: &Limits, cancel: &Cancel) -> Result<Instance> {
        let Stage { engine, pre, name, .. } = &self.stage;
        let _slot = engine.slots.take(cancel)?;
        let mut store = Guest::store(&engine.engine, name.clone(), engine.log.clone(), limits);
        Guest::begin(&mut store, limits, cancel);
        let _watch = engine.ticker.watch()?;
        let files: Vec<_> = self
            .files
            .iter()
            .map(|file| wit::GrantedFile { name: &file.name, content: &file.content })
            .collect();
        let created = pre.instantiate(&mut store).and_then(|exports| {
            let processor = exports.pajamas_stage_processing().processor();
            let created = processor.call_create(&mut store, &self.options, &files)?;
            Ok((exports, created))
        });
        match created {
            Ok((exports, Ok(resource))) => Ok(Instance { store, exports, resource, _slot }),
            Ok((_, Err(error))) => Err(fault::of_stage(name, error)),
            Err(error) => Err(fault::of_call(name, "create", limits, &store, &error)),
        }
    }

    /// The inputs that the stage knows, checked against its description.
    fn accepted<'v>(
        &self,
        inputs: impl IntoIterator<Item = (&'v str, &'v Value)>,
    ) -> Result<Vec<(&'v str, &'v Value)>> {
        let Stage { name: stage, description, .. } = &self.stage;
        let known: Vec<_> =
            inputs.into_iter().filter(|(name, _)| description.input(name).is_some()).collect();
        for port in &description.inputs {
            let wanted = format_args!("the input `{}` ({})", port.name, port.kind);
            match known.iter().find(|(name, _)| *name == port.name) {
                Some((_, value)) if value.kind() != port.kind => {
                    let found = value.kind();
                    return Err(Error::new(
                        "invalid-input",
                        format!("stage {stage}: {wanted} is of the kind {found}"),
                    ));
                }
                None if !port.optional => {
                    return Err(Error::new("invalid-input", format!("stage {stage}: {wanted} is missing"))
                        .help("put a stage before it in the pipeline that leaves it"));
                }
                _ => {}
            }
        }
        Ok(known)
    }

    /// The values that a run left, checked against the description and the limits.
    fn outputs(&self, values: Vec<wit::NamedValueResult>, limits: &Limits) -> Result<Values> {
        let Stage { name: stage, description, .. } = &self.stage;
        let mut out = Values::new();
        for named in values {
            let name = named.name;
            let value = convert::lift(named.value)
                .map_err(|why| fault::bad_output(stage, format_args!("`{name}`: {why}")))?;
            match description.output(&name) {
                Some(port) if port.kind == value.kind() => out.put(name, value),
                Some(port) => {
                    let (wanted, found) = (port.kind, value.kind());
                    return Err(fault::bad_output(
                        stage,
                        format_args!("`{name}` is of the kind {found}, not {wanted}"),
                    ));
                }
                None => {
                    return Err(fault::bad_output(
                        stage,
                        format_args!("it left `{name}`, which it did not announce"),
                    ));
                }
            }
        }
        if let Some(port) =
            description.outputs.iter().find(|port| !port.optional && out.get(&port.name).is_none())
        {
            return Err(fault::bad_output(stage, format_args!("it did not leave `{}`", port.name)));
        }
        if out.byte_size() > limits.output {
            return Err(fault::too_large(stage, limits));
        }
        Ok(out)
    }
}
