//! The smallest useful backend: models of the format `scale` are text files that hold one number; running one
//! multiplies the tensor `x` by it.

use pajamas_plugin_api::{
    Backend, BackendInfo, Cancel, DType, DeviceInfo, Dim, HostContext, InferRequest, LoadRequest, Memory,
    NamedTensor, Plugin, PluginError, PluginInfo, Probe, ProgressSink, Result, Session, Signature,
    TensorSink, TensorSpec, TensorView, as_bytes, capability, codes, export_plugin,
};

struct Scale;

impl Backend for Scale {
    fn describe(&self) -> BackendInfo {
        BackendInfo {
            id: "scale".into(),
            description: "Multiplies a tensor by the number in the model file".into(),
            formats: vec!["scale".into()],
            precisions: vec!["f32".into()],
            device_kinds: vec!["cpu".into()],
            capabilities: vec![capability::INFER.into()],
            options_schema: Default::default(),
        }
    }

    fn probe(&self) -> Probe {
        let cpu = DeviceInfo { id: "cpu".into(), name: "CPU".into(), memory_total: 0, memory_free: 0 };
        Probe { score: 100, reason: "runs on every processor".into(), devices: vec![cpu] }
    }

    fn estimate(&self, request: &LoadRequest) -> Result<Vec<Memory>> {
        Ok(self.open(request)?.usage())
    }

    fn load(
        &self,
        request: &LoadRequest,
        _: &mut dyn ProgressSink,
        cancel: &Cancel,
    ) -> Result<Box<dyn Session>> {
        cancel.check()?;
        Ok(Box::new(self.open(request)?))
    }
}

impl Scale {
    fn open(&self, request: &LoadRequest) -> Result<ScaleSession> {
        request.check(&self.describe(), &self.probe())?;
        let path = &request.path;
        let text = std::fs::read(path).map_err(|e| PluginError::model_unreadable(path, &e))?;
        let invalid = |e| PluginError::new(codes::MODEL_INVALID, format!("{}: {e}", path.display()));
        let factor = String::from_utf8_lossy(&text).trim().parse().map_err(invalid)?;
        Ok(ScaleSession { factor })
    }
}

struct ScaleSession {
    factor: f32,
}

impl Session for ScaleSession {
    fn signature(&self) -> Signature {
        let shape = vec![Dim::Dynamic("n".into())];
        let port = |name: &str| TensorSpec { name: name.into(), dtype: DType::F32, shape: shape.clone() };
        Signature {
            capabilities: vec![capability::INFER.into()],
            inputs: vec![port("x")],
            outputs: vec![port("y")],
            ..Signature::default()
        }
    }

    fn usage(&self) -> Vec<Memory> {
        vec![Memory { device: "cpu".into(), weights: 4, ..Memory::default() }]
    }

    fn infer(
        &self,
        request: &InferRequest,
        inputs: &[NamedTensor<'_>],
        outputs: &mut dyn TensorSink,
        cancel: &Cancel,
    ) -> Result<()> {
        cancel.check()?;
        self.signature().check_request(request, inputs)?;
        let x = inputs[0].tensor;
        let y: Vec<f32> = x.elements::<f32>()?.iter().map(|x| x * self.factor).collect();
        outputs.write("y", TensorView::new(DType::F32, x.shape(), as_bytes(&y))?)
    }
}

fn plugin(_host: HostContext) -> Result<Plugin> {
    let (name, version, license) =
        ("minimal".into(), env!("CARGO_PKG_VERSION").into(), "MIT OR Apache-2.0".into());
    Ok(Plugin::new(PluginInfo { name, version, license, ..PluginInfo::default() }).backend(Scale))
}

export_plugin!(name: "minimal", version: env!("CARGO_PKG_VERSION"), create: plugin);
