//! A model loaded into ONNX Runtime.

use std::ffi::{CStr, CString};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ort::ErrorCode;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{RunOptions, Session};
use pajamas_plugin_api::{
    Cancel, HostContext, InferRequest, Level, Memory, NamedTensor, OutputSpec, PluginError, Result,
    Signature, TensorSink, TensorView, TensorViewMut, codes,
};

use super::ENGINE;
use super::kept::{Kept, View};
use super::memory::Arena;
use super::value::{self, Value};
use super::watch::Watcher;
use crate::error::{INFERENCE_FAILED, internal};
use crate::gate::Gate;
use crate::input::Aligned;
use crate::options::Parallel;
use crate::ports::{Port, Ports};
use crate::seq2seq::{Engine, Feed};

/// A model loaded into ONNX Runtime.
///
/// As many runs at a time as were asked for, usually one: the runtime's providers are not all prepared for more, and one run
/// already uses every thread of the session. Further calls wait for their turn and still hear their cancel flag; a run under
/// way stops at the next operator.
///
/// Inputs are read where the caller has them; only memory that is not aligned for its type is copied first. An
/// output whose shape the model promises (every dimension fixed, or named like an input's) is written straight into
/// the host's memory; any other is made by the runtime and copied once.
pub(crate) struct OrtSession {
    session: Session,
    ports: Ports,
    signature: Signature,
    input_names: Vec<CString>,
    output_names: Vec<CString>,
    /// Where the host's tensors lie.
    place: MemoryInfo<'static>,
    /// What the session was estimated to hold.
    estimate: Memory,
    /// The arena's account before the first run.
    loaded: Option<Arena>,
    gate: Gate<()>,
    /// Cleared when the model turns out to give other shapes than it promises.
    trusts_shapes: AtomicBool,
    watcher: &'static Watcher,
    host: HostContext,
}

/// An output that a call wants, with its shape where the model promises one.
struct Wanted<'a> {
    name: &'a CString,
    port: &'a Port,
    promised: Option<Vec<u64>>,
}

impl OrtSession {
    /// Wraps a session of the runtime.
    pub(super) fn new(
        session: Session,
        ports: Ports,
        signature: Signature,
        estimate: Memory,
        parallel: Parallel,
        watcher: &'static Watcher,
        host: HostContext,
    ) -> Result<Self> {
        let place = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)
            .map_err(|e| internal(ENGINE, e))?;
        Ok(Self {
            input_names: names(&ports.inputs)?,
            output_names: names(&ports.outputs)?,
            loaded: Arena::of(&session),
            session,
            ports,
            signature,
            place,
            estimate,
            gate: Gate::new(vec![(); parallel.runs()]),
            trusts_shapes: AtomicBool::new(true),
            watcher,
            host,
        })
    }

    /// Runs once. Outputs with a promised shape are bound to the sink's memory, the others copied into it.
    fn run(
        &self,
        inputs: &[TensorView<'_>],
        wanted: &[Wanted<'_>],
        sink: &mut dyn TensorSink,
        cancel: &Cancel,
    ) -> Result<()> {
        let specs: Vec<_> = wanted
            .iter()
            .filter_map(|w| {
                Some(OutputSpec { name: &w.port.name, dtype: w.port.dtype, shape: w.promised.as_ref()? })
            })
            .collect();
        let mut slots = if specs.is_empty() { Vec::new() } else { sink.allocate(&specs)? };
        if slots.len() != specs.len() {
            return Err(PluginError::new(
                codes::PROTOCOL,
                "the sink gave memory for another number of outputs",
            ));
        }
        let made = self.call(inputs, wanted, &mut slots, cancel).map_err(|error| failed(&error, cancel))?;
        drop(slots);
        for (Wanted { port, .. }, value) in wanted.iter().filter(|w| w.promised.is_none()).zip(&made) {
            let (dtype, shape, bytes) = value.contents().map_err(|e| internal(ENGINE, e))?;
            sink.write(&port.name, TensorView::new(dtype, &shape, bytes)?)?;
        }
        Ok(())
    }

    /// The call into the runtime: `slots` are for the promised outputs, the others are returned, both in order.
    fn call(
        &self,
        inputs: &[TensorView<'_>],
        wanted: &[Wanted<'_>],
        slots: &mut [TensorViewMut<'_>],
        cancel: &Cancel,
    ) -> ort::Result<Vec<Value<'static>>> {
        let inputs = self.input_names.iter().zip(inputs);
        let inputs = inputs
            .map(|(name, tensor)| Ok((name.as_c_str(), Value::input(&self.place, tensor)?)))
            .collect::<ort::Result<Vec<_>>>()?;
        let inputs: Vec<_> = inputs.iter().map(|(name, value)| (*name, value)).collect();
        let mut slots = slots.iter_mut();
        let outputs = wanted
            .iter()
            .map(|w| {
                let slot = w.promised.as_ref().and_then(|_| slots.next());
                let value = slot.map(|slot| Value::output(&self.place, slot)).transpose()?;
                Ok((w.name.as_c_str(), value))
            })
            .collect::<ort::Result<Vec<_>>>()?;
        self.watched(&inputs, &outputs, cancel)
    }

    /// A run that stops when the flag is set.
    fn watched(
        &self,
        inputs: &[(&CStr, &Value<'_>)],
        outputs: &[(&CStr, Option<Value<'_>>)],
        cancel: &Cancel,
    ) -> ort::Result<Vec<Value<'static>>> {
        let options = Arc::new(RunOptions::new()?);
        let stop = Arc::clone(&options);
        let _watching = self.watcher.watch(cancel, move || {
            // A run that cannot be stopped goes on to its end; its result is then thrown away.
            let _ = stop.terminate();
        });
        value::run(&self.session, &options, inputs, outputs)
    }
}

impl Engine for OrtSession {
    type Kept = Kept;

    fn name(&self) -> &'static str {
        ENGINE
    }

    fn ports(&self) -> &Ports {
        &self.ports
    }

    fn run(&self, feeds: Vec<Feed<'_, Kept>>, outputs: &[usize], cancel: &Cancel) -> Result<Vec<Kept>> {
        let views: Vec<_> = feeds.iter().map(Kept::view).collect::<Result<_>>()?;
        let values = views.iter().map(|view| match view {
            View::Value(_) => Ok(None),
            View::Memory(dtype, shape, bytes) => {
                let tensor = TensorView::new(*dtype, shape, bytes)?;
                Value::input(&self.place, &tensor).map(Some).map_err(|e| internal(ENGINE, e))
            }
        });
        let values = values.collect::<Result<Vec<_>>>()?;
        let inputs = views.iter().zip(&values).map(|(view, made)| match (view, made) {
            (View::Value(value), _) => Ok(*value),
            (_, Some(value)) => Ok(value),
            (_, None) => Err(internal(ENGINE, "an input without a value")),
        });
        let names = self.input_names.iter().map(CString::as_c_str);
        let inputs = names.zip(inputs).map(|(name, value)| Ok((name, value?))).collect::<Result<Vec<_>>>()?;
        let outputs: Vec<_> = outputs.iter().map(|at| (self.output_names[*at].as_c_str(), None)).collect();
        let _turn = self.gate.enter(cancel)?;
        let made = self.watched(&inputs, &outputs, cancel).map_err(|error| failed(&error, cancel))?;
        Ok(made.into_iter().map(Kept::Made).collect())
    }

    fn shape(&self, kept: &Kept) -> Result<Vec<u64>> {
        Ok(kept.contents()?.1)
    }

    fn floats(&self, kept: &Kept, elements: Range<usize>) -> Result<Vec<f32>> {
        kept.floats(elements)
    }

    fn rows(&self, kept: &Kept, rows: &[usize]) -> Result<Kept> {
        kept.rows(rows)
    }
}

/// What the runtime said, as this plugin says it.
fn failed(error: &ort::Error, cancel: &Cancel) -> PluginError {
    match error.code() {
        _ if cancel.is_cancelled() => PluginError::cancelled(),
        ErrorCode::InvalidArgument => PluginError::invalid_input(format!("{ENGINE}: {error}")),
        _ => PluginError::new(INFERENCE_FAILED, format!("{ENGINE}: {error}"))
            .help("check that the inputs' shapes and values are ones the model can work with"),
    }
}

impl pajamas_plugin_api::Session for OrtSession {
    fn signature(&self) -> Signature {
        self.signature.clone()
    }

    /// By the account of the session's arena; as estimated where it keeps none.
    fn usage(&self) -> Vec<Memory> {
        let usage = match (self.loaded, Arena::of(&self.session)) {
            (Some(loaded), Some(now)) => now.usage(loaded, &self.estimate),
            _ => self.estimate.clone(),
        };
        vec![usage]
    }

    fn infer(
        &self,
        request: &InferRequest,
        inputs: &[NamedTensor<'_>],
        outputs: &mut dyn TensorSink,
        cancel: &Cancel,
    ) -> Result<()> {
        let tensors = self.ports.bind(inputs)?;
        let aligned = self
            .ports
            .inputs
            .iter()
            .zip(&tensors)
            .map(|(port, tensor)| Aligned::new(&port.name, tensor))
            .collect::<Result<Vec<_>>>()?;
        let tensors = aligned.iter().map(Aligned::view).collect::<Result<Vec<_>>>()?;
        let wanted = |index: usize, trusted: bool| Wanted {
            name: &self.output_names[index],
            port: &self.ports.outputs[index],
            promised: if trusted { self.ports.promised_shape(index, &tensors) } else { None },
        };
        let selected = self.ports.select(&request.outputs)?;
        let wanted = |trusted: bool| selected.iter().map(|i| wanted(*i, trusted)).collect::<Vec<_>>();

        let _turn = self.gate.enter(cancel)?;
        let bound = wanted(self.trusts_shapes.load(Ordering::Relaxed));
        let result = self.run(&tensors, &bound, outputs, cancel);
        match result {
            // The runtime refuses memory of another size than the output turns out to have. Whether that was the
            // reason shows when it may make the memory itself.
            Err(error) if is_refusal(&error) && bound.iter().any(|w| w.promised.is_some()) => {
                self.run(&tensors, &wanted(false), outputs, cancel)?;
                self.trusts_shapes.store(false, Ordering::Relaxed);
                self.host.log(
                    Level::Warn,
                    format!("a model gives other shapes than it declares; its outputs are copied from now on ({error})"),
                );
                Ok(())
            }
            result => result,
        }
    }
}

/// Whether the runtime itself refused or failed, other than because it was told to stop.
fn is_refusal(error: &PluginError) -> bool {
    error.code == INFERENCE_FAILED || error.code == codes::INVALID_INPUT
}

fn names(ports: &[Port]) -> Result<Vec<CString>> {
    let name = |port: &Port| CString::new(port.name.as_str()).map_err(|e| internal(ENGINE, e));
    ports.iter().map(name).collect()
}
