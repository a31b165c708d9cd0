//! What the tests share: both backends, a sink, small models.

#![allow(dead_code, reason = "each test file uses its own part")]

pub mod onnx;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pajamas_plugin_api::{
    Backend, Cancel, DType, HostContext, InferRequest, LoadRequest, NamedTensor, OutputSpec, Result, Session,
    TensorSink, TensorView, TensorViewMut, byte_len,
};
use serde_json::Value;

/// The backends that can run here: rten always, onnxruntime when its library is found.
pub fn engines() -> Vec<Box<dyn Backend>> {
    let host = HostContext::for_tests(std::env::temp_dir());
    let plugin = pajamas_onnx::plugin(host).unwrap();
    let (usable, missing): (Vec<_>, Vec<_>) = plugin.backends.into_iter().partition(|b| b.probe().score > 0);
    for backend in missing {
        eprintln!("skipped: {}: {}", backend.describe().id, backend.probe().reason);
    }
    usable
}

/// One backend by its id, when it can run here.
pub fn engine(id: &str) -> Option<Box<dyn Backend>> {
    engines().into_iter().find(|b| b.describe().id == id)
}

/// A file among the shared assets, when they are there.
pub fn asset(path: &str) -> Option<PathBuf> {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/assets");
    let file = assets.join(path);
    if !file.exists() {
        eprintln!("skipped: {} is not there", file.display());
        return None;
    }
    Some(file)
}

pub fn request(path: &Path, options: Value) -> LoadRequest {
    LoadRequest { path: path.to_path_buf(), format: "onnx".into(), device: String::new(), options }
}

pub fn load_with(backend: &dyn Backend, path: &Path, options: Value) -> Result<Box<dyn Session>> {
    backend.load(
        &request(path, options),
        &mut |_: f32, _: &str| std::ops::ControlFlow::Continue(()),
        &Cancel::new(),
    )
}

pub fn load(backend: &dyn Backend, path: &Path) -> Result<Box<dyn Session>> {
    load_with(backend, path, Value::Null)
}

/// A model written to a folder that lives as long as the result.
pub fn model_file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

/// An owned tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub dtype: DType,
    pub shape: Vec<u64>,
    pub bytes: Vec<u8>,
}

impl Tensor {
    pub fn new(dtype: DType, shape: &[u64], bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        assert_eq!(byte_len(dtype, shape).unwrap(), bytes.len());
        Self { dtype, shape: shape.to_vec(), bytes }
    }

    pub fn f32(shape: &[u64], values: &[f32]) -> Self {
        Self::new(DType::F32, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
    }

    pub fn i64(shape: &[u64], values: &[i64]) -> Self {
        Self::new(DType::I64, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
    }

    pub fn view(&self) -> TensorView<'_> {
        TensorView::new(self.dtype, &self.shape, &self.bytes).unwrap()
    }

    pub fn to_f32(&self) -> Vec<f32> {
        assert_eq!(self.dtype, DType::F32);
        self.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }
}

/// A sink over memory aligned to eight bytes that remembers how it was filled.
#[derive(Default)]
pub struct Outputs {
    tensors: BTreeMap<String, (DType, Vec<u64>, Vec<u64>)>,
    /// Tensors that were copied in whole rather than written where they lie.
    pub copied: Vec<String>,
}

impl Outputs {
    pub fn get(&self, name: &str) -> Tensor {
        let (dtype, shape, words) = &self.tensors[name];
        let bytes = pajamas_plugin_api::as_bytes(words);
        Tensor::new(*dtype, shape, &bytes[..byte_len(*dtype, shape).unwrap()])
    }

    pub fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }
}

impl TensorSink for Outputs {
    fn allocate<'s>(&'s mut self, outputs: &[OutputSpec<'_>]) -> Result<Vec<TensorViewMut<'s>>> {
        for OutputSpec { name, dtype, shape } in outputs {
            let words = vec![0; byte_len(*dtype, shape)?.div_ceil(8)];
            self.tensors.insert((*name).to_owned(), (*dtype, shape.to_vec(), words));
        }
        let mut slots: BTreeMap<&str, TensorViewMut<'s>> = BTreeMap::new();
        for (name, (dtype, shape, words)) in &mut self.tensors {
            let length = byte_len(*dtype, shape)?;
            // SAFETY: every word is initialised, and u8 has no alignment.
            let bytes = unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast::<u8>(), length) };
            slots.insert(name, TensorViewMut::new(*dtype, shape, bytes)?);
        }
        Ok(outputs.iter().filter_map(|spec| slots.remove(spec.name)).collect())
    }

    fn write(&mut self, name: &str, tensor: TensorView<'_>) -> Result<()> {
        self.copied.push(name.to_owned());
        let spec = OutputSpec { name, dtype: tensor.dtype(), shape: tensor.shape() };
        let mut slots = self.allocate(&[spec])?;
        slots[0].bytes().copy_from_slice(tensor.bytes());
        Ok(())
    }
}

/// Runs the session on named tensors.
pub fn infer(session: &dyn Session, inputs: &[(&str, &Tensor)]) -> Result<Outputs> {
    infer_only(session, inputs, &[])
}

/// Runs the session for some outputs.
pub fn infer_only(session: &dyn Session, inputs: &[(&str, &Tensor)], wanted: &[&str]) -> Result<Outputs> {
    let named: Vec<_> = inputs.iter().map(|(name, t)| NamedTensor { name, tensor: t.view() }).collect();
    let request = InferRequest { outputs: wanted.iter().map(|w| (*w).to_owned()).collect() };
    let mut outputs = Outputs::default();
    session.infer(&request, &named, &mut outputs, &Cancel::new())?;
    Ok(outputs)
}
