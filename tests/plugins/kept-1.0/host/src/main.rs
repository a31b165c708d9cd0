//! A small host: loads the plugins named on the command line, in that order and all in one process, then runs the
//! model `MODEL` of the format `scale` on each. Prints one JSON object a plugin.
//!
//! `kept-host MODEL PLUGIN…`

use std::error::Error;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use pajamas_plugin_api::host::{LoadedPlugin, Policy, open};
use pajamas_plugin_api::{
    Cancel, DType, HostContext, HostServices, InferRequest, Level, LoadRequest, NamedTensor, OutputSpec,
    PluginError, Result, TensorSink, TensorView, TensorViewMut, as_bytes,
};
use serde_json::{Value, json};

#[derive(Clone, Default)]
struct Services(Arc<Mutex<Vec<String>>>);

impl HostServices for Services {
    fn log(&self, _level: Level, message: &str) {
        if let Ok(mut lines) = self.0.lock() {
            lines.push(message.to_owned());
        }
    }

    fn plugin_dir(&self) -> PathBuf {
        PathBuf::from("/")
    }

    fn settings(&self) -> Value {
        json!({"from": "the host"})
    }
}

#[derive(Default)]
struct Floats(Vec<f32>);

impl TensorSink for Floats {
    fn allocate<'s>(&'s mut self, outputs: &[OutputSpec<'_>]) -> Result<Vec<TensorViewMut<'s>>> {
        let [output] = outputs else { return Err(PluginError::invalid_input("one output at a time")) };
        self.0 = vec![0.0; output.shape.iter().product::<u64>() as usize];
        let length = 4 * self.0.len();
        // SAFETY: f32 has no padding and takes every bit pattern; the slice borrows the vector.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), length) };
        Ok(vec![TensorViewMut::new(DType::F32, output.shape, bytes)?])
    }
}

fn run(plugin: &LoadedPlugin, services: &Services, model: &Path) -> Result<Value> {
    let backend = &plugin.backends[0].backend;
    let request = LoadRequest {
        path: model.to_path_buf(),
        format: "scale".into(),
        device: String::new(),
        options: Value::Null,
    };
    let mut progress = |_: f32, _: &str| ControlFlow::Continue(());
    let session = backend.load(&request, &mut progress, &Cancel::new())?;
    let x = [1.0f32, 2.0, 3.0];
    let x = NamedTensor { name: "x", tensor: TensorView::new(DType::F32, &[3], as_bytes(&x))? };
    let mut y = Floats::default();
    session.infer(&InferRequest::default(), &[x], &mut y, &Cancel::new())?;
    let log = services.0.lock().map(|l| l.clone()).unwrap_or_default();
    Ok(json!({"plugin": plugin.info.name, "y": y.0, "log": log}))
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let model = arguments.next().ok_or("usage: HOST MODEL PLUGIN…")?;
    let mut loaded = Vec::new();
    for path in arguments {
        let services = Services::default();
        let host = services.clone();
        let (report, plugin) = open(&path, Policy { require_hash: false }, |_, _| HostContext::new(host));
        let plugin = plugin.ok_or_else(|| format!("{}: {:?}", path.display(), report.error()))?;
        loaded.push((plugin, services));
    }
    for (plugin, services) in &loaded {
        println!("{}", run(plugin, services, &model)?);
    }
    Ok(())
}
