//! Checks of inference on tensors.

use std::sync::Arc;

use super::model::Subject;
use super::runner::{Finding, Runner, fault, is_fault, passed, refused, refused_somehow, skipped};
use super::sink::Tensors;
use crate::{
    Cancel, DType, Dim, InferRequest, NamedTensor, PluginError, Result, TensorSpec, TensorView, byte_len,
    capability, codes,
};

/// What dynamic dimensions are tried with, until the model accepts one.
const SIZES: [u64; 4] = [1, 8, 64, 224];
/// The size of a large input.
const LARGE: u64 = 16 << 20;

/// Zeros for one input.
#[derive(Clone)]
struct Zeros {
    name: String,
    dtype: DType,
    shape: Vec<u64>,
    words: Vec<u64>,
    bytes: usize,
}

impl Zeros {
    fn new(name: &str, dtype: DType, shape: Vec<u64>) -> Result<Self> {
        let bytes = byte_len(dtype, &shape)?;
        Ok(Self { name: name.into(), dtype, shape, words: vec![0; bytes.div_ceil(8)], bytes })
    }

    fn of(spec: &TensorSpec, size: u64) -> Result<Self> {
        let shape = spec.shape.iter().map(|d| if let Dim::Fixed(n) = d { *n } else { size }).collect();
        Self::new(&spec.name, spec.dtype, shape)
    }

    fn named(&self) -> Result<NamedTensor<'_>> {
        let bytes = &crate::as_bytes(&self.words)[..self.bytes];
        Ok(NamedTensor { name: &self.name, tensor: TensorView::new(self.dtype, &self.shape, bytes)? })
    }
}

/// Runs the session on these inputs and checks what it writes.
fn infer(subject: &Subject, inputs: &[Zeros], request: &InferRequest, limit: u64) -> Result<u64> {
    let inputs = inputs.iter().map(Zeros::named).collect::<Result<Vec<_>>>()?;
    let mut sink = Tensors::new(limit);
    subject.session.infer(request, &inputs, &mut sink, &Cancel::new())?;
    sink.check(&subject.signature, request)?;
    Ok(sink.total())
}

pub(super) fn check(runner: &mut Runner, subject: &Subject) {
    if !subject.can(capability::INFER) {
        runner.skip("infers", "the session does not offer it");
        return;
    }
    let limit = runner.options.output_limit;
    let (a, found) = (subject.clone(), Arc::new(std::sync::OnceLock::new()));
    let keep = Arc::clone(&found);
    let works = runner.run("infers from zeros", move || {
        let (inputs, finding) = zeros(&a, limit)?;
        // Set once: this is the only check that does.
        let _ = keep.set(inputs);
        finding
    });
    let Some(inputs) = found.get().filter(|_| works).cloned() else { return };

    for (name, wrong) in wrong_inputs(&inputs) {
        let a = subject.clone();
        runner.run(&format!("refuses {name}"), move || {
            let inputs = wrong.map_err(fault("the kit's own input"))?;
            refused(infer(&a, &inputs, &InferRequest::default(), limit), &[codes::INVALID_INPUT])
        });
    }
    let (a, good) = (subject.clone(), inputs.clone());
    runner.run("writes only the outputs asked for", move || some_outputs(&a, &good, limit));
    let (a, good) = (subject.clone(), inputs.clone());
    runner.run("refuses an unknown output", move || {
        let request = InferRequest { outputs: vec!["no-such-output".into()] };
        refused_somehow(infer(&a, &good, &request, limit))
    });
    let (a, good) = (subject.clone(), inputs.clone());
    runner.run("passes on that the host has no room", move || {
        match infer(&a, &good, &InferRequest::default(), limit) {
            Ok(0) => skipped("its outputs are empty"),
            _ => refused(infer(&a, &good, &InferRequest::default(), 0), &[codes::OUTPUT_TOO_LARGE]),
        }
    });
    let (a, good) = (subject.clone(), inputs.clone());
    runner.run("does not infer once cancelled", move || {
        let inputs = good.iter().map(Zeros::named).collect::<Result<Vec<_>>>().map_err(fault("input"))?;
        let cancel = Cancel::new();
        cancel.cancel();
        let result = a.session.infer(&InferRequest::default(), &inputs, &mut Tensors::new(limit), &cancel);
        refused(result, &[codes::CANCELLED])
    });
    let a = subject.clone();
    runner.run("takes a large tensor", move || large(&a, limit));
    let (a, threads) = (subject.clone(), runner.options.threads);
    runner.run("infers on several threads at once", move || {
        super::text::together(threads, || infer(&a, &inputs, &InferRequest::default(), limit).map(drop))
    });
}

/// Inputs the model accepts, with what came of them.
fn zeros(subject: &Subject, limit: u64) -> std::result::Result<(Vec<Zeros>, Finding), String> {
    let specs = &subject.signature.inputs;
    let dynamic = specs.iter().flat_map(|s| &s.shape).any(|d| matches!(d, Dim::Dynamic(_)));
    let mut last: Option<PluginError> = None;
    for size in if dynamic { &SIZES[..] } else { &SIZES[..1] } {
        let inputs = specs.iter().map(|s| Zeros::of(s, *size)).collect::<Result<Vec<_>>>();
        let inputs = inputs.map_err(fault("the signature"))?;
        match infer(subject, &inputs, &InferRequest::default(), limit) {
            Ok(bytes) if dynamic => {
                return Ok((inputs, passed(format!("{bytes} bytes, dimensions of {size}"))));
            }
            Ok(bytes) => return Ok((inputs, passed(format!("{bytes} bytes")))),
            Err(error) if is_fault(&error) || error.code.starts_with("output-") => {
                return Err(error.to_string());
            }
            Err(error) => last = Some(error),
        }
    }
    let why = last.map(|e| e.to_string()).unwrap_or_default();
    if dynamic {
        return Ok((Vec::new(), skipped(format!("the model takes none of the sizes tried: {why}"))));
    }
    Err(why)
}

/// Inputs with one thing wrong each.
fn wrong_inputs(good: &[Zeros]) -> Vec<(&'static str, Result<Vec<Zeros>>)> {
    let Some((first, rest)) = good.split_first() else { return Vec::new() };
    let with = |changed: Result<Zeros>| changed.map(|c| [vec![c], rest.to_vec()].concat());
    let other = if first.dtype == DType::I64 { DType::F32 } else { DType::I64 };
    let deeper = [&[1], first.shape.as_slice()].concat();
    vec![
        ("an input of an unknown name", with(Zeros::new("no-such-input", first.dtype, first.shape.clone()))),
        ("an input of another type", with(Zeros::new(&first.name, other, first.shape.clone()))),
        ("an input of another rank", with(Zeros::new(&first.name, first.dtype, deeper))),
        ("a missing input", Ok(rest.to_vec())),
        ("an input given twice", Ok([good, std::slice::from_ref(first)].concat())),
    ]
}

fn some_outputs(subject: &Subject, inputs: &[Zeros], limit: u64) -> Finding {
    let [first, .., _] = subject.signature.outputs.as_slice() else {
        return skipped("the model has only one output");
    };
    let request = InferRequest { outputs: vec![first.name.clone()] };
    infer(subject, inputs, &request, limit).map_err(fault(&format!("asked for `{}`", first.name)))?;
    passed(format!("only `{}`", first.name))
}

/// The first dynamic dimension is raised until the inputs are large.
fn large(subject: &Subject, limit: u64) -> Finding {
    let specs = &subject.signature.inputs;
    let Some(name) = specs.iter().flat_map(|s| &s.shape).find_map(|d| match d {
        Dim::Dynamic(name) => Some(name.clone()),
        Dim::Fixed(_) => None,
    }) else {
        return skipped("the model has no dynamic dimension");
    };
    let sized = |size: u64| -> Result<Vec<Zeros>> {
        let pick = |d: &Dim| match d {
            Dim::Fixed(n) => *n,
            Dim::Dynamic(n) if *n == name => size,
            Dim::Dynamic(_) => 1,
        };
        specs.iter().map(|s| Zeros::new(&s.name, s.dtype, s.shape.iter().map(pick).collect())).collect()
    };
    let bytes = |inputs: &[Zeros]| inputs.iter().map(|i| i.bytes as u64).sum::<u64>();
    let one = bytes(&sized(1).map_err(fault("the signature"))?);
    let inputs = sized(LARGE.div_ceil(one.max(1))).map_err(fault("the signature"))?;
    let detail = format!("{} bytes of input", bytes(&inputs));
    match infer(subject, &inputs, &InferRequest::default(), limit) {
        Ok(_) => passed(detail),
        Err(e) if e.code == codes::INVALID_INPUT => skipped(format!("the model does not take it: {e}")),
        Err(e) if [codes::OUT_OF_MEMORY, codes::OUTPUT_TOO_LARGE].contains(&e.code.as_str()) => {
            passed(format!("{detail}: {e}"))
        }
        Err(e) => Err(format!("{detail}: {e}")),
    }
}
