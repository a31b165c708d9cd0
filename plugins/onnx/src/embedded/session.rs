//! A model loaded into rten.

use std::collections::BTreeMap;
use std::sync::Arc;

use pajamas_plugin_api::{
    Cancel, InferRequest, Memory, NamedTensor, OutputSpec, PluginError, Result, Session, Signature,
    TensorSink, codes,
};
use rten::{Model, NodeId, RunErrorKind, RunOptions, ThreadPool, ValueOrView};

use super::ENGINE;
use super::convert::{self, Input};
use crate::error::{INFERENCE_FAILED, internal};
use crate::input::Aligned;
use crate::options::Threads;
use crate::ports::{Port, Ports};

/// A model loaded into rten.
///
/// Calls run side by side and share the session's threads. Inputs of rten's own types are read where the caller has
/// them; outputs are made by rten and copied once. A run cannot be interrupted: the cancel flag is looked at before
/// it and after it.
pub(super) struct RtenSession {
    model: Model,
    inputs: Vec<NodeId>,
    outputs: Vec<NodeId>,
    ports: Ports,
    signature: Signature,
    memory: Memory,
    options: RunOptions,
}

impl RtenSession {
    pub(super) fn new(
        model: Model,
        ports: Ports,
        metadata: BTreeMap<String, String>,
        memory: Memory,
        threads: Option<Threads>,
    ) -> Result<Self> {
        let ids = |ports: &[Port]| {
            let id = |port: &Port| model.node_id(&port.name).map_err(|e| internal(ENGINE, e));
            ports.iter().map(id).collect::<Result<Vec<_>>>()
        };
        let pool = threads.map(|Threads(n)| Arc::new(ThreadPool::with_num_threads(n)));
        Ok(Self {
            inputs: ids(&ports.inputs)?,
            outputs: ids(&ports.outputs)?,
            signature: ports.signature(metadata),
            options: RunOptions::default().with_thread_pool(pool),
            model,
            ports,
            memory,
        })
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

        let results =
            self.model.run(values, &ids, Some(self.options.clone())).map_err(|error| match error.kind() {
                RunErrorKind::InvalidInput => {
                    PluginError::new(codes::INVALID_INPUT, format!("{ENGINE}: {error}"))
                }
                _ => PluginError::new(INFERENCE_FAILED, format!("{ENGINE}: {error}"))
                    .help("check that the inputs' shapes and values are ones the model can work with"),
            })?;
        cancel.check()?;

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
