//! The smallest useful backend: models of the format `scale` are text files that hold one number; running one
//! multiplies the tensor `x` by it.

use pajamas_plugin_api::{
    Backend, BackendInfo, Cancel, DType, DeviceInfo, Dim, HostContext, InferRequest, LoadRequest, Memory,
    NamedTensor, OutputSpec, Plugin, PluginError, PluginInfo, Probe, ProgressSink, Result, Session,
    Signature, TensorSink, TensorSpec, capability, codes, export_plugin,
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

    fn estimate(&self, _request: &LoadRequest) -> Result<Vec<Memory>> {
        Ok(vec![Memory { device: "cpu".into(), weights: 4, ..Memory::default() }])
    }

    fn load(&self, request: &LoadRequest, _: &mut dyn ProgressSink, _: &Cancel) -> Result<Box<dyn Session>> {
        let path = request.path.display();
        let text = std::fs::read_to_string(&request.path)
            .map_err(|e| PluginError::new(codes::MODEL_NOT_FOUND, format!("{path}: {e}")))?;
        let factor = text.trim().parse().map_err(|e| {
            PluginError::new(codes::MODEL_INVALID, format!("{path}: {e}"))
                .help("the file must hold one number")
        })?;
        Ok(Box::new(ScaleSession { factor }))
    }
}

struct ScaleSession {
    factor: f32,
}

impl Session for ScaleSession {
    fn signature(&self) -> Signature {
        let port = |name: &str| TensorSpec {
            name: name.into(),
            dtype: DType::F32,
            shape: vec![Dim::Dynamic("n".into())],
        };
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
        _request: &InferRequest,
        inputs: &[NamedTensor<'_>],
        outputs: &mut dyn TensorSink,
        cancel: &Cancel,
    ) -> Result<()> {
        cancel.check()?;
        let [input] = inputs else {
            return Err(PluginError::invalid_input("exactly one input, `x`, is needed"));
        };
        let x = input.tensor.elements::<f32>()?;
        let mut y =
            outputs.allocate(&[OutputSpec { name: "y", dtype: DType::F32, shape: input.tensor.shape() }])?;
        for (out, x) in y[0].bytes().chunks_exact_mut(4).zip(x) {
            out.copy_from_slice(&(x * self.factor).to_le_bytes());
        }
        Ok(())
    }
}

fn plugin(_host: HostContext) -> Result<Plugin> {
    let info = PluginInfo {
        name: "minimal".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..PluginInfo::default()
    };
    Ok(Plugin::new(info).backend(Scale))
}

export_plugin!(name: "minimal", version: env!("CARGO_PKG_VERSION"), create: plugin);
