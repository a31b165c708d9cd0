//! Breaks the contract of every method without crashing: what only a conformance check finds.

use std::sync::atomic::{AtomicU32, Ordering};

use pajamas_plugin_api::{
    Backend, BackendInfo, Cancel, DType, Dim, Extension, InferRequest, LoadRequest, Memory, NamedTensor,
    OutputSpec, Probe, ProgressSink, QuantizePlan, QuantizeReport, QuantizeRequest, Quantizer, QuantizerInfo,
    Result, Session, Signature, TensorSink, TensorSpec,
};

use crate::extension::{Broken, Obliging};

/// Accepts everything, promises anything.
#[derive(Default)]
pub struct Careless {
    probes: AtomicU32,
}

impl Backend for Careless {
    fn describe(&self) -> BackendInfo {
        BackendInfo {
            id: "Care Less".into(),
            description: String::new(),
            formats: vec!["careless".into()],
            precisions: Vec::new(),
            device_kinds: Vec::new(),
            capabilities: Vec::new(),
            options_schema: serde_json::json!("anything"),
        }
    }

    fn probe(&self) -> Probe {
        Probe {
            score: 1 + self.probes.fetch_add(1, Ordering::Relaxed),
            reason: String::new(),
            devices: Vec::new(),
        }
    }

    fn estimate(&self, _request: &LoadRequest) -> Result<Vec<Memory>> {
        Ok(Vec::new())
    }

    fn load(
        &self,
        _request: &LoadRequest,
        _progress: &mut dyn ProgressSink,
        _cancel: &Cancel,
    ) -> Result<Box<dyn Session>> {
        Ok(Box::new(CarelessSession))
    }

    fn extension(&self, _name: &str) -> Option<Box<dyn Extension>> {
        Some(Box::new(Obliging))
    }
}

impl Quantizer for Careless {
    fn describe(&self) -> QuantizerInfo {
        QuantizerInfo {
            id: "Care Less".into(),
            description: String::new(),
            sources: vec!["careless".into()],
            target: "careless".into(),
            precisions: vec!["any".into()],
            options_schema: serde_json::Value::Null,
        }
    }

    fn plan(&self, _request: &QuantizeRequest) -> Result<QuantizePlan> {
        Ok(QuantizePlan::default())
    }

    fn run(
        &self,
        _request: &QuantizeRequest,
        _progress: &mut dyn ProgressSink,
        _cancel: &Cancel,
    ) -> Result<QuantizeReport> {
        Ok(QuantizeReport::default())
    }

    fn extension(&self, _name: &str) -> Option<Box<dyn Extension>> {
        Some(Box::new(Broken))
    }
}

struct CarelessSession;

impl Session for CarelessSession {
    fn signature(&self) -> Signature {
        let port = TensorSpec { name: "x".into(), dtype: DType::F32, shape: vec![Dim::Fixed(2)] };
        Signature {
            capabilities: vec!["infer".into(), "generate".into()],
            inputs: vec![port.clone()],
            outputs: vec![port],
            ..Signature::default()
        }
    }

    fn usage(&self) -> Vec<Memory> {
        vec![Memory { device: "cpu".into(), weights: 1 << 30, ..Memory::default() }]
    }

    fn infer(
        &self,
        _request: &InferRequest,
        _inputs: &[NamedTensor<'_>],
        outputs: &mut dyn TensorSink,
        _cancel: &Cancel,
    ) -> Result<()> {
        outputs.allocate(&[OutputSpec { name: "x", dtype: DType::F32, shape: &[7] }]).map(drop)
    }
}
