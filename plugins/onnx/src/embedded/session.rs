//! A model loaded into rten.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use pajamas_plugin_api::{
    Cancel, InferRequest, Memory, NamedTensor, OutputSpec, PluginError, Result, Session, Signature,
    TensorSink, codes,
};
use rten::{Model, NodeId, RunError, RunErrorKind, RunOptions, ThreadPool, Value, ValueOrView};
use rten_tensor::Tensor;
use rten_tensor::prelude::*;

use super::ENGINE;
use super::convert::{self, Input};
use crate::error::{INFERENCE_FAILED, internal};
use crate::gate::Gate;
use crate::input::Aligned;
use crate::options::{RtenOptions, Threads};
use crate::ports::{Port, Ports};
use crate::seq2seq::{Engine, Feed};

/// A model loaded into rten.
///
/// As many runs at a time as were asked for, each with threads of its own where their number was named, else on those that all
/// sessions share. Inputs of rten's own types are read where the caller has them; outputs are made by rten and copied once. A
/// run cannot be interrupted: the cancel flag is looked at before it and after it.
pub(crate) struct RtenSession {
    model: Model,
    inputs: Vec<NodeId>,
    outputs: Vec<NodeId>,
    ports: Ports,
    signature: Signature,
    memory: Memory,
    gate: Gate<RunOptions>,
}

impl RtenSession {
    pub(super) fn new(
        model: Model,
        ports: Ports,
        metadata: BTreeMap<String, String>,
        memory: Memory,
        options: &RtenOptions,
    ) -> Result<Self> {
        let ids = |ports: &[Port]| {
            let id = |port: &Port| model.node_id(&port.name).map_err(|e| internal(ENGINE, e));
            ports.iter().map(id).collect::<Result<Vec<_>>>()
        };
        let lane = |_| {
            let pool = options.threads.map(|Threads(n)| Arc::new(ThreadPool::with_num_threads(n)));
            RunOptions::default().with_thread_pool(pool)
        };
        Ok(Self {
            inputs: ids(&ports.inputs)?,
            outputs: ids(&ports.outputs)?,
            signature: ports.signature(metadata),
            gate: Gate::new((0..options.parallel.runs()).map(lane).collect()),
            model,
            ports,
            memory,
        })
    }

    /// Runs once it is its turn.
    fn turn(
        &self,
        values: Vec<(NodeId, ValueOrView<'_>)>,
        outputs: &[NodeId],
        cancel: &Cancel,
    ) -> Result<Vec<Value>> {
        let turn = self.gate.enter(cancel)?;
        let left =
            self.model.run(values, outputs, Some(turn.lane().clone())).map_err(|error| failed(&error))?;
        cancel.check()?;
        Ok(left)
    }
}

impl Session for RtenSession {
    fn signature(&self) -> Signature {
        self.signature.clone()
    }

    /// The weights in rten's types. Memory for a run is taken and given back with each run, and not counted.
    fn usage(&self) -> Vec<Memory> {
        vec![Memory { scratch: 0, ..self.memory.clone() }]
    }

    fn infer(
        &self,
        request: &InferRequest,
        inputs: &[NamedTensor<'_>],
        outputs: &mut dyn TensorSink,
        cancel: &Cancel,
    ) -> Result<()> {
        cancel.check()?;
        let tensors = self.ports.bind(inputs)?;
        let wanted = self.ports.select(&request.outputs)?;
        let aligned = self.ports.inputs.iter().zip(&tensors);
        let aligned =
            aligned.map(|(port, tensor)| Aligned::new(&port.name, tensor)).collect::<Result<Vec<_>>>()?;
        let converted = self.ports.inputs.iter().zip(&aligned);
        let converted =
            converted.map(|(port, a)| Input::new(&port.name, &a.view()?)).collect::<Result<Vec<_>>>()?;
        let values = self.inputs.iter().zip(&converted);
        let values = values
            .map(|(id, input)| Ok((*id, ValueOrView::from(input.view()?))))
            .collect::<Result<Vec<_>>>()?;
        let ids: Vec<_> = wanted.iter().map(|index| self.outputs[*index]).collect();

        let results = self.turn(values, &ids, cancel)?;

        let ports: Vec<&Port> = wanted.iter().map(|index| &self.ports.outputs[*index]).collect();
        let shapes: Vec<_> = results.iter().map(convert::shape).collect();
        let specs: Vec<_> = ports
            .iter()
            .zip(&shapes)
            .map(|(port, shape)| OutputSpec { name: &port.name, dtype: port.dtype, shape })
            .collect();
        let slots = outputs.allocate(&specs)?;
        if slots.len() != results.len() {
            return Err(PluginError::new(
                codes::PROTOCOL,
                "the sink gave memory for another number of outputs",
            ));
        }
        for ((port, value), mut slot) in ports.iter().zip(&results).zip(slots) {
            convert::write(&port.name, value, port.dtype, slot.bytes())?;
        }
        Ok(())
    }
}

impl Engine for RtenSession {
    type Kept = Value;

    fn name(&self) -> &'static str {
        ENGINE
    }

    fn ports(&self) -> &Ports {
        &self.ports
    }

    /// A tensor that is given may be written over: rten appends to it where its buffer has room.
    fn run(&self, feeds: Vec<Feed<'_, Value>>, outputs: &[usize], cancel: &Cancel) -> Result<Vec<Value>> {
        cancel.check()?;
        let converted = self.ports.inputs.iter().zip(&feeds).map(|(port, feed)| match feed {
            Feed::Host(tensor) => Input::new(&port.name, tensor).map(Some),
            Feed::Kept(_) | Feed::Given(_) => Ok(None),
        });
        let converted = converted.collect::<Result<Vec<_>>>()?;
        let mut values = Vec::with_capacity(feeds.len());
        for ((id, feed), host) in self.inputs.iter().zip(feeds).zip(&converted) {
            let value = match (feed, host) {
                (Feed::Given(value), _) => ValueOrView::Value(value),
                (Feed::Kept(value), _) => ValueOrView::from(value),
                (Feed::Host(_), Some(input)) => ValueOrView::from(input.view()?),
                (Feed::Host(_), None) => return Err(internal(ENGINE, "an input without a value")),
            };
            values.push((*id, value));
        }
        let ids: Vec<_> = outputs.iter().map(|index| self.outputs[*index]).collect();
        self.turn(values, &ids, cancel)
    }

    fn shape(&self, kept: &Value) -> Result<Vec<u64>> {
        Ok(convert::shape(kept))
    }

    fn floats(&self, kept: &Value, elements: Range<usize>) -> Result<Vec<f32>> {
        let Value::FloatTensor(tensor) = kept else {
            return Err(internal(ENGINE, format!("logits of type {}", kept.dtype())));
        };
        let floats: Vec<f32> = match tensor.data() {
            Some(data) => data.get(elements.clone()).unwrap_or_default().to_vec(),
            None => tensor.iter().skip(elements.start).take(elements.len()).copied().collect(),
        };
        if floats.len() != elements.len() {
            return Err(internal(ENGINE, "a tensor is shorter than its shape says"));
        }
        Ok(floats)
    }

    fn rows(&self, kept: &Value, rows: &[usize]) -> Result<Value> {
        match kept {
            Value::FloatTensor(tensor) => pick(tensor, rows),
            Value::Int32Tensor(tensor) => pick(tensor, rows),
            Value::Int8Tensor(tensor) => pick(tensor, rows),
            Value::UInt8Tensor(tensor) => pick(tensor, rows),
            other => Err(internal(ENGINE, format!("rows of {}", other.dtype()))),
        }
    }
}

/// Rows of the outermost dimension.
fn pick<T: Copy>(tensor: &Tensor<T>, rows: &[usize]) -> Result<Value>
where
    Value: From<Tensor<T>>,
{
    let data = tensor.to_vec();
    let mut shape = tensor.shape().to_vec();
    let row = data.len() / shape.first().copied().unwrap_or(0).max(1);
    let mut taken = Vec::with_capacity(row * rows.len());
    for at in rows {
        let row = data.get(at * row..(at + 1) * row);
        taken.extend_from_slice(row.ok_or_else(|| internal(ENGINE, "a tensor has fewer rows"))?);
    }
    if let Some(first) = shape.first_mut() {
        *first = rows.len();
    }
    Value::from_shape(shape, taken).map_err(|e| internal(ENGINE, e))
}

/// What rten said, as this plugin says it.
fn failed(error: &RunError) -> PluginError {
    match error.kind() {
        RunErrorKind::InvalidInput => PluginError::new(codes::INVALID_INPUT, format!("{ENGINE}: {error}")),
        _ => PluginError::new(INFERENCE_FAILED, format!("{ENGINE}: {error}"))
            .help("check that the inputs' shapes and values are ones the model can work with"),
    }
}
