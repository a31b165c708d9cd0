//! Runs the steps of a pipeline: stages in WASM, the model in its session, values by name between them.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use pajamas_plugin_api::{Cancel, InferRequest, NamedTensor, Session, Signature};

use super::request::StepTime;
use super::tensors::Outputs;
use crate::config::{self, Options, Step, Wiring, suggest};
use crate::error::{Error, Result};
use crate::stages::{GrantedFile, Limits, Processor, Stages};
use crate::value::{Kind, Value, Values};

/// The value that connects a stage to a model of one input, and a model of one output to a stage.
const TENSOR: &str = "tensor";

/// What the model's step is called where times are told.
const MODEL: &str = "model";

/// A pipeline whose stages are made: run it for many requests, from many threads.
#[derive(Debug)]
pub struct Prepared {
    steps: Vec<PreparedStep>,
    output_limit: u64,
}

#[derive(Debug)]
enum PreparedStep {
    Stage { name: String, processor: Box<Processor>, wiring: Wiring, limits: Limits },
    Model(Wiring),
}

/// What stages are made from.
pub struct Workshop<'w> {
    /// The stages.
    pub stages: &'w Stages,
    /// What a run may use where its step says nothing.
    pub limits: config::Limits,
    /// Reads a file that a step grants.
    pub read: &'w dyn Fn(&config::GrantedFile) -> Result<Vec<u8>>,
}

impl Prepared {
    /// Makes the stages of `steps`. `overrides` are options of the request: each goes to the stages that know it.
    ///
    /// # Errors
    /// The stages' (`stage-not-found`, an option that is wrong); `invalid-option` for one that no stage knows.
    pub fn new(steps: &[Step], overrides: &Options, workshop: &Workshop<'_>) -> Result<Self> {
        let mut known: Vec<String> = Vec::new();
        let steps = steps.iter().map(|step| match step {
            Step::Model(wiring) => Ok(PreparedStep::Model(wiring.clone())),
            Step::Stage(step) => {
                let stage = workshop.stages.get(&step.stage)?;
                let schema = &stage.describe().options_schema;
                let mut options = step.options.clone();
                for (key, property) in schema["properties"].as_object().into_iter().flatten() {
                    known.push(key.clone());
                    if let Some(value) = overrides.get(key) {
                        options.insert(key.clone(), whole(value, property));
                    }
                }
                let files = step.files.iter().map(|(name, file)| {
                    Ok(GrantedFile { name: name.clone(), content: Arc::from((workshop.read)(file)?) })
                });
                let limits = limits(step.limits.or(workshop.limits));
                let files = files.collect::<Result<Vec<_>>>()?;
                let processor = Box::new(stage.create(&options.into(), &files, &limits)?);
                Ok(PreparedStep::Stage {
                    name: step.stage.clone(),
                    processor,
                    wiring: step.wiring.clone(),
                    limits,
                })
            }
        });
        let steps = steps.collect::<Result<_>>()?;
        if let Some(key) = overrides.keys().find(|key| !known.contains(key)) {
            return Err(Error::new(
                "invalid-option",
                format!("no stage of this pipeline has an option `{key}`"),
            )
            .help(suggest::help(key, "the options", known.iter().map(String::as_str))));
        }
        Ok(Self { steps, output_limit: workshop.limits.output.get() })
    }

    /// Carries the steps out on `values` and gives all of them back, the new ones added.
    pub fn run(
        &self,
        values: Values,
        session: &dyn Session,
        signature: &Signature,
        cancel: &Cancel,
    ) -> Result<(Values, Vec<StepTime>)> {
        self.run_steps(0..self.steps.len(), values, session, signature, cancel)
    }

    /// Carries out some of the steps, for tasks that do so more than once.
    ///
    /// # Errors
    /// The stages' and the session's.
    pub fn run_steps(
        &self,
        steps: Range<usize>,
        mut values: Values,
        session: &dyn Session,
        signature: &Signature,
        cancel: &Cancel,
    ) -> Result<(Values, Vec<StepTime>)> {
        let mut times = Vec::with_capacity(steps.len());
        for step in &self.steps[steps] {
            let started = Instant::now();
            match step {
                PreparedStep::Stage { .. } => step.run(&mut values, cancel)?,
                PreparedStep::Model(wiring) => {
                    self.infer(wiring, &mut values, session, signature, cancel)?;
                }
            }
            times.push(StepTime { step: step.name().to_owned(), time: started.elapsed() });
        }
        Ok((values, times))
    }

    /// Carries out some of the stages, for tasks that run the model in a way of their own.
    ///
    /// # Errors
    /// The stages'.
    pub fn run_stages(
        &self,
        steps: Range<usize>,
        mut values: Values,
        cancel: &Cancel,
    ) -> Result<(Values, Vec<StepTime>)> {
        let mut times = Vec::with_capacity(steps.len());
        for step in &self.steps[steps] {
            let started = Instant::now();
            step.run(&mut values, cancel)?;
            times.push(StepTime { step: step.name().to_owned(), time: started.elapsed() });
        }
        Ok((values, times))
    }

    /// The step that sees one window of the input at a time: the stage before the model, which is the last step.
    ///
    /// # Errors
    /// `pipeline-incomplete` where there is no such stage, or stages follow the model.
    pub fn window(&self) -> Result<usize> {
        match self.steps.as_slice() {
            [before @ .., PreparedStep::Stage { .. }, PreparedStep::Model(_)] => Ok(before.len()),
            _ => Err(Error::new("pipeline-incomplete", "the pipeline does not end with a stage and the model")
                .help("windows go from the stage before the model, such as log-mel, into the model: nothing comes after")),
        }
    }

    /// How many steps there are.
    pub fn count(&self) -> usize {
        self.steps.len()
    }

    /// Which step is the model.
    pub fn model_at(&self) -> Option<usize> {
        self.steps.iter().position(|step| matches!(step, PreparedStep::Model(_)))
    }

    /// What a step is called.
    pub fn name(&self, step: usize) -> &str {
        self.steps.get(step).map_or(MODEL, PreparedStep::name)
    }

    /// The value that goes into the model's one input.
    pub fn model_input(&self, signature: &Signature) -> String {
        let wired = signature.inputs.first().and_then(|spec| self.model_wiring()?.inputs.get(&spec.name));
        wired.map_or(TENSOR, String::as_str).to_owned()
    }

    /// The values that go into the model's inputs, where they are several.
    pub fn model_inputs<'s>(&'s self, signature: &'s Signature) -> Vec<&'s str> {
        let wired = |name: &'s String| self.model_wiring().map_or(name.as_str(), |wiring| wiring.input(name));
        signature.inputs.iter().map(|spec| wired(&spec.name)).collect()
    }

    fn model_wiring(&self) -> Option<&Wiring> {
        self.steps.iter().find_map(|step| match step {
            PreparedStep::Model(wiring) => Some(wiring),
            PreparedStep::Stage { .. } => None,
        })
    }

    fn infer(
        &self,
        wiring: &Wiring,
        values: &mut Values,
        session: &dyn Session,
        signature: &Signature,
        cancel: &Cancel,
    ) -> Result<()> {
        let single_input = signature.inputs.len() == 1;
        let mut outputs = Outputs::new(self.output_limit);
        {
            let mut inputs = Vec::with_capacity(signature.inputs.len());
            for spec in &signature.inputs {
                let wired = wiring.inputs.get(&spec.name).map(String::as_str);
                let name = wired.unwrap_or(if single_input { TENSOR } else { &spec.name });
                let tensor = match values.get(name) {
                    Some(Value::Tensor(tensor)) => tensor,
                    Some(other) => return Err(wrong_kind(&spec.name, name, other.kind())),
                    None => return Err(missing(&spec.name, name, values)),
                };
                inputs.push(NamedTensor { name: &spec.name, tensor: tensor.view()? });
            }
            session.infer(&InferRequest::default(), &inputs, &mut outputs, cancel)?;
        }
        let tensors = outputs.into_tensors();
        // What a backend wrote is believed no more than what it says.
        let written = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.dtype(), tensor.shape()));
        signature.check_outputs(&InferRequest::default(), written)?;
        let single_output = tensors.len() == 1;
        for (name, tensor) in tensors {
            let wired = wiring.outputs.get(&name).cloned();
            let name = wired.unwrap_or(if single_output { TENSOR.to_owned() } else { name });
            values.put(name, Value::Tensor(tensor));
        }
        Ok(())
    }
}

impl PreparedStep {
    fn name(&self) -> &str {
        match self {
            Self::Stage { name, .. } => name,
            Self::Model(_) => MODEL,
        }
    }

    /// Runs a stage. The model is its task's matter.
    fn run(&self, values: &mut Values, cancel: &Cancel) -> Result<()> {
        let Self::Stage { processor, wiring, limits, .. } = self else { return Ok(()) };
        let ports = processor.stage().describe().inputs.iter().map(|port| port.name.as_str());
        let inputs = ports.filter_map(|port| Some((port, values.get(wiring.input(port))?)));
        for (port, value) in processor.run(inputs, limits, cancel)? {
            values.put(wiring.output(&port), value);
        }
        Ok(())
    }
}

/// Forms and flags carry 5.0 where a schema wants the integer 5.
fn whole(value: &serde_json::Value, property: &serde_json::Value) -> serde_json::Value {
    match value.as_f64() {
        Some(number) if property["type"] == "integer" && number.fract() == 0.0 => (number as i64).into(),
        _ => value.clone(),
    }
}

fn limits(limits: config::Limits) -> Limits {
    Limits {
        memory: limits.memory.as_usize(),
        deadline: limits.deadline.duration(),
        output: limits.output.as_usize(),
    }
}

fn wrong_kind(input: &str, value: &str, kind: Kind) -> Error {
    Error::new(
        "pipeline-incomplete",
        format!("the model's input `{input}` needs a tensor; `{value}` is {kind}"),
    )
    .help("put an image-normalize stage before the model, or connect another value with `inputs`")
}

fn missing(input: &str, value: &str, values: &Values) -> Error {
    Error::new(
        "pipeline-incomplete",
        format!(
            "there is no value `{value}` for the model's input `{input}`, only {}",
            values.names().join(", ")
        ),
    )
    .help("connect the input with `inputs` in the model's step")
}
